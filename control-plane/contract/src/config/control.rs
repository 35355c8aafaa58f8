//! The control plane.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretText;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// `ADDRESS:PORT` of the REST API, admin UI and metrics.
    pub listen: String,
    /// `sqlite:FILE` (relative to the data directory) or `postgres://...`; may be a secret
    /// reference.
    pub store: SecretText,
    /// HTTPS for `listen`. Needed when `listen` is not a loopback address and no proxy stands in
    /// front.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
    /// Edges on other machines connect here. Absent: only the edge on this machine, over a Unix
    /// socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<ControlLink>,
}

/// Certificate and key. Paths are relative to the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// PEM chain, leaf first.
    pub certificate_path: String,
    /// PEM key, mode 0600.
    pub private_key_path: String,
}

/// Where edges connect, by mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ControlLink {
    /// `ADDRESS:PORT`.
    pub listen: String,
    /// PEM chain of the control plane, relative to the data directory. The default is the one that
    /// the control plane makes for itself at every start, from its private CA.
    #[serde(default = "own_certificate")]
    pub certificate_path: String,
    /// PEM key of the control plane, mode 0600.
    #[serde(default = "own_key")]
    pub private_key_path: String,
    /// PEM list of CAs whose certificates edges must show. The default is the private CA, by which
    /// `ravelin node add` issues.
    #[serde(default = "own_ca")]
    pub client_ca_path: String,
}

fn own_certificate() -> String {
    "certs/link-control.pem".into()
}

fn own_key() -> String {
    "certs/link-control.key".into()
}

fn own_ca() -> String {
    "certs/link-ca.pem".into()
}
