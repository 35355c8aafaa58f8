//! Puts a report together from CDRs, audit events and notifications.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use ravelin_contract::cdr::{Cdr, CdrKind};
use sqlx::{AnyConnection, Row};

use super::{
    CALLS_LISTED_MAX, CallLine, CallOutcome, EmergencyReport, Finding, Hop, QUIET_SITES_MAX,
    SiteLine, Spread, events, events::Events, percentage,
};
use crate::{
    clock,
    error::StoreError,
    notify::history,
    store::{
        query::{self, Cursor, Filter, PAGE_MAX},
        sites::{self, SiteView},
        sql,
    },
};

const NOTE: &str = "Counts of what Ravelin recorded. Validation of addresses, staffing of the \
    notification point and carrier contracts are the operator's to show.";

/// Causes of the manual's table that say how a call ended.
const CAUSE_CANCELLED: u16 = 2;
const CAUSES_BLOCKED: [u16; 2] = [210, 211];

/// The report of the month that begins at `from_ms`; `site` keeps only calls from that site.
///
/// # Errors
/// What the database says.
pub async fn emergency(
    connection: &mut AnyConnection,
    month: &str,
    bounds: (u64, u64),
    site: Option<&SiteView>,
) -> Result<EmergencyReport, StoreError> {
    let events = events::read(connection, bounds).await?;
    let (calls, attempts) = records(connection, bounds).await?;
    let notified = notified(connection, bounds).await?;
    let mut lines: Vec<CallLine> =
        calls.iter().map(|cdr| line(cdr, &events, &attempts, &notified)).collect();
    let known: BTreeSet<&str> = calls.iter().map(|cdr| cdr.call.as_str()).collect();
    for started in events.started.values() {
        if !known.contains(started.call.as_str()) {
            lines.push(without_record(started, &events, &notified));
        }
    }
    if let Some(site) = site {
        lines.retain(|line| is_of(line, site, &events));
    }
    lines.sort_by(|left, right| {
        (&left.started_at, &left.call).cmp(&(&right.started_at, &right.call))
    });
    ages(connection, &mut lines, &events).await?;
    let mut report = empty(month, bounds, site, &events);
    summarise(&mut report, &lines);
    deliveries(connection, bounds, &lines, site.is_none(), &mut report).await?;
    site_lines(connection, &mut report, &lines, &events, site).await?;
    report.hops = hops(&lines, &attempts, &events);
    report.findings = findings(&report);
    report.calls_omitted =
        u64::try_from(lines.len().saturating_sub(CALLS_LISTED_MAX)).unwrap_or(u64::MAX);
    lines.truncate(CALLS_LISTED_MAX);
    report.calls = lines;
    Ok(report)
}

type Attempts = BTreeMap<String, Vec<Cdr>>;

/// Emergency CDRs of the month: those of calls, and those of attempts by call.
async fn records(
    connection: &mut AnyConnection,
    (from_ms, to_ms): (u64, u64),
) -> Result<(Vec<Cdr>, Attempts), StoreError> {
    let mut filter = Filter {
        from_ms: Some(from_ms),
        to_ms: Some(to_ms),
        emergency: Some(true),
        limit: PAGE_MAX,
        ..Filter::default()
    };
    let (mut calls, mut attempts) = (Vec::new(), Attempts::new());
    loop {
        let page = query::cdrs(connection, &filter).await?;
        for row in page.rows {
            let cdr: Cdr = serde_json::from_value(row.entry)?;
            match cdr.kind {
                CdrKind::Attempt => attempts.entry(cdr.call.clone()).or_default().push(cdr),
                CdrKind::Call => calls.push(cdr),
            }
        }
        let Some(next) = page.next.as_deref().and_then(Cursor::parse) else { break };
        filter.cursor = Some(next);
    }
    for hops in attempts.values_mut() {
        hops.sort_by_key(|hop| hop.attempt);
        hops.dedup_by_key(|hop| hop.attempt);
    }
    Ok((calls, attempts))
}

fn outcome(cdr: &Cdr) -> CallOutcome {
    if cdr.answer_ms.is_some() {
        CallOutcome::Answered
    } else if CAUSES_BLOCKED.contains(&cdr.cause) {
        CallOutcome::Blocked
    } else if cdr.cause == CAUSE_CANCELLED {
        CallOutcome::Abandoned
    } else {
        CallOutcome::NotDelivered
    }
}

