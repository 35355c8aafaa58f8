//! Offers and answers that bend a standard, or use a corner of it.

use std::sync::Arc;

use ravelin_contract::cdr::Party;
use ravelin_engine::limits::Limits;
use ravelin_srtp::{Keys, Master, MasterKey, Sealer, Suite, dtls::Identity, sdes::Crypto};

use crate::common::*;

fn world(pbx: &str, carrier: &str) -> World {
    let mut text = CONFIG.to_owned();
    for (id, media) in [("pbx", pbx), ("carrier-a", carrier)] {
        let at = format!("  - id: {id}\n");
        text = text.replacen(&at, &format!("{at}    media: {{ {media} }}\n"), 1);
    }
    let mut world = World::with(&text, Limits::default());
    let identity = Identity::generate(std::time::Instant::now()).unwrap();
    world.engine.set_dtls_identity(Arc::new(identity));
    world
}

fn part(ip: &str, version: u32, streams: &str) -> String {
    format!(
        "Content-Type: application/sdp\n\nv=0\no=x 1 {version} IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\n\
         t=0 0\n{streams}"
    )
}

struct Talk {
    world: World,
    caller: Caller,
    offer: Msg,
    answer: Msg,
}

#[track_caller]
fn talk(mut world: World, offer: &str, answer: &str) -> Talk {
    let uri = "sip:+12125551234@127.0.0.10";
    let mut caller = Caller::invite(&mut world, PBX, ACCESS, uri, &part("127.0.1.1", 1, offer));
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.reply(&mut world, "200 OK", &part("127.0.2.1", 1, answer));
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    world.quiet();
    Talk { world, caller, offer: callee.invite, answer: ok }
}

impl Talk {
    /// The caller re-invites; the callee answers with `status` and this body.
    #[track_caller]
    fn again(&mut self, version: u32, offer: &str, status: &str, answer: &str) -> (Msg, Msg) {
        let world = &mut self.world;
        self.caller.request(world, "INVITE", &part("127.0.1.1", version, offer));
        let invite = world.expect(CARRIER_A, "INVITE ");
        let body =
            if answer.is_empty() { String::new() } else { part("127.0.2.1", version, answer) };
        world.send(CARRIER_A, CORE, &invite.reply(status, "", &body));
        world.expect(CARRIER_A, "ACK ");
        world.expect(PBX, "SIP/2.0 100");
        let last = world.take(PBX);
        if last.start().starts_with("SIP/2.0 200") {
            self.caller.ack(world, "");
        } else {
            self.caller.ack_refusal(world, &last);
        }
        (invite, last)
    }

    fn up(&mut self, bytes: &[u8]) -> Option<(String, Vec<u8>)> {
        let to = addr(&format!("127.0.0.10:{}", self.answer.media_port(0)));
        self.through("127.0.1.1:40000", to, bytes)
    }

    fn down(&mut self, bytes: &[u8]) -> Option<(String, Vec<u8>)> {
        let to = addr(&format!("127.0.0.20:{}", self.offer.media_port(0)));
        self.through("127.0.2.1:50000", to, bytes)
    }

    fn through(
        &mut self,
        from: &str,
        to: std::net::SocketAddr,
        bytes: &[u8],
    ) -> Option<(String, Vec<u8>)> {
        self.world.media.clear();
        self.world.send_media(from, to, bytes);
        self.world.media.pop().map(|(to, bytes)| (to.to_string(), bytes))
    }
}

fn lines<'a>(message: &'a Msg, start: &str) -> Vec<&'a str> {
    message.body().lines().filter(|line| line.starts_with(start)).collect()
}

fn rtp(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 160, 1, 2, 3, 4, 0x55]);
    packet
}

/// RFC 3264 6: as many m-lines as the offer has.
#[test]
fn an_answer_with_more_streams_than_the_offer_is_cut() {
    let more = "m=audio 50000 RTP/AVP 0\nm=video 50002 RTP/AVP 96\nm=text 50004 RTP/AVP 98\n";
    let mut talk = talk(World::new(), "m=audio 40000 RTP/AVP 0\n", more);
    assert_eq!(lines(&talk.answer, "m=").len(), 1, "{}", talk.answer.body());
    assert_eq!(talk.up(&rtp(1)).unwrap().0, "127.0.2.1:50000");
    assert_eq!(talk.down(&rtp(1)).unwrap().0, "127.0.1.1:40000");
}

/// RFC 3605: where RTCP goes. There is no port zero.
#[test]
fn rtcp_on_port_zero_goes_nowhere() {
    let offer = "m=audio 40000 RTP/AVP 0\na=rtcp:0\n";
    let mut talk = talk(World::new(), offer, "m=audio 50000 RTP/AVP 0\n");
    assert_eq!(talk.down(&rtp(1)).unwrap().0, "127.0.1.1:40000");
    assert_eq!(talk.down(&[0x80, 201, 0, 1, 1, 2, 3, 4]), None);
}

