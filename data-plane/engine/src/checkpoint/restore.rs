//! From a record to a call that goes on, or that is ended in order.

use std::sync::Arc;

use ravelin_policy::{Class, RouteId, SiteId, SiteMatch, Snapshot, TrunkId};
use ravelin_srtp::Keys;
use ravelin_stir::outcome::Outcome;
use smallvec::SmallVec;

use super::{
    Before, Kept, NotAdopted, Refused, Survival,
    capture::{EMERGENCY, GOODBYE_DUE, GOODBYE_NO, PARTIES, RULES, SERVICES, TRANSPORTS},
    record::{AnchorRecord, AskedRecord, AttemptRecord, Emergency, LegRecord, Record},
};
use crate::{
    b2bua::{
        attempt::arm,
        call::{Attempt, AttemptState, Call, CallTimers, End, Permits, Phase},
        cdr,
        dialog::Dialog,
        failure,
        ladder::Steps,
        leg::{AckExpected, Goodbye, Leg, Side},
        offer::Negotiation,
        release,
        respond::Response,
        sdp::{Description, Oddities},
        silence,
    },
    cause::Cause,
    core::{Core, Turn},
    emergency::{self, EmergencyRoute, walk::Progress},
    identity::{CallKey, Unsigned},
    loadout::Loadout,
    media::{Anchor, HalfImage, Lost, Place, Places},
    port::{Egress, ListenerId, Token, Transport},
    route::{Plan, Way},
    sip::transaction::{Hop, ServerKey},
    time::Instant,
    timer::{CallTimer, TimerId},
};

/// A trunk that is not in the config any more.
const NO_TRUNK: TrunkId = TrunkId(u16::MAX);
/// Rules of attestation as records name them (`ravelin_policy::Snapshot::attestation`).
const ATTESTATION_RULES: [&str; 6] = [
    "signing-disabled",
    "gateway",
    "customer-entitled",
    "customer-entitled-capped",
    "customer-not-entitled",
    "customer-not-entitled-capped",
];

/// A call of the process before.
pub(crate) struct Restored {
    pub call: Box<Call>,
    /// Why it cannot go on.
    pub lost: Option<NotAdopted>,
    /// Until when it is known to have been up.
    pub alive: Instant,
    /// Answers that are due.
    asked: SmallVec<[Answer; 1]>,
}

/// An answer to a request that the process before had taken.
struct Answer {
    egress: Egress,
    head: Vec<u8>,
}

