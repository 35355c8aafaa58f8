//! A new INVITE: from the packet to the call, and from the call to its first attempt.

use std::sync::Arc;

use ravelin_policy::{Class, OnFailure, RealmId, Transport, TrunkId};
use ravelin_stir::{
    outcome::{Outcome, Verstat},
    verify::Verdict,
};
use ravelin_wire::sip::{HeaderName, Message, Scheme, Uri};
use slab::Slab;
use smallvec::SmallVec;

use super::{
    attempt::{abandon, contact_user, search},
    call::{Call, CallTimers, GENERATION_MASK, PendingInvite, Permits, Phase, call_id_text, tu_of},
    cdr::{Refused, write_refused},
    compose::{host_text, push_address, write_record_routes},
    dialog::Dialog,
    hiding::Veil,
    ladder::{Peer, Steps},
    leg::{Goodbye, Leg, is_behind_nat},
    offer::Negotiation,
    release,
    respond::{Response, write_head, write_refusal_lines},
    sdp::Description,
    within,
};
use crate::{
    admission::{Permit, Refusal},
    cause::Cause,
    checkpoint::Survival,
    core::{Core, Turn, ctx},
    drops::DropReason,
    emergency::{self, Passage},
    identity::{CallKey, VerifyJob, caller_uri, number_plan},
    port::{Egress, ListenerId, Local, Meta},
    route::{self, Plan},
    sip::{
        reply::response_egress,
        transaction::{Hop, NewRequest, Room, ServerKey},
    },
    timer::TimerId,
};

/// An initial INVITE and what is known of its sender.
#[derive(Debug)]
pub(crate) struct Arrival<'a> {
    pub meta: &'a Meta,
    pub invite: &'a Message<'a>,
    pub listener: ListenerId,
    pub realm: RealmId,
    pub trunk: Option<TrunkId>,
    pub class: Class,
    /// Ordinary calls may be ended for it.
    pub preempts: bool,
}

