//! Requests inside a dialog that is not confirmed yet, and a re-INVITE that is cancelled.

use crate::common::*;

#[track_caller]
fn ringing(world: &mut World) -> (Caller, Callee) {
    let mut caller = Caller::dial(world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(world, CARRIER_A);
    callee.reply(world, "183 Session Progress", &sdp_part("127.0.2.1", 50_000));
    let progress = world.expect(PBX, "SIP/2.0 183");
    caller.learn(&progress);
    (caller, callee)
}

#[track_caller]
fn answer_and_end(world: &mut World, caller: &mut Caller, callee: &Callee) {
    callee.answer(world);
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack_of(world, 1, "");
    caller.request(world, "BYE", "");
    world.expect(PBX, "SIP/2.0 200");
    let bye = world.expect(CARRIER_A, "BYE ");
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    world.quiet();
    world.all_gone();
}

#[test]
fn a_digit_in_early_media_reaches_the_callee_that_rings() {
    let mut world = World::new();
    let (mut caller, mut callee) = ringing(&mut world);
    caller.request(&mut world, "INFO", "Content-Type: application/dtmf-relay\n\nSignal=5\n");
    let info = world.expect(CARRIER_A, "INFO sip:callee@127.0.2.1:5060 ");
    assert_eq!(info.body(), "Signal=5\r\n");
    world.send(CARRIER_A, CORE, &info.reply("200 OK", "", ""));
    world.expect(PBX, "SIP/2.0 200");
    callee.request(&mut world, "INFO", "Content-Type: text/plain\n\nhi\n");
    let info = world.expect(PBX, "INFO ");
    world.send(PBX, ACCESS, &info.reply("200 OK", "", ""));
    world.expect(CARRIER_A, "SIP/2.0 200");
    answer_and_end(&mut world, &mut caller, &callee);
}

/// RFC 3311 5.1, 5.2: the offer of the INVITE is open.
#[test]
fn an_update_before_the_answer_passes_without_offer_and_waits_with_one() {
    let mut world = World::new();
    let (mut caller, mut callee) = ringing(&mut world);
    caller.request(&mut world, "UPDATE", "");
    let update = world.expect(CARRIER_A, "UPDATE sip:callee@127.0.2.1:5060 ");
    assert!(update.try_header("Contact").is_some());
    world.send(CARRIER_A, CORE, &update.reply("200 OK", "", ""));
    world.expect(PBX, "SIP/2.0 200");
    caller.request(&mut world, "UPDATE", &sdp_part("127.0.1.1", 41_000));
    let later = world.expect(PBX, "SIP/2.0 500");
    assert!(later.header("Retry-After").parse::<u32>().unwrap() <= 10);
    callee.request(&mut world, "UPDATE", &sdp_part("127.0.2.1", 51_000));
    world.expect(CARRIER_A, "SIP/2.0 491");
    callee.request(&mut world, "UPDATE", "");
    let update = world.expect(PBX, "UPDATE ");
    world.send(PBX, ACCESS, &update.reply("200 OK", "", ""));
    world.expect(CARRIER_A, "SIP/2.0 200");
    answer_and_end(&mut world, &mut caller, &callee);
}

/// A request that nobody answers does not end a call that still rings.
#[test]
fn silence_to_an_early_request_leaves_the_call_ringing() {
    let mut world = World::new();
    let (mut caller, callee) = ringing(&mut world);
    caller.request(&mut world, "UPDATE", "");
    world.expect(CARRIER_A, "UPDATE ");
    world.pass(33_000);
    world.forget_inbox();
    answer_and_end(&mut world, &mut caller, &callee);
}

/// RFC 3261 15: a callee refuses, it does not hang up.
#[test]
fn a_bye_of_a_callee_that_rings_is_refused() {
    let mut world = World::new();
    let (mut caller, mut callee) = ringing(&mut world);
    callee.request(&mut world, "BYE", "");
    world.expect(CARRIER_A, "SIP/2.0 481");
    answer_and_end(&mut world, &mut caller, &callee);
}

/// RFC 3261 14.2, 9.2.
#[test]
fn a_cancelled_re_invite_is_cancelled_on_the_other_side_and_the_call_stays() {
    let mut world = World::new();
    let (mut caller, callee) = connected(&mut world);
    caller.request(&mut world, "INVITE", &sdp_part("127.0.1.1", 41_000));
    let invite = world.expect(CARRIER_A, "INVITE ");
    world.send(CARRIER_A, CORE, &invite.reply("180 Ringing", "", ""));
    world.expect(PBX, "SIP/2.0 100");
    let ringing = world.expect(PBX, "SIP/2.0 180");
    let via = ringing.header("Via").split(";received").next().unwrap().to_owned();
    let cancel = format!(
        "CANCEL {} SIP/2.0\nVia: {via}\nMax-Forwards: 70\nFrom: {}\nTo: {}\nCall-ID: {}\n\
         CSeq: {} CANCEL\nReason: SIP;cause=200;text=\"at 127.0.1.1\"\n",
        caller.remote,
        ringing.header("From"),
        ringing.header("To"),
        caller.call_id,
        ringing.cseq()
    );
    world.send(PBX, ACCESS, &cancel);
    let done = world.expect(PBX, "SIP/2.0 200");
    assert!(done.header("CSeq").ends_with("CANCEL"));
    let cancel = world.expect(CARRIER_A, "CANCEL ");
    assert_eq!(cancel.header("Via"), invite.header("Via"));
    assert_eq!(cancel.header("Reason"), "SIP;cause=200;text=\"at 127.0.0.20\"");
    world.send(CARRIER_A, CORE, &cancel.reply("200 OK", "", ""));
    world.send(CARRIER_A, CORE, &invite.reply("487 Request Terminated", "", ""));
    world.expect(CARRIER_A, "ACK ");
    world.expect(PBX, "SIP/2.0 487");
    world.forget_inbox();
    caller.request(&mut world, "BYE", "");
    world.expect(PBX, "SIP/2.0 200");
    let bye = world.expect(CARRIER_A, "BYE ");
    assert_eq!(bye.to_tag(), callee.tag);
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    world.all_gone();
}

/// The answers to a CANCEL and to its INVITE have one To tag (RFC 3261 9.2).
#[test]
fn the_answers_to_invite_and_cancel_have_one_tag() {
    let mut world = World::new();
    let (caller, callee) = ringing(&mut world);
    caller.cancel(&mut world);
    let done = world.expect(PBX, "SIP/2.0 200");
    let refused = world.expect(PBX, "SIP/2.0 487");
    assert_eq!(done.to_tag(), refused.to_tag());
    caller.ack_refusal(&mut world, &refused);
    let cancel = world.expect(CARRIER_A, "CANCEL ");
    world.send(CARRIER_A, CORE, &cancel.reply("200 OK", "", ""));
    world.send(CARRIER_A, CORE, &callee.invite.reply("487 Request Terminated", "x", ""));
    world.all_gone();
}
