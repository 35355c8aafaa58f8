//! Live views: what the nodes say of themselves.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
};
use ravelin_contract::{
    cdr::{Cdr, CdrKind, StreamQuality},
    link::Down,
    view::{CallView, Ladder, TrunkView},
};
use serde::Serialize;

use super::{
    App,
    body::Query,
    error::{ApiError, ErrorBody},
};
use crate::{
    clock,
    collect::registry::{Answer, Node, NodeInfo, NodeView},
    store::{
        query::{self, Filter, PAGE_MAX},
        records::{self, StoredHead},
    },
};

/// How long a node may take to answer a query.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Calls asked of each node.
const CALLS_MAX: u64 = 10_000;

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Nodes {
    nodes: Vec<NodeView>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Calls {
    #[schema(value_type = Vec<Object>)]
    calls: Vec<CallView>,
    /// There are more than were asked for.
    more: bool,
    /// Nodes that did not answer in time.
    silent: Vec<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Call {
    /// The call as it is now; null when it is over.
    #[schema(value_type = Option<Object>)]
    call: Option<CallView>,
    /// Its records, newest first.
    #[schema(value_type = Vec<Object>)]
    cdrs: Vec<serde_json::Value>,
    silent: Vec<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Trunks {
    #[schema(value_type = Vec<Object>)]
    trunks: Vec<TrunkView>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Stats {
    nodes: usize,
    nodes_connected: usize,
    /// Calls at this moment, over all nodes.
    calls: u64,
    /// Calls by trunk, over all nodes.
    calls_by_trunk: BTreeMap<String, u64>,
    /// Counters and gauges by name, summed over nodes and labels.
    totals: BTreeMap<String, f64>,
    config_version: u64,
}

/// Every node that ever connected or has records here.
#[utoipa::path(get, path = "/api/nodes", tag = "live", responses((status = 200, body = Nodes)))]
pub(crate) async fn nodes(State(app): State<App>) -> Result<Json<Nodes>, ApiError> {
    Ok(Json(Nodes { nodes: node_views(&app).await? }))
}

/// The nodes for API and pages.
pub(crate) async fn node_views(app: &App) -> Result<Vec<NodeView>, ApiError> {
    let mut reader = app.store.reader().acquire().await?;
    let mut heads: BTreeMap<String, StoredHead> =
        records::heads(&mut reader).await?.into_iter().collect();
    heads.remove(crate::store::OWN_NODE);
    let mut views: Vec<NodeView> = app
        .registry
        .all()
        .iter()
        .map(|node| {
            let head = heads.remove(&node.name);
            node_view(&node.name, node.is_connected(), node.info(), head)
        })
        .collect();
    // Nodes that were here before this control plane started.
    let absent = heads
        .into_iter()
        .map(|(name, head)| node_view(&name, false, NodeInfo::default(), Some(head)));
    views.extend(absent);
    views.sort_by(|left, right| left.node.cmp(&right.node));
    Ok(views)
}

fn node_view(name: &str, connected: bool, info: NodeInfo, head: Option<StoredHead>) -> NodeView {
    let at = |ms: u64| (ms > 0).then(|| clock::rfc3339(ms));
    NodeView {
        node: name.to_owned(),
        connected,
        software: info.software,
        shards: info.shards,
        driver: info.driver,
        pid: info.pid,
        active_version: info.active_version,
        active_sha256: info.active_sha256,
        spooled_seq: info.spooled_seq,
        stored_seq: head.map_or(0, |head| head.head.seq),
        chain_breaks: head.map_or(0, |head| head.breaks),
        connected_at: at(info.connected_ms),
        last_seen_at: at(info.last_seen_ms),
        last_error: info.last_error,
    }
}

/// Calls of all nodes, oldest first.
pub(crate) async fn all_calls(app: &App, limit: u32) -> (Vec<CallView>, bool, Vec<String>) {
    let mut calls = Vec::new();
    let mut more = false;
    let mut silent = Vec::new();
    let mut asked = tokio::task::JoinSet::new();
    for node in app.registry.connected() {
        let query = app.registry.query_id();
        asked.spawn(async move {
            let frame = Down::QueryCalls { query, limit };
            let answer = node.ask(query, frame, ANSWER_TIMEOUT).await;
            (node.name.clone(), answer)
        });
    }
    while let Some(answered) = asked.join_next().await {
        match answered {
            Ok((_, Some(Answer::Calls { calls: found, more: rest }))) => {
                calls.extend(found);
                more |= rest;
            }
            Ok((node, _)) => silent.push(node),
            Err(error) => tracing::error!(%error, "query of calls"),
        }
    }
    silent.sort_unstable();
    calls.sort_by(|left, right| {
        (left.start_unix_ms, &left.id).cmp(&(right.start_unix_ms, &right.id))
    });
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    more |= calls.len() > limit;
    calls.truncate(limit);
    (calls, more, silent)
}

/// The call with this id or Call-ID, if a node has it now, and the nodes that did not answer.
pub(crate) async fn one_call(app: &App, id: &str) -> (Option<CallView>, Vec<String>) {
    let mut silent = Vec::new();
    let mut asked = tokio::task::JoinSet::new();
    for node in app.registry.connected() {
        let query = app.registry.query_id();
        let call = id.to_owned();
        asked.spawn(async move {
            let frame = Down::QueryCall { query, call };
            let answer = node.ask(query, frame, ANSWER_TIMEOUT).await;
            (node.name.clone(), answer)
        });
    }
    let mut call = None;
    while let Some(answered) = asked.join_next().await {
        match answered {
            Ok((_, Some(Answer::Call(found)))) => call = call.or_else(|| found.map(|found| *found)),
            Ok((node, _)) => silent.push(node),
            Err(error) => tracing::error!(%error, "query of a call"),
        }
    }
    silent.sort_unstable();
    (call, silent)
}

/// The streams of a call, as they are or as its record has them, and what to say about it.
pub(crate) async fn streams(
    app: &App,
    id: &str,
) -> Result<(Vec<StreamQuality>, Vec<String>), ApiError> {
    let (call, silent) = one_call(app, id).await;
    let mut notes = Vec::new();
    if !silent.is_empty() {
        notes.push(format!("No answer from: {}.", silent.join(", ")));
    }
    if let Some(call) = call {
        let seconds = call.age_ms / 1_000;
        let state = format!("{:?}", call.state).to_lowercase();
        notes
            .push(format!("{}, from {} to {}: {state}, {seconds} s.", call.id, call.from, call.to));
        return Ok((call.streams, notes));
    }
    let filter = Filter { call: Some(id.to_owned()), limit: PAGE_MAX, ..Filter::default() };
    let mut reader = app.store.reader().acquire().await?;
    let rows = query::cdrs(&mut reader, &filter).await?.rows;
    let records = rows.into_iter().filter_map(|row| serde_json::from_value::<Cdr>(row.entry).ok());
    let Some(record) = records.into_iter().find(|record| record.kind == CdrKind::Call) else {
        return Err(ApiError::not_found("call"));
    };
    notes.push(format!(
        "{}, from {} to {}: over; {}.",
        record.call, record.from, record.to, record.cause_text
    ));
    Ok((record.streams, notes))
}

/// The calls of this moment.
#[utoipa::path(get, path = "/api/calls", tag = "live",
    params(("limit" = Option<u64>, Query, description = "at most 10000, 1000 by default")),
    responses((status = 200, body = Calls)))]
pub(crate) async fn calls(State(app): State<App>, query: Query) -> Result<Json<Calls>, ApiError> {
    let query = query.only(&["limit"])?;
    let limit = query.number("limit", 1..=CALLS_MAX)?.unwrap_or(1_000);
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let (calls, more, silent) = all_calls(&app, limit).await;
    Ok(Json(Calls { calls, more, silent }))
}

/// One call: as it is now, and its records.
#[utoipa::path(get, path = "/api/calls/{id}", tag = "live",
    params(("id" = String, Path, description = "Ravelin's id of the call, or a Call-ID")),
    responses((status = 200, body = Call), (status = 404, body = ErrorBody)))]
