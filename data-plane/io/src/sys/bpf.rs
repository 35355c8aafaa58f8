//! BPF maps and programs through bpf(2), for what is done often or what the loader library lacks:
//! reads and writes of maps without allocation, test frames; and the mount of the BPF file system.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::{io, mem};

const MAP_LOOKUP_ELEM: i32 = 1;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_DELETE_ELEM: i32 = 3;
const PROG_TEST_RUN: i32 = 10;
const OBJ_GET_INFO_BY_FD: i32 = 15;

const MAP_TYPE_PERCPU_ARRAY: u32 = 6;
/// Test runs whose frames are really sent.
const LIVE_FRAMES: u32 = 2;

#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    unused: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct TestAttr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    unused: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// The first members of the kernel's `bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// `struct xdp_md`.
#[repr(C)]
#[derive(Default)]
struct XdpContext {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// # Safety
/// `attr` is what the command expects, and every pointer in it is valid for what the command reads
/// and writes there.
unsafe fn bpf<T>(command: i32, attr: &mut T) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of `attr`; the caller promises the rest.
    let outcome = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), mem::size_of::<T>())
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A map, with the sizes that the kernel uses for it.
#[derive(Debug)]
pub(crate) struct Map {
    fd: OwnedFd,
    key: usize,
    /// Octets of one value, and of all that a lookup gives (one value for each possible CPU).
    value: usize,
    values: usize,
    max_entries: u32,
}

