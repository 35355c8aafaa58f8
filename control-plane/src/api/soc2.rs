//! SOC 2 controls (compliance-systems 5.2; the routes and bodies of the source documents).

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use ravelin_contract::audit::Severity;
use serde::{Deserialize, Serialize};

use super::{
    App,
    auth::Caller,
    body::{Body, Query},
    error::{ApiError, ErrorBody},
};
use crate::{
    clock,
    soc2::{
        self, Category, Change, Control, ControlChange, ControlTest, Evidence, Report, Status,
        drill::{Drill, DrillOutcome, DrillTest},
        package::{self, PackageFault, Period},
        scrub,
        seal::Signer,
    },
    store::{Backend, EventExt, event},
};

/// Longest text of one field.
const TEXT_MAX_CHARS: usize = 4_096;
/// Longest control id.
const ID_MAX_CHARS: usize = 64;

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Controls {
    controls: Vec<Control>,
}

/// A control to register, or the fields to change of one that exists.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ControlBody {
    control_id: Option<String>,
    /// `Security`, `Availability`, `Processing Integrity` or `Confidentiality`.
    control_category: Option<String>,
    description: Option<String>,
    /// `implemented`, `pending` or `not_implemented`; `pending` for a new control.
    implementation_status: Option<String>,
    /// Result of a test that was made now. Appended to the tests of the control.
    test_results: Option<String>,
    /// What the test printed; stored with its digest, shown in the audit package.
    evidence: Option<EvidenceBody>,
    tsc_reference: Option<String>,
    /// The revision that was read; refused if the control moved on since.
    revision: Option<u64>,
}

/// Evidence of a test.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvidenceBody {
    /// `application/json` or `text/plain`.
    media_type: String,
    /// At most 65,536 octets.
    content: String,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Drills {
    /// No test failed.
    passed: bool,
    tests: Vec<DrillTest>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Saved {
    success: bool,
    /// True if the control is new.
    registered: bool,
    control: Control,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct History {
    control_id: String,
    tests: Vec<ControlTest>,
    changes: Vec<ControlChange>,
}

/// An audit that took place.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditBody {
    /// `YYYY-MM-DD`.
    audit_date: Option<String>,
    auditor: Option<String>,
    #[serde(default)]
    note: String,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Success {
    success: bool,
}

/// Controls, of one category or all.
#[utoipa::path(get, path = "/api/framework/compliance/soc2/controls", tag = "soc2",
    params(("category" = Option<String>, Query, description = "name of a category")),
    responses((status = 200, body = Controls), (status = 400, body = ErrorBody)))]
pub(crate) async fn controls(
    State(app): State<App>,
    query: Query,
) -> Result<Json<Controls>, ApiError> {
    let query = query.only(&["category"])?;
    let category = query
        .text("category")
        .map(|name| {
            Category::from_name(name).ok_or_else(|| {
                ApiError::bad_request("no such category").field("category", categories())
            })
        })
        .transpose()?;
    let mut reader = app.store.reader().acquire().await?;
    Ok(Json(Controls { controls: soc2::controls(&mut reader, category).await? }))
}

fn categories() -> String {
    format!("must be one of: {}", Category::ALL.map(Category::name).join(", "))
}

