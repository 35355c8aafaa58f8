//! The REST API, the metrics, and the pages for people.

mod audit;
pub mod auth;
pub(crate) mod body;
pub(crate) mod config;
pub(crate) mod e911;
mod emergency;
pub mod error;
mod health;
mod karis;
pub(crate) mod live;
pub mod metrics;
mod nomadic;
pub mod openapi;
mod reports;
pub(crate) mod soc2;
mod stir;
mod tokens;

use std::{ops::Deref, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, post, put},
};
use ravelin_policy::TestSignals;
use tokio::sync::{Semaphore, SemaphorePermit};
use tower_http::set_header::SetResponseHeaderLayer;

use self::{
    auth::{ADMIN, ATTEST, AUDIT, Access, OPERATE, READ, Table},
    error::ApiError,
    metrics::OwnCounters,
};
use crate::{collect::registry::Registry, notify::Wake, publish::Publisher, store::Store, ui};

/// Largest request body of most routes, in octets.
const BODY_MAX_BYTES: usize = 256 * 1024;
/// How long a request may take; an activation waits at most five seconds for its nodes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the check of all chains may take.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(600);
/// Routes that go over the whole store.
const LONG: [&str; 3] = ["/api/audit/verify", "/api/framework/compliance/soc2/drill", PACKAGE];
const PACKAGE: &str = "/api/framework/compliance/soc2/package";
/// Checks of chains at once.
const VERIFY_MAX: usize = 1;

/// What every request may need.
#[derive(Clone, Debug)]
pub struct App(Arc<Shared>);

/// See [`App`].
#[derive(Debug)]
pub struct Shared {
    pub store: Store,
    pub publisher: Arc<Publisher>,
    pub registry: Arc<Registry>,
    pub counters: Arc<OwnCounters>,
    pub signals: TestSignals,
    pub logins: ui::Logins,
    /// The API is served over TLS.
    pub https: bool,
    pub wake: Wake,
    /// The data directory.
    pub(crate) data: PathBuf,
    pub(crate) stir: crate::stir::Cache,
    pub(crate) table: Table,
    verify: Semaphore,
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Builds the service. Routes and their access stand in one list: what is not in it is not served.
pub fn router(
    store: Store,
    publisher: Arc<Publisher>,
    registry: Arc<Registry>,
    counters: Arc<OwnCounters>,
    signals: TestSignals,
    https: bool,
    wake: Wake,
    data: PathBuf,
) -> Router {
    let routes = Routes::default();
    let routes = stir_routes(nomadic_routes(evidence_routes(config_routes(routes))));
    let routes = ui::routes(open_routes(routes));
    let app = App(Arc::new(Shared {
        store,
        publisher,
        registry,
        counters,
        signals,
        logins: ui::Logins::default(),
        https,
        wake,
        data,
        stir: crate::stir::Cache::default(),
        table: routes.table,
        verify: Semaphore::new(VERIFY_MAX),
    }));
    let fixed =
        |name, value| SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value));
    routes
        .router
        .route_layer(middleware::from_fn_with_state(app.clone(), auth::guard))
        .fallback(|| async { ApiError::not_found("route") })
        .layer(middleware::from_fn(stir::dress))
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .layer(fixed(header::CACHE_CONTROL, "no-store"))
        .layer(fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(app)
}

/// Routes under construction.
#[derive(Default)]
pub(crate) struct Routes {
    router: Router<App>,
    table: Table,
}

impl Routes {
    pub(crate) fn at(
        mut self,
        access: Access,
        method: Method,
        path: &'static str,
        handler: MethodRouter<App>,
    ) -> Self {
        self.table.entry(path).or_default().push((method, access));
        Self { router: self.router.route(path, handler), table: self.table }
    }
}

fn config_routes(routes: Routes) -> Routes {
    let large = || DefaultBodyLimit::max(crate::publish::DOCUMENT_MAX_BYTES);
    let sites = "/api/e911/multi-site/config";
    let site = "/api/e911/multi-site/config/{site_id}";
    let old_site = "/api/framework/nomadic-e911/sites/{site_id}";
    routes
        .at(READ, Method::GET, "/api/config", get(config::show))
        .at(OPERATE, Method::PUT, "/api/config", put(config::stage).layer(large()))
        .at(READ, Method::GET, "/api/config/versions", get(config::versions))
        .at(READ, Method::POST, "/api/config/validate", post(config::validate).layer(large()))
        .at(OPERATE, Method::POST, "/api/config/activate", post(config::activate))
        .at(OPERATE, Method::POST, "/api/config/rollback", post(config::rollback))
        .at(ADMIN, Method::GET, "/api/tokens", get(tokens::list))
        .at(ADMIN, Method::POST, "/api/tokens", post(tokens::create))
        .at(ADMIN, Method::DELETE, "/api/tokens/{id}", delete(tokens::revoke))
        .at(OPERATE, Method::POST, sites, post(e911::create))
        .at(READ, Method::GET, site, get(e911::show))
        .at(OPERATE, Method::PUT, site, put(e911::update))
        .at(OPERATE, Method::DELETE, site, delete(e911::remove))
        .at(READ, Method::GET, "/api/e911/multi-site/configs", get(e911::list))
        .at(OPERATE, Method::POST, "/api/e911/extension-site", post(e911::pin))
        .at(READ, Method::GET, "/api/framework/nomadic-e911/sites", get(e911::old_list))
        .at(
            OPERATE,
            Method::POST,
            "/api/framework/nomadic-e911/create-site",
            post(e911::old_create),
        )
        .at(OPERATE, Method::PUT, old_site, put(e911::update))
        .at(OPERATE, Method::DELETE, old_site, delete(e911::remove))
        .at(
            READ,
            Method::POST,
            "/api/framework/nomadic-e911/detect-location/{extension}",
            post(e911::detect),
        )
        .at(READ, Method::GET, "/api/emergency/contacts", get(emergency::contacts))
        .at(OPERATE, Method::POST, "/api/emergency/contacts", post(emergency::add_contact))
        .at(
            OPERATE,
            Method::DELETE,
            "/api/emergency/contacts/{id}",
            delete(emergency::remove_contact),
        )
        .at(READ, Method::GET, "/api/emergency/history", get(emergency::history))
        .at(OPERATE, Method::POST, "/api/emergency/trigger", post(emergency::trigger))
        .at(OPERATE, Method::POST, "/api/emergency/test", post(emergency::test))
        .at(OPERATE, Method::POST, "/api/emergency/acknowledge", post(emergency::acknowledge))
}

