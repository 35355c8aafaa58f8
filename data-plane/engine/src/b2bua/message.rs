//! MESSAGE outside a call (RFC 3428): passed on to the first usable target of its route, in a
//! transaction of its own on each side, and its answer passed back. Nothing is stored beyond that.

use std::sync::Arc;

use ravelin_policy::{Mode, TrunkId, guard_matches};
use ravelin_wire::sip::{Message, Method, Scheme, Uri};
use slab::Slab;
use smallvec::SmallVec;

use super::{
    attempt::contact_user,
    compose::{host_text, write_content, write_no_body, write_party, write_uri},
    dialog::Dialog,
    headers::{push_number, write_body_headers, write_passed},
    hiding::{Hide, Veil},
    respond::{Response, write_head},
};
use crate::{
    cause::Cause,
    core::{Core, Turn, ctx},
    ids::Handle,
    port::Meta,
    route::{self, Plan},
    sip::{
        reply::response_egress,
        transaction::{Ctx, NewRequest, Room, ServerKey, TuKey},
    },
};

/// Messages under way at a time on one shard; the next gets 503.
pub(crate) const MESSAGES_MAX: usize = 4_096;

/// One MESSAGE under way.
#[derive(Debug)]
pub(crate) struct Passing {
    generation: u32,
    server: ServerKey,
    /// What the answer repeats of the request.
    head: Vec<u8>,
    /// Hosts of the far side, and ours on the near side.
    far_host: SmallVec<[u8; 24]>,
    far_own: SmallVec<[u8; 24]>,
    near_own: SmallVec<[u8; 24]>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    passing: Slab<Passing>,
    generation: u32,
}

/// Tells an owner key of a message from that of a call or a probe.
const MARK: u64 = 1 << 62;

fn owner(slot: usize, generation: u32) -> TuKey {
    TuKey(MARK | u64::from(generation & 0x3fff_ffff) << 32 | slot as u64)
}

/// Where a MESSAGE came in.
#[derive(Debug)]
pub(crate) struct Incoming<'a> {
    pub meta: &'a Meta,
    pub message: &'a Message<'a>,
    pub trunk: TrunkId,
    pub near_own: &'a [u8],
}

impl Messages {
    pub(crate) fn len(&self) -> usize {
        self.passing.len()
    }

