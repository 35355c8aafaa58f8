//! The search for the callee: one INVITE after the other, each with its own dialog, and what their
//! answers mean.

use std::{sync::Arc, time::Duration};

use ravelin_policy::{Mode, TrunkId, guard_matches};
use ravelin_wire::sip::{HeaderName, Message, Method, Uri, write_date};
use smallvec::SmallVec;

use super::{
    answer::close,
    call::{Attempt, AttemptState, Call, PendingInvite, Phase},
    compose::{host_text, push_address, write_content, write_no_body, write_party, write_uri},
    dialog::Dialog,
    headers::{Skip, write_body_headers, write_line, write_passed_except},
    hiding::{Hide, Veil},
    ladder::Peer,
    leg::{Goodbye, Leg},
    offer::Negotiation,
    release,
    sdp::{self, Crossing, Description, LegMedia, Role},
    starved, verstat,
};
use crate::{
    cause::Cause,
    core::{Core, Turn, ctx},
    counters::MethodLabel,
    emergency::{self, walk},
    identity::{SignJob, Unsigned, caller_uri, number_plan, sign_request},
    media::Side,
    route::{self, Way},
    sip::transaction::{Ctx, Room},
    timer::{CallTimer, Timer, TimerId},
};

/// Why an attempt did not leave.
#[derive(Clone, Copy, Debug)]
enum NotSent {
    /// This way is closed; the next may be open.
    Way(Cause),
    /// No way would do.
    Call(u16, Cause),
}

/// Tries the next way, and the next, until one INVITE is out; without a way left the call ends or,
/// if it is an emergency call, begins again. `last` is the refusal that led here, if it is at hand.
pub(crate) fn advance(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    last: Option<&Message<'_>>,
) {
    search(core, call, turn, last, None);
}

/// As [`advance`], while the caller's INVITE is at hand.
pub(crate) fn search(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    last: Option<&Message<'_>>,
    invite: Option<&Message<'_>>,
) {
    while let Some(way) = call.plan.next() {
        match begin(core, call, turn, way, invite) {
            Ok(()) => return,
            Err(NotSent::Way(cause)) => call.last_failure = (cause.status(), cause),
            // Never while ordinary calls hold what it needs (EM-64).
            Err(NotSent::Call(_, cause @ (Cause::MediaPortsFull | Cause::TransactionsFull)))
                if call.is_emergency() =>
            {
                return starved::note(core, call, turn, cause);
            }
            Err(NotSent::Call(code, cause)) => {
                return release::refuse(core, call, turn, code, cause, None);
            }
        }
    }
    if call.emergency.is_some() {
        return emergency::chain_exhausted(core, call, turn);
    }
    let (code, cause) = call.last_failure;
    release::refuse(core, call, turn, code, cause, last);
}

/// Makes the attempt and sends its INVITE, or leaves it waiting for its signature.
fn begin(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    way: Way,
    invite: Option<&Message<'_>>,
) -> Result<(), NotSent> {
    with_invite(core, call, turn, invite, |core, call, turn, pending, invite| {
        let index = add(core, call, turn, way, invite)?;
        if wants_signature(core, call, turn, index, invite) {
            return Ok(());
        }
        write_and_send(core, call, turn, index, None, pending, invite)
    })
}

/// Works with the caller's INVITE, which stays with the call; read again unless it is at hand.
fn with_invite(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    at_hand: Option<&Message<'_>>,
    work: impl FnOnce(
        &mut Core,
        &mut Call,
        &mut Turn<'_>,
        &PendingInvite,
        &Message<'_>,
    ) -> Result<(), NotSent>,
) -> Result<(), NotSent> {
    let internal = NotSent::Call(500, Cause::Internal);
    let pending = call.pending.take().ok_or(internal)?;
    let done = match at_hand {
        Some(invite) => work(core, call, turn, &pending, invite),
        None => match pending.message() {
            Some(invite) => work(core, call, turn, &pending, &invite),
            None => Err(internal),
        },
    };
    call.pending = Some(pending);
    done
}

