//! A keyed permutation of the numbers below a bound: without the key, where a number goes says
//! nothing about where its neighbours go.
//!
//! A balanced Feistel network over the next power of four, walked until the result is below the bound
//! (format-preserving encryption by cycle walking, Black and Rogaway 2002). The rounds are SipHash.

use crate::ids::siphash;

/// Four rounds make a strong pseudorandom permutation of a pseudorandom function (Luby and Rackoff
/// 1988).
const ROUNDS: u8 = 4;

#[derive(Clone, Debug)]
pub(super) struct Permutation {
    key: siphash::Key,
    bound: u32,
    half_bits: u32,
}

impl Permutation {
    /// Of the numbers below `bound`.
    pub(super) fn new(key: siphash::Key, bound: u32) -> Self {
        let bits = u32::BITS - bound.saturating_sub(1).leading_zeros();
        Self { key, bound, half_bits: bits.div_ceil(2).max(1) }
    }

    /// Of the same numbers, under another key.
    pub(super) fn with_key(&self, key: siphash::Key) -> Self {
        Self { key, ..*self }
    }

    /// Where `number` goes. `None` if it is not below the bound.
    pub(super) fn forward(&self, number: u32) -> Option<u32> {
        self.walk(number, |left, right| {
            (0..ROUNDS).fold((left, right), |(left, right), round| {
                (right, left ^ self.round(round, right))
            })
        })
    }

    /// What goes to `number`.
    pub(super) fn backward(&self, number: u32) -> Option<u32> {
        self.walk(number, |left, right| {
            (0..ROUNDS)
                .rev()
                .fold((left, right), |(left, right), round| (right ^ self.round(round, left), left))
        })
    }

    fn walk(&self, number: u32, cipher: impl Fn(u32, u32) -> (u32, u32)) -> Option<u32> {
        if number >= self.bound {
            return None;
        }
        let mut at = u64::from(number);
        // The cycle that `number` is on leads back below the bound; on average after less than four
        // steps, the space being less than four times the bound.
        loop {
            let (left, right) = cipher(self.half(at >> self.half_bits), self.half(at));
            at = u64::from(left) << self.half_bits | u64::from(right);
            if at < u64::from(self.bound) {
                return u32::try_from(at).ok();
            }
        }
    }

    fn half(&self, value: u64) -> u32 {
        u32::try_from(value & ((1 << self.half_bits) - 1)).unwrap_or(0)
    }

    fn round(&self, round: u8, half: u32) -> u32 {
        let [a, b, c, d] = half.to_le_bytes();
        self.half(self.key.hash(&[round, a, b, c, d]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_number_goes_to_one_place_and_back(a: u64, b: u64, bound in 1..5_000_u32) {
            let permutation = Permutation::new(siphash::Key::new(a, b), bound);
            let mut taken = vec![false; bound as usize];
            for number in 0..bound {
                let place = permutation.forward(number).unwrap();
                prop_assert!(!std::mem::replace(&mut taken[place as usize], true));
                prop_assert_eq!(permutation.backward(place), Some(number));
            }
            prop_assert_eq!(permutation.forward(bound), None);
        }
    }

    /// Seen from outside: steps from one place to the next are spread evenly, and another key has
    /// nothing in common.
    #[test]
    fn places_tell_nothing_of_their_neighbours() {
        const BOUND: u32 = 10_000;
        let one = Permutation::new(siphash::Key::new(1, 2), BOUND);
        let two = Permutation::new(siphash::Key::new(1, 3), BOUND);
        let mut steps = [0_u32; 10];
        let mut same = 0;
        for number in 1..BOUND {
            let (before, here) = (one.forward(number - 1).unwrap(), one.forward(number).unwrap());
            let step = (here + BOUND - before) % BOUND;
            steps[(step / 1_000) as usize] += 1;
            same += u32::from(two.forward(number) == Some(here));
        }
        assert!(steps.iter().all(|count| (850..1_150).contains(count)), "{steps:?}");
        assert!(same < 10, "{same}");
    }

    #[test]
    fn the_largest_bound_works() {
        let permutation = Permutation::new(siphash::Key::new(1, 2), u32::MAX);
        for number in [0, 1, u32::MAX - 1] {
            let place = permutation.forward(number).unwrap();
            assert_eq!(permutation.backward(place), Some(number));
        }
    }
}
