//! A hierarchical timer wheel: 1 ms per tick, four levels of 256 slots, entries in one slab linked
//! by index. Insert, cancel and fire are O(1); nothing is allocated once the slab has grown to its
//! working size.
//!
//! Level 0 holds the ticks of the current block of 256; level 1 the blocks of the current 65,536
//! ticks, and so on. An entry sits at the lowest level whose block it shares with the current
//! tick, and moves down when the wheel enters its slot. Level 3 is a circle, so that the wheel
//! runs for ever; what lies further away than the circle (about 48 days) waits there and is
//! placed again.

use super::Timer;
use crate::time::Instant;

const LEVELS: u32 = 4;
const SLOT_BITS: u32 = 8;
const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_MASK: u64 = 0xff;
const PLACES: usize = SLOTS * 4;
const WORDS_PER_LEVEL: usize = SLOTS / 64;
const NANOS_PER_TICK: u64 = 1_000_000;
/// Furthest distance in level-3 slots: one less than the circle, so that a lap cannot be mistaken.
const FAR_SLOTS: u64 = 255;
/// End of a list.
const NONE: u32 = u32::MAX;
/// `place` of an entry that is on no list.
const FREE: u16 = u16::MAX;

/// Names a timer on the wheel. The id of a cancelled or fired timer finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId {
    index: u32,
    generation: u32,
}

impl TimerId {
    /// Finds nothing, ever.
    pub const NEVER: Self = Self { index: NONE, generation: 0 };
}

impl Default for TimerId {
    fn default() -> Self {
        Self::NEVER
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Tick at which it fires: the deadline rounded up, so that nothing fires early.
    tick: u64,
    timer: Timer,
    next: u32,
    previous: u32,
    generation: u32,
    /// Level * 256 + slot, or [`FREE`].
    place: u16,
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

/// The timers of one shard.
#[derive(Debug)]
pub struct Wheel {
    entries: Vec<Entry>,
    free: u32,
    lists: Box<[List; PLACES]>,
    /// One bit per list that is not empty.
    occupied: [u64; PLACES / 64],
    /// Every tick before this one has fired.
    current: u64,
    len: usize,
}

impl Wheel {
    /// A wheel that starts at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            entries: Vec::new(),
            free: NONE,
            lists: Box::new([List { first: NONE, last: NONE }; PLACES]),
            occupied: [0; PLACES / 64],
            current: now.0 / NANOS_PER_TICK,
            len: 0,
        }
    }

    /// Timers that are running.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Starts `timer`. A deadline in the past fires at the next [`Self::pop_expired`].
    pub fn insert(&mut self, deadline: Instant, timer: Timer) -> TimerId {
        let tick = deadline.0.div_ceil(NANOS_PER_TICK);
        let (index, generation) = if let Some(entry) = self.entries.get_mut(self.free as usize) {
            let index = self.free;
            self.free = entry.next;
            entry.tick = tick;
            entry.timer = timer;
            (index, entry.generation)
        } else {
            let Ok(index) = u32::try_from(self.entries.len()) else { return TimerId::NEVER };
            let entry =
                Entry { tick, timer, next: NONE, previous: NONE, generation: 1, place: FREE };
            self.entries.push(entry);
            (index, 1)
        };
        self.len += 1;
        self.link(index, tick);
        TimerId { index, generation }
    }