fn line(cdr: &Cdr, events: &Events, attempts: &Attempts, notified: &Notified) -> CallLine {
    let started = events.started.get(&cdr.call);
    let by_record = if cdr.site.is_some() { "site" } else { "none" };
    CallLine {
        call: cdr.call.clone(),
        started_at: clock::rfc3339(cdr.start_unix_ms),
        from: cdr.from.clone(),
        to: cdr.to.clone(),
        class: cdr.class.clone(),
        site: cdr.site.clone(),
        outcome: outcome(cdr),
        location_source: started.map_or(by_record, |s| s.location_source()).to_owned(),
        location_age_days: None,
        elin: started.and_then(|started| started.callback.clone()),
        trunk: cdr.outbound_trunk.clone(),
        status: cdr.status,
        attempts: attempts
            .get(&cdr.call)
            .map_or(0, |hops| u64::try_from(hops.len()).unwrap_or(u64::MAX)),
        invite_out_ms: events.sent_ms.get(&(cdr.call.clone(), 1)).copied(),
        ring_ms: cdr.ring_ms,
        answer_ms: cdr.answer_ms,
        duration_ms: cdr.duration_ms,
        notified: notified.contains_key(&cdr.call),
        notification_status: notified.get(&cdr.call).copied(),
    }
}

fn without_record(started: &events::Started, events: &Events, notified: &Notified) -> CallLine {
    CallLine {
        call: started.call.clone(),
        started_at: clock::rfc3339(started.at_ms),
        from: started.extension.clone(),
        to: started.number.clone(),
        class: "emergency".to_owned(),
        site: started.site.clone(),
        outcome: CallOutcome::NoRecord,
        location_source: started.location_source().to_owned(),
        location_age_days: None,
        elin: started.callback.clone(),
        trunk: None,
        status: 0,
        attempts: 0,
        invite_out_ms: events.sent_ms.get(&(started.call.clone(), 1)).copied(),
        ring_ms: None,
        answer_ms: None,
        duration_ms: 0,
        notified: notified.contains_key(&started.call),
        notification_status: notified.get(&started.call).copied(),
    }
}

/// By the number of the site where the event tells it: a site may have been renamed since.
fn is_of(line: &CallLine, site: &SiteView, events: &Events) -> bool {
    match events.started.get(&line.call).and_then(|started| started.site_id) {
        Some(id) => id == u64::from(site.id),
        None => line.site.as_deref() == Some(site.site_name.as_str()),
    }
}

/// How old the site's data was at the time of each call.
async fn ages(
    connection: &mut AnyConnection,
    lines: &mut [CallLine],
    events: &Events,
) -> Result<(), StoreError> {
    let mut changed: BTreeMap<u64, Option<u64>> = BTreeMap::new();
    for line in lines {
        let Some(id) = events.started.get(&line.call).and_then(|started| started.site_id) else {
            continue;
        };
        let changed = match changed.entry(id) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let site = match u32::try_from(id) {
                    Ok(id) => sites::load_any(connection, id).await?,
                    Err(_) => None,
                };
                *new.insert(site.and_then(|site| clock::parse_ms(&site.updated_at)))
            }
        };
        let at = clock::parse_ms(&line.started_at);
        if let (Some(changed), Some(at)) = (changed, at) {
            line.location_age_days = at.checked_sub(changed).map(|ms| ms / 86_400_000);
        }
    }
    Ok(())
}

fn empty(
    month: &str,
    (from_ms, to_ms): (u64, u64),
    site: Option<&SiteView>,
    events: &Events,
) -> EmergencyReport {
    EmergencyReport {
        month: month.to_owned(),
        from: clock::rfc3339(from_ms),
        to: clock::rfc3339(to_ms),
        site_id: site.map(|site| site.id.into()),
        site_name: site.map(|site| site.site_name.clone()),
        total_calls: 0,
        answered: 0,
        abandoned: 0,
        not_delivered: 0,
        no_record: 0,
        blocked_in_test_mode: events.blocked,
        denied: events.denied,
        time_to_invite_out: Spread::default(),
        time_to_ring: Spread::default(),
        time_to_answer: Spread::default(),
        location_known_percentage: None,
        location_by_source: BTreeMap::new(),
        failovers: 0,
        calls_by_trunk: BTreeMap::new(),
        calls_by_site: BTreeMap::new(),
        elins: BTreeMap::new(),
        notifications: 0,
        deliveries: 0,
        notification_success_percentage: None,
        findings: Vec::new(),
        sites: Vec::new(),
        calls: Vec::new(),
        calls_omitted: 0,
        hops: Vec::new(),
        note: NOTE,
    }
}

