//! What leaves the engine as evidence: call detail records and audit events, taken by the shard at
//! the end of its turn (`Engine::take_records`).

use std::collections::BTreeMap;

use ravelin_contract::{
    audit::{AuditEvent, Severity},
    cdr::Cdr,
    chain::Entry,
};
use serde_json::Value;

use crate::time::Now;

/// Records that wait for the shard to take them. Full: records of ordinary calls are lost and
/// counted in a gap record; events of emergency calls are kept beyond it, up to twice this number.
pub(crate) const RECORDS_MAX: usize = 65_536;

/// The records of one shard that nobody has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Records {
    entries: Vec<Entry>,
    lost: u64,
    /// Records lost since start, for the metric.
    pub(crate) lost_total: u64,
}

impl Records {
    pub(crate) fn cdr(&mut self, cdr: Cdr) {
        let room = if cdr.emergency { RECORDS_MAX.saturating_mul(2) } else { RECORDS_MAX };
        self.push(Entry::Cdr(cdr), room);
    }

    pub(crate) fn audit(&mut self, event: AuditEvent, emergency: bool) {
        let room = if emergency { RECORDS_MAX.saturating_mul(2) } else { RECORDS_MAX };
        self.push(Entry::Audit(event), room);
    }

    fn push(&mut self, entry: Entry, room: usize) {
        if self.entries.len() < room {
            self.entries.push(entry);
        } else {
            self.lost = self.lost.saturating_add(1);
            self.lost_total = self.lost_total.saturating_add(1);
        }
    }

    /// Moves everything into `into`, a gap record behind it if something was lost.
    pub(crate) fn take(&mut self, now_unix_ms: u64, into: &mut Vec<Entry>) {
        into.append(&mut self.entries);
        if self.lost != 0 {
            into.push(Entry::Gap {
                lost: Some(std::mem::take(&mut self.lost)),
                reason: "record queue of the shard was full".to_owned(),
                unix_ms: now_unix_ms,
            });
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.entries.len()
    }
}

/// Builds an audit event. Wire data goes in as JSON strings, so that no dialled string can forge a
/// line.
#[derive(Debug)]
pub(crate) struct EventBuilder(AuditEvent);

impl EventBuilder {
    pub(crate) fn new(kind: &str, severity: Severity, now: Now, snapshot: u64, shard: u8) -> Self {
        Self(AuditEvent {
            kind: kind.to_owned(),
            severity,
            unix_ms: now.unix_ms,
            mono_ns: now.mono.0,
            shard: Some(shard),
            call: None,
            actor: None,
            snapshot,
            fields: BTreeMap::new(),
        })
    }

    pub(crate) fn call(mut self, call: String) -> Self {
        self.0.call = Some(call);
        self
    }

    pub(crate) fn field(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.fields.insert(key.to_owned(), value.into());
        self
    }

    pub(crate) fn done(self) -> AuditEvent {
        self.0
    }
}

/// Octets from the wire as text for a record.
pub(crate) fn text(octets: &[u8]) -> String {
    match std::str::from_utf8(octets) {
        Ok(text) => text.to_owned(),
        Err(_) => String::from_utf8_lossy(octets).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str) -> AuditEvent {
        EventBuilder::new(kind, Severity::Info, Now::default(), 1, 0).done()
    }

    #[test]
    fn a_full_queue_loses_ordinary_records_first_and_says_how_many() {
        let mut records = Records::default();
        for _ in 0..RECORDS_MAX + 3 {
            records.audit(event("call.refused"), false);
        }
        records.audit(event("emergency.started"), true);
        let mut out = Vec::new();
        records.take(7, &mut out);
        assert_eq!(out.len(), RECORDS_MAX + 2);
        assert!(
            matches!(&out[RECORDS_MAX], Entry::Audit(kept) if kept.kind == "emergency.started")
        );
        let gap = out.last().unwrap();
        assert!(matches!(gap, Entry::Gap { lost: Some(3), unix_ms: 7, .. }));
        out.clear();
        records.take(8, &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn wire_data_cannot_forge_a_line() {
        let event = EventBuilder::new("emergency.started", Severity::Info, Now::default(), 1, 0)
            .field("number", text(b"911\r\n[E911] INFO: forged \xff"))
            .done();
        let line = serde_json::to_string(&Entry::Audit(event)).unwrap();
        assert!(!line.contains('\n') && !line.contains('\r'));
    }
}
