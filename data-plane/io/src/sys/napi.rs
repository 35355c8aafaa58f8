//! Polls queues of interfaces from the calling thread: what would take a wake-up of the kernel's own
//! thread or an interrupt happens within a system call, when it is asked for.
//!
//! An AF_XDP socket that copies cannot ask for that itself (`SO_PREFER_BUSY_POLL` needs zero copy),
//! so it is asked of an io_uring ring of its own, which polls the queues that it is told by number
//! before it waits (`IO_URING_NAPI_TRACKING_STATIC`, kernel 6.13). The ring watches the sockets as
//! well: what arrived by the poll ends the wait at once.

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Entries of the submission queue; the completion queue has twice as many.
const ENTRIES: u32 = 64;

const REGISTER_NAPI: libc::c_uint = 27;
const OP_REGISTER: u8 = 0;
const OP_ADD: u8 = 1;
const OP_REMOVE: u8 = 2;
const TRACKING_STATIC: u32 = 1;

/// `struct io_uring_napi` of the kernel.
#[repr(C)]
#[derive(Default)]
struct Registration {
    busy_poll_micros: u32,
    prefer_busy_poll: u8,
    opcode: u8,
    pad: [u8; 2],
    parameter: u32,
    reserved: u32,
}

/// One thread's ring for polling.
pub(crate) struct Poller {
    ring: IoUring,
    queues: Vec<u32>,
}

impl Poller {
    /// # Errors
    /// `EINVAL` before kernel 6.13; those of setting up a ring.
    pub(crate) fn new() -> io::Result<Self> {
        let ring = IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(ENTRIES)?;
        let poller = Self { ring, queues: Vec::new() };
        // No time to spin: each call polls once. Whoever asks so is preferred to the interrupt.
        poller.register(OP_REGISTER, TRACKING_STATIC)?;
        Ok(poller)
    }

    fn register(&self, opcode: u8, parameter: u32) -> io::Result<()> {
        let mut registration =
            Registration { prefer_busy_poll: 1, opcode, parameter, ..Registration::default() };
        // SAFETY: the kernel reads and writes one such structure, which lives until it returns.
        let outcome = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.ring.as_raw_fd(),
                REGISTER_NAPI,
                &raw mut registration,
                1,
            )
        };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// From now on polls these queues, by the kernel's number (NAPI id), and no others.
    pub(crate) fn set_queues(&mut self, queues: &[u32]) {
        for queue in mem::take(&mut self.queues) {
            // One that is gone with its interface is not polled anyway.
            let _ = self.register(OP_REMOVE, queue);
        }
        let taken = queues.iter().filter(|queue| self.register(OP_ADD, **queue).is_ok()).copied();
        self.queues = taken.collect();
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queues.is_empty()
    }

    /// What arrives at a socket ends [`Self::poll`]. The socket is given again when that says so.
    ///
    /// # Errors
    /// There are more sockets than entries.
    pub(crate) fn watch(&mut self, key: u32, fd: BorrowedFd<'_>) -> io::Result<()> {
        let entry = opcode::PollAdd::new(Fd(fd.as_raw_fd()), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(u64::from(key));
        // SAFETY: the operation points to no memory.
        unsafe { self.ring.submission().push(&entry) }
            .map_err(|_| io::ErrorKind::QuotaExceeded.into())
    }

    fn completed(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    /// Polls each queue once, and waits for an arrival at most so long. `ended` hears which sockets
    /// are no longer watched.
    ///
    /// # Errors
    /// The kernel's: this ring can no longer be used.
    pub(crate) fn poll(
        &mut self,
        longest: Duration,
        ended: &mut dyn FnMut(u32, &mut Self),
    ) -> io::Result<()> {
        let timespec = Timespec::new().sec(longest.as_secs()).nsec(longest.subsec_nanos());
        let args = SubmitArgs::new().timespec(&timespec);
        match self.ring.submitter().submit_with_args(1, &args) {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
                _ => return Err(error),
            },
        }
        while let Some(completion) = self.completed() {
            if !cqueue::more(completion.flags()) {
                ended(completion.user_data() as u32, self);
            }
        }
        Ok(())
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        // Else the kernel would keep the watched sockets a while.
        let _ = self.ring.submitter().register_sync_cancel(None, CancelBuilder::any());
    }
}
