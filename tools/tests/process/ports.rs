//! Media ports: opened beside the calls that go on after `kill -9`.

use std::{
    collections::HashSet,
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::{
    peer::{Peer, bind, connect, header},
    support::{Scratch, config, ravelin, run, text},
    survive::{Up, audio_port, request, start},
};

/// 127.9.N.x.
const NETS: u8 = 22 * 10;
const CALLS: usize = 6;
/// Ports that somebody else has while the next edge starts.
const TAKEN: usize = 10;
/// Ports of one shard that may be somebody else's: `MEDIA_FAILURES_MAX` of the edge.
const MEDIA_FAILURES_MAX: usize = 16;
const ACCESS: std::ops::RangeInclusive<u16> = 20_000..=20_399;
const CORE: std::ops::RangeInclusive<u16> = 30_000..=30_399;

fn at(net: u8, host: u8, port: u16) -> SocketAddr {
    ([127, 9, NETS + net, host], port).into()
}

/// The example, each shard with more ports than it opens before its first turn.
fn document() -> String {
    let text = config(22).replace("127.4.", "127.9.");
    text.replace("20099", &ACCESS.end().to_string()).replace("30099", &CORE.end().to_string())
}

fn place(caller: &mut Peer, carrier: &mut Peer, number: usize) -> Up {
    let (name, user) = (format!("call{number}"), format!("+1212555{number:04}"));
    caller.invite(&name, &user);
    let invite = carrier.expect("INVITE ", &user);
    carrier.reply(&invite, "200 OK");
    carrier.expect("ACK ", &header(&invite, "Call-ID"));
    let answer = caller.expect("SIP/2.0 200", &format!("{name}@"));
    caller.ack(&name, &answer);
    Up { name, answer, invite }
}

/// One RTP packet each way; a few tries, since a test machine may lose one. All tries are the same
/// packet, each way with an SSRC of its own: one that comes late is an answer to the next try, and to
/// no other question.
fn talks(call: &Up) -> bool {
    static WAYS: AtomicU32 = AtomicU32::new(1);
    let (near, far) = (bind(at(1, 7, 40_000)), bind(at(2, 1, 40_000)));
    let to_near = at(0, 10, audio_port(&call.answer));
    let to_far = at(0, 20, audio_port(&call.invite));
    let passes = |from: &UdpSocket, to: SocketAddr, heard: &UdpSocket| {
        heard.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let mut packet = vec![0x80, 0, 0, 1, 0, 0, 0, 160];
        packet.extend_from_slice(&WAYS.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        packet.extend_from_slice(&[0x55; 160]);
        (0..100).any(|_| {
            from.send_to(&packet, to).expect("sent");
            let mut buffer = [0; 2_048];
            heard.recv_from(&mut buffer).is_ok_and(|(length, _)| buffer[..length] == packet)
        })
    };
    passes(&near, to_near, &far) && passes(&far, to_far, &near)
}

/// Lines of the log that a shard writes when it has opened everything.
fn finished(log: &str) -> usize {
    log.matches("all media ports are open").count()
}

/// Calls of a killed edge, new calls and 911 do not wait for ports that nobody has asked for yet; in
/// the end every port of the range is open.
#[test]
fn calls_go_on_while_free_ports_are_still_being_opened() {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &document());
    let mut process = start(&file, &scratch.data());
    assert!(!process.log().contains("still being opened"), "a start of its own opens all first");
    let mut caller = Peer::new(at(1, 7, 0), at(0, 10, 5060));
    let mut carrier = Peer::new(at(2, 1, 5060), at(0, 20, 5060));
    let calls: Vec<Up> = (0..CALLS).map(|n| place(&mut caller, &mut carrier, n)).collect();
    let held: HashSet<u16> = calls.iter().map(|call| audio_port(&call.answer)).collect();

    process.signal("KILL");
    process.wait();
    let free = ACCESS.filter(|port| !held.contains(&(port & !1)));
    let taken: Vec<_> = free.step_by(17).take(TAKEN).map(|port| bind(at(0, 10, port))).collect();
    assert_eq!(taken.len(), TAKEN);
    let mut process = start(&file, &scratch.data());
    process.wait_for_line("media ports are still being opened", 1);
    let told = format!("{CALLS} of its calls go on");
    process.wait_for_line(&told, 1);
    for call in &calls {
        assert!(talks(call), "{} is silent; the log:\n{}", call.name, process.log());
    }
    connect(&mut caller, &mut carrier, "new", "+12125559999");
    let mut psap = Peer::new(at(9, 1, 5060), at(0, 20, 5060));
    caller.invite("help", "911");
    let invite = psap.expect("INVITE ", "");
    psap.reply(&invite, "200 OK");
    caller.expect("SIP/2.0 200", "help@");
    assert!(finished(&process.log()) < 2, "{}", process.log());

    drop(taken);
    process.wait_for_line("all media ports are open", 2);
    for (host, ports) in [(10, ACCESS), (20, CORE)] {
        for port in ports {
            let other = UdpSocket::bind(at(0, host, port)).map_err(|error| error.kind());
            assert_eq!(other.err(), Some(ErrorKind::AddrInUse), "{host}:{port} is not open");
        }
    }
    for call in &calls {
        request(&caller, call, "BYE", 3);
        let bye = carrier.expect("BYE ", &header(&call.invite, "Call-ID"));
        carrier.reply(&bye, "200 OK");
        caller.expect("SIP/2.0 200", "CSeq: 3 BYE");
    }
}

/// A few ports that somebody else has are left out with a warning; more are a mistake in the config or
/// in the machine, and an edge does not start with it. On addresses of its own: no other test is to find
/// its ports taken.
#[test]
fn a_few_ports_of_others_are_left_out_and_many_refuse_the_start() {
    let scratch = Scratch::new();
    let elsewhere = document().replace("127.9.", "127.15.").replace("cores: [0, 1]", "cores: [0]");
    let file = scratch.write("ravelin.yml", &elsewhere);
    let holders = || ACCESS.step_by(2).map(|port| bind(([127, 15, NETS, 10], port).into()));
    let taken: Vec<_> = holders().take(MEDIA_FAILURES_MAX).collect();
    let process = start(&file, &scratch.data());
    let told = format!("{MEDIA_FAILURES_MAX} media ports cannot be opened, the first is");
    assert!(process.log().contains(&told), "{}", process.log());
    process.stop();
    drop(taken);

    let _taken: Vec<_> = holders().take(MEDIA_FAILURES_MAX + 1).collect();
    let mut command = ravelin();
    command.arg("edge").arg("--config").arg(&file).arg("--data").arg(scratch.data());
    let output = run(&mut command);
    let said = text(&output.stderr);
    assert!(!output.status.success(), "{said}");
    let told = format!("{} media ports cannot be opened, the first is ", MEDIA_FAILURES_MAX + 1);
    assert!(said.contains(&told) && said.contains("free them or change edge.media"), "{said}");
}
