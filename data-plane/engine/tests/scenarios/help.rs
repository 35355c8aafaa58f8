//! Emergency calls whose descriptions cannot be taken as they are (EM-55, EM-59, EM-62): each goes on
//! with what can be understood, and what was done is on record. Nobody else's are mended.

use ravelin_engine::{cause::Cause, limits::Limits};

use crate::common::*;

const PHONE: &str = "127.0.1.1:40000";
const OFFER: &str = "v=0\no=a 1 1 IN IP4 127.0.1.1\ns=-\nc=IN IP4 127.0.1.1\nt=0 0\n\
    m=audio 40000 RTP/AVP 0 8\na=ptime:20\n";

fn rtp(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 160, 0, 0, 0, 9, 1, 2, 3, 4]);
    packet
}

fn typed(body: &str) -> String {
    format!("Content-Type: application/sdp\n\n{body}")
}

fn dial(world: &mut World, number: &str, more: &str) -> Caller {
    let caller = Caller::invite(world, PBX, ACCESS, &format!("sip:{number}@127.0.0.10"), more);
    world.expect(PBX, "SIP/2.0 100");
    caller
}

/// The lines of the description in a message, whether alone or in a multipart body.
fn description(message: &Msg) -> Vec<&str> {
    let body = message.body();
    let body = &body[body.find("v=0").expect("a description")..];
    body.split("\r\n").take_while(|line| line.as_bytes().get(1) == Some(&b'=')).collect()
}

fn media(message: &Msg) -> Vec<&str> {
    description(message).into_iter().filter(|line| line.starts_with("m=")).collect()
}

fn local(message: &Msg, index: usize, ip: &str) -> std::net::SocketAddr {
    let port = media(message)[index].split(' ').nth(1).unwrap();
    addr(&format!("{ip}:{port}"))
}

/// A 911 call with this INVITE, answered with a description; the INVITE that the PSAP got, the answer
/// that the caller got.
#[track_caller]
fn up(world: &mut World, more: &str, answer: &str) -> (Caller, Msg, Msg) {
    let mut caller = dial(world, "911", more);
    let psap = Callee::take(world, PSAP_1);
    psap.reply(world, "200 OK", &typed(answer));
    world.expect(PSAP_1, "ACK");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(world, "");
    (caller, psap.invite, ok)
}

#[track_caller]
fn down(mut world: World, mut caller: Caller, done: &[&str]) {
    caller.request(&mut world, "BYE", "");
    let told: Vec<_> = world
        .events()
        .into_iter()
        .filter(|event| event.kind == "emergency.description")
        .map(|event| event.fields["done"].clone())
        .collect();
    match done {
        [] => assert_eq!(told, Vec::<serde_json::Value>::new()),
        done => assert_eq!(told, [serde_json::json!(done)]),
    }
    assert_eq!(world.engine.counters().emergency_repaired, u64::from(!done.is_empty()));
    assert_eq!(world.call_cdr().sdp_caller, done);
    assert_eq!(world.call_cdr().sdp_callee, Vec::<String>::new());
    world.forget_inbox();
    world.all_gone();
}

fn answer() -> String {
    sdp("127.0.9.1", 50_000)
}

/// Both parties hear one another: the caller is at `phone`.
#[track_caller]
fn heard(world: &mut World, phone: &str, invite: &Msg, ok: &Msg) {
    let (near, far) = (local(ok, 0, "127.0.0.10"), local(invite, 0, "127.0.0.20"));
    world.media.clear();
    for sequence in 1..=12 {
        world.send_media(phone, near, &rtp(sequence));
        world.pass(20);
    }
    let up = world.media.iter().filter(|(to, _)| *to == addr("127.0.9.1:50000")).count();
    assert!(up >= 5, "{up} of 12");
    world.media.clear();
    world.send_media("127.0.9.1:50000", far, &rtp(1));
    assert_eq!(world.media, [(addr(phone), rtp(1))]);
}

