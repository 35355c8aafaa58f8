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
    Allow, Identity, NumberPlan, OnFailure, Options, Realm, RealmKind, Role, Route, Target, Trunk,
    TrunkLimits, Trust,
};

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
