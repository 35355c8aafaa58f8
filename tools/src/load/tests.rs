//! A whole run over real sockets, through a relay that mistreats packets by plan.

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use clap::Parser as _;

use super::{plan, sockets::Sockets, *};
use crate::cli::{Cli, Command};

const PACKETS: u64 = 2_000;

fn arguments(text: &str) -> LoadArgs {
    match Cli::try_parse_from(text.split_whitespace()).expect("valid").command {
        Command::Load(args) => args,
        other => panic!("{other:?}"),
    }
}

fn run(args: &LoadArgs) -> Report {
    let plan = plan::read(args).expect("a plan");
    let datagram = RTP_HEADER_BYTES + usize::from(args.payload_bytes);
    drive(args, &plan, &mut Sockets::open(&plan, datagram).expect("sockets")).expect("a run")
}

#[test]
fn everything_that_arrives_whole_is_counted_once() {
    let report = run(&arguments(
        "ravelin load --from 127.9.7.10:21000 --to 127.9.7.11:21000 --streams 20 --rate 5000 --seconds 0.4",
    ));
    let counts = &report.counts;
    assert_eq!((counts.sent, counts.received, counts.lost), (PACKETS, PACKETS, 0));
    assert_eq!((counts.corrupt, counts.misdelivered, counts.silent_streams), (0, 0, 0));
    assert!(report.latency_us.p50 > 0.0 && report.latency_us.max >= report.latency_us.p99);
}

#[test]
fn a_run_with_rests_loses_nothing_and_its_time_is_without_them() {
    let began = Instant::now();
    let report = run(&arguments(
        "ravelin load --from 127.9.24.10:21000 --to 127.9.24.11:21000 --rate 2000 --seconds 1 --rests",
    ));
    let all = began.elapsed().as_secs_f64();
    let counts = &report.counts;
    assert_eq!((counts.sent, counts.received, counts.lost), (PACKETS, PACKETS, 0));
    let rests = report.generator.rests;
    assert!(rests >= 2, "{rests}");
    // However slow the machine is, these took place within the run and not within each other.
    let rested = (rests * REST).as_secs_f64();
    assert!(report.seconds + rested <= all, "{} + {rested} > {all}", report.seconds);
}

#[test]
fn what_a_relay_does_to_packets_is_what_is_reported() {
    let relay = UdpSocket::bind("127.9.7.11:22000").expect("relay");
    relay.set_read_timeout(Some(Duration::from_millis(20))).expect("timeout");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let relaying = thread::spawn(move || {
        let mut buffer = [0; 2_048];
        let mut held: Option<Vec<u8>> = None;
        let (mut number, mut fates) = (0_u64, [0_u64; 4]);
        let send = |bytes: &[u8]| relay.send_to(bytes, "127.9.7.12:22000").expect("send");
        while !stopped.load(Ordering::Relaxed) {
            let Ok((length, _)) = relay.recv_from(&mut buffer) else { continue };
            number += 1;
            let packet = &mut buffer[..length];
            if let Some(older) = held.take() {
                send(packet);
                send(&older);
                continue;
            }
            match number % 20 {
                3 => fates[0] += 1,
                7 => {
                    fates[1] += 1;
                    send(packet);
                    send(packet);
                }
                11 => {
                    fates[2] += 1;
                    packet[60] ^= 0x40;
                    send(packet);
                }
                15 => {
                    fates[3] += 1;
                    held = Some(packet.to_vec());
                }
                _ => drop(send(packet)),
            }
        }
        fates
    });
    // Slow: what the relay has no turn for must find room in its socket.
    let report = run(&arguments(
        "ravelin load --from 127.9.7.10:22000 --to 127.9.7.11:22000 --arrive 127.9.7.12:22000 --rate 1000 --seconds 2",
    ));
    stop.store(true, Ordering::Relaxed);
    let [dropped, doubled, bent, swapped] = relaying.join().expect("relay");
    assert_eq!([dropped, doubled, bent, swapped], [PACKETS / 20; 4]);
    let counts = &report.counts;
    assert_eq!(counts.sent, PACKETS);
    assert_eq!(counts.lost, dropped + bent);
    assert_eq!(counts.received, PACKETS - dropped - bent);
    assert_eq!((counts.duplicates, counts.corrupt, counts.reordered), (doubled, bent, swapped));
}
