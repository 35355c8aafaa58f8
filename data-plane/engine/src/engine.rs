//! The engine of one shard: datagrams, time and job results go in, datagrams and records come out.
//!
//! A turn of the shard: [`Engine::receive`] for each datagram, [`Engine::expire`], then
//! [`Engine::identity_jobs`] and [`Engine::identity_done`] until there are no jobs, then the
//! [`TxQueue`] is sent and cleared, and [`Engine::take_records`] empties the records.
//!
//! A fault of ours (a panic) while one message or timer is handled ends the call that it belonged
//! to and is counted; the shard goes on (design 8).

mod capture;
mod dispatch;
mod placement;
mod preempt;
mod shutdown;
mod status;
mod survival;
#[cfg(test)]
mod tests;
use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

pub use ravelin_srtp::dtls::Identity as DtlsIdentity;
use slab::Slab;

pub use self::status::Tables;
pub use crate::media::MediaPortSpec;
use crate::{
    b2bua::{
        answer, attempt, call::Call, failure, invite, message::Messages, notice, outcome, release,
        silence,
    },
    cause::Cause,
    core::{Core, Turn, ctx},
    counters::Counters,
    drops::DropReason,
    emergency,
    health::{Change, Prober},
    identity::{CallKey, JobResults, Jobs},
    ids::{Owners, Seed},
    limits::{Limits, TIMERS_PER_TURN},
    loadout::Loadout,
    media::MediaTable,
    port::{
        FastChange, FastCount, FlowId, ListenerId, Local, MediaPortId, Meta, ShardId, Token,
        TxQueue,
    },
    records::EventBuilder,
    sip::transaction::TuEvent,
    time::{Instant, Now},
    timer::{CallTimer, Timer, Wheel},
};

/// What an engine is made with; none of it changes while the process runs.
#[derive(Clone)]
pub struct EngineConfig {
    pub shard: ShardId,
    /// Shards of the process, at least 1.
    pub shards: u8,
    /// Name of the node, for records.
    pub node: String,
    pub limits: Limits,
    /// Unforeseeable, the same on all shards: it says which shard owns a Call-ID, and the streams
    /// of each shard are derived from it.
    pub seed: [u8; 32],
    /// UTC, milliseconds.
    pub started_unix_ms: u64,
}

impl std::fmt::Debug for EngineConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineConfig")
            .field("shard", &self.shard)
            .field("shards", &self.shards)
            .field("node", &self.node)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    Taken,
    /// Another shard owns what it belongs to: hand the same bytes to that shard's engine.
    Elsewhere(ShardId),
    /// A new call that finds no media port here: hand the same bytes to that shard's
    /// [`Engine::receive_placed`] with the number of shards that have had it. Where they cannot be handed
    /// on, they come back to this engine by the same way, with [`u8::MAX`].
    Placed {
        shard: ShardId,
        tried: u8,
    },
    /// Discarded; counted already.
    Dropped(DropReason),
}

/// One shard's SIP, calls and media.
pub struct Engine {
    core: Core,
    calls: Slab<Box<Call>>,
    owners: Owners,
    messages: Messages,
    prober: Prober,
    /// Of the newest call; tells a reused slot from the call before it.
    generation: u32,
    /// Clock and probes begin with the first turn.
    running: bool,
    /// The call that is being worked on, for when a fault ends it.
    current: Option<usize>,
    /// The call that was worked on last, if one was.
    worked: Option<usize>,
    unreachable: Vec<TuEvent>,
    survivors: survival::Records,
    placements: placement::Placements,
}

impl Engine {
    #[must_use]
    pub fn new(config: EngineConfig, loadout: Arc<Loadout>) -> Self {
        let seed = Seed(config.seed);
        let ranges = &loadout.snapshot.media;
        let media = MediaTable::new(ranges, config.shard, config.shards, config.limits, &seed);
        Self {
            owners: Owners::new(&seed, config.shards),
            core: Core::new(&config, loadout, media),
            calls: Slab::new(),
            messages: Messages::default(),
            prober: Prober::default(),
            generation: 0,
            running: false,
            current: None,
            worked: None,
            unreachable: Vec::new(),
            survivors: survival::Records::default(),
            placements: placement::Placements::new(&seed, config.shard),
        }
    }

