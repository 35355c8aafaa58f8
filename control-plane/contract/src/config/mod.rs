//! The raw config document: one YAML document, exactly as a user writes it. No meaning is checked
//! here beyond the shape (types, unknown keys); `ravelin-policy` turns it into what runs and
//! reports every fault with its path and line.
//!
//! Addresses, durations, sizes and number patterns stay the text that the user wrote, so that a
//! document that is read, edited and written again keeps its spelling, and so that one pass over
//! it can report all faults instead of the first one.

mod control;
mod edge;
mod emergency;
mod features;
mod site;
mod text;
mod trunk;
mod trunk_media;

pub use control::{Control, ControlLink, TlsFiles};
pub use edge::{Deployment, Edge, EdgeLimits, Listener, Media, MediaDriver, Mode, Transport};
pub use emergency::{AwsSms, Emergency, Sms, SmsProvider, TwilioSms};
pub use features::{
    Building, ContactMethod, E911, EmergencyContact, EmergencyNotification, Features, Floor,
    FloorList, KarisLaw, NotificationContact, NotificationMethod, SiteAddress, Soc2, StirShaken,
};
pub use site::{ExtensionSite, Site, SiteTrunk};
pub use text::{DurationText, SecretSource, SecretText, SizeText};
pub use trunk::{
    Allow, Dscp, Identity, NumberPlan, OnFailure, Options, Realm, RealmKind, Role, Route, Target,
    Trunk, TrunkLimits, Trust,
};
pub use trunk_media::{Ice, MediaAction, Nat, Srtp, SrtpSuite, TrunkMedia};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The whole document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of this edge node, 1-63 characters of `a-z A-Z 0-9 - _ .`. Appears in the audit chain,
    /// CDRs and metrics.
    pub node: String,
    /// Production or test. Needed as soon as the document has emergency routing (E10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Deployment>,
    /// What the data plane binds and how much of it.
    pub edge: Edge,
    /// Settings of realms. Optional: a realm exists as soon as a listener, media range, trunk or
    /// site names it, and then has the defaults described at [`Realm`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub realms: Vec<Realm>,
    /// Whom we exchange calls with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trunks: Vec<Trunk>,
    /// Where ordinary calls go. The first route that matches wins. Emergency calls never pass here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Settings of the compliance systems.
    #[serde(default, skip_serializing_if = "Features::is_default")]
    pub features: Features,
    /// Settings of emergency calling beyond `features`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emergency: Option<Emergency>,
    /// Places people call 911 from. At most 1,000,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<Site>,
    /// Extensions whose site is known from elsewhere than their address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extension_sites: Vec<ExtensionSite>,
    /// The control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
}

/// JSON Schema (draft 2020-12) of the document, as checked in at `docs/config.schema.json`.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}

#[cfg(test)]
mod tests {
    /// `RAVELIN_BLESS=1` writes the file in place of comparing it.
    #[test]
    fn checked_in_schema_is_the_one_of_the_types() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.schema.json");
        let mut generated = serde_json::to_string_pretty(&super::json_schema()).expect("is JSON");
        generated.push('\n');
        if std::env::var_os("RAVELIN_BLESS").is_some() {
            std::fs::write(path, &generated).expect("docs folder is writable");
        }
        let checked_in = std::fs::read_to_string(path).expect("docs/config.schema.json exists");
        assert!(
            checked_in == generated,
            "docs/config.schema.json is not what the types say; run this test with RAVELIN_BLESS=1"
        );
    }

    #[test]
    fn schema_knows_short_names_and_refuses_other_keys() {
        let schema = super::json_schema();
        let site = schema.pointer("/$defs/Site").expect("Site is defined");
        for key in ["site_name", "name", "psap", "psap_number", "address", "zip_code", "ip_range"] {
            assert!(site["properties"].get(key).is_some(), "{key}");
        }
        assert_eq!(site["additionalProperties"], false);
        assert_eq!(schema["additionalProperties"], false);
    }
}
