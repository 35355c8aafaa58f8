//! Interfaces that go and come while the edge runs.

use super::conditions::{sample, wait_until};
use super::differential::start;
use super::survival::{
    OUT, Peers, RECEIVER, SENDER, audio, parse, stream, take_over, wait_for_hop, world,
};
use super::world::{World, missing, run, skip};
use crate::driver::{Driver, Rx};
use crate::xdp::FastPath;
use ravelin_engine::port::{
    Egress, FastChange, FastFlow, FastKind, Local, MediaPortId, Token, TxQueue,
};
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

/// The wire with all that [`world`] gives it, made again. Without `gro` the driver's mode sends nothing.
fn remake(world: &World, gro: &str) {
    let (peer, here) = (&world.peer, &world.here);
    run(&format!("ip link add p0 netns {peer} type veth peer name d0 netns {here}"));
    run(&format!("ip -n {peer} addr add 10.95.6.2/24 dev p0"));
    run(&format!("ip -n {here} addr add 10.95.6.1/24 dev d0"));
    run(&format!("ip netns exec {peer} ethtool -K p0 gro {gro} txvlan off"));
    run(&format!("ip netns exec {here} ethtool -K d0 gro on txvlan off tx off"));
    run(&format!("ip -n {peer} link set p0 up"));
    run(&format!("ip -n {here} link set d0 up"));
}

fn cut(world: &World) {
    run(&format!("ip -n {} link del p0", world.peer));
}

/// Takes its turns as a shard does, and relays what comes to user space, while `work` is done: also
/// packets below that meet a rule while it is written. Says how many packets that were.
fn beside(driver: &mut dyn Driver, work: impl FnOnce() + Send) -> u64 {
    let (mut relayed, mut out) = (0, TxQueue::default());
    thread::scope(|scope| {
        let work = scope.spawn(work);
        while !work.is_finished() {
            driver.wait(Duration::from_millis(5)).unwrap();
            driver.receive(&mut |rx| {
                if let Rx::Datagram { meta, bytes, .. } = rx
                    && meta.local == (Local::Media { port: MediaPortId(0) })
                    && meta.source == parse(SENDER)
                {
                    relayed += 1;
                    let egress = Egress::Media { port: MediaPortId(2), to: parse(RECEIVER) };
                    out.push(egress, Token::default(), bytes);
                }
            });
            driver.send(&out, &mut |_, error| panic!("{error}"));
            out.clear();
        }
        work.join().unwrap();
    });
    relayed
}

/// Sends so many packets at a steady pace; every one has to come out, whichever way. Two of them may
/// overtake each other where the way changes.
fn talk(peers: &Peers, numbers: std::ops::Range<u16>) {
    let mut missing: BTreeSet<u16> = numbers.clone().collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in numbers {
                peers.send(&audio(number));
                thread::sleep(Duration::from_millis(1));
            }
        });
        let mut buffer = [0; 2_048];
        let until = Instant::now() + Duration::from_secs(20);
        while !missing.is_empty() {
            assert!(Instant::now() < until, "not arrived: {missing:?}");
            let Ok((length, source)) = peers.receiver.recv_from(&mut buffer) else { continue };
            let number = u16::from_be_bytes([buffer[2], buffer[3]]);
            assert_eq!((source, &buffer[..length]), (parse(OUT), &*audio(number)));
            assert!(missing.remove(&number), "{number} came twice");
        }
    });
}

fn lost(fast: &FastPath, reason: &str) -> u64 {
    sample(fast, "fast_interfaces_lost_total", reason)
}

/// The end of the interface is seen, and the stream left to the sockets.
fn wait_for_end(fast: &FastPath, reason: &str, times: u64) {
    wait_until("its end is not seen", || {
        lost(fast, reason) == times
            && sample(fast, "fast_flows_without_interface", "") == 1
            && sample(fast, "fast_addresses_without_interface", "") == 1
    });
}

/// The program has the stream and knows the way.
fn is_below(fast: &FastPath) -> bool {
    let of = |name| sample(fast, name, "");
    let left = ["fast_flows_without_next_hop", "fast_flows_without_interface"].map(of);
    (of("fast_flows"), left) == (1, [0, 0])
}

/// Packets that the program forwarded, also before an outage: counts go on.
fn forwarded(driver: &mut dyn Driver) -> u64 {
    let mut counts = Vec::new();
    driver.fast_counts(&mut counts);
    counts.iter().map(|count| count.packets).max().unwrap_or(0)
}

