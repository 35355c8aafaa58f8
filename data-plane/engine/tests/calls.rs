//! Whole calls through the engine, as two peers see them.

mod support;

use ravelin_contract::cdr::{CdrKind, Party};
use ravelin_engine::{drops::DropReason, engine::Received, limits::Limits};
use ravelin_wire::sip::HeaderName;

use support::{
    ACCESS, CALLEE, CALLEE_B, CALLER, CONFIG, CORE, Caller, Got, PSAP, World, answer,
    media_address, rtp, sdp,
};

const CALLEE_MEDIA: &str = "127.0.2.1:7000";

/// A call that is up.
struct Up {
    /// The INVITE as the callee got it.
    invite: Got,
    /// The 200 as the caller got it.
    ok: Got,
}

/// INVITE to 200 and ACK, with the callee at `callee`.
fn establish(world: &mut World, caller: &Caller, callee: &str) -> Up {
    world.send(&caller.address, ACCESS, caller.invite().as_bytes());
    world.expect(&caller.address, "100 INVITE");
    let invite = world.expect(callee, "INVITE");
    world.send(callee, CORE, answer(&invite, 180, "b1", "").as_bytes());
    world.expect(&caller.address, "180 INVITE");
    let ok = answer(&invite, 200, "b1", &sdp(CALLEE_MEDIA, 1, ""));
    world.send(callee, CORE, ok.as_bytes());
    world.expect(callee, "ACK");
    let ok = world.expect(&caller.address, "200 INVITE");
    let ack = caller.request("ACK", caller.cseq, &ok);
    assert_eq!(world.send(&caller.address, ACCESS, ack.as_bytes()), Received::Taken);
    Up { invite, ok }
}

/// The caller hangs up.
fn hang_up(world: &mut World, caller: &Caller, callee: &str, up: &Up) {
    let bye = caller.request("BYE", caller.cseq + 1, &up.ok);
    world.send(&caller.address, ACCESS, bye.as_bytes());
    world.expect(&caller.address, "200 BYE");
    let bye = world.expect(callee, "BYE");
    world.send(callee, CORE, answer(&bye, 200, "b1", "").as_bytes());
}

#[test]
fn a_call_with_audio_from_invite_to_bye() {
    let mut world = World::new(1);
    let caller = Caller::new("c1");
    let up = establish(&mut world, &caller, CALLEE);
    let (to_access, to_core) =
        (media_address(up.ok.message().body()), media_address(up.invite.message().body()));
    assert_eq!(to_access.ip().to_string(), "127.0.0.10");
    assert_eq!(to_core.ip().to_string(), "127.0.0.20");

    for sequence in 0..50 {
        let packet = rtp(sequence);
        assert_eq!(world.send_media("127.0.1.1:6000", to_access, &packet), Received::Taken);
        assert_eq!(world.take(CALLEE_MEDIA).unwrap().bytes, packet);
        assert_eq!(world.send_media(CALLEE_MEDIA, to_core, &packet), Received::Taken);
        assert_eq!(world.take("127.0.1.1:6000").unwrap().bytes, packet);
    }
    let sprayed = world.send_media("127.0.6.6:6000", to_access, &rtp(1));
    assert_eq!(sprayed, Received::Dropped(DropReason::MediaSource));

    world.run(60_000);
    hang_up(&mut world, &caller, CALLEE, &up);
    let after = world.send_media("127.0.1.1:6000", to_access, &rtp(1));
    assert_eq!(after, Received::Dropped(DropReason::MediaPortIdle));
    world.assert_quiet();
    world.assert_all_over();
    assert_eq!(world.engines[0].tables().ports_quarantined, 0, "the rest of the ports is over");

    let cdrs = world.cdrs();
    let call = cdrs.iter().find(|cdr| cdr.kind == CdrKind::Call).unwrap();
    assert_eq!(call.inbound_call_id, "c1@127.0.1.1:5060");
    assert_eq!(
        (call.inbound_trunk.as_deref(), call.outbound_trunk.as_deref()),
        (Some("pbx"), Some("carrier-a"),)
    );
    assert_eq!((call.status, call.ended_by, call.duration_ms), (200, Party::Caller, 60_000));
    assert_eq!(call.media_caller.unwrap().packets, 50);
    assert_eq!(call.media_callee.unwrap().packets, 50);
    assert_eq!(cdrs.iter().filter(|cdr| cdr.kind == CdrKind::Attempt).count(), 1);
    assert_eq!(world.count(|counters| counters.request_retransmissions_sent), 0);
    assert_eq!(world.count(|counters| counters.response_retransmissions_sent), 0);
}

