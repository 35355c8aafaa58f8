//! Emergency chains: which trunks an emergency call tries, in which order (EM-50).

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use ravelin_contract::config::{self, Config, RealmKind, Role};

use super::{Faults, Names};
use crate::{EmergencyStep, Realm, Tier, Trunk, TrunkId};

pub(crate) const SITE_TRUNKS_MAX: usize = 16;
/// Trunks that one emergency call may come to, those for every site among them. A call tries all of
/// its chain. Those that the config names for emergency calls are never left out: more of them refuse
/// it. Of the carriers of the last resort those beyond are left out, and a warning says so.
pub(crate) const EMERGENCY_CHAIN_MAX: usize = 64;

pub(super) struct Chains {
    /// The first one is for calls without a site.
    pub(super) chains: Vec<Box<[EmergencyStep]>>,
    pub(super) of_site: Vec<u32>,
}

pub(super) fn chains(
    config: &Config,
    names: &Names<'_>,
    trunks: &[Trunk],
    realms: &[Realm],
    faults: &mut Faults,
) -> Chains {
    let tail = tail(config, names, trunks, faults);
    let mut left_out = 0;
    let mut chain = |own: &[TrunkId]| -> Box<[EmergencyStep]> {
        let own = own.iter().map(|&trunk| EmergencyStep { trunk, tier: Tier::Site });
        let mut seen = HashSet::new();
        let mut steps: Vec<_> =
            own.chain(tail.iter().copied()).filter(|step| seen.insert(step.trunk)).collect();
        // The last resort stands last.
        let named = steps.iter().filter(|step| step.tier != Tier::LastResort).count();
        let most = named.max(EMERGENCY_CHAIN_MAX);
        left_out = left_out.max(steps.len().saturating_sub(most));
        steps.truncate(most);
        steps.into()
    };
    let default_chain = chain(&[]);
    let tail_is_long =
        check_length("emergency", "of a call without a site", &default_chain, faults);
    let starts_here =
        realms.iter().any(|realm| realm.kind == RealmKind::Access && realm.emergency_allowed);
    if default_chain.is_empty() && starts_here {
        faults.warn(
            "features.karis_law.emergency_trunk_id",
            "emergency calls from outside of any site have no trunk to go to",
        );
    }
    let mut chains = vec![default_chain];
    let mut known: HashMap<Vec<TrunkId>, u32> = HashMap::from([(Vec::new(), 0)]);
    let mut of_site = Vec::with_capacity(config.sites.len());
    for (index, site) in config.sites.iter().enumerate() {
        let own = site_trunks(index, site, names, config, faults);
        let position = *known.entry(own).or_insert_with_key(|own| {
            chains.push(chain(own));
            u32::try_from(chains.len() - 1).unwrap_or(0)
        });
        let steps = chains.get(position as usize).map(|chain| &**chain).unwrap_or_default();
        // What is too long for every site is said once.
        if !tail_is_long {
            let path = format!("sites[{index}].emergency_trunks");
            check_length(&path, &format!("of site `{}`", site.site_name), steps, faults);
        }
        check_diversity(index, site, steps, trunks, faults);
        of_site.push(position);
    }
    if left_out > 0 {
        faults.warn(
            "emergency.last_resort_any_trunk",
            format!(
                "an emergency chain has at most {EMERGENCY_CHAIN_MAX} trunks: {left_out} of the \
                 carriers, the last in this config, are not tried as a last resort"
            ),
        );
    }
    Chains { chains, of_site }
}

/// What every chain ends with: the global trunk, then what is flagged, then the last resort.
fn tail(
    config: &Config,
    names: &Names<'_>,
    trunks: &[Trunk],
    faults: &mut Faults,
) -> Vec<EmergencyStep> {
    let mut steps = Vec::new();
    let global = config.features.karis_law.as_ref().and_then(|k| k.emergency_trunk_id.as_deref());
    if let Some(id) = global {
        let path = "features.karis_law.emergency_trunk_id";
        if let Some(trunk) = emergency_trunk(path, id, names, config, faults) {
            steps.push(EmergencyStep { trunk, tier: Tier::Global });
        }
    }
    let numbered = || (0_u16..).map(TrunkId).zip(trunks).filter(|(_, t)| !t.targets.is_empty());
    let flagged = numbered().filter(|(_, trunk)| trunk.may_carry_emergency);
    steps.extend(flagged.map(|(trunk, _)| EmergencyStep { trunk, tier: Tier::Flagged }));
    if config.emergency.as_ref().is_some_and(|e| e.last_resort_any_trunk) {
        let others = numbered().filter(|(_, trunk)| trunk.role == Role::Carrier);
        steps.extend(others.map(|(trunk, _)| EmergencyStep { trunk, tier: Tier::LastResort }));
    }
    steps
}

