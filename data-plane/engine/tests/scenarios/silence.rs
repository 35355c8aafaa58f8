//! RTP timeout: who owes packets, what a hold suspends, what happens to whom (lessons.md 1.17).

use ravelin_contract::{audit::Severity, cdr::Party};
use ravelin_engine::limits::Limits;
use ravelin_policy::MediaAction;

use crate::common::*;

/// What every trunk allows.
const ALLOWED_MS: u64 = 10_000;

/// All trunks with one action.
fn config(action: &str) -> String {
    let media = format!("    media: {{ rtp_timeout: 10s, rtp_timeout_action: {action} }}\n");
    ["customer", "carrier", "emergency"].iter().fold(CONFIG.to_owned(), |config, role| {
        let role = format!("    role: {role}\n");
        config.replace(&role, &format!("{role}{media}"))
    })
}

fn world(action: &str) -> World {
    World::with(&config(action), Limits::default())
}

/// A call that is up, or rings with early media, and where its parties send to.
struct Talk {
    caller: Caller,
    callee: Callee,
    to_caller: u16,
    to_callee: u16,
    number: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Both,
    Caller,
    Callee,
    Nobody,
}

impl Talk {
    /// To the carrier, or to the PSAP for 911.
    #[track_caller]
    fn ringing(world: &mut World, number: &str) -> Self {
        let emergency = number == "911";
        let at = if emergency { PSAP_1 } else { CARRIER_A };
        let mut caller = Caller::dial(world, number);
        world.expect(PBX, "SIP/2.0 100");
        let callee = Callee::take(world, at);
        let ip = addr(at).ip().to_string();
        callee.reply(world, "183 Session Progress", &sdp_part(&ip, 50_000));
        let progress = world.expect(PBX, "SIP/2.0 183");
        caller.learn(&progress);
        let (to_caller, to_callee) = (progress.media_port(0), callee.invite.media_port(0));
        Self { caller, callee, to_caller, to_callee, number: 0 }
    }

    #[track_caller]
    fn answered(world: &mut World, number: &str) -> Self {
        let mut talk = Self::ringing(world, number);
        talk.callee.answer(world);
        world.expect(&talk.callee.at.clone(), "ACK ");
        let ok = world.expect(PBX, "SIP/2.0 200");
        talk.caller.learn(&ok);
        talk.caller.ack(world, "");
        world.quiet();
        talk
    }

    fn packet(&mut self, payload_type: u8) -> Vec<u8> {
        self.number = self.number.wrapping_add(1);
        let [high, low] = self.number.to_be_bytes();
        vec![0x80, payload_type, high, low, 0, 0, high, low, 1, 2, 3, 4, 0x55, 0x55]
    }

    fn caller_sends(&mut self, world: &mut World, packet: &[u8]) {
        let to = addr(&format!("127.0.0.10:{}", self.to_caller));
        world.send_media("127.0.1.1:40000", to, packet);
    }

    fn callee_sends(&mut self, world: &mut World, packet: &[u8]) {
        let to = addr(&format!("127.0.0.20:{}", self.to_callee));
        let from = format!("{}:50000", addr(&self.callee.at).ip());
        world.send_media(&from, to, packet);
    }

    /// Lets time pass while some talk, a packet each second.
    fn talk(&mut self, world: &mut World, who: Who, ms: u64) {
        for _ in 0..ms / 1_000 {
            if matches!(who, Who::Both | Who::Caller) {
                let packet = self.packet(0);
                self.caller_sends(world, &packet);
            }
            if matches!(who, Who::Both | Who::Callee) {
                let packet = self.packet(0);
                self.callee_sends(world, &packet);
            }
            world.pass(1_000);
        }
    }

