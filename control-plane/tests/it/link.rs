//! The link under bad peers, and over mutual TLS.

use std::sync::Arc;

use ravelin_contract::{
    PROTOCOL_VERSION,
    cdr::{Party, StreamQuality},
    chain::Entry,
    config::ControlLink,
    link::{ApplyResult, Down, Up},
    view::{CallState, CallView, Ladder, LadderStep, TargetView, TrunkView},
};
use ravelin_control::{certs, datadir::DataDir};
use reqwest::{Method, StatusCode};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UnixStream},
};

use crate::support::{Node, Plane, TempDir, cdr, document, event, hello};

/// The reason that a peer is given, or the words of the end of its stream.
async fn refused(plane: &Plane, bytes: &[u8]) -> String {
    let stream = UnixStream::connect(plane.data().join("run/link.sock")).await.unwrap();
    let mut peer = Peer { stream };
    peer.stream.write_all(bytes).await.unwrap();
    peer.stream.shutdown().await.unwrap();
    peer.answer().await
}

struct Peer {
    stream: UnixStream,
}

impl Peer {
    async fn answer(&mut self) -> String {
        use tokio::io::AsyncReadExt;
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).await.unwrap();
        match bytes.get(4..).map(serde_json::from_slice) {
            Some(Ok(Down::Refused { reason })) => reason,
            other => format!("{other:?}"),
        }
    }
}

fn framed(text: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(text);
    bytes
}