/// Locations of extensions, under the older names.
fn nomadic_routes(routes: Routes) -> Routes {
    let of = "/api/framework/nomadic-e911/location/{extension}";
    let update = "/api/framework/nomadic-e911/update-location/{extension}";
    let history = "/api/framework/nomadic-e911/history";
    let history_of = "/api/framework/nomadic-e911/history/{extension}";
    routes
        .at(READ, Method::GET, of, get(nomadic::location))
        .at(READ, Method::GET, "/api/framework/nomadic-e911/locations", get(nomadic::locations))
        .at(OPERATE, Method::POST, update, post(nomadic::update))
        .at(READ, Method::GET, history, get(nomadic::history))
        .at(READ, Method::GET, history_of, get(nomadic::history_of))
}

fn evidence_routes(routes: Routes) -> Routes {
    let soc2 = "/api/framework/compliance/soc2/control";
    routes
        .at(READ, Method::GET, "/api/nodes", get(live::nodes))
        .at(READ, Method::GET, "/api/calls", get(live::calls))
        .at(READ, Method::GET, "/api/calls/{id}", get(live::call))
        .at(READ, Method::GET, "/api/calls/{id}/ladder", get(live::ladder))
        .at(READ, Method::GET, "/api/trunks", get(live::trunks))
        .at(READ, Method::GET, "/api/stats", get(live::stats))
        .at(READ, Method::GET, "/api/cdrs", get(audit::cdrs))
        .at(AUDIT, Method::GET, "/api/audit/events", get(audit::events))
        .at(AUDIT, Method::GET, "/api/audit/verify", get(audit::verify))
        .at(READ, Method::GET, "/api/framework/compliance/soc2/controls", get(soc2::controls))
        .at(ATTEST, Method::POST, soc2, post(soc2::save))
        .at(
            AUDIT,
            Method::GET,
            "/api/framework/compliance/soc2/control/{control_id}/history",
            get(soc2::history),
        )
        .at(READ, Method::GET, "/api/framework/compliance/soc2/report", get(soc2::report))
        .at(ATTEST, Method::POST, "/api/framework/compliance/soc2/audit", post(soc2::add_audit))
        .at(ATTEST, Method::POST, "/api/framework/compliance/soc2/drill", post(soc2::drill))
        .at(AUDIT, Method::GET, PACKAGE, get(soc2::package))
        .at(READ, Method::GET, "/api/compliance/karis-law", get(karis::verify))
        .at(AUDIT, Method::GET, "/api/reports/emergency", get(reports::emergency))
        .at(AUDIT, Method::GET, "/api/reports/sites", get(reports::sites))
}

fn stir_routes(routes: Routes) -> Routes {
    let bounded = || DefaultBodyLimit::max(stir::BODY_MAX_BYTES);
    routes.at(OPERATE, Method::POST, "/stir/v1/signing", post(stir::signing).layer(bounded())).at(
        READ,
        Method::POST,
        "/stir/v1/verification",
        post(stir::verification).layer(bounded()),
    )
}

fn open_routes(routes: Routes) -> Routes {
    routes
        .at(Access::Open, Method::GET, "/api/health", get(health::health))
        .at(Access::Open, Method::GET, "/metrics", get(metrics::metrics))
        .at(Access::Open, Method::GET, "/api/openapi.json", get(openapi::show))
}

/// Counts requests, and bounds the time that they take.
async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let long = LONG.contains(&request.uri().path());
    let patience = if long { VERIFY_TIMEOUT } else { REQUEST_TIMEOUT };
    let response = match tokio::time::timeout(patience, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(StatusCode::GATEWAY_TIMEOUT, "this took too long").into_response(),
    };
    app.counters.request(response.status());
    response
}

impl Shared {
    /// The right to go over the whole store, which one request has at a time.
    ///
    /// # Errors
    /// 429 while another one does.
    pub(crate) fn one_check(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.verify.try_acquire().map_err(|_| {
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "another check runs; try again later")
        })
    }

    /// Version of the config in force; 0 if there is none.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.publisher.active().map_or(0, |active| active.version)
    }
}
