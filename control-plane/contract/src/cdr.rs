//! Call detail records: one for every attempt and one for every call (features 1, row 16).

use serde::{Deserialize, Serialize};

/// What a record describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CdrKind {
    /// One outgoing INVITE to one trunk target.
    Attempt,
    /// The whole call, from the caller's INVITE to the end.
    Call,
}

/// Which party ended the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    Caller,
    Callee,
    Ravelin,
}

/// One record. Times are UTC milliseconds; durations are monotonic milliseconds, so that a clock
/// step changes no bill. Absent values are null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cdr {
    pub kind: CdrKind,
    /// Ravelin's own id of the call, unique over nodes and restarts; the same in all its records.
    pub call: String,
    pub node: String,
    pub shard: u8,
    /// 0 for the call record, 1.. for attempts in the order tried.
    pub attempt: u16,
    /// The caller's Call-ID.
    pub inbound_call_id: String,
    /// The Call-ID that Ravelin made for this attempt, or for the attempt that was answered.
    #[serde(default)]
    pub outbound_call_id: Option<String>,
    /// Calling number or URI as asserted (P-Asserted-Identity of a trusted peer, else From).
    pub from: String,
    /// Request-URI as received.
    pub to: String,
    #[serde(default)]
    pub inbound_trunk: Option<String>,
    #[serde(default)]
    pub outbound_trunk: Option<String>,
    /// Packet source of the caller's INVITE, `address:port`.
    pub source: String,
    /// Where this attempt went, `transport:address:port`.
    #[serde(default)]
    pub target: Option<String>,
    #[serde(default)]
    pub route: Option<String>,
    /// Version of the snapshot that decided.
    pub snapshot: u64,

    pub start_unix_ms: u64,
    /// From INVITE in to the first 18x, in milliseconds.
    #[serde(default)]
    pub ring_ms: Option<u64>,
    /// From INVITE in to the 2xx, in milliseconds.
    #[serde(default)]
    pub answer_ms: Option<u64>,
    /// From INVITE in to the end, in milliseconds.
    pub end_ms: u64,
    /// From answer to the end, in milliseconds; 0 when unanswered.
    pub duration_ms: u64,

    /// Final SIP status of this attempt or call; 0 when none came (for example a timeout here).
    pub status: u16,
    pub ended_by: Party,
    /// Stable machine-readable cause, see the manual's table of causes (`ravelin;cause=N`).
    pub cause: u16,
    pub cause_text: String,

    pub emergency: bool,
    /// `emergency`, `test_address`, `test_sos`, `crisis` or `none`.
    pub class: String,
    #[serde(default)]
    pub site: Option<String>,

    /// Verification outcome of the caller's Identity (`passed`, `none-absent`, ...).
    #[serde(default)]
    pub identity_in: Option<String>,
    /// Attestation signed into the outgoing INVITE, or why none (`A`, `B`, `C`, `unsigned:reason`).
    #[serde(default)]
    pub identity_out: Option<String>,
    #[serde(default)]
    pub attestation_rule: Option<String>,

    /// Packets and bytes received from the caller and forwarded to the callee, and the reverse.
    #[serde(default)]
    pub media_caller: Option<MediaCount>,
    #[serde(default)]
    pub media_callee: Option<MediaCount>,
}

/// Counters of what one party sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaCount {
    pub packets: u64,
    pub bytes: u64,
    pub rtcp_packets: u64,
    /// Packets from this party that were not forwarded.
    pub dropped: u64,
}
