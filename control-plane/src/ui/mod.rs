//! Pages for people: small, rendered here, without scripts. They show what the API shows and change
//! things through the same functions, under the same roles.

mod login;
mod pages;

use askama::Template;
use axum::{
    Form,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;

pub use self::login::Logins;
use self::login::{Person, same_origin, set_cookie};
use crate::{
    api::{App, Routes, auth::Access, error::ApiError},
    store::tokens,
};

/// Nothing from elsewhere, no script at all, no frame around us.
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; \
    frame-ancestors 'none'; base-uri 'none'";

/// The pages, in the order of the menu.
const PAGES: [(&str, &str); 7] = [
    ("/", "Nodes"),
    ("/calls", "Calls"),
    ("/trunks", "Trunks"),
    ("/config", "Config"),
    ("/sites", "Sites"),
    ("/soc2", "SOC 2"),
    ("/audit", "Audit"),
];

pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .at(Access::Open, Method::GET, "/style.css", get(style))
        .at(Access::Open, Method::GET, "/login", get(login_page))
        .at(Access::Open, Method::POST, "/login", post(log_in))
        .at(Access::Ui, Method::POST, "/logout", post(log_out))
        .at(Access::Ui, Method::GET, "/", get(pages::nodes))
        .at(Access::Ui, Method::GET, "/calls", get(pages::calls))
        .at(Access::Ui, Method::GET, "/calls/{id}", get(pages::call))
        .at(Access::Ui, Method::GET, "/trunks", get(pages::trunks))
        .at(Access::Ui, Method::GET, "/config", get(pages::config))
        .at(Access::Ui, Method::POST, "/config/rollback", post(pages::roll_back))
        .at(Access::Ui, Method::GET, "/sites", get(pages::sites))
        .at(Access::Ui, Method::POST, "/sites", post(pages::add_site))
        .at(Access::Ui, Method::POST, "/sites/delete", post(pages::delete_site))
        .at(Access::Ui, Method::GET, "/soc2", get(pages::soc2))
        .at(Access::Ui, Method::POST, "/soc2", post(pages::save_control))
        .at(Access::Ui, Method::GET, "/audit", get(pages::audit))
}

/// What stands around every page.
struct Frame {
    pages: &'static [(&'static str, &'static str)],
    here: &'static str,
    who: String,
    csrf: String,
    message: Option<String>,
}

impl Frame {
    fn new(person: &Person, here: &'static str, message: Option<String>) -> Self {
        let token = &person.caller.0;
        Self {
            pages: &PAGES,
            here,
            who: format!("{} ({})", token.name, token.role.name()),
            csrf: person.csrf.to_string(),
            message,
        }
    }
}

fn render(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => {
            let mut response = (status, Html(text)).into_response();
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
            headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "page");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn style() -> Response {
    let kind = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    (kind, include_str!("style.css")).into_response()
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    refused: bool,
}

async fn login_page() -> Response {
    render(StatusCode::OK, &LoginPage { refused: false })
}

#[derive(Deserialize)]
struct LoginForm {
    token: String,
}

async fn log_in(
    State(app): State<App>,
    headers: HeaderMap,
    Form(form): Form<LoginForm>,
) -> Result<Response, ApiError> {
    same_origin(&headers)?;
    let token = {
        let mut reader = app.store.reader().acquire().await?;
        tokens::authenticate(&mut reader, form.token.trim()).await?
    };
    let Some(token) = token else {
        app.counters.auth_refused.inc();
        return Ok(render(StatusCode::UNAUTHORIZED, &LoginPage { refused: true }));
    };
    let id = app.logins.open(&token.id).ok_or_else(|| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many people are logged in")
    })?;
    Ok(([(header::SET_COOKIE, set_cookie(&id, app.https))], Redirect::to("/")).into_response())
}

#[derive(Deserialize)]
struct LogoutForm {
    csrf: String,
}

async fn log_out(
    State(app): State<App>,
    person: Person,
    headers: HeaderMap,
    Form(form): Form<LogoutForm>,
) -> Result<Response, ApiError> {
    person.check(&form.csrf)?;
    app.logins.close(&headers);
    let cookie = [(header::SET_COOKIE, set_cookie("", app.https))];
    Ok((cookie, Redirect::to("/login")).into_response())
}
