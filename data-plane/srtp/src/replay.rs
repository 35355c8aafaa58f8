//! Packet indices: the estimate of the full index from a sequence number, and which indices were
//! used (RFC 3711 3.3.1, 3.3.2, appendix A).

use smallvec::SmallVec;

use crate::{
    limits::{REPLAY_WINDOW, SOURCES_MAX},
    refusal::Refusal,
};

/// Highest packet index used, and which of the [`REPLAY_WINDOW`] up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    highest: u64,
    /// Bit 0 is `highest`, bit n is n before it.
    used: u128,
}

impl Window {
    pub(crate) const fn starting(index: u64) -> Self {
        Self { highest: index, used: 1 }
    }

    pub(crate) const fn highest(&self) -> u64 {
        self.highest
    }

    pub(crate) const fn used(&self) -> u128 {
        self.used
    }

    /// The highest one counts as used, whatever `used` says.
    pub(crate) const fn of(highest: u64, used: u128) -> Self {
        Self { highest, used: used | 1 }
    }

    /// Whether nothing is known any more of an index behind the highest.
    const fn forgot(&self, index: u64) -> bool {
        match self.highest.checked_sub(index) {
            Some(age) => age >= REPLAY_WINDOW,
            None => false,
        }
    }

    /// The index of a sequence number, if it may be used.
    pub(crate) fn place(&self, sequence: u16) -> Place {
        match estimate(self.highest, sequence) {
            Ok(index) if self.check(index).is_ok() => Place::Fresh(index),
            Ok(index) if self.forgot(index) => Place::Far,
            // Before the first of all.
            Err(Refusal::Replay) => Place::Far,
            Ok(_) => Place::Refused(Refusal::Replay),
            Err(refusal) => Place::Refused(refusal),
        }
    }

    /// The first index behind the highest one that ends in `sequence`: none of those was used.
    pub(crate) fn ahead(&self, sequence: u16) -> Option<u64> {
        let same = self.highest & !0xffff | u64::from(sequence);
        let ahead = if same > self.highest { same } else { same + (1 << 16) };
        (ahead >> 48 == 0).then_some(ahead)
    }

    /// # Errors
    /// [`Refusal::Replay`]: used before, or too old to tell.
    pub(crate) const fn check(&self, index: u64) -> Result<(), Refusal> {
        let Some(age) = self.highest.checked_sub(index) else { return Ok(()) };
        if age >= REPLAY_WINDOW || self.used >> age & 1 == 1 {
            return Err(Refusal::Replay);
        }
        Ok(())
    }

    /// Marks an index that [`Self::check`] let pass.
    pub(crate) const fn mark(&mut self, index: u64) {
        match self.highest.checked_sub(index) {
            Some(age) if age < REPLAY_WINDOW => self.used |= 1 << age,
            Some(_) => {}
            None => {
                let ahead = index - self.highest;
                self.used = if ahead < REPLAY_WINDOW { self.used << ahead | 1 } else { 1 };
                self.highest = index;
            }
        }
    }

    /// As [`Self::mark`]; what it passes over counts as used.
    const fn mark_up_to(&mut self, index: u64) {
        let before = self.highest;
        self.mark(index);
        let passed = index.saturating_sub(before);
        self.used |= if passed < REPLAY_WINDOW { (1 << passed) - 1 } else { u128::MAX };
    }
}

/// What a sequence number may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The nearest index, which was not used.
    Fresh(u64),
    /// The nearest index is so far back that nobody knows whether it was used: late beyond measure,
    /// or the numbers have begun anew.
    Far,
    /// Used before, or behind the last of all.
    Refused(Refusal),
}

/// The index nearest to `highest` that ends in `sequence` (RFC 3711 appendix A).
///
/// # Errors
/// [`Refusal::Replay`]: that is before the first of all. [`Refusal::Spent`]: behind the last of all.
pub(crate) fn estimate(highest: u64, sequence: u16) -> Result<u64, Refusal> {
    const HALF: u64 = 1 << 15;
    let (rollovers, last) = (highest >> 16, highest & 0xffff);
    let at = u64::from(sequence);
    let rollovers = if last < HALF && at > last + HALF {
        rollovers.checked_sub(1).ok_or(Refusal::Replay)?
    } else if last >= HALF && at < last - HALF {
        let next = rollovers + 1;
        if next > u64::from(u32::MAX) {
            return Err(Refusal::Spent);
        }
        next
    } else {
        rollovers
    };
    Ok(rollovers << 16 | at)
}

