//! What would happen to a call, and why: the same functions that the call path uses, asked about a
//! call that does not exist.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{Class, Mode, RealmId, Role, SiteId, Snapshot, TrunkId};

/// The answer of `ravelin explain`. Absent values are null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// `emergency`, `test_address`, `test_sos`, `crisis` or `none`.
    pub class: String,
    /// Name of the site.
    pub site: Option<String>,
    pub elin: Option<String>,
    pub psap: Option<String>,
    /// Dispatchable location in one line.
    pub location: Option<String>,
    /// Ids in the order tried.
    pub trunks: Vec<String>,
    /// `A`, `B` or `C`.
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
    let mut answer = Explanation {
        class: Class::None.as_str().to_owned(),
        snapshot: snapshot.version,
        ..Explanation::default()
    };
    let Some(realm_id) = snapshot.realm_by_id(realm) else {
        answer.because(format!("there is no realm `{realm}` in this document"));
        return answer;
    };
    let uri = as_uri(to);
    let class = snapshot.classify(realm_id, uri.as_bytes());
    answer.class = class.as_str().to_owned();
    answer.because(class_reason(snapshot, realm_id, to, class));

    let trunk = snapshot.trunk_by_address(realm_id, source);
    match trunk.and_then(|id| snapshot.trunk(id)) {
        Some(trunk) => answer.because(format!("{source} is a source of trunk `{}`", trunk.id)),
        None => answer.because(format!("{source} is a source of no trunk in realm `{realm}`")),
    }
    let extension = from.map(|from| user_of(&as_uri(from)).to_owned());
    let site = locate(snapshot, realm_id, source, extension.as_deref(), trunk, &mut answer);
    attest(snapshot, trunk, extension.as_deref(), &mut answer);
    match class {
        Class::Emergency(_) => emergency_trunks(snapshot, realm_id, site, &mut answer),
        Class::TestAddress => {
            answer.trunks = names(snapshot, snapshot.address_test_chain(site));
            answer.because(if answer.trunks.is_empty() {
                "no trunk declares `address_test`: the test call is refused".to_owned()
            } else {
                "address tests go only to trunks that declare `address_test`".to_owned()
            });
        }
        Class::TestSos => answer.because("is answered here and goes to no trunk".to_owned()),
        Class::Crisis | Class::None => ordinary_trunks(snapshot, trunk, &uri, &mut answer),
    }
    answer
}

impl Explanation {
    fn because(&mut self, reason: String) {
        self.reasons.push(reason);
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let trunks = match self.trunks.as_slice() {
            [] => "-".to_owned(),
            trunks => trunks.join(", then "),
        };
        writeln!(f, "class        {}", self.class)?;
        writeln!(f, "site         {}", or_none(&self.site))?;
        writeln!(f, "location     {}", or_none(&self.location))?;
        writeln!(f, "ELIN         {}", or_none(&self.elin))?;
        writeln!(f, "PSAP         {}", or_none(&self.psap))?;
        writeln!(f, "trunks       {trunks}")?;
        writeln!(f, "attestation  {}", or_none(&self.attestation))?;
        writeln!(f, "rule         {}", or_none(&self.rule))?;
        writeln!(f, "snapshot     {}", self.snapshot)?;
        writeln!(f, "because")?;
        for reason in &self.reasons {
            writeln!(f, "  - {reason}")?;
        }
        Ok(())
    }
}

/// A bare number or name becomes a URI; of an address with angle brackets, the URI in them is meant.
fn as_uri(text: &str) -> String {
    let text = text.trim();
    let bracketed = text.rsplit_once('<').and_then(|(_, uri)| uri.split_once('>'));
    let text = bracketed.map_or(text, |(uri, _)| uri);
    if text.contains(':') { text.to_owned() } else { format!("sip:{text}@localhost") }
}

/// The user part without parameters; empty where there is none.
fn user_of(uri: &str) -> &str {
    let (scheme, rest) = uri.split_once(':').unwrap_or(("", uri));
    let user = if scheme.eq_ignore_ascii_case("tel") {
        rest
    } else {
        rest.split_once('@').map_or("", |(user, _)| user)
    };
    user.split([';', ':']).next().unwrap_or_default()
}

