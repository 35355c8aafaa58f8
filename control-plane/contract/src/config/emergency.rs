//! Emergency calling beyond the `features` block.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretText;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Emergency {
    /// When every emergency trunk failed, try every other carrier trunk (EM-50). May reach the
    /// wrong PSAP, so it is off by default.
    pub last_resort_any_trunk: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sms: Option<Sms>,
}

/// How text messages to contacts are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sms {
    /// Default false.
    pub enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<SmsProvider>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub twilio: Option<TwilioSms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsSms>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SmsProvider {
    Twilio,
    AwsSns,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TwilioSms {
    pub account_sid: String,
    pub auth_token: SecretText,
    /// E.164 with `+`.
    pub from_number: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AwsSms {
    /// Default `us-east-1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}
