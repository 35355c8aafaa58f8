//! Sites, their ranges and the extensions assigned to them.

use std::collections::{BTreeSet, HashMap, HashSet};

use ravelin_contract::config::{self, Config, RealmKind};

use super::{ExtensionEntry, Faults, Names, edge, text};
use crate::{
    Address, Realm, RealmId, Site, SiteId,
    class::ClassTable,
    lpm::{AddressRange, AddressTable, RANGES_MAX},
    numbers::{Pattern, is_e164},
};

/// Sites of one document.
pub(crate) const SITES_MAX: usize = 1_000_000;
const EXTENSIONS_MAX: usize = 1_000_000;
const EXTENSION_LENGTH_MAX: usize = 32;
const FIELD_LENGTH_MAX: usize = 256;

const _: () = assert!(SITES_MAX <= RANGES_MAX);

/// Gives a number to each site that has none: the lowest free ones, in order. The same document
/// gets the same numbers on every node.
pub(crate) fn number_sites(sites: &[config::Site]) -> Vec<u32> {
    let taken: BTreeSet<u32> = sites.iter().filter_map(|site| site.site_id).collect();
    let mut free = (1_u32..).filter(|id| !taken.contains(id));
    sites.iter().map(|site| site.site_id.or_else(|| free.next()).unwrap_or(0)).collect()
}

pub(super) fn by_name(sites: &[Site]) -> HashMap<&str, SiteId> {
    (0_u32..).zip(sites).map(|(index, site)| (site.name.as_str(), SiteId(index))).collect()
}

pub(super) fn build(
    config: &Config,
    realms: &[Realm],
    names: &Names<'_>,
    classes: &[ClassTable],
    faults: &mut Faults,
) -> Vec<Site> {
    if config.sites.len() > SITES_MAX {
        faults.error("sites", format!("{} sites; at most {SITES_MAX}", config.sites.len()));
        return Vec::new();
    }
    let mut ids: HashMap<u32, usize> = HashMap::new();
    let mut site_names: HashMap<&str, usize> = HashMap::new();
    let mut elins: HashMap<&str, usize> = HashMap::new();
    let mut sites = Vec::with_capacity(config.sites.len());
    let name_of = |index: usize| config.sites.get(index).map_or("", |s| s.site_name.as_str());
    for (index, (raw, site_id)) in config.sites.iter().zip(number_sites(&config.sites)).enumerate()
    {
        let at = |key: &str| format!("sites[{index}].{key}");
        if raw.site_id == Some(0) {
            faults.error(at("site_id"), "numbers start at 1");
        }
        if let Some(other) = ids.insert(site_id, index) {
            let reason = format!("{site_id} is already the number of `{}`", name_of(other));
            faults.conflict(at("site_id"), reason);
        }
        if raw.site_name.trim().is_empty() {
            faults.error(at("site_name"), "is empty");
        }
        if let Some(other) = site_names.insert(&raw.site_name, index) {
            let reason = format!("`{}` is already the name of sites[{other}]", raw.site_name);
            faults.conflict(at("site_name"), reason);
        }
        if let Some(elin) = &raw.elin {
            if !is_e164(elin) {
                let reason = format!("`{elin}` is not an E.164 number such as +13135551000");
                faults.error(at("elin"), reason);
            } else if let Some(other) = elins.insert(elin, index) {
                let reason = format!("{elin} is already the ELIN of `{}`", name_of(other));
                faults.conflict(at("elin"), reason);
            }
        }
        check_text(index, raw, faults);
        sites.push(Site {
            site_id,
            name: raw.site_name.clone(),
            psap: psap(&at("psap_number"), raw, realms, names, classes, faults),
            elin: raw.elin.clone(),
            is_a_place: !raw.not_a_place,
            address: address(&at("country"), raw, faults),
        });
        warn_if_not_dispatchable(index, raw, location_required(config), faults);
    }
    sites
}

/// These texts end up in headers, PIDF-LO, notifications and records.
fn check_text(index: usize, raw: &config::Site, faults: &mut Faults) {
    let fields = [
        ("site_name", Some(&raw.site_name)),
        ("street_address", raw.street_address.as_ref()),
        ("city", raw.city.as_ref()),
        ("state", raw.state.as_ref()),
        ("postal_code", raw.postal_code.as_ref()),
        ("building", raw.building.as_ref()),
        ("floor", raw.floor.as_ref()),
        ("room", raw.room.as_ref()),
    ];
    for (key, text) in fields {
        let Some(text) = text else { continue };
        if text.len() > FIELD_LENGTH_MAX {
            let reason = format!("{} octets; at most {FIELD_LENGTH_MAX}", text.len());
            faults.error(format!("sites[{index}].{key}"), reason);
        } else if text.chars().any(char::is_control) {
            faults.error(format!("sites[{index}].{key}"), "contains control characters");
        }
    }
}

