//! Tokens and roles, over every route that the API description lists.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Plane, document};

/// Routes that need no token.
const OPEN: [&str; 3] = ["/api/health", "/metrics", "/api/openapi.json"];

/// Every method and path of the description, with its placeholders filled in.
fn routes() -> Vec<(Method, String)> {
    let described: Value =
        serde_json::from_str(&ravelin_control::api::openapi::document()).unwrap();
    let mut routes = Vec::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        let filled = path
            .replace("{site_id}", "77")
            .replace("{control_id}", "CC0.0")
            .replace("{extension}", "1001")
            .replace("{id}", "nobody");
        assert!(!filled.contains('{'), "{path}");
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            routes.push((Method::from_bytes(method.as_bytes()).unwrap(), filled.clone()));
        }
    }
    assert!(routes.len() > 40, "{} routes", routes.len());
    routes
}

#[tokio::test]
async fn every_route_but_three_needs_a_token() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let wrong = format!("{}x", plane.admin);
    let (id, _) = plane.admin.strip_prefix("rvl_").unwrap().split_once('_').unwrap();
    let guessed = format!("rvl_{id}_{}", "0".repeat(64));
    for (method, path) in routes() {
        let url = format!("{}{path}", plane.base);
        let none = plane.http.request(method.clone(), &url).send().await.unwrap();
        if OPEN.contains(&path.as_str()) {
            assert_eq!(none.status(), StatusCode::OK, "{method} {path}");
            continue;
        }
        assert_eq!(none.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
        assert_eq!(none.headers()["www-authenticate"], "Bearer");
        let body: Value = none.json().await.unwrap();
        if path.starts_with("/stir/") {
            assert_eq!(body["requestError"]["policyException"]["messageId"], "POL4010", "{body}");
        } else {
            assert!(body["error"].is_string() && body["fields"].is_object(), "{body}");
        }
        for token in [wrong.as_str(), guessed.as_str(), "rvl_", "", "rvl_zz_\u{7f}"] {
            let request = plane.http.request(method.clone(), &url);
            let refused = request.header("authorization", format!("Bearer {token}")).send().await;
            // A token that is no header value does not even leave the client.
            let Ok(refused) = refused else { continue };
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{method} {path} {token}");
        }
    }
    plane.stop().await;
}

/// Which roles may use a route, as the manual has it.
fn allowed(method: &Method, path: &str) -> &'static [&'static str] {
    const ALL: &[&str] = &["operator", "auditor", "viewer"];
    const AUDIT: &[&str] = &["operator", "auditor"];
    if path.starts_with("/api/tokens") {
        return &[];
    }
    if path.starts_with("/api/audit") || path.starts_with("/api/reports") {
        return AUDIT;
    }
    if path.contains("/soc2/control/") || path.ends_with("/soc2/package") {
        return AUDIT;
    }
    if path.contains("/soc2/") && *method == Method::POST {
        return &["auditor"];
    }
    if *method == Method::GET || path.contains("detect-location") || path.ends_with("validate") {
        return ALL;
    }
    if path == "/stir/v1/verification" {
        return ALL;
    }
    &["operator"]
}

#[tokio::test]
async fn each_role_may_do_what_it_should_and_nothing_else() {
    let plane = Plane::start(&document("edge-1", "")).await;
    for role in ["operator", "auditor", "viewer"] {
        let token = plane.token(role).await;
        for (method, path) in routes() {
            if OPEN.contains(&path.as_str()) {
                continue;
            }
            // No body: what is allowed is refused for want of one, which is not 403.
            let (status, answer) = plane.call_as(&token, method.clone(), &path, None).await;
            let may = allowed(&method, &path).contains(&role);
            assert_eq!(status != StatusCode::FORBIDDEN, may, "{role} {method} {path}: {answer}");
            assert!(!status.is_server_error(), "{role} {method} {path}: {status} {answer}");
        }
    }
    plane.stop().await;
}

