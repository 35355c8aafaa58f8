//! What the engine does for one emergency call besides what every call gets, and the events that
//! tell of it. An event is queued for the control plane in the turn in which the thing happens,
//! behind the INVITE; nobody waits for it (EM-3, compliance-systems K3).

use ravelin_contract::audit::Severity;
use ravelin_policy::{Address, Class, SiteMatch, SiteRule, Snapshot};
use ravelin_wire::{
    sdp::SdpError,
    sip::{HeaderName, Message, Uri},
};

use super::{
    EmergencyRoute,
    pidf::{self, Multipart},
    walk,
};
use crate::{
    b2bua::{
        attempt::{arm, contact_user},
        call::{Call, Phase},
        invite::Arrival,
        ladder::elapsed_ms,
        release,
        sdp::Oddities,
    },
    cause::Cause,
    core::{Core, Turn},
    media::Side,
    records::{EventBuilder, text},
    timer::CallTimer,
};

/// Makes the token of a call that the classifier calls an emergency.
pub(crate) fn decide(snapshot: &Snapshot, arrival: &Arrival<'_>) -> EmergencyRoute {
    let site = location(snapshot, arrival).map(|found| found.site);
    EmergencyRoute::decide(
        site.map(|site| site.0),
        snapshot.emergency_chain(site).map(|trunk| trunk.0),
    )
}

/// The caller's site, from the packet's source and the caller's extension (EM-22, EM-25).
pub(crate) fn location(snapshot: &Snapshot, arrival: &Arrival<'_>) -> Option<SiteMatch> {
    let extension = arrival.invite.from().uri().and_then(|uri| uri.user).map(contact_user);
    let source = arrival.meta.source.ip();
    snapshot.locate(arrival.realm, source, extension, arrival.trunk).site
}

/// The number to dial at the PSAP's trunk (EM-44): that of the site, else 911.
pub(crate) fn psap<'s>(snapshot: &'s Snapshot, token: Option<&EmergencyRoute>) -> Option<&'s str> {
    let token = token?;
    let site = token.site().and_then(|site| snapshot.sites.get(usize::try_from(site).ok()?));
    Some(site.map_or("911", |site| site.psap.as_str()))
}

/// The validated number that reaches the caller: the site's ELIN (EM-57). Without one the caller's
/// own identity stays. An address test shows the same number, for it is that number's address that
/// is read back (EM-19).
pub(crate) fn callback(
    snapshot: &Snapshot,
    class: Class,
    location: Option<SiteMatch>,
) -> Option<&str> {
    if !matches!(class, Class::Emergency(_) | Class::TestAddress) {
        return None;
    }
    snapshot.site_settings(location?.site)?.elin.as_deref()
}

/// `<sip:number@host;user=phone>`.
pub(crate) fn write_callback(number: &str, host: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"<sip:");
    out.extend_from_slice(number.as_bytes());
    out.push(b'@');
    out.extend_from_slice(host);
    out.extend_from_slice(b";user=phone>");
}

/// Our own location object beside the SDP, for a caller that sent none, or that is not trusted to
/// know where it is: ours is the last value then (EM-22, EM-25, EM-29, EM-30). `None`: there is no
/// location, or the caller's own goes out alone; so does a body that has parts already.
pub(crate) fn location_body(
    call: &Call,
    invite: &Message<'_>,
    sdp: &[u8],
    host: &[u8],
    unix_ms: u64,
    token: [u8; 16],
) -> Option<Multipart> {
    call.emergency.as_ref()?;
    let plain =
        sdp.is_empty() || invite.content().is_none_or(|kind| kind.is(b"application", b"sdp"));
    let trusted = call
        .inbound
        .and_then(|id| call.loadout.snapshot.trunk(id))
        .is_some_and(|trunk| trunk.trust.location);
    let theirs = trusted && invite.header(HeaderName::Geolocation).is_some();
    if !plain || theirs {
        return None;
    }
    let (address, method) = address_of(call)?;
    let snapshot = &call.loadout.snapshot;
    let caller = Uri::parse(&call.from).and_then(|uri| uri.user).map(text).unwrap_or_default();
    let entity_user = callback(snapshot, call.class, call.location).unwrap_or(&caller);
    let host = String::from_utf8_lossy(host);
    let document =
        pidf::document(&pidf::Location { entity_user, host: &host, address, method, unix_ms });
    let mut name = String::with_capacity(32);
    for octet in token {
        name.push_str(&format!("{octet:02x}"));
    }
    pidf::multipart(sdp, &document, &name, &host)
}

