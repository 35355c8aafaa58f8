//! What the tests share: a control plane on a fresh data directory, an HTTP client, and a node that
//! speaks the link's real frames over its real socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use ravelin_contract::{
    PROTOCOL_VERSION,
    audit::{AuditEvent, Severity},
    cdr::{Cdr, CdrKind, Party},
    chain::{Entry, Head, Record, hash_from_hex},
    link::{ApplyResult, Down, Up},
};
use ravelin_control::{ControlOptions, Server};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

/// Nothing here takes longer on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A directory that goes away with its owner.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("rvl-{}", ravelin_control::ident::uuid_v7()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// A document that compiles; `sites` is the text of its `sites:` list, or empty.
pub(crate) fn document(node: &str, sites: &str) -> String {
    let sites = if sites.is_empty() { String::new() } else { format!("sites:\n{sites}") };
    format!(
        r#"node: {node}
deployment:
  mode: production
edge:
  listeners:
    - {{ id: access-udp, realm: access, transport: udp, bind: "127.6.0.10:5060" }}
    - {{ id: core-udp, realm: core, transport: udp, bind: "127.6.0.20:5060" }}
  media:
    - {{ realm: access, address: 127.6.0.10, ports: 20000-20999 }}
    - {{ realm: core, address: 127.6.0.20, ports: 30000-30999 }}
trunks:
  - id: pbx
    realm: access
    role: customer
    sources: [127.6.1.0/24]
    targets: [{{ uri: "sip:127.6.1.1:5060" }}]
    numbers: ["+1313555*"]
  - id: carrier
    realm: core
    role: carrier
    sources: [127.6.2.0/24]
    targets: [{{ uri: "sip:127.6.2.1:5060" }}]
  - id: detroit_emergency
    realm: core
    role: emergency
    targets: [{{ uri: "sip:127.6.9.1:5060" }}]
  - id: detroit_backup
    realm: core
    role: emergency
    targets: [{{ uri: "sip:127.6.9.2:5060" }}]
  - id: emergency
    realm: core
    role: emergency
    targets: [{{ uri: "sip:127.6.9.9:5060" }}]
routes:
  - {{ id: outbound, from: [pbx], to: "*", trunks: [carrier] }}
features:
  karis_law:
    enabled: true
    auto_notify: true
    require_location: true
    emergency_trunk_id: "emergency"
    notification_contacts:
      - {{ extension: "5000", name: "Security Desk", type: "internal_call" }}
      - {{ email: "security@company.example", type: "email" }}
control:
  listen: 127.6.0.1:8080
  store: "sqlite:ravelin.db"
{sites}"#
    )
}

/// The site of the source documents, as its API body, in another place.
pub(crate) fn site_body(name: &str, third: u8, elin: &str) -> Value {
    serde_json::json!({
        "site_name": name,
        "ip_range_start": format!("192.168.{third}.1"),
        "ip_range_end": format!("192.168.{third}.254"),
        "emergency_trunk": "detroit_emergency",
        "psap_number": "911",
        "elin": elin,
        "street_address": "1234 Industrial Blvd",
        "city": "Detroit",
        "state": "MI",
        "postal_code": "48201",
        "building": "Building A",
        "floor": "1"
    })
}

/// A running control plane and how to talk to it.
pub(crate) struct Plane {
    pub(crate) dir: TempDir,
    pub(crate) server: Option<Server>,
    pub(crate) base: String,
    pub(crate) admin: String,
    pub(crate) http: reqwest::Client,
}

impl Plane {
    /// Starts with `document` as its config file.
    pub(crate) async fn start(document: &str) -> Self {
        let dir = TempDir::new();
        let file = dir.path().join("ravelin.yml");
        std::fs::write(&file, document).unwrap();
        Self::start_in(dir, Some(file)).await
    }

