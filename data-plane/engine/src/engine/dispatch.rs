//! From the bytes on a signalling listener to the call they belong to.

use std::sync::Arc;

use ravelin_policy::{Class, RealmId, TrunkId};
use ravelin_wire::{
    demux,
    limits::MESSAGE_MAX_BYTES,
    sip::{Framing, HeaderName, Message, Method, NameAddr, ParseError, StartLine, repair, salvage},
};

use super::{Engine, Received};
use crate::{
    b2bua::{
        answer,
        call::{Phase, call_of},
        headers::{ALLOW, write_unsupported},
        invite::{self, Arrival},
        leg::Side,
        message::Incoming,
        outcome, release,
        respond::{Response, write_head},
        within,
    },
    cause::Cause,
    core::{Turn, ctx},
    drops::DropReason,
    identity::CallKey,
    ids::{Handle, TagText},
    port::{ListenerId, Local, Meta},
    sip::{
        reply::response_egress,
        transaction::{ClientEvent, NewRequest, Room, ServerEvent, ServerKey, TuKey},
    },
};

impl Engine {
    pub(super) fn signalling(
        &mut self,
        turn: &mut Turn<'_>,
        meta: &Meta,
        bytes: &[u8],
    ) -> Received {
        let (listener, framing) = match meta.local {
            Local::Signalling { listener } => (listener, Framing::Datagram),
            Local::Stream { listener, .. } => (listener, Framing::Stream),
            Local::Media { .. } => return Received::Dropped(DropReason::UnknownProtocol),
        };
        match demux::first_byte(bytes) {
            demux::Kind::Sip => {}
            demux::Kind::KeepAlive => return Received::Dropped(DropReason::KeepAlive),
            // A message may begin with line ends, or with what no demultiplexer knows: the parser
            // decides.
            demux::Kind::Unknown if bytes.first().is_some_and(u8::is_ascii) => {}
            _ => return Received::Dropped(DropReason::UnknownProtocol),
        }
        if bytes.len() > MESSAGE_MAX_BYTES {
            return Received::Dropped(DropReason::Oversized);
        }
        let Some(realm) = self.core.listener(listener).map(|own| own.realm) else {
            return Received::Dropped(DropReason::UnknownProtocol);
        };
        // By reference: moving it costs as much as reading a small one.
        match &Message::parse(bytes, framing) {
            Ok(message) => match message.start() {
                StartLine::Response { .. } => self.response(turn, meta, message),
                StartLine::Request { .. } => self.request(turn, meta, message, (listener, realm)),
            },
            Err(error) => self
                .repaired(turn, meta, (listener, realm), bytes, framing)
                .unwrap_or_else(|| self.broken(turn, meta, realm, bytes, *error)),
        }
    }

    /// A broken request of an emergency call goes on without its faults where that can be (EM-55).
    fn repaired(
        &mut self,
        turn: &mut Turn<'_>,
        meta: &Meta,
        (listener, realm): (ListenerId, RealmId),
        bytes: &[u8],
        framing: Framing,
    ) -> Option<Received> {
        let uri = bytes.split(|c| *c == b' ').nth(1)?;
        let class = self.core.loadout.snapshot.classify(realm, uri);
        if !matches!(class, Class::Emergency(_)) {
            // In a dialog the Request-URI is ours; the To tag says which call it is for.
            let saved = salvage(bytes)?;
            let to = NameAddr::parse(saved.to?)?;
            let handle = Handle::from_tag(to.tag()?)?;
            let owner = self.owners.of_request(to.tag(), saved.call_id?);
            if owner != self.core.shard && !self.placements.is_ours() {
                return Some(Received::Elsewhere(owner));
            }
            let call = self.calls.get(usize::try_from(handle.slot).ok()?)?;
            call.emergency.as_ref()?;
        }
        let mut copy = Vec::new();
        repair(bytes, &mut copy).then_some(())?;
        let message = Message::parse(&copy, framing).ok()?;
        let received = self.request(turn, meta, &message, (listener, realm));
        if !matches!(received, Received::Elsewhere(_) | Received::Placed { .. }) {
            self.core.counters.emergency_repaired += 1;
        }
        Some(received)
    }

