//! SOC 2 controls (compliance-systems 5).

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Plane, document};

const CONTROLS: &str = "/api/framework/compliance/soc2/controls";
const CONTROL: &str = "/api/framework/compliance/soc2/control";
const REPORT: &str = "/api/framework/compliance/soc2/report";

#[tokio::test]
async fn sixteen_controls_are_seeded_once_as_pending() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let all = plane.get(CONTROLS).await;
    let all = all["controls"].as_array().unwrap();
    let ids: Vec<&str> = all.iter().map(|one| one["control_id"].as_str().unwrap()).collect();
    assert_eq!(
        ids,
        [
            "CC1.1", "CC1.2", "CC2.1", "CC3.1", "CC5.1", "CC6.1", "CC6.2", "CC6.6", "CC7.1",
            "CC7.2", "A1.1", "A1.2", "PI1.1", "PI1.2", "C1.1", "C1.2"
        ]
    );
    for one in all {
        assert_eq!(one["implementation_status"], "pending");
        assert!(one["last_tested"].is_null() && one["test_results"].is_null());
    }
    for (category, count) in [
        ("Security", 10),
        ("Availability", 2),
        ("Processing%20Integrity", 2),
        ("Confidentiality", 2),
    ] {
        let some = plane.get(&format!("{CONTROLS}?category={category}")).await;
        assert_eq!(some["controls"].as_array().unwrap().len(), count, "{category}");
    }
    let (status, _) = plane.call(Method::GET, &format!("{CONTROLS}?category=Magic"), None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let report = plane.get(REPORT).await;
    assert_eq!(
        report["categories"]["Security"],
        json!({"total": 10, "implemented": 0, "tested_passing": 0})
    );
    assert_eq!((&report["total_controls"], &report["pending"]), (&json!(16), &json!(16)));
    assert_eq!(report["compliance_percentage"], 0.0);
    assert!(report["last_audit_date"].is_null());
    plane.stop().await;
}

/// C1: what was written is there after any number of reads and after a restart.
#[tokio::test]
async fn reading_changes_nothing() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let body = json!({
        "control_id": "CC6.1",
        "control_category": "Security",
        "description": "Access control implementation",
        "implementation_status": "not_implemented",
        "test_results": "Failed - 2024-12-15"
    });
    let (status, saved) = plane.post(CONTROL, body).await;
    assert_eq!((status, &saved["success"]), (StatusCode::OK, &json!(true)), "{saved}");
    let before = plane.get(CONTROLS).await;
    let audit = plane.get("/api/audit/events?kind=soc2.control.updated").await;
    for _ in 0..100 {
        assert_eq!(plane.get(CONTROLS).await, before);
        plane.get(REPORT).await;
    }
    assert_eq!(plane.get("/api/audit/events?kind=soc2.control.updated").await, audit);
    let plane = plane.restart().await;
    assert_eq!(plane.get(CONTROLS).await, before);
    let control = &before["controls"][5];
    assert_eq!(control["description"], "Access control implementation");
    assert_eq!(control["implementation_status"], "not_implemented");
    assert_eq!(control["test_results"], "Failed - 2024-12-15");
    assert!(control["last_tested"].as_str().unwrap().ends_with('Z'));
    plane.stop().await;
}

#[tokio::test]
async fn tests_and_changes_are_appended_and_logged_in_the_words_of_the_source() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let (status, saved) = plane
        .post(
            CONTROL,
            json!({"control_id": "CC8.1", "control_category": "Security",
                "description": "Change management", "implementation_status": "implemented"}),
        )
        .await;
    assert_eq!((status, &saved["registered"]), (StatusCode::OK, &json!(true)), "{saved}");
    for results in ["Failed", "Passed"] {
        let (status, _) =
            plane.post(CONTROL, json!({"control_id": "CC8.1", "test_results": results})).await;
        assert_eq!(status, StatusCode::OK);
    }
    let history = plane.get(&format!("{CONTROL}/CC8.1/history")).await;
    let outcomes: Vec<&Value> =
        history["tests"].as_array().unwrap().iter().map(|test| &test["outcome"]).collect();
    assert_eq!(outcomes, ["failed", "passed"]);
    assert_eq!(history["changes"].as_array().unwrap().len(), 3);
    assert!(history["changes"][0]["before"].is_null());
    assert_eq!(history["changes"][2]["before"]["test_results"], "Failed");

    let events = plane.get("/api/audit/events?limit=50").await;
    let texts: Vec<&str> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| event["fields"]["text"].as_str())
        .collect();
    assert!(texts.contains(&"[SOC2] Control CC8.1 registered - Status: implemented"), "{texts:?}");
    assert!(texts.contains(&"[SOC2] Control CC8.1 tested - Results: Passed"), "{texts:?}");
    assert!(texts.contains(&"[SOC2] Control CC8.1 updated - Status: implemented"), "{texts:?}");

    let report = plane.get(REPORT).await;
    assert_eq!((&report["implemented"], &report["tested_passing"]), (&json!(1), &json!(1)));
    assert_eq!(report["compliance_percentage"], 5.9);
    plane.stop().await;
}

#[tokio::test]
async fn every_fault_of_a_control_is_named() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let cases = [
        (json!({}), vec!["control_id"]),
        (
            json!({"control_id": "", "control_category": "Privacy",
                "implementation_status": "done"}),
            vec!["control_category", "control_id", "implementation_status"],
        ),
        (json!({"control_id": "X1"}), vec!["control_category"]),
        (json!({"control_id": "CC6.1", "status": "implemented"}), vec!["status"]),
        (json!({"control_id": "CC6.1", "description": "a\u{0}b"}), vec!["description"]),
        (json!({"control_id": 7}), vec!["control_id"]),
    ];
    for (body, expected) in cases {
        let (status, answer) = plane.post(CONTROL, body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
        let fields: Vec<&String> = answer["fields"].as_object().unwrap().keys().collect();
        assert_eq!(fields, expected, "{body}: {answer}");
    }
    // Somebody else was faster.
    let (status, _) = plane
        .post(CONTROL, json!({"control_id": "CC6.1", "description": "a", "revision": 1}))
        .await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = plane
        .post(CONTROL, json!({"control_id": "CC6.1", "description": "b", "revision": 1}))
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    plane.stop().await;
}

#[tokio::test]
async fn the_date_of_the_last_audit_is_one_that_was_recorded() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let audit = "/api/framework/compliance/soc2/audit";
    let (status, answer) = plane.post(audit, json!({"audit_date": "15.12.2024"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(answer["fields"].as_object().unwrap().len(), 2, "{answer}");
    let body = json!({"audit_date": "2024-12-15", "auditor": "A. Auditor"});
    let (status, _) = plane.post(audit, body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(plane.get(REPORT).await["last_audit_date"], "2024-12-15");
    plane.stop().await;
}
