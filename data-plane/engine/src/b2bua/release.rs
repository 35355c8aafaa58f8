//! How a call ends, and the responses and requests that say so.

use ravelin_contract::cdr::Party;
use ravelin_wire::sip::{HeaderName, Message, Method};

use super::{
    attempt::{abandon, arm},
    call::{Call, End, Permits, Phase},
    cdr::{self, Uncounted},
    compose::write_no_body,
    dialog::Dialog,
    headers::{push_number, write_line, write_passed},
    hiding::Hide,
    leg::{AckExpected, Goodbye, Leg, Side, socket_address},
    respond::{ACCEPT_LINES, Response},
};
use crate::{
    cause::Cause,
    core::{Core, Turn, ctx},
    counters::MethodLabel,
    emergency,
    port::{Egress, Local, Meta, Token},
    sip::transaction::{Hop, Room, TuKey},
    timer::CallTimer,
};

/// Refuses the caller's INVITE and ends the call. `passed` is the far side's refusal, if that is
/// what the caller is told.
pub(crate) fn refuse(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    code: u16,
    cause: Cause,
    passed: Option<&Message<'_>>,
) {
    if call.end.is_some() {
        return;
    }
    let far_side = matches!(cause, Cause::FarSideRefused | Cause::Redirected);
    if !far_side {
        core.counters.refusal(cause);
    }
    let by = match cause {
        Cause::Cancelled => Party::Caller,
        _ if far_side => Party::Callee,
        _ => Party::Ravelin,
    };
    let code = if code < 300 { 500 } else { code };
    let refused = call.attempts.len().checked_sub(1);
    let own = (cause != Cause::FarSideRefused).then_some(cause);
    let passed = passed.zip(refused).map(|(message, index)| (index, message, &[][..]));
    respond_caller(core, call, turn, code, passed, own);
    release(core, call, turn, by, cause, code);
}

