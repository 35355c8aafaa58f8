//! Places people call 911 from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A site. The keys are the columns of `multi_site_e911_configs` of the source documents, and the
/// short names of their examples (`name`, `ip_range`, `psap`, `address`, `zip_code`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = short_names)]
pub struct Site {
    /// Stable number of the site, 1-4294967295, as the API uses it. Absent: the lowest free number,
    /// in the order of the document. Also accepted as `id`.
    #[serde(default, alias = "id", skip_serializing_if = "Option::is_none")]
    pub site_id: Option<u32>,
    /// Unique name. Also accepted as `name`.
    #[serde(alias = "name")]
    pub site_name: String,
    /// Ingress realm that the addresses belong to: the same private range may exist behind several
    /// (M7). Absent: every access realm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
    /// CIDR prefix (`192.168.10.0/24`), or `START-END`. In place of start and end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<String>,
    /// First address, v4 or v6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range_start: Option<String>,
    /// Last address, included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range_end: Option<String>,
    /// True for VPN and shared pools: the address says nothing about the place, so a match gives
    /// the trunks of this site but no location (EM-26).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_a_place: bool,
    /// The one emergency trunk, where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emergency_trunk: Option<String>,
    /// Emergency trunks, lowest priority first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emergency_trunks: Vec<SiteTrunk>,
    /// Number of the PSAP: an emergency number of the realm or a number of 7-15 digits. Also
    /// accepted as `psap`. Default: the first emergency number of the realm, `911` in the US.
    #[serde(default, alias = "psap", skip_serializing_if = "Option::is_none")]
    pub psap_number: Option<String>,
    /// Emergency Location Identification Number, E.164 with `+`, unique over all sites: the
    /// callback number that the PSAP sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elin: Option<String>,
    /// House number and street. Also accepted as `address`.
    #[serde(default, alias = "address", skip_serializing_if = "Option::is_none")]
    pub street_address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// State or province, for example `MI`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// ZIP code. Also accepted as `zip_code`.
    #[serde(default, alias = "zip_code", skip_serializing_if = "Option::is_none")]
    pub postal_code: Option<String>,
    /// ISO 3166 two-letter code; `USA` is read as `US`. Default `US`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub building: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
}

/// An emergency trunk of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteTrunk {
    /// Id of a trunk.
    pub id: String,
    /// Lower is tried first. Default 1; equal priorities in the order of the list.
    #[serde(default = "one")]
    pub priority: u16,
}

fn one() -> u16 {
    1
}

/// An extension whose site is known from elsewhere than its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtensionSite {
    /// The extension, 1-32 characters, as it appears in the user part of the caller's URI.
    pub extension: String,
    /// Number of the site. Either this or `site`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site_id: Option<u32>,
    /// Name of the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// True: wins over the address match (EM-25 b). False: only where no address matches (EM-25 d).
    #[serde(default = "yes")]
    pub pinned: bool,
}

fn yes() -> bool {
    true
}

/// Adds the short names to the generated schema, which knows nothing of serde's aliases.
fn short_names(schema: &mut schemars::Schema) {
    const ALIASES: [(&str, &str); 5] = [
        ("site_id", "id"),
        ("site_name", "name"),
        ("psap_number", "psap"),
        ("street_address", "address"),
        ("postal_code", "zip_code"),
    ];
    if let Some(properties) = schema.get_mut("properties").and_then(|p| p.as_object_mut()) {
        for (long, short) in ALIASES {
            if let Some(property) = properties.get(long).cloned() {
                properties.insert(short.to_owned(), property);
            }
        }
    }
    // `site_name` or `name`: serde insists on one of them.
    schema.remove("required");
}
