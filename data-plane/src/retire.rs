//! Old config versions leave the shards: one that no call holds any more is handed to a thread that
//! drops it, for taking a large site table apart is no work for a core that carries calls (design 5).

use std::{io, sync::Arc, time::Duration};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use ravelin_engine::{engine::Engine, loadout::Loadout, time::Instant};

/// How often a shard looks for versions that no call holds.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Handovers that may wait; with more the versions stay with the shard until the next look.
const WAITING_MAX: usize = 64;

type Versions = Vec<Arc<Loadout>>;

/// A shard's end.
pub(crate) struct Retired {
    look_at: Instant,
    versions: Versions,
    to: Sender<Versions>,
}

/// What takes the old versions of all shards.
pub(crate) struct Janitor {
    to: Sender<Versions>,
}

impl Janitor {
    /// Starts the thread that drops what it is given. It ends with the last shard.
    pub(crate) fn start() -> io::Result<Self> {
        let (to, versions): (_, Receiver<Versions>) = bounded(WAITING_MAX);
        std::thread::Builder::new()
            .name("janitor".into())
            .spawn(move || versions.into_iter().for_each(drop))?;
        Ok(Self { to })
    }

    pub(crate) fn shard(&self) -> Retired {
        Retired { look_at: Instant::default(), versions: Versions::new(), to: self.to.clone() }
    }
}

impl Retired {
    /// Hands over what no call holds; once in [`LOOK_EVERY`], for calls may hold many versions.
    pub(crate) fn turn(&mut self, now: Instant, engine: &mut Engine) {
        if now < self.look_at {
            return;
        }
        self.look_at = now + LOOK_EVERY;
        engine.take_retired(&mut self.versions);
        if self.versions.is_empty() {
            return;
        }
        let versions = std::mem::take(&mut self.versions);
        if let Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) =
            self.to.try_send(versions)
        {
            self.versions = back;
        }
    }
}

#[cfg(test)]
mod tests {
    use ravelin_engine::{
        admission::Registry,
        engine::EngineConfig,
        limits::Limits,
        port::{ShardId, TxQueue},
        time::Now,
    };

    use super::*;

    const EXAMPLE: &str = include_str!("../../docs/examples/loopback.yml");

    #[test]
    fn versions_that_no_call_holds_leave_the_shard_and_come_back_when_nobody_takes_them() {
        let registry = Registry::default();
        let loadout = |version| {
            let compiled = ravelin_policy::compile(EXAMPLE, version).expect("the example");
            Arc::new(Loadout::new(Arc::new(compiled.snapshot), &registry))
        };
        let config = EngineConfig {
            shard: ShardId(0),
            shards: 1,
            node: "n".into(),
            limits: Limits::default(),
            seed: [1; 32],
            started_unix_ms: 0,
        };
        let mut engine = Engine::new(config, loadout(1));
        let mut out = TxQueue::default();
        let at = |ms| Now { mono: Instant::from_millis(ms), unix_ms: 0 };
        let (to, taken) = bounded(1);
        let mut retired = Retired { look_at: Instant::default(), versions: Versions::new(), to };
        let versions_at = |ms, retired: &mut Retired, engine: &mut Engine| {
            retired.turn(at(ms).mono, engine);
            taken.try_iter().flatten().map(|old| old.snapshot.version).collect::<Vec<_>>()
        };
        assert!(versions_at(1, &mut retired, &mut engine).is_empty());
        for version in 2..5 {
            drop(engine.install(at(2), loadout(version), &mut out));
        }
        assert!(versions_at(500, &mut retired, &mut engine).is_empty(), "not before the next look");
        let mut gone = versions_at(1_001, &mut retired, &mut engine);
        gone.sort_unstable();
        assert_eq!(gone, [1, 2, 3]);
        // Nobody takes the first handover: the second waits with the shard.
        drop(engine.install(at(1_002), loadout(5), &mut out));
        retired.turn(at(3_000).mono, &mut engine);
        drop(engine.install(at(3_001), loadout(6), &mut out));
        retired.turn(at(5_000).mono, &mut engine);
        assert_eq!(retired.versions.len(), 1);
        assert_eq!(taken.try_iter().flatten().count(), 1);
        retired.turn(at(7_000).mono, &mut engine);
        assert_eq!(taken.try_iter().flatten().count(), 1);
    }
}
