//! What this kernel and this process may do. A shard starts with a named reason for every driver
//! that it does not get.

use ravelin_engine::port::Transport;
use socket2::{Domain, SockAddr, Socket, Type};
use std::net::SocketAddr;
use std::{fmt, io};

/// Whether a listener's address is ours to take. The shards share their listeners' ports, and so
/// would a second process of the same user, unnoticed, and take half of the traffic: to be asked
/// once at start, before the shards open theirs.
///
/// # Errors
/// `AddrInUse` if somebody has it; `AddrNotAvailable` if it is no address of this host; others of
/// making and binding a socket.
pub fn take_alone(transport: Transport, at: SocketAddr) -> io::Result<()> {
    let kind = match transport {
        Transport::Udp => Type::DGRAM,
        Transport::Tcp | Transport::Tls => Type::STREAM,
    };
    let socket = Socket::new(Domain::for_address(at), kind, None)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // Old connections in TIME_WAIT are nobody's listener.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SockAddr::from(at))?;
    if kind == Type::STREAM {
        socket.listen(1)?;
    }
    Ok(())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_somebody_shares_is_not_ours() {
        for host in ["127.5.5.1:0", "[::1]:0"] {
            let host: SocketAddr = host.parse().unwrap();
            for (transport, kind) in [(Transport::Udp, Type::DGRAM), (Transport::Tcp, Type::STREAM)]
            {
                let other = Socket::new(Domain::for_address(host), kind, None).unwrap();
                other.set_reuse_port(true).unwrap();
                other.bind(&host.into()).unwrap();
                if kind == Type::STREAM {
                    other.listen(1).unwrap();
                }
                let at = other.local_addr().unwrap().as_socket().unwrap();
                let error = take_alone(transport, at).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
                drop(other);
                // Asking does not keep it.
                take_alone(transport, at).unwrap();
                take_alone(transport, at).unwrap();
            }
        }
        let foreign = take_alone(Transport::Udp, "192.0.2.1:5060".parse().unwrap());
        assert_eq!(foreign.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }
}