/// Ends an answered call on both sides. `from` has hung up and gets no BYE.
pub(crate) fn hang_up(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    from: Option<(Side, &Message<'_>)>,
    cause: Cause,
) {
    if call.end.is_some() {
        return;
    }
    let by = match from {
        Some((Side::Caller, _)) => Party::Caller,
        Some((Side::Callee, _)) => Party::Callee,
        None => Party::Ravelin,
    };
    for side in [Side::Caller, Side::Callee] {
        match from {
            Some((gone, _)) if gone == side => {
                if let Some(leg) = call.leg_mut(side) {
                    leg.goodbye = Goodbye::Done;
                }
            }
            Some((_, bye)) => say_goodbye(core, call, turn, side, cause, Some(bye)),
            None => say_goodbye(core, call, turn, side, cause, None),
        }
    }
    release(core, call, turn, by, cause, 200);
}

/// Sends a BYE to one side, or notes that it waits for the side's ACK (RFC 3261 15).
pub(crate) fn say_goodbye(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    side: Side,
    cause: Cause,
    passed: Option<&Message<'_>>,
) {
    let (tu, peer) = (call.tu(), call.peer(side));
    let hide_hosts =
        call.leg(side.other()).map(|other| (other.peer_host.clone(), other.own_host.clone()));
    let Some(leg) = call.leg_mut(side) else { return };
    if leg.goodbye != Goodbye::No && leg.goodbye != Goodbye::WhenAcknowledged {
        return;
    }
    if leg.ack_expected.is_some() {
        leg.goodbye = Goodbye::WhenAcknowledged;
        return;
    }
    if let Some(cseq) = leg.ack_due.take() {
        send_ack(core, turn, leg, cseq, &[]);
    }
    let passed = passed
        .zip(hide_hosts.as_ref())
        .map(|(message, (peer, own))| (message, [peer.as_slice(), own.as_slice()]));
    send_bye(core, turn, leg, tu, cause, passed);
    call.note(turn.now.mono, peer, false, MethodLabel::Bye, 0);
}

/// Sends the BYE that waits for the side's ACK: it will not be waited for any more.
pub(crate) fn say_goodbye_unheard(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    side: Side,
) {
    let cause = call.end.map_or(Cause::Stopped, |end| end.cause);
    let Some(leg) = call.leg_mut(side).filter(|leg| leg.goodbye == Goodbye::WhenAcknowledged)
    else {
        return;
    };
    leg.ack_expected = None;
    say_goodbye(core, call, turn, side, cause, None);
}

/// Frees what the call held, writes its records, and leaves it to its last transactions.
pub(crate) fn release(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    by: Party,
    cause: Cause,
    status: u16,
) {
    if call.end.is_some() {
        return;
    }
    let now = turn.now.mono;
    call.end = Some(End { at: now, by, cause, status });
    for timer in [
        call.timers.ring,
        call.timers.max_duration,
        call.timers.restart,
        call.timers.silence,
        call.timers.failure,
    ] {
        core.wheel.cancel(timer);
    }
    for index in 0..call.attempts.len() {
        abandon(core, call, turn, index, cause, b"");
    }
    finish_relays(core, call, turn);
    call.phase = Phase::Ending;
    call.forget_branches(core);
    match call.anchor.take() {
        Some(anchor) if core.media.is_forwarded(&anchor) => {
            core.media.rest(now, &anchor);
            core.uncounted.push(Uncounted { call: call.key, anchor });
        }
        anchor => {
            cdr::write(core, call, anchor.as_ref());
            if let Some(anchor) = anchor {
                core.media.release(now, anchor);
            }
        }
    }
    if call.is_emergency() {
        emergency::ended(core, call, turn);
    }
    call.permits = Permits::default();
    for attempt in &mut call.attempts {
        attempt.permit = None;
    }
    // What may follow: an ACK that never comes, then a BYE that nobody answers.
    let patience = core.limits.timeout().saturating_mul(2) + core.limits.t4;
    call.timers.linger = arm(core, turn, call.key, patience, CallTimer::Linger);
}

/// Answers the requests that wait for the other party: there is no other party any more.
fn finish_relays(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>) {
    for relay in std::mem::take(&mut call.relays) {
        let response = Response { cause: Some(Cause::NoDialog), ..Response::own(487, &relay.head) };
        let _ = core.layer.respond(turn.now.mono, relay.server, 487, ctx!(core, turn), |out| {
            response.write(out);
            Ok::<(), ()>(())
        });
        core.pool.give(relay.head);
        call.note(
            turn.now.mono,
            call.peer(relay.from),
            false,
            MethodLabel::of(relay.method.method().as_bytes()),
            487,
        );
    }
}

/// Frees what a call that is over still holds. Its last transactions end by themselves: a late 2xx
/// still finds its INVITE, and is turned down.
pub(crate) fn forget(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>) {
    if call.end.is_none() {
        release(core, call, turn, Party::Ravelin, Cause::Internal, 0);
    }
    cdr::write_late(core, call);
    for timer in [
        call.timers.ring,
        call.timers.max_duration,
        call.timers.restart,
        call.timers.silence,
        call.timers.failure,
        call.timers.linger,
    ] {
        core.wheel.cancel(timer);
    }
    for attempt in &mut call.attempts {
        core.wheel.cancel(attempt.timer);
        core.pool.give(std::mem::take(&mut attempt.leg.ack_body));
    }
    core.pool.give(std::mem::take(&mut call.caller.ack_body));
    for relay in std::mem::take(&mut call.relays) {
        core.pool.give(relay.head);
    }
    if let Some(pending) = call.pending.take() {
        pending.give_back(core);
    }
    if let Some(anchor) = call.anchor.take() {
        core.media.release(turn.now.mono, anchor);
    }
}

/// As [`forget`], its transactions included: its time to linger is over, or a fault ended it.
pub(crate) fn bury(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>) {
    for attempt in &mut call.attempts {
        if let Some(client) = attempt.client.take() {
            core.layer.kill_client(client, ctx!(core, turn));
        }
        if let Goodbye::Sent(client) = attempt.leg.goodbye {
            core.layer.kill_client(client, ctx!(core, turn));
        }
    }
    if let Goodbye::Sent(client) = call.caller.goodbye {
        core.layer.kill_client(client, ctx!(core, turn));
    }
    for relay in &call.relays {
        core.layer.kill_client(relay.client, ctx!(core, turn));
        core.layer.kill_server(relay.server, ctx!(core, turn));
    }
    // Without a final response it would wait for ever.
    if call.answer_at.is_none()
        && core.layer.answered_with(call.server).is_some_and(|code| code < 200)
    {
        core.layer.kill_server(call.server, ctx!(core, turn));
    }
    forget(core, call, turn);
}

/// The first answer to the caller: 100, with the Timestamp of its INVITE (RFC 3261 8.2.6.1).
pub(crate) fn trying(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>, invite: &Message<'_>) {
    let Some(pending) = &call.pending else { return };
    let mut timestamp = Vec::new();
    if let Some(value) = invite.header(HeaderName::Timestamp) {
        write_line(b"Timestamp", value, &mut timestamp);
    }
    let response = Response { lines: &timestamp, ..Response::own(100, &pending.head) };
    let _ = core.layer.respond(turn.now.mono, pending.server, 100, ctx!(core, turn), |out| {
        response.write(out);
        Ok::<(), ()>(())
    });
    call.note(turn.now.mono, super::ladder::Peer::Caller, false, MethodLabel::Invite, 100);
}

/// Sends a response to the caller's INVITE. `passed`: attempt, its response, the body as the caller
/// may see it.
pub(crate) fn respond_caller(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    code: u16,
    passed: Option<(usize, &Message<'_>, &[u8])>,
    cause: Option<Cause>,
) {
    let Call { pending, attempts, caller, stir_reason, .. } = call;
    let Some(waiting) = pending.as_ref() else { return };
    let makes_dialog = (101..300).contains(&code);
    let hidden = passed.and_then(|(index, message, body)| {
        let leg = &attempts.get(index)?.leg;
        Some((message, leg.hide(caller), body))
    });
    let stir = if code > 100 { stir_reason.take() } else { None };
    let (layer, listeners) = (&mut core.layer, &core.listeners);
    let response = Response {
        code,
        head: &waiting.head,
        lines: match cause {
            Some(Cause::MediaType) => ACCEPT_LINES,
            _ if makes_dialog => &waiting.routes,
            _ => &[],
        },
        contact: listeners
            .get(usize::from(caller.listener.0))
            .filter(|_| makes_dialog)
            .map(|listener| (listener, caller.user.as_slice())),
        passed: hidden,
        cause,
        stir_reason: stir,
        allow: code == 405,
        retry_after: (code == 503 && cause.is_some()).then_some(RETRY_AFTER_S),
        warning: cause.and_then(warning),
    };
    let context = &mut crate::sip::transaction::Ctx {
        wheel: &mut core.wheel,
        tx: turn.out,
        counters: &mut core.counters,
    };
    let _ = layer.respond(turn.now.mono, waiting.server, code, context, |out| {
        response.write(out);
        Ok::<(), ()>(())
    });
    call.note(turn.now.mono, super::ladder::Peer::Caller, false, MethodLabel::Invite, code);
    if code >= 300 {
        if let Some(pending) = call.pending.take() {
            pending.give_back(core);
        }
        call.caller.goodbye = Goodbye::Done;
    }
}

/// What a peer is asked to wait after a 503 of ours.
pub(crate) const RETRY_AFTER_S: u32 = 5;

/// Warning of a refusal that a person should understand (E5; RFC 3261 21.4.26 for a 488).
pub(crate) fn warning(cause: Cause) -> Option<&'static str> {
    match cause {
        Cause::TestMode => Some("399 ravelin \"Emergency calls are blocked in test mode\""),
        Cause::NotAcceptable => Some("399 ravelin \"No media that can be relayed\""),
        Cause::EncryptionRequired => Some("399 ravelin \"Media must be encrypted\""),
        Cause::EncryptionRefused => Some("399 ravelin \"Encrypted media is not accepted\""),
        Cause::NoCommonEncryption => Some("399 ravelin \"No encryption in common\""),
        // RFC 3261 20.43: incompatible network address formats.
        Cause::MediaAddress => Some("301 ravelin \"Media address cannot be used\""),
        Cause::CallTooLarge => Some("399 ravelin \"Too many streams\""),
        _ => None,
    }
}

/// Sends the 2xx to the caller and waits for its ACK.
pub(crate) fn accept_caller(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    index: usize,
    message: &Message<'_>,
    body: &[u8],
) {
    let code = message.code().unwrap_or(200);
    respond_caller(core, call, turn, code, Some((index, message, body)), None);
    let Some(pending) = call.pending.take() else { return };
    call.caller.ack_expected = Some(AckExpected {
        server: pending.server,
        cseq: call.caller.dialog.remote_cseq.unwrap_or(0),
    });
    pending.give_back(core);
}

/// Acknowledges a 2xx. `tail` is what follows the headers that every ACK has: Content-Type,
/// Content-Length and body, or nothing.
pub(crate) fn send_ack(
    core: &mut Core,
    turn: &mut Turn<'_>,
    leg: &mut Leg,
    cseq: u32,
    tail: &[u8],
) {
    let branch = core.layer.loose_branch();
    let Some(listener) = core.listeners.get(usize::from(leg.listener.0)) else { return };
    turn.out.write(leg.hop.egress, Token::default(), |out| {
        listener.write_request(b"ACK", leg.dialog.request_uri(), &branch, 70, out);
        leg.dialog.write(cseq, b"ACK", out);
        if tail.is_empty() {
            write_no_body(out);
        } else {
            out.extend_from_slice(tail);
        }
    });
    core.counters.request_sent(MethodLabel::Ack);
}

const RESERVED_RESOURCES_PREEMPTED: &[u8] =
    b"preemption;cause=2;text=\"Reserved Resources Preempted\"";

/// Sends a BYE in a transaction of its own. `passed` is the BYE of the other side, with the hosts
/// of that side.
pub(crate) fn send_bye(
    core: &mut Core,
    turn: &mut Turn<'_>,
    leg: &mut Leg,
    tu: TuKey,
    cause: Cause,
    passed: Option<(&Message<'_>, [&[u8]; 2])>,
) {
    leg.goodbye = Goodbye::Done;
    let Ok((client, branch)) = core.layer.reserve_branch(Room::Reserved, ctx!(core, turn)) else {
        return;
    };
    let cseq = leg.dialog.next_cseq();
    let Core { layer, listeners, wheel, counters, .. } = core;
    let Some(listener) = listeners.get(usize::from(leg.listener.0)) else { return };
    let dialog = &leg.dialog;
    let fill = |out: &mut Vec<u8>| -> Result<(), ()> {
        listener.write_request(b"BYE", dialog.request_uri(), &branch, 70, out);
        dialog.write(cseq, b"BYE", out);
        match passed {
            Some((message, hosts)) => {
                let hide = Hide { hosts, by: &leg.own_host, call_id: dialog.call_id() };
                write_passed(message, hide, out);
            }
            None => {
                write_line(b"Reason", cause.reason_header().as_bytes(), out);
                if cause == Cause::Preempted {
                    // RFC 4411 5.
                    write_line(b"Reason", RESERVED_RESOURCES_PREEMPTED, out);
                }
            }
        }
        write_no_body(out);
        Ok(())
    };
    let context = &mut crate::sip::transaction::Ctx { wheel, tx: turn.out, counters };
    let sent = layer.request(turn.now.mono, client, Method::Bye, leg.hop, tu, context, fill);
    if sent.is_ok() {
        leg.goodbye = Goodbye::Sent(client);
    }
}

/// Acknowledges a 2xx that belongs to no dialog of ours, and hangs it up: another branch of a fork,
/// or an answer to a call that is gone. Everything that is needed stands in the response.
/// `goodbye`: false if it had its BYE already and only repeats itself.
pub(crate) fn turn_down_stranger(
    core: &mut Core,
    turn: &mut Turn<'_>,
    meta: &Meta,
    message: &Message<'_>,
    goodbye: bool,
) {
    let dialog = Dialog::stranger(message);
    // A name is not resolved here: then the way back is the way that it came.
    let way = dialog.next_hop().and_then(|uri| socket_address(&uri)).unwrap_or(meta.source);
    let (listener, egress) = match meta.local {
        Local::Signalling { listener } => (listener, Egress::Udp { listener, to: way }),
        Local::Stream { listener, flow } => {
            (listener, Egress::Flow { flow, or_connect: Some((listener, way)) })
        }
        Local::Media { .. } => return,
    };
    let number = message.cseq().number;
    let identity = |cseq: u32, method: &[u8], out: &mut Vec<u8>| {
        dialog.write_routes(out);
        for (name, header) in [
            (&b"From"[..], HeaderName::From),
            (b"To", HeaderName::To),
            (b"Call-ID", HeaderName::CallId),
        ] {
            write_line(name, message.header(header).unwrap_or_default(), out);
        }
        out.extend_from_slice(b"CSeq: ");
        push_number(u64::from(cseq), out);
        out.push(b' ');
        out.extend_from_slice(method);
        out.extend_from_slice(b"\r\n");
        write_no_body(out);
    };
    let loose = core.layer.loose_branch();
    let reserved = core.layer.reserve_branch(Room::Reserved, ctx!(core, turn));
    let Core { layer, listeners, wheel, counters, .. } = core;
    let Some(text) = listeners.get(usize::from(listener.0)) else { return };
    turn.out.write(egress, Token::default(), |out| {
        text.write_request(b"ACK", dialog.request_uri(), &loose, 70, out);
        identity(number, b"ACK", out);
    });
    counters.request_sent(MethodLabel::Ack);
    let Ok((client, branch)) = reserved else { return };
    let context = &mut crate::sip::transaction::Ctx { wheel, tx: turn.out, counters };
    if !goodbye {
        return layer.kill_client(client, context);
    }
    let hop = Hop { egress, tcp: None };
    let _ = layer.request(turn.now.mono, client, Method::Bye, hop, TuKey::NONE, context, |out| {
        text.write_request(b"BYE", dialog.request_uri(), &branch, 70, out);
        identity(number.saturating_add(1), b"BYE", out);
        Ok::<(), ()>(())
    });
}