/// Whether a chain of trunks that the config names is longer than [`EMERGENCY_CHAIN_MAX`], which refuses
/// the config.
fn check_length(path: &str, whose: &str, steps: &[EmergencyStep], faults: &mut Faults) -> bool {
    let long = steps.len() > EMERGENCY_CHAIN_MAX;
    if long {
        let of = |tier| steps.iter().filter(|step| step.tier == tier).count();
        let reason = format!(
            "the emergency chain {whose} has {} trunks; at most {EMERGENCY_CHAIN_MAX} ({} of the site, \
             {} of `features.karis_law.emergency_trunk_id`, {} with `may_carry_emergency`)",
            steps.len(),
            of(Tier::Site),
            of(Tier::Global),
            of(Tier::Flagged),
        );
        faults.error(path, reason);
    }
    long
}

/// Trunks of a site by priority.
fn site_trunks(
    index: usize,
    site: &config::Site,
    names: &Names<'_>,
    config: &Config,
    faults: &mut Faults,
) -> Vec<TrunkId> {
    let path = |at: Option<usize>| match at {
        Some(at) => format!("sites[{index}].emergency_trunks[{at}].id"),
        None => format!("sites[{index}].emergency_trunk"),
    };
    let mut listed: Vec<(u16, Option<usize>, &str)> = Vec::new();
    // The single form is the first choice where both are given.
    listed.extend(site.emergency_trunk.as_deref().map(|id| (0, None, id)));
    for (at, trunk) in site.emergency_trunks.iter().enumerate() {
        if site.emergency_trunk.as_ref() == Some(&trunk.id) {
            // Both forms of the source documents may name the same trunk.
            continue;
        }
        listed.push((trunk.priority, Some(at), &trunk.id));
    }
    if listed.len() > SITE_TRUNKS_MAX {
        let reason = format!("{} trunks; at most {SITE_TRUNKS_MAX}", listed.len());
        faults.error(format!("sites[{index}].emergency_trunks"), reason);
    }
    listed.sort_by_key(|(priority, ..)| *priority);
    let mut found = Vec::new();
    for (_, at, id) in listed {
        let Some(trunk) = emergency_trunk(&path(at), id, names, config, faults) else { continue };
        if found.contains(&trunk) {
            faults.error(path(at), format!("trunk `{id}` is listed twice"));
        } else {
            found.push(trunk);
        }
    }
    found
}

fn emergency_trunk(
    path: &str,
    id: &str,
    names: &Names<'_>,
    config: &Config,
    faults: &mut Faults,
) -> Option<TrunkId> {
    let Some(&trunk) = names.trunks.get(id) else {
        faults.error(path, format!("unknown trunk `{id}`"));
        return None;
    };
    let settings = config.trunks.get(usize::from(trunk.0))?;
    if settings.role == Role::Customer {
        faults.error(path, format!("`{id}` is a customer; emergency calls cannot go there"));
        return None;
    }
    if settings.targets.is_empty() {
        faults.error(path, format!("trunk `{id}` has no target to send to"));
        return None;
    }
    if settings.role == Role::Carrier && !settings.may_carry_emergency {
        let reason = format!(
            "`{id}` is an ordinary carrier; set `may_carry_emergency` or role `emergency` if it is \
             meant for emergency calls"
        );
        faults.warn(path, reason);
    }
    Some(trunk)
}

/// EM-82: a site needs two ways out that do not end at the same address.
fn check_diversity(
    index: usize,
    site: &config::Site,
    steps: &[EmergencyStep],
    trunks: &[Trunk],
    faults: &mut Faults,
) {
    let path = format!("sites[{index}].emergency_trunks");
    let names_any = site.emergency_trunk.is_some() || !site.emergency_trunks.is_empty();
    if steps.is_empty() {
        // An unknown trunk has been reported where it is named.
        if !names_any {
            let reason = format!(
                "site `{}` has no emergency trunk and there is no global one: 911 would go nowhere",
                site.site_name
            );
            faults.error(path, reason);
        }
        return;
    }
    let addresses: HashSet<SocketAddr> = steps
        .iter()
        .filter(|step| step.tier != Tier::LastResort)
        .filter_map(|step| trunks.get(usize::from(step.trunk.0)))
        .flat_map(|trunk| trunk.targets.iter().map(|target| target.addr))
        .collect();
    if addresses.len() < 2 {
        let reason = format!(
            "all emergency trunks of site `{}` end at one address; give it a second, diverse one",
            site.site_name
        );
        faults.warn(path, reason);
    }
}
