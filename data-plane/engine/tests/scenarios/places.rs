//! Where a description wants its media, when that is nowhere that it could be sent (RFC 8866 5.7).

use ravelin_engine::limits::Limits;

use super::common::*;

fn part(version: u32, address: &str, streams: &str) -> String {
    format!(
        "Content-Type: application/sdp\n\nv=0\no=x 1 {version} IN IP4 host.example\ns=-\n\
         c=IN {address}\nt=0 0\n{streams}"
    )
}

const AUDIO: &str = "m=audio 40000 RTP/AVP 0\n";
const CALLER: &str = "IP4 127.0.1.1";
const CALLEE: &str = "IP4 127.0.2.1";
const NOWHERE: [&str; 7] = [
    "IP4 media.example",
    "IP6 media.example",
    "IP4 239.1.1.1/127",
    "IP4 255.255.255.255",
    "IP6 ff1e::1",
    "IP6 ::ffff:239.1.1.1",
    // There is no port by IPv6.
    "IP6 2001:db8::1",
];

fn dial(world: &mut World, body: &str) -> Caller {
    let uri = "sip:+12125551234@127.0.0.10";
    let caller = Caller::invite(world, PBX, ACCESS, uri, body);
    world.expect(PBX, "SIP/2.0 100");
    caller
}

#[track_caller]
fn refused(answer: &Msg, address: &str) {
    assert!(answer.header("Reason").contains("cause=120;"), "{address}: {}", answer.0);
    assert!(answer.header("Warning").starts_with("301 ravelin"), "{address}: {}", answer.0);
}

#[test]
fn an_offer_of_media_that_goes_nowhere_gets_488() {
    for case in NOWHERE {
        let mut world = World::new();
        let caller = dial(&mut world, &part(1, case, AUDIO));
        let answer = world.expect(PBX, "SIP/2.0 488");
        refused(&answer, case);
        caller.ack_refusal(&mut world, &answer);
        world.quiet();
        world.all_gone();
    }
}

/// One stream of several is refused alone (RFC 3264 6), of an offer and of an answer.
#[test]
fn a_stream_that_goes_nowhere_is_refused_alone() {
    for address in NOWHERE {
        let mut world = World::new();
        let two = format!("m=video 40002 RTP/AVP 96\nc=IN {address}\n{AUDIO}");
        let mut caller = dial(&mut world, &part(1, CALLER, &two));
        let callee = Callee::take(&mut world, CARRIER_A);
        let ports = |message: &Msg| [message.media_port(0) != 0, message.media_port(1) != 0];
        assert_eq!(ports(&callee.invite), [false, true], "{address}");
        let body = part(1, CALLEE, "m=video 0 RTP/AVP 96\nm=audio 50000 RTP/AVP 0\n");
        callee.reply(&mut world, "200 OK", &body);
        let ok = world.expect(PBX, "SIP/2.0 200");
        assert_eq!(ports(&ok), [false, true], "{address}");
        caller.learn(&ok);
        caller.ack(&mut world, "");

        let mut world = World::new();
        let two = format!("m=video 40002 RTP/AVP 96\n{AUDIO}");
        dial(&mut world, &part(1, CALLER, &two));
        let callee = Callee::take(&mut world, CARRIER_A);
        assert_eq!(ports(&callee.invite), [true, true]);
        let video = format!("m=video 50002 RTP/AVP 96\nc=IN {address}\n");
        callee.reply(&mut world, "200 OK", &part(1, CALLEE, &format!("{video}{AUDIO}")));
        assert_eq!(ports(&world.expect(PBX, "SIP/2.0 200")), [false, true], "{address}");
    }
}

#[test]
fn an_answer_of_media_that_goes_nowhere_fails_the_call() {
    for case in NOWHERE {
        for late in [false, true] {
            let mut world = World::new();
            let offer = if late { String::new() } else { part(1, CALLER, AUDIO) };
            let caller = dial(&mut world, &offer);
            for carrier in [CARRIER_A, CARRIER_B] {
                let callee = Callee::take(&mut world, carrier);
                callee.reply(&mut world, "200 OK", &part(1, case, AUDIO));
                world.expect(carrier, "ACK ");
                let bye = world.expect(carrier, "BYE ");
                world.send(carrier, CORE, &bye.reply("200 OK", "", ""));
                if world.inbox_of(CARRIER_B).is_empty() {
                    break;
                }
            }
            let answer = world.expect(PBX, "SIP/2.0 488");
            refused(&answer, case);
            caller.ack_refusal(&mut world, &answer);
            world.all_gone();
        }
    }
}

