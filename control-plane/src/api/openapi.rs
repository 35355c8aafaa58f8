//! The description of the API, made from the handlers (OpenAPI 3.1).

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use super::{
    audit, config, e911, emergency, error::ErrorBody, health, karis, live, metrics, nomadic,
    reports, soc2, stir, tokens,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ravelin control plane",
        description = "Config, live views, records and compliance of a Ravelin session border \
            controller. Every route but health, metrics and this document needs a Bearer token; \
            its role decides what it may do.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        health::health, metrics::metrics, show,
        config::show, config::stage, config::versions, config::validate, config::activate,
        config::rollback,
        tokens::create, tokens::list, tokens::revoke,
        live::nodes, live::calls, live::call, live::ladder, live::trunks, live::stats,
        audit::cdrs, audit::events, audit::verify,
        e911::create, e911::show, e911::update, e911::remove, e911::list, e911::pin,
        e911::old_list, e911::old_create, e911::detect, old_update, old_remove,
        emergency::contacts, emergency::add_contact, emergency::remove_contact,
        emergency::history, emergency::trigger, emergency::test, emergency::acknowledge,
        soc2::controls, soc2::save, soc2::history, soc2::report, soc2::add_audit,
        soc2::drill, soc2::package,
        nomadic::location, nomadic::locations, nomadic::update, nomadic::history,
        nomadic::history_of,
        karis::verify,
        reports::emergency, reports::sites,
        stir::signing, stir::verification,
    ),
    components(schemas(ErrorBody)),
    modifiers(&Bearer),
    security(("bearer" = []))
)]
struct Api;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        components
            .add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// The description as text, as it is served and as it stands in `docs/openapi.json`.
///
/// # Panics
/// If the description cannot be written as JSON, which a test would have found.
#[must_use]
pub fn document() -> String {
    let mut text = Api::openapi().to_pretty_json().expect("the description is JSON");
    text.push('\n');
    text
}

/// This description.
#[utoipa::path(get, path = "/api/openapi.json", tag = "health", security(()),
    responses((status = 200, body = serde_json::Value)))]
pub(crate) async fn show() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document()).into_response()
}

/// Replace a site (older name of the route).
#[utoipa::path(put, path = "/api/framework/nomadic-e911/sites/{site_id}", tag = "e911",
    params(("site_id" = u32, Path, description = "number of the site")),
    request_body = crate::e911::SiteBody,
    responses((status = 200, body = e911::SiteAnswer), (status = 404, body = ErrorBody)))]
#[allow(dead_code, reason = "describes an alias; the handler is e911::update")]
fn old_update() {}

/// Remove a site (older name of the route).
#[utoipa::path(delete, path = "/api/framework/nomadic-e911/sites/{site_id}", tag = "e911",
    params(("site_id" = u32, Path, description = "number of the site")),
    responses((status = 200, body = e911::Deleted), (status = 404, body = ErrorBody)))]
#[allow(dead_code, reason = "describes an alias; the handler is e911::remove")]
fn old_remove() {}