/// Makes a call of a record, its media ports included. The call's slot is what the record says; its
/// key has `generation`. Timers and messages come with [`take_up`].
///
/// # Errors
/// Why the record cannot be read.
pub(crate) fn restore(
    core: &mut Core,
    kept: &Kept<'_>,
    generation: u32,
    places: &Places,
    now: Instant,
) -> Result<Restored, Refused> {
    let record = Record::decode(kept.bytes)?;
    let mut lost = kept.condemned;
    if record.header.shard != core.shard.0 {
        lost = lost.or(Some(NotAdopted::Shards));
    }
    let loadout = Arc::clone(&core.loadout);
    let names = Names { snapshot: &loadout.snapshot };
    let mut asked = SmallVec::new();
    let (caller, of_caller) = leg(core, &names, &record.caller, &mut lost, &mut asked);
    let won = record.attempts.get(usize::from(record.winner)).ok_or(Refused::Content)?;
    let (callee, of_callee) = leg(core, &names, &record.callee, &mut lost, &mut asked);
    let mut callee = Some(callee);
    let attempts = record.attempts.iter().enumerate();
    let attempts = attempts
        .map(|(at, of)| {
            let answered = at == usize::from(record.winner);
            let leg = if answered { callee.take() } else { None };
            attempt(&names, &loadout, of, answered, leg)
        })
        .collect();
    let anchor = match (&record.anchor, lost, record.end) {
        (Some(of), None, None) => match readopt(core, &names, of, places, now) {
            Ok(anchor) => Some(anchor),
            Err(why) => {
                lost = Some(why);
                None
            }
        },
        _ => None,
    };
    let lives = record.end.is_none() && lost.is_none();
    let inbound = record.inbound.and_then(|id| names.trunk(id));
    let trunk_gauge = inbound.and_then(|id| loadout.gauges.get(usize::from(id.0)));
    let permits = Permits {
        node: (lives && record.node_permit).then(|| loadout.node.readmit()),
        trunk: trunk_gauge.filter(|_| lives && record.trunk_permit).map(|gauge| gauge.readmit()),
    };
    let before = Before {
        snapshot: record.snapshot,
        counts: record.counts,
        inbound: record.inbound.map(str::to_owned),
        outbound: won.trunk.map(str::to_owned),
        route: record.route.map(str::to_owned),
        site: record.location.map(|(site, _)| site.to_owned()),
    };
    let end = match record.end {
        Some(end) => Some(End {
            at: end.at,
            by: *PARTIES.get(usize::from(end.by)).ok_or(Refused::Content)?,
            cause: cause(end.cause).ok_or(Refused::Content)?,
            status: end.status,
        }),
        None => None,
    };
    let call = Call {
        key: CallKey { slot: record.header.slot, generation },
        id: record.id,
        started: record.started,
        phase: if end.is_some() { Phase::Ending } else { Phase::Answered },
        class: class(record.class).ok_or(Refused::Content)?,
        emergency: record.emergency.as_ref().map(|of| token(&names, of)),
        preempts: record.preempts,
        emergency_identity: Vec::new(),
        location: record.location.and_then(|(site, rule)| names.location(site, rule)),
        source: record.source,
        inbound,
        permits,
        route: record.route.and_then(|id| names.route(id)),
        from: SmallVec::from_slice(record.from),
        to: SmallVec::from_slice(record.to),
        identity_in: record.identity_in.and_then(|label| {
            Outcome::ALL.iter().map(|outcome| outcome.label()).find(|known| *known == label)
        }),
        verstat: None,
        stir_reason: None,
        early_offer: record.early_offer,
        last_failure: (503, Cause::TrunksDown),
        caller,
        server: ServerKey::NONE,
        pending: None,
        plan: Plan::default(),
        attempts,
        winner: Some(usize::from(record.winner)),
        anchor,
        relays: SmallVec::new(),
        forks: SmallVec::new(),
        heard: None,
        turned_down: Vec::new(),
        timers: CallTimers {
            ring: TimerId::NEVER,
            max_duration: TimerId::NEVER,
            restart: TimerId::NEVER,
            linger: TimerId::NEVER,
            silence: TimerId::NEVER,
            failure: TimerId::NEVER,
        },
        silence: Default::default(),
        ring_at: record.ring_at,
        answer_at: Some(record.answer_at.unwrap_or(record.started.mono)),
        end,
        steps: Steps::default(),
        capture: None,
        given_up: false,
        plain_way: None,
        oddities: [of_caller, of_callee],
        survival: Survival {
            marked: false,
            stored: true,
            too_long: false,
            sequence: record.header.sequence,
            hash: 0,
            packets: 0,
            adopted: record.adopted.saturating_add(1),
            before: Some(Box::new(before)),
        },
        loadout,
    };
    let mut call = Box::new(call);
    permits_of_attempts(&mut call, &record, lives);
    keep_keys(core, &mut call);
    let alive = kept.alive.max(record.header.written.mono);
    Ok(Restored { call, lost, alive, asked })
}

/// The names of a record in the config of today.
struct Names<'a> {
    snapshot: &'a Snapshot,
}

