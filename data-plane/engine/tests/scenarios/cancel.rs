//! CANCEL and its races, forks, BYE in early dialogs.

use ravelin_contract::cdr::Party;

use crate::common::*;

#[test]
fn a_cancelled_call_ends_on_both_sides() {
    let mut world = World::new();
    let caller = Caller::dial(&mut world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.reply(&mut world, "180 Ringing", "");
    world.expect(PBX, "SIP/2.0 180");
    caller.cancel(&mut world);
    assert!(world.expect(PBX, "SIP/2.0 200").header("CSeq").ends_with("CANCEL"));
    let refused = world.expect(PBX, "SIP/2.0 487");
    caller.ack_refusal(&mut world, &refused);
    let cancel = world.expect(CARRIER_A, "CANCEL sip:+12125551234@127.0.2.1:5060 ");
    assert_eq!(cancel.header("Via"), callee.invite.header("Via"));
    world.send(CARRIER_A, CORE, &cancel.reply("200 OK", "x", ""));
    callee.reply(&mut world, "487 Request Terminated", "");
    world.expect(CARRIER_A, "ACK ");
    let cdr = world.call_cdr();
    assert_eq!((cdr.status, cdr.cause, cdr.ended_by), (487, 2, Party::Caller));
    world.quiet();
    world.all_gone();
}

#[test]
fn a_cancel_before_any_response_waits_for_one() {
    let mut world = World::new();
    let caller = Caller::dial(&mut world, "+12125551234");
    let callee = Callee::take(&mut world, CARRIER_A);
    caller.cancel(&mut world);
    assert!(world.try_take(CARRIER_A).is_none(), "RFC 3261 9.1");
    callee.reply(&mut world, "100 Trying", "");
    let cancel = world.expect(CARRIER_A, "CANCEL ");
    world.send(CARRIER_A, CORE, &cancel.reply("200 OK", "x", ""));
    callee.reply(&mut world, "487 Request Terminated", "");
    world.expect(CARRIER_A, "ACK ");
    world.all_gone();
}

#[test]
fn a_200_that_crosses_the_cancel_is_acknowledged_and_hung_up() {
    let mut world = World::new();
    let caller = Caller::dial(&mut world, "+12125551234");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.reply(&mut world, "180 Ringing", "");
    caller.cancel(&mut world);
    world.expect(PBX, "SIP/2.0 100");
    world.expect(PBX, "SIP/2.0 180");
    world.expect(PBX, "SIP/2.0 200");
    let refused = world.expect(PBX, "SIP/2.0 487");
    caller.ack_refusal(&mut world, &refused);
    world.expect(CARRIER_A, "CANCEL ");
    callee.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    let bye = world.expect(CARRIER_A, "BYE ");
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    // The 200 once more: acknowledged once more, hung up once.
    callee.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    assert_eq!(world.engine.tables().permits, 0);
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn a_cancel_after_the_answer_changes_nothing() {
    let mut world = World::new();
    let mut caller = Caller::dial(&mut world, "+12125551234");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.answer(&mut world);
    world.expect(PBX, "SIP/2.0 100");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.cancel(&mut world);
    assert!(world.expect(PBX, "SIP/2.0 200").header("CSeq").ends_with("CANCEL"));
    caller.learn(&ok);
    caller.ack(&mut world, "");
    world.expect(CARRIER_A, "ACK ");
    assert_eq!(world.engine.tables().calls, 1);
    caller.request(&mut world, "BYE", "");
    world.expect(PBX, "SIP/2.0 200");
    let bye = world.expect(CARRIER_A, "BYE ");
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    world.all_gone();
}

#[test]
fn a_cancel_of_nothing_gets_481() {
    let mut world = World::new();
    let mut caller = Caller::dial(&mut world, "+12125551234");
    world.forget_inbox();
    caller.branch = "z9hG4bK-other".to_owned();
    caller.cancel(&mut world);
    world.expect(PBX, "SIP/2.0 481");
    caller.branch = "z9hG4bK-t1".to_owned();
    caller.cancel(&mut world);
    world.expect(PBX, "SIP/2.0 200");
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn the_first_branch_of_a_fork_wins_and_the_others_are_hung_up() {
    let mut world = World::new();
    let mut caller = Caller::dial(&mut world, "+12125551234");
    let first = Callee::take(&mut world, CARRIER_A);
    let mut second = first.clone();
    second.tag = "other".to_owned();
    first.reply(&mut world, "180 Ringing", "");
    second.reply(&mut world, "180 Ringing", "");
    second.answer(&mut world);
    let ack = world.expect(CARRIER_A, "ACK ");
    assert_eq!(ack.to_tag(), "other");
    first.answer(&mut world);
    let ack = world.expect(CARRIER_A, "ACK ");
    let bye = world.expect(CARRIER_A, "BYE ");
    assert_eq!((ack.to_tag(), bye.to_tag()), (first.tag.clone(), first.tag.clone()));
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    world.expect(PBX, "SIP/2.0 100");
    world.expect(PBX, "SIP/2.0 180");
    world.expect(PBX, "SIP/2.0 180");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    world.quiet();
    caller.request(&mut world, "BYE", "");
    let bye = world.expect(CARRIER_A, "BYE ");
    assert_eq!(bye.to_tag(), "other");
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    // A branch that answers when the call is gone already.
    let mut third = first.clone();
    third.tag = "third".to_owned();
    third.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    let bye = world.expect(CARRIER_A, "BYE ");
    assert_eq!(bye.to_tag(), "third");
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn the_caller_may_end_an_early_dialog_by_bye() {
    let mut world = World::new();
    let mut caller = Caller::dial(&mut world, "+12125551234");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.reply(&mut world, "180 Ringing", "");
    world.expect(PBX, "SIP/2.0 100");
    let ringing = world.expect(PBX, "SIP/2.0 180");
    caller.learn(&ringing);
    caller.request(&mut world, "BYE", "");
    world.expect(PBX, "SIP/2.0 200");
    world.expect(PBX, "SIP/2.0 487");
    world.expect(CARRIER_A, "CANCEL ");
    callee.reply(&mut world, "487 Request Terminated", "");
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn a_caller_that_vanishes_while_it_rings_leaves_nothing() {
    let mut world = World::new();
    Caller::dial(&mut world, "+12125551234");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.reply(&mut world, "180 Ringing", "");
    world.pass(186_000);
    world.expect(CARRIER_A, "CANCEL ");
    world.dead = vec![addr(CARRIER_A), addr(PBX)];
    world.forget_inbox();
    assert_eq!(world.call_cdr().cause, 403);
    world.all_gone();
}
