//! Config: stage, validate, activate, roll back, acknowledgements of nodes.

use ravelin_contract::link::{ApplyResult, FieldError};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{Node, Plane, document};

#[tokio::test]
async fn a_node_gets_the_config_in_force_and_every_activation() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let mut node = Node::connect(&plane.data(), "edge-1").await;
    let (version, text) = node.apply(ApplyResult::Active).await;
    assert_eq!((version, text), (1, document("edge-1", "")));
    let nodes = plane.eventually("/api/nodes", |all| all["nodes"][0]["active_version"] == 1).await;
    assert_eq!(nodes["nodes"][0]["connected"], true);
    assert_eq!(nodes["nodes"][0]["driver"], "mmsg");

    let changed = document("edge-1", "").replace("+1313555*", "+1313556*");
    let (status, staged) = plane.send(Method::PUT, "/api/config?comment=try", &changed).await;
    assert_eq!(status, StatusCode::OK, "{staged}");
    assert_eq!(staged["version"], 2);
    assert_eq!(staged["restart"], json!([]));
    // Staged is not in force.
    assert_eq!(plane.get("/api/config").await["version"], 1);
    assert_eq!(plane.get("/api/config?version=2").await["comment"], "try");

    let (answer, applied) = tokio::join!(
        plane.post("/api/config/activate", json!({"version": 2})),
        node.apply(ApplyResult::Active)
    );
    assert_eq!(applied, (2, changed));
    assert_eq!(answer.0, StatusCode::OK);
    assert_eq!(answer.1["nodes"], json!([{"node": "edge-1", "result": "active"}]));

    // A node that refuses says why, and the answer carries it.
    let errors = vec![FieldError {
        path: "edge.listeners[0].bind".into(),
        line: None,
        reason: "needs a restart".into(),
    }];
    let moved = document("edge-1", "").replace("127.6.0.10:5060", "127.6.0.11:5060");
    let (_, staged) = plane.send(Method::PUT, "/api/config", &moved).await;
    assert_eq!(staged["restart"], json!(["edge.listeners"]));
    let (answer, _) = tokio::join!(
        plane.post("/api/config/activate", json!({"version": 3})),
        node.apply(ApplyResult::Refused { errors })
    );
    assert_eq!(answer.1["nodes"][0]["result"], "refused");
    assert_eq!(answer.1["nodes"][0]["errors"][0]["path"], "edge.listeners[0].bind");
    let health = plane.get("/api/health").await;
    assert_eq!(health["nodes_behind"], json!(["edge-1"]));

    // Back to 1, though 2 and 3 were in force since.
    let (answer, applied) = tokio::join!(
        plane.post("/api/config/rollback", json!({"version": 1})),
        node.apply(ApplyResult::Active)
    );
    assert_eq!((answer.0, applied.0), (StatusCode::OK, 1));
    let versions = plane.get("/api/config/versions").await;
    assert_eq!(versions["active"], 1);
    assert_eq!(versions["versions"].as_array().unwrap().len(), 3);
    let events = plane.get("/api/audit/events?kind=config.rolled_back").await;
    assert_eq!(events["events"][0]["fields"]["version"], 1);
    plane.stop().await;
}

#[tokio::test]
async fn a_node_that_has_the_config_already_is_not_sent_it_again() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let sha = plane.get("/api/config").await["sha256"].as_str().unwrap().to_owned();
    let stream = tokio::net::UnixStream::connect(plane.data().join("run/link.sock")).await.unwrap();
    let mut node = Node::greet(stream, "edge-1", 1, &sha).await;
    let (status, _) = plane.send(Method::PUT, "/api/config", &document("edge-9", "")).await;
    assert_eq!(status, StatusCode::OK);
    // The first config that it sees is version 2, not 1.
    let (answer, applied) = tokio::join!(
        plane.post("/api/config/activate", json!({"version": 2})),
        node.apply(ApplyResult::Active)
    );
    assert_eq!((applied.0, &answer.1["nodes"][0]["result"]), (2, &json!("active")));
    plane.stop().await;
}

#[tokio::test]
async fn a_silent_node_does_not_hold_an_activation_for_ever() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let _node = Node::connect(&plane.data(), "edge-1").await;
    plane.send(Method::PUT, "/api/config", &document("edge-1", "")).await;
    let (status, answer) = plane.post("/api/config/activate", json!({"version": 2})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["nodes"][0]["result"], "timeout");
    plane.stop().await;
}

#[tokio::test]
async fn a_bad_document_is_refused_whole_with_its_paths() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let bad = document("edge-1", "").replace("trunks: [carrier]", "trunks: [nowhere]");
    for (method, path) in [(Method::PUT, "/api/config"), (Method::POST, "/api/config/validate")] {
        let (status, answer) = plane.send(method, path, &bad).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        let fields = answer["fields"].as_object().unwrap();
        assert!(fields.keys().any(|key| key.starts_with("routes[0]")), "{answer}");
    }
    let versions = plane.get("/api/config/versions").await;
    assert_eq!(versions["versions"].as_array().unwrap().len(), 1, "nothing was stored");
    let (status, _) = plane.post("/api/config/activate", json!({"version": 2})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = plane.send(Method::POST, "/api/config/validate", &document("e", "")).await;
    assert_eq!(status, StatusCode::OK);
    plane.stop().await;
}

#[tokio::test]
async fn two_editors_do_not_overwrite_each_other() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let put = |tag: &'static str, text: String| {
        let request = plane
            .http
            .put(format!("{}/api/config", plane.base))
            .bearer_auth(&plane.admin)
            .header("if-match", tag)
            .body(text);
        async move { request.send().await.unwrap() }
    };
    let first = put("\"v1\"", document("edge-a", "")).await;
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(first.headers()["etag"], "\"v2\"");
    let second = put("\"v1\"", document("edge-b", "")).await;
    assert_eq!(second.status(), StatusCode::OK, "1 is still in force");
    let (status, _) = plane.post("/api/config/activate", json!({"version": 2})).await;
    assert_eq!(status, StatusCode::OK);
    // Version 3 was built on 1, which is not in force any more: it would undo version 2.
    let (status, answer) = plane.post("/api/config/activate", json!({"version": 3})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    let third = put("\"v1\"", document("edge-c", "")).await;
    assert_eq!(third.status(), StatusCode::PRECONDITION_FAILED);
    assert_eq!(put("nonsense", document("edge-c", "")).await.status(), StatusCode::BAD_REQUEST);
    plane.stop().await;
}