/// Adds an attempt to the call; returns its index.
fn add(
    core: &mut Core,
    call: &mut Call,
    turn: &Turn<'_>,
    way: Way,
    invite: &Message<'_>,
) -> Result<usize, NotSent> {
    let loadout = Arc::clone(&call.loadout);
    let snapshot = &*loadout.snapshot;
    let (listener, hop, target) =
        route::hop(snapshot, way).ok_or(NotSent::Way(Cause::TransportFailed))?;
    let permit = match loadout.gauges.get(usize::from(way.trunk.0)) {
        Some(gauge) => Some(
            gauge
                .admit(turn.now.mono, call.emergency.as_ref())
                .map_err(|refused| NotSent::Way(super::invite::refusal(refused)))?,
        ),
        None => None,
    };
    let number = u16::try_from(call.attempts.len().saturating_add(1)).unwrap_or(u16::MAX);
    let mut leg = new_leg(core, call, invite, listener, hop, (way.trunk, target))
        .ok_or(NotSent::Call(500, Cause::Internal))?;
    if call.plain_way == Some((way.trunk, way.target)) {
        leg.description.give_up_encryption();
    }
    let index = call.attempts.len();
    call.attempts.push(Attempt {
        number,
        way,
        trunk: way.trunk,
        target,
        leg,
        state: AttemptState::Signing,
        progress: walk::Progress::Nothing,
        client: None,
        permit,
        timer: TimerId::NEVER,
        started: turn.now.mono,
        ring_at: None,
        answer_at: None,
        end_at: None,
        status: 0,
        cause: Cause::FarSideTimeout,
        identity_out: Unsigned::NotAsked.as_str(),
        attestation_rule: None,
    });
    Ok(index)
}

/// What a trunk is told of the verification of the caller's number, if it asks for it.
fn told(call: &Call, trunk: TrunkId) -> Option<&'static str> {
    let settings = call.loadout.snapshot.trunk(trunk)?;
    call.verstat.filter(|_| settings.identity.verstat)
}

/// A leg toward a target: new Call-ID, tag, identities (RFC 3261 8.1.1).
fn new_leg(
    core: &mut Core,
    call: &Call,
    invite: &Message<'_>,
    listener: crate::port::ListenerId,
    hop: crate::sip::transaction::Hop,
    (trunk, target): (TrunkId, std::net::SocketAddr),
) -> Option<Leg> {
    let own_host = SmallVec::from_slice(&core.listener(listener)?.host);
    let peer_host = SmallVec::from_vec(host_text(target));
    let hide = Hide {
        hosts: [&call.caller.peer_host, &call.caller.own_host],
        by: &own_host,
        call_id: &[],
    };
    let veil = Veil::of(invite, hide);
    let (mut from, mut to) = (core.pool.take(), core.pool.take());
    let mut user = SmallVec::new();
    match emergency::callback(&call.loadout.snapshot, call.class, call.location) {
        Some(number) => {
            emergency::write_callback(number, &own_host, &mut from);
            user.extend_from_slice(number.as_bytes());
        }
        None => {
            let told = told(call, trunk).filter(|_| verstat::place(invite) == verstat::Place::From);
            write_party(&invite.from(), &own_host, &veil, &mut from);
            if let Some(outcome) = told {
                let plain = core.pool.copy(&from);
                from.clear();
                verstat::insert(&plain, outcome, &mut from);
                core.pool.give(plain);
            }
            let name = invite.from().uri().and_then(|uri| uri.user).unwrap_or_default();
            user.extend_from_slice(contact_user(name));
        }
    }
    if let Some(psap) = emergency::psap(&call.loadout.snapshot, call.emergency.as_ref()) {
        to.extend_from_slice(b"<sip:");
        to.extend_from_slice(psap.as_bytes());
        to.push(b'@');
        to.extend_from_slice(&peer_host);
        to.push(b'>');
    } else {
        write_party(&invite.to(), &peer_host, &veil, &mut to);
    }
    let generator = core.layer.identifiers();
    let tag = generator.handle(call.key.slot).tag();
    let call_id = generator.call_id();
    let description = Description::new(generator.nonce());
    let dialog = Dialog::outgoing(&call_id, tag, &from, &to);
    core.pool.give(from);
    core.pool.give(to);
    drop(veil);
    Some(Leg {
        dialog,
        listener,
        hop,
        behind_nat: false,
        negotiation: Negotiation::default(),
        description,
        ack_expected: None,
        ack_due: None,
        ack_body: Vec::new(),
        ack_body_cseq: 0,
        goodbye: Goodbye::No,
        user,
        peer_host,
        own_host,
    })
}

