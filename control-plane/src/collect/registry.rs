//! Who is connected: one entry per node, kept when the node goes away.
//!
//! The map is shared and cold; its guards never leave this file and never live across an await.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::{DashMap, mapref::entry::Entry};
use ravelin_contract::{
    link::{ApplyResult, Down, FieldError},
    metrics::MetricsReport,
    view::{CallView, Ladder, TrunkView},
};
use serde::Serialize;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use crate::clock;

/// Nodes that are known at once; one more is refused by name.
pub const NODES_MAX: usize = 256;
/// Frames that wait for one node before it counts as stuck.
pub const DOWN_QUEUE_FRAMES: usize = 1_024;

/// What a node has told about itself.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub software: String,
    pub shards: u8,
    pub driver: String,
    pub pid: u32,
    pub active_version: u64,
    pub active_sha256: String,
    pub spooled_seq: u64,
    pub connected_ms: u64,
    pub last_seen_ms: u64,
    pub last_error: Option<String>,
}

/// Which activation a node has answered, and how.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// 0: none yet.
    pub activation: u64,
    pub version: u64,
    pub result: Option<ApplyResult>,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    pub name: String,
    state: Mutex<State>,
    applied: watch::Sender<Applied>,
}

#[derive(Debug, Default)]
struct State {
    info: NodeInfo,
    link: Option<Link>,
    metrics: Option<MetricsReport>,
    trunks: Vec<TrunkView>,
    queries: HashMap<u64, oneshot::Sender<Answer>>,
}

#[derive(Debug)]
struct Link {
    id: u64,
    down: mpsc::Sender<Down>,
    /// Dropped to end the connection.
    _close: oneshot::Sender<()>,
}

/// What a node answers to a query.
#[derive(Debug)]
pub enum Answer {
    Calls { calls: Vec<CallView>, more: bool },
    Call(Option<Box<CallView>>),
    Ladder(Option<Ladder>),
}

/// What became of an activation on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct NodeResult {
    pub node: String,
    /// `active`, `refused`, `superseded` (a newer activation came first), `timeout` or
    /// `disconnected`.
    pub result: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub errors: Vec<FieldError>,
}

/// One node as the API shows it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct NodeView {
    pub node: String,
    pub connected: bool,
    pub software: String,
    pub shards: u8,
    /// Driver in use, with the reason when it is a fallback.
    pub driver: String,
    pub pid: u32,
    /// Config version in force there.
    pub active_version: u64,
    pub active_sha256: String,
    /// Highest record number in its spool when it connected.
    pub spooled_seq: u64,
    /// Highest record number of it that is stored here.
    pub stored_seq: u64,
    /// Flawed records of it so far.
    pub chain_breaks: u64,
    pub connected_at: Option<String>,
    pub last_seen_at: Option<String>,
    /// Why the last config was refused, or the last connection ended.
    pub last_error: Option<String>,
}

/// Every node by name.
#[derive(Debug, Default)]
pub struct Registry {
    nodes: DashMap<String, Arc<Node>>,
    next: AtomicU64,
}

/// A registered connection; what its task needs.
#[derive(Debug)]
pub struct Registered {
    pub node: Arc<Node>,
    pub link_id: u64,
    pub down: mpsc::Receiver<Down>,
    /// Ends when a newer connection of the same node takes over.
    pub closed: oneshot::Receiver<()>,
}

impl Registry {
    /// Takes in a connection of `name`; an older one of the same node is ended. `None` when the
    /// table is full.
    #[must_use]
    pub fn register(&self, name: &str, info: NodeInfo) -> Option<Registered> {
        let full = self.nodes.len() >= NODES_MAX;
        let node = match self.nodes.entry(name.to_owned()) {
            Entry::Occupied(entry) => Arc::clone(entry.get()),
            Entry::Vacant(_) if full => return None,
            Entry::Vacant(entry) => {
                let node = Arc::new(Node {
                    name: name.to_owned(),
                    state: Mutex::default(),
                    applied: watch::Sender::new(Applied::default()),
                });
                entry.insert(Arc::clone(&node));
                node
            }
        };
        let link_id = self.next.fetch_add(1, Ordering::Relaxed);
        let (down_tx, down) = mpsc::channel(DOWN_QUEUE_FRAMES);
        let (close, closed) = oneshot::channel();
        {
            let mut state = node.state();
            state.info = info;
            state.link = Some(Link { id: link_id, down: down_tx, _close: close });
            state.queries.clear();
        }
        node.applied.send_replace(Applied::default());
        Some(Registered { node, link_id, down, closed })
    }

