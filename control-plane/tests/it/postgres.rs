//! The same control plane on PostgreSQL. Needs the server's binaries; without them the test says so
//! and counts itself as skipped.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use ravelin_contract::{chain::Entry, link::ApplyResult};
use ravelin_control::{ControlError, datadir::DataDir, store::Store};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{
    Node, PATIENCE, Plane, TempDir, cdr, document, event, site_body, start_server,
};

/// An unprivileged account: the server refuses to run as root.
const ACCOUNT: &str = "nobody";

fn binaries() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
        .collect();
    versions.sort();
    versions.pop()
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self")
        .map(|own| std::os::unix::fs::MetadataExt::uid(&own))
        .is_ok_and(|uid| uid == 0)
}

/// `program` as the unprivileged account if this is root.
fn command(program: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", ACCOUNT, "--regid", "nogroup", "--clear-groups", "--"])
            .arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// A database server in a directory of its own, on a Unix socket only.
struct Postgres {
    dir: TempDir,
    child: Child,
}

impl Postgres {
    fn start(bin: &Path) -> Result<Self, String> {
        let dir = TempDir::new();
        if is_root() {
            let done = Command::new("chown").arg(ACCOUNT).arg(dir.path()).status();
            if !done.is_ok_and(|status| status.success()) {
                return Err(format!("cannot give a directory to {ACCOUNT}"));
            }
        }
        let data = dir.path().join("pg");
        let init = command(&bin.join("initdb"))
            .args(["-A", "trust", "-U", "ravelin", "-E", "UTF8", "--no-locale", "-D"])
            .arg(&data)
            .output()
            .map_err(|error| format!("initdb: {error}"))?;
        if !init.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&init.stderr)));
        }
        let child = command(&bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(dir.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=on"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("postgres: {error}"))?;
        Ok(Self { dir, child })
    }

    fn url(&self) -> String {
        let socket = self.dir.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://ravelin@{socket}/postgres")
    }

    async fn ready(&self) {
        let socket = self.dir.path().join(".s.PGSQL.5432");
        let up = async {
            loop {
                use sqlx::Connection;
                if socket.exists() && sqlx::PgConnection::connect(&self.url()).await.is_ok() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.expect("the database server comes up");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT: stop at once; the data goes away anyhow.
        let stop = Command::new("kill").arg("-QUIT").arg(self.child.id().to_string()).status();
        if stop.is_err() {
            eprintln!("the database server could not be told to stop");
        }
        if let Err(error) = self.child.wait() {
            eprintln!("the database server: {error}");
        }
    }
}

#[tokio::test]
async fn the_control_plane_runs_on_postgresql() {
    let Some(bin) = binaries() else {
        println!("SKIPPED postgres::the_control_plane_runs_on_postgresql: no server binaries");
        return;
    };
    let postgres = match Postgres::start(&bin) {
        Ok(postgres) => postgres,
        Err(reason) => {
            println!("SKIPPED postgres::the_control_plane_runs_on_postgresql: {reason}");
            return;
        }
    };
    postgres.ready().await;
    let text = document("edge-1", "").replace("sqlite:ravelin.db", &postgres.url());
    let plane = Plane::start(&text).await;
    assert_eq!(plane.get("/api/health").await["store"], "postgres");
    assert!(!plane.data().join("ravelin.db").exists());

    // One control plane per database, whatever its data directory.
    let other = TempDir::new();
    let file = other.path().join("ravelin.yml");
    std::fs::write(&file, &text).unwrap();
    let second = start_server(&other, Some(file)).await;
    assert!(matches!(second, Err(ControlError::AlreadyRunning { .. })), "{second:?}");

    let mut node = Node::connect(&plane.data(), "edge-1").await;
    node.apply(ApplyResult::Active).await;
    let mut entries: Vec<Entry> = (0..300).map(|n| Entry::Cdr(cdr(&format!("c{n}"), n))).collect();
    // An octet that this database refuses in text must not keep the batch out.
    let mut strange = cdr("with\u{0}nul", 301);
    strange.site = Some("a\u{0}b".to_owned());
    entries.push(Entry::Cdr(strange));
    entries.push(event("emergency.notify", Some("c1"), &[("class", json!("emergency"))]));
    entries.push(event("emergency.notify", Some("c1"), &[("class", json!("emergency"))]));
    node.store(&entries).await;
    drop(node);
    let mut again = Node::connect(&plane.data(), "edge-1").await;
    again.apply(ApplyResult::Active).await;
    assert_eq!(again.head.seq, 303);
    // Delivered as far as it can be, searched, and acknowledged.
    let path = "/api/emergency/history?call_id=c1&trigger_type=911_call&from=2024-01-01&limit=5";
    let told =
        plane.eventually(path, |all| all["history"][0]["notification_status"] == "failed").await;
    assert_eq!(told["total"], 1);
    assert_eq!(told["history"][0]["deliveries"][0]["reason"], "no adapter configured");
    let body = json!({"notification_id": told["history"][0]["id"]});
    assert_eq!(plane.post("/api/emergency/acknowledge", body).await.0, StatusCode::OK);
    assert_eq!(plane.get("/api/emergency/history?site_id=3&extension=1").await["total"], 0);
    let site = "/api/e911/multi-site/config";
    let body = site_body("Detroit", 10, "+13135551000");
    let (answer, _) = tokio::join!(plane.post(site, body), again.apply(ApplyResult::Active));
    assert_eq!(answer.0, StatusCode::CREATED, "{}", answer.1);
    let saved = plane
        .post(
            "/api/framework/compliance/soc2/control",
            json!({"control_id": "CC6.1", "test_results": "Passed",
                "evidence": {"media_type": "text/plain", "content": "seen"}}),
        )
        .await;
    assert_eq!(saved.0, StatusCode::OK, "{}", saved.1);
    let contact =
        json!({"name": "Guard", "phone": "+13135550100", "notification_methods": ["sms"]});
    assert_eq!(plane.post("/api/emergency/contacts", contact).await.0, StatusCode::CREATED);

    let plane = plane.restart().await;
    assert_eq!(plane.get("/api/config").await["version"], 2);
    assert_eq!(plane.get("/api/e911/multi-site/configs").await["configs"][0]["id"], 1);
    assert_eq!(plane.get("/api/framework/compliance/soc2/report").await["tested"], 1);
    let page = plane.get("/api/cdrs?limit=200&trunk=pbx").await;
    let next = page["next"].as_str().unwrap();
    let rest = plane.get(&format!("/api/cdrs?limit=200&trunk=pbx&cursor={next}")).await;
    assert_eq!(rest["cdrs"].as_array().unwrap().len(), 101);
    let verified = plane.get("/api/audit/verify").await;
    assert_eq!(verified["intact"], true, "{verified}");
    plane.get("/api/reports/emergency?month=2024-12").await;
    plane.get("/api/reports/sites?month=2024-12&site_id=1").await;
    assert_eq!(plane.get("/api/compliance/karis-law").await["sites"], 1);
    plane.get("/api/framework/nomadic-e911/history").await;
    let soc2 = "/api/framework/compliance/soc2";
    let (status, drill) = plane.call(Method::POST, &format!("{soc2}/drill"), None).await;
    assert_eq!(status, StatusCode::OK, "{drill}");
    for (id, outcome) in [("CC5.1", "passed"), ("PI1.2", "passed"), ("A1.2", "skipped")] {
        let mut tests = drill["tests"].as_array().unwrap().iter();
        let test = tests.find(|test| test["control_id"] == id).unwrap();
        assert_eq!(test["outcome"], outcome, "{test}");
    }
    let package = async || {
        let url = format!("{}{soc2}/package?from=2024-12-01&to=2099-12-31", plane.base);
        let answer = plane.http.get(url).bearer_auth(&plane.admin).send().await.unwrap();
        answer.bytes().await.unwrap()
    };
    let first = package().await;
    let manifest = ravelin_control::soc2::package::verify(&first, None).unwrap().manifest;
    assert_eq!((manifest.tests, manifest.evidence), (1, 1));
    assert!(manifest.chains_intact && first == package().await);
    plane.get("/api/tokens").await;
    plane.get("/api/config/versions").await;
    plane.stop().await;

    // The database is free only when its server has noticed that the one before is gone.
    let (old, new) = (TempDir::new(), TempDir::new());
    let going = Store::open(&postgres.url(), &DataDir::open(old.path()).unwrap()).await.unwrap();
    let gone = tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        going.close().await;
    });
    let coming = Store::open(&postgres.url(), &DataDir::open(new.path()).unwrap()).await;
    coming.expect("the database comes free").close().await;
    gone.await.unwrap();
}
