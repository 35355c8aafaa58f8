//! Page-aligned memory that the kernel reads and writes beside us.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// A mapping: anonymous and zeroed, whose pages become memory when they are first touched, or
/// shared with the kernel.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is of the process, not of a thread, and nothing of it depends on which one made it.
unsafe impl Send for Mapping {}
// SAFETY: what is shared tells address and length only; whoever uses the memory answers for that.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        // SAFETY: a new private anonymous mapping touches no existing memory.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    /// As [`Self::new`], in large pages where the kernel has some, for what is in use throughout.
    pub(crate) fn dense(len: usize) -> io::Result<Self> {
        let mapping = Self::new(len)?;
        // SAFETY: it is this mapping, which nobody else knows. A kernel that refuses keeps the pages
        // as they were.
        unsafe { libc::madvise(mapping.base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        Ok(mapping)
    }

    /// Memory that a driver of the kernel offers through a descriptor, whole.
    pub(crate) fn shared(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::shared_at(fd, len, 0)
    }

    /// As [`Self::shared`]; `at` says which memory, where a descriptor offers several.
    pub(crate) fn shared_at(fd: BorrowedFd<'_>, len: usize, at: libc::off_t) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                at,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` made exactly this mapping, and its owner no longer uses it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