    /// The media ports that the driver opens at start; the index is the [`MediaPortId`].
    #[must_use]
    pub fn media_ports(&self) -> &[MediaPortSpec] {
        self.core.media.specs()
    }

    /// The same ports in the order to open them: those that calls hold (after [`Self::adopt`]) first,
    /// then the free ones of all ranges in turn.
    pub fn media_opening_order(&mut self) -> Vec<MediaPortId> {
        self.core.media.opening_order()
    }

    /// Port pairs that can be drawn now in the media range that has the fewest.
    #[must_use]
    pub fn fewest_free_media_pairs(&self) -> usize {
        self.core.media.fewest_free()
    }

    /// Lets legs use DTLS-SRTP, with this certificate. Its origin is where the monotonic clock of
    /// [`Now`] is 0.
    pub fn set_dtls_identity(&mut self, identity: Arc<DtlsIdentity>) {
        self.core.media.set_dtls_identity(identity);
    }

    /// A media port is open. Only opened ports are ever used.
    pub fn media_port_opened(&mut self, port: MediaPortId) {
        self.core.media.port_opened(port);
    }

    /// The driver has a fast path: streams are offered to it from now on.
    pub fn use_fast_path(&mut self) {
        self.core.media.use_fast_path();
    }

    /// Moves what the fast path is to be told into `into`. Once a turn, before what the turn wants
    /// sent is sent.
    pub fn take_fast_changes(&mut self, into: &mut Vec<FastChange>) {
        self.core.media.take_fast_changes(into);
    }

    /// Takes what the fast path has counted: about once a second, and in each turn whose changes
    /// ended flows, before [`Engine::take_records`].
    pub fn fast_counts(&mut self, counts: &[FastCount]) {
        let Core { media, counters, .. } = &mut self.core;
        let (packets, bytes) = media.fast_counts(counts);
        counters.rtp_packets += packets;
        counters.rtp_bytes += bytes;
    }

    /// Datagrams from these media ports come next, in this order: reads what they will need, so that
    /// they wait for memory together. Changes nothing.
    pub fn read_ahead(&self, ports: &[MediaPortId]) {
        self.core.media.read_ahead(ports);
    }

    /// A datagram arrived that the driver could not take whole. On a media port it is dropped for that;
    /// elsewhere drivers take datagrams of every length.
    pub fn too_long(&mut self, now: Now, meta: Meta) -> Received {
        let Core { media, counters, .. } = &mut self.core;
        Received::Dropped(match meta.local {
            Local::Media { port } => media.too_long(now.mono, port, meta.source, counters),
            Local::Signalling { .. } | Local::Stream { .. } => {
                counters.drop(DropReason::Oversized);
                DropReason::Oversized
            }
        })
    }

    /// Takes one datagram, or one message of a stream.
    pub fn receive(&mut self, now: Now, meta: Meta, bytes: &[u8], out: &mut TxQueue) -> Received {
        if let Local::Media { port } = meta.local {
            let Core { media, counters, .. } = &mut self.core;
            let relayed = media.relay(now.mono, port, meta.source, bytes, out, counters);
            if media.has_notices() {
                self.notice(now, out);
            }
            return match relayed {
                Ok(()) => Received::Taken,
                Err(reason) => Received::Dropped(reason),
            };
        }
        let mut received = Received::Taken;
        let before = out.len();
        self.contain(now, out, |engine, turn| {
            received = engine.signalling(turn, &meta, bytes);
        });
        self.capture(now, Some((&meta, bytes)), before, out);
        if let Received::Dropped(reason) = received {
            self.core.counters.drop(reason);
        }
        received
    }

    /// Acts on what was noticed of streams.
    #[cold]
    fn notice(&mut self, now: Now, out: &mut TxQueue) {
        for noticed in self.core.media.take_notices() {
            let before = out.len();
            self.contain(now, out, |engine, turn| {
                engine.with_call(turn, noticed.call, |core, call, turn| {
                    notice::take(core, call, turn, &noticed);
                });
            });
            self.capture(now, None, before, out);
        }
    }

