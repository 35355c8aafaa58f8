//! Offers and answers inside a call that change this or that of its media, are refused, or come to
//! nothing.

use std::sync::Arc;

use ravelin_engine::limits::Limits;
use ravelin_srtp::{Keying, Suite, dtls::Identity};

use super::{common::*, sdes};

fn part(ip: &str, version: u32, streams: &str) -> String {
    format!(
        "Content-Type: application/sdp\n\nv=0\no=x 1 {version} IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\n\
         t=0 0\n{streams}"
    )
}

fn near(version: u32, streams: &str) -> String {
    part("127.0.1.1", version, streams)
}

fn far(version: u32, streams: &str) -> String {
    part("127.0.2.1", version, streams)
}

fn rtp(payload_type: u8, ssrc: u8, sequence: u8) -> Vec<u8> {
    vec![0x80, payload_type, 0, sequence, 0, 0, 0, 160, 0, 0, 0, ssrc, 0x55]
}

struct Talk {
    world: World,
    caller: Caller,
    callee: Callee,
    /// Our ports towards caller and callee, of each stream.
    ports: [Vec<u16>; 2],
}

fn ports(message: &Msg) -> Vec<u16> {
    let count = message.body().lines().filter(|line| line.starts_with("m=")).count();
    (0..count).map(|index| message.media_port(index)).collect()
}

#[track_caller]
fn talk(mut world: World, offer: &str, answer: &str) -> Talk {
    let uri = "sip:+12125551234@127.0.0.10";
    let mut caller = Caller::invite(&mut world, PBX, ACCESS, uri, &near(1, offer));
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.reply(&mut world, "200 OK", &far(1, answer));
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    world.quiet();
    let ports = [ports(&ok), ports(&callee.invite)];
    Talk { world, caller, callee, ports }
}

impl Talk {
    /// What comes out, and where, of a packet of the caller from this port of its host.
    fn up(&mut self, from: u16, stream: usize, bytes: &[u8]) -> Option<(String, Vec<u8>)> {
        let to = addr(&format!("127.0.0.10:{}", self.ports[0][stream]));
        self.through(&format!("127.0.1.1:{from}"), to, bytes)
    }

