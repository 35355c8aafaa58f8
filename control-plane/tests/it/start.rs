//! Start, files, restart, refusal of bad config.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use ravelin_contract::{chain::Entry, link::ApplyResult};
use ravelin_control::{ControlError, ControlOptions};
use reqwest::{Method, StatusCode};

use crate::support::{Node, PATIENCE, Plane, TempDir, cdr, document, start_server};

#[tokio::test]
async fn first_start_makes_the_data_directory_and_one_private_token() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let data = plane.data();
    let mode =
        |path: &str| std::fs::metadata(data.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("admin.token"), 0o600);
    assert_eq!(mode("run"), 0o700);
    assert_eq!(mode("run/link.sock"), 0o600);
    assert_eq!(mode("certs/link-ca.key"), 0o600);
    assert!(data.join("ravelin.db").exists() && data.join("snapshots").is_dir());
    assert!(plane.admin.len() > 64 && plane.admin.starts_with("rvl_"));

    let health = plane.http.get(format!("{}/api/health", plane.base)).send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
    let health: serde_json::Value = health.json().await.unwrap();
    assert_eq!(health["status"], "ok");
    assert_eq!(health["config_version"], 1);
    assert_eq!(health["deployment"]["mode"], "production");
    assert_eq!(health["store"], "sqlite");

    // The token survives a restart, and no second one is made.
    let before = plane.admin.clone();
    let plane = plane.restart().await;
    assert_eq!(plane.admin, before);
    assert_eq!(plane.get("/api/tokens").await["tokens"].as_array().unwrap().len(), 1);
    plane.stop().await;
}

/// The edge may have made a folder before, open to all: sockets and keys lie in these.
#[tokio::test]
async fn folders_that_were_open_to_all_are_closed() {
    let dir = TempDir::new();
    let data = dir.path().join("data");
    let mode =
        |path: &str| std::fs::metadata(data.join(path)).unwrap().permissions().mode() & 0o777;
    for name in ["run", "certs"] {
        std::fs::create_dir_all(data.join(name)).unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(data.join(name), open).unwrap();
    }
    let plane = Plane::start_in(dir, None).await;
    assert_eq!((mode("run"), mode("certs")), (0o700, 0o700));
    plane.stop().await;
}

#[tokio::test]
async fn a_second_control_plane_on_the_same_data_is_refused() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let second = start_server(&plane.dir, None).await;
    assert!(matches!(second, Err(ControlError::AlreadyRunning { .. })), "{second:?}");
    plane.stop().await;
}

#[tokio::test]
async fn a_bad_config_file_is_refused_with_every_path_and_line() {
    let dir = TempDir::new();
    let file = dir.path().join("ravelin.yml");
    let bad = document("edge-1", "")
        .replace("role: customer", "role: nonsense")
        .replace("  mode: production", "  mode: production\n  colour: red");
    std::fs::write(&file, bad).unwrap();
    let error = start_server(&dir, Some(file)).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ControlError::Config { .. }), "{text}");
    assert!(text.contains("deployment") && text.contains("colour"), "{text}");
    assert!(text.contains("line "), "{text}");

    // Meaning is checked too: a route to a trunk that does not exist.
    let file = dir.path().join("ravelin.yml");
    let bad = document("edge-1", "").replace("trunks: [carrier]", "trunks: [nowhere]");
    std::fs::write(&file, bad).unwrap();
    let error = start_server(&dir, Some(file)).await.unwrap_err();
    assert!(error.to_string().contains("routes[0]"), "{error}");
}

#[tokio::test]
async fn the_config_file_is_imported_once_and_again_when_it_changed() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let file = plane.dir.path().join("ravelin.yml");

    // An edit through the API is not undone by a restart with the same file.
    let changed = document("edge-1", "").replace("+1313555*", "+1313556*");
    let (status, staged) = plane.send(Method::PUT, "/api/config", &changed).await;
    assert_eq!(status, StatusCode::OK, "{staged}");
    let (status, _) = plane.post("/api/config/activate", serde_json::json!({"version": 2})).await;
    assert_eq!(status, StatusCode::OK);
    let plane = plane.restart().await;
    let config = plane.get("/api/config").await;
    assert_eq!((&config["version"], &config["document"]), (&2.into(), &changed.into()));

    // A changed file is a new version, in force.
    let newer = document("edge-2", "");
    std::fs::write(&file, &newer).unwrap();
    let plane = plane.restart().await;
    let config = plane.get("/api/config").await;
    assert_eq!((&config["version"], &config["document"]), (&3.into(), &newer.into()));
    assert_eq!(config["source"], "file");
    plane.stop().await;
}

/// Where the killed control plane listens.
const CHILD_LISTEN: &str = "127.6.0.50:18080";
const CHILD_VARIABLE: &str = "RAVELIN_CONTROL_CHILD";

/// Not a test of its own: the process that [`what_was_acknowledged_survives_kill_9`] kills.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD_VARIABLE) else { return };
    let dir = std::path::PathBuf::from(dir);
    let config = Some(dir.join("ravelin.yml"));
    ravelin_control::run(ControlOptions { config, data: dir.join("data") }).unwrap();
}

fn spawn_child(dir: &TempDir) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["start::child", "--exact", "--nocapture"])
        .env(CHILD_VARIABLE, dir.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

async fn wait_for(http: &reqwest::Client) {
    let up = async {
        while http.get(format!("http://{CHILD_LISTEN}/api/health")).send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, up).await.expect("the child serves");
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = TempDir::new();
    let text = document("edge-1", "").replace("127.6.0.1:8080", CHILD_LISTEN);
    std::fs::write(dir.path().join("ravelin.yml"), text).unwrap();
    let http = reqwest::Client::new();
    let mut child = spawn_child(&dir);
    wait_for(&http).await;

    let token = std::fs::read_to_string(dir.path().join("data/admin.token")).unwrap();
    let body = serde_json::json!({"control_id": "CC6.1", "test_results": "Passed - kill"});
    let url = format!("http://{CHILD_LISTEN}/api/framework/compliance/soc2/control");
    let saved = http.post(url).bearer_auth(token.trim()).json(&body).send().await.unwrap();
    assert_eq!(saved.status(), StatusCode::OK);
    let mut node = Node::connect(&dir.path().join("data"), "edge-1").await;
    node.apply(ApplyResult::Active).await;
    let entries: Vec<Entry> = (0..500).map(|n| Entry::Cdr(cdr(&format!("c{n}"), n))).collect();
    assert_eq!(node.store(&entries).await, 500);
    child.kill().unwrap();
    child.wait().unwrap();

    // The same data, in a process that was not killed: nothing is missing, every chain is whole,
    // and the node learns where to go on.
    let file = dir.path().join("ravelin.yml");
    let plane = Plane::start_in(dir, Some(file)).await;
    let controls = plane.get("/api/framework/compliance/soc2/controls").await;
    let controls = controls["controls"].as_array().unwrap();
    let control = controls.iter().find(|one| one["control_id"] == "CC6.1").unwrap();
    assert_eq!(control["test_results"], "Passed - kill");
    let verified = plane.get("/api/audit/verify").await;
    assert_eq!(verified["intact"], true, "{verified}");
    assert_eq!(plane.get("/api/cdrs?limit=1000").await["cdrs"].as_array().unwrap().len(), 500);
    let again = Node::connect(&plane.data(), "edge-1").await;
    assert_eq!(again.head, node.head);
    plane.stop().await;
}
