//! `kill -9` of the edge: calls that were up go on in the next one (design 8).

use std::{
    path::Path,
    time::{Duration, Instant},
};

use ravelin_contract::{cdr::CdrKind, chain::Entry};

use crate::{
    peer::{Peer, bind, connect, header},
    support::{PATIENCE, Process, Scratch, address, chain, config, kinds, ravelin},
};

const PLACE: u8 = 13;
const CALLS: usize = 20;

pub(crate) fn start(config: &Path, data: &Path) -> Process {
    let mut command = ravelin();
    command.arg("edge").arg("--config").arg(config).arg("--data").arg(data);
    let mut process = Process::start(&mut command);
    process.wait_for_line("edge: ready", 1);
    process
}

/// A call that is up: its parties' last messages.
pub(crate) struct Up {
    pub(crate) name: String,
    pub(crate) answer: String,
    pub(crate) invite: String,
}

/// A request of the caller inside its call.
pub(crate) fn request(caller: &Peer, call: &Up, method: &str, cseq: u32) {
    let me = caller.address();
    let target = header(&call.answer, "Contact");
    let ip = me.ip();
    let body = match method {
        "INVITE" => format!(
            "v=0\r\no=- 1 2 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=audio 40000 RTP/AVP 0\r\n"
        ),
        _ => String::new(),
    };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    caller.send(&format!(
        "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK{method}{cseq}{name};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:+13135550100@{me}>;tag={name}\r\nTo: {}\r\n\
         Call-ID: {name}@{me}\r\nCSeq: {cseq} {method}\r\nContact: <sip:a@{me}>\r\n\
         {kind}Content-Length: {}\r\n\r\n{body}",
        target.trim_matches(['<', '>']),
        header(&call.answer, "To"),
        body.len(),
        name = call.name,
    ));
}

pub(crate) fn audio_port(message: &str) -> u16 {
    let line = message.lines().find(|line| line.starts_with("m=audio ")).expect("an m-line");
    line.split(' ').nth(1).expect("a port").parse().expect("a number")
}

/// Whether RTP from the caller's address to Ravelin reaches the callee; a few tries, since the first
/// packets after a restart may find no port, and a machine may be slow.
fn media_passes(call: &Up, sequence: u16) -> bool {
    (0..100).any(|_| one_passes(call, sequence))
}

fn one_passes(call: &Up, sequence: u16) -> bool {
    let from = bind(address(PLACE, 1, 7, 40_000));
    let to = bind(address(PLACE, 2, 1, 40_000));
    to.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 160, 0, 0, 0, 7]);
    packet.extend_from_slice(&[0x55; 160]);
    from.send_to(&packet, address(PLACE, 0, 10, audio_port(&call.answer))).expect("sent");
    let mut buffer = [0; 2_048];
    to.recv_from(&mut buffer).is_ok_and(|(length, _)| buffer[..length] == packet)
}

/// What a process says while it starts, in this order: media of adopted calls flows before anything is
/// made that it does not need, and the edge is not ready before that is made, too.
fn starts_in_order(process: &Process, calls: usize) {
    let log = process.log();
    let places = |part: &str| -> Vec<usize> {
        let lines = log.lines().enumerate().filter(|(_, line)| line.contains(part));
        lines.map(|(number, _)| number).collect()
    };
    let flows = places("of the process before flows again");
    let (made, ready) = (places("the certificate for DTLS is made"), places("edge: ready"));
    assert_eq!((made.len(), ready.len()), (1, 1), "{log}");
    assert_eq!(flows.is_empty(), calls == 0, "{log}");
    assert!(flows.iter().all(|line| *line < made[0]), "{log}");
    assert!(made[0] < ready[0], "{log}");
}

/// Adoptions that are on record by now; the last line may be half written.
fn adoptions(scratch: &Scratch) -> usize {
    let files = std::fs::read_dir(scratch.data().join("audit")).expect("audit directory");
    let texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    texts.map(|text| text.matches("\"edge.calls_adopted\"").count()).sum()
}

