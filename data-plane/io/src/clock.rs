//! The one place of the data plane that reads clocks.

use ravelin_engine::time::{Instant, Now};
use std::sync::OnceLock;
use std::time::{Instant as Monotonic, SystemTime, UNIX_EPOCH};

/// Both clocks, now. Monotonic time counts from the first call in this process, so that all shards
/// agree on it. A wall clock set before 1970 reads as 1970.
#[must_use]
pub fn now() -> Now {
    let unix_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    Now { mono: monotonic(), unix_ms }
}

static START: OnceLock<Monotonic> = OnceLock::new();

/// When [`monotonic`] was 0, for libraries that have clocks of their own.
#[must_use]
pub fn origin() -> Monotonic {
    *START.get_or_init(Monotonic::now)
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
