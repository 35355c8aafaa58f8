//! Ethernet frames by `AF_PACKET`: many per system call out, none per frame in.
//!
//! For the load generator, which must cost less than what it measures: frames go past routing and
//! queueing disciplines, and come in through memory shared with the kernel, stamped by it when they
//! reached the interface. Both need CAP_NET_RAW.

use super::memory::Mapping;
use super::socket::{set_int, view};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{io, mem};

/// Frames per call of [`FrameSender::flush`].
pub const FRAMES_PER_CALL: usize = 64;

/// Longest frame of either direction: an Ethernet header and 1,500 octets, with a VLAN tag.
pub const FRAME_MAX_BYTES: usize = 1_518;

/// Distance between the slots of the receive ring, with the kernel's header in front of the frame.
const SLOT_BYTES: usize = 2_048;

/// Memory that the kernel allocates the receive ring in.
const BLOCK_BYTES: usize = 64 << 10;

/// Sends whole frames out of one interface.
pub struct FrameSender {
    socket: Socket,
    memory: Mapping,
    lengths: [usize; FRAMES_PER_CALL],
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    filled: usize,
}

impl FrameSender {
    /// For an interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW; there is no such interface.
    pub fn new(interface: &str) -> io::Result<Self> {
        // Protocol 0: nothing is received.
        let socket = Socket::new_raw(Domain::PACKET, Type::RAW.cloexec(), None)?;
        bind(&socket, interface, 0)?;
        set_int(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
        super::socket::set_queues(&socket, 8 << 20);
        // SAFETY: all-zero is a valid header without name, buffers and control data.
        let header: libc::mmsghdr = unsafe { mem::zeroed() };
        let iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Ok(Self {
            socket,
            memory: Mapping::new(FRAMES_PER_CALL * SLOT_BYTES)?,
            lengths: [0; FRAMES_PER_CALL],
            iovecs: vec![iovec; FRAMES_PER_CALL].into_boxed_slice(),
            headers: vec![header; FRAMES_PER_CALL].into_boxed_slice(),
            filled: 0,
        })
    }

    /// Frames waiting for [`FrameSender::flush`].
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.filled
    }

    /// Adds a frame that `fill` writes; it returns the length. False if there is no room before the
    /// next flush.
    pub fn push(&mut self, fill: impl FnOnce(&mut [u8; FRAME_MAX_BYTES]) -> usize) -> bool {
        if self.filled == FRAMES_PER_CALL {
            return false;
        }
        // SAFETY: the slot lies within the mapping and is initialised (zeroed pages, then our
        // writes); `&mut self` keeps every other use away, and no call to the kernel is under way.
        let slot = unsafe {
            &mut *self.memory.as_ptr().add(self.filled * SLOT_BYTES).cast::<[u8; FRAME_MAX_BYTES]>()
        };
        self.lengths[self.filled] = fill(slot).min(FRAME_MAX_BYTES);
        self.filled += 1;
        true
    }

    /// Sends what was pushed. Returns how many the interface refused because its queue was full.
    ///
    /// # Errors
    /// Of `sendmmsg`, but a full queue.
    pub fn flush(&mut self) -> io::Result<usize> {
        let count = mem::take(&mut self.filled);
        for index in 0..count {
            // SAFETY: the slot lies within the mapping.
            let base = unsafe { self.memory.as_ptr().add(index * SLOT_BYTES) };
            self.iovecs[index] =
                libc::iovec { iov_base: base.cast(), iov_len: self.lengths[index] };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_iov = &raw mut self.iovecs[index];
            header.msg_iovlen = 1;
        }
        let (mut at, mut refused) = (0, 0);
        while at < count {
            // SAFETY: the headers from `at` to `count` were just pointed to vectors and slots that
            // `self` owns; the kernel only reads the slots.
            let sent = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    self.headers.as_mut_ptr().add(at),
                    (count - at) as libc::c_uint,
                    0,
                )
            };
            match usize::try_from(sent) {
                Ok(sent) => at += sent.max(1),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    match error.raw_os_error() {
                        Some(libc::EINTR) => {}
                        Some(libc::ENOBUFS | libc::EAGAIN) => {
                            refused += 1;
                            at += 1;
                        }
                        _ => return Err(error),
                    }
                }
            }
        }
        Ok(refused)
    }
}

/// A frame that has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'r> {
    /// From the Ethernet header on.
    pub bytes: &'r [u8],
    /// When the interface handed it in, nanoseconds of the system clock since 1970.
    pub at_ns: u64,
}

/// Receives all IPv4 or IPv6 frames that an interface takes in, not those that it sends.
pub struct FrameReceiver {
    // Dropped first: the kernel stops writing before the ring is unmapped.
    socket: Socket,
    ring: Mapping,
    slots: usize,
    next: usize,
}

