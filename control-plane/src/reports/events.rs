//! What the audit events of an emergency call say that its CDRs do not: the location and where it
//! came from, the callback number, and when each INVITE left.

use std::collections::BTreeMap;

use ravelin_contract::{
    audit::AuditEvent,
    chain::{Entry, Record},
};
use sqlx::{AnyConnection, Row};

use crate::{
    error::StoreError,
    store::{sql, unsigned},
};

/// Events of a call that began in the last minute of the month come a little later.
const MARGIN_MS: u64 = 15 * 60_000;

/// `emergency.started`: what was known of the caller.
#[derive(Clone, Debug, Default)]
pub(crate) struct Started {
    pub(crate) call: String,
    pub(crate) at_ms: u64,
    mono_ns: u64,
    pub(crate) extension: String,
    pub(crate) source: String,
    pub(crate) number: String,
    pub(crate) site: Option<String>,
    pub(crate) site_id: Option<u64>,
    site_rule: Option<String>,
    location: String,
    pub(crate) callback: Option<String>,
}

impl Started {
    /// Reads a stored line.
    ///
    /// # Errors
    /// A line that is no audit event.
    pub(crate) fn of_line(line: &str) -> Result<Self, StoreError> {
        event_of_line(line).map(Self::of)
    }

    fn of(event: AuditEvent) -> Self {
        let text =
            |name: &str| event.fields.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        Self {
            call: event.call.clone().unwrap_or_default(),
            at_ms: event.unix_ms,
            mono_ns: event.mono_ns,
            extension: text("extension").unwrap_or_default(),
            source: text("source").unwrap_or_default(),
            number: text("number").unwrap_or_default(),
            site: text("site"),
            site_id: event.fields.get("site_id").and_then(serde_json::Value::as_u64),
            site_rule: text("site_rule"),
            location: text("location").unwrap_or_default(),
            callback: text("callback"),
        }
    }

    /// The caller's place could be told to the PSAP.
    pub(crate) fn has_location(&self) -> bool {
        !matches!(&*self.location, "" | "Location not registered" | "Location on file")
    }

    /// Where the location came from: the rule that found the site, the default of the config, or
    /// nowhere.
    pub(crate) fn location_source(&self) -> &str {
        if !self.has_location() {
            return "none";
        }
        self.site_rule.as_deref().unwrap_or("config_default")
    }
}

/// The events of one month, by call.
#[derive(Debug, Default)]
pub(super) struct Events {
    pub(super) started: BTreeMap<String, Started>,
    /// Milliseconds from INVITE in to INVITE out, by call and number of the attempt.
    pub(super) sent_ms: BTreeMap<(String, u64), u64>,
    /// Calls that test mode blocked, and calls from realms that may not start one.
    pub(super) blocked: u64,
    pub(super) denied: u64,
}

pub(super) async fn read(
    connection: &mut AnyConnection,
    (from_ms, to_ms): (u64, u64),
) -> Result<Events, StoreError> {
    let mut events = Events::default();
    for event in of_kind(connection, "emergency.started", (from_ms, to_ms)).await? {
        let started = Started::of(event);
        events.started.insert(started.call.clone(), started);
    }
    let later = (from_ms, to_ms.saturating_add(MARGIN_MS));
    for event in of_kind(connection, "emergency.attempt", later).await? {
        let number = event.fields.get("attempt").and_then(serde_json::Value::as_u64);
        let (Some(number), Some(call)) = (number, event.call) else { continue };
        // Both times are of one node's monotonic clock: a clock step changes no figure.
        let Some(started) = events.started.get(&call) else { continue };
        let ms = event.mono_ns.saturating_sub(started.mono_ns) / 1_000_000;
        events.sent_ms.entry((call, number)).or_insert(ms);
    }
    let month = (from_ms, to_ms);
    events.blocked = count(connection, "emergency.blocked", month).await?;
    events.denied = count(connection, "emergency.denied", month).await?;
    Ok(events)
}

fn event_of_line(line: &str) -> Result<AuditEvent, StoreError> {
    let record: Record = serde_json::from_str(line)?;
    match serde_json::from_str(record.entry.get())? {
        Entry::Audit(event) => Ok(event),
        Entry::Cdr(_) | Entry::Gap { .. } => {
            Err(StoreError::Corrupt(format!("record {} is no audit event", record.seq)))
        }
    }
}

async fn of_kind(
    connection: &mut AnyConnection,
    kind: &str,
    (from_ms, to_ms): (u64, u64),
) -> Result<Vec<AuditEvent>, StoreError> {
    sqlx::query(
        "SELECT line FROM audit_events WHERE kind = $1 AND at_ms >= $2 AND at_ms < $3
         ORDER BY at_ms, node, epoch, seq",
    )
    .bind(kind.to_owned())
    .bind(sql(from_ms))
    .bind(sql(to_ms))
    .fetch_all(connection)
    .await?
    .iter()
    .map(|row| event_of_line(&row.try_get::<String, _>(0)?))
    .collect()
}

async fn count(
    connection: &mut AnyConnection,
    kind: &str,
    (from_ms, to_ms): (u64, u64),
) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "SELECT COUNT(*) FROM audit_events WHERE kind = $1 AND at_ms >= $2 AND at_ms < $3",
    )
    .bind(kind.to_owned())
    .bind(sql(from_ms))
    .bind(sql(to_ms))
    .fetch_one(connection)
    .await?;
    unsigned(row.try_get(0)?)
}
