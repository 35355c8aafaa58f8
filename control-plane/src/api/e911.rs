//! Multi-site E911: the routes of the source documents, and the older names as aliases
//! (compliance-systems 3.2). A site is edited in the config document; the answer comes when the
//! nodes have it on every shard.

use std::net::IpAddr;

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};
use ravelin_contract::{audit::Severity, link::FieldError};
use ravelin_policy::{PinError, SiteError};
use serde::{Deserialize, Serialize};

use super::{
    App,
    auth::Caller,
    body::{Body, Query},
    error::{ApiError, ErrorBody},
};
use crate::{
    collect::registry::NodeResult,
    e911::SiteBody,
    publish::{Activated, ConfigFault},
    store::{
        EventExt, event,
        sites::{self, SiteView},
    },
};

/// Sites of one answer.
const SITES_MAX: u64 = 10_000;

/// A site and what became of its change on each node.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SiteAnswer {
    success: bool,
    #[serde(flatten)]
    site: SiteView,
    /// Config version that put it in force.
    config_version: u64,
    nodes: Vec<NodeResult>,
}

impl SiteAnswer {
    pub(crate) fn id(&self) -> u32 {
        self.site.id
    }
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Deleted {
    success: bool,
    id: u32,
    config_version: u64,
    nodes: Vec<NodeResult>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Sites {
    configs: Vec<SiteView>,
    /// `after` of the next page; null at the end.
    next: Option<u32>,
}

/// The list under its older name.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct OldSites {
    sites: Vec<SiteView>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PinBody {
    extension: Option<String>,
    site_id: Option<u32>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Pinned {
    success: bool,
    extension: String,
    site_id: u32,
    config_version: u64,
    nodes: Vec<NodeResult>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetectBody {
    ip_address: Option<String>,
    /// Ingress realm; needed where the same range exists behind several.
    realm: Option<String>,
}

/// Why an edit of the sites was refused.
pub(super) enum EditFault {
    Config(ConfigFault),
    Api(ApiError),
}

impl From<ConfigFault> for EditFault {
    fn from(fault: ConfigFault) -> Self {
        Self::Config(fault)
    }
}

impl From<EditFault> for ApiError {
    fn from(fault: EditFault) -> Self {
        match fault {
            // The fault is in what the request asked for, not in a document that it sent.
            EditFault::Config(ConfigFault::Invalid(faults)) => {
                Self::bad_request("the site is not valid").faults(&faults)
            }
            EditFault::Config(fault) => fault.into(),
            EditFault::Api(error) => error,
        }
    }
}

impl From<SiteError> for EditFault {
    fn from(error: SiteError) -> Self {
        let faulty = |error: ApiError, faults: &[FieldError]| Self::Api(error.faults(faults));
        match error {
            SiteError::NotFound => Self::Api(ApiError::not_found("site")),
            SiteError::Invalid(faults) => {
                faulty(ApiError::bad_request("the site is not valid"), &faults)
            }
            SiteError::Conflict(faults) => {
                faulty(ApiError::conflict("the range or the ELIN belongs to another site"), &faults)
            }
        }
    }
}

/// What must stand in a body whatever the document is like.
fn check(body: &SiteBody) -> Result<(), ApiError> {
    let mut error = ApiError::bad_request("the site is not valid");
    let missing = |value: &Option<String>| value.as_ref().is_none_or(|text| text.trim().is_empty());
    let mut sound = true;
    let mut need = |fails: bool, field: &str, error: ApiError| {
        sound &= !fails;
        if fails { error.field(field, "is required") } else { error }
    };
    error = need(missing(&body.site_name), "site_name", error);
    if missing(&body.ip_range) {
        error = need(missing(&body.ip_range_start), "ip_range_start", error);
        error = need(missing(&body.ip_range_end), "ip_range_end", error);
    }
    if sound { Ok(()) } else { Err(error) }
}

/// Add a site.
#[utoipa::path(post, path = "/api/e911/multi-site/config", tag = "e911", request_body = SiteBody,
    responses((status = 201, body = SiteAnswer), (status = 400, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(crate) async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<SiteBody>,
) -> Result<(StatusCode, Json<SiteAnswer>), ApiError> {
    Ok((StatusCode::CREATED, Json(add_site(&app, &caller, body).await?)))
}

/// Adds a site for API and pages.
pub(crate) async fn add_site(
    app: &App,
    caller: &Caller,
    body: SiteBody,
) -> Result<SiteAnswer, ApiError> {
    check(&body)?;
    let actor = caller.name();
    let comment = format!("site added: {}", body.site_name.as_deref().unwrap_or_default());
    let version = app.version();
    let who = actor.clone();
    let (id, activated) = app
        .publisher
        .edit(actor, comment, move |document, context| {
            // Numbers are given once: a deleted site's number never comes back for another place.
            let highest = document.config.sites.iter().filter_map(|site| site.site_id).max();
            let id = context.highest_site.max(highest.unwrap_or(0)).saturating_add(1);
            let id = document.add_site(body.into_config(id)).map_err(EditFault::from)?;
            let after = document.site(id).and_then(|site| serde_json::to_value(site).ok());
            let event = event("e911.site.created", Severity::Warning, &who, version)
                .with("site_id", id)
                .with("after", after);
            Ok::<_, EditFault>((id, event))
        })
        .await?;
    answer(app, id, activated).await
}

async fn answer(app: &App, id: u32, activated: Activated) -> Result<SiteAnswer, ApiError> {
    let nodes = app.publisher.acknowledged(activated.active.activation).await;
    let mut reader = app.store.reader().acquire().await?;
    let site = sites::load(&mut reader, id).await?.ok_or_else(|| ApiError::not_found("site"))?;
    Ok(SiteAnswer { success: true, site, config_version: activated.active.version, nodes })
}

/// One site.
#[utoipa::path(get, path = "/api/e911/multi-site/config/{site_id}", tag = "e911",
    params(("site_id" = u32, Path, description = "number of the site")),
    responses((status = 200, body = SiteView), (status = 404, body = ErrorBody)))]
pub(crate) async fn show(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<SiteView>, ApiError> {
    let mut reader = app.store.reader().acquire().await?;
    let site = match id.parse() {
        Ok(id) => sites::load(&mut reader, id).await?,
        Err(_) => None,
    };
    site.map(Json).ok_or_else(|| ApiError::not_found("site"))
}

/// Replace a site.
#[utoipa::path(put, path = "/api/e911/multi-site/config/{site_id}", tag = "e911",
    params(("site_id" = u32, Path, description = "number of the site")), request_body = SiteBody,
    responses((status = 200, body = SiteAnswer), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn update(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Body(body): Body<SiteBody>,
) -> Result<Json<SiteAnswer>, ApiError> {
    let id: u32 = id.parse().map_err(|_| ApiError::not_found("site"))?;
    check(&body)?;
    let actor = caller.name();
    let (who, version) = (actor.clone(), app.version());
    let ((), activated) = app
        .publisher
        .edit(actor, format!("site {id} changed"), move |document, _| {
            let before = document.site(id).and_then(|site| serde_json::to_value(site).ok());
            document.update_site(id, body.into_config(id)).map_err(EditFault::from)?;
            let after = document.site(id).and_then(|site| serde_json::to_value(site).ok());
            let event = event("e911.site.updated", Severity::Warning, &who, version)
                .with("site_id", id)
                .with("before", before)
                .with("after", after);
            Ok::<_, EditFault>(((), event))
        })
        .await?;
    Ok(Json(answer(&app, id, activated).await?))
}

/// Remove a site.
#[utoipa::path(delete, path = "/api/e911/multi-site/config/{site_id}", tag = "e911",
    params(("site_id" = u32, Path, description = "number of the site")),
    responses((status = 200, body = Deleted), (status = 404, body = ErrorBody)))]
pub(crate) async fn remove(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, ApiError> {
    let id: u32 = id.parse().map_err(|_| ApiError::not_found("site"))?;
    remove_site(&app, &caller, id).await.map(Json)
}

/// Removes a site for API and pages.
pub(crate) async fn remove_site(app: &App, caller: &Caller, id: u32) -> Result<Deleted, ApiError> {
    let actor = caller.name();
    let (who, version) = (actor.clone(), app.version());
    let ((), activated) = app
        .publisher
        .edit(actor, format!("site {id} removed"), move |document, _| {
            let gone = document.delete_site(id).map_err(EditFault::from)?;
            let event = event("e911.site.deleted", Severity::Warning, &who, version)
                .with("site_id", id)
                .with("before", serde_json::to_value(&gone).ok());
            Ok::<_, EditFault>(((), event))
        })
        .await?;
    let nodes = app.publisher.acknowledged(activated.active.activation).await;
    Ok(Deleted { success: true, id, config_version: activated.active.version, nodes })
}

async fn page(app: &App, query: Query) -> Result<(Vec<SiteView>, Option<u32>), ApiError> {
    let query = query.only(&["limit", "after"])?;
    let limit = query.number("limit", 1..=SITES_MAX)?.unwrap_or(SITES_MAX);
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let after = query.number("after", 0..=u64::from(u32::MAX))?.unwrap_or(0);
    let mut reader = app.store.reader().acquire().await?;
    let after = u32::try_from(after).unwrap_or(u32::MAX);
    let mut found = sites::list(&mut reader, after, limit + 1).await?;
    let more = found.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    if more {
        found.pop();
    }
    let next = found.last().filter(|_| more).map(|site| site.id);
    Ok((found, next))
}

/// Every site, by number.
#[utoipa::path(get, path = "/api/e911/multi-site/configs", tag = "e911",
    params(("limit" = Option<u64>, Query, description = "at most 10000, the default"),
        ("after" = Option<u64>, Query, description = "only sites behind this number")),
    responses((status = 200, body = Sites)))]
pub(crate) async fn list(State(app): State<App>, query: Query) -> Result<Json<Sites>, ApiError> {
    let (configs, next) = page(&app, query).await?;
    Ok(Json(Sites { configs, next }))
}

/// Every site, by name (older name of the route).
#[utoipa::path(get, path = "/api/framework/nomadic-e911/sites", tag = "e911",
    responses((status = 200, body = OldSites)))]
