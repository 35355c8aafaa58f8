//! A provided buffer ring: receive buffers that the kernel picks from by itself.

use super::memory::Mapping;
use super::socket::view;
use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

const PAGE_BYTES: usize = 4096;

/// Buffers of one size. A buffer belongs to the kernel, or to us between a completion that names it
/// ([`Self::take`]) and [`Self::give_back`].
pub(super) struct BufferGroup {
    id: u16,
    entries: Mapping,
    memory: Mapping,
    count: u16,
    /// Bytes of each buffer that the kernel may write.
    len: u32,
    /// Distance between buffers.
    stride: usize,
    tail: u16,
    /// Whether each buffer is ours.
    taken: Box<[bool]>,
}

impl BufferGroup {
    /// `count` (a power of two, at most 32,768) buffers of `len` bytes.
    pub(super) fn new(id: u16, count: u16, len: u32) -> io::Result<Self> {
        if !count.is_power_of_two() || count > 1 << 15 || len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // Buffers below a page share pages; larger ones start at one, so that a short datagram
        // touches as few pages as it can.
        let unit = if (len as usize) < PAGE_BYTES { 64 } else { PAGE_BYTES };
        let stride = (len as usize).next_multiple_of(unit);
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * stride)?;
        let taken = vec![true; usize::from(count)].into_boxed_slice();
        let mut group = Self { id, entries, memory, count, len, stride, tail: 0, taken };
        for buffer in 0..count {
            group.give_back(buffer);
        }
        group.publish();
        Ok(group)
    }

    /// Registers the group.
    ///
    /// # Safety
    /// `self` must live, in place or moved, until the ring of `submitter` is closed.
    pub(super) unsafe fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        let address = self.entries.as_ptr() as u64;
        // SAFETY: the entries are page-aligned, `count` long and, as the caller promises, outlive
        // the ring; their mapping does not move with `self`.
        unsafe { submitter.register_buf_ring_with_flags(address, self.count, self.id, 0) }
    }

    pub(super) fn id(&self) -> u16 {
        self.id
    }

    /// Notes that the kernel has filled `buffer` and no longer touches it.
    ///
    /// # Safety
    /// A completion must have named this buffer of this group since it was last given back.
    pub(super) unsafe fn take(&mut self, buffer: u16) {
        if let Some(taken) = self.taken.get_mut(usize::from(buffer)) {
            *taken = true;
        }
    }

    /// The first `len` bytes of a buffer that is ours; empty if it is not.
    pub(super) fn bytes(&self, buffer: u16, len: u32) -> &[u8] {
        let index = usize::from(buffer);
        if self.taken.get(index) != Some(&true) {
            return &[];
        }
        let len = len.min(self.len) as usize;
        debug_assert!(index * self.stride + len <= self.memory.len());
        // SAFETY: the buffer lies within `memory`, is initialised (zeroed pages, then the kernel's
        // writes), and the kernel does not write to it while it is ours; `&self` keeps
        // `give_back` away.
        unsafe { view(self.memory.as_ptr().add(index * self.stride), len) }
    }

    /// Hands a buffer of ours to the kernel, visible to it after [`Self::publish`].
    pub(super) fn give_back(&mut self, buffer: u16) {
        let index = usize::from(buffer);
        match self.taken.get_mut(index) {
            Some(taken) if *taken => *taken = false,
            // Not ours to give: giving it twice would let two datagrams share it.
            _ => return,
        }
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` is below `count`, so the entry lies within the mapping; the kernel reads
        // entries only up to the published tail, and this one is beyond it. Only address, length
        // and id are written: in entry 0 the fourth field is the tail.
        let entry = unsafe { &mut *self.entries.as_ptr().cast::<BufRingEntry>().add(slot) };
        entry.set_addr(self.memory.as_ptr() as u64 + (index * self.stride) as u64);
        entry.set_len(self.len);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was given back.
    pub(super) fn publish(&mut self) {
        let base = self.entries.as_ptr().cast::<BufRingEntry>().cast_const();
        // SAFETY: `base` is the first entry of a live ring; the tail it points to is a u16 that
        // the kernel reads concurrently, hence the atomic store.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Buffers that are ours at the moment.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.taken.iter().filter(|taken| **taken).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_given_back_once() {
        let mut group = BufferGroup::new(0, 4, 100).unwrap();
        assert_eq!((group.taken(), group.tail), (0, 4));
        assert_eq!(group.bytes(2, 10), b"");
        // SAFETY: no kernel knows this group.
        unsafe { group.take(2) };
        assert_eq!(group.bytes(2, 10), [0; 10]);
        assert_eq!(group.bytes(2, 1_000).len(), 100);
        group.give_back(2);
        group.give_back(2);
        group.give_back(9);
        assert_eq!((group.taken(), group.tail), (0, 5));
    }

    #[test]
    fn sizes_that_the_kernel_refuses_are_refused() {
        for (count, len) in [(0, 1), (3, 1), (4, 0)] {
            assert!(BufferGroup::new(0, count, len).is_err());
        }
    }
}
