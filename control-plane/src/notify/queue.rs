//! Emergency notification: contacts, and one durable row per notification, contact and method
//! (EM-77, EM-78; compliance-systems 2.3).
//!
//! What is queued is written in the same transaction as the record that caused it. No row is ever
//! marked delivered by anything but a delivery adapter; this build carries none, and each row says
//! so.

use std::collections::BTreeMap;

use ravelin_contract::audit::AuditEvent;
use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, Row, any::AnyRow};

use crate::{
    clock,
    error::StoreError,
    ident,
    store::{WriteTx, sql, unsigned},
};

/// Kind of the audit event by which the data plane asks for a notification.
pub const KIND_NOTIFY: &str = "emergency.notify";
/// Most contacts; a request that would pass it is refused.
pub const CONTACTS_MAX: u64 = 1_000;
/// Why rows stay queued.
const NO_ADAPTER: &str = "no delivery adapter is configured; recorded only";

/// How a contact is reached.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    Call,
    Page,
    Email,
    Sms,
}

impl Method {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Page => "page",
            Self::Email => "email",
            Self::Sms => "sms",
        }
    }
}

/// Somebody to be told of an emergency call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Contact {
    pub id: String,
    pub name: String,
    pub extension: Option<String>,
    pub phone: Option<String>,
    pub email: Option<String>,
    /// 1 (first) to 5.
    pub priority: u8,
    pub notification_methods: Vec<Method>,
    /// Only for calls from this site; null for every site.
    pub site_id: Option<u64>,
    /// `api`, or `config` for those of `karis_law.notification_contacts`.
    pub source: String,
}

impl Contact {
    /// Where `method` reaches this contact; `None` if the contact lacks that address.
    #[must_use]
    pub fn address(&self, method: Method) -> Option<&str> {
        match method {
            Method::Call => self.extension.as_deref().or(self.phone.as_deref()),
            Method::Page => self.extension.as_deref(),
            Method::Email => self.email.as_deref(),
            Method::Sms => self.phone.as_deref(),
        }
    }
}

/// One notification with the state of each of its deliveries.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Notification {
    pub id: String,
    pub timestamp: String,
    /// `911_call`, `panic_button`, `manual` or `test`.
    pub trigger_type: String,
    pub call_id: Option<String>,
    pub actor: String,
    #[schema(value_type = Object)]
    pub details: serde_json::Value,
    /// Names of the contacts whose delivery is confirmed.
    pub contacts_notified: Vec<String>,
    pub methods_used: Vec<String>,
    pub deliveries: Vec<Delivery>,
}

/// One contact by one method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Delivery {
    pub contact_id: String,
    pub contact_name: String,
    pub method: String,
    pub address: String,
    /// `queued`, `sent`, `delivered`, `acknowledged` or `failed`.
    pub state: String,
    pub reason: Option<String>,
    pub attempts: u64,
    pub updated_at: String,
}

/// Queues the notification of an emergency call, once per call however often its record comes.
///
/// # Errors
/// What the database says.
pub async fn queue_call(
    tx: &mut WriteTx,
    node: &str,
    event: &AuditEvent,
    configured: &[Contact],
) -> Result<(), StoreError> {
    let class = event.fields.get("class").and_then(|class| class.as_str());
    let real = class.is_none_or(|class| class == "emergency");
    let mut details = event.fields.clone();
    details.insert("node".to_owned(), node.into());
    let id = ident::uuid_v7();
    let new = Queued {
        id: &id,
        at_ms: event.unix_ms,
        trigger: if real { "911_call" } else { "test" },
        call: event.call.as_deref(),
        actor: node,
        details: &details,
    };
    if !insert(tx.connection(), &new).await? || !real {
        // A test class reaches no contact (EM-13: address tests notify nobody).
        return Ok(());
    }
    let site = event.fields.get("site_id").and_then(serde_json::Value::as_u64);
    queue_deliveries(tx.connection(), &id, configured, site).await
}

