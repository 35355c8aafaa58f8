//! Call detail records: one for each attempt, one for the call, written once, when it ends
//! (features 1, row 16).

use ravelin_contract::cdr::{Cdr, CdrKind, MediaCount, Party, StreamQuality};
use ravelin_policy::Class;
use ravelin_wire::sip::Message;

use super::{
    call::{Attempt, AttemptState, Call, End},
    compose::push_address,
    ladder::elapsed_ms,
    sdp::Oddities,
};
use crate::{
    cause::Cause,
    checkpoint,
    core::{Core, Turn},
    identity::CallKey,
    media::{Anchor, Side},
    port::Meta,
    records::text,
    time::Instant,
};

/// A call that has ended, and whose last packets went by on the fast path: its records wait for
/// their counts, which come before the turn is over.
#[derive(Debug)]
pub(crate) struct Uncounted {
    pub call: CallKey,
    /// Its ports rest already; what was counted of them stays readable.
    pub anchor: Anchor,
}

/// Writes the records of a call that waited for the counts of the fast path, if it is one.
pub(crate) fn write_late(core: &mut Core, call: &Call) {
    let Some(at) = core.uncounted.iter().position(|one| one.call == call.key) else { return };
    let Uncounted { anchor, .. } = core.uncounted.swap_remove(at);
    write(core, call, Some(&anchor));
}

/// Writes the records of a call that has just ended. Called while the counters of its media exist.
pub(crate) fn write(core: &mut Core, call: &Call, anchor: Option<&Anchor>) {
    let Some(end) = call.end else { return };
    score(core, call, anchor);
    let count = |side| {
        let before = call.survival.before.is_some().then(|| call.survival.count(side));
        let now = anchor.map(|anchor| core.media.count(anchor, side));
        match (before, now) {
            (Some(before), Some(now)) => Some(checkpoint::sum(before, now)),
            (before, now) => now.or(before),
        }
    };
    let streams = anchor.map(|anchor| core.media.qualities(anchor));
    let media = Media {
        caller: count(Side::Caller),
        callee: count(Side::Callee),
        streams: streams.unwrap_or_default(),
    };
    for attempt in &call.attempts {
        let record = of_attempt(core, call, attempt, end, &media);
        core.records.cdr(record);
    }
    let record = of_call(core, call, end, &media);
    core.records.cdr(record);
}

/// Adds the streams to what is known of the trunks of their senders, and to the sums of the shard.
fn score(core: &mut Core, call: &Call, anchor: Option<&Anchor>) {
    let Some(anchor) = anchor else { return };
    let snapshot = &call.loadout.snapshot;
    let callee = call.callee().and_then(|at| call.attempts.get(at)).map(|attempt| attempt.trunk);
    for (side, trunk) in [(Side::Caller, call.inbound), (Side::Callee, callee)] {
        let Some(trunk) = trunk.and_then(|id| snapshot.trunk(id)) else { continue };
        for score in core.media.scores(anchor, side) {
            core.counters.rtp_expected += score.expected;
            core.counters.rtp_lost += score.lost;
            core.counters.dtmf_events += u64::from(score.dtmf_events);
            core.scores.add(&trunk.id, &score);
        }
    }
}

/// What the streams of a call came to.
struct Media {
    caller: Option<MediaCount>,
    callee: Option<MediaCount>,
    streams: Vec<StreamQuality>,
}

impl Media {
    fn put(&self, record: &mut Cdr) {
        (record.media_caller, record.media_callee) = (self.caller, self.callee);
        record.streams.clone_from(&self.streams);
    }
}

fn base(core: &Core, call: &Call) -> Cdr {
    let snapshot = &call.loadout.snapshot;
    let before = call.survival.before.as_deref();
    let trunk = |id: Option<ravelin_policy::TrunkId>| {
        id.and_then(|id| snapshot.trunk(id)).map(|trunk| trunk.id.clone())
    };
    Cdr {
        kind: CdrKind::Call,
        call: call.id_text(),
        node: core.node.clone(),
        shard: core.shard.0,
        attempt: 0,
        inbound_call_id: text(call.caller.dialog.call_id()),
        outbound_call_id: None,
        from: text(&call.from),
        to: text(&call.to),
        inbound_trunk: trunk(call.inbound).or_else(|| before?.inbound.clone()),
        outbound_trunk: None,
        source: address_text("", call.source),
        target: None,
        route: call
            .route
            .and_then(|id| snapshot.route_settings(id))
            .map(|route| route.id.clone())
            .or_else(|| before?.route.clone()),
        snapshot: before.map_or(snapshot.version, |before| before.snapshot),
        start_unix_ms: call.started.unix_ms,
        ring_ms: None,
        answer_ms: None,
        end_ms: 0,
        duration_ms: 0,
        status: 0,
        ended_by: Party::Ravelin,
        cause: 0,
        cause_text: String::new(),
        emergency: call.is_emergency(),
        class: call.class.as_str().to_owned(),
        site: call
            .location
            .and_then(|found| snapshot.site_settings(found.site))
            .map(|site| site.name.clone())
            .or_else(|| before?.site.clone()),
        identity_in: call.identity_in.map(str::to_owned),
        identity_out: None,
        attestation_rule: None,
        media_caller: None,
        media_callee: None,
        streams: Vec::new(),
        adopted: call.survival.adopted,
        sdp_caller: told(call.oddities[0]),
        sdp_callee: told(call.oddities[1]),
    }
}

fn told(oddities: Oddities) -> Vec<String> {
    oddities.iter().map(|odd| odd.as_str().to_owned()).collect()
}

