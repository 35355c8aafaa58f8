//! Monthly reports over the stored CDRs: emergency calls, and emergency calls by site
//! (compliance-systems 7). Months are UTC; a month without calls is a report of zeros.

use std::collections::BTreeMap;

use ravelin_contract::cdr::{Cdr, CdrKind};
use serde::Serialize;
use sqlx::{AnyConnection, Row};

use crate::{
    error::StoreError,
    store::{
        query::{self, Cursor, Filter, PAGE_MAX},
        sql, unsigned,
    },
};

/// Calls that are listed one by one; all are counted.
const CALLS_LISTED_MAX: usize = 10_000;

/// Quantiles of a duration, in milliseconds; null without a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Spread {
    pub count: u64,
    pub p50_ms: Option<u64>,
    pub p99_ms: Option<u64>,
    pub max_ms: Option<u64>,
}

impl Spread {
    /// Nearest-rank quantiles.
    fn of(mut samples: Vec<u64>) -> Self {
        samples.sort_unstable();
        let rank = |percent: usize| {
            let index = (samples.len() * percent).div_ceil(100).saturating_sub(1);
            samples.get(index).copied()
        };
        Self {
            count: u64::try_from(samples.len()).unwrap_or(u64::MAX),
            p50_ms: rank(50),
            p99_ms: rank(99),
            max_ms: samples.last().copied(),
        }
    }
}

/// One emergency call.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct CallLine {
    pub call: String,
    pub started_at: String,
    pub from: String,
    pub to: String,
    pub class: String,
    pub site: Option<String>,
    /// Trunk that carried it, or was tried last.
    pub trunk: Option<String>,
    pub status: u16,
    /// INVITEs sent until it was answered or given up.
    pub attempts: u64,
    pub ring_ms: Option<u64>,
    pub answer_ms: Option<u64>,
    pub duration_ms: u64,
}

/// Emergency calls of one month.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct EmergencyReport {
    /// `YYYY-MM`, UTC.
    pub month: String,
    pub total_calls: u64,
    pub answered: u64,
    /// Calls that no trunk took.
    pub not_delivered: u64,
    /// From the caller's INVITE to the first 18x.
    pub time_to_ring: Spread,
    /// From the caller's INVITE to the 2xx.
    pub time_to_answer: Spread,
    /// Calls whose site, and so whose location, was known; null without calls.
    pub location_known_percentage: Option<f64>,
    /// Attempts after the first one of a call.
    pub failovers: u64,
    pub calls_by_trunk: BTreeMap<String, u64>,
    pub calls_by_site: BTreeMap<String, u64>,
    pub notifications: u64,
    pub deliveries: u64,
    /// Deliveries that were confirmed; null without deliveries.
    pub notification_success_percentage: Option<f64>,
    pub calls: Vec<CallLine>,
    /// What this report does not say.
    pub note: &'static str,
}

const NOTE: &str = "Counts of what Ravelin recorded. Validation of addresses, staffing of the \
    notification point and carrier contracts are the operator's to show.";