    /// Takes what another shard answered [`Received::Placed`] to: it belongs here, whatever its name
    /// says, unless this shard has no port for it either.
    pub fn receive_placed(
        &mut self,
        now: Now,
        meta: Meta,
        bytes: &[u8],
        tried: u8,
        out: &mut TxQueue,
    ) -> Received {
        self.placements.receiving(Some(tried));
        let received = self.receive(now, meta, bytes, out);
        self.placements.receiving(None);
        received
    }

    /// Fires what is due by `now`, at most [`TIMERS_PER_TURN`] timers.
    pub fn expire(&mut self, now: Now, out: &mut TxQueue) {
        self.contain(now, out, |_, _| {});
        self.core.media.sweep(now.mono);
        self.core.media.expire(now.mono, out);
        if self.core.media.has_notices() {
            self.notice(now, out);
        }
        for _ in 0..TIMERS_PER_TURN {
            let Some(timer) = self.core.wheel.pop_expired(now.mono) else { return };
            let before = out.len();
            self.contain(now, out, |engine, turn| engine.fire(turn, timer));
            self.capture(now, None, before, out);
        }
    }

    /// When [`Self::expire`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [self.core.wheel.next_deadline(), self.core.media.next_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// A send that carried `token` failed.
    pub fn send_failed(&mut self, now: Now, token: Token, out: &mut TxQueue) {
        self.contain(now, out, |engine, turn| {
            let event =
                engine.core.layer.send_failed(turn.now.mono, token, ctx!(engine.core, turn));
            if let Some(event) = event {
                engine.transaction_event(turn, event);
            }
        });
    }

    /// `to` cannot be reached from `listener` (an ICMP error): what waits for a first answer from
    /// there fails now.
    pub fn unreachable(
        &mut self,
        now: Now,
        listener: ListenerId,
        to: SocketAddr,
        out: &mut TxQueue,
    ) {
        self.contain(now, out, |engine, turn| {
            let mut events = std::mem::take(&mut engine.unreachable);
            let layer = &mut engine.core.layer;
            layer.unreachable(listener, to, ctx!(engine.core, turn), &mut events);
            for event in events.drain(..) {
                engine.transaction_event(turn, event);
            }
            engine.unreachable = events;
        });
    }

    /// The stream connection that took what carried `token`; told for each send through a stream
    /// that carries one.
    pub fn sent_through(&mut self, token: Token, flow: FlowId) {
        self.core.layer.sent_through(token, flow);
    }

    /// Nothing more comes from a stream connection, of this shard or another: requests that wait
    /// for an answer on it fail now (RFC 3261 17.1.4). An INVITE that rings goes on: its answer may
    /// come through a new connection (18.2.2).
    pub fn flow_closed(&mut self, now: Now, flow: FlowId, out: &mut TxQueue) {
        self.contain(now, out, |engine, turn| {
            let mut events = std::mem::take(&mut engine.unreachable);
            let layer = &mut engine.core.layer;
            layer.flow_closed(turn.now.mono, flow, ctx!(engine.core, turn), &mut events);
            for event in events.drain(..) {
                engine.transaction_event(turn, event);
            }
            engine.unreachable = events;
        });
    }

    /// Takes the sign and verify jobs of this turn.
    pub fn identity_jobs(&mut self) -> Jobs {
        std::mem::take(&mut self.core.jobs)
    }

    /// Feeds results back; INVITEs that waited for them leave.
    pub fn identity_done(&mut self, now: Now, results: JobResults, out: &mut TxQueue) {
        for (key, verdict) in results.verified {
            let before = out.len();
            self.contain(now, out, |engine, turn| {
                engine.with_call(turn, key, |core, call, turn| {
                    invite::verified(core, call, turn, &verdict);
                });
            });
            self.capture(now, None, before, out);
        }
        for (key, attempt, value) in results.signed {
            let before = out.len();
            self.contain(now, out, |engine, turn| {
                engine.with_call(turn, key, |core, call, turn| {
                    attempt::signed(core, call, turn, attempt, value.as_deref());
                });
            });
            self.capture(now, None, before, out);
        }
    }

    /// Runs the jobs of this turn here, until there are none.
    pub fn run_identity_inline(&mut self, now: Now, out: &mut TxQueue) {
        // Verify, then sign: two rounds; one more for what a failover adds.
        for _ in 0..4 {
            let jobs = self.identity_jobs();
            if jobs.is_empty() {
                return;
            }
            self.identity_done(now, jobs.run(), out);
        }
    }

