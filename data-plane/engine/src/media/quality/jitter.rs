//! When packets come against when they were made: interarrival jitter (RFC 3550 A.8), and packets
//! far from their place in time.

/// A packet this far from its place is one that a receiver's buffer of common size does not wait
/// for, or has no room for, in nanoseconds.
pub(super) const OFF_PLACE_NS: i64 = 60_000_000;
/// A difference beyond this is a new start of the timestamps, not jitter, in nanoseconds.
const STEP_NS: i64 = 1_000_000_000;
/// How slowly the place follows the drift of the sender's clock: 2 to this power packets.
const DRIFT_SHIFT: u32 = 8;
/// Fraction bits of [`Tick`].
const TICK_SHIFT: u32 = 12;
/// Slowest clock that can be computed with: text has 1 kHz (RFC 4103).
const CLOCK_MIN_HZ: u32 = 1_000;

/// Length of one timestamp unit in 2^-12 nanoseconds; the error over a second stays below 12
/// microseconds for every clock up to 48 kHz. Zero: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tick(i64);

impl Tick {
    pub(super) fn of(clock_hz: u32) -> Self {
        if clock_hz < CLOCK_MIN_HZ {
            return Self::default();
        }
        Self((1_000_000_000_i64 << TICK_SHIFT) / i64::from(clock_hz))
    }

    /// Nanoseconds of `units`.
    #[inline]
    fn nanoseconds(self, units: i32) -> i64 {
        (i64::from(units) * self.0) >> TICK_SHIFT
    }
}

/// Jitter of one stream, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Jitter {
    last_arrival: u64,
    last_timestamp: u32,
    primed: bool,
    /// Sixteen times the estimate (A.8).
    scaled: u64,
    /// How far the last packet was behind its place.
    behind: i64,
    highest: u64,
    sum: u64,
    samples: u64,
    late: u64,
    early: u64,
    steps: u64,
}

impl Jitter {
    /// Takes a packet that arrived at `now` nanoseconds.
    #[inline]
    pub(super) fn take(&mut self, now: u64, timestamp: u32, tick: Tick) {
        if tick == Tick::default() {
            return;
        }
        let elapsed = i64::try_from(now.saturating_sub(self.last_arrival)).unwrap_or(i64::MAX);
        let units = timestamp.wrapping_sub(self.last_timestamp).cast_signed();
        (self.last_arrival, self.last_timestamp) = (now, timestamp);
        if !std::mem::replace(&mut self.primed, true) {
            return;
        }
        let difference = elapsed.saturating_sub(tick.nanoseconds(units));
        if !(-STEP_NS..=STEP_NS).contains(&difference) {
            self.steps += 1;
            self.behind = 0;
            return;
        }
        self.scaled = (self.scaled + difference.unsigned_abs()) - ((self.scaled + 8) >> 4);
        let estimate = self.scaled >> 4;
        self.highest = self.highest.max(estimate);
        self.sum = self.sum.wrapping_add(estimate);
        self.samples += 1;
        self.behind += difference - (self.behind >> DRIFT_SHIFT);
        if self.behind > OFF_PLACE_NS {
            self.late += 1;
        } else if self.behind < -OFF_PLACE_NS {
            self.early += 1;
        }
    }

    /// The next packet has no predecessor: another source, or others went by elsewhere.
    pub(super) fn restart(&mut self) {
        self.primed = false;
        self.behind = 0;
    }

    /// What was measured elsewhere over `packets` packets.
    pub(super) fn passed_by(&mut self, packets: u64, estimate_ns: u64) {
        self.scaled = estimate_ns << 4;
        self.highest = self.highest.max(estimate_ns);
        self.sum = self.sum.wrapping_add(estimate_ns.saturating_mul(packets));
        self.samples += packets;
        self.restart();
    }

    /// The estimate after the last packet.
    #[cfg(test)]
    pub(super) fn last(&self) -> u64 {
        self.scaled >> 4
    }

    /// Mean of the estimate over all packets but the first.
    pub(super) fn mean(&self) -> Option<u64> {
        self.sum.checked_div(self.samples)
    }

    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// Packets more than [`OFF_PLACE_NS`] behind their place.
    pub(super) fn late(&self) -> u64 {
        self.late
    }

    /// Packets more than [`OFF_PLACE_NS`] ahead of their place: a burst.
    pub(super) fn early(&self) -> u64 {
        self.early
    }

