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
    /// Of one leg of a call.
    Leg { slot: u32, generation: u32, kind: LegTimer },
    /// Of a call.
    Call { slot: u32, generation: u32, kind: CallTimer },
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

/// Timers of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegTimer {
    /// C: longer than 3 minutes, restarted by every provisional response (RFC 3261 16.6, 16.8).
    C,
    /// How long later 2xx of a forked INVITE are waited for.
    Forks,
    /// After a 491 (RFC 3261 14.1).
    Glare,
    /// How long a dialog may wait for the other leg.
    Wait,
}

/// Timers of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallTimer {
    /// Nobody picked up.
    Ring,
    /// Longest duration.
    MaxDuration,
    /// A released call waits for its transactions.
    Linger,
    /// A sign or verify job did not come back.
    Identity,
}
