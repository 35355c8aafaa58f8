//! Waiting for descriptors.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;
use std::{io, ptr};

/// Events taken at a time; the others are reported by the next wait.
pub const EVENTS_MAX: usize = 1024;

/// An epoll instance with room for the events of one wait.
pub struct Epoll {
    fd: OwnedFd,
    events: Box<[libc::epoll_event]>,
    taken: usize,
}

impl Epoll {
    /// # Errors
    /// As `epoll_create1`.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointer.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above made this descriptor, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX].into_boxed_slice();
        Ok(Self { fd, events, taken: 0 })
    }

    /// Reports `data` with the events of `mask` that the descriptor is ready for.
    ///
    /// # Errors
    /// As `epoll_ctl`.
    pub fn add(&self, fd: BorrowedFd<'_>, mask: i32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), mask, data)
    }

    /// As [`Self::add`] for a descriptor that was added.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn modify(&self, fd: BorrowedFd<'_>, mask: i32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), mask, data)
    }

    /// Forgets a descriptor.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_raw_fd(), 0, 0)
    }

    fn control(&self, operation: i32, fd: RawFd, mask: i32, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: mask as u32, u64: data };
        // SAFETY: the pointer is to a valid event that the call only reads.
        let outcome =
            unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &raw mut event) };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits for events, at most for `timeout`, and returns how many there are. A signal ends it
    /// early with none.
    ///
    /// # Errors
    /// As `epoll_pwait2`.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        self.taken = 0;
        let room = EVENTS_MAX as i32;
        let spec = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let (epoll, events) = (self.fd.as_raw_fd(), self.events.as_mut_ptr());
        // SAFETY: `events` has room for EVENTS_MAX entries; the timespec is valid; no signal mask.
        let mut count =
            unsafe { libc::epoll_pwait2(epoll, events, room, &raw const spec, ptr::null()) };
        if count < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
            // Kernels before 5.11, and filters that do not know the call: whole milliseconds,
            // rounded up so that a short wait does not become a spin.
            let ms = timeout.as_micros().div_ceil(1_000);
            let ms = i32::try_from(ms).unwrap_or(i32::MAX);
            // SAFETY: as above.
            count = unsafe { libc::epoll_wait(epoll, events, room, ms) };
        }
        match usize::try_from(count) {
            Ok(count) => {
                self.taken = count;
                Ok(count)
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                error => Err(error),
            },
        }
    }

    /// An event of the last wait: its mask and data.
    #[must_use]
    pub fn event(&self, index: usize) -> Option<(i32, u64)> {
        let event = self.events[..self.taken].get(index)?;
        Some((event.events as i32, event.u64))
    }
}
