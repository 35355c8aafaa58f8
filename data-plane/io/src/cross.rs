//! Bounded rings between shards, one per direction of each pair.
//!
//! A datagram that the kernel gave to the wrong shard, and a message for a connection that another
//! shard owns, move to their owner here. A shard never waits for another: a full ring is a counted
//! drop (`DropReason::CrossShardFull`, which the caller counts). Buffers travel back when they are
//! used up, so that in steady state nothing is allocated.

use crate::driver::Waker;
use ravelin_engine::port::{Egress, FlowId, ListenerId, Meta, ShardId, Token, Tx};
use rtrb::{Consumer, Producer, RingBuffer};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

/// Usual number of slots of a ring: two full receive batches.
pub const SLOTS: usize = 1_024;

/// Most taken from one ring per turn.
const RECEIVE_MAX: usize = 512;

/// A buffer that grew beyond this is not kept for reuse: rare large messages must not make every
/// buffer large.
const KEPT_BUFFER_MAX_BYTES: usize = 4_096;

/// What crosses.
struct Parcel {
    what: What,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
enum What {
    Received(Meta),
    Placed(Meta, u8),
    Send(Egress, Token),
    Tell(Notice),
}

/// What one shard tells another of its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A message handed over with this token was not sent.
    SendFailed(Token),
    /// The message handed over with this token went out through this connection.
    SentThrough(Token, FlowId),
    /// Nothing more comes from this connection.
    FlowClosed(FlowId),
    /// An ICMP error: see [`crate::driver::Rx::Unreachable`]. The kernel gives it to any of the
    /// sockets that share the listener's port, not to the one that sent.
    Unreachable { listener: ListenerId, to: SocketAddr },
}

/// What another shard handed over.
#[derive(Clone, Copy, Debug)]
pub enum Crossed<'a> {
    /// Came in there and belongs here, as if this shard had received it.
    Received {
        meta: Meta,
        bytes: &'a [u8],
    },
    /// A new call that other shards, so many of them, had no port for.
    Placed {
        meta: Meta,
        tried: u8,
        bytes: &'a [u8],
    },
    /// Is to be sent through a connection of this shard. The token names a transaction of the
    /// shard `from`.
    Send {
        from: ShardId,
        tx: Tx<'a>,
    },
    Told(Notice),
}

/// Counters of one shard's end of the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrossStats {
    pub sent: u64,
    pub received: u64,
    /// Not sent because the ring was full, or the shard does not exist.
    pub full: u64,
}

struct Peer {
    out: Producer<Parcel>,
    /// Our buffers, back from the peer.
    returned: Consumer<Vec<u8>>,
    input: Consumer<Parcel>,
    /// The peer's buffers, on their way back.
    give_back: Producer<Vec<u8>>,
    /// Something was sent since the last flush.
    touched: bool,
}

/// One shard's end of the mesh; to be moved to that shard's thread.
pub struct CrossShard {
    me: ShardId,
    /// By shard; none for the shard itself.
    peers: Vec<Option<Peer>>,
    wakers: Arc<[OnceLock<Waker>]>,
    stats: CrossStats,
}

/// Makes the mesh of `shards` shards, with `slots` slots for each direction of each pair.
#[must_use]
pub fn mesh(shards: usize, slots: usize) -> Vec<CrossShard> {
    let shards = u8::try_from(shards).unwrap_or(u8::MAX);
    let wakers: Arc<[OnceLock<Waker>]> = (0..shards).map(|_| OnceLock::new()).collect();
    let mut ends: Vec<CrossShard> = (0..shards)
        .map(|shard| CrossShard {
            me: ShardId(shard),
            peers: (0..shards).map(|_| None).collect(),
            wakers: wakers.clone(),
            stats: CrossStats::default(),
        })
        .collect();
    for one in 0..usize::from(shards) {
        for other in one + 1..usize::from(shards) {
            let (there, from_there) = (RingBuffer::new(slots), RingBuffer::new(slots));
            let (back, from_back) = (RingBuffer::new(slots), RingBuffer::new(slots));
            ends[one].peers[other] = Some(Peer {
                out: there.0,
                returned: back.1,
                input: from_there.1,
                give_back: from_back.0,
                touched: false,
            });
            ends[other].peers[one] = Some(Peer {
                out: from_there.0,
                returned: from_back.1,
                input: there.1,
                give_back: back.0,
                touched: false,
            });
        }
    }
    ends
}

impl CrossShard {
    /// Says how to wake this shard. To be called once its driver is open; until then the others'
    /// parcels wait for its next turn.
    pub fn attach(&self, waker: Waker) {
        if let Some(mine) = self.wakers.get(usize::from(self.me.0)) {
            // A second driver of the same shard does not exist.
            let _ = mine.set(waker);
        }
    }

