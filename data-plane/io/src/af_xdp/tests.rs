//! AF_XDP against the sockets, in network namespaces of their own.

use super::binding::{Limits, QUEUES_MAX, RX_RING, Short, Wanted, bind_within};
use crate::driver::{self, Choice, Driver, MEDIA_DATAGRAM_MAX_BYTES, Options as DriverOptions, Rx};
use crate::sys::xsk::STARVED;
use crate::xdp::tests::differential::{PEER, Path, Stream, compare_by, good, plain, stream};
use crate::xdp::tests::packet::rtp;
use crate::xdp::tests::world::{Capture, Injector, World, missing, run, skip};
use crate::xdp::{FastPath, Mode, Options};
use ravelin_engine::port::{
    Egress, FastChange, FastFlow, FastKind, Local, MediaPortId, Meta, ShardId, Token, TxQueue,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Octets of RTP before the payload.
const RTP_HEAD: usize = 12;
/// Generous: a test waits for a fact, not for a time.
const WITHIN: Duration = Duration::from_secs(20);

#[test]
fn af_xdp_and_the_sockets_are_the_same() {
    if let Some(why) = missing() {
        return skip("af_xdp_and_the_sockets_are_the_same", &why);
    }
    let world = World::new(1);
    let streams = plain(&world);
    compare_by(Path::AfXdp, &world, &streams, &["p0"], Mode::Native);
}

#[test]
fn af_xdp_behind_generic_mode_is_the_same() {
    if let Some(why) = missing() {
        return skip("af_xdp_behind_generic_mode_is_the_same", &why);
    }
    let world = World::new(1);
    let streams = plain(&world);
    run(&format!("ip netns exec {} ethtool -K p0 gro off", world.peer));
    compare_by(Path::AfXdp, &world, &streams, &["p0"], Mode::Generic);
}

#[test]
fn af_xdp_with_two_interfaces_and_vlans_is_the_same() {
    let name = "af_xdp_with_two_interfaces_and_vlans_is_the_same";
    if let Some(why) = missing() {
        return skip(name, &why);
    }
    let world = World::new(2);
    if let Err(why) = world.try_vlan() {
        return skip(name, &why);
    }
    let mut streams = plain(&world);
    world.address("d1", "10.97.6.1/24", "10.97.6.2", PEER);
    let here = &world.here;
    run(&format!("ip -n {here} link add link d1 name d1.7 type vlan id 7 reorder_hdr on"));
    run(&format!("ip -n {here} link set d1.7 up"));
    world.address("d1.7", "10.99.6.1/24", "10.99.6.2", PEER);
    world.address("d1.7", "fd99:6::1/64", "fd99:6::2", PEER);
    streams.extend([
        stream(
            "p0",
            None,
            ["10.96.6.1:20010", "10.96.6.2:4002", "10.99.6.1:20010", "10.99.6.2:5002"],
            None,
        ),
        stream(
            "p1",
            Some(7),
            ["[fd99:6::1]:20012", "[fd99:6::2]:4002", "[fd96:6::1]:20012", "[fd96:6::2]:5002"],
            None,
        ),
        stream(
            "p1",
            Some(7),
            ["10.99.6.1:20014", "10.99.6.2:4002", "10.97.6.1:20014", "10.97.6.2:5002"],
            None,
        ),
    ]);
    compare_by(Path::AfXdp, &world, &streams, &["p0", "p1"], Mode::Native);
}

fn start(world: &World, streams: &[Stream], shards: u8) -> Arc<FastPath> {
    let options = Options {
        node: world.node.clone(),
        addresses: streams.iter().map(|stream| stream.local.ip()).collect(),
        ports: 64,
        shards,
        native_only: false,
        note: |_, _| {},
    };
    Arc::new(FastPath::start(&options).map_err(|reasons| format!("{reasons:?}")).unwrap())
}

/// A shard with one stream, whose packets it has delivered.
fn shard(fast: &Arc<FastPath>, stream: &Stream, shard: u8, choice: Choice) -> Box<dyn Driver> {
    let options = DriverOptions { media_ports_max: 64, ..DriverOptions::default() };
    let driver = driver::open(choice, &options).unwrap().driver;
    let mut driver = fast.around(driver, ShardId(shard));
    let (port, out) = Stream::ports(0);
    driver.open_media(port, stream.local).unwrap();
    driver.open_media(out, stream.out).unwrap();
    let kind = FastKind::Deliver { out, to: stream.to };
    driver.program(&[FastChange::Set { port, flow: FastFlow { kind, ..stream.flow(0) } }]);
    let until = Instant::now() + WITHIN;
    while fast.without_next_hop() > 0 {
        assert!(Instant::now() < until, "no next hop");
        std::thread::sleep(Duration::from_millis(1));
    }
    driver
}

fn counters(driver: &dyn Driver) -> BTreeMap<(&'static str, &'static str), u64> {
    let mut all = BTreeMap::new();
    driver.counts(&mut |count| {
        all.insert((count.name, count.label.map_or("", |(_, label)| label)), count.value);
    });
    all
}

/// Turns of a shard until `enough` datagrams came; each waits much longer than it should need to.
fn turns(driver: &mut dyn Driver, enough: usize) -> Vec<MediaPortId> {
    turns_foretold(driver, enough).0
}

/// And how many of them were foretold.
fn turns_foretold(driver: &mut dyn Driver, enough: usize) -> (Vec<MediaPortId>, usize) {
    let (mut ports, mut ready, began) = (Vec::new(), Vec::new(), Instant::now());
    let (mut coming, mut foretold) = (VecDeque::new(), 0);
    while ports.len() < enough {
        assert!(began.elapsed() < WITHIN, "{} of {enough}", ports.len());
        driver.wait(WITHIN).unwrap();
        driver.receive(&mut |rx| match rx {
            Rx::Coming { ports } => {
                assert!(coming.is_empty(), "{coming:?} did not come");
                coming.extend(ports);
                foretold += ports.len();
            }
            Rx::Datagram { meta: Meta { local: Local::Media { port }, .. }, .. } => {
                assert_eq!(coming.pop_front().unwrap_or(port), port, "another was foretold");
                ports.push(port);
            }
            other => panic!("{other:?}"),
        });
        assert!(coming.is_empty(), "{coming:?} did not come");
        driver.take_ready(&mut ready);
        assert!(ready.is_empty(), "wake-ups of AF_XDP are no business of the shard's: {ready:?}");
    }
    (ports, foretold)
}

fn send(world: &World, stream: &Stream, packets: u16) {
    let here = World::mac(&world.here, "d0");
    World::inside(&world.peer, || {
        let injector = Injector::new(&["p0"]);
        for sequence in 0..packets {
            let packet = good(stream, rtp(0x80, 0, sequence, stream.flow(0).ssrc, &[7; 160]), here);
            injector.send("p0", &packet.frame());
        }
    });
}

/// Two streams on one queue, each of another shard: each has its own packets, and wakes for them
/// alone, whichever driver waits.
#[test]
fn two_shards_share_a_queue() {
    if let Some(why) = missing() {
        return skip("two_shards_share_a_queue", &why);
    }
    for choice in [Choice::Auto, Choice::Mmsg] {
        let world = World::new(1);
        let streams = plain(&world);
        world.here(|| {
            let fast = start(&world, &streams, 2);
            let (queues, mode) = fast.serving()[0].af_xdp.expect("no AF_XDP");
            assert!(queues >= 1, "{mode:?}");
            let mut one = shard(&fast, &streams[0], 0, choice);
            let mut two = shard(&fast, &streams[1], 1, choice);
            // What arrives wakes a shard that sleeps: sooner or later one comes during a wait.
            let slept = AtomicBool::new(false);
            let sent = std::thread::scope(|scope| {
                let sender = scope.spawn(|| {
                    let (mut sent, began) = (0, Instant::now());
                    while !slept.load(Ordering::Relaxed) && began.elapsed() < WITHIN {
                        send(&world, &streams[1], 1);
                        sent += 1;
                    }
                    sent
                });
                let mut got = 0;
                while counters(&*two)[&("af_xdp_wakes_total", "")] == 0 && !sender.is_finished() {
                    got += turns(&mut *two, 1).len();
                }
                slept.store(true, Ordering::Relaxed);
                let sent = sender.join().unwrap();
                got += turns(&mut *two, sent - got).len();
                assert_eq!(got, sent);
                sent as u64
            });
            assert!(counters(&*two)[&("af_xdp_wakes_total", "")] >= 1, "nothing woke it");
            assert_eq!(one.wait(Duration::ZERO).unwrap(), 0, "nothing came for the other");
            send(&world, &streams[0], 400);
            let (came, foretold) = turns_foretold(&mut *one, 400);
            assert_eq!((came, foretold), (vec![Stream::ports(0).0; 400], 400));
            for (driver, packets) in [(&one, 400), (&two, sent)] {
                let counters = counters(&**driver);
                assert_eq!(counters[&("af_xdp_rx_packets_total", "")], packets);
                assert_eq!(counters[&("io_rx_datagrams_total", "")], 0, "past the sockets");
            }
            // Nothing moves: no wake-up in vain, but for one that was on its way.
            one.wait(Duration::from_millis(20)).unwrap();
            let before = counters(&*one);
            one.wait(Duration::from_millis(20)).unwrap();
            one.receive(&mut |_| panic!("nothing was sent"));
            let after = counters(&*one);
            assert_eq!(after[&("af_xdp_wakes_total", "")], before[&("af_xdp_wakes_total", "")]);
        });
    }
}

fn verdict(fast: &FastPath, reason: &str) -> u64 {
    let mut found = 0;
    fast.samples(&mut |sample| {
        if sample.label == Some(("reason", reason)) {
            found = sample.value;
        }
    });
    found
}

/// A shard that does not run has its packets kept, as many as its ring holds; what comes on top is
/// counted as dropped.
#[test]
fn packets_of_a_stalled_shard_wait_and_those_beyond_its_ring_are_counted() {
    if let Some(why) = missing() {
        return skip("packets_of_a_stalled_shard_wait_and_those_beyond_its_ring_are_counted", &why);
    }
    const BEYOND: u32 = 10;
    // Fewer than what a veth keeps before the program sees it.
    const CHUNK: u32 = 128;
    let world = World::new(1);
    let streams = plain(&world);
    world.here(|| {
        let fast = start(&world, &streams, 2);
        let mut driver = shard(&fast, &streams[0], 0, Choice::Auto);
        let arrive = |packets: u32| {
            let (before, mut sent) = (verdict(&fast, "delivered"), 0);
            while sent < packets {
                let chunk = CHUNK.min(packets - sent);
                send(&world, &streams[0], u16::try_from(chunk).unwrap());
                sent += chunk;
                let until = Instant::now() + WITHIN;
                while verdict(&fast, "delivered") - before < u64::from(sent) {
                    assert!(Instant::now() < until, "{sent} are not delivered");
                    std::thread::yield_now();
                }
            }
        };
        // Twice, so that every frame has been given back once.
        for round in 1..=2_u64 {
            arrive(RX_RING);
            assert_eq!(turns(&mut *driver, RX_RING as usize).len(), RX_RING as usize);
            let counters = counters(&*driver);
            assert_eq!(counters[&("af_xdp_rx_packets_total", "")], round * u64::from(RX_RING));
            assert_eq!(counters[&("af_xdp_rx_drops_total", "ring_full")], 0);
            assert_eq!(counters[&("af_xdp_rx_drops_total", "no_frame")], 0);
        }
        arrive(RX_RING + BEYOND);
        assert_eq!(turns(&mut *driver, RX_RING as usize).len(), RX_RING as usize);
        let counters = counters(&*driver);
        assert_eq!(counters[&("af_xdp_rx_drops_total", "ring_full")], u64::from(BEYOND));
    });
}

/// More in one turn than there is memory for, and longer than the way allows: what finds no room
/// leaves through the sockets, and nothing is lost.
#[test]
fn what_finds_no_room_leaves_through_the_sockets() {
    if let Some(why) = missing() {
        return skip("what_finds_no_room_leaves_through_the_sockets", &why);
    }
    let world = World::new(1);
    let streams = plain(&world);
    world.here(|| {
        let fast = start(&world, &streams, 1);
        let mut driver = shard(&fast, &streams[0], 0, Choice::Auto);
        driver.wait(Duration::ZERO).unwrap();
        let out = Stream::ports(0).1;
        let mut queue = TxQueue::default();
        let packet = |queue: &mut TxQueue, to, length: usize| {
            let egress = Egress::Media { port: out, to };
            queue.push(egress, Token::default(), &vec![0x80; length]);
        };
        const PACKETS: u64 = 3_000;
        for _ in 0..PACKETS {
            packet(&mut queue, streams[0].to, 172);
        }
        // Too long for one Ethernet frame; and to somewhere else.
        packet(&mut queue, streams[0].to, 1_600);
        let mut elsewhere = streams[0].to;
        elsewhere.set_port(9);
        packet(&mut queue, elsewhere, 172);
        driver.send(&queue, &mut |_, error| panic!("{error}"));
        let counters = counters(&*driver);
        let taken = counters[&("af_xdp_tx_packets_total", "")];
        let left = counters[&("af_xdp_tx_by_sockets_total", "no_room")];
        assert_eq!(taken + left, PACKETS);
        assert!(taken >= 256, "{counters:?}");
        assert_eq!(counters[&("af_xdp_tx_by_sockets_total", "no_next_hop")], 1);
        assert_eq!(counters[&("io_tx_datagrams_total", "")], left + 2);
        // What the interface took is what we counted.
        let sent = |name: &str| {
            let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
            line.split_whitespace().nth(10).unwrap().parse::<u64>().unwrap()
        };
        let until = Instant::now() + WITHIN;
        // The long one leaves in two fragments or not at all, neighbours are asked for.
        while sent("d0:") < PACKETS + 1 {
            assert!(Instant::now() < until, "{} of {PACKETS}", sent("d0:"));
            driver.wait(Duration::from_millis(1)).unwrap();
            driver.send(&TxQueue::default(), &mut |_, error| panic!("{error}"));
        }
        // The interface goes down: the sockets hear of it, and say so.
        run("ip link set d0 down");
        let mut refused = 0;
        queue.clear();
        packet(&mut queue, streams[0].to, 172);
        driver.send(&queue, &mut |_, _| refused += 1);
        driver.send(&queue, &mut |_, _| refused += 1);
        assert!(refused >= 1, "{:?}", counters);
    });
}

/// Packets of the first stream that leave in one turn.
fn leaving(stream: &Stream, packets: usize) -> TxQueue {
    let mut queue = TxQueue::default();
    for _ in 0..packets {
        let egress = Egress::Media { port: Stream::ports(0).1, to: stream.to };
        queue.push(egress, Token::default(), &[0x80; 172]);
    }
    queue
}

/// The frames of what was sent are used again: many more packets than there are frames leave by
/// AF_XDP, turn after turn.
#[test]
fn frames_of_sent_packets_come_back() {
    if let Some(why) = missing() {
        return skip("frames_of_sent_packets_come_back", &why);
    }
    const TURNS: u64 = 40;
    const PACKETS: u64 = 100;
    let world = World::new(1);
    let streams = plain(&world);
    world.here(|| {
        let fast = start(&world, &streams, 1);
        let mut driver = shard(&fast, &streams[0], 0, Choice::Auto);
        driver.wait(Duration::ZERO).unwrap();
        let queue = leaving(&streams[0], PACKETS as usize);
        for _ in 0..TURNS {
            driver.send(&queue, &mut |_, error| panic!("{error}"));
        }
        let counters = counters(&*driver);
        assert_eq!(counters[&("af_xdp_tx_packets_total", "")], TURNS * PACKETS);
        assert_eq!(counters[&("af_xdp_tx_by_sockets_total", "no_room")], 0);
        assert_eq!(counters[&("io_tx_datagrams_total", "")], 0);
    });
}

/// A neighbour with another hardware address: what leaves by AF_XDP goes there, too.
#[test]
fn a_moved_next_hop_is_followed() {
    if let Some(why) = missing() {
        return skip("a_moved_next_hop_is_followed", &why);
    }
    const MOVED: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
    let world = World::new(1);
    let streams = plain(&world);
    world.here(|| {
        let fast = start(&world, &streams, 1);
        let mut driver = shard(&fast, &streams[0], 0, Choice::Auto);
        let queue = leaving(&streams[0], 1);
        let (port, frames) = (streams[0].to.port().to_be_bytes(), 14 + 20 + 8 + 172);
        let leave = |driver: &mut dyn Driver, turns: u64| {
            let capture = Capture::start(&world, "p0");
            driver.wait(Duration::ZERO).unwrap();
            driver.send(&queue, &mut |_, error| panic!("{error}"));
            let left = counters(driver)[&("af_xdp_tx_packets_total", "")];
            assert_eq!(left, turns, "by AF_XDP");
            let of_stream = |frame: &[u8]| frame.len() == frames && frame[36..38] == port;
            capture.frames_until(of_stream).pop().expect("it came")[..6].to_vec()
        };
        assert_eq!(leave(&mut *driver, 1), PEER);
        let (_, moved) = fast.hop_changes();
        world.neighbour("d0", &streams[0].to.ip().to_string(), MOVED);
        let until = Instant::now() + WITHIN;
        while fast.hop_changes().1 == moved {
            assert!(Instant::now() < until, "nobody saw it");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(leave(&mut *driver, 2), MOVED);
    });
}

/// A card whose ring is full gives no frame back: what is to leave takes the sockets, and arrives.
#[test]
fn what_a_full_send_ring_does_not_take_leaves_through_the_sockets() {
    if let Some(why) = missing() {
        return skip("what_a_full_send_ring_does_not_take_leaves_through_the_sockets", &why);
    }
    let world = World::new(1);
    let streams = plain(&world);
    world.here(|| {
        let fast = start(&world, &streams, 1);
        let mut driver = shard(&fast, &streams[0], 0, Choice::Auto);
        driver.wait(Duration::ZERO).unwrap();
        let mut queue = TxQueue::default();
        for _ in 0..20 {
            let egress = Egress::Media { port: Stream::ports(0).1, to: streams[0].to };
            queue.push(egress, Token::default(), &[0x80; 172]);
        }
        for (starved, by_af_xdp, by_sockets) in [(false, 20, 0), (true, 20, 20), (false, 40, 20)] {
            STARVED.with(|flag| flag.set(starved));
            driver.send(&queue, &mut |_, error| panic!("{error}"));
            let counters = counters(&*driver);
            assert_eq!(counters[&("af_xdp_tx_packets_total", "")], by_af_xdp);
            assert_eq!(counters[&("af_xdp_tx_by_sockets_total", "no_room")], by_sockets);
            assert_eq!(counters[&("io_tx_datagrams_total", "")], by_sockets);
        }
    });
}

/// Without a socket of its shard the program lets packets pass, to the ordinary sockets: so media
/// goes on when a process was killed, whose AF_XDP sockets end with it.
#[test]
fn without_af_xdp_sockets_packets_take_the_others() {
    if let Some(why) = missing() {
        return skip("without_af_xdp_sockets_packets_take_the_others", &why);
    }
    let world = World::new(1);
    let streams = plain(&world);
    world.here(|| {
        let fast = start(&world, &streams, 1);
        let mut driver = shard(&fast, &streams[0], 0, Choice::Auto);
        send(&world, &streams[0], 5);
        turns(&mut *driver, 5);
        assert_eq!(counters(&*driver)[&("af_xdp_rx_packets_total", "")], 5);
        // The shard is gone with its sockets; its flow stays, and another one has the port.
        drop(driver);
        // The kernel winds them up a moment later, with the ring that watched them.
        let until = Instant::now() + WITHIN;
        while verdict(&fast, "pass_no_af_xdp") == 0 {
            assert!(Instant::now() < until, "the sockets are still there");
            send(&world, &streams[0], 1);
        }
        let options = DriverOptions { media_ports_max: 64, ..DriverOptions::default() };
        let mut plain = driver::open(Choice::Auto, &options).unwrap().driver;
        while let Err(error) = plain.open_media(Stream::ports(0).0, streams[0].local) {
            assert!(Instant::now() < until, "{error}");
        }
        let before = verdict(&fast, "pass_no_af_xdp");
        send(&world, &streams[0], 5);
        assert_eq!(turns(&mut *plain, 5).len(), 5);
        assert_eq!(verdict(&fast, "pass_no_af_xdp") - before, 5);
    });
}

/// Datagrams that are longer than a media datagram may be, on an interface whose frames are longer
/// still: the program leaves them to the sockets, where each is told with its port and sender, and
/// counted; the longest that may be comes whole by AF_XDP, before and after.
#[test]
fn a_datagram_longer_than_media_may_be_is_told_and_counted() {
    let name = "a_datagram_longer_than_media_may_be_is_told_and_counted";
    if let Some(why) = missing() {
        return skip(name, &why);
    }
    for choice in [Choice::Auto, Choice::Mmsg] {
        let world = World::new(1);
        for (space, device) in [(&world.peer, "p0"), (&world.here, "d0")] {
            run(&format!("ip -n {space} link set {device} mtu 3000"));
        }
        let streams = plain(&world);
        let stream = &streams[0];
        world.here(|| {
            let fast = start(&world, &streams, 1);
            let mut driver = shard(&fast, stream, 0, choice);
            let here = World::mac(&world.here, "d0");
            let lengths = [0, 1, 0, 900, 0].map(|more| MEDIA_DATAGRAM_MAX_BYTES + more);
            World::inside(&world.peer, || {
                let injector = Injector::new(&["p0"]);
                for (sequence, length) in (0..).zip(lengths) {
                    injector.send("p0", &media(stream, sequence, length, here));
                }
            });
            let (mut came, until) = (Vec::new(), Instant::now() + WITHIN);
            while came.len() < lengths.len() {
                assert!(Instant::now() < until, "{came:?} of {lengths:?}");
                driver.wait(Duration::from_millis(100)).unwrap();
                driver.receive(&mut |rx| {
                    let (meta, length) = match rx {
                        Rx::Datagram { meta, bytes, .. } => (meta, Some(bytes.len())),
                        Rx::TooLong { meta } => (meta, None),
                        Rx::Coming { .. } => return,
                        other => panic!("{other:?}"),
                    };
                    assert_eq!(meta.source, stream.source);
                    assert_eq!(meta.local, Local::Media { port: Stream::ports(0).0 });
                    came.push(length);
                });
            }
            let longest = Some(MEDIA_DATAGRAM_MAX_BYTES);
            came.sort_unstable();
            assert_eq!(came, [None, None, longest, longest, longest]);
            let counters = counters(&*driver);
            assert_eq!(counters[&("af_xdp_rx_packets_total", "")], 3);
            assert_eq!(counters[&("io_rx_truncated_total", "")], 2);
            assert_eq!(verdict(&fast, "pass_packet"), 2);
        });
    }
}

/// A frame with RTP of a stream whose datagram is `length` octets long.
pub(super) fn media(stream: &Stream, sequence: u16, length: usize, here: [u8; 6]) -> Vec<u8> {
    let payload = vec![7; length - RTP_HEAD];
    let rtp = rtp(0x80, 0, sequence, stream.flow(0).ssrc, &payload);
    good(stream, rtp, here).frame()
}

/// The kernel's number of an interface of a world.
fn index_of(world: &World, name: &str) -> u32 {
    let words = ["-n", &world.here, "-o", "link", "show", name];
    let output = std::process::Command::new("ip").args(words).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(':').next().unwrap().parse().unwrap()
}

/// An interface with more queues than may have sockets, and more memory than there may be: those that
/// may have some, the rest is told. The product's own numbers would take gigabytes.
#[test]
fn queues_beyond_a_limit_are_told_and_not_passed_over() {
    let name = "queues_beyond_a_limit_are_told_and_not_passed_over";
    if let Some(why) = missing() {
        return skip(name, &why);
    }
    const MIB: usize = 1 << 20;
    let world = World::new(1);
    let here = &world.here;
    let three = "numrxqueues 3 numtxqueues 3";
    run(&format!("ip -n {here} link add q0 {three} type veth peer name q1 {three}"));
    run(&format!("ip -n {here} link set q0 up"));
    let streams = plain(&world);
    world.here(|| {
        let fast = start(&world, &streams, 1);
        let index = index_of(&world, "q0");
        let wanted = Wanted {
            interface: index,
            name: "q0".into(),
            mtu: 1_500,
            partial: true,
            is_made_of_others: false,
        };
        let map = fast.sockets_map();
        for (queues, memory_bytes, bound, short) in [
            (QUEUES_MAX, 1_024 * MIB, 3, None),
            (3, 1_024 * MIB, 3, None),
            (2, 1_024 * MIB, 2, Some(Short::Queues)),
            (QUEUES_MAX, 18 * MIB, 2, Some(Short::Memory)),
        ] {
            let limits = Limits { queues, memory_bytes };
            let wanted = [
                Wanted { name: "none".into(), is_made_of_others: true, ..wanted.clone() },
                wanted.clone(),
            ];
            let (stations, all) = bind_within(limits, &wanted, 1, &map);
            let [made, found] = &all[..] else { panic!("{all:?}") };
            assert_eq!(
                (found.queues, found.short.as_ref().map(|(why, _)| *why)),
                (bound, short),
                "{found:?}"
            );
            assert_eq!(made.short.as_ref().map(|(why, _)| *why), Some(Short::MadeOfOthers));
            drop(stations);
        }
    });
}
