//! The writer of records: one task, one transaction for everything that waits.
//!
//! A node is answered only after the commit. When the database fails, the batch is tried again
//! until it is stored or the server stops: the nodes' spools wait, nothing is lost.

use std::{sync::Arc, time::Duration};

use ravelin_contract::{chain::Record, link::Down};
use tokio::sync::{mpsc, watch};

use crate::{
    api::metrics::OwnCounters,
    error::StoreError,
    notify::Wake,
    publish::ActiveWatch,
    store::{Store, records},
};

/// Batches that wait for the writer; then the links stop reading.
const QUEUE_BATCHES: usize = 512;
/// Records of one transaction, give or take the last batch.
const COMMIT_RECORDS_MAX: usize = 4_096;
/// Pause before a failed transaction is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Records of one node, and where their receipt goes.
#[derive(Debug)]
pub struct Batch {
    pub node: Arc<str>,
    pub records: Vec<Record>,
    pub receipt: mpsc::Sender<Down>,
}

/// Starts the writer; it ends when every sender is gone.
#[must_use]
pub fn start(
    store: Store,
    active: ActiveWatch,
    counters: Arc<OwnCounters>,
    wake: Wake,
    stop: watch::Receiver<bool>,
) -> (mpsc::Sender<Batch>, tokio::task::JoinHandle<()>) {
    let (send, receive) = mpsc::channel(QUEUE_BATCHES);
    (send, tokio::spawn(write(store, active, counters, wake, stop, receive)))
}

async fn write(
    store: Store,
    active: ActiveWatch,
    counters: Arc<OwnCounters>,
    wake: Wake,
    mut stop: watch::Receiver<bool>,
    mut queue: mpsc::Receiver<Batch>,
) {
    while let Some(first) = queue.recv().await {
        let mut waiting = first.records.len();
        let mut batches = vec![first];
        while waiting < COMMIT_RECORDS_MAX {
            let Ok(next) = queue.try_recv() else { break };
            waiting += next.records.len();
            batches.push(next);
        }
        loop {
            match commit(&store, &active, &batches).await {
                Ok(stored) => {
                    if stored.iter().any(|stored| stored.notifications > 0) {
                        wake.wake();
                    }
                    for (batch, stored) in batches.iter().zip(stored) {
                        counters.stored(&batch.node, &stored);
                        // A link that ended meanwhile learns it from the next welcome.
                        let _ = batch.receipt.try_send(Down::Stored { seq: stored.seq });
                    }
                    break;
                }
                Err(error) => {
                    counters.store_failures.inc();
                    tracing::error!(%error, "records could not be stored; trying again");
                    // A database that is gone must not keep the server from stopping.
                    let stopping = stop.wait_for(|stop| *stop);
                    if tokio::time::timeout(RETRY_PAUSE, stopping).await.is_ok() {
                        return;
                    }
                }
            }
        }
    }
}

async fn commit(
    store: &Store,
    active: &ActiveWatch,
    batches: &[Batch],
) -> Result<Vec<records::Stored>, StoreError> {
    let notify = active.borrow().as_ref().map(|active| Arc::clone(&active.notify));
    let notify = notify.unwrap_or_default();
    let mut tx = store.write().await?;
    let mut stored = Vec::with_capacity(batches.len());
    for batch in batches {
        stored.push(records::ingest(&mut tx, &batch.node, &batch.records, &notify).await?);
    }
    tx.commit().await?;
    Ok(stored)
}
