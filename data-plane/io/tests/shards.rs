//! Two shards as the edge runs them: hosted, each with its driver, its streams and its end of the
//! mesh. Whatever comes in anywhere is answered by shard 0, through the socket or connection that
//! it came in on, wherever that is.

use ravelin_engine::port::{
    Egress, ListenerId, Local, MediaPortId, Meta, ShardId, Token, Tx, TxQueue,
};
use ravelin_engine::time::Instant;
use ravelin_io::clock;
use ravelin_io::cross::{self, CrossShard, Crossed};
use ravelin_io::driver::{self, Choice, Driver, Options, Rx, Waker};
use ravelin_io::host::{self, HostOptions, Next, ShardLoop};
use ravelin_io::stream::{StreamEvent, StreamLimits, Streams};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Detects a hang; no measure of speed.
const LIMIT: Duration = Duration::from_secs(20);
const UDP: ListenerId = ListenerId(0);
const TCP: ListenerId = ListenerId(1);
const OWNER: ShardId = ShardId(0);

struct Shard {
    me: ShardId,
    driver: Box<dyn Driver>,
    streams: Streams,
    cross: CrossShard,
    inbox: Vec<(Meta, Vec<u8>)>,
    out: TxQueue,
    stop: Arc<AtomicBool>,
}

impl Shard {
    /// Stands for the engine: owner 0 answers, everybody else passes on.
    fn handle(&mut self, meta: Meta, bytes: &[u8]) {
        if self.me != OWNER {
            assert!(self.cross.forward(OWNER, meta, bytes));
            return;
        }
        let to = meta.source;
        let egress = match meta.local {
            Local::Signalling { listener } => Egress::Udp { listener, to },
            Local::Media { port } => Egress::Media { port, to },
            Local::Stream { flow, .. } => Egress::Flow { flow, or_connect: None },
        };
        self.out.push(egress, Token::default(), bytes);
    }

    fn stream(&mut self, now: Instant, tx: Tx<'_>) {
        match tx.egress {
            Egress::Flow { flow, .. } if flow.shard != self.me => {
                assert!(self.cross.send(flow.shard, tx));
            }
            Egress::Flow { .. } | Egress::Connect { .. } => {
                assert!(self.streams.send(now, self.driver.as_mut(), tx).is_some());
            }
            Egress::Udp { .. } | Egress::Media { .. } => {}
        }
    }
}

impl ShardLoop for Shard {
    fn turn(&mut self, wait_max: Duration) -> Next {
        let now = clock::monotonic();
        let wait = match self.streams.next_deadline() {
            _ if self.cross.has_input() => Duration::ZERO,
            Some(due) => due.since(now).min(wait_max),
            None => wait_max,
        };
        self.driver.wait(wait).unwrap();
        let now = clock::monotonic();
        let mut inbox = std::mem::take(&mut self.inbox);
        let mut crossed_sends = TxQueue::default();
        self.cross.receive(&mut |crossed| match crossed {
            Crossed::Received { meta, bytes } => inbox.push((meta, bytes.to_vec())),
            Crossed::Send { tx, .. } => crossed_sends.push(tx.egress, tx.token, tx.bytes),
            other => panic!("{other:?}"),
        });
        self.driver.receive(&mut |rx| match rx {
            Rx::Datagram { meta, bytes, .. } => inbox.push((meta, bytes.to_vec())),
            Rx::Coming { .. } => {}
            Rx::TooLong { .. } | Rx::Unreachable { .. } => panic!("{rx:?}"),
        });
        self.streams.poll(now, self.driver.as_mut(), &mut |event| match event {
            StreamEvent::Message { meta, bytes } => inbox.push((meta, bytes.to_vec())),
            StreamEvent::Ended { .. } | StreamEvent::Closed { .. } => {}
            StreamEvent::SendFailed { .. } => panic!("{event:?}"),
        });
        for (meta, bytes) in inbox.drain(..) {
            self.handle(meta, &bytes);
        }
        self.inbox = inbox;
        let out = std::mem::take(&mut self.out);
        self.driver.send(&out, &mut |_, error| panic!("{error}"));
        for tx in out.iter().chain(crossed_sends.iter()) {
            self.stream(now, tx);
        }
        self.out = out;
        self.out.clear();
        self.cross.flush();
        if self.stop.load(Ordering::Relaxed) { Next::Stop } else { Next::Turn }
    }
}

