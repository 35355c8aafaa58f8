//! Working off the queue: what is due is claimed, how it ended is written down, and what was under
//! way when the process ended is found again.

use ravelin_contract::audit::{AuditEvent, Severity};
use sqlx::{AnyConnection, Row};

use super::{
    Method, State,
    queue::{TRIGGER_TEST, plain},
};
use crate::{
    error::StoreError,
    ident,
    store::{EventExt, WriteTx, event, sql, unsigned},
};

/// Attempts of one delivery, the first one included.
pub const ATTEMPTS_MAX: u64 = 12;
/// Pause before the second attempt; each further one is twice as long, up to
/// [`PAUSE_MAX_MS`]. All attempts together span about six minutes, longer than a mail server that
/// answers strangers with 4xx makes them wait.
const PAUSE_FIRST_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 60_000;
/// Longest reason that is kept, in characters.
const REASON_MAX_CHARS: usize = 300;
/// What a delivery is about.
#[derive(Clone, Debug)]
pub struct Told {
    pub id: String,
    pub at_ms: u64,
    pub trigger: String,
    pub call: Option<String>,
    pub actor: String,
    pub details: serde_json::Map<String, serde_json::Value>,
}

impl Told {
    /// Nobody is in danger: somebody only tries the ways to the contacts.
    #[must_use]
    pub fn is_test(&self) -> bool {
        self.trigger == TRIGGER_TEST
    }
}

/// One attempt to make.
#[derive(Clone, Debug)]
pub struct Work {
    pub told: Told,
    pub contact_id: String,
    pub contact_name: String,
    pub method: Method,
    pub address: String,
    pub priority: u64,
    /// This attempt's number, from 1.
    pub attempt: u64,
}

impl Work {
    /// The same for every attempt of this delivery, so that the receiver can tell a repeat.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        let key = format!("{}\n{}\n{}", self.told.id, self.contact_id, self.method.name());
        ident::sha256_hex(key.as_bytes()).split_off(32)
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server took it, with these words.
    Delivered(String),
    /// Worth another attempt.
    Retry(String),
    /// Another attempt would end the same way.
    Failed(String),
}

/// What became of the deliveries of one [`settle`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Notifications of which every delivery failed.
    pub undelivered: u64,
}

/// Marks up to `most` due deliveries by `method` as sent and returns them: fresh ones before those
/// that were tried already.
///
/// # Errors
/// What the database says.
pub async fn claim(
    tx: &mut WriteTx,
    method: Method,
    most: usize,
    now_ms: u64,
) -> Result<Vec<Work>, StoreError> {
    let rows = sqlx::query(
        "SELECT d.contact_id, d.contact_name, d.address, d.priority, d.attempts,
                n.id, n.at_ms, n.trigger_type, n.call_id, n.actor, n.details
         FROM emergency_deliveries d
         JOIN emergency_notifications n ON n.id = d.notification_id
         WHERE d.state = 'queued' AND d.method = $1 AND d.due_ms <= $2
         ORDER BY d.attempts, d.due_ms, n.id, d.contact_id LIMIT $3",
    )
    .bind(method.name().to_owned())
    .bind(sql(now_ms))
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .fetch_all(tx.connection())
    .await?;
    let mut claimed = Vec::with_capacity(rows.len());
    for row in rows {
        let work = Work {
            contact_id: row.try_get(0)?,
            contact_name: row.try_get(1)?,
            address: row.try_get(2)?,
            priority: unsigned(row.try_get(3)?)?,
            attempt: unsigned(row.try_get(4)?)? + 1,
            method,
            told: Told {
                id: row.try_get(5)?,
                at_ms: unsigned(row.try_get(6)?)?,
                trigger: row.try_get(7)?,
                call: row.try_get(8)?,
                actor: row.try_get(9)?,
                details: serde_json::from_str(&row.try_get::<String, _>(10)?)?,
            },
        };
        sqlx::query(
            "UPDATE emergency_deliveries
             SET state = 'sent', attempts = $1, sent_ms = $2, updated_ms = $2
             WHERE notification_id = $3 AND contact_id = $4 AND method = $5",
        )
        .bind(sql(work.attempt))
        .bind(sql(now_ms))
        .bind(work.told.id.clone())
        .bind(work.contact_id.clone())
        .bind(method.name().to_owned())
        .execute(tx.connection())
        .await?;
        claimed.push(work);
    }
    Ok(claimed)
}

