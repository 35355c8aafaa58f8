//! The seam between the engine and whatever moves its datagrams: a driver in `ravelin-io`, or the
//! simulator. Batch-shaped: the driver calls [`crate::engine::Engine::receive`] for each datagram of
//! a batch, then takes the whole [`TxQueue`].

use std::net::SocketAddr;

use crate::time::Instant;

/// One pinned core with its own engine, sockets, ports and calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u8);

/// Index of a listener in the snapshot (`edge.listeners`), the same on every shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u16);

/// Index of a media port among those of this shard (see `Engine::media_ports`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaPortId(pub u32);

/// An open stream connection (TCP, TLS). It belongs to one shard; the generation tells a reused
/// slot from the connection that was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowId {
    pub shard: ShardId,
    pub slot: u32,
    pub generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

/// Where a datagram, or one framed message of a stream, came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Source address of the packet. Nothing in the message may override it (EM-22).
    pub source: SocketAddr,
    pub local: Local,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// A datagram on a signalling listener.
    Signalling { listener: ListenerId },
    /// One whole message from a stream connection, framed by the driver.
    Stream { listener: ListenerId, flow: FlowId },
    /// A datagram on a media port.
    Media { port: MediaPortId },
}

/// Where to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    Udp {
        listener: ListenerId,
        to: SocketAddr,
    },
    /// Through this connection if it is still open; else, if `or_connect` is set, as `Connect`.
    Flow {
        flow: FlowId,
        or_connect: Option<(ListenerId, SocketAddr)>,
    },
    /// Through any open connection of this shard to `to`, or a new one from `listener`.
    Connect {
        listener: ListenerId,
        to: SocketAddr,
        transport: Transport,
    },
    Media {
        port: MediaPortId,
        to: SocketAddr,
    },
}

/// No payload type: see [`FastFlow::payload_types_to_user`].
pub const NO_PAYLOAD_TYPE: u8 = 0xff;

/// A stream that a driver with a fast path may take over: RTP that arrives on one media port from
/// one source with one SSRC. Everything else on that port (RTCP, STUN, DTLS, other sources, other
/// SSRCs, fragments, packets with IP options) goes on to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastFlow {
    pub source: SocketAddr,
    pub ssrc: u32,
    pub kind: FastKind,
    /// Which agreement between the parties this is; comes back in [`FastCount`].
    pub epoch: u32,
    /// Rate of the RTP clock in Hz, for the jitter; 0: not known, the jitter stays 0.
    pub clock_hz: u32,
    /// Packets of these payload types go to the engine too, as telephone-event;
    /// [`NO_PAYLOAD_TYPE`] for none.
    pub payload_types_to_user: [u8; 2],
}

/// What happens to the packets of a [`FastFlow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastKind {
    /// Sent on below the sockets: from the address of media port `out` (of this shard) to `to`,
    /// contents untouched.
    Forward {
        out: MediaPortId,
        to: SocketAddr,
        /// Code point of the packets that leave, 0-63; `None`: 0.
        dscp: Option<u8>,
    },
    /// Delivered to this shard past the kernel's UDP path: their contents must be touched. What
    /// becomes of them leaves from media port `out` (of this shard) to `to`, past it too if it can.
    Deliver { out: MediaPortId, to: SocketAddr },
}

/// What the engine asks of the fast path. A `Set` replaces the flow of its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastChange {
    Set { port: MediaPortId, flow: FastFlow },
    Clear { port: MediaPortId },
}

/// What the fast path did for the flow of one port: totals since its `Set`, to be read until the
/// next `Set` of that port, also after `Clear`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FastCount {
    pub port: MediaPortId,
    pub epoch: u32,
    pub packets: u64,
    /// Octets of RTP, headers included.
    pub bytes: u64,
    /// Packets expected by their sequence numbers less those that came (RFC 3550 A.3).
    pub lost: u64,
    /// Packets, octets and lost packets among these that the kernel does not count: of a flow whose
    /// interface went and came back. Whoever takes the flow over after this process does not see them.
    pub gone: [u64; 3],
    /// Interarrival jitter in units of the RTP clock (RFC 3550 A.8).
    pub jitter: u32,
    pub highest_sequence: u16,
    /// Arrival of the last packet; zero if there was none.
    pub last: Instant,
}

