//! 911 dialled from every site and realm, through the classifier and the chains of the snapshot,
//! without a call.

use std::net::IpAddr;

use ravelin_policy::{Mode, RealmId, RealmKind, SiteId, Snapshot, explain};

use super::{Check, Verdict, site_trunks};
use crate::e911::Site;

/// Sites that are dialled from, each in every realm and spelling.
pub(super) const SITES_MAX: usize = 10_000;
/// Smaller sites that are stepped over in search of an address of a larger one.
const STEPS_MAX: usize = 64;

/// What must reach the PSAP from a telephone: by law, and as older habits dial it.
const DIRECT: [&str; 3] = ["sip:911@sbc", "tel:911", "urn:service:sos"];
const LEGACY: [&str; 2] = ["sip:9911@sbc", "sip:9-911@sbc"];

pub(super) fn checks(snapshot: &Snapshot, sites: &[Site]) -> Vec<Check> {
    let (direct, prefix) = dialling(snapshot);
    vec![direct, prefix, routing(snapshot, sites)]
}

/// Realms in which people may dial 911.
fn realms(snapshot: &Snapshot) -> impl Iterator<Item = (RealmId, &ravelin_policy::Realm)> {
    (0_u16..).map(RealmId).zip(&snapshot.realms).filter(|(_, realm)| realm.emergency_allowed)
}

fn dialling(snapshot: &Snapshot) -> (Check, Check) {
    let (mut deaf, mut legacy, mut count) = (Vec::new(), Vec::new(), 0_usize);
    for (id, realm) in realms(snapshot) {
        count += 1;
        let hears = |to: &str| {
            matches!(snapshot.classify(id, to.as_bytes()), ravelin_policy::Class::Emergency(_))
        };
        let unheard = |list: &[&str]| -> Vec<String> {
            let unheard = list.iter().filter(|to| !hears(to));
            unheard.map(|to| format!("realm {}: {to} is an ordinary call", realm.id)).collect()
        };
        deaf.extend(unheard(&DIRECT));
        legacy.extend(unheard(&LEGACY));
    }
    let refusing: Vec<String> = snapshot
        .realms
        .iter()
        .filter(|realm| !realm.emergency_allowed && realm.kind == RealmKind::Access)
        .map(|realm| format!("access realm {} refuses emergency calls", realm.id))
        .collect();
    let direct = if count == 0 || !deaf.is_empty() || !refusing.is_empty() {
        Check::new("direct_911", Verdict::Fail, "911 is not an emergency call everywhere")
            .todo("allow emergency calls in each access realm, and set its country")
            .details([deaf, refusing].concat())
    } else {
        let text =
            format!("911, tel:911 and urn:service:sos are emergency calls in {count} realms");
        Check::new("direct_911", Verdict::Pass, text)
    };
    let prefix = if legacy.is_empty() {
        Check::new("no_prefix", Verdict::Pass, "no prefix is needed; 9911 and 9-911 work as well")
    } else {
        Check::new("no_prefix", Verdict::Warn, "no prefix is needed; 9911 or 9-911 is not heard")
            .todo("set outside_prefix of the realm if people are used to dialling 9 first")
            .details(legacy)
    };
    (direct, prefix)
}

