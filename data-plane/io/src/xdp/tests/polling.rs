//! Busy shards look at their queues themselves, and the kernel's own look is put off meanwhile and only
//! then.

use super::differential::{Stream, plain};
use super::packet::rtp;
use super::world::{Injector, World, missing, run, skip};
use crate::driver::{self, Choice, Driver, Options as DriverOptions};
use crate::sys::napi::Poller;
use crate::xdp::netdev::{Deferral, Netdev, Queue};
use crate::xdp::netlink::Netlink;
use crate::xdp::polling::{BUSY, DEFERRED};
use crate::xdp::{FastPath, Options, Reason, take_down};
use ravelin_engine::port::{FastChange, FastFlow, FastKind, ShardId};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Generous: a test waits for a fact, not for a time.
const WITHIN: Duration = Duration::from_secs(20);
/// Longest that the kernel can put it off; what is to be seen has to be seen before.
const LONG: Deferral = Deferral { looks: 1, nanos: u32::MAX };
const SEEN_WITHIN: Duration = Duration::from_secs(4);

/// Why this machine cannot poll.
fn cannot() -> Option<String> {
    if let Some(why) = missing() {
        return Some(why);
    }
    if let Err(error) = Poller::new() {
        return Some(format!("io_uring polls no queues by number (kernel 6.13): {error}"));
    }
    Netdev::open().err().map(|error| format!("no netdev family (kernel 6.13): {error}"))
}

/// The queues of d0, in its namespace.
fn queues() -> Vec<Queue> {
    let links = Netlink::open().unwrap().links().unwrap();
    let index = links.iter().find(|link| link.name == "d0").unwrap().index;
    Netdev::open().unwrap().queues(index).unwrap()
}

fn set(deferral: Deferral) {
    for queue in queues() {
        Netdev::open().unwrap().set(queue.id, deferral).unwrap();
    }
}

fn wait_for(deferral: Deferral, mut meanwhile: impl FnMut()) {
    let until = Instant::now() + WITHIN;
    loop {
        let queues = queues();
        assert!(!queues.is_empty(), "no queue");
        if queues.iter().all(|queue| queue.deferral == deferral) {
            return;
        }
        assert!(Instant::now() < until, "{queues:?} instead of {deferral:?}");
        meanwhile();
        thread::sleep(Duration::from_millis(1));
    }
}

fn start(world: &World, stream: &Stream) -> (Arc<FastPath>, Box<dyn Driver>) {
    start_with(world, stream, |_, _| {})
}