/// Queues a notification that a person asked for; returns its id.
///
/// # Errors
/// What the database says.
pub async fn queue_manual(
    tx: &mut WriteTx,
    trigger: &str,
    actor: &str,
    details: &BTreeMap<String, serde_json::Value>,
    configured: &[Contact],
) -> Result<String, StoreError> {
    let id = ident::uuid_v7();
    let at_ms = clock::unix_ms();
    insert(tx.connection(), &Queued { id: &id, at_ms, trigger, call: None, actor, details })
        .await?;
    queue_deliveries(tx.connection(), &id, configured, None).await?;
    Ok(id)
}

struct Queued<'a> {
    id: &'a str,
    at_ms: u64,
    trigger: &'a str,
    call: Option<&'a str>,
    actor: &'a str,
    details: &'a BTreeMap<String, serde_json::Value>,
}

async fn insert(connection: &mut AnyConnection, new: &Queued<'_>) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO emergency_notifications (id, at_ms, trigger_type, call_id, actor, details)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(new.id.to_owned())
    .bind(sql(new.at_ms))
    .bind(new.trigger.to_owned())
    .bind(new.call.map(|call| call.replace('\0', "\u{fffd}")))
    .bind(new.actor.to_owned())
    .bind(serde_json::to_string(new.details)?)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

async fn queue_deliveries(
    connection: &mut AnyConnection,
    id: &str,
    configured: &[Contact],
    site: Option<u64>,
) -> Result<(), StoreError> {
    let mut contacts = contacts(connection).await?;
    contacts.extend_from_slice(configured);
    contacts.sort_by_key(|contact| contact.priority);
    for contact in &contacts {
        if contact.site_id.is_some() && contact.site_id != site {
            continue;
        }
        for method in &contact.notification_methods {
            let address = contact.address(*method);
            let (state, reason) = match address {
                Some(_) => ("queued", NO_ADAPTER),
                None => ("failed", "the contact has no address for this method"),
            };
            sqlx::query(
                "INSERT INTO emergency_deliveries (notification_id, contact_id, contact_name,
                     method, address, state, reason, attempts, updated_ms)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8) ON CONFLICT DO NOTHING",
            )
            .bind(id.to_owned())
            .bind(contact.id.clone())
            .bind(contact.name.clone())
            .bind(method.name().to_owned())
            .bind(address.unwrap_or_default().to_owned())
            .bind(state.to_owned())
            .bind(reason.to_owned())
            .bind(sql(clock::unix_ms()))
            .execute(&mut *connection)
            .await?;
        }
    }
    Ok(())
}

/// Contacts made through the API, in order of priority.
///
/// # Errors
/// What the database says.
pub async fn contacts(connection: &mut AnyConnection) -> Result<Vec<Contact>, StoreError> {
    sqlx::query(
        "SELECT id, name, extension, phone, email, priority, notification_methods,
                COALESCE(site_id, 0)
         FROM emergency_contacts WHERE active = 1 ORDER BY priority, name, id",
    )
    .fetch_all(connection)
    .await?
    .iter()
    .map(read_contact)
    .collect()
}

fn read_contact(row: &AnyRow) -> Result<Contact, StoreError> {
    let site = unsigned(row.try_get(7)?)?;
    let methods: String = row.try_get(6)?;
    Ok(Contact {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        extension: row.try_get(2)?,
        phone: row.try_get(3)?,
        email: row.try_get(4)?,
        priority: u8::try_from(row.try_get::<i64, _>(5)?)
            .map_err(|error| StoreError::Corrupt(format!("priority: {error}")))?,
        notification_methods: serde_json::from_str(&methods)?,
        site_id: (site > 0).then_some(site),
        source: "api".to_owned(),
    })
}