pub(crate) async fn old_list(
    State(app): State<App>,
    query: Query,
) -> Result<Json<OldSites>, ApiError> {
    let (mut sites, _) = page(&app, query).await?;
    sites.sort_by(|left, right| left.site_name.cmp(&right.site_name));
    Ok(Json(OldSites { sites }))
}

/// Add a site (older name of the route; unlike there, the answer says what was made).
#[utoipa::path(post, path = "/api/framework/nomadic-e911/create-site", tag = "e911",
    request_body = SiteBody,
    responses((status = 201, body = SiteAnswer), (status = 400, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(crate) async fn old_create(
    app: State<App>,
    caller: Extension<Caller>,
    body: Body<SiteBody>,
) -> Result<(StatusCode, Json<SiteAnswer>), ApiError> {
    create(app, caller, body).await
}

/// Pin an extension to a site: it wins over the address (compliance-systems M4).
#[utoipa::path(post, path = "/api/e911/extension-site", tag = "e911", request_body = PinBody,
    responses((status = 200, body = Pinned), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
pub(crate) async fn pin(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<PinBody>,
) -> Result<Json<Pinned>, ApiError> {
    let error = || ApiError::bad_request("the assignment is not valid");
    let (extension, site_id) = match (body.extension, body.site_id) {
        (Some(extension), Some(site)) => (extension, site),
        (extension, site) => {
            let mut error = error();
            if extension.is_none() {
                error = error.field("extension", "is required");
            }
            if site.is_none() {
                error = error.field("site_id", "is required");
            }
            return Err(error);
        }
    };
    let actor = caller.name();
    let (who, version, name) = (actor.clone(), app.version(), extension.clone());
    let ((), activated) = app
        .publisher
        .edit(actor, format!("extension assigned to site {site_id}"), move |document, _| {
            let before = super::nomadic::brief(document, &name);
            document.pin_extension(&name, site_id).map_err(|fault| {
                EditFault::Api(match fault {
                    PinError::NoSuchSite => ApiError::not_found("site"),
                    PinError::BadExtension(reason) => {
                        ApiError::bad_request("the assignment is not valid")
                            .field("extension", reason)
                    }
                })
            })?;
            let after = super::nomadic::brief(document, &name);
            let site = document.site(site_id).map(|site| site.site_name.clone());
            let event = event(super::nomadic::KIND_PINNED, Severity::Warning, &who, version)
                .with("extension", name)
                .with("site_id", site_id)
                .with("site_name", site)
                .with("old_location", before)
                .with("new_location", after);
            Ok::<_, EditFault>(((), event))
        })
        .await?;
    let nodes = app.publisher.acknowledged(activated.active.activation).await;
    let config_version = activated.active.version;
    Ok(Json(Pinned { success: true, extension, site_id, config_version, nodes }))
}

/// Where a caller with this address would be placed (older name; asks the table that the data plane
/// uses, and stores nothing).
#[utoipa::path(post, path = "/api/framework/nomadic-e911/detect-location/{extension}", tag = "e911",
    params(("extension" = String, Path, description = "the caller's extension")),
    request_body = DetectBody,
    responses((status = 200, body = serde_json::Value), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
pub(crate) async fn detect(
    State(app): State<App>,
    Path(extension): Path<String>,
    Body(body): Body<DetectBody>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let text = body.ip_address.unwrap_or_default();
    let address: IpAddr = text.trim().parse().map_err(|_| {
        ApiError::bad_request("IP address required").field("ip_address", "must be an address")
    })?;
    let active = app.publisher.active().ok_or(ConfigFault::NothingActive)?;
    let snapshot = &active.snapshot;
    let realm = match &body.realm {
        Some(name) => vec![snapshot.realm_by_id(name).ok_or_else(|| {
            ApiError::bad_request("no such realm").field("realm", "is not in the config")
        })?],
        None => (0..snapshot.realms.len())
            .filter_map(|index| u16::try_from(index).ok().map(ravelin_policy::RealmId))
            .collect(),
    };
    for realm in realm {
        let located = snapshot.locate(realm, address, Some(extension.as_bytes()), None);
        let Some(found) = located.site else { continue };
        let Some(site) = snapshot.site_settings(found.site) else { continue };
        let mut reader = app.store.reader().acquire().await?;
        let stored = sites::load(&mut reader, site.site_id).await?;
        return Ok(Json(serde_json::json!({
            "extension": extension,
            "location_name": site.name,
            "ip_address": address.to_string(),
            "auto_detected": true,
            "rule": found.rule.as_str(),
            "site_id": site.site_id,
            "street_address": stored.as_ref().and_then(|site| site.street_address.clone()),
            "city": stored.as_ref().and_then(|site| site.city.clone()),
            "state": stored.as_ref().and_then(|site| site.state.clone()),
            "postal_code": stored.as_ref().and_then(|site| site.postal_code.clone()),
            "country": stored.as_ref().and_then(|site| site.country.clone()),
            "building": stored.as_ref().and_then(|site| site.building.clone()),
            "floor": stored.as_ref().and_then(|site| site.floor.clone()),
        })));
    }
    if is_private(address) {
        return Ok(Json(serde_json::json!({
            "extension": extension,
            "location_name": "Unknown Internal Location",
            "ip_address": address.to_string(),
            "auto_detected": true,
            "needs_configuration": true,
        })));
    }
    Err(ApiError::not_found("Location"))
}

/// Addresses that only mean something inside one network (RFC 1918, 6598, 4193, 3927).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || (first == 100 && (64..128).contains(&second))
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}
