//! Config documents: show, stage, validate, activate, roll back.

use std::collections::BTreeMap;

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use ravelin_contract::link::FieldError;
use serde::{Deserialize, Serialize};

use super::{
    App,
    auth::{Caller, OPERATE},
    body::{Body, Query, Text},
    error::{ApiError, ErrorBody},
};
use crate::{
    clock,
    collect::registry::NodeResult,
    publish::{Activated, ConfigFault, Staged, redacted},
    store::configs::{self, VersionSummary},
};

/// Versions of one answer.
const VERSIONS_MAX: u64 = 1_000;

/// A config document and what is known of it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ConfigView {
    version: u64,
    active: bool,
    sha256: String,
    author: String,
    source: String,
    comment: String,
    created_at: String,
    document: String,
    /// Legal but unwise: path and what for.
    warnings: BTreeMap<String, String>,
}

/// A document that was taken in or only checked.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct StagedView {
    version: u64,
    sha256: String,
    warnings: BTreeMap<String, String>,
    /// Paths that take effect only after a restart of the edge.
    restart: Vec<String>,
}

/// A version by its number.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VersionBody {
    version: u64,
}

/// What an activation did.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ActivatedView {
    pub(crate) version: u64,
    pub(crate) sha256: String,
    pub(crate) nodes: Vec<NodeResult>,
    pub(crate) restart: Vec<String>,
}

/// Stored versions, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Versions {
    versions: Vec<VersionSummary>,
    active: Option<u64>,
}

fn by_path(faults: &[FieldError]) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for fault in faults {
        map.entry(fault.path.clone())
            .and_modify(|all: &mut String| {
                all.push_str("; ");
                all.push_str(&fault.reason);
            })
            .or_insert_with(|| fault.reason.clone());
    }
    map
}

/// The config in force, or one version by number. Literal secrets are shown only to those who may
/// change the config.
#[utoipa::path(get, path = "/api/config", tag = "config",
    params(("version" = Option<u64>, Query, description = "a stored version; absent: in force")),
    responses((status = 200, body = ConfigView), (status = 404, body = ErrorBody)))]
pub(crate) async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    query: Query,
) -> Result<Response, ApiError> {
    let query = query.only(&["version"])?;
    let active = app.publisher.active();
    let in_force = active.as_ref().map_or(0, |active| active.version);
    let version = match query.number("version", 1..=u64::MAX)? {
        Some(version) => version,
        None if in_force == 0 => return Err(ApiError::not_found("config")),
        None => in_force,
    };
    let mut reader = app.store.reader().acquire().await?;
    let stored = configs::load(&mut reader, version)
        .await?
        .ok_or_else(|| ApiError::not_found("config version"))?;
    let warnings = active
        .filter(|active| active.version == version)
        .map_or_else(BTreeMap::new, |active| by_path(&active.warnings));
    let document = document_for(&caller, stored.document).await?;
    let view = ConfigView {
        version,
        active: version == in_force,
        sha256: stored.sha256,
        author: stored.author,
        source: stored.source,
        comment: stored.comment,
        created_at: clock::rfc3339(stored.created_ms),
        document,
        warnings,
    };
    Ok(([(header::ETAG, etag(version)?)], Json(view)).into_response())
}

/// The document as `caller` may see it: who may not change it does not see its literal secrets.
pub(crate) async fn document_for(caller: &Caller, document: String) -> Result<String, ApiError> {
    if OPERATE.allows(caller.0.role) {
        return Ok(document);
    }
    let redacted = tokio::task::spawn_blocking(move || redacted(&document)).await.ok().flatten();
    redacted.ok_or_else(|| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the document cannot be shown")
    })
}

fn etag(version: u64) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(&format!("\"v{version}\""))
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// The version that `If-Match` names; `*` and absent are no condition.
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    text.strip_prefix("\"v")
        .and_then(|text| text.strip_suffix('"'))
        .and_then(|text| text.parse().ok())
        .map(Some)
        .ok_or_else(|| {
            ApiError::bad_request("If-Match must be the ETag of GET /api/config, like \"v12\"")
        })
}