fn summarise(report: &mut EmergencyReport, lines: &[CallLine]) {
    let mut located = 0;
    for line in lines {
        report.total_calls += 1;
        match line.outcome {
            CallOutcome::Answered => report.answered += 1,
            CallOutcome::Abandoned => report.abandoned += 1,
            CallOutcome::NotDelivered => report.not_delivered += 1,
            CallOutcome::NoRecord => report.no_record += 1,
            // Counted by its event.
            CallOutcome::Blocked => {}
        }
        located += u64::from(line.location_source != "none");
        *report.location_by_source.entry(line.location_source.clone()).or_default() += 1;
        report.failovers += line.attempts.saturating_sub(1);
        if let Some(trunk) = &line.trunk {
            *report.calls_by_trunk.entry(trunk.clone()).or_default() += 1;
        }
        let place = line.site.clone().unwrap_or_else(|| "unknown".to_owned());
        *report.calls_by_site.entry(place).or_default() += 1;
        if let Some(elin) = &line.elin {
            *report.elins.entry(elin.clone()).or_default() += 1;
        }
    }
    let spread =
        |pick: fn(&CallLine) -> Option<u64>| Spread::of(lines.iter().filter_map(pick).collect());
    report.time_to_invite_out = spread(|line| line.invite_out_ms);
    report.time_to_ring = spread(|line| line.ring_ms);
    report.time_to_answer = spread(|line| line.answer_ms);
    report.location_known_percentage = percentage(located, report.total_calls);
}

/// One line for each site with a call, and for those without as far as there is room.
async fn site_lines(
    connection: &mut AnyConnection,
    report: &mut EmergencyReport,
    lines: &[CallLine],
    events: &Events,
    only: Option<&SiteView>,
) -> Result<(), StoreError> {
    let mut places: BTreeMap<(Option<u64>, String), (SiteLine, u64)> = BTreeMap::new();
    let mut place = |id: Option<u64>, name: &str| -> (Option<u64>, String) {
        let key = (id, if id.is_some() { String::new() } else { name.to_owned() });
        places.entry(key.clone()).or_insert_with(|| {
            let line = SiteLine { site_id: id, site_name: name.to_owned(), ..SiteLine::default() };
            (line, 0)
        });
        key
    };
    let listed = match only {
        Some(site) => vec![site.clone()],
        None => sites::list(connection, 0, QUIET_SITES_MAX).await?,
    };
    let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
    for site in &listed {
        numbers.insert(site.site_name.clone(), site.id.into());
        place(Some(site.id.into()), &site.site_name);
    }
    let mut keys = Vec::with_capacity(lines.len());
    for line in lines {
        let name = line.site.clone().unwrap_or_else(|| "unknown".to_owned());
        let told = events.started.get(&line.call).and_then(|started| started.site_id);
        keys.push(place(told.or_else(|| numbers.get(&name).copied()), &name));
    }
    for (line, key) in lines.iter().zip(keys) {
        let Some((site, located)) = places.get_mut(&key) else { continue };
        site.calls += 1;
        site.answered += u64::from(line.outcome == CallOutcome::Answered);
        site.not_delivered += u64::from(line.outcome == CallOutcome::NotDelivered);
        site.failovers += line.attempts.saturating_sub(1);
        *located += u64::from(line.location_source != "none");
        if let Some(trunk) = &line.trunk {
            *site.trunks.entry(trunk.clone()).or_default() += 1;
        }
        if let Some(elin) = &line.elin {
            *site.elins.entry(elin.clone()).or_default() += 1;
        }
    }
    report.sites = places
        .into_values()
        .map(|(mut site, located)| {
            site.location_known_percentage = percentage(located, site.calls);
            site
        })
        .collect();
    // Callers without a site come last.
    report.sites.sort_by_key(|site| site.site_id.unwrap_or(u64::MAX));
    Ok(())
}

