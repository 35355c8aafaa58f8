//! One connection of one node, from its hello to its end.

use std::{io, sync::Arc, time::Duration};

use ravelin_contract::{
    PROTOCOL_VERSION,
    audit::Severity,
    chain::to_hex,
    link::{ApplyResult, Down, FRAME_MAX_BYTES, Peer, Up, other_protocol},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    frames,
    listen::Links,
    records::Batch,
    registry::{Answer, Applied, Node, NodeInfo, Registered},
};
use crate::{
    certs, clock,
    publish::Active,
    store::{EventExt, event, records},
};

/// A node that does not say hello in this time is let go.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// What a refused peer may still send, and for how long.
const REFUSED_DRAIN_BYTES: u64 = 64 * 1024;
const REFUSED_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a quiet node is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A node that is silent this long is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// A node that does not take a frame in this time is taken for dead.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);
/// A pushed config that is not answered in this time is given up on, so that a newer one may go.
const APPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// Serves one stream. `identity` is the name that the transport proved (certificate); `None` on the
/// Unix socket, whose peers are this machine's own user.
pub(super) async fn serve<S>(stream: S, identity: Option<String>, links: Arc<Links>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut read, write) = tokio::io::split(stream);
    let mut buffer = Vec::new();
    let hello =
        timeout(HELLO_TIMEOUT, frames::read(&mut read, frames::HELLO_MAX_BYTES, &mut buffer));
    let refusal = match hello.await {
        Ok(Ok(Some(hello))) => match admit(hello, identity, &links).await {
            Ok((registered, welcome, name)) => {
                let node = Arc::clone(&registered.node);
                let link_id = registered.link_id;
                note(&links, "node.connected", Severity::Info, &name, "").await;
                let end = run(read, write, buffer, registered, welcome, &links).await;
                let reason = end.err().map_or_else(|| "closed".to_owned(), |end| end.to_string());
                node.disconnected(link_id, &reason);
                note(&links, "node.disconnected", Severity::Warning, &name, &reason).await;
                return;
            }
            Err(reason) => reason,
        },
        Ok(Ok(None)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no hello in time".to_owned(),
    };
    links.counters.links_refused.inc();
    tracing::warn!(%refusal, "a link was refused");
    refuse(read, write, refusal).await;
}

/// Tells the peer why, and reads what it still sends: closing on unread octets would reset the
/// stream, and the reason with it.
async fn refuse<R, W>(read: R, mut write: W, reason: String)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let told = async {
        frames::write(&mut write, &Down::Refused { reason }).await?;
        write.shutdown().await?;
        tokio::io::copy(&mut read.take(REFUSED_DRAIN_BYTES), &mut tokio::io::sink()).await
    };
    // The peer may be gone; there is nobody else to tell.
    let _ = timeout(REFUSED_DRAIN_TIMEOUT, told).await;
}

/// A sign in the audit trail; losing it does not end the link.
async fn note(links: &Links, kind: &str, severity: Severity, node: &str, reason: &str) {
    let version = links.active.borrow().as_ref().map_or(0, |active| active.version);
    let event = event(kind, severity, "system", version).with("node", node).with("reason", reason);
    let stored = async {
        let mut tx = links.store.write().await?;
        tx.audit(event).await?;
        tx.commit().await
    };
    if let Err(error) = stored.await {
        links.counters.store_failures.inc();
        tracing::error!(%error, kind, node, "an audit event could not be stored");
    }
}

async fn admit(
    hello: Up,
    identity: Option<String>,
    links: &Links,
) -> Result<(Registered, Down, String), String> {
    let Up::Hello {
        protocol,
        node,
        software,
        active_version,
        active_sha256,
        spooled_seq,
        shards,
        driver,
        pid,
    } = hello
    else {
        return Err("the first frame must be hello".to_owned());
    };
    if protocol != PROTOCOL_VERSION {
        return Err(other_protocol(protocol, Peer::Edge));
    }
    if !certs::valid_node(&node) {
        return Err("not a name for a node".to_owned());
    }
    if identity.as_ref().is_some_and(|identity| *identity != node) {
        return Err(format!("the certificate does not belong to {node}"));
    }
    let now = clock::unix_ms();
    let info = NodeInfo {
        software,
        shards,
        driver,
        pid,
        active_version,
        active_sha256,
        spooled_seq,
        connected_ms: now,
        last_seen_ms: now,
        last_error: None,
    };
    let head = async {
        let mut reader = links.store.reader().acquire().await?;
        records::head(&mut reader, &node).await
    };
    let head = head
        .await
        .map_err(|error| error.to_string())?
        .map_or(records::StoredHead::START.head, |stored| stored.head);
    let Some(registered) = links.registry.register(&node, info) else {
        return Err("too many nodes are known already".to_owned());
    };
    let welcome = Down::Welcome {
        protocol: PROTOCOL_VERSION,
        stored_seq: head.seq,
        stored_hash: to_hex(&head.hash),
    };
    Ok((registered, welcome, node))
}