/// Stage a document as a new version. It is checked whole; nothing is put in force. With
/// `If-Match`, refused if the config moved on since it was read.
#[utoipa::path(put, path = "/api/config", tag = "config",
    request_body(content = String, content_type = "application/yaml"),
    params(("comment" = Option<String>, Query, description = "why"),
        ("If-Match" = Option<String>, Header, description = "ETag of the version it builds on")),
    responses((status = 200, body = StagedView), (status = 412, body = ErrorBody),
        (status = 422, body = ErrorBody)))]
pub(crate) async fn stage(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    query: Query,
    Text(document): Text,
) -> Result<Response, ApiError> {
    let query = query.only(&["comment"])?;
    let base = if_match(&headers)?;
    let comment = query.text("comment").unwrap_or_default().to_owned();
    let staged = app.publisher.stage(document, caller.name(), comment, base).await;
    let staged = staged.map_err(|fault| match fault {
        moved @ ConfigFault::Moved { .. } => {
            ApiError { status: StatusCode::PRECONDITION_FAILED, ..ApiError::from(moved) }
        }
        other => other.into(),
    })?;
    Ok(([(header::ETAG, etag(staged.version)?)], Json(view(staged))).into_response())
}

fn view(staged: Staged) -> StagedView {
    StagedView {
        version: staged.version,
        sha256: staged.sha256,
        warnings: by_path(&staged.warnings),
        restart: staged.restart,
    }
}

/// Check a document without storing it.
#[utoipa::path(post, path = "/api/config/validate", tag = "config",
    request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, body = StagedView), (status = 422, body = ErrorBody)))]
pub(crate) async fn validate(
    State(app): State<App>,
    Text(document): Text,
) -> Result<Json<StagedView>, ApiError> {
    Ok(Json(view(app.publisher.validate(document).await?)))
}

/// Stored versions, newest first.
#[utoipa::path(get, path = "/api/config/versions", tag = "config",
    params(("limit" = Option<u64>, Query, description = "at most 1000, 100 by default"),
        ("before" = Option<u64>, Query, description = "only versions below this number")),
    responses((status = 200, body = Versions)))]
pub(crate) async fn versions(
    State(app): State<App>,
    query: Query,
) -> Result<Json<Versions>, ApiError> {
    let query = query.only(&["limit", "before"])?;
    let limit = query.number("limit", 1..=VERSIONS_MAX)?.unwrap_or(100);
    let before = query.number("before", 1..=u64::MAX)?.unwrap_or(u64::MAX);
    let mut reader = app.store.reader().acquire().await?;
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let versions = configs::list(&mut reader, before, limit).await?;
    Ok(Json(Versions { versions, active: app.publisher.active().map(|active| active.version) }))
}

/// Put a stored version in force, and wait for the nodes' acknowledgements (at most 5 s).
#[utoipa::path(post, path = "/api/config/activate", tag = "config", request_body = VersionBody,
    responses((status = 200, body = ActivatedView), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(crate) async fn activate(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<VersionBody>,
) -> Result<Json<ActivatedView>, ApiError> {
    let activated = app.publisher.activate(body.version, caller.name(), "activate").await?;
    Ok(Json(acknowledged(&app, activated).await))
}

/// Put an earlier version in force again, whatever was put in force since.
#[utoipa::path(post, path = "/api/config/rollback", tag = "config", request_body = VersionBody,
    responses((status = 200, body = ActivatedView), (status = 404, body = ErrorBody)))]
pub(crate) async fn rollback(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<VersionBody>,
) -> Result<Json<ActivatedView>, ApiError> {
    let activated = app.publisher.activate(body.version, caller.name(), "rollback").await?;
    Ok(Json(acknowledged(&app, activated).await))
}

/// Waits for the nodes and says what became of the activation.
pub(crate) async fn acknowledged(app: &App, activated: Activated) -> ActivatedView {
    let nodes = app.publisher.acknowledged(activated.active.activation).await;
    ActivatedView {
        version: activated.active.version,
        sha256: activated.active.sha256.clone(),
        nodes,
        restart: activated.restart,
    }
}