    /// Puts another config version into force for new calls and returns the old one, to be dropped
    /// off the core. Calls keep the version that they began with.
    pub fn install(&mut self, now: Now, loadout: Arc<Loadout>, out: &mut TxQueue) -> Arc<Loadout> {
        let own = std::mem::replace(&mut self.core.loadout, Arc::new(loadout.private()));
        self.core.retired.push(own);
        let before = std::mem::replace(&mut self.core.shared, loadout);
        self.contain(now, out, |engine, turn| engine.install_probes(turn));
        before
    }

    /// Moves the copies of old versions that no call holds any more into `into`, to be dropped off
    /// the core.
    pub fn take_retired(&mut self, into: &mut Vec<Arc<Loadout>>) {
        let mut index = 0;
        while let Some(old) = self.core.retired.get(index) {
            if Arc::strong_count(old) == 1 {
                into.push(self.core.retired.swap_remove(index));
            } else {
                index += 1;
            }
        }
    }

    fn install_probes(&mut self, turn: &mut Turn<'_>) {
        // One shard probes for all; the results are in the shared gauges.
        if self.core.shard == ShardId(0) {
            let loadout = Arc::clone(&self.core.loadout);
            let core = &mut self.core;
            self.prober.install(turn.now.mono, &loadout, &mut core.layer, ctx!(core, turn));
        }
    }

    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// Does `work`; a panic in it ends the call that was worked on, and nothing else.
    fn contain(
        &mut self,
        now: Now,
        out: &mut TxQueue,
        work: impl FnOnce(&mut Self, &mut Turn<'_>),
    ) {
        let mut turn = Turn { now, out };
        self.current = None;
        let done = catch_unwind(AssertUnwindSafe(|| {
            if !self.running {
                self.start(&mut turn);
            }
            work(self, &mut turn);
            self.relieve(&mut turn);
        }));
        if done.is_err() {
            self.core.counters.faults_contained += 1;
            self.end_after_fault(&mut turn);
        }
        self.worked = self.current.take();
    }

    fn start(&mut self, turn: &mut Turn<'_>) {
        self.running = true;
        self.core.wheel = Wheel::new(turn.now.mono);
        self.install_probes(turn);
    }

    /// Ends the call that was worked on when a fault struck.
    fn end_after_fault(&mut self, turn: &mut Turn<'_>) {
        let Some(mut call) = self.current.take().and_then(|slot| self.calls.try_remove(slot))
        else {
            return;
        };
        self.survivors.removed(&call);
        self.uncapture(&call);
        let core = &mut self.core;
        // What broke once may break again: then the call goes without a word.
        let farewell = catch_unwind(AssertUnwindSafe(|| {
            if call.answer_at.is_some() {
                release::hang_up(core, &mut call, turn, None, Cause::Internal);
            } else {
                release::refuse(core, &mut call, turn, 500, Cause::Internal, None);
            }
            let unanswered = core.layer.answered_with(call.server).is_some_and(|code| code < 200);
            if unanswered {
                core.layer.kill_server(call.server, ctx!(core, turn));
            }
            release::forget(core, &mut call, turn);
        }));
        if farewell.is_err() {
            let _ = catch_unwind(AssertUnwindSafe(|| release::bury(core, &mut call, turn)));
        }
    }

    /// Works on a call and removes it when nothing is left of it.
    fn with_call<T>(
        &mut self,
        turn: &mut Turn<'_>,
        key: CallKey,
        work: impl FnOnce(&mut Core, &mut Call, &mut Turn<'_>) -> T,
    ) -> Option<T> {
        let slot = usize::try_from(key.slot).ok()?;
        let call = self.calls.get_mut(slot).filter(|call| call.key == key)?;
        self.current = Some(slot);
        let done = work(&mut self.core, call, turn);
        self.survivors.touched(call);
        if call.is_over() {
            self.remove(turn, slot);
        }
        Some(done)
    }

    fn remove(&mut self, turn: &mut Turn<'_>, slot: usize) {
        let Some(mut call) = self.calls.try_remove(slot) else { return };
        self.survivors.removed(&call);
        self.uncapture(&call);
        if call.given_up {
            release::bury(&mut self.core, &mut call, turn);
        } else {
            release::forget(&mut self.core, &mut call, turn);
        }
    }

    fn fire(&mut self, turn: &mut Turn<'_>, timer: Timer) {
        match timer {
            Timer::Client { .. } | Timer::Server { .. } => {
                let core = &mut self.core;
                let event = core.layer.fire(turn.now.mono, timer, ctx!(core, turn));
                if let Some(event) = event {
                    self.transaction_event(turn, event);
                }
            }
            Timer::Call { slot, generation, kind } => {
                self.call_timer(turn, CallKey { slot, generation }, kind);
            }
            // On a wheel of their own.
            Timer::Media { .. } => {}
            Timer::Probe { target, generation } => {
                let core = &mut self.core;
                let now = turn.now.mono;
                let change =
                    self.prober.fire(now, (target, generation), &mut core.layer, ctx!(core, turn));
                self.probed(turn, change);
            }
        }
    }

    fn call_timer(&mut self, turn: &mut Turn<'_>, key: CallKey, kind: CallTimer) {
        self.with_call(turn, key, |core, call, turn| match kind {
            CallTimer::Attempt(number) => attempt::out_of_patience(core, call, turn, number),
            CallTimer::Ring => {
                if call.pending.is_some() {
                    release::refuse(core, call, turn, 480, Cause::RingTimeout, None);
                }
            }
            CallTimer::MaxDuration => {
                release::hang_up(core, call, turn, None, Cause::MaxDuration);
            }
            CallTimer::Restart => emergency::restart(core, call, turn),
            CallTimer::Silence => silence::look(core, call, turn),
            CallTimer::Failure => failure::look(core, call, turn),
            CallTimer::Linger => call.give_up(),
            CallTimer::Unacknowledged => Self::unacknowledged(core, call, turn),
        });
    }

    fn transaction_event(&mut self, turn: &mut Turn<'_>, event: TuEvent) {
        let (owner, client, cause) = match event {
            TuEvent::Timeout { owner, client } => (owner, client, Cause::FarSideTimeout),
            TuEvent::TransportError { owner, client } => (owner, client, Cause::TransportFailed),
            TuEvent::AckTimeout { owner, server, code } => {
                if let Some(key) = crate::b2bua::call::call_of(owner)
                    && code < 300
                {
                    self.with_call(turn, key, |core, call, turn| {
                        outcome::ack_timeout(core, call, turn, server);
                    });
                }
                return;
            }
        };
        if owner.as_probe().is_some() {
            let change = self.prober.failed(owner);
            return self.probed(turn, change);
        }
        if self.messages.done(&mut self.core, turn, owner, Err(cause)) {
            return;
        }
        let Some(key) = crate::b2bua::call::call_of(owner) else { return };
        self.with_call(turn, key, |core, call, turn| {
            if let Some(index) = call.attempt_of(client) {
                answer::lost(core, call, turn, index, cause);
            } else if let Some(index) = call.relays.iter().position(|r| r.client == client) {
                outcome::lost(core, call, turn, index, cause);
            } else {
                call.goodbye_said(client);
            }
        });
    }

    /// A target went down or came back: an event and an alarm (features 1, row 10).
    fn probed(&mut self, turn: &Turn<'_>, change: Option<Change>) {
        let Some(change) = change else { return };
        let loadout = Arc::clone(&self.core.loadout);
        let snapshot = &loadout.snapshot;
        let trunk = snapshot.trunk(change.trunk);
        let target = trunk.and_then(|trunk| trunk.targets.get(change.target));
        let (kind, severity) = if change.up {
            ("trunk.up", ravelin_contract::audit::Severity::Info)
        } else {
            ("trunk.down", ravelin_contract::audit::Severity::Alarm)
        };
        let shard = self.core.shard.0;
        let event = EventBuilder::new(kind, severity, turn.now, snapshot.version, shard)
            .field("trunk", trunk.map(|trunk| trunk.id.clone()))
            .field("target", target.map(|target| target.uri.clone()))
            .done();
        self.core.records.audit(event, false);
    }
}