/// Names of nodes: 1-63 characters of `a-z A-Z 0-9 - _ .` (contract `config`).
async fn run<R, W>(
    read: R,
    write: W,
    buffer: Vec<u8>,
    registered: Registered,
    welcome: Down,
    links: &Links,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Registered { node, link_id: _, down, closed } = registered;
    // The reader tells the writer which version was answered.
    let (answered, answers) = mpsc::channel(16);
    tokio::select! {
        end = receive(read, buffer, &node, links, answered) => end,
        end = send(write, &node, links, down, answers, welcome) => end,
        _ = replaced(closed) => Err(io::Error::other("a newer connection of this node took over")),
        () = links.stopping() => Ok(()),
    }
}

async fn replaced(closed: oneshot::Receiver<()>) {
    // Nothing is ever sent: the end of the channel is the sign.
    let _ = closed.await;
}

async fn receive<R: AsyncRead + Unpin>(
    mut read: R,
    mut buffer: Vec<u8>,
    node: &Node,
    links: &Links,
    answered: mpsc::Sender<(u64, ApplyResult)>,
) -> io::Result<()> {
    let name: Arc<str> = node.name.as_str().into();
    let receipt = node.down().ok_or_else(|| io::Error::other("replaced"))?;
    loop {
        let frame = timeout(SILENCE_MAX, frames::read(&mut read, FRAME_MAX_BYTES, &mut buffer));
        let frame = frame.await.map_err(|_| io::Error::other("the node fell silent"))??;
        let Some(frame) = frame else { return Ok(()) };
        node.seen();
        match frame {
            Up::Hello { .. } => return Err(io::Error::other("a second hello")),
            Up::Applied { version, result } => {
                answered.send((version, result)).await.map_err(io::Error::other)?;
            }
            Up::Records { records } if records.is_empty() => {}
            Up::Records { records } => {
                let batch = Batch { node: Arc::clone(&name), records, receipt: receipt.clone() };
                links.records.send(batch).await.map_err(io::Error::other)?;
            }
            Up::Metrics(report) => node.set_metrics(*report),
            Up::Calls { query, calls, more } => node.answer(query, Answer::Calls { calls, more }),
            Up::Call { query, call } => node.answer(query, Answer::Call(call)),
            Up::Ladder { query, ladder } => node.answer(query, Answer::Ladder(ladder)),
            Up::Trunks { trunks } => node.set_trunks(trunks),
            Up::Pong { .. } => {}
        }
    }
}

/// A config on its way.
struct InFlight {
    activation: u64,
    version: u64,
    sha256: String,
    deadline: Instant,
}

async fn send<W: AsyncWrite + Unpin>(
    mut write: W,
    node: &Node,
    links: &Links,
    mut down: mpsc::Receiver<Down>,
    mut answers: mpsc::Receiver<(u64, ApplyResult)>,
    welcome: Down,
) -> io::Result<()> {
    put(&mut write, &welcome).await?;
    let mut active = links.active.clone();
    active.mark_changed();
    let mut in_flight: Option<InFlight> = None;
    let mut ping = tokio::time::interval(PING_INTERVAL);
    let mut nonce = 0;
    loop {
        let give_up = in_flight.as_ref().map(|flight| flight.deadline);
        tokio::select! {
            changed = next_config(&mut active), if in_flight.is_none() => {
                let config = changed?;
                in_flight = push(&mut write, node, &config).await?;
            }
            Some((version, result)) = answers.recv() => {
                if let Some(flight) = in_flight.take_if(|flight| flight.version == version) {
                    if result == ApplyResult::Active {
                        node.set_active_sha256(&flight.sha256);
                    }
                    let applied =
                        Applied { activation: flight.activation, version, result: Some(result) };
                    node.set_applied(applied);
                }
            }
            frame = down.recv() => match frame {
                Some(frame) => put(&mut write, &frame).await?,
                None => return Err(io::Error::other("replaced")),
            },
            _ = ping.tick() => {
                nonce += 1;
                put(&mut write, &Down::Ping { nonce }).await?;
            }
            () = sleep_until(give_up.unwrap_or_else(Instant::now)), if give_up.is_some() => {
                tracing::warn!(node = %node.name, "a config push was not answered");
                in_flight = None;
            }
        }
    }
}

async fn next_config(active: &mut watch::Receiver<Option<Arc<Active>>>) -> io::Result<Arc<Active>> {
    loop {
        active.changed().await.map_err(io::Error::other)?;
        if let Some(config) = active.borrow_and_update().clone() {
            return Ok(config);
        }
    }
}

/// Sends `config` unless the node has it in force already.
async fn push<W: AsyncWrite + Unpin>(
    write: &mut W,
    node: &Node,
    config: &Active,
) -> io::Result<Option<InFlight>> {
    let info = node.info();
    if info.active_version == config.version && info.active_sha256 == config.sha256 {
        node.set_applied(Applied {
            activation: config.activation,
            version: config.version,
            result: Some(ApplyResult::Active),
        });
        return Ok(None);
    }
    let frame = Down::Config {
        version: config.version,
        sha256: config.sha256.clone(),
        document: config.document.to_string(),
    };
    put(write, &frame).await?;
    Ok(Some(InFlight {
        activation: config.activation,
        version: config.version,
        sha256: config.sha256.clone(),
        deadline: Instant::now() + APPLY_TIMEOUT,
    }))
}

async fn put<W: AsyncWrite + Unpin>(write: &mut W, frame: &Down) -> io::Result<()> {
    timeout(SEND_TIMEOUT, frames::write(write, frame))
        .await
        .map_err(|_| io::Error::other("the node does not read"))?
}
