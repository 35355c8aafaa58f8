//! Multi-site E911: the sites of the config document under the names of the source documents
//! (compliance-systems 3). The document is the truth; what stands here is its outside.

use std::net::IpAddr;

use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};
use ravelin_contract::config;
use ravelin_policy::Document;
use serde::{Deserialize, Serialize};

/// A trunk of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteTrunk {
    pub id: String,
    /// Lower is tried first.
    #[serde(default = "first")]
    pub priority: u16,
}

fn first() -> u16 {
    1
}

/// Country of a site that names none (the source documents have `USA`; ISO 3166 has `US`).
const DEFAULT_COUNTRY: &str = "US";

/// One site as it stands in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    pub id: u32,
    pub site_name: String,
    /// Empty: every access realm.
    pub realm: String,
    pub ip_range_start: String,
    pub ip_range_end: String,
    pub emergency_trunk: Option<String>,
    pub emergency_trunks: Vec<SiteTrunk>,
    pub psap_number: Option<String>,
    pub elin: Option<String>,
    pub street_address: Option<String>,
    pub city: Option<String>,
    pub state: Option<String>,
    pub postal_code: Option<String>,
    pub country: Option<String>,
    pub building: Option<String>,
    pub floor: Option<String>,
    pub room: Option<String>,
    pub not_a_place: bool,
}

/// The body of `POST /api/e911/multi-site/config`: the columns of the source documents, and the
/// short names of their examples (`ip_range`, `psap`, `address`, `zip_code`, `name`).
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteBody {
    #[serde(alias = "name")]
    pub site_name: Option<String>,
    /// Ingress realm; absent: every access realm.
    pub realm: Option<String>,
    pub ip_range_start: Option<String>,
    pub ip_range_end: Option<String>,
    /// `192.168.10.0/24`, in place of start and end.
    pub ip_range: Option<String>,
    pub emergency_trunk: Option<String>,
    #[serde(default)]
    pub emergency_trunks: Vec<SiteTrunk>,
    #[serde(alias = "psap")]
    pub psap_number: Option<String>,
    pub elin: Option<String>,
    #[serde(alias = "address")]
    pub street_address: Option<String>,
    pub city: Option<String>,
    pub state: Option<String>,
    #[serde(alias = "zip_code")]
    pub postal_code: Option<String>,
    pub country: Option<String>,
    pub building: Option<String>,
    pub floor: Option<String>,
    pub room: Option<String>,
    #[serde(default)]
    pub not_a_place: bool,
}

impl SiteBody {
    /// The site of the config document. A trunk given alone and in the list stands once.
    #[must_use]
    pub fn into_config(self, site_id: u32) -> config::Site {
        let trunks = self.emergency_trunks;
        config::Site {
            site_id: Some(site_id),
            site_name: self.site_name.unwrap_or_default(),
            realm: self.realm.filter(|realm| !realm.is_empty()),
            ip_range: self.ip_range,
            ip_range_start: self.ip_range_start,
            ip_range_end: self.ip_range_end,
            not_a_place: self.not_a_place,
            emergency_trunk: self
                .emergency_trunk
                .filter(|id| !trunks.iter().any(|trunk| trunk.id == *id)),
            emergency_trunks: trunks
                .into_iter()
                .map(|trunk| config::SiteTrunk { id: trunk.id, priority: trunk.priority })
                .collect(),
            psap_number: self.psap_number,
            elin: self.elin,
            street_address: self.street_address,
            city: self.city,
            state: self.state,
            postal_code: self.postal_code,
            country: self.country,
            building: self.building,
            floor: self.floor,
            room: self.room,
        }
    }
}

/// The sites of a document. Ranges are written as first and last address, whichever form the
/// document has.
#[must_use]
pub fn sites(document: &Document) -> Vec<Site> {
    document.config.sites.iter().filter_map(site).collect()
}

