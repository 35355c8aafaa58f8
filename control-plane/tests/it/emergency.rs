//! Contacts, notifications, reports (compliance-systems 2.3, 7).

use ravelin_contract::{cdr::CdrKind, chain::Entry, link::ApplyResult};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{Node, Plane, cdr, document, event, site_body};

#[tokio::test]
async fn contacts_come_and_go() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let contacts = "/api/emergency/contacts";
    assert_eq!(plane.get(contacts).await["total"], 2, "those of the config");
    let body = json!({"name": "Night Guard", "phone": "+13135550100", "email": "g@x.example",
        "priority": 2, "notification_methods": ["sms", "email"]});
    let (status, added) = plane.post(contacts, body.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{added}");
    assert_eq!(added["contact"]["id"], "night_guard_+13135550100");
    assert_eq!(plane.post(contacts, body).await.0, StatusCode::CONFLICT);
    assert_eq!(plane.get(&format!("{contacts}?priority=1")).await["total"], 2);
    assert_eq!(plane.get(contacts).await["total"], 3);
    let (status, answer) = plane
        .post(contacts, json!({"name": " ", "priority": 9, "notification_methods": ["page"]}))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let fields: Vec<&String> = answer["fields"].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["name", "notification_methods", "priority"]);
    let path = format!("{contacts}/night_guard_+13135550100");
    assert_eq!(plane.call(Method::DELETE, &path, None).await.0, StatusCode::OK);
    assert_eq!(plane.call(Method::DELETE, &path, None).await.0, StatusCode::NOT_FOUND);
    let plane = plane.restart().await;
    assert_eq!(plane.get(contacts).await["total"], 2);
    plane.stop().await;
}

#[tokio::test]
async fn an_emergency_call_queues_one_notification_and_claims_no_delivery() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let mut node = Node::connect(&plane.data(), "edge-1").await;
    node.apply(ApplyResult::Active).await;
    let fields = [
        ("class", json!("emergency")),
        ("from", json!("1001")),
        ("callback", json!("+13135551000")),
        ("location", json!("1234 Industrial Blvd, Detroit, MI")),
    ];
    // The same call is told twice, and an address test once.
    node.store(&[
        event("emergency.notify", Some("call-1"), &fields),
        event("emergency.notify", Some("call-1"), &fields),
        event("emergency.notify", Some("call-2"), &[("class", json!("test_address"))]),
    ])
    .await;
    let told = |one: &serde_json::Value| one["notification_status"] == "failed";
    let path = "/api/emergency/history?call_id=call-1";
    plane.eventually(path, |all| told(&all["history"][0])).await;
    let history = plane.get("/api/emergency/history").await;
    assert_eq!(history["total"], 2, "{history}");
    let find = |call: &str| {
        history["history"].as_array().unwrap().iter().find(|one| one["call_id"] == call).unwrap()
    };
    let real = find("call-1");
    assert_eq!(real["trigger_type"], "911_call");
    assert_eq!(real["details"]["callback"], "+13135551000");
    assert_eq!(real["contacts_notified"], json!([]));
    let deliveries = real["deliveries"].as_array().unwrap();
    assert_eq!(deliveries.len(), 2);
    for delivery in deliveries {
        assert_eq!(delivery["state"], "failed");
        assert_eq!(delivery["reason"], "no adapter configured", "{delivery}");
        assert!(delivery["delivered_at"].is_null());
    }
    let test = find("call-2");
    assert_eq!((&test["trigger_type"], &test["deliveries"]), (&json!("test"), &json!([])));

    let (status, done) = plane.call(Method::POST, "/api/emergency/test", None).await;
    assert_eq!((status, &done["queued"]), (StatusCode::OK, &json!(2)), "{done}");
    let trigger = "/api/emergency/trigger";
    let body = json!({"trigger_type": "panic_button", "details": {"place": "lobby"}});
    assert_eq!(plane.post(trigger, body).await.0, StatusCode::OK);
    for bad in [
        json!({"type": "test"}),
        json!({"trigger_type": "test"}),
        json!({"trigger_type": "manual", "details": "text"}),
    ] {
        assert_eq!(plane.post(trigger, bad).await.0, StatusCode::BAD_REQUEST);
    }
    let plane = plane.restart().await;
    let history = plane.get("/api/emergency/history?limit=1").await;
    assert_eq!((&history["total"], &history["history"].as_array().unwrap().len()), (&json!(4), &1));
    plane.stop().await;
}