impl Names<'_> {
    fn trunk(&self, id: &str) -> Option<TrunkId> {
        self.snapshot.trunk_by_id(id)
    }

    fn listener(&self, id: &str) -> Option<ListenerId> {
        let at = self.snapshot.listeners.iter().position(|listener| listener.id == id)?;
        u16::try_from(at).ok().map(ListenerId)
    }

    fn route(&self, id: &str) -> Option<RouteId> {
        let at = self.snapshot.routes.iter().position(|route| route.id == id)?;
        u16::try_from(at).ok().map(RouteId)
    }

    fn site(&self, name: &str) -> Option<u32> {
        let at = self.snapshot.sites.iter().position(|site| site.name == name)?;
        u32::try_from(at).ok()
    }

    fn location(&self, site: &str, rule: u8) -> Option<SiteMatch> {
        let rule = *RULES.get(usize::from(rule))?;
        Some(SiteMatch { site: SiteId(self.site(site)?), rule })
    }
}

fn class(code: u8) -> Option<Class> {
    Some(match code {
        0 => Class::None,
        1 => Class::Crisis,
        2 => Class::TestSos,
        3 => Class::TestAddress,
        _ => Class::Emergency(*SERVICES.get(usize::from(code.checked_sub(EMERGENCY)?))?),
    })
}

fn cause(number: u16) -> Option<Cause> {
    Cause::ALL.iter().copied().find(|cause| cause.number() == number)
}

fn token(names: &Names<'_>, of: &Emergency<'_>) -> EmergencyRoute {
    let chain = of.chain.iter().filter_map(|id| names.trunk(id)).map(|trunk| trunk.0);
    EmergencyRoute::readopt(of.site.and_then(|name| names.site(name)), chain)
}

/// A leg, and what was done to descriptions of its party. One whose listener is gone has nothing to say
/// any more.
fn leg(
    core: &Core,
    names: &Names<'_>,
    of: &LegRecord<'_>,
    lost: &mut Option<NotAdopted>,
    asked: &mut SmallVec<[Answer; 1]>,
) -> (Leg, Oddities) {
    let found = names.listener(of.listener).zip(hop(names, of));
    if found.is_none() {
        *lost = lost.or(Some(NotAdopted::Listener));
    }
    let nowhere = Egress::Udp { listener: ListenerId(u16::MAX), to: of.hop.to };
    let (listener, hop) =
        found.unwrap_or((ListenerId(u16::MAX), Hop { egress: nowhere, tcp: None }));
    if let Some(request) = &of.asked
        && let Some(egress) = egress(names, request)
    {
        asked.push(Answer { egress, head: request.head.to_vec() });
    }
    let mut description = Description::from_parts(of.description);
    let oddities = description.load_keys(&of.keys);
    if oddities.is_none() {
        *lost = lost.or(Some(NotAdopted::Media));
    }
    let ack_expected = of.awaits_ack.map(|cseq| AckExpected { server: ServerKey::NONE, cseq });
    let own = core.listener(listener);
    let leg = Leg {
        dialog: Dialog::from_parts(&of.dialog),
        listener,
        hop,
        behind_nat: of.behind_nat,
        negotiation: Negotiation::default(),
        description,
        ack_expected,
        ack_due: None,
        ack_body: Vec::new(),
        ack_body_cseq: 0,
        goodbye: match of.goodbye {
            _ if found.is_none() => Goodbye::Done,
            // A BYE that was under way is said again: see `take_up`.
            GOODBYE_NO | GOODBYE_DUE => Goodbye::No,
            _ => Goodbye::Done,
        },
        user: SmallVec::from_slice(of.user),
        peer_host: SmallVec::from_slice(of.peer_host),
        own_host: own.map(|own| SmallVec::from_slice(&own.host)).unwrap_or_default(),
    };
    (leg, oddities.unwrap_or_default())
}

fn hop(names: &Names<'_>, of: &LegRecord<'_>) -> Option<Hop> {
    let listener = names.listener(of.hop.listener)?;
    let to = of.hop.to;
    let egress = match *TRANSPORTS.get(usize::from(of.hop.transport))? {
        Transport::Udp => Egress::Udp { listener, to },
        transport => Egress::Connect { listener, to, transport },
    };
    let tcp = of.hop.tcp.and_then(|(id, to)| Some((names.listener(id)?, to)));
    Some(Hop { egress, tcp })
}

