//! From a call to its record.

use std::net::SocketAddr;

use ravelin_contract::cdr::Party;
use ravelin_policy::{Class, Service, SiteRule, Snapshot, TrunkId};
use smallvec::SmallVec;

use super::{
    is_worth_keeping,
    layout::{HEADER_BYTES, Header, RECORD_BYTES_MAX, Writer, body_hash, seal},
    record::{
        AnchorRecord, AskedRecord, AttemptRecord, Emergency, Ended, HalfRecord, HopRecord,
        LegRecord, Record,
    },
    sum,
};
use crate::{
    b2bua::{
        call::{Attempt, Call},
        leg::{Goodbye, Leg, RelayMethod, Side},
    },
    core::Core,
    port::{Egress, ListenerId, Transport},
    time::Now,
};

/// Attempts of a call that its record tells of at most; of an emergency call that tried more, the
/// newest ones.
const ATTEMPTS_KEPT: usize = 8;

/// Codes of the record for what is an enum here. They never change their meaning.
pub(super) const SERVICES: [Service; 13] = [
    Service::Sos,
    Service::Ambulance,
    Service::AnimalControl,
    Service::Fire,
    Service::Gas,
    Service::Marine,
    Service::Mountain,
    Service::Physician,
    Service::Poison,
    Service::Police,
    Service::CountrySpecific,
    Service::EcallManual,
    Service::EcallAutomatic,
];
pub(super) const EMERGENCY: u8 = 16;
pub(super) const RULES: [SiteRule; 4] =
    [SiteRule::Pinned, SiteRule::Address, SiteRule::Assigned, SiteRule::TrunkDefault];
pub(super) const PARTIES: [Party; 3] = [Party::Caller, Party::Callee, Party::Ravelin];
pub(super) const TRANSPORTS: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];
pub(super) const GOODBYE_NO: u8 = 0;
pub(super) const GOODBYE_DONE: u8 = 1;
pub(super) const GOODBYE_DUE: u8 = 2;

fn code_of<T: PartialEq>(all: &[T], value: &T) -> u8 {
    all.iter().position(|one| one == value).and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
}

fn class_code(class: Class) -> u8 {
    match class {
        Class::None => 0,
        Class::Crisis => 1,
        Class::TestSos => 2,
        Class::TestAddress => 3,
        Class::Emergency(service) => EMERGENCY.saturating_add(code_of(&SERVICES, &service)),
    }
}

/// What was written.
pub(crate) enum Written {
    /// The octets in the scribe are a new record.
    Record,
    /// Nothing has changed since the last one.
    Same,
    /// No record can hold the call: it would be longer than [`RECORD_BYTES_MAX`], or a part of it
    /// cannot be told.
    TooLong,
    /// The call needs none.
    None,
}

/// Writes records into a buffer of its own.
#[derive(Debug, Default)]
pub(crate) struct Scribe {
    record: Vec<u8>,
    parts: Vec<u8>,
}

impl Scribe {
    /// The last record written.
    pub(crate) fn record(&self) -> &[u8] {
        &self.record
    }

    /// Writes the record of `call` if it has changed.
    pub(crate) fn write(&mut self, core: &Core, call: &mut Call, now: Now) -> Written {
        if !is_worth_keeping(call) {
            return Written::None;
        }
        let header = Header {
            shard: core.shard.0,
            slot: call.key.slot,
            sequence: call.survival.sequence.wrapping_add(1),
            written: now,
        };
        let Self { record: into, parts } = self;
        let Some(record) = capture(core, call, header, parts) else { return Written::TooLong };
        let packets = packets(&record);
        fill(into, record);
        if self.record.len() > RECORD_BYTES_MAX {
            return Written::TooLong;
        }
        let hash = body_hash(self.record.get(HEADER_BYTES..).unwrap_or_default());
        if call.survival.stored && hash == call.survival.hash {
            return Written::Same;
        }
        seal(&mut self.record, header, hash);
        call.survival.hash = hash;
        call.survival.packets = packets;
        call.survival.sequence = header.sequence;
        call.survival.stored = true;
        Written::Record
    }
}

/// Leaves out what a call can live without until the rest fits.
fn fill(into: &mut Vec<u8>, mut record: Record<'_>) {
    body(into, &record);
    if into.len() > RECORD_BYTES_MAX {
        let winner = record.attempts.get(usize::from(record.winner)).cloned();
        let others = record.attempts.len().saturating_sub(1);
        record.left_out = record.left_out.saturating_add(u16::try_from(others).unwrap_or(u16::MAX));
        record.attempts = winner.into_iter().collect();
        record.winner = 0;
        body(into, &record);
    }
    if into.len() > RECORD_BYTES_MAX {
        record.caller.asked = None;
        record.callee.asked = None;
        body(into, &record);
    }
}