/// The part of a user that can stand in a Contact: parameters inside it stay out.
pub(crate) fn contact_user(user: &[u8]) -> &[u8] {
    user.split(|&byte| byte == b';').next().unwrap_or_default()
}

/// Decides about the signature. True: a job is out and the INVITE waits for it.
fn wants_signature(
    core: &mut Core,
    call: &mut Call,
    turn: &Turn<'_>,
    index: usize,
    invite: &Message<'_>,
) -> bool {
    let loadout = Arc::clone(&call.loadout);
    let Some(attempt) = call.attempts.get_mut(index) else { return false };
    let trunk = loadout.snapshot.trunk(attempt.trunk);
    if !trunk.is_some_and(|trunk| trunk.identity.sign) {
        return false;
    }
    // A token of the carrier before us is passed on; ours beside it would claim what we do not
    // know (ST-32).
    if invite.header(HeaderName::Identity).is_some() {
        attempt.identity_out = Unsigned::PassedOn.as_str();
        return false;
    }
    let Some(signer) = loadout.signer.as_ref() else {
        attempt.identity_out = Unsigned::NoCredential.as_str();
        core.counters.unsigned_no_credential += 1;
        return false;
    };
    let inbound = call.inbound;
    let trusted = inbound
        .and_then(|id| loadout.snapshot.trunk(id))
        .is_some_and(|trunk| trunk.trust.asserted_identity);
    let caller = caller_uri(invite, trusted);
    let number = Uri::parse(caller).and_then(|uri| uri.user).unwrap_or_default();
    let attestation = inbound.map(|from| loadout.snapshot.attestation(from, number));
    attempt.attestation_rule = attestation.map(|attestation| attestation.rule.0);
    let Some(level) = attestation.and_then(|attestation| attestation.level) else {
        attempt.identity_out = Unsigned::NoAuthority.as_str();
        return false;
    };
    let psap = emergency::psap(&loadout.snapshot, call.emergency.as_ref());
    let dest: &[u8] = if psap.is_some() { b"urn:service:sos" } else { invite.to().uri };
    let random = core.random_16();
    let caller = (caller, number_plan(&loadout.snapshot, inbound));
    let dest = (dest, number_plan(&loadout.snapshot, Some(attempt.trunk)));
    let Some(request) = sign_request(level, caller, dest, turn.now.unix_ms / 1000, random) else {
        attempt.identity_out = Unsigned::NoNumber.as_str();
        return false;
    };
    attempt.identity_out = level.as_str();
    if call.emergency.is_some() {
        // Never held for a batch (ST-74): one signature is well below its budget of 1 ms.
        let mut value = Vec::new();
        if signer.sign(&request, &mut value).is_ok() {
            call.emergency_identity = value;
        } else {
            attempt.identity_out = Unsigned::Failed.as_str();
        }
        return false;
    }
    core.jobs.sign(SignJob::new(call.key, attempt.number, &loadout, request));
    true
}

