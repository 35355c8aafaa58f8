//! Audit events: what happened, who did it, under which snapshot (EM-80, compliance-systems 6).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How urgent an event is. `Alarm` and `Critical` show in the UI and in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    Error,
    Alarm,
    Critical,
}

/// One audit event. Wire data in `fields` is JSON text, so that control characters are escaped and
/// no dialled string can forge a line (compliance-systems 6, log injection).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// Stable dotted name, for example `emergency.started`, `config.activated`, `trunk.down`.
    pub kind: String,
    pub severity: Severity,
    /// UTC, milliseconds since 1970-01-01.
    pub unix_ms: u64,
    /// Monotonic nanoseconds of the node, for ordering within one process.
    pub mono_ns: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<u8>,
    /// Ravelin's own id of the call (see [`crate::cdr::Cdr::call`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// Who acted: token name, `config-file`, `system`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Version of the config snapshot in force.
    pub snapshot: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, serde_json::Value>,
}
