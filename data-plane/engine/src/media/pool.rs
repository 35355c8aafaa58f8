//! The port pairs of one media range on one shard: free ones, which are drawn in an order that cannot
//! be told (`cycle.rs`), and released ones that rest.

use std::{collections::VecDeque, net::IpAddr, ops::Range, time::Duration};

use ravelin_policy::{MediaRange, RealmId};

use super::cycle::Cycles;
use crate::{
    ids::Generator,
    limits::{Limits, MEDIA_RESERVE_PAIRS},
    port::ShardId,
    time::Instant,
};

#[derive(Debug)]
pub(super) struct Pool {
    realm: RealmId,
    /// What goes into SDP.
    advertise: IpAddr,
    v6: bool,
    pairs: Range<u32>,
    /// By their number in `pairs`.
    free: Cycles,
    /// With the end of their rest, earliest first.
    resting: VecDeque<(u32, Instant)>,
    /// Pairs whose ports are open.
    opened: usize,
    /// Pairs that were drawn before the end of their rest.
    reused_early: u64,
}

/// What a draw goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    pub(super) now: Instant,
    /// How long before the end of its rest an ordinary call may take a pair.
    pub(super) early: Duration,
    /// Share of the opened pairs that ordinary calls leave alone.
    pub(super) reserve_percent: u32,
    pub(super) emergency: bool,
}

impl Draw {
    pub(super) fn new(now: Instant, limits: &Limits, emergency: bool) -> Self {
        Self {
            now,
            early: limits.media_quarantine.saturating_sub(limits.media_quarantine_least),
            reserve_percent: limits.media_reserve_percent,
            emergency,
        }
    }
}

/// The even ports that belong to `shard`: contiguous parts of the range, sizes as equal as they can
/// be. A range's first port is even and its last odd.
pub(super) fn ports_of_shard(
    first: u16,
    last: u16,
    shard: ShardId,
    shards: u8,
) -> impl Iterator<Item = u16> {
    let shards = u32::from(shards.max(1));
    let number = u32::from(shard.0).min(shards);
    let pairs = (u32::from(last).saturating_add(1)).saturating_sub(u32::from(first)) / 2;
    let start = pairs * number / shards;
    let end = pairs * (number + 1).min(shards) / shards;
    (start..end).filter_map(move |pair| u16::try_from(u32::from(first) + pair * 2).ok())
}

impl Pool {
    pub(super) fn new(range: &MediaRange, pairs: Range<usize>, draws: &mut Generator) -> Self {
        let index = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self {
            realm: range.realm,
            advertise: range.advertise,
            v6: range.address.is_ipv6(),
            pairs: index(pairs.start)..index(pairs.end),
            free: Cycles::new(index(pairs.len()), draws),
            resting: VecDeque::with_capacity(pairs.len()),
            opened: 0,
            reused_early: 0,
        }
    }

    pub(super) fn realm(&self) -> RealmId {
        self.realm
    }

    pub(super) fn is_v6(&self) -> bool {
        self.v6
    }

    pub(super) fn advertise(&self) -> IpAddr {
        self.advertise
    }

    pub(super) fn pairs(&self) -> Range<u32> {
        self.pairs.clone()
    }

    pub(super) fn contains(&self, pair: u32) -> bool {
        self.pairs.contains(&pair)
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    pub(super) fn quarantined(&self) -> usize {
        self.resting.len()
    }

    pub(super) fn reused_early(&self) -> u64 {
        self.reused_early
    }

    /// A pair whose ports have just been opened.
    pub(super) fn add(&mut self, pair: u32) {
        self.opened += 1;
        self.put_back(pair);
    }

    /// A pair whose ports have just been opened for the call that holds it.
    pub(super) fn add_taken(&mut self) {
        self.opened += 1;
    }

    /// Ends the rest of those whose time is over.
    pub(super) fn sweep(&mut self, now: Instant) {
        while let Some((pair, until)) = self.resting.front().copied()
            && until <= now
        {
            self.resting.pop_front();
            self.put_back(pair);
        }
    }

    /// The next free pair; when there is none, the one whose rest is nearest its end. An ordinary call leaves the reserve and the least rest; an emergency call
    /// takes what there is.
    pub(super) fn draw(&mut self, by: Draw, draws: &mut Generator) -> Option<u32> {
        let reserve = self.reserve(by.reserve_percent);
        if (by.emergency || self.free.len() > reserve)
            && let Some(number) = self.free.take(draws)
        {
            return Some(self.pairs.start + number);
        }
        let (_, until) = self.resting.front().copied()?;
        let rested = until <= by.now + by.early && self.free.len() + self.resting.len() > reserve;
        if !(by.emergency || rested) {
            return None;
        }
        self.reused_early += 1;
        self.resting.pop_front().map(|(pair, _)| pair)
    }

    /// Pairs that ordinary calls leave alone (EM-64).
    pub(super) fn reserve(&self, percent: u32) -> usize {
        if percent == 0 {
            return 0;
        }
        let share = self.opened * usize::try_from(percent).unwrap_or(0) / 100;
        let least = usize::try_from(MEDIA_RESERVE_PAIRS).unwrap_or(0).min(self.opened / 10);
        share.max(least)
    }

    /// Pairs that can be drawn one after the other.
    pub(super) fn available(&self, by: Draw) -> usize {
        let all = self.free.len() + self.resting.len();
        if by.emergency {
            return all;
        }
        let reserve = self.reserve(by.reserve_percent);
        let until = by.now + by.early;
        let rested = self.resting.iter().take_while(|(_, end)| *end <= until).count();
        (self.free.len().saturating_sub(reserve) + rested).min(all.saturating_sub(reserve))
    }

    /// Takes back a pair that was drawn and never used.
    pub(super) fn undraw(&mut self, pair: u32) {
        self.put_back(pair);
    }

    fn put_back(&mut self, pair: u32) {
        self.free.add(pair - self.pairs.start);
    }

    /// Lays a used pair to rest. Times come in order, the rest being the same for all.
    pub(super) fn rest(&mut self, pair: u32, until: Instant) {
        self.resting.push_back((pair, until));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every pair of a range belongs to exactly one shard.
        #[test]
        fn shards_divide_a_range(first in 512..30_000_u16, pairs in 1..2_000_u16, shards in 1..9_u8) {
            let (first, last) = (first * 2, first * 2 + pairs * 2 - 1);
            let mut seen = HashSet::new();
            for shard in 0..shards {
                let mut count = 0;
                for port in ports_of_shard(first, last, ShardId(shard), shards) {
                    prop_assert!(port % 2 == 0 && (first..last).contains(&port));
                    prop_assert!(seen.insert(port));
                    count += 1;
                }
                let even = usize::from(pairs) / usize::from(shards);
                prop_assert!(count == even || count == even + 1);
            }
            prop_assert_eq!(seen.len(), usize::from(pairs));
        }
    }

    #[test]
    fn the_highest_port_does_not_overflow() {
        let ports: Vec<u16> = ports_of_shard(65_532, 65_535, ShardId(0), 1).collect();
        assert_eq!(ports, [65_532, 65_534]);
    }
}
