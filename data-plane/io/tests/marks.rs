//! Code points (RFC 2474) as they are on the wire: whole frames are read off the loopback. Needs
//! CAP_NET_RAW, and is skipped by name without it.

use ravelin_engine::port::{
    Egress, ListenerId, Local, MediaPortId, ShardId, Token, Transport, TxQueue,
};
use ravelin_engine::time::Instant;
use ravelin_io::driver::{self, Choice, Driver, Options};
use ravelin_io::stream::{StreamLimits, Streams};
use ravelin_io::sys::packet::{FRAMES_PER_CALL, FrameReceiver, FrameSender};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant as Clock};

/// Detects a hang; no measure of speed.
const LIMIT: Duration = Duration::from_secs(20);
const LISTENER: ListenerId = ListenerId(0);
const MEDIA: MediaPortId = MediaPortId(0);
/// CS3 for signalling, EF for media.
const SIGNALLING: u8 = 24;
const EXPEDITED: u8 = 46;

fn frames(v6: bool) -> Option<FrameReceiver> {
    match FrameReceiver::new("lo", v6, 4_096) {
        Ok(frames) => Some(frames),
        Err(error) => {
            eprintln!("skipped: no frames of the loopback: {error}");
            None
        }
    }
}

/// Code point of the first frame with these ports that `wanted` accepts; ports are 4 octets behind
/// the IP header.
fn seen(
    frames: &mut FrameReceiver,
    v6: bool,
    wanted: impl Fn(u16, u16, &[u8]) -> bool,
) -> Option<u8> {
    let end = Clock::now() + LIMIT;
    let mut found = None;
    while found.is_none() && Clock::now() < end {
        let taken = frames.receive(1, &mut |frame| {
            assert!(frame.at_ns > 1_577_836_800_000_000_000, "stamped after 2020");
            let ip = &frame.bytes[14..];
            let (dscp, header) = if v6 {
                ((ip[0] << 4 | ip[1] >> 4) >> 2, 40)
            } else {
                (ip[1] >> 2, usize::from(ip[0] & 15) * 4)
            };
            let Some(ports) = ip.get(header..header + 4) else { return };
            let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
            if found.is_none() && wanted(port(0), port(2), &ip[header..]) {
                found = Some(dscp);
            }
        });
        if taken == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    found
}

fn open(choice: Choice) -> Option<Box<dyn Driver>> {
    match driver::open(choice, &Options::default()) {
        Ok(opened) => Some(opened.driver),
        Err(missing) => {
            eprintln!("skipped: {missing}");
            None
        }
    }
}

#[test]
fn what_leaves_a_marked_port_has_its_code_point() {
    for choice in [Choice::Uring, Choice::Mmsg] {
        for at in ["127.9.7.1:0", "[::1]:0"] {
            let at: SocketAddr = at.parse().unwrap();
            let Some(mut frames) = frames(at.is_ipv6()) else { return };
            let Some(mut driver) = open(choice) else { return };
            let peer = UdpSocket::bind(at).unwrap();
            let to = peer.local_addr().unwrap();
            let listener = driver.open_listener(LISTENER, at).unwrap();
            let media = driver.open_media(MEDIA, at).unwrap();
            driver.mark(Local::Signalling { listener: LISTENER }, SIGNALLING).unwrap();
            driver.mark(Local::Media { port: MEDIA }, EXPEDITED).unwrap();
            let mut queue = TxQueue::default();
            queue.push(Egress::Udp { listener: LISTENER, to }, Token::default(), b"sip");
            queue.push(Egress::Media { port: MEDIA, to }, Token::default(), b"rtp");
            driver.send(&queue, &mut |_, error| panic!("{error}"));
            for (from, dscp) in [(listener, SIGNALLING), (media, EXPEDITED)] {
                let found = seen(&mut frames, at.is_ipv6(), |source, destination, _| {
                    (source, destination) == (from.port(), to.port())
                });
                assert_eq!(found, Some(dscp), "{choice:?} {from}");
            }
        }
    }
}

#[test]
fn code_points_that_are_none_and_ports_that_are_closed_are_refused() {
    for choice in [Choice::Uring, Choice::Mmsg] {
        let Some(mut driver) = open(choice) else { return };
        driver.open_media(MEDIA, "127.9.7.2:0".parse().unwrap()).unwrap();
        assert!(driver.mark(Local::Media { port: MEDIA }, 63).is_ok());
        assert!(driver.mark(Local::Media { port: MEDIA }, 64).is_err());
        assert!(driver.mark(Local::Media { port: MediaPortId(1) }, 0).is_err());
        assert!(driver.mark(Local::Signalling { listener: LISTENER }, 0).is_err());
    }
}

#[test]
fn connections_of_a_marked_listener_have_its_code_point_from_the_first_segment_on() {
    let Some(mut frames) = frames(false) else { return };
    let Some(mut driver) = open(Choice::Mmsg) else { return };
    let mut streams = Streams::new(ShardId(0), StreamLimits::default());
    let at = "127.9.7.3:0".parse().unwrap();
    let local = streams.listen(driver.as_mut(), LISTENER, at).unwrap();
    streams.mark(LISTENER, SIGNALLING).unwrap();
    assert!(streams.mark(LISTENER, 64).is_err());

    // Accepted: the answer to the SYN.
    let mut caller = TcpStream::connect(local).unwrap();
    let port = caller.local_addr().unwrap().port();
    let found = seen(&mut frames, false, |source, to, _| (source, to) == (local.port(), port));
    assert_eq!(found, Some(SIGNALLING), "SYN and ACK");
    // A ping; the pong is data of the accepted connection.
    caller.write_all(b"\r\n\r\n").unwrap();
    let (mut pong, end) = ([0; 2], Clock::now() + LIMIT);
    caller.set_nonblocking(true).unwrap();
    let mut now = 1;
    while caller.read(&mut pong).is_err() {
        assert!(Clock::now() < end, "no pong");
        driver.wait(Duration::from_millis(20)).unwrap();
        now += 1;
        streams.poll(Instant(now), driver.as_mut(), &mut |_| {});
    }
    let found = seen(&mut frames, false, |source, to, tcp| {
        (source, to) == (local.port(), port) && tcp.ends_with(&pong)
    });
    assert_eq!(found, Some(SIGNALLING), "pong");

    let peer = TcpListener::bind("127.9.7.4:0").unwrap();
    let to = peer.local_addr().unwrap();
    let mut queue = TxQueue::default();
    queue.push(
        Egress::Connect { listener: LISTENER, to, transport: Transport::Tcp },
        Token::default(),
        b"made",
    );
    for tx in queue.iter() {
        streams.send(Instant(now), driver.as_mut(), tx);
    }
    let found = seen(&mut frames, false, |_, destination, _| destination == to.port());
    assert_eq!(found, Some(SIGNALLING), "SYN");
}

#[test]
fn frames_go_out_in_batches_and_come_in_whole() {
    let Some(mut frames) = frames(false) else { return };
    let Ok(mut sender) = FrameSender::new("lo") else { return };
    // A datagram to a port of an address that nobody asks for, by hand.
    let mut frame = vec![0; 14 + 20 + 8 + 100];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&128_u16.to_be_bytes());
    frame[22] = 64;
    frame[23] = 17;
    frame[26..30].copy_from_slice(&[127, 9, 7, 5]);
    frame[30..34].copy_from_slice(&[127, 9, 7, 6]);
    frame[36..38].copy_from_slice(&9_u16.to_be_bytes());
    frame[38..40].copy_from_slice(&108_u16.to_be_bytes());
    for number in 0..FRAMES_PER_CALL as u8 {
        assert!(sender.push(|slot| {
            slot[..frame.len()].copy_from_slice(&frame);
            slot[frame.len() - 1] = number;
            frame.len()
        }));
    }
    assert!(!sender.push(|_| 60), "no room before the flush");
    assert_eq!(sender.flush().unwrap(), 0);
    assert_eq!(sender.waiting(), 0);
    let (mut got, end) = (Vec::new(), Clock::now() + LIMIT);
    while got.len() < FRAMES_PER_CALL {
        assert!(Clock::now() < end, "{} came", got.len());
        frames.receive(16, &mut |seen| {
            if seen.bytes[26..34] == frame[26..34] {
                assert_eq!(seen.bytes[34..frame.len() - 1], frame[34..frame.len() - 1]);
                got.push(seen.bytes[frame.len() - 1]);
            }
        });
    }
    assert_eq!(got, (0..FRAMES_PER_CALL as u8).collect::<Vec<_>>());
    assert_eq!(frames.take_overruns().unwrap(), 0);
}
