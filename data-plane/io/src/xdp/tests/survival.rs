//! What the fast path does over time: neighbours that move, processes that are killed.

use super::differential::start;
use super::packet::rtp;
use super::world::{World, missing, run, skip};
use crate::driver::{self, Choice, Driver, Options};
use crate::sys::thread::pin_to;
use crate::xdp::FastPath;
use ravelin_engine::port::{FastChange, FastFlow, FastKind, MediaPortId, ShardId};
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CHILD: &str = "RAVELIN_TEST_XDP_NODE";
pub(super) const SSRC: u32 = 0x0a0b_0c0d;
pub(super) const LOCAL: &str = "10.95.6.1:20000";
pub(super) const OUT: &str = "10.95.6.1:20002";
pub(super) const SENDER: &str = "10.95.6.2:4000";
pub(super) const RECEIVER: &str = "10.95.6.2:5000";

/// A world whose peers are real: they answer ARP, and leave checksums to the hardware.
pub(super) fn world() -> World {
    let world = World::new(1);
    run(&format!("ip -n {} addr add 10.95.6.2/24 dev p0", world.peer));
    run(&format!("ip -n {} addr add 10.95.6.1/24 dev d0", world.here));
    world
}

pub(super) fn parse(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

pub(super) fn stream() -> super::differential::Stream {
    super::differential::Stream {
        local: parse(LOCAL),
        source: parse(SENDER),
        out: parse(OUT),
        to: parse(RECEIVER),
        dscp: None,
        device: "p0",
        vlan: None,
    }
}

pub(super) fn take_over(fast: &Arc<FastPath>) -> Box<dyn Driver> {
    let options = Options { media_ports_max: 8, ..Options::default() };
    let inner = driver::open(Choice::Auto, &options).unwrap().driver;
    let mut driver = fast.around(inner, ShardId(0));
    driver.open_media(MediaPortId(0), parse(LOCAL)).unwrap();
    driver.open_media(MediaPortId(2), parse(OUT)).unwrap();
    driver.program(&[FastChange::Set { port: MediaPortId(0), flow: flow() }]);
    driver
}

pub(super) fn flow() -> FastFlow {
    FastFlow {
        source: parse(SENDER),
        ssrc: SSRC,
        kind: FastKind::Forward { out: MediaPortId(2), to: parse(RECEIVER), dscp: None },
        epoch: 1,
        clock_hz: 8_000,
        payload_types_to_user: [0xff; 2],
    }
}

pub(super) fn wait_for_hop(fast: &FastPath) {
    let until = Instant::now() + Duration::from_secs(30);
    while fast.table().without_hop() > 0 {
        assert!(Instant::now() < until, "no next hop");
        thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn audio(sequence: u16) -> Vec<u8> {
    let content: Vec<u8> = (0..160_u16).map(|n| (n ^ sequence) as u8).collect();
    rtp(0x80, 0, sequence, SSRC, &content)
}

pub(super) struct Peers {
    sender: UdpSocket,
    pub(super) receiver: UdpSocket,
    next: u16,
}

impl Peers {
    pub(super) fn new(world: &World) -> Self {
        World::inside(&world.peer, || {
            let receiver = UdpSocket::bind(RECEIVER).unwrap();
            receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            Self { sender: UdpSocket::bind(SENDER).unwrap(), receiver, next: 0 }
        })
    }

    pub(super) fn send(&self, packet: &[u8]) {
        self.sender.send_to(packet, LOCAL).unwrap();
    }

    /// Sends packets at a steady pace and returns how many came out as they should, in order.
    pub(super) fn pass(&mut self, count: u16) -> u16 {
        u16::try_from(self.times(count).len()).unwrap()
    }

    /// As `pass`; of each packet that came, when it was not yet sent and when it had arrived.
    fn times(&mut self, count: u16) -> Vec<(Instant, Instant)> {
        let from = self.next;
        self.next += count;
        let sending = AtomicBool::new(true);
        let arrived = AtomicUsize::new(0);
        let (sent, received) = thread::scope(|scope| {
            let (receiver, sending, arrived) = (&self.receiver, &sending, &arrived);
            let received = scope.spawn(move || {
                let mut right = Vec::new();
                let mut buffer = [0; 2_048];
                while right.len() < usize::from(count) {
                    let last = !sending.load(Ordering::Acquire);
                    let Ok((length, source)) = receiver.recv_from(&mut buffer) else {
                        // What was sent before a whole wait began has come by now, or never will.
                        if last {
                            break;
                        }
                        continue;
                    };
                    let expected = audio(from + u16::try_from(right.len()).unwrap());
                    if source == parse(OUT) && buffer[..length] == expected {
                        right.push(Instant::now());
                        arrived.store(right.len(), Ordering::Release);
                    }
                }
                right
            });
            // A veth runs the program where its frames are sent, and the program counts for each core:
            // jitter between the packets that one core saw. A sender that the scheduler moves would
            // make two streams with gaps of one.
            assert!((0..1_024).any(|core| pin_to(core).is_ok()), "no core to run on");
            let mut sent = Vec::new();
            for sequence in from..from + count {
                // A receiver that is not run must not lose what its socket can not hold.
                let until = Instant::now() + Duration::from_secs(20);
                while sent.len() > arrived.load(Ordering::Acquire) + 64 && Instant::now() < until {
                    thread::sleep(Duration::from_millis(1));
                }
                sent.push(Instant::now());
                self.sender.send_to(&audio(sequence), LOCAL).unwrap();
                thread::sleep(Duration::from_micros(500));
            }
            sending.store(false, Ordering::Release);
            (sent, received.join().unwrap())
        });
        sent.into_iter().zip(received).collect()
    }
}

/// Between what bounds the jitter (RFC 3550 A.8) of packets lies that say 20 ms each, if each went
/// through the program at some time between its two.
fn jitter_bounds(times: &[(Instant, Instant)]) -> (u32, u32) {
    let ticks = |d: Duration| i64::try_from(d.as_nanos()).unwrap() * 8_000 / 1_000_000_000;
    let between = |from: Instant, to: Instant| {
        ticks(to.saturating_duration_since(from)) - ticks(from.saturating_duration_since(to))
    };
    let (mut low, mut high) = (0, 0);
    for pair in times.windows(2) {
        // Two ticks more: both times are cut down to whole ones.
        let least = between(pair[0].1, pair[1].0) - 160 - 2;
        let most = between(pair[0].0, pair[1].1) - 160 + 2;
        let nearest = if least <= 0 && most >= 0 { 0 } else { least.abs().min(most.abs()) };
        low += nearest - ((low + 8) >> 4);
        high += least.abs().max(most.abs()) - ((high + 8) >> 4);
    }
    (u32::try_from(low >> 4).unwrap(), u32::try_from(high >> 4).unwrap())
}

/// A local sender's checksums are not computed when its packets meet the program; the next hop is
/// found by ARP; and when the peer's hardware address changes, the stream heals.
#[test]
fn next_hops_are_found_and_followed() {
    if let Some(why) = missing() {
        return skip("next_hops_are_found_and_followed", &why);
    }
    let world = world();
    let mut peers = Peers::new(&world);
    world.here(|| {
        let fast = start(&world, &[stream()]);
        let mut driver = take_over(&fast);
        wait_for_hop(&fast);
        let times = peers.times(500);
        assert_eq!(times.len(), 500);
        let mut counts = Vec::new();
        driver.fast_counts(&mut counts);
        assert_eq!((counts[0].packets, counts[0].lost, counts[0].bytes), (500, 0, 500 * 172));
        let (low, high) = jitter_bounds(&times);
        assert!((low..=high).contains(&counts[0].jitter), "{low} to {high}: {counts:?}");

        run(&format!("ip -n {} link set p0 address 02:00:00:00:77:01", world.peer));
        let since = Instant::now();
        while peers.pass(1) == 0 {
            assert!(since.elapsed() < Duration::from_secs(30), "the stream does not heal");
        }
        assert_eq!(peers.pass(100), 100);
    });
}

/// What an operator has set for good stays so.
#[test]
fn a_permanent_neighbour_stays_permanent() {
    if let Some(why) = missing() {
        return skip("a_permanent_neighbour_stays_permanent", &why);
    }
    let world = world();
    let mac = "02:00:00:00:77:02";
    run(&format!("ip -n {} link set p0 address {mac}", world.peer));
    let entry = format!("10.95.6.2 dev d0 lladdr {mac} nud permanent");
    run(&format!("ip -n {} neigh replace {entry}", world.here));
    let mut peers = Peers::new(&world);
    world.here(|| {
        let fast = start(&world, &[stream()]);
        let _driver = take_over(&fast);
        wait_for_hop(&fast);
        // Longer than the time between two looks at the neighbours in use.
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(3) {
            assert_eq!(peers.pass(100), 100);
        }
    });
    let command = ["-n", &world.here, "neigh", "show", "10.95.6.2"];
    let output = Command::new("ip").args(command).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("PERMANENT"), "{shown}");
}

/// Not a test of its own: the process that is killed by the one below.
#[test]
fn process_that_is_killed() {
    let Ok(node) = std::env::var(CHILD) else { return };
    let options = crate::xdp::Options {
        node,
        addresses: vec![parse(LOCAL).ip()],
        ports: 8,
        shards: 1,
        native_only: false,
        note: |_, _| {},
    };
    let fast = Arc::new(FastPath::start(&options).map_err(|why| format!("{why:?}")).unwrap());
    let adopted = fast.adopted();
    let driver = take_over(&fast);
    wait_for_hop(&fast);
    let mut counts = Vec::new();
    let mut driver = driver;
    driver.fast_counts(&mut counts);
    println!("ready adopted={adopted} packets={}", counts[0].packets);
    // Until the other side closes.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

pub(super) fn spawn(world: &World) -> (Child, BufReader<ChildStdout>, String) {
    spawn_by(world, &[])
}

/// A process that a command starts.
fn spawn_by(world: &World, command: &[&str]) -> (Child, BufReader<ChildStdout>, String) {
    let mut child = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", world.here))
        .args(command)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "xdp::tests::survival::process_that_is_killed", "--nocapture"])
        .env(CHILD, &world.node)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the process ended");
    }
    let line = line.split("ready").nth(1).unwrap().trim().to_owned();
    (child, output, line)
}

