//! The order in which a driver opens the ports of a table.

use super::{MediaTable, permutation::Permutation};
use crate::{ids::siphash, port::MediaPortId};

impl MediaTable {
    /// Every port, once: first those that calls of the process before hold, then the free ones, a
    /// pair of each range in turn, in an order that cannot be told: calls may draw while the rest
    /// is still being opened.
    pub fn opening_order(&mut self) -> Vec<MediaPortId> {
        let all = (0..).map(MediaPortId).take(self.specs.len());
        let mut order: Vec<_> = all.filter(|port| self.is_held(*port)).collect();
        let Self { pools, draws, .. } = self;
        let ranges: Vec<_> = pools
            .iter()
            .map(|pool| {
                let pairs = pool.pairs();
                let key = siphash::Key::new(draws.nonce(), draws.nonce());
                (pairs.start, Permutation::new(key, pairs.end.saturating_sub(pairs.start)))
            })
            .collect();
        for turn in 0.. {
            let places = ranges.iter().map(|(start, order)| Some(start + order.forward(turn)?));
            let pairs: Vec<u32> = places.flatten().collect();
            if pairs.is_empty() {
                break;
            }
            let ports = pairs.into_iter().flat_map(|pair| [2 * pair, 2 * pair + 1]);
            order.extend(ports.map(MediaPortId).filter(|port| !self.is_held(*port)));
        }
        order
    }

    /// Of the range that has the fewest: its pairs that can be drawn now.
    #[must_use]
    pub fn fewest_free(&self) -> usize {
        self.pools.iter().map(super::Pool::free).min().unwrap_or(0)
    }
}
