//! What the machine around the fast path may be like: interfaces that stall, long frames, maps of
//! others, pins that are gone, an edge that goes without.

use super::differential::{start, start_noting};
use super::packet::{Packet, rtp};
use super::survival::{
    LOCAL, Peers, RECEIVER, SENDER, SSRC, attached, audio, parse, spawn, stream, take_over,
    wait_for_hop, world,
};
use super::world::{Injector, World, missing, run, skip};
use crate::sys::thread::{become_real_time, pin_to};
use crate::xdp::netlink::Netlink;
use crate::xdp::{FastPath, FastSample, Mode, Reason, take_down};
use ravelin_engine::port::{FastChange, FastFlow, FastKind, MediaPortId};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// As long as a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn sample(fast: &FastPath, name: &str, reason: &str) -> u64 {
    let mut found = None;
    fast.samples(&mut |FastSample { name: this, label, value, .. }| {
        if this == name && label.is_none_or(|(_, this)| this == reason) {
            found = Some(value);
        }
    });
    found.unwrap()
}

pub(super) fn wait_until(what: &str, mut there: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !there() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn pins(world: &World) -> PathBuf {
    Path::new("/sys/fs/bpf/ravelin").join(&world.node)
}

/// Whom it is for drops a packet with a wrong UDP checksum, as the socket would have here.
#[test]
fn a_receiver_drops_what_arrived_with_a_wrong_checksum() {
    let name = "a_receiver_drops_what_arrived_with_a_wrong_checksum";
    if let Some(why) = missing() {
        return skip(name, &why);
    }
    let world = world();
    let peers = Peers::new(&world);
    let (to, from) = (World::mac(&world.here, "d0"), World::mac(&world.peer, "p0"));
    world.here(|| {
        let fast = start(&world, &[stream()]);
        let mut driver = take_over(&fast);
        wait_for_hop(&fast);
        let mut came = Vec::new();
        let mut buffer = [0; 2_048];
        World::inside(&world.peer, || {
            let injector = Injector::new(&["p0"]);
            for sequence in 0..100_u16 {
                let mut packet = Packet {
                    target_mac: to,
                    source_mac: from,
                    vlan: None,
                    from: parse(SENDER),
                    to: parse(LOCAL),
                    payload: audio(sequence),
                    tos: 0,
                    ttl: 64,
                    fragment: 0,
                    options: Vec::new(),
                    extension: None,
                    udp_checksum: None,
                    ip_checksum: None,
                    udp_length_off: 0,
                    ip_length_off: 0,
                    trailer: 0,
                    cut: 0,
                };
                if sequence % 2 == 1 {
                    packet.udp_checksum = Some(0x1000 + sequence);
                }
                injector.send("p0", &packet.frame());
                // As they come: the receiver has room for few of these frames. After a wrong one,
                // what was sent last has to be what comes next.
                if sequence % 2 == 0
                    && let Ok(length) = peers.receiver.recv(&mut buffer)
                {
                    came.push(buffer[..length].to_vec());
                }
            }
        });
        while let Ok(length) = peers.receiver.recv(&mut buffer) {
            came.push(buffer[..length].to_vec());
        }
        let right: Vec<_> = (0..100).step_by(2).map(audio).collect();
        assert_eq!(came, right);
        let mut counts = Vec::new();
        driver.fast_counts(&mut counts);
        assert_eq!(counts[0].packets, 100, "all went on, the wrong ones wrong");
    });
}

/// A veth's other end that is readied after the first test frames were lost is found all the same.
#[test]
fn an_interface_whose_other_end_is_late_is_not_given_up() {
    if let Some(why) = missing() {
        return skip("an_interface_whose_other_end_is_late_is_not_given_up", &why);
    }
    let world = world();
    world.here(|| {
        let prober = Injector::new(&[]).prober();
        run(&format!("ip netns exec {} ethtool -K p0 gro off", world.peer));
        let mut netlink = Netlink::open().unwrap();
        let links = netlink.links().unwrap();
        let link = links.iter().find(|link| link.name == "d0").unwrap();
        let refused = prober.try_link(&mut netlink, link, Duration::ZERO).unwrap_err();
        assert!(refused.contains("does not take frames"), "{refused}");
        let found = thread::scope(|scope| {
            let late = scope.spawn(|| prober.try_link(&mut netlink, link, PATIENCE));
            // Most often the first frames are lost by then.
            thread::sleep(Duration::from_millis(20));
            run(&format!("ip netns exec {} ethtool -K p0 gro on", world.peer));
            late.join().unwrap()
        });
        assert_eq!(found, Ok(()));
    });
}

/// The thread that takes packets at the other end of a veth does not run, as on a machine with too much
/// to do: the frames wait in its ring, and the interface is no deaf one. Here the thread may use one
/// core, and another of higher priority keeps that core until the answer is there.
#[test]
fn an_interface_whose_other_end_does_not_run_is_not_deaf() {
    let name = "an_interface_whose_other_end_does_not_run_is_not_deaf";
    /// As long as the core is kept at most: nobody else's work there waits longer.
    const KEPT: Duration = Duration::from_millis(500);
    if let Some(why) = missing() {
        return skip(name, &why);
    }
    if thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        return skip(name, "one core alone cannot be taken");
    }
    let world = world();
    let before = napi_threads();
    let threaded = "echo 1 > /sys/class/net/p0/threaded";
    let inside = ["netns", "exec", &world.peer, "sh", "-c", threaded];
    if !Command::new("ip").args(inside).status().unwrap().success() {
        return skip(name, "this kernel has no threads for NAPI");
    }
    let threads: Vec<_> = napi_threads().difference(&before).cloned().collect();
    assert!(!threads.is_empty(), "no thread takes the packets of p0");
    for thread in &threads {
        run(&format!("taskset -p 1 {thread}"));
    }
    let answered = AtomicBool::new(false);
    let (go, started) = mpsc::channel::<()>();
    let (keeps, kept) = mpsc::channel::<()>();
    let tried = thread::scope(|scope| {
        let answered = &answered;
        let keeper = scope.spawn(move || {
            // Whoever asks may have failed before.
            let _ = started.recv();
            let ready = pin_to(0).and_then(|()| become_real_time());
            let _ = keeps.send(());
            let until = Instant::now() + KEPT;
            while ready.is_ok() && !answered.load(Ordering::Relaxed) && Instant::now() < until {
                std::hint::spin_loop();
            }
            ready.map_err(|error| format!("core 0 cannot be taken: {error}"))
        });
        let tried = world.here(move || {
            let prober = Injector::new(&[]).prober();
            let mut netlink = Netlink::open().unwrap();
            let links = netlink.links().unwrap();
            let link = links.iter().find(|link| link.name == "d0").unwrap();
            go.send(()).unwrap();
            kept.recv().unwrap();
            let tried = prober.try_link(&mut netlink, link, Duration::ZERO);
            answered.store(true, Ordering::Relaxed);
            tried
        });
        keeper.join().unwrap().map(|()| tried)
    });
    match tried {
        Ok(taken) => assert_eq!(taken, Ok(())),
        Err(why) => skip(name, &why),
    }
}

