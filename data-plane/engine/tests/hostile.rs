//! What a hostile or broken peer can send: every message of a call cut, bent, repeated and
//! reordered. The engine answers or counts a drop, calls of others go on, and nothing is left over.

mod support;

use std::time::Duration;

use ravelin_engine::{drops::DropReason, engine::Received, limits::Limits};

use proptest::prelude::*;
use ravelin_wire::sip::{Framing, Message};
use support::{
    ACCESS, CALLEE, CALLER, CONFIG, CORE, Caller, Got, World, answer, media_address, rtp, sdp,
};

/// All that is said in a call with a re-INVITE, as (from the callee?, bytes), from a run that goes
/// well. Branches, tags and Call-IDs of ours are the same in every run with the same seed.
fn script(world: &mut World, id: &str) -> Vec<(bool, Vec<u8>)> {
    let mut said = Vec::new();
    let caller = Caller::new(id);
    let mut say = |world: &mut World, callee: bool, text: String| {
        let (from, listener) = if callee { (CALLEE, CORE) } else { (CALLER, ACCESS) };
        world.send(from, listener, text.as_bytes());
        said.push((callee, text.into_bytes()));
    };
    say(world, false, caller.invite());
    let invite = world.expect(CALLEE, "INVITE");
    say(world, true, answer(&invite, 100, "b1", ""));
    say(world, true, answer(&invite, 183, "b1", &sdp("127.0.2.1:7000", 1, "")));
    say(world, true, answer(&invite, 200, "b1", &sdp("127.0.2.1:7000", 1, "")));
    let ok = last(world, CALLER);
    say(world, false, caller.request("ACK", 1, &ok));
    world.clear_mail();
    let hold = sdp("127.0.1.1:6000", 2, "a=sendonly\r\n");
    let again = caller.request("INVITE", 2, &ok);
    let again = again.replace(
        "Content-Length: 0\r\n\r\n",
        &format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{hold}", hold.len()),
    );
    say(world, false, again);
    let invite = world.expect(CALLEE, "INVITE");
    say(world, true, answer(&invite, 200, "b1", &sdp("127.0.2.1:7000", 2, "a=recvonly\r\n")));
    say(world, false, caller.request("ACK", 2, &ok));
    world.clear_mail();
    say(world, false, caller.request("BYE", 3, &ok));
    let bye = world.expect(CALLEE, "BYE");
    say(world, true, answer(&bye, 200, "b1", ""));
    world.clear_mail();
    said
}

fn last(world: &mut World, peer: &str) -> Got {
    std::iter::from_fn(|| world.take(peer)).last().unwrap()
}

#[derive(Clone, Debug)]
enum Bend {
    Keep,
    Skip,
    Repeat,
    Cut { at: usize },
    Flip { at: usize, bits: u8 },
    Insert { at: usize, bytes: Vec<u8> },
    Delay { ms: u64 },
    Swap,
    OtherSide,
}

fn bend() -> impl Strategy<Value = Bend> {
    let nasty = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b"\0".to_vec()),
        Just(b"\r\n\r\n".to_vec()),
        Just(b"\r\nVia: SIP/2.0/UDP 1.2.3.4;branch=z9hG4bKx".to_vec()),
        Just(b"\r\nContent-Length: 99999".to_vec()),
        Just(b"\r\nTo: <sip:x@y>;tag=z".to_vec()),
        Just(b"\r\n Contact: <sip:".to_vec()),
        Just(vec![b'9'; 300]),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    prop_oneof![
        6 => Just(Bend::Keep),
        1 => Just(Bend::Skip),
        1 => Just(Bend::Repeat),
        1 => any::<usize>().prop_map(|at| Bend::Cut { at }),
        2 => (any::<usize>(), 1..=255_u8).prop_map(|(at, bits)| Bend::Flip { at, bits }),
        2 => (any::<usize>(), nasty).prop_map(|(at, bytes)| Bend::Insert { at, bytes }),
        1 => (0..70_000_u64).prop_map(|ms| Bend::Delay { ms }),
        1 => Just(Bend::Swap),
        1 => Just(Bend::OtherSide),
    ]
}

fn deliver(world: &mut World, callee: bool, bytes: &[u8]) {
    let (from, listener) = if callee { (CALLEE, CORE) } else { (CALLER, ACCESS) };
    world.send(from, listener, bytes);
}

