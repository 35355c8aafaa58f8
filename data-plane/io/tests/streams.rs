//! SIP streams over real TCP connections on the loopback, over both drivers. Time is handed in, so
//! deadlines pass without waiting for them.

use ravelin_engine::port::{
    Egress, FlowId, ListenerId, Local, Meta, ShardId, Token, Transport, Tx,
};
use ravelin_engine::time::Instant;
use ravelin_io::driver::{self, Choice, Driver, Options};
use ravelin_io::stream::{CloseReason, StreamEvent, StreamLimits, Streams};
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Detects a hang; no measure of speed.
const LIMIT: Duration = Duration::from_secs(20);
const LISTENER: ListenerId = ListenerId(4);
const SHARD: ShardId = ShardId(2);

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Message(Meta, Vec<u8>),
    Closed(FlowId),
    Failed(u64, ErrorKind),
}

struct Rig {
    driver: Box<dyn Driver>,
    streams: Streams,
    now: Instant,
    at: SocketAddr,
    /// Connections whose peer will send nothing more.
    ended: Vec<FlowId>,
}

impl Rig {
    fn new(choice: Choice, at: &str, limits: StreamLimits) -> Option<Self> {
        let mut driver = match driver::open(choice, &Options::default()) {
            Ok(opened) => opened.driver,
            Err(missing) => {
                eprintln!("skipped: {missing}");
                return None;
            }
        };
        let mut streams = Streams::new(SHARD, limits);
        let at = streams.listen(driver.as_mut(), LISTENER, at.parse().unwrap()).unwrap();
        Some(Self { driver, streams, now: Instant::from_millis(1), at, ended: Vec::new() })
    }

    fn turn(&mut self, wait: Duration) -> Vec<Event> {
        let past = self.streams.next_deadline().is_some_and(|due| due <= self.now);
        self.driver.wait(if past { Duration::ZERO } else { wait }).unwrap();
        self.driver.receive(&mut |rx| panic!("{rx:?}"));
        let (mut events, mut ended) = (Vec::new(), Vec::new());
        let count = self.streams.poll(self.now, self.driver.as_mut(), &mut |event| {
            events.push(match event {
                StreamEvent::Message { meta, bytes } => Event::Message(meta, bytes.to_vec()),
                StreamEvent::Ended { flow } => return ended.push(flow),
                StreamEvent::Closed { flow } => Event::Closed(flow),
                StreamEvent::SendFailed { from, token, error } => {
                    assert_eq!(from, SHARD);
                    Event::Failed(token.0, error.kind())
                }
            });
        });
        assert_eq!(count, events.len() + ended.len());
        self.ended.append(&mut ended);
        events
    }

    fn until(&mut self, mut enough: impl FnMut(&Self, &[Event]) -> bool) -> Vec<Event> {
        let (mut events, end) = (Vec::new(), std::time::Instant::now() + LIMIT);
        while !enough(self, &events) {
            assert!(std::time::Instant::now() < end, "{events:?} {:?}", self.streams.stats());
            events.extend(self.turn(Duration::from_millis(10)));
        }
        events
    }

    fn events(&mut self, count: usize) -> Vec<Event> {
        self.until(|_, events| events.len() >= count)
    }

    /// Turns without anything to wait for: lets what is under way arrive.
    fn settle(&mut self) -> Vec<Event> {
        (0..5).flat_map(|_| self.turn(Duration::from_millis(2))).collect()
    }

    /// One message, its flow and its bytes.
    fn message(&mut self) -> (FlowId, Vec<u8>) {
        match self.events(1).pop() {
            Some(Event::Message(meta, bytes)) => (flow_of(meta), bytes),
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, egress: Egress, token: u64, bytes: &[u8]) -> Option<FlowId> {
        let tx = Tx { egress, token: Token(token), bytes };
        self.streams.send(self.now, self.driver.as_mut(), tx)
    }

    fn connect(&self) -> TcpStream {
        client(self.at)
    }

    fn closed_by(&self, reason: CloseReason) -> u64 {
        self.streams.stats().closed_by(reason)
    }
}

fn client(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// An address that refuses connections, for as long as its socket is there: bound, and no listener.
fn vacant(at: &str) -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&at.parse::<SocketAddr>().unwrap().into()).unwrap();
    let at = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, at)
}