    pub(crate) async fn start_in(dir: TempDir, config: Option<PathBuf>) -> Self {
        let server = start_server(&dir, config).await.unwrap();
        let admin = std::fs::read_to_string(dir.path().join("data/admin.token")).unwrap();
        let base = format!("http://{}", server.api_address());
        let http = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        Self { dir, server: Some(server), base, admin: admin.trim().to_owned(), http }
    }

    /// Stops and starts again on the same data.
    pub(crate) async fn restart(mut self) -> Self {
        self.server.take().unwrap().stop().await.unwrap();
        let file = self.dir.path().join("ravelin.yml");
        // Another test that starts a process holds a copy of the lock between fork and exec.
        let lock = self.data().join("run/control.lock");
        let free = async {
            while std::fs::File::open(&lock).unwrap().try_lock().is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, free).await.expect("the lock comes free");
        Self::start_in(self.dir, file.exists().then_some(file)).await
    }

    pub(crate) async fn stop(mut self) {
        self.server.take().unwrap().stop().await.unwrap();
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// One request; the answer's status and JSON (null when the body is not JSON).
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        self.call_as(&self.admin, method, path, body).await
    }

    pub(crate) async fn call_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let mut request =
            self.http.request(method, format!("{}{path}", self.base)).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, value) = self.call(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "GET {path}: {value}");
        value
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Sends a document as YAML.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        document: &str,
    ) -> (StatusCode, Value) {
        let request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.admin)
            .header("content-type", "application/yaml")
            .body(document.to_owned());
        let response = request.send().await.unwrap();
        let status = response.status();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    /// A token of `role`.
    pub(crate) async fn token(&self, role: &str) -> String {
        let body = serde_json::json!({"name": format!("test {role}"), "role": role});
        let (status, token) = self.post("/api/tokens", body).await;
        assert_eq!(status, StatusCode::CREATED, "{token}");
        token["secret"].as_str().unwrap().to_owned()
    }

    /// Asks again until `enough` is content.
    pub(crate) async fn eventually(&self, path: &str, enough: impl Fn(&Value) -> bool) -> Value {
        let ask = async {
            loop {
                let value = self.get(path).await;
                if enough(&value) {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, ask).await.unwrap_or_else(|_| panic!("{path} never came to be so"))
    }
}

pub(crate) async fn start_server(
    dir: &TempDir,
    config: Option<PathBuf>,
) -> Result<Server, ravelin_control::ControlError> {
    let options = ControlOptions { config, data: dir.path().join("data") };
    Server::start_on(options, Some("127.0.0.1:0".parse().unwrap())).await
}

/// A node: a client of the link.
pub(crate) struct Node<S> {
    stream: S,
    pub(crate) head: Head,
}

impl Node<UnixStream> {
    /// Connects over the Unix socket and is welcomed.
    pub(crate) async fn connect(data: &Path, name: &str) -> Self {
        let stream = UnixStream::connect(data.join("run/link.sock")).await.unwrap();
        Self::greet(stream, name, 0, "").await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Node<S> {
    pub(crate) async fn greet(stream: S, name: &str, version: u64, sha256: &str) -> Self {
        let mut node = Self { stream, head: Head::START };
        node.up(&hello(name, version, sha256)).await;
        match node.down().await.unwrap() {
            Down::Welcome { stored_seq, stored_hash, .. } => {
                node.head = Head { seq: stored_seq, hash: hash_from_hex(&stored_hash).unwrap() };
            }
            other => panic!("no welcome: {other:?}"),
        }
        node
    }

    pub(crate) async fn up(&mut self, frame: &Up) {
        let bytes = serde_json::to_vec(frame).unwrap();
        self.stream.write_all(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).await.unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame that is not a ping; pings are answered.
    pub(crate) async fn down(&mut self) -> io::Result<Down> {
        loop {
            let read = async {
                let length = self.stream.read_u32().await?;
                let mut bytes = vec![0; usize::try_from(length).unwrap()];
                self.stream.read_exact(&mut bytes).await?;
                Ok::<_, io::Error>(bytes)
            };
            let bytes = timeout(PATIENCE, read).await.expect("a frame in time")?;
            match serde_json::from_slice(&bytes).unwrap() {
                // The other side may be gone already; the next read says so.
                Down::Ping { nonce } => {
                    let pong = serde_json::to_vec(&Up::Pong { nonce }).unwrap();
                    let length = u32::try_from(pong.len()).unwrap().to_be_bytes();
                    self.stream.write_all(&[&length[..], &pong].concat()).await?;
                }
                frame => return Ok(frame),
            }
        }
    }

    /// Waits for a config, answers it with `result`, and returns its version and text.
    pub(crate) async fn apply(&mut self, result: ApplyResult) -> (u64, String) {
        match self.down().await.unwrap() {
            Down::Config { version, document, .. } => {
                self.up(&Up::Applied { version, result }).await;
                (version, document)
            }
            other => panic!("no config: {other:?}"),
        }
    }

    /// Seals entries, sends them, and waits until all are stored.
    pub(crate) async fn store(&mut self, entries: &[Entry]) -> u64 {
        let records = entries.iter().map(|entry| self.head.seal(entry).unwrap()).collect();
        self.send_records(records).await
    }

    pub(crate) async fn send_records(&mut self, records: Vec<Record>) -> u64 {
        let last = records.last().unwrap().seq;
        self.up(&Up::Records { records }).await;
        loop {
            match self.down().await.unwrap() {
                Down::Stored { seq } if seq >= last => return seq,
                Down::Stored { .. } => {}
                other => panic!("no receipt: {other:?}"),
            }
        }
    }
}

pub(crate) fn hello(name: &str, version: u64, sha256: &str) -> Up {
    Up::Hello {
        protocol: PROTOCOL_VERSION,
        node: name.to_owned(),
        software: "test".to_owned(),
        active_version: version,
        active_sha256: sha256.to_owned(),
        spooled_seq: 0,
        shards: 2,
        driver: "mmsg".to_owned(),
        pid: 1,
    }
}

pub(crate) fn event(kind: &str, call: Option<&str>, fields: &[(&str, Value)]) -> Entry {
    Entry::Audit(AuditEvent {
        kind: kind.to_owned(),
        severity: Severity::Info,
        unix_ms: 1_733_000_000_000,
        mono_ns: 1,
        shard: Some(0),
        call: call.map(str::to_owned),
        actor: None,
        snapshot: 1,
        fields: fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
    })
}

/// A CDR of December 2024 unless changed.
pub(crate) fn cdr(call: &str, number: u64) -> Cdr {
    Cdr {
        kind: CdrKind::Call,
        call: call.to_owned(),
        node: "edge-1".to_owned(),
        shard: 0,
        attempt: 0,
        inbound_call_id: format!("in-{call}"),
        outbound_call_id: Some(format!("out-{call}")),
        from: "sip:+13135551001@pbx".to_owned(),
        to: "sip:911@sbc".to_owned(),
        inbound_trunk: Some("pbx".to_owned()),
        outbound_trunk: Some("carrier".to_owned()),
        source: "127.6.1.1:5060".to_owned(),
        target: Some("udp:127.6.2.1:5060".to_owned()),
        route: Some("outbound".to_owned()),
        snapshot: 1,
        start_unix_ms: 1_734_000_000_000 + number,
        ring_ms: Some(20),
        answer_ms: Some(100),
        end_ms: 5_000,
        duration_ms: 4_900,
        status: 200,
        ended_by: Party::Caller,
        cause: 0,
        cause_text: String::new(),
        emergency: false,
        class: "none".to_owned(),
        site: None,
        identity_in: None,
        identity_out: None,
        attestation_rule: None,
        media_caller: None,
        media_callee: None,
        streams: Vec::new(),
        adopted: 0,
        sdp_caller: Vec::new(),
        sdp_callee: Vec::new(),
    }
}
