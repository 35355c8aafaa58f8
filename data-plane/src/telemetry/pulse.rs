//! The watchdog's view of a shard: when its present turn began.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ravelin_contract::audit::Severity;

use super::{event, log, mono_ns, report::ProcessCounters};
use crate::spool::SpoolHandle;

/// A turn that takes longer than this is an alarm. A turn does at most a few hundred datagrams and
/// a batch of signatures, which is a few milliseconds.
pub(crate) const STALL_AFTER: Duration = Duration::from_millis(250);
/// How often the watchdog looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Written by one shard, read by the watchdog.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Monotonic nanoseconds at which the turn began; 0 while the shard waits.
    turn_began: AtomicU64,
}

impl Pulse {
    pub(crate) fn begin(&self, mono_ns: u64) {
        self.turn_began.store(mono_ns.max(1), Ordering::Relaxed);
    }

    pub(crate) fn wait(&self) {
        self.turn_began.store(0, Ordering::Relaxed);
    }
}

/// Starts the thread that watches all shards for as long as the process lives.
pub(crate) fn watch(
    pulses: Vec<Arc<Pulse>>,
    counters: Arc<ProcessCounters>,
    spool: SpoolHandle,
) -> std::io::Result<()> {
    let watchdog = move || {
        let mut told = vec![0; pulses.len()];
        loop {
            std::thread::sleep(LOOK_EVERY);
            for (shard, pulse) in pulses.iter().enumerate() {
                let began = pulse.turn_began.load(Ordering::Relaxed);
                let lasted = Duration::from_nanos(mono_ns().saturating_sub(began));
                if began == 0 || told[shard] == began || lasted < STALL_AFTER {
                    continue;
                }
                told[shard] = began;
                counters.shard_stalls.fetch_add(1, Ordering::Relaxed);
                let ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
                log("alarm", "watchdog", &format!("shard {shard} is in one turn for {ms} ms"));
                spool.event(
                    event("shard.stalled", Severity::Alarm)
                        .field("shard", shard)
                        .field("ms", ms)
                        .into_event(),
                );
            }
        }
    };
    std::thread::Builder::new().name("watchdog".into()).spawn(watchdog).map(drop)
}