/// Writes down how attempts ended, with their audit events, and releases the next contacts where
/// those before them cannot be reached.
///
/// # Errors
/// What the database says.
pub async fn settle(
    tx: &mut WriteTx,
    ended: &[(Work, Outcome)],
    now_ms: u64,
) -> Result<Settled, StoreError> {
    let mut settled = Settled::default();
    for (work, outcome) in ended {
        let outcome = match outcome {
            Outcome::Retry(reason) if work.attempt >= ATTEMPTS_MAX => {
                Outcome::Failed(format!("gave up after {} attempts: {reason}", work.attempt))
            }
            other => other.clone(),
        };
        let (state, reason, due_ms) = match &outcome {
            Outcome::Delivered(_) => (State::Delivered, None, now_ms),
            Outcome::Retry(reason) => (State::Queued, Some(reason), now_ms + pause_ms(work)),
            Outcome::Failed(reason) => (State::Failed, Some(reason), now_ms),
        };
        let delivered = (state == State::Delivered).then(|| sql(now_ms));
        // What a person acknowledged meanwhile stays acknowledged, and is delivered all the same.
        sqlx::query(
            "UPDATE emergency_deliveries
             SET state = CASE WHEN state = 'acknowledged' THEN state ELSE $1 END,
                 reason = $2, due_ms = $3, updated_ms = $4,
                 delivered_ms = COALESCE(delivered_ms, $5)
             WHERE notification_id = $6 AND contact_id = $7 AND method = $8",
        )
        .bind(state.name().to_owned())
        .bind(reason.map(|reason| cut(reason)))
        .bind(sql(due_ms))
        .bind(sql(now_ms))
        .bind(delivered)
        .bind(work.told.id.clone())
        .bind(work.contact_id.clone())
        .bind(work.method.name().to_owned())
        .execute(tx.connection())
        .await?;
        match outcome {
            Outcome::Delivered(receipt) => {
                let severity = Severity::Info;
                tx.audit(told(work, "emergency.notification.delivered", severity, &receipt))
                    .await?;
            }
            Outcome::Retry(_) => {}
            Outcome::Failed(reason) => {
                let severity =
                    if work.told.is_test() { Severity::Warning } else { Severity::Alarm };
                tx.audit(told(work, "emergency.notification.failed", severity, &reason)).await?;
                if !escalate(tx, &work.told, now_ms).await? {
                    settled.undelivered += 1;
                }
            }
        }
    }
    Ok(settled)
}

/// Growing with each attempt, and never the same for all: a server that comes back is not met by
/// everything at once.
fn pause_ms(work: &Work) -> u64 {
    let doubled = 1_u64.checked_shl(u32::try_from(work.attempt - 1).unwrap_or(u32::MAX));
    let pause = doubled
        .and_then(|factor| PAUSE_FIRST_MS.checked_mul(factor))
        .map_or(PAUSE_MAX_MS, |pause| pause.min(PAUSE_MAX_MS));
    let [random] = ident::random::<1>();
    pause + pause * u64::from(random) / 1_024
}

fn cut(reason: &str) -> String {
    plain(reason).chars().take(REASON_MAX_CHARS).collect()
}

/// The receipt of one delivery, or its failure (EM-80). No location and no address: those are in
/// the notification itself.
fn told(work: &Work, kind: &str, severity: Severity, words: &str) -> AuditEvent {
    let mut told = event(kind, severity, "system", 0)
        .with("notification_id", work.told.id.clone())
        .with("trigger_type", work.told.trigger.clone())
        .with("contact_id", work.contact_id.clone())
        .with("method", work.method.name())
        .with("attempts", work.attempt)
        .with("answer", cut(words));
    told.call.clone_from(&work.told.call);
    told
}

