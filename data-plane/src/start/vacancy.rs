//! Waiting for addresses that the run before still holds. The sockets of a killed process live on in
//! the kernel until its io_uring rings are taken down, which happens after the process is gone: a
//! restart that comes at once meets its own predecessor.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::telemetry::log;

/// Longest wait of one start for all its addresses together.
const VACANCY_WAIT: Duration = Duration::from_secs(5);
/// The same where the run before left calls behind, so was killed: to give up would end them.
const VACANCY_WAIT_KILLED: Duration = Duration::from_secs(30);
/// Between two tries.
const VACANCY_STEP: Duration = Duration::from_millis(1);

/// What one start may still wait.
#[derive(Debug)]
pub(crate) struct Vacancy {
    patience: Duration,
    until: Instant,
    told: AtomicBool,
}

impl Vacancy {
    pub(crate) fn new() -> Self {
        Self::within(VACANCY_WAIT)
    }

    /// For calls that wait to go on.
    pub(crate) fn after_kill() -> Self {
        Self::within(VACANCY_WAIT_KILLED)
    }

    fn within(patience: Duration) -> Self {
        Self { patience, until: Instant::now() + patience, told: AtomicBool::new(false) }
    }

    /// Opens something that may be held for a moment.
    ///
    /// # Errors
    /// What `open` says last: that the address is still in use, or at once any other fault.
    pub(crate) fn wait<T>(
        &self,
        name: &str,
        mut open: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match self.once(name, &mut open) {
                Some(outcome) => return outcome,
                None => thread::sleep(VACANCY_STEP),
            }
        }
    }

    /// As [`Self::wait`], without waiting. `None`: the address is in use, and to be tried again.
    pub(crate) fn once<T>(
        &self,
        name: &str,
        open: impl FnOnce() -> io::Result<T>,
    ) -> Option<io::Result<T>> {
        match open() {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < self.until =>
            {
                if !self.told.swap(true, Ordering::Relaxed) {
                    let text = format!(
                        "{name} is in use; waiting up to {} s for whoever had it to let go",
                        self.patience.as_secs()
                    );
                    log("info", "start", &text);
                }
                None
            }
            outcome => Some(outcome),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_let_go_is_taken_and_other_faults_come_at_once() {
        let vacancy = Vacancy::new();
        let mut tries = 0;
        let opened = vacancy.wait("a port", || {
            tries += 1;
            if tries < 4 { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(tries) }
        });
        assert_eq!(opened.unwrap(), 4);
        let mut tries = 0;
        let refused = vacancy.wait("a port", || -> io::Result<()> {
            tries += 1;
            Err(io::ErrorKind::PermissionDenied.into())
        });
        assert_eq!((refused.unwrap_err().kind(), tries), (io::ErrorKind::PermissionDenied, 1));
        let over = Vacancy::within(Duration::ZERO);
        let refused =
            over.wait("a port", || -> io::Result<()> { Err(io::ErrorKind::AddrInUse.into()) });
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
