//! Locations of extensions under their older names (compliance-systems 3.2, M3, M4).

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{Plane, document, site_body};

const SITE: &str = "/api/e911/multi-site/config";
const BASE: &str = "/api/framework/nomadic-e911";

#[tokio::test]
async fn an_extension_is_located_and_its_history_is_kept() {
    let plane = Plane::start(&document("edge-1", "")).await;
    plane.post(SITE, site_body("Detroit", 10, "+13135551000")).await;
    let mut chicago = site_body("Chicago", 20, "+13125552000");
    chicago["street_address"] = json!("5678 Warehouse Dr");
    chicago["city"] = json!("Chicago");
    chicago["state"] = json!("IL");
    plane.post(SITE, chicago).await;
    let (status, answer) = plane.call(Method::GET, &format!("{BASE}/location/1001"), None).await;
    assert_eq!((status, &answer["error"]), (StatusCode::NOT_FOUND, &json!("Location not found")));
    assert_eq!(plane.get(&format!("{BASE}/history")).await["history"], json!([]));

    // By name with the address of the site, by an address in its range, by number.
    let update = format!("{BASE}/update-location/1001");
    let body = json!({"location_name": "Detroit", "city": "Detroit", "country": "USA"});
    let (status, done) = plane.post(&update, body).await;
    assert_eq!((status, &done["success"]), (StatusCode::OK, &json!(true)), "{done}");
    let place = plane.get(&format!("{BASE}/location/1001")).await;
    assert_eq!(place["location_name"], "Detroit");
    assert_eq!(place["street_address"], "1234 Industrial Blvd");
    assert_eq!(place["detection_method"], "assigned");
    let (status, _) = plane.post(&update, json!({"ip_address": "192.168.20.7"})).await;
    assert_eq!(status, StatusCode::OK);
    let place = plane.get(&format!("{BASE}/location/1001")).await;
    assert_eq!(
        (&place["location_name"], &place["ip_address"]),
        (&json!("Chicago"), &json!("192.168.20.7"))
    );
    let (status, _) =
        plane.post(&format!("{BASE}/update-location/1002"), json!({"site_id": 1})).await;
    assert_eq!(status, StatusCode::OK);

    // The address that a call comes from wins over an assignment, not over a pin.
    let detect = format!("{BASE}/detect-location/1001");
    let (_, found) = plane.post(&detect, json!({"ip_address": "192.168.10.55"})).await;
    assert_eq!((&found["location_name"], &found["rule"]), (&json!("Detroit"), &json!("address")));
    plane.post("/api/e911/extension-site", json!({"extension": "1002", "site_id": 2})).await;
    let place = plane.get(&format!("{BASE}/location/1002")).await;
    assert_eq!(
        (&place["location_name"], &place["detection_method"]),
        (&json!("Chicago"), &json!("pinned"))
    );
    let (status, answer) =
        plane.post(&format!("{BASE}/update-location/1002"), json!({"site_id": 1})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");

    let all = plane.get(&format!("{BASE}/locations")).await;
    assert_eq!(all["total"], 2);
    let names: Vec<_> = all["locations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["extension"].clone(), one["site_name"].clone()))
        .collect();
    assert_eq!(names, [(json!("1001"), json!("Chicago")), (json!("1002"), json!("Chicago"))]);

    let plane = plane.restart().await;
    let history = plane.get(&format!("{BASE}/history/1001")).await;
    let history = history["history"].as_array().unwrap();
    assert_eq!(history.len(), 2);
    assert_eq!(history[0]["old_location"], "1234 Industrial Blvd, Detroit, MI");
    assert_eq!(history[0]["new_location"], "5678 Warehouse Dr, Chicago, IL");
    assert_eq!(history[1]["old_location"], json!(null));
    assert_eq!(plane.get(&format!("{BASE}/history")).await["history"].as_array().unwrap().len(), 4);
    assert_eq!(
        plane.get(&format!("{BASE}/history?limit=1")).await["history"].as_array().unwrap().len(),
        1
    );
    // A site that goes takes its extensions along: no stale location (M3).
    plane.call(Method::DELETE, &format!("{SITE}/2"), None).await;
    let (status, _) = plane.call(Method::GET, &format!("{BASE}/location/1001"), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    plane.stop().await;
}

/// A location that no PSAP could be told is refused with the field that is wrong.
#[tokio::test]
async fn a_location_that_is_no_site_is_refused_by_field() {
    let plane = Plane::start(&document("edge-1", "")).await;
    plane.post(SITE, site_body("Detroit", 10, "+13135551000")).await;
    let version = plane.get("/api/config").await["version"].clone();
    let at = |extension: &str| format!("{BASE}/update-location/{extension}");
    for (extension, body, status, field) in [
        ("1001", json!({}), 400, "location_name"),
        ("1001", json!({"location_name": "Atlantis"}), 400, "location_name"),
        ("1001", json!({"ip_address": "zz"}), 400, "ip_address"),
        ("1001", json!({"ip_address": "8.8.8.8"}), 400, "ip_address"),
        ("1001", json!({"site_id": 1, "city": "Chicago"}), 400, "city"),
        ("1001", json!({"site_id": 1, "colour": "red"}), 400, "colour"),
        ("911", json!({"site_id": 1}), 400, "extension"),
        ("a%20b", json!({"site_id": 1}), 400, "extension"),
    ] {
        let (found, answer) = plane.post(&at(extension), body.clone()).await;
        assert_eq!(found, status, "{extension} {body}: {answer}");
        assert!(answer["fields"][field].is_string(), "{extension} {body}: {answer}");
    }
    assert_eq!(plane.post(&at("1001"), json!({"site_id": 9})).await.0, 404);
    assert_eq!(plane.get("/api/config").await["version"], version, "nothing was put in force");
    plane.stop().await;
}
