//! The outcome of requests inside a call: responses to what was passed on, and ACKs.

use ravelin_wire::sip::Message;

use super::{
    call::{Call, Phase},
    compose::write_content,
    failure,
    headers::write_body_headers,
    leg::{AckExpected, Goodbye, RelayMethod, Side},
    release,
    respond::Response,
    sdp::{Oddities, Oddity, Role},
    silence,
    within::carry,
};
use crate::{
    cause::Cause,
    core::{Core, Turn, ctx},
    counters::MethodLabel,
    emergency,
    sip::transaction::ServerKey,
};

/// A provisional response to a relayed request: only that of a re-INVITE says anything.
pub(crate) fn provisional(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    index: usize,
    message: &Message<'_>,
) {
    let Some(relay) = call.relays.get(index) else { return };
    let (from, code) = (relay.from, message.code().unwrap_or(0));
    let peer = call.peer(from.other());
    call.note_received(turn.now.mono, peer, message);
    let Some(relay) = call.relays.get(index) else { return };
    if code <= 100 || relay.method != RelayMethod::Invite {
        return;
    }
    answer(core, call, turn, index, code, Some((message, &[])), None);
}

/// The final response to a relayed request.
pub(crate) fn last(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    index: usize,
    message: &Message<'_>,
) {
    let Some(code) = message.code() else { return };
    let Some(relay) = call.relays.get(index) else { return };
    let (from, method, offer) = (relay.from, relay.method, relay.offer);
    let (cseq_in, cseq_out, server) = (relay.cseq_in, relay.cseq_out, relay.server);
    let peer = call.peer(from.other());
    call.note_received(turn.now.mono, peer, message);
    let accepted = code < 300;
    let mut body = core.pool.take();
    let mut code = code;
    let mut own = None;
    let mut description = false;
    // An UPDATE without an offer asks for none (RFC 3311 5.2).
    let described = offer || method == RelayMethod::Invite;
    if accepted && method.refreshes_target() && described {
        let role = if offer { Role::Answer } else { Role::Offer };
        match carry(core, call, turn, from.other(), Some(role), message, &mut body) {
            Ok(carried) => description = carried.description,
            Err(cause) => {
                // The other party agreed to what cannot be carried. It stays with what it agreed
                // to, the asker hears of the failure and decides.
                code = cause.status();
                own = Some(cause);
                body.clear();
                if let Some(anchor) = &mut call.anchor {
                    anchor.roll_back();
                }
            }
        }
    }
    settle(
        core,
        call,
        turn,
        Settled { from, method, offer, cseq_out, accepted, description, message },
    );
    if accepted && own.is_none() && method == RelayMethod::Invite {
        let late = !offer && description;
        if let Some(leg) = call.leg_mut(from) {
            leg.ack_expected = Some(AckExpected { server, cseq: cseq_in });
            if !late {
                leg.negotiation.invite_in_over();
            }
        }
    }
    let passed = own.is_none().then_some((message, &body[..]));
    answer(core, call, turn, index, code, passed, own);
    core.pool.give(body);
    remove(core, call, index);
    // RFC 3261 12.2.1.2: the other party knows nothing of this dialog any more.
    let confirmed = call.phase == Phase::Answered;
    if confirmed && matches!(code, 481 | 408) && method.refreshes_target() && own.is_none() {
        release::hang_up(core, call, turn, None, Cause::DialogTimeout);
    }
}

/// The outcome of a relayed request.
struct Settled<'m> {
    from: Side,
    method: RelayMethod,
    offer: bool,
    cseq_out: u32,
    accepted: bool,
    description: bool,
    message: &'m Message<'m>,
}