/// M11: what goes into the Request-URI has to be dialable, and must not be a test number.
fn psap(
    path: &str,
    raw: &config::Site,
    realms: &[Realm],
    names: &Names<'_>,
    classes: &[ClassTable],
    faults: &mut Faults,
) -> String {
    let realm = raw.realm.as_deref().and_then(|id| names.realms.get(id)).copied();
    let class = |realm: RealmId| classes.get(usize::from(realm.0));
    let Some(text) = raw.psap_number.as_deref() else {
        // The first number of the country where the site is.
        let first = realm.or_else(|| access_realms(realms).next()).and_then(class);
        let first = first.and_then(|class| class.numbers().next());
        return first.map_or_else(String::new, |n| String::from_utf8_lossy(n).into_owned());
    };
    let digits = text.strip_prefix('+').unwrap_or(text);
    let is_number = (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let is_short_code = |realm: RealmId| {
        class(realm).is_some_and(|class| class.numbers().any(|n| n == text.as_bytes()))
    };
    let short = match realm {
        Some(realm) => is_short_code(realm),
        None => access_realms(realms).any(is_short_code),
    };
    if !is_number && !short {
        let reason = format!(
            "`{text}` is neither an emergency number of the realm nor a number of 7-15 digits"
        );
        faults.error(path, reason);
    }
    text.to_owned()
}

fn address(path: &str, raw: &config::Site, faults: &mut Faults) -> Address {
    let country = match raw.country.as_deref() {
        None => "US".to_owned(),
        Some(text) => faults.check(path, country(text)).unwrap_or_default(),
    };
    let text = |field: &Option<String>| {
        field.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    Address {
        street: text(&raw.street_address),
        building: text(&raw.building),
        floor: text(&raw.floor),
        room: text(&raw.room),
        city: text(&raw.city),
        state: text(&raw.state),
        postal_code: text(&raw.postal_code),
        country,
    }
}

/// ISO 3166 code; the source documents write `USA` (M13).
pub(super) fn country(text: &str) -> Result<String, String> {
    let upper = text.trim().to_ascii_uppercase();
    if upper == "USA" {
        return Ok("US".to_owned());
    }
    if upper.len() == 2 && upper.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Ok(upper);
    }
    Err(format!("`{text}` is not a two-letter country code (ISO 3166), for example US"))
}

/// `karis_law.require_location`: whether a site without a location is a mistake.
pub(super) fn location_required(config: &config::Config) -> bool {
    config.features.karis_law.as_ref().is_none_or(|law| law.require_location)
}

fn warn_if_not_dispatchable(index: usize, raw: &config::Site, required: bool, faults: &mut Faults) {
    if raw.not_a_place {
        return;
    }
    let missing: Vec<&str> = [
        ("street_address", raw.street_address.is_none()),
        ("city", raw.city.is_none()),
        ("state", raw.state.is_none()),
    ]
    .into_iter()
    .filter_map(|(key, missing)| missing.then_some(key))
    .collect();
    if required && !missing.is_empty() {
        let reason = format!(
            "site `{}` has no dispatchable location: {} missing",
            raw.site_name,
            missing.join(", ")
        );
        faults.warn(format!("sites[{index}].street_address"), reason);
    }
    if raw.elin.is_none() {
        let reason = format!("site `{}` has no callback number (ELIN)", raw.site_name);
        faults.warn(format!("sites[{index}].elin"), reason);
    }
}

fn access_realms(realms: &[Realm]) -> impl Iterator<Item = RealmId> + '_ {
    (0_u16..)
        .map(RealmId)
        .zip(realms)
        .filter(|(_, realm)| realm.kind == RealmKind::Access)
        .map(|(id, _)| id)
}

/// The range of a site, in either spelling, with the key that holds it.
fn range(raw: &config::Site) -> Result<AddressRange, (&'static str, String)> {
    match (&raw.ip_range, &raw.ip_range_start, &raw.ip_range_end) {
        (Some(range), None, None) => text::site_range(range).map_err(|r| ("ip_range", r)),
        (None, Some(start), Some(end)) => {
            let start = text::site_address(start).map_err(|r| ("ip_range_start", r))?;
            let end = text::site_address(end).map_err(|r| ("ip_range_end", r))?;
            AddressRange::new(start, end)
                .map_err(|reason| ("ip_range_start", format!("{start}-{end}: {reason}")))
        }
        (Some(_), ..) => {
            Err(("ip_range", "give either ip_range or ip_range_start and ip_range_end".to_owned()))
        }
        (None, Some(_), None) => Err(("ip_range_end", "missing".to_owned())),
        (None, None, Some(_)) => Err(("ip_range_start", "missing".to_owned())),
        (None, None, None) => {
            Err(("ip_range_start", "missing: a site needs a range of addresses".to_owned()))
        }
    }
}

