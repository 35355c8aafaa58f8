//! What a driver counts. Totals since it was opened, written by its own thread only.

use std::io;

/// Why the kernel refused a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SendError {
    /// The egress names a listener or port that is not open on this shard.
    NotOpen,
    /// Longer than a datagram may be.
    TooLong,
    /// No route, or the address family of the socket is another.
    NoRoute,
    /// The peer's port is closed, as an earlier ICMP error said.
    Refused,
    /// A firewall rule or a missing privilege.
    Denied,
    /// The kernel was out of memory.
    NoMemory,
    /// The socket's send queue was full, and so was the backlog.
    WouldBlock,
    /// Anything else.
    Other,
}

impl SendError {
    pub const ALL: [Self; 8] = [
        Self::NotOpen,
        Self::TooLong,
        Self::NoRoute,
        Self::Refused,
        Self::Denied,
        Self::NoMemory,
        Self::WouldBlock,
        Self::Other,
    ];

    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotOpen => "not_open",
            Self::TooLong => "too_long",
            Self::NoRoute => "no_route",
            Self::Refused => "refused",
            Self::Denied => "denied",
            Self::NoMemory => "no_memory",
            Self::WouldBlock => "would_block",
            Self::Other => "other",
        }
    }

    /// The kind of an error number of `sendto`.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMSGSIZE) => Self::TooLong,
            Some(
                libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::EAFNOSUPPORT
                | libc::EINVAL
                | libc::EADDRNOTAVAIL,
            ) => Self::NoRoute,
            Some(libc::ECONNREFUSED) => Self::Refused,
            Some(libc::EPERM | libc::EACCES) => Self::Denied,
            Some(libc::ENOMEM | libc::ENOBUFS) => Self::NoMemory,
            Some(libc::EAGAIN) => Self::WouldBlock,
            _ => Self::Other,
        }
    }
}

/// Counters of one driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub rx_datagrams: u64,
    pub rx_bytes: u64,
    /// Datagrams longer than the receive buffer: not delivered.
    pub rx_truncated: u64,
    /// Errors of receiving that were not ICMP reports.
    pub rx_errors: u64,
    /// Times that a socket found no free buffer and had to be armed again; nothing is lost until
    /// the socket's own queue overflows.
    pub rx_no_buffer: u64,
    pub tx_datagrams: u64,
    pub tx_bytes: u64,
    /// Of those sent, datagrams that the kernel cut out of one send for several.
    pub tx_segmented: u64,
    /// Signalling datagrams that waited for room in the socket's send queue.
    pub tx_backlogged: u64,
    /// Datagrams that were not sent, in the order of [`SendError::ALL`].
    pub tx_errors: [u64; SendError::ALL.len()],
    /// ICMP errors read from the listeners' error queues.
    pub icmp_errors: u64,
    /// System calls that waited or looked for events.
    pub waits: u64,
    /// System calls that submitted work (io_uring) or sent (mmsg).
    pub submits: u64,
    /// Times that another thread woke this one.
    pub wakes: u64,
    /// Times that a shard which was behind let others of its priority run.
    pub gave_way: u64,
    /// Times that the completion queue overflowed into kernel memory.
    pub cq_overflows: u64,
}

impl Stats {
    pub(crate) fn count_send_error(&mut self, error: SendError) {
        // The discriminant is the index: `ALL` lists the variants in order.
        self.tx_errors[error as usize] += 1;
    }

    pub(crate) fn count_sent(&mut self, datagrams: usize, bytes: usize) {
        self.tx_datagrams += datagrams as u64;
        self.tx_bytes += bytes as u64;
    }

    pub(crate) fn count_received(&mut self, bytes: usize) {
        self.rx_datagrams += 1;
        self.rx_bytes += bytes as u64;
    }

    /// Hands out every counter.
    pub fn each(&self, sink: &mut dyn FnMut(Count)) {
        let plain = [
            ("io_rx_datagrams_total", "Datagrams received.", self.rx_datagrams),
            ("io_rx_bytes_total", "Bytes of datagrams received.", self.rx_bytes),
            ("io_rx_truncated_total", "Datagrams longer than the buffer.", self.rx_truncated),
            ("io_rx_errors_total", "Errors while receiving.", self.rx_errors),
            ("io_rx_no_buffer_total", "Times a socket found no buffer.", self.rx_no_buffer),
            ("io_tx_datagrams_total", "Datagrams sent.", self.tx_datagrams),
            ("io_tx_bytes_total", "Bytes of datagrams sent.", self.tx_bytes),
            ("io_tx_segmented_total", "Datagrams sent as part of a run.", self.tx_segmented),
            ("io_tx_backlogged_total", "Datagrams that waited to be sent.", self.tx_backlogged),
            ("io_icmp_errors_total", "ICMP errors reported.", self.icmp_errors),
            ("io_waits_total", "System calls that waited.", self.waits),
            ("io_submits_total", "System calls that sent or submitted.", self.submits),
            ("io_wakes_total", "Wakes by other threads.", self.wakes),
            ("io_gave_way_total", "Times others had the core of a shard behind.", self.gave_way),
            ("io_cq_overflows_total", "Overflows of the completion queue.", self.cq_overflows),
        ];
        for (name, help, value) in plain {
            sink(Count { name, help, label: None, value });
        }
        for (error, value) in SendError::ALL.iter().zip(self.tx_errors) {
            sink(Count {
                name: "io_tx_errors_total",
                help: "Datagrams not sent, by error.",
                label: Some(("error", error.label())),
                value,
            });
        }
    }
}

/// One counter with its metric name (without the `ravelin_` prefix), for the shard's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub name: &'static str,
    pub help: &'static str,
    pub label: Option<(&'static str, &'static str)>,
    pub value: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_send_error_has_its_own_counter_and_label() {
        let mut stats = Stats::default();
        for error in SendError::ALL {
            stats.count_send_error(error);
        }
        assert_eq!(stats.tx_errors, [1; SendError::ALL.len()]);
        let mut labels: Vec<_> = SendError::ALL.iter().map(|error| error.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), SendError::ALL.len());
    }

    #[test]
    fn error_numbers_have_kinds() {
        for (number, kind) in [
            (libc::EMSGSIZE, SendError::TooLong),
            (libc::ECONNREFUSED, SendError::Refused),
            (libc::ENETUNREACH, SendError::NoRoute),
            (libc::EPERM, SendError::Denied),
            (libc::ENOBUFS, SendError::NoMemory),
            (libc::EAGAIN, SendError::WouldBlock),
            (libc::EIO, SendError::Other),
        ] {
            assert_eq!(SendError::of(&io::Error::from_raw_os_error(number)), kind);
        }
    }
}
