//! What an interface's driver counts (`ethtool -S`).

use libc::c_char;
use socket2::{Domain, Protocol, Socket, Type};
use std::os::fd::AsRawFd;
use std::{io, mem};

/// Orders of the kernel's `ethtool.h`.
const GET_NAMES: u32 = 0x1b;
const GET_VALUES: u32 = 0x1d;
/// The set of names that belongs to the values.
const SET_OF_VALUES: u32 = 1;
/// Octets of one name.
const NAME_BYTES: usize = 32;
/// Values that there is room for. The kernel writes as many as the interface has, whatever it was told:
/// a veth has at most 4,096 queues (`rtnetlink`) of ten values each.
const VALUES_MAX: usize = 65_536;

#[repr(C)]
struct Names {
    order: u32,
    set: u32,
    count: u32,
    names: [[u8; NAME_BYTES]; VALUES_MAX],
}

#[repr(C)]
struct Values {
    order: u32,
    count: u32,
    values: [u64; VALUES_MAX],
}

/// Adds up the values of a veth whose name is one that `wanted` picks; `None`: there is none.
///
/// # Errors
/// There is no such interface, or its driver counts nothing.
pub(crate) fn sum_of_veth(
    interface: &str,
    wanted: impl Fn(&[u8]) -> bool,
) -> io::Result<Option<u64>> {
    // Untouched pages of these cost nothing.
    let mut names = vec![0_u64; mem::size_of::<Names>().div_ceil(8)];
    let mut values = vec![0_u64; mem::size_of::<Values>().div_ceil(8)];
    let names = names.as_mut_ptr().cast::<Names>();
    let values = values.as_mut_ptr().cast::<Values>();
    // SAFETY: both point to zeroed memory of ours that is large enough, aligned, and used by nobody
    // else until the end of this function; all bits zero are valid values of the two types.
    let (names, values) = unsafe { (&mut *names, &mut *values) };
    (names.order, names.set) = (GET_NAMES, SET_OF_VALUES);
    values.order = GET_VALUES;
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    order(&socket, interface, (names as *mut Names).cast())?;
    order(&socket, interface, (values as *mut Values).cast())?;
    let count = usize::try_from(names.count.min(values.count)).unwrap_or(usize::MAX);
    let both = names.names.iter().zip(values.values.iter().copied()).take(count);
    let mut found = both
        .filter(|(name, _)| {
            let length = name.iter().position(|octet| *octet == 0).unwrap_or(NAME_BYTES);
            wanted(name.get(..length).unwrap_or_default())
        })
        .map(|(_, value)| value);
    Ok(found.next().map(|first| found.fold(first, u64::wrapping_add)))
}

/// Has the kernel answer into `data`, which has room for what the order gives.
fn order(socket: &Socket, interface: &str, data: *mut c_char) -> io::Result<()> {
    // SAFETY: all-zero is a valid request.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as c_char;
    }
    request.ifr_ifru.ifru_data = data;
    // SAFETY: the request is valid, its name ends with a zero, and its data have room for every value
    // that a veth may have, as said at `VALUES_MAX`.
    let outcome = unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request)
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
