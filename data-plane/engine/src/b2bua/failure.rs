//! Media that cannot be: DTLS with a party came to nothing (RFC 5763), or the party no longer consents
//! to be sent anything (RFC 7675).
//!
//! What a failure does is said by the trunk that the party is behind (`media.failure_action`); no
//! emergency call is ended by it (EM rule 10). One line of several ends nothing: see
//! [`MediaTable::loss`](crate::media::MediaTable). Before the answer:
//!
//! - what fails on the caller's side ends the call, for the answer would change nothing about it;
//! - what fails on the callee's is told, and ends the call when it is answered if it is so then: its
//!   INVITE may have forked, and another branch may answer (RFC 8842 8);
//! - a party that has not shaken hands in time may do so when the call is answered. The handshake
//!   begins anew then, and has its full time.

use std::time::Duration;

use ravelin_contract::audit::Severity;
use ravelin_policy::MediaAction;
use ravelin_srtp::dtls::Failure;

use super::{
    attempt::arm,
    call::{Call, Phase},
    leg::Side,
    offer::Exchange,
    release,
};
use crate::{
    cause::Cause,
    core::{Core, Turn},
    media::{Loss, Notice, Noticed},
    records::EventBuilder,
    timer::{CallTimer, TimerId},
};

/// While an offer is open its answer may bring other keys and candidates: how soon is looked again.
const PATIENCE: Duration = Duration::from_secs(1);

/// A handshake failed or was not begun, or a consent ended, in one of the lines of `call`.
pub(crate) fn noticed(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>, noticed: &Noticed) {
    let Some(anchor) = call.anchor.as_ref().filter(|_| call.end.is_none()) else { return };
    let (loss, reason) = match noticed.what {
        Notice::HandshakeFailed(failure) => (Loss::Handshake, failure.as_str()),
        Notice::HandshakeLate => (Loss::Handshake, "not_begun"),
        Notice::ConsentLost => (Loss::Consent, "silent"),
        Notice::KeyEnding { .. } | Notice::KeySpent { .. } => return,
    };
    let of_all = core.media.loss(anchor, noticed.side).is_some();
    // It begins anew with the answer.
    let again = noticed.what == Notice::HandshakeFailed(Failure::Timeout) && !is_answered(call);
    let verdict = verdict(call, noticed.side, of_all && !again);
    let action = match verdict {
        Verdict::Ends => MediaAction::Bye,
        Verdict::Waits | Verdict::Told => MediaAction::Alarm,
        Verdict::Counted => MediaAction::Nothing,
    };
    core.counters.media_failure(loss, action);
    let told = Told { side: noticed.side, stream: noticed.stream, loss, reason, of_all };
    match verdict {
        Verdict::Ends => end(core, call, turn, &told),
        Verdict::Waits => {
            tell(core, call, turn, &told, "alarm");
            look_in(core, call, turn, PATIENCE);
        }
        Verdict::Told => tell(core, call, turn, &told, "alarm"),
        Verdict::Counted => {}
    }
}

/// An offer was answered, or the call: everybody has the full time again. What cannot be is looked
/// for at once, but not before the answer is out.
pub(crate) fn agreed(core: &mut Core, call: &mut Call, turn: &Turn<'_>) {
    let Some(anchor) = call.anchor.as_ref().filter(|_| is_answered(call)) else { return };
    core.media.expect_media(turn.now.mono, anchor);
    if [Side::Caller, Side::Callee].iter().any(|side| core.media.loss(anchor, *side).is_some()) {
        look_in(core, call, turn, Duration::ZERO);
    }
}

/// The timer has fired: what failed when it could not end the call may do so now.
pub(crate) fn look(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>) {
    call.timers.failure = TimerId::NEVER;
    for side in [Side::Caller, Side::Callee] {
        let Some(anchor) = call.anchor.as_ref().filter(|_| call.end.is_none()) else { return };
        let Some((stream, loss)) = core.media.loss(anchor, side) else { continue };
        match verdict(call, side, true) {
            Verdict::Ends => {
                core.counters.media_failure(loss, MediaAction::Bye);
                let told = Told { side, stream, loss, reason: "earlier", of_all: true };
                end(core, call, turn, &told);
            }
            Verdict::Waits => look_in(core, call, turn, PATIENCE),
            // It was.
            Verdict::Told | Verdict::Counted => {}
        }
    }
}

/// What comes of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ends,
    /// It would end the call, and an offer is open.
    Waits,
    Told,
    Counted,
}

/// `of_all`: nothing is left that could carry media.
fn verdict(call: &Call, side: Side, of_all: bool) -> Verdict {
    let trunk = call.trunk(side).and_then(|id| call.loadout.snapshot.trunk(id));
    match trunk.map_or(MediaAction::Bye, |trunk| trunk.media.failure_action) {
        MediaAction::Nothing => Verdict::Counted,
        MediaAction::Alarm => Verdict::Told,
        // No emergency call is ever ended for it (EM rule 10).
        MediaAction::Bye if call.is_emergency() || !of_all => Verdict::Told,
        MediaAction::Bye => match call.phase {
            Phase::Answered if is_open(call) => Verdict::Waits,
            Phase::Answered => Verdict::Ends,
            Phase::Ringing if side == Side::Caller => Verdict::Ends,
            Phase::Verifying | Phase::Routing | Phase::Ringing | Phase::Ending => Verdict::Told,
        },
    }
}

fn is_answered(call: &Call) -> bool {
    call.phase == Phase::Answered
}

/// An offer has no answer yet.
fn is_open(call: &Call) -> bool {
    [Side::Caller, Side::Callee]
        .into_iter()
        .filter_map(|side| call.leg(side))
        .any(|leg| leg.negotiation.exchange() != Exchange::Idle)
}

fn look_in(core: &mut Core, call: &mut Call, turn: &Turn<'_>, after: Duration) {
    core.wheel.cancel(call.timers.failure);
    call.timers.failure = arm(core, turn, call.key, after, CallTimer::Failure);
}

/// What an event says.
struct Told {
    side: Side,
    stream: u8,
    loss: Loss,
    reason: &'static str,
    of_all: bool,
}

fn end(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>, told: &Told) {
    tell(core, call, turn, told, "bye");
    let cause = match told.loss {
        Loss::Handshake => Cause::HandshakeFailed,
        Loss::Consent => Cause::ConsentLost,
    };
    if is_answered(call) {
        release::hang_up(core, call, turn, None, cause);
    } else {
        release::refuse(core, call, turn, cause.status(), cause, None);
    }
}

fn tell(core: &mut Core, call: &Call, turn: &Turn<'_>, told: &Told, action: &str) {
    let (kind, severity) = match told.loss {
        Loss::Handshake => ("media.dtls_failed", Severity::Alarm),
        Loss::Consent if told.of_all => ("media.consent_lost", Severity::Alarm),
        Loss::Consent => ("media.consent_lost", Severity::Warning),
    };
    let snapshot = &call.loadout.snapshot;
    let trunk = call.trunk(told.side).and_then(|id| snapshot.trunk(id));
    let event = EventBuilder::new(kind, severity, turn.now, snapshot.version, core.shard.0)
        .call(call.id_text())
        .field("party", if told.side == Side::Caller { "caller" } else { "callee" })
        .field("trunk", trunk.map(|trunk| trunk.id.clone()))
        .field("stream", told.stream)
        .field("reason", told.reason)
        .field("early", call.answer_at.is_none())
        .field("emergency", call.is_emergency())
        .field("action", action);
    core.records.audit(event.done(), call.is_emergency());
}
