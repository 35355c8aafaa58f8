//! A call whose callee stops sending, with the binary as it runs: alarm, BYE, nothing.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Mutex,
    time::{Duration, Instant},
};

use ravelin_contract::{
    cdr::{Cdr, CdrKind, Party},
    chain::Entry,
};

use crate::{
    peer::{Peer, bind},
    support::{PATIENCE, Process, Scratch, chain, config, ravelin},
};

/// `rtp_timeout` of the trunks of this test: longer than a loaded machine keeps a thread from running.
const ALLOWED: Duration = Duration::from_secs(6);
/// What is watched for longer than that.
const LONGER: Duration = Duration::from_secs(2);

/// A party's audio.
struct Talker {
    socket: UdpSocket,
    to: SocketAddr,
    number: u16,
}

impl Talker {
    /// `description` says where the other end wants it.
    fn new(ip: IpAddr, description: &str) -> Self {
        let field = |start: &str, at: usize| {
            let line = description.lines().find(|line| line.starts_with(start));
            line.and_then(|line| line.split(' ').nth(at)).expect("a description").to_owned()
        };
        let to = format!("{}:{}", field("c=", 2), field("m=audio", 1));
        let socket = bind((ip, 40_000).into());
        socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
        Self { socket, to: to.parse().expect("an address"), number: 0 }
    }

    fn talk(&mut self) {
        self.number += 1;
        let mut packet = vec![0x80, 0];
        packet.extend(self.number.to_be_bytes());
        packet.extend((u32::from(self.number) * 160).to_be_bytes());
        packet.extend([1, 2, 3, 4]);
        packet.extend([0x55; 160]);
        self.socket.send_to(&packet, self.to).expect("sent");
    }

    /// How many packets have come.
    fn heard(&self) -> usize {
        let mut buffer = [0; 2_048];
        std::iter::from_fn(|| self.socket.recv(&mut buffer).ok()).count()
    }
}

fn record(entries: &[Entry]) -> Option<&Cdr> {
    entries.iter().find_map(|entry| match entry {
        Entry::Cdr(cdr) if cdr.kind == CdrKind::Call => Some(cdr),
        _ => None,
    })
}

/// Of 127.11.0.0/16.
const PLACE: u8 = 13;

/// Whether the event is on record yet; its last line may be half written.
fn told(scratch: &Scratch) -> bool {
    let files = std::fs::read_dir(scratch.data().join("audit")).expect("audit directory");
    let texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    texts.into_iter().any(|text| text.contains("\"media.timeout\""))
}

fn address(net: u8, host: u8, port: u16) -> std::net::SocketAddr {
    ([127, 11, PLACE * 10 + net, host], port).into()
}

fn callee_stops(action: &str) {
    let scratch = Scratch::new();
    let role = "    role: carrier\n";
    let media = format!("{role}    media: {{ rtp_timeout: 6s, rtp_timeout_action: {action} }}\n");
    let config = config(PLACE).replace("127.4.", "127.11.");
    assert!(config.contains(role), "{config}");
    let file = scratch.write("ravelin.yml", &config.replace(role, &media));
    let mut command = ravelin();
    command.args(["edge", "--drain-within", "24h", "--config"]).arg(&file);
    let mut process = Process::start(command.arg("--data").arg(scratch.data()));
    process.wait_for_line("edge: ready", 1);

    let mut caller = Peer::new(address(1, 7, 0), address(0, 10, 5060));
    let mut carrier = Peer::new(address(2, 1, 5060), address(0, 20, 5060));
    caller.invite("talk", "+12125550001");
    let invite = carrier.expect("INVITE ", "");
    carrier.reply(&invite, "200 OK");
    carrier.expect("ACK ", "");
    let answer = caller.expect("SIP/2.0 200", "talk");
    caller.ack("talk", &answer);
    let mut near = Talker::new(caller.address().ip(), &answer);
    let mut far = Talker::new(carrier.address().ip(), &invite);

    // Both talk for longer than the trunk allows silence, then the callee stops.
    let (mut sent, mut heard) = (0, [0, 0]);
    let stops = Instant::now() + ALLOWED + LONGER;
    while Instant::now() < stops {
        near.talk();
        far.talk();
        sent += 1;
        std::thread::sleep(Duration::from_millis(20));
        heard = [heard[0] + near.heard(), heard[1] + far.heard()];
    }
    let end = Instant::now() + PATIENCE;
    while heard != [sent; 2] && Instant::now() < end {
        // The silence that is looked for has not begun.
        near.talk();
        far.talk();
        sent += 1;
        std::thread::sleep(Duration::from_millis(20));
        heard = [heard[0] + near.heard(), heard[1] + far.heard()];
    }
    assert_eq!(heard, [sent; 2]);
    assert!(!told(&scratch), "nobody was silent");
    let end = Instant::now() + PATIENCE;
    let silent_until = Instant::now() + ALLOWED + LONGER;
    while Instant::now() < if action == "nothing" { silent_until } else { end } {
        near.talk();
        std::thread::sleep(Duration::from_millis(20));
        if told(&scratch) {
            break;
        }
    }
    assert_eq!(told(&scratch), action != "nothing", "{action}");
    let cause = if action == "bye" {
        for peer in [&mut caller, &mut carrier] {
            let bye = peer.expect("BYE ", "ravelin;cause=408");
            peer.reply(&bye, "200 OK");
        }
        408
    } else {
        502
    };
    process.signal("TERM");
    process.wait_for_line("taking no new calls", 1);
    process.signal("TERM");
    process.wait();
    let entries = chain(&scratch.data());
    let cdr = record(&entries).expect("a record of the call");
    assert_eq!(cdr.cause, cause, "{action}: {cdr:?}");
    let timeouts: Vec<_> =
        cdr.streams.iter().map(|stream| (stream.from, stream.timeouts)).collect();
    assert_eq!(timeouts, [(Party::Caller, 0), (Party::Callee, 1)], "{action}");
    let callee = &cdr.streams[1];
    assert_eq!((callee.packets, callee.lost), (u64::from(far.number), 0));
    assert_eq!(callee.codec.as_deref(), Some("PCMU"));
    assert!(callee.mos.is_some_and(|score| score > 4.0), "{callee:?}");
}

