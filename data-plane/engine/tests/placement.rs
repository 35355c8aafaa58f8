//! Media ports are divided between shards and calls by their names: a range serves as many calls as it
//! has pairs all the same.

mod support;

use ravelin_engine::limits::{Limits, MEDIA_RESERVE_PAIRS};

use support::{ACCESS, CALLEE, CALLER, CONFIG, CORE, Caller, Got, PSAP, World, answer, sdp};

const PAIRS: usize = 30;
const FULL: &str = "No media port free";

fn config(pairs: usize) -> String {
    let config = CONFIG.replace("limits: { calls: 20 }", "limits: { calls: 1000 }");
    let config = config.replace("20399", &(20_000 + 2 * pairs - 1).to_string());
    config.replace("30399", &(30_000 + 2 * pairs - 1).to_string())
}

/// A call from INVITE to ACK; what the caller got for its INVITE.
fn establish(world: &mut World, caller: &Caller, callee: &str) -> Got {
    let invite = caller.invite();
    world.send(&caller.address, ACCESS, invite.as_bytes());
    // Its answer was lost: the INVITE comes again, and is still one call.
    world.send(&caller.address, ACCESS, invite.as_bytes());
    let got = world.expect(callee, "INVITE");
    let ok = answer(&got, 200, "b1", &sdp("127.0.2.1:7000", 1, ""));
    world.send(callee, CORE, ok.as_bytes());
    world.expect(callee, "ACK");
    let ok = loop {
        let got = world.take(&caller.address).expect("an answer");
        if got.summary() == "200 INVITE" {
            break got;
        }
        assert_eq!(got.summary(), "100 INVITE", "{}", got.text());
    };
    let ack = caller.request("ACK", caller.cseq, &ok);
    world.send(&caller.address, ACCESS, ack.as_bytes());
    assert!(world.take(callee).is_none(), "one INVITE, one ACK, no more");
    ok
}

/// One more is refused. On every shard: the next to try is another each time.
fn refused(world: &mut World, caller: &Caller) {
    world.send(&caller.address, ACCESS, caller.invite().as_bytes());
    let refusal = loop {
        let got = world.take(&caller.address).expect("an answer");
        if got.summary() != "100 INVITE" {
            break got;
        }
    };
    assert_eq!(refusal.summary(), "503 INVITE");
    assert!(refusal.text().contains(FULL), "{}", refusal.text());
    world.send(&caller.address, ACCESS, caller.ack_refusal(&refusal).as_bytes());
}

#[test]
fn every_pair_of_a_range_serves_a_call_whatever_shard_its_name_falls_to() {
    for (seed, shards) in [2, 3, 4, 7, 2, 3].into_iter().enumerate() {
        let limits = Limits { media_reserve_percent: 0, ..Limits::default() };
        let mut world = World::with(shards, &config(PAIRS), limits);
        let mut up = Vec::new();
        for number in 0..PAIRS {
            world.first_shard = number % usize::from(shards);
            let caller = Caller::new(&format!("s{seed}n{number}"));
            let ok = establish(&mut world, &caller, CALLEE);
            up.push((caller, ok));
        }
        assert!(world.count(|counters| counters.calls_placed) > 0, "the names were even");
        for number in 0..4 {
            refused(&mut world, &Caller::new(&format!("s{seed}more{number}")));
        }
        // A pair that has rested serves the next call, wherever it is.
        let hang_up = |world: &mut World, (caller, ok): (Caller, Got)| {
            let bye = caller.request("BYE", caller.cseq + 1, &ok);
            world.send(&caller.address, ACCESS, bye.as_bytes());
            world.expect(&caller.address, "200 BYE");
            let bye = world.expect(CALLEE, "BYE");
            world.send(CALLEE, CORE, answer(&bye, 200, "b1", "").as_bytes());
        };
        for number in 0..PAIRS {
            hang_up(&mut world, up.remove(0));
            world.run(1_100);
            world.clear_mail();
            let caller = Caller::new(&format!("s{seed}again{number}"));
            let ok = establish(&mut world, &caller, CALLEE);
            up.push((caller, ok));
        }
        for call in up {
            hang_up(&mut world, call);
        }
        world.assert_all_over();
        let forgotten = world.engines.iter().map(|engine| engine.placements()).sum::<usize>();
        world.run(60_000);
        are_forgotten(&mut world, forgotten);
    }
}

/// What is remembered of calls elsewhere ends.
fn are_forgotten(world: &mut World, before: usize) {
    assert!(before > 0);
    let shards = world.engines.len();
    for number in 0..shards * 16 {
        let caller = Caller::new(&format!("sweep{number}"));
        establish(world, &caller, CALLEE);
        if world.engines.iter().all(|engine| engine.placements() == 0) {
            return;
        }
    }
    panic!("calls of long ago are remembered");
}

#[test]
fn a_placed_call_is_cancelled_at_any_time() {
    let limits = Limits { media_reserve_percent: 0, ..Limits::default() };
    let mut world = World::with(3, &config(PAIRS), limits);
    let mut placed = 0;
    for number in 0..PAIRS {
        let caller = Caller::new(&format!("c{number}"));
        let before = world.count(|counters| counters.calls_placed);
        world.send(CALLER, ACCESS, caller.invite().as_bytes());
        world.expect(CALLER, "100 INVITE");
        let invite = world.expect(CALLEE, "INVITE");
        world.send(CALLEE, CORE, answer(&invite, 180, "b1", "").as_bytes());
        world.expect(CALLER, "180 INVITE");
        if world.count(|counters| counters.calls_placed) == before {
            continue;
        }
        placed += 1;
        // Some at once, some when nobody remembers where they went.
        if placed % 2 == 0 {
            world.run(60_000);
            world.clear_mail();
        }
        world.send(CALLER, ACCESS, caller.cancel().as_bytes());
        world.expect(CALLER, "200 CANCEL");
        world.expect(CALLER, "487 INVITE");
        world.expect(CALLEE, "CANCEL");
        world.clear_mail();
    }
    assert!(placed > 1);
    // A CANCEL of nobody's INVITE is answered once.
    world.send(CALLER, ACCESS, Caller::new("nobody").cancel().as_bytes());
    world.expect(CALLER, "481 CANCEL");
    assert!(world.take(CALLER).is_none());
}

/// EM-64: a part of each pool is for emergency calls alone, on whatever shard it is; when that is used
/// up too, an ordinary call gives way.
#[test]
fn emergency_calls_find_the_reserve_of_every_shard_before_an_ordinary_call_gives_way() {
    const SHARDS: u8 = 2;
    let reserve = usize::from(SHARDS) * usize::try_from(MEDIA_RESERVE_PAIRS).unwrap();
    let pairs = 10 * reserve;
    let mut world = World::with(SHARDS, &config(pairs), Limits::default());
    for number in 0..pairs - reserve {
        establish(&mut world, &Caller::new(&format!("o{number}")), CALLEE);
    }
    refused(&mut world, &Caller::new("more"));
    let help = |number: usize| {
        let address = format!("127.0.1.{}:5060", 10 + number);
        Caller { number: "911".to_owned(), address, ..Caller::new(&format!("e{number}")) }
    };
    for number in 0..reserve {
        establish(&mut world, &help(number), PSAP);
    }
    assert_eq!(world.count(|counters| counters.calls_preempted), 0);
    assert_eq!(world.count(|counters| counters.media_ports_refused), 1, "the ordinary call's");
    world.send(&help(reserve).address, ACCESS, help(reserve).invite().as_bytes());
    world.expect(PSAP, "INVITE");
    assert_eq!(world.count(|counters| counters.calls_preempted), 1);
}