/// Brings both legs' offer/answer state, and the media, to where the outcome puts them.
fn settle(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>, settled: Settled<'_>) {
    if !settled.method.refreshes_target() {
        return;
    }
    let invite = settled.method == RelayMethod::Invite;
    if !invite && !settled.offer {
        // An UPDATE that changes no description leaves the exchange of another request alone.
        if settled.accepted
            && let Some(other) = call.leg_mut(settled.from.other())
        {
            other.retarget(settled.message);
        }
        return;
    }
    let late = invite && settled.accepted && !settled.offer && settled.description;
    if let Some(asker) = call.leg_mut(settled.from) {
        match (settled.accepted, late) {
            (true, true) => asker.negotiation.offer_sent(),
            (true, false) => asker.negotiation.answered(),
            (false, _) => {
                asker.negotiation.refused();
                if invite {
                    asker.negotiation.invite_in_over();
                }
            }
        }
    }
    if let Some(other) = call.leg_mut(settled.from.other()) {
        if invite {
            other.negotiation.invite_out_over();
        }
        match (settled.accepted, late) {
            (true, true) => other.negotiation.offer_received(),
            (true, false) => other.negotiation.answered(),
            (false, _) => other.negotiation.refused(),
        }
        if settled.accepted {
            other.retarget(settled.message);
            if late {
                other.ack_due = Some(settled.cseq_out);
            } else if invite {
                release::send_ack(core, turn, other, settled.cseq_out, &[]);
            }
        }
    }
    match &mut call.anchor {
        Some(anchor) if !settled.accepted => anchor.roll_back(),
        Some(anchor) if !late => {
            core.media.commit(turn.now.mono, anchor);
            silence::agreed(core, call, turn);
            failure::agreed(core, call, turn);
        }
        _ => {}
    }
}

/// A relayed request got no answer.
pub(crate) fn lost(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    index: usize,
    cause: Cause,
) {
    let Some(relay) = call.relays.get(index) else { return };
    let (from, method) = (relay.from, relay.method);
    let exchange = relay.offer || method == RelayMethod::Invite;
    if let Some(anchor) = &mut call.anchor
        && relay.offer
    {
        anchor.roll_back();
    }
    for side in [Side::Caller, Side::Callee] {
        if let Some(leg) = call.leg_mut(side)
            && exchange
        {
            leg.negotiation.refused();
            if method == RelayMethod::Invite {
                leg.negotiation.invite_out_over();
            }
        }
    }
    if method == RelayMethod::Invite
        && let Some(leg) = call.leg_mut(from)
    {
        leg.negotiation.invite_in_over();
    }
    core.counters.refusal(cause);
    answer(core, call, turn, index, cause.status(), None, Some(cause));
    remove(core, call, index);
    // RFC 3261 12.2.1.2: a party that answers nothing is gone. Emergency calls are ended by their
    // parties alone (EM-61).
    let confirmed = call.phase == Phase::Answered;
    if confirmed && method.refreshes_target() && !call.is_emergency() {
        release::hang_up(core, call, turn, None, Cause::DialogTimeout);
    }
}

fn remove(core: &mut Core, call: &mut Call, index: usize) {
    if index < call.relays.len() {
        let relay = call.relays.remove(index);
        core.pool.give(relay.head);
    }
}