    /// Whether a message of this shard is longer than the operator takes. Emergency calls are not
    /// bound by that; an initial INVITE has a gate, which they pass.
    fn is_too_large(&self, message: &Message<'_>) -> bool {
        let bound = self.core.loadout.snapshot.limits.message_bytes;
        if u32::try_from(message.raw().len()).unwrap_or(u32::MAX) <= bound {
            return false;
        }
        let call = match (message.method(), message.to().tag()) {
            (Some(Method::Invite), None) => return false,
            (Some(_), tag) => tag.and_then(Handle::from_tag).map(|handle| handle.slot),
            (None, _) => message
                .top_via()
                .branch
                .and_then(|branch| call_of(self.core.layer.owner_of(branch)?))
                .map(|key| key.slot),
        };
        let call =
            call.and_then(|slot| usize::try_from(slot).ok()).and_then(|slot| self.calls.get(slot));
        !call.is_some_and(|call| call.is_emergency())
    }

    /// Answered if it is a request of somebody we know (RFC 3261 21.5.7), else dropped.
    fn too_large(
        &mut self,
        turn: &mut Turn<'_>,
        meta: &Meta,
        realm: RealmId,
        message: &Message<'_>,
    ) -> Received {
        if message.method().is_none_or(|method| method == Method::Ack) {
            return Received::Dropped(DropReason::Oversized);
        }
        if !self.knows(realm, meta) {
            return Received::Dropped(DropReason::UnknownSource);
        }
        let (core, now) = (&mut self.core, turn.now.mono);
        // What happened to it is counted there.
        let _ = core.stateless.refuse(now, meta, message, Cause::TooLarge, &[], ctx!(core, turn));
        Received::Taken
    }

    /// A message that breaks the grammar: answered if it is a request of somebody we know.
    fn broken(
        &mut self,
        turn: &mut Turn<'_>,
        meta: &Meta,
        realm: RealmId,
        bytes: &[u8],
        error: ParseError,
    ) -> Received {
        if bytes.starts_with(b"SIP/") {
            return Received::Dropped(DropReason::MalformedResponse);
        }
        if self.core.loadout.snapshot.trunk_by_source(realm, meta.source).is_none() {
            return Received::Dropped(DropReason::UnknownSource);
        }
        let Some(saved) = salvage(bytes).filter(|_| error.answerable()) else {
            return Received::Dropped(DropReason::MalformedRequest);
        };
        let cause = match error.status() {
            505 => Cause::Version,
            513 => Cause::TooLarge,
            501 => Cause::MethodUnknown,
            414 => Cause::UriTooLong,
            _ => Cause::Malformed,
        };
        let core = &mut self.core;
        let code = error.status();
        let now = turn.now.mono;
        match core.stateless.refuse_broken(now, meta, &saved, code, cause, ctx!(core, turn)) {
            // Counted there.
            Ok(()) | Err(_) => Received::Taken,
        }
    }

    fn response(&mut self, turn: &mut Turn<'_>, meta: &Meta, message: &Message<'_>) -> Received {
        match self.owners.of_response(message.top_via().branch) {
            None => return Received::Dropped(DropReason::StrayResponse),
            Some(owner) if owner != self.core.shard => return Received::Elsewhere(owner),
            Some(_) => {}
        }
        if self.is_too_large(message) {
            return Received::Dropped(DropReason::Oversized);
        }
        let core = &mut self.core;
        let event = core.layer.receive_response(turn.now.mono, message, ctx!(core, turn));
        match event {
            ClientEvent::Absorbed => {}
            ClientEvent::Stray => return self.stray(turn, meta, message),
            ClientEvent::Provisional { owner, client } => {
                let Some(key) = call_of(owner) else { return Received::Taken };
                self.with_call(turn, key, |core, call, turn| {
                    if let Some(index) = call.attempt_of(client) {
                        answer::provisional(core, call, turn, index, message);
                    } else if let Some(at) = call.relays.iter().position(|r| r.client == client) {
                        outcome::provisional(core, call, turn, at, message);
                    }
                });
            }
            ClientEvent::Final { owner, client } => {
                if owner.as_probe().is_some() {
                    let change = self.prober.answered(turn.now.mono, owner, message);
                    self.probed(turn, change);
                    return Received::Taken;
                }
                if self.messages.done(&mut self.core, turn, owner, Ok(message)) {
                    return Received::Taken;
                }
                let handled = call_of(owner).and_then(|key| {
                    self.with_call(turn, key, |core, call, turn| {
                        if let Some(index) = call.attempt_of(client) {
                            answer::last(core, call, turn, index, message);
                        } else if let Some(at) = call.relays.iter().position(|r| r.client == client)
                        {
                            outcome::last(core, call, turn, at, message);
                        } else {
                            call.goodbye_said(client);
                        }
                    })
                });
                if handled.is_none() {
                    self.orphan(turn, meta, message);
                }
            }
            ClientEvent::Further2xx { owner, .. } => {
                let handled = call_of(owner).and_then(|key| {
                    self.with_call(turn, key, |core, call, turn| {
                        answer::further_2xx(core, call, turn, meta, message);
                    })
                });
                if handled.is_none() {
                    self.orphan(turn, meta, message);
                }
            }
        }
        Received::Taken
    }

