//! EM-64: an emergency call takes what ordinary calls hold, and no other emergency call.

use ravelin_contract::{audit::Severity, cdr::CdrKind};
use ravelin_engine::{cause::Cause, limits::Limits};

use crate::common::*;

/// A 911 call from the PBX, up to the INVITE at the PSAP.
#[track_caller]
fn dial_911(world: &mut World) -> (Caller, Callee) {
    let caller = Caller::dial(world, "911");
    world.expect(PBX, "SIP/2.0 100");
    (caller, Callee::take(world, PSAP_1))
}

fn causes(world: &World) -> Vec<u16> {
    let calls = world.cdrs().into_iter().filter(|cdr| cdr.kind == CdrKind::Call);
    calls.map(|cdr| cdr.cause).collect()
}

#[test]
fn the_newest_unanswered_call_gives_its_ports_then_the_newest_answered_one_never_a_911_call() {
    let config = CONFIG.replace("ports: 30000-30063", "ports: 30000-30005");
    let mut world = World::with(&config, Limits::default());
    let (_, _) = connected(&mut world);
    let mut newer = Caller::dial(&mut world, "+12125550001");
    let answered = Callee::take(&mut world, CARRIER_A);
    answered.answer(&mut world);
    world.expect(PBX, "SIP/2.0 100");
    let ok = world.expect(PBX, "SIP/2.0 200");
    newer.learn(&ok);
    newer.ack(&mut world, "");
    world.expect(CARRIER_A, "ACK ");
    let waiting = Caller::dial(&mut world, "+12125550002");
    let ringing = Callee::take(&mut world, CARRIER_A);
    ringing.reply(&mut world, "180 Ringing", "");
    world.forget_inbox();
    Caller::dial(&mut world, "+12125550003");
    world.expect(PBX, "SIP/2.0 100");
    assert_eq!(world.take(PBX).header("Reason"), Cause::MediaPortsFull.reason_header());
    world.quiet();

    // Whose phone still rings.
    Caller::dial(&mut world, "911");
    world.expect(PBX, "SIP/2.0 100");
    let refused = world.expect(PBX, "SIP/2.0 503");
    assert_eq!(refused.header("Call-ID"), waiting.call_id);
    assert_eq!(refused.header("Reason"), Cause::Preempted.reason_header());
    waiting.ack_refusal(&mut world, &refused);
    let cancel = world.expect(CARRIER_A, "CANCEL ");
    assert_eq!(cancel.header("Call-ID"), ringing.invite.header("Call-ID"));
    world.expect(PSAP_1, "INVITE ");
    world.quiet();

    // Then who began to talk last.
    Caller::dial(&mut world, "911");
    world.expect(PBX, "SIP/2.0 100");
    let bye = world.expect(PBX, "BYE ");
    assert_eq!(bye.header("Call-ID"), newer.call_id);
    let reasons = bye.headers("Reason");
    assert_eq!(reasons[0], Cause::Preempted.reason_header());
    assert!(reasons[1].starts_with("preemption;cause=2;"), "{reasons:?}");
    let bye = world.expect(CARRIER_A, "BYE ");
    assert_eq!(bye.header("Call-ID"), answered.invite.header("Call-ID"));
    let second = Callee::take(&mut world, PSAP_1);
    dial_third_and_fourth(&mut world, &second);

    let told: Vec<_> =
        world.events().into_iter().filter(|event| event.kind == "emergency.preempted").collect();
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|event| event.severity == Severity::Alarm));
    assert_eq!(told[0].fields["answered"], false);
    assert_eq!(told[1].fields["resource"], "media_ports_full");
    assert_eq!(world.engine.counters().calls_preempted, 3);
    world.dead = vec![addr(PBX), addr(CARRIER_A), addr(PSAP_1), addr(PSAP_2), addr(PSAP_GLOBAL)];
    world.forget_inbox();
    world.pass(65_000);
    world.all_gone();
    assert_eq!(causes(&world).iter().filter(|cause| **cause == 308).count(), 3);
}

