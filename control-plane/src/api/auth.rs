//! Who may do what. Every route has an entry in one table; what has none is not served.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{App, error::ApiError};
use crate::store::tokens::{self, Role, Token};

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody: health, metrics, the API description, the login page.
    Open,
    /// The UI decides itself: it has its own login.
    Ui,
    /// Holders of a token with one of these roles.
    Roles(&'static [Role]),
}

/// Anybody with a token.
pub const READ: Access = Access::Roles(&[Role::Admin, Role::Operator, Role::Auditor, Role::Viewer]);
/// Evidence.
pub const AUDIT: Access = Access::Roles(&[Role::Admin, Role::Operator, Role::Auditor]);
/// Changes of config, sites and contacts.
pub const OPERATE: Access = Access::Roles(&[Role::Admin, Role::Operator]);
/// SOC 2 controls and their tests (compliance-systems C4).
pub const ATTEST: Access = Access::Roles(&[Role::Admin, Role::Auditor]);
/// Tokens.
pub const ADMIN: Access = Access::Roles(&[Role::Admin]);

impl Access {
    /// Whether a token of `role` may pass.
    #[must_use]
    pub fn allows(self, role: Role) -> bool {
        match self {
            Self::Open | Self::Ui => true,
            Self::Roles(roles) => roles.contains(&role),
        }
    }
}

/// Every route and who may use it.
pub type Table = HashMap<&'static str, Vec<(Method, Access)>>;

/// The holder of the token of this request.
#[derive(Clone, Debug)]
pub struct Caller(pub Arc<Token>);

impl Caller {
    /// How the caller appears in the audit trail.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} ({})", self.0.name, self.0.id)
    }
}

/// Lets a request pass to its route, or answers 401, 403 or 405.
pub async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    // The request itself cannot be shared across an await; what is asked of it can.
    let path = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let header = request.headers().get(header::AUTHORIZATION).cloned();
    match check(&app, path.as_ref(), method, header).await {
        Ok(caller) => {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            next.run(request).await
        }
        Err(error) => {
            if matches!(error.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                app.counters.auth_refused.inc();
            }
            error.into_response()
        }
    }
}

async fn check(
    app: &App,
    path: Option<&MatchedPath>,
    method: Method,
    authorization: Option<HeaderValue>,
) -> Result<Option<Caller>, ApiError> {
    let methods = path.and_then(|path| app.table.get(path.as_str()));
    let Some(methods) = methods else { return Err(ApiError::not_found("route")) };
    let method = if method == Method::HEAD { Method::GET } else { method };
    let access = methods.iter().find(|(known, _)| *known == method).map(|(_, access)| *access);
    if matches!(access, Some(Access::Open | Access::Ui)) {
        return Ok(None);
    }
    // Also for a method that the route does not have: strangers learn nothing.
    let caller = authenticate(app, authorization).await?;
    let Some(access) = access else {
        return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"));
    };
    if access.allows(caller.0.role) {
        Ok(Some(caller))
    } else {
        Err(ApiError::new(
            StatusCode::FORBIDDEN,
            format!("the role {} may not do this", caller.0.role.name()),
        ))
    }
}

async fn authenticate(app: &App, authorization: Option<HeaderValue>) -> Result<Caller, ApiError> {
    let unauthorized = || ApiError::new(StatusCode::UNAUTHORIZED, "a valid Bearer token is needed");
    let header = authorization.ok_or_else(unauthorized)?;
    let text = header.to_str().map_err(|_| unauthorized())?;
    let (scheme, secret) = text.split_once(' ').ok_or_else(unauthorized)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(unauthorized());
    }
    let mut reader = app.store.reader().acquire().await?;
    let token = tokens::authenticate(&mut reader, secret.trim()).await?;
    token.map(|token| Caller(Arc::new(token))).ok_or_else(unauthorized)
}
