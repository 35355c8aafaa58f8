//! CPU per relayed datagram: both drivers against a bare loop over the same system calls.
//!
//! `udp_relay_bench [ROUNDS] [RELAY_CORE] [LOAD_CORE]` alternates the three in each round, drops
//! the first round and prints the median with minimum and maximum, and the ratio to the bare loop.
//! What is counted is the CPU time of the relaying thread, kernel included. On the loopback the
//! sender pays for the receiver's input path: read the ratios, not the absolute figures.
//!
//! The shapes of load, 172 bytes each (20 ms of G.711 in RTP):
//! - `burst`: one port, 64 datagrams at a time.
//! - `streams`: 200 pairs of ports, one datagram for each port at a time, as calls send them.
//! - `frames2`, `frames4`, ...: 20 pairs of ports, so many datagrams for each at a time, as the
//!   frames of video come.

use ravelin_engine::port::{Egress, Local, MediaPortId, Token, TxQueue};
use ravelin_io::driver::{self, Choice, Options, Rx};
use ravelin_io::sys::epoll::Epoll;
use ravelin_io::sys::mmsg::{BATCH, Receiver, Sender};
use ravelin_io::sys::thread::{cpu_time, pin_to, raise_open_files};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, thread};

const PAYLOAD: [u8; 172] = [0x80; 172];
const DATAGRAMS: usize = 200_000;
const HOST: &str = "127.5.8.1:0";

/// A shape of load.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    /// Ports of the relay. One echoes; of several, each pair relays from one to the other.
    ports: usize,
    /// Datagrams in flight.
    window: usize,
    /// Datagrams one after the other on one port.
    each: usize,
}

const SHAPES: [Shape; 7] = [
    Shape { name: "burst", ports: 1, window: 64, each: 64 },
    Shape { name: "streams", ports: 400, window: 400, each: 1 },
    Shape { name: "frames2", ports: 40, window: 80, each: 2 },
    Shape { name: "frames3", ports: 40, window: 120, each: 3 },
    Shape { name: "frames4", ports: 40, window: 160, each: 4 },
    Shape { name: "frames8", ports: 40, window: 320, each: 8 },
    Shape { name: "frames16", ports: 40, window: 640, each: 16 },
];

impl Shape {
    /// The port of a datagram of the window.
    fn port(self, number: usize) -> usize {
        number / self.each % self.ports
    }
}

#[derive(Clone, Copy)]
enum Relay {
    Bare,
    Driver(Choice),
}

const RELAYS: [(&str, Relay); 3] = [
    ("bare", Relay::Bare),
    ("mmsg", Relay::Driver(Choice::Mmsg)),
    ("uring", Relay::Driver(Choice::Uring)),
];

fn main() {
    let mut arguments = env::args().skip(1).map(|text| text.parse().expect("a number"));
    let rounds: usize = arguments.next().unwrap_or(7);
    let relay_core = arguments.next().unwrap_or(0);
    let load_core = arguments.next().unwrap_or(1);
    raise_open_files().expect("open files");
    for shape in SHAPES {
        let mut figures = [const { Vec::new() }; RELAYS.len()];
        for round in 0..rounds {
            for ((_, relay), figures) in RELAYS.iter().zip(&mut figures) {
                let ns = measure(*relay, shape, relay_core, load_core);
                if round > 0 {
                    figures.push(ns);
                }
            }
        }
        let medians = figures.map(|mut figures| {
            figures.sort_by(f64::total_cmp);
            (figures[figures.len() / 2], figures[0], figures[figures.len() - 1])
        });
        for ((name, _), (median, least, most)) in RELAYS.iter().zip(medians) {
            println!(
                "{:<9} {name:<6} {median:>6.0} ns each ({least:.0}..{most:.0}), {:.2} of bare",
                shape.name,
                median / medians[0].0
            );
        }
    }
}