    /// Hands what was received here to the shard that owns its call. False: the ring is full, the
    /// caller counts the drop.
    #[must_use]
    pub fn forward(&mut self, to: ShardId, meta: Meta, bytes: &[u8]) -> bool {
        self.push(to, What::Received(meta), bytes)
    }

    /// Hands on a new call. False: the ring is full, and it stays.
    #[must_use]
    pub fn place(&mut self, to: ShardId, meta: Meta, tried: u8, bytes: &[u8]) -> bool {
        self.push(to, What::Placed(meta, tried), bytes)
    }

    /// Hands a message to the shard that owns its connection. False: the ring is full, the message
    /// was not sent.
    #[must_use]
    pub fn send(&mut self, to: ShardId, tx: Tx<'_>) -> bool {
        self.push(to, What::Send(tx.egress, tx.token), tx.bytes)
    }

    /// Tells another shard. False: the ring is full; its timers will tell it later.
    pub fn tell(&mut self, to: ShardId, notice: Notice) -> bool {
        self.push(to, What::Tell(notice), &[])
    }

    /// Tells every other shard.
    pub fn tell_all(&mut self, notice: Notice) {
        let me = self.me;
        for to in (0..=u8::MAX).take(self.peers.len()).map(ShardId).filter(|to| *to != me) {
            self.tell(to, notice);
        }
    }

    fn push(&mut self, to: ShardId, what: What, bytes: &[u8]) -> bool {
        let Some(Some(peer)) = self.peers.get_mut(usize::from(to.0)) else {
            self.stats.full += 1;
            return false;
        };
        if peer.out.is_full() {
            self.stats.full += 1;
            return false;
        }
        let mut buffer = peer.returned.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        // There is room, and nobody else pushes.
        let pushed = peer.out.push(Parcel { what, bytes: buffer }).is_ok();
        debug_assert!(pushed);
        peer.touched = true;
        self.stats.sent += 1;
        true
    }

    /// Delivers what the other shards handed over, a bounded number per turn. Returns how many.
    pub fn receive(&mut self, sink: &mut dyn FnMut(Crossed<'_>)) -> usize {
        let mut received = 0;
        for (peer, from) in self.peers.iter_mut().zip(0_u8..) {
            let Some(peer) = peer else { continue };
            for _ in 0..RECEIVE_MAX {
                let Ok(Parcel { what, bytes }) = peer.input.pop() else { break };
                received += 1;
                sink(match what {
                    What::Received(meta) => Crossed::Received { meta, bytes: &bytes },
                    What::Placed(meta, tried) => Crossed::Placed { meta, tried, bytes: &bytes },
                    What::Send(egress, token) => Crossed::Send {
                        from: ShardId(from),
                        tx: Tx { egress, token, bytes: &bytes },
                    },
                    What::Tell(notice) => Crossed::Told(notice),
                });
                if bytes.capacity() <= KEPT_BUFFER_MAX_BYTES {
                    // Full: the peer has enough of them, this one is freed.
                    let _ = peer.give_back.push(bytes);
                }
            }
        }
        self.stats.received += received as u64;
        received
    }

    /// Whether parcels wait, so that the shard must not sleep.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.peers.iter().flatten().any(|peer| !peer.input.is_empty())
    }

    /// Wakes the shards that were sent to since the last call. Once per turn.
    pub fn flush(&mut self) {
        for (peer, waker) in self.peers.iter_mut().zip(self.wakers.iter()) {
            if let Some(peer) = peer
                && std::mem::take(&mut peer.touched)
                && let Some(waker) = waker.get()
            {
                waker.wake();
            }
        }
    }

    #[must_use]
    pub const fn stats(&self) -> &CrossStats {
        &self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Choice, Options, open};
    use ravelin_engine::port::{FlowId, ListenerId, Local};
    use std::time::Duration;

    fn meta(port: u16) -> Meta {
        Meta {
            source: ([127, 5, 2, 1], port).into(),
            local: Local::Signalling { listener: ListenerId(1) },
        }
    }

    fn take(end: &mut CrossShard) -> Vec<(u16, Vec<u8>)> {
        let mut got = Vec::new();
        end.receive(&mut |crossed| match crossed {
            Crossed::Received { meta, bytes } => got.push((meta.source.port(), bytes.to_vec())),
            other => panic!("nothing was to be sent: {other:?}"),
        });
        got
    }

    #[test]
    fn every_shard_reaches_every_other_and_nobody_else() {
        let mut ends = mesh(3, 8);
        for from in 0..3_u8 {
            for to in 0..3_u8 {
                let pair = [from, to];
                let sent = ends[usize::from(from)].forward(ShardId(to), meta(1), &pair);
                assert_eq!(sent, from != to);
            }
            assert!(!ends[usize::from(from)].forward(ShardId(3), meta(1), b""));
        }
        for (end, me) in ends.iter_mut().zip(0_u8..) {
            assert!(end.has_input());
            let got = take(end);
            let others = (0..3).filter(|from| *from != me);
            let expected: Vec<_> = others.map(|from| (1, vec![from, me])).collect();
            assert_eq!(got, expected);
            assert!(!end.has_input());
            assert_eq!(*end.stats(), CrossStats { sent: 2, received: 2, full: 2 });
        }
    }