impl Map {
    /// # Errors
    /// `fd` is no map.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let mut info = MapInfo::default();
        let mut attr = InfoAttr {
            fd: fd.as_raw_fd() as u32,
            len: mem::size_of::<MapInfo>() as u32,
            info: (&raw mut info) as u64,
        };
        // SAFETY: the kernel writes at most `len` octets of a map's info to `info`; for another kind
        // of object it writes other members of the same size, and the check below refuses them.
        unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr)? };
        let value = info.value_size as usize;
        let values = if info.kind == MAP_TYPE_PERCPU_ARRAY {
            let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
            value.next_multiple_of(8) * cpus
        } else {
            value
        };
        Ok(Self { fd, key: info.key_size as usize, value, values, max_entries: info.max_entries })
    }

    pub(crate) fn max_entries(&self) -> u32 {
        self.max_entries
    }

    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.key, self.value)
    }

    /// Octets that [`Map::lookup`] fills.
    pub(crate) fn lookup_bytes(&self) -> usize {
        self.values
    }

    fn element(&self, key: &[u8]) -> io::Result<ElementAttr> {
        if key.len() != self.key {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(ElementAttr {
            map_fd: self.fd.as_raw_fd() as u32,
            key: key.as_ptr() as u64,
            ..ElementAttr::default()
        })
    }

    /// # Errors
    /// `InvalidInput`: a length is not that of the map. Others: the kernel's.
    pub(crate) fn update(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        if value.len() != self.value || self.values != self.value {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut attr = ElementAttr { value: value.as_ptr() as u64, flags, ..self.element(key)? };
        // SAFETY: the kernel reads one key and one value, whose lengths were checked.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }
    }

    /// Takes a key away. Says whether it was there.
    ///
    /// # Errors
    /// As [`Map::update`].
    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<bool> {
        let mut attr = self.element(key)?;
        // SAFETY: the kernel reads one key, whose length was checked.
        found(unsafe { bpf(MAP_DELETE_ELEM, &mut attr) })
    }

    /// Whether there is such a key; `value` then holds what it has.
    ///
    /// # Errors
    /// As [`Map::update`].
    pub(crate) fn lookup(&self, key: &[u8], value: &mut [u8], flags: u64) -> io::Result<bool> {
        if value.len() != self.values {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut attr =
            ElementAttr { value: value.as_mut_ptr() as u64, flags, ..self.element(key)? };
        // SAFETY: the kernel reads one key and writes all values, whose lengths were checked.
        found(unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) })
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn found(outcome: io::Result<()>) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Runs an XDP program `repeat` times on copies of `frame`, as if they had arrived at `interface`,
/// and really does what it says (kernel 5.18).
///
/// # Errors
/// The kernel's: it has no live frames, or refuses these.
pub(crate) fn run_frames(
    program: BorrowedFd<'_>,
    frame: &[u8],
    interface: u32,
    repeat: u32,
) -> io::Result<()> {
    let context = XdpContext {
        data_end: frame.len() as u32,
        ingress_ifindex: interface,
        ..XdpContext::default()
    };
    let mut attr = TestAttr {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat,
        ctx_size_in: mem::size_of::<XdpContext>() as u32,
        ctx_in: (&raw const context) as u64,
        flags: LIVE_FRAMES,
        ..TestAttr::default()
    };
    // SAFETY: the kernel reads the frame and the context, whose lengths are given; it writes nothing
    // but `attr`, since there is no room for output.
    unsafe { bpf(PROG_TEST_RUN, &mut attr) }
}

/// As [`run_frames`], as if they had arrived at this thread's loopback interface; `batch` frames are
/// made before any of them goes out and before other threads of this core may run.
///
/// # Errors
/// As [`run_frames`].
pub(crate) fn run_live(
    program: BorrowedFd<'_>,
    frame: &[u8],
    repeat: u32,
    batch: u32,
) -> io::Result<()> {
    let mut attr = TestAttr {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat,
        flags: LIVE_FRAMES,
        batch_size: batch,
        ..TestAttr::default()
    };
    // SAFETY: the kernel reads the frame, whose length is given; it writes nothing but `attr`, since
    // there is no room for output.
    unsafe { bpf(PROG_TEST_RUN, &mut attr) }
}

/// Index of an interface of the calling thread's network namespace.
///
/// # Errors
/// There is no such interface.
pub(crate) fn interface_index(name: &CStr) -> io::Result<u32> {
    // SAFETY: the pointer is to a string that ends with a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 { Err(io::Error::last_os_error()) } else { Ok(index) }
}

/// Runs an XDP program on one frame. Returns what it says and what it made of the frame.
#[cfg(test)]
pub(crate) fn run_once(
    program: BorrowedFd<'_>,
    frame: &[u8],
    interface: u32,
) -> io::Result<(u32, Vec<u8>)> {
    let context = XdpContext {
        data_end: frame.len() as u32,
        ingress_ifindex: interface,
        ..XdpContext::default()
    };
    let mut out = vec![0; frame.len() + 64];
    let mut attr = TestAttr {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_size_out: out.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat: 1,
        ctx_size_in: mem::size_of::<XdpContext>() as u32,
        ctx_in: (&raw const context) as u64,
        ..TestAttr::default()
    };
    // SAFETY: the kernel reads the frame and the context and writes at most `data_size_out` octets
    // to `out`, all of which outlive the call.
    unsafe { bpf(PROG_TEST_RUN, &mut attr)? };
    out.truncate(attr.data_size_out as usize);
    Ok((attr.retval, out))
}

/// The clock of `bpf_ktime_get_ns`.
pub(crate) fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec. This clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Whether a BPF file system is mounted at `path`.
pub(crate) fn is_bpf_fs(path: &CStr) -> bool {
    // SAFETY: all-zero is a valid statfs.
    let mut stat: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: the path ends with a zero octet, and the kernel writes one statfs.
    let outcome = unsafe { libc::statfs(path.as_ptr(), &raw mut stat) };
    outcome == 0 && stat.f_type == libc::BPF_FS_MAGIC
}

/// Mounts a BPF file system at `path`.
///
/// # Errors
/// The kernel's: most often that this process may not.
pub(crate) fn mount_bpf_fs(path: &CStr) -> io::Result<()> {
    // SAFETY: the three strings end with a zero octet; this file system takes no data.
    let outcome = unsafe {
        libc::mount(c"bpf".as_ptr(), path.as_ptr(), c"bpf".as_ptr(), 0, std::ptr::null())
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
