//! The least that a relay on sockets can do: epoll, `recvmmsg`, `sendmmsg`, and nothing looked at.
//! The yardstick of `bench/peers/media`; and, for telling the driver's part of a cost from the
//! engine's, the same relay over each driver.
//!
//! `bare_relay FILE [bare|connected|mmsg|uring]`: each line of FILE is `LOCAL PEER LOCAL PEER`; what
//! comes in at one LOCAL goes out of the other, to its PEER. `connected` is the bare loop with every
//! socket connected to its peer. Prints `ready` when the ports are open and runs until it is killed,
//! an hour at most.

use ravelin_engine::port::{Egress, Local, MediaPortId, Token, TxQueue};
use ravelin_io::driver::{self, Choice, Options, Rx};
use ravelin_io::sys::epoll::Epoll;
use ravelin_io::sys::mmsg::{BATCH, Receiver, Sender};
use ravelin_io::sys::thread::raise_open_files;
use socket2::{Domain, SockAddr, Socket, Type};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// As Ravelin's media ports have it by default.
const QUEUE_BYTES: usize = 256 << 10;
const RUNS_AT_MOST: Duration = Duration::from_secs(3_600);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().expect("a file");
    let way = arguments.next().unwrap_or_else(|| "bare".to_owned());
    raise_open_files().expect("open files");
    let text = std::fs::read_to_string(file).expect("read");
    let addrs: Vec<SocketAddr> =
        text.split_whitespace().map(|word| word.parse().expect("an address")).collect();
    let ports: Vec<(SocketAddr, SocketAddr)> =
        addrs.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    match way.as_str() {
        "bare" => bare(&ports, false),
        "connected" => bare(&ports, true),
        "mmsg" => driven(&ports, Choice::Mmsg),
        "uring" => driven(&ports, Choice::Uring),
        other => panic!("no way called {other}"),
    }
}

fn bare(ports: &[(SocketAddr, SocketAddr)], connected: bool) {
    let mut sockets = Vec::new();
    for (local, peer) in ports {
        let socket = Socket::new(Domain::for_address(*local), Type::DGRAM, None).expect("socket");
        let _ = socket.set_recv_buffer_size(QUEUE_BYTES);
        let _ = socket.set_send_buffer_size(QUEUE_BYTES);
        socket.bind(&SockAddr::from(*local)).expect("bind");
        if connected {
            socket.connect(&SockAddr::from(*peer)).expect("connect");
        }
        sockets.push(socket);
    }
    let mut epoll = Epoll::new().expect("epoll");
    for (socket, index) in sockets.iter().zip(0..) {
        epoll.add(socket.as_fd(), libc::EPOLLIN, index).expect("add");
    }
    println!("ready");
    let mut receiver = Receiver::new(BATCH, 2_048).expect("memory");
    let mut sender = Sender::new();
    let start = Instant::now();
    while start.elapsed() < RUNS_AT_MOST {
        let ready = epoll.wait(Duration::from_millis(50)).expect("wait");
        for index in 0..ready {
            let Some((_, from)) = epoll.event(index) else { continue };
            let (from, to) = (from as usize, from as usize ^ 1);
            let Ok(count) = receiver.receive(&sockets[from], BATCH) else { continue };
            let datagrams = (0..count).filter_map(|index| receiver.datagram(index));
            // What the kernel does not take is lost, as the receiver will tell.
            let _ = if connected {
                sender.send_connected(&sockets[to], datagrams.map(|datagram| datagram.payload))
            } else {
                let to_peer = datagrams.map(|datagram| (ports[to].1, datagram.payload));
                sender.send(&sockets[to], to_peer)
            };
        }
    }
}

fn driven(ports: &[(SocketAddr, SocketAddr)], choice: Choice) {
    let mut driver = driver::open(choice, &Options::default()).expect("driver").driver;
    for ((local, _), id) in ports.iter().zip(0..) {
        driver.open_media(MediaPortId(id), *local).expect("port");
    }
    println!("ready");
    let mut queue = TxQueue::default();
    let start = Instant::now();
    while start.elapsed() < RUNS_AT_MOST {
        driver.wait(Duration::from_millis(50)).expect("wait");
        driver.receive(&mut |rx| {
            if let Rx::Datagram { meta, bytes, .. } = rx
                && let Local::Media { port } = meta.local
            {
                let to = port.0 ^ 1;
                let egress = Egress::Media { port: MediaPortId(to), to: ports[to as usize].1 };
                queue.push(egress, Token::default(), bytes);
            }
        });
        driver.send(&queue, &mut |_, _| {});
        queue.clear();
    }
}
