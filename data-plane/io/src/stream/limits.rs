//! Bounds of the streams of one shard.

use std::time::Duration;

/// Every number that keeps streams bounded.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Connections of one shard, both directions.
    pub connections_max: usize,
    /// Accepted connections from one address.
    pub connections_per_source_max: usize,
    /// Messages that wait to be written to one connection.
    pub queue_messages_max: usize,
    /// Bytes of them. A connection that would exceed either is closed.
    pub queue_bytes_max: usize,
    /// Bytes held by all connections: incomplete messages and queues. The connection that would
    /// exceed it is closed.
    pub held_bytes_max: usize,
    /// For connecting.
    pub connect_deadline: Duration,
    /// From the first byte of a message, or from accepting, to a complete message. Bytes that drip
    /// in do not extend it.
    pub message_deadline: Duration,
    /// Without any byte written while messages wait.
    pub write_deadline: Duration,
    /// Without any byte either way.
    pub idle_deadline: Duration,
    /// How long answers may go out after the peer closed its half, or broke the framing.
    pub drain_deadline: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            connections_max: 8_192,
            connections_per_source_max: 2_048,
            queue_messages_max: 256,
            queue_bytes_max: 512 << 10,
            held_bytes_max: 64 << 20,
            connect_deadline: Duration::from_secs(5),
            // 64*T1: whoever sends nothing whole for that long is no transaction of ours.
            message_deadline: Duration::from_secs(32),
            write_deadline: Duration::from_secs(10),
            idle_deadline: Duration::from_mins(10),
            drain_deadline: Duration::from_secs(2),
        }
    }
}
