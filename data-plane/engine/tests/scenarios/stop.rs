//! The end of the process: every call ends in order, recorded, and nothing is left.

use ravelin_contract::cdr::{CdrKind, Party};
use ravelin_engine::{cause::Cause, port::TxQueue};

use crate::common::*;

/// Ends at most `most` calls; what is sent lands in the inboxes.
fn shutdown(world: &mut World, most: usize) -> usize {
    let now = world.now;
    world.with_engine(|engine, out: &mut TxQueue| engine.shutdown(now, most, out))
}

#[test]
fn an_answered_call_ends_with_a_bye_to_both_and_its_record() {
    let mut world = World::new();
    connected(&mut world);
    world.pass(3_000);
    assert_eq!(world.engine.live_calls(), 1);
    assert_eq!(shutdown(&mut world, 10), 0);
    for at in [PBX, CARRIER_A] {
        let bye = world.expect(at, "BYE ");
        assert_eq!(bye.header("Reason"), Cause::Stopped.reason_header());
        world.send(at, if at == PBX { ACCESS } else { CORE }, &bye.reply("200 OK", "", ""));
    }
    world.quiet();
    assert_eq!(world.engine.tables().calls, 0);
    assert_eq!(world.engine.counters().calls_stopped, 1);
    let cdr = world.call_cdr();
    assert_eq!((cdr.status, cdr.cause, cdr.ended_by), (200, 502, Party::Ravelin));
    assert_eq!(cdr.duration_ms, 3_000);
    world.all_gone();
}

#[test]
fn a_call_that_is_being_set_up_gets_503_and_its_callee_a_cancel() {
    let mut world = World::new();
    let ringing = Caller::dial(&mut world, "+12125550001");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.reply(&mut world, "180 Ringing", "");
    let silent = Caller::dial(&mut world, "+12125550002");
    let unheard = Callee::take(&mut world, CARRIER_A);
    world.forget_inbox();

    assert_eq!(shutdown(&mut world, 10), 0);
    for caller in [&ringing, &silent] {
        let refused = world.expect(PBX, "SIP/2.0 503");
        assert_eq!(refused.header("Reason"), Cause::Stopped.reason_header());
        caller.ack_refusal(&mut world, &refused);
    }
    let cancel = world.expect(CARRIER_A, "CANCEL ");
    assert_eq!(cancel.header("Call-ID"), callee.invite.header("Call-ID"));
    // RFC 3261 9.1: the other CANCEL waits for a provisional response.
    world.quiet();
    unheard.reply(&mut world, "183 Progress", "");
    let cancel = world.expect(CARRIER_A, "CANCEL ");
    assert_eq!(cancel.header("Call-ID"), unheard.invite.header("Call-ID"));
    // An answer that crosses the CANCEL is hung up.
    unheard.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    world.expect(CARRIER_A, "BYE ");
    let causes: Vec<u16> = world
        .cdrs()
        .into_iter()
        .filter(|cdr| cdr.kind == CdrKind::Call)
        .map(|cdr| cdr.cause)
        .collect();
    assert_eq!(causes, [502, 502]);
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn calls_are_ended_a_few_at_a_time_and_last_words_end_the_rest() {
    let mut world = World::new();
    for n in 0..5 {
        Caller::dial(&mut world, &format!("+1212555000{n}"));
    }
    assert_eq!(shutdown(&mut world, 2), 3);
    assert_eq!(shutdown(&mut world, 2), 1);
    let now = world.now;
    world.with_engine(|engine, out| engine.last_words(now, out));
    assert_eq!(world.engine.live_calls(), 0);
    let calls = world.cdrs().into_iter().filter(|cdr| cdr.kind == CdrKind::Call).count();
    assert_eq!(calls, 5);
    world.dead = vec![addr(PBX), addr(CARRIER_A)];
    world.forget_inbox();
    world.all_gone();
}

/// RFC 3261 15: no BYE to the caller before its ACK, unless nobody will be there to send it.
#[test]
fn a_caller_that_has_not_acknowledged_hears_the_bye_with_the_last_words() {
    let mut world = World::new();
    Caller::dial(&mut world, "+12125551234");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.answer(&mut world);
    world.forget_inbox();
    shutdown(&mut world, 10);
    world.expect(CARRIER_A, "BYE ");
    world.quiet();
    let now = world.now;
    world.with_engine(|engine, out| engine.last_words(now, out));
    world.expect(PBX, "BYE ");
    world.quiet();
    world.dead = vec![addr(PBX), addr(CARRIER_A)];
    world.all_gone();
}

/// EM-68: a drain takes emergency calls. The end of the process cannot, and says so to the caller
/// and to the operator.
#[test]
fn emergency_calls_outlast_the_drain_and_their_end_is_critical() {
    let mut world = World::new();
    world.engine.begin_drain();
    let mut caller = Caller::dial(&mut world, "911");
    let psap = Callee::take(&mut world, PSAP_1);
    psap.answer(&mut world);
    world.expect(PSAP_1, "ACK ");
    world.expect(PBX, "SIP/2.0 100");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    assert_eq!(world.engine.live_calls(), 1);

    shutdown(&mut world, 10);
    world.expect(PSAP_1, "BYE ");
    world.expect(PBX, "BYE ");
    assert!(world.event_kinds().contains(&"emergency.cut_off"), "{:?}", world.event_kinds());
    assert!(world.event_kinds().contains(&"emergency.ended"));

    Caller::dial(&mut world, "911");
    let refused = world.expect(PBX, "SIP/2.0 503");
    assert_eq!(refused.header("Reason"), Cause::Stopped.reason_header());
    assert_eq!(world.event_kinds().last(), Some(&"emergency.denied"));
    world.dead = vec![addr(PBX), addr(PSAP_1)];
    world.forget_inbox();
    world.all_gone();
}