fn flow_of(meta: Meta) -> FlowId {
    match meta.local {
        Local::Stream { flow, .. } => flow,
        other => panic!("{other:?}"),
    }
}

fn on(flow: FlowId) -> Egress {
    Egress::Flow { flow, or_connect: None }
}

fn to(addr: SocketAddr) -> Egress {
    Egress::Connect { listener: LISTENER, to: addr, transport: Transport::Tcp }
}

fn message(number: usize, body: usize) -> Vec<u8> {
    let head = format!("INFO sip:{number}@example.com SIP/2.0\r\nContent-Length: {body}\r\n\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend((0..body).map(|at| (at ^ number) as u8));
    bytes
}

fn read_exactly(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

macro_rules! over_both_drivers {
    ($($(#[$doc:meta])* fn $name:ident($rig:ident, $at:literal, $limits:expr) $body:block)+) => {
        mod over_uring { $(#[test] fn $name() { super::$name(super::Choice::Uring) })+ }
        mod over_mmsg { $(#[test] fn $name() { super::$name(super::Choice::Mmsg) })+ }
        $($(#[$doc])* fn $name(choice: Choice) {
            let Some(mut $rig) = Rig::new(choice, $at, $limits) else { return };
            $body
        })+
    };
}

fn usual() -> StreamLimits {
    StreamLimits::default()
}

over_both_drivers! {
    fn messages_are_framed_however_they_are_cut(rig, "127.5.3.1:0", usual()) {
        let mut peer = rig.connect();
        let source = peer.local_addr().unwrap();
        let bodies = [0, 1, 700, 0, 20_000, 65_000];
        let expected: Vec<_> =
            bodies.iter().enumerate().map(|(number, body)| message(number, *body)).collect();
        let mut stream = expected.concat();
        stream.extend_from_slice(b"\r\n");
        stream.extend(expected.concat());
        let mut events = Vec::new();
        // All at once, then in pieces that hit every boundary somewhere.
        for (piece, len) in stream.chunks(997).zip(1_usize..) {
            peer.write_all(piece).unwrap();
            if len % 3 == 0 {
                events.extend(rig.turn(Duration::from_millis(1)));
            }
        }
        let so_far = events.len();
        events.extend(rig.until(|_, events| events.len() + so_far >= 2 * bodies.len()));
        assert_eq!(events.len(), 2 * bodies.len());
        let mut flows = Vec::new();
        for (event, expected) in events.iter().zip(expected.iter().cycle()) {
            let Event::Message(meta, bytes) = event else { panic!("{event:?}") };
            assert!(bytes == expected);
            assert_eq!(meta.source, source);
            let Local::Stream { listener, flow } = meta.local else { panic!("{meta:?}") };
            assert_eq!((listener, flow.shard), (LISTENER, ShardId(2)));
            flows.push(flow);
        }
        flows.dedup();
        assert_eq!(flows.len(), 1);
        assert_eq!(rig.streams.held_bytes(), 0);
    }

    fn one_byte_at_a_time(rig, "[::1]:0", usual()) {
        let mut peer = rig.connect();
        let expected = message(7, 9);
        let mut events = Vec::new();
        for byte in &expected {
            assert_eq!(events, []);
            peer.write_all(&[*byte]).unwrap();
            events.extend(rig.turn(Duration::from_millis(1)));
        }
        if events.is_empty() {
            events = rig.events(1);
        }
        assert!(matches!(&events[..], [Event::Message(_, bytes)] if *bytes == expected));
    }

    /// RFC 5626 4.4.1.
    fn a_ping_is_answered_between_messages_and_not_within(rig, "127.5.3.2:0", usual()) {
        let mut peer = rig.connect();
        let within = b"INFO sip:a SIP/2.0\r\nContent-Length: 4\r\n\r\n\r\n\r\n".to_vec();
        peer.write_all(&within).unwrap();
        let (flow, bytes) = rig.message();
        assert_eq!(bytes, within);
        peer.write_all(b"\r\n\r\n").unwrap();
        rig.until(|rig, _| rig.streams.stats().pings == 1);
        assert_eq!(read_exactly(&mut peer, 2), b"\r\n");
        rig.send(on(flow), 1, b"after");
        assert_eq!(read_exactly(&mut peer, 5), b"after");
    }

    /// RFC 3261 18.2.2: a response goes back on the connection of its request.
    fn answers_go_back_on_the_flow(rig, "127.5.3.3:0", usual()) {
        let (mut one, mut two) = (rig.connect(), rig.connect());
        one.write_all(&message(1, 0)).unwrap();
        let (flow_one, _) = rig.message();
        two.write_all(&message(2, 0)).unwrap();
        let (flow_two, _) = rig.message();
        assert_ne!(flow_one, flow_two);
        let large = message(3, 60_000);
        rig.send(on(flow_two), 1, &large);
        rig.send(on(flow_one), 1, b"first");
        assert_eq!(read_exactly(&mut one, 5), b"first");
        let reader = std::thread::spawn(move || read_exactly(&mut two, large.len()) == large);
        rig.until(|rig, _| rig.streams.held_bytes() == 0);
        assert!(reader.join().unwrap());
    }

    /// Who sent a request learns which connection took it, and that it ended.
    fn the_connection_of_a_request_is_known_and_its_end_is_told(rig, "127.9.3.1:0", usual()) {
        let target = TcpListener::bind("127.9.3.2:0").unwrap();
        let at = target.local_addr().unwrap();
        let first = rig.send(to(at), 1, &message(1, 0)).unwrap();
        assert_eq!(rig.send(to(at), 2, &message(2, 0)), Some(first));
        let peer = accept(&target);
        rig.until(|rig, _| rig.streams.stats().connected == 1);
        assert_eq!(rig.ended, []);
        peer.shutdown(Shutdown::Write).unwrap();
        rig.until(|rig, _| !rig.ended.is_empty());
        assert_eq!(rig.ended, [first]);
        // A request would have no answer there: it takes a new connection. An answer of ours goes
        // back on the old one.
        let flow = Egress::Flow { flow: first, or_connect: Some((LISTENER, at)) };
        assert_eq!(rig.send(flow, 0, b"answer"), Some(first));
        let second = rig.send(flow, 3, &message(3, 0)).unwrap();
        assert_ne!(second, first);
        assert_eq!(rig.send(on(first), 4, &message(4, 0)), None);
        assert_eq!(rig.events(1), [Event::Failed(4, ErrorKind::NotConnected)]);
    }

    /// RFC 3261 18.2.2: an answer whose connection is gone takes a new one.
    fn an_answer_outlives_its_connection(rig, "127.9.3.3:0", usual()) {
        let target = TcpListener::bind("127.9.3.4:0").unwrap();
        let at = target.local_addr().unwrap();
        let mut peer = rig.connect();
        peer.write_all(&message(1, 0)).unwrap();
        let (flow, _) = rig.message();
        drop(peer);
        rig.until(|rig, _| !rig.ended.is_empty());
        rig.streams.close(rig.driver.as_mut(), flow);
        let answered = rig.send(Egress::Flow { flow, or_connect: Some((LISTENER, at)) }, 0, b"200");
        assert!(answered.is_some_and(|other| other != flow));
        let mut peer = accept(&target);
        rig.until(|rig, _| rig.streams.stats().connected == 1);
        assert_eq!(read_exactly(&mut peer, 3), b"200");
    }

    fn a_failure_is_told_to_the_shard_whose_message_it_was(rig, "127.9.3.5:0", usual()) {
        let (_vacant, at) = vacant("127.9.3.6:0");
        let tx = Tx { egress: to(at), token: Token(9), bytes: b"BYE" };
        rig.streams.send_for(ShardId(7), rig.now, rig.driver.as_mut(), tx);
        let mut told = Vec::new();
        let end = std::time::Instant::now() + LIMIT;
        while told.is_empty() && std::time::Instant::now() < end {
            rig.driver.wait(Duration::from_millis(10)).unwrap();
            rig.driver.receive(&mut |rx| panic!("{rx:?}"));
            rig.streams.poll(rig.now, rig.driver.as_mut(), &mut |event| {
                if let StreamEvent::SendFailed { from, token, error } = event {
                    told.push((from, token, error.kind()));
                }
            });
        }
        assert_eq!(told, [(ShardId(7), Token(9), ErrorKind::ConnectionRefused)]);
    }

    fn a_connection_is_made_once_and_used_both_ways(rig, "127.5.3.4:0", usual()) {
        let target = TcpListener::bind("127.5.3.5:0").unwrap();
        let at = target.local_addr().unwrap();
        // The first ones wait for the connection, the last one finds it open.
        rig.send(to(at), 1, &message(1, 10));
        rig.send(to(at), 2, &message(2, 0));
        rig.until(|rig, _| rig.streams.stats().connected == 1);
        rig.send(to(at), 3, &message(3, 0));
        let mut peer = accept(&target);
        assert_eq!(peer.peer_addr().unwrap().ip(), rig.at.ip());
        let expected = [message(1, 10), message(2, 0), message(3, 0)].concat();
        assert_eq!(read_exactly(&mut peer, expected.len()), expected);
        peer.write_all(&message(4, 3)).unwrap();
        let (flow, bytes) = rig.message();
        assert_eq!(bytes, message(4, 3));
        rig.send(on(flow), 0, b"flow");
        assert_eq!(read_exactly(&mut peer, 4), b"flow");
        assert_eq!((rig.streams.open_count(), rig.streams.stats().connected), (1, 1));
        target.set_nonblocking(true).unwrap();
        assert_eq!(target.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    fn an_accepted_connection_serves_requests_to_its_peer(rig, "127.5.3.6:0", usual()) {
        let mut peer = rig.connect();
        peer.write_all(&message(1, 0)).unwrap();
        rig.message();
        rig.send(to(peer.local_addr().unwrap()), 1, b"reused");
        assert_eq!(read_exactly(&mut peer, 6), b"reused");
        assert_eq!(rig.streams.stats().connected, 0);
    }

    fn a_refused_connection_fails_every_message_that_waited(rig, "127.5.3.7:0", usual()) {
        let (_vacant, at) = vacant("127.5.3.8:0");
        for token in [1, 2, 0, 3] {
            rig.send(to(at), token, &message(1, 0));
        }
        let events = rig.until(|_, events| matches!(events.last(), Some(Event::Closed(_))));
        let refused = |token| Event::Failed(token, ErrorKind::ConnectionRefused);
        assert_eq!(events[..3], [refused(1), refused(2), refused(3)]);
        assert_eq!(events.len(), 4);
        assert_eq!(rig.closed_by(CloseReason::ConnectFailed), 1);
        assert_eq!(rig.streams.stats().send_failures, 4);
        assert_eq!((rig.streams.open_count(), rig.streams.held_bytes()), (0, 0));
    }

    /// A peer that answers no SYN holds up nobody else.
    fn connecting_has_a_deadline(rig, "127.5.3.9:0", usual()) {
        let target = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        target.bind(&"127.5.3.10:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        target.listen(0).unwrap();
        let at = target.local_addr().unwrap().as_socket().unwrap();
        // One fills the queue of connections to be accepted; the next gets no answer.
        let _first = client(at);
        rig.send(to(at), 9, b"x");
        let mut peer = rig.connect();
        peer.write_all(&message(1, 0)).unwrap();
        let (flow, _) = rig.message();
        rig.now = rig.now + usual().connect_deadline;
        let events = rig.events(2);
        assert_eq!(events[0], Event::Failed(9, ErrorKind::TimedOut));
        assert!(matches!(events[1], Event::Closed(other) if other != flow));
        assert_eq!(rig.closed_by(CloseReason::ConnectDeadline), 1);
        rig.send(on(flow), 1, b"alive");
        assert_eq!(read_exactly(&mut peer, 5), b"alive");
    }

    fn a_lost_flow_fails_or_connects_anew(rig, "127.5.3.11:0", usual()) {
        let target = TcpListener::bind("127.5.3.12:0").unwrap();
        let at = target.local_addr().unwrap();
        let mut peer = rig.connect();
        peer.write_all(&message(1, 0)).unwrap();
        let (flow, _) = rig.message();
        rig.streams.close(rig.driver.as_mut(), flow);
        assert_eq!(rig.events(1), [Event::Closed(flow)]);
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
        rig.send(on(flow), 1, b"x");
        let elsewhere = FlowId { shard: ShardId(1), ..flow };
        rig.send(on(elsewhere), 2, b"x");
        let failed = |token| Event::Failed(token, ErrorKind::NotConnected);
        assert_eq!(rig.events(2), [failed(1), failed(2)]);
        // The slot has a new connection; the old flow must not reach it.
        let mut next = rig.connect();
        next.write_all(&message(2, 0)).unwrap();
        let (reused, _) = rig.message();
        assert_eq!(reused.slot, flow.slot);
        rig.send(on(flow), 3, b"x");
        assert_eq!(rig.events(1), [failed(3)]);
        let or_connect = Egress::Flow { flow, or_connect: Some((LISTENER, at)) };
        rig.send(or_connect, 4, b"anew");
        rig.until(|rig, _| rig.streams.stats().connected == 1);
        assert_eq!(read_exactly(&mut accept(&target), 4), b"anew");
    }

    fn what_cannot_be_connected_fails_at_once(rig, "127.5.3.13:0", usual()) {
        let at = "127.5.3.14:5061".parse().unwrap();
        let tls = Egress::Connect { listener: LISTENER, to: at, transport: Transport::Tls };
        let unknown = ListenerId(99);
        let other = Egress::Connect { listener: unknown, to: at, transport: Transport::Tcp };
        let family = to("[::1]:9".parse().unwrap());
        for (egress, token) in [(tls, 1), (other, 2), (family, 3)] {
            rig.send(egress, token, b"x");
        }
        rig.send(Egress::Udp { listener: LISTENER, to: at }, 4, b"not a stream's");
        let events = rig.settle();
        assert_eq!(events[..2], [
            Event::Failed(1, ErrorKind::Unsupported), Event::Failed(2, ErrorKind::NotConnected),
        ]);
        assert!(matches!(events[2..], [Event::Failed(3, _)]), "{events:?}");
        assert_eq!(rig.streams.open_count(), 0);
    }

    /// lessons.md 12: a peer that does not read neither grows our memory nor stops the others.
    fn a_peer_that_does_not_read_is_closed_in_bounds(rig, "127.5.3.15:0", StreamLimits {
        queue_bytes_max: 200_000, ..usual()
    }) {
        let (mut deaf, mut other) = (rig.connect(), rig.connect());
        deaf.write_all(&message(1, 0)).unwrap();
        let (flow, _) = rig.message();
        other.write_all(&message(2, 0)).unwrap();
        let (other_flow, _) = rig.message();
        let large = message(3, 60_000);
        let (mut token, mut events) = (0, Vec::new());
        while events.is_empty() {
            token += 1;
            assert!(token < 10_000);
            rig.send(on(flow), token, &large);
            assert!(rig.streams.held_bytes() <= 200_000);
            rig.send(on(other_flow), 0, b"ok");
            assert_eq!(read_exactly(&mut other, 2), b"ok");
            events = rig.turn(Duration::ZERO);
        }
        // Those that were queued, in order, then the end, then the one that found no room.
        let [queued @ .., closed, last] = &events[..] else { panic!("{events:?}") };
        assert_eq!(*last, Event::Failed(token, ErrorKind::StorageFull));
        assert_eq!(*closed, Event::Closed(flow));
        assert!((1..=3).contains(&queued.len()), "{events:?}");
        assert!(queued.iter().all(|event| matches!(event, Event::Failed(..))));
        assert_eq!(rig.closed_by(CloseReason::QueueFull), 1);
        assert_eq!((rig.streams.open_count(), rig.streams.held_bytes()), (1, 0));
    }

    fn many_small_messages_to_a_deaf_peer_are_bounded_too(rig, "127.5.3.16:0", StreamLimits {
        queue_messages_max: 10, ..usual()
    }) {
        let mut deaf = rig.connect();
        deaf.write_all(&message(1, 0)).unwrap();
        let (flow, _) = rig.message();
        // Fill the socket's own queue first.
        let large = message(3, 60_000);
        while rig.streams.held_bytes() == 0 {
            rig.send(on(flow), 1, &large);
        }
        for token in 2..=10 {
            rig.send(on(flow), token, b"small");
        }
        assert_eq!(rig.streams.open_count(), 1);
        rig.send(on(flow), 11, b"small");
        assert_eq!(rig.streams.open_count(), 0);
        let expected: Vec<_> = (1..=11).collect();
        let failed: Vec<_> = rig.settle().into_iter().filter_map(|event| match event {
            Event::Failed(token, _) => Some(token),
            _ => None,
        }).collect();
        assert_eq!(failed, expected);
    }

    fn writing_has_a_deadline_that_progress_extends(rig, "127.5.3.17:0", usual()) {
        let mut slow = rig.connect();
        slow.write_all(&message(1, 0)).unwrap();
        let (flow, _) = rig.message();
        let (large, mut sent) = (message(3, 60_000), 0);
        while rig.streams.held_bytes() < 300_000 {
            rig.send(on(flow), 1, &large);
            sent += large.len();
        }
        rig.settle();
        rig.now = rig.now + (usual().write_deadline - Duration::from_millis(1));
        // Some is read in time, until the shard could write more.
        let held = rig.streams.held_bytes();
        let mut read = 0;
        while rig.streams.held_bytes() == held {
            read += slow.read(&mut vec![0; 100_000]).unwrap();
            assert!(read < sent);
            rig.settle();
        }
        rig.now = rig.now + Duration::from_millis(500);
        rig.settle();
        assert_eq!(rig.streams.open_count(), 1);
        while rig.streams.held_bytes() < 300_000 {
            rig.send(on(flow), 1, &large);
        }
        rig.settle();
        // What the kernel still takes is progress; without any it is over.
        for _ in 0..1_000 {
            let held = rig.streams.held_bytes();
            rig.now = rig.now + usual().write_deadline;
            rig.settle();
            if rig.streams.open_count() == 0 {
                break;
            }
            assert_ne!(rig.streams.held_bytes(), held, "open without progress");
        }
        assert_eq!(rig.closed_by(CloseReason::WriteDeadline), 1);
    }

    /// Half-open and dripping connections.
    fn a_message_has_a_deadline_that_dripping_does_not_extend(rig, "127.5.3.18:0", usual()) {
        let mut drip = rig.connect();
        let whole = message(1, 5);
        drip.write_all(&whole).unwrap();
        let (flow, _) = rig.message();
        drip.write_all(&whole[..10]).unwrap();
        rig.until(|rig, _| rig.streams.held_bytes() == 10);
        let step = usual().message_deadline / 8;
        for at in 10..17 {
            rig.now = rig.now + step;
            drip.write_all(&whole[at..=at]).unwrap();
            let held = at + 1;
            let events = rig.until(|rig, _| rig.streams.held_bytes() == held);
            assert_eq!(events, []);
        }
        rig.now = rig.now + step;
        assert_eq!(rig.events(1), [Event::Closed(flow)]);
        assert_eq!(rig.closed_by(CloseReason::MessageDeadline), 1);
        assert_eq!(rig.streams.held_bytes(), 0);
    }

    fn a_connection_that_never_speaks_is_closed(rig, "127.5.3.19:0", usual()) {
        let mut silent = rig.connect();
        rig.until(|rig, _| rig.streams.open_count() == 1);
        rig.now = rig.now + usual().message_deadline;
        rig.until(|rig, _| rig.streams.open_count() == 0);
        assert_eq!(rig.closed_by(CloseReason::MessageDeadline), 1);
        assert_eq!(silent.read(&mut [0; 8]).unwrap(), 0);
    }

    fn an_idle_connection_is_kept_for_its_time(rig, "127.5.3.20:0", usual()) {
        let mut peer = rig.connect();
        peer.write_all(&message(1, 0)).unwrap();
        let (flow, _) = rig.message();
        for _ in 0..3 {
            rig.now = rig.now + (usual().idle_deadline - Duration::from_secs(1));
            peer.write_all(&message(1, 0)).unwrap();
            assert_eq!(rig.message().0, flow);
        }
        rig.now = rig.now + (usual().idle_deadline - Duration::from_secs(1));
        assert_eq!(rig.settle(), []);
        rig.now = rig.now + Duration::from_secs(1);
        assert_eq!(rig.events(1), [Event::Closed(flow)]);
        assert_eq!(rig.closed_by(CloseReason::IdleDeadline), 1);
    }

    fn the_table_and_each_source_have_limits(rig, "127.5.3.21:0", StreamLimits {
        connections_max: 3, connections_per_source_max: 2, ..usual()
    }) {
        let from = |source: &str| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&format!("{source}:0").parse::<SocketAddr>().unwrap().into()).unwrap();
            socket.connect(&rig.at.into()).unwrap();
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream
        };
        let mut ours = vec![from("127.5.3.22"), from("127.5.3.22")];
        let mut third = from("127.5.3.22");
        let other = from("127.5.3.23");
        let mut fifth = from("127.5.3.24");
        rig.until(|rig, _| {
            let stats = rig.streams.stats();
            stats.accepted == 3 && stats.refused_source == 1 && stats.refused_total == 1
        });
        assert_eq!(third.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(fifth.read(&mut [0; 8]).unwrap(), 0);
        // Connecting is refused as well, and what ends makes room again.
        rig.send(to("127.5.3.25:9".parse().unwrap()), 1, b"x");
        assert_eq!(rig.events(1), [Event::Failed(1, ErrorKind::QuotaExceeded)]);
        let mut leaving = ours.pop().unwrap();
        leaving.write_all(&message(1, 0)).unwrap();
        let (flow, _) = rig.message();
        rig.streams.close(rig.driver.as_mut(), flow);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.5.3.22:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.connect(&rig.at.into()).unwrap();
        rig.until(|rig, _| rig.streams.stats().accepted == 4);
        drop((ours, other));
    }

    /// RFC 3261 18.3 and the wish that every malformed message ends in an answer or a count.
    fn a_broken_stream_can_still_be_answered(rig, "127.5.3.26:0", usual()) {
        let mut peer = rig.connect();
        let broken = b"INFO sip:a SIP/2.0\r\nContent-Length: many\r\n\r\nINFO sip:b";
        peer.write_all(&message(1, 0)).unwrap();
        peer.write_all(broken).unwrap();
        let events = rig.events(2);
        let Event::Message(meta, bytes) = &events[1] else { panic!("{events:?}") };
        assert_eq!(bytes, broken);
        let flow = flow_of(*meta);
        rig.send(on(flow), 0, b"SIP/2.0 400 Bad Request\r\n\r\n");
        // Nothing more is read, whatever comes.
        peer.write_all(&message(2, 0)).unwrap();
        assert_eq!(rig.settle(), []);
        assert_eq!(read_exactly(&mut peer, 27), b"SIP/2.0 400 Bad Request\r\n\r\n");
        rig.now = rig.now + usual().drain_deadline;
        assert_eq!(rig.events(1), [Event::Closed(flow)]);
        assert_eq!(rig.closed_by(CloseReason::Framing), 1);
    }

    fn a_peer_that_closed_its_half_gets_its_answer(rig, "127.5.3.27:0", usual()) {
        let mut peer = rig.connect();
        let source = peer.local_addr().unwrap();
        peer.write_all(&message(1, 0)).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let (flow, _) = rig.message();
        rig.until(|rig, _| rig.ended == [flow]);
        rig.send(on(flow), 0, b"answer");
        assert_eq!(read_exactly(&mut peer, 6), b"answer");
        // A request, which has a token, would wait there for an answer that cannot come.
        rig.send(on(flow), 1, b"request");
        assert_eq!(rig.settle(), [Event::Failed(1, ErrorKind::NotConnected)]);
        // A request takes a connection of its own.
        rig.send(to(source), 2, b"request");
        let events = rig.until(|_, events| events.len() >= 2);
        assert_eq!(events[0], Event::Failed(2, ErrorKind::ConnectionRefused));
        rig.now = rig.now + usual().drain_deadline;
        assert_eq!(rig.events(1), [Event::Closed(flow)]);
        assert_eq!(rig.closed_by(CloseReason::Peer), 1);
    }

    fn a_reset_is_noticed(rig, "127.5.3.28:0", usual()) {
        let mut peer = rig.connect();
        peer.write_all(&message(1, 0)).unwrap();
        let (flow, _) = rig.message();
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert_eq!(rig.events(1), [Event::Closed(flow)]);
        assert_eq!(rig.closed_by(CloseReason::Error), 1);
    }

    fn all_connections_together_hold_a_bounded_amount(rig, "127.5.3.29:0", StreamLimits {
        held_bytes_max: 100_000, ..usual()
    }) {
        let mut peers: Vec<_> = (0..4).map(|_| rig.connect()).collect();
        for peer in &mut peers {
            let large = message(1, 60_000);
            // The peer may be cut off while it writes.
            let _ = peer.write_all(&large[..40_000]);
            for _ in 0..20 {
                rig.turn(Duration::from_millis(1));
                assert!(rig.streams.held_bytes() <= 100_000);
            }
        }
        rig.until(|rig, _| rig.closed_by(CloseReason::Memory) >= 2);
        assert!(rig.streams.held_bytes() <= 100_000);
        assert_eq!(rig.closed_by(CloseReason::Memory), 2);
        assert_eq!(rig.streams.open_count(), 2);
    }

    fn a_thousand_connections_come_talk_and_go(rig, "127.5.3.30:0", usual()) {
        const PEERS: usize = 1_000;
        ravelin_io::sys::thread::raise_open_files().unwrap();
        for round in 0..2 {
            let mut peers = Vec::new();
            for number in 0..PEERS {
                let mut peer = rig.connect();
                peer.write_all(&message(number, 50)).unwrap();
                peers.push(peer);
                if number % 100 == 99 {
                    let upto = round * PEERS + number + 1;
                    let events = rig.until(|rig, _| {
                        rig.streams.stats().rx_messages == upto as u64
                    });
                    for event in events {
                        let Event::Message(meta, bytes) = event else { panic!("{event:?}") };
                        rig.send(on(flow_of(meta)), 1, &bytes);
                    }
                }
            }
            assert_eq!(rig.streams.open_count(), PEERS);
            for (peer, number) in peers.iter_mut().zip(0..) {
                let expected = message(number, 50);
                assert_eq!(read_exactly(peer, expected.len()), expected);
            }
            drop(peers);
            // What the peers closed drains and ends.
            rig.until(|rig, _| {
                let draining = rig.driver.stats().waits;
                draining > 0 && rig.streams.next_deadline().is_some()
            });
            rig.settle();
            for _ in 0..50 {
                rig.now = rig.now + usual().drain_deadline;
                rig.settle();
            }
            assert_eq!((rig.streams.open_count(), rig.streams.held_bytes()), (0, 0));
        }
        assert_eq!(rig.streams.stats().accepted, 2 * PEERS as u64);
        assert_eq!(rig.closed_by(CloseReason::Peer), 2 * PEERS as u64);
    }

    fn shards_share_the_port(rig, "127.5.3.31:0", usual()) {
        let mut other = driver::open(Choice::Mmsg, &Options::default()).unwrap().driver;
        let mut streams = Streams::new(ShardId(1), usual());
        assert_eq!(streams.listen(other.as_mut(), LISTENER, rig.at).unwrap(), rig.at);
        let _peers: Vec<_> = (0..64).map(|_| rig.connect()).collect();
        let end = std::time::Instant::now() + LIMIT;
        loop {
            rig.turn(Duration::from_millis(1));
            other.wait(Duration::from_millis(1)).unwrap();
            streams.poll(rig.now, other.as_mut(), &mut |event| panic!("{event:?}"));
            if rig.streams.open_count() + streams.open_count() == 64 {
                break;
            }
            assert!(std::time::Instant::now() < end);
        }
        // 2^-64 that the kernel's hash puts all on one side.
        assert!(rig.streams.open_count() > 0 && streams.open_count() > 0);
    }
}

#[test]
fn a_taken_address_is_an_error() {
    let taken = TcpListener::bind("127.5.3.40:0").unwrap();
    let mut driver = driver::open(Choice::Mmsg, &Options::default()).unwrap().driver;
    let mut streams = Streams::new(ShardId(0), usual());
    let at = taken.local_addr().unwrap();
    let error = streams.listen(driver.as_mut(), LISTENER, at).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}
