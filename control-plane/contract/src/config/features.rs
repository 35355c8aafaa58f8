//! Settings of the compliance systems. The keys are those of the source documents as they stand
//! there; what is not in them is marked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DurationText, SecretText};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Features {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub karis_law: Option<KarisLaw>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e911: Option<E911>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stir_shaken: Option<StirShaken>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emergency_notification: Option<EmergencyNotification>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soc2: Option<Soc2>,
}

impl Features {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Kari's Law: direct dialling, notification, location. Detection and routing of emergency calls
/// cannot be switched off here in production mode (K9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KarisLaw {
    /// Default true. `false` is refused in production mode.
    pub enabled: bool,
    /// Tell the contacts about each emergency call. Default true.
    pub auto_notify: bool,
    /// Report callers without a dispatchable location. Never blocks a call. Default true.
    pub require_location: bool,
    /// Trunk for emergency calls when those of the site failed or there is no site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emergency_trunk_id: Option<String>,
    /// Whom to tell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notification_contacts: Vec<NotificationContact>,
}

impl Default for KarisLaw {
    fn default() -> Self {
        Self {
            enabled: true,
            auto_notify: true,
            require_location: true,
            emergency_trunk_id: None,
            notification_contacts: Vec::new(),
        }
    }
}

/// One contact of [`KarisLaw`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotificationContact {
    /// How this contact is told; says which of the other keys is needed.
    #[serde(rename = "type")]
    pub method: NotificationMethod,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For `internal_call` and `page`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<String>,
    /// For `email`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// For `sms`: E.164 with `+`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotificationMethod {
    InternalCall,
    Email,
    Sms,
    Page,
}

/// The default location and the buildings of the main site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct E911 {
    /// Default false.
    pub enabled: bool,
    /// Location of callers that belong to no site (EM-27).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site_address: Option<SiteAddress>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub buildings: Vec<Building>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteAddress {
    /// House number and street.
    #[serde(default, alias = "street_address", skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    #[serde(default, alias = "postal_code", skip_serializing_if = "Option::is_none")]
    pub zip_code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Building {
    pub id: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floors: Option<FloorList>,
}

/// The floors of a building: a list, or only how many there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum FloorList {
    Count(u32),
    Floors(Vec<Floor>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// May be negative for basements.
    pub number: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// STIR/SHAKEN of this provider. Paths are relative to the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StirShaken {
    /// Default true where the block is present.
    pub enabled: bool,
    /// PEM chain, leaf first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_path: Option<String>,
    /// PEM key, P-256 only, mode 0600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key_path: Option<String>,
    /// PEM list of trusted STI-CAs. Needed to verify.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_cert_path: Option<String>,
    /// Main number of the provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub originating_tn: Option<String>,
    /// SPC in the TNAuthList of our certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_provider_code: Option<String>,
    /// Where others fetch our certificate: the `x5u`, https only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_url: Option<String>,
    /// Accepted as the source documents name it; verification is done here, not by a service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification_service_url: Option<String>,
    /// Default true.
    pub enable_signing: bool,
    /// Default true.
    pub enable_verification: bool,
    /// `A`, `B` or `C`: an upper bound, never a value of its own (T11). Default: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_attestation: Option<String>,
}

impl Default for StirShaken {
    fn default() -> Self {
        Self {
            enabled: true,
            certificate_path: None,
            private_key_path: None,
            ca_cert_path: None,
            originating_tn: None,
            service_provider_code: None,
            certificate_url: None,
            verification_service_url: None,
            enable_signing: true,
            enable_verification: true,
            default_attestation: None,
        }
    }
}

/// Who is told about emergencies, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmergencyNotification {
    /// Default true.
    pub enabled: bool,
    /// Default true.
    pub notify_on_911: bool,
    /// Methods in use. Default call, page, email.
    pub methods: Vec<ContactMethod>,
    /// Priority of overhead pages. Default `emergency`.
    pub page_priority: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contacts: Vec<EmergencyContact>,
    /// How long the contacts of one priority have to acknowledge before those of the next are told
    /// as well; at once if none of them can be reached. Default `30s`. Not in the source
    /// documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escalate_after: Option<DurationText>,
    /// Where e-mail goes out: `smtp://HOST:PORT` (no TLS), `smtp://HOST:587?tls=required`
    /// (STARTTLS) or `smtps://HOST`, with `USER:PASSWORD@` before the host if it asks for them.
    /// Needs `email_from`. Not in the source documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp_url: Option<SecretText>,
    /// Sender of e-mail. Not in the source documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_from: Option<String>,
    /// Receives calls, pages and text messages (and e-mail, without `smtp_url`) as JSON by POST.
    /// `https`; `http` only to a loopback address. Not in the source documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_url: Option<SecretText>,
    /// Key of the signature (HMAC-SHA256) that each POST to the webhook carries. Not in the source
    /// documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_secret: Option<SecretText>,
}

impl Default for EmergencyNotification {
    fn default() -> Self {
        Self {
            enabled: true,
            notify_on_911: true,
            methods: vec![ContactMethod::Call, ContactMethod::Page, ContactMethod::Email],
            page_priority: "emergency".to_owned(),
            contacts: Vec::new(),
            escalate_after: None,
            smtp_url: None,
            email_from: None,
            webhook_url: None,
            webhook_secret: None,
        }
    }
}

/// One contact of [`EmergencyNotification`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmergencyContact {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// 1 (highest) to 5. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Default `[call]`.
    #[serde(default = "call_only")]
    pub notification_methods: Vec<ContactMethod>,
}

fn call_only() -> Vec<ContactMethod> {
    vec![ContactMethod::Call]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContactMethod {
    Call,
    Page,
    Email,
    Sms,
}

/// The SOC 2 framework.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Soc2 {
    /// Default true.
    pub enabled: bool,
}

impl Default for Soc2 {
    fn default() -> Self {
        Self { enabled: true }
    }
}
