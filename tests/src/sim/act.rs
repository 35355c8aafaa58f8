//! What a peer does, what it wants done, and what it saw.

use std::net::SocketAddr;

/// What a peer does in one call. Times are milliseconds after the step before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Callee: answer after ringing.
    Answer { ring_ms: u64, after_ms: u64, early_sdp: bool },
    /// Callee: refuse with this status.
    Refuse { code: u16, after_ms: u64 },
    /// Callee: ring for ever.
    Ring { ring_ms: u64 },
    /// Caller: hang up before the answer.
    Cancel { after_ms: u64 },
    /// Either: hang up this long after the answer.
    Bye { after_ms: u64 },
    /// Either: put on hold or change the offer this long after the answer.
    Reinvite { after_ms: u64 },
    /// Either: UPDATE with an offer this long after the answer.
    Update { after_ms: u64 },
    /// Either: UPDATE, INFO or OPTIONS in the dialog.
    Request { method: &'static str, after_ms: u64 },
    /// Either: fall silent for ever, this long after the first message of the call.
    Die { after_ms: u64 },
}

impl Act {
    pub(super) const fn is_death(&self) -> bool {
        matches!(self, Self::Die { .. })
    }
}

/// How a call ended, as this party sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) answered: bool,
    pub(super) acknowledged: bool,
    pub(super) ended: bool,
    /// Status of a refusal, as sent or received.
    pub(super) refused: Option<u16>,
    /// A 2xx of this party got no ACK within 64*T1, in a call that had not ended.
    pub(super) unacknowledged: bool,
    pub(super) died: bool,
    /// Status of the answer to its first BYE.
    pub(super) bye_code: Option<u16>,
    /// The other side hung up.
    pub(super) hung_up: bool,
    /// RTP packets that arrived, and those that belonged to another call.
    pub(super) rtp: u32,
    pub(super) foreign_rtp: u32,
}

/// What a peer wants done.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Send { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Wake { call: u32, at_ms: u64, wake: Wake },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// Send item `id` again if it is still unanswered.
    Again {
        id: u64,
    },
    Act {
        index: usize,
    },
    /// Callee: the step after ringing.
    Final,
    Rtp {
        left: u32,
    },
}