    /// Passes a MESSAGE on.
    ///
    /// # Errors
    /// The cause to refuse it with; it has no transaction then.
    pub(crate) fn pass(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        incoming: &Incoming<'_>,
        new: NewRequest,
    ) -> Result<(), Cause> {
        let (meta, message) = (incoming.meta, incoming.message);
        let hops = match message.max_forwards() {
            Some(0) => return Err(Cause::TooManyHops),
            Some(hops) => hops - 1,
            None => 70,
        };
        if super::within::asks_too_much(message) {
            return Err(Cause::BadExtension);
        }
        if core.draining || self.passing.len() >= MESSAGES_MAX {
            return Err(if core.draining { Cause::Draining } else { Cause::TransactionsFull });
        }
        let loadout = Arc::clone(&core.loadout);
        let snapshot = &*loadout.snapshot;
        let requested = message.request_uri().unwrap_or_default();
        let uri = Uri::parse(requested).ok_or(Cause::Malformed)?;
        if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips | Scheme::Tel) {
            return Err(Cause::UriScheme);
        }
        if snapshot.mode == Mode::Test
            && (guard_matches(requested) || guard_matches(message.to().uri))
        {
            return Err(Cause::TestMode);
        }
        let dialled = uri.user.map(contact_user).unwrap_or_default();
        let found = snapshot.route(incoming.trunk, dialled).ok_or(Cause::NoRoute)?;
        let trunks = snapshot.route_settings(found).map(|found| found.trunks.as_slice());
        let trunks = trunks.unwrap_or_default().iter().copied();
        let mut plan = Plan::ordinary(&loadout, trunks, turn.now.mono, core.layer.identifiers());
        let way = plan.next().ok_or(Cause::TrunksDown)?;
        let (listener, hop, target) = route::hop(snapshot, way).ok_or(Cause::TransportFailed)?;
        let reply = response_egress(meta, &message.top_via()).ok_or(Cause::Malformed)?;
        let (client, branch) = core
            .layer
            .reserve_branch(Room::Ordinary, ctx!(core, turn))
            .map_err(|_| Cause::TransactionsFull)?;
        let opened = core.layer.open(new, Method::Message, reply, Room::Ordinary, ctx!(core, turn));
        let Ok(server) = opened else {
            core.layer.kill_client(client, ctx!(core, turn));
            return Err(Cause::TransactionsFull);
        };
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation & 0x3fff_ffff;
        let generator = core.layer.identifiers();
        let (near_tag, far_tag) =
            (generator.handle(Handle::NO_SLOT).tag(), generator.handle(Handle::NO_SLOT).tag());
        let call_id = generator.call_id();
        let far_host: SmallVec<[u8; 24]> = SmallVec::from_vec(host_text(target));
        let Core { layer, listeners, wheel, counters, pool, .. } = core;
        let text = listeners.get(usize::from(listener.0)).ok_or(Cause::Internal)?;
        let (mut from, mut to, mut target_uri) = (pool.take(), pool.take(), pool.take());
        let source = host_text(meta.source);
        let hosts = [source.as_slice(), incoming.near_own];
        let hide = Hide { hosts, by: &text.host, call_id: &call_id };
        let veil = Veil::of(message, hide);
        write_party(&message.from(), &text.host, &veil, &mut from);
        write_party(&message.to(), &far_host, &veil, &mut to);
        let dialog = Dialog::outgoing(&call_id, far_tag, &from, &to);
        let mut host = host_text(target);
        host.push(b':');
        push_number(u64::from(target.port()), &mut host);
        write_uri(&uri, requested, &host, &mut target_uri);
        let mut head = pool.take();
        write_head(message, meta.source, &near_tag, &mut head);
        let far_own = SmallVec::from_slice(&text.host);
        let slot = self.passing.insert(Passing {
            generation,
            server,
            head,
            far_host,
            far_own,
            near_own: SmallVec::from_slice(incoming.near_own),
        });
        let context = &mut Ctx { wheel, tx: turn.out, counters };
        let tu = owner(slot, generation);
        let sent = layer.request(turn.now.mono, client, Method::Message, hop, tu, context, |out| {
            text.write_request(b"MESSAGE", &target_uri, &branch, hops, out);
            dialog.write(1, b"MESSAGE", out);
            write_passed(message, hide, out);
            if message.body().is_empty() {
                write_no_body(out);
            } else {
                write_body_headers(message, out);
                write_content(message.body(), out);
            }
            Ok::<(), ()>(())
        });
        debug_assert!(sent.is_ok(), "the writer does not fail");
        for buffer in [from, to, target_uri] {
            pool.give(buffer);
        }
        Ok(())
    }

    /// A final response, or none in time. False: the owner is no message of ours.
    pub(crate) fn done(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        owner: TuKey,
        outcome: Result<&Message<'_>, Cause>,
    ) -> bool {
        if owner == TuKey::NONE || owner.0 & MARK == 0 || owner.as_probe().is_some() {
            return false;
        }
        let slot = usize::try_from(owner.0 & 0xffff_ffff).unwrap_or(usize::MAX);
        let generation = u32::try_from(owner.0 >> 32 & 0x3fff_ffff).unwrap_or(0);
        let current = self.passing.get(slot).is_some_and(|one| one.generation == generation);
        let Some(passing) = current.then(|| self.passing.try_remove(slot)).flatten() else {
            return true;
        };
        let hide = Hide {
            hosts: [&passing.far_host, &passing.far_own],
            by: &passing.near_own,
            call_id: &[],
        };
        let (code, cause, passed) = match outcome {
            Ok(response) => {
                let code = response.code().unwrap_or(500);
                // A challenge is for us (lessons.md 2.16).
                let code = if matches!(code, 401 | 407) { 403 } else { code };
                (code, None, Some((response, hide, response.body())))
            }
            Err(cause) => {
                core.counters.refusal(cause);
                (cause.status(), Some(cause), None)
            }
        };
        let response = Response { cause, passed, ..Response::own(code, &passing.head) };
        let now = turn.now.mono;
        let _ = core.layer.respond(now, passing.server, code, ctx!(core, turn), |out| {
            response.write(out);
            Ok::<(), ()>(())
        });
        core.pool.give(passing.head);
        true
    }
}