    /// A response that no transaction awaits. After a restart it may be the 2xx of a call that was
    /// taken over, sent again because our ACK was lost with the process.
    fn stray(&mut self, turn: &mut Turn<'_>, meta: &Meta, message: &Message<'_>) -> Received {
        let dropped = Received::Dropped(DropReason::StrayResponse);
        let accepted = message.code().is_some_and(|code| (200..300).contains(&code));
        if !accepted || message.cseq().method != Method::Invite {
            return dropped;
        }
        let tag = message.from().tag().unwrap_or_default();
        let slot = Handle::from_tag(tag).and_then(|handle| usize::try_from(handle.slot).ok());
        let Some(call) = slot.and_then(|slot| self.calls.get(slot)) else { return dropped };
        let known = call.side_of(tag).and_then(|side| call.leg(side)).is_some_and(|leg| {
            leg.dialog.call_id() == message.call_id()
                && leg.dialog.remote_tag.as_slice() == message.to().tag().unwrap_or_default()
        });
        if call.survival.adopted == 0 || !known {
            return dropped;
        }
        self.with_call(turn, call.key, |core, call, turn| {
            answer::further_2xx(core, call, turn, meta, message);
        });
        Received::Taken
    }

    /// A final response whose call is gone: an answer to an INVITE must not stay unacknowledged.
    fn orphan(&mut self, turn: &mut Turn<'_>, meta: &Meta, message: &Message<'_>) {
        let accepted = message.code().is_some_and(|code| code < 300);
        if accepted && message.cseq().method == Method::Invite {
            release::turn_down_stranger(&mut self.core, turn, meta, message, true);
        }
    }

    fn request(
        &mut self,
        turn: &mut Turn<'_>,
        meta: &Meta,
        message: &Message<'_>,
        (listener, realm): (ListenerId, RealmId),
    ) -> Received {
        let to_tag = message.to().tag();
        let owner = self.owners.of_request(to_tag, message.call_id());
        if owner != self.core.shard && !self.placements.is_ours() {
            return Received::Elsewhere(owner);
        }
        if let Some((shard, tried)) = self.placed_elsewhere(turn, meta, message, (listener, realm))
        {
            return Received::Placed { shard, tried };
        }
        if self.is_too_large(message) {
            return self.too_large(turn, meta, realm, message);
        }
        let core = &mut self.core;
        match core.layer.receive_request(turn.now.mono, message, ctx!(core, turn)) {
            ServerEvent::Retransmission | ServerEvent::Ack { .. } => Received::Taken,
            ServerEvent::AckFor2xx => self.ack(turn, message),
            ServerEvent::Cancel { invite, cancel } => {
                self.cancel(turn, meta, message, invite, cancel)
            }
            ServerEvent::Merged(new) => {
                self.answer_alone(turn, meta, message, new, Answer::refusal(Cause::Loop))
            }
            ServerEvent::New(new) => match self.dialog_of(message) {
                Some((key, side)) => {
                    self.with_call(turn, key, |core, call, turn| {
                        within::request(core, call, turn, meta, message, new, side);
                    });
                    Received::Taken
                }
                None if to_tag.is_some() => {
                    if !self.knows(realm, meta) {
                        return Received::Dropped(DropReason::UnknownSource);
                    }
                    // A callee that has not answered yet has a dialog, and nobody to talk to.
                    let cause = if self.is_early(message) { Cause::Glare } else { Cause::NoDialog };
                    self.answer_alone(turn, meta, message, new, Answer::refusal(cause))
                }
                None => self.outside(turn, meta, message, new, (listener, realm)),
            },
        }
    }

    pub(super) fn knows(&self, realm: RealmId, meta: &Meta) -> bool {
        self.core.loadout.snapshot.trunk_by_source(realm, meta.source).is_some()
    }

    /// The call and side that a request with a To tag of ours is for.
    fn dialog_of(&self, message: &Message<'_>) -> Option<(CallKey, Side)> {
        let tag = message.to().tag()?;
        let handle = Handle::from_tag(tag)?;
        let call = self.calls.get(usize::try_from(handle.slot).ok()?)?;
        let side = call.side_of(tag)?;
        call.leg(side)?.dialog.matches(message).then_some((call.key, side))
    }

