//! Waiting for a condition, with a deadline that only a broken program reaches.

use std::{
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` gives a value.
///
/// # Panics
/// When it gave none within `limit`; `what` says what was waited for.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain: {what}");
        std::thread::sleep(POLL);
    }
}

/// One step of a wait that a caller bounds itself.
pub fn pause() {
    std::thread::sleep(POLL);
}

/// Watches the machine: a thread that asks to be woken every few milliseconds and notes by how
/// much it was late. A test that counts repeats uses it to tell its own subject's delay from a
/// machine that stood still for everybody.
#[derive(Debug)]
pub struct Watch {
    stop: Sender<()>,
    thread: JoinHandle<Duration>,
}

impl Watch {
    /// Starts watching.
    #[must_use]
    pub fn start() -> Self {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            let mut before = Instant::now();
            while stopped.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
                longest = longest.max(before.elapsed().saturating_sub(POLL));
                before = Instant::now();
            }
            longest
        });
        Self { stop, thread }
    }

    /// Stops, and says how long the machine stood still at most.
    ///
    /// # Panics
    /// If the watching thread did.
    #[must_use]
    pub fn longest_standstill(self) -> Duration {
        drop(self.stop);
        self.thread.join().expect("the watch")
    }
}
