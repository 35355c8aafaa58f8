//! The order in which free port pairs are drawn: cycle by cycle, each a keyed permutation of its own.
//! What becomes free is drawn in the next cycle, so a pair comes back only after all others that were
//! free have been used, and neither the next pair nor the order of a cycle can be told from those
//! before.

use super::permutation::Permutation;
use crate::ids::{Generator, siphash};

const WORD_BITS: u32 = u64::BITS;

/// Free pairs, by their place in one permutation.
#[derive(Debug)]
struct Cycle {
    order: Permutation,
    /// A bit for each place that holds a free pair.
    places: Box<[u64]>,
    count: usize,
    /// No word before this one has a bit set.
    word: usize,
}

impl Cycle {
    fn new(size: u32, draws: &mut Generator) -> Self {
        Self {
            order: Permutation::new(siphash::Key::new(draws.nonce(), draws.nonce()), size),
            places: vec![0; size.div_ceil(WORD_BITS) as usize].into_boxed_slice(),
            count: 0,
            word: 0,
        }
    }

    fn add(&mut self, number: u32) {
        let Some(place) = self.order.forward(number) else { return };
        let word = (place / WORD_BITS) as usize;
        if let Some(bits) = self.places.get_mut(word) {
            let bit = 1 << (place % WORD_BITS);
            self.count += usize::from(*bits & bit == 0);
            *bits |= bit;
            self.word = self.word.min(word);
        }
    }

    fn take(&mut self) -> Option<u32> {
        while let Some(bits) = self.places.get_mut(self.word) {
            if *bits == 0 {
                self.word += 1;
                continue;
            }
            let bit = bits.trailing_zeros();
            *bits &= *bits - 1;
            self.count -= 1;
            return self.order.backward(u32::try_from(self.word).ok()? * WORD_BITS + bit);
        }
        None
    }
}

/// The free pairs of a pool, by their number in it.
#[derive(Debug)]
pub(super) struct Cycles {
    current: Cycle,
    next: Cycle,
}

impl Cycles {
    /// Of a pool of `size` pairs, none of them free.
    pub(super) fn new(size: u32, draws: &mut Generator) -> Self {
        Self { current: Cycle::new(size, draws), next: Cycle::new(size, draws) }
    }

    pub(super) fn len(&self) -> usize {
        self.current.count + self.next.count
    }

    /// A pair has become free.
    pub(super) fn add(&mut self, number: u32) {
        self.next.add(number);
    }

    pub(super) fn take(&mut self, draws: &mut Generator) -> Option<u32> {
        if self.current.count == 0 {
            std::mem::swap(&mut self.current, &mut self.next);
            self.next.word = 0;
            let key = siphash::Key::new(draws.nonce(), draws.nonce());
            self.next.order = self.next.order.with_key(key);
        }
        self.current.take()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{ids::Seed, port::ShardId};

    const SIZE: u32 = 1_000;

    fn cycles() -> (Cycles, Generator) {
        let mut draws = Generator::for_purpose(&Seed([5; 32]), b"test", ShardId(0));
        let mut cycles = Cycles::new(SIZE, &mut draws);
        for number in 0..SIZE {
            cycles.add(number);
        }
        (cycles, draws)
    }

    #[test]
    fn every_pair_is_drawn_once_in_each_cycle_and_each_cycle_has_another_order() {
        let (mut cycles, mut draws) = cycles();
        let mut orders = HashSet::new();
        for _ in 0..20 {
            let order: Vec<u32> = (0..SIZE).map(|_| cycles.take(&mut draws).unwrap()).collect();
            assert_eq!((cycles.take(&mut draws), cycles.len()), (None, 0));
            assert_eq!(order.iter().collect::<HashSet<_>>().len(), SIZE as usize);
            order.iter().for_each(|number| cycles.add(*number));
            assert_eq!(cycles.len(), SIZE as usize);
            assert!(orders.insert(order));
        }
    }

    #[test]
    fn what_comes_back_waits_for_the_next_cycle() {
        let (mut cycles, mut draws) = cycles();
        let mut last: Vec<Option<u32>> = vec![None; SIZE as usize];
        for turn in 0..20 * SIZE {
            let number = cycles.take(&mut draws).unwrap();
            cycles.add(number);
            let before = last[number as usize].replace(turn);
            // Drawn at any place of one cycle and of the next.
            assert!(before.is_none_or(|before| turn / SIZE == before / SIZE + 1));
        }
    }
}