/// Answers the party that asked.
fn answer(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    index: usize,
    code: u16,
    passed: Option<(&Message<'_>, &[u8])>,
    cause: Option<Cause>,
) {
    let Some(relay) = call.relays.get(index) else { return };
    let (Some(own), Some(other)) = (call.leg(relay.from), call.leg(relay.from.other())) else {
        return;
    };
    // A challenge is for us, not for the other party (lessons.md 2.16).
    let code = if matches!(code, 401 | 407) { 403 } else { code };
    let refreshes = relay.method.refreshes_target() && (101..300).contains(&code);
    let response = Response {
        contact: core
            .listeners
            .get(usize::from(own.listener.0))
            .filter(|_| refreshes)
            .map(|listener| (listener, own.user.as_slice())),
        passed: passed.map(|(message, body)| (message, other.hide(own), body)),
        cause,
        ..Response::own(code, &relay.head)
    };
    let context = &mut crate::sip::transaction::Ctx {
        wheel: &mut core.wheel,
        tx: turn.out,
        counters: &mut core.counters,
    };
    let _ = core.layer.respond(turn.now.mono, relay.server, code, context, |out| {
        response.write(out);
        Ok::<(), ()>(())
    });
    let label = MethodLabel::of(relay.method.method().as_bytes());
    let peer = call.peer(relay.from);
    call.note(turn.now.mono, peer, false, label, code);
}

/// An ACK of one party: it ends the wait for it, carries a late answer on, and lets a BYE out that
/// waited for it. False: it is for nothing that we wait for.
pub(crate) fn ack(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    message: &Message<'_>,
    side: Side,
) -> bool {
    let expected = call.leg(side).and_then(|leg| leg.ack_expected);
    let Some(expected) = expected.filter(|expected| expected.cseq == message.cseq().number) else {
        return false;
    };
    let peer = call.peer(side);
    call.note_received(turn.now.mono, peer, message);
    core.layer.ack_received(expected.server, ctx!(core, turn));
    if let Some(leg) = call.leg_mut(side) {
        leg.ack_expected = None;
        leg.negotiation.invite_in_over();
    }
    let due = call.leg(side.other()).and_then(|leg| leg.ack_due);
    if let Some(cseq) = due
        && call.phase == Phase::Answered
    {
        late_answer(core, call, turn, message, side, cseq);
    }
    if call.leg(side).is_some_and(|leg| leg.goodbye == Goodbye::WhenAcknowledged) {
        let cause = call.end.map_or(Cause::Released, |end| end.cause);
        release::say_goodbye(core, call, turn, side, cause, None);
    }
    true
}

/// The ACK to a 2xx that had the offer: its answer goes on in our ACK to the other party.
fn late_answer(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    message: &Message<'_>,
    side: Side,
    cseq: u32,
) {
    let mut body = core.pool.take();
    let mut tail = core.pool.take();
    let carried = carry(core, call, turn, side, Some(Role::Answer), message, &mut body);
    let good = carried.is_ok_and(|carried| carried.description);
    if good {
        write_body_headers(message, &mut tail);
        write_content(&body, &mut tail);
        if let Some(anchor) = &mut call.anchor {
            core.media.commit(turn.now.mono, anchor);
        }
        silence::agreed(core, call, turn);
        failure::agreed(core, call, turn);
    }
    core.pool.give(body);
    for leg in [side, side.other()] {
        if let Some(leg) = call.leg_mut(leg) {
            leg.negotiation.answered();
        }
    }
    let peer = call.peer(side.other());
    if let Some(other) = call.leg_mut(side.other()) {
        other.ack_due = None;
        release::send_ack(core, turn, other, cseq, &tail);
        other.ack_body_cseq = cseq;
        let old = std::mem::replace(&mut other.ack_body, tail);
        core.pool.give(old);
    }
    call.note(turn.now.mono, peer, false, MethodLabel::Ack, 0);
    if !good && call.is_emergency() {
        // Its end is for the parties to say (EM-61).
        let mut found = Oddities::default();
        found.note(Oddity::Unanswered);
        return emergency::described(core, call, turn, side, found);
    }
    if !good {
        // An offer without an answer leaves both parties without media.
        release::hang_up(core, call, turn, None, Cause::NotAcceptable);
    }
}

/// Nobody acknowledged our 2xx for 64*T1 (RFC 3261 13.3.1.4): the party is gone. An emergency call
/// stays up (EM-61).
pub(crate) fn ack_timeout(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    server: ServerKey,
) {
    for side in [Side::Caller, Side::Callee] {
        let Some(leg) = call.leg_mut(side) else { continue };
        if leg.ack_expected.is_none_or(|expected| expected.server != server) {
            continue;
        }
        leg.ack_expected = None;
        leg.negotiation.invite_in_over();
        if leg.goodbye == Goodbye::WhenAcknowledged {
            let cause = call.end.map_or(Cause::AckTimeout, |end| end.cause);
            return release::say_goodbye(core, call, turn, side, cause, None);
        }
        if call.is_emergency() {
            return crate::emergency::unacknowledged(core, call, turn, side);
        }
        return release::hang_up(core, call, turn, None, Cause::AckTimeout);
    }
}