pub(crate) async fn call(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<Call>, ApiError> {
    let (call, silent) = one_call(&app, &id).await;
    let known = call.as_ref().map_or(id, |call| call.id.clone());
    let filter = Filter { call: Some(known), limit: PAGE_MAX, ..Filter::default() };
    let mut reader = app.store.reader().acquire().await?;
    let cdrs: Vec<_> =
        query::cdrs(&mut reader, &filter).await?.rows.into_iter().map(|row| row.entry).collect();
    if call.is_none() && cdrs.is_empty() {
        return Err(ApiError::not_found("call"));
    }
    Ok(Json(Call { call, cdrs, silent }))
}

/// The messages of one call, oldest first.
#[utoipa::path(get, path = "/api/calls/{id}/ladder", tag = "live",
    params(("id" = String, Path, description = "Ravelin's id of the call")),
    responses((status = 200, body = serde_json::Value), (status = 404, body = ErrorBody)))]
pub(crate) async fn ladder(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<Ladder>, ApiError> {
    let mut asked = tokio::task::JoinSet::new();
    for node in app.registry.connected() {
        let query = app.registry.query_id();
        let call = id.clone();
        asked.spawn(async move {
            node.ask(query, Down::QueryLadder { query, call }, ANSWER_TIMEOUT).await
        });
    }
    while let Some(answered) = asked.join_next().await {
        if let Ok(Some(Answer::Ladder(Some(ladder)))) = answered {
            return Ok(Json(ladder));
        }
    }
    Err(ApiError::not_found("call"))
}

/// Trunks of every connected node, with health, calls and refusals.
#[utoipa::path(get, path = "/api/trunks", tag = "live", responses((status = 200, body = Trunks)))]
pub(crate) async fn trunks(State(app): State<App>) -> Json<Trunks> {
    Json(Trunks { trunks: all_trunks(&app) })
}

/// The trunks for API and pages.
pub(crate) fn all_trunks(app: &App) -> Vec<TrunkView> {
    let mut trunks: Vec<TrunkView> = app
        .registry
        .connected()
        .iter()
        .flat_map(|node: &std::sync::Arc<Node>| node.trunks())
        .collect();
    trunks.sort_by(|left, right| (&left.id, &left.node).cmp(&(&right.id, &right.node)));
    trunks
}

/// Sums over all nodes.
#[utoipa::path(get, path = "/api/stats", tag = "live", responses((status = 200, body = Stats)))]
pub(crate) async fn stats(State(app): State<App>) -> Json<Stats> {
    let all = app.registry.all();
    let mut totals: BTreeMap<String, f64> = BTreeMap::new();
    let mut calls_by_trunk: BTreeMap<String, u64> = BTreeMap::new();
    let mut connected = 0;
    for node in &all {
        if !node.is_connected() {
            continue;
        }
        connected += 1;
        for sample in node.metrics().map(|report| report.samples).unwrap_or_default() {
            *totals.entry(sample.name).or_default() += sample.value;
        }
        for trunk in node.trunks() {
            *calls_by_trunk.entry(trunk.id).or_default() += trunk.calls;
        }
    }
    let (calls, _, _) = all_calls(&app, u32::try_from(CALLS_MAX).unwrap_or(u32::MAX)).await;
    Json(Stats {
        nodes: all.len(),
        nodes_connected: connected,
        calls: u64::try_from(calls.len()).unwrap_or(u64::MAX),
        calls_by_trunk,
        totals,
        config_version: app.version(),
    })
}