fn body(into: &mut Vec<u8>, record: &Record<'_>) {
    into.clear();
    into.resize(HEADER_BYTES, 0);
    record.write(&mut Writer(into));
}

/// Packets that a record counts.
fn packets(record: &Record<'_>) -> u64 {
    let [caller, callee] = record.counts;
    [caller, callee]
        .iter()
        .map(|count| count.packets.saturating_add(count.rtcp_packets).saturating_add(count.dropped))
        .fold(0, u64::saturating_add)
}

/// Packets that are counted now.
pub(crate) fn packets_now(core: &Core, call: &Call) -> u64 {
    let of = |side| {
        let before = call.survival.count(side);
        let count = call
            .anchor
            .as_ref()
            .map_or(before, |anchor| sum(before, core.media.count(anchor, side)));
        count.packets.saturating_add(count.rtcp_packets).saturating_add(count.dropped)
    };
    of(Side::Caller).saturating_add(of(Side::Callee))
}

/// `None`: something of the call is not as it must be, for example its ports are not its own.
fn capture<'a>(
    core: &'a Core,
    call: &'a Call,
    header: Header,
    parts: &'a mut Vec<u8>,
) -> Option<Record<'a>> {
    let snapshot = &*call.loadout.snapshot;
    let before = call.survival.before.as_deref();
    let won = call.winner?;
    let winner = call.attempts.get(won)?;
    let first = call.attempts.len().saturating_sub(ATTEMPTS_KEPT).min(won);
    let kept = call.attempts.get(first..)?;
    let kept = kept.get(..kept.len().min(ATTEMPTS_KEPT))?;
    let count = |side| {
        let earlier = call.survival.count(side);
        call.anchor.as_ref().map_or(earlier, |anchor| sum(earlier, core.media.count(anchor, side)))
    };
    let trunk = |id: TrunkId| snapshot.trunk(id).map(|trunk| trunk.id.as_str());
    let site = |index: u32| {
        let site = snapshot.sites.get(usize::try_from(index).ok()?)?;
        Some(site.name.as_str())
    };
    Some(Record {
        header,
        id: call.id,
        adopted: call.survival.adopted,
        snapshot: before.map_or(snapshot.version, |before| before.snapshot),
        class: class_code(call.class),
        preempts: call.preempts,
        early_offer: call.early_offer,
        node_permit: call.permits.node.is_some(),
        trunk_permit: call.permits.trunk.is_some(),
        started: call.started,
        ring_at: call.ring_at,
        answer_at: call.answer_at,
        end: call.end.map(|end| Ended {
            at: end.at,
            by: code_of(&PARTIES, &end.by),
            cause: end.cause.number(),
            status: end.status,
        }),
        source: call.source,
        inbound: call.inbound.and_then(trunk).or_else(|| before?.inbound.as_deref()),
        route: call
            .route
            .and_then(|id| snapshot.route_settings(id))
            .map(|route| route.id.as_str())
            .or_else(|| before?.route.as_deref()),
        emergency: call.emergency.as_ref().map(|token| Emergency {
            site: token.site().and_then(site),
            // An answered call has no more use for it.
            chain: SmallVec::new(),
        }),
        location: call.location.and_then(|found| {
            let site = snapshot.site_settings(found.site)?;
            Some((site.name.as_str(), code_of(&RULES, &found.rule)))
        }),
        identity_in: call.identity_in,
        from: &call.from,
        to: &call.to,
        counts: [count(Side::Caller), count(Side::Callee)],
        caller: leg(core, call, &call.caller, Side::Caller)?,
        callee: leg(core, call, &winner.leg, Side::Callee)?,
        attempts: kept
            .iter()
            .enumerate()
            .map(|(at, attempt)| {
                let answered = first.saturating_add(at) == won;
                let name = trunk(attempt.trunk)
                    .or_else(|| before.filter(|_| answered)?.outbound.as_deref());
                attempt_record(attempt, answered, name)
            })
            .collect(),
        winner: u16::try_from(won.saturating_sub(first)).ok()?,
        left_out: u16::try_from(call.attempts.len().saturating_sub(kept.len())).unwrap_or(u16::MAX),
        anchor: match &call.anchor {
            Some(held) => Some(anchor(core, snapshot, held, parts)?),
            None => None,
        },
    })
}

