//! What this kernel and this process may do. A shard starts with a named reason for every driver
//! that it does not get.

use std::fmt;

/// What keeps io_uring from being used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// `kernel.io_uring_disabled` is set.
    DisabledBySysctl { value: u32 },
    /// `io_uring_setup` is refused although the sysctl allows it: a seccomp filter, as container
    /// run-times install by default, or a security module.
    Denied,
    /// The kernel was built without io_uring.
    NotInKernel,
    /// The kernel lacks a set-up flag (all are there from 6.1).
    SetupFlag(&'static str),
    /// The kernel lacks a feature bit.
    Feature(&'static str),
    /// The kernel lacks an operation, or this form of it.
    Operation(&'static str),
    /// The limit on locked memory is too low, and stayed so while we retried.
    LockedMemory { limit_bytes: u64 },
    /// The limit on open files is below what was asked to be registered.
    OpenFiles { limit: u64 },
    /// Anything else: the call that failed and its error number.
    Call { call: &'static str, errno: i32 },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DisabledBySysctl { value } => write!(
                f,
                "io_uring is switched off: kernel.io_uring_disabled = {value}; set it to 0"
            ),
            Self::Denied => write!(
                f,
                "io_uring_setup is denied (EPERM), most likely by a seccomp profile; allow \
                 io_uring_setup, io_uring_enter and io_uring_register"
            ),
            Self::NotInKernel => write!(f, "this kernel was built without io_uring"),
            Self::SetupFlag(flag) => {
                write!(f, "io_uring lacks the set-up flag {flag}; kernel 6.1 or newer is needed")
            }
            Self::Feature(feature) => {
                write!(f, "io_uring lacks the feature {feature}; kernel 6.1 or newer is needed")
            }
            Self::Operation(operation) => {
                write!(f, "io_uring lacks the operation {operation}; kernel 6.1 or newer is needed")
            }
            Self::LockedMemory { limit_bytes } => write!(
                f,
                "the limit on locked memory ({limit_bytes} bytes) is too low for io_uring; raise \
                 it (LimitMEMLOCK=infinity, ulimit -l)"
            ),
            Self::OpenFiles { limit } => write!(
                f,
                "the limit on open files ({limit}) is too low for this many ports; raise it \
                 (LimitNOFILE, ulimit -n)"
            ),
            Self::Call { call, errno } => {
                let error = std::io::Error::from_raw_os_error(*errno);
                write!(f, "io_uring cannot be set up: {call}: {error}")
            }
        }
    }
}

impl std::error::Error for Missing {}
