//! The stream between the planes: mutual TLS between machines, a Unix socket on one machine.
//!
//! A frame is a four-octet big-endian length and that many octets of JSON, one [`Up`] or [`Down`]:
//! an object with one member, named for the frame. (A tag inside the object would make serde copy
//! the records through its own buffer, and their octets must arrive as they were hashed.)
//! The edge connects, sends [`Up::Hello`], and reconnects when the stream ends. Records go up at
//! least once: the edge repeats what was not answered by [`Down::Stored`], the control plane
//! recognises a repeated `seq`.

use serde::{Deserialize, Serialize};

use crate::{
    chain::Record,
    metrics::MetricsReport,
    view::{CallView, Ladder, TrunkView},
};

/// Who is at the other end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Edge,
    ControlPlane,
}

/// Why a peer with another [`PROTOCOL_VERSION`](crate::PROTOCOL_VERSION) is refused, and what to do.
#[must_use]
pub fn other_protocol(theirs: u32, peer: Peer) -> String {
    let (peer, own) = match peer {
        Peer::Edge => ("this edge", "the control plane"),
        Peer::ControlPlane => ("the control plane", "this edge"),
    };
    let ours = crate::PROTOCOL_VERSION;
    let older = if theirs < ours { peer } else { own };
    format!(
        "{peer} speaks protocol {theirs} of the link, {own} {ours}: update {older} to the release of \
         the other; calls go on meanwhile"
    )
}

/// Frames larger than this are refused and end the stream. A config document is the largest thing
/// that travels.
pub const FRAME_MAX_BYTES: u32 = 64 * 1024 * 1024;

/// Edge to control plane.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Up {
    Hello {
        protocol: u32,
        node: String,
        /// Build version of the edge.
        software: String,
        /// Config version in force; 0 if none.
        active_version: u64,
        /// SHA-256 (hex) of the document in force.
        active_sha256: String,
        /// Highest record number in the spool.
        spooled_seq: u64,
        shards: u8,
        /// Driver in use, with the reason when it is a fallback.
        driver: String,
        pid: u32,
    },
    /// Answer to [`Down::Config`].
    Applied {
        version: u64,
        result: ApplyResult,
    },
    Records {
        records: Vec<Record>,
    },
    Metrics(Box<MetricsReport>),
    Calls {
        query: u64,
        calls: Vec<CallView>,
        more: bool,
    },
    Call {
        query: u64,
        call: Option<Box<CallView>>,
    },
    Ladder {
        query: u64,
        ladder: Option<Ladder>,
    },
    Trunks {
        trunks: Vec<TrunkView>,
    },
    Pong {
        nonce: u64,
    },
}

/// What became of a pushed config version on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum ApplyResult {
    /// In force on every shard.
    Active,
    /// Refused whole; the version before stays in force.
    Refused { errors: Vec<FieldError> },
}

/// One fault of a config document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Path of the key, for example `trunks[2].targets[0].uri`.
    pub path: String,
    /// Line in the document, 1-based, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    pub reason: String,
}

/// Control plane to edge.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Down {
    Welcome {
        protocol: u32,
        /// Highest record number of this node that is stored. The edge resumes behind it.
        stored_seq: u64,
        /// Hash of that record (hex), so that an edge with a new or foreign spool is recognised.
        stored_hash: String,
    },
    Config {
        version: u64,
        sha256: String,
        document: String,
    },
    /// Every record up to `seq` is stored durably.
    Stored {
        seq: u64,
    },
    QueryCalls {
        query: u64,
        limit: u32,
    },
    /// One call, by Ravelin's id or a Call-ID, with the quality of its streams.
    QueryCall {
        query: u64,
        call: String,
    },
    QueryLadder {
        query: u64,
        call: String,
    },
    Ping {
        nonce: u64,
    },
    /// The node is not welcome: wrong protocol, unknown node, bad credentials. The edge logs and
    /// retries with back-off.
    Refused {
        reason: String,
    },
}