/// `None` for a site without a number, which a document that was read cannot have.
fn site(site: &config::Site) -> Option<Site> {
    let (start, end) = match (&site.ip_range_start, &site.ip_range_end, &site.ip_range) {
        (Some(start), Some(end), _) => (start.clone(), end.clone()),
        (_, _, Some(range)) => ends(range),
        _ => (String::new(), String::new()),
    };
    let (start, end) = (canonical(start), canonical(end));
    let mut trunks: Vec<SiteTrunk> = site
        .emergency_trunks
        .iter()
        .map(|trunk| SiteTrunk { id: trunk.id.clone(), priority: trunk.priority })
        .collect();
    trunks.sort_by_key(|trunk| trunk.priority);
    if let Some(alone) = &site.emergency_trunk
        && !trunks.iter().any(|trunk| trunk.id == *alone)
    {
        trunks.insert(0, SiteTrunk { id: alone.clone(), priority: 1 });
    }
    Some(Site {
        id: site.site_id?,
        site_name: site.site_name.clone(),
        realm: site.realm.clone().unwrap_or_default(),
        ip_range_start: start,
        ip_range_end: end,
        emergency_trunk: trunks.first().map(|trunk| trunk.id.clone()),
        emergency_trunks: trunks,
        psap_number: site.psap_number.clone(),
        elin: site.elin.clone(),
        street_address: site.street_address.clone(),
        city: site.city.clone(),
        state: site.state.clone(),
        postal_code: site.postal_code.clone(),
        country: Some(site.country.clone().unwrap_or_else(|| DEFAULT_COUNTRY.to_owned())),
        building: site.building.clone(),
        floor: site.floor.clone(),
        room: site.room.clone(),
        not_a_place: site.not_a_place,
    })
}

/// An IPv4 address mapped into IPv6 is the IPv4 address: so the lookup table has it (M5).
fn canonical(text: String) -> String {
    match text.trim().parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => text,
    }
}

/// First and last address of a prefix, or of `START-END`.
fn ends(range: &str) -> (String, String) {
    if let Ok(prefix) = range.trim().parse::<IpNet>() {
        return (prefix.network().to_string(), last(&prefix).to_string());
    }
    match range.split_once('-') {
        Some((start, end)) => (start.trim().to_owned(), end.trim().to_owned()),
        None => (range.trim().to_owned(), range.trim().to_owned()),
    }
}

fn last(prefix: &IpNet) -> IpAddr {
    prefix.broadcast()
}

/// The prefixes that cover a range exactly (M5: `.1`-`.254` is fourteen of them); empty when the
/// ends are not addresses of one family.
#[must_use]
pub fn prefixes(start: &str, end: &str) -> Vec<String> {
    let subnets = match (start.parse(), end.parse()) {
        (Ok(IpAddr::V4(start)), Ok(IpAddr::V4(end))) => {
            IpSubnets::from(Ipv4Subnets::new(start, end, 0))
        }
        (Ok(IpAddr::V6(start)), Ok(IpAddr::V6(end))) => {
            IpSubnets::from(Ipv6Subnets::new(start, end, 0))
        }
        _ => return Vec::new(),
    };
    subnets.map(|prefix| prefix.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_becomes_the_prefixes_that_cover_it_exactly() {
        assert_eq!(prefixes("192.168.10.1", "192.168.10.254").len(), 14);
        assert_eq!(prefixes("10.0.0.0", "10.255.255.255"), ["10.0.0.0/8"]);
        assert_eq!(prefixes("2001:db8::", "2001:db8::ffff"), ["2001:db8::/112"]);
        assert_eq!(prefixes("10.0.0.7", "10.0.0.7"), ["10.0.0.7/32"]);
        assert!(prefixes("10.0.0.1", "::1").is_empty());
        assert!(prefixes("zz", "1").is_empty());
    }

    #[test]
    fn every_form_of_a_range_has_two_ends() {
        let both = |start: &str, end: &str| (start.to_owned(), end.to_owned());
        assert_eq!(ends("192.168.10.0/24"), both("192.168.10.0", "192.168.10.255"));
        assert_eq!(ends("192.168.10.1 - 192.168.10.9"), both("192.168.10.1", "192.168.10.9"));
        assert_eq!(ends("10.0.0.7"), both("10.0.0.7", "10.0.0.7"));
    }
}