/// Takes an initial INVITE: a call, a refusal, or a drop.
pub(crate) fn receive(
    core: &mut Core,
    calls: &mut Slab<Box<Call>>,
    turn: &mut Turn<'_>,
    arrival: &Arrival<'_>,
    new: NewRequest,
    generation: u32,
) -> Result<Option<CallKey>, DropReason> {
    let loadout = Arc::clone(&core.loadout);
    let snapshot = &*loadout.snapshot;
    let emergency = matches!(arrival.class, Class::Emergency(_));
    if arrival.trunk.is_none() && !emergency {
        return Err(DropReason::UnknownSource);
    }
    let token = emergency.then(|| emergency::decide(snapshot, arrival));
    let token = token
        .filter(|_| snapshot.realm(arrival.realm).is_some_and(|realm| realm.emergency_allowed));
    let denied = match &token {
        None if emergency => Some(Cause::EmergencyDenied),
        // This node is gone in a moment; the caller's next choice is not.
        Some(_) if core.stopping => Some(Cause::Stopped),
        _ => None,
    };
    if let Some(cause) = denied {
        emergency::denied(core, turn, arrival, cause);
        refuse_arrival(core, turn, arrival, new, cause);
        return Ok(None);
    }
    let permits = match gates(core, calls.len(), turn, arrival, token.as_ref()) {
        Ok(permits) => permits,
        Err(cause) => {
            refuse_arrival(core, turn, arrival, new, cause);
            return Ok(None);
        }
    };
    let Some(reply) = response_egress(arrival.meta, &arrival.invite.top_via()) else {
        return Err(DropReason::BadReplyAddress);
    };
    let room = if token.is_some() { Room::Emergency } else { Room::Ordinary };
    let method = ravelin_wire::sip::Method::Invite;
    let Ok(server) = core.layer.open(new, method, reply, room, ctx!(core, turn)) else {
        refuse_stateless(core, turn, arrival, Cause::TransactionsFull);
        return Ok(None);
    };
    let entry = calls.vacant_entry();
    let slot = u32::try_from(entry.key()).unwrap_or(u32::MAX);
    let key = CallKey { slot, generation: generation & GENERATION_MASK };
    core.layer.set_owner(server, tu_of(key));
    let handle = core.layer.identifiers().handle(slot);
    let tag = handle.tag();
    let mut pending = PendingInvite {
        server,
        request: core.pool.copy(arrival.invite.raw()),
        head: core.pool.take(),
        routes: core.pool.take(),
        max_forwards: arrival.invite.max_forwards().map_or(70, |hops| hops.saturating_sub(1)),
    };
    write_head(arrival.invite, arrival.meta.source, &tag, &mut pending.head);
    write_record_routes(arrival.invite, &mut pending.routes);
    if token.is_some() && pending.max_forwards == 0 {
        // Repaired, not refused (EM-55).
        pending.max_forwards = 70;
    }
    let trusted = arrival
        .trunk
        .and_then(|id| snapshot.trunk(id))
        .is_some_and(|trunk| trunk.trust.asserted_identity);
    let caller = caller_leg(core, arrival, tag);
    let id = call_id_text(turn.now.unix_ms, core.layer.identifiers().handle(slot));
    let from = caller_uri(arrival.invite, trusted);
    let location = emergency::location(snapshot, arrival);
    let call = entry.insert(Box::new(Call {
        key,
        id,
        started: turn.now,
        loadout: Arc::clone(&loadout),
        phase: Phase::Routing,
        class: arrival.class,
        emergency: token,
        preempts: arrival.preempts,
        emergency_identity: Vec::new(),
        location,
        source: arrival.meta.source,
        inbound: arrival.trunk,
        permits,
        route: None,
        from: SmallVec::from_slice(from),
        to: SmallVec::from_slice(arrival.invite.request_uri().unwrap_or_default()),
        identity_in: None,
        verstat: None,
        stir_reason: None,
        early_offer: has_description(arrival.invite),
        last_failure: (503, Cause::TrunksDown),
        caller,
        server,
        pending: Some(pending),
        plan: Plan::default(),
        attempts: SmallVec::new(),
        winner: None,
        anchor: None,
        relays: SmallVec::new(),
        forks: SmallVec::new(),
        heard: None,
        turned_down: Vec::new(),
        timers: CallTimers {
            ring: TimerId::NEVER,
            max_duration: TimerId::NEVER,
            restart: TimerId::NEVER,
            silence: TimerId::NEVER,
            failure: TimerId::NEVER,
            linger: TimerId::NEVER,
        },
        silence: super::silence::Silence::default(),
        ring_at: None,
        answer_at: None,
        end: None,
        steps: Steps::default(),
        capture: None,
        given_up: false,
        plain_way: None,
        oddities: Default::default(),
        survival: Survival::default(),
    }));
    call.note_received(turn.now.mono, Peer::Caller, arrival.invite);
    release::trying(core, call, turn, arrival.invite);
    if call.is_emergency() {
        emergency::started(core, call, turn);
    }
    verify_or_route(core, call, turn, arrival, from, trusted);
    Ok(Some(key))
}

/// Whether a session description is in the INVITE.
fn has_description(invite: &Message<'_>) -> bool {
    invite
        .content()
        .and_then(|kind| kind.find_part(invite.body(), b"application", b"sdp"))
        .is_some_and(|part| !part.body.is_empty())
}

/// Every gate that an INVITE passes, in order. Each takes the token, and the token passes each
/// (emergency.md 1, rule 1).
fn gates(
    core: &Core,
    calls: usize,
    turn: &Turn<'_>,
    arrival: &Arrival<'_>,
    passage: Passage<'_>,
) -> Result<Permits, Cause> {
    gate_message(core, arrival, passage)?;
    gate_drain(core, passage)?;
    gate_room(core, calls, passage)?;
    let node = gate_node(core, turn, passage)?;
    Ok(Permits { node: Some(node), trunk: gate_trunk(core, turn, arrival, passage)? })
}

