//! Health of trunk targets by OPTIONS, on one shard of the node; all shards read the results in the
//! gauges ([`crate::admission::TargetHealth`]).
//!
//! A probe is known by trunk, target address, transport and the listener it leaves from, and goes
//! on over config versions that keep it. Any final response means alive, except 503, which says
//! itself that calls are unwelcome, for as long as its Retry-After says. No answer before the next
//! probe is due, or before 64*T1, is a failure; so is a connection that cannot be made.
//!
//! A target that answered a call since the last probe was due is alive: it is not asked. One that
//! takes calls and does not know OPTIONS so stays in use as long as there are calls.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use ravelin_policy::{Transport, TrunkId};
use ravelin_wire::sip::{HeaderName, Message, Method, RetryAfter, WriteError, Writer};
use slab::Slab;

use crate::{
    admission::TargetHealth,
    ids::CallIdText,
    limits::PROBES_MAX,
    loadout::Loadout,
    port::{Egress, ListenerId, Transport as PortTransport},
    route::find_listener,
    sip::{
        reply::write_cseq,
        transaction::{ClientKey, Ctx, Hop, Layer, Room, TuKey},
    },
    time::Instant,
    timer::{Timer, TimerId},
};

/// Longest time that a target may ask for by Retry-After.
const HOLD_MAX: Duration = Duration::from_secs(300);
/// First probes of new targets leave this far from each other.
const FIRST_PROBE_SPACING: Duration = Duration::from_millis(20);

/// A target went down or came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub trunk: TrunkId,
    /// Index into the trunk's targets.
    pub target: usize,
    pub up: bool,
}

/// What a probe is known by: trunk, address, transport, listener.
type Key = (String, SocketAddr, Transport, ListenerId);

#[derive(Debug)]
struct Probe {
    key: Key,
    generation: u32,
    trunk: TrunkId,
    target: usize,
    health: Arc<TargetHealth>,
    interval: Duration,
    failures_max: u32,
    egress: Egress,
    uri: String,
    /// Our address on the listener, as it stands in Via and Contact.
    own: String,
    call_id: CallIdText,
    tag: u64,
    cseq: u32,
    timer: TimerId,
    outstanding: Option<ClientKey>,
}

/// The probes of this node.
#[derive(Debug, Default)]
pub struct Prober {
    probes: Slab<Probe>,
    generation: u32,
}

impl Prober {
    /// Targets that are probed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.probes.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.probes.is_empty()
    }

    /// Takes over the targets of a config version. What stays is not disturbed.
    pub fn install(
        &mut self,
        now: Instant,
        loadout: &Loadout,
        layer: &mut Layer,
        ctx: &mut Ctx<'_>,
    ) {
        let mut before: HashMap<Key, usize> =
            self.probes.iter().map(|(slot, probe)| (probe.key.clone(), slot)).collect();
        let mut first = now;
        for wanted in wanted(loadout).take(PROBES_MAX as usize) {
            if let Some(slot) = before.remove(&wanted.key) {
                if let Some(probe) = self.probes.get_mut(slot) {
                    probe.trunk = wanted.trunk;
                    probe.target = wanted.target;
                    probe.health = wanted.health;
                    probe.interval = wanted.interval;
                    probe.failures_max = wanted.failures_max;
                    probe.uri = wanted.uri;
                    probe.own = wanted.own;
                }
                continue;
            }
            self.generation = self.generation.wrapping_add(1) & 0x7fff_ffff;
            let generation = self.generation;
            let identifiers = layer.identifiers();
            let call_id = identifiers.call_id();
            let tag = identifiers.nonce();
            let entry = self.probes.vacant_entry();
            let target = u32::try_from(entry.key()).unwrap_or(u32::MAX);
            let timer = ctx.wheel.insert(first, Timer::Probe { target, generation });
            entry.insert(Probe { generation, call_id, tag, timer, ..wanted });
            first = first + FIRST_PROBE_SPACING;
        }
        for slot in before.into_values() {
            if let Some(probe) = self.probes.try_remove(slot) {
                probe.health.forget();
                ctx.wheel.cancel(probe.timer);
                if let Some(client) = probe.outstanding {
                    layer.kill_client(client, ctx);
                }
            }
        }
    }

    /// The next probe of a target is due. A probe that is still unanswered has failed.
    pub fn fire(
        &mut self,
        now: Instant,
        (target, generation): (u32, u32),
        layer: &mut Layer,
        ctx: &mut Ctx<'_>,
    ) -> Option<Change> {
        let probe = self.probes.get_mut(target as usize)?;
        if probe.generation != generation {
            return None;
        }
        probe.timer = ctx.wheel.insert(now + probe.interval, Timer::Probe { target, generation });
        if probe.health.heard_within(now, probe.interval) {
            if let Some(client) = probe.outstanding.take() {
                layer.kill_client(client, ctx);
            }
            return probe.health.succeeded().then(|| probe.change(true));
        }
        let change = probe.outstanding.take().and_then(|client| {
            layer.kill_client(client, ctx);
            probe.failed()
        });
        // A full table says nothing about the target: this round is left out.
        let Ok((client, branch)) = layer.reserve_branch(Room::Reserved, ctx) else { return change };
        probe.cseq = probe.cseq.wrapping_add(1) & 0x7fff_ffff;
        let owner = TuKey::probe(target, generation);
        let hop = Hop { egress: probe.egress, tcp: None };
        let sent = layer.request(now, client, Method::Options, hop, owner, ctx, |out| {
            probe.write(&branch, out)
        });
        if sent.is_ok() {
            probe.outstanding = Some(client);
        } else {
            layer.kill_client(client, ctx);
        }
        change
    }

    /// A final response to a probe.
    pub fn answered(
        &mut self,
        now: Instant,
        owner: TuKey,
        response: &Message<'_>,
    ) -> Option<Change> {
        let probe = self.owner(owner)?;
        probe.outstanding = None;
        if response.code() != Some(503) {
            return probe.health.succeeded().then(|| probe.change(true));
        }
        let pause = response.header(HeaderName::RetryAfter).and_then(RetryAfter::parse);
        if let Some(pause) = pause {
            let pause = Duration::from_secs(u64::from(pause.seconds)).min(HOLD_MAX);
            probe.health.hold(now, pause);
        }
        probe.failed()
    }

    /// A probe ended in a timeout or could not be sent.
    pub fn failed(&mut self, owner: TuKey) -> Option<Change> {
        let probe = self.owner(owner)?;
        probe.outstanding = None;
        probe.failed()
    }

    fn owner(&mut self, owner: TuKey) -> Option<&mut Probe> {
        let (target, generation) = owner.as_probe()?;
        let probe = self.probes.get_mut(target as usize)?;
        (probe.generation == generation).then_some(probe)
    }
}