/// The answer to a re-INVITE cannot be carried: the caller is told so, and all is as before.
#[test]
fn an_answer_that_cannot_be_used_changes_nothing() {
    let offer = "m=audio 40000 RTP/AVP 0\n";
    let mut talk = talk(World::new(), offer, "m=audio 50000 RTP/AVP 0\n");
    assert!(talk.down(&rtp(1)).is_some() && talk.up(&rtp(1)).is_some());
    // Of another protocol than was asked for, and under a name that nothing was agreed on.
    let wrong = "m=audio 50010 TCP/RTP/AVP 0\na=rtpmap:0 WRONG/8000\n";
    let (_, last) = talk.again(2, "m=audio 40010 RTP/AVP 0\n", "200 OK", wrong);
    assert_eq!(last.start(), "SIP/2.0 488 Not Acceptable Here");
    assert_eq!(talk.down(&rtp(2)).unwrap().0, "127.0.1.1:40000");
    assert_eq!(talk.up(&rtp(2)).unwrap().0, "127.0.2.1:50000");
    talk.caller.request(&mut talk.world, "BYE", "");
    let cdr = talk.world.call_cdr();
    let callee = cdr.streams.iter().find(|stream| stream.from == Party::Callee).unwrap();
    assert_eq!((callee.codec.as_deref(), callee.packets), (Some("PCMU"), 2));
}

fn fingerprint(octet: &str) -> String {
    format!("a=fingerprint:sha-256 {}\n", vec![octet; 32].join(":"))
}

fn secure(port: u16, more: &str) -> String {
    format!("m=audio {port} UDP/TLS/RTP/SAVP 0\na=rtcp-mux\n{more}")
}

const PLAIN: &str = "m=audio 40000 RTP/AVP 0\n";
const PLAIN_ANSWER: &str = "m=audio 50000 RTP/AVP 0\n";

/// RFC 4145 4: an answer without a=setup is passive. We are the client, and say our hello.
#[test]
fn an_answer_that_does_not_say_who_begins_lets_us_begin() {
    let answer = secure(50_000, &fingerprint("AB"));
    let mut talk = talk(world("srtp: off", "srtp: dtls"), PLAIN, &answer);
    assert_eq!(lines(&talk.offer, "a=setup"), ["a=setup:actpass"]);
    talk.world.pass(50);
    let hello = talk.world.media.iter().find(|(to, _)| *to == addr("127.0.2.1:50000"));
    assert!(hello.is_some_and(|(_, bytes)| bytes[0] == 22), "no hello");
}

/// RFC 8842 5: our offer names the association, and names it again as long as it goes on.
#[test]
fn our_offers_name_the_association_as_long_as_it_goes_on() {
    let id = |letter: &str| format!("a=tls-id:{}\n", letter.repeat(20));
    let said = |letter: &str| fingerprint("AB") + "a=setup:active\n" + &id(letter);
    let answer = secure(50_000, &said("x"));
    let mut talk = talk(world("srtp: off", "srtp: dtls"), PLAIN, &answer);
    let first: Vec<String> =
        lines(&talk.offer, "a=tls-id:").into_iter().map(str::to_owned).collect();
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].len(), "a=tls-id:".len() + 24, "{first:?}");
    let (invite, last) = talk.again(2, PLAIN, "200 OK", &answer);
    assert_eq!((lines(&invite, "a=tls-id:"), last.start()), (vec![&*first[0]], "SIP/2.0 200 OK"));
    // A peer that names none to the association in force gets none from then on.
    let none = secure(50_000, &(fingerprint("AC") + "a=setup:active\n"));
    talk.again(3, PLAIN, "200 OK", &none);
    let (invite, _) = talk.again(4, PLAIN, "200 OK", &none);
    assert!(lines(&invite, "a=tls-id:").is_empty());
}

/// RFC 8842 5.3: an offer with a tls-id is answered with one, an offer without is not; another
/// association has another one, and an offer that was refused has begun none.
#[test]
fn our_answers_name_the_association_if_the_offer_does() {
    let offer =
        |letter: &str| secure(40_000, &format!("{}a=setup:actpass\n{letter}", fingerprint("AB")));
    let id = |letter: &str| format!("a=tls-id:{}\n", letter.repeat(20));
    let named = |message: &Msg| lines(message, "a=tls-id:").first().map(|id| (*id).to_owned());
    let mut with = talk(world("srtp: dtls", "srtp: off"), &offer(&id("x")), PLAIN_ANSWER);
    let first = named(&with.answer).expect("an id");
    assert_eq!(lines(&with.answer, "a=setup"), ["a=setup:passive"]);
    let (_, same) = with.again(2, &offer(&id("x")), "200 OK", PLAIN_ANSWER);
    assert_eq!(named(&same), Some(first.clone()));
    let (_, refused) = with.again(3, &offer(&id("y")), "488 Not Acceptable Here", "");
    assert_eq!(refused.start(), "SIP/2.0 488 Not Acceptable Here");
    let (_, same) = with.again(4, &offer(&id("x")), "200 OK", PLAIN_ANSWER);
    assert_eq!(named(&same), Some(first.clone()), "the refused offer left a trace");
    let (_, other) = with.again(5, &offer(&id("z")), "200 OK", PLAIN_ANSWER);
    assert!(named(&other).is_some_and(|id| id != first));
    let without = talk(world("srtp: dtls", "srtp: off"), &offer(""), PLAIN_ANSWER);
    assert_eq!(named(&without.answer), None);
}

