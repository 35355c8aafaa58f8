//! CDRs, audit events, and the check of the chains.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use ravelin_contract::chain::Entry;
use serde::Serialize;

use super::{
    App,
    body::Query,
    error::{ApiError, ErrorBody},
};
use crate::store::query::{self, ChainReport, Cursor, Filter, Found, PAGE_DEFAULT, PAGE_MAX, Page};

const CDR_FILTERS: [&str; 10] =
    ["from", "to", "trunk", "call", "emergency", "kind", "site", "node", "limit", "cursor"];
const EVENT_FILTERS: [&str; 9] =
    ["from", "to", "kind", "severity", "actor", "call", "node", "limit", "cursor"];

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Cdrs {
    #[schema(value_type = Vec<Object>)]
    cdrs: Vec<serde_json::Value>,
    /// `cursor` of the next page; null at the end.
    next: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Events {
    #[schema(value_type = Vec<Object>)]
    events: Vec<serde_json::Value>,
    /// `cursor` of the next page; null at the end.
    next: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Verified {
    /// Every chain is whole.
    intact: bool,
    chains: Vec<ChainReport>,
}

fn filter(query: &Query) -> Result<Filter, ApiError> {
    let owned = |name: &str| query.text(name).map(str::to_owned);
    let cursor = query
        .text("cursor")
        .map(|text| {
            Cursor::parse(text).ok_or_else(|| {
                ApiError::bad_request("query").field("cursor", "must be `next` of an answer")
            })
        })
        .transpose()?;
    let limit =
        query.number("limit", 1..=u64::from(PAGE_MAX))?.unwrap_or_else(|| PAGE_DEFAULT.into());
    Ok(Filter {
        from_ms: query.time("from")?,
        to_ms: query.time("to")?,
        node: owned("node"),
        call: owned("call"),
        trunk: owned("trunk"),
        emergency: query.flag("emergency")?,
        kind: owned("kind"),
        severity: owned("severity"),
        actor: owned("actor"),
        site: owned("site"),
        limit: u32::try_from(limit).unwrap_or(PAGE_MAX),
        cursor,
    })
}

/// The entry as the node wrote it, with its place in the chain.
fn shown(found: Found) -> serde_json::Value {
    let mut entry = found.entry;
    if let Some(fields) = entry.as_object_mut() {
        fields.remove("type");
        fields.insert("node".to_owned(), found.node.into());
        fields.insert("epoch".to_owned(), found.epoch.into());
        fields.insert("seq".to_owned(), found.seq.into());
        fields.insert("hash".to_owned(), found.hash.into());
        fields.insert("flaw".to_owned(), found.flaw.into());
    }
    entry
}

/// As [`shown`], with the event's line in the words of the source documents, if it has one.
fn shown_event(found: Found) -> serde_json::Value {
    let line = match serde_json::from_value(found.entry.clone()) {
        Ok(Entry::Audit(event)) => event.line(),
        _ => None,
    };
    let mut entry = shown(found);
    if let (Some(fields), Some(line)) = (entry.as_object_mut(), line) {
        fields.insert("line".to_owned(), line.into());
    }
    entry
}

/// Call detail records, newest first, as JSON or CSV.
#[utoipa::path(get, path = "/api/cdrs", tag = "records",
    params(("from" = Option<String>, Query, description = "first instant"),
        ("to" = Option<String>, Query, description = "first instant after the range"),
        ("trunk" = Option<String>, Query, description = "inbound or outbound trunk"),
        ("call" = Option<String>, Query, description = "id of the call"),
        ("emergency" = Option<bool>, Query, description = "only emergency calls, or none"),
        ("kind" = Option<String>, Query, description = "`call` or `attempt`"),
        ("site" = Option<String>, Query, description = "name of the site"),
        ("node" = Option<String>, Query, description = "name of the node"),
        ("limit" = Option<u64>, Query, description = "at most 1000, 100 by default"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before")),
    responses((status = 200, body = Cdrs), (status = 400, body = ErrorBody)))]
pub(crate) async fn cdrs(
    State(app): State<App>,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, ApiError> {
    let query = query.only(&CDR_FILTERS)?;
    let filter = filter(&query)?;
    let mut reader = app.store.reader().acquire().await?;
    let Page { rows, next } = query::cdrs(&mut reader, &filter).await?;
    let cdrs: Vec<_> = rows.into_iter().map(shown).collect();
    let csv = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/csv"));
    if !csv {
        return Ok(Json(Cdrs { cdrs, next }).into_response());
    }
    let mut response =
        ([(header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present")], csv_of(&cdrs))
            .into_response();
    if let Some(next) = next.and_then(|next| next.parse().ok()) {
        response.headers_mut().insert("x-next-cursor", next);
    }
    Ok(response)
}

/// Columns of the CSV form, in this order.
const COLUMNS: [&str; 38] = [
    "node",
    "epoch",
    "seq",
    "kind",
    "call",
    "attempt",
    "shard",
    "start_unix_ms",
    "ring_ms",
    "answer_ms",
    "end_ms",
    "duration_ms",
    "from",
    "to",
    "inbound_trunk",
    "outbound_trunk",
    "source",
    "target",
    "route",
    "snapshot",
    "status",
    "ended_by",
    "cause",
    "cause_text",
    "emergency",
    "class",
    "site",
    "identity_in",
    "identity_out",
    "attestation_rule",
    "inbound_call_id",
    "outbound_call_id",
    "media_caller",
    "media_callee",
    "adopted",
    "sdp_caller",
    "sdp_callee",
    "flaw",
];

/// RFC 4180: every value quoted, quotes doubled; compound values stay JSON.
fn csv_of(cdrs: &[serde_json::Value]) -> String {
    let mut text = COLUMNS.join(",");
    text.push_str("\r\n");
    for cdr in cdrs {
        for (index, column) in COLUMNS.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            let value = match cdr.get(column) {
                None | Some(serde_json::Value::Null) => continue,
                Some(serde_json::Value::String(value)) => value.clone(),
                Some(value) => value.to_string(),
            };
            text.push('"');
            text.push_str(&value.replace('"', "\"\""));
            text.push('"');
        }
        text.push_str("\r\n");
    }
    text
}

/// Audit events of every node and of the control plane, newest first.
#[utoipa::path(get, path = "/api/audit/events", tag = "records",
    params(("from" = Option<String>, Query, description = "first instant"),
        ("to" = Option<String>, Query, description = "first instant after the range"),
        ("kind" = Option<String>, Query, description = "kind of event"),
        ("severity" = Option<String>, Query,
            description = "`info`, `warning`, `error`, `alarm` or `critical`"),
        ("actor" = Option<String>, Query, description = "who acted"),
        ("call" = Option<String>, Query, description = "id of the call"),
        ("node" = Option<String>, Query, description = "node; `control` for the control plane"),
        ("limit" = Option<u64>, Query, description = "at most 1000, 100 by default"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before")),
    responses((status = 200, body = Events), (status = 400, body = ErrorBody)))]
pub(crate) async fn events(State(app): State<App>, query: Query) -> Result<Json<Events>, ApiError> {
    let query = query.only(&EVENT_FILTERS)?;
    let filter = filter(&query)?;
    let mut reader = app.store.reader().acquire().await?;
    let Page { rows, next } = query::events(&mut reader, &filter).await?;
    Ok(Json(Events { events: rows.into_iter().map(shown_event).collect(), next }))
}

/// Recompute every chain over the stored lines and say where one breaks.
#[utoipa::path(get, path = "/api/audit/verify", tag = "records",
    params(("node" = Option<String>, Query, description = "only this node")),
    responses((status = 200, body = Verified), (status = 429, body = ErrorBody)))]
pub(crate) async fn verify(
    State(app): State<App>,
    query: Query,
) -> Result<Json<Verified>, ApiError> {
    let query = query.only(&["node"])?;
    let _permit = app.one_check()?;
    let mut reader = app.store.reader().acquire().await?;
    let chains = query::verify(&mut reader, query.text("node")).await?;
    Ok(Json(Verified { intact: chains.iter().all(|chain| chain.intact), chains }))
}
