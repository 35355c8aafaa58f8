//! Keys in SDP that go out of use and come back, or come from the wrong party (RFC 3711 9.1, RFC 4568
//! 7.1).

use ravelin_engine::limits::Limits;
use ravelin_srtp::{Keying, Keys, Opener, Suite};

use super::{common::*, sdes::*};

const SUITE: Suite = Suite::AeadAes128Gcm;
const FAX: &str = "m=audio 0 RTP/SAVP 0\nm=image 40002 udptl t38\n";
const FAX_ANSWER: &str = "m=audio 0 RTP/AVP 0\nm=image 50002 udptl t38\n";
const PLAIN_ANSWER: &str = "m=audio 50000 RTP/AVP 0\n";
/// A receiver report without blocks.
const RTCP: [u8; 8] = [0x80, 201, 0, 1, 1, 2, 3, 4];

/// SRTP with the caller, RTP with the callee.
fn call(mine: &Keys) -> Talk {
    let offer = secure(40_000, &line(1, mine));
    talk(world("srtp: accept", "srtp: off"), &offer, |_| PLAIN_ANSWER.to_owned())
}

/// What the caller gets of a report of the callee.
fn report(talk: &mut Talk) -> Vec<u8> {
    let to = addr(&format!("127.0.0.20:{}", talk.offer.media_port(0) + 1));
    talk.world.media.clear();
    talk.world.send_media("127.0.2.1:50001", to, &RTCP);
    talk.world.media.pop().expect("forwarded").1
}

/// A stream that is switched off for a fax, or goes in the clear, or by another suite, comes back under
/// the keys that it had; the party, which keeps its windows, takes every packet.
#[test]
fn keys_that_come_back_go_on_where_they_were() {
    let mine = keys(SUITE, 3);
    let other = keys(Suite::AesCm128HmacSha1_80, 4);
    let clear = line(1, &mine).replace('\n', " UNENCRYPTED_SRTCP\n");
    for (offer, answer) in [
        (FAX.to_owned(), FAX_ANSWER),
        (PLAIN.to_owned(), PLAIN_ANSWER),
        (secure(40_000, &line(1, &other)), PLAIN_ANSWER),
        (secure(40_000, &clear), PLAIN_ANSWER),
    ] {
        let mut talk = call(&mine);
        let told = lines(&talk.answer)[0].clone();
        let mut hears = Opener::new(&told.keys);
        let mut take = |packet: &[u8]| {
            let mut out = vec![0; packet.len()];
            let length = hears.open_rtcp(packet, &mut out).expect("an index that is new");
            assert_eq!(out[..length], RTCP);
        };
        take(&report(&mut talk));
        take(&report(&mut talk));
        let old =
            Party::new(&Keying { ours: mine.clone(), theirs: told.keys.clone() }).seal(&rtp(70));
        assert_eq!(talk.up(&old), Some(rtp(70)));
        talk.again(&offer, |_| answer.to_owned());
        let (_, ok) = talk.again(&secure(40_000, &line(1, &mine)), |_| PLAIN_ANSWER.to_owned());
        assert_eq!(lines(&ok)[0], told, "{offer}");
        take(&report(&mut talk));
        assert_eq!(talk.up(&old), None, "a copy: {offer}");
    }
}

/// The next process knows nothing of keys that were out of use: it does not use them.
#[test]
fn keys_that_were_out_of_use_do_not_outlive_the_process() {
    let mine = keys(SUITE, 3);
    let mut talk = call(&mine);
    let told = lines(&talk.answer)[0].clone();
    talk.again(PLAIN, |_| PLAIN_ANSWER.to_owned());
    let config = config("srtp: accept", "srtp: off");
    assert_eq!(talk.world.crash_into(&config, 0, 1, None, 300).adopted, 1);
    talk.world.forget_inbox();
    let (_, ok) = talk.again(&secure(40_000, &line(1, &mine)), |_| PLAIN_ANSWER.to_owned());
    assert_ne!(lines(&ok)[0].keys, told.keys);
}