struct Started {
    udp: SocketAddr,
    tcp: SocketAddr,
    waker: Waker,
}

/// Starts a shard on the given addresses; the first one leaves their ports to the kernel.
fn start(
    choice: Choice,
    cross: CrossShard,
    me: ShardId,
    (udp, tcp): (SocketAddr, SocketAddr),
    stop: Arc<AtomicBool>,
) -> (host::Host, Started) {
    let (started, start) = mpsc::channel();
    let options = HostOptions::new(format!("shard-{}", me.0), Some(usize::from(me.0) % 2));
    let host = host::spawn(options, move |_| {
        let mut driver = driver::open(choice, &Options::default())?.driver;
        let udp = driver.open_listener(UDP, udp)?;
        let media = SocketAddr::new(udp.ip(), 0);
        driver.open_media(MediaPortId(0), media)?;
        let mut streams = Streams::new(me, StreamLimits::default());
        let tcp = streams.listen(driver.as_mut(), TCP, tcp)?;
        let waker = driver.waker();
        cross.attach(waker.clone());
        started.send(Started { udp, tcp, waker }).expect("the test waits");
        let (inbox, out) = (Vec::new(), TxQueue::default());
        Ok(Shard { me, driver, streams, cross, inbox, out, stop })
    })
    .unwrap();
    (host, start.recv().unwrap())
}

fn two_shards_answer_as_one(choice: Choice, at: &str) {
    let at: SocketAddr = at.parse().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut ends = cross::mesh(2, cross::SLOTS);
    let (second, first) = (ends.pop().unwrap(), ends.pop().unwrap());
    let (host_first, one) = start(choice, first, ShardId(0), (at, at), stop.clone());
    let shared = (one.udp, one.tcp);
    let (host_second, two) = start(choice, second, ShardId(1), shared, stop.clone());
    assert_eq!((two.udp, two.tcp), shared);

    // Many sources, so that the kernel's hash gives both shards something.
    for number in 0..100_u32 {
        let bytes = number.to_be_bytes();
        let peer = UdpSocket::bind((at.ip(), 0)).unwrap();
        peer.set_read_timeout(Some(LIMIT)).unwrap();
        peer.send_to(&bytes, one.udp).unwrap();
        let mut back = [0; 16];
        let (len, from) = peer.recv_from(&mut back).unwrap();
        assert_eq!((&back[..len], from), (&bytes[..], one.udp));

        let mut peer = TcpStream::connect(one.tcp).unwrap();
        peer.set_read_timeout(Some(LIMIT)).unwrap();
        let message = format!("INFO sip:{number}@a SIP/2.0\r\nContent-Length: 2\r\n\r\nhi");
        for _ in 0..3 {
            peer.write_all(message.as_bytes()).unwrap();
            let mut back = vec![0; message.len()];
            peer.read_exact(&mut back).unwrap();
            assert_eq!(back, message.as_bytes());
        }
    }
    stop.store(true, Ordering::Relaxed);
    for (host, waker) in [(host_first, one.waker), (host_second, two.waker)] {
        waker.wake();
        host.join().unwrap();
    }
}

#[test]
fn two_shards_answer_as_one_over_the_best_driver() {
    two_shards_answer_as_one(Choice::Auto, "127.5.6.1:0");
    two_shards_answer_as_one(Choice::Auto, "[::1]:0");
}

#[test]
fn two_shards_answer_as_one_over_mmsg() {
    two_shards_answer_as_one(Choice::Mmsg, "127.5.6.2:0");
}
