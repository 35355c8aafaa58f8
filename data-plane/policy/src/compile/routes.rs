//! Routes: the first one that matches wins.

use std::collections::{HashMap, HashSet};

use ravelin_contract::config::{self, Config, Role};

use super::{Faults, Names, text, trunks};
use crate::{
    Route, RouteId, TrunkId,
    class::ClassTable,
    numbers::{Dialled, Pattern, PatternMap},
};

const ROUTES_MAX: usize = 60_000;
pub(crate) const ROUTE_TRUNKS_MAX: usize = 32;

/// Routes by the trunk that a call comes from.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    /// Routes without `from`.
    everyone: PatternMap,
    /// By trunk: routes that name it.
    by_trunk: Vec<PatternMap>,
}

impl RouteTable {
    /// The first route, as position.
    pub(crate) fn lookup(&self, from: TrunkId, dialled: Option<&Dialled>) -> Option<RouteId> {
        let own = self.by_trunk.get(usize::from(from.0)).and_then(|map| map.lookup(dialled));
        let shared = self.everyone.lookup(dialled);
        let first = match (own, shared) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        first.and_then(|index| u16::try_from(index).ok()).map(RouteId)
    }
}

pub(super) fn build(
    config: &Config,
    names: &Names<'_>,
    classes: &[ClassTable],
    faults: &mut Faults,
) -> (Vec<Route>, RouteTable) {
    trunks::check_against_emergency(config, names, classes, faults);
    if config.routes.len() > ROUTES_MAX {
        let reason = format!("{} routes; at most {ROUTES_MAX}", config.routes.len());
        faults.error("routes", reason);
    }
    let mut routes = Vec::new();
    let mut ids = HashSet::new();
    let mut everyone: Vec<(Pattern, u32)> = Vec::new();
    let mut by_trunk: HashMap<TrunkId, Vec<(Pattern, u32)>> = HashMap::new();
    for (index, raw) in (0_u32..).zip(&config.routes) {
        let at = |key: &str| format!("routes[{index}].{key}");
        text::check_id(&at("id"), &raw.id, faults);
        if !ids.insert(raw.id.as_str()) {
            faults.conflict(at("id"), format!("route `{}` is listed twice", raw.id));
        }
        let pattern = faults.check(at("to"), Pattern::parse(&raw.to));
        let from = references(&at("from"), &raw.from, names, faults);
        let to = references(&at("trunks"), &raw.trunks, names, faults);
        check_targets(&at("trunks"), &raw.trunks, &to, &config.trunks, faults);
        if let Some(pattern) = pattern {
            warn_if_never_used(&at("to"), &raw.to, &pattern, classes, faults);
            if raw.from.is_empty() {
                everyone.push((pattern, index));
            } else {
                for trunk in from {
                    by_trunk.entry(trunk).or_default().push((pattern.clone(), index));
                }
            }
        }
        routes.push(Route { id: raw.id.clone(), trunks: to });
    }
    let map = |patterns: &[(Pattern, u32)]| PatternMap::new(patterns.iter().map(|(p, v)| (p, *v)));
    let by_trunk = (0_u16..)
        .zip(&config.trunks)
        .map(|(index, _)| by_trunk.get(&TrunkId(index)).map(|p| map(p)).unwrap_or_default())
        .collect();
    (routes, RouteTable { everyone: map(&everyone), by_trunk })
}

fn references(path: &str, ids: &[String], names: &Names<'_>, faults: &mut Faults) -> Vec<TrunkId> {
    let mut found = Vec::new();
    for (at, id) in ids.iter().enumerate() {
        match names.trunks.get(id.as_str()) {
            None => faults.error(format!("{path}[{at}]"), format!("unknown trunk `{id}`")),
            Some(trunk) if found.contains(trunk) => {
                faults.error(format!("{path}[{at}]"), format!("trunk `{id}` is listed twice"));
            }
            Some(trunk) => found.push(*trunk),
        }
    }
    found
}

fn check_targets(
    path: &str,
    ids: &[String],
    to: &[TrunkId],
    trunks: &[config::Trunk],
    faults: &mut Faults,
) {
    if ids.is_empty() {
        faults.error(path, "is empty: the route leads nowhere");
    }
    if ids.len() > ROUTE_TRUNKS_MAX {
        faults.error(path, format!("{} trunks; at most {ROUTE_TRUNKS_MAX}", ids.len()));
    }
    for id in to {
        let Some(trunk) = trunks.get(usize::from(id.0)) else { continue };
        if trunk.role == Role::Emergency {
            let reason =
                format!("`{}` leads to a PSAP; ordinary calls must not go there", trunk.id);
            faults.error(path, reason);
        } else if trunk.targets.is_empty() {
            faults.error(path, format!("trunk `{}` has no target to send to", trunk.id));
        }
    }
}

/// Emergency calls are recognised before routing: such a route looks useful and is not.
fn warn_if_never_used(
    path: &str,
    text: &str,
    pattern: &Pattern,
    classes: &[ClassTable],
    faults: &mut Faults,
) {
    let exact = matches!(pattern, Pattern::Number { prefix: false, .. });
    if exact
        && let Some(number) = pattern.collides_with(classes.iter().flat_map(|c| c.dial_strings()))
    {
        let reason = format!(
            "`{text}`: {number} is an emergency number and is never routed here (where it is one)"
        );
        faults.warn(path, reason);
    }
}