/// Where the caller is, as far as the site table knows (EM-25, EM-27).
fn address_of(call: &Call) -> Option<(&Address, pidf::Method)> {
    let snapshot = &call.loadout.snapshot;
    match call.location {
        Some(found) => {
            let site = snapshot.site_settings(found.site)?;
            let method = match found.rule {
                SiteRule::TrunkDefault => pidf::Method::Default,
                _ => pidf::Method::Manual,
            };
            site.is_a_place.then_some((&site.address, method))
        }
        None => snapshot.default_location.as_ref().map(|at| (at, pidf::Method::Default)),
    }
}

/// The dispatchable location as text: what a person at the notification point reads.
fn location_text(call: &Call) -> String {
    let Some((at, _)) = address_of(call) else { return "Location not registered".to_owned() };
    let mut parts: Vec<String> = Vec::new();
    parts.extend(at.street.clone());
    parts.extend(at.building.as_ref().map(|name| format!("Building: {name}")));
    parts.extend(at.floor.as_ref().map(|floor| format!("Floor {floor}")));
    parts.extend(at.room.as_ref().map(|room| format!("Room {room}")));
    parts.extend(at.city.clone());
    parts.extend(at.state.clone());
    parts.extend(at.postal_code.clone());
    if parts.is_empty() { "Location on file".to_owned() } else { parts.join(", ") }
}

fn user_of(uri: &[u8]) -> String {
    Uri::parse(uri)
        .and_then(|uri| uri.user)
        .map_or_else(|| text(uri), |user| text(contact_user(user)))
}

/// An event with what every event of an emergency call says.
fn event(
    core: &Core,
    call: &Call,
    turn: &Turn<'_>,
    kind: &str,
    severity: Severity,
) -> EventBuilder {
    let snapshot = &call.loadout.snapshot;
    let site = call.location.and_then(|found| snapshot.site_settings(found.site));
    let mut event = EventBuilder::new(kind, severity, turn.now, snapshot.version, core.shard.0)
        .call(call.id_text())
        .field("number", user_of(&call.to))
        .field("extension", user_of(&call.from))
        .field("source", call.source.to_string())
        .field("location", location_text(call))
        .field("mode", mode(snapshot));
    if let Some(site) = site {
        event = event.field("site", site.name.clone()).field("site_id", site.site_id);
    }
    if let Some(found) = call.location {
        event = event.field("site_rule", found.rule.as_str());
    }
    if let Some(number) = callback(snapshot, call.class, call.location) {
        event = event.field("callback", number);
    }
    event
}

fn mode(snapshot: &Snapshot) -> &'static str {
    match snapshot.mode {
        ravelin_policy::Mode::Production => "production",
        ravelin_policy::Mode::Test => "test",
    }
}

/// The call exists.
pub(crate) fn started(core: &mut Core, call: &Call, turn: &Turn<'_>) {
    let trunks: Vec<serde_json::Value> = call
        .emergency
        .iter()
        .flat_map(|token| token.chain())
        .filter_map(|trunk| call.loadout.snapshot.trunks.get(usize::from(*trunk)))
        .map(|trunk| trunk.id.clone().into())
        .collect();
    let request_uri = text(&call.to);
    let event = event(core, call, turn, "emergency.started", Severity::Warning)
        .field("request_uri", request_uri)
        .field("trunks", trunks);
    core.records.audit(event.done(), true);
}