fn class_reason(snapshot: &Snapshot, realm: RealmId, to: &str, class: Class) -> String {
    let realm = snapshot.realm(realm);
    let country = realm.map_or("", |realm| realm.country);
    match class {
        Class::Emergency(service) => {
            format!("`{to}` asks for emergency service {service:?} ({country} numbers)")
        }
        Class::TestAddress => format!("`{to}` is the address test number of {country}"),
        Class::TestSos => format!("`{to}` is a test of emergency calling"),
        Class::Crisis => format!("`{to}` is a crisis line: an ordinary call that is never blocked"),
        Class::None => format!("`{to}` is no emergency number of {country}, compared as a whole"),
    }
}

fn locate(
    snapshot: &Snapshot,
    realm: RealmId,
    source: IpAddr,
    extension: Option<&str>,
    trunk: Option<TrunkId>,
    answer: &mut Explanation,
) -> Option<SiteId> {
    let located = snapshot.locate(realm, source, extension.map(str::as_bytes), trunk);
    answer.location = located.address.map(ToString::to_string);
    let found = located.site.and_then(|m| snapshot.site_settings(m.site).map(|site| (m, site)));
    let Some((found, site)) = found else {
        answer.because(match located.address {
            Some(_) => format!("{source} is in no site: the default location applies"),
            None => format!("{source} is in no site and there is no default location"),
        });
        return None;
    };
    answer.site = Some(site.name.clone());
    answer.elin.clone_from(&site.elin);
    answer.psap = Some(site.psap.clone());
    answer.because(format!("site `{}` by rule `{}`", site.name, found.rule.as_str()));
    if !site.is_a_place {
        answer.because(format!("site `{}` is not a place: no location from it", site.name));
    }
    Some(found.site)
}

fn attest(
    snapshot: &Snapshot,
    trunk: Option<TrunkId>,
    number: Option<&str>,
    answer: &mut Explanation,
) {
    let Some((id, trunk)) = trunk.and_then(|id| snapshot.trunk(id).map(|trunk| (id, trunk))) else {
        answer.because("without a trunk there is nobody to attest".to_owned());
        return;
    };
    if number.is_none() && trunk.role == Role::Customer {
        answer.because("the attestation depends on the caller's number".to_owned());
        return;
    }
    let found = snapshot.attestation(id, number.unwrap_or_default().as_bytes());
    answer.attestation = found.level.map(|level| level.as_str().to_owned());
    answer.rule = Some(found.rule.0.to_owned());
    answer.because(match (found.level, trunk.role) {
        (None, _) => "signing is disabled in features.stir_shaken".to_owned(),
        (Some(_), Role::Customer) => {
            let entitled = if found.rule.0.starts_with("customer-entitled") { "" } else { "not " };
            format!(
                "customer `{}` is {entitled}entitled to {}",
                trunk.id,
                number.unwrap_or_default()
            )
        }
        (Some(_), _) => format!("`{}` is a gateway to callers that we do not know", trunk.id),
    });
}

fn emergency_trunks(
    snapshot: &Snapshot,
    realm: RealmId,
    site: Option<SiteId>,
    answer: &mut Explanation,
) {
    if snapshot.mode == Mode::Test {
        answer.because("test mode: the guard blocks this call before any trunk (403)".to_owned());
        return;
    }
    if snapshot.realm(realm).is_some_and(|realm| !realm.emergency_allowed) {
        answer.because("emergency calls may not start in this realm (403 and an alarm)".to_owned());
        return;
    }
    answer.trunks = names(snapshot, snapshot.emergency_chain(site));
    for step in snapshot.emergency_steps(site) {
        if let Some(trunk) = snapshot.trunk(step.trunk) {
            answer.because(format!("trunk `{}` from tier `{}`", trunk.id, step.tier.as_str()));
        }
    }
    if answer.trunks.is_empty() {
        answer.because("no emergency trunk is configured for this caller".to_owned());
    }
}

fn ordinary_trunks(
    snapshot: &Snapshot,
    trunk: Option<TrunkId>,
    uri: &str,
    answer: &mut Explanation,
) {
    let Some(trunk) = trunk else {
        answer.because("calls from unknown sources are refused (403)".to_owned());
        return;
    };
    let route = snapshot.route(trunk, user_of(uri).as_bytes());
    match route.and_then(|id| snapshot.route_settings(id)) {
        Some(route) => {
            answer.trunks = names(snapshot, route.trunks.iter().copied());
            answer.because(format!("route `{}` is the first that matches", route.id));
        }
        None => answer.because("no route matches (404)".to_owned()),
    }
}

