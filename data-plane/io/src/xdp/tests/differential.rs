//! The same traffic once through the sockets and once through the fast path: what leaves is the
//! same, octet for octet, and so are the counts.

use super::packet::{Packet, comparable_by_sockets, rtp};
use super::world::{Capture, Injector, World, missing, run, skip};
use crate::driver::{self, Choice, Driver, Options as DriverOptions, Rx};
use crate::xdp::{FastPath, FastSample, Mode, Options};
use ravelin_engine::port::{
    Egress, FastChange, FastCount, FastFlow, FastKind, Local, MediaPortId, ShardId, Token, TxQueue,
};
use ravelin_wire::{demux, rtp as wire};
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const PEER: [u8; 6] = [2, 0, 0, 0, 9, 1];
const SSRC: u32 = 0x1122_3344;
/// Turns without anything to do after which a machine has nothing left: its own, so that one that is
/// held up is waited for.
const IDLE_TURNS: u32 = 60;
const IDLE_WITHIN: Duration = Duration::from_secs(60);
/// Payload type that the flow leaves to user space.
const EVENT: u8 = 101;

/// One direction of a call: what the engine would have decided.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) local: SocketAddr,
    pub(crate) source: SocketAddr,
    pub(crate) out: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) dscp: Option<u8>,
    /// Device that its packets arrive at, and its tag.
    pub(crate) device: &'static str,
    pub(crate) vlan: Option<u16>,
}

impl Stream {
    pub(crate) fn ports(index: usize) -> (MediaPortId, MediaPortId) {
        let index = u32::try_from(index).unwrap();
        (MediaPortId(index * 2), MediaPortId(index * 2 + 1))
    }

    pub(crate) fn flow(&self, index: usize) -> FastFlow {
        FastFlow {
            source: self.source,
            ssrc: SSRC,
            kind: FastKind::Forward { out: Self::ports(index).1, to: self.to, dscp: self.dscp },
            epoch: 7,
            clock_hz: 8_000,
            payload_types_to_user: [EVENT, 0xff],
        }
    }
}

/// How the packets of the streams go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    Sockets,
    /// Forwarded by the program.
    Kernel,
    /// Delivered to user space, and back, past the sockets.
    AfXdp,
}

/// What one run gave.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    frames: BTreeMap<&'static str, Vec<Vec<u8>>>,
    /// RTP packets and octets of each stream that user space forwarded.
    user: BTreeMap<u32, (u64, u64)>,
    fast: BTreeMap<u32, FastCount>,
    verdicts: BTreeMap<&'static str, u64>,
    modes: Vec<Mode>,
    /// Counters of the driver by name and label.
    counters: BTreeMap<(&'static str, &'static str), u64>,
}

/// What the engine does with a packet, as short as it can be said.
fn relay(
    streams: &[Stream],
    outcome: &mut Outcome,
    tx: &mut TxQueue,
    port: MediaPortId,
    source: SocketAddr,
    bytes: &[u8],
) {
    let index = port.0 as usize / 2;
    let stream = &streams[index];
    if port.0 % 2 == 1 || source != stream.source {
        return;
    }
    let kind = demux::first_byte(bytes);
    if kind == demux::Kind::Rtp {
        if wire::Header::parse(bytes).is_none() {
            return;
        }
        let count = outcome.user.entry(port.0).or_default();
        *count = (count.0 + 1, count.1 + bytes.len() as u64);
    } else if kind != demux::Kind::Rtcp {
        return;
    }
    let egress = Egress::Media { port: Stream::ports(index).1, to: stream.to };
    tx.push(egress, Token::default(), bytes);
}

