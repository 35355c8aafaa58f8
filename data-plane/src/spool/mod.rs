//! The spool: everything that must not be lost leaves a shard through here. One thread seals the
//! records of all shards into the node's hash chain, syncs them in groups, and keeps them until the
//! control plane has stored them.
//!
//! | File | |
//! |---|---|
//! | `feed` | shard -> spool thread: bounded rings, reserve for emergency records, counted loss |
//! | `chain_file` | sealing, appending, syncing, rotating, forgetting |
//! | `segment` | what lies on disk, and the check of it |
//! | `recover` | start after a crash: cut, keep evidence, record the gap |
//! | `reader` | the records behind a number, for the link |
//! | `cdr_files` | the CDRs as plain files |

mod cdr_files;
mod chain_file;
mod feed;
mod reader;
pub mod recover;
pub mod segment;
#[cfg(test)]
mod tests;
mod thread;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crossbeam::channel::{Receiver, Sender, bounded};
use ravelin_contract::{
    audit::AuditEvent,
    chain::{ChainError, Head},
};

pub use self::{
    chain_file::{ChainFile, Sizes},
    feed::{Feed, OVERFLOW_RECORDS, RING_RECORDS, RING_RESERVE},
    reader::SpoolReader,
};

/// Least time between two syncs, unless [`BATCH_RECORDS`] wait: what a crash may cost at most.
pub const GROUP_WINDOW: Duration = Duration::from_millis(20);
/// Records that are sealed and synced together at most.
pub const BATCH_RECORDS: usize = 4_096;
/// Records that the spool thread itself keeps while the disk refuses them. Beyond this only urgent
/// records are kept, up to eight times as many.
pub const PENDING_RECORDS: usize = 16_384;
/// How often a disk that refused is tried again.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
const COMMANDS: usize = 1_024;

/// What others may know of the spool, published after every sync.
#[derive(Debug, Default)]
pub struct Status {
    /// Number of the last durable record.
    pub synced_seq: AtomicU64,
    /// Number of the last record that the control plane has stored.
    pub stored_seq: AtomicU64,
    /// Records that were given up because a ring or the disk was full.
    pub lost: AtomicU64,
    /// Gap records sealed since start.
    pub gaps: AtomicU64,
    pub syncs: AtomicU64,
    pub write_errors: AtomicU64,
    /// The disk refuses writes; calls go on, records wait.
    pub failing: AtomicBool,
    /// Octets of all segments.
    pub bytes: AtomicU64,
}

enum Command {
    Drain(Box<feed::Drain>),
    Event(Box<AuditEvent>),
    Stored(u64),
    Rebase { head: Head, reason: String, done: Sender<io::Result<()>> },
    Stop { reason: String },
}

/// The running spool.
#[derive(Debug)]
pub struct Spool {
    handle: SpoolHandle,
    synced: Receiver<()>,
    thread: JoinHandle<()>,
}

/// For every thread that has something to say to the spool, except shards (they have a [`Feed`]).
#[derive(Clone, Debug)]
pub struct SpoolHandle {
    commands: Sender<Command>,
    wake: Arc<feed::Wake>,
    status: Arc<Status>,
    audit_dir: PathBuf,
    recovery: Arc<Recovery>,
}

/// How recovering went, from the thread that does it.
#[derive(Debug)]
struct Recovery {
    told: Receiver<io::Result<()>>,
    outcome: OnceLock<Result<(), String>>,
}

/// What a start needs to know.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    pub data: PathBuf,
    pub sizes: Sizes,
    /// A control plane collects the records: keep those that it has not stored.
    pub collected: bool,
}

impl Spool {
    /// Starts the thread, which first recovers what the run before left: to be waited for with
    /// [`SpoolHandle::recovered`] before anybody is told that records are kept.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn begin(options: &SpoolOptions) -> io::Result<Self> {
        let audit_dir = options.data.join("audit");
        let status = Arc::new(Status::default());
        let wake = Arc::new(feed::Wake::default());
        let (commands, command_queue) = bounded(COMMANDS);
        let (synced_tx, synced) = bounded(1);
        let (tell, told) = bounded(1);
        let parts = thread::Parts {
            options: options.clone(),
            wake: Arc::clone(&wake),
            status: Arc::clone(&status),
            commands: command_queue,
            synced: synced_tx,
        };
        let dir = audit_dir.clone();
        let work = move || match recover::recover(&dir, crate::telemetry::unix_ms()) {
            Ok(recovered) => {
                parts.status.synced_seq.store(recovered.head.seq, Ordering::Release);
                let worker = thread::Worker::new(parts, recovered);
                // Who began it may be gone; records are kept all the same.
                let _ = tell.send(Ok(()));
                worker.run();
            }
            Err(error) => drop(tell.send(Err(error))),
        };
        let thread = std::thread::Builder::new().name("spool".into()).spawn(work)?;
        let recovery = Arc::new(Recovery { told, outcome: OnceLock::new() });
        let handle = SpoolHandle { commands, wake, status, audit_dir, recovery };
        Ok(Self { handle, synced, thread })
    }

    /// [`Self::begin`], then [`SpoolHandle::recovered`].
    ///
    /// # Errors
    /// Of both.
    #[cfg(test)]
    pub fn start(options: &SpoolOptions) -> Result<Self, String> {
        let spool = Self::begin(options).map_err(|error| error.to_string())?;
        spool.handle.recovered().map(|()| spool)
    }

    #[must_use]
    pub fn handle(&self) -> SpoolHandle {
        self.handle.clone()
    }

    /// Gets a message when records have become durable.
    #[must_use]
    pub fn synced(&self) -> Receiver<()> {
        self.synced.clone()
    }

    /// Writes what is still in the rings, seals the end of this run and ends the thread.
    pub fn stop(self, reason: &str) {
        self.handle.command(Command::Stop { reason: reason.into() });
        if self.thread.join().is_err() {
            eprintln!("ravelin edge: the spool thread ended in a panic");
        }
    }
}