/// Names the client transaction that wants to hear of a failed send (`Engine::send_failed`).
/// Zero: nobody does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// What is to be sent at the end of this turn, in order. The only way out of the engine. One arena
/// for all payloads: a turn allocates nothing once the arena has grown to its working size.
#[derive(Debug, Default)]
pub struct TxQueue {
    arena: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    egress: Egress,
    token: Token,
    start: usize,
    end: usize,
}

/// One datagram to send, or one message to write to a stream.
#[derive(Clone, Copy, Debug)]
pub struct Tx<'q> {
    pub egress: Egress,
    pub token: Token,
    pub bytes: &'q [u8],
}

impl TxQueue {
    /// Queues a copy of `bytes`.
    pub fn push(&mut self, egress: Egress, token: Token, bytes: &[u8]) {
        self.write(egress, token, |arena| arena.extend_from_slice(bytes));
    }

    /// Queues what `fill` appends to the arena. `fill` must only append.
    pub fn write(&mut self, egress: Egress, token: Token, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.arena.len();
        fill(&mut self.arena);
        let end = self.arena.len();
        self.entries.push(Entry { egress, token, start, end });
    }

    /// As [`Self::write`]; if `fill` fails, nothing is queued.
    ///
    /// # Errors
    /// What `fill` returned.
    pub fn try_write<E>(
        &mut self,
        egress: Egress,
        token: Token,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.arena.len();
        let written = fill(&mut self.arena);
        if written.is_ok() {
            self.entries.push(Entry { egress, token, start, end: self.arena.len() });
        } else {
            self.arena.truncate(start);
        }
        written
    }

    /// Begins an entry with a copy of `bytes`. It is queued by [`Draft::send`] and forgotten
    /// otherwise.
    pub fn draft(&mut self, bytes: &[u8]) -> Draft<'_> {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        Draft { queue: self, start }
    }

    /// The newest entry, for a last change of its destination or of octets in place.
    pub fn last_mut(&mut self) -> Option<(&mut Egress, &mut [u8])> {
        let Self { arena, entries } = self;
        let entry = entries.last_mut()?;
        Some((&mut entry.egress, arena.get_mut(entry.start..entry.end)?))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The queued sends, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Tx<'_>> {
        self.entries.iter().map(|entry| self.tx(entry))
    }

    /// The queued send at a place counted from the oldest.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<Tx<'_>> {
        self.entries.get(place).map(|entry| self.tx(entry))
    }

    /// How many entries from `place` on are one run, `most` at most, and all their octets: they go
    /// the same way, one follows the other in the arena, and all are as long as the first but the
    /// last, which may be shorter. So may UDP segmentation cut one buffer into them again (udp(7),
    /// `UDP_SEGMENT`). Empty datagrams are in no run; an entry alone is a run of one.
    #[must_use]
    pub fn run(&self, place: usize, most: usize) -> (usize, &[u8]) {
        let Some((first, rest)) = self.entries.get(place..).and_then(<[Entry]>::split_first) else {
            return (0, &[]);
        };
        let (len, mut count, mut end) = (first.end - first.start, 1, first.end);
        for entry in rest.iter().take(most.saturating_sub(1)) {
            let next = entry.end - entry.start;
            let follows = entry.start == end && entry.egress == first.egress;
            if !follows || next == 0 || next > len {
                break;
            }
            (count, end) = (count + 1, entry.end);
            if next < len {
                break;
            }
        }
        (count, self.arena.get(first.start..end).unwrap_or_default())
    }

    fn tx(&self, entry: &Entry) -> Tx<'_> {
        Tx {
            egress: entry.egress,
            token: entry.token,
            bytes: self.arena.get(entry.start..entry.end).unwrap_or_default(),
        }
    }

    /// The bytes of the newest entry, for a caller that keeps a copy for retransmission.
    #[must_use]
    pub fn last_bytes(&self) -> &[u8] {
        self.entries
            .last()
            .and_then(|entry| self.arena.get(entry.start..entry.end))
            .unwrap_or_default()
    }

    /// Forgets what was queued and keeps the memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
    }
}