fn gate_message(core: &Core, arrival: &Arrival<'_>, passage: Passage<'_>) -> Result<(), Cause> {
    if passage.is_some() {
        return Ok(());
    }
    let invite = arrival.invite;
    let bound = core.loadout.snapshot.limits.message_bytes;
    if u32::try_from(invite.raw().len()).unwrap_or(u32::MAX) > bound {
        return Err(Cause::TooLarge);
    }
    if invite.max_forwards() == Some(0) {
        return Err(Cause::TooManyHops);
    }
    let uri = invite.target().ok_or(Cause::Malformed)?;
    if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips | Scheme::Tel)
        && !matches!(arrival.class, Class::TestSos)
    {
        return Err(Cause::UriScheme);
    }
    if super::within::asks_too_much(invite) {
        return Err(Cause::BadExtension);
    }
    // RFC 3261 7.4.1; what cannot be told cannot be hidden.
    if invite.content().is_none() && !invite.body().is_empty() {
        return Err(Cause::MediaType);
    }
    Ok(())
}

fn gate_drain(core: &Core, passage: Passage<'_>) -> Result<(), Cause> {
    if core.draining && passage.is_none() { Err(Cause::Draining) } else { Ok(()) }
}

fn gate_room(core: &Core, calls: usize, passage: Passage<'_>) -> Result<(), Cause> {
    let room = core.limits.calls.saturating_sub(core.limits.calls_emergency_reserve);
    let full = calls >= usize::try_from(room).unwrap_or(usize::MAX);
    if full && passage.is_none() { Err(Cause::CallsFull) } else { Ok(()) }
}

fn gate_node(core: &Core, turn: &Turn<'_>, passage: Passage<'_>) -> Result<Permit, Cause> {
    core.loadout.node.admit(turn.now.mono, passage).map_err(|refused| match refused {
        Refusal::Calls => Cause::NodeCalls,
        Refusal::Rate => Cause::NodeCps,
    })
}

fn gate_trunk(
    core: &Core,
    turn: &Turn<'_>,
    arrival: &Arrival<'_>,
    passage: Passage<'_>,
) -> Result<Option<Permit>, Cause> {
    let Some(trunk) = arrival.trunk else { return Ok(None) };
    let Some(gauge) = core.loadout.gauges.get(usize::from(trunk.0)) else { return Ok(None) };
    gauge.admit(turn.now.mono, passage).map(Some).map_err(refusal)
}

/// The cause for what a trunk's gauge refused.
pub(crate) const fn refusal(refusal: Refusal) -> Cause {
    match refusal {
        Refusal::Calls => Cause::TrunkCalls,
        Refusal::Rate => Cause::TrunkCps,
    }
}

fn caller_leg(core: &mut Core, arrival: &Arrival<'_>, tag: crate::ids::TagText) -> Leg {
    let mut dialog = Dialog::incoming(arrival.invite, tag);
    let source = arrival.meta.source;
    if dialog.target.is_empty() {
        // Its Contact is missing (RFC 3261 8.1.1.8): where it came from is all that is known.
        dialog.target.extend_from_slice(b"sip:");
        let mut host = Vec::with_capacity(24);
        push_address(source, &mut host);
        dialog.target.extend_from_slice(&host);
    }
    let listener = arrival.listener;
    let egress = match arrival.meta.local {
        Local::Stream { flow, listener } => {
            Egress::Flow { flow, or_connect: Some((listener, source)) }
        }
        _ => Egress::Udp { listener, to: source },
    };
    let tcp = matches!(egress, Egress::Udp { .. })
        .then(|| {
            route::find_listener(&core.loadout.snapshot, arrival.realm, Transport::Tcp, source)
        })
        .flatten()
        .map(|listener| (listener, source));
    let hop = Hop { egress, tcp };
    let user =
        arrival.invite.target().and_then(|uri| uri.user).map(contact_user).unwrap_or_default();
    let description = Description::new(core.layer.identifiers().nonce());
    let mut negotiation = Negotiation::default();
    negotiation.invite_received(has_description(arrival.invite));
    let mut leg = Leg {
        dialog,
        listener,
        hop,
        behind_nat: is_behind_nat(arrival.invite, source),
        negotiation,
        description,
        ack_expected: None,
        ack_due: None,
        ack_body: Vec::new(),
        ack_body_cseq: 0,
        goodbye: Goodbye::No,
        user: SmallVec::from_slice(user),
        peer_host: SmallVec::from_vec(host_text(source)),
        own_host: core
            .listener(listener)
            .map(|own| SmallVec::from_slice(&own.host))
            .unwrap_or_default(),
    };
    leg.find_way();
    leg
}

