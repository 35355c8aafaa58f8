//! Which client transactions wait for an answer on which stream connection.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::port::FlowId;

/// Empty lists kept for reuse, so that a connection with one request at a time allocates nothing.
const SPARE_MAX: usize = 64;

/// Slots of client transactions by connection. A transaction knows its place in the list.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_flow: HashMap<FlowId, Vec<u32>, FixedState>,
    spare: Vec<Vec<u32>>,
}

impl Waiting {
    /// Adds a transaction; returns its place.
    pub(super) fn add(&mut self, flow: FlowId, slot: u32) -> u32 {
        let spare = &mut self.spare;
        let list = self.by_flow.entry(flow).or_insert_with(|| spare.pop().unwrap_or_default());
        list.push(slot);
        // Bounded by the table of client transactions.
        u32::try_from(list.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// Takes a transaction off; returns the one that has its place now, if another one has.
    pub(super) fn remove(&mut self, flow: FlowId, place: u32) -> Option<u32> {
        let list = self.by_flow.get_mut(&flow)?;
        let place = place as usize;
        if place < list.len() {
            list.swap_remove(place);
        }
        let moved = list.get(place).copied();
        if list.is_empty() {
            let list = self.by_flow.remove(&flow);
            self.keep(list);
        }
        moved
    }

    /// The newest transaction that waits on a connection; it is taken off.
    pub(super) fn pop(&mut self, flow: FlowId) -> Option<u32> {
        let list = self.by_flow.get_mut(&flow)?;
        let slot = list.pop();
        if list.is_empty() {
            let list = self.by_flow.remove(&flow);
            self.keep(list);
        }
        slot
    }

    fn keep(&mut self, list: Option<Vec<u32>>) {
        if let Some(list) = list.filter(|_| self.spare.len() < SPARE_MAX) {
            self.spare.push(list);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::port::ShardId;

    fn flow(number: u32) -> FlowId {
        FlowId { shard: ShardId(0), slot: number, generation: 1 }
    }

    /// Against a set: whatever is added, removed and popped, in any order.
    #[test]
    fn lists_hold_what_was_added_and_not_taken_off() {
        let mut waiting = Waiting::default();
        let mut model: [BTreeSet<u32>; 3] = Default::default();
        let mut places = vec![0; 4_000];
        let mut random = 12_345_u32;
        for slot in 0..4_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = random >> 16 & 1;
            let list = &mut model[number as usize];
            places[slot as usize] = waiting.add(flow(number), slot);
            list.insert(slot);
            if random >> 20 & 1 == 1 {
                let gone = *list.iter().nth(random as usize % list.len()).unwrap();
                list.remove(&gone);
                let place = places[gone as usize];
                if let Some(moved) = waiting.remove(flow(number), place) {
                    assert!(list.contains(&moved));
                    places[moved as usize] = place;
                }
            }
        }
        for number in 0..3 {
            let mut left = BTreeSet::new();
            while let Some(slot) = waiting.pop(flow(number)) {
                assert!(left.insert(slot));
            }
            assert_eq!(left, model[number as usize]);
        }
        assert!(waiting.by_flow.is_empty());
        assert!(waiting.spare.len() <= SPARE_MAX);
        assert_eq!(waiting.remove(flow(1), 0), None);
    }
}
