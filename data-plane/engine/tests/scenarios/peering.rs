//! ICE-lite (RFC 8839) and DTLS-SRTP (RFC 5763, RFC 8842) as descriptions show them, leg by leg.

use std::sync::Arc;

use ravelin_engine::limits::Limits;
use ravelin_srtp::dtls::Identity;

use super::common::*;

const PLAIN: &str = "m=audio 40000 RTP/AVP 0\n";
const PLAIN_ANSWER: &str = "m=audio 50000 RTP/AVP 0\n";
const ICE: &str = "a=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901\n";

fn world(pbx: &str, carrier: &str) -> World {
    let mut text = CONFIG.to_owned();
    for (id, media) in [("pbx", pbx), ("carrier-a", carrier)] {
        let at = format!("  - id: {id}\n");
        assert!(text.contains(&at));
        text = text.replacen(&at, &format!("{at}    media: {{ {media} }}\n"), 1);
    }
    let mut world = World::with(&text, Limits::default());
    // Made by the first who needs it, as after a kill.
    let identity = Identity::deferred(std::time::Instant::now());
    world.engine.set_dtls_identity(Arc::new(identity));
    world
}

fn fingerprint() -> String {
    format!("a=fingerprint:sha-256 {}\n", vec!["AB"; 32].join(":"))
}

fn part(ip: &str, c: &str, version: u32, streams: &str) -> String {
    format!(
        "Content-Type: application/sdp\n\nv=0\no=x 1 {version} IN IP4 {ip}\ns=-\nc=IN IP4 {c}\n\
         t=0 0\n{streams}"
    )
}

/// A description as a browser makes one: no candidate yet.
fn browser(setup: &str, own: &str) -> String {
    let print = fingerprint();
    format!(
        "m=audio 9 UDP/TLS/RTP/SAVPF 0\na=rtcp:9 IN IP4 0.0.0.0\n{own}a=ice-options:trickle\n\
         {print}a=setup:{setup}\na=mid:0\na=rtcp-mux\n"
    )
}

fn lines<'a>(message: &'a Msg, start: &str) -> Vec<&'a str> {
    message.body().lines().filter(|line| line.starts_with(start)).collect()
}

fn dial(world: &mut World, c: &str, offer: &str) -> Caller {
    let uri = "sip:+12125551234@127.0.0.10";
    Caller::invite(world, PBX, ACCESS, uri, &part("127.0.1.1", c, 1, offer))
}

/// The caller offers, the callee answers; what each was told.
#[track_caller]
fn talk(world: &mut World, c: &str, offer: &str, answer: &str) -> (Caller, Msg, Msg) {
    let mut caller = dial(world, c, offer);
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(world, CARRIER_A);
    callee.reply(world, "200 OK", &part("127.0.2.1", "127.0.2.1", 1, answer));
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(world, "");
    world.quiet();
    (caller, callee.invite, ok)
}

#[track_caller]
fn again(world: &mut World, caller: &mut Caller, c: &str, offer: &str, answer: &str) -> Msg {
    caller.request(world, "INVITE", &part("127.0.1.1", c, 2, offer));
    world.expect(PBX, "SIP/2.0 100");
    let invite = world.expect(CARRIER_A, "INVITE ");
    let body = part("127.0.2.1", "127.0.2.1", 2, answer);
    world.send(CARRIER_A, CORE, &invite.reply("200 OK", "", &body));
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.ack(world, "");
    ok
}

