//! What would happen to a call, and why.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Snapshot;

/// The answer of `ravelin explain`. Absent values are null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    pub class: String,
    /// Name of the site.
    pub site: Option<String>,
    pub elin: Option<String>,
    pub psap: Option<String>,
    /// Dispatchable location in one line.
    pub location: Option<String>,
    /// Ids in the order tried.
    pub trunks: Vec<String>,
    pub attestation: Option<String>,
    /// Rule that decided the attestation.
    pub rule: Option<String>,
    /// Version of the snapshot.
    pub snapshot: u64,
    /// Why, one sentence each; part of the text form only.
    #[serde(skip)]
    pub reasons: Vec<String>,
}

/// What would happen to a call that arrives in `realm` from `source` for `to` (a SIP, tel or
/// service URI, or a bare number), with `from` as the caller's URI.
#[must_use]
pub fn explain(
    snapshot: &Snapshot,
    realm: &str,
    source: IpAddr,
    to: &str,
    from: Option<&str>,
) -> Explanation {
    let _ = (realm, source, to, from);
    Explanation { snapshot: snapshot.version, ..Explanation::default() }
}
