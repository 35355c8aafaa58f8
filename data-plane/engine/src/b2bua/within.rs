//! Requests inside a call: re-INVITE, UPDATE, INFO, MESSAGE, OPTIONS, BYE, ACK. What one party asks,
//! the other answers; glare is decided by the state of both legs (RFC 3261 14, RFC 3311 5.2).

use ravelin_wire::sip::{HeaderName, Message, Method};

use super::{
    call::{Call, Phase},
    compose::{write_content, write_no_body},
    headers::{write_body_headers, write_passed},
    leg::{AckExpected, Goodbye, Relay, RelayMethod, Side},
    offer::Glare,
    release,
    respond::{Response, write_head},
    sdp::{self, Carried, Crossing},
};
use crate::{
    cause::Cause,
    core::{Core, Turn, ctx},
    counters::MethodLabel,
    limits::RELAYS_PER_CALL_MAX,
    port::Meta,
    sip::{
        reply::response_egress,
        transaction::{NewRequest, Room, ServerKey},
    },
};

/// A request of one party that has its transaction.
struct Asked<'m> {
    side: Side,
    server: ServerKey,
    message: &'m Message<'m>,
    meta: &'m Meta,
}

/// A new request inside a dialog of this call.
pub(crate) fn request(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    meta: &Meta,
    message: &Message<'_>,
    new: NewRequest,
    side: Side,
) {
    let Some(method) = message.method() else { return };
    let now = turn.now.mono;
    let peer = call.peer(side);
    call.note_received(now, peer, message);
    let Some(reply) = response_egress(meta, &message.top_via()) else { return };
    let opened = core.layer.open(new, method, reply, Room::Reserved, ctx!(core, turn));
    let Ok(server) = opened else {
        let _ = core.stateless.refuse(
            now,
            meta,
            message,
            Cause::TransactionsFull,
            &[],
            ctx!(core, turn),
        );
        return;
    };
    core.layer.set_owner(server, call.tu());
    let asked = Asked { side, server, message, meta };
    let fresh = call.leg_mut(side).is_some_and(|leg| leg.dialog.take_cseq(message.cseq().number));
    // RFC 3261 12.2.2 asks for 500 on any request out of order. A BYE is the exception here: its
    // sender counts the call as over whatever we answer (15.1.1), so to refuse one that another
    // request overtook would leave the other party in a call that nobody ends.
    if !fresh && method != Method::Bye {
        return refuse(core, call, turn, &asked, Cause::OutOfOrder);
    }
    match method {
        Method::Bye => bye(core, call, turn, &asked),
        Method::Options => {
            let response = Reply { code: 200, cause: None, allow: true, contact: true };
            respond(core, call, turn, &asked, response);
        }
        _ => match RelayMethod::of(method) {
            Some(relayed) => relay(core, call, turn, &asked, relayed),
            None => {
                let cause =
                    if method.is_other() { Cause::MethodUnknown } else { Cause::MethodNotAllowed };
                refuse(core, call, turn, &asked, cause);
            }
        },
    }
}

/// What we answer on our own.
struct Reply {
    code: u16,
    cause: Option<Cause>,
    allow: bool,
    contact: bool,
}

fn refuse(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>, asked: &Asked<'_>, cause: Cause) {
    core.counters.refusal(cause);
    let allow = matches!(cause, Cause::MethodNotAllowed | Cause::MethodUnknown);
    let reply = Reply { code: cause.status(), cause: Some(cause), allow, contact: false };
    respond(core, call, turn, asked, reply);
}

fn respond(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>, asked: &Asked<'_>, reply: Reply) {
    let mut head = core.pool.take();
    // The To of a request inside a dialog has our tag already.
    write_head(asked.message, asked.meta.source, b"", &mut head);
    let retry = match reply.cause {
        // RFC 3261 14.2: a random time of up to 10 s.
        Some(Cause::OutOfOrder) => {
            Some(u32::try_from(core.layer.identifiers().below(11)).unwrap_or(0))
        }
        Some(cause) if cause.status() == 503 => Some(release::RETRY_AFTER_S),
        _ => None,
    };
    let leg = call.leg(asked.side);
    let contact = leg.filter(|_| reply.contact).and_then(|leg| {
        Some((core.listeners.get(usize::from(leg.listener.0))?, leg.user.as_slice()))
    });
    let response = Response {
        cause: reply.cause,
        allow: reply.allow,
        contact,
        retry_after: retry,
        ..Response::own(reply.code, &head)
    };
    let context = &mut crate::sip::transaction::Ctx {
        wheel: &mut core.wheel,
        tx: turn.out,
        counters: &mut core.counters,
    };
    let _ = core.layer.respond(turn.now.mono, asked.server, reply.code, context, |out| {
        response.write(out);
        Ok::<(), ()>(())
    });
    core.pool.give(head);
    let label = MethodLabel::of(asked.message.cseq().method.as_bytes());
    call.note(turn.now.mono, call.peer(asked.side), false, label, reply.code);
}