    /// New starts of the timestamps.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    /// The RFC's sample code in its own units, with a plain floating point clock.
    fn by_the_rfc(packets: &[(u64, u32)], clock_hz: f64) -> f64 {
        let mut jitter = 0.0;
        let mut before: Option<f64> = None;
        for &(at, timestamp) in packets {
            let transit = at as f64 * clock_hz / 1e9 - f64::from(timestamp);
            if let Some(before) = before.replace(transit) {
                jitter += ((transit - before).abs() - jitter) / 16.0;
            }
        }
        jitter * 1e9 / clock_hz
    }

    #[test]
    fn steady_packets_have_none_and_a_wrap_of_timestamps_is_none() {
        for clock in [8_000, 16_000, 48_000, 90_000, 1_000] {
            let mut jitter = Jitter::default();
            let tick = Tick::of(clock);
            for n in 0..1_000_u32 {
                let timestamp = (u32::MAX - 10_000).wrapping_add(n * (clock / 50));
                jitter.take(u64::from(n) * 20 * MS, timestamp, tick);
            }
            // What the fraction of a unit leaves.
            assert!(jitter.highest() < 300, "{clock}: {} ns", jitter.highest());
            assert_eq!((jitter.late(), jitter.early(), jitter.steps()), (0, 0, 0));
        }
    }

    #[test]
    fn one_late_packet_is_a_sixteenth_each_way() {
        let mut jitter = Jitter::default();
        for (at, timestamp) in [(0, 0), (20, 160), (56, 320)] {
            jitter.take(at * MS, timestamp, Tick::of(8_000));
        }
        assert_eq!(jitter.last(), MS);
        jitter.take(60 * MS, 480, Tick::of(8_000));
        // 1 + (16 - 1) / 16
        assert_eq!(jitter.last(), MS + 15 * MS / 16);
        assert_eq!(jitter.mean(), Some((MS + MS + 15 * MS / 16) / 3));
    }

    #[test]
    fn a_step_of_timestamps_is_no_jitter() {
        let mut jitter = Jitter::default();
        for (at, timestamp) in [(0, 0), (20, 160), (40, 2_000_000_000), (60, 2_000_000_160)] {
            jitter.take(at * MS, timestamp, Tick::of(8_000));
        }
        assert_eq!((jitter.highest(), jitter.steps()), (0, 1));
        // Silence that the timestamps tell of is none either.
        let mut jitter = Jitter::default();
        for (at, timestamp) in [(0, 0), (20, 160), (9_020, 72_160), (9_040, 72_320)] {
            jitter.take(at * MS, timestamp, Tick::of(8_000));
        }
        assert_eq!((jitter.highest(), jitter.steps()), (0, 0));
    }

    #[test]
    fn a_stall_makes_packets_late_and_a_burst_makes_them_early() {
        let mut jitter = Jitter::default();
        for n in 0..100_u32 {
            // From 50 to 54 everything waits until 1,100 ms.
            let at = if (50..55).contains(&n) { 1_100 } else { u64::from(n) * 20 };
            jitter.take(at * MS, n * 160, Tick::of(8_000));
        }
        // 100 and 80 ms behind; 60 is not beyond.
        assert_eq!((jitter.late(), jitter.early()), (2, 0));
        let mut jitter = Jitter::default();
        for n in 0..10_u32 {
            jitter.take(0, n * 160, Tick::of(8_000));
        }
        // 80 ms ahead and more.
        assert_eq!((jitter.late(), jitter.early()), (0, 6));
    }

    #[test]
    fn an_unknown_clock_measures_nothing() {
        let mut jitter = Jitter::default();
        for n in 0..10 {
            jitter.take(n * n * MS, 160, Tick::of(0));
        }
        assert_eq!((jitter.mean(), jitter.highest()), (None, 0));
    }

    proptest! {
        /// Integers in nanoseconds against the formula of RFC 3550 6.4.1.
        #[test]
        fn agrees_with_the_formula(
            clock in prop::sample::select(vec![8_000_u32, 16_000, 44_100, 48_000, 90_000]),
            start in any::<u32>(),
            delays in prop::collection::vec(0..200_000_000_u64, 2..300),
        ) {
            let mut jitter = Jitter::default();
            let tick = Tick::of(clock);
            let mut packets: Vec<(u64, u32)> = (0..)
                .zip(delays)
                .map(|(n, delay)| {
                    let timestamp = u32::try_from(n * u64::from(clock) / 50).unwrap();
                    (n * 20 * MS + delay, timestamp)
                })
                .collect();
            packets.sort_unstable();
            for (at, timestamp) in &packets {
                jitter.take(*at, timestamp.wrapping_add(start), tick);
            }
            let expected = by_the_rfc(&packets, f64::from(clock));
            prop_assert!((jitter.last() as f64 - expected).abs() < 1_000.0 + expected / 1_000.0);
        }
    }
}