fn start_with(
    world: &World,
    stream: &Stream,
    note: fn(&'static str, &str),
) -> (Arc<FastPath>, Box<dyn Driver>) {
    let options = Options {
        node: world.node.clone(),
        addresses: vec![stream.local.ip()],
        ports: 64,
        shards: 1,
        native_only: false,
        note,
    };
    let fast = FastPath::start(&options).map_err(|reasons| format!("{reasons:?}")).unwrap();
    let fast = Arc::new(fast);
    let options = DriverOptions { media_ports_max: 64, ..DriverOptions::default() };
    let mut driver = fast.around(driver::open(Choice::Auto, &options).unwrap().driver, ShardId(0));
    let (port, out) = Stream::ports(0);
    driver.open_media(port, stream.local).unwrap();
    driver.open_media(out, stream.out).unwrap();
    let kind = FastKind::Deliver { out, to: stream.to };
    driver.program(&[FastChange::Set { port, flow: FastFlow { kind, ..stream.flow(0) } }]);
    let until = Instant::now() + WITHIN;
    while fast.without_next_hop() > 0 {
        assert!(Instant::now() < until, "no next hop");
        thread::sleep(Duration::from_millis(1));
    }
    (fast, driver)
}

fn send(world: &World, stream: &Stream, packets: u16) {
    let here = World::mac(&world.here, "d0");
    World::inside(&world.peer, || {
        let injector = Injector::new(&["p0"]);
        for sequence in 0..packets {
            let payload = rtp(0x80, 0, sequence, stream.flow(0).ssrc, &[7; 160]);
            injector.send("p0", &super::differential::good(stream, payload, here).frame());
        }
    });
}

/// What a turn finds without waiting.
fn turn(driver: &mut dyn Driver) -> usize {
    driver.wait(Duration::ZERO).unwrap();
    driver.receive(&mut |_| {})
}

fn turns(driver: &mut dyn Driver) {
    while turn(driver) > 0 {}
}

fn polls(driver: &dyn Driver) -> u64 {
    let mut found = None;
    driver.counts(&mut |count| {
        if count.name == "af_xdp_polls_total" {
            found = Some(count.value);
        }
    });
    found.unwrap()
}

#[test]
fn a_busy_shard_finds_what_the_kernel_has_not_looked_at() {
    let name = "a_busy_shard_finds_what_the_kernel_has_not_looked_at";
    if let Some(why) = cannot() {
        return skip(name, &why);
    }
    const PACKETS: u16 = 40;
    let world = World::new(1);
    let stream = plain(&world).remove(0);
    world.here(|| {
        let (_fast, mut driver) = start(&world, &stream);
        set(LONG);
        let until = Instant::now() + WITHIN;
        loop {
            assert!(Instant::now() < until, "never undisturbed for {SEEN_WITHIN:?}");
            // The kernel looks, at once or when what it put off before is due, and then not for long:
            // counted from the last turn that found nothing, since when it has looked.
            BUSY.set(false);
            let mut began = Instant::now();
            send(&world, &stream, 1);
            loop {
                let now = Instant::now();
                assert!(now < until, "nothing arrives");
                if turn(&mut *driver) > 0 {
                    break;
                }
                began = now;
            }
            send(&world, &stream, PACKETS);
            let idle = turn(&mut *driver);
            BUSY.set(true);
            let mut busy = 0;
            while busy < usize::from(PACKETS) && began.elapsed() < SEEN_WITHIN {
                busy += turn(&mut *driver);
            }
            // Later than that the kernel may have looked.
            if began.elapsed() < SEEN_WITHIN {
                assert_eq!((idle, busy), (0, usize::from(PACKETS)));
                break;
            }
        }
        assert!(polls(&*driver) > 0);
        // What somebody has set stays as it is.
        assert!(queues().iter().all(|queue| queue.deferral == LONG));
        drop((driver, _fast));
        assert!(queues().iter().all(|queue| queue.deferral == LONG));
    });
}

#[test]
fn the_kernel_is_told_when_shards_begin_and_end_to_poll() {
    let name = "the_kernel_is_told_when_shards_begin_and_end_to_poll";
    if let Some(why) = cannot() {
        return skip(name, &why);
    }
    let world = World::new(1);
    let stream = plain(&world).remove(0);
    world.here(|| {
        let immediate = Deferral::default();
        // As a killed process leaves it.
        set(DEFERRED);
        let (fast, mut driver) = start(&world, &stream);
        wait_for(immediate, || {});
        turn(&mut *driver);
        assert_eq!(polls(&*driver), 0, "an idle shard does not poll");
        BUSY.set(true);
        wait_for(DEFERRED, || turns(&mut *driver));
        BUSY.set(false);
        wait_for(immediate, || turns(&mut *driver));
        // A shard that ends while it polls.
        BUSY.set(true);
        wait_for(DEFERRED, || turns(&mut *driver));
        drop(driver);
        wait_for(immediate, || {});
        drop(fast);
    });
}

#[test]
fn an_orderly_end_while_a_shard_polls_leaves_nothing_put_off() {
    let name = "an_orderly_end_while_a_shard_polls_leaves_nothing_put_off";
    if let Some(why) = cannot() {
        return skip(name, &why);
    }
    let world = World::new(1);
    let stream = plain(&world).remove(0);
    world.here(|| {
        let (fast, mut driver) = start(&world, &stream);
        BUSY.set(true);
        wait_for(DEFERRED, || turns(&mut *driver));
        drop((driver, fast));
        assert!(queues().iter().all(|queue| queue.deferral == Deferral::default()));
    });
}

/// Whether the only shard polls, and the reason that is shown.
fn shown(fast: &FastPath) -> (u64, &'static str) {
    let mut found = None;
    fast.samples(&mut |sample| {
        if sample.name == "af_xdp_polling" {
            assert_eq!((sample.shard, found), (Some(0), None));
            found = Some((sample.value, sample.label.unwrap().1));
        }
    });
    found.unwrap()
}

fn wait_until_shown(fast: &FastPath, wanted: (u64, &str), mut meanwhile: impl FnMut()) {
    let until = Instant::now() + WITHIN;
    while shown(fast) != wanted {
        assert!(Instant::now() < until, "{:?} instead of {wanted:?}", shown(fast));
        meanwhile();
        thread::sleep(Duration::from_millis(1));
    }
}

/// Lines of the one test that reads them.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn note(level: &'static str, text: &str) {
    LINES.lock().unwrap().push(format!("{level}: {text}"));
}