/// Verification comes before routing, so that a rejected call costs nobody anything; emergency
/// calls are not verified (ST-74, EM-84).
fn verify_or_route(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    arrival: &Arrival<'_>,
    caller: &[u8],
    trusted: bool,
) {
    let loadout = Arc::clone(&call.loadout);
    let verify = call
        .inbound
        .and_then(|id| loadout.snapshot.trunk(id))
        .is_some_and(|trunk| trunk.identity.verify);
    if !verify {
        return route_call(core, call, turn, Some(arrival.invite));
    }
    if call.is_emergency() {
        call.identity_in = Some(Outcome::Skipped.label());
        return route_call(core, call, turn, Some(arrival.invite));
    }
    // The number to compare is From's where no trusted assertion stands (ST-17).
    let _ = trusted;
    call.phase = Phase::Verifying;
    let now = turn.now.unix_ms / 1000;
    let plan = number_plan(&loadout.snapshot, call.inbound);
    core.jobs.verify(VerifyJob::new(call.key, &loadout, arrival.invite, caller, &plan, now));
}

/// The verdict on the caller's Identity is there.
pub(crate) fn verified(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>, verdict: &Verdict) {
    if call.phase != Phase::Verifying {
        return;
    }
    call.phase = Phase::Routing;
    let outcome = verdict.outcome();
    call.identity_in = Some(outcome.label());
    call.verstat = outcome.verstat().map(Verstat::as_str);
    core.counters.identity_verified(outcome);
    let policy = call
        .inbound
        .and_then(|id| call.loadout.snapshot.trunk(id))
        .map_or(OnFailure::Annotate, |trunk| trunk.identity.on_failure);
    if outcome.failed() {
        if policy == OnFailure::Reject {
            let code = outcome.cause().unwrap_or(438);
            call.stir_reason = stir_reason(outcome);
            return release::refuse(core, call, turn, code, Cause::IdentityRefused, None);
        }
        call.stir_reason = stir_reason(outcome);
    }
    route_call(core, call, turn, None);
}

/// Value of the Reason header that reports a failed verification (ST-61).
fn stir_reason(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::BadInfo => Some("STIR;cause=436;text=\"Bad Identity Info\""),
        Outcome::BadCred => Some("STIR;cause=437;text=\"Unsupported Credential\""),
        Outcome::BadToken => Some("STIR;cause=438;text=\"Invalid Identity Header\""),
        Outcome::Stale => Some("STIR;cause=403;text=\"Stale Date\""),
        _ => None,
    }
}

/// Finds the ways to the callee and tries the first.
fn route_call(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>, invite: Option<&Message<'_>>) {
    let loadout = Arc::clone(&call.loadout);
    let snapshot = &*loadout.snapshot;
    let now = turn.now.mono;
    if let Some(token) = &call.emergency {
        let chain = token.chain().iter().map(|trunk| TrunkId(*trunk));
        call.plan = Plan::emergency(&loadout, chain, now, core.layer.identifiers());
        return search(core, call, turn, None, invite);
    }
    if call.class == Class::TestSos {
        // Not supported here: 404 says so (EM-20, RFC 6881 15).
        return release::refuse(core, call, turn, 404, Cause::NoRoute, None);
    }
    let dialled = Uri::parse(&call.to).and_then(|uri| uri.user).unwrap_or_default();
    let Some(from) = call.inbound else {
        return release::refuse(core, call, turn, 404, Cause::NoRoute, None);
    };
    call.route = snapshot.route(from, contact_user(dialled));
    let trunks = call
        .route
        .and_then(|route| snapshot.route_settings(route))
        .map(|route| route.trunks.as_slice())
        .unwrap_or_default();
    call.plan = if call.class == Class::TestAddress {
        // Only trunks that read the address back (EM-19).
        let chain: SmallVec<[_; 4]> =
            snapshot.address_test_chain(call.location.map(|found| found.site)).collect();
        Plan::ordinary(&loadout, chain.iter().copied(), now, core.layer.identifiers())
    } else {
        Plan::ordinary(&loadout, trunks.iter().copied(), now, core.layer.identifiers())
    };
    let nowhere = trunks.is_empty() || call.class == Class::TestAddress;
    if nowhere && call.plan.is_empty() {
        return release::refuse(core, call, turn, 404, Cause::NoRoute, None);
    }
    search(core, call, turn, None, invite);
}