/// features 2.1 topology hiding: nothing of one side's addresses, tags, Call-ID or Via reaches the
/// other.
#[test]
fn neither_side_sees_the_other() {
    let mut world = World::new(1);
    let caller = Caller::new("hidden");
    let up = establish(&mut world, &caller, CALLEE);
    let invite = up.invite.text();
    for secret in ["127.0.1.", "127.0.0.10", "hidden", "z9hG4bKhidden"] {
        assert!(!invite.contains(secret), "{secret} in {invite}");
    }
    assert!(invite.contains("\r\nMax-Forwards: 69\r\n"));
    let ok = up.ok.text();
    for secret in ["127.0.2.", "127.0.0.20", "callee.invalid", "b1"] {
        assert!(!ok.contains(secret), "{secret} in {ok}");
    }
    hang_up(&mut world, &caller, CALLEE, &up);
    world.assert_all_over();
}

#[test]
fn the_callee_hangs_up_and_byes_may_cross() {
    for crossing in [false, true] {
        let mut world = World::new(1);
        let caller = Caller::new("c1");
        let up = establish(&mut world, &caller, CALLEE);
        let message = up.invite.message();
        let contact = std::str::from_utf8(message.contact().unwrap().uri).unwrap().to_owned();
        let header = |name| std::str::from_utf8(message.header(name).unwrap()).unwrap();
        let bye = format!(
            "BYE {contact} SIP/2.0\r\nVia: SIP/2.0/UDP {CALLEE};branch=z9hG4bKbye\r\n\
             Max-Forwards: 70\r\nFrom: {};tag=b1\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 9 BYE\r\n\
             Content-Length: 0\r\n\r\n",
            header(HeaderName::To),
            header(HeaderName::From),
            header(HeaderName::CallId),
        );
        world.send(CALLEE, CORE, bye.as_bytes());
        world.expect(CALLEE, "200 BYE");
        let ours = world.expect(CALLER, "BYE");
        if crossing {
            let bye = caller.request("BYE", 2, &up.ok);
            world.send(CALLER, ACCESS, bye.as_bytes());
            world.expect(CALLER, "200 BYE");
        }
        world.send(CALLER, ACCESS, answer(&ours, 200, "", "").as_bytes());
        world.assert_quiet();
        world.assert_all_over();
        assert_eq!(world.cdrs().iter().filter(|cdr| cdr.kind == CdrKind::Call).count(), 1);
        let call = world.cdrs().into_iter().find(|cdr| cdr.kind == CdrKind::Call).unwrap();
        assert_eq!(call.ended_by, Party::Callee);
    }
}

/// A BYE ends the call whatever overtook it on the way: a refused BYE would leave the call up on one
/// side only. Any other request that comes out of order is refused (RFC 3261 12.2.2).
#[test]
fn a_bye_that_was_overtaken_still_ends_the_call() {
    let mut world = World::new(1);
    let caller = Caller::new("c1");
    let up = establish(&mut world, &caller, CALLEE);
    let options = caller.request("OPTIONS", 9, &up.ok);
    world.send(CALLER, ACCESS, options.as_bytes());
    world.expect(CALLER, "200 OPTIONS");
    let late = caller.request("OPTIONS", 5, &up.ok);
    world.send(CALLER, ACCESS, late.as_bytes());
    world.expect(CALLER, "500 OPTIONS");
    let bye = caller.request("BYE", 4, &up.ok);
    world.send(CALLER, ACCESS, bye.as_bytes());
    world.expect(CALLER, "200 BYE");
    let bye = world.expect(CALLEE, "BYE");
    world.send(CALLEE, CORE, answer(&bye, 200, "b1", "").as_bytes());
    world.assert_quiet();
    world.assert_all_over();
}

