//! Logins of people: a random id in a cookie that scripts cannot read, bound to an API token. The
//! token is checked again at every page, so that a revoked one ends its logins.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Redirect, Response},
};
use dashmap::DashMap;
use ravelin_contract::chain::to_hex;

use crate::{
    api::{App, auth::Caller, error::ApiError},
    ident,
    store::tokens,
};

/// Name of the cookie.
const COOKIE: &str = "ravelin_login";
/// Logins at once; more are refused until some end.
const LOGINS_MAX: usize = 1_000;
/// A login ends this long after it was made.
const LIFE: Duration = Duration::from_secs(8 * 3_600);

/// Logins by the digest of their id. Guards of the map never leave this file.
#[derive(Debug, Default)]
pub struct Logins(DashMap<String, Login>);

#[derive(Clone, Debug)]
struct Login {
    token: String,
    csrf: Arc<str>,
    ends: Instant,
}

impl Logins {
    /// Makes a login for the holder of `token`; its id, or nothing when there are too many.
    pub(super) fn open(&self, token: &str) -> Option<String> {
        let now = Instant::now();
        if self.0.len() >= LOGINS_MAX {
            self.0.retain(|_, login| login.ends > now);
            if self.0.len() >= LOGINS_MAX {
                return None;
            }
        }
        let id = to_hex(&ident::random::<32>());
        let login = Login {
            token: token.to_owned(),
            csrf: to_hex(&ident::random::<16>()).into(),
            ends: now + LIFE,
        };
        self.0.insert(ident::sha256_hex(id.as_bytes()), login);
        Some(id)
    }

    pub(super) fn close(&self, headers: &HeaderMap) {
        if let Some(id) = cookie(headers) {
            self.0.remove(&ident::sha256_hex(id.as_bytes()));
        }
    }

    fn find(&self, headers: &HeaderMap) -> Option<Login> {
        let login = self.0.get(&ident::sha256_hex(cookie(headers)?.as_bytes()))?.clone();
        (login.ends > Instant::now()).then_some(login)
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

/// The cookie of a login that begins, or of one that ends (empty id).
pub(super) fn set_cookie(id: &str, secure: bool) -> String {
    let age = if id.is_empty() { 0 } else { LIFE.as_secs() };
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}")
}

/// Somebody who is logged in. Others are sent to the login page.
pub(super) struct Person {
    pub(super) caller: Caller,
    pub(super) csrf: Arc<str>,
}

impl FromRequestParts<App> for Person {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let to_login = || Redirect::to("/login").into_response();
        let login = app.logins.find(&parts.headers).ok_or_else(to_login)?;
        let token = async {
            let mut reader = app.store.reader().acquire().await?;
            tokens::in_force(&mut reader, &login.token).await
        };
        let token = token.await.map_err(|error| ApiError::from(error).into_response())?;
        let token = token.ok_or_else(to_login)?;
        Ok(Self { caller: Caller(Arc::new(token)), csrf: login.csrf })
    }
}

impl Person {
    /// Refuses a form that did not come from one of our pages.
    pub(super) fn check(&self, csrf: &str) -> Result<(), ApiError> {
        verify_slices_are_equal(csrf.as_bytes(), self.csrf.as_bytes()).map_err(|_| {
            ApiError::new(StatusCode::FORBIDDEN, "this form is out of date; load the page again")
        })
    }
}

/// Refuses a form that another site sent.
pub(super) fn same_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    match origin.split_once("://") {
        Some((_, from)) if from == host => Ok(()),
        _ => Err(ApiError::new(StatusCode::FORBIDDEN, "this form came from another site")),
    }
}
