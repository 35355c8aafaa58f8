//! Monthly reports over the stored records: emergency calls, and emergency calls by site
//! (compliance-systems 7). Months are UTC; a month without calls is a report of zeros.

mod build;
mod events;

pub use build::emergency;
pub(crate) use events::Started;

use std::collections::BTreeMap;

use serde::Serialize;

/// Calls and attempts that are listed one by one; all are counted.
pub const CALLS_LISTED_MAX: usize = 10_000;
/// Sites without a call that are listed; those with calls always are.
pub const QUIET_SITES_MAX: u32 = 1_000;

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

/// How an emergency call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    Answered,
    /// The caller hung up before an answer.
    Abandoned,
    /// Nobody answered, and the caller did not hang up.
    NotDelivered,
    /// Refused here: test mode, or a realm that may not start emergency calls.
    Blocked,
    /// It began, and its record has not come: it is up, or its node died.
    NoRecord,
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
    pub outcome: CallOutcome,
    /// Where the caller's location came from: `pinned`, `address`, `assigned`, `trunk_default`,
    /// `config_default`, or `none`.
    pub location_source: String,
    /// Days between the last change of the site and the call; null when it changed since.
    pub location_age_days: Option<u64>,
    /// Callback number that the PSAP was given.
    pub elin: Option<String>,
    /// Trunk that carried it, or was tried last.
    pub trunk: Option<String>,
    pub status: u16,
    /// INVITEs sent until it was answered or given up.
    pub attempts: u64,
    /// From the caller's INVITE to the first INVITE out.
    pub invite_out_ms: Option<u64>,
    pub ring_ms: Option<u64>,
    pub answer_ms: Option<u64>,
    pub duration_ms: u64,
    /// A notification was queued.
    pub notified: bool,
    /// What became of telling the contacts (see the history of notifications); null if no
    /// notification was asked for.
    pub notification_status: Option<&'static str>,
}

/// One INVITE to one trunk.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Hop {
    pub call: String,
    pub attempt: u16,
    pub trunk: Option<String>,
    pub target: Option<String>,
    /// From the caller's INVITE, as all times here.
    pub invite_out_ms: Option<u64>,
    pub ring_ms: Option<u64>,
    pub answer_ms: Option<u64>,
    pub end_ms: u64,
    pub status: u16,
    pub cause: u16,
    pub cause_text: String,
}

/// One site in the month.
#[derive(Clone, Debug, Default, Serialize, utoipa::ToSchema)]
pub struct SiteLine {
    /// Null for callers who belonged to no site.
    pub site_id: Option<u64>,
    pub site_name: String,
    pub calls: u64,
    pub answered: u64,
    pub not_delivered: u64,
    pub failovers: u64,
    pub location_known_percentage: Option<f64>,
    /// Calls by the trunk that carried them, or was tried last.
    pub trunks: BTreeMap<String, u64>,
    /// Calls by callback number.
    pub elins: BTreeMap<String, u64>,
}

/// One thing that the report looks at.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Finding {
    pub passed: bool,
    pub text: String,
}

/// Emergency calls of one month.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct EmergencyReport {
    /// `YYYY-MM`, UTC.
    pub month: String,
    /// First instant, and the first one after the month.
    pub from: String,
    pub to: String,
    /// The site that was asked for; null for all.
    pub site_id: Option<u64>,
    pub site_name: Option<String>,
    pub total_calls: u64,
    pub answered: u64,
    /// The caller hung up before an answer.
    pub abandoned: u64,
    /// Nobody answered, and the caller did not hang up.
    pub not_delivered: u64,
    /// Calls of the list whose record has not come.
    pub no_record: u64,
    /// Refused by the guard of test mode, over all sites.
    pub blocked_in_test_mode: u64,
    /// Refused because the realm may not start emergency calls, over all sites.
    pub denied: u64,
    /// From the caller's INVITE to the first INVITE out.
    pub time_to_invite_out: Spread,
    /// From the caller's INVITE to the first 18x.
    pub time_to_ring: Spread,
    /// From the caller's INVITE to the 2xx.
    pub time_to_answer: Spread,
    /// Calls with a dispatchable location; null without calls.
    pub location_known_percentage: Option<f64>,
    /// Calls by where the location came from.
    pub location_by_source: BTreeMap<String, u64>,
    /// Attempts after the first one of a call.
    pub failovers: u64,
    pub calls_by_trunk: BTreeMap<String, u64>,
    pub calls_by_site: BTreeMap<String, u64>,
    /// Calls by callback number.
    pub elins: BTreeMap<String, u64>,
    pub notifications: u64,
    pub deliveries: u64,
    /// Deliveries that were confirmed; null without deliveries.
    pub notification_success_percentage: Option<f64>,
    /// What stands out. That all passed says nothing of compliance.
    pub findings: Vec<Finding>,
    pub sites: Vec<SiteLine>,
    pub calls: Vec<CallLine>,
    /// Calls behind the ten thousand that are listed.
    pub calls_omitted: u64,
    pub hops: Vec<Hop>,
    /// What this report does not say.
    pub note: &'static str,
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