/// Threads of the kernel that take packets from interfaces named p0.
fn napi_threads() -> BTreeSet<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let names = all.filter(|entry| {
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        name.starts_with("napi/p0-")
    });
    names.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The other end of a veth stops taking frames while streams run: they go to the sockets, and come
/// back when it is ready again.
#[test]
fn an_interface_that_stalls_is_left_to_the_sockets() {
    if let Some(why) = missing() {
        return skip("an_interface_that_stalls_is_left_to_the_sockets", &why);
    }
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let world = world();
    let mut peers = Peers::new(&world);
    world.here(|| {
        let fast = start_noting(&world, &[stream()], |level, text| {
            SAID.lock().unwrap().push(format!("{level}: {text}"));
        });
        let said = |line: &str| SAID.lock().unwrap().iter().any(|said| said == line);
        let mut driver = take_over(&fast);
        wait_for_hop(&fast);
        assert_eq!(peers.pass(100), 100);
        assert_eq!(sample(&fast, "fast_interfaces_stalled", ""), 0);
        run(&format!("ip netns exec {} ethtool -K p0 gro off", world.peer));
        wait_until("it is not found", || sample(&fast, "fast_interfaces_stalled", "") == 1);
        let no_more = "takes no frames now: what would leave there takes the sockets";
        assert!(said(&format!("warning: the other end of d0 {no_more}")));
        let before = sample(&fast, "fast_packets_left_total", "pass_next_hop");
        // Nobody relays them here, but the program left them to who would.
        peers.pass(50);
        assert_eq!(sample(&fast, "fast_packets_left_total", "pass_next_hop") - before, 50);
        run(&format!("ip netns exec {} ethtool -K p0 gro on", world.peer));
        wait_until("it does not come back", || sample(&fast, "fast_interfaces_stalled", "") == 0);
        assert!(said("info: the other end of d0 takes frames again"));
        assert_eq!(peers.pass(100), 100);
        driver.fast_counts(&mut Vec::new());
    });
}

/// With frames too long for its driver's mode a veth serves in generic mode; what is longer than a
/// media datagram may be goes to the sockets, which refuse it.
#[test]
fn jumbo_frames_leave_generic_mode() {
    if let Some(why) = missing() {
        return skip("jumbo_frames_leave_generic_mode", &why);
    }
    let world = world();
    run(&format!("ip -n {} link set p0 mtu 9000", world.peer));
    run(&format!("ip -n {} link set d0 mtu 9000", world.here));
    let mut peers = Peers::new(&world);
    world.here(|| {
        let fast = start(&world, &[stream()]);
        assert_eq!(fast.serving()[0].mode, Mode::Generic);
        let reason = fast.reasons().iter().find(|why| matches!(why, Reason::NoNative { .. }));
        assert!(reason.is_some(), "{:?}", fast.reasons());
        let _driver = take_over(&fast);
        wait_for_hop(&fast);
        assert_eq!(peers.pass(100), 100);
        let long = rtp(0x80, 0, 500, SSRC, &[1; 4_000]);
        World::inside(&world.peer, || peers.send(&long));
        wait_until("it is not counted", || {
            sample(&fast, "fast_packets_left_total", "pass_packet") == 1
        });
        assert_eq!(peers.pass(100), 100);
    });
}

