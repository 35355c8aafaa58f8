//! What streams count. Totals of one shard.

use crate::driver::Count;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The peer closed it.
    Peer,
    /// We were told to.
    Local,
    /// Reset, or another error of reading or writing.
    Error,
    /// The connection was refused or there was no way.
    ConnectFailed,
    /// No answer to connecting in time.
    ConnectDeadline,
    /// No complete message in time: half-open, dripping, or silent from the start.
    MessageDeadline,
    /// The peer took nothing for too long while messages waited.
    WriteDeadline,
    /// No byte either way for too long.
    IdleDeadline,
    /// More waits to be written than a connection may hold.
    QueueFull,
    /// The framing broke: where the next message begins is unknown.
    Framing,
    /// All connections together hold too much.
    Memory,
}

impl CloseReason {
    pub const ALL: [Self; 11] = [
        Self::Peer,
        Self::Local,
        Self::Error,
        Self::ConnectFailed,
        Self::ConnectDeadline,
        Self::MessageDeadline,
        Self::WriteDeadline,
        Self::IdleDeadline,
        Self::QueueFull,
        Self::Framing,
        Self::Memory,
    ];

    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Local => "local",
            Self::Error => "error",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectDeadline => "connect_deadline",
            Self::MessageDeadline => "message_deadline",
            Self::WriteDeadline => "write_deadline",
            Self::IdleDeadline => "idle_deadline",
            Self::QueueFull => "queue_full",
            Self::Framing => "framing",
            Self::Memory => "memory",
        }
    }
}

/// Counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamStats {
    pub accepted: u64,
    pub connected: u64,
    pub connect_failures: u64,
    /// Not accepted or not connected: the table was full.
    pub refused_total: u64,
    /// Not accepted: too many from one address.
    pub refused_source: u64,
    pub accept_errors: u64,
    pub watch_errors: u64,
    pub rx_messages: u64,
    pub rx_bytes: u64,
    /// Written or queued.
    pub tx_messages: u64,
    pub tx_bytes: u64,
    /// Messages that were not sent, or not written whole.
    pub send_failures: u64,
    pub pings: u64,
    pub framing_errors: u64,
    /// In the order of [`CloseReason::ALL`].
    pub closed: [u64; CloseReason::ALL.len()],
}

impl StreamStats {
    pub(super) fn count_sent(&mut self, bytes: usize) {
        self.tx_messages += 1;
        self.tx_bytes += bytes as u64;
    }

    pub(super) fn count_closed(&mut self, reason: CloseReason) {
        // The discriminant is the index: `ALL` lists the variants in order.
        self.closed[reason as usize] += 1;
    }

    /// Connections that ended for this reason.
    #[must_use]
    pub fn closed_by(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize]
    }

    /// Hands out every counter.
    pub fn each(&self, sink: &mut dyn FnMut(Count)) {
        let plain = [
            ("stream_accepted_total", "Connections accepted.", self.accepted),
            ("stream_connected_total", "Connections made.", self.connected),
            ("stream_connect_failures_total", "Connections not made.", self.connect_failures),
            ("stream_accept_errors_total", "Errors of accepting.", self.accept_errors),
            ("stream_watch_errors_total", "Connections not watched.", self.watch_errors),
            ("stream_rx_messages_total", "Messages received.", self.rx_messages),
            ("stream_rx_bytes_total", "Bytes received.", self.rx_bytes),
            ("stream_tx_messages_total", "Messages written or queued.", self.tx_messages),
            ("stream_tx_bytes_total", "Bytes written or queued.", self.tx_bytes),
            ("stream_send_failures_total", "Messages not sent.", self.send_failures),
            ("stream_pings_total", "Keep-alive pings answered.", self.pings),
            ("stream_framing_errors_total", "Streams that broke.", self.framing_errors),
        ];
        for (name, help, value) in plain {
            sink(Count { name, help, label: None, value });
        }
        let (name, help) = ("stream_refused_total", "Connections refused, by limit.");
        for (limit, value) in [("total", self.refused_total), ("source", self.refused_source)] {
            sink(Count { name, help, label: Some(("limit", limit)), value });
        }
        let (name, help) = ("stream_closed_total", "Connections closed, by reason.");
        for (reason, value) in CloseReason::ALL.iter().zip(self.closed) {
            sink(Count { name, help, label: Some(("reason", reason.label())), value });
        }
    }
}