/// A BYE: answered at once, whatever the other party says to ours (crossing BYEs both end well).
fn bye(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>, asked: &Asked<'_>) {
    let reply = Reply { code: 200, cause: None, allow: false, contact: false };
    respond(core, call, turn, asked, reply);
    if call.phase == Phase::Answered {
        // The ACK that was still to come from there is not coming any more.
        if let Some(leg) = call.leg_mut(asked.side)
            && let Some(expected) = leg.ack_expected.take()
        {
            core.layer.ack_received(expected.server, ctx!(core, turn));
        }
        return release::hang_up(
            core,
            call,
            turn,
            Some((asked.side, asked.message)),
            Cause::Released,
        );
    }
    if call.phase != Phase::Ending && asked.side == Side::Caller {
        // RFC 3261 15: the caller may end an early dialog by BYE.
        return release::refuse(core, call, turn, 487, Cause::Cancelled, None);
    }
    if let Some(leg) = call.leg_mut(asked.side)
        && leg.goodbye == Goodbye::WhenAcknowledged
    {
        leg.goodbye = Goodbye::Done;
        leg.ack_expected = None;
    }
}

/// Passes a request on to the other party.
fn relay(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    asked: &Asked<'_>,
    method: RelayMethod,
) {
    let cause = match check(call, asked, method) {
        Ok(()) => match pass_on(core, call, turn, asked, method) {
            Ok(()) => return,
            Err(cause) => cause,
        },
        Err(cause) => cause,
    };
    refuse(core, call, turn, asked, cause);
}

/// Whether a request can be passed on now.
fn check(call: &Call, asked: &Asked<'_>, method: RelayMethod) -> Result<(), Cause> {
    if call.phase != Phase::Answered {
        // Nobody to pass it on to, yet or any more.
        return Err(if call.phase == Phase::Ending { Cause::NoDialog } else { Cause::Glare });
    }
    if call.relays.len() >= RELAYS_PER_CALL_MAX {
        return Err(Cause::OutOfOrder);
    }
    let mut unsupported = Vec::new();
    super::headers::write_unsupported(asked.message, &mut unsupported);
    if !unsupported.is_empty() {
        return Err(Cause::BadExtension);
    }
    let (Some(own), Some(other)) = (call.leg(asked.side), call.leg(asked.side.other())) else {
        return Err(Cause::NoDialog);
    };
    if other.goodbye != Goodbye::No {
        return Err(Cause::NoDialog);
    }
    let glare = |found: Glare| match found {
        Glare::Pending => Cause::Glare,
        Glare::TryLater => Cause::OutOfOrder,
    };
    match method {
        RelayMethod::Invite => {
            own.negotiation.check_invite().map_err(glare)?;
            if own.ack_due.is_some() || !other.may_send_invite() {
                return Err(Cause::Glare);
            }
        }
        RelayMethod::Update => {
            let offer = !asked.message.body().is_empty();
            if offer {
                own.negotiation.check_offer().map_err(glare)?;
                if !other.negotiation.may_send_offer() {
                    return Err(Cause::Glare);
                }
            }
        }
        RelayMethod::Info | RelayMethod::Message => {}
    }
    Ok(())
}

/// Passes the request to the other party, body and all.
fn pass_on(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    asked: &Asked<'_>,
    method: RelayMethod,
) -> Result<(), Cause> {
    let mut body = core.pool.take();
    let sent = match carry(core, call, turn, asked.side, asked.message, &mut body) {
        // Hold is refused to the caller of an emergency call (EM-60).
        Ok(carried)
            if carried.description
                && !carried.both_ways
                && call.is_emergency()
                && asked.side == Side::Caller
                && method.refreshes_target() =>
        {
            Err(Cause::NotAcceptable)
        }
        Ok(carried) => {
            let offer = carried.description && method.refreshes_target();
            send(core, call, turn, asked, method, offer, &body)
        }
        Err(cause) => Err(cause),
    };
    core.pool.give(body);
    if sent.is_err()
        && method.refreshes_target()
        && let Some(anchor) = &mut call.anchor
    {
        anchor.roll_back();
    }
    sent
}