    /// One party offers `offer`, the other answers `answer`.
    #[track_caller]
    fn reinvite(&mut self, world: &mut World, by_caller: bool, offer: &str, answer: &str) {
        let part = |body: &str| format!("Content-Type: application/sdp\n\n{body}");
        if by_caller {
            self.caller.request(world, "INVITE", &part(offer));
            let passed = world.expect(CARRIER_A, "INVITE ");
            let contact = format!("Contact: <sip:callee@{CARRIER_A}>\n{}", part(answer));
            world.send(CARRIER_A, CORE, &passed.reply("200 OK", "", &contact));
            world.expect(CARRIER_A, "ACK ");
            // 100, if it came, and the answer.
            while !world.take(PBX).start().starts_with("SIP/2.0 200") {}
            let cseq = self.caller.cseq;
            self.caller.ack_of(world, cseq, "");
        } else {
            self.callee.request(world, "INVITE", &part(offer));
            let passed = world.expect(PBX, "INVITE ");
            let contact = format!("Contact: <sip:pbx@{PBX}>\n{}", part(answer));
            world.send(PBX, ACCESS, &passed.reply("200 OK", "", &contact));
            world.expect(PBX, "ACK ");
            while !world.take(CARRIER_A).start().starts_with("SIP/2.0 200") {}
            self.callee.cseq -= 1;
            self.callee.request(world, "ACK", "");
        }
        world.forget_inbox();
    }

    fn lives(&self, world: &World) -> bool {
        world.engine.tables().calls == 1 && world.cdrs().is_empty()
    }
}

fn timeouts(world: &World) -> [u64; 3] {
    let count = |action| world.engine.counters().rtp_timeouts(action);
    [MediaAction::Alarm, MediaAction::Bye, MediaAction::Nothing].map(count)
}

#[test]
fn a_call_whose_parties_talk_lives_and_silence_of_either_is_acted_on() {
    for (action, counted) in [("alarm", [1, 0, 0]), ("bye", [0, 1, 0]), ("nothing", [0, 0, 1])] {
        for (who, silent) in [(Who::Caller, "callee"), (Who::Callee, "caller")] {
            let mut world = world(action);
            let mut talk = Talk::answered(&mut world, "+12125551234");
            talk.talk(&mut world, Who::Both, 5 * ALLOWED_MS);
            assert_eq!(timeouts(&world), [0, 0, 0]);
            // The last packet was a second ago.
            talk.talk(&mut world, who, ALLOWED_MS - 2_000);
            assert_eq!(timeouts(&world), [0, 0, 0], "{action} {who:?}");
            talk.talk(&mut world, who, 2_000);
            assert_eq!(timeouts(&world), counted, "{action} {who:?}");
            let events: Vec<_> =
                world.events().into_iter().filter(|event| event.kind == "media.timeout").collect();
            if action == "nothing" {
                assert!(events.is_empty());
            } else {
                assert_eq!((events.len(), events[0].severity), (1, Severity::Alarm));
                assert_eq!(events[0].fields["party"], silent);
                let trunk = if silent == "caller" { "pbx" } else { "carrier-a" };
                assert_eq!(events[0].fields["trunk"], trunk);
                assert_eq!(events[0].fields["action"], action);
                assert!(events[0].fields["silent_ms"].as_u64().unwrap() >= ALLOWED_MS);
                assert!(events[0].call.is_some());
            }
            assert_eq!(talk.lives(&world), action != "bye");
            if action == "bye" {
                let bye = world.expect(CARRIER_A, "BYE ");
                assert!(bye.header("Reason").starts_with("ravelin;cause=408;"), "{bye:?}");
                world.expect(PBX, "BYE ");
                let cdr = world.call_cdr();
                assert_eq!((cdr.cause, cdr.ended_by), (408, Party::Ravelin));
                let of = |from| cdr.streams.iter().find(|stream| stream.from == from).unwrap();
                let party = if silent == "caller" { Party::Caller } else { Party::Callee };
                let other = if silent == "caller" { Party::Callee } else { Party::Caller };
                assert_eq!((of(party).timeouts, of(other).timeouts), (1, 0));
            }
        }
    }
}

