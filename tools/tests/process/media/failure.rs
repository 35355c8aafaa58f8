//! Media that cannot be, with the binary as it runs: a certificate of somebody else, a party that never
//! shakes hands, one that no longer consents. Each ends its call, and no emergency call.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use ravelin_contract::{
    cdr::{Cdr, CdrKind},
    chain::Entry,
};

use super::{
    browser::{self, Browser},
    dtls::{self, End, GCM_128, Openssl},
    edge::{description, media_of},
    voice::Voice,
};
use crate::{
    peer::{Peer, header},
    support::{Process, Scratch, chain, config, ravelin},
};

/// Far longer than a handshake may take, or a consent lasts.
const LONG: Duration = Duration::from_secs(150);
/// aiortc reads nothing into a line that is not there.
const PLAIN: &str = "m=audio 40000 RTP/AVP 0\na=rtpmap:0 PCMU/8000\na=sendrecv\n";
const HELP: &str = "911";
const ORDINARY: &str = "+12125550001";

struct Edge {
    scratch: Scratch,
    process: Process,
    caller: Peer,
    carrier: Peer,
    psap: Peer,
    cseq: u32,
}

impl Edge {
    /// `place`: of 127.9.0.0/16.
    fn start(place: u8, media: &str) -> Self {
        let scratch = Scratch::new();
        let role = "    role: customer";
        let config = config(place).replace("127.4.", "127.9.");
        assert!(config.contains(role));
        let config = config.replace(role, &format!("    media: {media}\n{role}"));
        let file = scratch.write("ravelin.yml", &config);
        let mut command = ravelin();
        command.args(["edge", "--drain-within", "24h", "--config"]).arg(&file);
        let mut process = Process::start(command.arg("--data").arg(scratch.data()));
        process.wait_for_line("edge: ready", 1);
        let at = |net: u8, host: u8, port: u16| ([127, 9, place * 10 + net, host], port).into();
        Self {
            scratch,
            process,
            caller: Peer::new(at(1, 7, 0), at(0, 10, 5060)),
            carrier: Peer::new(at(2, 1, 5060), at(0, 20, 5060)),
            psap: Peer::new(at(9, 1, 5060), at(0, 20, 5060)),
            cseq: 1,
        }
    }

    fn party(&self) -> IpAddr {
        self.caller.address().ip()
    }

    /// A call that is up; what the caller was answered.
    #[track_caller]
    fn call(&mut self, name: &str, number: &str, offer: &str) -> String {
        self.caller.offer(name, number, offer);
        let callee = if number == HELP { &mut self.psap } else { &mut self.carrier };
        let invite = callee.expect("INVITE ", "");
        let plain = description(callee.address().ip(), 1, PLAIN);
        callee.answer(&invite, "200 OK", &plain);
        callee.expect("ACK ", &header(&invite, "Call-ID"));
        let answer = self.caller.expect("SIP/2.0 200", &format!("{name}@"));
        self.caller.ack(name, &answer);
        answer
    }

