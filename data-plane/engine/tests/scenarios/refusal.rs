//! What Ravelin refuses itself, with which status, Reason, counter and record.

use ravelin_engine::{cause::Cause, drops::DropReason, engine::Received};

use crate::common::*;

/// Sends one request from the PBX and returns the first answer.
#[track_caller]
fn answer_to(world: &mut World, request: &str) -> Msg {
    world.send(PBX, ACCESS, request);
    world.take(PBX)
}

fn request(method: &str, uri: &str, more: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\nVia: SIP/2.0/UDP {PBX};branch=z9hG4bK-r-{method}\n\
         From: <sip:a@127.0.1.1>;tag=1\nTo: <{uri}>\nCall-ID: r-{method}\nCSeq: 1 {method}\n\
         Contact: <sip:a@{PBX}>\n{more}"
    )
}

#[track_caller]
fn refused(more: &str, uri: &str, status: &str, cause: Cause) -> Msg {
    let mut world = World::new();
    let answer = answer_to(&mut world, &request("INVITE", uri, more));
    let answer = if answer.start().starts_with("SIP/2.0 100") { world.take(PBX) } else { answer };
    assert!(answer.start().starts_with(&format!("SIP/2.0 {status}")), "{}", answer.0);
    assert_eq!(answer.header("Reason"), cause.reason_header());
    assert_eq!(world.engine.counters().refusals(cause), 1);
    assert_eq!(world.call_cdr().cause, cause.number());
    assert_eq!(world.call_cdr().status.to_string(), status);
    world.forget_inbox();
    world.all_gone();
    answer
}

#[test]
fn each_refusal_of_an_invite_has_its_status_reason_counter_and_record() {
    let sdp = sdp_part("127.0.1.1", 40_000);
    let uri = "sip:+12125551234@127.0.0.10";
    refused(&format!("Max-Forwards: 0\n{sdp}"), uri, "483", Cause::TooManyHops);
    let answer = refused(
        &format!("Require: 100rel, timer\nProxy-Require: foo\n{sdp}"),
        uri,
        "420",
        Cause::BadExtension,
    );
    assert_eq!(answer.header("Unsupported"), "100rel, foo");
    refused(&sdp, "http://example.com/x", "416", Cause::UriScheme);
    refused("Content-Type: application/sdp\n\nv=0\ns=broken\n", uri, "488", Cause::NotAcceptable);
    refused(
        "Content-Type: application/sdp\nContent-Encoding: gzip\n\nxx\n",
        uri,
        "415",
        Cause::MediaType,
    );
    let image = "Content-Type: application/sdp\n\nv=0\no=a 1 1 IN IP4 127.0.1.1\ns=-\n\
                 c=IN IP4 127.0.1.1\nt=0 0\nm=image 4000 tcp t38\n";
    refused(image, uri, "488", Cause::NotAcceptable);
    refused(&sdp, "urn:service:test.sos", "404", Cause::NoRoute);
    // 933 goes to trunks that read the address back, and there is none (EM-19).
    refused(&sdp, "sip:933@127.0.0.10", "404", Cause::NoRoute);
}

