//! Realms, trunks and routes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DurationText, Transport, TrunkMedia};

/// A network that we face: where calls come in and go out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Realm {
    /// Unique name.
    pub id: String,
    /// `access`: people's phones and PBXs are behind it. `peering`: other providers are. Default:
    /// `access` if a customer trunk or a site is in it, else `peering`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<RealmKind>,
    /// Whether emergency calls may start in this realm. Default: `allow` in access realms; a
    /// peering realm has to state it, unset means `deny` and a warning (EM-67).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emergency: Option<Allow>,
    /// Emergency numbers of the country, ISO 3166 code (EM-8). Default `US`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Digits that callers dial for an outside line, 0-4 digits. Default `9`: 9911 is emergency as
    /// well as 911. Empty text: there is no such prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside_prefix: Option<String>,
    /// Dial strings that are emergency numbers beside those of the country, 2-8 digits, for example
    /// `112`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emergency_numbers: Vec<String>,
    /// How packets that we send into this realm are marked (DSCP, RFC 2474).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Dscp>,
}

/// Differentiated services code points, 0-63, for example 46 (EF) for media and 24 (CS3) or 26
/// (AF31) for signalling. Absent: the host's default, which is 0. A change needs a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dscp {
    /// SIP, over any transport.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 63))]
    pub signalling: Option<u8>,
    /// RTP, RTCP and what else travels on media ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 63))]
    pub media: Option<u8>,
}

/// See [`Realm::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RealmKind {
    Access,
    Peering,
}

/// A right that is given or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Allow {
    Allow,
    Deny,
}

/// A peer that we exchange calls with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trunk {
    /// Unique name.
    pub id: String,
    pub realm: String,
    pub role: Role,
    /// Who may send us calls as this trunk: addresses or prefixes, optionally with a source port:
    /// `192.0.2.7`, `192.0.2.0/24`, `192.0.2.7:5060`, `2001:db8::/32`, `[2001:db8::1]:5060`. The
    /// most specific one over all trunks of the realm wins. Empty: calls only go out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Where calls to this trunk go. Empty: calls only come in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Target>,
    /// Numbers that this customer is entitled to: `+13135550100`, `+1313555*` or `*`. Attestation A
    /// for these, B for others (ST-10).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<String>,
    /// How numbers without a leading `+` are completed. Default `nanp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_plan: Option<NumberPlan>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<TrunkLimits>,
    /// Health checks by OPTIONS. Absent: none, the trunk counts as up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Options>,
    /// STIR/SHAKEN on this trunk. Absent: neither signed nor verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Which headers of this peer are believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// Encryption, NAT, ICE and silence of this peer's media.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<TrunkMedia>,
    /// This trunk may carry emergency calls when those of the site and the global one failed
    /// (EM-50).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_carry_emergency: bool,
    /// This trunk answers 933 with a read-back of the registered address (EM-19).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub address_test: bool,
    /// Name of the site of callers whose address belongs to no site (EM-25 e).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_site: Option<String>,
}

/// What a trunk is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Our own customer: authenticated by its source address.
    Customer,
    /// Another provider.
    Carrier,
    /// Leads to a PSAP or an emergency service provider.
    Emergency,
}

/// One address of a trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// `sip:ADDRESS[:PORT][;transport=udp|tcp|tls]` with a literal v4 or v6 address: the data plane
    /// asks no DNS. Default port 5060 (5061 for TLS).
    pub uri: String,
    /// Lower is tried first. 0-65535, default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// Share among targets of equal priority. 0-65535, default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Transport where the URI names none. Default udp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
}

/// Admission limits of a trunk, both directions together. Emergency calls pass them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrunkLimits {
    /// Calls at the same time, 0-1,000,000. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u32>,
    /// New calls per second, 1-100,000. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cps: Option<u32>,
}

/// Health checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Time between two checks, 1s-1h.
    pub interval: DurationText,
    /// Failed checks in a row after which a target is down, 1-100. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
}

/// STIR/SHAKEN on one trunk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Sign calls that go out through this trunk.
    #[serde(default)]
    pub sign: bool,
    /// Verify calls that come in through this trunk.
    #[serde(default)]
    pub verify: bool,
    /// What a failed verification does to the call. Never rejects an emergency call.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Tell this peer the outcome of the verification: `verstat` in the calling number of calls that
    /// go out through this trunk (3GPP TS 24.229 7.2A.20). For peers that display or act on it, such
    /// as a customer's PBX.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verstat: bool,
}

/// See [`Identity::on_failure`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The call goes on and carries the outcome.
    #[default]
    Annotate,
    /// The call is refused with the response code of RFC 8224 6.2.2.
    Reject,
}

/// Which headers of a peer are believed (EM-22, ST-17).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// P-Asserted-Identity and Privacy. Default: true for carriers and emergency trunks, false for
    /// customers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asserted_identity: Option<bool>,
    /// Geolocation of an emergency call: the caller's value goes out alone. Otherwise that of the
    /// caller's site is added behind it. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<bool>,
}

/// How a number without a leading `+` becomes an E.164 number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NumberPlan {
    /// North America: ten digits get a leading 1, `011` and `00` introduce an international number.
    #[default]
    Nanp,
    /// Numbers arrive with their country code; only `00` is removed.
    E164,
}

/// Where ordinary calls go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Unique name.
    pub id: String,
    /// Trunks that the call may come from. Empty or absent: every trunk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// Dialled number: `+13135550100`, `+1313*` or `*`. Visual separators are ignored; a pattern
    /// with `+` is compared with the number in international form.
    pub to: String,
    /// Trunks in the order in which they are tried.
    pub trunks: Vec<String>,
}
