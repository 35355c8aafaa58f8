//! What the answers to an attempt mean: ringing, refusals, the answer, answers that come too late.

use std::sync::Arc;

use ravelin_wire::sip::{Framing, Message};

use super::{
    attempt::{abandon, advance, arm},
    call::{AttemptState, Call, Phase, TURNED_DOWN_MAX, branch_of},
    failure,
    ladder::Peer,
    leg::Leg,
    release,
    sdp::{self, Carried, Crossing, LegMedia, Role},
    silence,
};
use crate::{
    cause::Cause,
    core::{Core, Turn},
    counters::MethodLabel,
    emergency::{self, walk},
    media::Side,
    port::Meta,
    route,
    timer::CallTimer,
};

/// A provisional response to an attempt.
pub(crate) fn provisional(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    index: usize,
    message: &Message<'_>,
) {
    let Some(code) = message.code() else { return };
    heard(call, turn, index);
    let Some(attempt) = call.attempts.get_mut(index) else { return };
    let number = attempt.number;
    // 199 tells of a branch of a fork that is gone (RFC 6228); the caller has one dialog with us, not
    // with each branch, and did not ask for it: its option tag does not pass.
    let ringing = code > 100 && code != 199;
    if attempt.state == AttemptState::Calling {
        let before = attempt.progress;
        attempt.progress = match (before, ringing) {
            (walk::Progress::Ringing, _) | (_, true) => walk::Progress::Ringing,
            _ => walk::Progress::Trying,
        };
        if attempt.progress != before {
            core.wheel.cancel(attempt.timer);
            let age = turn.now.mono.since(attempt.started);
            let wait = if call.emergency.is_some() {
                walk::patience(attempt.progress, age)
                    .filter(|_| attempt.progress == walk::Progress::Trying)
            } else {
                None
            };
            if let Some(wait) = wait {
                let timer = arm(core, turn, call.key, wait, CallTimer::Attempt(number));
                if let Some(attempt) = call.attempts.get_mut(index) {
                    attempt.timer = timer;
                }
            }
        }
    }
    call.note_received(turn.now.mono, Peer::Callee(number), message);
    let Some(attempt) = call.attempts.get_mut(index) else { return };
    if !ringing
        || attempt.state != AttemptState::Calling
        || !matches!(call.phase, Phase::Routing | Phase::Ringing)
    {
        return;
    }
    attempt.ring_at.get_or_insert(turn.now.mono);
    if let Some(tag) = message.to().tag() {
        attempt.leg.dialog.set_remote_tag(tag);
        attempt.leg.dialog.retarget(message);
        attempt.leg.dialog.learn_routes(message, true);
    }
    let mut body = core.pool.take();
    let carried = carry_to_caller(core, call, turn, index, message, &mut body);
    let carried = carried.unwrap_or_else(|_| {
        // A description that cannot be used is no reason to lose the ringing.
        body.clear();
        Carried::default()
    });
    if carried.description
        && let Some(anchor) = &mut call.anchor
    {
        core.media.commit(turn.now.mono, anchor);
    }
    if call.phase == Phase::Routing {
        call.phase = Phase::Ringing;
        call.ring_at = Some(turn.now.mono);
        if !call.is_emergency() {
            let ring = core.limits.ring;
            call.timers.ring = arm(core, turn, call.key, ring, CallTimer::Ring);
        }
    }
    if carried.description {
        silence::agreed(core, call, turn);
        failure::agreed(core, call, turn);
    }
    let tag = message.to().tag().unwrap_or_default();
    call.show_branch(core, number, tag, carried.description);
    if carried.description {
        call.heard_branch(core, number, message);
    }
    release::respond_caller(core, call, turn, code, Some((index, message, &body)), None);
    core.pool.give(body);
}