#[test]
fn calls_outlive_ten_kills_of_the_edge_and_end_with_one_record_each() {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &config(PLACE));
    let mut process = start(&file, &scratch.data());
    let mut caller = Peer::new(address(PLACE, 1, 7, 0), address(PLACE, 0, 10, 5060));
    let mut carrier = Peer::new(address(PLACE, 2, 1, 5060), address(PLACE, 0, 20, 5060));
    let calls: Vec<Up> = (0..CALLS)
        .map(|number| {
            let name = format!("call{number}");
            caller.invite(&name, &format!("+1212555{number:04}"));
            let invite = carrier.expect("INVITE ", &format!("+1212555{number:04}"));
            carrier.reply(&invite, "200 OK");
            carrier.expect("ACK ", &header(&invite, "Call-ID"));
            let answer = caller.expect("SIP/2.0 200", &format!("{name}@"));
            caller.ack(&name, &answer);
            Up { name, answer, invite }
        })
        .collect();
    // One more that rings: it is not confirmed, and vanishes.
    caller.invite("ringing", "+12125559999");
    let ringing = carrier.expect("INVITE ", "+12125559999");
    carrier.reply(&ringing, "180 Ringing");
    caller.expect("SIP/2.0 180", "ringing@");
    assert!(media_passes(&calls[0], 1));
    starts_in_order(&process, 0);

    let mut longest = Duration::ZERO;
    for kill in 1..=10_u16 {
        let killed = Instant::now();
        process.signal("KILL");
        process.wait();
        process = start(&file, &scratch.data());
        let goes_on = media_passes(&calls[0], kill + 1);
        longest = longest.max(killed.elapsed());
        assert!(goes_on, "no media after kill {kill}; the log:\n{}", process.log());
        let told = format!("{CALLS} of its calls go on");
        process.wait_for_line(&told, 1);
        starts_in_order(&process, CALLS);
        // What is not yet written when a process is killed is lost with it.
        let end = Instant::now() + PATIENCE;
        while adoptions(&scratch) < usize::from(kill) {
            assert!(Instant::now() < end, "not on record after kill {kill}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    println!("longest time from kill -9 to the first packet of {CALLS} calls: {longest:?}");

    for call in &calls {
        request(&caller, call, "INVITE", 2);
        let id = header(&call.invite, "Call-ID");
        let again = carrier.expect("INVITE ", &id);
        carrier.reply(&again, "200 OK");
        carrier.expect("ACK ", &id);
        caller.expect("SIP/2.0 200", "CSeq: 2 INVITE");
        request(&caller, call, "ACK", 2);
        request(&caller, call, "BYE", 3);
        let bye = carrier.expect("BYE ", &id);
        carrier.reply(&bye, "200 OK");
        caller.expect("SIP/2.0 200", "CSeq: 3 BYE");
    }
    process.signal("TERM");
    process.wait();
    let entries = chain(&scratch.data());
    let cdrs: Vec<_> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Cdr(cdr) if cdr.kind == CdrKind::Call => Some(cdr),
            _ => None,
        })
        .collect();
    assert_eq!(cdrs.len(), CALLS, "one record for each call that was up");
    assert!(cdrs.iter().all(|cdr| cdr.adopted == 10 && cdr.status == 200));
    let adopted = kinds(&entries).iter().filter(|kind| *kind == "edge.calls_adopted").count();
    assert_eq!(adopted, 10);
}

/// An orderly stop ends its calls: nothing is left for the next process.
#[test]
fn an_orderly_stop_leaves_no_calls_to_take_over() {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &config(PLACE).replace("127.4.", "127.9."));
    let at = |net: u8, host: u8, port: u16| ([127, 9, PLACE * 10 + net, host], port).into();
    let process = start(&file, &scratch.data());
    let mut caller = Peer::new(at(1, 7, 0), at(0, 10, 5060));
    let mut carrier = Peer::new(at(2, 1, 5060), at(0, 20, 5060));
    connect(&mut caller, &mut carrier, "call", "+12125550001");
    process.signal("TERM");
    process.signal("TERM");
    process.stop();
    let process = start(&file, &scratch.data());
    assert!(!process.log().contains("calls go on"), "{}", process.log());
    // The example says `driver: auto`, and is on loopback.
    assert!(process.log().contains("leaves xdp open, and it goes to the sockets"));
    process.stop();
    assert!(!kinds(&chain(&scratch.data())).contains(&"edge.calls_adopted".to_owned()));
}
