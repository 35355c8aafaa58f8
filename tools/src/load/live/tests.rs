//! The programs of the kernel against what user space writes and reads, over one veth.

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use clap::Parser as _;
use ravelin_io::traffic::{Faults, Tally};

use super::{
    super::{Medium as _, RTP_HEADER_BYTES, Stamp},
    *,
};
use crate::cli::{Cli, Command as Wanted};

const STREAMS: u32 = 6;
/// No multiple of a word: the pattern ends in the middle of one.
const PAYLOAD: u16 = 165;
const DATAGRAM: usize = RTP_HEADER_BYTES + PAYLOAD as usize;
const WAIT: Duration = Duration::from_secs(20);

fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// a0 in one network namespace, b0 in another; streams go both ways between them.
struct Wire {
    names: [String; 2],
    plan: Plan,
}

impl Wire {
    /// None where this machine does not let us.
    fn new(test: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let names = ["a", "b"].map(|end| format!("rvl-load-{end}-{tag}"));
        let tool = |name: &str| Command::new(name).arg("--version").output().is_ok();
        let root = || {
            let made = Command::new("ip").args(["netns", "add", &names[0]]).output();
            made.is_ok_and(|output| output.status.success())
        };
        if !(tool("ip") && tool("ethtool") && root()) {
            println!("skipped: {test}: needs ip, ethtool and root");
            return None;
        }
        run(&format!("ip netns add {}", names[1]));
        let [a, b] = &names;
        run(&format!("ip link add a0 netns {a} type veth peer name b0 netns {b}"));
        for (name, link) in [(a, "a0"), (b, "b0")] {
            run(&format!("ip netns exec {name} sysctl -qw net.ipv6.conf.all.disable_ipv6=1"));
            run(&format!("ip -n {name} link set {link} up"));
        }
        // Once both are up: else the other end does not learn that it may send frames.
        for (name, link) in [(a, "a0"), (b, "b0")] {
            run(&format!("ip netns exec {name} ethtool -K {link} gro on"));
        }
        let mac = |name: &str, link: &str| {
            let text = run(&format!("ip -n {name} -o link show {link}"));
            text.split("link/ether ").nth(1).unwrap()[..17].to_owned()
        };
        let sides = serde_json::json!([
            { "netns": a, "interface": "a0", "next_hop": mac(b, "b0") },
            { "netns": b, "interface": "b0", "next_hop": mac(a, "a0") },
        ]);
        let streams: Vec<_> = (0..STREAMS)
            .map(|number| {
                let side = number % 2;
                let address = |side| format!("10.0.{side}.1:{}", 5000 + number);
                let (from, to) = (address(side), address(1 - side));
                let arrives = serde_json::json!({ "side": 1 - side, "at": to, "from": from });
                serde_json::json!({ "side": side, "from": from, "to": to, "arrives": arrives })
            })
            .collect();
        let plan = serde_json::json!({ "sides": sides, "streams": streams });
        Some(Self { names, plan: serde_json::from_value(plan).unwrap() })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn arguments(text: &str) -> LoadArgs {
    match Cli::try_parse_from(text.split_whitespace()).unwrap().command {
        Wanted::Load(args) => args,
        other => panic!("{other:?}"),
    }
}

fn failed(failure: Failure) -> String {
    format!("{failure:?}")
}

#[test]
fn quantiles_are_those_of_the_packets() {
    let latency = latency(&[(1_000, 500), (2_000, 490), (3_000, 9), (9_000, 1)]);
    assert_eq!((latency.p50, latency.p99, latency.p99_9, latency.max), (1.0, 2.0, 3.0, 9.0));
}

#[test]
fn a_run_sends_and_counts_every_packet() {
    let Some(wire) = Wire::new("a_run_sends_and_counts_every_packet") else { return };
    let args = arguments(&format!(
        "ravelin load --plan none --via xdp --rate 5000 --seconds 2 --payload-bytes {PAYLOAD}"
    ));
    let report = drive(&args, &wire.plan, DATAGRAM).map_err(failed).unwrap();
    let counts = &report.counts;
    assert_eq!((counts.sent, counts.received, counts.lost), (10_000, 10_000, 0), "{counts:?}");
    assert_eq!((counts.corrupt, counts.misdelivered, counts.silent_streams), (0, 0, 0));
    assert!(report.latency_us.p50 > 0.0 && report.latency_us.max >= report.latency_us.p99);
}

#[test]
fn a_run_with_rests_is_the_same_run_and_its_time_is_without_them() {
    let Some(wire) = Wire::new("a_run_with_rests_is_the_same_run_and_its_time_is_without_them")
    else {
        return;
    };
    let args = arguments(&format!(
        "ravelin load --plan none --via xdp --rate 5000 --seconds 1 --payload-bytes {PAYLOAD} --rests"
    ));
    let began = Instant::now();
    let report = drive(&args, &wire.plan, DATAGRAM).map_err(failed).unwrap();
    let all = began.elapsed().as_secs_f64();
    let counts = &report.counts;
    assert_eq!((counts.sent, counts.received, counts.lost), (5_000, 5_000, 0), "{counts:?}");
    assert_eq!((counts.duplicates, counts.corrupt, counts.misdelivered), (0, 0, 0));
    assert_eq!(report.generator.rests, 2);
    // However slow the machine is, both took place within the run and not within each other.
    let rested = (report.generator.rests * REST).as_secs_f64();
    assert!(report.seconds + rested <= all, "{} + {rested} > {all}", report.seconds);
}

/// What the source writes is what user space would have written, checksums included.
#[test]
fn the_source_writes_what_the_content_says() {
    let Some(wire) = Wire::new("the_source_writes_what_the_content_says") else { return };
    let mut frames = frames::Frames::open(&wire.plan, DATAGRAM).map_err(failed).unwrap();
    let traffic = open(&wire.plan, DATAGRAM, |side| side == 0).map_err(failed).unwrap();
    let run = traffic::Run { total: 600, rate: 1e6, payload: PAYLOAD, payload_type: 8 };
    traffic.begin(&run, STREAMS).unwrap();
    let mut seen = vec![0; STREAMS as usize];
    let began = Instant::now();
    // Those of the other side find no interface and are dropped.
    while seen.iter().sum::<u64>() < 300 && began.elapsed() < WAIT {
        traffic.poll(PAYLOAD, 64).unwrap();
        let taken = frames.receive(&mut |arrived| {
            let stamp = content::check(arrived.bytes, PAYLOAD).unwrap();
            assert_eq!(arrived.bytes[1], 8);
            assert_eq!(stamp.number, seen[stamp.stream as usize]);
            seen[stamp.stream as usize] += 1;
        });
        taken.map_err(failed).unwrap();
    }
    assert_eq!(seen, [100, 0, 100, 0, 100, 0]);
    let progress = traffic.progress().unwrap();
    assert_eq!(progress.sent, 600);
    assert!(progress.ended_ns > progress.begun_ns);
}

#[test]
fn the_sink_tells_the_fates_of_packets_apart() {
    let Some(wire) = Wire::new("the_sink_tells_the_fates_of_packets_apart") else { return };
    let mut frames = frames::Frames::open(&wire.plan, DATAGRAM).map_err(failed).unwrap();
    let traffic = open(&wire.plan, DATAGRAM, |side| side == 1).map_err(failed).unwrap();
    let run = traffic::Run { total: 0, rate: 1.0, payload: PAYLOAD, payload_type: 0 };
    traffic.begin(&run, STREAMS).unwrap();
    // By stream 0, or as if by another; the octet that is changed.
    let mut send = |stream: u32, number: u64, changed: Option<usize>| {
        let pushed = frames.push(0, &mut |into| {
            let length = content::write(Stamp { stream, number, sent_ns: 1 }, PAYLOAD, 0, into);
            if let Some(octet) = changed {
                into[octet] ^= 0x10;
            }
            length
        });
        assert!(pushed);
        assert_eq!(frames.flush().map_err(failed).unwrap(), 0);
    };
    for number in [0, 1, 3, 2, 3, 100, 36, 37] {
        send(0, number, None);
    }
    // Each part of a packet; the fixed octets of the mark make it foreign.
    let corrupt = [0, 2, 5, 9, 16, 23, 40, 100, DATAGRAM - 6, DATAGRAM - 1];
    for octet in corrupt {
        send(0, 200, Some(octet));
    }
    send(0, 200, Some(12));
    send(2, 0, None);
    let faults = Faults { corrupt: corrupt.len() as u64, misdelivered: 1, foreign: 1 };
    let began = Instant::now();
    while traffic.faults().unwrap() != faults && began.elapsed() < WAIT {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(traffic.faults().unwrap(), faults);
    // 36 is 64 behind the newest, which is too old to tell; 37 is not.
    let expected = Tally { unique: 6, reordered: 2, duplicates: 2 };
    assert_eq!(traffic.tally(0).unwrap(), expected);
    assert_eq!(traffic.latencies().unwrap().iter().map(|(_, count)| count).sum::<u64>(), 6);
}
