//! Tests of controls that need the inside, their evidence, and the audit package
//! (compliance-systems 5.3, 7, 9).

use ravelin_contract::{chain::Entry, link::ApplyResult};
use ravelin_control::soc2::package::verify;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Node, Plane, cdr, document, event, site_body};

const CONTROL: &str = "/api/framework/compliance/soc2/control";
const DRILL: &str = "/api/framework/compliance/soc2/drill";
const PACKAGE: &str = "/api/framework/compliance/soc2/package";

async fn package(plane: &Plane, from: &str, to: &str) -> Vec<u8> {
    let url = format!("{}{PACKAGE}?from={from}&to={to}", plane.base);
    let answer = plane.http.get(url).bearer_auth(&plane.admin).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "application/x-tar");
    answer.bytes().await.unwrap().to_vec()
}

fn file(bytes: &[u8], name: &str) -> String {
    // Read without the product's reader: the name stands at the head of a block.
    let at = (0..bytes.len())
        .step_by(512)
        .find(|at| bytes[*at..].starts_with(name.as_bytes()) && bytes[at + name.len()] == 0)
        .unwrap_or_else(|| panic!("no {name}"));
    let size = std::str::from_utf8(&bytes[at + 124..at + 135]).unwrap();
    let size = usize::from_str_radix(size, 8).unwrap();
    String::from_utf8(bytes[at + 512..at + 512 + size].to_vec()).unwrap()
}

#[tokio::test]
async fn the_drill_restores_and_tampers_with_a_copy_and_leaves_nothing() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let mut node = Node::connect(&plane.data(), "edge-1").await;
    node.apply(ApplyResult::Active).await;
    node.store(&[Entry::Cdr(cdr("one", 1)), event("trunk.down", None, &[])]).await;
    let before = plane.get("/api/audit/verify").await;
    let (status, drill) = plane.call(Method::POST, DRILL, None).await;
    assert_eq!(status, StatusCode::OK, "{drill}");
    let outcome = |id: &str| {
        let all = drill["tests"].as_array().unwrap();
        all.iter().find(|test| test["control_id"] == id).unwrap_or_else(|| panic!("{id}"))
    };
    for id in ["CC5.1", "CC6.6", "CC7.1", "CC7.2", "A1.2", "PI1.2", "C1.1", "C1.2"] {
        assert_eq!(outcome(id)["outcome"], "passed", "{id}: {drill}");
    }
    // This node tells no figures: it is not watched, and that is found.
    assert_eq!(outcome("A1.1")["outcome"], "failed", "{drill}");
    assert_eq!(drill["passed"], false);
    assert_eq!(plane.get("/api/audit/verify").await, before, "the store is as it was");
    let left = std::fs::read_dir(plane.data().join("run")).unwrap();
    let left = left.filter(|one| one.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(left, 0, "no copy is left");

    // A secret that others can read is found.
    use std::os::unix::fs::PermissionsExt;
    let token = plane.data().join("admin.token");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (_, drill) = plane.call(Method::POST, DRILL, None).await;
    let tests = drill["tests"].as_array().unwrap();
    let private = tests.iter().find(|test| test["control_id"] == "CC6.6").unwrap();
    assert_eq!(private["outcome"], "failed", "{private}");
    assert!(private["details"].as_str().unwrap().contains("admin.token has mode 644"));
    plane.stop().await;
}

#[tokio::test]
async fn evidence_is_appended_to_its_test_and_bounded() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let good = json!({"media_type": "application/json", "content": "{\"command\":\"drill\"}"});
    let body = json!({"control_id": "CC6.2", "test_results": "Passed - tried", "evidence": good});
    let (status, saved) = plane.post(CONTROL, body).await;
    assert_eq!(status, StatusCode::OK, "{saved}");
    plane.post(CONTROL, json!({"control_id": "CC6.2", "test_results": "FAILED - later"})).await;
    let plane = plane.restart().await;
    let history = plane.get(&format!("{CONTROL}/CC6.2/history")).await;
    let tests = history["tests"].as_array().unwrap();
    assert_eq!(tests.len(), 2);
    assert_eq!(tests[0]["evidence"][0]["size"], 19);
    // sha256 of the content, by sha256sum.
    assert_eq!(
        tests[0]["evidence"][0]["sha256"],
        "e4e36fd6cfa49ec2d73229febc026b553a456c6991d8f6906d89c37596853f50"
    );
    assert_eq!(tests[1]["evidence"], json!([]));
    let token = format!("rvl_{}_{}", "ab12".repeat(4), "0f".repeat(32));
    for (field, evidence) in [
        ("evidence.media_type", json!({"media_type": "image/png", "content": ""})),
        ("evidence.content", json!({"media_type": "text/plain", "content": "x".repeat(65_537)})),
        ("evidence.content", json!({"media_type": "text/plain", "content": token})),
        ("evidence.colour", json!({"media_type": "text/plain", "content": "", "colour": 1})),
    ] {
        let body = json!({"control_id": "CC6.2", "test_results": "Passed", "evidence": evidence});
        let (status, answer) = plane.post(CONTROL, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{field}: {answer}");
        assert!(answer["fields"][field].is_string(), "{field}: {answer}");
    }
    let alone = json!({"control_id": "CC6.2", "evidence": good});
    let (status, answer) = plane.post(CONTROL, alone).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer["fields"]["evidence"].is_string(), "{answer}");
    let history = plane.get(&format!("{CONTROL}/CC6.2/history")).await;
    assert_eq!(history["tests"].as_array().unwrap().len(), 2, "nothing of these was recorded");
    plane.stop().await;
}