    fn down(&mut self, from: u16, stream: usize, bytes: &[u8]) -> Option<(String, Vec<u8>)> {
        let to = addr(&format!("127.0.0.20:{}", self.ports[1][stream]));
        self.through(&format!("127.0.2.1:{from}"), to, bytes)
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

    /// A re-INVITE that is accepted without a word about media: what was said and refused before must
    /// not take effect with it.
    #[track_caller]
    fn agree_on_nothing(&mut self) {
        let Self { world, caller, .. } = self;
        caller.request(world, "INVITE", "");
        let invite = world.expect(CARRIER_A, "INVITE ");
        world.send(CARRIER_A, CORE, &invite.reply("200 OK", "", ""));
        world.expect(CARRIER_A, "ACK ");
        caller.ack(world, "");
        world.forget_inbox();
    }

    /// Plain RTP passes both ways between these ports of the parties.
    #[track_caller]
    fn heard(&mut self, caller: u16, callee: u16, stream: usize) {
        let packet = rtp(0, 9, 1);
        let up = self.up(caller, stream, &packet);
        assert_eq!(up, Some((format!("127.0.2.1:{callee}"), packet.clone())));
        let down = self.down(callee, stream, &packet);
        assert_eq!(down, Some((format!("127.0.1.1:{caller}"), packet)));
    }
}

const AUDIO: &str = "m=audio 40000 RTP/AVP 0\n";
const ANSWER: &str = "m=audio 50000 RTP/AVP 0\n";
const MOVED: &str = "m=audio 41000 RTP/AVP 0\n";

/// However a re-INVITE or an UPDATE that moves the media comes to nothing, the media stays.
#[test]
fn an_offer_that_comes_to_nothing_moves_nothing() {
    for (method, status) in [
        ("INVITE", "491 Request Pending"),
        ("INVITE", "488 Not Acceptable Here"),
        ("INVITE", "500 Server Internal Error"),
        ("UPDATE", "491 Request Pending"),
        ("UPDATE", "488 Not Acceptable Here"),
        ("UPDATE", "504 Server Time-out"),
    ] {
        let mut talk = talk(World::new(), AUDIO, ANSWER);
        let Talk { world, caller, callee, .. } = &mut talk;
        caller.request(world, method, &near(2, MOVED));
        let asked = world.expect(CARRIER_A, method);
        world.send(CARRIER_A, CORE, &asked.reply(status, "", ""));
        world.forget_inbox_of(PBX);
        callee.request(world, method, &far(2, "m=audio 51000 RTP/AVP 0\n"));
        let asked = world.expect(PBX, method);
        world.send(PBX, ACCESS, &asked.reply(status, "", ""));
        world.forget_inbox();
        talk.heard(40_000, 50_000, 0);
        talk.agree_on_nothing();
        talk.heard(40_000, 50_000, 0);
        assert_eq!(talk.up(41_000, 0, &rtp(0, 9, 2)), None);
    }
}

/// The same of an emergency call whose party says nothing at all: it goes on, with its media.
#[test]
fn an_offer_that_nobody_answers_moves_nothing_of_a_911_call() {
    let mut world = World::new();
    let mut caller = Caller::invite(&mut world, PBX, ACCESS, "sip:911@127.0.0.10", &near(1, AUDIO));
    let psap = Callee::take(&mut world, PSAP_1);
    psap.answer(&mut world);
    world.expect(PBX, "SIP/2.0 100");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    caller.request(&mut world, "INVITE", &near(2, MOVED));
    world.dead.push(addr(PSAP_1));
    world.pass(40_000);
    assert_eq!(world.engine.tables().calls, 1);
    world.dead.clear();
    world.forget_inbox();
    caller.request(&mut world, "INVITE", "");
    let invite = world.expect(PSAP_1, "INVITE ");
    world.send(PSAP_1, CORE, &invite.reply("200 OK", "", ""));
    world.expect(PSAP_1, "ACK ");
    world.media.clear();
    let to = addr(&format!("127.0.0.10:{}", ok.media_port(0)));
    world.send_media("127.0.1.1:40000", to, &rtp(0, 9, 1));
    assert_eq!(world.media, [(addr("127.0.9.1:50000"), rtp(0, 9, 1))]);
}

/// Payload types of a re-INVITE of the callee: each party goes on to get its own numbers, whoever
/// offered; a format comes back under another number; clocks of events stay apart (RFC 4733 2.1).
#[test]
fn payload_types_follow_each_offer_and_its_answer() {
    let formats = |port: u16, opus: u8, narrow: u8, wide: u8| {
        format!(
            "m=audio {port} RTP/AVP {opus} {narrow} {wide}\na=rtpmap:{opus} opus/48000/2\n\
             a=rtpmap:{narrow} telephone-event/8000\na=rtpmap:{wide} telephone-event/48000\n"
        )
    };
    let first = (formats(40_000, 111, 101, 110), formats(50_000, 96, 97, 98));
    let mut talk = talk(World::new(), &first.0, &first.1);
    let types = |talk: &mut Talk, up: [u8; 3], down: [u8; 3]| {
        for (sent, got) in up.into_iter().zip(down) {
            let (_, packet) = talk.up(40_000, 0, &rtp(sent, 9, 1)).unwrap();
            assert_eq!(packet[1], got, "up {sent}");
        }
    };
    let back = |talk: &mut Talk, sent: [u8; 3], got: [u8; 3]| {
        for (sent, got) in sent.into_iter().zip(got) {
            let (_, packet) = talk.down(50_000, 0, &rtp(sent, 9, 1)).unwrap();
            assert_eq!(packet[1], got, "down {sent}");
        }
    };
    types(&mut talk, [111, 101, 110], [96, 97, 98]);
    back(&mut talk, [96, 97, 98], [111, 101, 110]);
    // The callee offers, with the numbers turned round; the caller answers with its own.
    let Talk { world, callee, .. } = &mut talk;
    callee.request(world, "INVITE", &far(2, &formats(50_000, 98, 96, 97)));
    let invite = world.expect(PBX, "INVITE ");
    assert!(invite.body().contains(" RTP/AVP 98 96 97\r\n"));
    world.send(PBX, ACCESS, &invite.reply("200 OK", "", &near(2, &formats(40_000, 111, 101, 110))));
    world.expect(PBX, "ACK ");
    world.expect(CARRIER_A, "SIP/2.0 100");
    let ok = world.expect(CARRIER_A, "SIP/2.0 200");
    assert!(ok.body().contains(" RTP/AVP 98 96 97\r\n"), "{}", ok.body());
    world.forget_inbox();
    types(&mut talk, [111, 101, 110], [98, 96, 97]);
    back(&mut talk, [98, 96, 97], [111, 101, 110]);
}

/// RFC 5763 5 knows no `holdconn`, and an offer without a fingerprint that can be checked is none: the
/// call goes on as it was. Another certificate begins another association; until it has keys, those
/// before are in force, and nothing passes in the clear.
#[test]
fn dtls_inside_a_call_changes_with_a_fingerprint_alone() {
    let text = CONFIG.replacen("  - id: pbx\n", "  - id: pbx\n    media: { srtp: dtls }\n", 1);
    let mut world = World::with(&text, Limits::default());
    let identity = Identity::generate(std::time::Instant::now()).unwrap();
    world.engine.set_dtls_identity(Arc::new(identity));
    let secure = |octet: &str, setup: &str| {
        let digest = vec![octet; 32].join(":");
        format!(
            "m=audio 40000 UDP/TLS/RTP/SAVP 0\na=rtcp-mux\na=setup:{setup}\n\
             a=fingerprint:sha-256 {digest}\n"
        )
    };
    let mut talk = talk(world, &secure("AB", "actpass"), ANSWER);
    assert_eq!(talk.up(40_000, 0, &rtp(0, 9, 1)), None, "in the clear");
    for offer in [
        secure("AB", "holdconn"),
        secure("ZZ", "actpass"),
        secure("AB", "actpass").replace("sha-256", "md4"),
        AUDIO.to_owned(),
    ] {
        let Talk { world, caller, .. } = &mut talk;
        caller.request(world, "INVITE", &near(2, &offer));
        let refused = world.expect(PBX, "SIP/2.0 488");
        assert!(refused.try_header("Warning").is_some(), "{offer}");
        assert!(world.inbox_of(CARRIER_A).is_empty(), "{offer}");
    }
    let Talk { world, caller, .. } = &mut talk;
    caller.request(world, "INVITE", &near(3, &secure("CD", "actpass")));
    let invite = world.expect(CARRIER_A, "INVITE ");
    world.send(CARRIER_A, CORE, &invite.reply("200 OK", "", &far(2, ANSWER)));
    world.expect(PBX, "SIP/2.0 100");
    let ok = world.expect(PBX, "SIP/2.0 200");
    assert!(ok.body().contains("a=setup:passive\r\n"), "{}", ok.body());
    assert_eq!(talk.up(40_000, 0, &rtp(0, 9, 2)), None, "in the clear");
    assert_eq!(talk.down(50_000, 0, &rtp(0, 9, 2)), None, "no keys yet");
}

/// An answer whose streams stand in another order than the offer's answers none of them: nobody gets
/// video on the port of audio (RFC 3264 6).
#[test]
fn an_answer_in_another_order_is_none() {
    let video = "m=video 40002 RTP/AVP 96\n";
    let mut world = World::new();
    let uri = "sip:+12125551234@127.0.0.10";
    let offer = near(1, &format!("{AUDIO}{video}m=text 40004 RTP/AVP 98\n"));
    Caller::invite(&mut world, PBX, ACCESS, uri, &offer);
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    let answer = "m=video 50002 RTP/AVP 96\nm=audio 50000 RTP/AVP 0\nm=TEXT 50004 RTP/AVP 98\n";
    callee.reply(&mut world, "200 OK", &far(1, answer));
    let ok = world.expect(PBX, "SIP/2.0 200");
    let lines: Vec<_> = ok.body().lines().filter(|line| line.starts_with("m=")).collect();
    assert!(lines[0].starts_with("m=audio 0 ") && lines[1].starts_with("m=video 0 "), "{lines:?}");
    assert!(lines[2].starts_with("m=TEXT ") && !lines[2].contains(" 0 "), "{lines:?}");
}

/// A blank behind the word is against the grammar, and a hold all the same: of a party, not of the
/// packets alone.
#[test]
fn a_hold_with_a_blank_behind_it_is_one() {
    for (line, reads) in [("a=sendonly ", "a=sendonly"), ("a=inactive\t", "a=inactive")] {
        let mut talk = talk(World::new(), AUDIO, ANSWER);
        let Talk { world, caller, .. } = &mut talk;
        caller.request(world, "INVITE", &near(2, &format!("{AUDIO}{line}\n")));
        let invite = world.expect(CARRIER_A, "INVITE ");
        assert!(invite.body().contains(reads));
        world.send(CARRIER_A, CORE, &invite.reply("200 OK", "", &far(2, ANSWER)));
        assert_eq!(talk.down(50_000, 0, &rtp(0, 9, 1)), None, "{line:?}");
    }
}

/// An INVITE without an offer inside the call: the answer in the ACK takes effect, and without one the
/// call is over, for both have no media then.
#[test]
fn the_ack_of_an_offerless_re_invite_moves_the_media() {
    for with in [true, false] {
        let mut talk = talk(World::new(), AUDIO, ANSWER);
        let Talk { world, callee, .. } = &mut talk;
        callee.request(world, "INVITE", "");
        world.expect(CARRIER_A, "SIP/2.0 100");
        let invite = world.expect(PBX, "INVITE ");
        assert!(invite.body().is_empty());
        world.send(PBX, ACCESS, &invite.reply("200 OK", "", &near(2, MOVED)));
        let ok = world.expect(CARRIER_A, "SIP/2.0 200");
        assert_eq!(ok.media_port(0), callee.invite.media_port(0));
        let ack = format!(
            "ACK {} SIP/2.0\nVia: SIP/2.0/UDP {CARRIER_A};branch={}\nMax-Forwards: 70\n\
             From: {};tag={}\nTo: {}\nCall-ID: {}\nCSeq: {} ACK\n{}",
            callee.invite.contact_uri(),
            world.branch(),
            callee.invite.header("To"),
            callee.tag,
            callee.invite.header("From"),
            callee.invite.header("Call-ID"),
            callee.cseq,
            if with { far(2, "m=audio 51000 RTP/AVP 0\n") } else { String::new() },
        );
        world.send(CARRIER_A, CORE, &ack);
        let ack = world.expect(PBX, "ACK ");
        if with {
            assert_eq!(ack.media_port(0), talk.ports[0][0]);
            talk.heard(41_000, 51_000, 0);
        } else {
            world.expect(PBX, "BYE ");
            world.expect(CARRIER_A, "BYE ");
        }
    }
}

/// RFC 3264 8: a stream is switched off and another of the same kind added behind it, as by who moves
/// audio to another m-line.
#[test]
fn audio_moves_to_another_line() {
    let mut talk = talk(World::new(), AUDIO, ANSWER);
    let Talk { world, caller, .. } = &mut talk;
    caller.request(world, "INVITE", &near(2, &format!("m=audio 0 RTP/AVP 0\n{MOVED}")));
    world.expect(PBX, "SIP/2.0 100");
    let invite = world.expect(CARRIER_A, "INVITE ");
    let answer = "m=audio 0 RTP/AVP 0\nm=audio 51000 RTP/AVP 0\n";
    world.send(CARRIER_A, CORE, &invite.reply("200 OK", "", &far(2, answer)));
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.ack(world, "");
    let before = [ports(&ok), ports(&invite)];
    let old = std::mem::replace(&mut talk.ports, before);
    assert_eq!((talk.ports[0][0], talk.ports[1][0]), (0, 0));
    talk.heard(41_000, 51_000, 1);
    talk.ports = old;
    assert_eq!(talk.up(40_000, 0, &rtp(0, 9, 2)), None);
    assert_eq!(talk.up(41_000, 0, &rtp(0, 9, 2)), None);
}

/// A party that begins under another SSRC in mid-call, and one that takes that of the other party, is
/// heard under it where it is encrypted (RFC 3550 8.2 is for the parties).
#[test]
fn another_ssrc_is_heard_behind_encryption() {
    let suite = Suite::AesCm128HmacSha1_80;
    let mine = sdes::keys(suite, 3);
    let offer = sdes::secure(40_000, &sdes::line(1, &mine));
    let mut talk =
        sdes::talk(sdes::world("srtp: accept", "srtp: off"), &offer, |_| ANSWER.to_owned());
    let told = sdes::lines(&talk.answer)[0].clone();
    let mut caller = sdes::Party::new(&Keying { ours: mine, theirs: told.keys });
    for (ssrc, sequence) in [(1, 1), (2, 200), (2, 201), (1, 2), (7, 3), (2, 202)] {
        let packet = rtp(0, ssrc, sequence);
        let sealed = caller.seal(&packet);
        assert_eq!(talk.up(&sealed), Some(packet.clone()), "up {ssrc} {sequence}");
        let heard = talk.down(&packet).unwrap();
        assert_eq!(caller.open(&heard), packet, "down {ssrc} {sequence}");
    }
}

/// Media for the loopback of this machine is for nobody, unless that is where we are.
#[test]
fn a_party_is_not_on_the_loopback_of_this_machine() {
    let text =
        CONFIG.replace("realm: access, address: 127.0.0.10", "realm: access, address: 192.0.2.10");
    for (address, status) in [("127.0.1.1", "488"), ("::ffff:127.0.0.1", "488"), ("192.0.2.1", "")]
    {
        let mut world = World::with(&text, Limits::default());
        let uri = "sip:+12125551234@127.0.0.10";
        let family = if address.contains(':') { "IP6" } else { "IP4" };
        let body =
            near(1, AUDIO).replace("c=IN IP4 127.0.1.1", &format!("c=IN {family} {address}"));
        Caller::invite(&mut world, PBX, ACCESS, uri, &body);
        world.expect(PBX, "SIP/2.0 100");
        if status.is_empty() {
            world.expect(CARRIER_A, "INVITE ");
        } else {
            let refused = world.expect(PBX, "SIP/2.0 488");
            assert!(refused.header("Reason").contains("cause=120;"), "{address}");
        }
    }
}