/// Runs `frames` through the machine under test.
fn pass(
    world: &World,
    streams: &[Stream],
    devices: &[&'static str],
    path: Path,
    send: &(dyn Fn(&Injector) + Sync),
) -> Outcome {
    let captures: Vec<_> =
        devices.iter().map(|name| (*name, Capture::start(world, name))).collect();
    let (stop, idle) = (AtomicBool::new(false), AtomicU32::new(0));
    let (ready, started) = mpsc::channel();
    thread::scope(|scope| {
        let (stop, idle) = (&stop, &idle);
        // Dropped when the machine ends before it is ready, so that nobody waits for it.
        let machine = scope
            .spawn(move || world.here(move || machine(world, streams, path, stop, idle, ready)));
        if started.recv().is_ok() {
            World::inside(&world.peer, || send(&Injector::new(devices)));
            idle.store(0, Ordering::Relaxed);
            let until = Instant::now() + IDLE_WITHIN;
            while idle.load(Ordering::Relaxed) < IDLE_TURNS && !machine.is_finished() {
                assert!(Instant::now() < until, "the machine does not come to rest");
                thread::sleep(Duration::from_millis(1));
            }
            world.here(|| devices.iter().for_each(|device| mark(device)));
        }
        let frames: BTreeMap<_, _> =
            captures.iter().map(|(name, capture)| (*name, capture.frames_until(is_mark))).collect();
        stop.store(true, Ordering::Relaxed);
        Outcome { frames, ..machine.join().unwrap() }
    })
}

/// What leaves last by a wire: who has recorded it has recorded all before it.
const MARK: &[u8] = b"nothing comes after this";

fn mark(device: &str) {
    let number: u8 = device.trim_start_matches('p').parse().unwrap();
    let neighbour = SocketAddr::from(([10, 96 + number, 6, 2], 9));
    UdpSocket::bind("0.0.0.0:0").unwrap().send_to(MARK, neighbour).unwrap();
}

fn is_mark(frame: &[u8]) -> bool {
    frame.ends_with(MARK)
}

pub(crate) fn start(world: &World, streams: &[Stream]) -> Arc<FastPath> {
    start_noting(world, streams, |_, _| {})
}

pub(crate) fn start_noting(
    world: &World,
    streams: &[Stream],
    note: fn(&'static str, &str),
) -> Arc<FastPath> {
    let options = Options {
        node: world.node.clone(),
        addresses: streams.iter().flat_map(|stream| [stream.local.ip(), stream.out.ip()]).collect(),
        ports: 64,
        shards: 1,
        native_only: false,
        note,
    };
    Arc::new(FastPath::start(&options).map_err(|reasons| format!("{reasons:?}")).unwrap())
}

fn open(streams: &[Stream], fast: Option<&Arc<FastPath>>) -> Box<dyn Driver> {
    let options = DriverOptions { media_ports_max: 64, ..DriverOptions::default() };
    let mut driver = driver::open(Choice::Auto, &options).unwrap().driver;
    if let Some(fast) = fast {
        driver = fast.around(driver, ShardId(0));
    }
    for (index, stream) in streams.iter().enumerate() {
        let (port, out) = Stream::ports(index);
        driver.open_media(port, stream.local).unwrap();
        driver.open_media(out, stream.out).unwrap();
    }
    driver
}

/// Sets all flows and waits until their next hops are known.
fn take_over(streams: &[Stream], fast: &FastPath, driver: &mut dyn Driver, path: Path) {
    let sets: Vec<_> = (0..)
        .zip(streams)
        .map(|(index, stream)| FastChange::Set {
            port: Stream::ports(index).0,
            flow: match path {
                Path::AfXdp => {
                    let kind = FastKind::Deliver { out: Stream::ports(index).1, to: stream.to };
                    FastFlow { kind, ..stream.flow(index) }
                }
                _ => stream.flow(index),
            },
        })
        .collect();
    driver.program(&sets);
    let until = Instant::now() + Duration::from_secs(20);
    while fast.table().without_hop() > 0 {
        assert!(Instant::now() < until, "no next hop");
        thread::sleep(Duration::from_millis(1));
    }
}

fn machine(
    world: &World,
    streams: &[Stream],
    path: Path,
    stop: &AtomicBool,
    idle: &AtomicU32,
    ready: mpsc::Sender<()>,
) -> Outcome {
    let fast = (path != Path::Sockets).then(|| start(world, streams));
    let mut driver = open(streams, fast.as_ref());
    if let Some(fast) = &fast {
        take_over(streams, fast, &mut *driver, path);
    }
    ready.send(()).unwrap();
    let mut outcome = Outcome::default();
    let mut tx = TxQueue::default();
    while !stop.load(Ordering::Relaxed) {
        driver.wait(Duration::from_millis(5)).unwrap();
        let come = driver.receive(&mut |rx| {
            let Rx::Datagram { meta, bytes, .. } = rx else { return };
            let Local::Media { port } = meta.local else { return };
            relay(streams, &mut outcome, &mut tx, port, meta.source, bytes);
        });
        driver.send(&tx, &mut |_, error| panic!("{error}"));
        tx.clear();
        if come > 0 {
            idle.store(0, Ordering::Relaxed);
        } else {
            idle.fetch_add(1, Ordering::Relaxed);
        }
    }
    driver.counts(&mut |count| {
        let label = count.label.map_or("", |(_, label)| label);
        outcome.counters.insert((count.name, label), count.value);
    });
    let mut counts = Vec::new();
    driver.fast_counts(&mut counts);
    outcome.fast = counts.into_iter().map(|count| (count.port.0, count)).collect();
    if let Some(fast) = &fast {
        outcome.modes = fast.serving().iter().map(|serving| serving.mode).collect();
        fast.samples(&mut |FastSample { name, label, value, .. }| {
            if let ("fast_packets_left_total", Some((_, verdict))) = (name, label) {
                outcome.verdicts.insert(verdict, value);
            }
        });
    }
    outcome
}

pub(crate) fn good(stream: &Stream, payload: Vec<u8>, here: [u8; 6]) -> Packet {
    Packet {
        target_mac: here,
        source_mac: PEER,
        vlan: stream.vlan,
        from: stream.source,
        to: stream.local,
        payload,
        tos: 0xb8,
        ttl: 57,
        fragment: 0,
        options: Vec::new(),
        extension: None,
        udp_checksum: None,
        ip_checksum: None,
        udp_length_off: 0,
        ip_length_off: 0,
        trailer: 0,
        cut: 0,
    }
}

/// Every kind of packet for one stream, each named by what is odd about it.
fn traffic(stream: &Stream, here: [u8; 6]) -> Vec<Packet> {
    let audio = |sequence: u16| rtp(0x80, 0, sequence, SSRC, &[0x5a; 160]);
    let v4 = stream.local.is_ipv4();
    let packet = |payload: Vec<u8>| good(stream, payload, here);
    let mut all = Vec::new();
    // Across the end of the sequence numbers; two late, one twice, two missing.
    let order = [65_530, 65_531, 65_533, 65_532, 65_534, 65_535, 0, 1, 2, 2, 5, 4, 6];
    all.extend(order.map(|sequence| packet(audio(sequence))));
    // Lengths, odd ones among them, and contents that make the checksum come near zero.
    for length in [0, 1, 2, 3, 7, 33, 160, 161, 320, 1_200, 1_400] {
        all.push(packet(rtp(0x80, 8, 7, SSRC, &vec![0xff; length])));
    }
    // Header forms that hold, and that do not.
    all.push(packet(rtp(0x82, 0, 8, SSRC, &[7; 30])));
    all.push(packet(rtp(0x90, 0, 9, SSRC, &[0xbe, 0xde, 0, 1, 1, 2, 3, 4, 5, 6])));
    all.push(packet(rtp(0xa0, 0, 10, SSRC, &[9, 9, 0, 2])));
    all.push(packet(rtp(0xb1, 0, 11, SSRC, &[0, 0, 0, 1, 0xbe, 0xde, 0, 0, 1, 1])));
    for (first, payload) in [
        (0x8f, vec![1; 59]),
        (0x90, vec![0xbe, 0xde, 0]),
        (0x90, vec![0xbe, 0xde, 0, 2, 1, 2, 3, 4]),
        (0x90, vec![0xbe, 0xde, 0xff, 0xff, 1, 2, 3, 4]),
        (0xa0, vec![1, 2, 0]),
        (0xa0, vec![1, 2, 4]),
        (0xa0, vec![]),
        (0x00, vec![1; 40]),
        (0x40, vec![1; 40]),
        (0xc0, vec![1; 40]),
    ] {
        all.push(packet(rtp(first, 0, 12, SSRC, &payload)));
    }
    // Not RTP: STUN, DTLS, RTCP on the same port, keep-alives, short ones.
    let mut stun = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    stun.extend([3; 12]);
    all.push(packet(stun));
    all.push(packet(vec![22; 60]));
    let mut report = vec![0x80, 201, 0, 1];
    report.extend(SSRC.to_be_bytes());
    all.push(packet(report));
    let mut sender = vec![0x80, 200, 0, 6];
    sender.extend(SSRC.to_be_bytes());
    sender.extend([0; 20]);
    all.push(packet(sender));
    all.push(packet(Vec::new()));
    all.push(packet(vec![0x80, 0, 0, 1, 0, 0, 0, 1, 0x11, 0x22, 0x33]));
    // A payload type for user space; another SSRC; another source port and address.
    all.push(packet(rtp(0x80, EVENT, 12, SSRC, &[1, 10, 0, 160])));
    all.push(packet(rtp(0x80, 0x80 | EVENT, 13, SSRC, &[1, 10, 0, 160])));
    all.push(packet(rtp(0x80, 0, 50, SSRC + 1, &[1; 160])));
    let mut stray = packet(audio(60));
    stray.from.set_port(stream.source.port() + 1);
    all.push(stray);
    // For another machine.
    let mut foreign = packet(audio(61));
    foreign.target_mac = [2, 0, 0, 0, 0, 99];
    all.push(foreign);
    // Lengths that lie, frames that are cut, octets behind the packet.
    for (udp, ip) in [(-1, 0), (1, 0), (-100, 0), (0, -1), (0, 1), (0, -100), (40, 40), (-170, 0)] {
        let mut odd = packet(audio(62));
        (odd.udp_length_off, odd.ip_length_off) = (udp, ip);
        all.push(odd);
    }
    for cut in [1, 100, 160, 165] {
        let mut cut_off = packet(audio(63));
        cut_off.cut = cut;
        all.push(cut_off);
    }
    for trailer in [1, 4, 46] {
        let mut longer = packet(audio(14 + trailer as u16));
        longer.trailer = trailer;
        all.push(longer);
    }
    // Checksums: none, and wrong in the IP header. TTL at its end.
    let mut none = packet(audio(15));
    none.udp_checksum = Some(0);
    all.push(none);
    let mut last_hop = packet(audio(16));
    last_hop.ttl = 1;
    all.push(last_hop);
    if v4 {
        let mut wrong = packet(audio(64));
        wrong.ip_checksum = Some(0x1111);
        all.push(wrong);
        let mut options = packet(audio(17));
        options.options = vec![1, 1, 1, 0];
        all.push(options);
        for fragment in [0x2000, 0x0001, 0x2001] {
            let mut part = packet(audio(65));
            part.fragment = fragment;
            all.push(part);
        }
        let mut whole = packet(audio(18));
        whole.fragment = 0x4000;
        all.push(whole);
    } else {
        // Destination options (60), padding alone; a first fragment (44).
        let mut options = packet(audio(17));
        (options.extension, options.options) = (Some(60), vec![17, 0, 1, 4, 0, 0, 0, 0]);
        all.push(options);
        let mut part = packet(audio(65));
        (part.extension, part.options) = (Some(44), vec![17, 0, 0, 1, 0, 0, 0, 9]);
        all.push(part);
    }
    // Everything is as it was.
    all.extend((20..30).map(|sequence| packet(audio(sequence))));
    all
}

/// Compares the two runs, and what the fast path should have taken.
fn compare(world: &World, streams: &[Stream], devices: &[&'static str], mode: Mode) {
    compare_by(Path::Kernel, world, streams, devices, mode);
}

/// Compares a path with the sockets.
pub(crate) fn compare_by(
    path: Path,
    world: &World,
    streams: &[Stream],
    devices: &[&'static str],
    mode: Mode,
) {
    let here: BTreeMap<_, _> = devices
        .iter()
        .map(|name| (*name, World::mac(&world.here, &name.replace('p', "d"))))
        .collect();
    let send = |injector: &Injector| {
        for stream in streams {
            for packet in traffic(stream, here[stream.device]) {
                injector.send(stream.device, &packet.frame());
                thread::sleep(Duration::from_micros(500));
            }
        }
    };
    let sockets = pass(world, streams, devices, Path::Sockets, &send);
    let fast = pass(world, streams, devices, path, &send);
    assert!(fast.modes.iter().all(|found| *found == mode), "{:?}", fast.modes);
    for device in devices {
        let sorted = |outcome: &Outcome| {
            let ours = |frame: &&Vec<u8>| {
                frame.len() > 14 && frame[6..12] == here[device] && !is_mark(frame)
            };
            let frames = outcome.frames[device].iter().filter(ours);
            // IPv6 alone asks for neighbours and groups.
            let udp = frames.filter(|frame| {
                let ip = if frame[12..14] == [0x81, 0x00] { 18 } else { 14 };
                match frame[ip] >> 4 {
                    4 => frame[ip + 9] == 17,
                    6 => frame[ip + 6] == 17,
                    _ => false,
                }
            });
            let mut frames: Vec<_> = udp.map(|frame| comparable_by_sockets(frame)).collect();
            frames.sort();
            frames
        };
        let (expected, found) = (sorted(&sockets), sorted(&fast));
        let without = |these: &[Vec<u8>], those: &[Vec<u8>]| {
            let mut left = these.to_vec();
            for frame in those {
                if let Some(at) = left.iter().position(|one| one == frame) {
                    left.remove(at);
                }
            }
            left
        };
        let (missing, more) = (without(&expected, &found), without(&found, &expected));
        assert!(
            missing.is_empty() && more.is_empty(),
            "{device}: missing {missing:02x?}, besides {more:02x?}; by user space {:?} of {:?}; {:?} \
             {:?}",
            fast.user,
            sockets.user,
            fast.counters,
            fast.verdicts
        );
    }
    assert!(sockets.frames.values().map(Vec::len).sum::<usize>() > 30 * streams.len());
    for (index, _) in streams.iter().enumerate() {
        let port = Stream::ports(index).0.0;
        let (packets, bytes) = sockets.user[&port];
        let user = fast.user[&port];
        if path == Path::AfXdp {
            assert_eq!(user, (packets, bytes), "{index}");
            continue;
        }
        let count = fast.fast[&port];
        assert_eq!((user.0 + count.packets, user.1 + count.bytes), (packets, bytes), "{index}");
        assert_eq!(count.epoch, 7);
        // All that is regular goes below the sockets: the two events, the other SSRC, options or
        // extension headers, and two UDP lengths shorter than IP's do not.
        assert_eq!(user.0, 6, "{index}: {:?}", fast.verdicts);
        assert!(count.packets > 40, "{count:?}");
    }
    assert_eq!(fast.verdicts["failed"], 0);
    if path == Path::AfXdp {
        let count = |name, label| fast.counters[&(name, label)];
        let delivered = fast.verdicts["delivered"];
        assert!(delivered > 40 * streams.len() as u64, "{:?}", fast.verdicts);
        let dropped: u64 = ["malformed", "foreign", "port_not_open", "too_long"]
            .map(|reason| count("af_xdp_rx_drops_total", reason))
            .iter()
            .sum();
        assert_eq!(dropped, 0, "{:?}", fast.counters);
        let wrong = count("af_xdp_rx_drops_total", "checksum");
        assert_eq!(count("af_xdp_rx_packets_total", "") + wrong, delivered);
        assert_eq!(
            wrong,
            WRONG_CHECKSUMS * streams.iter().filter(|s| !s.local.is_ipv4()).count() as u64
        );
        for reason in ["no_room", "no_next_hop", "interface_down"] {
            assert_eq!(count("af_xdp_tx_by_sockets_total", reason), 0, "{reason}");
        }
        assert!(count("af_xdp_tx_packets_total", "") > 40 * streams.len() as u64);
        assert!(count("af_xdp_wakes_total", "") > 0);
    }
}

/// Packets of `traffic` over IPv6 whose checksum no path takes: the one without any.
const WRONG_CHECKSUMS: u64 = 1;

pub(crate) fn stream(
    device: &'static str,
    vlan: Option<u16>,
    addresses: [&str; 4],
    dscp: Option<u8>,
) -> Stream {
    let [local, source, out, to] = addresses.map(|address| address.parse().unwrap());
    Stream { local, source, out, to, dscp, device, vlan }
}

pub(crate) fn plain(world: &World) -> Vec<Stream> {
    world.address("d0", "10.96.6.1/24", "10.96.6.2", PEER);
    world.neighbour("d0", "10.96.6.3", PEER);
    world.address("d0", "fd96:6::1/64", "fd96:6::2", PEER);
    vec![
        stream(
            "p0",
            None,
            ["10.96.6.1:20000", "10.96.6.2:4000", "10.96.6.1:20002", "10.96.6.3:5000"],
            None,
        ),
        stream(
            "p0",
            None,
            ["[fd96:6::1]:20004", "[fd96:6::2]:4000", "[fd96:6::1]:20006", "[fd96:6::2]:5000"],
            None,
        ),
    ]
}

#[test]
fn one_interface_is_the_same() {
    if let Some(why) = missing() {
        return skip("one_interface_is_the_same", &why);
    }
    let world = World::new(1);
    let streams = plain(&world);
    compare(&world, &streams, &["p0"], Mode::Native);
}

#[test]
fn two_interfaces_are_the_same() {
    if let Some(why) = missing() {
        return skip("two_interfaces_are_the_same", &why);
    }
    let world = World::new(2);
    let mut streams = plain(&world);
    world.address("d1", "10.97.6.1/24", "10.97.6.2", PEER);
    world.address("d1", "fd97:6::1/64", "fd97:6::2", PEER);
    streams.extend([
        stream(
            "p0",
            None,
            ["10.96.6.1:20010", "10.96.6.2:4002", "10.97.6.1:20010", "10.97.6.2:5002"],
            None,
        ),
        stream(
            "p1",
            None,
            ["[fd97:6::1]:20012", "[fd97:6::2]:4002", "[fd96:6::1]:20012", "[fd96:6::2]:5002"],
            None,
        ),
    ]);
    compare(&world, &streams, &["p0", "p1"], Mode::Native);
}

/// The other end of the wire is not ready for frames: the program runs in generic mode, and it is
/// the same all the same.
#[test]
fn generic_mode_is_the_same() {
    if let Some(why) = missing() {
        return skip("generic_mode_is_the_same", &why);
    }
    let world = World::new(1);
    let streams = plain(&world);
    run(&format!("ip netns exec {} ethtool -K p0 gro off", world.peer));
    compare(&world, &streams, &["p0"], Mode::Generic);
}

#[test]
fn two_interfaces_and_vlans_are_the_same() {
    if let Some(why) = missing() {
        return skip("two_interfaces_and_vlans_are_the_same", &why);
    }
    let world = World::new(2);
    if let Err(why) = world.try_vlan() {
        return skip("two_interfaces_and_vlans_are_the_same", &why);
    }
    let mut streams = plain(&world);
    world.address("d1", "10.97.6.1/24", "10.97.6.2", PEER);
    for device in ["d0", "d1"] {
        let here = &world.here;
        run(&format!(
            "ip -n {here} link add link {device} name {device}.7 type vlan id 7 reorder_hdr on"
        ));
        run(&format!("ip -n {here} link set {device}.7 up"));
    }
    world.address("d0.7", "10.98.6.1/24", "10.98.6.2", PEER);
    world.address("d1.7", "10.99.6.1/24", "10.99.6.2", PEER);
    world.address("d1.7", "fd99:6::1/64", "fd99:6::2", PEER);
    world.address("d0.7", "fd98:6::1/64", "fd98:6::2", PEER);
    streams.extend([
        stream(
            "p0",
            None,
            ["10.96.6.1:20010", "10.96.6.2:4002", "10.97.6.1:20010", "10.97.6.2:5002"],
            None,
        ),
        stream(
            "p0",
            Some(7),
            ["10.98.6.1:20012", "10.98.6.2:4002", "10.97.6.1:20012", "10.97.6.2:5002"],
            None,
        ),
        stream(
            "p1",
            None,
            ["10.97.6.1:20014", "10.97.6.2:4002", "10.98.6.1:20014", "10.98.6.2:5002"],
            None,
        ),
        stream(
            "p1",
            Some(7),
            ["[fd99:6::1]:20016", "[fd99:6::2]:4002", "[fd98:6::1]:20016", "[fd98:6::2]:5002"],
            None,
        ),
    ]);
    compare(&world, &streams, &["p0", "p1"], Mode::Native);
}