/// Register or update a control.
#[utoipa::path(post, path = "/api/framework/compliance/soc2/control", tag = "soc2",
    request_body = ControlBody,
    responses((status = 200, body = Saved), (status = 400, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(crate) async fn save(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<ControlBody>,
) -> Result<Json<Saved>, ApiError> {
    save_control(&app, &caller, body).await.map(Json)
}

impl ControlBody {
    /// What the page sends.
    pub(crate) fn of_form(id: String, status: String, results: String, revision: u64) -> Self {
        Self {
            control_id: Some(id),
            control_category: None,
            description: None,
            implementation_status: Some(status),
            test_results: Some(results),
            evidence: None,
            tsc_reference: None,
            revision: Some(revision),
        }
    }
}

/// Saves a control for API and pages.
pub(crate) async fn save_control(
    app: &App,
    caller: &Caller,
    body: ControlBody,
) -> Result<Saved, ApiError> {
    let revision = body.revision;
    let (id, change) = check(body)?;
    let actor = caller.name();
    let mut tx = app.store.write().await?;
    let before = soc2::control(tx.connection(), &id).await?;
    if before.is_none() && change.control_category.is_none() {
        return Err(ApiError::bad_request("the control is not valid")
            .field("control_category", "is required for a new control"));
    }
    if let Some(revision) = revision
        && before.as_ref().map_or(0, |control| control.revision) != revision
    {
        return Err(ApiError::conflict("the control was changed since it was read"));
    }
    let results = change.test_results.clone();
    let control = soc2::save(tx.connection(), &id, before.as_ref(), change, &actor).await?;
    let registered = before.is_none();
    let verb = if registered { "registered" } else { "updated" };
    let status = control.implementation_status.name();
    let saved = event(&format!("soc2.control.{verb}"), Severity::Info, &actor, app.version())
        .with("control_id", id.clone())
        .with("before", serde_json::to_value(&before).ok())
        .with("after", serde_json::to_value(&control).ok())
        .with("text", format!("[SOC2] Control {id} {verb} - Status: {status}"));
    tx.audit(saved).await?;
    if let Some(results) = results {
        let tested = event("soc2.control.tested", Severity::Info, &actor, app.version())
            .with("control_id", id.clone())
            .with("outcome", soc2::outcome(&results))
            .with("text", format!("[SOC2] Control {id} tested - Results: {results}"));
        tx.audit(tested).await?;
    }
    tx.commit().await?;
    Ok(Saved { success: true, registered, control })
}

/// Checks every field, and reports every fault (C8).
fn check(body: ControlBody) -> Result<(String, Change), ApiError> {
    let mut error = ApiError::bad_request("the control is not valid");
    let mut sound = true;
    let mut fault = |error: ApiError, field: &str, reason: String| {
        sound = false;
        error.field(field, reason)
    };
    let id = body.control_id.unwrap_or_default().trim().to_owned();
    if id.is_empty() {
        error = fault(error, "control_id", "is required".to_owned());
    } else if id.chars().count() > ID_MAX_CHARS
        || !id.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
    {
        let reason = format!("must be 1-{ID_MAX_CHARS} of A-Z a-z 0-9 . - _");
        error = fault(error, "control_id", reason);
    }
    let category = body.control_category.as_deref().map(Category::from_name);
    if category == Some(None) {
        error = fault(error, "control_category", categories());
    }
    let status = body.implementation_status.as_deref().map(Status::from_name);
    if status == Some(None) {
        let reason = format!("must be one of: {}", Status::ALL.map(Status::name).join(", "));
        error = fault(error, "implementation_status", reason);
    }
    for (field, text) in [
        ("description", &body.description),
        ("test_results", &body.test_results),
        ("tsc_reference", &body.tsc_reference),
    ] {
        let Some(text) = text else { continue };
        if text.chars().count() > TEXT_MAX_CHARS {
            let reason = format!("must be at most {TEXT_MAX_CHARS} characters");
            error = fault(error, field, reason);
        } else if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            error = fault(error, field, "must not contain control characters".to_owned());
        }
    }
    let results = body.test_results.filter(|text| !text.trim().is_empty());
    if let Some(evidence) = &body.evidence {
        for (wrong, field, reason) in [
            (results.is_none(), "evidence", "is only taken together with test_results"),
            (
                !soc2::MEDIA_TYPES.contains(&evidence.media_type.as_str()),
                "evidence.media_type",
                "must be application/json or text/plain",
            ),
            (
                evidence.content.len() > soc2::EVIDENCE_MAX_BYTES
                    || evidence.content.contains('\0'),
                "evidence.content",
                "must be at most 65536 octets without NUL",
            ),
            (
                scrub::holds_secret(&evidence.content),
                "evidence.content",
                "holds an API token or a password; take it out",
            ),
        ] {
            if wrong {
                error = fault(error, field, reason.to_owned());
            }
        }
    }
    if !sound {
        return Err(error);
    }
    let change = Change {
        control_category: category.flatten(),
        description: body.description,
        implementation_status: status.flatten(),
        test_results: results,
        evidence: body.evidence.map(|evidence| Evidence {
            media_type: evidence.media_type,
            content: evidence.content,
        }),
        tsc_reference: body.tsc_reference,
    };
    Ok((id, change))
}

/// Every test and every change of a control, oldest first.
#[utoipa::path(get, path = "/api/framework/compliance/soc2/control/{control_id}/history",
    tag = "soc2", params(("control_id" = String, Path, description = "id of the control")),
    responses((status = 200, body = History), (status = 404, body = ErrorBody)))]
pub(crate) async fn history(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<History>, ApiError> {
    let mut reader = app.store.reader().acquire().await?;
    let control = soc2::control(&mut reader, &id).await?;
    let control = control.ok_or_else(|| ApiError::not_found("control"))?;
    let (tests, changes) = soc2::history(&mut reader, &control.control_id).await?;
    Ok(Json(History { control_id: control.control_id, tests, changes }))
}

/// The compliance report. Ravelin gives evidence; whether it suffices is the auditor's to say.
#[utoipa::path(get, path = "/api/framework/compliance/soc2/report", tag = "soc2",
    responses((status = 200, body = Report)))]