/// Maps at our place that are not ours, as of a release that was built otherwise, are replaced.
#[test]
fn maps_of_another_shape_are_replaced() {
    if let Some(why) = missing() {
        return skip("maps_of_another_shape_are_replaced", &why);
    }
    let world = world();
    let mut peers = Peers::new(&world);
    world.here(|| {
        drop(start(&world, &[stream()]));
        for (number, (map, entries)) in
            [("flows", 8_u32), ("counts", 8), ("ports", 8), ("verdicts", 2)].into_iter().enumerate()
        {
            let current = format!("layout-{}-1024", crate::xdp::layout::LAYOUT);
            let old = pins(&world).join("layout-1-64");
            let folder = pins(&world).join(current);
            std::fs::create_dir_all(&old).unwrap();
            std::fs::create_dir_all(&folder).unwrap();
            let mut loader = aya::EbpfLoader::new();
            loader.map_max_entries(map, entries);
            loader.map_pin_path(map, folder.join(map)).map_pin_path("sockets", old.join("sockets"));
            let foreign = loader.load(aya::include_bytes_aligned!("../../../bpf/relay.o")).unwrap();
            assert!(folder.join(map).exists() && old.join("sockets").exists());
            drop(foreign);
            let fast = start(&world, &[stream()]);
            assert!(fast.is_pinned() && !old.exists(), "{map}");
            let _driver = take_over(&fast);
            wait_for_hop(&fast);
            assert_eq!(peers.pass(50), 50, "{number} {map}");
        }
    });
}

/// Where the pins are gone, as with a mount of its own that ended with the process, streams are
/// taken over by the program that is attached.
#[test]
fn streams_without_pins_are_adopted_by_the_program() {
    if let Some(why) = missing() {
        return skip("streams_without_pins_are_adopted_by_the_program", &why);
    }
    let world = world();
    let mut peers = Peers::new(&world);
    let (mut first, _output, _) = spawn(&world);
    assert_eq!(peers.pass(100), 100);
    first.kill().unwrap();
    first.wait().unwrap();
    std::fs::remove_dir_all(pins(&world)).unwrap();
    assert_eq!(peers.pass(100), 100, "the program needs no pins");
    let (mut second, _output, ready) = spawn(&world);
    assert_eq!(ready, "adopted=1 packets=200");
    assert_eq!(peers.pass(100), 100);
    drop(second.stdin.take());
    assert!(second.wait().unwrap().success());
    assert!(!attached(&world) && !pins(&world).exists());
}

/// An edge that goes without the fast path takes down what a killed one of its name left, and leaves
/// alone what is another's.
#[test]
fn an_edge_without_the_fast_path_takes_down_what_was_left() {
    let name = "an_edge_without_the_fast_path_takes_down_what_was_left";
    if let Some(why) = missing() {
        return skip(name, &why);
    }
    for pinned in [true, false] {
        let world = world();
        let mut peers = Peers::new(&world);
        let (mut first, _output, _) = spawn(&world);
        first.kill().unwrap();
        first.wait().unwrap();
        if !pinned {
            std::fs::remove_dir_all(pins(&world)).unwrap();
        }
        assert_eq!(peers.pass(50), 50);
        assert_eq!(world.here(|| take_down("another")), Ok(None));
        assert_eq!(peers.pass(50), 50);
        let taken = world.here(|| take_down(&world.node)).unwrap().unwrap();
        assert_eq!((taken.interfaces, taken.pins), (vec!["d0".to_owned()], pinned));
        assert_eq!(taken.refused, Vec::<String>::new());
        assert!(!attached(&world) && !pins(&world).exists());
        assert_eq!(peers.pass(20), 0, "nobody forwards any more");
        assert_eq!(world.here(|| take_down(&world.node)), Ok(None));
    }
}

/// Streams between IPv4 and IPv6 stay with the sockets, and it can be seen.
#[test]
fn streams_between_the_families_are_counted() {
    if let Some(why) = missing() {
        return skip("streams_between_the_families_are_counted", &why);
    }
    let world = world();
    world.here(|| {
        let fast = start(&world, &[stream()]);
        let mut driver = take_over(&fast);
        assert_eq!(sample(&fast, "fast_flows", ""), 1);
        assert_eq!(sample(&fast, "fast_flows_refused_total", "address_family"), 0);
        for (count, to) in [(1, parse("[fd95:6::2]:5000")), (1, parse(RECEIVER))] {
            let flow = FastFlow {
                source: parse(SENDER),
                ssrc: SSRC,
                kind: FastKind::Forward { out: MediaPortId(2), to, dscp: None },
                epoch: 2,
                clock_hz: 8_000,
                payload_types_to_user: [0xff; 2],
            };
            driver.program(&[FastChange::Set { port: MediaPortId(0), flow }]);
            assert_eq!(sample(&fast, "fast_flows_refused_total", "address_family"), count);
            assert_eq!(sample(&fast, "fast_flows", ""), u64::from(to.is_ipv4()));
        }
    });
}