    #[test]
    fn a_full_ring_refuses_and_takes_again_when_there_is_room() {
        let mut ends = mesh(2, 4);
        let (left, right) = ends.split_at_mut(1);
        let (left, right) = (&mut left[0], &mut right[0]);
        for round in 0..50_u16 {
            for number in 0..6 {
                let sent = left.forward(ShardId(1), meta(number), &round.to_be_bytes());
                assert_eq!(sent, number < 4);
            }
            let expected: Vec<_> =
                (0..4).map(|port| (port, round.to_be_bytes().to_vec())).collect();
            assert_eq!(take(right), expected);
        }
        assert_eq!(left.stats().full, 100);
    }

    #[test]
    fn buffers_come_back_unless_they_grew_large() {
        let mut ends = mesh(2, 4);
        let (left, right) = ends.split_at_mut(1);
        let (left, right) = (&mut left[0], &mut right[0]);
        assert!(left.forward(ShardId(1), meta(1), &[7; 1_000]));
        assert!(left.forward(ShardId(1), meta(2), &[8; KEPT_BUFFER_MAX_BYTES + 1]));
        assert_eq!(take(right).len(), 2);
        let Some(Some(peer)) = left.peers.get_mut(1) else { panic!("two shards") };
        assert_eq!(peer.returned.slots(), 1);
        assert!(left.forward(ShardId(1), meta(3), b"short"));
        assert_eq!(take(right), [(3, b"short".to_vec())]);
    }

    #[test]
    fn a_message_for_a_foreign_connection_keeps_its_egress_and_token() {
        let mut ends = mesh(2, 4);
        let flow = FlowId { shard: ShardId(1), slot: 5, generation: 9 };
        let egress = Egress::Flow { flow, or_connect: None };
        let tx = Tx { egress, token: Token(77), bytes: b"BYE" };
        assert!(ends[0].send(ShardId(1), tx));
        let mut seen = 0;
        ends[1].receive(&mut |crossed| match crossed {
            Crossed::Send { from, tx } => {
                seen += 1;
                assert_eq!((from, tx.egress, tx.token), (ShardId(0), egress, Token(77)));
                assert_eq!(tx.bytes, b"BYE");
            }
            other => panic!("nothing was received: {other:?}"),
        });
        assert_eq!(seen, 1);
    }

    #[test]
    fn what_one_shard_tells_all_reaches_every_other_once() {
        let mut ends = mesh(3, 8);
        let flow = FlowId { shard: ShardId(1), slot: 5, generation: 9 };
        ends[1].tell_all(Notice::FlowClosed(flow));
        assert!(ends[1].tell(ShardId(2), Notice::SendFailed(Token(7))));
        let mut told = |end: usize| {
            let mut notices = Vec::new();
            ends[end].receive(&mut |crossed| match crossed {
                Crossed::Told(notice) => notices.push(notice),
                _ => panic!("{crossed:?}"),
            });
            notices
        };
        assert_eq!(told(0), [Notice::FlowClosed(flow)]);
        assert_eq!(told(1), []);
        assert_eq!(told(2), [Notice::FlowClosed(flow), Notice::SendFailed(Token(7))]);
    }

    /// The other shard sleeps in its driver each time; no parcel may wait for its timeout.
    #[test]
    fn a_sleeping_shard_is_woken() {
        let mut ends = mesh(2, 4);
        let mut right = ends.pop().unwrap();
        let mut left = ends.pop().unwrap();
        let rounds = 2_000_u16;
        let thread = std::thread::spawn(move || {
            let mut driver = open(Choice::Auto, &Options::default()).unwrap().driver;
            right.attach(driver.waker());
            let mut next = 0;
            while next < rounds {
                driver.wait(Duration::from_secs(60)).unwrap();
                driver.receive(&mut |_| {});
                right.receive(&mut |crossed| match crossed {
                    Crossed::Received { meta, .. } => {
                        assert_eq!(meta.source.port(), next);
                        next += 1;
                    }
                    other => panic!("nothing was to be sent: {other:?}"),
                });
            }
        });
        while left.wakers[1].get().is_none() {
            std::thread::yield_now();
        }
        for number in 0..rounds {
            while !left.forward(ShardId(1), meta(number), b"x") {
                std::thread::yield_now();
            }
            left.flush();
            if number % 3 == 0 {
                std::thread::yield_now();
            }
        }
        thread.join().unwrap();
    }
}
