//! API tokens: make, list, revoke.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};
use ravelin_contract::audit::Severity;
use serde::{Deserialize, Serialize};

use super::{
    App,
    auth::Caller,
    body::Body,
    error::{ApiError, ErrorBody},
};
use crate::{
    clock,
    store::{
        EventExt, event,
        tokens::{self, Role, Token},
    },
};

/// Longest name of a token.
const NAME_MAX_CHARS: usize = 64;

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// Appears in the audit trail.
    name: String,
    role: Role,
    /// After this many seconds the token is worth nothing. Absent: never.
    expires_in_s: Option<u64>,
}

/// A new token. `secret` is shown here and never again.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct CreatedToken {
    #[serde(flatten)]
    token: Token,
    secret: String,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Tokens {
    tokens: Vec<Token>,
}

/// Make a token.
#[utoipa::path(post, path = "/api/tokens", tag = "tokens", request_body = NewToken,
    responses((status = 201, body = CreatedToken), (status = 400, body = ErrorBody)))]
pub(crate) async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<NewToken>,
) -> Result<(StatusCode, Json<CreatedToken>), ApiError> {
    let name = body.name.trim();
    if name.is_empty()
        || name.chars().count() > NAME_MAX_CHARS
        || name.chars().any(char::is_control)
    {
        return Err(ApiError::bad_request("token")
            .field("name", "must be 1-64 characters without control characters"));
    }
    let expires_ms =
        body.expires_in_s.map(|s| clock::unix_ms().saturating_add(s.saturating_mul(1_000)));
    let mut tx = app.store.write().await?;
    let (token, secret) =
        tokens::create(tx.connection(), name, body.role, &caller.name(), expires_ms).await?;
    let done = event("token.created", Severity::Warning, &caller.name(), app.version())
        .with("token", token.id.clone())
        .with("name", token.name.clone())
        .with("role", token.role.name());
    tx.audit(done).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(CreatedToken { token, secret })))
}

/// Every token, revoked ones included. The tokens themselves are not stored.
#[utoipa::path(get, path = "/api/tokens", tag = "tokens", responses((status = 200, body = Tokens)))]
pub(crate) async fn list(State(app): State<App>) -> Result<Json<Tokens>, ApiError> {
    let mut reader = app.store.reader().acquire().await?;
    Ok(Json(Tokens { tokens: tokens::list(&mut reader).await? }))
}

/// Revoke a token. The last admin token cannot be revoked.
#[utoipa::path(delete, path = "/api/tokens/{id}", tag = "tokens",
    params(("id" = String, Path, description = "id of the token")),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn revoke(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut tx = app.store.write().await?;
    if !tokens::revoke(tx.connection(), &id).await? {
        return Err(ApiError::not_found("token"));
    }
    if tokens::admins(tx.connection()).await? == 0 {
        return Err(ApiError::conflict("this is the last admin token; make another one first"));
    }
    let done =
        event("token.revoked", Severity::Warning, &caller.name(), app.version()).with("token", id);
    tx.audit(done).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
