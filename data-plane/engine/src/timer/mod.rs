//! Everything that happens because nothing happened: a hierarchical wheel, and the closed list of
//! what can be on it.

mod wheel;

pub use wheel::{TimerId, Wheel};

/// What fires. Small and `Copy`; it names its owner by slot and generation, so that a timer that
/// outlives its owner finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Of a client transaction.
    Client { slot: u32, generation: u32, kind: ClientTimer },
    /// Of a server transaction.
    Server { slot: u32, generation: u32, kind: ServerTimer },
    /// Of a call.
    Call { slot: u32, generation: u32, kind: CallTimer },
    /// Of a media stream with one party; only on the wheel of the media table.
    Media { pair: u32, generation: u32, kind: MediaTimer },
    /// The next OPTIONS to a target.
    Probe { target: u32, generation: u32 },
}

/// RFC 3261 17.1 and RFC 6026.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientTimer {
    /// A or E.
    Retransmit,
    /// B or F; after a CANCEL the wait of 9.1.
    Timeout,
    /// D, K or M: forget the transaction.
    Linger,
}

/// RFC 3261 17.2 and RFC 6026.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerTimer {
    /// G, or the TU's retransmission of a 2xx (13.3.1.4).
    Retransmit,
    /// H: no ACK.
    Timeout,
    /// I, J or L: forget the transaction.
    Linger,
}

/// Timers of a media stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaTimer {
    /// The consent of the party may have ended (RFC 7675 5.1).
    Ice,
    /// A DTLS flight is to be sent, again or at all (RFC 6347 4.2.4).
    Dtls,
    /// The same of RTCP that has an association of its own.
    Control,
}

/// Timers of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallTimer {
    /// The attempt with this number has had its time without an answer, or without progress.
    Attempt(u16),
    /// Nobody picked up.
    Ring,
    /// Longest duration.
    MaxDuration,
    /// An emergency call begins its chain of trunks again (EM-54).
    Restart,
    /// Time to look whether the parties still send.
    Silence,
    /// Time to look whether the media agreed on can be.
    Failure,
    /// A released call has waited long enough for its transactions.
    Linger,
    /// A call that was taken over after a restart has waited long enough for an ACK.
    Unacknowledged,
}
