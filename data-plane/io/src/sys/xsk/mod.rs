//! AF_XDP sockets: frames between an interface's queue and memory of this process, past the kernel's
//! stack.
//!
//! The memory ([`Umem`]) belongs to one queue of one interface; any number of [`Socket`]s, one for
//! each shard, share it and the two rings by which frames come and go (`XDP_SHARED_UMEM`). These
//! rings stand behind a lock that a socket takes once in a batch ([`Socket::exchange`]), never for a
//! packet and never around a system call.
//!
//! What makes the safe methods sound: a frame is either the kernel's (in a ring) or held by exactly
//! one owner as a [`Frame`], which cannot be copied and never leaves this module; octets of a frame
//! are read and written through its owner alone. The kernel is trusted to give back each frame
//! once; a place outside of the memory is refused all the same.

mod ring;

use super::memory::Mapping;
use super::socket::{set_int, view};
use ring::{Consumer, Producer};
use socket2::{Domain, SockAddr, Type};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, mem, slice};

#[cfg(test)]
thread_local! {
    /// No socket of this thread has a frame to send: a veth gives frames back before it returns, so it
    /// never leaves a socket without one, as a card does whose ring is full.
    pub(crate) static STARVED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

#[cfg(test)]
fn is_starved() -> bool {
    STARVED.with(std::cell::Cell::get)
}

/// Option of kernels from 6.17: packets that one system call sends in copy mode.
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
/// Sizes of one queue's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Octets of one frame: 2,048 or 4,096.
    pub(crate) frame_bytes: u32,
    /// Frames that wait for packets to arrive, shared by all sockets; a power of two.
    pub(crate) rx_frames: u32,
    /// Packets that may wait for one socket to read them; a power of two.
    pub(crate) rx_ring: u32,
    /// Frames of one socket for packets that leave; a power of two.
    pub(crate) tx_frames: u32,
    /// Sockets that will share it.
    pub(crate) sockets: u32,
}

impl Sizes {
    const fn frames(&self) -> u32 {
        self.rx_frames.saturating_add(self.tx_frames.saturating_mul(self.sockets))
    }

    /// Octets of memory, which count against the limit on locked memory.
    pub(crate) const fn bytes(&self) -> usize {
        self.frames() as usize * self.frame_bytes as usize
    }
}

/// A frame that is not the kernel's.
struct Frame(u32);

/// A frame that a packet arrived in, and where it stands there.
struct Arrived {
    frame: Frame,
    start: u32,
    len: u32,
}

/// Memory of one interface's queue.
struct Umem {
    memory: Mapping,
    sizes: Sizes,
    pool: Mutex<Pool>,
}

struct Pool {
    fill: Producer<u64>,
    completion: Consumer<u64>,
    /// For packets that leave.
    free: Vec<Frame>,
}

impl Umem {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The frame at an address that the kernel gave back.
    fn frame(&self, address: u64) -> Option<Frame> {
        let index = u32::try_from(address / u64::from(self.sizes.frame_bytes)).ok()?;
        (index < self.sizes.frames()).then_some(Frame(index))
    }

    fn address(&self, frame: &Frame) -> u64 {
        u64::from(frame.0) * u64::from(self.sizes.frame_bytes)
    }
}

/// How a queue is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The card writes and reads the frames itself.
    ZeroCopy,
    /// The kernel copies.
    Copy,
}

impl Mode {
    /// For logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ZeroCopy => "zero_copy",
            Self::Copy => "copy",
        }
    }
}

/// What the kernel counts of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KernelCounts {
    /// Dropped: too long for a frame, or for another fault.
    pub(crate) rx_dropped: u64,
    /// Dropped: the socket's ring was full.
    pub(crate) rx_ring_full: u64,
    /// Dropped: no frame to put them into.
    pub(crate) rx_no_frame: u64,
    /// Sends that the kernel found malformed.
    pub(crate) tx_invalid: u64,
}

/// One socket on one queue of one interface.
pub(crate) struct Socket {
    // Dropped first: the kernel stops using the rings and the memory.
    fd: socket2::Socket,
    rx: Consumer<libc::xdp_desc>,
    tx: Producer<libc::xdp_desc>,
    umem: Arc<Umem>,
    /// For packets that leave, taken from the pool.
    spare: Vec<Frame>,
    /// Taken off the ring and to be given back to arriving packets.
    used: Vec<Arrived>,
    /// Written to the ring since the last publication.
    written: bool,
}