/// The signature of an attempt is there, or is not to be had: its INVITE leaves.
pub(crate) fn signed(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    number: u16,
    value: Option<&[u8]>,
) {
    let Some(index) = call
        .attempts
        .iter()
        .position(|attempt| attempt.number == number && attempt.state == AttemptState::Signing)
    else {
        return;
    };
    if value.is_none()
        && let Some(attempt) = call.attempts.get_mut(index)
    {
        attempt.identity_out = Unsigned::Failed.as_str();
    }
    let sent = with_invite(core, call, turn, None, |core, call, turn, pending, invite| {
        write_and_send(core, call, turn, index, value, pending, invite)
    });
    match sent {
        Ok(()) => {}
        Err(NotSent::Way(cause)) => {
            close(core, call, turn, index, cause.status(), cause);
            call.last_failure = (cause.status(), cause);
            advance(core, call, turn, None);
        }
        Err(NotSent::Call(code, cause)) => release::refuse(core, call, turn, code, cause, None),
    }
}

/// Writes and sends the INVITE of an attempt. Every initial INVITE of this engine leaves here, so the guard of test mode stands here (E1).
fn write_and_send(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    index: usize,
    identity: Option<&[u8]>,
    pending: &PendingInvite,
    invite: &Message<'_>,
) -> Result<(), NotSent> {
    let loadout = Arc::clone(&call.loadout);
    let snapshot = &*loadout.snapshot;
    let requested = invite.request_uri().unwrap_or_default();
    if snapshot.mode == Mode::Test && (guard_matches(requested) || guard_matches(invite.to().uri)) {
        emergency::blocked(core, call, turn);
        return Err(NotSent::Call(403, Cause::TestMode));
    }
    let mut body = core.pool.take();
    let sent = match carry_offer(core, call, turn, index, invite, &mut body) {
        Ok(offer) => {
            let parts = Parts { pending, invite, identity, body: &body, offer };
            send_parts(core, call, turn, index, &parts)
        }
        Err(cause) => Err(NotSent::Call(cause.status(), cause)),
    };
    core.pool.give(body);
    sent
}

/// Carries the caller's body toward the target of attempt `index`. True: it has an offer.
fn carry_offer(
    core: &mut Core,
    call: &mut Call,
    turn: &Turn<'_>,
    index: usize,
    invite: &Message<'_>,
    body: &mut Vec<u8>,
) -> Result<bool, Cause> {
    let places = call.places(core, index);
    let loadout = Arc::clone(&call.loadout);
    // Whoever was heard before has failed: its media ends here.
    call.heard = None;
    let Call { attempts, anchor, caller, inbound, source, emergency: token, .. } = call;
    let mut rest = attempts.iter().enumerate().filter(|(at, _)| *at != index);
    let others = rest.any(|(_, attempt)| attempt.client.is_some());
    let attempt = attempts.get_mut(index).ok_or(Cause::Internal)?;
    let media = [*inbound, Some(attempt.trunk)].map(|id| LegMedia::of(&loadout.snapshot, id));
    let crossing = Crossing {
        now: turn.now.mono,
        from: Side::Caller,
        places,
        anchor,
        role: Some(Role::Offer),
        sender: &mut caller.description,
        receiver: &mut attempt.leg.description,
        media,
        near: [source.ip(), attempt.target.ip()],
        passage: token.as_ref(),
        first: true,
        asked_for: false,
        others,
    };
    let carried = sdp::carry(core, invite, crossing, body)?;
    emergency::described(core, call, turn, Side::Caller, carried.oddities);
    Ok(carried.description)
}

/// What an INVITE is made of.
struct Parts<'a> {
    pending: &'a PendingInvite,
    invite: &'a Message<'a>,
    identity: Option<&'a [u8]>,
    body: &'a [u8],
    offer: bool,
}

