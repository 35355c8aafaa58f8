//! Threads and process limits.

use std::time::Duration;
use std::{io, mem};

/// Pins the calling thread to one core.
///
/// # Errors
/// The core does not exist or may not be used.
pub fn pin_to(core: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    if core >= 8 * mem::size_of::<libc::cpu_set_t>() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: `core` is below the size of the set, as checked above.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set is valid and its size is given; 0 means the calling thread.
    let outcome = unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &raw const set) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets timers of the calling thread fire when they are due, not up to 50 us later.
///
/// # Errors
/// Of `prctl`; the thread goes on with what it had.
pub(crate) fn precise_timers() -> io::Result<()> {
    // SAFETY: this option takes a number and touches no memory.
    let outcome = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_usize, 0, 0, 0) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the calling thread has a real-time policy: it then keeps its core until it sleeps or
/// yields.
#[must_use]
pub(crate) fn is_real_time() -> bool {
    // SAFETY: the call takes a number, 0 for the calling thread, and touches no memory.
    let policy = unsafe { libc::sched_getscheduler(0) };
    matches!(policy & !libc::SCHED_RESET_ON_FORK, libc::SCHED_FIFO | libc::SCHED_RR)
}

/// CPU time that the calling thread has used, in the kernel too.
#[must_use]
pub fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a valid timespec. The call cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Nanoseconds since the start of the machine, suspended time apart.
#[must_use]
pub fn since_boot() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a valid timespec. The call cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// A soft limit of this process and the hard one above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub soft: u64,
    pub hard: u64,
}

/// Raises the limit on open files to its hard limit and returns what it is then. To be called once
/// at start, before shards open their ports.
///
/// # Errors
/// The limit could not be read or raised.
pub fn raise_open_files() -> io::Result<Limit> {
    let mut limit = read(libc::RLIMIT_NOFILE)?;
    if limit.soft < limit.hard {
        let raised = libc::rlimit { rlim_cur: limit.hard, rlim_max: limit.hard };
        // SAFETY: the pointer is to a valid rlimit.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } != 0 {
            return Err(io::Error::last_os_error());
        }
        limit.soft = limit.hard;
    }
    Ok(limit)
}

/// The limit on open files.
///
/// # Errors
/// As `getrlimit`.
pub fn open_files() -> io::Result<Limit> {
    read(libc::RLIMIT_NOFILE)
}

/// The limit on locked memory, in bytes.
///
/// # Errors
/// As `getrlimit`.
pub fn locked_memory() -> io::Result<Limit> {
    read(libc::RLIMIT_MEMLOCK)
}

fn read(resource: libc::__rlimit_resource_t) -> io::Result<Limit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a valid rlimit.
    if unsafe { libc::getrlimit(resource, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Limit { soft: limit.rlim_cur, hard: limit.rlim_max })
}

/// Moves the calling thread into a network namespace: sockets that it makes and threads that it
/// starts from now on are there.
#[cfg(test)]
pub(crate) fn enter_network_namespace(namespace: &std::fs::File) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the call takes a descriptor, which is open, and changes this thread alone.
    let outcome = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Gives the calling thread the lowest priority of `SCHED_FIFO`, which needs `CAP_SYS_NICE`.
#[cfg(test)]
pub(crate) fn become_real_time() -> io::Result<()> {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: the pointer is to a valid sched_param; 0 means the calling thread.
    let outcome = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const lowest) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_rise_to_the_hard_limit() {
        let raised = raise_open_files().unwrap();
        assert_eq!(raised.soft, raised.hard);
        assert_eq!(open_files().unwrap(), raised);
    }

    #[test]
    fn work_takes_cpu_time() {
        let before = cpu_time();
        let mut sum = 0_u64;
        while cpu_time() == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(cpu_time() > before);
    }

    #[test]
    fn a_core_that_does_not_exist_is_an_error() {
        assert!(pin_to(1_000_000).is_err());
        assert!(pin_to(1_023).is_err());
    }
}
