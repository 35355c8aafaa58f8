//! RTP timeout: a party that should send and does not (lessons.md 1.17, features 22).
//!
//! What a party owes follows from the offers and answers in force: see `MediaTable::owes`. Before
//! the answer only the callee owes, once its early description is in force: it has announced media,
//! while many callers send nothing before they are answered. What counts as a sign of life is any
//! sound packet from the party's address, comfort noise, events and packets that a hold keeps back
//! among them, and RTCP but for a BYE: by RFC 3550 6.3.5 a participant is there as long as it sends
//! RTP or RTCP, and one that suppresses silence may send nothing else for minutes.
//!
//! One timer for each call, not for each packet: when it fires, the time of the last packet is
//! looked at, and the timer is set to when that could be too long ago.

use std::time::Duration;

use ravelin_contract::audit::Severity;
use ravelin_policy::{MediaAction, RtpTimeout};

use super::{
    attempt::arm,
    call::{Call, Phase},
    leg::Side,
    release,
};
use crate::{
    cause::Cause,
    core::{Core, Turn},
    records::EventBuilder,
    time::Instant,
    timer::{CallTimer, TimerId},
};

/// What a call knows of the silence of its parties.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Silence {
    /// When the media was agreed last: silence is counted from here.
    since: Instant,
    caller: Party,
    callee: Party,
}

#[derive(Clone, Copy, Debug, Default)]
struct Party {
    /// Silent for too long since then; `None`: heard.
    silent_after: Option<Instant>,
    /// The alarm was given. Once for each direction of a call.
    told: bool,
}

impl Silence {
    fn of(&mut self, side: Side) -> &mut Party {
        match side {
            Side::Caller => &mut self.caller,
            Side::Callee => &mut self.callee,
        }
    }
}

/// An offer was answered, or a call: both parties get their full time again.
pub(crate) fn agreed(core: &mut Core, call: &mut Call, turn: &Turn<'_>) {
    if let Some(anchor) = &call.anchor {
        core.media.own(anchor, call.key, call.is_emergency());
    }
    call.silence.since = turn.now.mono;
    call.silence.caller.silent_after = None;
    call.silence.callee.silent_after = None;
    watch(core, call, turn);
}

/// The time after which `side` has been silent for too long, as its trunk says.
fn allowed(call: &Call, side: Side) -> Option<RtpTimeout> {
    call.loadout.snapshot.trunk(call.trunk(side)?)?.media.rtp_timeout
}

/// What `side` is allowed, if it owes packets now.
fn owed(core: &Core, call: &Call, side: Side) -> Option<RtpTimeout> {
    let anchor = call.anchor.as_ref()?;
    let late = core.media.heard_late_by(anchor, side);
    let due = match call.phase {
        Phase::Answered => true,
        Phase::Ringing => side == Side::Callee,
        Phase::Verifying | Phase::Routing | Phase::Ending => false,
    };
    allowed(call, side)
        .filter(|_| due && core.media.owes(anchor, side))
        .map(|timeout| RtpTimeout { after: timeout.after + late, ..timeout })
}

/// When `side` was heard last, the agreement counting as a sign of life.
fn heard(core: &Core, call: &Call, side: Side) -> Instant {
    let last = call.anchor.as_ref().and_then(|anchor| core.media.last_packet(anchor, side));
    last.unwrap_or_default().max(call.silence.since)
}

/// Sets the timer to when a party could have been silent for too long.
fn watch(core: &mut Core, call: &mut Call, turn: &Turn<'_>) {
    core.wheel.cancel(call.timers.silence);
    call.timers.silence = TimerId::NEVER;
    let now = turn.now.mono;
    let mut next: Option<Duration> = None;
    for side in [Side::Caller, Side::Callee] {
        let Some(timeout) = owed(core, call, side) else { continue };
        // Of one that is known to be silent: whether it is heard again.
        let from = if call.silence.of(side).silent_after.is_some() {
            now
        } else {
            heard(core, call, side)
        };
        let wait = (from + timeout.after).since(now);
        next = Some(next.map_or(wait, |other| other.min(wait)));
    }
    if let Some(wait) = next {
        call.timers.silence = arm(core, turn, call.key, wait, CallTimer::Silence);
    }
}

/// The timer has fired.
pub(crate) fn look(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>) {
    call.timers.silence = TimerId::NEVER;
    for side in [Side::Caller, Side::Callee] {
        if call.end.is_some() {
            return;
        }
        let Some(timeout) = owed(core, call, side) else { continue };
        let heard = heard(core, call, side);
        let party = call.silence.of(side);
        if turn.now.mono < heard + timeout.after {
            party.silent_after = None;
        } else if party.silent_after != Some(heard) {
            party.silent_after = Some(heard);
            silent(core, call, turn, side, timeout, heard);
        }
    }
    if call.end.is_none() {
        watch(core, call, turn);
    }
}

/// `side` has been silent for too long.
fn silent(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    side: Side,
    timeout: RtpTimeout,
    heard: Instant,
) {
    // No emergency call is ever ended for it (EM rule 10).
    let action = match timeout.action {
        MediaAction::Bye if call.is_emergency() => MediaAction::Alarm,
        action => action,
    };
    core.counters.rtp_timeout(action);
    if let Some(anchor) = &call.anchor {
        core.media.note_silence(anchor, side, heard);
    }
    let told = std::mem::replace(&mut call.silence.of(side).told, true);
    if action != MediaAction::Nothing && !told {
        let event = event(core, call, turn, side, action, turn.now.mono.since(heard));
        core.records.audit(event, call.is_emergency());
    }
    if action == MediaAction::Bye {
        if call.phase == Phase::Answered {
            release::hang_up(core, call, turn, None, Cause::MediaTimeout);
        } else {
            let status = Cause::MediaTimeout.status();
            release::refuse(core, call, turn, status, Cause::MediaTimeout, None);
        }
    }
}

fn event(
    core: &Core,
    call: &Call,
    turn: &Turn<'_>,
    side: Side,
    action: MediaAction,
    silent: Duration,
) -> ravelin_contract::audit::AuditEvent {
    let snapshot = &call.loadout.snapshot;
    let trunk = call.trunk(side).and_then(|id| snapshot.trunk(id)).map(|trunk| trunk.id.clone());
    let ended = action == MediaAction::Bye;
    EventBuilder::new("media.timeout", Severity::Alarm, turn.now, snapshot.version, core.shard.0)
        .call(call.id_text())
        .field("party", if side == Side::Caller { "caller" } else { "callee" })
        .field("trunk", trunk)
        .field("silent_ms", u64::try_from(silent.as_millis()).unwrap_or(u64::MAX))
        .field("early", call.answer_at.is_none())
        .field("emergency", call.is_emergency())
        .field("action", if ended { "bye" } else { "alarm" })
        .done()
}