pub(crate) async fn report(State(app): State<App>) -> Result<Json<Report>, ApiError> {
    let mut reader = app.store.reader().acquire().await?;
    Ok(Json(soc2::report(&mut reader, clock::unix_ms()).await?))
}

/// Record an audit that took place; the report then shows its date.
#[utoipa::path(post, path = "/api/framework/compliance/soc2/audit", tag = "soc2",
    request_body = AuditBody,
    responses((status = 200, body = Success), (status = 400, body = ErrorBody)))]
pub(crate) async fn add_audit(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<AuditBody>,
) -> Result<Json<Success>, ApiError> {
    let mut error = ApiError::bad_request("the audit is not valid");
    let date = body.audit_date.unwrap_or_default();
    let auditor = body.auditor.unwrap_or_default().trim().to_owned();
    let dated = date.len() == 10 && clock::parse_ms(&date).is_some();
    let named = !auditor.is_empty() && auditor.chars().count() <= TEXT_MAX_CHARS;
    if !dated {
        error = error.field("audit_date", "must be a date, YYYY-MM-DD");
    }
    if !named {
        error = error.field("auditor", "is required");
    }
    if body.note.chars().count() > TEXT_MAX_CHARS {
        error = error.field("note", format!("must be at most {TEXT_MAX_CHARS} characters"));
    }
    if !dated || !named || body.note.chars().count() > TEXT_MAX_CHARS {
        return Err(error);
    }
    let actor = caller.name();
    let note = body.note.replace('\0', "");
    let mut tx = app.store.write().await?;
    soc2::insert_audit(tx.connection(), &date, &auditor.replace('\0', ""), &note, &actor).await?;
    let recorded = event("soc2.audit.recorded", Severity::Info, &actor, app.version())
        .with("audit_date", date)
        .with("auditor", auditor);
    tx.audit(recorded).await?;
    tx.commit().await?;
    Ok(Json(Success { success: true }))
}

/// Run the tests of controls that need the inside: backup and restore, tampering on a copy, who
/// may read what. Nothing but a copy is changed, and nothing is recorded: `ravelin soc2 test`
/// records results.
#[utoipa::path(post, path = "/api/framework/compliance/soc2/drill", tag = "soc2",
    responses((status = 200, body = Drills), (status = 429, body = ErrorBody)))]
pub(crate) async fn drill(State(app): State<App>) -> Result<Json<Drills>, ApiError> {
    let _permit = app.one_check()?;
    let active = app.publisher.active();
    let drill = Drill {
        store: &app.store,
        data: &app.data,
        active: active.as_deref(),
        registry: &app.registry,
        https: app.https,
        now_ms: clock::unix_ms(),
    };
    let tests = drill.run().await;
    let passed = tests.iter().all(|test| test.outcome != DrillOutcome::Failed);
    Ok(Json(Drills { passed, tests }))
}

/// The audit package of a period: a tar archive that starts with its manifest. The same state gives
/// the same octets.
#[utoipa::path(get, path = "/api/framework/compliance/soc2/package", tag = "soc2",
    params(("from" = String, Query, description = "first day, `YYYY-MM-DD`, UTC"),
        ("to" = String, Query, description = "last day, which is part of the period")),
    responses((status = 200, body = Vec<u8>, content_type = "application/x-tar"),
        (status = 400, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(crate) async fn package(State(app): State<App>, query: Query) -> Result<Response, ApiError> {
    let query = query.only(&["from", "to"])?;
    let text = |name: &str| query.text(name).unwrap_or_default().to_owned();
    let (from, to) = (text("from"), text("to"));
    let period = Period::days(&from, &to)
        .map_err(|(field, reason)| ApiError::bad_request("query").field(field, reason))?;
    let _permit = app.one_check()?;
    let mut reader = app.store.reader().begin().await?;
    if app.store.backend() == Backend::Postgres {
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            .execute(&mut *reader)
            .await?;
    }
    let signer = Signer::open(&app.data.join("certs")).map_err(|error| {
        tracing::error!(%error, "the key of audit packages");
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the key that signs packages cannot be used; see the log",
        )
    })?;
    let bytes =
        package::build(&mut reader, &period, &signer).await.map_err(|fault| match fault {
            PackageFault::TooManyEvents(count) => {
                let limit = package::EVENTS_MAX;
                let text =
                    format!("{count} audit events, at most {limit}; ask for a shorter period");
                ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, text)
            }
            PackageFault::Archive(reason) => {
                ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, reason)
            }
            PackageFault::Store(error) => error.into(),
        })?;
    let name = format!("attachment; filename=\"ravelin-soc2-{from}-{to}.tar\"");
    let kind = "application/x-tar".to_owned();
    Ok(([(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, name)], bytes).into_response())
}
