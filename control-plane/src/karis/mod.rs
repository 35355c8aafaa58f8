//! Checks of Kari's Law and RAY BAUM'S Act settings (compliance-systems 2.4 and 7, K15). A dry run
//! through the classifier and the chains that the data plane uses, and what the control plane
//! knows of nodes, trunks and notifications. A list of checks that passed is not a statement of
//! compliance: what software cannot know is listed as the operator's.

mod dry_run;
mod live;

pub use live::{Facts, NodeFacts};

use ravelin_contract::{config::KarisLaw, view::TrunkView};
use ravelin_policy::{Document, Mode, Snapshot, Tier};
use serde::Serialize;

use crate::{
    e911,
    notify::{Contact, Method},
};

/// Details of one check that are listed; all are counted.
pub const DETAILS_MAX: usize = 100;

/// How one check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Pass,
    /// Works, and somebody should look at it.
    Warn,
    Fail,
    /// Cannot be known from a file.
    Skip,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Check {
    /// Stable name.
    pub id: &'static str,
    pub result: Verdict,
    /// What was found, in one sentence.
    pub text: String,
    /// What to do about it; null where nothing is to be done.
    pub todo: Option<String>,
    /// Places that did not pass, the first hundred.
    pub details: Vec<String>,
    /// Places that did not pass, all of them.
    pub details_total: u64,
}

/// The result of all checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct KarisLawReport {
    /// No check failed.
    pub passed: bool,
    /// `control-plane` or `file`.
    pub source: &'static str,
    pub checked_at: String,
    /// Version of the config in force; 0 for a file.
    pub config_version: u64,
    pub sites: u64,
    pub checks: Vec<Check>,
    /// What no software can check.
    pub operator_duties: Vec<&'static str>,
}

const DUTIES: [&str; 4] = [
    "that each address is the one the authority has on file (MSAG or LVF), and that the telephones stand there",
    "that somebody is likely to see or hear each notification, at all hours",
    "that the carriers of the emergency trunks are contracted to deliver 911 calls to the right PSAP",
    "that 911 was test-dialled from each site, in agreement with the PSAP",
];

impl Check {
    pub(crate) fn new(id: &'static str, result: Verdict, text: impl Into<String>) -> Self {
        Self { id, result, text: text.into(), todo: None, details: Vec::new(), details_total: 0 }
    }

    pub(crate) fn todo(mut self, todo: impl Into<String>) -> Self {
        self.todo = Some(todo.into());
        self
    }

    pub(crate) fn details(mut self, details: Vec<String>) -> Self {
        self.details_total = u64::try_from(details.len()).unwrap_or(u64::MAX);
        self.details = details;
        self.details.truncate(DETAILS_MAX);
        self
    }
}

/// Checks a config file alone: what only a running system knows is skipped, and says so.
#[must_use]
pub fn of_file(
    document: &Document,
    snapshot: &Snapshot,
    contacts: &[Contact],
    now: String,
) -> KarisLawReport {
    let mut checks = of_config(document, snapshot, contacts);
    for id in live::IDS {
        checks.push(
            Check::new(id, Verdict::Skip, "cannot be known from a file")
                .todo("run `ravelin verify karis-law` against the running control plane"),
        );
    }
    report("file", now, 0, snapshot, checks)
}

/// Checks the config in force and what is known of the running system.
#[must_use]
pub fn of_system(
    document: &Document,
    snapshot: &Snapshot,
    contacts: &[Contact],
    facts: &Facts,
    now: String,
) -> KarisLawReport {
    let mut checks = of_config(document, snapshot, contacts);
    checks.extend(live::checks(snapshot, facts));
    report("control-plane", now, snapshot.version, snapshot, checks)
}

fn report(
    source: &'static str,
    checked_at: String,
    config_version: u64,
    snapshot: &Snapshot,
    checks: Vec<Check>,
) -> KarisLawReport {
    KarisLawReport {
        passed: checks.iter().all(|check| check.result != Verdict::Fail),
        source,
        checked_at,
        config_version,
        sites: u64::try_from(snapshot.sites.len()).unwrap_or(u64::MAX),
        checks,
        operator_duties: DUTIES.to_vec(),
    }
}

