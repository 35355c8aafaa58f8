//! Requests inside a call: hold, codec change, glare, refusal, INFO, MESSAGE, BYE from both sides.

use ravelin_contract::cdr::Party;
use ravelin_engine::drops::DropReason;

use crate::common::*;

fn offer(ip: &str, port: u16, version: u32, direction: &str) -> String {
    format!("Content-Type: application/sdp\n\n{}", sdp_with(ip, port, version, direction))
}

#[track_caller]
fn end(world: &mut World, caller: &mut Caller) {
    caller.request(world, "BYE", "");
    world.expect(PBX, "SIP/2.0 200");
    let bye = world.expect(CARRIER_A, "BYE ");
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    world.quiet();
    world.all_gone();
}

fn version(message: &Msg) -> u64 {
    let origin = message.body().split("\r\n").find(|line| line.starts_with("o=")).unwrap();
    origin.split(' ').nth(2).unwrap().parse().unwrap()
}

#[test]
fn a_hold_by_the_caller_is_carried_and_answered() {
    let mut world = World::new();
    let (mut caller, callee) = connected(&mut world);
    let first = version(&callee.invite);
    caller.request(&mut world, "INVITE", &offer("127.0.1.1", 40_000, 2, "sendonly"));
    let invite = world.expect(CARRIER_A, "INVITE sip:callee@127.0.2.1:5060 ");
    assert!(invite.body().contains("a=sendonly\r\n"));
    assert_eq!(invite.media_port(0), callee.invite.media_port(0), "ports stay");
    assert_eq!(version(&invite), first + 1, "RFC 3264 8");
    assert!(invite.parsed().to().tag().is_some());
    let contact = "Contact: <sip:callee2@127.0.2.1:5070>\n";
    let body = offer("127.0.2.1", 50_000, 2, "recvonly");
    world.send(CARRIER_A, CORE, &invite.reply("200 OK", "", &format!("{contact}{body}")));
    // The new Contact is the new target.
    world.expect("127.0.2.1:5070", "ACK sip:callee2@127.0.2.1:5070 ");
    world.expect(PBX, "SIP/2.0 100");
    let ok = world.expect(PBX, "SIP/2.0 200");
    assert!(ok.body().contains("a=recvonly\r\n"));
    caller.ack(&mut world, "");
    world.quiet();
    end_at(&mut world, &mut caller, "127.0.2.1:5070");
}

