//! The checks of Kari's Law settings, against a running control plane with a node
//! (compliance-systems 7).

use ravelin_contract::{
    chain::Entry,
    link::{ApplyResult, Up},
    view::TrunkView,
};
use serde_json::{Value, json};

use crate::support::{Node, Plane, document, event, site_body};

const VERIFY: &str = "/api/compliance/karis-law";
const SITE: &str = "/api/e911/multi-site/config";

fn check<'a>(report: &'a Value, id: &str) -> &'a Value {
    let all = report["checks"].as_array().unwrap();
    all.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no check {id}: {report}"))
}

fn trunks(states: &[(&str, &str)]) -> Up {
    let trunks = states
        .iter()
        .map(|(id, state)| TrunkView {
            id: (*id).to_owned(),
            node: "edge-1".to_owned(),
            role: "emergency".to_owned(),
            state: (*state).to_owned(),
            calls: 0,
            calls_limit: None,
            cps_limit: None,
            refused_total: 0,
            targets: Vec::new(),
        })
        .collect();
    Up::Trunks { trunks }
}

#[tokio::test]
async fn karis_law_checks_follow_the_running_system() {
    let plane = Plane::start(&document("edge-1", "")).await;
    // Nobody runs the config, and nobody has an address.
    let report = plane.get(VERIFY).await;
    assert_eq!(report["passed"], false, "{report}");
    for id in ["nodes", "trunk_reachability", "location"] {
        assert_eq!(check(&report, id)["result"], "fail", "{id}: {report}");
        assert!(check(&report, id)["todo"].is_string());
    }
    for id in ["mode", "direct_911", "no_prefix", "routing", "emergency_trunk", "notification"] {
        assert_eq!(check(&report, id)["result"], "pass", "{id}: {report}");
    }

    plane.post(SITE, site_body("Detroit", 10, "+13135551000")).await;
    let mut inner = site_body("Lobby", 10, "+13135552000");
    inner["ip_range_start"] = json!("192.168.10.1");
    inner["ip_range_end"] = json!("192.168.10.9");
    plane.post(SITE, inner).await;
    let mut node = Node::connect(&plane.data(), "edge-1").await;
    node.apply(ApplyResult::Active).await;
    let up = [("detroit_emergency", "up"), ("detroit_backup", "up"), ("emergency", "up")];
    node.up(&trunks(&up)).await;
    let report = plane
        .eventually(VERIFY, |report| {
            ["nodes", "trunk_reachability"].iter().all(|id| check(report, id)["result"] == "pass")
        })
        .await;
    assert_eq!(report["passed"], true, "{report}");
    let routing = check(&report, "routing");
    assert_eq!(routing["result"], "pass", "a site with a smaller one at its start: {routing}");
    assert_eq!(routing["text"].as_str().unwrap().split(' ').next(), Some("10"), "{routing}");
    // No address for callers without a site: nothing fails, and it is said.
    assert_eq!(check(&report, "location")["result"], "warn");
    assert_eq!(check(&report, "notification_test")["result"], "warn");
    let delivery = check(&report, "delivery");
    assert_eq!((&delivery["result"], &delivery["details_total"]), (&json!("warn"), &json!(2)));

    // A dead trunk is a warning while another one of the chain answers, then a failure.
    node.up(&trunks(&[("detroit_emergency", "down"), up[1], up[2]])).await;
    let report = plane
        .eventually(VERIFY, |report| check(report, "trunk_reachability")["result"] == "warn")
        .await;
    let details = check(&report, "trunk_reachability")["details"].to_string();
    assert!(details.contains("detroit_emergency is down on edge-1"), "{details}");
    let down = up.map(|(id, _)| (id, "down"));
    node.up(&trunks(&down)).await;
    let report = plane
        .eventually(VERIFY, |report| check(report, "trunk_reachability")["result"] == "fail")
        .await;
    assert_eq!(report["passed"], false);

    // A caller whom nobody could place.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let fields = [
        ("extension", json!("1009")),
        ("source", json!("10.9.9.9:5060")),
        ("location", json!("Location not registered")),
    ];
    let mut lost = event("emergency.started", Some("call-9"), &fields);
    if let Entry::Audit(lost) = &mut lost {
        lost.unix_ms = u64::try_from(now.as_millis()).unwrap();
    }
    node.store(&[lost]).await;
    let report = plane.get(VERIFY).await;
    let unlocated = check(&report, "unlocated_callers");
    assert_eq!(unlocated["result"], "warn", "{unlocated}");
    assert!(unlocated["details"][0].as_str().unwrap().starts_with("1009 from 10.9.9.9"));
    plane.stop().await;
}

#[tokio::test]
async fn karis_law_checks_fail_where_the_law_is_not_met() {
    let text = document("edge-1", "")
        .replace("mode: production", "mode: test")
        .replace("auto_notify: true", "auto_notify: false");
    let plane = Plane::start(&text).await;
    let mut body = site_body("Nowhere", 10, "+13135551000");
    for part in ["street_address", "city"] {
        body.as_object_mut().unwrap().remove(part);
    }
    plane.post(SITE, body).await;
    let report = plane.get(VERIFY).await;
    for id in ["mode", "notification", "contacts", "location"] {
        assert_eq!(check(&report, id)["result"], "fail", "{id}: {report}");
    }
    let detail = check(&report, "location")["details"][0].as_str().unwrap();
    assert_eq!(detail, "site 1 (Nowhere): no street, no city");
    plane.stop().await;
}