fn of_config(document: &Document, snapshot: &Snapshot, contacts: &[Contact]) -> Vec<Check> {
    let law = snapshot.features.karis_law.clone().unwrap_or_default();
    let sites = e911::sites(document);
    let mut checks = vec![mode(snapshot)];
    checks.extend(dry_run::checks(snapshot, &sites));
    checks.push(dedicated_trunk(snapshot, &law));
    checks.push(notification(snapshot, &law));
    checks.push(people(snapshot, contacts));
    checks.push(ways_out(snapshot, contacts));
    checks.push(location(snapshot, &law));
    checks.push(callback(snapshot));
    checks
}

fn mode(snapshot: &Snapshot) -> Check {
    match snapshot.mode {
        Mode::Production => Check::new("mode", Verdict::Pass, "production: 911 calls go out"),
        Mode::Test => Check::new(
            "mode",
            Verdict::Fail,
            "test mode: every 911 call is blocked at the last gate",
        )
        .todo("set deployment.mode to production before people rely on this system"),
    }
}

/// Upstream warned when no trunk was dedicated; without any chain the dry run fails.
fn dedicated_trunk(snapshot: &Snapshot, law: &KarisLaw) -> Check {
    match &law.emergency_trunk_id {
        Some(id) => {
            let text = format!("`{id}` takes emergency calls of callers without a site");
            Check::new("emergency_trunk", Verdict::Pass, text)
        }
        None if snapshot.emergency_steps(None).is_empty() => Check::new(
            "emergency_trunk",
            Verdict::Fail,
            "a caller who belongs to no site has no emergency trunk",
        )
        .todo("set features.karis_law.emergency_trunk_id"),
        None => Check::new(
            "emergency_trunk",
            Verdict::Warn,
            "no dedicated emergency trunk for callers without a site",
        )
        .todo("set features.karis_law.emergency_trunk_id"),
    }
}

fn notification(snapshot: &Snapshot, law: &KarisLaw) -> Check {
    let block = snapshot.features.emergency_notification.as_ref();
    let other = block.is_some_and(|block| block.enabled && block.notify_on_911);
    if law.auto_notify || other {
        return Check::new("notification", Verdict::Pass, "each 911 call queues a notification");
    }
    Check::new("notification", Verdict::Fail, "nobody is notified of a 911 call")
        .todo("set features.karis_law.auto_notify to true (47 CFR 9.16(b)(2))")
}

fn people(snapshot: &Snapshot, contacts: &[Contact]) -> Check {
    let reachable = |contact: &&Contact| {
        contact.notification_methods.iter().any(|method| contact.address(*method).is_some())
    };
    let useless: Vec<String> = contacts
        .iter()
        .filter(|contact| !reachable(contact))
        .map(|contact| format!("{}: no address for any of its methods", contact.name))
        .collect();
    let everywhere =
        contacts.iter().filter(reachable).filter(|contact| contact.site_id.is_none()).count();
    let without: Vec<String> = snapshot
        .sites
        .iter()
        .filter(|site| {
            let here = |contact: &&Contact| contact.site_id == Some(u64::from(site.site_id));
            everywhere == 0 && !contacts.iter().filter(reachable).any(|contact| here(&contact))
        })
        .map(|site| format!("site {} ({}): nobody is told", site.site_id, site.name))
        .collect();
    let count = contacts.iter().filter(reachable).count();
    if count == 0 || !without.is_empty() {
        return Check::new("contacts", Verdict::Fail, "somebody would not be told of a 911 call")
            .todo("add features.karis_law.notification_contacts, or POST /api/emergency/contacts")
            .details([useless, without].concat());
    }
    let text = format!("{count} contacts can be told");
    if useless.is_empty() {
        return Check::new("contacts", Verdict::Pass, text);
    }
    Check::new("contacts", Verdict::Warn, text)
        .todo("give these contacts an address for each of their methods")
        .details(useless)
}