/// Every way to say hold, by either party: nobody owes anything, however long. When it ends, both
/// have their full time again.
#[test]
fn a_hold_suspends_it_however_it_is_spelled() {
    let caller = |direction: &str| sdp_with("127.0.1.1", 40_000, 2, direction);
    let callee = |direction: &str| sdp_with("127.0.2.1", 50_000, 2, direction);
    let old = |body: String| {
        let line = body.lines().find(|line| line.starts_with("c=")).unwrap().to_owned();
        body.replace(&line, "c=IN IP4 0.0.0.0")
    };
    let closed = |body: String| {
        body.replace("m=audio 40000", "m=audio 0").replace("m=audio 50000", "m=audio 0")
    };
    for by_caller in [true, false] {
        type Side<'a> = &'a dyn Fn(&str) -> String;
        let (own, other): (Side<'_>, Side<'_>) =
            if by_caller { (&caller, &callee) } else { (&callee, &caller) };
        for (spelling, offer, answer) in [
            ("sendonly", own("sendonly"), other("recvonly")),
            ("recvonly", own("recvonly"), other("sendonly")),
            ("inactive", own("inactive"), other("inactive")),
            ("sendonly, refused by inactive", own("sendonly"), other("inactive")),
            ("unspecified address", old(own("sendrecv")), other("sendrecv")),
            ("unspecified address and inactive", old(own("inactive")), other("inactive")),
            ("port 0", closed(own("sendrecv")), closed(other("sendrecv"))),
        ] {
            let mut world = world("bye");
            let mut talk = Talk::answered(&mut world, "+12125551234");
            talk.talk(&mut world, Who::Both, 3_000);
            talk.reinvite(&mut world, by_caller, &offer, &answer);
            talk.talk(&mut world, Who::Nobody, 20 * ALLOWED_MS);
            assert!(talk.lives(&world), "{spelling}, by the caller: {by_caller}");
            talk.reinvite(&mut world, by_caller, &own("sendrecv"), &other("sendrecv"));
            world.pass(ALLOWED_MS - 1);
            assert!(talk.lives(&world), "{spelling}: after the hold");
            world.pass(1);
            assert!(!talk.lives(&world), "{spelling}: silence after the hold");
            assert_eq!(world.call_cdr().cause, 408);
        }
    }
}

#[test]
fn each_agreement_gives_the_full_time_again() {
    let mut world = world("bye");
    let mut talk = Talk::answered(&mut world, "+12125551234");
    for round in 0..5 {
        world.pass(ALLOWED_MS - 1_000);
        let (offer, answer) =
            (sdp_with("127.0.1.1", 40_000, round, ""), sdp_with("127.0.2.1", 50_000, round, ""));
        talk.reinvite(&mut world, round % 2 == 0, &offer, &answer);
        assert!(talk.lives(&world));
    }
}

/// A stream that flowed one way from the start is no hold: who sends owes, who listens does not.
#[test]
fn a_listener_owes_nothing() {
    for (who, lives) in [(Who::Callee, true), (Who::Nobody, false)] {
        let mut world = world("bye");
        let offer = format!(
            "Content-Type: application/sdp\n\n{}",
            sdp_with("127.0.1.1", 40_000, 1, "recvonly")
        );
        let caller = Caller::invite(&mut world, PBX, ACCESS, "sip:+12125551234@127.0.0.10", &offer);
        world.expect(PBX, "SIP/2.0 100");
        let callee = Callee::take(&mut world, CARRIER_A);
        let answer = format!(
            "Content-Type: application/sdp\n\n{}",
            sdp_with("127.0.2.1", 50_000, 1, "sendonly")
        );
        callee.reply(&mut world, "200 OK", &answer);
        world.expect(CARRIER_A, "ACK ");
        let ok = world.expect(PBX, "SIP/2.0 200");
        let (to_caller, to_callee) = (ok.media_port(0), callee.invite.media_port(0));
        let mut talk = Talk { caller, callee, to_caller, to_callee, number: 0 };
        talk.caller.learn(&ok);
        talk.caller.ack(&mut world, "");
        talk.talk(&mut world, who, 3 * ALLOWED_MS);
        assert_eq!(talk.lives(&world), lives, "{who:?}");
    }
}

#[test]
fn early_media_that_never_comes_or_stops_ends_the_attempt_and_the_caller_owes_nothing_yet() {
    for before in [0, 30_000] {
        let mut world = world("bye");
        let mut talk = Talk::ringing(&mut world, "+12125551234");
        talk.talk(&mut world, Who::Callee, before);
        assert!(talk.lives(&world));
        talk.talk(&mut world, Who::Caller, ALLOWED_MS);
        world.expect(CARRIER_A, "CANCEL ");
        let refusal = world.expect(PBX, "SIP/2.0 480");
        assert!(refusal.header("Reason").contains("cause=408"), "{refusal:?}");
        assert_eq!((world.call_cdr().cause, world.call_cdr().status), (408, 480));
    }
    // The answer makes the caller owe, from then on.
    let mut world = world("bye");
    let mut talk = Talk::ringing(&mut world, "+12125551234");
    talk.talk(&mut world, Who::Callee, 30_000);
    talk.callee.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    talk.caller.learn(&ok);
    talk.caller.ack(&mut world, "");
    talk.talk(&mut world, Who::Callee, ALLOWED_MS - 1_000);
    assert!(talk.lives(&world));
    talk.talk(&mut world, Who::Callee, 1_000);
    assert!(!talk.lives(&world));
}