/// A datagram that is being made at the end of the arena. Dropped without [`Self::send`], it never
/// was.
#[derive(Debug)]
pub struct Draft<'q> {
    queue: &'q mut TxQueue,
    start: usize,
}

impl Draft<'_> {
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.queue.arena.get(self.start..).unwrap_or_default()
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.queue.arena.get_mut(self.start..).unwrap_or_default()
    }

    /// The arena and where this datagram starts in it, for what makes it longer or shorter. What
    /// stands before belongs to others.
    pub fn tail(&mut self) -> (&mut Vec<u8>, usize) {
        (&mut self.queue.arena, self.start)
    }

    /// Queues it.
    pub fn send(self, egress: Egress, token: Token) {
        let mut draft = self;
        let (start, end) = (draft.start, draft.queue.arena.len());
        draft.queue.entries.push(Entry { egress, token, start, end });
        draft.start = end;
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        self.queue.arena.truncate(self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_that_is_not_sent_never_was() {
        let egress = Egress::Media { port: MediaPortId(3), to: ([127, 0, 0, 1], 9).into() };
        let mut queue = TxQueue::default();
        queue.push(egress, Token::default(), b"first");
        let mut draft = queue.draft(b"half ma");
        draft.tail().0.extend_from_slice(b"de");
        assert_eq!(draft.bytes(), b"half made");
        drop(draft);
        let mut draft = queue.draft(b"second..");
        let (arena, start) = draft.tail();
        arena.truncate(start + 6);
        draft.bytes_mut()[0] = b'S';
        draft.send(egress, Token(7));
        queue.push(egress, Token::default(), b"third");
        let sent: Vec<_> = queue.iter().map(|tx| (tx.token.0, tx.bytes)).collect();
        assert_eq!(sent, [(0, &b"first"[..]), (7, b"Second"), (0, b"third")]);
    }

    #[test]
    fn a_run_is_what_segmentation_cuts_apart_again() {
        let to =
            |port: u16| Egress::Media { port: MediaPortId(3), to: ([127, 0, 0, 1], port).into() };
        let mut queue = TxQueue::default();
        for (egress, bytes) in [
            (to(9), &b"ab"[..]),
            (to(9), b"cd"),
            (to(9), b"e"),
            // Shorter than the last one again: a new run.
            (to(9), b"f"),
            (to(8), b"g"),
            (to(8), b"hi"),
            (to(8), b""),
            (to(8), b"jk"),
        ] {
            queue.push(egress, Token::default(), bytes);
        }
        let runs = |most| {
            let (mut place, mut runs) = (0, Vec::new());
            while place < queue.len() {
                let (count, octets) = queue.run(place, most);
                runs.push((count, octets.to_vec()));
                place += count;
            }
            runs.into_iter().map(|(n, octets)| format!("{n}{}", String::from_utf8(octets).unwrap()))
        };
        assert!(runs(64).eq(["3abcde", "1f", "1g", "1hi", "1", "1jk"]));
        assert!(runs(2).eq(["2abcd", "2ef", "1g", "1hi", "1", "1jk"]));
        assert!(runs(1).eq(["1ab", "1cd", "1e", "1f", "1g", "1hi", "1", "1jk"]));
        assert_eq!(queue.run(8, 64), (0, &[][..]));
        // What was drafted between two and not sent leaves no hole; what was cut short does.
        let mut queue = TxQueue::default();
        queue.push(to(9), Token(0), b"ab");
        drop(queue.draft(b"cd"));
        queue.push(to(9), Token(0), b"ef");
        assert_eq!(queue.run(0, 64), (2, &b"abef"[..]));
    }
}
