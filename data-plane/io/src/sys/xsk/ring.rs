//! The rings between a process and the kernel: one side writes entries, the other reads them.

use crate::sys::memory::Mapping;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};

/// A ring of `T`, which is `u64` or `xdp_desc`: any octets are a valid one.
struct Ring<T> {
    memory: Mapping,
    /// Where producer's and consumer's numbers, flags and entries stand in `memory`.
    producer: usize,
    consumer: usize,
    flags: usize,
    entries: usize,
    size: u32,
    /// Our own number: next entry to write, or to read.
    ours: u32,
    /// The kernel's number, as last seen.
    theirs: u32,
    kind: PhantomData<T>,
}

impl<T: Copy> Ring<T> {
    fn map(
        fd: BorrowedFd<'_>,
        at: libc::off_t,
        offsets: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        if !size.is_power_of_two() {
            return Err(bad());
        }
        let place = |offset: u64, bytes: usize, align: usize| {
            let offset = usize::try_from(offset).map_err(|_| bad())?;
            let end = offset.checked_add(bytes).ok_or_else(bad)?;
            if offset.is_multiple_of(align) { Ok((offset, end)) } else { Err(bad()) }
        };
        let (producer, one) = place(offsets.producer, 4, 4)?;
        let (consumer, two) = place(offsets.consumer, 4, 4)?;
        let (flags, three) = place(offsets.flags, 4, 4)?;
        let bytes = mem::size_of::<T>() * size as usize;
        let (entries, four) = place(offsets.desc, bytes, mem::align_of::<T>())?;
        let memory = Mapping::shared_at(fd, one.max(two).max(three).max(four), at)?;
        Ok(Self {
            memory,
            producer,
            consumer,
            flags,
            entries,
            size,
            ours: 0,
            theirs: 0,
            kind: PhantomData,
        })
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        // SAFETY: `map` checked that the word lies within the mapping and is aligned; it is shared
        // with the kernel, hence the atomic, and lives as long as `self`.
        unsafe { AtomicU32::from_ptr(self.memory.as_ptr().add(at).cast()) }
    }

    fn entry(&self, number: u32) -> *mut T {
        let index = (number & (self.size - 1)) as usize;
        // SAFETY: the index is below `size`, and `map` checked that so many entries lie within the
        // mapping, aligned.
        unsafe { self.memory.as_ptr().add(self.entries).cast::<T>().add(index) }
    }

    fn needs_wakeup(&self) -> bool {
        self.word(self.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// A ring that we write.
pub(super) struct Producer<T>(Ring<T>);

impl<T: Copy> Producer<T> {
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        at: libc::off_t,
        offsets: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        Ring::map(fd, at, offsets, size).map(Self)
    }

    /// Adds an entry, which the kernel sees after [`Self::publish`]. False: the ring is full.
    pub(super) fn push(&mut self, value: T) -> bool {
        let ring = &mut self.0;
        if ring.ours.wrapping_sub(ring.theirs) >= ring.size {
            ring.theirs = ring.word(ring.consumer).load(Ordering::Acquire);
            if ring.ours.wrapping_sub(ring.theirs) >= ring.size {
                return false;
            }
        }
        // SAFETY: the entry is ours until it is published: the kernel has read what stood there,
        // as its number tells.
        unsafe { ring.entry(ring.ours).write(value) };
        ring.ours = ring.ours.wrapping_add(1);
        true
    }

    pub(super) fn publish(&self) {
        self.0.word(self.0.producer).store(self.0.ours, Ordering::Release);
    }

    /// Entries that the kernel has not taken.
    pub(super) fn waiting(&self) -> u32 {
        let theirs = self.0.word(self.0.consumer).load(Ordering::Acquire);
        self.0.ours.wrapping_sub(theirs)
    }

    /// Whether the kernel wants a system call to look at the ring.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.0.needs_wakeup()
    }
}

/// A ring that we read.
pub(super) struct Consumer<T>(Ring<T>);

impl<T: Copy> Consumer<T> {
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        at: libc::off_t,
        offsets: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        Ring::map(fd, at, offsets, size).map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.word(self.0.producer).load(Ordering::Relaxed) == self.0.ours
    }

    /// Entries that the kernel has written and we have not taken.
    pub(super) fn waiting(&self) -> u32 {
        self.0.word(self.0.producer).load(Ordering::Relaxed).wrapping_sub(self.0.ours)
    }

    /// Takes an entry; the kernel may use its place again after [`Self::release`].
    pub(super) fn pop(&mut self) -> Option<T> {
        let ring = &mut self.0;
        if ring.ours == ring.theirs {
            ring.theirs = ring.word(ring.producer).load(Ordering::Acquire);
            if ring.ours == ring.theirs {
                return None;
            }
        }
        // SAFETY: the kernel has written the entry before the number that we read, and leaves it
        // alone until it is released; any octets are a valid `T`.
        let value = unsafe { ring.entry(ring.ours).read() };
        ring.ours = ring.ours.wrapping_add(1);
        Some(value)
    }

    pub(super) fn release(&self) {
        self.0.word(self.0.consumer).store(self.0.ours, Ordering::Release);
    }
}
