//! Sequence numbers of one synchronisation source after another: what is expected, what came, what
//! is missing (RFC 3550 A.1 and A.3).
//!
//! Three things differ from the RFC's sample code, each on purpose. The first packet of a source
//! counts: the source gate has decided whose packets these are before. A packet that is heard twice
//! is known as such for [`WINDOW`] numbers back, so it does not hide a loss: the RFC's figure is
//! [`Sequence::lost`] less [`Sequence::duplicates`]. And when a source starts anew, what it lost
//! before stays in the sum.

/// A step forward of this many numbers or more is a new start, not a loss (RFC 3550 A.1).
const MAX_DROPOUT: u16 = 3_000;
/// A step back of at most this many is a late packet (RFC 3550 A.1).
const MAX_MISORDER: u16 = 100;
/// Numbers back from the highest for which it is known whether they came.
const WINDOW: u32 = u128::BITS;

/// What a packet was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The next one, or one further ahead.
    Ahead,
    /// Overtaken by others.
    Late,
    /// It came before.
    Duplicate,
    /// So far from the others that it belongs to none of them; if the next one follows it, they are
    /// a new start.
    Astray,
}

/// The numbers of one stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Sequence {
    /// Highest number, extended by the cycles, one cycle ahead so that a late one has room below.
    highest: u64,
    /// The first number of this run.
    base: u64,
    /// Bit `n`: the packet `highest - n` came. What lies before `base` counts as come.
    window: u128,
    /// The number that would confirm a new start.
    confirms: Option<u16>,
    running: bool,
    /// The number that left the window last was missing.
    in_gap: bool,
    /// Different numbers that came in this run.
    received: u64,
    /// Sums of the runs before.
    expected_before: u64,
    received_before: u64,
    duplicates: u64,
    reordered: u64,
    restarts: u64,
    astray: u64,
    /// Runs of missing numbers that have left the window.
    gaps: u64,
}

impl Sequence {
    /// Takes the number of a packet.
    #[inline]
    pub(super) fn take(&mut self, number: u16) -> Seen {
        if !self.running {
            self.begin(number);
            return Seen::Ahead;
        }
        let step = number.wrapping_sub(low(self.highest));
        if step == 1 {
            self.advance_one();
            return Seen::Ahead;
        }
        self.take_other(number, step)
    }

    fn take_other(&mut self, number: u16, step: u16) -> Seen {
        let back = step.wrapping_neg();
        if step == 0 {
            self.duplicates += 1;
            return Seen::Duplicate;
        }
        if step < MAX_DROPOUT {
            for _ in 1..step {
                self.shift();
            }
            self.advance_one();
            return Seen::Ahead;
        }
        if back <= MAX_MISORDER {
            return self.take_late(u32::from(back));
        }
        if self.confirms == Some(number) {
            self.finish();
            self.restarts += 1;
            self.begin(number.wrapping_sub(1));
            self.advance_one();
            // The packet before this one was astray until now.
            self.astray = self.astray.saturating_sub(1);
            return Seen::Ahead;
        }
        self.confirms = Some(number.wrapping_add(1));
        self.astray += 1;
        Seen::Astray
    }

    fn take_late(&mut self, back: u32) -> Seen {
        let bit = 1_u128.checked_shl(back).unwrap_or(0);
        let number = self.highest.saturating_sub(u64::from(back));
        if number < self.base {
            // Overtaken by the first one: the run begins earlier than it seemed.
            for missing in number + 1..self.base {
                let back = u32::try_from(self.highest.saturating_sub(missing)).unwrap_or(WINDOW);
                self.window &= !1_u128.checked_shl(back).unwrap_or(0);
            }
            self.base = number;
        } else if self.window & bit != 0 {
            self.duplicates += 1;
            return Seen::Duplicate;
        }
        self.window |= bit;
        self.received += 1;
        self.reordered += 1;
        Seen::Late
    }

    /// A packet whose number is followed elsewhere: it was to come, and it came.
    pub(super) fn take_beside(&mut self) {
        self.expected_before += 1;
        self.received_before += 1;
    }

    /// Another source follows: the number of its first packet is nobody's successor.
    pub(super) fn restart(&mut self) {
        self.finish();
        self.running = false;
    }

    /// Packets that went by elsewhere: how many came and how many were missing.
    pub(super) fn passed_by(&mut self, received: u64, lost: u64) {
        self.expected_before += received + lost;
        self.received_before += received;
    }

    fn begin(&mut self, number: u16) {
        self.running = true;
        self.highest = (1 << 16) | u64::from(number);
        self.base = self.highest;
        self.window = u128::MAX;
        self.in_gap = false;
        self.confirms = None;
        self.received = 1;
    }

    fn finish(&mut self) {
        if self.running {
            self.expected_before += self.expected_now();
            self.received_before += self.received;
            self.gaps = self.gaps_with_window();
            self.window = u128::MAX;
            self.in_gap = false;
        }
    }

    /// The number after the highest has come.
    #[inline]
    fn advance_one(&mut self) {
        self.shift();
        self.window |= 1;
        self.received += 1;
    }

    /// The highest number grows by one that has not come.
    #[inline]
    fn shift(&mut self) {
        let missing = self.window >> (WINDOW - 1) == 0;
        self.gaps += u64::from(missing && !self.in_gap);
        self.in_gap = missing;
        self.window <<= 1;
        self.highest += 1;
    }

    fn expected_now(&self) -> u64 {
        if self.running { (self.highest + 1).saturating_sub(self.base) } else { 0 }
    }

    /// Packets that were to come: from the first number to the highest, over all runs.
    pub(super) fn expected(&self) -> u64 {
        self.expected_before + self.expected_now()
    }