/// Releases the contacts of the next priority if all before them failed. False if that was the
/// last: then nobody was told, and that is an alarm of its own.
async fn escalate(tx: &mut WriteTx, told: &Told, now_ms: u64) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "SELECT COALESCE(MIN(priority), 0) FROM emergency_deliveries
         WHERE notification_id = $1 AND state <> 'failed'",
    )
    .bind(told.id.clone())
    .fetch_one(tx.connection())
    .await?;
    let next: i64 = row.try_get(0)?;
    if next > 0 {
        sqlx::query(
            "UPDATE emergency_deliveries SET due_ms = $1
             WHERE notification_id = $2 AND priority = $3 AND state = 'queued' AND attempts = 0
                 AND due_ms > $1",
        )
        .bind(sql(now_ms))
        .bind(told.id.clone())
        .bind(next)
        .execute(tx.connection())
        .await?;
        return Ok(true);
    }
    let severity = if told.is_test() { Severity::Warning } else { Severity::Critical };
    let mut alarm = event("emergency.notification.undelivered", severity, "system", 0)
        .with("notification_id", told.id.clone())
        .with("trigger_type", told.trigger.clone())
        .with("reason", "every delivery failed");
    alarm.call.clone_from(&told.call);
    tx.audit(alarm).await?;
    Ok(false)
}

/// Puts back what was under way when the process ended: it is sent again, for nobody knows whether
/// it arrived. Returns how many.
///
/// # Errors
/// What the database says.
pub async fn recover(tx: &mut WriteTx, now_ms: u64) -> Result<u64, StoreError> {
    let done = sqlx::query(
        "UPDATE emergency_deliveries
         SET state = 'queued', due_ms = $1, updated_ms = $1, reason = 'interrupted by a restart'
         WHERE state = 'sent'",
    )
    .bind(sql(now_ms))
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected())
}

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Deliveries that have neither arrived nor failed.
    pub pending: u64,
    /// Time of the oldest notification among them.
    pub oldest_ms: Option<u64>,
    /// When the next one that is not due yet will be.
    pub next_due_ms: Option<u64>,
}

/// What waits at `now_ms`.
///
/// # Errors
/// What the database says.
pub async fn backlog(connection: &mut AnyConnection, now_ms: u64) -> Result<Backlog, StoreError> {
    let row = sqlx::query(
        "SELECT COUNT(*), COALESCE(MIN(n.at_ms), -1),
                COALESCE(MIN(CASE WHEN d.state = 'queued' AND d.due_ms > $1 THEN d.due_ms END), -1)
         FROM emergency_deliveries d
         JOIN emergency_notifications n ON n.id = d.notification_id
         WHERE d.state IN ('queued', 'sent')",
    )
    .bind(sql(now_ms))
    .fetch_one(connection)
    .await?;
    Ok(Backlog {
        pending: unsigned(row.try_get(0)?)?,
        oldest_ms: u64::try_from(row.try_get::<i64, _>(1)?).ok(),
        next_due_ms: u64::try_from(row.try_get::<i64, _>(2)?).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_all_attempts_span_five_minutes_and_more() {
        let told = Told {
            id: "n".to_owned(),
            at_ms: 0,
            trigger: "911_call".to_owned(),
            call: None,
            actor: "edge".to_owned(),
            details: serde_json::Map::new(),
        };
        let mut work = Work {
            told,
            contact_id: "c".to_owned(),
            contact_name: "C".to_owned(),
            method: Method::Email,
            address: "c@x.example".to_owned(),
            priority: 1,
            attempt: 1,
        };
        let mut sum = 0;
        for attempt in 1..ATTEMPTS_MAX {
            work.attempt = attempt;
            let pause = pause_ms(&work);
            let least = (PAUSE_FIRST_MS << (attempt - 1).min(10)).min(PAUSE_MAX_MS);
            assert!((least..=least + least / 4).contains(&pause), "{attempt}: {pause}");
            sum += pause;
        }
        assert!(sum > 5 * 60_000, "{sum}");
        let key = work.idempotency_key();
        work.attempt = 1;
        assert_eq!(work.idempotency_key(), key, "the same for every attempt");
        work.method = Method::Sms;
        assert_ne!(work.idempotency_key(), key);
    }
}