fn hops(lines: &[CallLine], attempts: &Attempts, events: &Events) -> Vec<Hop> {
    lines
        .iter()
        .filter_map(|line| attempts.get(&line.call))
        .flatten()
        .take(CALLS_LISTED_MAX)
        .map(|cdr| Hop {
            call: cdr.call.clone(),
            attempt: cdr.attempt,
            trunk: cdr.outbound_trunk.clone(),
            target: cdr.target.clone(),
            invite_out_ms: events.sent_ms.get(&(cdr.call.clone(), cdr.attempt.into())).copied(),
            ring_ms: cdr.ring_ms,
            answer_ms: cdr.answer_ms,
            end_ms: cdr.end_ms,
            status: cdr.status,
            cause: cdr.cause,
            cause_text: cdr.cause_text.clone(),
        })
        .collect()
}

/// Calls for which a notification was queued, and what became of it.
type Notified = BTreeMap<String, &'static str>;

/// Those of the period; a notification may have come a little after its call.
async fn notified(
    connection: &mut AnyConnection,
    (from_ms, to_ms): (u64, u64),
) -> Result<Notified, StoreError> {
    history::statuses(connection, from_ms, to_ms.saturating_add(86_400_000)).await
}

async fn deliveries(
    connection: &mut AnyConnection,
    (from_ms, to_ms): (u64, u64),
    lines: &[CallLine],
    every: bool,
    report: &mut EmergencyReport,
) -> Result<(), StoreError> {
    let calls: BTreeSet<&str> = lines.iter().map(|line| line.call.as_str()).collect();
    let rows = sqlx::query(
        "SELECT n.id, COALESCE(n.call_id, ''), COALESCE(d.state, '')
         FROM emergency_notifications n
         LEFT JOIN emergency_deliveries d ON n.id = d.notification_id
             -- Spared by an acknowledgement: never sent, so neither arrived nor failed.
             AND NOT (d.state = 'acknowledged' AND d.attempts = 0)
         WHERE n.trigger_type = '911_call' AND n.at_ms >= $1 AND n.at_ms < $2",
    )
    .bind(sql(from_ms))
    .bind(sql(to_ms))
    .fetch_all(connection)
    .await?;
    let (mut seen, mut confirmed) = (BTreeSet::new(), 0);
    for row in rows {
        let (id, call): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let state: String = row.try_get(2)?;
        if !every && !calls.contains(call.as_str()) {
            continue;
        }
        seen.insert(id);
        if !state.is_empty() {
            report.deliveries += 1;
            confirmed += u64::from(matches!(state.as_str(), "delivered" | "acknowledged"));
        }
    }
    report.notifications = u64::try_from(seen.len()).unwrap_or(u64::MAX);
    report.notification_success_percentage = percentage(confirmed, report.deliveries);
    Ok(())
}

fn findings(report: &EmergencyReport) -> Vec<Finding> {
    let finding = |passed: bool, text: String| Finding { passed, text };
    let unlocated = report.location_by_source.get("none").copied().unwrap_or(0);
    vec![
        finding(
            report.not_delivered == 0,
            format!("{} of {} calls were not delivered", report.not_delivered, report.total_calls),
        ),
        finding(
            unlocated == 0,
            format!("{unlocated} of {} calls had no dispatchable location", report.total_calls),
        ),
        finding(
            report.no_record == 0,
            format!("{} calls began and have no record of their end", report.no_record),
        ),
        finding(
            report.notification_success_percentage.is_none_or(|share| share >= 100.0)
                && (report.notifications > 0 || report.answered + report.not_delivered == 0),
            format!(
                "{} notifications, {} deliveries, confirmed {}",
                report.notifications,
                report.deliveries,
                report
                    .notification_success_percentage
                    .map_or_else(|| "none".to_owned(), |share| format!("{share} %"))
            ),
        ),
        finding(
            report.blocked_in_test_mode == 0,
            format!("{} calls were blocked in test mode", report.blocked_in_test_mode),
        ),
        finding(
            report.denied == 0,
            format!("{} calls came from realms that may not start them", report.denied),
        ),
    ]
}
