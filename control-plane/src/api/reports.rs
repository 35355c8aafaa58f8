//! Monthly reports.

use axum::{Json, extract::State};

use super::{
    App,
    body::Query,
    error::{ApiError, ErrorBody},
};
use crate::{
    clock,
    reports::{self, EmergencyReport},
    store::sites,
};

fn month(query: &Query) -> Result<(String, (u64, u64)), ApiError> {
    let text = query.text("month").unwrap_or_default();
    let bounds = clock::month_bounds(text)
        .ok_or_else(|| ApiError::bad_request("query").field("month", "must be YYYY-MM"))?;
    Ok((text.to_owned(), bounds))
}

/// Emergency calls of one month.
#[utoipa::path(get, path = "/api/reports/emergency", tag = "reports",
    params(("month" = String, Query, description = "`YYYY-MM`, UTC")),
    responses((status = 200, body = EmergencyReport), (status = 400, body = ErrorBody)))]
pub(crate) async fn emergency(
    State(app): State<App>,
    query: Query,
) -> Result<Json<EmergencyReport>, ApiError> {
    let query = query.only(&["month"])?;
    let (month, bounds) = month(&query)?;
    let mut reader = app.store.reader().acquire().await?;
    Ok(Json(reports::emergency(&mut reader, &month, bounds, None).await?))
}

/// Emergency calls of one month from one site, or from all.
#[utoipa::path(get, path = "/api/reports/sites", tag = "reports",
    params(("month" = String, Query, description = "`YYYY-MM`, UTC"),
        ("site_id" = Option<u64>, Query, description = "number of the site; absent: all")),
    responses((status = 200, body = EmergencyReport), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
pub(crate) async fn sites(
    State(app): State<App>,
    query: Query,
) -> Result<Json<EmergencyReport>, ApiError> {
    let query = query.only(&["month", "site_id"])?;
    let (month, bounds) = month(&query)?;
    let id = query.number("site_id", 1..=u64::from(u32::MAX))?;
    let mut reader = app.store.reader().acquire().await?;
    let site = match id {
        None => None,
        Some(id) => {
            let id = u32::try_from(id).unwrap_or(u32::MAX);
            // A site that was removed since had calls all the same.
            let site = sites::load_any(&mut reader, id).await?;
            Some(site.ok_or_else(|| ApiError::not_found("site"))?)
        }
    };
    Ok(Json(reports::emergency(&mut reader, &month, bounds, site.as_ref()).await?))
}