#[test]
fn what_breaks_the_grammar_is_left_out() {
    for (from, to) in [
        ("t=0 0", "nonsense"),
        ("t=0 0", "a=x\0y"),
        ("a=ptime:20", "a=rtcp:none\na=ptime:20"),
        ("v=0\n", ""),
        ("o=a 1 1 IN IP4 127.0.1.1", "o=a b c"),
        ("c=IN IP4 127.0.1.1\n", ""),
        ("c=IN IP4 127.0.1.1", "c=IP4 127.0.1.1"),
        ("m=audio 40000 RTP/AVP 0 8", "m=audio 40000/2 RTP/AVP 0 8"),
        ("m=audio 40000 RTP/AVP 0 8", "m=audio 40000 rtp/avp 0 8"),
        ("m=audio 40000 RTP/AVP 0 8", "m=audio 40000 RTP/AVP"),
    ] {
        let broken = OFFER.replace(from, to);
        let mut world = World::new();
        let (caller, invite, ok) = up(&mut world, &typed(&broken), &answer());
        assert_eq!(media(&invite).len(), 1, "{to}");
        assert!(media(&invite)[0].ends_with(" RTP/AVP 0 8"), "{to}: {:?}", media(&invite));
        assert!(description(&invite).contains(&"c=IN IP4 127.0.0.20"), "{to}");
        assert!(description(&invite).contains(&"a=ptime:20"), "{to}");
        heard(&mut world, PHONE, &invite, &ok);
        down(world, caller, &["mended"]);

        let mut world = World::new();
        let ordinary = dial(&mut world, "+12125551234", &typed(&broken));
        let refused = world.expect(PBX, "SIP/2.0 488");
        assert_eq!(refused.header("Reason"), Cause::NotAcceptable.reason_header());
        assert!(refused.header("Warning").starts_with("399 ravelin"));
        ordinary.ack_refusal(&mut world, &refused);
        world.quiet();
        world.all_gone();
    }
}

#[test]
fn a_stream_that_cannot_be_read_is_refused_alone_and_keeps_its_place() {
    let broken = OFFER.replace("m=audio", "m=video 99999 RTP/AVP 96\nm=audio");
    let mut world = World::new();
    let answer = answer().replace("m=audio", "m=audio 0 RTP/AVP 0\nm=audio");
    let (caller, invite, ok) = up(&mut world, &typed(&broken), &answer);
    let ports = |message: &Msg| -> Vec<bool> {
        media(message).iter().map(|line| !line.contains(" 0 RTP")).collect()
    };
    assert_eq!((ports(&invite), ports(&ok)), (vec![false, true], vec![false, true]));
    down(world, caller, &["mended"]);
}

/// Its place is not told: it is looked for where its signalling comes from.
#[test]
fn a_caller_without_an_address_is_found() {
    let nowhere =
        OFFER.replace("c=IN IP4 127.0.1.1\n", "").replace("IP4 127.0.1.1", "IP4 pbx.example");
    let named = OFFER.replace("c=IN IP4 127.0.1.1", "c=IN IP4 pbx.example");
    for (offer, done) in [(nowhere, &["mended", "no_address"][..]), (named, &["no_address"][..])] {
        let mut world = World::new();
        let (caller, invite, ok) = up(&mut world, &typed(&offer), &answer());
        heard(&mut world, "127.0.1.1:40404", &invite, &ok);
        down(world, caller, done);
    }
}

/// Nothing of it can be read: the PSAP is offered G.711, and the caller heard if it speaks that.
#[test]
fn an_unreadable_description_is_replaced() {
    let coded = format!("Content-Encoding: gzip\n{}", typed("\u{1f}\u{8}\0\0junk"));
    for more in [typed("\u{1}\u{2}\u{3}"), typed("v=0\ns=broken\n"), coded] {
        let mut world = World::new();
        let (caller, invite, ok) = up(&mut world, &more, &answer());
        assert_eq!(media(&invite).len(), 1);
        assert!(media(&invite)[0].ends_with(" RTP/AVP 0 8 101"), "{:?}", media(&invite));
        assert_eq!(invite.try_header("Content-Encoding"), None);
        assert_eq!(media(&ok).len(), 1);
        heard(&mut world, "127.0.1.1:41000", &invite, &ok);
        down(world, caller, &["mended", "no_address", "substituted"]);
    }
}