/// A browser behind the PBX trunk, a carrier that knows RTP/AVP alone.
#[test]
fn a_browser_offers_and_a_plain_carrier_answers() {
    let mut world = world("srtp: dtls, ice: lite", "srtp: off");
    let offer = browser("actpass", ICE);
    let (mut caller, invite, ok) = talk(&mut world, "0.0.0.0", &offer, PLAIN_ANSWER);
    let body = invite.body();
    assert!(body.contains(" RTP/AVP 0\r\n") && body.contains("c=IN IP4 127.0.0.20\r\n"), "{body}");
    for hidden in ["fingerprint", "setup", "ice-", "candidate", "0.0.0.0", "sendonly"] {
        assert!(!body.contains(hidden), "{hidden}: {body}");
    }
    let body = ok.body();
    assert!(body.contains(" UDP/TLS/RTP/SAVPF 0\r\n"), "{body}");
    assert_eq!(lines(&ok, "a=setup"), ["a=setup:passive"]);
    assert_eq!(lines(&ok, "a=fingerprint:sha-256 ").len(), 1);
    assert_eq!(lines(&ok, "a=rtcp-mux"), ["a=rtcp-mux"]);
    assert_eq!(lines(&ok, "a=mid:"), ["a=mid:0"], "though the carrier knows of none");
    assert!(body.find("a=ice-lite").unwrap() < body.find("m=").unwrap(), "at session level");
    assert_eq!(lines(&ok, "a=ice-options:"), ["a=ice-options:ice2"], "RFC 8839 4.2.1.5");
    let candidate = format!("127.0.0.10 {} typ host", ok.media_port(0));
    let candidates = lines(&ok, "a=candidate:");
    assert!(candidates.len() == 1 && candidates[0].ends_with(&candidate), "{candidates:?}");
    // The same offer: the same credentials. Others: ICE begins anew (RFC 8839 4.4.1.1.1).
    let same = again(&mut world, &mut caller, "0.0.0.0", &offer, PLAIN_ANSWER);
    assert_eq!(lines(&same, "a=ice-"), lines(&ok, "a=ice-"));
    let other = browser("actpass", "a=ice-ufrag:efgh\na=ice-pwd:9876543210987654321098\n");
    let anew = again(&mut world, &mut caller, "0.0.0.0", &other, PLAIN_ANSWER);
    assert_ne!(lines(&anew, "a=ice-ufrag:"), lines(&ok, "a=ice-ufrag:"));
    assert_ne!(lines(&anew, "a=ice-pwd:"), lines(&ok, "a=ice-pwd:"));
    assert_eq!(lines(&anew, "a=fingerprint:"), lines(&ok, "a=fingerprint:"));
}

/// A carrier that takes keys in SDP need not know the profile with feedback that every browser offers
/// (RFC 5124), and it is the browser that reads its own again. What came with keys in SDP keeps it.
#[test]
fn a_carrier_with_keys_in_sdp_is_offered_savp_by_a_browser() {
    let lines = "a=rtcp-mux\na=crypto:3 AES_CM_128_HMAC_SHA1_80 \
                 inline:0123456789abcdefghijklmnopqrstuvwxyz+/AB\n";
    let answer = |profile: &str| format!("m=audio 50000 {profile} 0\n{lines}");
    for (mode, offer, told) in [
        ("srtp: dtls", browser("actpass", ""), "RTP/SAVP"),
        ("srtp: accept", "m=audio 40000 RTP/AVPF 0\n".to_owned(), "RTP/SAVP"),
        ("srtp: sdes", format!("m=audio 40000 RTP/SAVPF 0\n{lines}"), "RTP/SAVPF"),
    ] {
        let mut world = world(mode, "srtp: sdes");
        let (_, invite, ok) = talk(&mut world, "127.0.1.1", &offer, &answer(told));
        let body = invite.body();
        assert!(body.contains(&format!(" {told} 0\r\n")), "{mode}: {body}");
        let own = offer.split(' ').nth(2).unwrap();
        assert!(ok.body().contains(&format!(" {own} 0\r\n")), "{mode}: {}", ok.body());
    }
}

