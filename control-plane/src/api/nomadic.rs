//! Locations of extensions under their older names (compliance-systems 3.2). An extension is
//! *assigned* to a site, in the config document like everything that routes a call: the address
//! that an INVITE comes from wins over it, only a pin (`/api/e911/extension-site`) wins over the
//! address (M3, M4). A location that is no site could not reach a PSAP, and is refused.

use std::net::IpAddr;

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use ravelin_contract::{
    audit::{AuditEvent, Severity},
    chain::{Entry, Record},
    config::ExtensionSite,
};
use ravelin_policy::{Document, RealmId, SiteRule, Snapshot};
use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, Row};

use super::{
    App,
    auth::Caller,
    body::{Body, Query},
    e911::EditFault,
    error::{ApiError, ErrorBody},
};
use crate::{
    clock,
    collect::registry::NodeResult,
    publish::ConfigFault,
    store::{
        EventExt, event,
        sites::{self, SiteView},
    },
};

/// An extension was pinned to a site.
pub(super) const KIND_PINNED: &str = "e911.extension_site.set";
/// An extension was assigned to a site.
const KIND_ASSIGNED: &str = "e911.location.updated";
/// Extensions of one answer.
const LOCATIONS_MAX: usize = 10_000;
/// Changes of one answer, and changes that are looked through for one extension.
const HISTORY_MAX: u64 = 1_000;
const HISTORY_SCAN_MAX: i64 = 10_000;

/// Where an extension is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Place {
    extension: String,
    location_name: String,
    site_id: u32,
    street_address: Option<String>,
    city: Option<String>,
    state: Option<String>,
    postal_code: Option<String>,
    country: Option<String>,
    building: Option<String>,
    floor: Option<String>,
    room: Option<String>,
    /// The address that was given with the assignment; null when none was.
    ip_address: Option<String>,
    /// `pinned` or `assigned`.
    detection_method: &'static str,
    auto_detected: bool,
    last_updated: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Placed {
    extension: String,
    site_name: String,
    address: String,
    detection_method: &'static str,
    last_updated: Option<String>,
    ip_address: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Locations {
    locations: Vec<Placed>,
    total: usize,
}

/// One change of the location of an extension.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Change {
    timestamp: String,
    extension: Option<String>,
    site_name: Option<String>,
    detection_method: &'static str,
    ip_address: Option<String>,
    old_location: Option<String>,
    new_location: Option<String>,
    /// `manual`: locations found from addresses are not stored, each call finds its own.
    update_source: &'static str,
    updated_at: String,
    updated_by: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Changes {
    history: Vec<Change>,
}

/// Names a site: by number, by name, or by an address in its range. The address fields of the
/// older interface are accepted and must agree with the site.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LocationBody {
    site_id: Option<u32>,
    #[serde(alias = "site_name")]
    location_name: Option<String>,
    ip_address: Option<String>,
    street_address: Option<String>,
    city: Option<String>,
    state: Option<String>,
    postal_code: Option<String>,
    country: Option<String>,
    building: Option<String>,
    floor: Option<String>,
    room: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Updated {
    success: bool,
    extension: String,
    site_id: u32,
    location_name: String,
    config_version: u64,
    nodes: Vec<NodeResult>,
}

/// `street, city, state`, as the older history writes a location.
pub(super) fn brief(document: &Document, extension: &str) -> Option<String> {
    let all = &document.config.extension_sites;
    let found = all.iter().find(|one| one.extension == extension)?;
    let site = document.config.sites.iter().find(|site| {
        found.site_id.is_some_and(|id| site.site_id == Some(id))
            || found.site.as_ref() == Some(&site.site_name)
    })?;
    let parts = [&site.street_address, &site.city, &site.state];
    let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    Some(if parts.is_empty() { site.site_name.clone() } else { parts.join(", ") })
}

fn method(rule: SiteRule) -> &'static str {
    if rule == SiteRule::Pinned { "pinned" } else { "assigned" }
}

/// Where an extension is assigned.
#[utoipa::path(get, path = "/api/framework/nomadic-e911/location/{extension}", tag = "e911",
    params(("extension" = String, Path, description = "the extension")),
    responses((status = 200, body = Place), (status = 404, body = ErrorBody)))]
pub(crate) async fn location(
    State(app): State<App>,
    Path(extension): Path<String>,
) -> Result<Json<Place>, ApiError> {
    let active = app.publisher.active().ok_or(ConfigFault::NothingActive)?;
    let found = active
        .snapshot
        .extension_site(extension.as_bytes())
        .and_then(|found| Some((found.rule, active.snapshot.site_settings(found.site)?.site_id)));
    let (rule, id) = found.ok_or_else(|| ApiError::not_found("Location"))?;
    let mut reader = app.store.reader().acquire().await?;
    let site = sites::load(&mut reader, id).await?;
    let site: SiteView = site.ok_or_else(|| ApiError::not_found("Location"))?;
    let last = changes(&mut reader, Some(&extension), 1).await?.pop();
    Ok(Json(Place {
        extension,
        location_name: site.site_name,
        site_id: site.id,
        street_address: site.street_address,
        city: site.city,
        state: site.state,
        postal_code: site.postal_code,
        country: site.country,
        building: site.building,
        floor: site.floor,
        room: site.room,
        ip_address: last.as_ref().and_then(|last| last.ip_address.clone()),
        detection_method: method(rule),
        auto_detected: false,
        last_updated: last.map(|last| last.updated_at),
    }))
}