/// Peers answer what they are asked, so that what the engine says comes to an end.
fn answer_everything(world: &mut World) {
    for _ in 0..6 {
        for (peer, listener) in [(CALLER, ACCESS), (CALLEE, CORE)] {
            while let Some(got) = world.take(peer) {
                // An answer to a broken request repeats what there was of it, and no more.
                let Ok(message) = Message::parse(&got.bytes, Framing::Datagram) else { continue };
                let method = message.method().map(|method| method.to_string());
                let code = match method.as_deref() {
                    None | Some("ACK") => continue,
                    Some("INVITE") => 486,
                    Some(_) => 200,
                };
                world.send(peer, listener, answer(&got, code, "late", "").as_bytes());
            }
        }
        world.run(500);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// The bent call of one pair of peers comes to an end, and a good call beside it is not hurt.
    #[test]
    fn bent_calls_leave_nothing_and_hurt_nobody(
        bends in proptest::collection::vec(bend(), 11),
    ) {
        // The script comes from a twin with the same seed: what is ours in it will fit.
        let mut twin = World::new(1);
        let said = script(&mut twin, "bent");
        // Calls that nobody hangs up end by the longest duration.
        let limits = Limits { call_duration: Duration::from_secs(100), ..Limits::default() };
        let mut world = World::with(1, CONFIG, limits);
        let mut order: Vec<usize> = (0..said.len()).collect();
        for (at, bend) in bends.iter().enumerate() {
            if matches!(bend, Bend::Swap) && at + 1 < order.len() {
                order.swap(at, at + 1);
            }
        }
        for at in order {
            let (callee, bytes) = &said[at];
            let mut bytes = bytes.clone();
            match &bends[at] {
                Bend::Keep | Bend::Swap => deliver(&mut world, *callee, &bytes),
                Bend::Skip => {}
                Bend::Repeat => {
                    deliver(&mut world, *callee, &bytes);
                    deliver(&mut world, *callee, &bytes);
                }
                Bend::Cut { at } => {
                    bytes.truncate(at % bytes.len());
                    deliver(&mut world, *callee, &bytes);
                }
                Bend::Flip { at, bits } => {
                    let at = at % bytes.len();
                    bytes[at] ^= bits;
                    deliver(&mut world, *callee, &bytes);
                }
                Bend::Insert { at, bytes: nasty } => {
                    let at = at % bytes.len();
                    bytes.splice(at..at, nasty.iter().copied());
                    deliver(&mut world, *callee, &bytes);
                }
                Bend::Delay { ms } => {
                    world.run(*ms);
                    deliver(&mut world, *callee, &bytes);
                }
                Bend::OtherSide => deliver(&mut world, !callee, &bytes),
            }
        }
        prop_assert_eq!(world.count(|counters| counters.faults_contained), 0);
        answer_everything(&mut world);
        world.clear_mail();
        // A good call now goes through.
        let good = script(&mut world, "good");
        prop_assert_eq!(good.len(), said.len());
        for _ in 0..8 {
            world.run(30_000);
            answer_everything(&mut world);
        }
        world.assert_all_over();
        prop_assert_eq!(world.count(|counters| counters.faults_contained), 0);
    }

    /// Any octets on any listener: a verdict, and nothing is kept.
    #[test]
    fn arbitrary_octets_are_answered_or_counted(
        messages in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200)), 1..20
        ),
    ) {
        let mut world = World::new(1);
        for (callee, bytes) in messages {
            let before = world.drops.len();
            let (from, listener) = if callee { (CALLEE, CORE) } else { (CALLER, ACCESS) };
            let received = world.send(from, listener, &bytes);
            prop_assert_eq!(matches!(received, Received::Dropped(_)), world.drops.len() > before);
        }
        world.assert_all_over();
    }
}

/// lessons 2.17 and 3.6: a flood from strangers, and from a peer beyond its limit, leaves no state.
#[test]
fn floods_are_bounded() {
    let limits = Limits { server_transactions: 200, transactions_reserve: 20, ..Limits::default() };
    let mut world = World::with(1, CONFIG, limits);
    let good = Caller::new("good");
    world.send(CALLER, ACCESS, good.invite().as_bytes());
    let invite = world.expect(CALLEE, "INVITE");
    let ok = answer(&invite, 200, "b1", &sdp("127.0.2.1:7000", 1, ""));
    world.send(CALLEE, CORE, ok.as_bytes());
    let ok = last(&mut world, CALLER);
    world.send(CALLER, ACCESS, good.request("ACK", 1, &ok).as_bytes());
    world.clear_mail();
    for n in 0..2_000 {
        let flood = Caller::new(&format!("flood{n}"));
        world.send("127.0.77.7:5060", ACCESS, flood.invite().as_bytes());
        world.send(CALLER, ACCESS, flood.invite().as_bytes());
        let options = flood.request_to("OPTIONS", 1, "sip:us", "<sip:us>", &format!("o{n}"));
        world.send(CALLER, ACCESS, options.as_bytes());
        world.clear_mail();
    }
    let tables = world.engines[0].tables();
    assert!(tables.server_txns <= 200 && tables.calls <= 20, "{tables:?}");
    assert!(world.count(|counters| counters.transactions_refused) > 0);
    // Beyond the rate of answers without a transaction nothing is answered, and that is counted.
    assert!(world.count(|counters| counters.drops(DropReason::TableFull)) > 0);
    // The call that was there still has media and can hang up.
    let to = media_address(ok.message().body());
    assert_eq!(world.send_media("127.0.1.1:6000", to, &rtp(1)), Received::Taken);
    world.send(CALLER, ACCESS, good.request("BYE", 2, &ok).as_bytes());
    assert!(world.all(CALLER).contains(&"200 BYE".to_owned()));
    for _ in 0..8 {
        world.run(40_000);
        answer_everything(&mut world);
    }
    world.assert_all_over();
}