/// We offer DTLS and ICE to the carrier; what it answers decides our part.
#[test]
fn dtls_and_ice_are_offered_where_the_trunk_asks() {
    let mut world = world("srtp: off", "srtp: dtls, ice: lite");
    let print = fingerprint();
    let answer = format!(
        "m=audio 50000 UDP/TLS/RTP/SAVP 0\n{ICE}\
         a=candidate:1 1 UDP 5 127.0.2.1 50000 typ host\n{print}a=setup:active\na=rtcp-mux\n"
    );
    let (_, invite, ok) = talk(&mut world, "127.0.1.1", PLAIN, &answer);
    assert!(invite.body().contains(" UDP/TLS/RTP/SAVP 0\r\n"));
    assert_eq!(lines(&invite, "a=setup"), ["a=setup:actpass"]);
    assert_eq!(lines(&invite, "a=ice-lite").len(), 1);
    assert_eq!(lines(&invite, "a=candidate:").len(), 2, "RTCP has a port if it is wanted");
    assert_eq!(lines(&invite, "a=rtcp-mux").len(), 1);
    let body = ok.body();
    assert!(body.contains(" RTP/AVP 0\r\n"), "{body}");
    for hidden in ["fingerprint", "setup", "ice-", "candidate", "rtcp-mux"] {
        assert!(!body.contains(hidden), "{hidden}: {body}");
    }
    // Nothing passes before the handshake, in either direction.
    let packet = [0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0x55];
    let at = addr(&format!("127.0.0.10:{}", ok.media_port(0)));
    world.send_media("127.0.1.1:40000", at, &packet);
    let at = addr(&format!("127.0.0.20:{}", invite.media_port(0)));
    world.send_media("127.0.2.1:50000", at, &packet);
    assert!(world.media.iter().all(|(_, bytes)| bytes != &packet));
}

#[test]
fn an_answer_whose_certificate_cannot_be_checked_fails_the_call() {
    let print = fingerprint();
    for answer in [
        "m=audio 50000 UDP/TLS/RTP/SAVP 0\na=setup:active\n".to_owned(),
        format!("m=audio 50000 UDP/TLS/RTP/SAVP 0\n{print}a=setup:actpass\n"),
        format!("m=audio 50000 UDP/TLS/RTP/SAVP 0\n{print}a=setup:holdconn\n"),
        PLAIN_ANSWER.to_owned(),
    ] {
        let mut world = world("srtp: off", "srtp: dtls");
        dial(&mut world, "127.0.1.1", PLAIN);
        world.expect(PBX, "SIP/2.0 100");
        let callee = Callee::take(&mut world, CARRIER_A);
        callee.reply(&mut world, "200 OK", &part("127.0.2.1", "127.0.2.1", 1, &answer));
        world.expect(CARRIER_A, "ACK ");
        world.expect(CARRIER_A, "BYE ");
    }
}

#[test]
fn an_offer_without_a_certificate_that_can_be_checked_is_refused() {
    for (offer, cause) in [
        (PLAIN, 117),
        ("m=audio 40000 UDP/TLS/RTP/SAVP 0\na=setup:actpass\n", 119),
        ("m=audio 40000 RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\n", 117),
    ] {
        let mut world = world("srtp: dtls", "srtp: off");
        dial(&mut world, "127.0.1.1", offer);
        world.expect(PBX, "SIP/2.0 100");
        let refused = world.expect(PBX, "SIP/2.0 488");
        assert!(refused.header("Reason").contains(&format!("cause={cause};")), "{offer}");
    }
}

/// RFC 8839 4.2.5: addresses that something rewrote, and RFC 8839 4.2.2: a peer that has no ICE.
#[test]
fn ice_is_left_where_it_cannot_work() {
    let candidate = "a=candidate:1 1 UDP 5 10.0.0.9 40000 typ host\n";
    for (lines_of_ice, mismatch) in [(format!("{ICE}{candidate}"), true), (String::new(), false)] {
        let mut world = world("ice: lite", "srtp: pass");
        let offer = format!("{PLAIN}{lines_of_ice}");
        let (_, _, ok) = talk(&mut world, "127.0.1.1", &offer, PLAIN_ANSWER);
        assert_eq!(lines(&ok, "a=ice-mismatch").len(), usize::from(mismatch));
        assert!(lines(&ok, "a=candidate").is_empty());
        let packet = [0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0x55];
        let at = addr(&format!("127.0.0.10:{}", ok.media_port(0)));
        world.send_media("127.0.1.1:40000", at, &packet);
        assert_eq!(world.media[0].0, addr("127.0.2.1:50000"), "the signalled address holds");
    }
}

