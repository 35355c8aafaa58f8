//! What arrived, compared with what was sent.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::content::{Fault, Stamp};

/// Packets behind the newest of a stream that can still be told apart from duplicates.
const WINDOW: u64 = 1_024;
const WORDS: usize = (WINDOW / 64) as usize;
/// Longest latency that the histogram tells apart: ten seconds.
const LATENCY_NS_MAX: u64 = 10_000_000_000;

/// One stream as its receiver sees it.
#[derive(Clone, Copy)]
struct Seen {
    /// One more than the highest number.
    next: u64,
    unique: u64,
    /// Numbers seen of the last [`WINDOW`], by their remainder.
    window: [u64; WORDS],
}

impl Seen {
    const NONE: Self = Self { next: 0, unique: 0, window: [0; WORDS] };

    fn bit(&mut self, number: u64) -> (&mut u64, u64) {
        (&mut self.window[(number / 64) as usize % WORDS], 1 << (number % 64))
    }

    fn take(&mut self, number: u64) -> Order {
        if number >= self.next {
            if number - self.next >= WINDOW {
                self.window = [0; WORDS];
            } else {
                for skipped in self.next..number {
                    let (word, bit) = self.bit(skipped);
                    *word &= !bit;
                }
            }
            let (word, bit) = self.bit(number);
            *word |= bit;
            self.next = number + 1;
            self.unique += 1;
            return Order::Next;
        }
        if self.next - number > WINDOW {
            return Order::TooOld;
        }
        let (word, bit) = self.bit(number);
        if *word & bit != 0 {
            return Order::Duplicate;
        }
        *word |= bit;
        self.unique += 1;
        Order::Late
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Next,
    Late,
    Duplicate,
    TooOld,
}

/// Latencies in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p99_9: f64,
    pub(super) max: f64,
}

/// The outcome of a run.
#[derive(Debug, Default, Serialize)]
pub(super) struct Counts {
    /// Packets given to the kernel.
    pub(super) sent: u64,
    /// Packets that arrived where they should, whole, each counted once.
    pub(super) received: u64,
    /// `sent` less `received`.
    pub(super) lost: u64,
    /// Behind a packet of the same stream that was sent after them.
    pub(super) reordered: u64,
    pub(super) duplicates: u64,
    /// Ours, and changed on the way.
    pub(super) corrupt: u64,
    /// Whole, at an address that they were not for, or from one that they should not come from.
    pub(super) misdelivered: u64,
    /// Of one stream, one behind the other: the longest gap that anybody heard. What came late counts
    /// as missing here.
    pub(super) longest_gap: u64,
    /// Not ours: RTCP and the like.
    pub(super) foreign: u64,
    /// Streams of which nothing arrived.
    pub(super) silent_streams: u64,
}

pub(super) struct Tally {
    streams: Vec<Seen>,
    latency: Histogram<u64>,
    counts: Counts,
}

impl Tally {
    pub(super) fn new(streams: usize) -> Self {
        Self {
            streams: vec![Seen::NONE; streams],
            // The bounds are constants of the kind that the library accepts.
            latency: Histogram::new_with_max(LATENCY_NS_MAX, 3)
                .unwrap_or_else(|_| unreachable!("three digits are allowed")),
            counts: Counts::default(),
        }
    }

    /// A datagram that arrived at `at_ns`. `right_place` says whether the stream that it claims to
    /// belong to comes out there.
    pub(super) fn take(
        &mut self,
        checked: Result<Stamp, Fault>,
        at_ns: u64,
        right_place: impl FnOnce(u32) -> bool,
    ) {
        let counts = &mut self.counts;
        let stamp = match checked {
            Ok(stamp) => stamp,
            Err(Fault::Foreign) => return counts.foreign += 1,
            Err(Fault::Corrupt) => return counts.corrupt += 1,
        };
        let Some(seen) = self.streams.get_mut(stamp.stream as usize) else {
            return counts.corrupt += 1;
        };
        if !right_place(stamp.stream) {
            return counts.misdelivered += 1;
        }
        let gap = stamp.number.saturating_sub(seen.next);
        match seen.take(stamp.number) {
            Order::Next => counts.longest_gap = counts.longest_gap.max(gap),
            Order::Late => counts.reordered += 1,
            // Too old to tell: it arrived late, and may have come before.
            Order::Duplicate | Order::TooOld => return counts.duplicates += 1,
        }
        counts.received += 1;
        self.latency.saturating_record(at_ns.saturating_sub(stamp.sent_ns));
    }

    pub(super) fn received(&self) -> u64 {
        self.counts.received
    }

    /// The outcome, after `sent` packets.
    pub(super) fn finish(self, sent: u64) -> (Counts, Latency) {
        let silent = self.streams.iter().filter(|seen| seen.unique == 0).count() as u64;
        let lost = sent.saturating_sub(self.counts.received);
        let micros = |ns: u64| ns as f64 / 1_000.0;
        let at = |quantile: f64| micros(self.latency.value_at_quantile(quantile));
        let latency = Latency {
            p50: at(0.5),
            p99: at(0.99),
            p99_9: at(0.999),
            max: micros(self.latency.max()),
        };
        (Counts { sent, lost, silent_streams: silent, ..self.counts }, latency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(stream: u32, number: u64) -> Result<Stamp, Fault> {
        Ok(Stamp { stream, number, sent_ns: 1_000 })
    }

    #[test]
    fn each_fate_of_a_packet_is_counted_as_what_it_is() {
        let mut tally = Tally::new(2);
        for number in [0, 1, 3, 2, 3, 5] {
            tally.take(stamp(0, number), 51_000, |_| true);
        }
        tally.take(stamp(1, 0), 51_000, |stream| stream == 0);
        tally.take(stamp(2, 0), 51_000, |_| true);
        tally.take(Err(Fault::Corrupt), 51_000, |_| true);
        tally.take(Err(Fault::Foreign), 51_000, |_| true);
        let (counts, latency) = tally.finish(10);
        assert_eq!((counts.sent, counts.received, counts.lost), (10, 5, 5));
        assert_eq!((counts.reordered, counts.duplicates), (1, 1));
        assert_eq!((counts.misdelivered, counts.corrupt, counts.foreign), (1, 2, 1));
        assert_eq!(counts.silent_streams, 1);
        assert!((latency.p50 - 50.0).abs() < 0.1, "{latency:?}");
    }

    /// Against a set of everything seen.
    #[test]
    fn the_window_knows_duplicates_as_a_set_does() {
        let mut seen = Seen::NONE;
        let mut all = std::collections::BTreeSet::new();
        let mut state = 1_u64;
        for step in 0..20_000_u64 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let number = step + (state >> 33) % (WINDOW / 2);
            let late = seen.next > number;
            let expected = match (all.insert(number), late) {
                (true, false) => Order::Next,
                (true, true) => Order::Late,
                (false, _) => Order::Duplicate,
            };
            assert_eq!(seen.take(number), expected, "step {step}");
        }
        assert_eq!(seen.unique, all.len() as u64);
        assert_eq!(seen.take(0), Order::TooOld);
        let next = seen.next;
        assert_eq!(seen.take(next + 10 * WINDOW), Order::Next);
        assert_eq!(seen.take(next + 9 * WINDOW + 1), Order::Late);
    }
}