fn names(snapshot: &Snapshot, trunks: impl Iterator<Item = TrunkId>) -> Vec<String> {
    trunks.filter_map(|id| snapshot.trunk(id)).map(|trunk| trunk.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile;

    const LOOPBACK: &str = include_str!("../../../docs/examples/loopback.yml");

    fn ask(document: &str, realm: &str, source: &str, to: &str, from: Option<&str>) -> Explanation {
        let snapshot = compile(document, 42).unwrap().snapshot;
        explain(&snapshot, realm, source.parse().unwrap(), to, from)
    }

    #[test]
    fn emergency_from_a_site() {
        let from = Some("sip:+13135550100@127.0.1.1");
        let got = ask(LOOPBACK, "access", "127.0.1.1", "sip:911@x", from);
        let json: serde_json::Value = serde_json::to_value(&got).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "class": "emergency",
                "site": "Detroit Factory",
                "elin": "+13135551000",
                "psap": "911",
                "location":
                    "1234 Industrial Blvd, Building: Building A, Floor 1, Detroit, MI, 48201",
                "trunks": ["detroit_emergency", "detroit_emergency_backup", "emergency"],
                "attestation": "A",
                "rule": "customer-entitled",
                "snapshot": 42,
            })
        );
        let text = got.to_string();
        assert!(text.contains("detroit_emergency, then detroit_emergency_backup"), "{text}");
        assert!(text.contains("site `Detroit Factory` by rule `address`"), "{text}");
    }

    #[test]
    fn near_miss_is_an_ordinary_call() {
        let got = ask(LOOPBACK, "access", "127.0.1.1", "sip:+13135550911@x", Some("+12125550100"));
        assert_eq!(got.class, "none");
        assert_eq!(got.trunks, ["carrier-a", "carrier-b"]);
        assert_eq!(got.attestation.as_deref(), Some("B"));
        assert_eq!(got.rule.as_deref(), Some("customer-not-entitled"));
    }

    #[test]
    fn absent_values_are_null() {
        let got = ask(LOOPBACK, "access", "127.0.77.1", "tel:988", None);
        let json = serde_json::to_value(&got).unwrap();
        assert_eq!(json["class"], "crisis");
        for key in ["site", "elin", "psap", "attestation", "rule"] {
            assert!(json.get(key).is_some_and(serde_json::Value::is_null), "{key}");
        }
        assert_eq!(json["trunks"], serde_json::json!([]));
        assert_eq!(json["location"], "123 Manufacturing Drive, Industrial City, MI, 48001");
        assert_eq!(ask(LOOPBACK, "x", "127.0.1.1", "911", None).class, "none");
    }

    #[test]
    fn other_classes_and_sources() {
        let class = |to: &str| ask(LOOPBACK, "access", "127.0.1.9", to, None).class;
        assert_eq!(class("911"), "emergency");
        assert_eq!(class("9-911"), "emergency");
        assert_eq!(class("urn:service:sos.fire"), "emergency");
        assert_eq!(class("<sip:911@x>"), "emergency");
        assert_eq!(class("\"Help: <me>\" <sip:911@x>;tag=1"), "emergency");
        assert_eq!(class("\"911\" <sip:1911@x>"), "none");
        assert_eq!(class("sip:933@x"), "test_address");
        assert_eq!(class("urn:service:test.sos"), "test_sos");
        assert_eq!(class("sip:112@x"), "none");
        let got = ask(LOOPBACK, "core", "127.0.2.1", "sip:+13135550100@x", None);
        assert_eq!((got.attestation.as_deref(), got.trunks.len()), (Some("C"), 1));
        let got = ask(LOOPBACK, "core", "127.0.2.1", "sip:911@x", None);
        assert_eq!(got.trunks, Vec::<String>::new(), "not allowed to start in a peering realm");
        let got = ask(LOOPBACK, "access", "127.0.1.0", "911", None);
        assert_eq!((got.site, got.trunks), (None, vec!["emergency".to_owned()]));
        let test = LOOPBACK.replace("mode: production", "mode: test");
        assert_eq!(ask(&test, "access", "127.0.1.1", "911", None).trunks, Vec::<String>::new());
    }
}