/// Dials from an address of each site, and from an address that belongs to none.
fn routing(snapshot: &Snapshot, sites: &[Site]) -> Check {
    let (mut lost, mut odd, mut dialled) = (Vec::new(), Vec::new(), 0_usize);
    let chosen = (0_u32..).map(SiteId).zip(sites).take(SITES_MAX);
    for (index, site) in chosen {
        let name = format!("site {} ({})", site.id, site.site_name);
        let mut found = false;
        for (id, realm) in realms(snapshot) {
            if !site.realm.is_empty() && site.realm != realm.id {
                continue;
            }
            let Some(source) = address_of(snapshot, id, index, site) else { continue };
            found = true;
            for to in DIRECT.iter().chain(&LEGACY) {
                dialled += 1;
                let answer = explain(snapshot, &realm.id, source, to, None);
                if answer.class != "emergency" {
                    // Told by the checks of dialling.
                    continue;
                }
                if answer.site.as_deref() != Some(site.site_name.as_str()) {
                    let at = answer.site.unwrap_or_else(|| "no site".to_owned());
                    lost.push(format!("{name}: {to} from {source} is placed at {at}"));
                } else if answer.trunks.is_empty() && snapshot.mode == Mode::Production {
                    lost.push(format!("{name}: {to} from {source} has no trunk"));
                }
            }
        }
        if !found {
            odd.push(format!("{name}: no address of its own, smaller sites cover its range"));
        } else if site_trunks(snapshot, Some(index)).is_empty() {
            odd.push(format!("{name}: no trunk of its own, the global ones take its calls"));
        }
    }
    if sites.len() > SITES_MAX {
        odd.push(format!("{} more sites were not dialled from", sites.len() - SITES_MAX));
    }
    let globally = snapshot.emergency_chain(None).next().is_some();
    if !globally {
        lost.push("a caller who belongs to no site has no trunk".to_owned());
    }
    let text = format!("{dialled} calls dry-run from {} sites", sites.len().min(SITES_MAX));
    if !lost.is_empty() {
        return Check::new("routing", Verdict::Fail, format!("{text}; some reach no PSAP"))
            .todo("add emergency trunks to these sites, and features.karis_law.emergency_trunk_id")
            .details([lost, odd].concat());
    }
    if !odd.is_empty() {
        return Check::new("routing", Verdict::Warn, format!("{text}; each has a trunk"))
            .todo("see the details")
            .details(odd);
    }
    Check::new("routing", Verdict::Pass, format!("{text}; each has a trunk of its site first"))
}

/// An address of the site's range that belongs to no smaller site inside it.
fn address_of(snapshot: &Snapshot, realm: RealmId, index: SiteId, site: &Site) -> Option<IpAddr> {
    let mut at: IpAddr = site.ip_range_start.parse().ok()?;
    let end: IpAddr = site.ip_range_end.parse().ok()?;
    for _ in 0..STEPS_MAX {
        let found = snapshot.site(realm, at)?;
        if found.site == index {
            return Some(at);
        }
        at = next_after(snapshot, realm, found.site, at, end)?;
    }
    None
}

/// The first address behind the stretch of `inner` that begins at `at`: doubling steps, then
/// halving, since only membership can be asked for.
fn next_after(
    snapshot: &Snapshot,
    realm: RealmId,
    inner: SiteId,
    at: IpAddr,
    end: IpAddr,
) -> Option<IpAddr> {
    let (first, last, is_v4) = match (at, end) {
        (IpAddr::V4(at), IpAddr::V4(end)) => {
            (u128::from(at.to_bits()), u128::from(end.to_bits()), true)
        }
        (IpAddr::V6(at), IpAddr::V6(end)) => (at.to_bits(), end.to_bits(), false),
        _ => return None,
    };
    let address = |bits: u128| -> Option<IpAddr> {
        Some(if is_v4 {
            IpAddr::V4(u32::try_from(bits).ok()?.into())
        } else {
            IpAddr::V6(bits.into())
        })
    };
    let inside = |bits: u128| {
        address(bits)
            .and_then(|address| snapshot.site(realm, address))
            .is_some_and(|found| found.site == inner)
    };
    let mut step = 1_u128;
    let mut low = first;
    let mut high = loop {
        let high = first.checked_add(step).filter(|high| *high <= last).unwrap_or(last);
        if !inside(high) || high == last {
            break high;
        }
        low = high;
        step = step.checked_mul(2)?;
    };
    if inside(high) {
        return None;
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if inside(middle) { low = middle } else { high = middle }
    }
    address(high)
}
