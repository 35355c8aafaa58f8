//! What was noticed of the streams of a call: told, or acted on.

use ravelin_contract::audit::Severity;

use super::{call::Call, failure, leg::Side};
use crate::{
    core::{Core, Turn},
    media::{Notice, Noticed},
    records::EventBuilder,
};

/// Takes what was noticed of one of the streams of `call`.
pub(crate) fn take(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>, noticed: &Noticed) {
    let (kind, severity, ours) = match noticed.what {
        Notice::KeyEnding { ours } => ("media.srtp_key_ending", Severity::Warning, ours),
        Notice::KeySpent { ours } => ("media.srtp_key_spent", Severity::Alarm, ours),
        Notice::HandshakeFailed(_) | Notice::HandshakeLate | Notice::ConsentLost => {
            return failure::noticed(core, call, turn, noticed);
        }
    };
    let snapshot = &call.loadout.snapshot;
    let trunk = call.trunk(noticed.side).and_then(|id| snapshot.trunk(id));
    let event = EventBuilder::new(kind, severity, turn.now, snapshot.version, core.shard.0)
        .call(call.id_text())
        .field("party", if noticed.side == Side::Caller { "caller" } else { "callee" })
        .field("trunk", trunk.map(|trunk| trunk.id.clone()))
        .field("stream", noticed.stream)
        .field("emergency", call.is_emergency())
        .field("key", if ours { "ours" } else { "theirs" });
    core.records.audit(event.done(), call.is_emergency());
}
