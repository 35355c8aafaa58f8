//! Whether a wait should gather several datagrams before it wakes the shard.
//!
//! A wake-up costs about as much as receiving and sending a datagram. When datagrams come faster
//! than a few within [`GATHER_WITHIN`], waiting that long for more spares most wake-ups; when they
//! do not, it would cost a timer and make each one late.
//!
//! Measured with `bench/peers/media` (500 streams over veth, one core for the edge and the input
//! path of its interfaces, kernel 6.18; builds on the same cores, single runs of 1.5 to 2 s, so the
//! third digit means nothing), as CPU us a packet and p50/p99 of added latency in us, for gathering
//! never, up to 30 us, up to 60 us:
//!
//! | packets/s | never | 30 us | 60 us |
//! |---|---|---|---|
//! | 5,000 | 17.7, 25/136 | 22.4, 25/86 | 20.7, 22/99 |
//! | 50,000 | 12.0, 14/58 | 11.0, 41/267 | 9.4, 65/148 |
//! | 100,000 | 8.7, 15/176 | 8.2, 37/171 | 7.0, 80/198 |
//! | 150,000 | 6.6, 24/80 | 5.8, 60/315 | 5.3, 90/874 |
//! | 200,000 | 4.8, 75/2081 | 4.5, 67/591 | 4.3, 72/513 |
//!
//! At 50,000 a second, each next to a run of the bare loop: never, 0.95 to 1.43 of its CPU in six
//! runs; 30 us, 1.09; 40 us, 0.95 with p50 45; 50 us, 1.02 with p50 54. Forty leave the CPU at the
//! bare loop's, below rtpengine's (10.1 against 11.7 to 15.9), for some 30 us of the median.

use crate::sys::ring::Gather;
use ravelin_engine::time::Instant;
use std::time::Duration;

/// Longest that a datagram waits for others: well below a hundredth of what a packet of voice may
/// take on its way.
pub(crate) const GATHER_WITHIN: Duration = Duration::from_micros(40);

/// Datagrams that end the gathering early: by then the wake-up is shared by enough.
const GATHER_COMPLETIONS: usize = 16;

/// How long datagrams are counted before the rate is judged.
const WINDOW: Duration = Duration::from_millis(4);

/// Datagrams a second of one shard from which it gathers: more than one is then expected within the
/// wait. It ends below half of that.
pub(crate) const GATHER_FROM_PPS: u64 = 30_000;

/// A window longer than this tells nothing of the present.
const WINDOW_MAX: Duration = Duration::from_millis(40);

#[derive(Debug, Default)]
pub(crate) struct Pace {
    since: Instant,
    datagrams: u64,
    gathers: bool,
}

impl Pace {
    pub(crate) fn received(&mut self, datagrams: usize) {
        self.datagrams += datagrams as u64;
    }

    /// What the wait that begins now should do.
    pub(crate) fn gather(&mut self, now: Instant) -> Option<Gather> {
        let window = now.since(self.since);
        if window >= WINDOW {
            let nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
            let rate = self.datagrams.saturating_mul(1_000_000_000) / nanos;
            let least = if self.gathers { GATHER_FROM_PPS / 2 } else { GATHER_FROM_PPS };
            self.gathers = window <= WINDOW_MAX && rate >= least;
            self.since = now;
            self.datagrams = 0;
        }
        self.gathers.then_some(Gather { completions: GATHER_COMPLETIONS, within: GATHER_WITHIN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `millis` at `pps` with a wait per datagram; returns how many of them gather.
    fn run(pace: &mut Pace, from: &mut u64, pps: u64, millis: u64) -> (u64, u64) {
        let (mut gathered, all) = (0, pps * millis / 1_000);
        for _ in 0..all {
            *from += 1_000_000_000 / pps;
            pace.received(1);
            gathered += u64::from(pace.gather(Instant(*from)).is_some());
        }
        (gathered, all)
    }

    #[test]
    fn gathers_under_load_and_only_then() {
        let (mut pace, mut now) = (Pace::default(), 1);
        assert_eq!(run(&mut pace, &mut now, 20_000, 100).0, 0);
        let (gathered, all) = run(&mut pace, &mut now, 50_000, 100);
        assert!(gathered * 10 > all * 9, "{gathered} of {all}");
        // Between the two it stays as it is.
        let (gathered, all) = run(&mut pace, &mut now, 20_000, 100);
        assert_eq!(gathered, all);
        let (gathered, all) = run(&mut pace, &mut now, 10_000, 100);
        assert!(gathered * 10 < all, "{gathered} of {all}");
        run(&mut pace, &mut now, 50_000, 100);
        now += 1_000_000_000;
        assert_eq!(pace.gather(Instant(now)), None, "after a silence the first one is not kept");
    }
}
