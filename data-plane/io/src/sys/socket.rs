//! Socket options and calls that `socket2` does not offer safely or at all.

use crate::addr::RawAddr;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;
use std::{io, mem, slice};

/// Sets an integer option.
pub(super) fn set_int(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of `value`.
    let outcome = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            mem::size_of_val(&value) as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks for receive and send queues of `bytes`: beyond the system's maximum if we may, else up to
/// it.
pub(crate) fn set_queues(socket: &impl AsFd, bytes: usize) {
    let fd = socket.as_fd();
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    for (force, ask) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        if set_int(fd, libc::SOL_SOCKET, force, bytes).is_err() {
            // The kernel caps what is asked for; there is no error to tell of.
            let _ = set_int(fd, libc::SOL_SOCKET, ask, bytes);
        }
    }
}

/// Keeps ICMP errors, with the address that they are about, in the socket's error queue.
pub(crate) fn report_icmp(socket: &impl AsFd, v6: bool) -> io::Result<()> {
    let (level, name) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
    } else {
        (libc::IPPROTO_IP, libc::IP_RECVERR)
    };
    set_int(socket.as_fd(), level, name, 1)
}

/// Has the kernel note when each datagram arrives, for [`arrival`].
pub(crate) fn stamp_arrivals(socket: &impl AsFd) -> io::Result<()> {
    set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
}

/// Control data of a datagram with a time of arrival: a header, seconds and nanoseconds.
pub(crate) const STAMP_BYTES: usize = 32;

/// When a datagram arrived, by the wall clock since 1970, if its control data begins with that.
pub(crate) fn arrival(control: &[u8]) -> Option<Duration> {
    let word = |at: usize| {
        let octets = control.get(at..at + 8)?.first_chunk::<8>()?;
        Some(u64::from_ne_bytes(*octets))
    };
    let half = |at: usize| {
        let octets = control.get(at..at + 4)?.first_chunk::<4>()?;
        Some(i32::from_ne_bytes(*octets))
    };
    let kind = (word(0)?, half(8)?, half(12)?);
    if kind != (STAMP_BYTES as u64, libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
        return None;
    }
    Some(Duration::new(word(16)?, u32::try_from(word(24)?).ok()?))
}

// The layout that `arrival` reads.
const _: () = assert!(
    mem::size_of::<libc::cmsghdr>() == 16
        && mem::size_of::<libc::timespec>() == 16
        && mem::offset_of!(libc::cmsghdr, cmsg_level) == 8
        && mem::offset_of!(libc::cmsghdr, cmsg_type) == 12
);

/// Leaves the choice of a bound socket's port to `connect`, which needs it to be unique per peer
/// only.
pub(crate) fn bind_address_no_port(socket: &impl AsFd) -> io::Result<()> {
    set_int(socket.as_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// One entry of a socket's error queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueuedError {
    /// Where the datagram was sent that caused it.
    pub to: SocketAddr,
    pub errno: i32,
    /// From the network (ICMP), not from this host's own stack.
    pub icmp: bool,
}

/// Control data of an error report: header, `sock_extended_err` and the offender's address.
const CONTROL_BYTES: usize = 128;

#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Takes the oldest entry of the error queue; none if it is empty.
pub(crate) fn take_error(socket: &impl AsFd) -> Option<QueuedError> {
    let mut name = RawAddr::default();
    let mut control = Control([0; CONTROL_BYTES]);
    // The datagram that failed is returned too; we do not need it.
    let mut iov = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    // SAFETY: all-zero is a valid msghdr without buffers.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = RawAddr::CAPACITY as libc::socklen_t;
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_BYTES;
    // SAFETY: every pointer of `header` is to a local of the given length that outlives the call.
    let received = unsafe {
        libc::recvmsg(
            socket.as_fd().as_raw_fd(),
            &raw mut header,
            libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
        )
    };
    if received < 0 {
        return None;
    }
    let to = name.get()?;
    // SAFETY: the kernel filled in `header` and its control buffer, which is still alive.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return headers within the control buffer.
        let (level, kind, len) =
            unsafe { ((*message).cmsg_level, (*message).cmsg_type, (*message).cmsg_len) };
        let report = matches!(
            (level, kind),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        );
        let need = mem::size_of::<libc::cmsghdr>() + mem::size_of::<libc::sock_extended_err>();
        if report && len >= need {
            // SAFETY: the message holds at least a sock_extended_err, as just checked; it may be
            // unaligned, hence the unaligned read.
            let error: libc::sock_extended_err = unsafe {
                libc::CMSG_DATA(message).cast::<libc::sock_extended_err>().read_unaligned()
            };
            let icmp =
                matches!(error.ee_origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6);
            let errno = i32::try_from(error.ee_errno).unwrap_or(libc::EIO);
            return Some(QueuedError { to, errno, icmp });
        }
        // SAFETY: both pointers are into the live header and control buffer.
        message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
    }
    None
}

/// Views memory that a safe owner lends for the duration of `'a`.
///
/// # Safety
/// `base..base + len` is readable and not written by anyone for `'a`.
pub(super) unsafe fn view<'a>(base: *const u8, len: usize) -> &'a [u8] {
    // SAFETY: the caller promises it.
    unsafe { slice::from_raw_parts(base, len) }
}

/// Subscribes a netlink socket to a group of events.
pub(crate) fn join_netlink_group(fd: BorrowedFd<'_>, group: u32) -> io::Result<()> {
    let group = i32::try_from(group).map_err(|_| io::ErrorKind::InvalidInput)?;
    set_int(fd, libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group)
}

/// Has a netlink socket's errors carry the kernel's words, and not the question.
pub(crate) fn tell_netlink_errors(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_int(fd, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1)?;
    set_int(fd, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1)
}
