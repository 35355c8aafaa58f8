//! Many datagrams per system call.

use super::memory::Mapping;
use super::socket::{STAMP_BYTES, arrival, view};
use crate::addr::RawAddr;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;
use std::{io, mem};

/// Datagrams per call, both ways.
pub const BATCH: usize = 64;

/// Buffers and headers of `recvmmsg`.
pub struct Receiver {
    memory: Mapping,
    count: usize,
    len: usize,
    stride: usize,
    names: Box<[RawAddr]>,
    iovecs: Box<[libc::iovec]>,
    controls: Box<[[u8; STAMP_BYTES]]>,
    headers: Box<[libc::mmsghdr]>,
    received: usize,
}

/// One datagram of the last call.
pub struct Datagram<'r> {
    pub source: Option<SocketAddr>,
    pub payload: &'r [u8],
    pub truncated: bool,
    /// When it arrived, by the wall clock since 1970, if the socket is asked to note it.
    pub arrived: Option<Duration>,
}

impl Receiver {
    /// `count` buffers (at most [`BATCH`]) of `len` bytes.
    ///
    /// # Errors
    /// There is not that much memory.
    pub fn new(count: usize, len: usize) -> io::Result<Self> {
        let count = count.clamp(1, BATCH);
        let stride = len.next_multiple_of(64);
        Ok(Self {
            memory: Mapping::new(count * stride)?,
            count,
            len,
            stride,
            names: vec![RawAddr::default(); count].into_boxed_slice(),
            iovecs: vec![empty_iovec(); count].into_boxed_slice(),
            controls: vec![[0; STAMP_BYTES]; count].into_boxed_slice(),
            headers: vec![empty_header(); count].into_boxed_slice(),
            received: 0,
        })
    }

    /// Datagrams that one call may take.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.count
    }

    /// Takes what the socket has, without waiting, at most `most`.
    ///
    /// # Errors
    /// As `recvmmsg`; no datagram is `WouldBlock`.
    pub fn receive(&mut self, socket: &impl AsFd, most: usize) -> io::Result<usize> {
        self.received = 0;
        let most = most.min(self.count);
        for index in 0..most {
            // SAFETY: the offset lies within the mapping, which is `count * stride` long.
            let base = unsafe { self.memory.as_ptr().add(index * self.stride) };
            self.iovecs[index] = libc::iovec { iov_base: base.cast(), iov_len: self.len };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = self.names[index].as_mut_ptr().cast();
            header.msg_namelen = RawAddr::CAPACITY as libc::socklen_t;
            header.msg_iov = &raw mut self.iovecs[index];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[index].as_mut_ptr().cast();
            header.msg_controllen = STAMP_BYTES as _;
            header.msg_flags = 0;
        }
        // SAFETY: the first `most` headers were just pointed to buffers, names, vectors and control
        // data that `self` owns and nobody else uses during the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers.as_mut_ptr(),
                most as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        self.received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(self.received)
    }

    /// A datagram of the last call.
    #[must_use]
    pub fn datagram(&self, index: usize) -> Option<Datagram<'_>> {
        let header = self.headers[..self.received].get(index)?;
        let len = (header.msg_len as usize).min(self.len);
        let control_len = header.msg_hdr.msg_controllen;
        // SAFETY: the buffer lies within the mapping and is initialised (zeroed pages, then the
        // kernel's writes); the kernel writes to it only during `receive`, which needs `&mut`.
        let payload = unsafe { view(self.memory.as_ptr().add(index * self.stride), len) };
        Some(Datagram {
            source: self.names[index].get(),
            payload,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            arrived: self.controls[index].get(..control_len).and_then(arrival),
        })
    }
}

/// Headers of `sendmmsg`, filled anew for each call.
pub struct Sender {
    names: Box<[RawAddr]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

impl Default for Sender {
    fn default() -> Self {
        Self::new()
    }
}

impl Sender {
    #[must_use]
    pub fn new() -> Self {
        Self {
            names: vec![RawAddr::default(); BATCH].into_boxed_slice(),
            iovecs: vec![empty_iovec(); BATCH].into_boxed_slice(),
            headers: vec![empty_header(); BATCH].into_boxed_slice(),
        }
    }

    /// Sends the first [`BATCH`] of `datagrams` without blocking. Returns how many were sent before
    /// the first that was not.
    ///
    /// # Errors
    /// Of the first datagram, as `sendmmsg`.
    pub fn send<'q>(
        &mut self,
        socket: &impl AsFd,
        datagrams: impl Iterator<Item = (SocketAddr, &'q [u8])>,
    ) -> io::Result<usize> {
        self.send_batch(socket, datagrams.map(|(to, bytes)| (Some(to), bytes)))
    }

    /// As [`Self::send`], on a connected socket to its peer.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_connected<'q>(
        &mut self,
        socket: &impl AsFd,
        datagrams: impl Iterator<Item = &'q [u8]>,
    ) -> io::Result<usize> {
        self.send_batch(socket, datagrams.map(|bytes| (None, bytes)))
    }

    fn send_batch<'q>(
        &mut self,
        socket: &impl AsFd,
        datagrams: impl Iterator<Item = (Option<SocketAddr>, &'q [u8])>,
    ) -> io::Result<usize> {
        let mut count = 0;
        for ((to, bytes), index) in datagrams.zip(0..BATCH) {
            self.iovecs[index] =
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let header = &mut self.headers[index].msg_hdr;
            (header.msg_name, header.msg_namelen) = match to {
                Some(to) => {
                    let name = &mut self.names[index];
                    name.set(to);
                    (name.as_mut_ptr().cast(), name.len())
                }
                None => (std::ptr::null_mut(), 0),
            };
            header.msg_iov = &raw mut self.iovecs[index];
            header.msg_iovlen = 1;
            count = index + 1;
        }
        if count == 0 {
            return Ok(0);
        }
        // SAFETY: the first `count` headers were just pointed to names and vectors that `self`
        // owns and to payloads that outlive this call; the kernel only reads the payloads.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

fn empty_iovec() -> libc::iovec {
    libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: all-zero is a valid header without name, buffers and control data.
    unsafe { mem::zeroed() }
}
