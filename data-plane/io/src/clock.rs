//! The one place of the data plane that reads clocks.

use crate::sys::thread::since_boot;
use ravelin_engine::time::{Instant, Now};
use std::sync::OnceLock;
use std::time::{Duration, Instant as Monotonic, SystemTime, UNIX_EPOCH};

/// Both clocks, now. Monotonic time counts from the start of the machine, so that all shards agree on
/// it, and so does the next process, which takes calls over with their times. A wall clock set
/// before 1970 reads as 1970.
#[must_use]
pub fn now() -> Now {
    let unix_ms = u64::try_from(wall().as_millis()).unwrap_or(u64::MAX);
    Now { mono: monotonic(), unix_ms }
}

/// The wall clock since 1970, with which the kernel stamps arrivals. One set before 1970 reads as 1970.
#[must_use]
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

static START: OnceLock<Monotonic> = OnceLock::new();

/// When [`monotonic`] was 0, for libraries that have clocks of their own.
#[must_use]
pub fn origin() -> Monotonic {
    let at_boot = || {
        let now = Monotonic::now();
        now.checked_sub(Duration::from_nanos(since_boot())).unwrap_or(now)
    };
    *START.get_or_init(at_boot)
}

/// The monotonic clock alone.
#[must_use]
pub fn monotonic() -> Instant {
    let since = origin().elapsed();
    // One nanosecond is added so that no reading equals the default value, "never".
    Instant(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_reads_the_same_time() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let here = monotonic().0 as f64 / 1e9;
        // The uptime counts suspended time too.
        assert!(here > 0.0 && here < seconds + 1.0, "{here} {seconds}");
        assert!(here > seconds - 3_600.0, "{here} {seconds}");
    }

    #[test]
    fn time_moves_forward_and_agrees_between_threads() {
        let first = now();
        let other = std::thread::spawn(now).join().unwrap();
        let last = now();
        assert!(first.mono <= other.mono && other.mono <= last.mono);
        assert!(first.mono > Instant::default());
        // 2020-01-01: a machine whose clock is older than this code cannot date anything.
        assert!(first.unix_ms > 1_577_836_800_000);
    }
}