/// A device that has no audio at all: the PSAP learns who called and from where.
#[test]
fn what_cannot_be_relayed_is_refused_and_the_call_goes_on() {
    let chat = OFFER.replace("m=audio 40000 RTP/AVP 0 8", "m=message 40000 TCP/MSRP *");
    let mut world = World::new();
    let answer =
        format!("{}m=audio 50000 RTP/AVP 0\n", OFFER.replace("40000 RTP/AVP", "0 RTP/AVP"));
    let (caller, invite, ok) = up(&mut world, &typed(&chat), &answer);
    assert!(media(&invite)[0].starts_with("m=message 0 TCP/MSRP"));
    assert!(media(&invite)[1].ends_with(" RTP/AVP 0 8 101"));
    assert_eq!(media(&ok).len(), 1);
    assert!(media(&ok)[0].contains(" 0 "), "{:?}", media(&ok));
    assert!(invite.header("Geolocation").starts_with("<cid:"));
    down(world, caller, &["substituted"]);
}

#[test]
fn no_description_and_none_of_a_stream_stay_as_they_are() {
    let bare = OFFER.split("m=").next().unwrap();
    let mut world = World::new();
    let (caller, invite, _) = up(&mut world, &typed(bare), bare);
    assert!(media(&invite).is_empty());
    down(world, caller, &[]);
}

/// Encryption that we do not have: in the clear, and said so (EM-49).
#[test]
fn encryption_that_nobody_has_is_done_without() {
    let suite = "a=crypto:1 F8_128_HMAC_SHA1_80 inline:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";
    let md4 = "a=fingerprint:md4 AA:BB\na=setup:actpass\n";
    for (proto, lines) in [
        ("RTP/SAVP", suite),
        ("RTP/SAVP", "a=crypto:garbage\n"),
        ("RTP/SAVP", ""),
        ("UDP/TLS/RTP/SAVP", md4),
        ("UDP/TLS/RTP/SAVP", ""),
    ] {
        let offer = format!("{}{lines}", OFFER.replace("RTP/AVP", proto));
        for mode in ["off", "sdes", "accept", "dtls"] {
            let config = CONFIG
                .replace("  - id: pbx\n", &format!("  - id: pbx\n    media: {{ srtp: {mode} }}\n"));
            let mut world = World::with(&config, Limits::default());
            let (caller, invite, ok) = up(&mut world, &typed(&offer), &answer());
            assert!(media(&invite)[0].contains(" RTP/AVP "), "{mode} {lines}");
            assert!(media(&ok)[0].contains(" RTP/AVP "), "{mode} {lines}: {:?}", media(&ok));
            assert!(!ok.body().contains("a=crypto") && !ok.body().contains("a=fingerprint"));
            heard(&mut world, PHONE, &invite, &ok);
            down(world, caller, &["unencrypted"]);
        }
    }
}

/// Sent on hold, in every spelling: the PSAP is not told, and the caller is answered what it may be
/// (RFC 3264 6.1).
#[test]
fn a_call_for_help_is_never_on_hold() {
    for (line, answered) in
        [("a=inactive", "a=inactive"), ("a=sendonly", "a=recvonly"), ("a=recvonly", "a=sendonly")]
    {
        for session in [true, false] {
            let offer = match session {
                true => OFFER.replace("t=0 0", &format!("t=0 0\n{line}")),
                false => format!("{OFFER}{line}\n"),
            };
            let mut world = World::new();
            let (caller, invite, ok) = up(&mut world, &typed(&offer), &answer());
            let last = |message: &Msg| {
                let lines = description(message);
                let at = lines.iter().position(|line| line.starts_with("m=")).unwrap();
                let mut of_stream = lines[at..].iter();
                of_stream
                    .find(|line| {
                        line.ends_with("ive") || line.ends_with("only") || line.ends_with("recv")
                    })
                    .copied()
                    .map(str::to_owned)
            };
            assert_eq!(last(&invite).as_deref(), Some("a=sendrecv"), "{line} {session}");
            assert_eq!(last(&ok).as_deref(), Some(answered), "{line} {session}");
            down(world, caller, &["held"]);
        }
    }
    let old = OFFER.replace("c=IN IP4 127.0.1.1", "c=IN IP4 0.0.0.0");
    let mut world = World::new();
    let (caller, invite, ok) = up(&mut world, &typed(&old), &answer());
    assert!(!invite.body().contains("0.0.0.0"));
    heard(&mut world, PHONE, &invite, &ok);
    down(world, caller, &["no_address", "held"]);
}

