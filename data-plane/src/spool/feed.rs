//! The way of records from shards and other threads to the spool thread. A shard never waits here
//! and never blocks: it pushes into its own bounded ring. What finds the ring full is counted and
//! ends as a gap in the chain; records of emergency calls and alarms find room that is kept for them.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    thread::Thread,
};

use ravelin_contract::{audit::Severity, chain::Entry};

/// Records that wait in one shard's ring at most. At 10,000 records a second on one shard this is
/// more than 0.8 s of a disk that does not answer.
pub const RING_RECORDS: usize = 8_192;
/// Places of the ring that only emergency records and alarms may take.
pub const RING_RESERVE: usize = RING_RECORDS / 8;
/// Emergency records and alarms that a shard keeps itself when even the reserve is full.
pub const OVERFLOW_RECORDS: usize = 65_536;

/// What a shard holds: the producer end of its ring.
#[derive(Debug)]
pub struct Feed {
    /// Of boxes: a record is long, and a ring of records would be megabytes of a shard, of which nothing
    /// is in use for as long as the disk answers.
    ring: rtrb::Producer<Box<Entry>>,
    /// Urgent records that found the ring full, oldest first. They go before anything newer.
    overflow: VecDeque<Box<Entry>>,
    shared: Arc<Shared>,
}

/// What the spool thread holds of one shard.
#[derive(Debug)]
pub(super) struct Drain {
    ring: rtrb::Consumer<Box<Entry>>,
    shared: Arc<Shared>,
    lost_told: u64,
}

#[derive(Debug)]
struct Shared {
    lost: AtomicU64,
    wake: Arc<Wake>,
}

/// Wakes the spool thread, at the cost of one atomic read while it is awake.
#[derive(Debug, Default)]
pub(super) struct Wake {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Wake {
    pub(super) fn wake(&self) {
        // The record was pushed before this fence, the sleeper looks at the rings behind its own:
        // one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed)
            && self.asleep.swap(false, Ordering::AcqRel)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Sleeps until woken or `limit` has passed, unless `ready` says that there is work already.
    pub(super) fn sleep(&self, limit: std::time::Duration, ready: impl FnOnce() -> bool) {
        self.thread.get_or_init(std::thread::current);
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !ready() {
            std::thread::park_timeout(limit);
        }
        self.asleep.store(false, Ordering::Release);
    }
}

pub(super) fn channel(wake: &Arc<Wake>) -> (Feed, Drain) {
    let (producer, consumer) = rtrb::RingBuffer::new(RING_RECORDS);
    let shared = Arc::new(Shared { lost: AtomicU64::new(0), wake: Arc::clone(wake) });
    (
        Feed { ring: producer, overflow: VecDeque::new(), shared: Arc::clone(&shared) },
        Drain { ring: consumer, shared, lost_told: 0 },
    )
}

impl Feed {
    /// Hands over everything in `entries`, in order, and empties it. Also tries again what is left
    /// from before; call it once a turn while [`Self::has_backlog`].
    pub fn push_all(&mut self, entries: &mut Vec<Entry>) {
        if entries.is_empty() && self.overflow.is_empty() {
            return;
        }
        while let Some(entry) = self.overflow.pop_front() {
            if let Err(rtrb::PushError::Full(entry)) = self.ring.push(entry) {
                self.overflow.push_front(entry);
                break;
            }
        }
        for entry in entries.drain(..) {
            self.push(Box::new(entry));
        }
        self.shared.wake.wake();
    }

    /// Ordinary records for which the ring has room now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.ring.slots().saturating_sub(RING_RESERVE)
    }

    /// Urgent records wait on this side.
    #[must_use]
    pub fn has_backlog(&self) -> bool {
        !self.overflow.is_empty()
    }

    fn push(&mut self, entry: Box<Entry>) {
        let urgent = is_urgent(&entry);
        let room = if urgent { 0 } else { RING_RESERVE };
        let entry = if self.overflow.is_empty() && self.ring.slots() > room {
            match self.ring.push(entry) {
                Ok(()) => return,
                Err(rtrb::PushError::Full(entry)) => entry,
            }
        } else {
            entry
        };
        if urgent && self.overflow.len() < OVERFLOW_RECORDS {
            self.overflow.push_back(entry);
        } else {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drain {
    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty() && self.shared.lost.load(Ordering::Relaxed) == self.lost_told
    }

    /// Moves at most `limit` records into `batch`.
    pub(super) fn take(&mut self, batch: &mut Vec<Entry>, limit: usize) {
        let take = self.ring.slots().min(limit);
        if let Ok(chunk) = self.ring.read_chunk(take) {
            batch.extend(chunk.into_iter().map(|entry| *entry));
        }
    }

    /// Records lost since the last call.
    pub(super) fn take_lost(&mut self) -> u64 {
        let lost = self.shared.lost.load(Ordering::Relaxed);
        lost - std::mem::replace(&mut self.lost_told, lost)
    }
}

/// Records that may not be lost to a full ring: those of emergency calls, and alarms.
pub(super) fn is_urgent(entry: &Entry) -> bool {
    match entry {
        Entry::Cdr(cdr) => cdr.emergency,
        Entry::Audit(event) => {
            event.severity >= Severity::Alarm || event.kind.starts_with("emergency.")
        }
        Entry::Gap { .. } => true,
    }
}
