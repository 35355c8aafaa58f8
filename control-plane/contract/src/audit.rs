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

impl AuditEvent {
    /// The event in the words of the source documents (compliance-systems 6), for those that have
    /// some: what was made of a dialled emergency number, and what was done to a SOC 2 control.
    /// Control characters are left out, so that no dialled string forges a line. Never fails: what
    /// the event does not say reads `unknown`.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let field = |name: &str| match self.fields.get(name) {
            Some(serde_json::Value::String(text)) => text.chars().map(visible).collect(),
            Some(serde_json::Value::Null) | None => "unknown".to_owned(),
            Some(other) => other.to_string(),
        };
        match self.kind.as_str() {
            "emergency.blocked" => Some(format!(
                "[E911] WARNING: E911 call blocked in test mode - number: {}, extension: {}",
                field("number"),
                field("extension")
            )),
            "emergency.started" if field("mode") == "production" => Some(format!(
                "[E911] INFO: E911 call allowed in production - number: {}, extension: {}, \
                 location: {}",
                field("number"),
                field("extension"),
                field("location")
            )),
            _ => self.fields.contains_key("text").then(|| field("text")),
        }
    }
}

fn visible(c: char) -> char {
    if c.is_control() { '\u{fffd}' } else { c }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, fields: &[(&str, serde_json::Value)]) -> AuditEvent {
        AuditEvent {
            kind: kind.to_owned(),
            severity: Severity::Warning,
            unix_ms: 1,
            mono_ns: 1,
            shard: None,
            call: None,
            actor: None,
            snapshot: 1,
            fields: fields
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
        }
    }

    #[test]
    fn lines_are_those_of_the_source_documents() {
        let number = ("number", json!("911"));
        let extension = ("extension", json!("1001"));
        let location = ("location", json!("Building A, Floor 2"));
        let all = |mode: &str| {
            [number.clone(), extension.clone(), location.clone(), ("mode", json!(mode))]
        };
        assert_eq!(
            event("emergency.blocked", &all("test")).line().as_deref(),
            Some("[E911] WARNING: E911 call blocked in test mode - number: 911, extension: 1001")
        );
        assert_eq!(
            event("emergency.started", &all("production")).line().as_deref(),
            Some(
                "[E911] INFO: E911 call allowed in production - number: 911, extension: 1001, \
                 location: Building A, Floor 2"
            )
        );
        // Nothing is claimed of production where there is none.
        assert_eq!(event("emergency.started", &all("test")).line(), None);
        let text = "[SOC2] Control CC6.1 tested - Results: Passed";
        let tested = event("soc2.control.tested", &[("text", json!(text))]);
        assert_eq!(tested.line().as_deref(), Some(text));
        assert_eq!(event("trunk.down", &[number]).line(), None);
    }

    #[test]
    fn a_dialled_string_forges_no_line_and_what_is_missing_is_said() {
        let forged = json!("911\r\n[E911] INFO: forged");
        let line = event("emergency.blocked", &[("number", forged)]).line().unwrap();
        assert!(!line.contains(['\r', '\n']), "{line:?}");
        assert!(line.ends_with(", extension: unknown"), "{line}");
    }
}
