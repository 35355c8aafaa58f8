//! The plain life of a call, and what each side sees of the other.

use crate::common::*;
use ravelin_contract::cdr::Party;

#[test]
fn a_call_is_set_up_carries_media_and_ends() {
    let mut world = World::new();
    let mut caller = Caller::dial(&mut world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100 Trying");
    let callee = Callee::take(&mut world, CARRIER_A);
    assert_eq!(callee.invite.request_uri(), "sip:+12125551234@127.0.2.1:5060");
    let callee_port = callee.invite.media_port(0);
    assert!((30_000..=30_063).contains(&callee_port) && callee_port.is_multiple_of(2));
    callee.reply(&mut world, "180 Ringing", "");
    let ringing = world.expect(PBX, "SIP/2.0 180 Ringing");
    assert_eq!(ringing.header("Call-ID"), caller.call_id);
    callee.answer(&mut world);
    let ack = world.expect(CARRIER_A, "ACK sip:callee@127.0.2.1:5060 ");
    assert_eq!(ack.cseq(), 1);
    let ok = world.expect(PBX, "SIP/2.0 200 OK");
    assert_eq!(ok.to_tag(), ringing.to_tag());
    let caller_port = ok.media_port(0);
    assert!((20_000..=20_063).contains(&caller_port));
    caller.learn(&ok);
    caller.ack(&mut world, "");
    world.quiet();

    let rtp = [0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0x55, 0x55];
    world.send_media("127.0.1.1:40000", addr(&format!("127.0.0.10:{caller_port}")), &rtp);
    world.send_media("127.0.2.1:50000", addr(&format!("127.0.0.20:{callee_port}")), &rtp);
    let to: Vec<_> = world.media.iter().map(|(to, _)| to.to_string()).collect();
    assert_eq!(to, ["127.0.2.1:50000", "127.0.1.1:40000"]);

    world.pass(10_000);
    world.quiet();
    caller.request(&mut world, "BYE", "Reason: Q.850;cause=16\n");
    world.expect(PBX, "SIP/2.0 200 OK");
    let bye = world.expect(CARRIER_A, "BYE sip:callee@127.0.2.1:5060 ");
    assert_eq!(bye.header("Reason"), "Q.850;cause=16");
    assert_eq!(bye.cseq(), 2);
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    world.quiet();
    let cdr = world.call_cdr();
    assert_eq!((cdr.status, cdr.ended_by, cdr.cause), (200, Party::Caller, 1));
    assert_eq!(cdr.duration_ms, 10_000);
    assert_eq!(cdr.outbound_trunk.as_deref(), Some("carrier-a"));
    assert_eq!(cdr.media_caller.unwrap().packets, 1);
    assert_eq!(cdr.media_callee.unwrap().bytes, 14);
    assert_eq!(world.attempt_cdrs().len(), 1);
    assert_eq!(world.engine.tables().calls, 0);
    world.all_gone();
}

#[test]
fn nothing_of_one_side_is_seen_on_the_other() {
    let mut world = World::new();
    let more = format!(
        "User-Agent: secret-pbx\nRecord-Route: <sip:127.0.1.7;lr>\n\
         P-Asserted-Identity: <sip:+13135550100@127.0.1.1>, <tel:+13135550100>\n\
         Contact-Extra: x\n{}",
        sdp_part("127.0.1.1", 40_000)
    );
    let mut caller =
        Caller::invite(&mut world, PBX, ACCESS, "sip:+12125551234@127.0.0.10:5060", &more);
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    let text = &callee.invite.0;
    for secret in ["127.0.1.", "127.0.0.10", "secret", caller.call_id.as_str(), "tag=caller"] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
    assert_eq!(
        callee.invite.header("P-Asserted-Identity"),
        "<sip:+13135550100@127.0.0.20>, <tel:+13135550100>"
    );
    assert!(callee.invite.header("From").starts_with("\"Ann\" <sip:+13135550100@127.0.0.20>;tag="));
    assert_eq!(callee.invite.header("To"), "<sip:+12125551234@127.0.2.1>");
    assert!(callee.invite.body().contains("c=IN IP4 127.0.0.20\r\n"));
    callee.reply(
        &mut world,
        "200 OK",
        &format!(
            "Server: secret-carrier\nRecord-Route: <sip:127.0.2.7;lr>\n\
             Warning: 399 127.0.2.1 \"odd\"\n{}",
            sdp_part("127.0.2.1", 50_000)
        ),
    );
    // The route set of the callee's side is ours alone.
    let ack = world.expect("127.0.2.7:5060", "ACK sip:callee@127.0.2.1:5060 ");
    assert_eq!(ack.headers("Route"), ["<sip:127.0.2.7;lr>"]);
    let ok = world.expect(PBX, "SIP/2.0 200");
    let callee_call_id = callee.invite.header("Call-ID");
    for secret in ["127.0.2.", "127.0.0.20", "secret", callee_call_id, callee.tag.as_str()] {
        assert!(!ok.0.contains(secret), "{secret} in\n{}", ok.0);
    }
    assert_eq!(ok.headers("Record-Route"), ["<sip:127.0.1.7;lr>"]);
    assert_eq!(ok.header("Warning"), "399 ravelin \"odd\"");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    caller.request(&mut world, "BYE", "");
    let bye = world.expect("127.0.2.7:5060", "BYE ");
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    world.expect(PBX, "SIP/2.0 200");
    world.all_gone();
}

#[test]
fn what_must_pass_reaches_the_callee_unchanged() {
    let mut world = World::new();
    let headers = [
        "Privacy: id",
        "Diversion: <sip:+13135550199@example.com>;reason=unconditional",
        "History-Info: <sip:+13135550199@example.com>;index=1",
        "Reason: SIP;cause=302",
        "Identity: aa.bb.cc;info=<https://c.example/a.pem>;alg=ES256;ppt=shaken",
        "Identity: dd.ee.ff;info=<https://c.example/b.pem>;alg=ES256;ppt=div",
        "Geolocation: <cid:loc@127.0.1.1>",
        "Geolocation-Routing: no",
        "Call-Info: <https://x.example/p>;purpose=info",
        "X-Account: 17",
        "Subject: hello, world",
    ];
    let sdp_text = sdp("127.0.1.1", 40_000);
    let pidf = "<?xml version=\"1.0\"?>\n<presence entity=\"pres:a@127.0.1.1\"/>";
    let body = format!(
        "--edge\nContent-Type: application/sdp\n\n{sdp_text}\n--edge\n\
         Content-Type: application/pidf+xml\nContent-ID: <loc@127.0.1.1>\n\n{pidf}\n--edge--\n"
    );
    let more =
        format!("{}\nContent-Type: multipart/mixed;boundary=edge\n\n{body}", headers.join("\n"));
    let caller = Caller::invite(&mut world, PBX, ACCESS, "sip:+12125551234@127.0.0.10", &more);
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    let got: Vec<&str> = callee
        .invite
        .0
        .split("\r\n")
        .filter(|line| headers.iter().any(|header| header == line))
        .collect();
    assert_eq!(got, headers);
    let sent = body.replace('\n', "\r\n");
    let (_, sent_after) = sent.split_once("a=sendrecv\r\n").unwrap();
    let (before, got_after) = callee.invite.body().split_once("a=sendrecv\r\n").unwrap();
    assert_eq!(got_after, sent_after);
    assert!(before.starts_with("--edge\r\nContent-Type: application/sdp\r\n\r\nv=0\r\no=- "));
    assert!(!before.contains("127.0.1.1"));
    caller.cancel(&mut world);
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn several_provisionals_and_early_media_pass() {
    let mut world = World::new();
    let mut caller = Caller::dial(&mut world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.reply(&mut world, "100 Trying", "");
    world.quiet();
    callee.reply(&mut world, "180 Ringing", "");
    world.expect(PBX, "SIP/2.0 180");
    callee.reply(&mut world, "183 Session Progress", &sdp_part("127.0.2.1", 50_000));
    let early = world.expect(PBX, "SIP/2.0 183");
    let port = callee.invite.media_port(0);
    let rtp = [0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0x55];
    world.send_media("127.0.2.1:50000", addr(&format!("127.0.0.20:{port}")), &rtp);
    assert_eq!(world.media.len(), 1, "early media reaches the caller");
    callee.reply(&mut world, "181 Call Is Being Forwarded", "");
    world.expect(PBX, "SIP/2.0 181");
    callee.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    // The same description keeps its version; all responses are of one dialog.
    assert_eq!(ok.body(), early.body());
    assert_eq!(ok.to_tag(), early.to_tag());
    caller.learn(&ok);
    caller.ack(&mut world, "");
    caller.request(&mut world, "BYE", "");
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn a_late_offer_is_answered_in_the_ack() {
    let mut world = World::new();
    let mut caller = Caller::invite(&mut world, PBX, ACCESS, "sip:+12125551234@127.0.0.10", "");
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    assert_eq!(callee.invite.body(), "");
    callee.answer(&mut world);
    let ok = world.expect(PBX, "SIP/2.0 200");
    assert!(ok.body().contains("c=IN IP4 127.0.0.10"));
    world.quiet();
    // Its 200 again: the answer is not there yet, so neither is the ACK.
    callee.answer(&mut world);
    world.quiet();
    caller.learn(&ok);
    caller.ack(&mut world, &sdp_part("127.0.1.1", 40_000));
    let ack = world.expect(CARRIER_A, "ACK ");
    assert!(ack.body().contains("c=IN IP4 127.0.0.20"));
    assert_eq!(ack.header("Content-Type"), "application/sdp");
    // And again: the ACK comes again, with the answer.
    callee.answer(&mut world);
    assert_eq!(world.expect(CARRIER_A, "ACK ").body(), ack.body());
    let port = ok.media_port(0);
    let rtp = [0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0x55];
    world.send_media("127.0.1.1:40000", addr(&format!("127.0.0.10:{port}")), &rtp);
    assert_eq!(world.media.len(), 1);
    caller.request(&mut world, "BYE", "");
    world.expect(PBX, "SIP/2.0 200");
    let bye = world.expect(CARRIER_A, "BYE ");
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    world.all_gone();
}

#[test]
fn a_2xx_is_repeated_until_its_ack_and_a_lost_ack_is_repeated() {
    let mut world = World::new();
    let mut caller = Caller::dial(&mut world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    world.pass(500);
    assert_eq!(world.expect(PBX, "SIP/2.0 200").0, ok.0);
    world.pass(1_000);
    world.expect(PBX, "SIP/2.0 200");
    callee.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    world.pass(20_000);
    world.quiet();
    caller.request(&mut world, "BYE", "");
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn an_answer_that_nobody_acknowledges_is_hung_up_on_both_sides() {
    let mut world = World::new();
    Caller::dial(&mut world, "+12125551234");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    world.pass(31_900);
    while world.try_take(PBX).is_some() {}
    world.quiet();
    world.pass(200);
    let bye = world.expect(PBX, "BYE ");
    assert_eq!(bye.header("Reason"), "ravelin;cause=404;text=\"Answer was never acknowledged\"");
    let bye_b = world.expect(CARRIER_A, "BYE ");
    world.send(CARRIER_A, CORE, &bye_b.reply("200 OK", "", ""));
    world.send(PBX, ACCESS, &bye.reply("481 No", "", ""));
    assert_eq!(world.call_cdr().cause, 404);
    world.all_gone();
}

#[test]
fn an_inbound_call_goes_to_the_customer() {
    let mut world = World::new();
    let more = sdp_part("127.0.2.1", 50_000);
    let mut caller =
        Caller::invite(&mut world, CARRIER_A, CORE, "sip:+13135550100@127.0.0.20", &more);
    world.expect(CARRIER_A, "SIP/2.0 100");
    let invite = world.expect(PBX, "INVITE sip:+13135550100@127.0.1.1:5060 ");
    let body = sdp_part("127.0.1.1", 40_000);
    let contact = "Contact: <sip:pbx@127.0.1.1:5060>\n";
    world.send(PBX, ACCESS, &invite.reply("200 OK", "pbx", &format!("{contact}{body}")));
    world.expect(PBX, "ACK ");
    let ok = world.expect(CARRIER_A, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    caller.request(&mut world, "BYE", "");
    world.expect(CARRIER_A, "SIP/2.0 200");
    let bye = world.expect(PBX, "BYE sip:pbx@127.0.1.1:5060 ");
    world.send(PBX, ACCESS, &bye.reply("200 OK", "", ""));
    assert_eq!(world.call_cdr().route.as_deref(), Some("inbound"));
    world.all_gone();
}

/// RFC 3261 8.1.1.8 demands a Contact. A caller without one is reached where it called from; a
/// request with nothing in place of its URI would be worse.
#[test]
fn a_caller_without_contact_is_reached_where_it_called_from() {
    let mut world = World::new();
    let body = sdp("127.0.1.1", 40_000);
    let invite = format!(
        "INVITE sip:+12125551234@127.0.0.10 SIP/2.0\nVia: SIP/2.0/UDP {PBX};branch=z9hG4bK-nc\n\
         Max-Forwards: 70\nFrom: <sip:a@127.0.1.1>;tag=1\nTo: <sip:b@127.0.0.10>\nCall-ID: nc\n\
         CSeq: 1 INVITE\nContent-Type: application/sdp\n\n{body}"
    );
    world.send(PBX, ACCESS, &invite);
    world.expect(PBX, "SIP/2.0 100");
    let mut callee = Callee::take(&mut world, CARRIER_A);
    callee.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    let ack = format!(
        "ACK {} SIP/2.0\nVia: SIP/2.0/UDP {PBX};branch=z9hG4bK-nca\nMax-Forwards: 70\n\
         From: <sip:a@127.0.1.1>;tag=1\nTo: {}\nCall-ID: nc\nCSeq: 1 ACK\n",
        ok.contact_uri(),
        ok.header("To")
    );
    world.send(PBX, ACCESS, &ack);
    callee.request(&mut world, "BYE", "");
    world.expect(CARRIER_A, "SIP/2.0 200");
    let bye = world.expect(PBX, "BYE sip:127.0.1.1:5060 SIP/2.0");
    world.send(PBX, ACCESS, &bye.reply("200 OK", "", ""));
    world.all_gone();
}
