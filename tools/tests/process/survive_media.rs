//! `kill -9` of the edge while its calls talk: SRTP on the sockets, and real calls over the fast path,
//! whose parties miss nothing (design 6, 8).

use std::{
    net::UdpSocket,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use ravelin_contract::{cdr::CdrKind, chain::Entry};
use ravelin_srtp::{
    Keying, Opener, Sealer, Suite,
    keys::{Keys, MasterKey},
    sdes::Crypto,
};

use crate::{
    peer::{Peer, bind, header},
    support::{PATIENCE, Scratch, chain, config, run, text},
    survive::{Up, audio_port, request, start},
};

/// 127.10.N.x.
const NETS: u8 = 13 * 10;
const CALLS: u8 = 6;
/// `ravelin_srtp::limits::RTP_LEAD`.
const RECORD_CLAIMS: u16 = 32;
/// Within which a first packet passes after a restart, of which some may be refused.
const FIRST_WITHIN: Duration = Duration::from_secs(2);
/// The suite that the carrier takes, as Ravelin offers them.
const SUITE: Suite = Suite::AeadAes128Gcm;

fn at(net: u8, host: u8, port: u16) -> std::net::SocketAddr {
    ([127, 10, NETS + net, host], port).into()
}

/// The example with SRTP towards the carrier.
fn document() -> String {
    let text = config(13).replace("127.4.", "127.10.");
    let carrier = "  - id: carrier-a\n";
    assert!(text.contains(carrier));
    text.replacen(carrier, &format!("{carrier}    media: {{ srtp: sdes }}\n"), 1)
}

fn keys_of(message: &str) -> Vec<Crypto> {
    let values = message.lines().filter_map(|line| line.strip_prefix("a=crypto:"));
    values.map(|value| Crypto::parse(value.as_bytes()).expect("a=crypto")).collect()
}

/// A call, and the carrier's end of its SRTP.
struct Secure {
    up: Up,
    number: u8,
    answer: String,
    /// Our line that the carrier took.
    taken: Crypto,
    sealer: Sealer,
    opener: Opener,
    sequence: u16,
}

impl Secure {
    fn place(caller: &mut Peer, carrier: &mut Peer, number: u8) -> Self {
        let (name, user) = (format!("secure{number}"), format!("+1212555{number:04}"));
        caller.invite(&name, &user);
        let invite = carrier.expect("INVITE ", &user);
        let offered = keys_of(&invite);
        let taken = offered.into_iter().find(|line| line.keys.suite() == SUITE).expect("offered");
        let key = MasterKey::new(SUITE, &[number; 28]).expect("a key");
        let theirs = Keys::single(key);
        let mut line = Vec::new();
        Crypto { tag: taken.tag, keys: theirs.clone() }.write(&mut line);
        let ip = carrier.address().ip();
        let answer = format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=audio {} RTP/SAVP 0\r\na=crypto:{}\r\n",
            Self::port(number),
            text(&line)
        );
        carrier.answer(&invite, "200 OK", &answer);
        carrier.expect("ACK ", &header(&invite, "Call-ID"));
        let ok = caller.expect("SIP/2.0 200", &format!("{name}@"));
        caller.ack(&name, &ok);
        let keying = Keying { ours: theirs, theirs: taken.keys.clone() };
        let (sealer, opener) = (Sealer::new(&keying.ours), Opener::new(&keying.theirs));
        let up = Up { name, answer: ok, invite };
        Self { up, number, answer, taken, sealer, opener, sequence: 65_520 }
    }

    fn port(number: u8) -> u16 {
        42_000 + 2 * u16::from(number)
    }

    /// One packet each way, with the next number; whether both arrive in time. What reaches the
    /// carrier is SRTP under the keys of the call, and each index of it comes once: the opener takes
    /// none twice. One that comes after its time is none of those that are waited for later.
    fn exchange(&mut self, caller: &UdpSocket, carrier: &UdpSocket, within: Duration) -> bool {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = vec![0x80, 0];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend([0, 0, 0, 160, 0, 0, 0, self.number]);
        packet.extend([0x55; 160]);
        let near = at(0, 10, audio_port(&self.up.answer));
        caller.send_to(&packet, near).expect("sent");
        let mut sealed = packet.clone();
        sealed.resize(packet.len() + self.sealer.rtp_overhead(), 0);
        self.sealer.seal_rtp(&mut sealed, packet.len()).expect("sealed");
        let far = at(0, 20, audio_port(&self.up.invite));
        carrier.send_to(&sealed, far).expect("sent");
        let up = arrives(carrier, within, |come| {
            let mut open = vec![0; come.len()];
            let opened = self.opener.open_rtp(come, &mut open).expect("under its keys");
            open[..opened] == packet
        });
        let down = arrives(caller, within, |come| *come == packet);
        up && down
    }
}

