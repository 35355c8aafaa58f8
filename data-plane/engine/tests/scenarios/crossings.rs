//! Descriptions that cross one another, come too late, or from who has no say any more.

use ravelin_engine::limits::Limits;

use super::common::*;

fn part(ip: &str, version: u32, port: u16, more: &str) -> String {
    format!(
        "Content-Type: application/sdp\n\nv=0\no=x 1 {version} IN IP4 {ip}\ns=-\nc=IN IP4 {ip}\n\
         t=0 0\nm=audio {port} RTP/AVP 0\n{more}"
    )
}

fn rtp(sequence: u8) -> Vec<u8> {
    vec![0x80, 0, 0, sequence, 0, 0, 0, 160, 1, 2, 3, 4, 0x55]
}

/// Where a packet goes that comes from `from` to our port.
fn goes(world: &mut World, from: &str, ip: &str, port: u16) -> Option<String> {
    world.media.clear();
    world.send_media(from, addr(&format!("{ip}:{port}")), &rtp(1));
    world.media.pop().map(|(to, _)| to.to_string())
}

/// While a re-INVITE waits for its answer, requests of the same party that are refused, or that say
/// nothing of media, take nothing of it back.
#[test]
fn requests_beside_a_re_invite_leave_its_offer_alone() {
    for (method, hops, more, status) in [
        ("INFO", 70, part("127.0.1.1", 3, 49_000, ""), "415"),
        ("MESSAGE", 70, part("127.0.1.1", 3, 49_000, ""), "415"),
        ("UPDATE", 0, String::new(), "483"),
        ("UPDATE", 70, part("127.0.1.1", 3, 49_000, ""), "500"),
        ("INVITE", 70, part("127.0.1.1", 3, 49_000, ""), "500"),
    ] {
        let mut world = World::new();
        let (mut caller, callee) = connected(&mut world);
        caller.request(&mut world, "INVITE", &part("127.0.1.1", 2, 41_000, ""));
        world.expect(PBX, "SIP/2.0 100");
        let invite = world.expect(CARRIER_A, "INVITE ");
        let asked = caller.cseq;
        caller.request_over(&mut world, method, hops, &more);
        world.expect(PBX, &format!("SIP/2.0 {status}"));
        let body = part("127.0.2.1", 2, 51_000, "");
        world.send(CARRIER_A, CORE, &invite.reply("200 OK", "", &body));
        world.expect(CARRIER_A, "ACK ");
        let ok = world.expect(PBX, "SIP/2.0 200");
        caller.ack_of(&mut world, asked, "");
        let (near, far) = (ok.media_port(0), callee.invite.media_port(0));
        let up = goes(&mut world, "127.0.1.1:41000", "127.0.0.10", near);
        assert_eq!(up.as_deref(), Some("127.0.2.1:51000"), "{method} {status}");
        let down = goes(&mut world, "127.0.2.1:51000", "127.0.0.20", far);
        assert_eq!(down.as_deref(), Some("127.0.1.1:41000"), "{method} {status}");
    }
}

/// The same of the other party.
#[test]
fn requests_of_the_other_party_leave_an_offer_alone() {
    for (method, more, status) in [
        ("INFO", part("127.0.2.1", 3, 59_000, ""), "415"),
        ("UPDATE", part("127.0.2.1", 3, 59_000, ""), "491"),
        ("INVITE", part("127.0.2.1", 3, 59_000, ""), "491"),
        ("INVITE", String::new(), "491"),
    ] {
        let mut world = World::new();
        let (mut caller, mut callee) = connected(&mut world);
        caller.request(&mut world, "INVITE", &part("127.0.1.1", 2, 41_000, ""));
        let invite = world.expect(CARRIER_A, "INVITE ");
        callee.request(&mut world, method, &more);
        world.expect(CARRIER_A, &format!("SIP/2.0 {status}"));
        let body = part("127.0.2.1", 2, 51_000, "");
        world.send(CARRIER_A, CORE, &invite.reply("200 OK", "", &body));
        caller.ack(&mut world, "");
        let far = callee.invite.media_port(0);
        let down = goes(&mut world, "127.0.2.1:51000", "127.0.0.20", far);
        assert_eq!(down.as_deref(), Some("127.0.1.1:41000"), "{method} {status}");
    }
}

/// The config with the second PSAP in a realm of its own.
fn realms() -> World {
    let text = CONFIG
        .replacen(
            "  media:\n",
            "    - { id: far-udp, realm: far, transport: udp, bind: \"127.0.0.30:5060\" }\n  media:\n    \
             - { realm: far, address: 127.0.0.30, ports: 31000-31063, driver: auto }\n",
            1,
        )
        .replacen("  - id: psap-2\n    realm: core", "  - id: psap-2\n    realm: far", 1);
    World::with(&text, Limits::default())
}

