//! Emergency calls that found no room (EM-64): what they lack, and the way tried again.

use super::{
    answer::close,
    attempt::advance,
    call::{Call, PendingInvite, Phase},
    sdp,
};
use crate::{
    cause::Cause,
    core::{Core, Turn},
    emergency::Starved,
};

/// The attempt of an emergency call that has just been made found no room. Notes what it needs.
pub(crate) fn note(core: &mut Core, call: &mut Call, turn: &Turn<'_>, cause: Cause) {
    let Some(index) = call.attempts.len().checked_sub(1) else { return };
    close(core, call, turn, index, cause.status(), cause);
    call.last_failure = (cause.status(), cause);
    let offer = call.pending.as_ref().and_then(PendingInvite::message);
    let streams = offer.as_ref().map_or(1, sdp::streams);
    let realms = call.places(core, index).map(|place| place.realm);
    core.starved.push(Starved { key: call.key, cause, realms, streams });
}

/// Tries the way again that found no room.
pub(crate) fn again(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>) {
    if matches!(call.phase, Phase::Routing | Phase::Ringing) && call.pending.is_some() {
        call.plan.step_back();
        advance(core, call, turn, None);
    }
}