#[test]
fn ringing_without_a_description_owes_nothing() {
    let mut world = world("bye");
    Caller::dial(&mut world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.reply(&mut world, "180 Ringing", "");
    world.expect(PBX, "SIP/2.0 180");
    world.pass(10 * ALLOWED_MS);
    assert!(world.cdrs().is_empty());
}

/// EM rule 10: never a BYE, whoever is silent, before the answer or after it.
#[test]
fn an_emergency_call_is_never_ended_by_it() {
    for early in [true, false] {
        for who in [Who::Nobody, Who::Caller, Who::Callee] {
            let mut world = world("bye");
            let mut talk = if early {
                Talk::ringing(&mut world, "911")
            } else {
                Talk::answered(&mut world, "911")
            };
            talk.talk(&mut world, who, 3 * ALLOWED_MS);
            assert!(talk.lives(&world), "early: {early}, {who:?}");
            let silent = match (early, who) {
                (true, Who::Callee) => 0,
                (false, Who::Nobody) => 2,
                _ => 1,
            };
            assert_eq!(timeouts(&world), [silent, 0, 0], "early: {early}, {who:?}");
            let told = world.events().into_iter().filter(|event| event.kind == "media.timeout");
            let told: Vec<_> = told.map(|event| event.fields["action"].clone()).collect();
            assert_eq!(told, vec!["alarm"; usize::try_from(silent).unwrap()]);
        }
    }
}

/// RFC 3550 6.3.5: RTP or RTCP. Not what a stranger sends, not a goodbye.
#[test]
fn what_counts_as_a_sign_of_life() {
    let report = [0x80, 201, 0, 1, 1, 2, 3, 4];
    let goodbye = [[0x80, 201, 0, 1, 1, 2, 3, 4], [0x81, 203, 0, 1, 1, 2, 3, 4]].concat();
    let noise = [0x80, 13, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 40];
    let short = [0x80, 201, 0, 0];
    for (name, port, packet, source, lives) in [
        ("comfort noise", 0, &noise[..], "127.0.2.1:50000", true),
        ("a receiver report", 1, &report[..], "127.0.2.1:50001", true),
        ("a goodbye", 1, &goodbye[..], "127.0.2.1:50001", false),
        ("a stranger", 0, &noise[..], "127.0.2.9:50000", false),
        ("four octets of RTCP", 1, &short[..], "127.0.2.1:50001", false),
    ] {
        let mut world = world("bye");
        let mut talk = Talk::answered(&mut world, "+12125551234");
        for _ in 0..3 {
            let to = addr(&format!("127.0.0.20:{}", talk.to_callee + port));
            world.send_media(source, to, packet);
            talk.talk(&mut world, Who::Caller, ALLOWED_MS / 2);
        }
        assert_eq!(talk.lives(&world), lives, "{name}");
    }
}

#[test]
fn the_alarm_is_given_once_and_every_silence_is_counted() {
    let mut world = world("alarm");
    let mut talk = Talk::answered(&mut world, "+12125551234");
    for _ in 0..3 {
        talk.talk(&mut world, Who::Both, ALLOWED_MS);
        talk.talk(&mut world, Who::Caller, 3 * ALLOWED_MS);
    }
    assert_eq!(timeouts(&world), [3, 0, 0]);
    assert_eq!(world.event_kinds(), ["media.timeout"]);
    assert!(talk.lives(&world));
    talk.caller.request(&mut world, "BYE", "");
    let bye = world.expect(CARRIER_A, "BYE ");
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    let timeouts: Vec<_> =
        world.call_cdr().streams.iter().map(|stream| (stream.from, stream.timeouts)).collect();
    assert_eq!(timeouts, [(Party::Caller, 0), (Party::Callee, 3)]);
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn without_the_setting_nobody_looks() {
    let mut world = World::new();
    let mut talk = Talk::answered(&mut world, "+12125551234");
    talk.talk(&mut world, Who::Nobody, 100 * ALLOWED_MS);
    assert!(talk.lives(&world));
    assert_eq!(timeouts(&world), [0, 0, 0]);
}