    /// Whether a request is of a callee whose INVITE is still open.
    fn is_early(&self, message: &Message<'_>) -> bool {
        let tag = message.to().tag().unwrap_or_default();
        let slot = Handle::from_tag(tag).and_then(|handle| usize::try_from(handle.slot).ok());
        let call = slot.and_then(|slot| self.calls.get(slot));
        call.is_some_and(|call| {
            call.attempts.iter().any(|attempt| {
                attempt.is_open()
                    && attempt.leg.dialog.local_tag == tag
                    && attempt.leg.dialog.call_id() == message.call_id()
            })
        })
    }

    fn ack(&mut self, turn: &mut Turn<'_>, message: &Message<'_>) -> Received {
        let Some((key, side)) = self.dialog_of(message) else {
            return Received::Dropped(DropReason::StrayAck);
        };
        // An ACK that repeats one we had is nothing to complain of.
        self.with_call(turn, key, |core, call, turn| {
            outcome::ack(core, call, turn, message, side);
        });
        Received::Taken
    }

    fn cancel(
        &mut self,
        turn: &mut Turn<'_>,
        meta: &Meta,
        message: &Message<'_>,
        invite: Option<(ServerKey, TuKey)>,
        cancel: NewRequest,
    ) -> Received {
        let Some((invite, owner)) = invite else {
            let Some(realm) = self.realm_of(meta).filter(|realm| self.knows(*realm, meta)) else {
                return Received::Dropped(DropReason::UnknownSource);
            };
            let _ = realm;
            return self.answer_alone(
                turn,
                meta,
                message,
                cancel,
                Answer::refusal(Cause::NoDialog),
            );
        };
        let key = call_of(owner);
        // The tag of the answers to the INVITE (RFC 3261 9.2).
        let call = key.and_then(|key| self.calls.get(usize::try_from(key.slot).ok()?));
        let tag = call.map(|call| call.caller.dialog.local_tag);
        self.answer_alone(turn, meta, message, cancel, Answer::cancelling(tag));
        if let Some(key) = key {
            self.with_call(turn, key, |core, call, turn| {
                if call.phase != Phase::Ending {
                    invite::cancelled(core, call, turn, message, invite);
                }
            });
        }
        Received::Taken
    }

    fn realm_of(&self, meta: &Meta) -> Option<RealmId> {
        match meta.local {
            Local::Signalling { listener } | Local::Stream { listener, .. } => {
                self.core.listener(listener).map(|own| own.realm)
            }
            Local::Media { .. } => None,
        }
    }

    /// A request outside a dialog.
    fn outside(
        &mut self,
        turn: &mut Turn<'_>,
        meta: &Meta,
        message: &Message<'_>,
        new: NewRequest,
        (listener, realm): (ListenerId, RealmId),
    ) -> Received {
        let loadout = Arc::clone(&self.core.loadout);
        let snapshot = &loadout.snapshot;
        let trunk = snapshot.trunk_by_source(realm, meta.source);
        let Some(method) = message.method() else { return Received::Taken };
        if method == Method::Invite {
            let uri = message.request_uri().unwrap_or_default();
            let class = snapshot.classify(realm, uri);
            let may = || snapshot.realm(realm).is_some_and(|realm| realm.emergency_allowed);
            let preempts = matches!(class, Class::Emergency(_))
                && may()
                && self.may_preempt(turn, meta.source.ip());
            if preempts {
                self.make_transaction_room(turn);
            }
            let arrival =
                Arrival { meta, invite: message, listener, realm, trunk, class, preempts };
            self.generation = self.generation.wrapping_add(1);
            let taken = invite::receive(
                &mut self.core,
                &mut self.calls,
                turn,
                &arrival,
                new,
                self.generation,
            );
            return match taken {
                Ok(Some(key)) => {
                    // The call may have ended by the time it was made.
                    self.with_call(turn, key, |_, _, _| {});
                    Received::Taken
                }
                Ok(None) => Received::Taken,
                Err(reason) => Received::Dropped(reason),
            };
        }
        let Some(trunk) = trunk else {
            return Received::Dropped(DropReason::UnknownSource);
        };
        let answer = match method {
            Method::Message => match self.pass_message(turn, meta, message, new, trunk) {
                Ok(()) => return Received::Taken,
                Err(cause) => Answer::refusal(cause),
            },
            Method::Options => match message.max_forwards() {
                Some(0) => Answer::refusal(Cause::TooManyHops),
                _ if within::asks_too_much(message) => Answer::refusal(Cause::BadExtension),
                _ => Answer::options(),
            },
            Method::Bye | Method::Update | Method::Info | Method::Prack | Method::Notify => {
                Answer::refusal(Cause::NoDialog)
            }
            Method::Register | Method::Subscribe | Method::Publish | Method::Refer => {
                Answer::refusal(Cause::MethodNotAllowed)
            }
            _ => Answer::refusal(Cause::MethodUnknown),
        };
        self.answer_alone(turn, meta, message, new, answer)
    }