/// What carries a notification: e-mail needs a mail server or the webhook, the rest the webhook.
fn ways_out(snapshot: &Snapshot, contacts: &[Contact]) -> Check {
    let block = snapshot.features.emergency_notification.as_ref();
    let webhook = block.is_some_and(|block| block.webhook_url.is_some());
    let mail = block.is_some_and(|block| block.smtp_url.is_some() && block.email_from.is_some());
    let mut silent = Vec::new();
    for contact in contacts {
        for method in &contact.notification_methods {
            if !(webhook || (mail && *method == Method::Email)) {
                silent.push(format!("{} by {}: nothing carries it", contact.name, method.name()));
            }
        }
    }
    if silent.is_empty() {
        return Check::new("delivery", Verdict::Pass, "each contact's methods have a way out");
    }
    Check::new("delivery", Verdict::Warn, "some notifications are recorded and go nowhere")
        .todo("set smtp_url and email_from, or webhook_url, in features.emergency_notification")
        .details(silent)
}

fn location(snapshot: &Snapshot, law: &KarisLaw) -> Check {
    let missing: Vec<String> = snapshot
        .sites
        .iter()
        .filter(|site| site.is_a_place)
        .filter_map(|site| {
            let at = &site.address;
            let parts = [("street", &at.street), ("city", &at.city), ("state", &at.state)];
            let absent: Vec<&str> =
                parts.iter().filter(|(_, part)| part.is_none()).map(|(name, _)| *name).collect();
            (!absent.is_empty()).then(|| {
                format!("site {} ({}): no {}", site.site_id, site.name, absent.join(", no "))
            })
        })
        .collect();
    let shared = snapshot.sites.iter().filter(|site| !site.is_a_place).count();
    let default = snapshot.default_location.is_some();
    if snapshot.sites.is_empty() && !default {
        return Check::new("location", Verdict::Fail, "no caller has a dispatchable location")
            .todo("add sites with addresses, or features.e911.site_address");
    }
    if !missing.is_empty() {
        let text = format!("{} sites have no dispatchable location", missing.len());
        return Check::new("location", Verdict::Fail, text)
            .todo("add street_address, city and state to these sites (47 CFR 9.16(b)(3))")
            .details(missing);
    }
    let mut open = Vec::new();
    if !default {
        open.push("callers without a site have no location: set features.e911.site_address".into());
    }
    if shared > 0 {
        open.push(format!("{shared} sites are no places (not_a_place): their callers have none"));
    }
    if !law.require_location {
        open.push("features.karis_law.require_location is false".to_owned());
    }
    let count = snapshot.sites.len() - shared;
    let text = format!("{count} sites have a dispatchable location");
    if open.is_empty() {
        return Check::new("location", Verdict::Pass, text);
    }
    Check::new("location", Verdict::Warn, text)
        .todo("see the details; a 911 call is never blocked for want of a location")
        .details(open)
}

fn callback(snapshot: &Snapshot) -> Check {
    let missing: Vec<String> = snapshot
        .sites
        .iter()
        .filter(|site| site.elin.is_none())
        .map(|site| format!("site {} ({})", site.site_id, site.name))
        .collect();
    if missing.is_empty() {
        return Check::new("callback", Verdict::Pass, "each site has a callback number (ELIN)");
    }
    Check::new("callback", Verdict::Warn, "the PSAP sees the caller's own number from some sites")
        .todo("give these sites an elin, unless each caller there has a number of its own")
        .details(missing)
}

/// Trunks of the site's own tier in a chain.
fn site_trunks(snapshot: &Snapshot, site: Option<ravelin_policy::SiteId>) -> Vec<&str> {
    snapshot
        .emergency_steps(site)
        .iter()
        .filter(|step| step.tier == Tier::Site)
        .filter_map(|step| snapshot.trunk(step.trunk))
        .map(|trunk| trunk.id.as_str())
        .collect()
}

/// Whether a trunk as one node sees it can take a call.
fn is_down(view: &TrunkView) -> bool {
    view.state == "down"
}