#[derive(Clone, Copy, Debug)]
struct Source {
    ssrc: u32,
    window: Window,
    /// Highest index that a call record claims.
    kept: u64,
    renumber: Renumber,
    /// Nobody knows what was used beyond the highest index: a call record tells no more.
    behind: bool,
}

/// How a source that began its numbers anew is numbered on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Renumber {
    /// Added to its numbers.
    pub(crate) offset: u16,
    /// The number that would tell that it began anew.
    confirms: Option<u16>,
}

impl Renumber {
    /// A number that is far from the others. The second of two that follow each other (RFC 3550 A.1)
    /// is given the one after `highest`, and so are those behind it.
    ///
    /// # Errors
    /// [`Refusal::Replay`]: the first.
    pub(crate) fn stray(&mut self, number: u16, highest: u64) -> Result<u64, Refusal> {
        if self.confirms.take() != Some(number) {
            self.confirms = Some(number.wrapping_add(1));
            return Err(Refusal::Replay);
        }
        let index = highest + 1;
        if index >> 48 != 0 {
            return Err(Refusal::Spent);
        }
        let [.., high, low] = index.to_be_bytes();
        self.offset = u16::from_be_bytes([high, low]).wrapping_sub(number);
        Ok(index)
    }
}

/// The sources of one direction, each with its window.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    known: SmallVec<[Source; 2]>,
    /// Where the one of the last packet stands: mostly it is the one of the next.
    last: usize,
}

impl Sources {
    pub(crate) fn find(&self, ssrc: u32) -> Option<&Window> {
        let same = |source: &&Source| source.ssrc == ssrc;
        let known = self.known.get(self.last).filter(same);
        known.or_else(|| self.known.iter().find(same)).map(|source| &source.window)
    }

    /// Window and numbering of a source that is known.
    pub(crate) fn numbering(&mut self, ssrc: u32) -> Option<(Window, &mut Renumber)> {
        let same = |source: &Source| source.ssrc == ssrc;
        let at = match self.known.get(self.last) {
            Some(source) if same(source) => self.last,
            _ => self.known.iter().position(same)?,
        };
        let source = self.known.get_mut(at)?;
        Some((source.window, &mut source.renumber))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.known.len() >= SOURCES_MAX
    }

    /// Marks an index that was checked. A new source begins with it; allocates for the third. True:
    /// no call record claims the index.
    pub(crate) fn mark(&mut self, ssrc: u32, index: u64) -> bool {
        let at = match self.known.get(self.last) {
            Some(source) if source.ssrc == ssrc => Some(self.last),
            _ => self.known.iter().position(|source| source.ssrc == ssrc),
        };
        if let Some(at) = at {
            self.last = at;
            if let Some(source) = self.known.get_mut(at) {
                if source.behind && index > source.window.highest() {
                    source.behind = false;
                    source.window.mark_up_to(index);
                } else {
                    source.window.mark(index);
                }
                return index > source.kept;
            }
        } else if !self.is_full() {
            self.last = self.known.len();
            let (window, renumber) = (Window::starting(index), Renumber::default());
            self.known.push(Source { ssrc, window, kept: 0, renumber, behind: false });
        }
        true
    }

    /// A source of a call record. `behind`: more may have been used than the record tells of.
    pub(crate) fn insert(&mut self, ssrc: u32, window: Window, behind: bool) {
        let renumber = Renumber::default();
        self.known.push(Source { ssrc, window, kept: 0, renumber, behind });
    }

    pub(crate) fn windows(&self) -> impl Iterator<Item = (u32, &Window)> {
        self.known.iter().map(|source| (source.ssrc, &source.window))
    }

    /// A call record claims `lead` indices beyond the highest one of each.
    pub(crate) fn keep(&mut self, lead: u64) {
        for source in &mut self.known {
            source.kept = source.window.highest().saturating_add(lead);
        }
    }

