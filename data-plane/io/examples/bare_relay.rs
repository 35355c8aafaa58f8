//! The least that a relay on sockets can do: epoll, `recvmmsg`, `sendmmsg`, and nothing looked at.
//! The yardstick of `bench/peers/media`.
//!
//! `bare_relay FILE [CORE]`: each line of FILE is `LOCAL PEER LOCAL PEER`; what comes in at one
//! LOCAL goes out of the other, to its PEER. Prints `ready` when the ports are open and runs until
//! it is killed, an hour at most.

use ravelin_io::sys::epoll::Epoll;
use ravelin_io::sys::mmsg::{BATCH, Receiver, Sender};
use ravelin_io::sys::thread::{pin_to, raise_open_files};
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
    if let Some(core) = arguments.next() {
        pin_to(core.parse().expect("a core")).expect("pin");
    }
    raise_open_files().expect("open files");
    let text = std::fs::read_to_string(file).expect("read");
    let mut sockets = Vec::new();
    let mut peers: Vec<SocketAddr> = Vec::new();
    for word_pair in text.split_whitespace().collect::<Vec<_>>().chunks_exact(2) {
        let local: SocketAddr = word_pair[0].parse().expect("address");
        peers.push(word_pair[1].parse().expect("address"));
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, None).expect("socket");
        let _ = socket.set_recv_buffer_size(QUEUE_BYTES);
        let _ = socket.set_send_buffer_size(QUEUE_BYTES);
        socket.bind(&SockAddr::from(local)).expect("bind");
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
            let datagrams = (0..count)
                .filter_map(|index| receiver.datagram(index))
                .map(|datagram| (peers[to], datagram.payload));
            // What the kernel does not take is lost, as the receiver will tell.
            let _ = sender.send(&sockets[to], datagrams);
        }
    }
}