impl FrameReceiver {
    /// For an interface of the calling thread's network namespace; `slots` frames wait at most.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW; there is no such interface; no memory for the ring.
    pub fn new(interface: &str, v6: bool, slots: usize) -> io::Result<Self> {
        let protocol = if v6 { libc::ETH_P_IPV6 } else { libc::ETH_P_IP };
        let socket = Socket::new_raw(Domain::PACKET, Type::RAW.cloexec(), None)?;
        let fd = socket.as_fd();
        let version = libc::tpacket_versions::TPACKET_V2 as i32;
        set_int(fd, libc::SOL_PACKET, libc::PACKET_VERSION, version)?;
        set_int(fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        let per_block = BLOCK_BYTES / SLOT_BYTES;
        let blocks = slots.div_ceil(per_block).max(1);
        let slots = blocks * per_block;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK_BYTES as libc::c_uint,
            tp_block_nr: blocks as libc::c_uint,
            tp_frame_size: SLOT_BYTES as libc::c_uint,
            tp_frame_nr: slots as libc::c_uint,
        };
        // SAFETY: the pointer and the length are those of `request`.
        let outcome = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_RX_RING,
                (&raw const request).cast(),
                mem::size_of_val(&request) as libc::socklen_t,
            )
        };
        if outcome != 0 {
            return Err(io::Error::last_os_error());
        }
        let ring = Mapping::shared(fd, blocks * BLOCK_BYTES)?;
        // Only now may frames arrive.
        bind(&socket, interface, protocol as u16)?;
        Ok(Self { socket, ring, slots, next: 0 })
    }

    /// Hands out frames that have arrived, oldest first, at most `most`. No system call.
    pub fn receive(&mut self, most: usize, sink: &mut dyn FnMut(Frame<'_>)) -> usize {
        for taken in 0..most {
            // SAFETY: `next` is below `slots`, so the slot lies within the ring.
            let slot = unsafe { self.ring.as_ptr().add(self.next * SLOT_BYTES) };
            // SAFETY: each slot begins with its status, page-aligned and shared with the kernel,
            // hence the atomic.
            let status = unsafe { AtomicU32::from_ptr(slot.cast()) };
            if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                return taken;
            }
            // SAFETY: the slot is ours until its status is written: the kernel has filled in the
            // header and does not write to it meanwhile.
            let header = unsafe { slot.cast::<libc::tpacket2_hdr>().read() };
            let start = usize::from(header.tp_mac);
            let length = (header.tp_snaplen as usize).min(SLOT_BYTES.saturating_sub(start));
            // SAFETY: start and length stay within the slot, as just computed, which is ours.
            let bytes = unsafe { view(slot.add(start), length) };
            let at_ns = u64::from(header.tp_sec) * 1_000_000_000 + u64::from(header.tp_nsec);
            sink(Frame { bytes, at_ns });
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.next = (self.next + 1) % self.slots;
        }
        most
    }

    /// Frames that found no slot since the last call.
    ///
    /// # Errors
    /// Of `getsockopt`.
    pub fn take_overruns(&self) -> io::Result<u32> {
        let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut len = mem::size_of_val(&stats) as libc::socklen_t;
        // SAFETY: the pointers are to `stats` and to its length.
        let outcome = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut len,
            )
        };
        if outcome == 0 { Ok(stats.tp_drops) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for FrameReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Ties a packet socket to an interface and, unless 0, starts receiving `protocol`.
fn bind(socket: &Socket, interface: &str, protocol: u16) -> io::Result<()> {
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: the pointer is to a string that ends with a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let index = i32::try_from(index).unwrap_or(0);
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the storage is large enough for any address, and all-zero but for what is set, which
    // is a whole sockaddr_ll; its length is returned.
    let ((), addr) = unsafe {
        SockAddr::try_init(|storage, len| {
            let link = &mut *storage.cast::<libc::sockaddr_ll>();
            link.sll_family = libc::AF_PACKET as u16;
            link.sll_protocol = protocol.to_be();
            link.sll_ifindex = index;
            *len = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    socket.bind(&addr)
}

/// Hardware address of an interface of the calling thread's network namespace.
///
/// # Errors
/// There is no such interface.
pub fn hardware_address(interface: &str) -> io::Result<[u8; 6]> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // SAFETY: all-zero is a valid request.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the request is valid and its name ends with a zero.
    let outcome = unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR as libc::Ioctl, &raw mut request)
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has filled in the hardware address.
    let data = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    let mut address = [0; 6];
    for (to, from) in address.iter_mut().zip(data) {
        *to = from as u8;
    }
    Ok(address)
}