/// Every extension that is assigned to a site, by extension.
#[utoipa::path(get, path = "/api/framework/nomadic-e911/locations", tag = "e911",
    responses((status = 200, body = Locations)))]
pub(crate) async fn locations(State(app): State<App>) -> Result<Json<Locations>, ApiError> {
    let active = app.publisher.active().ok_or(ConfigFault::NothingActive)?;
    let history = {
        let mut reader = app.store.reader().acquire().await?;
        changes(&mut reader, None, usize::MAX).await?
    };
    let snapshot: &Snapshot = &active.snapshot;
    let document = Document::from_yaml(&active.document).map_err(ConfigFault::Invalid)?;
    let mut names: Vec<&str> =
        document.config.extension_sites.iter().map(|one| one.extension.as_str()).collect();
    names.sort_unstable();
    let total = names.len();
    let locations = names
        .into_iter()
        .take(LOCATIONS_MAX)
        .filter_map(|extension| {
            let found = snapshot.extension_site(extension.as_bytes())?;
            let site = snapshot.site_settings(found.site)?;
            let last = history.iter().find(|one| one.extension.as_deref() == Some(extension));
            Some(Placed {
                extension: extension.to_owned(),
                site_name: site.name.clone(),
                address: site.address.to_string(),
                detection_method: method(found.rule),
                last_updated: last.map(|last| last.updated_at.clone()),
                ip_address: last.and_then(|last| last.ip_address.clone()),
            })
        })
        .collect();
    Ok(Json(Locations { locations, total }))
}

/// Assign an extension to a site: it counts where the caller's address belongs to no site.
#[utoipa::path(post, path = "/api/framework/nomadic-e911/update-location/{extension}",
    tag = "e911", params(("extension" = String, Path, description = "the extension")),
    request_body = LocationBody,
    responses((status = 200, body = Updated), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn update(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(extension): Path<String>,
    Body(body): Body<LocationBody>,
) -> Result<Json<Updated>, ApiError> {
    let active = app.publisher.active().ok_or(ConfigFault::NothingActive)?;
    let site = {
        let id = named_site(&active.snapshot, &body)?;
        let mut reader = app.store.reader().acquire().await?;
        sites::load(&mut reader, id).await?.ok_or_else(|| ApiError::not_found("site"))?
    };
    agrees(&body, &site)?;
    let (id, name) = (site.id, site.site_name);
    let pinned = active.snapshot.extension_site(extension.as_bytes());
    if pinned.is_some_and(|found| found.rule == SiteRule::Pinned) {
        return Err(ApiError::conflict(
            "the extension is pinned; change the pin with POST /api/e911/extension-site",
        ));
    }
    let actor = caller.name();
    let (who, version, who_is) = (actor.clone(), app.version(), extension.clone());
    let (ip_address, to) = (body.ip_address, name.clone());
    let comment = format!("extension located at site {id}");
    let ((), activated) = app
        .publisher
        .edit(actor, comment, move |document, _| {
            let before = brief(document, &who_is);
            let all = &mut document.config.extension_sites;
            all.retain(|one| one.extension != who_is);
            all.push(ExtensionSite {
                extension: who_is.clone(),
                site_id: Some(id),
                site: None,
                pinned: false,
            });
            let event = event(KIND_ASSIGNED, Severity::Warning, &who, version)
                .with("extension", who_is.clone())
                .with("site_id", id)
                .with("site_name", to)
                .with("ip_address", ip_address)
                .with("old_location", before)
                .with("new_location", brief(document, &who_is));
            Ok::<_, EditFault>(((), event))
        })
        .await
        .map_err(|fault| match fault {
            // The rest of the document was in force already: the extension is what is wrong.
            EditFault::Config(ConfigFault::Invalid(faults)) => {
                let reason = faults.first().map_or("", |fault| fault.reason.as_str());
                ApiError::bad_request("the location is not valid").field("extension", reason)
            }
            fault => fault.into(),
        })?;
    let nodes = app.publisher.acknowledged(activated.active.activation).await;
    let config_version = activated.active.version;
    Ok(Json(Updated {
        success: true,
        extension,
        site_id: id,
        location_name: name,
        config_version,
        nodes,
    }))
}

/// The site that the body names.
fn named_site(snapshot: &Snapshot, body: &LocationBody) -> Result<u32, ApiError> {
    let not_valid = || ApiError::bad_request("the location is not valid");
    if let Some(id) = body.site_id {
        let known = snapshot.sites.iter().any(|site| site.site_id == id);
        return if known { Ok(id) } else { Err(ApiError::not_found("site")) };
    }
    let address: Option<IpAddr> = match &body.ip_address {
        Some(text) => Some(
            text.trim()
                .parse()
                .map_err(|_| not_valid().field("ip_address", "must be an address"))?,
        ),
        None => None,
    };
    if let Some(name) = &body.location_name {
        let found = snapshot.sites.iter().find(|site| site.name == *name);
        return found.map(|site| site.site_id).ok_or_else(|| {
            not_valid().field("location_name", "is the name of no site; add the site first")
        });
    }
    let Some(address) = address else {
        return Err(not_valid()
            .field("location_name", "name a site by site_id, location_name or ip_address"));
    };
    (0_u16..)
        .map(RealmId)
        .take(snapshot.realms.len())
        .find_map(|realm| snapshot.site(realm, address))
        .and_then(|found| snapshot.site_settings(found.site))
        .map(|site| site.site_id)
        .ok_or_else(|| not_valid().field("ip_address", "is in the range of no site"))
}

/// What the body says of the address is what the PSAP would be told: that of the site.
fn agrees(body: &LocationBody, site: &SiteView) -> Result<(), ApiError> {
    let mut error = ApiError::bad_request("the address is not that of the site; change the site");
    let mut sound = true;
    for (name, given, known) in [
        ("street_address", &body.street_address, &site.street_address),
        ("city", &body.city, &site.city),
        ("state", &body.state, &site.state),
        ("postal_code", &body.postal_code, &site.postal_code),
        ("building", &body.building, &site.building),
        ("floor", &body.floor, &site.floor),
        ("room", &body.room, &site.room),
    ] {
        let Some(given) = given.as_ref().filter(|text| !text.is_empty()) else { continue };
        if known.as_ref() != Some(given) {
            sound = false;
            let known = known.as_deref().unwrap_or("not set");
            error = error.field(name, format!("the site has: {known}"));
        }
    }
    // A country has several spellings, and none of them decides on a route.
    if sound { Ok(()) } else { Err(error) }
}

/// Changes of every extension, newest first.
#[utoipa::path(get, path = "/api/framework/nomadic-e911/history", tag = "e911",
    params(("limit" = Option<u64>, Query, description = "at most 1000, 100 by default")),
    responses((status = 200, body = Changes), (status = 400, body = ErrorBody)))]