fn egress(names: &Names<'_>, of: &AskedRecord<'_>) -> Option<Egress> {
    let listener = names.listener(of.listener)?;
    Some(match *TRANSPORTS.get(usize::from(of.transport))? {
        Transport::Udp => Egress::Udp { listener, to: of.to },
        transport => Egress::Connect { listener, to: of.to, transport },
    })
}

fn attempt(
    names: &Names<'_>,
    loadout: &Loadout,
    of: &AttemptRecord<'_>,
    answered: bool,
    leg: Option<Leg>,
) -> Attempt {
    let trunk = of.trunk.and_then(|id| names.trunk(id)).unwrap_or(NO_TRUNK);
    let levels = ["A", "B", "C"];
    let reasons = Unsigned::ALL.iter().map(|reason| reason.as_str());
    // The target may stand elsewhere in the trunk by now.
    let targets = loadout.snapshot.trunk(trunk).map(|trunk| trunk.targets.as_slice());
    let target = targets
        .and_then(|targets| targets.iter().position(|target| target.addr == of.target))
        .and_then(|at| u16::try_from(at).ok())
        .unwrap_or(of.target_index);
    Attempt {
        number: of.number,
        way: Way { trunk, target },
        trunk,
        target: of.target,
        leg: leg.unwrap_or_else(|| silent_leg(of)),
        state: if answered { AttemptState::Answered } else { AttemptState::Failed },
        progress: Progress::Nothing,
        client: None,
        permit: None,
        timer: TimerId::NEVER,
        started: of.started,
        ring_at: of.ring_at,
        answer_at: of.answer_at,
        end_at: of.end_at,
        status: of.status,
        cause: cause(of.cause).unwrap_or(Cause::FarSideTimeout),
        identity_out: levels
            .into_iter()
            .chain(reasons)
            .find(|known| *known == of.identity_out)
            .unwrap_or(Unsigned::NotAsked.as_str()),
        attestation_rule: of
            .attestation_rule
            .and_then(|rule| ATTESTATION_RULES.into_iter().find(|known| *known == rule)),
    }
}

/// The leg of an attempt that failed: only its Call-ID is told of again.
fn silent_leg(of: &AttemptRecord<'_>) -> Leg {
    let nowhere = Egress::Udp { listener: ListenerId(u16::MAX), to: of.target };
    Leg {
        dialog: Dialog::outgoing(of.call_id, [0; crate::ids::TAG_LEN], b"", b""),
        listener: ListenerId(u16::MAX),
        hop: Hop { egress: nowhere, tcp: None },
        behind_nat: false,
        negotiation: Negotiation::default(),
        description: Description::default(),
        ack_expected: None,
        ack_due: None,
        ack_body: Vec::new(),
        ack_body_cseq: 0,
        goodbye: Goodbye::Done,
        user: SmallVec::new(),
        peer_host: SmallVec::new(),
        own_host: SmallVec::new(),
    }
}

/// Our keys that are in force are named on; no others.
fn keep_keys(core: &Core, call: &mut Call) {
    let Call { anchor: Some(anchor), caller, attempts, winner, .. } = call else { return };
    let callee = winner.and_then(|at| attempts.get_mut(at)).map(|attempt| &mut attempt.leg);
    for (side, leg) in [(Side::Caller, Some(caller)), (Side::Callee, callee)] {
        if let Some(leg) = leg {
            let in_force = |at: usize, keys: &Keys| core.media.seals_with(anchor, side, at, keys);
            leg.description.keep_keys(in_force);
        }
    }
}

fn permits_of_attempts(call: &mut Call, record: &Record<'_>, lives: bool) {
    for (attempt, of) in call.attempts.iter_mut().zip(&record.attempts) {
        let gauge = call.loadout.gauges.get(usize::from(attempt.trunk.0));
        attempt.permit = gauge.filter(|_| lives && of.permit).map(|gauge| gauge.readmit());
    }
}