#[tokio::test]
async fn the_same_state_gives_the_same_package_and_no_octet_can_change() {
    let secrets = "  emergency_notification:\n    smtp_url: \"smtps://u:hunter2@mail.example\"\n    \
                   email_from: a@x.example\n\
                   control:\n";
    let text = document("edge-1", "").replace("control:\n", secrets);
    let plane = Plane::start(&text).await;
    plane.post("/api/e911/multi-site/config", site_body("Detroit", 10, "+13135551000")).await;
    let mut node = Node::connect(&plane.data(), "edge-1").await;
    node.apply(ApplyResult::Active).await;
    let mut lost =
        event("emergency.trunk_failed", Some("call-1"), &[("password", json!("hunter2"))]);
    if let Entry::Audit(lost) = &mut lost {
        lost.unix_ms = 1_734_000_000_000;
    }
    node.store(&[lost, Entry::Cdr(cdr("one", 1))]).await;
    let evidence = json!({"media_type": "text/plain", "content": "seen\n"});
    let body = json!({"control_id": "A1.2", "test_results": "Passed - drill",
        "implementation_status": "implemented", "evidence": evidence});
    plane.post(CONTROL, body).await;

    let first = package(&plane, "2024-12-01", "2099-12-31").await;
    let whole = verify(&first, None).unwrap();
    let public = std::fs::read(plane.data().join("certs/evidence.pub")).unwrap();
    assert_eq!(verify(&first, Some(&public)), Ok(whole.clone()), "signed with this system's key");
    let manifest = whole.manifest;
    assert_eq!((manifest.controls, manifest.tests, manifest.evidence), (16, 1, 1));
    assert!(manifest.chains_intact && manifest.audit_events > 3);
    assert!(first == package(&plane, "2024-12-01", "2099-12-31").await, "asking changes nothing");
    for _ in 0..3 {
        plane.get("/api/framework/compliance/soc2/report").await;
    }
    assert!(first == package(&plane, "2024-12-01", "2099-12-31").await);
    // A period that is over does not change by what comes after it.
    let past = package(&plane, "2024-12-01", "2024-12-31").await;
    assert_eq!(verify(&past, None).unwrap().manifest.audit_events, 1);
    plane.post(CONTROL, json!({"control_id": "A1.1", "test_results": "Passed - later"})).await;
    assert!(first != package(&plane, "2024-12-01", "2099-12-31").await, "a new test is in it");

    // What is in it, and what is not.
    let whole = String::from_utf8_lossy(&first);
    assert!(!whole.contains("hunter2") && !whole.contains(&plane.admin));
    let tests: Value = serde_json::from_str(&file(&first, "tests/A1.2.json")).unwrap();
    assert_eq!(tests["tests"][0]["outcome"], "passed");
    let id = tests["tests"][0]["id"].as_u64().unwrap();
    assert_eq!(file(&first, &format!("evidence/A1.2/{id:08}.txt")), "seen\n");
    let inventory: Value = serde_json::from_str(&file(&first, "controls/inventory.json")).unwrap();
    assert_eq!(inventory["controls"].as_array().unwrap().len(), 16);
    let log: Value = serde_json::from_str(&file(&first, "changes/config.json")).unwrap();
    assert_eq!(log["activations"].as_array().unwrap().len(), 2);
    assert!(file(&first, "implementation/config.yml").contains("site_name: Detroit"));
    let report: Value = serde_json::from_str(&file(&first, "report/compliance.json")).unwrap();
    assert_eq!(report["total_controls"], 16);
    let chains: Value = serde_json::from_str(&file(&first, "audit_chain.json")).unwrap();
    assert_eq!(chains["intact"], true);
    assert!(file(&first, "changes/audit_events.jsonl").lines().count() > 3);

    // Any octet of a file, and any file.
    for at in (0..past.len()).step_by(37) {
        let mut changed = past.clone();
        changed[at] ^= 1;
        assert!(verify(&changed, None).is_err(), "octet {at}");
    }
    for length in (0..past.len()).step_by(101) {
        assert!(verify(&past[..length], None).is_err(), "{length}");
    }
    // The key outlives a restart; a package of another system has another one.
    let stranger = Plane::start(&document("edge-1", "")).await;
    let other = package(&stranger, "2024-12-01", "2024-12-31").await;
    assert!(verify(&other, None).is_ok());
    let faults = verify(&other, Some(&public)).unwrap_err();
    assert!(faults.len() == 1 && faults[0].contains("not by"), "{faults:?}");
    stranger.stop().await;
    let before = package(&plane, "2024-12-01", "2024-12-31").await;
    let plane = plane.restart().await;
    assert!(before == package(&plane, "2024-12-01", "2024-12-31").await);
    for (query, field) in [
        ("from=2024-12-01", "to"),
        ("from=2024-13-01&to=2024-12-31", "from"),
        ("from=2024-12-31&to=2024-12-01", "to"),
        ("from=1734000000000&to=2024-12-31", "from"),
    ] {
        let path = format!("{PACKAGE}?{query}");
        let (status, answer) = plane.call(Method::GET, &path, None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {answer}");
        assert!(answer["fields"][field].is_string(), "{query}: {answer}");
    }
    let viewer = plane.token("viewer").await;
    let path = format!("{PACKAGE}?from=2024-12-01&to=2024-12-31");
    let (status, _) = plane.call_as(&viewer, Method::GET, &path, None).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    plane.stop().await;
}