impl Probe {
    fn failed(&self) -> Option<Change> {
        self.health.failed(self.failures_max).then(|| self.change(false))
    }

    fn change(&self, up: bool) -> Change {
        Change { trunk: self.trunk, target: self.target, up }
    }

    fn write(&self, branch: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
        let transport = match self.egress {
            Egress::Connect { transport: PortTransport::Tls, .. } => "TLS",
            Egress::Connect { .. } | Egress::Flow { .. } => "TCP",
            Egress::Udp { .. } | Egress::Media { .. } => "UDP",
        };
        let own = self.own.as_bytes();
        let uri = self.uri.as_bytes();
        let mut tag = [0; 16];
        crate::ids::hex(self.tag, &mut tag);
        let mut writer = Writer::new(out);
        writer
            .request_line(b"OPTIONS", uri)
            .header_parts(
                HeaderName::Via,
                &[b"SIP/2.0/", transport.as_bytes(), b" ", own, b";branch=", branch, b";rport"],
            )
            .header_parts(HeaderName::From, &[b"<sip:", own, b">;tag=", &tag])
            .header_parts(HeaderName::To, &[b"<", uri, b">"])
            .header(HeaderName::CallId, &self.call_id)
            .header_with(HeaderName::CSeq, |out| write_cseq(out, self.cseq, b"OPTIONS"))
            .header_parts(HeaderName::Contact, &[b"<sip:", own, b">"])
            .header_number(HeaderName::MaxForwards, 70)
            .header(HeaderName::Accept, b"application/sdp");
        writer.finish()
    }
}

/// The probes that a config version asks for, not started.
fn wanted(loadout: &Loadout) -> impl Iterator<Item = Probe> {
    let snapshot = &loadout.snapshot;
    let trunks = (0_u16..).zip(&snapshot.trunks).zip(&loadout.gauges);
    trunks.flat_map(move |((number, trunk), gauge)| {
        let check = trunk.options;
        let targets = trunk.targets.iter().zip(gauge.targets()).enumerate();
        targets.filter_map(move |(index, (target, health))| {
            let check = check?;
            let listener = find_listener(snapshot, trunk.realm, target.transport, target.addr)?;
            let own = snapshot.listeners.get(usize::from(listener.0))?.advertise.to_string();
            let to = target.addr;
            let connect = |transport| Egress::Connect { listener, to, transport };
            let egress = match target.transport {
                Transport::Udp => Egress::Udp { listener, to },
                Transport::Tcp => connect(PortTransport::Tcp),
                Transport::Tls => connect(PortTransport::Tls),
            };
            Some(Probe {
                key: (trunk.id.clone(), target.addr, target.transport, listener),
                generation: 0,
                trunk: TrunkId(number),
                target: index,
                health: Arc::clone(health),
                interval: check.interval,
                failures_max: check.failures,
                egress,
                uri: target.uri.clone(),
                own,
                call_id: [0; crate::ids::CALL_ID_LEN],
                tag: 0,
                cseq: 0,
                timer: TimerId::NEVER,
                outstanding: None,
            })
        })
    })
}

#[cfg(test)]
mod tests;