/// With ICE nothing passes before a check has shown where the party is.
#[test]
fn with_ice_the_signalled_address_alone_moves_nothing() {
    let mut world = world("ice: lite", "srtp: pass");
    let candidate = "a=candidate:1 1 UDP 5 127.0.1.1 40000 typ host\n";
    let (_, _, ok) =
        talk(&mut world, "127.0.1.1", &format!("{PLAIN}{ICE}{candidate}"), PLAIN_ANSWER);
    assert_eq!(lines(&ok, "a=candidate").len(), 2);
    let packet = [0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0x55];
    let at = addr(&format!("127.0.0.10:{}", ok.media_port(0)));
    world.send_media("127.0.1.1:40000", at, &packet);
    assert!(world.media.is_empty());
}

/// RFC 8839 7.5: an offer that a re-INVITE without one asked for begins ICE anew, and it alone; DTLS
/// goes on (RFC 8842 5.5).
#[test]
fn an_offer_that_was_asked_for_begins_ice_anew() {
    let mut world = world("srtp: off", "srtp: dtls, ice: lite");
    let answer = |own: &str| {
        format!(
            "m=audio 50000 UDP/TLS/RTP/SAVP 0\n{own}\
             a=candidate:1 1 UDP 5 127.0.2.1 50000 typ host\n{}a=setup:active\n\
             a=tls-id:abcdefghijklmnopqrst\na=rtcp-mux\n",
            fingerprint()
        )
    };
    let part = |version, streams: &str| part("127.0.2.1", "127.0.2.1", version, streams);
    let mut caller = dial(&mut world, "127.0.1.1", PLAIN);
    world.expect(PBX, "SIP/2.0 100");
    let mut callee = Callee::take(&mut world, CARRIER_A);
    callee.reply(&mut world, "200 OK", &part(1, &answer(ICE)));
    world.expect(CARRIER_A, "ACK ");
    caller.learn(&world.expect(PBX, "SIP/2.0 200"));
    caller.ack(&mut world, "");
    let first = callee.invite.clone();

    callee.request(&mut world, "INVITE", "");
    world.expect(CARRIER_A, "SIP/2.0 100");
    let asked = world.expect(PBX, "INVITE ");
    assert!(asked.body().is_empty());
    let offer = self::part("127.0.1.1", "127.0.1.1", 2, PLAIN);
    world.send(PBX, ACCESS, &asked.reply("200 OK", "", &offer));
    let offered = world.expect(CARRIER_A, "SIP/2.0 200");
    for name in ["a=ice-ufrag:", "a=ice-pwd:"] {
        assert_eq!(lines(&offered, name).len(), 1);
        assert_ne!(lines(&offered, name), lines(&first, name));
    }
    for name in ["a=fingerprint:", "a=setup:", "a=tls-id:"] {
        assert_eq!(lines(&offered, name), lines(&first, name));
    }
    callee.cseq -= 1;
    let other = "a=ice-ufrag:efgh\na=ice-pwd:9876543210987654321098\n";
    callee.request(&mut world, "ACK", &part(2, &answer(other)));
    world.expect(PBX, "ACK ");
    world.quiet();

    // From then on these are ours.
    caller.request(&mut world, "INVITE", &self::part("127.0.1.1", "127.0.1.1", 3, PLAIN));
    world.expect(PBX, "SIP/2.0 100");
    let next = world.expect(CARRIER_A, "INVITE ");
    assert_eq!(lines(&next, "a=ice-"), lines(&offered, "a=ice-"));
    world.send(CARRIER_A, CORE, &next.reply("200 OK", "", &part(3, &answer(other))));
    world.expect(CARRIER_A, "ACK ");
    world.expect(PBX, "SIP/2.0 200");
    caller.ack(&mut world, "");
    caller.request(&mut world, "BYE", "");
    world.forget_inbox();
    world.all_gone();
}
