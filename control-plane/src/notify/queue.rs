//! The queue in the store: one row per notification, contact and method, and its state machine.
//!
//! ```text
//! queued -> sent -> delivered -> acknowledged
//!   ^        | \
//!   +--------+  +-> failed
//! ```
//!
//! `sent`: an attempt is under way, or was when the process ended. `delivered`: the mail server or
//! the webhook took it. `acknowledged`: a person said so. A row goes back to `queued` while there
//! are attempts left.

use std::collections::BTreeMap;

use ravelin_contract::audit::{AuditEvent, Severity};
use serde::Serialize;
use sqlx::AnyConnection;

use super::{Contact, KIND_ENDED, KIND_FAILED, KIND_NOTIFY, Method, Policy, contact::contacts};
use crate::{
    clock,
    error::StoreError,
    ident,
    store::{EventExt, WriteTx, event, sql},
};

/// Why a delivery fails at once when nothing is configured that could carry it.
pub const NO_ADAPTER: &str = "no adapter configured";
const NO_ADDRESS: &str = "the contact has no address for this method";
const SWITCHED_OFF: &str = "switched off by emergency_notification.methods";
/// Trigger of a real call.
pub const TRIGGER_CALL: &str = "911_call";
/// Trigger of a call that no trunk took.
pub const TRIGGER_NOT_DELIVERED: &str = "911_not_delivered";
/// Trigger of a call that was given up before an answer.
pub const TRIGGER_ABANDONED: &str = "911_abandoned";
/// Trigger of what is only a test.
pub const TRIGGER_TEST: &str = "test";

/// State of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Queued,
    Sent,
    Delivered,
    Acknowledged,
    Failed,
}

impl State {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Acknowledged => "acknowledged",
            Self::Failed => "failed",
        }
    }

    /// The other side has it.
    #[must_use]
    pub fn is_confirmed(self) -> bool {
        matches!(self, Self::Delivered | Self::Acknowledged)
    }

    pub(super) fn read(name: &str) -> Result<Self, StoreError> {
        [Self::Queued, Self::Sent, Self::Delivered, Self::Acknowledged, Self::Failed]
            .into_iter()
            .find(|state| state.name() == name)
            .ok_or_else(|| StoreError::Corrupt(format!("state of a delivery: {name}")))
    }
}

/// Queues what an event of an emergency call asks for, once per call and trigger however often the
/// event comes. True if something was queued.
///
/// # Errors
/// What the database says.
pub async fn queue_event(
    tx: &mut WriteTx,
    node: &str,
    event: &AuditEvent,
    policy: &Policy,
) -> Result<bool, StoreError> {
    let abandoned = event.fields.get("abandoned") == Some(&serde_json::Value::Bool(true));
    let trigger = match event.kind.as_str() {
        KIND_NOTIFY => TRIGGER_CALL,
        KIND_FAILED => TRIGGER_NOT_DELIVERED,
        KIND_ENDED if abandoned => TRIGGER_ABANDONED,
        _ => return Ok(false),
    };
    let class = event.fields.get("class").and_then(|class| class.as_str());
    let real = class.is_none_or(|class| class == "emergency");
    let mut details = event.fields.clone();
    details.insert("node".to_owned(), node.into());
    let id = ident::uuid_v7();
    let new = New {
        id: &id,
        at_ms: event.unix_ms,
        trigger: if real { trigger } else { TRIGGER_TEST },
        call: event.call.as_deref(),
        actor: node,
        details: &details,
    };
    if !insert(tx.connection(), &new).await? || !real {
        // A test class reaches no contact (EM-13: address tests notify nobody).
        return Ok(false);
    }
    let mut told = policy.contacts.to_vec();
    if policy.api_contacts_on_911 {
        told.extend(contacts(tx.connection()).await?);
    }
    let site = event.fields.get("site_id").and_then(serde_json::Value::as_u64);
    told.retain(|contact| contact.site_id.is_none() || contact.site_id == site);
    let queued = queue_deliveries(tx.connection(), &new, &told, policy).await?;
    if !queued {
        nobody(tx, &new).await?;
    }
    Ok(queued)
}

/// Queues a notification that a person asked for; returns its id. `only` restricts it to one
/// contact.
///
/// # Errors
/// What the database says.
pub async fn queue_manual(
    tx: &mut WriteTx,
    trigger: &str,
    actor: &str,
    details: &BTreeMap<String, serde_json::Value>,
    policy: &Policy,
    only: Option<&str>,
) -> Result<String, StoreError> {
    let id = ident::uuid_v7();
    let new = New { id: &id, at_ms: clock::unix_ms(), trigger, call: None, actor, details };
    insert(tx.connection(), &new).await?;
    let mut told = policy.contacts.to_vec();
    told.extend(contacts(tx.connection()).await?);
    told.retain(|contact| match only {
        Some(only) => contact.id == only,
        None => contact.site_id.is_none(),
    });
    queue_deliveries(tx.connection(), &new, &told, policy).await?;
    Ok(id)
}

struct New<'a> {
    id: &'a str,
    at_ms: u64,
    trigger: &'a str,
    call: Option<&'a str>,
    actor: &'a str,
    details: &'a BTreeMap<String, serde_json::Value>,
}