/// EM-53: the late answer of an attempt that was left wins; it finds its media where it was told to
/// send it, though the call had gone to another realm since.
#[test]
fn a_late_answer_from_another_realm_has_audio() {
    let mut world = realms();
    let offer = part("127.0.1.1", 1, 40_000, "");
    let mut caller = Caller::invite(&mut world, PBX, ACCESS, "sip:911@127.0.0.10", &offer);
    world.expect(PBX, "SIP/2.0 100");
    let first = Callee::take(&mut world, PSAP_1);
    world.pass(2_500);
    world.forget_inbox_of(PSAP_1);
    let second = Callee::take(&mut world, PSAP_2);
    assert_ne!(first.invite.media_port(0), second.invite.media_port(0));
    let ports = world.engine.tables().ports_in_use;
    first.answer(&mut world);
    world.expect(PSAP_1, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    let port = first.invite.media_port(0);
    let down = goes(&mut world, "127.0.9.1:50000", "127.0.0.20", port);
    assert_eq!(down.as_deref(), Some("127.0.1.1:40000"), "where it was told to send");
    let up = goes(&mut world, "127.0.1.1:40000", "127.0.0.10", ok.media_port(0));
    assert_eq!(up.as_deref(), Some("127.0.9.1:50000"));
    assert_eq!((ports, world.engine.tables().ports_in_use), (6, 4), "nobody else can answer");
    caller.request(&mut world, "BYE", "");
    world.forget_inbox();
    world.all_gone();
}

/// Whoever was heard before the answer and failed hears no more of the caller, and is heard no more,
/// while the next one is called.
#[test]
fn a_callee_that_failed_hears_no_more() {
    for world in [World::new(), realms()] {
        let mut world = world;
        let offer = part("127.0.1.1", 1, 40_000, "");
        Caller::invite(&mut world, PBX, ACCESS, "sip:911@127.0.0.10", &offer);
        let first = Callee::take(&mut world, PSAP_1);
        first.reply(&mut world, "183 Session Progress", &part("127.0.9.1", 1, 50_000, ""));
        world.expect(PBX, "SIP/2.0 100");
        let early = world.expect(PBX, "SIP/2.0 183");
        let (near, far) = (early.media_port(0), first.invite.media_port(0));
        assert!(goes(&mut world, "127.0.9.1:50000", "127.0.0.20", far).is_some());
        assert!(goes(&mut world, "127.0.1.1:40000", "127.0.0.10", near).is_some());
        first.reply(&mut world, "503 Service Unavailable", "");
        let second = Callee::take(&mut world, PSAP_2);
        assert_eq!(goes(&mut world, "127.0.9.1:50000", "127.0.0.20", far), None);
        assert_eq!(goes(&mut world, "127.0.1.1:40000", "127.0.0.10", near), None);
        second.answer(&mut world);
        let ok = world.expect(PBX, "SIP/2.0 200");
        let up = goes(&mut world, "127.0.1.1:40000", "127.0.0.10", ok.media_port(0));
        assert_eq!(up.as_deref(), Some("127.0.9.2:50000"));
    }
}

/// Two branches of one callee's fork in turn, each with its own media; the first answers: it is heard,
/// and the other is not.
#[test]
fn the_branch_that_answers_is_heard() {
    let mut world = World::new();
    let mut caller = Caller::dial(&mut world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    let first = Callee::take(&mut world, CARRIER_A);
    let other = Callee { tag: "other".to_owned(), ..first.clone() };
    let own = part("127.0.2.1", 1, 50_000, "");
    first.reply(&mut world, "183 Session Progress", &own);
    let early = world.expect(PBX, "SIP/2.0 183");
    let (near, far) = (early.media_port(0), first.invite.media_port(0));
    assert!(goes(&mut world, "127.0.2.1:50000", "127.0.0.20", far).is_some());
    other.reply(&mut world, "183 Session Progress", &part("127.0.2.7", 1, 52_000, ""));
    assert_eq!(world.expect(PBX, "SIP/2.0 183").media_port(0), near);
    assert!(goes(&mut world, "127.0.2.7:52000", "127.0.0.20", far).is_some());
    assert_eq!(goes(&mut world, "127.0.2.1:50000", "127.0.0.20", far), None, "one at a time");
    first.reply(&mut world, "200 OK", &own);
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    assert_eq!(ok.to_tag(), early.to_tag());
    caller.learn(&ok);
    caller.ack(&mut world, "");
    let down = goes(&mut world, "127.0.2.1:50000", "127.0.0.20", far);
    assert_eq!(down.as_deref(), Some("127.0.1.1:40000"));
    assert_eq!(goes(&mut world, "127.0.2.7:52000", "127.0.0.20", far), None);
    let up = goes(&mut world, "127.0.1.1:40000", "127.0.0.10", near);
    assert_eq!(up.as_deref(), Some("127.0.2.1:50000"));
}
