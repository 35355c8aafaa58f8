//! Realms: declared, or named by a listener.

use std::collections::HashMap;

use ravelin_contract::config::{Allow, Config, RealmKind, Role};

use super::{Faults, Names, text};
use crate::{
    Dscp, Realm, RealmId,
    class::{Class, ClassTable, Country, NUMBER_MAX, OUTSIDE_PREFIX_MAX},
};

/// Realms of one document.
pub(crate) const REALMS_MAX: usize = 4096;

/// Emergency numbers that a realm may add to those of its country.
pub(crate) const EXTRA_NUMBERS_MAX: usize = 32;

/// Six bits (RFC 2474 3).
const DSCP_MAX: u8 = 63;

const OUTSIDE_PREFIX_DEFAULT: &str = "9";

pub(super) fn build<'c>(
    config: &'c Config,
    names: &mut Names<'c>,
    faults: &mut Faults,
) -> (Vec<Realm>, Vec<ClassTable>) {
    let mut ids: Vec<&str> = Vec::new();
    let mut declared = HashMap::new();
    for (index, realm) in config.realms.iter().enumerate() {
        let path = format!("realms[{index}].id");
        text::check_id(&path, &realm.id, faults);
        if declared.insert(realm.id.as_str(), index).is_some() {
            faults.conflict(path, format!("realm `{}` is declared twice", realm.id));
        } else {
            ids.push(&realm.id);
        }
    }
    for listener in &config.edge.listeners {
        if !ids.contains(&listener.realm.as_str()) {
            ids.push(&listener.realm);
        }
    }
    if ids.len() > REALMS_MAX {
        let reason = format!("{} realms; at most {REALMS_MAX} are possible", ids.len());
        faults.error("realms", reason);
        ids.truncate(REALMS_MAX);
    }
    let mut realms = Vec::new();
    let mut classes = Vec::new();
    for (index, id) in (0_u16..).zip(ids) {
        names.realms.insert(id, RealmId(index));
        let raw = declared.get(id).and_then(|&at| config.realms.get(at).map(|realm| (at, realm)));
        let (realm, class) = resolve(config, id, raw, faults);
        realms.push(realm);
        classes.push(class);
    }
    (realms, classes)
}

