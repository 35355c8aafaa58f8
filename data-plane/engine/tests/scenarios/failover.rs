//! Trunk order, failover, the cause table, late answers.

use ravelin_engine::{limits::Limits, port::ListenerId};

use crate::common::*;

#[test]
fn a_trunk_in_trouble_is_left_for_the_next_one() {
    for status in ["503 Service Unavailable", "500 Error", "408 Timeout", "407 Auth", "302 Moved"] {
        let mut world = World::new();
        let mut caller = Caller::dial(&mut world, "+12125551234");
        world.expect(PBX, "SIP/2.0 100");
        let first = Callee::take(&mut world, CARRIER_A);
        first.reply(&mut world, status, "");
        world.expect(CARRIER_A, "ACK ");
        let second = Callee::take(&mut world, CARRIER_B);
        // Each attempt is a dialog of its own.
        assert_ne!(first.invite.header("Call-ID"), second.invite.header("Call-ID"));
        assert_ne!(first.invite.header("From"), second.invite.header("From"));
        assert_eq!(second.invite.request_uri(), "sip:+12125551234@127.0.3.1:5060");
        second.answer(&mut world);
        world.expect(CARRIER_B, "ACK ");
        let ok = world.expect(PBX, "SIP/2.0 200");
        caller.learn(&ok);
        caller.ack(&mut world, "");
        world.quiet();
        caller.request(&mut world, "BYE", "");
        world.expect(PBX, "SIP/2.0 200");
        let bye = world.expect(CARRIER_B, "BYE ");
        world.send(CARRIER_B, CORE, &bye.reply("200 OK", "", ""));
        let attempts = world.attempt_cdrs();
        assert_eq!(attempts.len(), 2);
        assert_eq!(attempts[0].status.to_string(), status[..3]);
        assert_eq!(attempts[1].status, 200);
        assert_eq!(world.call_cdr().outbound_trunk.as_deref(), Some("carrier-b"));
        world.all_gone();
    }
}

#[test]
fn a_final_refusal_is_passed_on_and_nothing_else_is_tried() {
    for status in ["486 Busy Here", "600 Busy Everywhere", "603 Decline", "404 Not Found", "480 x"]
    {
        let mut world = World::new();
        let caller = Caller::dial(&mut world, "+12125551234");
        world.expect(PBX, "SIP/2.0 100");
        let callee = Callee::take(&mut world, CARRIER_A);
        callee.reply(&mut world, status, "Reason: Q.850;cause=17\n");
        world.expect(CARRIER_A, "ACK ");
        let refused = world.expect(PBX, &format!("SIP/2.0 {status}"));
        assert_eq!(refused.headers("Reason"), ["Q.850;cause=17"]);
        caller.ack_refusal(&mut world, &refused);
        world.quiet();
        assert_eq!(world.call_cdr().cause, 3);
        world.all_gone();
    }
}

#[test]
fn the_last_refusal_is_told_and_a_challenge_is_not() {
    for (status, told) in [("503 x", "503"), ("407 x", "403"), ("302 x", "480"), ("504 x", "504")] {
        let mut world = World::new();
        Caller::dial(&mut world, "+12125551234");
        world.expect(PBX, "SIP/2.0 100");
        for at in [CARRIER_A, CARRIER_B] {
            let callee = Callee::take(&mut world, at);
            let challenge = "Proxy-Authenticate: Digest realm=\"c\", nonce=\"n\"\n";
            callee.reply(&mut world, status, challenge);
            world.expect(at, "ACK ");
        }
        let refused = world.expect(PBX, &format!("SIP/2.0 {told}"));
        assert_eq!(refused.try_header("Proxy-Authenticate"), None);
        world.forget_inbox();
        world.all_gone();
    }
}

