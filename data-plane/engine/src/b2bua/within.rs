//! Requests inside a call: re-INVITE, UPDATE, INFO, MESSAGE, OPTIONS, BYE, ACK. What one party asks,
//! the other answers; glare is decided by the state of both legs (RFC 3261 14, RFC 3311 5.2).

use std::sync::Arc;

use ravelin_wire::sip::{HeaderName, Message, Method};

use super::{
    call::{Call, Phase},
    compose::{write_content, write_no_body},
    headers::{write_body_headers, write_passed},
    leg::{Goodbye, Relay, RelayMethod, Side},
    offer::Glare,
    release,
    respond::{Response, write_head, write_refusal_lines},
    sdp::{self, Carried, Crossing, LegMedia, Role},
};
use crate::{
    cause::Cause,
    core::{Core, Turn, ctx},
    counters::MethodLabel,
    drops::DropReason,
    emergency,
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
    let Some(reply) = response_egress(meta, &message.top_via()) else {
        return core.counters.drop(DropReason::BadReplyAddress);
    };
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
    let mut lines = Vec::new();
    if let Some(cause) = reply.cause {
        write_refusal_lines(cause, asked.message, &mut lines);
    }
    let response = Response {
        lines: &lines,
        cause: reply.cause,
        allow: reply.allow,
        contact,
        retry_after: retry,
        warning: reply.cause.and_then(release::warning),
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
    let early_callee =
        asked.side == Side::Callee && matches!(call.phase, Phase::Routing | Phase::Ringing);
    if early_callee {
        // A callee has nothing to end before it answers: it refuses the INVITE (RFC 3261 15).
        return refuse(core, call, turn, asked, Cause::NoDialog);
    }
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
    if call.phase != Phase::Ending {
        // RFC 3261 15: the caller may end an early dialog by BYE.
        return release::refuse(core, call, turn, 487, Cause::Cancelled, None);
    }
    if let Some(leg) = call.leg_mut(asked.side)
        && leg.goodbye == Goodbye::WhenAcknowledged
    {
        leg.goodbye = Goodbye::Done;
        if let Some(expected) = leg.ack_expected.take() {
            core.layer.ack_received(expected.server, ctx!(core, turn));
        }
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
    if matches!(call.phase, Phase::Ending) {
        return Err(Cause::NoDialog);
    }
    if call.relays.len() >= RELAYS_PER_CALL_MAX {
        return Err(Cause::OutOfOrder);
    }
    if asks_too_much(asked.message) {
        return Err(Cause::BadExtension);
    }
    let glare = |found: Glare| match found {
        Glare::Pending => Cause::Glare,
        Glare::TryLater => Cause::OutOfOrder,
    };
    let own = call.leg(asked.side).ok_or(Cause::NoDialog)?;
    let offer = !asked.message.body().is_empty();
    match method {
        RelayMethod::Invite => {
            own.negotiation.check_invite().map_err(glare)?;
            if own.ack_due.is_some() {
                return Err(Cause::Glare);
            }
        }
        RelayMethod::Update if offer => own.negotiation.check_offer().map_err(glare)?,
        RelayMethod::Update | RelayMethod::Info | RelayMethod::Message => {}
    }
    // Before the answer nothing but what changes no description: provisionals are not reliable
    // here, so the offer of the INVITE is open until the 2xx (RFC 3311 5.1).
    let early = call.phase != Phase::Answered;
    if early && (method == RelayMethod::Invite || method == RelayMethod::Update && offer) {
        return Err(Cause::Glare);
    }
    // Nobody to pass it on to yet.
    let other = call.leg(asked.side.other()).ok_or(Cause::Glare)?;
    if other.goodbye != Goodbye::No {
        return Err(Cause::NoDialog);
    }
    let closed = match method {
        RelayMethod::Invite => !other.may_send_invite(),
        RelayMethod::Update => offer && !other.negotiation.may_send_offer(),
        RelayMethod::Info | RelayMethod::Message => false,
    };
    if closed { Err(Cause::Glare) } else { Ok(()) }
}

/// The INVITE of a relayed re-INVITE is cancelled by who sent it: so is ours to the other party,
/// whose 487 goes back then (RFC 3261 9.2).
pub(crate) fn cancelled(
    core: &mut Core,
    call: &Call,
    turn: &mut Turn<'_>,
    invite: ServerKey,
    reason: &[u8],
) {
    let relay = call.relays.iter().find(|relay| relay.server == invite);
    if let Some(relay) = relay.filter(|relay| relay.method == RelayMethod::Invite) {
        core.layer.cancel(turn.now.mono, relay.client, reason, ctx!(core, turn));
    }
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
    let role = method.refreshes_target().then_some(Role::Offer);
    // What has no description takes back nothing of an exchange under way.
    let offers = role.is_some() && !asked.message.body().is_empty();
    let sent = match carry(core, call, turn, asked.side, role, asked.message, &mut body) {
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
        && offers
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
    let (found, side) = (call.callee(), asked.side);
    let Call { caller, attempts, .. } = &mut *call;
    let callee = found.and_then(|at| attempts.get_mut(at)).map(|found| &mut found.leg);
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
            listener.write_request(name, dialog.request_uri(), &branch, hops, out);
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
pub(super) fn carry(
    core: &mut Core,
    call: &mut Call,
    turn: &Turn<'_>,
    side: Side,
    role: Option<Role>,
    message: &Message<'_>,
    body: &mut Vec<u8>,
) -> Result<Carried, Cause> {
    let Some(index) = call.callee() else { return Err(Cause::NoDialog) };
    let places = call.places(core, index);
    let loadout = Arc::clone(&call.loadout);
    let Call { anchor, caller, attempts, inbound, source, emergency, .. } = call;
    let Some(won) = attempts.get_mut(index) else { return Err(Cause::NoDialog) };
    let media = [*inbound, Some(won.trunk)].map(|id| LegMedia::of(&loadout.snapshot, id));
    let near = [source.ip(), won.target.ip()];
    let (caller, callee) = (&mut caller.description, &mut won.leg.description);
    let (sender, receiver) = match side {
        Side::Caller => (caller, callee),
        Side::Callee => (callee, caller),
    };
    let crossing = Crossing {
        now: turn.now.mono,
        from: side,
        places,
        anchor,
        role,
        sender,
        receiver,
        media,
        near,
        passage: emergency.as_ref(),
        first: false,
        others: false,
        asked_for: role == Some(Role::Offer) && message.code().is_some(),
    };
    let carried = sdp::carry(core, message, crossing, body)?;
    emergency::described(core, call, turn, side, carried.oddities);
    Ok(carried)
}

/// Whether a request demands extensions that we do not have.
pub(crate) fn asks_too_much(message: &Message<'_>) -> bool {
    let demands = message.header(HeaderName::Require).is_some()
        || message.header(HeaderName::ProxyRequire).is_some();
    let mut unsupported = Vec::new();
    if demands {
        super::headers::write_unsupported(message, &mut unsupported);
    }
    !unsupported.is_empty()
}