/// RFC 4568 7.1.2 of an answer; of an offer it must be so too, or what we send would come back as what
/// the party says.
#[test]
fn an_offer_of_our_own_keys_is_refused() {
    let mine = keys(SUITE, 3);
    let mut talk = call(&mine);
    let told = lines(&talk.answer)[0].clone();
    let world = &mut talk.world;
    let offer = part("127.0.1.1", 2, &secure(40_000, &line(1, &told.keys)));
    talk.caller.request(world, "INVITE", &offer);
    let refused = world.expect(PBX, "SIP/2.0 488");
    assert!(refused.header("Reason").contains("cause=119;"));
    assert!(world.inbox_of(CARRIER_A).is_empty());
    let mut party = Party::new(&Keying { ours: mine, theirs: told.keys });
    assert_eq!(talk.up(&party.seal(&rtp(1))), Some(rtp(1)), "nothing has changed");
}

/// A PSAP that answers with keys which cannot be used is asked once more, for RTP in the clear, before
/// any other trunk; and it is heard.
#[test]
fn an_emergency_call_goes_on_without_keys_that_cannot_be_used() {
    let good = line(3, &keys(Suite::AesCm128HmacSha1_80, 7));
    let gcm = line(3, &keys(SUITE, 7));
    for bad in [
        String::new(),
        "a=crypto:3 AES_CM_128_HMAC_SHA1_80 inline:AAAA\n".to_owned(),
        "a=crypto:3 F8_128_HMAC_SHA1_80 inline:AAAA\n".to_owned(),
        good.replace("a=crypto:3", "a=crypto:9"),
        good.replace('\n', " UNAUTHENTICATED_SRTP\n"),
        good.replace('\n', " FOO=1\n"),
        gcm,
    ] {
        let text = config("srtp: off", "srtp: off").replacen(
            "  - id: psap-1\n",
            "  - id: psap-1\n    media: { srtp: sdes }\n",
            1,
        );
        let mut world = World::with(&text, Limits::default());
        let uri = "sip:911@127.0.0.10";
        let offer = part("127.0.1.1", 1, PLAIN);
        let mut caller = Caller::invite(&mut world, PBX, ACCESS, uri, &offer);
        world.expect(PBX, "SIP/2.0 100");
        let psap = Callee::take(&mut world, PSAP_1);
        assert!(psap.invite.body().contains(" RTP/SAVP 0\r\n"));
        psap.reply(&mut world, "200 OK", &part("127.0.9.1", 1, &secure(50_000, &bad)));
        world.expect(PSAP_1, "ACK ");
        let bye = world.expect(PSAP_1, "BYE ");
        world.send(PSAP_1, CORE, &bye.reply("200 OK", "", ""));
        let again = Callee::take(&mut world, PSAP_1);
        assert!(again.invite.body().contains(" RTP/AVP 0\r\n"), "{bad}: {}", again.invite.body());
        again.reply(&mut world, "200 OK", &part("127.0.9.1", 1, PLAIN_ANSWER));
        world.expect(PSAP_1, "ACK ");
        let ok = world.expect(PBX, "SIP/2.0 200");
        caller.learn(&ok);
        caller.ack(&mut world, "");
        assert!(world.inbox_of(PSAP_2).is_empty(), "{bad}");
        world.media.clear();
        let near = addr(&format!("127.0.0.10:{}", ok.media_port(0)));
        world.send_media("127.0.1.1:40000", near, &rtp(1));
        assert_eq!(world.media, [(addr("127.0.9.1:50000"), rtp(1))], "{bad}");
        let far = addr(&format!("127.0.0.20:{}", again.invite.media_port(0)));
        world.send_media("127.0.9.1:50000", far, &rtp(2));
        assert_eq!(world.media[1], (addr("127.0.1.1:40000"), rtp(2)), "{bad}");
        caller.request(&mut world, "BYE", "");
        world.forget_inbox();
        world.all_gone();
    }
}