#[tokio::test]
async fn peers_that_are_no_nodes_are_refused_by_name() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let named = |name: &str| framed(&serde_json::to_vec(&hello(name, 0, "")).unwrap());
    let speaks = |protocol: u32| {
        let ours = format!("\"protocol\":{PROTOCOL_VERSION},");
        let hello = serde_json::to_string(&hello("edge-1", 0, "")).unwrap();
        assert!(hello.contains(&ours));
        framed(hello.replace(&ours, &format!("\"protocol\":{protocol},")).as_bytes())
    };
    for (bytes, reason) in [
        (framed(b"not json"), "frame:"),
        (vec![0xff, 0xff, 0xff, 0xff, b'x'], "octets, at most"),
        (framed(br#"{"pong":{"nonce":1}}"#), "must be hello"),
        (speaks(PROTOCOL_VERSION - 1), "update this edge to the release of the other"),
        (speaks(PROTOCOL_VERSION + 1), "update the control plane to the release of the other"),
        (named(""), "not a name"),
        (named("control"), "not a name"),
        (named("a\nb"), "not a name"),
        (named(&"x".repeat(64)), "not a name"),
        (vec![0, 0, 0, 9, b'{'], "unexpected end of file"),
    ] {
        let given = refused(&plane, &bytes).await;
        assert!(given.contains(reason), "{given} should say {reason}");
    }
    assert_eq!(plane.get("/api/nodes").await["nodes"].as_array().unwrap().len(), 0);
    // A peer that is cut off in the middle of a frame harms nobody.
    let mut node = Node::connect(&plane.data(), "edge-1").await;
    node.apply(ApplyResult::Active).await;
    node.raw(&[0, 0, 1, 0, b'{']).await;
    drop(node);
    let mut node = Node::connect(&plane.data(), "edge-1").await;
    node.apply(ApplyResult::Active).await;
    node.store(&[event("fine", None, &[])]).await;
    plane.stop().await;
}

#[tokio::test]
async fn a_newer_connection_of_a_node_takes_over() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let mut old = Node::connect(&plane.data(), "edge-1").await;
    old.apply(ApplyResult::Active).await;
    let mut new = Node::connect(&plane.data(), "edge-1").await;
    new.apply(ApplyResult::Active).await;
    assert!(old.down().await.is_err(), "the old one is ended");
    new.store(&[event("fine", None, &[])]).await;
    let nodes = plane.get("/api/nodes").await;
    assert_eq!(nodes["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(nodes["nodes"][0]["connected"], true);
    drop(new);
    plane.eventually("/api/nodes", |all| all["nodes"][0]["connected"] == false).await;
    plane.stop().await;
}

fn view(id: &str) -> CallView {
    CallView {
        id: id.to_owned(),
        node: "edge-1".to_owned(),
        shard: 0,
        state: CallState::Answered,
        from: "a".to_owned(),
        to: "b".to_owned(),
        inbound_trunk: None,
        outbound_trunk: None,
        inbound_call_id: format!("{id}@caller"),
        outbound_call_id: None,
        class: "none".to_owned(),
        site: None,
        start_unix_ms: 1,
        age_ms: 2,
        answered_ms: None,
        packets_from_caller: 0,
        packets_from_callee: 0,
        streams: Vec::new(),
        snapshot: 1,
    }
}

#[tokio::test]
async fn live_views_are_asked_of_the_nodes() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let mut node = Node::connect(&plane.data(), "edge-1").await;
    node.apply(ApplyResult::Active).await;
    node.store(&[Entry::Cdr(cdr("over", 1))]).await;
    let mut silent = Node::connect(&plane.data(), "edge-2").await;
    silent.apply(ApplyResult::Active).await;
    let answering = tokio::spawn(async move {
        let trunk = TrunkView {
            id: "carrier".to_owned(),
            node: "edge-1".to_owned(),
            role: "carrier".to_owned(),
            state: "up".to_owned(),
            calls: 1,
            calls_limit: Some(5),
            cps_limit: None,
            refused_total: 0,
            targets: vec![TargetView { uri: "sip:x".into(), state: "up".into(), failures: 0 }],
        };
        node.up(&Up::Trunks { trunks: vec![trunk] }).await;
        loop {
            match node.down().await {
                Ok(Down::QueryCalls { query, .. }) => {
                    let calls = vec![view("live")];
                    node.up(&Up::Calls { query, calls, more: false }).await;
                }
                Ok(Down::QueryCall { query, call }) => {
                    let known = call == "live" || call == "live@caller";
                    let call = known.then(|| {
                        let heard = StreamQuality {
                            mos: Some(4.41),
                            ..StreamQuality::silent(0, Party::Caller)
                        };
                        Box::new(CallView { streams: vec![heard], ..view("live") })
                    });
                    node.up(&Up::Call { query, call }).await;
                }
                Ok(Down::QueryLadder { query, call }) => {
                    let step = LadderStep {
                        at_ms: 0,
                        peer: "caller".into(),
                        inbound: true,
                        summary: "INVITE".into(),
                    };
                    let ladder = (call == "live").then(|| Ladder {
                        call,
                        steps: vec![step],
                        omitted: 0,
                        packets: Vec::new(),
                        packets_omitted: 0,
                    });
                    node.up(&Up::Ladder { query, ladder }).await;
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    });
    let calls = plane.get("/api/calls").await;
    assert_eq!(calls["calls"][0]["id"], "live");
    assert_eq!(calls["silent"], serde_json::json!(["edge-2"]), "a silent node is named");
    drop(silent);
    plane.eventually("/api/nodes", |all| all["nodes"][1]["connected"] == false).await;
    assert_eq!(plane.get("/api/calls/live").await["call"]["state"], "answered");
    let streams = plane.get("/api/calls/live").await["call"]["streams"].clone();
    assert_eq!((&streams[0]["from"], &streams[0]["mos"]), (&"caller".into(), &4.41.into()));
    assert_eq!(plane.get("/api/calls/live@caller").await["call"]["id"], "live");
    let over = plane.get("/api/calls/over").await;
    assert!(over["call"].is_null());
    assert_eq!(over["cdrs"].as_array().unwrap().len(), 1);
    let (status, _) = plane.call(Method::GET, "/api/calls/never", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(plane.get("/api/calls/live/ladder").await["steps"][0]["summary"], "INVITE");
    let (status, _) = plane.call(Method::GET, "/api/calls/over/ladder", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let trunks =
        plane.eventually("/api/trunks", |all| !all["trunks"].as_array().unwrap().is_empty()).await;
    assert_eq!(trunks["trunks"][0]["id"], "carrier");
    let stats = plane.get("/api/stats").await;
    assert_eq!((&stats["calls"], &stats["nodes_connected"]), (&1.into(), &1.into()));
    plane.stop().await;
    answering.await.unwrap();
}

const LINK: &str = "127.6.0.60:18443";

/// The certificates are made by a first start; the config then names them.
async fn tls_plane() -> (Plane, DataDirPath) {
    let dir = TempDir::new();
    let data = DataDir::open(&dir.path().join("data")).unwrap();
    certs::ensure(&data, &[]).unwrap();
    let of_node = data.certs();
    certs::issue_node(&data.certs(), "edge-7", &of_node).unwrap();
    for name in ["../edge-7", "", "control", "edge 7"] {
        assert!(certs::issue_node(&data.certs(), name, &of_node).is_err(), "{name:?}");
    }
    drop(data);
    let text = document("edge-1", "").replace(
        "control:\n",
        &format!(
            "control:\n  link:\n    listen: {LINK}\n    certificate_path: certs/link-control.pem\n    \
             private_key_path: certs/link-control.key\n    client_ca_path: certs/link-ca.pem\n"
        ),
    );
    let file = dir.path().join("ravelin.yml");
    std::fs::write(&file, text).unwrap();
    let plane = Plane::start_in(dir, Some(file)).await;
    let data = plane.data();
    (plane, DataDirPath(data))
}

struct DataDirPath(std::path::PathBuf);

impl DataDirPath {
    async fn connect(
        &self,
        node: Option<&str>,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let certs = self.0.join("certs");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certs.join("link-ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match node {
            None => builder.with_no_client_auth(),
            Some(node) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_file(certs.join(format!("{node}.pem"))).unwrap()],
                    PrivateKeyDer::from_pem_file(certs.join(format!("{node}.key"))).unwrap(),
                )
                .unwrap(),
        };
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(certs::CONTROL_NAME).unwrap();
        connector.connect(name, TcpStream::connect(LINK).await?).await
    }
}

#[tokio::test]
async fn a_node_on_another_machine_proves_its_name_by_certificate() {
    let (plane, data) = tls_plane().await;
    assert_eq!(plane.server.as_ref().unwrap().link_address(), Some(LINK.parse().unwrap()));
    let stream = data.connect(Some("link")).await.unwrap();
    let mut node = Node::greet(stream, "edge-7", 0, "").await;
    node.apply(ApplyResult::Active).await;
    node.store(&[event("over.tls", None, &[])]).await;
    assert_eq!(plane.get("/api/nodes").await["nodes"][0]["node"], "edge-7");

    // Under another name than that of the certificate: refused.
    let stream = data.connect(Some("link")).await.unwrap();
    let mut stranger = Stranger(stream);
    let answer = stranger.greet("edge-8").await;
    assert!(answer.contains("does not belong"), "{answer}");
    // Without a certificate, and with one of the other purpose: no TLS, or nothing over it.
    for certificate in [None, Some("link-control")] {
        let answer = match data.connect(certificate).await {
            Err(error) => error.to_string(),
            Ok(stream) => Stranger(stream).greet("edge-7").await,
        };
        assert!(!answer.contains("welcome"), "{answer}");
    }
    plane.stop().await;
}

struct Stranger(tokio_rustls::client::TlsStream<TcpStream>);

impl Stranger {
    async fn greet(&mut self, name: &str) -> String {
        use tokio::io::AsyncReadExt;
        let bytes = framed(&serde_json::to_vec(&hello(name, 0, "")).unwrap());
        if let Err(error) = self.0.write_all(&bytes).await {
            return error.to_string();
        }
        let mut answer = Vec::new();
        match self.0.read_to_end(&mut answer).await {
            Err(error) if answer.is_empty() => error.to_string(),
            _ => String::from_utf8_lossy(&answer).into_owned(),
        }
    }
}

#[test]
fn configured_paths_are_relative_to_the_data_directory() {
    let dir = TempDir::new();
    let data = DataDir::open(&dir.path().join("data")).unwrap();
    let link = ControlLink {
        listen: LINK.to_owned(),
        certificate_path: "certs/a.pem".to_owned(),
        private_key_path: "/elsewhere/a.key".to_owned(),
        client_ca_path: "certs/ca.pem".to_owned(),
    };
    let identity = certs::LinkIdentity::configured(&data, &link);
    assert_eq!(identity.certificate, data.root().join("certs/a.pem"));
    assert_eq!(identity.key, std::path::Path::new("/elsewhere/a.key"));
}