/// RFC 8839 4.2.2: an answer speaks of ICE only if the offer does.
#[test]
fn an_offer_without_ice_gets_an_answer_without_it() {
    let plain = talk(world("ice: lite", "srtp: off"), PLAIN, PLAIN_ANSWER);
    assert!(!plain.answer.body().contains("ice-"), "{}", plain.answer.body());
    let ice = "a=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901\n";
    let with = talk(world("ice: lite", "srtp: off"), &format!("{PLAIN}{ice}"), PLAIN_ANSWER);
    assert_eq!(lines(&with.answer, "a=ice-lite").len(), 1);
}

/// RFC 5763 through trunks that keep out of it: the handshake is between the parties.
#[test]
fn dtls_passes_from_end_to_end_where_both_trunks_pass_it() {
    let offer = secure(40_000, &(fingerprint("AB") + "a=setup:actpass\n"));
    let answer = secure(50_000, &(fingerprint("AC") + "a=setup:active\n"));
    let mut talk = talk(World::new(), &offer, &answer);
    assert_eq!(lines(&talk.offer, "a=fingerprint:"), [fingerprint("AB").trim_end()]);
    assert_eq!(lines(&talk.answer, "a=setup"), ["a=setup:active"]);
    let hello = [22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    assert_eq!(talk.down(&hello), Some(("127.0.1.1:40000".to_owned(), hello.to_vec())));
    assert_eq!(talk.up(&hello), Some(("127.0.2.1:50000".to_owned(), hello.to_vec())));
}

/// RFC 4568 6.1: a key that may protect 100 packets. Its end is announced, and told when it is there.
#[test]
fn the_end_of_a_key_is_announced_and_told() {
    let suite = Suite::AesCm128HmacSha1_80;
    let theirs = MasterKey::new(suite, &[7; 30]).unwrap();
    let master = Master { key: theirs, mki: None, lifetime: Some(100) };
    let keys = Keys::several([master]).unwrap();
    let mut line = b"a=crypto:".to_vec();
    Crypto { tag: 1, keys: keys.clone() }.write(&mut line);
    let line = String::from_utf8(line).unwrap();
    let offer = format!("m=audio 40000 RTP/SAVP 0\n{line}\n");
    let mut talk = talk(world("srtp: sdes", "srtp: off"), &offer, PLAIN_ANSWER);
    let mut sealer = Sealer::new(&Keys::single(keys.masters()[0].key.clone()));
    let mut heard = 0;
    for sequence in 1..=120 {
        let mut packet = rtp(sequence);
        let length = packet.len();
        packet.resize(length + sealer.rtp_overhead(), 0);
        sealer.seal_rtp(&mut packet, length).unwrap();
        heard += u32::from(talk.up(&packet).is_some());
        let kinds = talk.world.event_kinds();
        let expected: &[&str] = match sequence {
            ..90 => &[],
            90..=100 => &["media.srtp_key_ending"],
            _ => &["media.srtp_key_ending", "media.srtp_key_spent"],
        };
        assert_eq!(kinds, expected, "{sequence}");
    }
    assert_eq!(heard, 100);
    let events = talk.world.events();
    for event in events {
        assert_eq!(event.fields["party"], "caller");
        assert_eq!(
            (&event.fields["key"], event.fields["stream"].as_u64()),
            (&"theirs".into(), Some(0))
        );
        assert!(event.call.is_some());
    }
    talk.caller.request(&mut talk.world, "BYE", "");
    let cdr = talk.world.call_cdr();
    let caller = cdr.streams.iter().find(|stream| stream.from == Party::Caller).unwrap();
    assert_eq!(caller.drops.get("srtp_key_spent"), Some(&20));
}

/// A handshake that comes to nothing is told of with its reason.
#[test]
fn a_handshake_that_fails_is_told() {
    let offer = secure(40_000, &(fingerprint("AB") + "a=setup:passive\n"));
    let mut talk = talk(world("srtp: dtls", "srtp: off"), &offer, PLAIN_ANSWER);
    assert_eq!(lines(&talk.answer, "a=setup"), ["a=setup:active"]);
    talk.world.pass(60_000);
    let events = talk.world.events();
    let told = events.iter().find(|event| event.kind == "media.dtls_failed").expect("told");
    assert_eq!(
        (&told.fields["reason"], &told.fields["party"]),
        (&"timeout".into(), &"caller".into())
    );
}