/// Writes and sends the request to the other party.
fn send(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    asked: &Asked<'_>,
    method: RelayMethod,
    offer: bool,
    body: &[u8],
) -> Result<(), Cause> {
    let message = asked.message;
    let hops = match message.max_forwards() {
        Some(0) => return Err(Cause::TooManyHops),
        Some(hops) => hops - 1,
        None => 70,
    };
    let reserved = core.layer.reserve_branch(Room::Reserved, ctx!(core, turn));
    let Ok((client, branch)) = reserved else { return Err(Cause::TransactionsFull) };
    let tu = call.tu();
    let (Call { caller, attempts, winner, .. }, side) = (&mut *call, asked.side);
    let callee = winner.and_then(|at| attempts.get_mut(at)).map(|won| &mut won.leg);
    let Some(callee) = callee else { return Err(Cause::NoDialog) };
    let (own, other) = if side == Side::Caller { (caller, callee) } else { (callee, caller) };
    let cseq = other.dialog.next_cseq();
    let hide = own.hide(other);
    let name = method.method().as_bytes();
    let Core { layer, listeners, wheel, counters, .. } = core;
    let Some(listener) = listeners.get(usize::from(other.listener.0)) else {
        return Err(Cause::Internal);
    };
    let context = &mut crate::sip::transaction::Ctx { wheel, tx: turn.out, counters };
    let dialog = &other.dialog;
    let sent =
        layer.request(turn.now.mono, client, method.method(), other.hop, tu, context, |out| {
            listener.write_request(name, &dialog.target, &branch, hops, out);
            dialog.write(cseq, name, out);
            if method.refreshes_target() {
                listener.write_contact(&other.user, out);
            }
            write_passed(message, hide, out);
            if body.is_empty() {
                write_no_body(out);
            } else {
                write_body_headers(message, out);
                write_content(body, out);
            }
            Ok::<(), ()>(())
        });
    if sent.is_err() {
        return Err(Cause::Internal);
    }
    match method {
        RelayMethod::Invite => {
            own.negotiation.invite_received(offer);
            other.negotiation.invite_sent(offer);
            own.retarget(message);
        }
        RelayMethod::Update => {
            if offer {
                own.negotiation.offer_received();
                other.negotiation.offer_sent();
            }
            own.retarget(message);
        }
        RelayMethod::Info | RelayMethod::Message => {}
    }
    let mut head = core.pool.take();
    write_head(message, asked.meta.source, b"", &mut head);
    if method == RelayMethod::Invite {
        trying(core, call, turn, asked, &head);
    }
    call.relays.push(Relay {
        from: side,
        method,
        server: asked.server,
        client,
        cseq_in: message.cseq().number,
        cseq_out: cseq,
        offer,
        head,
    });
    call.note(turn.now.mono, call.peer(side.other()), false, MethodLabel::of(name), 0);
    Ok(())
}

/// 100 to a re-INVITE: the other party may take its time (RFC 3261 17.2.1).
fn trying(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>, asked: &Asked<'_>, head: &[u8]) {
    let response = Response::own(100, head);
    let _ = core.layer.respond(turn.now.mono, asked.server, 100, ctx!(core, turn), |out| {
        response.write(out);
        Ok::<(), ()>(())
    });
    call.note(turn.now.mono, call.peer(asked.side), false, MethodLabel::Invite, 100);
}

/// Carries the body of a message of `side` to the other leg.
fn carry(
    core: &mut Core,
    call: &mut Call,
    turn: &Turn<'_>,
    side: Side,
    message: &Message<'_>,
    body: &mut Vec<u8>,
) -> Result<Carried, Cause> {
    let Some(index) = call.winner else { return Err(Cause::NoDialog) };
    let places = call.places(core, index);
    let Call { anchor, caller, attempts, emergency, .. } = call;
    let Some(won) = attempts.get_mut(index) else { return Err(Cause::NoDialog) };
    let description = match side {
        Side::Caller => &mut won.leg.description,
        Side::Callee => &mut caller.description,
    };
    let crossing = Crossing {
        now: turn.now.mono,
        from: side,
        places,
        anchor,
        description,
        passage: emergency.as_ref(),
    };
    sdp::carry(core, message, crossing, body)
}

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
    if accepted && method.refreshes_target() {
        match carry(core, call, turn, from.other(), message, &mut body) {
            Ok(carried) => description = carried.description,
            Err(cause) => {
                // The other party agreed to what cannot be carried. It stays with what it agreed
                // to, the asker hears of the failure and decides.
                code = cause.status();
                own = Some(cause);
                body.clear();
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
    if matches!(code, 481 | 408) && method.refreshes_target() && own.is_none() {
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
        Some(anchor) if !late => core.media.commit(anchor),
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
    if let Some(anchor) = &mut call.anchor
        && relay.offer
    {
        anchor.roll_back();
    }
    for side in [Side::Caller, Side::Callee] {
        if let Some(leg) = call.leg_mut(side)
            && method.refreshes_target()
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
    if method.refreshes_target() && !call.is_emergency() {
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
    let carried = carry(core, call, turn, side, message, &mut body);
    let good = carried.is_ok_and(|carried| carried.description);
    if good {
        write_body_headers(message, &mut tail);
        write_content(&body, &mut tail);
        if let Some(anchor) = &mut call.anchor {
            core.media.commit(anchor);
        }
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

/// Whether a request names extensions that we do not have; for callers outside a dialog.
pub(crate) fn has_unsupported(message: &Message<'_>) -> bool {
    message.header(HeaderName::Require).is_some()
        || message.header(HeaderName::ProxyRequire).is_some()
}