/// CPU time per datagram of one run, in nanoseconds.
fn measure(relay: Relay, shape: Shape, relay_core: usize, load_core: usize) -> f64 {
    let stop = Arc::new(AtomicBool::new(false));
    let (opened, ports) = mpsc::channel();
    let (peers, addrs): (Vec<_>, Vec<_>) = (0..shape.ports)
        .map(|_| {
            let socket = UdpSocket::bind(HOST).expect("peer");
            let addr = socket.local_addr().expect("addr");
            socket.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
            (socket, addr)
        })
        .unzip();
    let done = stop.clone();
    let relaying = thread::spawn(move || {
        pin_to(relay_core).expect("pin");
        match relay {
            Relay::Bare => bare(shape, &addrs, &opened, &done),
            Relay::Driver(choice) => driven(choice, &addrs, &opened, &done),
        }
    });
    let ports: Vec<SocketAddr> = ports.recv().expect("ports");
    let load = thread::spawn(move || {
        pin_to(load_core).expect("pin");
        let mut buffer = [0; 2_048];
        let mut moved = 0;
        while moved < DATAGRAMS {
            for number in 0..shape.window {
                let index = shape.port(number);
                peers[index].send_to(&PAYLOAD, ports[index]).expect("send");
            }
            for number in 0..shape.window {
                // A lost one only shortens the round.
                if peers[shape.port(number)].recv(&mut buffer).is_ok() {
                    moved += 1;
                }
            }
        }
        moved
    });
    let moved = load.join().expect("load");
    stop.store(true, Ordering::Relaxed);
    let used: Duration = relaying.join().expect("relay");
    used.as_nanos() as f64 / moved as f64
}

/// Where a datagram that came in on `port` goes: its peer if there is one port, else the peer of
/// the other port of the pair.
fn other(port: usize, ports: usize) -> usize {
    if ports == 1 { port } else { port ^ 1 }
}

fn driven(
    choice: Choice,
    peers: &[SocketAddr],
    opened: &mpsc::Sender<Vec<SocketAddr>>,
    stop: &AtomicBool,
) -> Duration {
    let mut driver = driver::open(choice, &Options::default()).expect("driver").driver;
    let at: SocketAddr = HOST.parse().expect("address");
    let ports = (0..peers.len() as u32)
        .map(|id| driver.open_media(MediaPortId(id), at).expect("port"))
        .collect();
    opened.send(ports).expect("main waits");
    let mut queue = TxQueue::default();
    let before = cpu_time();
    while !stop.load(Ordering::Relaxed) {
        driver.wait(Duration::from_millis(50)).expect("wait");
        driver.receive(&mut |rx| {
            if let Rx::Datagram { meta, bytes, .. } = rx
                && let Local::Media { port } = meta.local
            {
                let to = other(port.0 as usize, peers.len());
                let egress = Egress::Media { port: MediaPortId(to as u32), to: peers[to] };
                queue.push(egress, Token::default(), bytes);
            }
        });
        driver.send(&queue, &mut |_, error| panic!("{error}"));
        queue.clear();
    }
    cpu_time() - before
}

fn bare(
    shape: Shape,
    peers: &[SocketAddr],
    opened: &mpsc::Sender<Vec<SocketAddr>>,
    stop: &AtomicBool,
) -> Duration {
    let sockets: Vec<_> = peers.iter().map(|_| UdpSocket::bind(HOST).expect("port")).collect();
    let mut epoll = Epoll::new().expect("epoll");
    for (socket, index) in sockets.iter().zip(0..) {
        epoll.add(socket.as_fd(), libc::EPOLLIN, index).expect("add");
    }
    let ports = sockets.iter().map(|socket| socket.local_addr().expect("addr")).collect();
    opened.send(ports).expect("main waits");
    let mut receiver = Receiver::new(BATCH, 2_048).expect("memory");
    let mut sender = Sender::new();
    let before = cpu_time();
    while !stop.load(Ordering::Relaxed) {
        let ready = epoll.wait(Duration::from_millis(50)).expect("wait");
        for index in 0..ready {
            let Some((_, port)) = epoll.event(index) else { continue };
            let (from, to) = (port as usize, other(port as usize, shape.ports));
            let Ok(count) = receiver.receive(&sockets[from], BATCH) else { continue };
            let datagrams = (0..count)
                .filter_map(|index| receiver.datagram(index))
                .map(|datagram| (peers[to], datagram.payload));
            let sent = sender.send(&sockets[to], datagrams).expect("send");
            assert_eq!(sent, count);
        }
    }
    cpu_time() - before
}
