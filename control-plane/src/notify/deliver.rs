//! The task that works off the queue. The store is the queue: nothing waits in memory but the
//! attempts under way, of which there are at most [`LANE_MAX`] per method, so that one server that
//! hangs holds up nothing but its own method (EM-78).

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    Method,
    adapter::Adapters,
    work::{self, Outcome, Work},
};
use crate::{
    api::metrics::OwnCounters,
    clock,
    error::StoreError,
    publish::{Active, ActiveWatch},
    store::Store,
};

/// Attempts under way at once by one method.
pub const LANE_MAX: usize = 8;
/// The queue is looked at this often even if nobody says that something was put in.
const LOOK_PERIOD: Duration = Duration::from_secs(5);
/// Pause before the store is asked again after it failed.
const STORE_PAUSE: Duration = Duration::from_millis(500);
/// What attempts under way have to end when the server stops. The others are made again after the
/// next start.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Says that something was queued. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

/// Starts the task; it ends when `stop` says so.
#[must_use]
pub fn start(
    store: Store,
    active: ActiveWatch,
    data: PathBuf,
    counters: Arc<OwnCounters>,
    wake: Wake,
    stop: watch::Receiver<bool>,
) -> tokio::task::JoinHandle<()> {
    let deliverer = Deliverer {
        store,
        active,
        data,
        counters,
        adapters: Arc::default(),
        of_activation: None,
        lanes: HashMap::new(),
        attempts: JoinSet::new(),
        ended: Vec::new(),
    };
    tokio::spawn(deliverer.run(wake, stop))
}

struct Deliverer {
    store: Store,
    active: ActiveWatch,
    data: PathBuf,
    counters: Arc<OwnCounters>,
    adapters: Arc<Adapters>,
    of_activation: Option<u64>,
    /// Attempts by method that were begun and whose end is not stored yet.
    lanes: HashMap<Method, usize>,
    attempts: JoinSet<(Work, Outcome)>,
    /// Attempts whose end is not stored yet.
    ended: Vec<(Work, Outcome)>,
}

impl Deliverer {
    async fn run(mut self, wake: Wake, mut stop: watch::Receiver<bool>) {
        while let Err(error) = self.recover().await {
            self.store_failed(&error);
            if tokio::time::timeout(STORE_PAUSE, stop.wait_for(|stop| *stop)).await.is_ok() {
                return;
            }
        }
        loop {
            let pause = match self.round().await {
                Ok(pause) => pause,
                Err(error) => {
                    self.store_failed(&error);
                    STORE_PAUSE
                }
            };
            let until = Instant::now() + pause;
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                Some(ended) = self.attempts.join_next() => self.end(ended),
                () = wake.0.notified() => {}
                changed = self.active.changed() => if changed.is_err() { break },
                () = tokio::time::sleep_until(until) => {}
            }
            while let Some(ended) = self.attempts.try_join_next() {
                self.end(ended);
            }
        }
        self.wind_up().await;
    }

    fn store_failed(&self, error: &StoreError) {
        self.counters.store_failures.inc();
        tracing::error!(%error, "emergency notifications cannot be read or written; trying again");
    }

    async fn recover(&self) -> Result<(), StoreError> {
        let mut tx = self.store.write().await?;
        let again = work::recover(&mut tx, clock::unix_ms()).await?;
        tx.commit().await?;
        if again > 0 {
            tracing::warn!(again, "emergency notifications that were under way are sent again");
        }
        Ok(())
    }

    /// Stores what ended, begins what is due, and says how long there is nothing to do.
    async fn round(&mut self) -> Result<Duration, StoreError> {
        self.settle().await?;
        self.adapt();
        let now = clock::unix_ms();
        let backlog = {
            let mut reader = self.store.reader().acquire().await?;
            work::backlog(&mut reader, now).await?
        };
        let meters = &self.counters.notify;
        meters.pending.set(i64::try_from(backlog.pending).unwrap_or(i64::MAX));
        let oldest = backlog.oldest_ms.map_or(0, |at| now.saturating_sub(at) / 1_000);
        meters.oldest_seconds.set(i64::try_from(oldest).unwrap_or(i64::MAX));
        if backlog.pending > 0 {
            self.begin(now).await?;
        }
        let next = backlog.next_due_ms.map(|due| Duration::from_millis(due.saturating_sub(now)));
        Ok(next.map_or(LOOK_PERIOD, |next| next.min(LOOK_PERIOD)))
    }

    /// Takes the adapters of the config in force.
    fn adapt(&mut self) {
        let active: Option<Arc<Active>> = self.active.borrow_and_update().clone();
        let activation = active.as_ref().map(|active| active.activation);
        if activation != self.of_activation {
            self.of_activation = activation;
            self.adapters = Arc::new(
                active
                    .map(|active| Adapters::of(&active.snapshot.features, &self.data))
                    .unwrap_or_default(),
            );
        }
    }

    /// Writes down that attempts begin, then begins them.
    async fn begin(&mut self, now: u64) -> Result<(), StoreError> {
        let mut tx = self.store.write().await?;
        let mut due = Vec::new();
        for method in Method::ALL {
            let free = LANE_MAX.saturating_sub(self.lanes.get(&method).copied().unwrap_or(0));
            if free > 0 {
                due.extend(work::claim(&mut tx, method, free, now).await?);
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        tx.commit().await?;
        for work in due {
            *self.lanes.entry(work.method).or_default() += 1;
            let adapters = Arc::clone(&self.adapters);
            self.attempts.spawn(async move {
                let outcome = adapters.send(&work).await;
                (work, outcome)
            });
        }
        Ok(())
    }

    fn end(&mut self, ended: Result<(Work, Outcome), tokio::task::JoinError>) {
        match ended {
            Ok(ended) => {
                self.counters.notify.attempt(ended.0.method, &ended.1);
                self.ended.push(ended);
            }
            // Its place in the lane stays taken: the next start makes the attempt again.
            Err(error) => tracing::error!(%error, "an emergency notification"),
        }
    }

    async fn settle(&mut self) -> Result<(), StoreError> {
        if self.ended.is_empty() {
            return Ok(());
        }
        let mut tx = self.store.write().await?;
        let settled = work::settle(&mut tx, &self.ended, clock::unix_ms()).await?;
        tx.commit().await?;
        self.counters.notify.undelivered.inc_by(settled.undelivered);
        for (work, _) in self.ended.drain(..) {
            if let Some(taken) = self.lanes.get_mut(&work.method) {
                *taken = taken.saturating_sub(1);
            }
        }
        Ok(())
    }

    async fn wind_up(&mut self) {
        let grace = Instant::now() + STOP_GRACE;
        while let Ok(Some(ended)) = tokio::time::timeout_at(grace, self.attempts.join_next()).await
        {
            self.end(ended);
        }
        self.attempts.shutdown().await;
        if let Err(error) = self.settle().await {
            self.store_failed(&error);
        }
    }
}
