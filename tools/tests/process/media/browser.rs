//! A WebRTC party behind one trunk, a plain one behind the other. The party is aiortc (ICE with
//! connectivity checks as the controlling agent, DTLS by OpenSSL, SRTP by libsrtp) or a browser,
//! Chromium without a window.

use std::{
    io::{BufRead, BufReader, Write},
    net::IpAddr,
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    call::Call,
    edge::{Edge, Net, Setup, description, media_of},
    namespaces::Spaces,
    voice::{Voice, drained, rtp},
};
use crate::support::PATIENCE;

const PORT: u16 = 40_000;
const AIORTC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/media/aiortc_party.py");
const CHROMIUM: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/media/chromium_party.py");
/// Octets of G.711 mu-law and the samples that they stand for (ITU-T G.711, table 2a).
const OCTET_OF_PARTY: (u8, i32) = (0x8f, 16_764);
const OCTET_OF_OTHER: (u8, i32) = (0xa0, 7_932);
/// Tones of a browser and of the plain party: what a browser plays and records, it changes, so only
/// the tone is the same at the other end.
const HERTZ_OF_PARTY: u16 = 1_000;
const HERTZ_OF_OTHER: u16 = 400;
/// Samples of a packet.
const SAMPLES: usize = 160;

pub(super) struct Browser {
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<Value>,
    seen: Vec<Value>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends what it has started; where it does not, all of them end with it.
        let id = self.child.id();
        let end = Instant::now() + PATIENCE;
        let _ = Command::new("kill").args(["-TERM", &id.to_string()]).status();
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > end {
                let _ = Command::new("kill").args(["-KILL", "--", &format!("-{id}")]).status();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Browser {
    pub(super) fn start(role: &str, at: IpAddr) -> Self {
        Self::run(&[AIORTC, role, &OCTET_OF_PARTY.1.to_string(), &at.to_string()])
    }

    /// Chromium, in the namespace of the caller of this.
    fn chromium(role: &str) -> Self {
        Self::run(&[CHROMIUM, role, &HERTZ_OF_PARTY.to_string(), "PCMU"])
    }

    fn run(arguments: &[&str]) -> Self {
        let mut child = Command::new("/usr/bin/python3")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("python3");
        let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take());
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(output.expect("a pipe"));
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str(&line) else { continue };
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        Self { child, input, lines, seen: Vec::new() }
    }

    pub(super) fn tell(&mut self, sdp: &str) {
        let line = json!({ "sdp": sdp }).to_string() + "\n";
        self.input.write_all(line.as_bytes()).expect("told");
    }

    /// The next thing that it tells of this name.
    #[track_caller]
    pub(super) fn next(&mut self, name: &str) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(value) = self.lines.recv_timeout(left) else {
                panic!("nothing of {name}: {:?}", self.seen)
            };
            self.seen.push(value.clone());
            if let Some(found) = value.get(name) {
                return found.clone();
            }
        }
    }
}

/// Whether aiortc is here; says so if not.
pub(super) fn equipped(test: &str) -> bool {
    let probe = Command::new("/usr/bin/python3").args(["-c", "import aiortc, av"]).output();
    let found = probe.is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: {test}: python3-aiortc is not installed (tools/setup test)");
    }
    found
}

pub(super) fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").expect("a body").1
}

/// Both are heard at the other's end: samples at the party, octets at the plain one.
#[track_caller]
fn converse(browser: &mut Browser, plain: &Voice) {
    let end = Instant::now() + PATIENCE;
    let (mut sequence, mut party, mut other) = (65_500_u16, false, false);
    while !(party && other) {
        assert!(Instant::now() < end, "party hears: {party}, other: {other}; {:?}", browser.seen);
        sequence = sequence.wrapping_add(1);
        let said = rtp(0, sequence, 0xe0, &[OCTET_OF_OTHER.0; 160]);
        plain.rtp.send_to(&said, plain.to).expect("sent");
        std::thread::sleep(Duration::from_millis(20));
        for packet in drained(&plain.rtp) {
            assert_eq!(packet[1] & 0x7f, 0, "PCMU");
            assert!(packet[12..].iter().all(|octet| *octet == OCTET_OF_PARTY.0), "{packet:x?}");
            other = true;
        }
        for value in browser.lines.try_iter() {
            party |= value.get("heard") == Some(&json!(OCTET_OF_OTHER.1));
            browser.seen.push(value);
        }
    }
}

