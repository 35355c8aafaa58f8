//! Bad input from outside: every octet that is not a call ends in an answer or a counted drop, and
//! nothing grows (issue: "must show" 8).

use std::{
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    time::Duration,
};

use ravelin_tests::{tree, wait};

use super::support::{SBC, settle, start};

/// Every message of RFC 4475 and RFC 5118 and a seeded storm of damaged copies, from a known and
/// from an unknown source.
#[test]
fn torture_messages_and_damaged_copies_change_nothing() {
    let Some((_folder, product)) = start("torture") else { return };
    let conformance = tree::root().join("tests/conformance");
    let messages: Vec<Vec<u8>> = tree::files(&conformance, "dat")
        .iter()
        .map(|path| std::fs::read(path).expect("a message"))
        .collect();
    assert!(messages.len() >= 60, "the corpus is there");
    let known = UdpSocket::bind("127.8.1.77:5060").expect("a known source");
    let unknown = UdpSocket::bind("127.8.200.1:5060").expect("an unknown source");
    let before = product.edge_rss().expect("the edge is running");
    let mut seed = 1_u64;
    let mut next = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    for round in 0..200 {
        for message in &messages {
            let mut copy = message.clone();
            for _ in 0..(round % 8) {
                let at = next() % copy.len();
                copy[at] = next() as u8;
            }
            copy.truncate(1 + next() % (2 * copy.len()));
            let socket = if round % 2 == 0 { &known } else { &unknown };
            socket.send_to(&copy, SBC).expect("loopback takes datagrams");
        }
        // A breath, so that the test floods the parser and not the socket buffer.
        wait::pause();
    }
    wait::until("drops are counted", Duration::from_secs(10), || {
        product.metric("ravelin_drops_total").filter(|drops| *drops > 1_000.0)
    });
    settle(&product);
    let after = product.edge_rss().expect("the edge is still running");
    assert!(after < before + 32 * 1024 * 1024, "memory grew from {before} to {after}");
}

/// Connections that say nothing, half a message, or nonsense do not keep others from calling.
#[test]
fn half_open_and_babbling_connections_are_closed() {
    let Some((_folder, product)) = start("half_open") else { return };
    let mut silent = Vec::new();
    for source in 100..150 {
        silent.push(connect_from(&format!("127.8.1.{source}:0")));
    }
    let mut babbler = connect_from("127.8.1.150:0");
    babbler.write_all(&[0xff; 4096]).expect("octets go out");
    babbler.set_read_timeout(Some(Duration::from_secs(10))).expect("a deadline");
    let mut sink = Vec::new();
    let closed = babbler.read_to_end(&mut sink);
    let timed_out = closed.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!timed_out, "nonsense ends the connection");
    let mut probe = connect_from("127.8.1.1:0");
    probe
        .write_all(
            b"OPTIONS sip:ravelin@127.8.0.10 SIP/2.0\r\nVia: SIP/2.0/TCP 127.8.1.1:5099;branch=z9hG4bKx1\r\n\
              Max-Forwards: 70\r\nFrom: <sip:a@127.8.1.1>;tag=1\r\nTo: <sip:ravelin@127.8.0.10>\r\n\
              Call-ID: half-open-1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        )
        .expect("a request goes out");
    probe.set_read_timeout(Some(Duration::from_secs(10))).expect("a deadline");
    let mut answer = [0; 2048];
    let length = probe.read(&mut answer).expect("an answer over TCP");
    let text = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(text.starts_with("SIP/2.0 "), "{text}");
    drop(silent);
    settle(&product);
}

/// A TCP connection to the access listener from an address of this test.
fn connect_from(source: &str) -> TcpStream {
    let source: std::net::SocketAddr = source.parse().expect("an address");
    let target: std::net::SocketAddr = SBC.parse().expect("an address");
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&source.into()).expect("an address of this machine");
    socket.connect(&target.into()).expect("a connection");
    socket.into()
}