fn resolve(
    config: &Config,
    id: &str,
    raw: Option<(usize, &ravelin_contract::config::Realm)>,
    faults: &mut Faults,
) -> (Realm, ClassTable) {
    let path = |key: &str| match raw {
        Some((at, _)) => format!("realms[{at}].{key}"),
        None => "realms".to_owned(),
    };
    let raw = raw.map(|(_, realm)| realm);
    let people_call_from_here =
        config.trunks.iter().any(|trunk| trunk.realm == id && trunk.role == Role::Customer)
            || config.sites.iter().any(|site| site.realm.as_deref() == Some(id));
    let kind = raw.and_then(|realm| realm.kind).unwrap_or(if people_call_from_here {
        RealmKind::Access
    } else {
        RealmKind::Peering
    });
    let emergency_allowed = match (raw.and_then(|realm| realm.emergency), kind) {
        (Some(Allow::Allow), _) | (None, RealmKind::Access) => true,
        (Some(Allow::Deny), kind) => {
            if kind == RealmKind::Access {
                let reason = format!("no emergency call can start in access realm `{id}`");
                faults.warn(path("emergency"), reason);
            }
            false
        }
        (None, RealmKind::Peering) => {
            let peers_call_us =
                config.trunks.iter().any(|t| t.realm == id && !t.sources.is_empty());
            if peers_call_us {
                let reason = format!(
                    "realm `{id}` does not state `emergency: allow` or `deny`; emergency calls \
                     that start there are denied"
                );
                let trunk = config.trunks.iter().position(|trunk| trunk.realm == id);
                let path = match (raw, trunk) {
                    (None, Some(trunk)) => format!("trunks[{trunk}].realm"),
                    _ => path("emergency"),
                };
                faults.warn(path, reason);
            }
            false
        }
    };
    let country = match raw.and_then(|realm| realm.country.as_deref()) {
        None => Country::default_profile(),
        Some(code) => Country::by_code(code).unwrap_or_else(|| {
            let reason = format!("no numbers are known for `{code}`; known: {}", Country::codes());
            faults.error(path("country"), reason);
            Country::default_profile()
        }),
    };
    let prefix = raw.and_then(|realm| realm.outside_prefix.as_deref());
    let prefix = prefix.unwrap_or(OUTSIDE_PREFIX_DEFAULT);
    if prefix.len() > OUTSIDE_PREFIX_MAX || !prefix.bytes().all(|b| b.is_ascii_digit()) {
        let reason = format!("`{prefix}` is not a prefix of at most {OUTSIDE_PREFIX_MAX} digits");
        faults.error(path("outside_prefix"), reason);
    }
    let extra = raw.map(|realm| realm.emergency_numbers.as_slice()).unwrap_or_default();
    if extra.len() > EXTRA_NUMBERS_MAX {
        let reason = format!("{} numbers; at most {EXTRA_NUMBERS_MAX}", extra.len());
        faults.error(path("emergency_numbers"), reason);
    }
    for (at, number) in extra.iter().enumerate() {
        let path = path(&format!("emergency_numbers[{at}]"));
        let digits = number.bytes().all(|b| b.is_ascii_digit());
        if !digits || !(2..=NUMBER_MAX - OUTSIDE_PREFIX_MAX).contains(&number.len()) {
            faults.error(path, format!("`{number}` is not a dial string of 2-8 digits"));
        } else if country.address_test == Some(number) || country.crisis == Some(number) {
            let reason = format!("{number} has another meaning in {}", country.code);
            faults.error(path, reason);
        }
    }
    let class = ClassTable::new(country, extra, prefix);
    prove_direct_dialling(&class, &path("outside_prefix"), faults);
    let realm = Realm {
        id: id.to_owned(),
        kind,
        emergency_allowed,
        country: country.code,
        outside_prefix: prefix.to_owned(),
        dscp: dscp(raw, &path, faults),
    };
    (realm, class)
}

fn dscp(
    raw: Option<&ravelin_contract::config::Realm>,
    path: &dyn Fn(&str) -> String,
    faults: &mut Faults,
) -> Dscp {
    let dscp = raw.and_then(|realm| realm.dscp).unwrap_or_default();
    for (key, value) in [("dscp.signalling", dscp.signalling), ("dscp.media", dscp.media)] {
        if let Some(value) = value {
            faults.in_range(&path(key), value, 0..=DSCP_MAX);
        }
    }
    dscp
}

/// EM-1: every emergency number of the realm, with and without outside prefix, is proven to reach
/// the emergency class through the function that the call path uses.
fn prove_direct_dialling(class: &ClassTable, path: &str, faults: &mut Faults) {
    for number in class.dial_strings() {
        let uri = [b"sip:", number.as_slice(), b"@host"].concat();
        if !matches!(class.classify(&uri), Class::Emergency(_)) {
            let reason = format!("{} is not reached", String::from_utf8_lossy(&number));
            faults.error(path, reason);
        }
    }
}

/// What is used by trunks has to exist on the edge. Judged by what the document names, so that a
/// faulty listener or range is not reported a second time here.
pub(super) fn check_use(config: &Config, realms: &[Realm], faults: &mut Faults) {
    for realm in realms {
        let Some(at) = config.trunks.iter().position(|trunk| trunk.realm == realm.id) else {
            continue;
        };
        let path = format!("trunks[{at}].realm");
        if !config.edge.listeners.iter().any(|listener| listener.realm == realm.id) {
            let reason = format!("realm `{}` has no listener in edge.listeners", realm.id);
            faults.error(path, reason);
        } else if !config.edge.media.iter().any(|range| range.realm == realm.id) {
            let reason = format!(
                "realm `{}` has no ports in edge.media: no call of this trunk could have audio",
                realm.id
            );
            faults.error(path, reason);
        }
    }
}