fn send_parts(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    index: usize,
    parts: &Parts<'_>,
) -> Result<(), NotSent> {
    let internal = NotSent::Call(500, Cause::Internal);
    let loadout = Arc::clone(&call.loadout);
    let snapshot = &*loadout.snapshot;
    let Parts { pending, invite, body, .. } = *parts;
    let token = core.random_16();
    let room = if call.is_emergency() { Room::Emergency } else { Room::Ordinary };
    let Ok((client, branch)) = core.layer.reserve_branch(room, ctx!(core, turn)) else {
        return Err(NotSent::Call(503, Cause::TransactionsFull));
    };
    let tu = call.tu();
    let told = call.attempts.get(index).and_then(|attempt| told(call, attempt.trunk));
    let elin = emergency::callback(snapshot, call.class, call.location);
    let psap = emergency::psap(snapshot, call.emergency.as_ref());
    let own_host = call.attempts.get(index).ok_or(internal)?.leg.own_host.clone();
    let unix_ms = turn.now.unix_ms;
    let location = emergency::location_body(call, invite, body, &own_host, unix_ms, token);
    let own_identity = std::mem::take(&mut call.emergency_identity);
    let signature =
        parts.identity.or_else(|| (!own_identity.is_empty()).then_some(own_identity.as_slice()));
    let mut uri = core.pool.take();
    let Call { attempts, caller, emergency: token, .. } = &mut *call;
    let attempt = attempts.get_mut(index).ok_or(internal)?;
    write_request_uri(invite, psap, attempt.target, &mut uri);
    let leg = &mut attempt.leg;
    leg.dialog.target = SmallVec::from_slice(&uri);
    let cseq = leg.dialog.next_cseq();
    let hide = caller.hide(leg);
    let told = told.zip(match verstat::place(invite) {
        verstat::Place::Asserted(index) => Some(index),
        verstat::Place::From | verstat::Place::Nowhere => None,
    });
    let skip = Skip {
        emergency: token.is_some(),
        identities: elin.is_some(),
        verstat: told.map(|(outcome, index)| (index, outcome)),
    };
    let Core { layer, listeners, wheel, counters, .. } = core;
    let listener = listeners.get(usize::from(leg.listener.0)).ok_or(internal)?;
    let context = &mut Ctx { wheel, tx: turn.out, counters };
    let (hop, dialog) = (leg.hop, &leg.dialog);
    let sent = layer.request(turn.now.mono, client, Method::Invite, hop, tu, context, |out| {
        listener.write_request(b"INVITE", &uri, &branch, pending.max_forwards, out);
        dialog.write(cseq, b"INVITE", out);
        listener.write_contact(&leg.user, out);
        write_passed_except(invite, hide, skip, out);
        if let Some(number) = elin {
            out.extend_from_slice(b"P-Asserted-Identity: ");
            emergency::write_callback(number, &own_host, out);
            out.extend_from_slice(b"\r\n");
        }
        if token.is_some() && invite.header(HeaderName::Priority).is_none() {
            write_line(b"Priority", b"emergency", out);
        }
        if let Some(value) = signature {
            // The date that the token was made at (RFC 8224 6.1 step 3).
            if invite.header(HeaderName::Date).is_none() {
                out.extend_from_slice(b"Date: ");
                write_date(unix_ms / 1000, out);
                out.extend_from_slice(b"\r\n");
            }
            write_line(b"Identity", value, out);
        }
        match &location {
            Some(location) => {
                write_line(b"Geolocation", location.geolocation.as_bytes(), out);
                if invite.header(HeaderName::GeolocationRouting).is_none() {
                    write_line(b"Geolocation-Routing", b"yes", out);
                }
                write_line(b"MIME-Version", b"1.0", out);
                write_line(b"Content-Type", location.content_type.as_bytes(), out);
                write_content(&location.body, out);
            }
            None if body.is_empty() => write_no_body(out),
            None => {
                // What could not be read has been replaced by what can.
                if token.is_some() && sdp::is_coded(invite) {
                    write_line(b"Content-Type", b"application/sdp", out);
                } else {
                    write_body_headers(invite, out);
                }
                write_content(body, out);
            }
        }
        Ok::<(), ()>(())
    });
    core.pool.give(uri);
    if sent.is_err() {
        core.layer.kill_client(client, ctx!(core, turn));
        return Err(internal);
    }
    leg.negotiation.invite_sent(parts.offer);
    attempt.client = Some(client);
    attempt.state = AttemptState::Calling;
    attempt.started = turn.now.mono;
    let number = attempt.number;
    let wait =
        if call.is_emergency() { walk::NO_RESPONSE } else { core.limits.attempt_no_response };
    let timer = arm(core, turn, call.key, wait, CallTimer::Attempt(number));
    if let Some(attempt) = call.attempts.get_mut(index) {
        attempt.timer = timer;
    }
    call.note(turn.now.mono, Peer::Callee(number), false, MethodLabel::Invite, 0);
    if call.is_emergency() {
        emergency::attempted(core, call, turn, index);
    }
    Ok(())
}

