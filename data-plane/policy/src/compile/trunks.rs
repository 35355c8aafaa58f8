//! Trunks, their targets and what they are entitled to.

use std::{collections::HashMap, net::SocketAddr};

use ravelin_contract::config::{self, Config, OnFailure, Role, Transport};

use super::{Faults, Names, edge, text, trunk_media};
use crate::{
    HealthCheck, Identity, Listener, RealmId, SiteId, Stir, Target, Trunk, TrunkId, TrunkLimits,
    Trust,
    class::ClassTable,
    numbers::{Pattern, PatternMap},
};

/// Trunks of one document: a position is 16 bits wide.
pub(crate) const TRUNKS_MAX: usize = 16_384;
pub(crate) const TARGETS_MAX: usize = 64;
const NUMBERS_MAX: usize = 1_000_000;
const PRIORITY_DEFAULT: u16 = 1;
const WEIGHT_DEFAULT: u16 = 100;
const FAILURES_DEFAULT: u32 = 3;
const SIP_PORT: u16 = 5060;
const SIPS_PORT: u16 = 5061;

pub(super) fn build<'c>(
    config: &'c Config,
    names: &mut Names<'c>,
    listeners: &[Listener],
    stir: &Stir,
    faults: &mut Faults,
) -> (Vec<Trunk>, Vec<PatternMap>) {
    if config.trunks.len() > TRUNKS_MAX {
        let reason = format!("{} trunks; at most {TRUNKS_MAX}", config.trunks.len());
        faults.error("trunks", reason);
    }
    let mut trunks = Vec::new();
    let mut entitlements = Vec::new();
    for (index, raw) in (0_u16..).zip(&config.trunks) {
        let at = |key: &str| format!("trunks[{index}].{key}");
        text::check_id(&at("id"), &raw.id, faults);
        if names.trunks.insert(&raw.id, TrunkId(index)).is_some() {
            faults.conflict(at("id"), format!("trunk `{}` is listed twice", raw.id));
        }
        let realm = edge::known_realm(&at("realm"), &raw.realm, names, faults);
        // A position must exist for every trunk, or those behind it would move.
        let realm_id = realm.unwrap_or(RealmId(0));
        if raw.sources.is_empty() && raw.targets.is_empty() {
            faults.error(at("targets"), "neither sources nor targets: no call can come or go");
        }
        let targets = targets(raw, index, realm.map(|id| (id, listeners)), faults);
        trunks.push(Trunk {
            id: raw.id.clone(),
            realm: realm_id,
            role: raw.role,
            targets,
            limits: limits(raw, index, faults),
            options: options(raw, index, faults),
            identity: identity(raw, index, stir, faults),
            trust: trust(raw),
            may_carry_emergency: raw.may_carry_emergency,
            address_test: raw.address_test,
            default_site: None,
            number_plan: raw.number_plan.unwrap_or_default(),
            media: trunk_media::build(raw, index, faults),
        });
        if raw.may_carry_emergency && raw.role == Role::Customer {
            faults.error(at("may_carry_emergency"), "a customer cannot carry emergency calls");
        }
        entitlements.push(numbers(raw, index, faults));
    }
    check_trust_anchors(config, stir, faults);
    (trunks, entitlements)
}

fn targets(
    raw: &config::Trunk,
    index: u16,
    realm: Option<(RealmId, &[Listener])>,
    faults: &mut Faults,
) -> Vec<Target> {
    if raw.targets.len() > TARGETS_MAX {
        let reason = format!("{} targets; at most {TARGETS_MAX}", raw.targets.len());
        faults.error(format!("trunks[{index}].targets"), reason);
    }
    let mut targets: Vec<Target> = Vec::new();
    for (number, raw) in raw.targets.iter().enumerate() {
        let path = format!("trunks[{index}].targets[{number}].uri");
        let Some((address, port, in_uri)) = faults.check(&path, text::target_uri(&raw.uri)) else {
            continue;
        };
        let transport = in_uri.or(raw.transport).unwrap_or(Transport::Udp);
        if transport == Transport::Tls {
            faults.error(&path, "TLS to targets is not part of this release");
        }
        let default_port = if transport == Transport::Tls { SIPS_PORT } else { SIP_PORT };
        let addr = SocketAddr::new(address, port.unwrap_or(default_port));
        if let Some((realm, listeners)) = realm {
            check_reachable(&path, addr, transport, realm, listeners, faults);
        }
        if targets.iter().any(|t| t.addr == addr && t.transport == transport) {
            faults.conflict(&path, format!("target {addr} is listed twice"));
        }
        targets.push(Target {
            addr,
            transport,
            priority: raw.priority.unwrap_or(PRIORITY_DEFAULT),
            weight: raw.weight.unwrap_or(WEIGHT_DEFAULT),
            uri: raw.uri.clone(),
        });
    }
    targets.sort_by_key(|target| target.priority);
    targets
}

/// A target needs a listener that its messages can leave from, and must not be one of ours.
fn check_reachable(
    path: &str,
    addr: SocketAddr,
    transport: Transport,
    realm: RealmId,
    listeners: &[Listener],
    faults: &mut Faults,
) {
    if let Some(own) = listeners.iter().find(|l| l.bind == addr || l.advertise == addr) {
        faults.error(path, format!("{addr} is our own listener `{}`: calls would loop", own.id));
    }
    let mut in_realm = listeners.iter().filter(|l| l.realm == realm).peekable();
    if in_realm.peek().is_some()
        && !in_realm.any(|l| l.transport == transport && l.bind.is_ipv4() == addr.is_ipv4())
    {
        let family = if addr.is_ipv4() { "IPv4" } else { "IPv6" };
        let transport = match transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        };
        let reason = format!("the realm has no {family} listener for {transport} to send from");
        faults.error(path, reason);
    }
}

