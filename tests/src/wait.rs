//! Waiting for a condition, with a deadline that only a broken program reaches.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

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

/// Watches the machine: a thread on each core that asks to be woken every few milliseconds and notes
/// by how much it was late. A test that counts repeats uses it to tell its own subject's delay from a
/// core that stood still for everybody.
#[derive(Debug)]
pub struct Watch {
    cores: Vec<(Sender<()>, JoinHandle<Duration>)>,
}

impl Watch {
    /// Starts watching.
    ///
    /// # Panics
    /// If the kernel does not say what cores there are.
    #[must_use]
    pub fn start() -> Self {
        let usable = sched_getaffinity(None).expect("the cores of this process");
        let watched = |core| {
            let (stop, stopped) = channel();
            (stop, std::thread::spawn(move || watch(core, &stopped)))
        };
        let cores = (0..CpuSet::MAX_CPU).filter(|core| usable.is_set(*core)).map(watched);
        Self { cores: cores.collect() }
    }

    /// Stops, and says how long a core stood still at most.
    ///
    /// # Panics
    /// If the watching thread did.
    #[must_use]
    pub fn longest_standstill(self) -> Duration {
        let longest = self.cores.into_iter().map(|(stop, thread)| {
            drop(stop);
            thread.join().expect("the watch")
        });
        longest.max().unwrap_or_default()
    }
}

fn watch(core: usize, stopped: &Receiver<()>) -> Duration {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).expect("a core of this process");
    let mut longest = Duration::ZERO;
    let mut before = Instant::now();
    while stopped.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
        longest = longest.max(before.elapsed().saturating_sub(POLL));
        before = Instant::now();
    }
    longest
}