#[tokio::test]
async fn a_revoked_or_expired_token_is_worth_nothing() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let viewer = plane.token("viewer").await;
    let (status, _) = plane.call_as(&viewer, Method::GET, "/api/nodes", None).await;
    assert_eq!(status, StatusCode::OK);
    let id = viewer.strip_prefix("rvl_").unwrap().split('_').next().unwrap().to_owned();
    let (status, _) = plane.call(Method::DELETE, &format!("/api/tokens/{id}"), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, _) = plane.call_as(&viewer, Method::GET, "/api/nodes", None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, _) = plane.call(Method::DELETE, &format!("/api/tokens/{id}"), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    let body = json!({"name": "brief", "role": "viewer", "expires_in_s": 0});
    let (_, brief) = plane.post("/api/tokens", body).await;
    let brief = brief["secret"].as_str().unwrap();
    let (status, _) = plane.call_as(brief, Method::GET, "/api/nodes", None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);

    // The last admin cannot lock everybody out.
    let id = plane.admin.strip_prefix("rvl_").unwrap().split('_').next().unwrap().to_owned();
    let (status, _) = plane.call(Method::DELETE, &format!("/api/tokens/{id}"), None).await;
    assert_eq!(status, StatusCode::CONFLICT);
    plane.get("/api/tokens").await;
    let events = plane.get("/api/audit/events?kind=token.revoked").await;
    assert_eq!(events["events"].as_array().unwrap().len(), 1, "{events}");

    // Nothing that could be used is stored.
    let stored = std::fs::read(plane.data().join("ravelin.db")).unwrap();
    let log = std::fs::read(plane.data().join("ravelin.db-wal")).unwrap_or_default();
    let secret = plane.admin.rsplit('_').next().unwrap().as_bytes();
    for bytes in [stored, log] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
    plane.stop().await;
}

/// Who may not change the config does not learn what it keeps secret.
#[tokio::test]
async fn literal_secrets_are_shown_only_to_those_who_may_change_them() {
    let secrets = "  emergency_notification:\n    smtp_url: \"smtps://u:hunter2@mail.example\"\n    \
                   email_from: sbc@x.example\n    webhook_url: \"env:HOOK\"\ncontrol:\n";
    let text = document("edge-1", "").replace("control:\n", secrets);
    let plane = Plane::start(&text).await;
    assert_eq!(plane.get("/api/config").await["document"], text);
    for role in ["operator", "auditor", "viewer"] {
        let token = plane.token(role).await;
        let (status, config) = plane.call_as(&token, Method::GET, "/api/config", None).await;
        assert_eq!(status, StatusCode::OK);
        let shown = config["document"].as_str().unwrap();
        assert_eq!(shown.contains("hunter2"), role == "operator", "{role}: {shown}");
        assert!(shown.contains("env:HOOK") && shown.contains("sqlite:ravelin.db"), "{shown}");
    }
    // Refusals leave one sign in the audit trail, not one each.
    for _ in 0..20 {
        let (status, _) = plane.call_as("rvl_0_0", Method::GET, "/api/nodes", None).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    let signs = plane
        .eventually("/api/audit/events?kind=auth.refused", |all| {
            let counts = all["events"].as_array().unwrap().iter();
            counts.filter_map(|sign| sign["fields"]["requests"].as_u64()).sum::<u64>() == 20
        })
        .await;
    assert!(signs["events"].as_array().unwrap().len() < 20);
    plane.stop().await;
}

#[tokio::test]
async fn unknown_routes_methods_fields_and_sizes_are_refused_by_name() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let (status, _) = plane.call(Method::GET, "/api/nothing", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    // Reading must never alert anybody (compliance-systems 8.1).
    let (status, _) = plane.call(Method::GET, "/api/emergency/test", None).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    let history = plane.get("/api/emergency/history").await;
    assert_eq!(history["total"], 0);
    let body = json!({"name": "x", "role": "viewer", "colour": "red"});
    let (status, answer) = plane.post("/api/tokens", body).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer["fields"]["colour"].is_string(), "{answer}");
    let (status, _) = plane.post("/api/tokens", json!({"name": "x".repeat(300_000)})).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let text = plane
        .http
        .post(format!("{}/api/tokens", plane.base))
        .bearer_auth(&plane.admin)
        .body("name=x")
        .send()
        .await
        .unwrap();
    assert_eq!(text.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    plane.stop().await;
}

/// The description in the tree is the one that the code makes.
#[test]
fn the_checked_in_description_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let made = ravelin_control::api::openapi::document();
    if std::env::var_os("RAVELIN_WRITE_OPENAPI").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    assert!(
        kept == made,
        "docs/openapi.json differs from the code; RAVELIN_WRITE_OPENAPI=1 cargo test -p \
         ravelin-control --test it the_checked_in_description writes it"
    );
    assert!(made.contains("\"openapi\": \"3.1"));
}