/// aiortc reads nothing into a line that is not there.
const PLAIN: &str = "m=audio 40000 RTP/AVP 0\na=rtpmap:0 PCMU/8000\na=sendrecv\n";
const WEBRTC: &str = "{ srtp: dtls, ice: lite }";

#[test]
fn a_webrtc_party_calls_a_plain_carrier_and_both_hear_each_other() {
    if !equipped("a_webrtc_party_calls_a_plain_carrier_and_both_hear_each_other") {
        return;
    }
    let setup = Setup { media: [WEBRTC, "{ srtp: off }"], ..Setup::default() };
    let mut edge = Edge::start(Net::loopback(12), &setup);
    let mut browser = Browser::start("offer", edge.net.caller);
    let offer = browser.next("sdp");
    let mut plain = Voice::new(edge.net.callee, PORT, 0xe0);
    let answer = description(edge.net.callee, 1, PLAIN);
    let call = Call::up(&mut edge, 1, offer.as_str().expect("text"), &answer);
    for hidden in ["ice-", "candidate", "fingerprint", "BUNDLE", "a=setup"] {
        assert!(!body(&call.invite).contains(hidden), "{hidden}: {}", call.invite);
    }
    assert!(body(&call.answer).contains("a=ice-lite"), "{}", call.answer);
    plain.to = media_of(&call.invite, 0);
    browser.tell(body(&call.answer));
    converse(&mut browser, &plain);
    call.end(&mut edge);
    let records = edge.stop();
    let counts = [&records[0].media_caller, &records[0].media_callee];
    assert!(counts.iter().all(|count| count.as_ref().is_some_and(|count| count.packets > 0)));
}

#[test]
fn a_webrtc_party_is_called_by_a_plain_one_and_both_hear_each_other() {
    if !equipped("a_webrtc_party_is_called_by_a_plain_one_and_both_hear_each_other") {
        return;
    }
    let setup = Setup { media: ["{ srtp: off }", WEBRTC], ..Setup::default() };
    let mut edge = Edge::start(Net::loopback(13), &setup);
    let mut plain = Voice::new(edge.net.caller, PORT, 0xe0);
    let offer = description(edge.net.caller, 1, PLAIN);
    let mut call = Call::ring(&mut edge, 1, &offer);
    let mut browser = Browser::start("answer", edge.net.callee);
    browser.tell(body(&call.invite));
    let answer = browser.next("sdp");
    call.accept(&mut edge, answer.as_str().expect("text"));
    plain.to = media_of(&call.answer, 0);
    converse(&mut browser, &plain);
    call.end(&mut edge);
    edge.stop();
}

/// Whether there is a browser that starts; says so if not.
fn has_chromium(test: &str) -> bool {
    // Into a file: a pipe is held open by whatever it leaves behind when it is ended, for ever.
    let path = std::env::temp_dir().join(format!("ravelin-chromium-{}-{test}", std::process::id()));
    let page = std::fs::File::create(&path).expect("a file");
    let probe = Command::new("timeout")
        .args([
            "--kill-after=5",
            "60",
            "chromium",
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--dump-dom",
            "about:blank",
        ])
        .stdout(page)
        .stderr(Stdio::null())
        .status();
    let page = std::fs::read(&path).unwrap_or_default();
    let _ = std::fs::remove_file(&path);
    let found = probe.is_ok() && page.starts_with(b"<html>");
    if !found {
        println!("skipped: {test}: Chromium does not start here (tools/setup test)");
    }
    found
}

/// A square wave in G.711 mu-law, one packet of it.
fn tone(hertz: u16) -> Vec<u8> {
    let half = 8_000 / usize::from(hertz) / 2;
    let octet = |at| if at / half % 2 == 0 { OCTET_OF_OTHER.0 } else { OCTET_OF_OTHER.0 & 0x7f };
    (0..SAMPLES).map(octet).collect()
}

