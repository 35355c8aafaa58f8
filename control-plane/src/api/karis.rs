//! The checks of Kari's Law against the config in force and the running system.

use std::sync::Arc;

use axum::{Json, extract::State};
use ravelin_policy::Document;
use sqlx::{AnyConnection, Row};

use super::{
    App,
    error::{ApiError, ErrorBody},
};
use crate::{
    clock,
    karis::{self, Facts, KarisLawReport, NodeFacts},
    notify,
    publish::ConfigFault,
    store::{records, sql, unsigned},
};

/// How far back emergency calls without a location are looked for.
const LOOK_BACK_MS: u64 = 90 * 86_400_000;
/// Calls that are looked at.
const CALLS_MAX: i64 = 10_000;

/// Which settings of Kari's Law and RAY BAUM'S Act hold, and what to do about those that do not.
#[utoipa::path(get, path = "/api/compliance/karis-law", tag = "emergency",
    responses((status = 200, body = KarisLawReport), (status = 409, body = ErrorBody)))]
pub(crate) async fn verify(State(app): State<App>) -> Result<Json<KarisLawReport>, ApiError> {
    let active = app.publisher.active().ok_or(ConfigFault::NothingActive)?;
    let (facts, mut contacts) = {
        let mut reader = app.store.reader().acquire().await?;
        (facts(&app, &mut reader).await?, notify::contacts(&mut reader).await?)
    };
    contacts.extend_from_slice(&active.notify.contacts);
    let now = clock::rfc3339(clock::unix_ms());
    let active = Arc::clone(&active);
    // Parsing and dry runs are work for a thread that may block.
    let report = tokio::task::spawn_blocking(move || {
        let document = Document::from_yaml(&active.document).map_err(ConfigFault::Invalid)?;
        Ok::<_, ConfigFault>(karis::of_system(&document, &active.snapshot, &contacts, &facts, now))
    });
    let report = report
        .await
        .map_err(|error| ConfigFault::Store(crate::StoreError::Corrupt(error.to_string())))??;
    Ok(Json(report))
}

async fn facts(app: &App, connection: &mut AnyConnection) -> Result<Facts, ApiError> {
    let nodes = app
        .registry
        .all()
        .iter()
        .map(|node| NodeFacts {
            name: node.name.clone(),
            connected: node.is_connected(),
            version: node.info().active_version,
            trunks: node.trunks(),
        })
        .collect();
    let heads = records::heads(connection).await?;
    let now = clock::unix_ms();
    let test = sqlx::query(
        "SELECT id, at_ms FROM emergency_notifications WHERE trigger_type = 'test'
         AND call_id IS NULL ORDER BY at_ms DESC LIMIT 1",
    )
    .fetch_optional(&mut *connection)
    .await?;
    let (mut test_age_ms, mut test_failures, mut test_confirmed) = (None, Vec::new(), 0);
    if let Some(row) = test {
        test_age_ms = Some(now.saturating_sub(unsigned(row.try_get(1)?)?));
        for one in notify::deliveries(connection, &row.try_get::<String, _>(0)?).await? {
            if one.state.is_confirmed() {
                test_confirmed += 1;
            } else {
                let reason = one.reason.unwrap_or_default();
                test_failures.push(format!(
                    "{} by {}: {} {reason}",
                    one.contact_name,
                    one.method,
                    one.state.name()
                ));
            }
        }
    }
    let (calls, unlocated) = unlocated(connection, now.saturating_sub(LOOK_BACK_MS)).await?;
    Ok(Facts {
        nodes,
        chain_flaws: heads.iter().map(|(_, head)| head.breaks).sum(),
        events_stored: heads.iter().any(|(_, head)| head.head.seq > 0),
        test_age_ms,
        test_failures,
        test_confirmed,
        calls,
        unlocated,
    })
}

/// Emergency calls since `from_ms`, and the callers among them whose location nobody knew.
async fn unlocated(
    connection: &mut AnyConnection,
    from_ms: u64,
) -> Result<(u64, Vec<String>), ApiError> {
    let rows = sqlx::query(
        "SELECT line FROM audit_events WHERE kind = 'emergency.started' AND at_ms >= $1
         ORDER BY at_ms DESC LIMIT $2",
    )
    .bind(sql(from_ms))
    .bind(CALLS_MAX)
    .fetch_all(connection)
    .await?;
    let mut found = Vec::new();
    for row in &rows {
        let started = crate::reports::Started::of_line(&row.try_get::<String, _>(0)?)?;
        if !started.has_location() {
            found.push(format!(
                "{} from {} at {}",
                started.extension,
                started.source,
                clock::rfc3339(started.at_ms)
            ));
        }
    }
    Ok((u64::try_from(rows.len()).unwrap_or(u64::MAX), found))
}
