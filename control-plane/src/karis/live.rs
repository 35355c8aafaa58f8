//! What only a running system knows: nodes, trunks, records, notifications.

use ravelin_contract::view::TrunkView;
use ravelin_policy::{SiteId, Snapshot};

use super::{Check, Verdict, is_down};

/// The checks of this file, in their order.
pub(super) const IDS: [&str; 5] =
    ["nodes", "trunk_reachability", "logging", "notification_test", "unlocated_callers"];

/// A notification test older than this does not count (the source documents ask for quarterly
/// tests).
const TEST_PERIOD_DAYS: u64 = 90;

/// What was read of the running system.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub nodes: Vec<NodeFacts>,
    /// Broken records of any chain.
    pub chain_flaws: u64,
    /// Audit events are stored.
    pub events_stored: bool,
    /// Milliseconds since the last test notification that somebody sent.
    pub test_age_ms: Option<u64>,
    /// Deliveries of that test that did not go out, as text.
    pub test_failures: Vec<String>,
    pub test_confirmed: u64,
    /// Emergency calls of the last ninety days, and those among them without a location.
    pub calls: u64,
    pub unlocated: Vec<String>,
}

/// One node.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    pub name: String,
    pub connected: bool,
    pub version: u64,
    pub trunks: Vec<TrunkView>,
}

pub(super) fn checks(snapshot: &Snapshot, facts: &Facts) -> Vec<Check> {
    vec![
        nodes(snapshot, facts),
        reachability(snapshot, facts),
        logging(facts),
        test(facts),
        unlocated(facts),
    ]
}

fn nodes(snapshot: &Snapshot, facts: &Facts) -> Check {
    let up = facts.nodes.iter().filter(|node| node.connected).count();
    let away: Vec<String> = facts
        .nodes
        .iter()
        .filter(|node| !node.connected)
        .map(|node| format!("{} is not connected", node.name))
        .collect();
    let behind: Vec<String> = facts
        .nodes
        .iter()
        .filter(|node| node.connected && node.version != snapshot.version)
        .map(|node| {
            format!("{} runs version {}, in force is {}", node.name, node.version, snapshot.version)
        })
        .collect();
    if up == 0 {
        return Check::new("nodes", Verdict::Fail, "no edge is connected: what it does is unknown")
            .todo("start the edge, or look at its log")
            .details(away);
    }
    if !behind.is_empty() {
        return Check::new(
            "nodes",
            Verdict::Fail,
            "a node runs another config than the one checked",
        )
        .todo("look at GET /api/nodes for what the node refused")
        .details([behind, away].concat());
    }
    let text = format!("{up} nodes run config version {}", snapshot.version);
    if away.is_empty() {
        return Check::new("nodes", Verdict::Pass, text);
    }
    Check::new("nodes", Verdict::Warn, text)
        .todo("start these nodes, or leave them out of the count by removing their data")
        .details(away)
}

/// Each site has a trunk that answers, on each node. Health never takes a trunk out of an
/// emergency chain; a trunk that is down is tried all the same.
fn reachability(snapshot: &Snapshot, facts: &Facts) -> Check {
    let connected: Vec<_> = facts.nodes.iter().filter(|node| node.connected).collect();
    if connected.is_empty() {
        return Check::new("trunk_reachability", Verdict::Fail, "no node says how its trunks are")
            .todo("start the edge");
    }
    let (mut dead, mut partly, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    let places = (0_u32..)
        .map(SiteId)
        .zip(&snapshot.sites)
        .map(|(id, site)| (Some(id), format!("site {} ({})", site.site_id, site.name)))
        .chain([(None, "callers without a site".to_owned())]);
    for (site, name) in places {
        for node in &connected {
            let mut answers = false;
            let mut chain = 0_usize;
            for step in snapshot.emergency_steps(site) {
                let Some(trunk) = snapshot.trunk(step.trunk) else { continue };
                chain += 1;
                match node.trunks.iter().find(|view| view.id == trunk.id) {
                    Some(view) if is_down(view) => {
                        partly.push(format!("{name}: {} is down on {}", trunk.id, node.name));
                    }
                    Some(view) if view.state == "up" => answers = true,
                    _ => {
                        unknown.push(format!("{} on {}", trunk.id, node.name));
                        answers = true;
                    }
                }
            }
            if chain > 0 && !answers {
                dead.push(format!("{name}: no emergency trunk answers on {}", node.name));
            }
        }
    }
    unknown.sort_unstable();
    unknown.dedup();
    let unprobed = unknown.len();
    if !dead.is_empty() {
        return Check::new(
            "trunk_reachability",
            Verdict::Fail,
            "some callers have no trunk that answers",
        )
        .todo("look at `ravelin trunks`; call the carrier")
        .details([dead, partly].concat());
    }
    if !partly.is_empty() || unprobed > 0 {
        let unknown = unknown
            .into_iter()
            .map(|trunk| format!("{trunk}: not probed, no options block"))
            .collect();
        let text = "each site has an emergency trunk that is not known to be down";
        return Check::new("trunk_reachability", Verdict::Warn, text)
            .todo("give each emergency trunk an options block, so that its health is known")
            .details([partly, unknown].concat());
    }
    Check::new("trunk_reachability", Verdict::Pass, "each emergency trunk answers OPTIONS")
}

fn logging(facts: &Facts) -> Check {
    if facts.chain_flaws > 0 {
        let text = format!("{} records do not fit their chain", facts.chain_flaws);
        return Check::new("logging", Verdict::Fail, text)
            .todo("run `ravelin audit verify --url URL`; it names each place");
    }
    if !facts.events_stored {
        return Check::new("logging", Verdict::Fail, "no audit event is stored")
            .todo("look at the log of the control plane");
    }
    Check::new("logging", Verdict::Pass, "audit events are stored, no chain is known to be broken")
}

fn test(facts: &Facts) -> Check {
    let id = "notification_test";
    let todo = "send a test with POST /api/emergency/test, and see that somebody gets it";
    let Some(age_ms) = facts.test_age_ms else {
        return Check::new(id, Verdict::Warn, "notification was never tested").todo(todo);
    };
    let days = age_ms / 86_400_000;
    if days > TEST_PERIOD_DAYS {
        let text = format!("notification was tested {days} days ago");
        return Check::new(id, Verdict::Warn, text).todo(todo);
    }
    let text = format!("tested {days} days ago, {} deliveries confirmed", facts.test_confirmed);
    if facts.test_failures.is_empty() {
        return Check::new(id, Verdict::Pass, text);
    }
    Check::new(id, Verdict::Warn, text)
        .todo("see why these did not go out: GET /api/emergency/history")
        .details(facts.test_failures.clone())
}

fn unlocated(facts: &Facts) -> Check {
    let id = "unlocated_callers";
    if facts.unlocated.is_empty() {
        let text = format!("{} emergency calls in 90 days, each with a location", facts.calls);
        return Check::new(id, Verdict::Pass, text);
    }
    let text = format!(
        "{} of {} emergency calls in 90 days had no dispatchable location",
        facts.unlocated.len(),
        facts.calls
    );
    Check::new(id, Verdict::Warn, text)
        .todo("add the addresses of these callers to a site")
        .details(facts.unlocated.clone())
}