#[test]
fn after_ringing_no_other_trunk_is_tried() {
    let mut world = World::new();
    Caller::dial(&mut world, "+12125551234");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.reply(&mut world, "180 Ringing", "");
    callee.reply(&mut world, "503 Gone", "");
    world.expect(PBX, "SIP/2.0 100");
    world.expect(PBX, "SIP/2.0 180");
    world.expect(PBX, "SIP/2.0 503");
    assert!(world.try_take(CARRIER_B).is_none());
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn a_silent_trunk_is_left_and_its_late_answer_still_counts() {
    let mut world = World::new();
    let mut caller = Caller::dial(&mut world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    let first = Callee::take(&mut world, CARRIER_A);
    world.pass(4_100);
    while world.try_take(CARRIER_A).is_some() {}
    let second = Callee::take(&mut world, CARRIER_B);
    second.reply(&mut world, "100 Trying", "");
    // Too late, but nobody else has answered: it wins (EM-53 for all calls).
    first.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    let cancel = world.expect(CARRIER_B, "CANCEL ");
    assert!(cancel.header("Reason").starts_with("SIP;cause=200"));
    world.send(CARRIER_B, CORE, &cancel.reply("200 OK", "x", ""));
    second.reply(&mut world, "487 Request Terminated", "");
    world.expect(CARRIER_B, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    world.quiet();
    caller.request(&mut world, "BYE", "");
    let bye = world.expect(CARRIER_A, "BYE ");
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    assert_eq!(world.call_cdr().outbound_trunk.as_deref(), Some("carrier-a"));
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn an_answer_after_another_one_is_hung_up() {
    let mut world = World::new();
    let mut caller = Caller::dial(&mut world, "+12125551234");
    let first = Callee::take(&mut world, CARRIER_A);
    world.pass(4_100);
    let second = Callee::take(&mut world, CARRIER_B);
    second.answer(&mut world);
    world.forget_inbox();
    first.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    let bye = world.expect(CARRIER_A, "BYE ");
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    world.quiet();
    caller.to = "<sip:x@y>".to_owned();
    assert_eq!(world.engine.tables().permits, 3, "node, caller's trunk, carrier-b");
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn the_last_silent_trunk_has_until_timer_b() {
    let mut world = World::new();
    Caller::dial(&mut world, "+12125551234");
    world.pass(30_000);
    assert_eq!(world.engine.tables().calls, 1);
    world.dead = vec![addr(CARRIER_A), addr(CARRIER_B)];
    world.forget_inbox();
    world.pass(7_000);
    let refused = world.expect(PBX, "SIP/2.0 408");
    assert_eq!(refused.header("Reason"), "ravelin;cause=401;text=\"Far side did not answer\"");
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn an_unreachable_trunk_is_left_at_once() {
    let mut world = World::new();
    Caller::dial(&mut world, "+12125551234");
    world.expect(CARRIER_A, "INVITE ");
    let mut out = ravelin_engine::port::TxQueue::default();
    world.engine.unreachable(world.now, ListenerId(CORE), addr(CARRIER_A), &mut out);
    assert!(out.iter().any(|tx| tx.bytes.starts_with(b"INVITE sip:+12125551234@127.0.3.1")));
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn a_trunk_at_its_limit_is_passed_over() {
    let config = CONFIG.replace(
        "sources: [127.0.2.0/24]\n",
        "sources: [127.0.2.0/24]\n    limits: { calls: 1 }\n",
    );
    let mut world = World::with(&config, Limits::default());
    Caller::dial(&mut world, "+12125551234");
    world.expect(CARRIER_A, "INVITE ");
    Caller::dial(&mut world, "+12125551235");
    world.expect(CARRIER_B, "INVITE ");
    let (calls, _) = world
        .engine
        .trunks()
        .iter()
        .fold((0, 0), |(calls, n), trunk| (calls + trunk.refused_total, n));
    assert_eq!(calls, 1);
    world.forget_inbox();
    world.all_gone();
}

/// Carriers and the first PSAP over TCP.
fn over_tcp() -> World {
    let mut config = CONFIG.to_owned();
    for at in [CARRIER_A, CARRIER_B, PSAP_1] {
        let target = format!("{{ uri: \"sip:{at}\" }}");
        assert!(config.contains(&target));
        config = config.replace(&target, &format!("{{ uri: \"sip:{at}\", transport: tcp }}"));
    }
    World::with(&config, Limits::default())
}

/// RFC 3261 17.1.4, 8.1.3.1: no timer has to run out first.
#[test]
fn a_connection_that_ends_or_is_refused_leads_to_the_next_trunk_at_once() {
    for how in ["refused", "closed before an answer", "closed after 100"] {
        let mut world = over_tcp();
        if how == "refused" {
            world.refusing.push(addr(CARRIER_A));
        }
        Caller::dial(&mut world, "+12125551234");
        if how != "refused" {
            let first = Callee::take(&mut world, CARRIER_A);
            if how == "closed after 100" {
                first.reply(&mut world, "100 Trying", "");
            }
            world.close(CARRIER_A);
        }
        let second = Callee::take(&mut world, CARRIER_B);
        second.reply(&mut world, "486 Busy Here", "");
        let attempts = world.attempt_cdrs();
        assert_eq!(attempts[0].cause, 402, "{how}");
        assert_eq!(attempts[0].end_ms, 0, "{how}");
        world.forget_inbox();
        world.dead = vec![addr(PBX)];
        world.all_gone();
    }
}

#[test]
fn an_emergency_call_leaves_a_dead_connection_at_once() {
    for refused in [true, false] {
        let mut world = over_tcp();
        if refused {
            world.refusing.push(addr(PSAP_1));
        }
        Caller::dial(&mut world, "911");
        if !refused {
            Callee::take(&mut world, PSAP_1);
            world.close(PSAP_1);
        }
        world.expect(PSAP_2, "INVITE ");
        assert!(world.event_kinds().contains(&"emergency.trunk_failed"));
        world.forget_inbox();
        world.dead = vec![addr(PBX), addr(PSAP_2), addr(PSAP_GLOBAL)];
        // The chain is tried for a minute (EM-54).
        world.pass(62_000);
        world.all_gone();
    }
}

/// RFC 3261 18.2.2: who rings answers through a new connection.
#[test]
fn a_call_that_rings_outlives_its_connection() {
    let mut world = over_tcp();
    let mut caller = Caller::dial(&mut world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    callee.reply(&mut world, "180 Ringing", "");
    world.expect(PBX, "SIP/2.0 180");
    world.close(CARRIER_A);
    world.quiet();
    callee.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    // A request inside the call that is lost with its connection is answered at once.
    caller.request(&mut world, "INFO", "");
    world.expect(CARRIER_A, "INFO ");
    world.close(CARRIER_A);
    world.expect(PBX, "SIP/2.0 503");
    caller.request(&mut world, "BYE", "");
    world.expect(PBX, "SIP/2.0 200");
    world.expect(CARRIER_A, "BYE ");
    world.close(CARRIER_A);
    assert_eq!(world.engine.tables().calls, 0, "nobody is waited for");
    world.all_gone();
}

/// Many requests share a connection; each hears of its end once, those that were answered not.
#[test]
fn a_shared_connection_takes_only_what_waits_with_it() {
    let mut world = over_tcp();
    let mut callees = Vec::new();
    for n in 0..5 {
        Caller::dial(&mut world, &format!("+1212555000{n}"));
        callees.push(Callee::take(&mut world, CARRIER_A));
    }
    for place in [1, 3] {
        callees[place].reply(&mut world, "180 Ringing", "");
    }
    callees[2].reply(&mut world, "486 Busy Here", "");
    world.forget_inbox();
    world.close(CARRIER_A);
    for _ in 0..2 {
        world.expect(CARRIER_B, "INVITE ");
    }
    world.quiet();
    world.dead = vec![addr(PBX), addr(CARRIER_A), addr(CARRIER_B)];
    // Those that ring have until timer C.
    world.pass(190_000);
    world.all_gone();
}

/// When all trunks are down by their probes, they are tried in order all the same: a wrong verdict
/// would cost every call. The caller waits no longer for that than for any other way.
#[test]
fn with_every_trunk_down_the_call_is_tried_all_the_same() {
    let mut world = World::new();
    for gauge in &loadout(CONFIG, 1, &world.registry).gauges {
        for target in gauge.targets() {
            target.failed(1);
        }
    }
    let caller = Caller::dial(&mut world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    Callee::take(&mut world, CARRIER_A);
    world.pass(4_100);
    let second = Callee::take(&mut world, CARRIER_B);
    second.reply(&mut world, "503 Service Unavailable", "");
    world.expect(CARRIER_B, "ACK ");
    let refused = world.expect(PBX, "SIP/2.0 503");
    caller.ack_refusal(&mut world, &refused);
    world.forget_inbox();
    world.all_gone();
}