fn anchor<'a>(
    core: &'a Core,
    snapshot: &'a Snapshot,
    held: &crate::media::Anchor,
    parts: &'a mut Vec<u8>,
) -> Option<AnchorRecord<'a>> {
    let place = |side| {
        let place = held.place(side);
        Some((snapshot.realm(place.realm)?.id.as_str(), place.v6))
    };
    let mut images = SmallVec::new();
    core.media.images(held, parts, &mut images).ok()?;
    let streams = images
        .into_iter()
        .map(|halves: [_; 2]| {
            halves.map(|half| HalfRecord {
                local: half.local,
                generation: half.generation,
                remote: half.remote,
                last_packet: half.last_packet,
                parts: half.parts,
            })
        })
        .collect();
    Some(AnchorRecord { places: [place(Side::Caller)?, place(Side::Callee)?], streams })
}

fn attempt_record<'a>(
    attempt: &'a Attempt,
    answered: bool,
    trunk: Option<&'a str>,
) -> AttemptRecord<'a> {
    AttemptRecord {
        number: attempt.number,
        trunk,
        target_index: attempt.way.target,
        target: attempt.target,
        started: attempt.started,
        ring_at: attempt.ring_at,
        answer_at: attempt.answer_at,
        end_at: attempt.end_at,
        status: attempt.status,
        cause: attempt.cause.number(),
        identity_out: attempt.identity_out,
        attestation_rule: attempt.attestation_rule,
        call_id: if answered { b"" } else { attempt.leg.dialog.call_id() },
        permit: attempt.permit.is_some(),
    }
}

fn leg<'a>(core: &'a Core, call: &'a Call, leg: &'a Leg, side: Side) -> Option<LegRecord<'a>> {
    let listener = |id: ListenerId| {
        let listeners = &core.loadout.snapshot.listeners;
        listeners.get(usize::from(id.0)).map(|listener| listener.id.as_str())
    };
    let mut dialog = leg.dialog.parts();
    // A request that has no final answer yet is taken once more when it comes again.
    let open = call.relays.iter().filter(|relay| relay.from == side);
    if let Some(first) = open.map(|relay| relay.cseq_in).min() {
        dialog.remote_cseq = first.checked_sub(1);
    }
    let (transport, from, to) = way(leg.hop.egress)?;
    let asked = call
        .relays
        .iter()
        .find(|relay| relay.from == side && relay.method == RelayMethod::Invite)
        .and_then(|relay| {
            let (transport, from, to) = way(core.layer.reply_of(relay.server)?)?;
            Some(AskedRecord { transport, listener: listener(from)?, to, head: &relay.head })
        });
    Some(LegRecord {
        dialog,
        listener: listener(leg.listener)?,
        hop: HopRecord {
            transport,
            listener: listener(from)?,
            to,
            tcp: match leg.hop.tcp {
                Some((from, to)) => Some((listener(from)?, to)),
                None => None,
            },
        },
        behind_nat: leg.behind_nat,
        description: leg.description.parts(),
        keys: {
            let mut keys = Vec::new();
            let [caller, callee] = call.oddities;
            let oddities = if side == Side::Caller { caller } else { callee };
            leg.description.save_keys(oddities, &mut keys);
            keys.into()
        },
        awaits_ack: leg.ack_expected.map(|expected| expected.cseq),
        asked,
        goodbye: match leg.goodbye {
            Goodbye::No => GOODBYE_NO,
            Goodbye::Done => GOODBYE_DONE,
            Goodbye::WhenAcknowledged | Goodbye::Sent(_) => GOODBYE_DUE,
        },
        user: &leg.user,
        peer_host: &leg.peer_host,
    })
}

/// Transport, listener and destination. A connection is told by where it led.
fn way(egress: Egress) -> Option<(u8, ListenerId, SocketAddr)> {
    let (transport, listener, to) = match egress {
        Egress::Udp { listener, to } => (Transport::Udp, listener, to),
        Egress::Connect { listener, to, transport } => (transport, listener, to),
        Egress::Flow { or_connect, .. } => {
            let (listener, to) = or_connect?;
            (Transport::Tcp, listener, to)
        }
        Egress::Media { .. } => return None,
    };
    Some((code_of(&TRANSPORTS, &transport), listener, to))
}