#[tokio::test]
async fn the_monthly_reports_say_what_was_recorded() {
    let plane = Plane::start(&document("edge-1", "")).await;
    plane.post("/api/e911/multi-site/config", site_body("Detroit", 10, "+13135551000")).await;
    let mut node = Node::connect(&plane.data(), "edge-1").await;
    node.apply(ApplyResult::Active).await;
    let mut call = cdr("sos-1", 1);
    call.emergency = true;
    call.class = "emergency".to_owned();
    call.site = Some("Detroit".to_owned());
    call.outbound_trunk = Some("detroit_backup".to_owned());
    let attempt = |number: u16, trunk: &str| {
        let mut attempt = call.clone();
        attempt.kind = CdrKind::Attempt;
        attempt.attempt = number;
        attempt.outbound_trunk = Some(trunk.to_owned());
        attempt
    };
    let mut lost = call.clone();
    lost.call = "sos-2".to_owned();
    lost.site = None;
    lost.outbound_trunk = None;
    lost.status = 503;
    lost.answer_ms = None;
    let mut january = call.clone();
    january.call = "sos-3".to_owned();
    january.start_unix_ms = 1_735_689_600_000;
    node.store(&[
        Entry::Cdr(attempt(1, "detroit_emergency")),
        Entry::Cdr(attempt(2, "detroit_backup")),
        Entry::Cdr(call.clone()),
        Entry::Cdr(lost),
        Entry::Cdr(january),
        Entry::Cdr(cdr("ordinary", 5)),
    ])
    .await;
    let report = plane.get("/api/reports/emergency?month=2024-12").await;
    assert_eq!(report["total_calls"], 2, "{report}");
    assert_eq!((&report["answered"], &report["not_delivered"]), (&json!(1), &json!(1)));
    assert_eq!(report["failovers"], 1);
    assert_eq!(report["time_to_answer"]["p50_ms"], 100);
    assert_eq!(report["location_known_percentage"], 50.0);
    assert_eq!(report["calls_by_trunk"], json!({"detroit_backup": 1}));
    assert!(report["notification_success_percentage"].is_null());
    let january = plane.get("/api/reports/sites?month=2025-01&site_id=1").await;
    assert_eq!(january["total_calls"], 1);
    assert_eq!(plane.get("/api/reports/emergency?month=2024-11").await["total_calls"], 0);
    for (query, status) in [
        ("emergency?month=12-2024", 400),
        ("emergency", 400),
        ("sites?month=2024-12&site_id=9", 404),
    ] {
        let (found, _) = plane.call(Method::GET, &format!("/api/reports/{query}"), None).await;
        assert_eq!(found, status, "{query}");
    }
    plane.stop().await;
}