    fn pass_message(
        &mut self,
        turn: &mut Turn<'_>,
        meta: &Meta,
        message: &Message<'_>,
        new: NewRequest,
        trunk: TrunkId,
    ) -> Result<(), Cause> {
        let near_own = match meta.local {
            Local::Signalling { listener } | Local::Stream { listener, .. } => {
                self.core.listener(listener).map(|own| own.host.clone()).unwrap_or_default()
            }
            Local::Media { .. } => return Err(Cause::Internal),
        };
        let incoming = Incoming { meta, message, trunk, near_own: &near_own };
        self.messages.pass(&mut self.core, turn, &incoming, new)
    }

    /// Answers a request that concerns no call.
    fn answer_alone(
        &mut self,
        turn: &mut Turn<'_>,
        meta: &Meta,
        message: &Message<'_>,
        new: NewRequest,
        answer: Answer,
    ) -> Received {
        let core = &mut self.core;
        let now = turn.now.mono;
        let method = message.method().unwrap_or(Method::Other(b""));
        // What a peer may send in any number is refused without state.
        if let Some(cause) = answer.cause
            && method != Method::Invite
        {
            let mut unsupported = Vec::new();
            let header = match cause {
                Cause::BadExtension => {
                    write_unsupported(message, &mut unsupported);
                    Some((HeaderName::Unsupported, unsupported.as_slice()))
                }
                _ => answer.allow.then_some((HeaderName::Allow, ALLOW)),
            };
            let headers = header.as_slice();
            let _ = core.stateless.refuse(now, meta, message, cause, headers, ctx!(core, turn));
            return Received::Taken;
        }
        let Some(reply) = response_egress(meta, &message.top_via()) else {
            return Received::Dropped(DropReason::BadReplyAddress);
        };
        // A CANCEL that found its INVITE makes room; anything else may come in any number.
        let room = if answer.reserved { Room::Reserved } else { Room::Ordinary };
        let Ok(server) = core.layer.open(new, method, reply, room, ctx!(core, turn)) else {
            let cause = Cause::TransactionsFull;
            let _ = core.stateless.refuse(now, meta, message, cause, &[], ctx!(core, turn));
            return Received::Taken;
        };
        if let Some(cause) = answer.cause {
            core.counters.refusal(cause);
        }
        let fresh = || core.layer.identifiers().handle(Handle::NO_SLOT).tag();
        let tag = answer.tag.unwrap_or_else(fresh);
        let mut head = core.pool.take();
        write_head(message, meta.source, &tag, &mut head);
        let accept: &[u8] = if answer.options { OPTIONS_HEADERS } else { b"" };
        let response = Response {
            lines: accept,
            cause: answer.cause,
            allow: answer.allow,
            ..Response::own(answer.code, &head)
        };
        let _ = core.layer.respond(now, server, answer.code, ctx!(core, turn), |out| {
            response.write(out);
            Ok::<(), ()>(())
        });
        core.pool.give(head);
        Received::Taken
    }
}

/// What the answer to an OPTIONS says besides Allow (RFC 3261 11.2).
const OPTIONS_HEADERS: &[u8] =
    b"Accept: application/sdp, multipart/mixed\r\nAccept-Encoding: identity\r\nSupported: timer\r\n";

/// An answer of our own.
struct Answer {
    code: u16,
    cause: Option<Cause>,
    allow: bool,
    options: bool,
    /// It belongs to a call that exists.
    reserved: bool,
    /// To tag; `None`: a new one.
    tag: Option<TagText>,
}

impl Answer {
    const fn cancelling(tag: Option<TagText>) -> Self {
        Self { code: 200, cause: None, allow: false, options: false, reserved: true, tag }
    }

    const fn options() -> Self {
        Self { code: 200, cause: None, allow: true, options: true, reserved: false, tag: None }
    }

    const fn refusal(cause: Cause) -> Self {
        let allow = matches!(cause, Cause::MethodNotAllowed | Cause::MethodUnknown);
        Self {
            code: cause.status(),
            cause: Some(cause),
            allow,
            options: false,
            reserved: false,
            tag: None,
        }
    }
}
