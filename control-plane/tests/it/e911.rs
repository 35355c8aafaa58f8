//! Multi-site E911 (compliance-systems 3): the routes of the source documents over the config.

use std::collections::BTreeSet;

use ravelin_contract::link::ApplyResult;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{Node, Plane, document, site_body};

const SITE: &str = "/api/e911/multi-site/config";
const SITES: &str = "/api/e911/multi-site/configs";

#[tokio::test]
async fn a_site_is_in_force_on_the_nodes_when_the_answer_comes() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let mut node = Node::connect(&plane.data(), "edge-1").await;
    node.apply(ApplyResult::Active).await;
    let body = site_body("Detroit Factory", 10, "+13135551000");
    let (answer, applied) = tokio::join!(plane.post(SITE, body), node.apply(ApplyResult::Active));
    let (status, site) = answer;
    assert_eq!(status, StatusCode::CREATED, "{site}");
    assert_eq!(site["id"], 1);
    assert_eq!(site["prefixes"].as_array().unwrap().len(), 14, "M5");
    assert_eq!(site["nodes"], json!([{"node": "edge-1", "result": "active"}]));
    assert_eq!(site["config_version"], 2);
    assert!(applied.1.contains("Detroit Factory"), "the node has the site");

    let found = plane.get(&format!("{SITE}/1")).await;
    for (key, value) in site_body("Detroit Factory", 10, "+13135551000").as_object().unwrap() {
        assert_eq!(&found[key], value, "{key}");
    }
    assert!(found["created_at"].as_str().unwrap().ends_with('Z'));
    let all = plane.get(SITES).await;
    assert_eq!(all["configs"].as_array().unwrap().len(), 1);
    assert_eq!(plane.get("/api/framework/nomadic-e911/sites").await["sites"][0], found);

    // The same table decides where a caller stands.
    let (status, place) = plane
        .post(
            "/api/framework/nomadic-e911/detect-location/1001",
            json!({"ip_address": "192.168.10.55"}),
        )
        .await;
    assert_eq!((status, &place["location_name"]), (StatusCode::OK, &json!("Detroit Factory")));
    let events = plane.get("/api/audit/events?kind=e911.site.created").await;
    assert_eq!(events["events"][0]["fields"]["after"]["elin"], "+13135551000");
    assert!(events["events"][0]["actor"].as_str().unwrap().starts_with("first-admin"));
    plane.stop().await;
}