/// Whether a packet's samples change sign as often as those of a tone.
fn sounds_as(payload: &[u8], hertz: u16) -> bool {
    let changes = payload.windows(2).filter(|two| (two[0] ^ two[1]) & 0x80 != 0).count();
    let expected = 2 * usize::from(hertz) * SAMPLES / 8_000;
    payload.len() == SAMPLES && changes.abs_diff(expected) <= 1
}

/// Each hears the other's tone, and for a while nothing else.
#[track_caller]
fn hear_tones(browser: &mut Browser, plain: &Voice) {
    let end = Instant::now() + PATIENCE;
    let (mut sequence, mut party, mut other) = (65_500_u16, 0, 0);
    while party < 5 || other < 50 {
        assert!(Instant::now() < end, "party: {party}, other: {other}; {:?}", browser.seen);
        sequence = sequence.wrapping_add(1);
        let said = rtp(0, sequence, 0xe0, &tone(HERTZ_OF_OTHER));
        plain.rtp.send_to(&said, plain.to).expect("sent");
        std::thread::sleep(Duration::from_millis(20));
        for packet in drained(&plain.rtp) {
            assert_eq!(packet[1] & 0x7f, 0, "PCMU");
            other = if sounds_as(&packet[12..], HERTZ_OF_PARTY) { other + 1 } else { 0 };
        }
        for value in browser.lines.try_iter() {
            let heard = value.get("heard").and_then(Value::as_u64);
            let same = heard.map(|heard| heard.abs_diff(HERTZ_OF_OTHER.into()) <= 10);
            party = same.map_or(party, |same| if same { party + 1 } else { 0 });
            browser.seen.push(value);
        }
    }
    let last = browser.seen.iter().rfind(|value| value.get("dtls").is_some()).expect("figures");
    assert_eq!(last["dtls"], json!("connected"), "{last}");
}

fn with_a_browser(test: &str, drivers: &[&str], work: impl Fn(&Spaces, &str) + Sync) {
    if !has_chromium(test) {
        return;
    }
    match Spaces::new() {
        Ok(spaces) => {
            spaces.at_the_peers(|| drivers.iter().for_each(|driver| work(&spaces, driver)));
        }
        Err(why) => println!("skipped: {test}: {why}"),
    }
}

#[test]
fn a_browser_calls_a_plain_carrier_and_both_hear_each_other() {
    let name = "a_browser_calls_a_plain_carrier_and_both_hear_each_other";
    with_a_browser(name, &["uring", "auto"], |spaces, driver| {
        let setup = Setup { driver, media: [WEBRTC, "{ srtp: off }"], ..Setup::default() };
        let mut edge = Edge::start_in(Some(spaces), Spaces::net(), &setup);
        let mut browser = Browser::chromium("offer");
        let offer = browser.next("sdp");
        let mut plain = Voice::new(edge.net.callee, PORT, 0xe0);
        let answer = description(edge.net.callee, 1, PLAIN);
        let call = Call::up(&mut edge, 1, offer.as_str().expect("text"), &answer);
        plain.to = media_of(&call.invite, 0);
        browser.tell(body(&call.answer));
        hear_tones(&mut browser, &plain);
        call.end(&mut edge);
        let records = edge.stop();
        assert_eq!((records.len(), records[0].status), (1, 200));
    });
}

#[test]
fn a_browser_is_called_by_a_plain_party_and_both_hear_each_other() {
    let name = "a_browser_is_called_by_a_plain_party_and_both_hear_each_other";
    with_a_browser(name, &["uring", "auto"], |spaces, driver| {
        let setup = Setup { driver, media: ["{ srtp: off }", WEBRTC], ..Setup::default() };
        let mut edge = Edge::start_in(Some(spaces), Spaces::net(), &setup);
        let mut plain = Voice::new(edge.net.caller, PORT, 0xe0);
        let offer = description(edge.net.caller, 1, PLAIN);
        let mut call = Call::ring(&mut edge, 1, &offer);
        let mut browser = Browser::chromium("answer");
        browser.tell(body(&call.invite));
        let answer = browser.next("sdp");
        call.accept(&mut edge, answer.as_str().expect("text"));
        plain.to = media_of(&call.answer, 0);
        hear_tones(&mut browser, &plain);
        call.end(&mut edge);
        let records = edge.stop();
        assert_eq!((records.len(), records[0].status), (1, 200));
    });
}