/// False if the call was told about already.
async fn insert(connection: &mut AnyConnection, new: &New<'_>) -> Result<bool, StoreError> {
    let extension = new.details.get("extension").and_then(|value| value.as_str());
    let site = new.details.get("site_id").and_then(serde_json::Value::as_u64);
    let done = sqlx::query(
        "INSERT INTO emergency_notifications
             (id, at_ms, trigger_type, call_id, actor, details, extension, site_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
    )
    .bind(new.id.to_owned())
    .bind(sql(new.at_ms))
    .bind(new.trigger.to_owned())
    .bind(new.call.map(plain))
    .bind(new.actor.to_owned())
    .bind(serde_json::to_string(new.details)?)
    .bind(extension.map(plain))
    .bind(site.map(sql))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Without NUL, which PostgreSQL refuses: one dialled octet must not keep a batch out of the store.
pub(super) fn plain(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// False if nothing of it can be delivered.
async fn queue_deliveries(
    connection: &mut AnyConnection,
    new: &New<'_>,
    told: &[Contact],
    policy: &Policy,
) -> Result<bool, StoreError> {
    let now = clock::unix_ms();
    let step = u64::try_from(policy.escalate_after.as_millis()).unwrap_or(u64::MAX);
    let obstacle = |contact: &Contact, method: Method| match contact.address(method) {
        None => Some(NO_ADDRESS),
        Some(_) if !policy.allows(contact, method) => Some(SWITCHED_OFF),
        Some(_) => None,
    };
    // Nobody waits for contacts that cannot be told at all.
    let reachable = |contact: &&Contact| {
        contact.notification_methods.iter().any(|method| obstacle(contact, *method).is_none())
    };
    let mut levels: Vec<u8> =
        told.iter().filter(reachable).map(|contact| contact.priority).collect();
    levels.sort_unstable();
    levels.dedup();
    for contact in told {
        let level = levels.iter().take_while(|level| **level < contact.priority).count();
        // A test goes to everybody at once: it is the ways to them that are tested.
        let level = if new.trigger == TRIGGER_TEST { 0 } else { level };
        let wait = step.saturating_mul(u64::try_from(level).unwrap_or(u64::MAX));
        for method in &contact.notification_methods {
            let reason = obstacle(contact, *method);
            let state = if reason.is_some() { State::Failed } else { State::Queued };
            let address = contact.address(*method);
            sqlx::query(
                "INSERT INTO emergency_deliveries (notification_id, contact_id, contact_name,
                     method, address, state, reason, attempts, updated_ms, priority, due_ms)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, $9, $10) ON CONFLICT DO NOTHING",
            )
            .bind(new.id.to_owned())
            .bind(contact.id.clone())
            .bind(contact.name.clone())
            .bind(method.name().to_owned())
            .bind(address.unwrap_or_default().to_owned())
            .bind(state.name().to_owned())
            .bind(reason.map(str::to_owned))
            .bind(sql(now))
            .bind(i64::from(contact.priority))
            .bind(sql(now.saturating_add(wait)))
            .execute(&mut *connection)
            .await?;
        }
    }
    Ok(!levels.is_empty())
}

async fn nobody(tx: &mut WriteTx, new: &New<'_>) -> Result<(), StoreError> {
    let mut alarm = event("emergency.notification.undelivered", Severity::Critical, "system", 0)
        .with("notification_id", new.id)
        .with("trigger_type", new.trigger)
        .with("reason", "there is no contact that can be told");
    alarm.call = new.call.map(str::to_owned);
    tx.audit(alarm).await
}

/// A person has taken notice: what was sent to `contact` (or to anybody) is acknowledged, and
/// nobody further is told. Returns how many deliveries changed, or `None` if there is no such
/// notification.
///
/// # Errors
/// What the database says.
pub async fn acknowledge(
    tx: &mut WriteTx,
    notification: &str,
    contact: Option<&str>,
    actor: &str,
) -> Result<Option<u64>, StoreError> {
    let known = sqlx::query("SELECT 1 FROM emergency_notifications WHERE id = $1")
        .bind(plain(notification))
        .fetch_optional(tx.connection())
        .await?;
    if known.is_none() {
        return Ok(None);
    }
    let now = sql(clock::unix_ms());
    let delivered = sqlx::query(
        "UPDATE emergency_deliveries
         SET state = 'acknowledged', acknowledged_by = $1, updated_ms = $2
         WHERE notification_id = $3 AND state IN ('sent', 'delivered')
             AND ($4 = '' OR contact_id = $4)",
    )
    .bind(actor.to_owned())
    .bind(now)
    .bind(plain(notification))
    .bind(contact.map(plain).unwrap_or_default())
    .execute(tx.connection())
    .await?;
    let spared = sqlx::query(
        "UPDATE emergency_deliveries
         SET state = 'acknowledged', acknowledged_by = $1, updated_ms = $2,
             reason = 'acknowledged before it was sent'
         WHERE notification_id = $3 AND state = 'queued'",
    )
    .bind(actor.to_owned())
    .bind(now)
    .bind(plain(notification))
    .execute(tx.connection())
    .await?;
    Ok(Some(delivered.rows_affected() + spared.rows_affected()))
}