/// Carries the body of a response of attempt `index` toward the caller.
pub(crate) fn carry_to_caller(
    core: &mut Core,
    call: &mut Call,
    turn: &Turn<'_>,
    index: usize,
    message: &Message<'_>,
    body: &mut Vec<u8>,
) -> Result<Carried, Cause> {
    let places = call.places(core, index);
    let loadout = Arc::clone(&call.loadout);
    let role = if call.early_offer { Role::Answer } else { Role::Offer };
    let Call { anchor, caller, attempts, inbound, source, emergency: route, .. } = call;
    let attempt = attempts.get_mut(index).ok_or(Cause::Internal)?;
    let media = [*inbound, Some(attempt.trunk)].map(|id| LegMedia::of(&loadout.snapshot, id));
    let crossing = Crossing {
        now: turn.now.mono,
        from: Side::Callee,
        places,
        anchor,
        role: Some(role),
        sender: &mut attempt.leg.description,
        receiver: &mut caller.description,
        media,
        near: [source.ip(), attempt.target.ip()],
        passage: route.as_ref(),
        first: false,
        asked_for: false,
        others: false,
    };
    let carried = sdp::carry(core, message, crossing, body)?;
    emergency::described(core, call, turn, Side::Callee, carried.oddities);
    Ok(carried)
}

/// The first final response to an attempt.
pub(crate) fn last(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    index: usize,
    message: &Message<'_>,
) {
    let Some(code) = message.code() else { return };
    if code != 503 {
        heard(call, turn, index);
    }
    let Some(attempt) = call.attempts.get_mut(index) else { return };
    let number = attempt.number;
    core.wheel.cancel(attempt.timer);
    attempt.leg.negotiation.invite_out_over();
    call.note_received(turn.now.mono, Peer::Callee(number), message);
    if (200..300).contains(&code) {
        return answered(core, call, turn, index, message);
    }
    let was = call.attempts.get(index).map(|attempt| attempt.state);
    if was == Some(AttemptState::Calling) && wants_plain(call, index, code) {
        call.plan.step_back();
    }
    close(core, call, turn, index, code, Cause::FarSideRefused);
    failed(core, call, turn, was, code, Cause::FarSideRefused, Some(message));
}

/// Whether the target of an emergency call may have refused it for the encryption that our trunk asks
/// for: it is asked once more, without.
fn wants_plain(call: &mut Call, index: usize, code: u16) -> bool {
    matches!(code, 406 | 415 | 488 | 606) && gives_up_encryption(call, index)
}

/// Whether an emergency call encrypted with this target: it will not the next time.
fn gives_up_encryption(call: &mut Call, index: usize) -> bool {
    let Some(attempt) = call.attempts.get(index) else { return false };
    let encrypted = call.emergency.is_some()
        && matches!(call.phase, Phase::Routing | Phase::Ringing)
        && attempt.leg.description.encrypts();
    if encrypted {
        call.plain_way = Some((attempt.way.trunk, attempt.way.target));
    }
    encrypted
}

/// Notes that the target of an attempt answered: it is alive, whatever its probes say.
fn heard(call: &Call, turn: &Turn<'_>, index: usize) {
    let Some(attempt) = call.attempts.get(index) else { return };
    let gauge = call.loadout.gauges.get(usize::from(attempt.trunk.0));
    let target = gauge.and_then(|gauge| gauge.targets().get(usize::from(attempt.way.target)));
    if let Some(target) = target {
        target.heard(turn.now.mono);
    }
}

/// An attempt ended without an answer from the far side: timer B, or nothing could be sent.
pub(crate) fn lost(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    index: usize,
    cause: Cause,
) {
    let was = call.attempts.get(index).map(|attempt| attempt.state);
    close(core, call, turn, index, 0, cause);
    failed(core, call, turn, was, cause.status(), cause, None);
}

/// Notes the end of an attempt that was not answered, and gives back what it held.
pub(crate) fn close(
    core: &mut Core,
    call: &mut Call,
    turn: &Turn<'_>,
    index: usize,
    status: u16,
    cause: Cause,
) {
    let Some(attempt) = call.attempts.get_mut(index) else { return };
    core.wheel.cancel(attempt.timer);
    attempt.client = None;
    attempt.permit = None;
    attempt.end_at.get_or_insert(turn.now.mono);
    // An attempt given up earlier keeps the reason for that.
    if attempt.state != AttemptState::Abandoned {
        attempt.status = status;
        attempt.cause = cause;
    }
    attempt.state = AttemptState::Failed;
}