/// Every figure that section 7 asks for, from records as a node sends them.
#[tokio::test]
async fn reports_tell_response_times_locations_callbacks_and_every_attempt() {
    let plane = Plane::start(&document("edge-1", "")).await;
    plane.post("/api/e911/multi-site/config", site_body("Detroit", 10, "+13135551000")).await;
    plane.post("/api/e911/multi-site/config", site_body("Chicago", 20, "+13125552000")).await;
    let mut node = Node::connect(&plane.data(), "edge-1").await;
    node.apply(ApplyResult::Active).await;
    let at = |kind: &str, call: &str, mono_ms: u64, fields: &[(&str, serde_json::Value)]| {
        let mut entry = event(kind, Some(call), fields);
        if let Entry::Audit(event) = &mut entry {
            event.unix_ms = 1_734_000_000_000 + mono_ms;
            event.mono_ns = mono_ms * 1_000_000;
        }
        entry
    };
    let here = |site: u64, name: &str, rule: &str| {
        [
            ("site_id", json!(site)),
            ("site", json!(name)),
            ("site_rule", json!(rule)),
            ("location", json!("1234 Industrial Blvd, Detroit, MI")),
            ("callback", json!("+13135551000")),
            ("extension", json!("1001")),
        ]
    };
    let mut call = cdr("sos-1", 1);
    (call.emergency, call.class) = (true, "emergency".to_owned());
    call.site = Some("Detroit".to_owned());
    call.outbound_trunk = Some("detroit_backup".to_owned());
    let hop = |number: u16, trunk: &str, status: u16| {
        let mut hop = call.clone();
        (hop.kind, hop.attempt, hop.status) = (CdrKind::Attempt, number, status);
        hop.outbound_trunk = Some(trunk.to_owned());
        hop
    };
    let mut hung_up = call.clone();
    hung_up.call = "sos-2".to_owned();
    (hung_up.status, hung_up.answer_ms, hung_up.cause) = (487, None, 2);
    let mut lost = call.clone();
    (lost.call, lost.site) = ("sos-3".to_owned(), None);
    (lost.status, lost.answer_ms, lost.ring_ms, lost.cause) = (503, None, None, 208);
    let nowhere = [("location", json!("Location not registered")), ("extension", json!("1003"))];
    node.store(&[
        at("emergency.started", "sos-1", 1_000, &here(1, "Detroit", "address")),
        at("emergency.attempt", "sos-1", 1_003, &[("attempt", json!(1))]),
        at("emergency.notify", "sos-1", 1_003, &[]),
        at("emergency.attempt", "sos-1", 3_003, &[("attempt", json!(2))]),
        Entry::Cdr(hop(1, "detroit_emergency", 503)),
        Entry::Cdr(hop(2, "detroit_backup", 200)),
        Entry::Cdr(call.clone()),
        at("emergency.started", "sos-2", 5_000, &here(1, "Detroit", "pinned")),
        at("emergency.attempt", "sos-2", 5_001, &[("attempt", json!(1))]),
        Entry::Cdr(hung_up),
        at("emergency.started", "sos-3", 9_000, &nowhere),
        Entry::Cdr(lost),
        // Its node died: there is no record of the end.
        at("emergency.started", "sos-4", 9_500, &here(2, "Chicago", "address")),
        at("emergency.blocked", "test-1", 9_900, &[]),
    ])
    .await;
    let report = plane.get("/api/reports/emergency?month=2024-12").await;
    let expect = |key: &str, value: serde_json::Value| {
        assert_eq!(report[key], value, "{key}: {report}");
    };
    expect("total_calls", json!(4));
    expect("answered", json!(1));
    expect("abandoned", json!(1));
    expect("not_delivered", json!(1));
    expect("no_record", json!(1));
    expect("blocked_in_test_mode", json!(1));
    let spread = json!({"count": 2, "p50_ms": 1, "p99_ms": 3, "max_ms": 3});
    expect("time_to_invite_out", spread);
    expect("location_known_percentage", json!(75.0));
    expect("location_by_source", json!({"address": 2, "pinned": 1, "none": 1}));
    expect("elins", json!({"+13135551000": 3}));
    expect("failovers", json!(1));
    expect("notifications", json!(1));
    expect("from", json!("2024-12-01T00:00:00Z"));
    expect("to", json!("2025-01-01T00:00:00Z"));
    let calls: Vec<_> =
        report["calls"].as_array().unwrap().iter().map(|one| one["outcome"].clone()).collect();
    assert_eq!(calls.len(), 4);
    for outcome in ["answered", "abandoned", "not_delivered", "no_record"] {
        assert!(calls.contains(&json!(outcome)), "{outcome}: {calls:?}");
    }
    let hops = report["hops"].as_array().unwrap();
    let sent: Vec<_> = hops.iter().map(|hop| (&hop["trunk"], &hop["invite_out_ms"])).collect();
    assert_eq!(
        sent,
        [(&json!("detroit_emergency"), &json!(3)), (&json!("detroit_backup"), &json!(2003))]
    );

    let sites = plane.get("/api/reports/sites?month=2024-12").await;
    let lines: Vec<_> = sites["sites"]
        .as_array()
        .unwrap()
        .iter()
        .map(|site| (site["site_name"].clone(), site["calls"].clone()))
        .collect();
    assert_eq!(
        lines,
        [(json!("Detroit"), json!(2)), (json!("Chicago"), json!(1)), (json!("unknown"), json!(1))]
    );
    let one = plane.get("/api/reports/sites?month=2024-12&site_id=1").await;
    assert_eq!((&one["total_calls"], &one["notifications"]), (&json!(2), &json!(1)));
    let other = plane.get("/api/reports/sites?month=2024-12&site_id=2").await;
    assert_eq!((&other["total_calls"], &other["notifications"]), (&json!(1), &json!(0)));
    // A site that was removed since still has its calls.
    plane.call(Method::DELETE, "/api/e911/multi-site/config/1", None).await;
    let gone = plane.get("/api/reports/sites?month=2024-12&site_id=1").await;
    assert_eq!(gone["total_calls"], 2);
    plane.stop().await;
}