fn of_call(core: &Core, call: &Call, end: End, media: &Media) -> Cdr {
    let since = |at: Instant| elapsed_ms(call.started.mono, at);
    let won = call.winner.and_then(|at| call.attempts.get(at)).or_else(|| call.attempts.last());
    let mut record = base(core, call);
    if let Some(attempt) = won {
        outbound(&mut record, call, attempt);
    }
    record.ring_ms = call.ring_at.map(since);
    record.answer_ms = call.answer_at.map(since);
    record.end_ms = since(end.at);
    record.duration_ms = call.answer_at.map_or(0, |answer| elapsed_ms(answer, end.at));
    record.status = end.status;
    record.ended_by = end.by;
    set_cause(&mut record, end.cause);
    media.put(&mut record);
    record
}

fn of_attempt(core: &Core, call: &Call, attempt: &Attempt, end: End, media: &Media) -> Cdr {
    let since = |at: Instant| elapsed_ms(call.started.mono, at);
    let mut record = base(core, call);
    record.kind = CdrKind::Attempt;
    record.attempt = attempt.number;
    outbound(&mut record, call, attempt);
    let ended = attempt.end_at.unwrap_or(end.at);
    record.ring_ms = attempt.ring_at.map(since);
    record.answer_ms = attempt.answer_at.map(since);
    record.end_ms = since(ended);
    record.duration_ms = attempt.answer_at.map_or(0, |answer| elapsed_ms(answer, ended));
    record.status = attempt.status;
    if attempt.state == AttemptState::Answered {
        record.ended_by = end.by;
        set_cause(&mut record, end.cause);
        media.put(&mut record);
    } else {
        record.ended_by = match attempt.cause {
            Cause::FarSideRefused => Party::Callee,
            Cause::Cancelled if end.by == Party::Caller => Party::Caller,
            _ => Party::Ravelin,
        };
        set_cause(&mut record, attempt.cause);
    }
    record
}

fn outbound(record: &mut Cdr, call: &Call, attempt: &Attempt) {
    let trunk = call.loadout.snapshot.trunk(attempt.trunk);
    let answered = attempt.state == AttemptState::Answered;
    record.outbound_trunk = trunk
        .map(|trunk| trunk.id.clone())
        .or_else(|| call.survival.before.as_ref().filter(|_| answered)?.outbound.clone());
    record.outbound_call_id = Some(text(attempt.leg.dialog.call_id()));
    let transport = trunk
        .and_then(|trunk| trunk.targets.get(usize::from(attempt.way.target)))
        .map_or("udp:", |target| match target.transport {
            ravelin_policy::Transport::Udp => "udp:",
            ravelin_policy::Transport::Tcp => "tcp:",
            ravelin_policy::Transport::Tls => "tls:",
        });
    record.target = Some(address_text(transport, attempt.target));
    record.identity_out = Some(attempt.identity_out.to_owned());
    record.attestation_rule = attempt.attestation_rule.map(str::to_owned);
}

fn address_text(before: &str, address: std::net::SocketAddr) -> String {
    let mut out = Vec::with_capacity(32);
    out.extend_from_slice(before.as_bytes());
    push_address(address, &mut out);
    // ASCII by construction.
    String::from_utf8(out).unwrap_or_default()
}

fn set_cause(record: &mut Cdr, cause: Cause) {
    record.cause = cause.number();
    record.cause_text = cause.text().to_owned();
}

/// What is known of an INVITE that was refused before it became a call.
#[derive(Debug)]
pub(crate) struct Refused<'a> {
    pub meta: &'a Meta,
    pub invite: &'a Message<'a>,
    pub class: Class,
    pub inbound: Option<ravelin_policy::TrunkId>,
    pub cause: Cause,
    pub status: u16,
}

/// Writes the record of an INVITE that was refused before it became a call.
pub(crate) fn write_refused(core: &mut Core, turn: &Turn<'_>, refused: &Refused<'_>) {
    let loadout = std::sync::Arc::clone(&core.loadout);
    let snapshot = &loadout.snapshot;
    let handle = core.layer.identifiers().handle(crate::ids::Handle::NO_SLOT);
    let id = super::call::call_id_text(turn.now.unix_ms, handle);
    let mut record = Cdr {
        kind: CdrKind::Call,
        call: text(&id),
        node: core.node.clone(),
        shard: core.shard.0,
        attempt: 0,
        inbound_call_id: text(refused.invite.call_id()),
        outbound_call_id: None,
        from: text(refused.invite.from().uri),
        to: text(refused.invite.request_uri().unwrap_or_default()),
        inbound_trunk: refused
            .inbound
            .and_then(|id| snapshot.trunk(id))
            .map(|trunk| trunk.id.clone()),
        outbound_trunk: None,
        source: address_text("", refused.meta.source),
        target: None,
        route: None,
        snapshot: snapshot.version,
        start_unix_ms: turn.now.unix_ms,
        ring_ms: None,
        answer_ms: None,
        end_ms: 0,
        duration_ms: 0,
        status: refused.status,
        ended_by: Party::Ravelin,
        cause: 0,
        cause_text: String::new(),
        emergency: matches!(refused.class, Class::Emergency(_)),
        class: refused.class.as_str().to_owned(),
        site: None,
        identity_in: None,
        identity_out: None,
        attestation_rule: None,
        media_caller: None,
        media_callee: None,
        streams: Vec::new(),
        adopted: 0,
        sdp_caller: Vec::new(),
        sdp_callee: Vec::new(),
    };
    set_cause(&mut record, refused.cause);
    core.records.cdr(record);
}
