//! Real sockets on the loopback, the same tests over both drivers.

use ravelin_engine::port::{Egress, ListenerId, Local, MediaPortId, Token, Transport, TxQueue};
use ravelin_io::driver::{
    self, Choice, Driver, Interest, Kind, MEDIA_DATAGRAM_MAX_BYTES, Options, RECEIVE_BATCH_MAX,
    Ready, Rx, SendError, WatchKey,
};
use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Detects a hang; no measure of speed.
const LIMIT: Duration = Duration::from_secs(20);
const LISTENER: ListenerId = ListenerId(3);
const MEDIA: MediaPortId = MediaPortId(7);

/// A driver, or none where this machine has no io_uring for us.
fn open(choice: Choice, options: &Options) -> Option<Box<dyn Driver>> {
    match driver::open(choice, options) {
        Ok(opened) => Some(opened.driver),
        Err(missing) => {
            eprintln!("skipped: {missing}");
            None
        }
    }
}

macro_rules! over_both_drivers {
    ($($(#[$doc:meta])* fn $name:ident($driver:ident, $options:expr) $body:block)+) => {
        mod over_uring { $(#[test] fn $name() { super::$name(super::Choice::Uring) })+ }
        mod over_mmsg { $(#[test] fn $name() { super::$name(super::Choice::Mmsg) })+ }
        $($(#[$doc])* fn $name(choice: Choice) {
            let Some(mut opened) = open(choice, &$options) else { return };
            let $driver = opened.as_mut();
            $body
        })+
    };
}

/// What a driver delivered, owned.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Datagram(SocketAddr, Local, Vec<u8>),
    TooLong(SocketAddr, Local),
    Unreachable(ListenerId, SocketAddr),
}

/// Turns the driver until `enough`.
fn run(driver: &mut dyn Driver, mut enough: impl FnMut(&[Got]) -> bool) -> Vec<Got> {
    let (mut got, end) = (Vec::new(), Instant::now() + LIMIT);
    while !enough(&got) {
        assert!(Instant::now() < end, "only {} things came: {:?}", got.len(), driver.stats());
        driver.wait(Duration::from_millis(20)).unwrap();
        let datagrams = driver.receive(&mut |rx| {
            got.push(match rx {
                Rx::Coming { .. } => return,
                Rx::Datagram { meta, bytes, .. } => {
                    Got::Datagram(meta.source, meta.local, bytes.to_vec())
                }
                Rx::TooLong { meta } => Got::TooLong(meta.source, meta.local),
                Rx::Unreachable { listener, to } => Got::Unreachable(listener, to),
            });
        });
        assert!(datagrams <= RECEIVE_BATCH_MAX);
    }
    got
}

fn run_for(driver: &mut dyn Driver, count: usize) -> Vec<Got> {
    run(driver, |got| got.len() >= count)
}

fn send(driver: &mut dyn Driver, entries: &[(Egress, u64, &[u8])]) -> Vec<(u64, SendError)> {
    let mut queue = TxQueue::default();
    for (egress, token, bytes) in entries {
        queue.push(*egress, Token(*token), bytes);
    }
    let mut failed = Vec::new();
    driver.send(&queue, &mut |token, error| {
        // What is not open has no error number.
        let kind = match error.raw_os_error() {
            None if error.kind() == io::ErrorKind::NotConnected => SendError::NotOpen,
            _ => SendError::of(&error),
        };
        failed.push((token.0, kind));
    });
    failed
}

fn signalling(to: SocketAddr) -> Egress {
    Egress::Udp { listener: LISTENER, to }
}

fn media(to: SocketAddr) -> Egress {
    Egress::Media { port: MEDIA, to }
}

fn peer(at: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// An address where nobody listens, for as long as its socket is there: that one is connected to itself,
/// so what others send is refused, and no test beside this one is given the port.
fn closed(at: &str) -> (UdpSocket, SocketAddr) {
    let (socket, addr) = peer(at);
    socket.connect(addr).unwrap();
    (socket, addr)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Bytes that no other length and no shifted copy has.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ len) as u8).collect()
}

fn small_buffers() -> Options {
    Options { media_buffers: 8, signalling_buffers: 4, ..Options::default() }
}

over_both_drivers! {
    fn datagrams_come_and_go_with_their_addresses(driver, Options::default()) {
        for host in ["127.5.1.1:0", "[::1]:0"] {
            let (offset, at) = (u16::from(host.starts_with('[')), addr(host));
            let listener = ListenerId(LISTENER.0 + offset);
            let port = MediaPortId(MEDIA.0 + u32::from(offset));
            let signalling_at = driver.open_listener(listener, at).unwrap();
            let media_at = driver.open_media(port, at).unwrap();
            let (peer, peer_at) = peer(host);
            for (to, local, egress) in [
                (signalling_at, Local::Signalling { listener },
                 Egress::Udp { listener, to: peer_at }),
                (media_at, Local::Media { port }, Egress::Media { port, to: peer_at }),
            ] {
                peer.send_to(b"there", to).unwrap();
                let got = run_for(driver, 1);
                assert_eq!(got, [Got::Datagram(peer_at, local, b"there".to_vec())]);
                assert_eq!(send(driver, &[(egress, 1, b"and back")]), []);
                let mut back = [0; 64];
                let (len, from) = peer.recv_from(&mut back).unwrap();
                assert_eq!((&back[..len], from), (&b"and back"[..], to));
            }
        }
        assert_eq!(driver.stats().rx_datagrams, 4);
        assert_eq!(driver.stats().tx_bytes, 4 * 8);
    }

    /// SIP over UDP may be up to 65,535 bytes (RFC 3261 18.1.1); an empty one is a keep-alive.
    fn signalling_of_every_size_arrives_whole(driver, Options::default()) {
        for host in ["127.5.1.2:0", "[::1]:0"] {
            let id = ListenerId(u16::from(host.starts_with('[')));
            let at = driver.open_listener(id, addr(host)).unwrap();
            let (peer, peer_at) = peer(host);
            let longest = if at.is_ipv4() { 65_507 } else { 65_527 };
            for len in [0, 1, 1_299, 1_300, 1_500, 4_096, 9_000, 65_000, longest] {
                let bytes = pattern(len);
                peer.send_to(&bytes, at).unwrap();
                let local = Local::Signalling { listener: id };
                let got = run_for(driver, 1);
                assert!(got == [Got::Datagram(peer_at, local, bytes.clone())], "{host} {len}");
                let egress = Egress::Udp { listener: id, to: peer_at };
                assert_eq!(send(driver, &[(egress, 1, &bytes)]), []);
                let mut back = vec![0; 66_000];
                let len = peer.recv(&mut back).unwrap();
                assert!(back[..len] == bytes, "{host} {len}");
            }
        }
    }

    fn media_beyond_its_size_is_counted_and_not_delivered(driver, Options::default()) {
        let at = driver.open_media(MEDIA, addr("127.5.1.3:0")).unwrap();
        let (peer, peer_at) = peer("127.5.1.3:0");
        let longest = pattern(MEDIA_DATAGRAM_MAX_BYTES);
        peer.send_to(&pattern(MEDIA_DATAGRAM_MAX_BYTES + 1), at).unwrap();
        peer.send_to(&longest, at).unwrap();
        let local = Local::Media { port: MEDIA };
        let got = run_for(driver, 2);
        assert_eq!(got, [Got::TooLong(peer_at, local), Got::Datagram(peer_at, local, longest)]);
        assert_eq!(driver.stats().rx_truncated, 1);
        assert_eq!(driver.stats().rx_datagrams, 1);
    }

    /// Many more datagrams than buffers wait when the driver looks.
    fn a_flood_beyond_the_buffers_loses_nothing_that_the_socket_holds(driver, small_buffers()) {
        let signalling_at = driver.open_listener(LISTENER, addr("127.5.1.4:0")).unwrap();
        let media_at = driver.open_media(MEDIA, addr("127.5.1.4:0")).unwrap();
        let (peer, peer_at) = peer("127.5.1.4:0");
        for round in 0..5_u8 {
            let mut expected = Vec::new();
            for number in 0..60_u8 {
                for (to, local) in [
                    (signalling_at, Local::Signalling { listener: LISTENER }),
                    (media_at, Local::Media { port: MEDIA }),
                ] {
                    peer.send_to(&[round, number], to).unwrap();
                    expected.push(Got::Datagram(peer_at, local, vec![round, number]));
                }
            }
            let got = run_for(driver, expected.len());
            // In order for each socket.
            for local in [Local::Signalling { listener: LISTENER }, Local::Media { port: MEDIA }] {
                let of = |list: &[Got]| -> Vec<Vec<u8>> {
                    list.iter().filter_map(|got| match got {
                        Got::Datagram(_, at, bytes) if *at == local => Some(bytes.clone()),
                        _ => None,
                    }).collect()
                };
                assert_eq!(of(&got), of(&expected));
            }
        }
        if driver.kind() == Kind::Uring {
            assert!(driver.stats().rx_no_buffer > 0);
        }
    }

    fn one_turn_takes_a_bounded_number(driver, Options::default()) {
        let at = driver.open_media(MEDIA, addr("127.5.1.5:0")).unwrap();
        let (peer, _) = peer("127.5.1.5:0");
        // Fits the receive queue of a media port, whatever it was granted.
        let sent = 600;
        for number in 0..sent {
            peer.send_to(&[number as u8], at).unwrap();
            if number % 100 == 0 {
                driver.wait(Duration::ZERO).unwrap();
            }
        }
        // `run` asserts the bound.
        assert_eq!(run_for(driver, sent).len(), sent);
    }

    /// RFC 3261 18.4: an ICMP error is a transport error. It must not hit anybody else's datagram.
    fn a_closed_port_is_reported_and_others_do_not_suffer(driver, Options::default()) {
        for host in ["127.5.1.6:0", "[::1]:0"] {
            let listener = ListenerId(u16::from(host.starts_with('[')));
            let at = driver.open_listener(listener, addr(host)).unwrap();
            let ((_closed, closed_at), (open, open_at)) = (closed(host), peer(host));
            let (to_closed, to_open) = (
                Egress::Udp { listener, to: closed_at },
                Egress::Udp { listener, to: open_at },
            );
            for round in 0..20_u8 {
                let failed = send(driver, &[
                    (to_closed, 1, b"nobody"), (to_open, 2, &[round, 0]),
                    (to_closed, 3, b"nobody"), (to_open, 4, &[round, 1]),
                ]);
                assert!(failed.iter().all(|(token, _)| token % 2 == 1), "{failed:?}");
                for half in 0..2 {
                    let mut bytes = [0; 16];
                    assert_eq!(open.recv(&mut bytes).unwrap(), 2);
                    assert_eq!(bytes[..2], [round, half]);
                }
                let got = run_for(driver, 1);
                assert_eq!(got[0], Got::Unreachable(listener, closed_at));
            }
            open.send_to(b"still there", at).unwrap();
            run(driver, |got| matches!(got.last(), Some(Got::Datagram(..))));
        }
        assert!(driver.stats().icmp_errors >= 40);
    }

    fn a_media_port_survives_peers_that_are_gone(driver, Options::default()) {
        let at = driver.open_media(MEDIA, addr("127.5.1.7:0")).unwrap();
        let ((_closed, closed_at), (open, open_at)) = (closed("127.5.1.7:0"), peer("127.5.1.7:0"));
        for round in 0..20 {
            let failed = send(driver, &[
                (media(closed_at), 1, b"nobody"), (media(open_at), 2, &[round]),
            ]);
            assert_eq!(failed, []);
            let mut bytes = [0; 16];
            assert_eq!(open.recv(&mut bytes).unwrap(), 1);
            open.send_to(&[round], at).unwrap();
            assert_eq!(run_for(driver, 1).len(), 1);
        }
    }

    fn every_send_that_fails_is_reported_by_token_and_counted_by_kind(driver, Options::default()) {
        let (open, open_at) = peer("127.5.1.8:0");
        driver.open_listener(LISTENER, addr("127.5.1.8:0")).unwrap();
        let long = vec![0; 65_508];
        let other = Egress::Udp { listener: ListenerId(9), to: open_at };
        let unopened = Egress::Media { port: MEDIA, to: open_at };
        let beyond = Egress::Media { port: MediaPortId(u32::MAX), to: open_at };
        let mut failed = send(driver, &[
            (signalling(open_at), 1, b"first"),
            (signalling(open_at), 2, &long),
            (other, 3, b"x"),
            (unopened, 4, b"x"),
            (beyond, 5, b"x"),
            (signalling(addr("[::1]:9")), 6, b"x"),
            (signalling(addr("127.5.1.8:0")), 7, b"x"),
            (signalling(open_at), 8, b"last"),
        ]);
        failed.sort_by_key(|(token, _)| *token);
        let (not_open, no_route) = (SendError::NotOpen, SendError::NoRoute);
        assert_eq!(failed, [
            (2, SendError::TooLong), (3, not_open), (4, not_open), (5, not_open),
            (6, no_route), (7, no_route),
        ]);
        for expected in ["first", "last"] {
            let mut bytes = [0; 16];
            let len = open.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..len], expected.as_bytes());
        }
        let errors = driver.stats().tx_errors;
        assert_eq!(errors[SendError::TooLong as usize], 1);
        assert_eq!(errors[not_open as usize], 3);
        assert_eq!(errors[no_route as usize], 2);
        assert_eq!(errors.iter().sum::<u64>(), 6);
        assert_eq!(driver.stats().tx_datagrams, 2);
    }

    fn a_large_batch_keeps_its_order_on_each_socket(driver, Options::default()) {
        driver.open_listener(LISTENER, addr("127.5.1.9:0")).unwrap();
        driver.open_media(MEDIA, addr("127.5.1.9:0")).unwrap();
        let (one, one_at) = peer("127.5.1.9:0");
        let (two, two_at) = peer("127.5.1.9:0");
        let mut expected = [0_u32; 2];
        for _ in 0..30 {
            let mut queue = TxQueue::default();
            for number in expected[0]..expected[0] + 50 {
                queue.push(signalling(one_at), Token(0), &number.to_be_bytes());
                queue.push(media(two_at), Token(0), &number.to_be_bytes());
            }
            driver.send(&queue, &mut |_, error| panic!("{error}"));
            // Taken at once: the peers' receive queues need hold one batch only.
            for (socket, next) in [&one, &two].into_iter().zip(&mut expected) {
                for _ in 0..50 {
                    let mut bytes = [0; 64];
                    let len = socket.recv(&mut bytes).unwrap();
                    assert_eq!(bytes[..len], next.to_be_bytes());
                    *next += 1;
                }
            }
        }
        assert_eq!(driver.stats().tx_datagrams, 3_000);
    }

    /// How long a packet lay in its port's queue is known, whatever the driver did meanwhile.
    fn media_tells_how_long_it_waited(driver, Options::default()) {
        let at = driver.open_media(MEDIA, addr("127.5.1.24:0")).unwrap();
        let listener_at = driver.open_listener(LISTENER, addr("127.5.1.24:0")).unwrap();
        let (peer, _) = peer("127.5.1.24:0");
        let mut waits = |to: SocketAddr, pause: Duration| {
            let begun = Instant::now();
            peer.send_to(b"sent", to).unwrap();
            let sent = Instant::now();
            std::thread::sleep(pause);
            let (mut found, mut least) = (None, Duration::ZERO);
            while found.is_none() {
                assert!(begun.elapsed() < LIMIT, "nothing came");
                driver.wait(Duration::from_millis(20)).unwrap();
                least = sent.elapsed();
                driver.receive(&mut |rx| {
                    if let Rx::Datagram { waited, .. } = rx {
                        found = Some(waited);
                    }
                });
            }
            (found.unwrap(), least, begun.elapsed())
        };
        for pause in [Duration::ZERO, Duration::from_millis(60)] {
            let (waited, least, most) = waits(at, pause);
            let waited = waited.expect("a time");
            // Two clocks, of which the kernel may be setting one.
            let slack = Duration::from_millis(2);
            assert!(waited + slack >= least && waited <= most + slack, "{waited:?} {least:?} {most:?}");
        }
        assert_eq!(waits(listener_at, Duration::ZERO).0, None);
    }

    /// Several packets of a stream in one batch, as frames of video are.
    fn packets_of_one_stream_arrive_one_by_one(driver, Options::default()) {
        driver.open_media(MEDIA, addr("127.5.1.21:0")).unwrap();
        let (one, one_at) = peer("127.5.1.21:0");
        let (two, two_at) = peer("127.5.1.21:0");
        let mut count = 0;
        // What a peer's receive queue holds.
        for run in [1, 2, 3, 4, 5, 25, 50] {
            let packet = |at: usize| pattern(if at % 7 == 6 { 90 } else { 200 + run });
            let mut queue = TxQueue::default();
            for (to, first) in [(one_at, 0), (two_at, 500), (one_at, 1_000)] {
                for at in 0..run {
                    queue.push(media(to), Token(0), &packet(first + at));
                }
            }
            driver.send(&queue, &mut |_, error| panic!("{error}"));
            count += queue.len() as u64;
            for (socket, first) in [(&one, 0), (&one, 1_000), (&two, 500)] {
                for at in 0..run {
                    let mut bytes = [0; 4_096];
                    let len = socket.recv(&mut bytes).unwrap();
                    assert!(bytes[..len] == packet(first + at), "{at} of {run}");
                }
            }
        }
        assert_eq!(driver.stats().tx_datagrams, count);
    }

    /// More of them than the kernel takes as one.
    fn a_hundred_packets_of_one_stream_arrive_in_order(driver, Options::default()) {
        driver.open_media(MEDIA, addr("127.5.1.23:0")).unwrap();
        let (one, to) = peer("127.5.1.23:0");
        let mut queue = TxQueue::default();
        for at in 0..100 {
            queue.push(media(to), Token(0), &[at; 50]);
        }
        driver.send(&queue, &mut |_, error| panic!("{error}"));
        for tx in queue.iter() {
            let mut bytes = [0; 4_096];
            let len = one.recv(&mut bytes).unwrap();
            assert!(bytes[..len] == *tx.bytes);
        }
    }

    /// Each packet of a run that cannot leave is reported, as if it had been alone.
    fn packets_of_one_stream_fail_one_by_one(driver, Options::default()) {
        driver.open_media(MEDIA, addr("127.5.1.22:0")).unwrap();
        let (one, one_at) = peer("127.5.1.22:0");
        // Port 0 cannot be sent to, an unopened port cannot be sent from.
        let nowhere = media(addr("127.5.1.22:0"));
        let unopened = Egress::Media { port: MediaPortId(MEDIA.0 + 1), to: one_at };
        let run = |egress, from| (from..from + 6).map(move |token| (egress, token, &b"octets"[..]));
        let entries: Vec<_> =
            run(nowhere, 0).chain(run(unopened, 6)).chain(run(media(one_at), 12)).collect();
        let mut failed = send(driver, &entries);
        failed.sort_by_key(|(token, _)| *token);
        let expected = (0..6).map(|token| (token, SendError::NoRoute));
        let expected = expected.chain((6..12).map(|token| (token, SendError::NotOpen)));
        assert_eq!(failed, expected.collect::<Vec<_>>());
        for _ in 12..18 {
            let mut bytes = [0; 16];
            let len = one.recv(&mut bytes).unwrap();
            assert_eq!(bytes[..len], *b"octets");
        }
        let stats = driver.stats();
        assert_eq!((stats.tx_datagrams, stats.tx_bytes), (6, 36));
        assert_eq!(stats.tx_errors[SendError::NoRoute as usize], 6);
        assert_eq!(stats.tx_errors[SendError::NotOpen as usize], 6);
    }

    /// A batch beyond what is in flight at once.
    fn a_batch_may_be_of_any_size(driver, Options::default()) {
        driver.open_listener(LISTENER, addr("127.5.1.10:0")).unwrap();
        let (_open, to) = peer("127.5.1.10:0");
        let mut queue = TxQueue::default();
        for _ in 0..5_000 {
            queue.push(signalling(to), Token(0), b"x");
        }
        driver.send(&queue, &mut |_, error| panic!("{error}"));
        assert_eq!(driver.stats().tx_datagrams, 5_000);
        assert_eq!(driver.wait(Duration::ZERO).unwrap(), 0);
    }

    fn entries_of_streams_are_left_alone(driver, Options::default()) {
        let to = addr("127.5.1.11:5060");
        let connect = Egress::Connect { listener: LISTENER, to, transport: Transport::Tcp };
        assert_eq!(send(driver, &[(connect, 1, b"not mine")]), []);
        assert_eq!(driver.stats().tx_datagrams, 0);
    }

    fn shards_share_a_listener_and_nobody_shares_a_media_port(driver, Options::default()) {
        let at = driver.open_listener(LISTENER, addr("127.5.1.12:0")).unwrap();
        let mut other = driver::open(Choice::Mmsg, &Options::default()).unwrap().driver;
        assert_eq!(other.open_listener(LISTENER, at).unwrap(), at);
        let media_at = driver.open_media(MEDIA, addr("127.5.1.12:0")).unwrap();
        let refused = other.open_media(MEDIA, media_at).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        let again = driver.open_media(MEDIA, addr("127.5.1.12:0")).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        // A failed open leaves the id free.
        other.open_media(MEDIA, addr("127.5.1.12:0")).unwrap();
        let far = driver.open_listener(ListenerId(u16::MAX), addr("127.5.1.12:0")).unwrap_err();
        assert_eq!(far.kind(), io::ErrorKind::InvalidInput);
        let foreign = driver.open_media(MediaPortId(1), addr("192.0.2.1:0")).unwrap_err();
        assert_eq!(foreign.kind(), io::ErrorKind::AddrNotAvailable);
    }

    fn thousands_of_media_ports_work_at_once(driver, Options::default()) {
        const PORTS: u32 = 1_500;
        ravelin_io::sys::thread::raise_open_files().unwrap();
        let (peer, peer_at) = peer("127.5.1.13:0");
        let ports: Vec<_> = (0..PORTS)
            .map(|id| driver.open_media(MediaPortId(id), addr("127.5.1.13:0")).unwrap())
            .collect();
        for (chunk, first) in ports.chunks(300).zip((0..).step_by(300)) {
            for (to, id) in chunk.iter().zip(first..) {
                peer.send_to(&u32::to_be_bytes(id), to).unwrap();
            }
            let mut got = run_for(driver, chunk.len());
            got.sort_by_key(|got| match got {
                Got::Datagram(_, _, bytes) => bytes.clone(),
                Got::TooLong(..) => panic!("nothing is too long"),
                Got::Unreachable(..) => panic!("nobody is unreachable"),
            });
            for (got, id) in got.iter().zip(first..) {
                let local = Local::Media { port: MediaPortId(id) };
                assert_eq!(*got, Got::Datagram(peer_at, local, id.to_be_bytes().to_vec()));
            }
        }
    }

    fn ports_are_free_when_the_driver_is_gone(driver, Options::default()) {
        let mut at = driver.open_media(MEDIA, addr("127.5.1.14:0")).unwrap();
        let kind = if driver.kind() == Kind::Uring { Choice::Uring } else { Choice::Mmsg };
        let mut next = open(kind, &Options::default()).unwrap();
        assert!(next.open_media(MEDIA, at).is_err());
        for _ in 0..5 {
            // The port of a driver that is dropped here is taken by the next one at once.
            let taken = next.open_media(MediaPortId(8), addr("127.5.1.14:0")).unwrap();
            drop(next);
            next = open(kind, &Options::default()).unwrap();
            at = next.open_media(MEDIA, taken).unwrap();
            assert_eq!(at, taken);
        }
    }

    fn another_thread_wakes_the_wait(driver, Options::default()) {
        let waker = driver.waker();
        // Before the wait, and twice: noticed once, and then it waits again.
        waker.wake();
        waker.wake();
        driver.wait(LIMIT).unwrap();
        assert_eq!(driver.stats().wakes, 1);
        for round in 0..200 {
            let waker = driver.waker();
            let thread = std::thread::spawn(move || {
                if round % 2 == 0 {
                    std::thread::yield_now();
                }
                waker.wake();
            });
            let before = driver.stats().wakes;
            while driver.stats().wakes == before {
                driver.wait(LIMIT).unwrap();
                driver.receive(&mut |rx| panic!("{rx:?}"));
            }
            thread.join().unwrap();
        }
    }

    fn a_wait_ends_by_itself(driver, Options::default()) {
        assert_eq!(driver.wait(Duration::ZERO).unwrap(), 0);
        assert_eq!(driver.wait(Duration::from_micros(300)).unwrap(), 0);
        assert_eq!(driver.wait(Duration::from_millis(3)).unwrap(), 0);
    }

    fn descriptors_are_watched_once_each_time(driver, Options::default()) {
        let (reader, mut writer) = io::pipe().unwrap();
        let key = WatchKey(5);
        let mut ready = Vec::new();
        // Not ready, then ready, then forgotten although it still is.
        driver.watch(key, reader.as_fd(), Interest::Read).unwrap();
        turn_ready(driver, Duration::ZERO, &mut ready);
        assert_eq!(ready, []);
        writer.write_all(b"x").unwrap();
        while ready.is_empty() {
            turn_ready(driver, LIMIT, &mut ready);
        }
        let readable = Ready { key, readable: true, writable: false, closed: false };
        assert_eq!(ready, [readable]);
        turn_ready(driver, Duration::ZERO, &mut ready);
        assert_eq!(ready.len(), 1);
        // Watched again it is reported again, since it is still readable.
        ready.clear();
        driver.watch(key, reader.as_fd(), Interest::Read).unwrap();
        while ready.is_empty() {
            turn_ready(driver, LIMIT, &mut ready);
        }
        assert_eq!(ready, [readable]);
        // A writer is ready at once; two keys are told apart.
        ready.clear();
        driver.watch(WatchKey(6), writer.as_fd(), Interest::Write).unwrap();
        while ready.is_empty() {
            turn_ready(driver, LIMIT, &mut ready);
        }
        assert_eq!(ready[0].key, WatchKey(6));
        assert!(ready[0].writable && !ready[0].readable && !ready[0].closed);
        // The other end goes away.
        ready.clear();
        driver.unwatch(WatchKey(6), writer.as_fd());
        drop(writer);
        driver.watch(key, reader.as_fd(), Interest::Read).unwrap();
        while ready.is_empty() {
            turn_ready(driver, LIMIT, &mut ready);
        }
        assert!(ready[0].closed && ready[0].readable);
    }

    fn a_watch_that_was_dropped_is_not_reported(driver, Options::default()) {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut ready = Vec::new();
        driver.watch(WatchKey(1), reader.as_fd(), Interest::Read).unwrap();
        driver.unwatch(WatchKey(1), reader.as_fd());
        writer.write_all(b"x").unwrap();
        turn_ready(driver, Duration::from_millis(5), &mut ready);
        assert_eq!(ready, []);
        // Fired, and dropped before anybody asked.
        driver.watch(WatchKey(1), reader.as_fd(), Interest::Read).unwrap();
        driver.wait(LIMIT).unwrap();
        driver.receive(&mut |rx| panic!("{rx:?}"));
        driver.unwatch(WatchKey(1), reader.as_fd());
        turn_ready(driver, Duration::ZERO, &mut ready);
        assert_eq!(ready, []);
        // The key may be used for another descriptor, and replacing a watch ends the older one.
        let (other, _other_writer) = io::pipe().unwrap();
        driver.watch(WatchKey(1), other.as_fd(), Interest::Read).unwrap();
        turn_ready(driver, Duration::from_millis(5), &mut ready);
        assert_eq!(ready, []);
        let beyond = WatchKey(u32::MAX);
        assert!(driver.watch(beyond, other.as_fd(), Interest::Read).is_err());
    }
}

fn turn_ready(driver: &mut dyn Driver, timeout: Duration, ready: &mut Vec<Ready>) {
    driver.wait(timeout).unwrap();
    driver.receive(&mut |rx| panic!("{rx:?}"));
    driver.take_ready(ready);
}

/// More is ready at once than the completion queue has room for.
#[test]
fn more_completions_than_the_queue_holds_lose_nothing() {
    const WATCHES: u32 = 9_000;
    let Some(mut driver) = open(Choice::Uring, &Options::default()) else { return };
    let at = driver.open_media(MEDIA, addr("127.5.1.15:0")).unwrap();
    let (peer, _) = peer("127.5.1.15:0");
    let (reader, mut writer) = io::pipe().unwrap();
    for key in 0..WATCHES {
        driver.watch(WatchKey(key), reader.as_fd(), Interest::Read).unwrap();
    }
    driver.wait(Duration::ZERO).unwrap();
    writer.write_all(b"x").unwrap();
    peer.send_to(b"beside", at).unwrap();
    let (mut ready, mut datagrams, end) = (Vec::new(), 0, Instant::now() + LIMIT);
    while ready.len() < WATCHES as usize || datagrams == 0 {
        assert!(Instant::now() < end, "{} ready, {:?}", ready.len(), driver.stats());
        driver.wait(Duration::from_millis(20)).unwrap();
        datagrams += driver.receive(&mut |_| {});
        driver.take_ready(&mut ready);
    }
    let mut keys: Vec<_> = ready.iter().map(|ready| ready.key.0).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), WATCHES as usize);
    // And the port goes on receiving.
    peer.send_to(b"after", at).unwrap();
    assert_eq!(run_for(driver.as_mut(), 1).len(), 1);
}

#[test]
fn auto_takes_io_uring_or_says_why_not() {
    let opened = driver::open(Choice::Auto, &Options::default()).unwrap();
    match opened.fallback {
        None => assert_eq!(opened.driver.kind(), Kind::Uring),
        Some(missing) => {
            assert_eq!(opened.driver.kind(), Kind::Mmsg);
            assert!(!missing.to_string().is_empty());
        }
    }
}