    /// Waits until these events of failures, as `reason action emergency`, are on record.
    #[track_caller]
    fn told(&self, expected: &[&str], mut meanwhile: impl FnMut()) {
        let end = Instant::now() + LONG;
        loop {
            meanwhile();
            let told = failures(&self.scratch);
            if expected.iter().all(|one| told.iter().any(|told| told == one)) {
                return;
            }
            assert!(Instant::now() < end, "{told:?}, not {expected:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Both were hung up on for `cause`.
    #[track_caller]
    fn hung_up(&mut self, name: &str, cause: u16) {
        let reason = format!("ravelin;cause={cause};");
        for (peer, part) in [(&mut self.caller, format!("{name}@")), (&mut self.carrier, reason)] {
            let bye = peer.expect("BYE ", &part);
            assert!(
                header(&bye, "Reason").starts_with(&format!("ravelin;cause={cause};")),
                "{bye}"
            );
            peer.reply(&bye, "200 OK");
        }
    }

    /// The call for help is still up: its caller hangs up, and the other end hears of it.
    #[track_caller]
    fn still_up(&mut self, name: &str, answer: &str) {
        self.cseq += 1;
        let (me, cseq) = (self.caller.address(), self.cseq);
        let contact = header(answer, "Contact");
        self.caller.send(&format!(
            "BYE {} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bKb{name};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:+13135550100@{me}>;tag={name}\r\nTo: {}\r\n\
             Call-ID: {name}@{me}\r\nCSeq: {cseq} BYE\r\nContent-Length: 0\r\n\r\n",
            contact.trim_matches(['<', '>']),
            header(answer, "To")
        ));
        self.caller.expect("SIP/2.0 200", &format!("CSeq: {cseq} BYE"));
        let bye = self.psap.expect("BYE ", "");
        assert!(!bye.contains("ravelin;cause"), "{bye}");
        self.psap.reply(&bye, "200 OK");
    }

    /// Causes of all calls, in order.
    fn stop(self) -> Vec<u16> {
        let Self { mut process, scratch, .. } = self;
        process.signal("TERM");
        process.wait_for_line("taking no new calls", 1);
        process.signal("TERM");
        process.wait();
        let entries = chain(&scratch.data());
        let calls = entries.into_iter().filter_map(|entry| match entry {
            Entry::Cdr(cdr) if cdr.kind == CdrKind::Call => Some(cdr),
            _ => None,
        });
        let mut causes: Vec<u16> = calls.map(|Cdr { cause, .. }| cause).collect();
        causes.sort_unstable();
        causes
    }
}

/// What is on record; its last line may be half written.
fn failures(scratch: &Scratch) -> Vec<String> {
    let files = std::fs::read_dir(scratch.data().join("audit")).expect("audit directory");
    let texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
    let events = lines.filter_map(|line| {
        let record: serde_json::Value = serde_json::from_str(&line).ok()?;
        match serde_json::from_value(record.get("entry")?.clone()).ok()? {
            Entry::Audit(event) => Some(event),
            _ => None,
        }
    });
    let lost = ["media.dtls_failed", "media.consent_lost"];
    events
        .filter(|event| lost.contains(&event.kind.as_str()))
        .map(|event| {
            let text = |key: &str| event.fields[key].to_string().trim_matches('"').to_owned();
            format!("{} {} {}", text("reason"), text("action"), text("emergency"))
        })
        .collect()
}

fn secure(ip: IpAddr, port: u16, fingerprint: &str) -> String {
    let line = format!(
        "m=audio {port} UDP/TLS/RTP/SAVP 0\na=rtcp-mux\na=setup:active\n\
         a=fingerprint:sha-256 {fingerprint}\n"
    );
    description(ip, 1, &line)
}

/// A party whose certificate is not the one that its description names ends its call at once; one
/// that never says a word ends it when its time is over. Calls for help go on in both cases.
#[test]
fn a_party_that_cannot_or_does_not_shake_hands_loses_its_call_and_no_call_for_help() {
    if !dtls::equipped(
        "a_party_that_cannot_or_does_not_shake_hands_loses_its_call_and_no_call_for_help",
    ) {
        return;
    }
    let mut edge = Edge::start(23, "{ srtp: dtls }");
    let folder = Scratch::new();
    let certificate = dtls::certificate(folder.path()).expect("openssl");
    let (party, other) = (edge.party(), vec!["AB"; 32].join(":"));
    edge.call("mute", ORDINARY, &secure(party, 41_000, &certificate.fingerprint));
    let mute_sos = edge.call("mutesos", HELP, &secure(party, 41_002, &certificate.fingerprint));
    let mut liars = Vec::new();
    let mut liar_sos = String::new();
    for (name, number, port) in [("liar", ORDINARY, 41_004), ("liarsos", HELP, 41_006)] {
        let answer = edge.call(name, number, &secure(party, port, &other));
        let mut voice = Voice::new(party, port, 0xd0);
        voice.to = media_of(&answer, 0);
        liars.push((Openssl::start(party, End::Client, &certificate, GCM_128), voice));
        liar_sos = answer;
    }
    edge.told(&["fingerprint alarm true", "fingerprint bye false"], || {
        for (program, voice) in &mut liars {
            program.carry(voice);
        }
    });
    edge.hung_up("liar", 409);
    edge.told(&["not_begun alarm true", "not_begun bye false"], || {});
    edge.hung_up("mute", 409);
    edge.still_up("liarsos", &liar_sos);
    edge.still_up("mutesos", &mute_sos);
    assert_eq!(edge.stop(), [1, 1, 409, 409]);
}

/// A WebRTC party that is gone without a word: its checks of consent end (RFC 7675).
#[test]
fn a_party_that_no_longer_consents_loses_its_call_and_no_call_for_help() {
    if !browser::equipped("a_party_that_no_longer_consents_loses_its_call_and_no_call_for_help") {
        return;
    }
    let mut edge = Edge::start(24, "{ srtp: dtls, ice: lite }");
    let mut parties = Vec::new();
    let mut help = String::new();
    for (name, number) in [("gone", ORDINARY), ("gonesos", HELP)] {
        let mut browser = Browser::start("offer", edge.party());
        let offer = browser.next("sdp");
        let answer = edge.call(name, number, offer.as_str().expect("text"));
        browser.tell(browser::body(&answer));
        parties.push(browser);
        help = answer;
    }
    for browser in &mut parties {
        while browser.next("connection") != "connected" {}
    }
    // It has renewed its consent a few times by then (every 5 s), and must have for more than 4 s.
    let renewed = Instant::now() + Duration::from_secs(20);
    std::thread::sleep(renewed.saturating_duration_since(Instant::now()));
    assert_eq!(failures(&edge.scratch), Vec::<String>::new());
    drop(parties);
    edge.told(&["silent alarm true", "silent bye false"], || {});
    edge.hung_up("gone", 410);
    edge.still_up("gonesos", &help);
    assert_eq!(edge.stop(), [1, 410]);
}