/// The report of the month that begins at `from_ms`; `site` keeps only calls from that site.
///
/// # Errors
/// What the database says.
pub async fn emergency(
    connection: &mut AnyConnection,
    month: &str,
    (from_ms, to_ms): (u64, u64),
    site: Option<&str>,
) -> Result<EmergencyReport, StoreError> {
    let mut report = EmergencyReport {
        month: month.to_owned(),
        total_calls: 0,
        answered: 0,
        not_delivered: 0,
        time_to_ring: Spread::default(),
        time_to_answer: Spread::default(),
        location_known_percentage: None,
        failovers: 0,
        calls_by_trunk: BTreeMap::new(),
        calls_by_site: BTreeMap::new(),
        notifications: 0,
        deliveries: 0,
        notification_success_percentage: None,
        calls: Vec::new(),
        note: NOTE,
    };
    let (mut ring, mut answer, mut located) = (Vec::new(), Vec::new(), 0_u64);
    let mut attempts: BTreeMap<String, u64> = BTreeMap::new();
    let mut filter = Filter {
        from_ms: Some(from_ms),
        to_ms: Some(to_ms),
        emergency: Some(true),
        site: site.map(str::to_owned),
        limit: PAGE_MAX,
        ..Filter::default()
    };
    loop {
        let page = query::cdrs(connection, &filter).await?;
        for row in page.rows {
            let cdr: Cdr = serde_json::from_value(row.entry)?;
            if cdr.kind == CdrKind::Attempt {
                *attempts.entry(cdr.call).or_default() += 1;
                continue;
            }
            report.total_calls += 1;
            report.answered += u64::from(cdr.answer_ms.is_some());
            report.not_delivered += u64::from(cdr.status >= 300 && cdr.outbound_trunk.is_none());
            ring.extend(cdr.ring_ms);
            answer.extend(cdr.answer_ms);
            located += u64::from(cdr.site.is_some());
            if let Some(trunk) = &cdr.outbound_trunk {
                *report.calls_by_trunk.entry(trunk.clone()).or_default() += 1;
            }
            let place = cdr.site.clone().unwrap_or_else(|| "unknown".to_owned());
            *report.calls_by_site.entry(place).or_default() += 1;
            if report.calls.len() < CALLS_LISTED_MAX {
                report.calls.push(line(cdr));
            }
        }
        let Some(next) = page.next.as_deref().and_then(Cursor::parse) else { break };
        filter.cursor = Some(next);
    }
    for call in &mut report.calls {
        call.attempts = attempts.get(&call.call).copied().unwrap_or(0);
    }
    report.failovers = attempts.values().map(|tries| tries.saturating_sub(1)).sum();
    report.time_to_ring = Spread::of(ring);
    report.time_to_answer = Spread::of(answer);
    report.location_known_percentage = percentage(located, report.total_calls);
    notifications(connection, from_ms, to_ms, &mut report).await?;
    Ok(report)
}

fn line(cdr: Cdr) -> CallLine {
    CallLine {
        call: cdr.call,
        started_at: crate::clock::rfc3339(cdr.start_unix_ms),
        from: cdr.from,
        to: cdr.to,
        class: cdr.class,
        site: cdr.site,
        trunk: cdr.outbound_trunk,
        status: cdr.status,
        attempts: 0,
        ring_ms: cdr.ring_ms,
        answer_ms: cdr.answer_ms,
        duration_ms: cdr.duration_ms,
    }
}

async fn notifications(
    connection: &mut AnyConnection,
    from_ms: u64,
    to_ms: u64,
    report: &mut EmergencyReport,
) -> Result<(), StoreError> {
    let row = sqlx::query(
        "SELECT COUNT(*) FROM emergency_notifications
         WHERE trigger_type = '911_call' AND at_ms >= $1 AND at_ms < $2",
    )
    .bind(sql(from_ms))
    .bind(sql(to_ms))
    .fetch_one(&mut *connection)
    .await?;
    report.notifications = unsigned(row.try_get(0)?)?;
    let mut confirmed = 0;
    for row in sqlx::query(
        "SELECT d.state, COUNT(*) FROM emergency_deliveries d
         JOIN emergency_notifications n ON n.id = d.notification_id
         WHERE n.trigger_type = '911_call' AND n.at_ms >= $1 AND n.at_ms < $2 GROUP BY d.state",
    )
    .bind(sql(from_ms))
    .bind(sql(to_ms))
    .fetch_all(connection)
    .await?
    {
        let (state, count): (String, u64) = (row.try_get(0)?, unsigned(row.try_get(1)?)?);
        report.deliveries += count;
        if matches!(state.as_str(), "delivered" | "acknowledged") {
            confirmed += count;
        }
    }
    report.notification_success_percentage = percentage(confirmed, report.deliveries);
    Ok(())
}

/// Percent with one decimal; nothing without a whole.
fn percentage(part: u64, whole: u64) -> Option<f64> {
    let tenths = (part * 1_000 + whole / 2).checked_div(whole)?;
    u32::try_from(tenths).ok().map(|tenths| f64::from(tenths) / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_nearest_rank() {
        assert_eq!(Spread::of(Vec::new()), Spread::default());
        let spread = Spread::of((1..=200).rev().collect());
        assert_eq!(
            (spread.count, spread.p50_ms, spread.p99_ms, spread.max_ms),
            (200, Some(100), Some(198), Some(200))
        );
        assert_eq!(Spread::of(vec![7]).p50_ms, Some(7));
    }
}
