//! Who sends to ports that no call uses. A closed port answers nothing; its shard remembers for
//! [`SPRAYER_MEMORY`] where packets to it came from. A source that was heard on several closed ports,
//! or on this very port while it was closed, cannot latch to a stream. Nothing else follows from it:
//! an address that a party signals is let in whatever it did before (lessons.md 1.18), and so are the
//! last packets of a call that has just ended.

use std::net::SocketAddr;

use crate::{
    ids::{Seed, siphash},
    limits::{SPRAYED_PORTS_MIN, SPRAYER_MEMORY, SPRAYER_SETS, SPRAYER_WAYS},
    port::ShardId,
    time::Instant,
};

#[derive(Clone, Copy, Debug)]
struct Entry {
    source: SocketAddr,
    /// The pair that it was last heard on.
    pair: u32,
    /// How often that was another pair than the time before, the first time included.
    pairs: u32,
    last: Instant,
}

/// Sources heard on closed ports of one shard: a table of fixed size, the oldest entry of a set
/// makes room.
#[derive(Debug)]
pub(super) struct Sprayers {
    key: siphash::Key,
    sets: Box<[[Option<Entry>; SPRAYER_WAYS]]>,
    /// Entries that made room before their time.
    displaced: u64,
}

impl Sprayers {
    pub(super) fn new(seed: &Seed, shard: ShardId) -> Self {
        Self {
            key: seed.shard_key(b"sprayers", shard),
            sets: vec![[None; SPRAYER_WAYS]; SPRAYER_SETS].into_boxed_slice(),
            displaced: 0,
        }
    }

    /// A packet of `source` came to `pair`, which is closed.
    pub(super) fn note(&mut self, now: Instant, source: SocketAddr, pair: u32) {
        let at = self.set_of(source);
        let Some(set) = self.sets.get_mut(at) else { return };
        if let Some(entry) = set.iter_mut().flatten().find(|entry| entry.source == source) {
            if is_over(now, entry) {
                entry.pairs = 1;
            } else if entry.pair != pair {
                entry.pairs = entry.pairs.saturating_add(1);
            }
            (entry.pair, entry.last) = (pair, now);
            return;
        }
        let oldest = set.iter_mut().min_by_key(|slot| slot.map(|entry| entry.last));
        if let Some(slot) = oldest {
            self.displaced += u64::from(slot.is_some_and(|entry| !is_over(now, &entry)));
            *slot = Some(Entry { source, pair, pairs: 1, last: now });
        }
    }

    /// Whether `source` sends to ports of which it cannot have been told, `pair` among them.
    pub(super) fn sprayed(&self, now: Instant, source: SocketAddr, pair: u32) -> bool {
        let set = self.sets.get(self.set_of(source));
        let entry = set.and_then(|set| set.iter().flatten().find(|entry| entry.source == source));
        entry.is_some_and(|entry| {
            !is_over(now, entry) && (entry.pair == pair || entry.pairs >= SPRAYED_PORTS_MIN)
        })
    }

    /// Sources remembered for more than one port.
    pub(super) fn count(&self, now: Instant) -> usize {
        let entries = self.sets.iter().flatten().flatten();
        entries.filter(|entry| !is_over(now, entry) && entry.pairs >= SPRAYED_PORTS_MIN).count()
    }

    pub(super) fn displaced(&self) -> u64 {
        self.displaced
    }

    fn set_of(&self, source: SocketAddr) -> usize {
        let mut octets = [0; 18];
        let (ip, port) = octets.split_at_mut(16);
        let address = match source.ip() {
            std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            std::net::IpAddr::V6(v6) => v6,
        };
        ip.copy_from_slice(&address.octets());
        port.copy_from_slice(&source.port().to_be_bytes());
        let hash = u128::from(self.key.hash(&octets)) * SPRAYER_SETS as u128;
        usize::try_from(hash >> 64).unwrap_or(0)
    }
}

fn is_over(now: Instant, entry: &Entry) -> bool {
    now.since(entry.last) >= SPRAYER_MEMORY
}