impl SpoolHandle {
    /// Waits until what the run before left is a sound chain again.
    ///
    /// # Errors
    /// If `DIR/audit` cannot be read or repaired: no record will be kept.
    pub fn recovered(&self) -> Result<(), String> {
        let wait = || match self.recovery.told.recv() {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(_) => Err("the spool thread ended in a panic".into()),
        };
        let outcome = self.recovery.outcome.get_or_init(wait).clone();
        outcome.map_err(|error| format!("{} cannot be used: {error}", self.audit_dir.display()))
    }

    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    #[must_use]
    pub fn audit_dir(&self) -> &Path {
        &self.audit_dir
    }

    /// A way into the spool for one more shard.
    #[must_use]
    pub fn feed(&self) -> Feed {
        let (feed, drain) = feed::channel(&self.wake);
        self.command(Command::Drain(Box::new(drain)));
        feed
    }

    /// Records an event that is not of a shard.
    pub fn event(&self, event: AuditEvent) {
        self.command(Command::Event(Box::new(event)));
    }

    /// Everything up to `seq` is stored by the control plane.
    pub fn stored(&self, seq: u64) {
        self.command(Command::Stored(seq));
    }

    /// Makes the chain follow what the control plane has stored: the spool here is another one
    /// (lost, restored from a copy). What lies here is put aside and sealed again behind `head`.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn rebase(&self, head: Head, reason: String) -> io::Result<()> {
        let (done, result) = bounded(1);
        self.command(Command::Rebase { head, reason, done });
        result.recv().unwrap_or_else(|_| Err(io::Error::other("the spool has stopped")))
    }

    fn command(&self, command: Command) {
        // The thread outlives its handles except after `Stop`; then there is nobody to tell.
        if self.commands.send(command).is_ok() {
            self.wake.wake();
        }
    }
}

/// What a check of a whole audit directory found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// First and last record that were checked, `None` if there are none.
    pub range: Option<(u64, u64)>,
    pub records: u64,
    /// Gap records, with their reason: the chain holds, and says itself that entries are missing.
    pub gaps: Vec<(u64, String)>,
    /// Where the chain breaks.
    pub fault: Option<(PathBuf, ChainError)>,
}

/// Checks the whole chain that lies in `audit_dir`. Records that retention removed at the front are
/// not missed; anything else is.
///
/// # Errors
/// If files cannot be read.
pub fn verify(audit_dir: &Path) -> io::Result<Verification> {
    verify_each(audit_dir, |_| {})
}

/// As [`verify`], and shows every good record to `each`.
///
/// # Errors
/// If files cannot be read.
pub fn verify_each(
    audit_dir: &Path,
    mut each: impl FnMut(&ravelin_contract::chain::Record),
) -> io::Result<Verification> {
    use ravelin_contract::chain::Entry;
    let mut found = Verification { range: None, records: 0, gaps: Vec::new(), fault: None };
    let mut head = None;
    for segment in segment::list(audit_dir)? {
        let mut gaps = Vec::new();
        let mut first = None;
        let scan = segment::scan(&segment, head, |record| {
            first.get_or_insert(record.seq);
            if let Ok(Entry::Gap { reason, .. }) = serde_json::from_str(record.entry.get()) {
                gaps.push((record.seq, reason));
            }
            each(record);
        })?;
        found.gaps.append(&mut gaps);
        found.records += scan.records;
        if let Some(first) = first {
            let (start, _) = found.range.unwrap_or((first, first));
            found.range = Some((start, scan.head.seq));
        }
        if let Some(fault) = scan.fault {
            found.fault = Some((segment.path, fault.error));
            break;
        }
        if scan.records > 0 {
            head = Some(scan.head);
        }
    }
    Ok(found)
}
