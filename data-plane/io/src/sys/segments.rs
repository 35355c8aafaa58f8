//! Sends that the kernel cuts into datagrams (udp(7), `UDP_SEGMENT`).

use super::ring::{Outgoing, Tag};
use super::socket::view;
use crate::addr::RawAddr;
use std::net::SocketAddr;
use std::{mem, ptr};

/// Runs in flight at once.
const RUNS_MAX: usize = 64;

/// Control data of one header: the length of a segment.
type Control = [u64; 3];

// SAFETY: it only computes.
const CONTROL_BYTES: usize = unsafe { libc::CMSG_SPACE(mem::size_of::<u16>() as u32) } as usize;
const _: () = assert!(CONTROL_BYTES <= mem::size_of::<Control>());

/// The runs of one batch, with headers that stay where they are: each points to its own vector and
/// control data here, and to an address and octets of the caller.
pub(crate) struct Segments {
    headers: Box<[libc::msghdr]>,
    vectors: Box<[libc::iovec]>,
    controls: Box<[Control]>,
    /// In flight, each with the place of its send in the batch.
    runs: Vec<(Run, usize)>,
    refused: Vec<Run>,
}

/// A run whose octets the caller of [`super::ring::Ring::send`] holds.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub tag: Tag,
    socket: u32,
    to: SocketAddr,
    octets: *const u8,
    len: usize,
}

impl Run {
    /// One of its datagrams.
    ///
    /// # Safety
    /// The octets must still be where they were.
    pub(crate) unsafe fn datagram<'q>(&self, at: usize) -> Outgoing<'q> {
        // SAFETY: the caller promises it.
        let octets = unsafe { view(self.octets, self.len) };
        let bytes = octets.chunks(usize::from(self.tag.segment)).nth(at).unwrap_or_default();
        let tag = Tag { place: self.tag.place + at as u32, count: 1, ..self.tag };
        Outgoing { socket: self.socket, to: self.to, bytes, tag }
    }
}

impl Segments {
    pub(crate) fn new() -> Self {
        let vector = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY: all-zero is a valid header without name, buffers and control data.
        let header: libc::msghdr = unsafe { mem::zeroed() };
        Self {
            headers: vec![header; RUNS_MAX].into_boxed_slice(),
            vectors: vec![vector; RUNS_MAX].into_boxed_slice(),
            controls: vec![Control::default(); RUNS_MAX].into_boxed_slice(),
            runs: Vec::with_capacity(RUNS_MAX),
            refused: Vec::with_capacity(RUNS_MAX),
        }
    }

    /// Whether something may be sent on this socket: there is a slot for a run, and none of this
    /// socket is in flight, which might have to be sent again and come after it.
    pub(crate) fn has_room_for(&self, socket: u32) -> bool {
        self.runs.is_empty()
            || self.runs.len() < RUNS_MAX && self.runs.iter().all(|(run, _)| run.socket != socket)
    }

    /// A header for the run that is the `send`th of the batch. Valid until [`Self::judge`], and as
    /// long as address and octets stay where they are.
    ///
    /// # Panics
    /// With [`RUNS_MAX`] in flight.
    pub(crate) fn push(
        &mut self,
        run: &Outgoing<'_>,
        to: &mut RawAddr,
        send: usize,
    ) -> *const libc::msghdr {
        let index = self.runs.len();
        let vector = &mut self.vectors[index];
        vector.iov_base = run.bytes.as_ptr().cast_mut().cast();
        vector.iov_len = run.bytes.len();
        let header = &mut self.headers[index];
        header.msg_name = to.as_mut_ptr().cast();
        header.msg_namelen = to.len();
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        header.msg_control = self.controls[index].as_mut_ptr().cast();
        header.msg_controllen = CONTROL_BYTES as _;
        // SAFETY: the control data is as long as one item of two octets needs, aligned as its
        // header, and belongs to this slot alone.
        unsafe {
            let item = libc::CMSG_FIRSTHDR(header);
            (*item).cmsg_level = libc::SOL_UDP;
            (*item).cmsg_type = libc::UDP_SEGMENT;
            (*item).cmsg_len = libc::CMSG_LEN(mem::size_of::<u16>() as u32) as _;
            libc::CMSG_DATA(item).cast::<u16>().write_unaligned(run.tag.segment);
        }
        let Outgoing { socket, to, bytes, tag } = *run;
        self.runs.push((Run { tag, socket, to, octets: bytes.as_ptr(), len: bytes.len() }, send));
        &raw const self.headers[index]
    }

    /// All sends of the batch are done; `sent` tells of each place whether it was taken.
    pub(crate) fn judge(&mut self, sent: impl Fn(usize) -> bool) {
        let refused = self.runs.drain(..).filter(|(_, send)| !sent(*send)).map(|(run, _)| run);
        self.refused.extend(refused);
    }

    /// A run of the batches judged that was not taken.
    pub(crate) fn pop_refused(&mut self) -> Option<Run> {
        self.refused.pop()
    }
}
