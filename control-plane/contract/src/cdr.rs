//! Call detail records: one for every attempt and one for every call (features 1, row 16).

use std::collections::BTreeMap;

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
    /// How good each stream of the call was, in both directions: for each stream what the caller
    /// sent, then what the callee sent. Records made before this was measured have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamQuality>,

    /// Restarts of the data plane that the call lived through: 0 for nearly all.
    #[serde(default)]
    pub adopted: u16,

    /// What was done to the caller's session descriptions so that an emergency call could go on:
    /// `mended`, `no_address`, `held`, `unencrypted`, `substituted`, `unanswered`. Empty for nearly
    /// all calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sdp_caller: Vec<String>,
    /// The same of the callee's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sdp_callee: Vec<String>,
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

/// What one party sent in one media stream, as Ravelin received it. What was not measured is null:
/// no packet came, the clock of the codec is not known, the parties exchange no RTCP that can be
/// read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamQuality {
    /// Which media stream of the description, from 0.
    pub stream: u8,
    /// Who sent it.
    pub from: Party,
    /// The source measured last, and how often it changed.
    #[serde(default)]
    pub ssrc: Option<u32>,
    #[serde(default)]
    pub ssrc_changes: u32,
    /// Encoding name as negotiated or as RFC 3551 assigns it, of the last packet of media.
    #[serde(default)]
    pub codec: Option<String>,
    #[serde(default)]
    pub payload_type: Option<u8>,
    #[serde(default)]
    pub clock_hz: Option<u32>,
    /// RTP packets received from the right source, and their octets, RTP headers included.
    #[serde(default)]
    pub packets: u64,
    #[serde(default)]
    pub bytes: u64,
    #[serde(default)]
    pub rtcp_packets: u64,
    /// By sequence numbers (RFC 3550 A.3): packets that were to come, and those that never came.
    #[serde(default)]
    pub expected: u64,
    #[serde(default)]
    pub lost: u64,
    /// Of those expected, in percent.
    #[serde(default)]
    pub loss_percent: f64,
    /// Runs of packets lost in a row.
    #[serde(default)]
    pub gaps: u64,
    /// Packets that came twice, and packets that others overtook.
    #[serde(default)]
    pub duplicates: u64,
    #[serde(default)]
    pub reordered: u64,
    /// New starts of the sequence numbers, and of the timestamps, of one source.
    #[serde(default)]
    pub restarts: u64,
    #[serde(default)]
    pub timestamp_steps: u64,
    /// Packets that belong to none of this: a number or a source of their own.
    #[serde(default)]
    pub astray: u64,
    /// Packets more than 60 ms behind their place in time, and as much ahead of it.
    #[serde(default)]
    pub late: u64,
    #[serde(default)]
    pub early: u64,
    /// Interarrival jitter (RFC 3550 A.8): mean over the packets, and its highest value.
    #[serde(default)]
    pub jitter_ms: Option<f64>,
    #[serde(default)]
    pub jitter_max_ms: Option<f64>,
    /// Round trip between Ravelin and this party, from RTCP.
    #[serde(default)]
    pub rtt_ms: Option<f64>,
    #[serde(default)]
    pub rtt_max_ms: Option<f64>,
    /// How the other party says in RTCP that it hears this one, over the whole way: packets lost
    /// (negative if duplicates came), the worst loss between two reports, jitter at the last.
    #[serde(default)]
    pub heard_lost: Option<i32>,
    #[serde(default)]
    pub heard_loss_max_percent: Option<f64>,
    #[serde(default)]
    pub heard_jitter_ms: Option<f64>,
    /// Mean opinion score that the E-model (ITU-T G.107) estimates, 1.00 to 4.50.
    #[serde(default)]
    pub mos: Option<f64>,
    /// Telephone events (RFC 4733) that are digits. Which ones is not kept: they may be secrets.
    #[serde(default)]
    pub dtmf_events: u32,
    /// How often the source of the packets was learnt from them.
    #[serde(default)]
    pub latches: u32,
    /// How often this party was silent for longer than its trunk allows.
    #[serde(default)]
    pub timeouts: u32,
    /// Packets that came on this party's ports and were not forwarded, by the reason's label.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drops: BTreeMap<String, u64>,
}

impl StreamQuality {
    /// Nothing came.
    #[must_use]
    pub const fn silent(stream: u8, from: Party) -> Self {
        Self {
            stream,
            from,
            ssrc: None,
            ssrc_changes: 0,
            codec: None,
            payload_type: None,
            clock_hz: None,
            packets: 0,
            bytes: 0,
            rtcp_packets: 0,
            expected: 0,
            lost: 0,
            loss_percent: 0.0,
            gaps: 0,
            duplicates: 0,
            reordered: 0,
            restarts: 0,
            timestamp_steps: 0,
            astray: 0,
            late: 0,
            early: 0,
            jitter_ms: None,
            jitter_max_ms: None,
            rtt_ms: None,
            rtt_max_ms: None,
            heard_lost: None,
            heard_loss_max_percent: None,
            heard_jitter_ms: None,
            mos: None,
            dtmf_events: 0,
            latches: 0,
            timeouts: 0,
            drops: BTreeMap::new(),
        }
    }
}
