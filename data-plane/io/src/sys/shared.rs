//! Array maps that are mapped into this process: read and written without a call, while programs in
//! the kernel do the same.

use super::memory::Mapping;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU64;

const PAGE_BYTES: usize = 4_096;

/// The memory of a `BPF_MAP_TYPE_ARRAY` made with `BPF_F_MMAPABLE`.
pub(crate) struct SharedArray {
    mapping: Mapping,
    /// 64-bit words of one value, and values.
    words: usize,
    values: usize,
}

// SAFETY: the memory is only read and written as atomic words, and belongs to no thread.
unsafe impl Send for SharedArray {}
// SAFETY: as above.
unsafe impl Sync for SharedArray {}

impl SharedArray {
    /// Maps an array whose values have `value` octets each.
    ///
    /// # Errors
    /// The kernel's: the map is no such array, or is smaller than said.
    pub(crate) fn new(map: BorrowedFd<'_>, value: usize, values: usize) -> io::Result<Self> {
        // The kernel lets every value begin at a whole word.
        let words = value.div_ceil(8);
        let bytes = words.checked_mul(values).and_then(|words| words.checked_mul(8));
        let bytes = bytes.ok_or(io::ErrorKind::InvalidInput)?.next_multiple_of(PAGE_BYTES);
        Ok(Self { mapping: Mapping::shared(map, bytes)?, words, values })
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.values
    }

    /// The words of one value.
    pub(crate) fn value(&self, index: usize) -> Option<&[AtomicU64]> {
        if index >= self.values {
            return None;
        }
        // SAFETY: the mapping has `values * words` words at least and lives as long as `self`. It is
        // aligned to pages. Whoever else writes there does so in the kernel or through this type,
        // with atomic stores of aligned words or parts of them.
        Some(unsafe {
            let first = self.mapping.as_ptr().cast::<AtomicU64>().add(index * self.words);
            std::slice::from_raw_parts(first, self.words)
        })
    }
}