/// One table of addresses for each realm (M7).
pub(super) fn tables(
    config: &Config,
    realms: &[Realm],
    names: &Names<'_>,
    faults: &mut Faults,
) -> Vec<AddressTable> {
    let access: Vec<RealmId> = access_realms(realms).collect();
    let mut ranges: Vec<Vec<(AddressRange, u32)>> = realms.iter().map(|_| Vec::new()).collect();
    for (index, raw) in (0_u32..).zip(&config.sites).take(SITES_MAX) {
        let range = match range(raw) {
            Ok(range) => range,
            Err((key, reason)) => {
                faults.error(format!("sites[{index}].{key}"), reason);
                continue;
            }
        };
        let stated = raw
            .realm
            .as_deref()
            .map(|id| edge::known_realm(&format!("sites[{index}].realm"), id, names, faults));
        let places = match &stated {
            Some(realm) => realm.as_slice(),
            None => &access,
        };
        if stated.is_none() && access.is_empty() {
            let reason = "no access realm that its addresses could belong to; name a realm";
            faults.error(format!("sites[{index}].site_name"), reason);
        }
        for realm in places {
            if let Some(ranges) = ranges.get_mut(usize::from(realm.0)) {
                ranges.push((range, index));
            }
        }
    }
    let name_of =
        |index: u32| config.sites.get(index as usize).map_or("", |site| site.site_name.as_str());
    let build = |ranges: &Vec<(AddressRange, u32)>| match AddressTable::build(ranges) {
        Ok(table) => table,
        Err(overlaps) => {
            for overlap in overlaps {
                let (Some((first, a)), Some((_, b))) =
                    (ranges.get(overlap.first), ranges.get(overlap.second))
                else {
                    continue;
                };
                let raw = config.sites.get(*b as usize);
                let key = match raw.and_then(|site| site.ip_range.as_ref()) {
                    Some(_) => "ip_range",
                    None => "ip_range_start",
                };
                let reason = format!(
                    "overlaps site `{}` ({}), and neither range is the smaller one",
                    name_of(*a),
                    show(*first)
                );
                faults.conflict(format!("sites[{b}].{key}"), reason);
            }
            AddressTable::empty()
        }
    };
    ranges.iter().map(build).collect()
}

fn show(range: AddressRange) -> String {
    match range.prefixes().as_slice() {
        [one] => one.to_string(),
        [first, .., last] => format!("{}-{}", first.network(), last.broadcast()),
        [] => String::new(),
    }
}

pub(super) fn extensions(
    config: &Config,
    sites: &[Site],
    by_name: &HashMap<&str, SiteId>,
    classes: &[ClassTable],
    faults: &mut Faults,
) -> Vec<ExtensionEntry> {
    if config.extension_sites.len() > EXTENSIONS_MAX {
        let reason =
            format!("{} extensions; at most {EXTENSIONS_MAX}", config.extension_sites.len());
        faults.error("extension_sites", reason);
        return Vec::new();
    }
    let by_id: HashMap<u32, SiteId> =
        (0_u32..).zip(sites).map(|(index, site)| (site.site_id, SiteId(index))).collect();
    let mut seen = HashSet::new();
    let mut entries = Vec::with_capacity(config.extension_sites.len());
    for (index, raw) in config.extension_sites.iter().enumerate() {
        let at = |key: &str| format!("extension_sites[{index}].{key}");
        if let Err(reason) = check_extension(&raw.extension) {
            faults.error(at("extension"), reason);
        } else if let Some(reason) = conflict_with_emergency(&raw.extension, classes) {
            faults.error(at("extension"), reason);
        }
        if !seen.insert(raw.extension.as_str()) {
            let reason = format!("extension `{}` is listed twice", raw.extension);
            faults.conflict(at("extension"), reason);
        }
        let site = match (raw.site_id, raw.site.as_deref()) {
            (Some(id), None) => by_id
                .get(&id)
                .copied()
                .ok_or_else(|| ("site_id", format!("no site has the number {id}"))),
            (None, Some(name)) => {
                by_name.get(name).copied().ok_or_else(|| ("site", format!("unknown site `{name}`")))
            }
            (Some(_), Some(_)) | (None, None) => {
                Err(("site_id", "give either site_id or site".to_owned()))
            }
        };
        match site {
            Ok(site) => {
                let extension = raw.extension.as_bytes().into();
                entries.push(ExtensionEntry { extension, site, pinned: raw.pinned });
            }
            Err((key, reason)) => faults.error(at(key), reason),
        }
    }
    entries.sort_by(|a, b| a.extension.cmp(&b.extension));
    entries
}

/// An extension is a user part that needs no escaping.
fn check_extension(extension: &str) -> Result<(), String> {
    let valid =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+' | b'*' | b'#');
    if extension.is_empty()
        || extension.len() > EXTENSION_LENGTH_MAX
        || !extension.bytes().all(valid)
    {
        return Err(format!(
            "`{extension}` is not an extension: 1-{EXTENSION_LENGTH_MAX} of a-z A-Z 0-9 - _ . + * #"
        ));
    }
    Ok(())
}

/// EM-14: an extension that is an emergency number, or that one starts with.
fn conflict_with_emergency(extension: &str, classes: &[ClassTable]) -> Option<String> {
    let Ok(pattern @ Pattern::Number { .. }) = Pattern::parse(&format!("{extension}*")) else {
        return None;
    };
    let number = pattern.collides_with(classes.iter().flat_map(|class| class.dial_strings()))?;
    Some(if number == extension {
        format!("extension {extension} is an emergency number")
    } else {
        format!("the emergency number {number} starts with extension {extension}")
    })
}
