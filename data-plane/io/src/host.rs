//! The thread of a shard.

use std::time::Duration;

/// What a shard wants after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another turn.
    Turn,
    /// The end: the host drops the shard and its thread ends.
    Stop,
}

/// One shard's loop, written as turns.
pub trait ShardLoop {
    /// Waits in the shard's own driver until there is work, at most `wait_max` and not past the
    /// engine's next deadline, then does one batch of it.
    fn turn(&mut self, wait_max: Duration) -> Next;
}