/// Binds `sizes.sockets` sockets to a queue of an interface of the calling thread's network
/// namespace: the first finds out how, the others share with it.
///
/// # Errors
/// `EINVAL`: there is no such queue. `EBUSY`: somebody has it. `EPERM` without CAP_NET_RAW;
/// `ENOBUFS` above the limit on locked memory; others of the kernel.
pub(crate) fn bind(interface: u32, queue: u32, sizes: Sizes) -> io::Result<(Vec<Socket>, Mode)> {
    let (first, mode) = match first(interface, queue, sizes, Mode::ZeroCopy) {
        Ok(first) => (first, Mode::ZeroCopy),
        // What cannot be had by copying either says why there.
        Err(_) => (self::first(interface, queue, sizes, Mode::Copy)?, Mode::Copy),
    };
    let mut sockets = vec![first];
    for _ in 1..sizes.sockets {
        let umem = Arc::clone(&sockets[0].umem);
        let fd = open()?;
        let shared = Some(sockets[0].fd.as_fd());
        let (rx, tx) = rings(&fd, &sizes)?;
        bind_to(&fd, interface, queue, libc::XDP_SHARED_UMEM, shared)?;
        sockets.push(Socket::new(fd, rx, tx, umem));
    }
    Ok((sockets, mode))
}

fn open() -> io::Result<socket2::Socket> {
    let fd = socket2::Socket::new_raw(Domain::from(libc::AF_XDP), Type::RAW.cloexec(), None)?;
    // Kernels that lack it send 32 packets with each call.
    let _ = set_int(fd.as_fd(), libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, 512);
    Ok(fd)
}

