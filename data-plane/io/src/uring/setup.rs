//! Setting up the ring, and a name for whatever is in the way.

use super::Uring;
use crate::driver::{DATAGRAM_MAX_BYTES, MEDIA_DATAGRAM_MAX_BYTES, Options};
use crate::probe::Missing;
use crate::sys::ring::{Config, Ring, SetupError};
use crate::sys::thread;
use io_uring::{IoUring, Probe, opcode};
use std::time::Duration;
use std::{fs, io};

/// Waits before setting up once more after `ENOMEM`: the kernel gives back the locked memory of a
/// ring that was closed only some time later, so a restarted process may have to wait for its
/// predecessor.
const RETRIES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(400),
    Duration::from_millis(900),
    Duration::from_millis(1_500),
];

/// Opens the driver on the calling thread, which is then the only one that may use it.
pub(crate) fn open(options: &Options) -> Result<Uring, Missing> {
    let files = thread::open_files().map_or(u64::MAX, |limit| limit.soft);
    let wanted = u32::from(options.listeners_max) + options.media_ports_max;
    let sockets = u32::try_from(files).map_or(wanted, |limit| wanted.min(limit));
    if sockets <= u32::from(options.listeners_max) {
        return Err(Missing::OpenFiles { limit: files });
    }
    let config = Config {
        sockets,
        signalling_buffers: options.signalling_buffers,
        signalling_bytes: bytes(DATAGRAM_MAX_BYTES),
        media_buffers: options.media_buffers,
        media_bytes: bytes(MEDIA_DATAGRAM_MAX_BYTES),
    };
    let mut retries = RETRIES.iter();
    let ring = loop {
        match Ring::new(&config) {
            Ok(ring) => break ring,
            Err(failure) if failure.error.raw_os_error() == Some(libc::ENOMEM) => {
                match retries.next() {
                    Some(pause) => std::thread::sleep(*pause),
                    None => return Err(name(failure)),
                }
            }
            Err(failure) => return Err(name(failure)),
        }
    };
    check(ring.uring())?;
    Uring::new(ring, options).map_err(|error| call("watch the waker", &error))
}

/// Whether this process may make rings at all.
pub(crate) fn available() -> Result<(), Missing> {
    match IoUring::new(1) {
        Ok(_) => Ok(()),
        Err(error) => Err(name(SetupError { call: "io_uring_setup", error })),
    }
}

fn bytes(size: usize) -> u32 {
    // Both sizes are named constants far below 2^32.
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// What the driver needs beyond what setting up has shown already.
fn check(ring: &IoUring) -> Result<(), Missing> {
    let params = ring.params();
    for (there, feature) in [
        (params.is_feature_nodrop(), "NODROP"),
        (params.is_feature_ext_arg(), "EXT_ARG"),
        (params.is_feature_submit_stable(), "SUBMIT_STABLE"),
        (params.is_feature_fast_poll(), "FAST_POLL"),
    ] {
        if !there {
            return Err(Missing::Feature(feature));
        }
    }
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|error| call("register probe", &error))?;
    for (code, operation) in [
        (opcode::RecvMsgMulti::CODE, "RECVMSG"),
        (opcode::Send::CODE, "SEND"),
        // The probe names operations, not their forms. This one came with 6.0, as multishot
        // RECVMSG and SEND with an address did; DEFER_TASKRUN, asked for at set-up, is younger.
        (opcode::SendZc::CODE, "SEND with an address"),
        (opcode::PollAdd::CODE, "POLL_ADD"),
        (opcode::PollRemove::CODE, "POLL_REMOVE"),
    ] {
        if !probe.is_supported(code) {
            return Err(Missing::Operation(operation));
        }
    }
    Ok(())
}

/// A name for a failed set-up.
fn name(failure: SetupError) -> Missing {
    match (failure.call, failure.error.raw_os_error()) {
        ("io_uring_setup", Some(libc::EPERM | libc::EACCES)) => match disabled() {
            Some(value) if value > 0 => Missing::DisabledBySysctl { value },
            _ => Missing::Denied,
        },
        ("io_uring_setup", Some(libc::ENOSYS)) => Missing::NotInKernel,
        // Unknown flags are invalid; the youngest of ours needs 6.1.
        ("io_uring_setup", Some(libc::EINVAL)) => Missing::SetupFlag("DEFER_TASKRUN"),
        ("register buffer ring", Some(libc::EINVAL)) => Missing::Operation("PBUF_RING"),
        (_, Some(libc::ENOMEM)) => Missing::LockedMemory {
            limit_bytes: thread::locked_memory().map_or(0, |limit| limit.soft),
        },
        ("register files", Some(libc::EMFILE)) => {
            Missing::OpenFiles { limit: thread::open_files().map_or(0, |limit| limit.soft) }
        }
        (step, _) => call(step, &failure.error),
    }
}

fn call(call: &'static str, error: &io::Error) -> Missing {
    Missing::Call { call, errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

fn disabled() -> Option<u32> {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(call: &'static str, errno: i32) -> Missing {
        name(SetupError { call, error: io::Error::from_raw_os_error(errno) })
    }

    #[test]
    fn failures_have_names_that_say_what_to_do() {
        assert_eq!(named("io_uring_setup", libc::ENOSYS), Missing::NotInKernel);
        assert_eq!(named("io_uring_setup", libc::EINVAL), Missing::SetupFlag("DEFER_TASKRUN"));
        assert!(matches!(
            named("io_uring_setup", libc::EPERM),
            Missing::Denied | Missing::DisabledBySysctl { .. }
        ));
        assert!(matches!(
            named("register buffer ring", libc::ENOMEM),
            Missing::LockedMemory { .. }
        ));
        for missing in [named("io_uring_setup", libc::EPERM), named("x", libc::EIO)] {
            assert!(missing.to_string().contains("io_uring"));
        }
    }

    #[test]
    fn this_machine_has_what_the_driver_needs_or_says_what_is_missing() {
        match open(&Options::default()) {
            Ok(_) => {}
            Err(missing) => assert!(!missing.to_string().is_empty()),
        }
    }
}
