//! Emergency contacts, and notifications that a person asks for (compliance-systems 2.3).

use std::{collections::BTreeMap, sync::Arc};

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
    body::{Body, Query, Text},
    error::{ApiError, ErrorBody},
};
use crate::{
    notify::{
        CONTACTS_MAX, Contact, Method, Notification, State as DeliveryState, contact,
        history::{self, Search},
        queue::{self, TRIGGER_TEST},
    },
    store::{EventExt, event, sites},
};

/// Longest text of one field of a contact.
const TEXT_MAX_CHARS: usize = 128;
/// Notifications of one answer.
const HISTORY_MAX: u64 = 1_000;
/// Detail fields of a manual trigger.
const DETAILS_MAX: usize = 32;

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Contacts {
    contacts: Vec<Contact>,
    total: usize,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewContact {
    name: Option<String>,
    extension: Option<String>,
    phone: Option<String>,
    email: Option<String>,
    /// 1 (first, the default) to 5.
    priority: Option<u8>,
    /// Absent: `[call]`.
    notification_methods: Option<Vec<Method>>,
    /// Only for calls from this site.
    site_id: Option<u32>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ContactSaved {
    success: bool,
    contact: Contact,
    message: String,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Done {
    success: bool,
    message: String,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct History {
    history: Vec<Notification>,
    total: u64,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trigger {
    /// `panic_button`, `manual` or `other`.
    trigger_type: Option<String>,
    #[serde(default)]
    details: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestBody {
    /// Tell only this contact; absent: all.
    contact_id: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acknowledgement {
    notification_id: String,
    /// Only what this contact was sent; absent: whoever was told.
    contact_id: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Queued {
    success: bool,
    notification_id: String,
    /// Deliveries that were queued.
    queued: usize,
    message: String,
}

/// Contacts of the API and of the config document, in order of priority.
#[utoipa::path(get, path = "/api/emergency/contacts", tag = "emergency",
    params(("priority" = Option<u64>, Query, description = "only contacts up to this priority")),
    responses((status = 200, body = Contacts)))]
pub(crate) async fn contacts(
    State(app): State<App>,
    query: Query,
) -> Result<Json<Contacts>, ApiError> {
    let query = query.only(&["priority"])?;
    let most = query.number("priority", 1..=5)?.unwrap_or(5);
    let mut reader = app.store.reader().acquire().await?;
    let mut contacts = contact::contacts(&mut reader).await?;
    if let Some(active) = app.publisher.active() {
        contacts.extend_from_slice(&active.notify.contacts);
    }
    contacts.retain(|contact| u64::from(contact.priority) <= most);
    contacts.sort_by_key(|contact| contact.priority);
    Ok(Json(Contacts { total: contacts.len(), contacts }))
}

/// Add a contact.
#[utoipa::path(post, path = "/api/emergency/contacts", tag = "emergency", request_body = NewContact,
    responses((status = 201, body = ContactSaved), (status = 400, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(crate) async fn add_contact(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<NewContact>,
) -> Result<(StatusCode, Json<ContactSaved>), ApiError> {
    let contact = check(body)?;
    let actor = caller.name();
    let mut tx = app.store.write().await?;
    let present = contact::contacts(tx.connection()).await?;
    if present.iter().any(|other| other.id == contact.id) {
        return Err(ApiError::conflict(format!("contact {} exists", contact.id)));
    }
    if u64::try_from(present.len()).unwrap_or(u64::MAX) >= CONTACTS_MAX {
        return Err(ApiError::conflict(format!("there are {CONTACTS_MAX} contacts already")));
    }
    if let Some(site) = contact.site_id {
        let site = u32::try_from(site).unwrap_or(0);
        if sites::load(tx.connection(), site).await?.is_none() {
            return Err(
                ApiError::bad_request("the contact is not valid").field("site_id", "no such site")
            );
        }
    }
    contact::insert_contact(tx.connection(), &contact).await?;
    let added = event("emergency.contact.created", Severity::Info, &actor, app.version())
        .with("contact", serde_json::to_value(&contact).ok());
    tx.audit(added).await?;
    tx.commit().await?;
    let message = format!("contact {} added", contact.name);
    Ok((StatusCode::CREATED, Json(ContactSaved { success: true, contact, message })))
}

fn check(body: NewContact) -> Result<Contact, ApiError> {
    let mut error = ApiError::bad_request("the contact is not valid");
    let mut sound = true;
    let mut fault = |error: ApiError, field: &str, reason: String| {
        sound = false;
        error.field(field, reason)
    };
    let texts = [
        ("name", &body.name),
        ("extension", &body.extension),
        ("phone", &body.phone),
        ("email", &body.email),
    ];
    for (field, text) in texts {
        let Some(text) = text else { continue };
        if text.chars().count() > TEXT_MAX_CHARS || text.chars().any(char::is_control) {
            let reason = format!("must be at most {TEXT_MAX_CHARS} characters, none of control");
            error = fault(error, field, reason);
        }
    }
    let name = body.name.unwrap_or_default().trim().to_owned();
    if name.is_empty() {
        error = fault(error, "name", "is required".to_owned());
    }
    let priority = body.priority.unwrap_or(1);
    if !(1..=5).contains(&priority) {
        error = fault(error, "priority", "must be from 1 (first) to 5".to_owned());
    }
    let mut methods = body.notification_methods.unwrap_or_else(|| vec![Method::Call]);
    methods.sort_unstable();
    methods.dedup();
    let slug: String =
        name.to_lowercase().chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
    let reached = [&body.extension, &body.phone, &body.email].into_iter().flatten().next();
    let contact = Contact {
        id: format!("{slug}_{}", reached.map_or("", String::as_str)),
        name,
        extension: body.extension,
        phone: body.phone,
        email: body.email,
        priority,
        notification_methods: methods,
        site_id: body.site_id.map(u64::from),
        source: "api".to_owned(),
        by_law: false,
    };
    if contact.notification_methods.is_empty() {
        error = fault(error, "notification_methods", "at least one is needed".to_owned());
    }
    for method in &contact.notification_methods {
        if contact.address(*method).is_none_or(|address| address.trim().is_empty()) {
            let reason = format!("{} needs an address that is not given", method.name());
            error = fault(error, "notification_methods", reason);
        }
    }
    if sound { Ok(contact) } else { Err(error) }
}

/// Take a contact out of use.
#[utoipa::path(delete, path = "/api/emergency/contacts/{id}", tag = "emergency",
    params(("id" = String, Path, description = "id of the contact")),
    responses((status = 200, body = Done), (status = 404, body = ErrorBody)))]
pub(crate) async fn remove_contact(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Done>, ApiError> {
    let configured = app
        .publisher
        .active()
        .is_some_and(|active| active.notify.contacts.iter().any(|contact| contact.id == id));
    if configured {
        return Err(ApiError::conflict(
            "this contact stands in the config document: change it there",
        ));
    }
    let mut tx = app.store.write().await?;
    if !contact::delete_contact(tx.connection(), &id).await? {
        return Err(ApiError::not_found("Contact"));
    }
    let removed = event("emergency.contact.deleted", Severity::Info, &caller.name(), app.version())
        .with("contact_id", id);
    tx.audit(removed).await?;
    tx.commit().await?;
    Ok(Json(Done { success: true, message: "contact removed".to_owned() }))
}

/// Notifications, newest first, with the state of each delivery.
#[utoipa::path(get, path = "/api/emergency/history", tag = "emergency",
    params(("limit" = Option<u64>, Query, description = "at most 1000, 50 by default"),
        ("from" = Option<String>, Query, description = "RFC 3339, a date, or UTC milliseconds"),
        ("to" = Option<String>, Query, description = "first moment after the range"),
        ("trigger_type" = Option<String>, Query, description = "only of this kind"),
        ("call_id" = Option<String>, Query, description = "only of this call"),
        ("extension" = Option<String>, Query, description = "only of this caller"),
        ("site_id" = Option<u64>, Query, description = "only of this site")),
    responses((status = 200, body = History)))]
pub(crate) async fn history(
    State(app): State<App>,
    query: Query,
) -> Result<Json<History>, ApiError> {
    let known = ["limit", "from", "to", "trigger_type", "call_id", "extension", "site_id"];
    let query = query.only(&known)?;
    let limit = query.number("limit", 1..=HISTORY_MAX)?.unwrap_or(50);
    let text = |name: &str| query.text(name).map(str::to_owned);
    let search = Search {
        from_ms: query.time("from")?,
        to_ms: query.time("to")?,
        trigger: text("trigger_type"),
        call: text("call_id"),
        extension: text("extension"),
        site_id: query.number("site_id", 1..=u64::from(u32::MAX))?,
        limit: u32::try_from(limit).unwrap_or(u32::MAX),
    };
    let mut reader = app.store.reader().acquire().await?;
    let (history, total) = history::history(&mut reader, &search).await?;
    Ok(Json(History { history, total }))
}

/// Queue a notification to every contact.
#[utoipa::path(post, path = "/api/emergency/trigger", tag = "emergency", request_body = Trigger,
    responses((status = 200, body = Queued), (status = 400, body = ErrorBody)))]
pub(crate) async fn trigger(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<Trigger>,
) -> Result<Json<Queued>, ApiError> {
    let kinds = ["panic_button", "manual", "other"];
    let kind = body.trigger_type.unwrap_or_default();
    if !kinds.contains(&kind.as_str()) {
        return Err(ApiError::bad_request("the trigger is not valid")
            .field("trigger_type", format!("must be one of: {}", kinds.join(", "))));
    }
    if body.details.len() > DETAILS_MAX {
        return Err(ApiError::bad_request("the trigger is not valid")
            .field("details", format!("at most {DETAILS_MAX} fields")));
    }
    queue(&app, &caller, &kind, body.details, None).await.map(Json)
}

/// Send a notification that is marked as a test, to every contact or to one. Only by POST: reading
/// never alerts anybody.
#[utoipa::path(post, path = "/api/emergency/test", tag = "emergency", request_body = TestBody,
    responses((status = 200, body = Queued), (status = 404, body = ErrorBody)))]
pub(crate) async fn test(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Text(body): Text,
) -> Result<Json<Queued>, ApiError> {
    let body: TestBody = if body.trim().is_empty() {
        TestBody::default()
    } else {
        serde_json::from_str(&body)
            .map_err(|error| ApiError::bad_request(format!("the body does not read: {error}")))?
    };
    let only = body.contact_id;
    let details = [("test".to_owned(), true.into())].into();
    queue(&app, &caller, TRIGGER_TEST, details, only.as_deref()).await.map(Json)
}

async fn queue(
    app: &App,
    caller: &Caller,
    kind: &str,
    details: BTreeMap<String, serde_json::Value>,
    only: Option<&str>,
) -> Result<Queued, ApiError> {
    let actor = caller.name();
    let policy = app.publisher.active().map(|active| Arc::clone(&active.notify));
    let policy = policy.unwrap_or_default();
    let mut tx = app.store.write().await?;
    let id = queue::queue_manual(&mut tx, kind, &actor, &details, &policy, only).await?;
    let deliveries = history::deliveries(tx.connection(), &id).await?;
    if only.is_some() && deliveries.is_empty() {
        return Err(ApiError::not_found("Contact"));
    }
    let queued = deliveries.iter().filter(|one| one.state == DeliveryState::Queued).count();
    let severity = if kind == TRIGGER_TEST { Severity::Info } else { Severity::Alarm };
    let triggered = event("emergency.triggered", severity, &actor, app.version())
        .with("notification_id", id.clone())
        .with("trigger_type", kind)
        .with("queued", queued);
    tx.audit(triggered).await?;
    tx.commit().await?;
    app.wake.wake();
    let message = format!("{queued} deliveries queued; see /api/emergency/history");
    Ok(Queued { success: true, notification_id: id, queued, message })
}

/// Say that a person has taken notice. Contacts that were not told yet are spared.
#[utoipa::path(post, path = "/api/emergency/acknowledge", tag = "emergency",
    request_body = Acknowledgement,
    responses((status = 200, body = Done), (status = 404, body = ErrorBody)))]
pub(crate) async fn acknowledge(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<Acknowledgement>,
) -> Result<Json<Done>, ApiError> {
    let actor = caller.name();
    let mut tx = app.store.write().await?;
    let contact = body.contact_id.as_deref();
    let changed = queue::acknowledge(&mut tx, &body.notification_id, contact, &actor).await?;
    let changed = changed.ok_or_else(|| ApiError::not_found("Notification"))?;
    let acknowledged =
        event("emergency.notification.acknowledged", Severity::Info, &actor, app.version())
            .with("notification_id", body.notification_id)
            .with("contact_id", body.contact_id)
            .with("deliveries", changed);
    tx.audit(acknowledged).await?;
    tx.commit().await?;
    Ok(Json(Done { success: true, message: format!("{changed} deliveries acknowledged") }))
}