    /// Stops a timer. False if it has fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> bool {
        let running = self
            .entries
            .get(id.index as usize)
            .is_some_and(|entry| entry.generation == id.generation && entry.place != FREE);
        if running {
            self.unlink(id.index);
            self.release(id.index);
        }
        running
    }

    /// The next timer whose deadline is not after `now`, in the order of their ticks, and of
    /// their insertion within one tick. The caller bounds how many it takes in one turn.
    pub fn pop_expired(&mut self, now: Instant) -> Option<Timer> {
        let now = now.0 / NANOS_PER_TICK;
        loop {
            let place = slot(self.current, 0);
            let first = self.lists.get(place).map_or(NONE, |list| list.first);
            if let Some(timer) = self.entries.get(first as usize).map(|entry| entry.timer) {
                if self.current > now {
                    return None;
                }
                self.unlink(first);
                self.release(first);
                return Some(timer);
            }
            match self.next_stop() {
                Some(tick) if tick <= now => self.enter(tick),
                _ => {
                    self.current = self.current.max(now);
                    return None;
                }
            }
        }
    }

    /// When [`Self::pop_expired`] should be called next: never later than the next deadline, and
    /// after each such call closer to it.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.len == 0 {
            return None;
        }
        let place = slot(self.current, 0);
        let tick = if self.lists.get(place).is_some_and(|list| list.first != NONE) {
            self.current
        } else {
            self.next_stop()?
        };
        Some(Instant(tick.saturating_mul(NANOS_PER_TICK)))
    }

    /// The first tick after the current one at which there is something to fire or to move down.
    fn next_stop(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        for level in 0..LEVELS {
            let shift = level * SLOT_BITS;
            let here = (self.current >> shift) & SLOT_MASK;
            let block = (self.current >> shift) - here;
            if let Some(found) = self.next_occupied(level, here + 1) {
                return Some((block + found) << shift);
            }
            if level == LEVELS - 1 {
                let found = self.next_occupied(level, 0)?;
                return Some((block + SLOT_MASK + 1 + found) << shift);
            }
        }
        None
    }

    /// First occupied slot of `level` at or after `from` (which may be 256: none).
    fn next_occupied(&self, level: u32, from: u64) -> Option<u64> {
        let words = self.occupied.chunks_exact(WORDS_PER_LEVEL).nth(level as usize)?;
        for (number, bits) in (0_u64..).zip(words) {
            let base = number * 64;
            let skip = from.saturating_sub(base);
            let mask = u32::try_from(skip).ok().and_then(|skip| u64::MAX.checked_shl(skip));
            let hit = bits & mask.unwrap_or(0);
            if hit != 0 {
                return Some(base + u64::from(hit.trailing_zeros()));
            }
        }
        None
    }

    /// Moves to `tick`, and what was waiting for its blocks one or more levels down.
    fn enter(&mut self, tick: u64) {
        self.current = tick;
        for level in (1..LEVELS).rev() {
            // Only when the tick is the first of this level's slot is the slot newly entered.
            if tick & ((1 << (level * SLOT_BITS)) - 1) != 0 {
                continue;
            }
            let place = slot(tick, level);
            let Some(list) = self.lists.get_mut(place) else { continue };
            let mut index = list.first;
            *list = List { first: NONE, last: NONE };
            self.mark(place, false);
            while let Some(entry) = self.entries.get(index as usize) {
                let (next, tick) = (entry.next, entry.tick);
                self.link(index, tick);
                index = next;
            }
        }
    }

    /// Puts an entry at the end of the list where its tick belongs.
    fn link(&mut self, index: u32, tick: u64) {
        let tick = tick.max(self.current);
        let differing = tick ^ self.current;
        let level = (63_u32.saturating_sub(differing.leading_zeros()) / SLOT_BITS).min(LEVELS - 1);
        let shift = (LEVELS - 1) * SLOT_BITS;
        let far = (tick >> shift) - (self.current >> shift);
        let tick = if far > FAR_SLOTS { self.current + (FAR_SLOTS << shift) } else { tick };
        let place = slot(tick, level);
        let Some(list) = self.lists.get_mut(place) else { return };
        let previous = list.last;
        list.last = index;
        if previous == NONE {
            list.first = index;
        }
        self.mark(place, true);
        if let Some(entry) = self.entries.get_mut(previous as usize) {
            entry.next = index;
        }
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.previous = previous;
            entry.next = NONE;
            entry.place = u16::try_from(place).unwrap_or(FREE);
        }
    }

    fn unlink(&mut self, index: u32) {
        let Some(&Entry { next, previous, place, .. }) = self.entries.get(index as usize) else {
            return;
        };
        let place = usize::from(place);
        if let Some(entry) = self.entries.get_mut(previous as usize) {
            entry.next = next;
        }
        if let Some(entry) = self.entries.get_mut(next as usize) {
            entry.previous = previous;
        }
        let Some(list) = self.lists.get_mut(place) else { return };
        if list.first == index {
            list.first = next;
        }
        if list.last == index {
            list.last = previous;
        }
        if list.first == NONE {
            self.mark(place, false);
        }
    }

    /// Gives an unlinked entry back; its id finds nothing from now on.
    fn release(&mut self, index: u32) {
        let free = self.free;
        let Some(entry) = self.entries.get_mut(index as usize) else { return };
        entry.generation = entry.generation.wrapping_add(1);
        entry.place = FREE;
        entry.next = free;
        self.free = index;
        self.len = self.len.saturating_sub(1);
    }

    fn mark(&mut self, place: usize, occupied: bool) {
        let bit = 1_u64 << (place % 64);
        let Some(word) = self.occupied.get_mut(place / 64) else { return };
        if occupied {
            *word |= bit;
        } else {
            *word &= !bit;
        }
    }
}

/// Index of the list for `tick` at `level`.
fn slot(tick: u64, level: u32) -> usize {
    let within = (tick >> (level * SLOT_BITS)) & SLOT_MASK;
    level as usize * SLOTS + usize::try_from(within).unwrap_or(0)
}

#[cfg(test)]
mod tests;