/// The third 911 call takes the last ordinary one's ports; the fourth finds emergency calls only,
/// and gets through when one of them has ended.
fn dial_third_and_fourth(world: &mut World, second: &Callee) {
    Caller::dial(world, "911");
    world.expect(PBX, "SIP/2.0 100");
    world.expect(PBX, "BYE ");
    world.expect(CARRIER_A, "BYE ");
    world.expect(PSAP_1, "INVITE ");
    world.quiet();
    Caller::dial(world, "911");
    world.expect(PBX, "SIP/2.0 100");
    world.quiet();
    second.reply(world, "486 Busy Here", "");
    world.expect(PSAP_1, "ACK ");
    // Its own next trunk needs no new ports; the fourth call still waits.
    let elsewhere = Callee::take(world, PSAP_2);
    world.pass(1_500);
    while world.try_take(PSAP_1).is_some() {}
    elsewhere.answer(world);
    world.expect(PSAP_2, "ACK ");
    let mut elsewhere = elsewhere;
    elsewhere.request(world, "BYE", "");
    world.expect(PSAP_2, "SIP/2.0 200");
    world.pass(1_100);
    let late = world.inbox_of(PSAP_1);
    assert!(late.iter().any(|text| text.starts_with("INVITE ")), "{late:#?}");
    world.forget_inbox();
}

#[test]
fn a_full_transaction_table_costs_the_newest_unanswered_call() {
    let limits = Limits {
        client_transactions: 3,
        server_transactions: 3,
        transactions_reserve: 1,
        ..Limits::default()
    };
    let mut world = World::with(CONFIG, limits);
    let older = Caller::dial(&mut world, "+12125550001");
    let newer = Caller::dial(&mut world, "+12125550002");
    world.forget_inbox();
    Caller::dial(&mut world, "+12125550003");
    let refused = world.expect(PBX, "SIP/2.0 503");
    assert_eq!(refused.header("Reason"), Cause::TransactionsFull.reason_header());
    // The emergency's own room first.
    for _ in 0..2 {
        dial_911(&mut world);
        world.quiet();
    }
    // Another phone, for the allowance of one source is three (EM-67).
    let (phone, body) = ("127.0.1.2:5060", sdp_part("127.0.1.2", 40_000));
    for victim in [&newer, &older] {
        Caller::invite(&mut world, phone, ACCESS, "sip:911@127.0.0.10", &body);
        let refused = world.expect(PBX, "SIP/2.0 503");
        assert_eq!(refused.header("Call-ID"), victim.call_id);
        assert_eq!(refused.header("Reason"), Cause::Preempted.reason_header());
        world.expect(phone, "SIP/2.0 100");
        world.expect(PSAP_1, "INVITE ");
        world.quiet();
    }
    // Nobody is left to give way.
    Caller::dial(&mut world, "911");
    let refused = world.expect(PBX, "SIP/2.0 503");
    assert_eq!(refused.header("Reason"), Cause::TransactionsFull.reason_header());
    assert_eq!(world.engine.counters().calls_preempted, 2);
    world.dead = vec![addr(PBX), addr(phone), addr(PSAP_1), addr(PSAP_2), addr(PSAP_GLOBAL)];
    world.forget_inbox();
    world.pass(65_000);
    world.all_gone();
}

/// EM-67: whoever sends 911 without end is served from what is free, and ends nobody's call.
#[test]
fn a_source_in_excess_ends_no_ordinary_call_and_is_told_once() {
    let config = CONFIG.replace("ports: 30000-30063", "ports: 30000-30009");
    let mut world = World::with(&config, Limits::default());
    connected(&mut world);
    let mut invites = 0;
    for _ in 0..9 {
        Caller::dial(&mut world, "911");
        while world.try_take(PSAP_1).is_some() {
            invites += 1;
        }
    }
    assert_eq!(invites, 4, "one of five pairs is the ordinary call's, and stays so");
    assert_eq!(world.engine.counters().calls_preempted, 0);
    assert_eq!(world.engine.counters().emergency_excess, 6);
    let told = world.event_kinds().into_iter().filter(|kind| *kind == "emergency.excess").count();
    assert_eq!(told, 1);
    world.forget_inbox();
    // Another phone of the site has its own right.
    let sdp = sdp_part("127.0.1.2", 40_000);
    Caller::invite(&mut world, "127.0.1.2:5060", ACCESS, "sip:911@127.0.0.10", &sdp);
    world.expect(PSAP_1, "INVITE ");
    assert_eq!(world.engine.counters().calls_preempted, 1);
    let all = ["127.0.1.2:5060", PBX, CARRIER_A, PSAP_1, PSAP_2, PSAP_GLOBAL];
    world.dead = all.into_iter().map(addr).collect();
    world.forget_inbox();
    world.pass(65_000);
    world.all_gone();
}
