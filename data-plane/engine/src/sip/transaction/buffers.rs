//! Memory for the messages that transactions keep, by size class, so that a shard in steady state
//! allocates none.

/// Capacities, smallest first. A message longer than the last gets memory of its own size, which is
/// not kept afterwards.
const CLASSES: [usize; 13] =
    [256, 320, 384, 448, 512, 640, 768, 1_024, 1_280, 1_536, 2_048, 4_096, 8_192];
/// Free buffers kept of one class; more go back to the allocator.
const FREE_MAX: usize = 4_096;

/// A stored message. Give it back with [`Buffers::give`]; empty ones hold no memory.
#[derive(Debug, Default)]
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Debug, Default)]
pub(super) struct Buffers {
    free: [Vec<Vec<u8>>; CLASSES.len()],
    in_use: usize,
}

impl Buffers {
    /// A copy of `bytes`.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> Buffer {
        if bytes.is_empty() {
            return Buffer::default();
        }
        self.in_use += 1;
        let class = CLASSES.iter().position(|capacity| bytes.len() <= *capacity);
        let reused = class.and_then(|class| self.free.get_mut(class)).and_then(Vec::pop);
        let mut memory = reused.unwrap_or_else(|| {
            let capacity = class.and_then(|class| CLASSES.get(class)).copied();
            Vec::with_capacity(capacity.unwrap_or(bytes.len()))
        });
        memory.extend_from_slice(bytes);
        Buffer(memory)
    }

    pub(super) fn give(&mut self, buffer: Buffer) {
        let mut memory = buffer.0;
        if memory.is_empty() {
            return;
        }
        self.in_use = self.in_use.saturating_sub(1);
        memory.clear();
        let class = CLASSES.iter().position(|capacity| *capacity == memory.capacity());
        if let Some(free) = class.and_then(|class| self.free.get_mut(class))
            && free.len() < FREE_MAX
        {
            free.push(memory);
        }
    }

    pub(super) fn in_use(&self) -> usize {
        self.in_use
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_counted_and_used_again() {
        let mut buffers = Buffers::default();
        for len in [1, 256, 257, 8_192, 9_000, 60_000] {
            let message = vec![b'x'; len];
            let buffer = buffers.keep(&message);
            assert_eq!(buffer.bytes(), message);
            assert_eq!(buffers.in_use(), 1);
            let memory = buffer.bytes().as_ptr();
            buffers.give(buffer);
            assert_eq!(buffers.in_use(), 0);
            if len <= 8_192 {
                assert_eq!(buffers.keep(&message).bytes().as_ptr(), memory);
                buffers.in_use = 0;
            }
        }
        assert!(buffers.keep(b"").is_empty());
        buffers.give(Buffer::default());
        assert_eq!(buffers.in_use(), 0);
    }
}