pub(super) fn attached(world: &World) -> bool {
    let output =
        Command::new("ip").args(["-n", &world.here, "link", "show", "d0"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).contains("prog/xdp")
}

/// A killed process loses nothing; the next one goes on with the same flow
/// and its counts; a process that stops in order leaves nothing behind.
#[test]
fn streams_go_on_through_a_kill() {
    if let Some(why) = missing() {
        return skip("streams_go_on_through_a_kill", &why);
    }
    let world = world();
    let mut peers = Peers::new(&world);
    let (mut first, _output, ready) = spawn(&world);
    assert_eq!(ready, "adopted=0 packets=0");
    assert_eq!(peers.pass(300), 300);
    let killed = thread::scope(|scope| {
        let passed = scope.spawn(|| peers.pass(1_500));
        thread::sleep(Duration::from_millis(250));
        // SIGKILL: nothing of it runs any more.
        first.kill().unwrap();
        first.wait().unwrap();
        passed.join().unwrap()
    });
    assert_eq!(killed, 1_500, "lost through the kill");
    assert!(attached(&world));
    let (mut second, _output, ready) = thread::scope(|scope| {
        let passed = scope.spawn(|| peers.pass(1_500));
        let second = spawn(&world);
        assert_eq!(passed.join().unwrap(), 1_500, "lost through the restart");
        second
    });
    let packets: u32 = ready.strip_prefix("adopted=1 packets=").unwrap().parse().unwrap();
    assert!(packets >= 1_800, "{ready}");
    drop(second.stdin.take());
    assert!(second.wait().unwrap().success());
    assert!(!attached(&world));
    assert!(!std::path::Path::new("/sys/fs/bpf/ravelin").join(&world.node).exists());
}

/// With the capabilities of `tools/deploy/xdp.conf`, and without the one that sees programs by their
/// numbers, a process knows its predecessor's by the pin.
#[test]
fn streams_are_taken_over_without_cap_sys_admin() {
    let name = "streams_are_taken_over_without_cap_sys_admin";
    if let Some(why) = missing() {
        return skip(name, &why);
    }
    let world = world();
    // Whoever is started in a namespace of its own by `ip netns` has a mount of its own; here the
    // file system is the machine's, and there.
    world.here(|| drop(start(&world, &[stream()])));
    let mut peers = Peers::new(&world);
    let capabilities = "-all,+bpf,+perfmon,+net_admin,+net_raw,+net_bind_service";
    let less = ["setpriv", "--bounding-set", capabilities, "--inh-caps", "-all"];
    let (mut first, _output, ready) = spawn_by(&world, &less);
    assert_eq!(ready, "adopted=0 packets=0");
    assert_eq!(peers.pass(100), 100);
    first.kill().unwrap();
    first.wait().unwrap();
    let (mut second, _output, ready) = spawn_by(&world, &less);
    assert_eq!(ready, "adopted=1 packets=100");
    assert_eq!(peers.pass(100), 100);
    drop(second.stdin.take());
    assert!(second.wait().unwrap().success());
    assert!(!attached(&world));
}