#[test]
fn a_number_without_route_gets_404() {
    let config = CONFIG.replace("from: [pbx], to: \"*\"", "from: [pbx], to: \"+1212*\"");
    let mut world = World::with(&config, ravelin_engine::limits::Limits::default());
    Caller::dial(&mut world, "+13135550199");
    world.expect(PBX, "SIP/2.0 100");
    let answer = world.expect(PBX, "SIP/2.0 404");
    assert_eq!(answer.header("Reason"), Cause::NoRoute.reason_header());
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn a_refusal_is_repeated_until_it_is_acknowledged() {
    let mut world = World::new();
    let caller = Caller::invite(&mut world, PBX, ACCESS, "sip:933@127.0.0.10", "");
    world.expect(PBX, "SIP/2.0 100");
    let refused = world.expect(PBX, "SIP/2.0 404");
    world.pass(600);
    world.expect(PBX, "SIP/2.0 404");
    caller.ack_refusal(&mut world, &refused);
    world.pass(10_000);
    world.quiet();
    world.all_gone();
}

#[test]
fn a_stranger_is_not_answered() {
    let mut world = World::new();
    for method in ["INVITE", "OPTIONS", "REGISTER", "MESSAGE", "BYE", "CANCEL"] {
        let text = request(method, "sip:1@127.0.0.10", "");
        world.send("10.9.9.9:5060", ACCESS, &text);
        assert_eq!(world.last, Received::Dropped(DropReason::UnknownSource), "{method}");
        world.quiet();
    }
    world.send_raw("10.9.9.9:5060", ACCESS, b"OPTIONS sip:x SIP/2.0\r\nVia: broken\r\n\r\n");
    assert_eq!(world.last, Received::Dropped(DropReason::UnknownSource));
    assert_eq!(world.engine.counters().drops(DropReason::UnknownSource), 7);
    assert_eq!(world.engine.tables().left_over(), []);
}

#[test]
fn a_broken_request_of_a_peer_is_answered() {
    let mut world = World::new();
    let text = finish(&request("OPTIONS", "sip:1@127.0.0.10", "Max-Forwards: many\n"));
    world.send_raw(PBX, ACCESS, text.as_bytes());
    world.expect(PBX, "SIP/2.0 400 ");
    let text = finish(&request("OPTIONS", "sip:1@127.0.0.10", ""))
        .replace("SIP/2.0\r\nVia", "SIP/3.0\r\nVia");
    world.send_raw(PBX, ACCESS, text.as_bytes());
    world.expect(PBX, "SIP/2.0 505 ");
    world.send_raw(PBX, ACCESS, b"SIP/2.0 200 OK\r\nnonsense\r\n\r\n");
    assert_eq!(world.last, Received::Dropped(DropReason::MalformedResponse));
    world.send_raw(PBX, ACCESS, b"\r\n\r\n");
    assert_eq!(world.last, Received::Dropped(DropReason::KeepAlive));
    world.send_raw(PBX, ACCESS, &[0x80, 0, 1, 2]);
    assert_eq!(world.last, Received::Dropped(DropReason::UnknownProtocol));
    assert_eq!(world.engine.tables().left_over(), []);
}

#[test]
fn requests_outside_a_call() {
    let mut world = World::new();
    let uri = "sip:127.0.0.10";
    let options = answer_to(&mut world, &request("OPTIONS", uri, ""));
    assert!(options.start().starts_with("SIP/2.0 200"));
    assert!(options.header("Allow").contains("UPDATE"));
    assert_eq!(options.header("Accept"), "application/sdp, multipart/mixed");
    for (method, status) in [
        ("REGISTER", 405),
        ("SUBSCRIBE", 405),
        ("PUBLISH", 405),
        ("REFER", 405),
        ("NEWMETHOD", 501),
        ("BYE", 481),
        ("UPDATE", 481),
        ("INFO", 481),
    ] {
        let answer = answer_to(&mut world, &request(method, uri, ""));
        assert!(answer.start().starts_with(&format!("SIP/2.0 {status}")), "{}", answer.0);
        assert_eq!(answer.try_header("Allow").is_some(), status != 481, "{method}");
    }
    let text = request("INFO", uri, "").replace("To: <sip:127.0.0.10>", "To: <sip:x@y>;tag=gone");
    assert!(answer_to(&mut world, &text).start().starts_with("SIP/2.0 481"));
    world.send(PBX, ACCESS, &request("ACK", uri, ""));
    assert_eq!(world.last, Received::Dropped(DropReason::StrayAck));
    world.quiet();
    world.all_gone();
}

#[test]
fn the_same_invite_on_another_way_is_a_loop() {
    let mut world = World::new();
    let caller = Caller::dial(&mut world, "+12125551234");
    world.forget_inbox();
    let branch = format!("branch={}", caller.branch);
    let other = caller.invite.replace(&branch, "branch=z9hG4bK-elsewhere");
    world.send(PBX, ACCESS, &other);
    let answer = world.expect(PBX, "SIP/2.0 482");
    assert_eq!(answer.header("Reason"), Cause::Loop.reason_header());
    caller.cancel(&mut world);
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn a_retransmitted_invite_makes_one_call() {
    let mut world = World::new();
    let caller = Caller::dial(&mut world, "+12125551234");
    let trying = world.expect(PBX, "SIP/2.0 100");
    world.expect(CARRIER_A, "INVITE ");
    world.send(PBX, ACCESS, &caller.invite);
    assert_eq!(world.expect(PBX, "SIP/2.0 100").0, trying.0);
    world.quiet();
    assert_eq!(world.engine.tables().calls, 1);
    caller.cancel(&mut world);
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn a_message_outside_a_call_is_passed_on_and_answered() {
    let mut world = World::new();
    let text = request(
        "MESSAGE",
        "sip:+12125551234@127.0.0.10",
        "Content-Type: text/plain\nP-Asserted-Identity: <sip:a@127.0.1.1>\n\nhello\n",
    );
    world.send(PBX, ACCESS, &text);
    let message = world.expect(CARRIER_A, "MESSAGE sip:+12125551234@127.0.2.1:5060 ");
    assert_eq!(message.body(), "hello\r\n");
    assert!(!message.0.contains("127.0.1.1") && !message.0.contains("127.0.0.10"), "{}", message.0);
    world.send(CARRIER_A, CORE, &message.reply("202 Accepted", "c", "Server: x\n"));
    let answer = world.expect(PBX, "SIP/2.0 202 Accepted");
    assert!(!answer.0.contains("127.0.2.1"));
    world.quiet();
    // Nobody answers.
    let text = text.replace("z9hG4bK-r", "z9hG4bK-s").replace("Call-ID: r", "Call-ID: s");
    world.send(PBX, ACCESS, &text);
    world.dead = vec![addr(CARRIER_A)];
    world.pass(32_100);
    let answer = world.expect(PBX, "SIP/2.0 408");
    assert!(answer.header("Reason").starts_with("ravelin;cause=401"));
    world.dead.clear();
    world.forget_inbox();
    world.all_gone();
}

/// `edge.limits.message_bytes`, over UDP and streams alike; 911 is not bound by it.
#[test]
fn a_message_beyond_the_operators_bound_gets_513_and_an_emergency_call_passes() {
    let config =
        CONFIG.replace("  cores: [0]\n", "  cores: [0]\n  limits: { message_bytes: 4KiB }\n");
    let sdp = sdp_part("127.0.1.1", 40_000);
    let padding = format!("X-Long: {}\n", "x".repeat(4_100));
    let uri = "sip:+12125551234@127.0.0.10";
    for stream in [false, true] {
        let mut world = World::with(&config, ravelin_engine::limits::Limits::default());
        let mut send = |message: &str| {
            if stream {
                world.send_stream(PBX, ACCESS_TCP, message);
            } else {
                world.send(PBX, ACCESS, message);
            }
            world.last
        };
        send(&request("INVITE", uri, &format!("{padding}{sdp}")));
        send(&request("OPTIONS", uri, &padding));
        let ack = send(&request("ACK", uri, &padding));
        assert_eq!(ack, Received::Dropped(DropReason::Oversized));
        for _ in 0..2 {
            let refused = world.expect(PBX, "SIP/2.0 513");
            assert_eq!(refused.header("Reason"), Cause::TooLarge.reason_header());
        }
        assert_eq!(world.engine.counters().refusals(Cause::TooLarge), 2);
        assert_eq!(world.call_cdr().cause, Cause::TooLarge.number());
        world.send("127.0.77.1:5060", ACCESS, &request("INFO", uri, &padding));
        assert_eq!(world.last, Received::Dropped(DropReason::UnknownSource));
        world.quiet();
        // Just within the bound.
        world.send(PBX, ACCESS, &request("OPTIONS", uri, &format!("X: {}\n", "x".repeat(3_600))));
        world.expect(PBX, "SIP/2.0 200");
        let ordinary = Caller::dial(&mut world, "+12125551234");
        Callee::take(&mut world, CARRIER_A).reply(&mut world, "180 Ringing", &padding);
        assert_eq!(world.last, Received::Dropped(DropReason::Oversized));
        ordinary.cancel(&mut world);
        world.forget_inbox();
        let body = format!("{padding}{sdp}");
        let mut caller = Caller::invite(&mut world, PBX, ACCESS, "sip:911@127.0.0.10", &body);
        let psap = Callee::take(&mut world, PSAP_1);
        psap.reply(&mut world, "200 OK", &format!("{padding}{}", sdp_part("127.0.9.1", 50_000)));
        world.expect(PBX, "SIP/2.0 100");
        let ok = world.expect(PBX, "SIP/2.0 200");
        caller.learn(&ok);
        caller.ack(&mut world, &padding);
        assert_eq!(world.last, Received::Taken);
        caller.request(&mut world, "BYE", &padding);
        world.expect(PBX, "SIP/2.0 200");
        world.dead = vec![addr(PBX), addr(PSAP_1), addr(PSAP_2), addr(PSAP_GLOBAL)];
        world.forget_inbox();
        world.pass(65_000);
        world.all_gone();
    }
}