#[test]
fn it_is_shown_why_a_shard_does_not_poll() {
    let name = "it_is_shown_why_a_shard_does_not_poll";
    if let Some(why) = cannot() {
        return skip(name, &why);
    }
    let world = World::new(1);
    let stream = plain(&world).remove(0);
    let lines = || LINES.lock().unwrap().clone();
    let begins = "info: a shard polls AF_XDP while it has more than 30000 packets a second";
    world.here(|| {
        let (fast, mut driver) = start_with(&world, &stream, note);
        wait_until_shown(&fast, (0, "rate"), || {});
        for _ in 0..2 {
            BUSY.set(true);
            wait_until_shown(&fast, (1, "polls"), || turns(&mut *driver));
            BUSY.set(false);
            wait_until_shown(&fast, (0, "rate"), || turns(&mut *driver));
        }
        BUSY.set(true);
        let until = Instant::now() + WITHIN;
        while lines().len() < 2 {
            assert!(Instant::now() < until, "{:?}", lines());
            turns(&mut *driver);
        }
        BUSY.set(false);
        drop((driver, fast));
        assert_eq!(lines(), [begins, "info: shard 0 polls AF_XDP"], "once, however often");
    });
    LINES.lock().unwrap().clear();
    // Native mode needs somebody at the other end who takes frames.
    run(&format!("ip netns exec {} ethtool -K p0 gro off", world.peer));
    world.here(|| {
        let (fast, mut driver) = start_with(&world, &stream, note);
        BUSY.set(true);
        wait_until_shown(&fast, (0, "interface"), || turns(&mut *driver));
        BUSY.set(false);
        drop((driver, fast));
    });
    let why = "no interface with AF_XDP is a veth in native mode";
    assert_eq!(lines(), [format!("info: busy shards do not poll AF_XDP: {why}")]);
}

/// What a killed process had put off is undone by one that goes without the fast path, and what
/// somebody else has set, or another's edge, stays.
#[test]
fn an_edge_without_the_fast_path_undoes_what_was_put_off() {
    let name = "an_edge_without_the_fast_path_undoes_what_was_put_off";
    if let Some(why) = cannot() {
        return skip(name, &why);
    }
    for detached in [false, true] {
        let world = super::survival::world();
        let (mut killed, _output, _) = super::survival::spawn(&world);
        world.here(|| set(DEFERRED));
        // Its shards may live and poll.
        assert!(matches!(world.here(|| take_down(&world.node)), Err(Reason::NodeInUse { .. })));
        assert_eq!(world.here(|| take_down("another")), Ok(None));
        world.here(|| wait_for(DEFERRED, || {}));
        killed.kill().unwrap();
        killed.wait().unwrap();
        if detached {
            run(&format!("ip -n {} link set d0 xdp off", world.here));
        }
        let taken = world.here(|| take_down(&world.node)).unwrap().unwrap();
        assert_eq!(taken.deferrals, world.here(queues).len(), "{taken:?}");
        assert_eq!(taken.interfaces.is_empty(), detached, "{taken:?}");
        assert_eq!(taken.refused, Vec::<String>::new());
        world.here(|| {
            assert!(queues().iter().all(|queue| queue.deferral == Deferral::default()));
            set(LONG);
            assert_eq!(take_down(&world.node), Ok(None));
            assert!(queues().iter().all(|queue| queue.deferral == LONG));
        });
    }
}