    /// Every node, connected or not, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Node>> {
        let mut nodes: Vec<_> = self.nodes.iter().map(|entry| Arc::clone(entry.value())).collect();
        nodes.sort_by(|left, right| left.name.cmp(&right.name));
        nodes
    }

    /// The nodes that are connected.
    #[must_use]
    pub fn connected(&self) -> Vec<Arc<Node>> {
        self.all().into_iter().filter(|node| node.is_connected()).collect()
    }

    /// Waits until every connected node has answered `activation`, at most `patience`.
    pub async fn wait_applied(&self, activation: u64, patience: Duration) -> Vec<NodeResult> {
        let deadline = Instant::now() + patience;
        let mut results = Vec::new();
        for node in self.connected() {
            results.push(node.wait_applied(activation, deadline).await);
        }
        results
    }

    /// A number for a query.
    #[must_use]
    pub fn query_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl Node {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is one assignment: a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state().link.is_some()
    }

    /// Marks the connection `link_id` as gone; one that was replaced already changes nothing.
    pub fn disconnected(&self, link_id: u64, reason: &str) {
        let mut state = self.state();
        if state.link.as_ref().is_some_and(|link| link.id == link_id) {
            state.link = None;
            state.trunks.clear();
            state.queries.clear();
            state.info.last_error = Some(reason.to_owned());
            drop(state);
            // Wakes whoever waits for an acknowledgement.
            self.applied.send_modify(|_| ());
        }
    }

    pub fn seen(&self) {
        self.state().info.last_seen_ms = clock::unix_ms();
    }

    /// Keeps the node's answer to an activation.
    pub fn set_applied(&self, applied: Applied) {
        {
            let mut state = self.state();
            match &applied.result {
                Some(ApplyResult::Refused { errors }) => {
                    state.info.last_error = errors.first().map(crate::error::render);
                }
                _ => {
                    state.info.active_version = applied.version;
                    state.info.last_error = None;
                }
            }
        }
        self.applied.send_replace(applied);
    }

    pub fn set_active_sha256(&self, sha256: &str) {
        sha256.clone_into(&mut self.state().info.active_sha256);
    }

    pub fn set_metrics(&self, report: MetricsReport) {
        self.state().metrics = Some(report);
    }

    #[must_use]
    pub fn metrics(&self) -> Option<MetricsReport> {
        self.state().metrics.clone()
    }

    pub fn set_trunks(&self, trunks: Vec<TrunkView>) {
        self.state().trunks = trunks;
    }

    #[must_use]
    pub fn trunks(&self) -> Vec<TrunkView> {
        self.state().trunks.clone()
    }

    #[must_use]
    pub fn info(&self) -> NodeInfo {
        self.state().info.clone()
    }

    /// Hands the answer to whoever asked; one that came too late is dropped.
    pub fn answer(&self, query: u64, answer: Answer) {
        let waiting = self.state().queries.remove(&query);
        if let Some(waiting) = waiting {
            // The asker may have given up in this instant.
            let _ = waiting.send(answer);
        }
    }

    /// Asks the node; `None` if it is not connected, its queue is full, or `patience` runs out.
    pub async fn ask(&self, query: u64, frame: Down, patience: Duration) -> Option<Answer> {
        let (send, receive) = oneshot::channel();
        let down = {
            let mut state = self.state();
            let down = state.link.as_ref()?.down.clone();
            state.queries.insert(query, send);
            down
        };
        let answer = if down.try_send(frame).is_ok() {
            tokio::time::timeout(patience, receive).await.ok().and_then(Result::ok)
        } else {
            None
        };
        self.state().queries.remove(&query);
        answer
    }

    /// A sender for frames down to the node, while this connection lasts.
    #[must_use]
    pub fn down(&self) -> Option<mpsc::Sender<Down>> {
        self.state().link.as_ref().map(|link| link.down.clone())
    }

    async fn wait_applied(&self, activation: u64, deadline: Instant) -> NodeResult {
        let mut changes = self.applied.subscribe();
        let answered =
            changes.wait_for(|applied| applied.activation >= activation || !self.is_connected());
        let (result, errors) = match tokio::time::timeout_at(deadline, answered).await {
            Err(_) => ("timeout", Vec::new()),
            Ok(Err(_)) => ("disconnected", Vec::new()),
            Ok(Ok(applied)) if applied.activation < activation => ("disconnected", Vec::new()),
            Ok(Ok(applied)) if applied.activation > activation => ("superseded", Vec::new()),
            Ok(Ok(applied)) => match &applied.result {
                Some(ApplyResult::Refused { errors }) => ("refused", errors.clone()),
                Some(ApplyResult::Active) => ("active", Vec::new()),
                None => ("timeout", Vec::new()),
            },
        };
        NodeResult { node: self.name.clone(), result: result.to_owned(), errors }
    }
}