fn first(interface: u32, queue: u32, sizes: Sizes, mode: Mode) -> io::Result<Socket> {
    let fd = open()?;
    let memory = Mapping::dense(sizes.bytes())?;
    let registration = libc::xdp_umem_reg {
        addr: memory.as_ptr() as u64,
        len: memory.len() as u64,
        chunk_size: sizes.frame_bytes,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    // SAFETY: the kernel reads the registration. It pins the pages that it names, which are a
    // mapping that outlives the socket: `Socket` drops its descriptor before its `Umem`.
    unsafe { set(&fd, libc::XDP_UMEM_REG, &registration)? };
    let entries = |count: u32| i32::try_from(count.next_power_of_two()).unwrap_or(i32::MAX);
    let all = sizes.frames().next_power_of_two();
    set_int(fd.as_fd(), libc::SOL_XDP, libc::XDP_UMEM_FILL_RING, entries(all))?;
    set_int(fd.as_fd(), libc::SOL_XDP, libc::XDP_UMEM_COMPLETION_RING, entries(all))?;
    let offsets = offsets(&fd)?;
    let at = |offset: libc::c_ulonglong| {
        libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    };
    let mut fill =
        Producer::map(fd.as_fd(), at(libc::XDP_UMEM_PGOFF_FILL_RING)?, &offsets.fr, all)?;
    let completion =
        Consumer::map(fd.as_fd(), at(libc::XDP_UMEM_PGOFF_COMPLETION_RING)?, &offsets.cr, all)?;
    for index in 0..sizes.rx_frames {
        fill.push(u64::from(index) * u64::from(sizes.frame_bytes));
    }
    fill.publish();
    let free = (sizes.rx_frames..sizes.frames()).map(Frame).collect();
    let umem = Arc::new(Umem { memory, sizes, pool: Mutex::new(Pool { fill, completion, free }) });
    let (rx, tx) = rings(&fd, &sizes)?;
    let way = match mode {
        Mode::ZeroCopy => libc::XDP_ZEROCOPY,
        Mode::Copy => libc::XDP_COPY,
    };
    bind_to(&fd, interface, queue, way | libc::XDP_USE_NEED_WAKEUP, None)?;
    Ok(Socket::new(fd, rx, tx, umem))
}

type Rings = (Consumer<libc::xdp_desc>, Producer<libc::xdp_desc>);

fn rings(fd: &socket2::Socket, sizes: &Sizes) -> io::Result<Rings> {
    let entries = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    set_int(fd.as_fd(), libc::SOL_XDP, libc::XDP_RX_RING, entries(sizes.rx_ring))?;
    set_int(fd.as_fd(), libc::SOL_XDP, libc::XDP_TX_RING, entries(sizes.tx_frames))?;
    let offsets = offsets(fd)?;
    let rx = Consumer::map(fd.as_fd(), libc::XDP_PGOFF_RX_RING, &offsets.rx, sizes.rx_ring)?;
    let tx = Producer::map(fd.as_fd(), libc::XDP_PGOFF_TX_RING, &offsets.tx, sizes.tx_frames)?;
    Ok((rx, tx))
}

/// # Safety
/// What `value` points to must stay valid for as long as the kernel uses it.
unsafe fn set<T>(fd: &socket2::Socket, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of `value`; the caller promises the rest.
    let outcome = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            option,
            std::ptr::from_ref(value).cast(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn offsets(fd: &socket2::Socket) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: all-zero is a valid structure of numbers.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { mem::zeroed() };
    let len = get(fd, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
    // Kernels before 5.4 have a shorter one, without flags.
    if len == mem::size_of_val(&offsets) {
        Ok(offsets)
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Reads an option that is a structure of numbers. Returns how much of it the kernel wrote.
fn get<T: Copy>(fd: &socket2::Socket, option: i32, value: &mut T) -> io::Result<usize> {
    let mut len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` octets to `value`, a structure of plain numbers.
    let outcome = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            option,
            std::ptr::from_mut(value).cast(),
            &raw mut len,
        )
    };
    if outcome == 0 { Ok(len as usize) } else { Err(io::Error::last_os_error()) }
}

fn bind_to(
    fd: &socket2::Socket,
    interface: u32,
    queue: u32,
    flags: u16,
    shared: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    // SAFETY: the storage is large enough for any address, and all-zero but for what is set, which
    // is a whole sockaddr_xdp; its length is returned.
    let ((), addr) = unsafe {
        SockAddr::try_init(|storage, len| {
            let addr = &mut *storage.cast::<libc::sockaddr_xdp>();
            addr.sxdp_family = libc::AF_XDP as u16;
            addr.sxdp_flags = flags;
            addr.sxdp_ifindex = interface;
            addr.sxdp_queue_id = queue;
            addr.sxdp_shared_umem_fd = shared.map_or(0, |fd| fd.as_raw_fd() as u32);
            *len = mem::size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
            Ok(())
        })
    }?;
    fd.bind(&addr)
}

impl Socket {
    fn new(
        fd: socket2::Socket,
        rx: Consumer<libc::xdp_desc>,
        tx: Producer<libc::xdp_desc>,
        umem: Arc<Umem>,
    ) -> Self {
        let sizes = umem.sizes;
        let mut socket = Self {
            fd,
            rx,
            tx,
            umem,
            spare: Vec::with_capacity(sizes.tx_frames as usize),
            used: Vec::with_capacity(sizes.rx_ring as usize),
            written: false,
        };
        socket.exchange();
        socket
    }

    /// Whether something has arrived.
    pub(crate) fn has_arrived(&self) -> bool {
        !self.rx.is_empty()
    }

    /// How much has arrived and was not received.
    pub(crate) fn arrived(&self) -> u32 {
        self.rx.waiting()
    }

    /// Takes what has arrived off the ring, oldest first, at most `most` packets. Gives their numbers
    /// for [`Self::packet`], until [`Self::exchange`] gives their memory back. No system call, no
    /// lock.
    pub(crate) fn receive(&mut self, most: usize) -> Range<usize> {
        let frame_bytes = u64::from(self.umem.sizes.frame_bytes);
        let first = self.used.len();
        let mut taken = 0;
        while taken < most && self.used.len() < self.used.capacity() {
            let Some(entry) = self.rx.pop() else { break };
            taken += 1;
            let Some(frame) = self.umem.frame(entry.addr) else { continue };
            let start = entry.addr % frame_bytes;
            let len = u64::from(entry.len).min(frame_bytes - start);
            // Both are at most the size of a frame.
            self.used.push(Arrived { frame, start: start as u32, len: len as u32 });
        }
        if taken > 0 {
            self.rx.release();
        }
        first..self.used.len()
    }

    /// A packet that was taken off the ring.
    pub(crate) fn packet(&self, number: usize) -> &[u8] {
        let Some(Arrived { frame, start, len }) = self.used.get(number) else { return &[] };
        let at = self.umem.address(frame) as usize + *start as usize;
        // SAFETY: the kernel has handed the frame to us and writes to it no more before `exchange`
        // gives it back, which takes it out of `used` and cannot be called during this borrow; start
        // and length stay within the frame, as `receive` saw to, and that within the mapping.
        unsafe { view(self.umem.memory.as_ptr().add(at), *len as usize) }
    }

    /// Adds a frame that `fill` writes, to be sent by [`Self::flush`]; `fill` returns its length, or
    /// none to leave it. False if it was left, or if there is no room.
    pub(crate) fn push(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        if !self.has_room() {
            return false;
        }
        let Some(frame) = self.spare.pop() else { return false };
        let frame_bytes = self.umem.sizes.frame_bytes as usize;
        let at = self.umem.address(&frame);
        // SAFETY: the frame lies within the mapping, is initialised (zeroed pages, then our writes
        // or the kernel's), and is held by nobody else.
        let bytes = unsafe {
            slice::from_raw_parts_mut(self.umem.memory.as_ptr().add(at as usize), frame_bytes)
        };
        let length = fill(bytes).and_then(|length| u32::try_from(length.min(frame_bytes)).ok());
        if let Some(len) = length
            && self.tx.push(libc::xdp_desc { addr: at, len, options: 0 })
        {
            self.written = true;
            return true;
        }
        self.spare.push(frame);
        false
    }

    /// Whether there is room for a frame.
    pub(crate) fn has_room(&self) -> bool {
        #[cfg(test)]
        if is_starved() {
            return false;
        }
        !self.spare.is_empty()
    }

    /// Has the kernel send what was pushed. Returns how many system calls that took. What the
    /// interface has no room for stays in the ring ([`Self::unsent`]) until the next call.
    ///
    /// # Errors
    /// The interface is down or gone.
    pub(crate) fn flush(&mut self) -> io::Result<u32> {
        if mem::take(&mut self.written) {
            self.tx.publish();
        }
        let mut calls = 0;
        let mut waiting = self.tx.waiting();
        while waiting > 0 && self.tx.needs_wakeup() {
            calls += 1;
            // SAFETY: the call takes no data and no address.
            let outcome = unsafe {
                libc::sendto(
                    self.fd.as_raw_fd(),
                    std::ptr::null(),
                    0,
                    libc::MSG_DONTWAIT,
                    std::ptr::null(),
                    0,
                )
            };
            if outcome < 0 {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    // A batch is sent and there is more, or there is no room for more.
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR) => {}
                    _ => return Err(error),
                }
            }
            let now = self.tx.waiting();
            if now == waiting {
                break;
            }
            waiting = now;
        }
        Ok(calls)
    }

    /// Frames that the kernel has not taken.
    pub(crate) fn unsent(&self) -> u32 {
        self.tx.waiting()
    }

    /// Gives read frames back to arriving packets and takes sent ones for the next. Once a batch.
    pub(crate) fn exchange(&mut self) {
        let Self { umem, spare, used, fd, .. } = self;
        let mut pool = umem.pool();
        let Pool { fill, completion, free } = &mut *pool;
        let mut sent = false;
        while let Some(address) = completion.pop() {
            sent = true;
            free.extend(umem.frame(address));
        }
        if sent {
            completion.release();
        }
        let given = !used.is_empty();
        // The ring has room for all frames that there are.
        used.retain(|arrived| !fill.push(umem.address(&arrived.frame)));
        if given {
            fill.publish();
        }
        while spare.len() < spare.capacity()
            && let Some(frame) = free.pop()
        {
            spare.push(frame);
        }
        let wake = given && fill.needs_wakeup();
        drop(pool);
        if wake {
            // The card's driver ran out of frames and waits for a word.
            // SAFETY: the call takes no buffer and no address.
            unsafe {
                libc::recvfrom(
                    fd.as_raw_fd(),
                    std::ptr::null_mut(),
                    0,
                    libc::MSG_DONTWAIT,
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                );
            }
        }
    }

    /// What the kernel has counted.
    pub(crate) fn counts(&self) -> KernelCounts {
        // SAFETY: all-zero is a valid structure of numbers.
        let mut counts: libc::xdp_statistics = unsafe { mem::zeroed() };
        // Older kernels fill in less; a socket that is there has this option.
        let _ = get(&self.fd, libc::XDP_STATISTICS, &mut counts);
        KernelCounts {
            rx_dropped: counts.rx_dropped,
            rx_ring_full: counts.rx_ring_full,
            rx_no_frame: counts.rx_fill_ring_empty_descs,
            tx_invalid: counts.tx_invalid_descs,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