    /// Packets that were to come and did not.
    pub(super) fn lost(&self) -> u64 {
        let now = if self.running { self.received } else { 0 };
        self.expected().saturating_sub(self.received_before + now)
    }

    pub(super) fn duplicates(&self) -> u64 {
        self.duplicates
    }

    pub(super) fn reordered(&self) -> u64 {
        self.reordered
    }

    /// New starts after a jump of the numbers.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Packets whose number had nothing to do with the others.
    pub(super) fn astray(&self) -> u64 {
        self.astray
    }

    fn gaps_with_window(&self) -> u64 {
        let mut gaps = self.gaps;
        let mut in_gap = self.in_gap;
        for back in (0..WINDOW).rev() {
            let missing = self.window >> back & 1 == 0;
            gaps += u64::from(missing && !in_gap);
            in_gap = missing;
        }
        gaps
    }

    /// Runs of packets missing in a row.
    pub(super) fn gaps(&self) -> u64 {
        if self.running { self.gaps_with_window() } else { self.gaps }
    }
}

/// The number as it stands in packets.
fn low(extended: u64) -> u16 {
    let [.., high, low] = extended.to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn take(numbers: impl IntoIterator<Item = u16>) -> Sequence {
        let mut sequence = Sequence::default();
        for number in numbers {
            sequence.take(number);
        }
        sequence
    }

    #[test]
    fn a_wrap_is_no_loss_and_no_restart() {
        let all = take((65_000..=u16::MAX).chain(0..500));
        assert_eq!((all.expected(), all.lost(), all.restarts()), (1_036, 0, 0));
        let with_loss = take((65_000..65_530).chain(5..500));
        assert_eq!((with_loss.lost(), with_loss.gaps()), (11, 1));
    }

    #[test]
    fn a_duplicate_hides_no_loss() {
        let heard = take([10, 11, 13, 13, 13, 14]);
        assert_eq!((heard.expected(), heard.lost(), heard.duplicates()), (5, 1, 2));
    }

    #[test]
    fn a_late_packet_is_not_lost() {
        let heard = take([10, 11, 13, 12, 14]);
        assert_eq!((heard.expected(), heard.lost(), heard.reordered(), heard.gaps()), (5, 0, 1, 0));
        // Also when it was to be the first, over a wrap.
        let heard = take([1, 65_534, 2]);
        assert_eq!((heard.expected(), heard.lost(), heard.reordered(), heard.gaps()), (5, 2, 1, 1));
    }

    #[test]
    fn one_packet_astray_changes_nothing_and_two_in_a_row_are_a_new_start() {
        let heard = take([10, 11, 40_000, 12, 13]);
        assert_eq!((heard.expected(), heard.lost(), heard.astray()), (4, 0, 1));
        let heard = take([10, 11, 40_000, 40_001, 40_003]);
        assert_eq!((heard.expected(), heard.lost(), heard.restarts()), (6, 1, 1));
        assert_eq!(heard.astray(), 0);
        // The RFC's bounds.
        assert_eq!(take([0, MAX_DROPOUT - 1]).lost(), u64::from(MAX_DROPOUT) - 2);
        assert_eq!(take([0, MAX_DROPOUT]).astray(), 1);
        assert_eq!(take([1_000, 1_000 - MAX_MISORDER]).reordered(), 1);
        assert_eq!(take([1_000, 1_000 - MAX_MISORDER - 1]).astray(), 1);
    }

    #[test]
    fn packets_that_went_by_elsewhere_are_counted_and_leave_no_gap() {
        let mut sequence = take(100..110);
        sequence.restart();
        sequence.passed_by(65_528, 3);
        for number in [105, 107, 108] {
            sequence.take(number);
        }
        // The last of its counts come late.
        sequence.passed_by(10, 1);
        assert_eq!((sequence.expected(), sequence.lost()), (10 + 65_531 + 11 + 4, 5));
    }

    #[test]
    fn gaps_are_runs_of_missing_numbers() {
        let heard = take([0, 1, 4, 5, 7, 300, 301, 303]);
        assert_eq!((heard.lost(), heard.gaps()), (296, 4));
    }

    proptest! {
        /// Against a plain set of extended numbers: losses, duplicates and order within the bounds
        /// of A.1 come out the same wherever the numbers begin.
        #[test]
        fn agrees_with_a_plain_set(
            start in any::<u16>(),
            steps in prop::collection::vec((1..60_u64, 0..40_u64, any::<bool>()), 1..400),
        ) {
            let mut sequence = Sequence::default();
            let mut heard = BTreeSet::new();
            let (mut duplicates, mut reordered) = (0, 0);
            let mut hear = |number: u64| {
                let highest = heard.last().copied();
                if !heard.insert(number) {
                    duplicates += 1;
                } else if highest.is_some_and(|highest| number < highest) {
                    reordered += 1;
                }
                sequence.take(low(number));
            };
            let mut at = (1 << 20) | u64::from(start);
            hear(at);
            for (ahead, back, old) in steps {
                at += ahead;
                hear(at);
                if old {
                    hear(at - back);
                }
            }
            let (first, last) = (*heard.first().unwrap(), *heard.last().unwrap());
            let expected = last - first + 1;
            let missing: Vec<bool> = (first..=last).map(|number| !heard.contains(&number)).collect();
            let gaps = missing.windows(2).filter(|pair| !pair[0] && pair[1]).count() as u64;
            prop_assert_eq!(sequence.expected(), expected);
            prop_assert_eq!(sequence.lost(), expected - heard.len() as u64);
            prop_assert_eq!(sequence.duplicates(), duplicates);
            prop_assert_eq!(sequence.reordered(), reordered);
            prop_assert_eq!(sequence.gaps(), gaps);
        }
    }
}