/// Whether a packet comes that is the one.
fn arrives(at: &UdpSocket, within: Duration, mut is_it: impl FnMut(&[u8]) -> bool) -> bool {
    let (end, mut buffer) = (Instant::now() + within, [0; 2_048]);
    loop {
        // Asked first: what has come while this thread was held up counts.
        let over = Instant::now() >= end;
        match at.recv(&mut buffer) {
            Ok(length) if is_it(&buffer[..length]) => return true,
            _ if over => return false,
            _ => {}
        }
    }
}

fn media_socket(at: std::net::SocketAddr) -> UdpSocket {
    let socket = bind(at);
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    socket
}

#[test]
fn calls_with_srtp_outlive_kills_under_their_keys() {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &document());
    let mut process = start(&file, &scratch.data());
    let mut caller = Peer::new(at(1, 7, 0), at(0, 10, 5060));
    let mut carrier = Peer::new(at(2, 1, 5060), at(0, 20, 5060));
    let mut calls: Vec<_> = (1..=CALLS)
        .map(|number| {
            let mut call = Secure::place(&mut caller, &mut carrier, number);
            // Where the caller's test description says that it is.
            let near = media_socket(at(1, 7, 40_000));
            let far = media_socket(at(2, 1, Secure::port(number)));
            let end = Instant::now() + PATIENCE;
            while !call.exchange(&near, &far, FIRST_WITHIN) {
                assert!(Instant::now() < end, "no media before the kill");
            }
            call
        })
        .collect();
    for kill in 1..=3 {
        process.signal("KILL");
        process.wait();
        process = start(&file, &scratch.data());
        let told = format!("{CALLS} of its calls go on");
        process.wait_for_line(&told, 1);
        for call in &mut calls {
            let near = media_socket(at(1, 7, 40_000));
            let far = media_socket(at(2, 1, Secure::port(call.number)));
            // Numbers that the record claims are refused, and no others.
            call.sequence = call.sequence.wrapping_add(RECORD_CLAIMS);
            let goes_on = (0..10).any(|_| call.exchange(&near, &far, FIRST_WITHIN));
            assert!(goes_on, "no media after kill {kill}; the log:\n{}", process.log());
            for _ in 0..20 {
                assert!(call.exchange(&near, &far, PATIENCE), "{} of a call", call.sequence);
            }
        }
    }
    for call in &calls {
        request(&caller, &call.up, "INVITE", 2);
        let id = header(&call.up.invite, "Call-ID");
        let again = carrier.expect("INVITE ", &id);
        // The line in force comes first, with the key that it had.
        assert_eq!(keys_of(&again)[0], call.taken);
        carrier.answer(&again, "200 OK", &call.answer);
        carrier.expect("ACK ", &id);
        caller.expect("SIP/2.0 200", "CSeq: 2 INVITE");
        request(&caller, &call.up, "ACK", 2);
        request(&caller, &call.up, "BYE", 3);
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
    assert_eq!(cdrs.len(), usize::from(CALLS), "one record for each call that was up");
    assert!(cdrs.iter().all(|cdr| cdr.adopted == 3 && cdr.status == 200));
}

/// `bench/survival/run`, which says itself whether all is well: every packet's content and order
/// through the kill, ports, permits, records. `RAVELIN_SURVIVAL_CALLS`: how many calls.
fn survival(path: &str, more: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/survival/run");
    let calls = std::env::var("RAVELIN_SURVIVAL_CALLS").unwrap_or_else(|_| "50".into());
    let mut command = Command::new("python3");
    command.arg(script).args(["--path", path, "--calls", &calls, "--seconds", "8"]);
    // How long a party misses is measured on a quiet machine, see `bench/results`.
    command.args(["--kill-after", "3", "--gap-max-ms", "60000"]);
    command.args(["--binary", env!("CARGO_BIN_EXE_ravelin")]).args(more);
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: calls on {path} through a kill: no python3");
        return;
    }
    let output = run(&mut command);
    let told = text(&output.stdout);
    if output.status.code() == Some(77) {
        println!("skipped: calls on {path} through a kill: {}", told.trim());
        return;
    }
    assert!(output.status.success(), "{told}\n{}", text(&output.stderr));
}

#[test]
fn calls_on_the_fast_path_lose_nothing_through_a_kill() {
    survival("xdp", &[]);
}

#[test]
fn calls_on_the_fast_path_lose_nothing_when_up_restarts_their_edge() {
    // `auto` takes it too, for the driver of these interfaces runs it.
    survival("auto", &["--up", "--shards", "1"]);
}

#[test]
fn calls_on_the_sockets_go_on_after_a_kill() {
    survival("sockets", &[]);
}