/// A veth is deleted and made again, twice: its stream goes on over the sockets, and then below them in
/// the driver's mode again.
#[test]
fn an_interface_that_is_made_anew_is_attached_to_again() {
    if let Some(why) = missing() {
        return skip("an_interface_that_is_made_anew_is_attached_to_again", &why);
    }
    let world = world();
    let peers = Peers::new(&world);
    world.here(|| {
        let fast = start(&world, &[stream()]);
        let mut driver = take_over(&fast);
        wait_for_hop(&fast);
        talk(&peers, 0..100);
        assert_eq!(forwarded(&mut *driver), 100);
        let mut relayed = 0;
        for round in 1..=2_u16 {
            let from = round * 1_000;
            relayed += beside(&mut *driver, || {
                cut(&world);
                wait_for_end(&fast, "removed", u64::from(round));
                assert_eq!(sample(&fast, "fast_interfaces", "native"), 0);
                remake(&world, "on");
                talk(&peers, from..from + 100);
                wait_until("its stream is not below", || is_below(&fast));
                assert_eq!(sample(&fast, "fast_interfaces", "native"), 1);
                wait_until("its address is told to be without", || {
                    sample(&fast, "fast_addresses_without_interface", "") == 0
                });
                talk(&peers, from + 100..from + 200);
            });
        }
        assert_eq!(sample(&fast, "fast_interfaces_attached_total", ""), 2);
        let below = forwarded(&mut *driver);
        assert_eq!(below + relayed, 500);
        assert!(below >= 300, "{below} below, {relayed} relayed");
    });
}

/// The driver's mode is tried for a while where it does not send; then generic mode serves.
#[test]
fn an_interface_made_anew_without_gro_serves_in_generic_mode() {
    if let Some(why) = missing() {
        return skip("an_interface_made_anew_without_gro_serves_in_generic_mode", &why);
    }
    let world = world();
    let peers = Peers::new(&world);
    world.here(|| {
        let fast = start(&world, &[stream()]);
        let mut driver = take_over(&fast);
        wait_for_hop(&fast);
        let relayed = beside(&mut *driver, || {
            cut(&world);
            wait_for_end(&fast, "removed", 1);
            remake(&world, "off");
            wait_until("its stream is not below", || is_below(&fast));
            talk(&peers, 0..100);
        });
        assert_eq!(sample(&fast, "fast_interfaces", "generic"), 1);
        assert_eq!(sample(&fast, "fast_interfaces", "native"), 0);
        let below = forwarded(&mut *driver);
        assert!(below + relayed == 100 && below > 0, "{below} below, {relayed} relayed");
    });
}

/// A link that goes down is told, keeps its program, and serves again when it is up.
#[test]
fn a_link_that_goes_down_and_up_serves_again() {
    if let Some(why) = missing() {
        return skip("a_link_that_goes_down_and_up_serves_again", &why);
    }
    let world = world();
    let peers = Peers::new(&world);
    world.here(|| {
        let fast = start(&world, &[stream()]);
        let mut driver = take_over(&fast);
        wait_for_hop(&fast);
        for (round, (space, name)) in
            (1..).zip([(&world.here, "d0"), (&world.peer, "p0"), (&world.here, "d0")])
        {
            let relayed = beside(&mut *driver, || {
                run(&format!("ip -n {space} link set {name} down"));
                wait_until("it is not seen", || {
                    (lost(&fast, "down"), sample(&fast, "fast_interfaces_down", "")) == (round, 1)
                });
                run(&format!("ip -n {space} link set {name} up"));
                wait_until("its stream is not below", || {
                    sample(&fast, "fast_interfaces_down", "") == 0 && is_below(&fast)
                });
                let from = u16::try_from(round).unwrap() * 100;
                talk(&peers, from..from + 100);
            });
            let below = forwarded(&mut *driver);
            assert!(below + relayed >= round * 100, "{below} below, {relayed} relayed");
        }
        assert_eq!(sample(&fast, "fast_interfaces", "native"), 1);
        assert_eq!(sample(&fast, "fast_interfaces_attached_total", ""), 0);
        assert_eq!(lost(&fast, "removed"), 0);
    });
}

/// Somebody takes the program off: it is told, and put back.
#[test]
fn a_program_that_is_taken_off_is_put_back() {
    if let Some(why) = missing() {
        return skip("a_program_that_is_taken_off_is_put_back", &why);
    }
    let world = world();
    let peers = Peers::new(&world);
    world.here(|| {
        let fast = start(&world, &[stream()]);
        let mut driver = take_over(&fast);
        wait_for_hop(&fast);
        let relayed = beside(&mut *driver, || {
            run(&format!("ip -n {} link set d0 xdp off", world.here));
            wait_until("it is not seen", || lost(&fast, "detached") == 1);
            wait_until("it is not put back", || {
                sample(&fast, "fast_interfaces_attached_total", "") == 1 && is_below(&fast)
            });
            talk(&peers, 0..100);
        });
        let below = forwarded(&mut *driver);
        assert!(below + relayed == 100 && below > 0, "{below} below, {relayed} relayed");
    });
}

