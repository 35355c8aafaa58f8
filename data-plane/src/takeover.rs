//! Between the engine and a fast path below the sockets: what the engine decided goes down at the end
//! of each turn, what was counted comes up each second, and at the end of what was counted. With a driver that has no fast path there is
//! never anything to carry.

use std::time::Duration;

use ravelin_engine::{
    engine::Engine,
    port::{FastChange, FastCount},
    time::Instant,
};
use ravelin_io::driver::Driver;

/// How often counts are asked for: records and views are at most this old.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Takeover {
    changes: Vec<FastChange>,
    counts: Vec<FastCount>,
    due: Instant,
}

impl Takeover {
    /// Before what the turn wants sent is sent: a stream is let go before its end is answered.
    pub(crate) fn turn(&mut self, now: Instant, engine: &mut Engine, driver: &mut dyn Driver) {
        engine.take_fast_changes(&mut self.changes);
        if !self.changes.is_empty() {
            driver.program(&self.changes);
            if self.changes.iter().any(|change| matches!(change, FastChange::Clear { .. })) {
                // The records of this turn tell of them.
                driver.last_fast_counts(&mut self.counts);
            }
            self.changes.clear();
        }
        if now >= self.due {
            self.due = now + COUNT_INTERVAL;
            driver.fast_counts(&mut self.counts);
        }
        if !self.counts.is_empty() {
            engine.fast_counts(&self.counts);
            self.counts.clear();
        }
    }
}