fn limits(raw: &config::Trunk, index: u16, faults: &mut Faults) -> TrunkLimits {
    let limits = raw.limits.clone().unwrap_or_default();
    let at = |key: &str| format!("trunks[{index}].limits.{key}");
    TrunkLimits {
        calls: limits.calls.map(|calls| faults.in_range(&at("calls"), calls, 0..=1_000_000)),
        cps: limits.cps.map(|cps| faults.in_range(&at("cps"), cps, 1..=100_000)),
    }
}

fn options(raw: &config::Trunk, index: u16, faults: &mut Faults) -> Option<HealthCheck> {
    let options = raw.options.as_ref()?;
    let at = |key: &str| format!("trunks[{index}].options.{key}");
    if raw.targets.is_empty() {
        faults.error(at("interval"), "there is no target to check");
    }
    let failures = options.failures.unwrap_or(FAILURES_DEFAULT);
    let failures = faults.in_range(&at("failures"), failures, 1..=100);
    let interval = edge::duration(&at("interval"), &options.interval, 1_000, 3_600_000, faults)?;
    Some(HealthCheck { interval, failures })
}

fn identity(raw: &config::Trunk, index: u16, stir: &Stir, faults: &mut Faults) -> Identity {
    let identity = raw.identity.clone().unwrap_or_default();
    let at = |key: &str| format!("trunks[{index}].identity.{key}");
    if identity.sign && !stir.signing {
        faults.warn(at("sign"), "nothing is signed: features.stir_shaken does not enable signing");
    }
    if identity.verify && !stir.verification {
        let reason = "nothing is verified: features.stir_shaken does not enable verification";
        faults.warn(at("verify"), reason);
    }
    if identity.on_failure == OnFailure::Reject && !identity.verify {
        faults.warn(at("on_failure"), "without `verify` nothing can fail");
    }
    Identity {
        sign: identity.sign && stir.signing,
        verify: identity.verify && stir.verification,
        on_failure: identity.on_failure,
        verstat: identity.verstat,
    }
}

/// T9: without a list of trusted CAs nothing can pass.
fn check_trust_anchors(config: &Config, stir: &Stir, faults: &mut Faults) {
    if !stir.verification || stir.ca_cert_path.is_some() {
        return;
    }
    let verifies = |trunk: &&config::Trunk| trunk.identity.as_ref().is_some_and(|i| i.verify);
    if let Some(trunk) = config.trunks.iter().find(verifies) {
        let reason =
            format!("missing: trunk `{}` verifies, and trusts no one without it", trunk.id);
        faults.error("features.stir_shaken.ca_cert_path", reason);
    }
}

fn trust(raw: &config::Trunk) -> Trust {
    let trust = raw.trust.clone().unwrap_or_default();
    Trust {
        asserted_identity: trust.asserted_identity.unwrap_or(raw.role != Role::Customer),
        location: trust.location.unwrap_or(false),
    }
}

fn numbers(raw: &config::Trunk, index: u16, faults: &mut Faults) -> PatternMap {
    if raw.numbers.len() > NUMBERS_MAX {
        let reason = format!("{} numbers; at most {NUMBERS_MAX}", raw.numbers.len());
        faults.error(format!("trunks[{index}].numbers"), reason);
        return PatternMap::default();
    }
    if raw.role != Role::Customer && !raw.numbers.is_empty() {
        let reason = "only customers are entitled to numbers; these have no effect";
        faults.warn(format!("trunks[{index}].numbers"), reason);
    }
    let mut patterns = Vec::new();
    for (at, text) in raw.numbers.iter().enumerate() {
        let path = format!("trunks[{index}].numbers[{at}]");
        patterns.extend(faults.check(path, Pattern::parse(text)));
    }
    PatternMap::new(patterns.iter().map(|pattern| (pattern, 0)))
}

/// EM-14: no extension or number that would swallow an emergency call while it is dialled.
pub(super) fn check_against_emergency(
    config: &Config,
    names: &Names<'_>,
    classes: &[ClassTable],
    faults: &mut Faults,
) {
    for (index, trunk) in config.trunks.iter().enumerate() {
        let class = names
            .realms
            .get(trunk.realm.as_str())
            .and_then(|realm| classes.get(usize::from(realm.0)));
        let Some(class) = class else { continue };
        for (at, text) in trunk.numbers.iter().enumerate() {
            if let Ok(pattern) = Pattern::parse(text)
                && let Some(number) = pattern.collides_with(class.dial_strings())
            {
                let reason = format!("`{text}` takes in the emergency number {number}");
                faults.error(format!("trunks[{index}].numbers[{at}]"), reason);
            }
        }
    }
}

/// Resolves `default_site`, once the sites are known.
pub(super) fn default_sites(
    config: &Config,
    sites: &HashMap<&str, SiteId>,
    trunks: &mut [Trunk],
    faults: &mut Faults,
) {
    for (index, (raw, trunk)) in config.trunks.iter().zip(trunks).enumerate() {
        if let Some(name) = &raw.default_site {
            trunk.default_site = sites.get(name.as_str()).copied();
            if trunk.default_site.is_none() {
                let path = format!("trunks[{index}].default_site");
                faults.error(path, format!("unknown site `{name}`"));
            }
        }
    }
}