fn readopt(
    core: &mut Core,
    names: &Names<'_>,
    of: &AnchorRecord<'_>,
    places: &Places,
    now: Instant,
) -> Result<Anchor, NotAdopted> {
    let [caller, callee] = of.places;
    let place = |(realm, v6): (&str, bool)| {
        let realm = names.snapshot.realm_by_id(realm).ok_or(NotAdopted::Ports)?;
        Ok(Place { realm, v6 })
    };
    let at = [place(caller)?, place(callee)?];
    let streams: SmallVec<[[HalfImage<'_>; 2]; 1]> = of
        .streams
        .iter()
        .map(|halves| {
            halves.each_ref().map(|half| HalfImage {
                local: half.local,
                generation: half.generation,
                remote: half.remote,
                last_packet: half.last_packet,
                parts: half.parts,
            })
        })
        .collect();
    core.media.readopt(now, at, &streams, places).map_err(|lost| match lost {
        Lost::Ports => NotAdopted::Ports,
        Lost::Parts => NotAdopted::Media,
    })
}

/// What follows when the call has its place: timers, answers, BYEs.
pub(crate) fn take_up(core: &mut Core, turn: &mut Turn<'_>, restored: &mut Restored) {
    let Restored { call, lost, alive, asked } = restored;
    for answer in asked.drain(..) {
        // The party asks again (RFC 3261 14.1); who else would let it go.
        let response = Response {
            cause: Some(Cause::Glare),
            ..Response::own(Cause::Glare.status(), &answer.head)
        };
        turn.out.write(answer.egress, Token::default(), |out| response.write(out));
        core.counters.response_sent(Cause::Glare.status());
    }
    match (call.end, *lost) {
        (Some(end), _) => farewell(core, call, turn, end.cause),
        (None, Some(reason)) => give_up(core, call, turn, reason, *alive),
        (None, None) => {
            let waits = |leg: Option<&Leg>| leg.is_some_and(|leg| leg.ack_expected.is_some());
            if waits(call.leg(Side::Caller)) || waits(call.leg(Side::Callee)) {
                let patience = core.limits.timeout();
                arm(core, turn, call.key, patience, CallTimer::Unacknowledged);
            }
            // Both parties have their full time to be heard again.
            silence::agreed(core, call, turn);
            failure::agreed(core, call, turn);
            if !call.is_emergency() {
                let age = turn.now.mono.since(call.answer_at.unwrap_or(turn.now.mono));
                let left = core.limits.call_duration.saturating_sub(age);
                call.timers.max_duration = arm(core, turn, call.key, left, CallTimer::MaxDuration);
            }
        }
    }
}

/// Says again what may not have been heard: BYE to whoever has not confirmed it.
fn farewell(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>, cause: Cause) {
    for side in [Side::Caller, Side::Callee] {
        if let Some(leg) = call.leg_mut(side) {
            // Nobody waits for the ACK any more.
            leg.ack_expected = None;
        }
        release::say_goodbye(core, call, turn, side, cause, None);
    }
    let patience = core.limits.timeout().saturating_mul(2) + core.limits.t4;
    call.timers.linger = arm(core, turn, call.key, patience, CallTimer::Linger);
}

/// Ends a call that cannot go on, with its records.
fn give_up(
    core: &mut Core,
    call: &mut Call,
    turn: &mut Turn<'_>,
    reason: NotAdopted,
    alive: Instant,
) {
    // Of the time after that nobody can say anything, and the clock may be another one.
    let unknown = matches!(reason, NotAdopted::Rebooted | NotAdopted::TooLate);
    let at = if unknown { alive } else { turn.now.mono };
    call.end = Some(End {
        at,
        by: ravelin_contract::cdr::Party::Ravelin,
        cause: Cause::NotAdopted,
        status: 200,
    });
    call.phase = Phase::Ending;
    cdr::write(core, call, call.anchor.as_ref());
    if call.is_emergency() {
        emergency::cut_off(core, call, turn);
        emergency::ended(core, call, turn);
    }
    farewell(core, call, turn, Cause::NotAdopted);
}