/// What the failure of an attempt does to the call.
fn failed(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    was: Option<AttemptState>,
    code: u16,
    cause: Cause,
    message: Option<&Message<'_>>,
) {
    // Given up before: whoever gave it up has already decided how the call goes on.
    if was == Some(AttemptState::Abandoned)
        || !matches!(call.phase, Phase::Routing | Phase::Ringing)
    {
        return;
    }
    if call.is_emergency() {
        emergency::attempt_failed(core, call, turn, code);
        return advance(core, call, turn, None);
    }
    let (told, mut told_cause) = match message {
        Some(_) => route::told(code),
        None => (code, cause),
    };
    let search = call.phase == Phase::Routing
        && (message.is_none() || route::meaning(code) == route::Meaning::Next);
    if message.is_none() {
        told_cause = cause;
    }
    call.last_failure = (told, told_cause);
    let passed = message.filter(|_| told == code);
    if search {
        advance(core, call, turn, passed);
    } else {
        release::refuse(core, call, turn, told, told_cause, passed);
    }
}

/// A 2xx to an attempt. The first one wins, whatever had been decided about its attempt; every
/// other is acknowledged and hung up (RFC 3261 13.2.2.4, EM-53).
fn answered(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    index: usize,
    message: &Message<'_>,
) {
    let waiting = matches!(call.phase, Phase::Routing | Phase::Ringing) && call.winner.is_none();
    let Some(attempt) = call.attempts.get_mut(index) else { return };
    let dialog = &mut attempt.leg.dialog;
    dialog.set_remote_tag(message.to().tag().unwrap_or_default());
    dialog.retarget(message);
    dialog.learn_routes(message, true);
    attempt.leg.find_way();
    if !waiting {
        return turn_down(core, call, turn, index);
    }
    let mut body = core.pool.take();
    match carry_to_caller(core, call, turn, index, message, &mut body) {
        Ok(carried) => {
            if !carried.description {
                confirm(core, call, turn, index, message);
            }
            take_answer(core, call, turn, index, message, &carried, &body);
        }
        Err(cause) => {
            turn_down(core, call, turn, index);
            let was = Some(AttemptState::Calling);
            if let Some(attempt) = call.attempts.get_mut(index) {
                attempt.status = 200;
                attempt.cause = cause;
            }
            // Keys that we cannot use are as good as a refusal of ours.
            let keys = matches!(cause, Cause::NoCommonEncryption | Cause::EncryptionRequired);
            if keys && gives_up_encryption(call, index) {
                call.plan.step_back();
            }
            failed(core, call, turn, was, cause.status(), cause, None);
        }
    }
    core.pool.give(body);
}

/// A 2xx without a description confirms the dialog of its own branch (RFC 3261 13.2.2.4), and what that
/// branch said in an 18x counts as its answer: its media takes the place of that of the branch which was
/// heard last. One that has said nothing has none, and what another branch said is not meant for it;
/// only an emergency call keeps what it has, for a silent one helps nobody.
fn confirm(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    index: usize,
    message: &Message<'_>,
) {
    let Some(number) = call.attempts.get(index).map(|attempt| attempt.number) else { return };
    let branch = branch_of(number, message.to().tag().unwrap_or_default());
    // An 18x without a tag (RFC 2543 allowed that) is of whichever branch answers.
    let untagged = branch_of(number, b"");
    if call.forks.is_empty() || [branch, untagged].map(Some).contains(&call.heard) {
        return;
    }
    let known = call.forks.iter_mut().find(|fork| fork.branch == branch);
    let said = known.map(|fork| std::mem::take(&mut fork.said)).unwrap_or_default();
    let mut body = core.pool.take();
    let carried = match Message::parse(&said, Framing::Datagram) {
        Ok(before) => carry_to_caller(core, call, turn, index, &before, &mut body),
        Err(_) => Ok(Carried::default()),
    };
    core.pool.give(body);
    core.pool.give(said);
    let described = carried.is_ok_and(|carried| carried.description);
    if let Some(anchor) = &mut call.anchor {
        if described {
            core.media.commit(turn.now.mono, anchor);
            call.heard = Some(branch);
        } else if call.emergency.is_none() {
            core.media.hang_up_callee(turn.now.mono, anchor);
            call.heard = None;
        }
    }
}