    /// Highest index of each.
    pub(crate) fn highest(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.known.iter().map(|source| (source.ssrc, source.window.highest()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// RFC 3711 appendix A, written down with signed numbers.
    fn reference(highest: u64, sequence: u16) -> i64 {
        let roc = (highest >> 16) as i64;
        [roc - 1, roc, roc + 1]
            .into_iter()
            .map(|v| v * 65_536 + i64::from(sequence))
            .min_by_key(|index| (index - highest as i64).abs())
            .unwrap()
    }

    proptest! {
        #[test]
        fn the_estimate_is_the_nearest_index(highest in 0..1_u64 << 48, sequence: u16) {
            let distance = (i64::from(sequence) - (highest & 0xffff) as i64).abs();
            // In the middle between two both are as near; the RFC's own code decides.
            prop_assume!(distance != 32_768);
            let nearest = reference(highest, sequence);
            match estimate(highest, sequence) {
                Ok(index) => prop_assert_eq!(index as i64, nearest),
                Err(Refusal::Replay) => prop_assert!(nearest < 0),
                Err(refusal) => {
                    prop_assert_eq!(refusal, Refusal::Spent);
                    prop_assert!(nearest >= 1 << 48);
                }
            }
        }

        /// Against a set of all indices ever used.
        #[test]
        fn the_window_never_lets_an_index_pass_twice(
            start in 0..1_u64 << 40,
            steps in prop::collection::vec(-200_i64..200, 1..400),
        ) {
            let mut window = Window::starting(start);
            let mut used = BTreeSet::from([start]);
            for step in steps {
                let Some(index) = window.highest().checked_add_signed(step) else { continue };
                let highest = *used.last().unwrap();
                let fresh = !used.contains(&index);
                let recent = index + REPLAY_WINDOW > highest;
                prop_assert_eq!(window.check(index).is_ok(), fresh && recent);
                if window.check(index).is_ok() {
                    window.mark(index);
                    used.insert(index);
                }
                prop_assert_eq!(window.highest(), *used.last().unwrap());
            }
        }
    }

    #[test]
    fn the_estimate_turns_over_at_the_edges() {
        assert_eq!(estimate(0, 0), Ok(0));
        assert_eq!(estimate(0, 0x8000), Ok(0x8000));
        assert_eq!(estimate(0, 0x8001), Err(Refusal::Replay));
        assert_eq!(estimate(0xffff, 0), Ok(0x1_0000));
        assert_eq!(estimate(0x1_0000, 0xffff), Ok(0xffff));
        assert_eq!(estimate(0x8000, 0), Ok(0));
        assert_eq!(estimate(0x8001, 0), Ok(0x1_0000));
        assert_eq!(estimate((1 << 48) - 1, 0), Err(Refusal::Spent));
        assert_eq!(estimate((1 << 48) - 1, 0xfff0), Ok((1 << 48) - 16));
    }

    #[test]
    fn the_window_ends_where_it_says() {
        let mut window = Window::starting(1_000);
        assert!(window.check(1_000).is_err());
        assert!(window.check(1_000 - REPLAY_WINDOW + 1).is_ok());
        assert!(window.check(1_000 - REPLAY_WINDOW).is_err());
        window.mark(1_000 - REPLAY_WINDOW + 1);
        assert!(window.check(1_000 - REPLAY_WINDOW + 1).is_err());
        window.mark(1_001);
        assert!(window.check(1_000).is_err());
        window.mark(1_001 + 5 * REPLAY_WINDOW);
        assert!(window.check(1_002).is_err(), "too old");
        assert!(window.check(1_000 + 5 * REPLAY_WINDOW).is_ok());
    }

    #[test]
    fn sources_are_bounded() {
        let mut sources = Sources::default();
        for ssrc in 0..2 * SOURCES_MAX as u32 {
            sources.mark(ssrc, 7);
        }
        assert!(sources.is_full());
        assert_eq!(sources.highest().count(), SOURCES_MAX);
        assert!(sources.find(0).is_some() && sources.find(SOURCES_MAX as u32).is_none());
        sources.mark(3, 9);
        assert!(sources.find(3).unwrap().check(9).is_err());
        assert!(sources.find(4).unwrap().check(9).is_ok());
    }
}
