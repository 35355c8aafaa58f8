//! Limits, permits, drain, config versions: nothing grows, nothing is left.

use std::sync::Arc;

use ravelin_engine::{cause::Cause, limits::Limits};

use crate::common::*;

#[test]
fn a_customer_at_its_limit_gets_503_and_gets_through_when_a_call_ends() {
    let mut world = World::new();
    let first = Caller::dial(&mut world, "+12125550000");
    for n in 1..5 {
        Caller::dial(&mut world, &format!("+1212555000{n}"));
    }
    world.forget_inbox();
    Caller::dial(&mut world, "+12125550009");
    let refused = world.expect(PBX, "SIP/2.0 503");
    assert_eq!(refused.header("Reason"), Cause::TrunkCalls.reason_header());
    assert_eq!(refused.header("Retry-After"), "5");
    assert_eq!(world.engine.counters().refusals(Cause::TrunkCalls), 1);
    first.cancel(&mut world);
    world.forget_inbox();
    Caller::dial(&mut world, "+12125550010");
    world.expect(PBX, "SIP/2.0 100");
    world.forget_inbox();
    world.dead = vec![addr(PBX), addr(CARRIER_A), addr(CARRIER_B)];
    world.all_gone();
}

#[test]
fn calls_per_second_are_limited() {
    let config = CONFIG.replace("calls: 5, cps: 100", "cps: 2");
    let mut world = World::with(&config, Limits::default());
    for _ in 0..2 {
        Caller::dial(&mut world, "+12125550000");
        world.expect(PBX, "SIP/2.0 100");
    }
    Caller::dial(&mut world, "+12125550000");
    assert_eq!(world.take(PBX).header("Reason"), Cause::TrunkCps.reason_header());
    world.pass(1_001);
    while world.try_take(PBX).is_some() {}
    Caller::dial(&mut world, "+12125550000");
    world.expect(PBX, "SIP/2.0 100");
    world.dead = vec![addr(PBX), addr(CARRIER_A), addr(CARRIER_B)];
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn full_tables_and_exhausted_ports_are_answered() {
    let limits = Limits { calls: 1, calls_emergency_reserve: 0, ..Limits::default() };
    let mut world = World::with(CONFIG, limits);
    Caller::dial(&mut world, "+12125550000");
    world.forget_inbox();
    Caller::dial(&mut world, "+12125550001");
    let refused = world.expect(PBX, "SIP/2.0 503");
    assert_eq!(refused.header("Reason"), Cause::CallsFull.reason_header());
    world.forget_inbox();
    world.all_gone();

    let config = CONFIG.replace("ports: 30000-30063", "ports: 30000-30001");
    let limits = Limits { media_reserve_percent: 0, ..Limits::default() };
    let mut world = World::with(&config, limits);
    Caller::dial(&mut world, "+12125550000");
    world.expect(CARRIER_A, "INVITE ");
    world.forget_inbox();
    Caller::dial(&mut world, "+12125550001");
    world.expect(PBX, "SIP/2.0 100");
    let refused = world.expect(PBX, "SIP/2.0 503");
    assert_eq!(refused.header("Reason"), Cause::MediaPortsFull.reason_header());
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn draining_refuses_new_calls_and_keeps_the_old() {
    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    world.engine.begin_drain();
    Caller::dial(&mut world, "+12125550001");
    let refused = world.expect(PBX, "SIP/2.0 503");
    assert_eq!(refused.header("Reason"), Cause::Draining.reason_header());
    caller.request(&mut world, "INFO", "");
    world.expect(CARRIER_A, "INFO ");
    caller.request(&mut world, "BYE", "");
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn a_call_keeps_the_config_version_that_it_began_with() {
    let mut world = World::new();
    let old = Caller::dial(&mut world, "+12125551234");
    let callee = Callee::take(&mut world, CARRIER_A);
    let config = CONFIG.replace("trunks: [carrier-a, carrier-b]", "trunks: [carrier-b]");
    let next = loadout(&config, 2, &world.registry);
    let mut out = ravelin_engine::port::TxQueue::default();
    let before = world.engine.install(world.now, Arc::new(next), &mut out);
    assert_eq!(before.snapshot.version, 1);
    // The old call fails over by its own version; a new one goes by the new version.
    callee.reply(&mut world, "503 x", "");
    world.expect(CARRIER_A, "ACK ");
    world.expect(CARRIER_B, "INVITE ");
    let new = Caller::dial(&mut world, "+12125551235");
    world.expect(CARRIER_B, "INVITE sip:+12125551235@");
    let versions: Vec<u64> =
        world.engine.calls(world.now, 9).iter().map(|call| call.snapshot).collect();
    assert_eq!(versions, [1, 2]);
    old.cancel(&mut world);
    new.cancel(&mut world);
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn views_and_ladder_show_a_call() {
    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    world.pass(2_000);
    let calls = world.engine.calls(world.now, 10);
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].from, "sip:+13135550100@127.0.1.1");
    assert_eq!(calls[0].inbound_trunk.as_deref(), Some("pbx"));
    assert_eq!(calls[0].age_ms, 2_000);
    let ladder = world.engine.ladder(&calls[0].id).unwrap();
    let steps: Vec<String> = ladder
        .steps
        .iter()
        .map(|step| {
            format!("{}{} {}", if step.inbound { "<" } else { ">" }, step.peer, step.summary)
        })
        .collect();
    assert_eq!(
        steps,
        [
            "<caller INVITE",
            ">caller 100 (INVITE)",
            ">carrier-a INVITE",
            "<carrier-a 180 (INVITE)",
            ">caller 180 (INVITE)",
            "<carrier-a 200 (INVITE)",
            ">carrier-a ACK",
            ">caller 200 (INVITE)",
            "<caller ACK",
        ]
    );
    assert_eq!(world.engine.ladder("0123"), None);
    let trunks = world.engine.trunks();
    assert_eq!((trunks[0].id.as_str(), trunks[0].calls), ("pbx", 1));
    caller.request(&mut world, "BYE", "");
    world.forget_inbox();
    world.all_gone();
    assert_eq!(world.engine.trunks()[0].calls, 0);
}

#[test]
fn the_longest_duration_ends_a_call_whose_parties_are_gone() {
    let limits = Limits { call_duration: std::time::Duration::from_secs(60), ..Limits::default() };
    let mut world = World::with(CONFIG, limits);
    connected(&mut world);
    world.dead = vec![addr(PBX), addr(CARRIER_A)];
    world.pass(61_000);
    assert_eq!(world.call_cdr().cause, 406);
    world.all_gone();
}

/// lessons.md 1.14: whatever becomes of the calls, the counts return.
#[test]
fn permits_return_however_a_call_ends() {
    let mut world = World::new();
    for n in 0..40 {
        let caller = Caller::dial(&mut world, "+12125551234");
        let callee = Callee::take(&mut world, CARRIER_A);
        match n % 5 {
            0 => callee.reply(&mut world, "486 Busy", ""),
            1 => caller.cancel(&mut world),
            2 => {
                callee.answer(&mut world);
                world.pass(40_000);
            }
            3 => world.pass(80_000),
            _ => {
                callee.reply(&mut world, "180 Ringing", "");
                world.pass(200_000);
            }
        }
        world.forget_inbox();
        world.pass(75_000);
        world.forget_inbox();
        assert_eq!(world.engine.tables().left_over(), [], "round {n}");
    }
    assert!(world.engine.trunks().iter().all(|trunk| trunk.calls == 0));
}

/// `edge.limits.capture_bytes`: the first messages of a call, octet for octet, and no more of them
/// than that; nothing of an emergency call (EM-41), nothing when the call is gone.
#[test]
fn messages_are_kept_where_the_config_says_so_and_as_long_as_their_call() {
    let config =
        CONFIG.replace("  cores: [0]\n", "  cores: [0]\n  limits: { capture_bytes: 3KiB }\n");
    let held = |world: &World| {
        let mut samples = Vec::new();
        world.engine.samples(&mut samples);
        samples.iter().find(|sample| sample.name == "captured_bytes").map(|sample| sample.value)
    };
    let mut world = World::with(&config, Limits::default());
    let (mut caller, callee) = connected(&mut world);
    let ladder = world.engine.ladder(&caller.call_id).expect("found by the caller's Call-ID");
    let first = &ladder.packets[0];
    let octets: String = finish(&caller.invite).bytes().map(|o| format!("{o:02x}")).collect();
    assert_eq!((first.from, first.to), (addr(PBX), addr("127.0.0.10:5060")));
    assert_eq!(first.hex, octets);
    let (trying, onward) = (&ladder.packets[1], &ladder.packets[2]);
    assert_eq!((trying.from, trying.to), (first.to, first.from));
    assert_eq!((onward.from, onward.to), (addr("127.0.0.20:5060"), addr(CARRIER_A)));
    let kept: usize = ladder.packets.iter().map(|packet| packet.hex.len() / 2).sum();
    assert!(kept <= 3_072 && ladder.packets_omitted > 0, "{kept} {}", ladder.packets_omitted);
    assert_eq!(held(&world), Some(kept as f64));
    let other = world.engine.ladder(callee.invite.header("Call-ID")).expect("by the callee's");
    assert_eq!(other.call, ladder.call);

    let sos = Caller::dial(&mut world, "911");
    world.expect(PSAP_1, "INVITE ");
    assert!(world.engine.ladder(&sos.call_id).is_some_and(|ladder| ladder.packets.is_empty()));
    sos.cancel(&mut world);
    caller.request(&mut world, "BYE", "");
    world.forget_inbox();
    world.all_gone();
    assert_eq!(held(&world), Some(0.0));

    let mut world = World::new();
    let (caller, _) = connected(&mut world);
    let ladder = world.engine.ladder(&caller.call_id).expect("a ladder");
    assert!(ladder.packets.is_empty() && ladder.packets_omitted == 0);
}