/// Acknowledges the 2xx of an attempt that is not wanted any more, and hangs it up.
fn turn_down(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>, index: usize) {
    let Some(attempt) = call.attempts.get_mut(index) else { return };
    attempt.client = None;
    attempt.permit = None;
    attempt.end_at.get_or_insert(turn.now.mono);
    attempt.state = AttemptState::Failed;
    attempt.status = 200;
    let number = attempt.number;
    let cseq = attempt.leg.dialog.local_cseq;
    let tu = call.tu();
    let Some(attempt) = call.attempts.get_mut(index) else { return };
    release::send_ack(core, turn, &mut attempt.leg, cseq, &[]);
    release::send_bye(core, turn, &mut attempt.leg, tu, Cause::Cancelled, None);
    call.note(turn.now.mono, Peer::Callee(number), false, MethodLabel::Ack, 0);
    call.note(turn.now.mono, Peer::Callee(number), false, MethodLabel::Bye, 0);
}

/// The call is answered.
fn take_answer(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    index: usize,
    message: &Message<'_>,
    carried: &Carried,
    body: &[u8],
) {
    let now = turn.now.mono;
    if carried.description
        && let Some(anchor) = &mut call.anchor
    {
        core.media.commit(turn.now.mono, anchor);
    }
    if let Some(anchor) = &mut call.anchor {
        core.media.forget_left(now, anchor);
    }
    call.winner = Some(index);
    call.phase = Phase::Answered;
    call.answer_at = Some(now);
    silence::agreed(core, call, turn);
    failure::agreed(core, call, turn);
    core.wheel.cancel(call.timers.ring);
    core.wheel.cancel(call.timers.restart);
    let Some(attempt) = call.attempts.get_mut(index) else { return };
    attempt.state = AttemptState::Answered;
    attempt.answer_at = Some(now);
    attempt.end_at = None;
    attempt.status = message.code().unwrap_or(200);
    attempt.cause = Cause::Released;
    let number = attempt.number;
    let leg = &mut attempt.leg;
    let cseq = leg.dialog.local_cseq;
    // Without an offer in the INVITE, the 2xx has it, and the caller's ACK the answer.
    let late = !call.early_offer;
    if late && carried.description {
        leg.negotiation.offer_received();
        leg.ack_due = Some(cseq);
        call.caller.negotiation.offer_sent();
    } else {
        leg.negotiation.answered();
        call.caller.negotiation.answered();
        release::send_ack(core, turn, leg, cseq, &[]);
        call.note(now, Peer::Callee(number), false, MethodLabel::Ack, 0);
    }
    for other in 0..call.attempts.len() {
        if other != index {
            abandon(
                core,
                call,
                turn,
                other,
                Cause::Cancelled,
                b"SIP;cause=200;text=\"Call completed elsewhere\"",
            );
        }
    }
    // Without a description before, the first dialog is as good as any.
    if !call.forks.is_empty() {
        let tag = message.to().tag().unwrap_or_default();
        call.show_branch(core, number, tag, call.heard.is_none() || carried.description);
    }
    call.forget_branches(core);
    release::accept_caller(core, call, turn, index, message, body);
    if call.is_emergency() {
        emergency::answered(core, call, turn, index);
    } else {
        let longest = core.limits.call_duration;
        call.timers.max_duration = arm(core, turn, call.key, longest, CallTimer::MaxDuration);
    }
}

/// A further 2xx to an INVITE of this call: of the dialog that we have, it wants its ACK again; of
/// another branch of a fork, it is acknowledged and hung up.
pub(crate) fn further_2xx(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    meta: &Meta,
    message: &Message<'_>,
) {
    let tag = message.to().tag().unwrap_or_default();
    let call_id = message.call_id();
    let cseq = message.cseq().number;
    let ours =
        |leg: &Leg| leg.dialog.call_id() == call_id && leg.dialog.remote_tag.as_slice() == tag;
    let known = if ours(&call.caller) {
        Some(&mut call.caller)
    } else {
        call.attempts.iter_mut().map(|attempt| &mut attempt.leg).find(|leg| ours(leg))
    };
    match known {
        // The answer is still to come from the other side; the ACK waits for it.
        Some(leg) if leg.ack_due == Some(cseq) => {}
        Some(leg) => {
            let body = std::mem::take(&mut leg.ack_body);
            let tail = if leg.ack_body_cseq == cseq { body.as_slice() } else { &[] };
            release::send_ack(core, turn, leg, cseq, tail);
            leg.ack_body = body;
        }
        None => {
            let again = call.turned_down.iter().any(|known| known.as_slice() == tag);
            release::turn_down_stranger(core, turn, meta, message, !again);
            if !again && call.turned_down.len() < TURNED_DOWN_MAX {
                call.turned_down.push(tag.into());
            }
        }
    }
}