/// RFC 3263 4.1: a Contact says by which transport it is reached.
#[test]
fn a_contact_that_asks_for_tcp_is_reached_over_tcp() {
    let mut world = World::new();
    let mut caller = Caller::dial(&mut world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    let body = sdp_part("127.0.2.1", 50_000);
    let contact = "Contact: <sip:callee@127.0.2.1:5060;transport=tcp>\n";
    let ok = callee.invite.reply("200 OK", &callee.tag, &format!("{contact}{body}"));
    world.send(CARRIER_A, CORE, &ok);
    let ack = world.expect(CARRIER_A, "ACK sip:callee@127.0.2.1:5060;transport=tcp ");
    assert!(ack.header("Via").starts_with("SIP/2.0/TCP 127.0.0.20:5060;"), "{}", ack.0);
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    caller.request(&mut world, "BYE", "");
    world.expect(PBX, "SIP/2.0 200");
    let bye = world.expect(CARRIER_A, "BYE ");
    assert!(bye.header("Via").starts_with("SIP/2.0/TCP "), "{}", bye.0);
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    world.all_gone();
}

#[track_caller]
fn end_at(world: &mut World, caller: &mut Caller, at: &str) {
    caller.request(world, "BYE", "");
    world.expect(PBX, "SIP/2.0 200");
    let bye = world.expect(at, "BYE ");
    world.send(at, CORE, &bye.reply("200 OK", "", ""));
    world.all_gone();
}

#[test]
fn a_refused_re_invite_leaves_media_as_it_was() {
    let mut world = World::new();
    let (mut caller, mut callee) = connected(&mut world);
    let port = addr(&format!("127.0.0.20:{}", callee.invite.media_port(0)));
    let rtp = [0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0x55];
    caller.request(&mut world, "INVITE", &offer("127.0.1.1", 41_000, 2, "sendrecv"));
    let invite = world.expect(CARRIER_A, "INVITE ");
    // Until it is answered, and after it is refused, media goes where it went.
    world.send_media("127.0.2.1:50000", port, &rtp);
    world.send(CARRIER_A, CORE, &invite.reply("488 Not Acceptable Here", "", ""));
    world.expect(CARRIER_A, "ACK ");
    world.expect(PBX, "SIP/2.0 100");
    let refused = world.expect(PBX, "SIP/2.0 488");
    assert_eq!(refused.try_header("Reason"), None, "the callee's refusal, not ours");
    world.send_media("127.0.2.1:50000", port, &rtp);
    assert_eq!(world.media.len(), 2);
    assert!(world.media.iter().all(|(to, _)| *to == addr("127.0.1.1:40000")));
    world.forget_inbox();
    // And the callee may now offer.
    callee.request(&mut world, "INVITE", &offer("127.0.2.1", 51_000, 2, "sendrecv"));
    let invite = world.expect(PBX, "INVITE ");
    let body = offer("127.0.1.1", 40_000, 3, "sendrecv");
    world.send(PBX, ACCESS, &invite.reply("200 OK", "", &body));
    world.expect(PBX, "ACK ");
    world.expect(CARRIER_A, "SIP/2.0 100");
    world.expect(CARRIER_A, "SIP/2.0 200");
    world.send_media("127.0.2.1:51000", port, &rtp);
    assert_eq!(world.media.len(), 3);
    world.forget_inbox();
    caller.request(&mut world, "BYE", "");
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn crossing_re_invites_get_491_on_both_sides() {
    let mut world = World::new();
    let (mut caller, mut callee) = connected(&mut world);
    caller.request(&mut world, "INVITE", &offer("127.0.1.1", 40_000, 2, "sendonly"));
    let to_callee = world.expect(CARRIER_A, "INVITE ");
    world.expect(PBX, "SIP/2.0 100");
    callee.request(&mut world, "INVITE", &offer("127.0.2.1", 50_000, 2, "sendonly"));
    let glare = world.expect(CARRIER_A, "SIP/2.0 491");
    assert_eq!(glare.header("Reason"), "ravelin;cause=112;text=\"Request pending\"");
    world.send(CARRIER_A, CORE, &to_callee.reply("491 Request Pending", "", ""));
    world.expect(CARRIER_A, "ACK ");
    world.expect(PBX, "SIP/2.0 491");
    world.forget_inbox();
    // After its wait the callee tries again, and gets through.
    world.pass(1_500);
    world.forget_inbox();
    callee.request(&mut world, "INVITE", &offer("127.0.2.1", 50_000, 2, "sendonly"));
    world.expect(PBX, "INVITE ");
    world.forget_inbox();
    caller.request(&mut world, "BYE", "");
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn a_second_re_invite_before_the_first_is_answered_gets_500_with_retry_after() {
    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    caller.request(&mut world, "INVITE", &offer("127.0.1.1", 40_000, 2, "sendonly"));
    let first = world.expect(CARRIER_A, "INVITE ");
    world.expect(PBX, "SIP/2.0 100");
    caller.request(&mut world, "INVITE", &offer("127.0.1.1", 40_000, 3, "sendrecv"));
    let busy = world.expect(PBX, "SIP/2.0 500");
    let seconds: u32 = busy.header("Retry-After").parse().unwrap();
    assert!(seconds <= 10);
    let body = offer("127.0.2.1", 50_000, 2, "recvonly");
    world.send(CARRIER_A, CORE, &first.reply("200 OK", "", &body));
    world.forget_inbox();
    caller.ack_of(&mut world, 2, "");
    world.forget_inbox();
    end(&mut world, &mut caller);
}

#[test]
fn an_offerless_re_invite_is_answered_in_the_ack() {
    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    caller.request(&mut world, "INVITE", "");
    world.expect(PBX, "SIP/2.0 100");
    let invite = world.expect(CARRIER_A, "INVITE ");
    assert_eq!(invite.body(), "");
    let body = offer("127.0.2.1", 52_000, 2, "sendrecv");
    world.send(CARRIER_A, CORE, &invite.reply("200 OK", "", &body));
    let ok = world.expect(PBX, "SIP/2.0 200");
    assert!(ok.body().contains("c=IN IP4 127.0.0.10"));
    world.quiet();
    caller.ack(&mut world, &offer("127.0.1.1", 42_000, 2, "sendrecv"));
    let ack = world.expect(CARRIER_A, "ACK ");
    assert!(ack.body().contains("c=IN IP4 127.0.0.20"));
    let rtp = [0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0x55];
    world.send_media("127.0.1.1:42000", addr(&format!("127.0.0.10:{}", ok.media_port(0))), &rtp);
    assert_eq!(world.media[0].0, addr("127.0.2.1:52000"));
    world.quiet();
    end(&mut world, &mut caller);
}

#[test]
fn update_changes_media_and_glares() {
    let mut world = World::new();
    let (mut caller, mut callee) = connected(&mut world);
    caller.request(&mut world, "UPDATE", &offer("127.0.1.1", 43_000, 2, "sendrecv"));
    let update = world.expect(CARRIER_A, "UPDATE sip:callee@127.0.2.1:5060 ");
    callee.request(&mut world, "UPDATE", &offer("127.0.2.1", 53_000, 2, "sendrecv"));
    world.expect(CARRIER_A, "SIP/2.0 491");
    let body = offer("127.0.2.1", 50_000, 2, "sendrecv");
    let contact = "Contact: <sip:callee@127.0.2.1:5060>\n";
    world.send(CARRIER_A, CORE, &update.reply("200 OK", "", &format!("{contact}{body}")));
    let ok = world.expect(PBX, "SIP/2.0 200");
    assert!(ok.header("Contact").contains("127.0.0.10"));
    world.quiet();
    let port = addr(&format!("127.0.0.20:{}", callee.invite.media_port(0)));
    let rtp = [0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0x55];
    world.send_media("127.0.2.1:50000", port, &rtp);
    assert_eq!(world.media[0].0, addr("127.0.1.1:43000"));
    // A refusal of an UPDATE.
    callee.request(&mut world, "UPDATE", &offer("127.0.2.1", 53_000, 3, "sendrecv"));
    let update = world.expect(PBX, "UPDATE ");
    world.send(PBX, ACCESS, &update.reply("488 No", "", ""));
    world.expect(CARRIER_A, "SIP/2.0 488");
    world.send_media("127.0.2.1:50000", port, &rtp);
    assert_eq!(world.media.len(), 2);
    // Without an offer it is a target refresh.
    caller.request(&mut world, "UPDATE", "");
    let update = world.expect(CARRIER_A, "UPDATE ");
    world.send(CARRIER_A, CORE, &update.reply("200 OK", "", contact));
    world.expect(PBX, "SIP/2.0 200");
    end(&mut world, &mut caller);
}

#[test]
fn info_message_and_options_inside_a_call() {
    let mut world = World::new();
    let (mut caller, mut callee) = connected(&mut world);
    caller.request(
        &mut world,
        "INFO",
        "Content-Type: application/dtmf-relay\n\nSignal=5\nDuration=160\n",
    );
    let info = world.expect(CARRIER_A, "INFO ");
    assert_eq!(info.body(), "Signal=5\r\nDuration=160\r\n");
    assert_eq!(info.try_header("Contact"), None);
    world.send(CARRIER_A, CORE, &info.reply("200 OK", "", ""));
    world.expect(PBX, "SIP/2.0 200");
    callee.request(&mut world, "MESSAGE", "Content-Type: text/plain\n\nhello\n");
    let message = world.expect(PBX, "MESSAGE sip:+13135550100@127.0.1.1:5060 ");
    assert_eq!(message.body(), "hello\r\n");
    world.send(PBX, ACCESS, &message.reply("202 Accepted", "", ""));
    world.expect(CARRIER_A, "SIP/2.0 202");
    callee.request(&mut world, "OPTIONS", "");
    world.expect(CARRIER_A, "SIP/2.0 200");
    callee.request(&mut world, "REFER", "Refer-To: <sip:1@127.0.2.1>\n");
    world.expect(CARRIER_A, "SIP/2.0 405");
    callee.request(&mut world, "PRACK", "RAck: 1 1 INVITE\n");
    world.expect(CARRIER_A, "SIP/2.0 405");
    world.quiet();
    end(&mut world, &mut caller);
}

#[test]
fn a_request_of_the_past_gets_500() {
    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    caller.cseq = 10;
    caller.request(&mut world, "INFO", "");
    let info = world.expect(CARRIER_A, "INFO ");
    world.send(CARRIER_A, CORE, &info.reply("200 OK", "", ""));
    world.expect(PBX, "SIP/2.0 200");
    caller.cseq = 4;
    caller.request(&mut world, "INFO", "");
    world.expect(PBX, "SIP/2.0 500");
    world.quiet();
    caller.cseq = 20;
    end(&mut world, &mut caller);
}

#[test]
fn a_bye_of_the_callee_ends_the_call() {
    let mut world = World::new();
    let (_, mut callee) = connected(&mut world);
    callee.request(&mut world, "BYE", "");
    world.expect(CARRIER_A, "SIP/2.0 200");
    let bye = world.expect(PBX, "BYE sip:+13135550100@127.0.1.1:5060 ");
    assert!(bye.header("To").starts_with("\"Ann\" <sip:+13135550100@127.0.1.1>;tag=caller"));
    world.send(PBX, ACCESS, &bye.reply("200 OK", "", ""));
    assert_eq!(world.call_cdr().ended_by, Party::Callee);
    world.all_gone();
}

#[test]
fn crossing_byes_end_well() {
    let mut world = World::new();
    let (mut caller, mut callee) = connected(&mut world);
    caller.request(&mut world, "BYE", "");
    let to_callee = world.expect(CARRIER_A, "BYE ");
    callee.request(&mut world, "BYE", "");
    world.expect(CARRIER_A, "SIP/2.0 200");
    world.expect(PBX, "SIP/2.0 200");
    world.send(CARRIER_A, CORE, &to_callee.reply("481 Gone", "", ""));
    world.quiet();
    assert_eq!(world.engine.tables().calls, 0);
    assert_eq!(world.call_cdr().ended_by, Party::Caller);
    world.all_gone();
}

#[test]
fn a_bye_that_nobody_answers_is_repeated_and_given_up() {
    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    caller.request(&mut world, "BYE", "");
    world.expect(CARRIER_A, "BYE ");
    world.pass(500);
    world.expect(CARRIER_A, "BYE ");
    world.forget_inbox();
    world.pass(32_000);
    assert_eq!(world.engine.tables().calls, 0);
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn a_bye_before_the_ack_waits_for_it_on_the_other_side() {
    let mut world = World::new();
    let mut caller = Caller::dial(&mut world, "+12125551234");
    let mut callee = Callee::take(&mut world, CARRIER_A);
    callee.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    world.expect(PBX, "SIP/2.0 100");
    let ok = world.expect(PBX, "SIP/2.0 200");
    callee.request(&mut world, "BYE", "");
    world.expect(CARRIER_A, "SIP/2.0 200");
    world.quiet();
    caller.learn(&ok);
    caller.ack(&mut world, "");
    let bye = world.expect(PBX, "BYE ");
    world.send(PBX, ACCESS, &bye.reply("200 OK", "", ""));
    world.all_gone();
}

#[test]
fn a_party_that_no_longer_answers_is_hung_up() {
    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    world.dead = vec![addr(CARRIER_A)];
    caller.request(&mut world, "INVITE", &offer("127.0.1.1", 40_000, 2, "sendonly"));
    world.expect(PBX, "SIP/2.0 100");
    world.pass(32_100);
    let timeout = world.expect(PBX, "SIP/2.0 408");
    assert!(timeout.header("Reason").starts_with("ravelin;cause=401"));
    let bye = world.expect(PBX, "BYE ");
    world.send(PBX, ACCESS, &bye.reply("200 OK", "", ""));
    assert_eq!(world.call_cdr().cause, 405);
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn a_peer_that_knows_the_dialog_no_more_ends_the_call() {
    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    caller.request(&mut world, "UPDATE", "");
    let update = world.expect(CARRIER_A, "UPDATE ");
    world.send(CARRIER_A, CORE, &update.reply("481 No", "", ""));
    world.expect(PBX, "SIP/2.0 481");
    world.expect(PBX, "BYE ");
    world.expect(CARRIER_A, "BYE ");
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn a_callee_that_has_not_answered_is_told_to_wait() {
    let mut world = World::new();
    let caller = Caller::dial(&mut world, "+12125551234");
    let mut callee = Callee::take(&mut world, CARRIER_A);
    callee.reply(&mut world, "183 Session Progress", &sdp_part("127.0.2.1", 50_000));
    callee.request(&mut world, "UPDATE", &offer("127.0.2.1", 50_000, 2, "sendrecv"));
    world.expect(CARRIER_A, "SIP/2.0 491");
    caller.cancel(&mut world);
    world.forget_inbox();
    world.all_gone();
}

/// A request in a dialog, from where nothing can be sent to, is counted.
#[test]
fn a_request_from_nowhere_is_counted() {
    let mut world = World::new();
    let (caller, _) = connected(&mut world);
    let info = format!(
        "INFO {} SIP/2.0\nVia: SIP/2.0/UDP {PBX};branch=z9hG4bKnowhere\nMax-Forwards: 70\n\
         From: \"Ann\" <sip:+13135550100@127.0.1.1>;tag=caller\nTo: {}\nCall-ID: {}\nCSeq: 9 INFO\n",
        caller.remote, caller.to, caller.call_id
    );
    world.send("127.0.1.1:0", ACCESS, &info);
    world.quiet();
    assert_eq!(world.engine.counters().drops(DropReason::BadReplyAddress), 1);
}
