//! Audit events about the streams of a call.

use ravelin_contract::audit::Severity;

use super::{call::Call, leg::Side};
use crate::{
    core::{Core, Turn},
    media::{Notice, Noticed},
    records::EventBuilder,
};

/// Writes down what was noticed of one of the streams of `call`.
pub(crate) fn write(core: &mut Core, call: &Call, turn: &Turn<'_>, noticed: &Noticed) {
    let (kind, severity) = match noticed.what {
        Notice::KeyEnding { .. } => ("media.srtp_key_ending", Severity::Warning),
        Notice::KeySpent { .. } => ("media.srtp_key_spent", Severity::Alarm),
        Notice::HandshakeFailed(_) => ("media.dtls_failed", Severity::Alarm),
        Notice::ConsentLost => ("media.consent_lost", Severity::Warning),
    };
    let snapshot = &call.loadout.snapshot;
    let trunk = match noticed.side {
        Side::Caller => call.inbound,
        Side::Callee => call.callee().and_then(|at| call.attempts.get(at)).map(|at| at.trunk),
    };
    let trunk = trunk.and_then(|id| snapshot.trunk(id)).map(|trunk| trunk.id.clone());
    let mut event = EventBuilder::new(kind, severity, turn.now, snapshot.version, core.shard.0)
        .call(call.id_text())
        .field("party", if noticed.side == Side::Caller { "caller" } else { "callee" })
        .field("trunk", trunk)
        .field("stream", noticed.stream)
        .field("emergency", call.is_emergency());
    event = match noticed.what {
        Notice::KeyEnding { ours } | Notice::KeySpent { ours } => {
            event.field("key", if ours { "ours" } else { "theirs" })
        }
        Notice::HandshakeFailed(failure) => event.field("reason", failure.as_str()),
        Notice::ConsentLost => event,
    };
    core.records.audit(event.done(), call.is_emergency());
}