/// An INVITE to a trunk of the chain is queued. With the first one goes the notification: the
/// control plane tells those who must know (EM-3).
pub(crate) fn attempted(core: &mut Core, call: &Call, turn: &Turn<'_>, index: usize) {
    let Some(attempt) = call.attempts.get(index) else { return };
    let snapshot = &call.loadout.snapshot;
    let trunk = snapshot.trunk(attempt.trunk).map(|trunk| trunk.id.clone());
    let psap = psap(snapshot, call.emergency.as_ref()).unwrap_or("911");
    let tell = |kind: &str, severity| {
        event(core, call, turn, kind, severity)
            .field("attempt", attempt.number)
            .field("trunk", trunk.clone())
            .field("target", attempt.target.to_string())
            .field("psap", psap)
            .done()
    };
    let attempted = tell("emergency.attempt", Severity::Warning);
    let notify = (attempt.number == 1).then(|| tell("emergency.notify", Severity::Alarm));
    core.records.audit(attempted, true);
    if let Some(notify) = notify {
        core.records.audit(notify, true);
    }
}

/// An attempt failed; the next trunk is due. `code` 0: no answer in time.
pub(crate) fn attempt_failed(core: &mut Core, call: &Call, turn: &Turn<'_>, code: u16) {
    let trunk = call
        .attempts
        .last()
        .and_then(|attempt| call.loadout.snapshot.trunk(attempt.trunk))
        .map(|trunk| trunk.id.clone());
    let event = event(core, call, turn, "emergency.trunk_failed", Severity::Alarm)
        .field("trunk", trunk)
        .field("status", code);
    core.records.audit(event.done(), true);
}

/// A PSAP answered.
pub(crate) fn answered(core: &mut Core, call: &Call, turn: &Turn<'_>, index: usize) {
    let attempt = call.attempts.get(index);
    let trunk = attempt
        .and_then(|attempt| call.loadout.snapshot.trunk(attempt.trunk))
        .map(|trunk| trunk.id.clone());
    let event = event(core, call, turn, "emergency.answered", Severity::Warning)
        .field("trunk", trunk)
        .field("attempt", attempt.map(|attempt| attempt.number))
        .field("after_ms", elapsed_ms(call.started.mono, turn.now.mono));
    core.records.audit(event.done(), true);
}

/// The description of a party could not be taken as it was, and the call went on (EM-55). Told once
/// for each thing that was done, whatever number of trunks is tried.
pub(crate) fn described(
    core: &mut Core,
    call: &mut Call,
    turn: &Turn<'_>,
    side: Side,
    found: Oddities,
) {
    let [caller, callee] = &mut call.oddities;
    let known = if side == Side::Caller { caller } else { callee };
    if !known.add(found) {
        return;
    }
    core.counters.emergency_repaired += 1;
    let done: Vec<serde_json::Value> = found.iter().map(|odd| odd.as_str().into()).collect();
    let event = event(core, call, turn, "emergency.description", Severity::Alarm)
        .field("party", party(side))
        .field("done", done)
        .field("fault", found.fault.map(SdpError::reason));
    core.records.audit(event.done(), true);
}

fn party(side: Side) -> &'static str {
    if side == Side::Caller { "caller" } else { "callee" }
}

/// No trunk is left: the chain begins again after a second, for a minute (EM-54).
pub(crate) fn chain_exhausted(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>) {
    let age = turn.now.mono.since(call.started.mono);
    let attempts = u16::try_from(call.attempts.len()).unwrap_or(u16::MAX);
    // Somewhere a phone rings: that attempt decides.
    let ringing = call.attempts.iter().any(|attempt| {
        attempt.state == crate::b2bua::call::AttemptState::Calling
            && attempt.progress == walk::Progress::Ringing
    });
    if ringing {
        return;
    }
    match walk::again(age, attempts).filter(|_| !call.plan.is_empty()) {
        Some(after) => {
            core.wheel.cancel(call.timers.restart);
            call.timers.restart = arm(core, turn, call.key, after, CallTimer::Restart);
        }
        None => {
            let event = event(core, call, turn, "emergency.failed", Severity::Critical)
                .field("delivered", false)
                .field("attempts", call.attempts.len());
            core.records.audit(event.done(), true);
            release::refuse(core, call, turn, 503, Cause::NoEmergencyRoute, None);
        }
    }
}

/// The chain begins again.
pub(crate) fn restart(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>) {
    if !matches!(call.phase, Phase::Routing | Phase::Ringing) {
        return;
    }
    call.plan.restart();
    crate::b2bua::attempt::advance(core, call, turn, None);
}

