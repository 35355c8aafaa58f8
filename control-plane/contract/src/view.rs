//! Live views through the API: what an operator asks a running node.

use serde::{Deserialize, Serialize};

use crate::cdr::StreamQuality;

/// State of a call as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// INVITE taken, no 18x from the other side yet.
    Trying,
    Ringing,
    Answered,
    /// Released, waiting for transactions to end.
    Ending,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallView {
    /// Same id as in the CDR.
    pub id: String,
    pub node: String,
    pub shard: u8,
    pub state: CallState,
    pub from: String,
    pub to: String,
    pub inbound_trunk: Option<String>,
    pub outbound_trunk: Option<String>,
    pub inbound_call_id: String,
    pub outbound_call_id: Option<String>,
    pub class: String,
    pub site: Option<String>,
    pub start_unix_ms: u64,
    pub age_ms: u64,
    pub answered_ms: Option<u64>,
    pub packets_from_caller: u64,
    pub packets_from_callee: u64,
    /// How good the streams are so far, as in the record. Only where one call is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamQuality>,
    pub snapshot: u64,
}

/// One trunk on one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrunkView {
    pub id: String,
    pub node: String,
    pub role: String,
    /// `up`, `down` or `unprobed`.
    pub state: String,
    pub calls: u64,
    pub calls_limit: Option<u64>,
    pub cps_limit: Option<u64>,
    /// Refusals since start because a limit was reached.
    pub refused_total: u64,
    pub targets: Vec<TargetView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetView {
    pub uri: String,
    pub state: String,
    /// Consecutive failed OPTIONS.
    pub failures: u32,
}

/// The messages of one call, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ladder {
    pub call: String,
    pub steps: Vec<LadderStep>,
    /// Steps that were not kept because the ladder was full.
    pub omitted: u64,
    /// The messages themselves, where `edge.limits.capture_bytes` keeps them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packets: Vec<LadderPacket>,
    /// Messages that found no room.
    #[serde(default)]
    pub packets_omitted: u64,
}

/// One SIP message as it came or went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LadderPacket {
    pub unix_ms: u64,
    pub from: std::net::SocketAddr,
    pub to: std::net::SocketAddr,
    /// True if it travelled in a stream.
    pub stream: bool,
    /// Its octets, two hexadecimal digits each.
    pub hex: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LadderStep {
    pub at_ms: u64,
    /// `caller`, `callee` or the trunk's id.
    pub peer: String,
    /// True if Ravelin received it.
    pub inbound: bool,
    /// `INVITE`, `180 (INVITE)`, ...
    pub summary: String,
}