/// An INVITE is cancelled. The CANCEL itself is answered by whoever received it; its Reason goes on.
pub(crate) fn cancelled(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    cancel: &Message<'_>,
    invite: ServerKey,
) {
    call.note(turn.now.mono, Peer::Caller, true, crate::counters::MethodLabel::Cancel, 0);
    let mut why = Vec::new();
    if let Some(reason) = cancel.header(HeaderName::Reason)
        && let Some(attempt) = call.attempts.last()
    {
        Veil::of(cancel, call.caller.hide(&attempt.leg)).push(reason, &mut why);
    }
    // The INVITE that it names may be one inside the dialog.
    if invite != call.server {
        return within::cancelled(core, call, turn, invite, &why);
    }
    if call.pending.is_none() || call.end.is_some() {
        // Answered already: the caller acknowledges and hangs up (RFC 3261 9.2).
        return;
    }
    for index in 0..call.attempts.len() {
        abandon(core, call, turn, index, Cause::Cancelled, &why);
    }
    release::refuse(core, call, turn, 487, Cause::Cancelled, None);
}

/// Refuses an INVITE that does not become a call, in a transaction of its own, and records it.
pub(crate) fn refuse_arrival(
    core: &mut Core,
    turn: &mut Turn<'_>,
    arrival: &Arrival<'_>,
    new: NewRequest,
    cause: Cause,
) {
    let code = cause.status();
    let invite = arrival.invite;
    let opened = response_egress(arrival.meta, &invite.top_via()).and_then(|reply| {
        let method = ravelin_wire::sip::Method::Invite;
        core.layer.open(new, method, reply, Room::Ordinary, ctx!(core, turn)).ok()
    });
    let Some(server) = opened else {
        return refuse_stateless(core, turn, arrival, cause);
    };
    core.counters.refusal(cause);
    let tag = core.layer.identifiers().handle(crate::ids::Handle::NO_SLOT).tag();
    let mut head = core.pool.take();
    write_head(invite, arrival.meta.source, &tag, &mut head);
    let mut lines = Vec::new();
    write_refusal_lines(cause, invite, &mut lines);
    let response = Response {
        lines: &lines,
        cause: Some(cause),
        retry_after: (code == 503).then_some(release::RETRY_AFTER_S),
        ..Response::own(code, &head)
    };
    let _ = core.layer.respond(turn.now.mono, server, code, ctx!(core, turn), |out| {
        response.write(out);
        Ok::<(), ()>(())
    });
    core.pool.give(head);
    record(core, turn, arrival, cause);
}

fn refuse_stateless(core: &mut Core, turn: &mut Turn<'_>, arrival: &Arrival<'_>, cause: Cause) {
    let (meta, invite) = (arrival.meta, arrival.invite);
    let _ = core.stateless.refuse(turn.now.mono, meta, invite, cause, &[], ctx!(core, turn));
    record(core, turn, arrival, cause);
}

fn record(core: &mut Core, turn: &Turn<'_>, arrival: &Arrival<'_>, cause: Cause) {
    write_refused(
        core,
        turn,
        &Refused {
            meta: arrival.meta,
            invite: arrival.invite,
            class: arrival.class,
            inbound: arrival.trunk,
            cause,
            status: cause.status(),
        },
    );
}