/// What the engine decides while an interface is away holds when it is back; what it takes back
/// meanwhile does not.
#[test]
fn streams_of_an_outage_are_set_when_it_ends() {
    if let Some(why) = missing() {
        return skip("streams_of_an_outage_are_set_when_it_ends", &why);
    }
    let world = world();
    let peers = Peers::new(&world);
    world.here(|| {
        let fast = start(&world, &[stream()]);
        let mut driver = take_over(&fast);
        wait_for_hop(&fast);
        cut(&world);
        wait_for_end(&fast, "removed", 1);
        let flow = FastFlow { epoch: 2, ..super::survival::flow() };
        let elsewhere = FastFlow { source: parse(OUT), epoch: 3, ..flow };
        driver.program(&[
            FastChange::Set { port: MediaPortId(0), flow },
            FastChange::Set { port: MediaPortId(2), flow: elsewhere },
            FastChange::Clear { port: MediaPortId(2) },
        ]);
        assert_eq!(sample(&fast, "fast_flows_refused_total", "interface"), 2);
        assert_eq!(sample(&fast, "fast_flows", ""), 0);
        let relayed = beside(&mut *driver, || {
            remake(&world, "on");
            wait_until("the stream is not set", || is_below(&fast));
            talk(&peers, 0..100);
        });
        let mut counts = Vec::new();
        driver.fast_counts(&mut counts);
        let last = counts.last().expect("a flow");
        assert!(last.epoch == 2 && last.packets > 0, "{counts:?}");
        assert_eq!(last.packets + relayed, 100);
        assert_eq!(sample(&fast, "fast_flows_refused_total", "interface"), 2, "counted once each");
    });
}

/// Streams for user space get AF_XDP sockets at the new interface.
#[test]
fn af_xdp_follows_an_interface_that_is_made_anew() {
    if let Some(why) = missing() {
        return skip("af_xdp_follows_an_interface_that_is_made_anew", &why);
    }
    let world = world();
    let peers = Peers::new(&world);
    world.here(|| {
        let fast = start(&world, &[stream()]);
        assert!(fast.serving()[0].af_xdp.is_some(), "{:?}", fast.reasons());
        let mut driver = take_over(&fast);
        let kind = FastKind::Deliver { out: MediaPortId(2), to: parse(RECEIVER) };
        let flow = FastFlow { kind, ..super::survival::flow() };
        driver.program(&[FastChange::Set { port: MediaPortId(0), flow }]);
        wait_for_hop(&fast);
        let by_af_xdp = |driver: &dyn Driver| {
            let mut sums = [0, 0];
            driver.counts(&mut |count| match count.name {
                "af_xdp_rx_packets_total" => sums[0] += count.value,
                "af_xdp_tx_packets_total" => sums[1] += count.value,
                _ => {}
            });
            sums
        };
        assert_eq!(beside(&mut *driver, || talk(&peers, 0..100)), 100);
        assert_eq!(by_af_xdp(&*driver), [100, 100]);
        for round in 1..=2_u16 {
            let from = round * 20_000;
            let relayed = beside(&mut *driver, || {
                cut(&world);
                wait_for_end(&fast, "removed", u64::from(round));
                assert_eq!(sample(&fast, "af_xdp_queues", "copy"), 0);
                remake(&world, "on");
                talk(&peers, from..from + 100);
                wait_until("its stream is not below", || is_below(&fast));
                assert!(sample(&fast, "af_xdp_queues", "copy") > 0);
            });
            assert_eq!(relayed, 100);
            // Those of a moment in which a rule is written go by the sockets.
            let mut number = from + 100;
            wait_until("not all go by AF_XDP", || {
                let before = by_af_xdp(&*driver);
                assert_eq!(beside(&mut *driver, || talk(&peers, number..number + 100)), 100);
                number += 100;
                let after = by_af_xdp(&*driver);
                [0, 1].map(|way| after[way] - before[way]) == [100, 100]
            });
        }
    });
}

/// An address that moves to another interface takes its streams along.
#[test]
fn an_address_that_moves_takes_its_streams_along() {
    if let Some(why) = missing() {
        return skip("an_address_that_moves_takes_its_streams_along", &why);
    }
    let world = world();
    let (peer, here) = (&world.peer, &world.here);
    let peers = Peers::new(&world);
    world.here(|| {
        let fast = start(&world, &[stream()]);
        let mut driver = take_over(&fast);
        wait_for_hop(&fast);
        let relayed = beside(&mut *driver, || {
            run(&format!("ip link add p1 netns {peer} type veth peer name d1 netns {here}"));
            for (space, name) in [(peer, "p1"), (here, "d1")] {
                run(&format!("ip netns exec {space} ethtool -K {name} gro on txvlan off"));
                run(&format!("ip -n {space} link set {name} up"));
            }
            run(&format!("ip -n {here} addr del 10.95.6.1/24 dev d0"));
            wait_for_end(&fast, "no_address", 1);
            run(&format!("ip -n {peer} addr del 10.95.6.2/24 dev p0"));
            run(&format!("ip -n {peer} addr add 10.95.6.2/24 dev p1"));
            run(&format!("ip -n {here} addr add 10.95.6.1/24 dev d1"));
            talk(&peers, 0..100);
            wait_until("its stream is not below", || {
                sample(&fast, "fast_interfaces", "native") == 2 && is_below(&fast)
            });
            talk(&peers, 100..200);
        });
        let below = forwarded(&mut *driver);
        assert_eq!(below + relayed, 200);
        assert!(below >= 100, "{below} below, {relayed} relayed");
    });
}