#[tokio::test]
async fn a_site_is_changed_removed_and_its_number_not_given_again() {
    let plane = Plane::start(&document("edge-1", "")).await;
    plane.post(SITE, site_body("Detroit Factory", 10, "+13135551000")).await;
    let (status, second) = plane.post(SITE, site_body("Chicago", 20, "+13125552000")).await;
    assert_eq!((status, &second["id"]), (StatusCode::CREATED, &json!(2)), "{second}");

    let mut body = site_body("Chicago Warehouse", 21, "+13125552000");
    body["floor"] = json!("2");
    let (status, changed) = plane.call(Method::PUT, &format!("{SITE}/2"), Some(body)).await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    assert_eq!(
        (&changed["floor"], &changed["ip_range_end"]),
        (&json!("2"), &json!("192.168.21.254"))
    );
    let (status, gone) = plane.call(Method::DELETE, &format!("{SITE}/2"), None).await;
    assert_eq!((status, &gone["success"]), (StatusCode::OK, &json!(true)), "{gone}");
    for path in [format!("{SITE}/2"), format!("{SITE}/99"), format!("{SITE}/x")] {
        let (status, _) = plane.call(Method::GET, &path, None).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
    let (status, _) = plane.call(Method::DELETE, &format!("{SITE}/2"), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let body = site_body("New York", 30, "+12125553000");
    let (status, _) = plane.call(Method::PUT, &format!("{SITE}/2"), Some(body.clone())).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (_, third) = plane.post("/api/framework/nomadic-e911/create-site", body).await;
    assert_eq!(third["id"], 3, "{third}");
    let plane = plane.restart().await;
    assert_eq!(plane.get(SITES).await["configs"].as_array().unwrap().len(), 2);
    plane.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_site_is_named() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let (status, first) = plane.post(SITE, site_body("Detroit", 10, "+13135551000")).await;
    assert_eq!(status, StatusCode::CREATED, "{first}");
    let version = plane.get("/api/config").await["version"].clone();

    let (status, answer) = plane.post(SITE, json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let fields: Vec<&String> = answer["fields"].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["ip_range_end", "ip_range_start", "site_name"]);
    for (key, value, status) in [
        ("ip_range_start", json!("zz"), 400),
        ("ip_range_start", json!("192.168.11.200.1"), 400),
        ("ip_range_end", json!("2001:db8::1"), 400),
        ("elin", json!("911"), 400),
        ("emergency_trunk", json!("nowhere"), 400),
        ("elin", json!("+13135551000"), 409),
        ("colour", json!("red"), 400),
        ("site_name", json!(7), 400),
    ] {
        let mut body = site_body("Other", 11, "+13135552222");
        body[key] = value.clone();
        if key == "ip_range_start" && value == "192.168.11.200.1" {
            body["ip_range_end"] = json!("192.168.11.1");
        }
        let (found, answer) = plane.post(SITE, body).await;
        assert_eq!(found, status, "{key} = {value}: {answer}");
        assert!(!answer["fields"].as_object().unwrap().is_empty(), "{key} = {value}: {answer}");
    }
    // An equal range is refused, a smaller one inside is not (the smaller range wins).
    let (status, answer) = plane.post(SITE, site_body("Twin", 10, "+13135553333")).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    assert_eq!(plane.get("/api/config").await["version"], version, "nothing was put in force");
    let mut inner = site_body("Office", 10, "+13135554444");
    inner["ip_range_start"] = json!("192.168.10.16");
    inner["ip_range_end"] = json!("192.168.10.31");
    let (status, answer) = plane.post(SITE, inner).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let (_, place) = plane
        .post(
            "/api/framework/nomadic-e911/detect-location/1001",
            json!({"ip_address": "192.168.10.20"}),
        )
        .await;
    assert_eq!(place["location_name"], "Office");
    let detect = "/api/framework/nomadic-e911/detect-location/1001";
    let (status, _) = plane.post(detect, json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (_, unknown) = plane.post(detect, json!({"ip_address": "10.99.0.1"})).await;
    assert_eq!(unknown["needs_configuration"], true);
    let (status, _) = plane.post(detect, json!({"ip_address": "8.8.8.8"})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    plane.stop().await;
}

#[tokio::test]
async fn an_extension_is_pinned_to_a_site() {
    let plane = Plane::start(&document("edge-1", "")).await;
    plane.post(SITE, site_body("Detroit", 10, "+13135551000")).await;
    plane.post(SITE, site_body("Chicago", 20, "+13125552000")).await;
    let pin = "/api/e911/extension-site";
    let (status, done) = plane.post(pin, json!({"extension": "1001", "site_id": 2})).await;
    assert_eq!((status, &done["success"]), (StatusCode::OK, &json!(true)), "{done}");
    let (_, place) = plane
        .post(
            "/api/framework/nomadic-e911/detect-location/1001",
            json!({"ip_address": "192.168.10.55"}),
        )
        .await;
    assert_eq!((&place["location_name"], &place["rule"]), (&json!("Chicago"), &json!("pinned")));
    let (status, _) = plane.post(pin, json!({"extension": "1001", "site_id": 9})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, answer) = plane.post(pin, json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(answer["fields"].as_object().unwrap().len(), 2);
    let (status, answer) = plane.post(pin, json!({"extension": "a b", "site_id": 1})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    plane.stop().await;
}

/// Edits that come together do not lose one another.
#[tokio::test]
async fn concurrent_edits_are_all_kept() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let mut edits = tokio::task::JoinSet::new();
    for n in 0..12_u8 {
        let elin = format!("+1313555{:04}", 2000 + u16::from(n));
        let request = plane
            .http
            .post(format!("{}{SITE}", plane.base))
            .bearer_auth(&plane.admin)
            .json(&site_body(&format!("Site {n}"), 100 + n, &elin));
        edits.spawn(async move {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::CREATED);
            let site: serde_json::Value = response.json().await.unwrap();
            site["id"].as_u64().unwrap()
        });
    }
    let ids: BTreeSet<u64> = edits.join_all().await.into_iter().collect();
    assert_eq!(ids.len(), 12);
    assert_eq!(plane.get(SITES).await["configs"].as_array().unwrap().len(), 12);
    assert_eq!(plane.get("/api/config").await["version"], 13);
    plane.stop().await;
}

/// Sites that stand in the config file appear in the API, whichever form they have.
#[tokio::test]
async fn sites_of_the_document_are_the_sites_of_the_api() {
    let sites = r#"  - site_name: "Detroit Factory"
    ip_range: 192.168.10.0/24
    emergency_trunks: [{ id: detroit_backup, priority: 2 }, { id: detroit_emergency, priority: 1 }]
    psap: "911"
    elin: "+13135551000"
    address: "1234 Industrial Blvd"
    city: Detroit
    state: MI
    zip_code: "48201"
"#;
    let plane = Plane::start(&document("edge-1", sites)).await;
    let site = plane.get(&format!("{SITE}/1")).await;
    assert_eq!(site["prefixes"], json!(["192.168.10.0/24"]));
    assert_eq!(site["emergency_trunk"], "detroit_emergency");
    assert_eq!((&site["psap_number"], &site["postal_code"]), (&json!("911"), &json!("48201")));

    // An edit through the API keeps them, and a new version without them removes them.
    plane.post(SITE, site_body("Chicago", 20, "+13125552000")).await;
    let all = plane.get(SITES).await;
    let names: Vec<_> =
        all["configs"].as_array().unwrap().iter().map(|s| &s["site_name"]).collect();
    assert_eq!(names, ["Detroit Factory", "Chicago"]);
    plane.send(Method::PUT, "/api/config", &document("edge-1", "")).await;
    plane.post("/api/config/activate", json!({"version": 3})).await;
    assert_eq!(plane.get(SITES).await["configs"], json!([]));
    plane.post("/api/config/rollback", json!({"version": 2})).await;
    let back = plane.get(SITES).await;
    for (site, before) in
        back["configs"].as_array().unwrap().iter().zip(all["configs"].as_array().unwrap())
    {
        for key in ["id", "site_name", "ip_range_start", "elin", "created_at", "emergency_trunks"] {
            assert_eq!(site[key], before[key], "{key}");
        }
    }
    assert_eq!(back["configs"].as_array().unwrap().len(), 2);
    plane.stop().await;
}

/// M5, M13: what is shown of a range is what the lookup table has, and a site has a country.
#[tokio::test]
async fn a_mapped_range_is_shown_as_it_is_looked_up() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let mut body = site_body("Detroit", 10, "+13135551000");
    body["ip_range_start"] = json!("::ffff:192.168.10.0");
    body["ip_range_end"] = json!("::ffff:192.168.10.255");
    let (status, site) = plane.post(SITE, body).await;
    assert_eq!(status, StatusCode::CREATED, "{site}");
    assert_eq!(site["ip_range_start"], "192.168.10.0");
    assert_eq!(site["prefixes"], json!(["192.168.10.0/24"]));
    assert_eq!(site["country"], "US");
    plane.stop().await;
}