/// An answer that breaks the grammar is no reason to hang up on a PSAP.
#[test]
fn a_psap_whose_answer_is_broken_is_heard() {
    let mut world = World::new();
    let broken = answer().replace("t=0 0", "broken").replace("c=IN IP4", "c=IP4");
    let (mut caller, invite, ok) = up(&mut world, &typed(OFFER), &broken);
    heard(&mut world, PHONE, &invite, &ok);
    caller.request(&mut world, "BYE", "");
    assert_eq!(world.call_cdr().sdp_callee, ["mended"]);
    let event = world.events().into_iter().find(|event| event.kind == "emergency.description");
    let event = event.unwrap();
    assert_eq!(
        (&event.fields["party"], &event.fields["fault"]),
        (&serde_json::json!("callee"), &serde_json::json!("malformed SDP connection"),)
    );
    world.forget_inbox();
    world.all_gone();
}

/// What was done is on the record of a call that outlives the process, too.
#[test]
fn what_was_done_outlives_a_crash() {
    let mut world = World::new();
    let nowhere = OFFER.replace("c=IN IP4 127.0.1.1", "c=IN IP4 pbx.example");
    let broken = answer().replace("t=0 0", "broken");
    let (mut caller, ..) = up(&mut world, &typed(&nowhere), &broken);
    assert_eq!(world.crash(300).adopted, 1);
    world.forget_inbox();
    caller.request(&mut world, "BYE", "");
    let cdr = world.call_cdr();
    assert_eq!(
        (&cdr.sdp_caller[..], &cdr.sdp_callee[..]),
        (&["no_address".to_owned()][..], &["mended".to_owned()][..],)
    );
    world.forget_inbox();
    world.all_gone();
}

/// A PSAP whose answer names a host, or no single one, is looked for as its caller would be: where its
/// signalling comes from. It is never a call without audio.
#[test]
fn a_psap_whose_address_cannot_be_used_is_found() {
    for address in ["psap.example", "239.1.1.1/127", "255.255.255.255"] {
        let mut world = World::new();
        let named = answer().replace("c=IN IP4 127.0.9.1", &format!("c=IN IP4 {address}"));
        let (mut caller, invite, ok) = up(&mut world, &typed(OFFER), &named);
        let (near, far) = (local(&ok, 0, "127.0.0.10"), local(&invite, 0, "127.0.0.20"));
        world.media.clear();
        world.send_media(PHONE, near, &rtp(1));
        assert_eq!(world.media, [(addr("127.0.9.1:50000"), rtp(1))], "{address}");
        // It is somewhere else on that host, and nobody from another one is.
        for sequence in 1..=12 {
            world.send_media("127.0.9.1:50500", far, &rtp(sequence));
            world.send_media("127.0.9.7:50500", far, &rtp(sequence));
            world.pass(20);
        }
        world.media.clear();
        world.send_media(PHONE, near, &rtp(2));
        assert_eq!(world.media, [(addr("127.0.9.1:50500"), rtp(2))], "{address}");
        caller.request(&mut world, "BYE", "");
        assert_eq!(world.call_cdr().sdp_callee, ["no_address"], "{address}");
        world.forget_inbox();
        world.all_gone();
    }
}

/// Inside the call an offer that cannot be read is refused, and the call is as it was.
#[test]
fn an_unreadable_offer_inside_the_call_changes_nothing() {
    let mut world = World::new();
    let (mut caller, invite, ok) = up(&mut world, &typed(OFFER), &answer());
    world.forget_inbox();
    caller.request(&mut world, "INVITE", &typed("\u{1}"));
    let refused = world.expect(PBX, "SIP/2.0 488");
    assert!(refused.header("Warning").starts_with("399 ravelin"));
    heard(&mut world, PHONE, &invite, &ok);
    down(world, caller, &[]);
}

/// The PSAP's offer was never answered: the call stays up (EM-61), and is on record.
#[test]
fn an_offer_without_an_answer_does_not_end_the_call() {
    for tail in ["", "Content-Type: application/sdp\n\n\u{1}\n"] {
        let mut world = World::new();
        let mut caller = dial(&mut world, "911", "");
        let psap = Callee::take(&mut world, PSAP_1);
        psap.answer(&mut world);
        let ok = world.expect(PBX, "SIP/2.0 200");
        caller.learn(&ok);
        caller.ack(&mut world, tail);
        world.expect(PSAP_1, "ACK");
        world.quiet();
        world.pass(120_000);
        assert_eq!(world.engine.tables().calls, 1);
        caller.request(&mut world, "BYE", "");
        assert_eq!(world.call_cdr().sdp_caller, ["unanswered"]);
        world.forget_inbox();
        world.all_gone();
    }
}