pub(crate) async fn history(
    State(app): State<App>,
    query: Query,
) -> Result<Json<Changes>, ApiError> {
    answer(&app, None, query).await
}

/// Changes of one extension, newest first.
#[utoipa::path(get, path = "/api/framework/nomadic-e911/history/{extension}", tag = "e911",
    params(("extension" = String, Path, description = "the extension"),
        ("limit" = Option<u64>, Query, description = "at most 1000, 100 by default")),
    responses((status = 200, body = Changes), (status = 400, body = ErrorBody)))]
pub(crate) async fn history_of(
    State(app): State<App>,
    Path(extension): Path<String>,
    query: Query,
) -> Result<Json<Changes>, ApiError> {
    answer(&app, Some(&extension), query).await
}

async fn answer(
    app: &App,
    extension: Option<&str>,
    query: Query,
) -> Result<Json<Changes>, ApiError> {
    let query = query.only(&["limit"])?;
    let limit = query.number("limit", 1..=HISTORY_MAX)?.unwrap_or(100);
    let mut reader = app.store.reader().acquire().await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(Json(Changes { history: changes(&mut reader, extension, limit).await? }))
}

/// The audit trail is the history: it is written in the transaction of the change.
async fn changes(
    connection: &mut AnyConnection,
    extension: Option<&str>,
    limit: usize,
) -> Result<Vec<Change>, ApiError> {
    let rows = sqlx::query(
        "SELECT line FROM audit_events WHERE kind IN ($1, $2)
         ORDER BY at_ms DESC, epoch DESC, seq DESC LIMIT $3",
    )
    .bind(KIND_PINNED.to_owned())
    .bind(KIND_ASSIGNED.to_owned())
    .bind(HISTORY_SCAN_MAX)
    .fetch_all(connection)
    .await?;
    let mut found = Vec::new();
    for row in rows {
        let line: String = row.try_get(0)?;
        let record: Record = serde_json::from_str(&line).map_err(crate::StoreError::from)?;
        let entry = serde_json::from_str(record.entry.get()).map_err(crate::StoreError::from)?;
        let Entry::Audit(event) = entry else { continue };
        let change = change(event);
        if extension.is_none() || change.extension.as_deref() == extension {
            found.push(change);
        }
        if found.len() >= limit {
            break;
        }
    }
    Ok(found)
}

fn change(event: AuditEvent) -> Change {
    let text =
        |name: &str| event.fields.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    let at = clock::rfc3339(event.unix_ms);
    Change {
        timestamp: at.clone(),
        extension: text("extension"),
        site_name: text("site_name"),
        detection_method: if event.kind == KIND_PINNED { "pinned" } else { "assigned" },
        ip_address: text("ip_address"),
        old_location: text("old_location"),
        new_location: text("new_location"),
        update_source: "manual",
        updated_at: at,
        updated_by: event.actor,
    }
}