/// Stores a contact; one with the same id that was deleted comes back with the new content.
///
/// # Errors
/// What the database says.
pub async fn insert_contact(
    connection: &mut AnyConnection,
    contact: &Contact,
) -> Result<(), StoreError> {
    let now = clock::rfc3339(clock::unix_ms());
    sqlx::query(
        "INSERT INTO emergency_contacts (id, name, extension, phone, email, priority,
             notification_methods, site_id, active, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9, $9)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, extension = excluded.extension,
             phone = excluded.phone, email = excluded.email, priority = excluded.priority,
             notification_methods = excluded.notification_methods, site_id = excluded.site_id,
             active = 1, updated_at = excluded.updated_at",
    )
    .bind(contact.id.clone())
    .bind(contact.name.clone())
    .bind(contact.extension.clone())
    .bind(contact.phone.clone())
    .bind(contact.email.clone())
    .bind(i64::from(contact.priority))
    .bind(serde_json::to_string(&contact.notification_methods)?)
    .bind(contact.site_id.map(sql))
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes a contact out of use; false if there is none in use by that id.
///
/// # Errors
/// What the database says.
pub async fn delete_contact(connection: &mut AnyConnection, id: &str) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE emergency_contacts SET active = 0, updated_at = $1 WHERE id = $2 AND active = 1",
    )
    .bind(clock::rfc3339(clock::unix_ms()))
    .bind(id.replace('\0', ""))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Notifications, newest first, and how many there are in all.
///
/// # Errors
/// What the database says.
pub async fn history(
    connection: &mut AnyConnection,
    limit: u32,
) -> Result<(Vec<Notification>, u64), StoreError> {
    let total = sqlx::query("SELECT COUNT(*) FROM emergency_notifications")
        .fetch_one(&mut *connection)
        .await?;
    let total = unsigned(total.try_get(0)?)?;
    let rows = sqlx::query(
        "SELECT id, at_ms, trigger_type, call_id, actor, details FROM emergency_notifications
         ORDER BY at_ms DESC, id DESC LIMIT $1",
    )
    .bind(i64::from(limit))
    .fetch_all(&mut *connection)
    .await?;
    let mut notifications = Vec::with_capacity(rows.len());
    for row in rows {
        let id: String = row.try_get(0)?;
        let deliveries = deliveries(connection, &id).await?;
        let confirmed =
            |delivery: &&Delivery| matches!(&*delivery.state, "delivered" | "acknowledged");
        let mut contacts_notified: Vec<String> =
            deliveries.iter().filter(confirmed).map(|one| one.contact_name.clone()).collect();
        contacts_notified.dedup();
        let mut methods_used: Vec<String> =
            deliveries.iter().filter(confirmed).map(|one| one.method.clone()).collect();
        methods_used.sort_unstable();
        methods_used.dedup();
        notifications.push(Notification {
            id,
            timestamp: clock::rfc3339(unsigned(row.try_get(1)?)?),
            trigger_type: row.try_get(2)?,
            call_id: row.try_get(3)?,
            actor: row.try_get(4)?,
            details: serde_json::from_str(&row.try_get::<String, _>(5)?)?,
            contacts_notified,
            methods_used,
            deliveries,
        });
    }
    Ok((notifications, total))
}

/// The deliveries of one notification.
///
/// # Errors
/// What the database says.
pub async fn deliveries(
    connection: &mut AnyConnection,
    notification: &str,
) -> Result<Vec<Delivery>, StoreError> {
    sqlx::query(
        "SELECT contact_id, contact_name, method, address, state, reason, attempts, updated_ms
         FROM emergency_deliveries WHERE notification_id = $1 ORDER BY contact_name, method",
    )
    .bind(notification.to_owned())
    .fetch_all(connection)
    .await?
    .iter()
    .map(|row| {
        Ok(Delivery {
            contact_id: row.try_get(0)?,
            contact_name: row.try_get(1)?,
            method: row.try_get(2)?,
            address: row.try_get(3)?,
            state: row.try_get(4)?,
            reason: row.try_get(5)?,
            attempts: unsigned(row.try_get(6)?)?,
            updated_at: clock::rfc3339(unsigned(row.try_get(7)?)?),
        })
    })
    .collect()
}
