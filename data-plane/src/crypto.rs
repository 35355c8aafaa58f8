//! Sign and verify jobs of one shard: a few run at the end of the turn, many go to helper threads,
//! so that RTP never waits for a signature (design 7).

use std::{io, sync::Arc};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use ravelin_engine::{
    engine::Engine,
    identity::{JobResults, Jobs},
    port::TxQueue,
    time::Now,
};
use ravelin_io::driver::Waker;

/// Jobs that run inside a turn. One takes 45 to 85 microseconds.
pub(crate) const INLINE_JOBS_MAX: usize = 4;
/// Batches that wait for a helper; beyond this the shard runs them itself.
pub(crate) const HELPER_BATCHES_MAX: usize = 256;

/// The helper threads that all shards share. They end with the last shard.
#[derive(Clone, Debug)]
pub(crate) struct Helpers {
    batches: Sender<Batch>,
}

#[derive(Debug)]
struct Batch {
    jobs: Jobs,
    results: Sender<JobResults>,
    waker: Waker,
}

impl Helpers {
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let (batches, queue) = bounded::<Batch>(HELPER_BATCHES_MAX);
        for number in 0..threads.max(1) {
            let queue: Receiver<Batch> = queue.clone();
            std::thread::Builder::new().name(format!("crypto-{number}")).spawn(move || {
                for batch in queue {
                    // The shard may have ended meanwhile.
                    if batch.results.send(batch.jobs.run()).is_ok() {
                        batch.waker.wake();
                    }
                }
            })?;
        }
        Ok(Self { batches })
    }
}

/// What one shard holds.
#[derive(Debug)]
pub(crate) struct Crypto {
    helpers: Arc<Helpers>,
    results: Receiver<JobResults>,
    results_sender: Sender<JobResults>,
    waker: Waker,
}

impl Crypto {
    pub(crate) fn new(helpers: Arc<Helpers>, waker: Waker) -> Self {
        // Bounded by the batches that helpers hold: each gives one result.
        let (results_sender, results) = unbounded();
        Self { helpers, results, results_sender, waker }
    }

    /// Feeds back what helpers have done and takes care of the jobs of this turn.
    pub(crate) fn turn(&mut self, now: Now, engine: &mut Engine, out: &mut TxQueue) {
        while let Ok(done) = self.results.try_recv() {
            engine.identity_done(now, done, out);
        }
        // A verified call may then want a signature: two rounds settle every call.
        loop {
            let jobs = engine.identity_jobs();
            if jobs.is_empty() {
                return;
            }
            if jobs.len() <= INLINE_JOBS_MAX {
                engine.identity_done(now, jobs.run(), out);
                continue;
            }
            let batch =
                Batch { jobs, results: self.results_sender.clone(), waker: self.waker.clone() };
            match self.helpers.batches.try_send(batch) {
                Ok(()) => {}
                Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => {
                    engine.identity_done(now, batch.jobs.run(), out);
                }
            }
        }
    }
}
