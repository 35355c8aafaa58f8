//! Waking a shard that waits in its driver.

use crate::sys::event::EventFd;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::{fmt, io};

/// Wakes one driver's `wait`, from any thread. Costs one atomic exchange while the shard is busy or
/// was woken already, one system call when it sleeps.
#[derive(Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

struct Shared {
    event: EventFd,
    /// Set by wakers, cleared by the shard when it takes notice.
    woken: AtomicBool,
    /// The shard is in, or about to enter, a wait that may block.
    sleeping: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                event: EventFd::new()?,
                woken: AtomicBool::new(false),
                sleeping: AtomicBool::new(false),
            }),
        })
    }

    /// Makes the present or the next `wait` return at once. What was written before this call is
    /// seen by the shard after that return.
    pub fn wake(&self) {
        // Both this and `fall_asleep` write one flag and then read the other, sequentially
        // consistent: at least one of the two sides sees the other's write.
        if !self.shared.woken.swap(true, SeqCst) && self.shared.sleeping.load(SeqCst) {
            self.shared.event.signal();
        }
    }

    /// The shard's side: whether it may block. If not, there was a wake and it is hereby noticed.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.shared.sleeping.store(true, SeqCst);
        if self.shared.woken.swap(false, SeqCst) {
            self.shared.sleeping.store(false, SeqCst);
            return false;
        }
        true
    }

    /// The shard's side, after the wait. True if someone woke it.
    pub(crate) fn wake_up(&self) -> bool {
        self.shared.sleeping.store(false, SeqCst);
        self.shared.woken.swap(false, SeqCst)
    }

    /// Takes the signal off the descriptor.
    pub(crate) fn drain(&self) {
        self.shared.event.drain();
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").finish_non_exhaustive()
    }
}