/// Early media that goes nowhere is none: it goes on ringing.
#[test]
fn early_media_that_goes_nowhere_is_left_out() {
    let mut world = World::new();
    let mut caller = dial(&mut world, &part(1, CALLER, AUDIO));
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.reply(&mut world, "183 Session Progress", &part(1, "IP4 media.example", AUDIO));
    assert!(world.expect(PBX, "SIP/2.0 183").body().is_empty());
    callee.reply(&mut world, "200 OK", &part(2, CALLEE, "m=audio 50000 RTP/AVP 0\n"));
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    world.send_media("127.0.1.1:40000", addr(&format!("127.0.0.10:{}", ok.media_port(0))), &rtp());
    assert_eq!(world.media, [(addr("127.0.2.1:50000"), rtp())]);
}

fn rtp() -> Vec<u8> {
    vec![0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0x55]
}

/// Inside the call: the offer is refused, from whichever party, and the call is as it was.
#[test]
fn an_offer_inside_the_call_that_goes_nowhere_changes_nothing() {
    for case in NOWHERE {
        for method in ["INVITE", "UPDATE"] {
            let mut world = World::new();
            let (mut caller, mut callee) = connected(&mut world);
            caller.request(&mut world, method, &part(2, case, AUDIO));
            let answer = world.expect(PBX, "SIP/2.0 488");
            refused(&answer, case);
            callee.request(&mut world, method, &part(2, case, AUDIO));
            let answer = world.expect(CARRIER_A, "SIP/2.0 488");
            refused(&answer, case);
            let port = callee.invite.media_port(0);
            world.media.clear();
            world.send_media("127.0.2.1:50000", addr(&format!("127.0.0.20:{port}")), &rtp());
            assert_eq!(world.media, [(addr("127.0.1.1:40000"), rtp())], "{method} {}", case);
        }
    }
}

/// ICE finds an agent whose default destination is a name (RFC 8839 5.1); it is sent nothing before.
#[test]
fn with_ice_a_host_name_is_no_reason_to_refuse() {
    let text = CONFIG.replacen("  - id: pbx\n", "  - id: pbx\n    media: { ice: lite }\n", 1);
    let mut world = World::with(&text, Limits::default());
    let ice = "a=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901\n";
    dial(&mut world, &part(1, "IP4 media.example", &format!("{AUDIO}{ice}")));
    let callee = Callee::take(&mut world, CARRIER_A);
    assert_ne!(callee.invite.media_port(0), 0);
    callee.reply(&mut world, "200 OK", &part(1, CALLEE, "m=audio 50000 RTP/AVP 0\n"));
    let ok = world.expect(PBX, "SIP/2.0 200");
    assert!(ok.body().contains("a=ice-lite"), "{}", ok.body());
    let port = callee.invite.media_port(0);
    world.send_media("127.0.2.1:50000", addr(&format!("127.0.0.20:{port}")), &rtp());
    assert!(world.media.is_empty());
}

/// RTCP alone that goes nowhere is not sent (RFC 3605); the media is.
#[test]
fn rtcp_that_goes_nowhere_is_not_sent() {
    for address in NOWHERE {
        let mut world = World::new();
        let mut caller =
            dial(&mut world, &part(1, CALLER, &format!("{AUDIO}a=rtcp:40007 IN {address}\n")));
        let callee = Callee::take(&mut world, CARRIER_A);
        callee.reply(&mut world, "200 OK", &part(1, CALLEE, "m=audio 50000 RTP/AVP 0\n"));
        world.expect(CARRIER_A, "ACK ");
        caller.learn(&world.expect(PBX, "SIP/2.0 200"));
        caller.ack(&mut world, "");
        let port = callee.invite.media_port(0);
        world.media.clear();
        let report = [0x80, 201, 0, 1, 1, 2, 3, 4];
        world.send_media("127.0.2.1:50001", addr(&format!("127.0.0.20:{}", port + 1)), &report);
        assert!(world.media.is_empty(), "{address}");
        world.send_media("127.0.2.1:50000", addr(&format!("127.0.0.20:{port}")), &rtp());
        assert_eq!(world.media.len(), 1, "{address}");
    }
}

/// Access by both versions of IP, core by IPv4 alone.
fn dual() -> World {
    let text = CONFIG
        .replacen(
            "    - { id: core-udp,",
            "    - { id: access-six, realm: access, transport: udp, bind: \"[2001:db8::10]:5060\" }\n    \
             - { id: core-udp,",
            1,
        )
        .replacen(
            "    - { realm: core, address: 127.0.0.20,",
            "    - { realm: access, address: \"2001:db8::10\", ports: 21000-21063, driver: auto }\n    \
             - { realm: core, address: 127.0.0.20,",
            1,
        )
        .replacen("sources: [127.0.1.0/24]", "sources: [127.0.1.0/24, \"2001:db8:1::/48\"]", 1);
    World::with(&text, Limits::default())
}

const SIX: &str = "[2001:db8:1::1]:5060";
const LISTENER_SIX: u16 = 2;
const LISTENER_CORE: u16 = 3;