/// lessons 1.8: what is lost is sent again, by whoever originated it.
#[test]
fn lost_messages_are_sent_again() {
    let mut world = World::new(1);
    let caller = Caller::new("c1");
    world.send(CALLER, ACCESS, caller.invite().as_bytes());
    world.expect(CALLER, "100 INVITE");
    let invite = world.expect(CALLEE, "INVITE");
    world.run(600);
    assert_eq!(world.expect(CALLEE, "INVITE").bytes, invite.bytes, "timer A");
    let ok = answer(&invite, 200, "b1", &sdp(CALLEE_MEDIA, 1, ""));
    world.send(CALLEE, CORE, ok.as_bytes());
    let ack = world.expect(CALLEE, "ACK");
    let first = world.expect(CALLER, "200 INVITE");
    // The callee lost our ACK: its 200 comes again and is acknowledged again.
    world.send(CALLEE, CORE, ok.as_bytes());
    let again = world.expect(CALLEE, "ACK");
    let strip = |got: &Got| {
        let text = got.text();
        text.lines().filter(|line| !line.starts_with("Via:")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(strip(&again), strip(&ack));
    // The caller lost our 200: it comes again until its ACK.
    world.run(1_000);
    assert_eq!(world.expect(CALLER, "200 INVITE").bytes, first.bytes);
    let ack = caller.request("ACK", 1, &first);
    world.send(CALLER, ACCESS, ack.as_bytes());
    world.run(20_000);
    world.assert_quiet();
    // Our BYE is sent again until it is answered.
    let bye = caller.request("BYE", 2, &first);
    world.send(CALLER, ACCESS, bye.as_bytes());
    world.expect(CALLER, "200 BYE");
    world.send(CALLER, ACCESS, bye.as_bytes());
    world.expect(CALLER, "200 BYE");
    world.expect(CALLEE, "BYE");
    world.run(600);
    let bye = world.expect(CALLEE, "BYE");
    world.send(CALLEE, CORE, answer(&bye, 200, "b1", "").as_bytes());
    world.assert_all_over();
    world.assert_quiet();
}

/// 13.3.1.4: a caller that never acknowledges is hung up, and so is the callee.
#[test]
fn a_2xx_that_is_never_acknowledged_ends_the_call_on_both_sides() {
    let mut world = World::new(1);
    let caller = Caller::new("c1");
    world.send(CALLER, ACCESS, caller.invite().as_bytes());
    let invite = world.expect(CALLEE, "INVITE");
    let ok = answer(&invite, 200, "b1", &sdp(CALLEE_MEDIA, 1, ""));
    world.send(CALLEE, CORE, ok.as_bytes());
    world.run(32_000);
    let to_caller = world.all(CALLER);
    assert_eq!(to_caller.iter().filter(|got| *got == "200 INVITE").count(), 11);
    assert_eq!(to_caller.last().map(String::as_str), Some("BYE"));
    assert_eq!(world.all(CALLEE), ["ACK", "BYE"]);
    assert_eq!(world.count(|counters| counters.unacknowledged_2xx), 1);
    world.assert_all_over();
}

fn cancel_and_check(world: &mut World, caller: &Caller) {
    world.send(CALLER, ACCESS, caller.cancel().as_bytes());
    world.expect(CALLER, "200 CANCEL");
    let refusal = world.expect(CALLER, "487 INVITE");
    assert!(refusal.text().contains("Reason: ravelin;cause=2;"), "{}", refusal.text());
    world.send(CALLER, ACCESS, caller.ack_refusal(&refusal).as_bytes());
}

#[test]
fn a_cancel_reaches_the_callee() {
    let mut world = World::new(1);
    let caller = Caller::new("c1");
    world.send(CALLER, ACCESS, caller.invite().as_bytes());
    world.expect(CALLER, "100 INVITE");
    let invite = world.expect(CALLEE, "INVITE");
    world.send(CALLEE, CORE, answer(&invite, 180, "b1", "").as_bytes());
    world.expect(CALLER, "180 INVITE");
    cancel_and_check(&mut world, &caller);
    let cancel = world.expect(CALLEE, "CANCEL");
    world.send(CALLEE, CORE, answer(&cancel, 200, "b1", "").as_bytes());
    world.send(CALLEE, CORE, answer(&invite, 487, "b1", "").as_bytes());
    world.expect(CALLEE, "ACK");
    world.assert_quiet();
    world.assert_all_over();
}

/// The CANCEL and the 200 cross: the answered leg is acknowledged and hung up.
#[test]
fn an_answer_that_crosses_a_cancel_is_hung_up() {
    let mut world = World::new(1);
    let caller = Caller::new("c1");
    world.send(CALLER, ACCESS, caller.invite().as_bytes());
    world.expect(CALLER, "100 INVITE");
    let invite = world.expect(CALLEE, "INVITE");
    world.send(CALLEE, CORE, answer(&invite, 180, "b1", "").as_bytes());
    world.expect(CALLER, "180 INVITE");
    cancel_and_check(&mut world, &caller);
    world.expect(CALLEE, "CANCEL");
    let ok = answer(&invite, 200, "b1", &sdp(CALLEE_MEDIA, 1, ""));
    world.send(CALLEE, CORE, ok.as_bytes());
    world.expect(CALLEE, "ACK");
    let bye = world.expect(CALLEE, "BYE");
    world.send(CALLEE, CORE, answer(&bye, 200, "b1", "").as_bytes());
    world.assert_all_over();
    let call = world.cdrs().into_iter().find(|cdr| cdr.kind == CdrKind::Call).unwrap();
    assert_eq!((call.status, call.duration_ms), (487, 0));
}

#[test]
fn a_cancel_after_the_answer_changes_nothing() {
    let mut world = World::new(1);
    let caller = Caller::new("c1");
    let up = establish(&mut world, &caller, CALLEE);
    world.send(CALLER, ACCESS, caller.cancel().as_bytes());
    world.expect(CALLER, "200 CANCEL");
    world.assert_quiet();
    hang_up(&mut world, &caller, CALLEE, &up);
    world.assert_all_over();
}

/// features 1, row 10: the next trunk after a 503 or a silence, none after 486, 600 and 603.
#[test]
fn failover_follows_the_cause_table() {
    let mut world = World::new(1);
    let caller = Caller::new("c1");
    world.send(CALLER, ACCESS, caller.invite().as_bytes());
    world.expect(CALLER, "100 INVITE");
    let invite = world.expect(CALLEE, "INVITE");
    world.send(CALLEE, CORE, answer(&invite, 503, "b1", "").as_bytes());
    world.expect(CALLEE, "ACK");
    let second = world.expect(CALLEE_B, "INVITE");
    assert_ne!(second.message().call_id(), invite.message().call_id());
    let ok = answer(&second, 200, "b2", &sdp("127.0.3.1:7000", 1, ""));
    world.send(CALLEE_B, CORE, ok.as_bytes());
    world.expect(CALLEE_B, "ACK");
    let ok = world.expect(CALLER, "200 INVITE");
    world.send(CALLER, ACCESS, caller.request("ACK", 1, &ok).as_bytes());
    // Media goes to the second trunk.
    let to = media_address(ok.message().body());
    assert_eq!(world.send_media("127.0.1.1:6000", to, &rtp(1)), Received::Taken);
    assert!(world.take("127.0.3.1:7000").is_some());
    let up = Up { invite: second, ok };
    hang_up(&mut world, &caller, CALLEE_B, &up);
    world.assert_all_over();
    let mut statuses: Vec<_> =
        world.cdrs().iter().map(|cdr| (cdr.kind, cdr.attempt, cdr.status)).collect();
    statuses.sort_by_key(|status| (status.1, status.2));
    assert_eq!(
        statuses,
        [(CdrKind::Call, 0, 200), (CdrKind::Attempt, 1, 503), (CdrKind::Attempt, 2, 200)]
    );

    for code in [486, 600, 603] {
        let mut world = World::new(1);
        world.send(CALLER, ACCESS, caller.invite().as_bytes());
        world.expect(CALLER, "100 INVITE");
        let invite = world.expect(CALLEE, "INVITE");
        world.send(CALLEE, CORE, answer(&invite, code, "b1", "").as_bytes());
        world.expect(CALLEE, "ACK");
        let refusal = world.expect(CALLER, &format!("{code} INVITE"));
        world.send(CALLER, ACCESS, caller.ack_refusal(&refusal).as_bytes());
        world.assert_quiet();
        world.assert_all_over();
    }
}

#[test]
fn a_silent_trunk_and_an_unreachable_one_are_passed_by() {
    let mut world = World::new(1);
    let caller = Caller::new("c1");
    world.send(CALLER, ACCESS, caller.invite().as_bytes());
    world.expect(CALLER, "100 INVITE");
    world.expect(CALLEE, "INVITE");
    let mut tx = ravelin_engine::port::TxQueue::default();
    let now = world.clock();
    world.engines[0].unreachable(now, CORE, CALLEE.parse().unwrap(), &mut tx);
    let next = tx.iter().next().unwrap();
    assert!(next.bytes.starts_with(b"INVITE "));
    assert!(matches!(
        next.egress,
        ravelin_engine::port::Egress::Udp { to, .. } if to.to_string() == CALLEE_B
    ));
    // Nobody answers there either: the caller hears it within 64*T1.
    world.run(40_000);
    let told = world.all(CALLER);
    assert!(
        matches!(told.first().map(String::as_str), Some("408 INVITE" | "503 INVITE")),
        "{told:?}"
    );
    world.assert_all_over();
}

/// issue 2: calls limit as permits held by the call.
#[test]
fn a_trunk_at_its_limit_refuses_until_a_call_ends() {
    let mut world = World::new(1);
    let mut ups = Vec::new();
    for n in 0..20 {
        let caller = Caller::new(&format!("n{n}"));
        let up = establish(&mut world, &caller, CALLEE);
        ups.push((caller, up));
    }
    let late = Caller::new("late");
    world.send(CALLER, ACCESS, late.invite().as_bytes());
    let refusal = world.expect(CALLER, "503 INVITE");
    assert!(refusal.text().contains("Reason: ravelin;cause=203;"), "{}", refusal.text());
    world.send(CALLER, ACCESS, late.ack_refusal(&refusal).as_bytes());
    // An emergency call gets through in spite of it.
    let mut emergency = Caller::new("sos");
    emergency.number = "911".to_owned();
    world.send(CALLER, ACCESS, emergency.invite().as_bytes());
    world.expect(CALLER, "100 INVITE");
    let invite = world.expect(PSAP, "INVITE");
    world.send(PSAP, CORE, answer(&invite, 180, "p1", "").as_bytes());
    world.expect(CALLER, "180 INVITE");
    cancel_and_check(&mut world, &emergency);
    let cancel = world.expect(PSAP, "CANCEL");
    world.send(PSAP, CORE, answer(&cancel, 200, "p1", "").as_bytes());
    world.send(PSAP, CORE, answer(&invite, 487, "p1", "").as_bytes());
    world.expect(PSAP, "ACK");
    let (caller, up) = ups.pop().unwrap();
    hang_up(&mut world, &caller, CALLEE, &up);
    let next = Caller::new("next");
    let up = establish(&mut world, &next, CALLEE);
    hang_up(&mut world, &next, CALLEE, &up);
    for (caller, up) in ups {
        hang_up(&mut world, &caller, CALLEE, &up);
    }
    world.assert_all_over();
}

/// design 4: one peer's 5-tuple carries all traffic; each call has one owner, whichever shard the
/// kernel gave the datagram to.
#[test]
fn two_shards_share_one_five_tuple() {
    let config = CONFIG.replace("calls: 20", "calls: 200");
    for first_shard in [0, 1] {
        let mut world = World::with(2, &config, Limits::default());
        world.first_shard = first_shard;
        let mut owners = [0, 0];
        for n in 0..40 {
            let caller = Caller::new(&format!("s{n}"));
            let up = establish(&mut world, &caller, CALLEE);
            let tables: Vec<_> = world.engines.iter().map(|engine| engine.tables().calls).collect();
            let owner = tables.iter().position(|calls| *calls == 1).unwrap();
            assert_eq!(tables[1 - owner], 0, "one owner");
            owners[owner] += 1;
            // Media ports belong to the owner.
            let to = media_address(up.ok.message().body());
            assert!(world.engines[owner].media_ports().iter().any(|spec| spec.addr == to));
            assert_eq!(world.send_media("127.0.1.1:6000", to, &rtp(1)), Received::Taken);
            assert!(world.take(CALLEE_MEDIA).is_some());
            hang_up(&mut world, &caller, CALLEE, &up);
            world.assert_all_over();
        }
        assert!(owners[0] >= 8 && owners[1] >= 8, "{owners:?}");
        // 6 messages of each call came in; those of the other shard's calls were passed on.
        assert_eq!(world.passed_on, owners[1 - first_shard] * 6);
        world.assert_quiet();
    }
}

#[test]
fn strangers_get_nothing_and_ours_get_names_for_what_is_wrong() {
    let mut world = World::new(1);
    let caller = Caller::new("c1");
    let stranger = world.send("127.0.66.6:5060", ACCESS, caller.invite().as_bytes());
    assert_eq!(stranger, Received::Dropped(DropReason::UnknownSource));
    world.assert_quiet();

    let up = Caller::new("c2");
    let stray = up.request_to("BYE", 5, "sip:x@127.0.0.10", "<sip:b@x>;tag=nobody", "b1");
    world.send(CALLER, ACCESS, stray.as_bytes());
    let refusal = world.expect(CALLER, "481 BYE");
    assert!(refusal.text().contains("Reason: ravelin;cause=111;"));

    let too_far = caller.invite().replace("Max-Forwards: 70", "Max-Forwards: 0");
    world.send(CALLER, ACCESS, too_far.as_bytes());
    world.expect(CALLER, "483 INVITE");

    let broken = caller.invite().replace("CSeq: 1 INVITE", "CSeq: 1 BYE");
    world.send(CALLER, ACCESS, broken.as_bytes());
    let refusal = world.take(CALLER).unwrap();
    assert!(refusal.text().starts_with("SIP/2.0 400 "));
    assert!(refusal.text().contains("Reason: ravelin;cause=101;"), "{}", refusal.text());

    let version = caller.invite().replacen("SIP/2.0", "SIP/7.0", 1);
    world.send(CALLER, ACCESS, version.as_bytes());
    assert!(world.take(CALLER).unwrap().text().starts_with("SIP/2.0 505 "));
    world.clear_mail();
    world.assert_all_over();
}