/// Starts a timer of a call.
pub(crate) fn arm(
    core: &mut Core,
    turn: &Turn<'_>,
    key: crate::identity::CallKey,
    after: Duration,
    kind: CallTimer,
) -> TimerId {
    let timer = Timer::Call { slot: key.slot, generation: key.generation, kind };
    core.wheel.insert(turn.now.mono + after, timer)
}

/// The Request-URI of an attempt: what was dialled, at the target. Emergency: the PSAP number of
/// the site (EM-44).
fn write_request_uri(
    invite: &Message<'_>,
    psap: Option<&str>,
    target: std::net::SocketAddr,
    out: &mut Vec<u8>,
) {
    let mut host = Vec::with_capacity(48);
    push_address(target, &mut host);
    let requested = invite.request_uri().unwrap_or_default();
    match (psap, invite.target()) {
        (Some(number), _) => {
            out.extend_from_slice(b"sip:");
            out.extend_from_slice(number.as_bytes());
            out.push(b'@');
            out.extend_from_slice(&host);
        }
        (None, Some(uri)) => write_uri(uri, requested, &host, out),
        (None, None) => out.extend_from_slice(requested),
    }
}

/// Gives up an attempt that is still open: its INVITE is cancelled, and if a 2xx comes all the same
/// it is still heard (EM-53).
pub(crate) fn abandon(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    index: usize,
    cause: Cause,
    reason: &[u8],
) {
    let Some(attempt) = call.attempts.get_mut(index) else { return };
    core.wheel.cancel(attempt.timer);
    match attempt.state {
        AttemptState::Signing => {
            attempt.state = AttemptState::Failed;
            attempt.cause = cause;
            attempt.permit = None;
            attempt.end_at = Some(turn.now.mono);
        }
        AttemptState::Calling => {
            attempt.state = AttemptState::Abandoned;
            attempt.cause = cause;
            attempt.permit = None;
            attempt.end_at = Some(turn.now.mono);
            let number = attempt.number;
            if let Some(client) = attempt.client {
                core.layer.cancel(turn.now.mono, client, reason, ctx!(core, turn));
                call.note(turn.now.mono, Peer::Callee(number), false, MethodLabel::Cancel, 0);
            }
        }
        AttemptState::Abandoned | AttemptState::Failed | AttemptState::Answered => {}
    }
}

/// The time of an attempt is up (EM-51; ordinary calls: no response at all).
pub(crate) fn out_of_patience(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>, number: u16) {
    let Some(index) = call.attempts.iter().position(|attempt| attempt.number == number) else {
        return;
    };
    let Some(attempt) = call.attempts.get(index) else { return };
    if attempt.state != AttemptState::Calling
        || !matches!(call.phase, Phase::Routing | Phase::Ringing)
    {
        return;
    }
    let alone = !call.is_emergency() && !call.plan.has_more() && !call.plan.is_last_resort();
    if alone || attempt.progress == walk::Progress::Ringing {
        return;
    }
    abandon(core, call, turn, index, Cause::FarSideTimeout, b"");
    call.last_failure = (Cause::FarSideTimeout.status(), Cause::FarSideTimeout);
    if call.is_emergency() {
        emergency::attempt_failed(core, call, turn, 0);
    }
    advance(core, call, turn, None);
}