/// RFC 6157: by whatever version the caller signals, its media goes by that which it names, and what
/// the callee reads is of the callee's.
#[test]
fn parties_by_ipv6_and_ipv4_hear_each_other() {
    for (from, listener) in [(SIX, LISTENER_SIX), (PBX, ACCESS)] {
        let mut world = dual();
        let uri = "sip:+12125551234@127.0.0.10";
        let offer = part(1, "IP6 2001:db8:1::1", AUDIO);
        let mut caller = Caller::invite(&mut world, from, listener, uri, &offer);
        world.expect(from, "SIP/2.0 100");
        let invite = world.expect(CARRIER_A, "INVITE ");
        assert!(invite.body().contains("c=IN IP4 127.0.0.20\r\n"), "{}", invite.body());
        let reply = |status: &str, version: u32, more: &str, invite: &Msg| {
            let contact = "Contact: <sip:callee@127.0.2.1:5060>\n";
            let body = part(version, CALLEE, &format!("m=audio 50000 RTP/AVP 0\n{more}"));
            invite.reply(status, "callee", &format!("{contact}{body}"))
        };
        world.send(CARRIER_A, LISTENER_CORE, &reply("200 OK", 1, "", &invite));
        world.expect(CARRIER_A, "ACK ");
        let ok = world.expect(from, "SIP/2.0 200");
        assert!(ok.body().contains("c=IN IP6 2001:db8::10\r\n"), "{}", ok.body());
        assert!(!ok.body().contains("IP4"), "{}", ok.body());
        caller.learn(&ok);
        caller.ack(&mut world, "");
        let near = addr(&format!("[2001:db8::10]:{}", ok.media_port(0)));
        let far = addr(&format!("127.0.0.20:{}", invite.media_port(0)));
        let heard = |world: &mut World| {
            world.media.clear();
            world.send_media("[2001:db8:1::1]:40000", near, &rtp());
            world.send_media("127.0.2.1:50000", far, &rtp());
            std::mem::take(&mut world.media)
        };
        let both = [(addr("127.0.2.1:50000"), rtp()), (addr("[2001:db8:1::1]:40000"), rtp())];
        assert_eq!(heard(&mut world), both);
        // Hold as of old, in the words of each.
        for (held, reads, version) in
            [("IP6 ::", "c=IN IP4 0.0.0.0\r\n", 2), ("IP4 0.0.0.0", "c=IN IP4 0.0.0.0\r\n", 3)]
        {
            caller.request(&mut world, "INVITE", &part(version, held, AUDIO));
            world.expect(from, "SIP/2.0 100");
            let invite = world.expect(CARRIER_A, "INVITE ");
            assert!(invite.body().contains(reads), "{}", invite.body());
            world.send(CARRIER_A, LISTENER_CORE, &reply("200 OK", version, "", &invite));
            world.expect(CARRIER_A, "ACK ");
            let ok = world.expect(from, "SIP/2.0 200");
            assert!(ok.body().contains("c=IN IP6 2001:db8::10\r\n"), "{}", ok.body());
            caller.ack(&mut world, "");
            assert_eq!(heard(&mut world), []);
        }
        // The other version inside the call: its ports are not of that.
        caller.request(&mut world, "INVITE", &part(4, CALLER, AUDIO));
        refused(&world.expect(from, "SIP/2.0 488"), "another version");
        caller.request(&mut world, "INVITE", &part(5, "IP6 2001:db8:1::1", AUDIO));
        world.expect(from, "SIP/2.0 100");
        let invite = world.expect(CARRIER_A, "INVITE ");
        world.send(CARRIER_A, LISTENER_CORE, &reply("200 OK", 4, "", &invite));
        world.expect(CARRIER_A, "ACK ");
        world.expect(from, "SIP/2.0 200");
        caller.ack(&mut world, "");
        assert_eq!(heard(&mut world), both);
    }
}

/// An emergency call whose media is of a version that there is no port for goes on; its party is looked
/// for where its signalling comes from.
#[test]
fn a_911_call_by_another_version_goes_on() {
    let mut world = World::new();
    let offer = part(1, "IP6 2001:db8:1::1", AUDIO);
    let mut caller = Caller::invite(&mut world, PBX, ACCESS, "sip:911@127.0.0.10", &offer);
    world.expect(PBX, "SIP/2.0 100");
    let psap = Callee::take(&mut world, PSAP_1);
    psap.answer(&mut world);
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    world.send_media("127.0.1.1:40000", addr(&format!("127.0.0.10:{}", ok.media_port(0))), &rtp());
    assert_eq!(world.media, [(addr("127.0.9.1:50000"), rtp())]);
    caller.request(&mut world, "BYE", "");
    assert_eq!(world.call_cdr().sdp_caller, ["no_address"]);
}