#[test]
fn a_callee_that_stops_sending_is_told_of_hung_up_or_left_alone() {
    let _turn = TURN.lock();
    for action in ["alarm", "bye", "nothing"] {
        callee_stops(action);
    }
}

/// An edge whose trunks of this role end calls for silence, a caller, and a peer of the role.
fn with_byes(role: &str, host: [u8; 2]) -> (Scratch, Process, Peer, Peer) {
    let scratch = Scratch::new();
    let line = format!("    role: {role}\n");
    let media = format!("{line}    media: {{ rtp_timeout: 6s, rtp_timeout_action: bye }}\n");
    let config = config(PLACE).replace("127.4.", "127.11.");
    assert!(config.contains(&line), "{config}");
    let file = scratch.write("ravelin.yml", &config.replace(&line, &media));
    let mut command = ravelin();
    command.args(["edge", "--drain-within", "24h", "--config"]).arg(&file);
    let mut process = Process::start(command.arg("--data").arg(scratch.data()));
    process.wait_for_line("edge: ready", 1);
    let caller = Peer::new(address(1, 7, 0), address(0, 10, 5060));
    let peer = Peer::new(address(host[0], host[1], 5060), address(0, 20, 5060));
    (scratch, process, caller, peer)
}

fn ends_at_once(mut process: Process) {
    process.signal("TERM");
    process.wait_for_line("taking no new calls", 1);
    process.signal("TERM");
    process.wait();
}

/// Of 127.11.PLACE: the tests of this file share it, so they take turns.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn silence_is_told_of_an_emergency_call_and_does_not_end_it() {
    let _turn = TURN.lock();
    let (scratch, process, mut caller, mut psap) = with_byes("emergency", [9, 1]);
    caller.invite("help", "911");
    let invite = psap.expect("INVITE ", "");
    psap.reply(&invite, "200 OK");
    psap.expect("ACK ", "");
    let answer = caller.expect("SIP/2.0 200", "help");
    caller.ack("help", &answer);
    let mut near = Talker::new(caller.address().ip(), &answer);
    let far = Talker::new(psap.address().ip(), &invite);
    // The psap says nothing at all: it is told, and the call goes on for as long again.
    let end = Instant::now() + PATIENCE;
    while !told(&scratch) {
        assert!(Instant::now() < end, "nobody is told");
        near.talk();
        std::thread::sleep(Duration::from_millis(20));
    }
    far.heard();
    let (end, mut heard) = (Instant::now() + ALLOWED + LONGER, 0);
    while Instant::now() < end || heard == 0 {
        near.talk();
        std::thread::sleep(Duration::from_millis(20));
        heard += far.heard();
    }
    ends_at_once(process);
    let entries = chain(&scratch.data());
    let cdr = record(&entries).expect("a record of the call");
    assert!(cdr.emergency && cdr.cause != 408, "{cdr:?}");
    assert_eq!(cdr.streams[1].timeouts, 1);
}

#[test]
fn a_callee_that_announces_media_and_sends_none_is_given_up_before_it_answers() {
    let _turn = TURN.lock();
    let (scratch, process, mut caller, mut carrier) = with_byes("carrier", [2, 1]);
    caller.invite("early", "+12125550001");
    let invite = carrier.expect("INVITE ", "");
    let ip = carrier.address().ip();
    let early = format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"
    );
    carrier.answer(&invite, "183 Session Progress", &early);
    caller.expect("SIP/2.0 183", "early");
    let cancel = carrier.expect("CANCEL ", "");
    carrier.reply(&cancel, "200 OK");
    carrier.reply(&invite, "487 Request Terminated");
    let refusal = caller.expect("SIP/2.0 480", "ravelin;cause=408");
    caller.ack_refusal("early", "+12125550001", &refusal);
    ends_at_once(process);
    let entries = chain(&scratch.data());
    let cdr = record(&entries).expect("a record of the call");
    assert_eq!((cdr.cause, cdr.status), (408, 480), "{cdr:?}");
}