/// A source sends more emergency calls than people dial; said once until it has calmed down (EM-67).
pub(crate) fn excess(core: &mut Core, turn: &Turn<'_>, source: std::net::IpAddr) {
    let (now, shard, version) = (turn.now, core.shard.0, core.loadout.snapshot.version);
    let event = EventBuilder::new("emergency.excess", Severity::Alarm, now, version, shard)
        .field("source", source.to_string());
    core.records.audit(event.done(), true);
}

/// An ordinary call ended so that an emergency call has room (EM-64).
pub(crate) fn gave_way(core: &mut Core, victim: &Call, turn: &Turn<'_>, resource: Cause) {
    let snapshot = &victim.loadout.snapshot;
    let (now, shard) = (turn.now, core.shard.0);
    let kind = "emergency.preempted";
    let event = EventBuilder::new(kind, Severity::Alarm, now, snapshot.version, shard)
        .call(victim.id_text())
        .field("answered", victim.answer_at.is_some())
        .field("age_ms", elapsed_ms(victim.started.mono, now.mono))
        .field("resource", resource.label());
    core.records.audit(event.done(), true);
}

/// The process ends and takes the call with it, though neither party hung up (EM-61). The operator
/// must know.
pub(crate) fn cut_off(core: &mut Core, call: &Call, turn: &Turn<'_>) {
    let event = event(core, call, turn, "emergency.cut_off", Severity::Critical)
        .field("answered", call.answer_at.is_some());
    core.records.audit(event.done(), true);
}

/// The call has ended. One that was hung up before an answer is told as abandoned (EM-54).
pub(crate) fn ended(core: &mut Core, call: &Call, turn: &Turn<'_>) {
    let Some(end) = call.end else { return };
    let abandoned = call.answer_at.is_none() && end.cause == Cause::Cancelled;
    let by = match end.by {
        ravelin_contract::cdr::Party::Caller => "caller",
        ravelin_contract::cdr::Party::Callee => "callee",
        ravelin_contract::cdr::Party::Ravelin => "ravelin",
    };
    let event = event(core, call, turn, "emergency.ended", Severity::Warning)
        .field("answered", call.answer_at.is_some())
        .field("abandoned", abandoned)
        .field("ended_by", by)
        .field("cause", end.cause.number())
        .field("cause_text", end.cause.text())
        .field("attempts", call.attempts.len())
        .field("duration_ms", call.answer_at.map_or(0, |at| elapsed_ms(at, end.at)));
    core.records.audit(event.done(), true);
}

/// Our 2xx to one party of an emergency call was never acknowledged. The call stays up.
pub(crate) fn unacknowledged(core: &mut Core, call: &Call, turn: &Turn<'_>, side: Side) {
    let event = event(core, call, turn, "emergency.unacknowledged", Severity::Alarm)
        .field("party", party(side));
    core.records.audit(event.done(), true);
}

/// Test mode blocked what looks like an emergency call (E5): the line of the source documents is
/// rendered from this.
pub(crate) fn blocked(core: &mut Core, call: &Call, turn: &Turn<'_>) {
    let event = event(core, call, turn, "emergency.blocked", Severity::Error);
    core.records.audit(event.done(), true);
}

/// An emergency call that was not taken: from a realm that may not start one (EM-67), or while the
/// process ends.
pub(crate) fn denied(core: &mut Core, turn: &Turn<'_>, arrival: &Arrival<'_>, cause: Cause) {
    let loadout = std::sync::Arc::clone(&core.loadout);
    let snapshot = &loadout.snapshot;
    let realm = snapshot.realm(arrival.realm).map(|realm| realm.id.clone());
    let event = EventBuilder::new(
        "emergency.denied",
        Severity::Alarm,
        turn.now,
        snapshot.version,
        core.shard.0,
    )
    .field("number", user_of(arrival.invite.request_uri().unwrap_or_default()))
    .field("extension", user_of(arrival.invite.from().uri))
    .field("source", arrival.meta.source.to_string())
    .field("realm", realm)
    .field("cause", cause.number())
    .field("cause_text", cause.text());
    core.records.audit(event.done(), true);
}
