//! What became of every notification, as the API, the pages and the reports show it.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::{AnyConnection, Row, any::AnyRow};

use super::queue::{State, plain};
use crate::{
    clock,
    error::StoreError,
    store::{sql, unsigned},
};

/// One notification with the state of each of its deliveries.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Notification {
    pub id: String,
    pub timestamp: String,
    /// `911_call`, `911_not_delivered`, `911_abandoned`, `panic_button`, `manual`, `other` or
    /// `test`.
    pub trigger_type: String,
    pub call_id: Option<String>,
    pub actor: String,
    #[schema(value_type = Object)]
    pub details: serde_json::Value,
    /// Of all deliveries together: `acknowledged`, `delivered` (to at least one contact),
    /// `pending`, `failed`, or `no_contacts`.
    pub notification_status: String,
    /// Names of the contacts whose delivery is confirmed.
    pub contacts_notified: Vec<String>,
    /// Methods by which a delivery is confirmed.
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
    /// 1 (told first) to 5.
    pub priority: u64,
    pub state: State,
    /// Why it failed, or what the last attempt met.
    pub reason: Option<String>,
    pub attempts: u64,
    pub sent_at: Option<String>,
    pub delivered_at: Option<String>,
    pub acknowledged_by: Option<String>,
    pub updated_at: String,
}

impl Delivery {
    fn is_confirmed(&self) -> bool {
        self.delivered_at.is_some()
    }
}

/// The state of a whole notification.
#[must_use]
pub fn status(states: impl IntoIterator<Item = State>) -> &'static str {
    // In the order of what matters most to whoever asks "were they told?".
    let rank = |state: State| match state {
        State::Acknowledged => 4,
        State::Delivered => 3,
        State::Queued | State::Sent => 2,
        State::Failed => 1,
    };
    match states.into_iter().map(rank).max() {
        Some(4) => "acknowledged",
        Some(3) => "delivered",
        Some(2) => "pending",
        Some(_) => "failed",
        None => "no_contacts",
    }
}

/// What a search of the history asks for. Empty fields match everything.
#[derive(Clone, Debug, Default)]
pub struct Search {
    pub from_ms: Option<u64>,
    /// First millisecond after the range.
    pub to_ms: Option<u64>,
    pub trigger: Option<String>,
    pub call: Option<String>,
    pub extension: Option<String>,
    pub site_id: Option<u64>,
    pub limit: u32,
}

const MATCHES: &str = "at_ms >= $1 AND at_ms < $2 AND ($3 = '' OR trigger_type = $3)
    AND ($4 = '' OR call_id = $4) AND ($5 = '' OR extension = $5) AND ($6 = 0 OR site_id = $6)";

/// Notifications, newest first, and how many there are in all.
///
/// # Errors
/// What the database says.
pub async fn history(
    connection: &mut AnyConnection,
    search: &Search,
) -> Result<(Vec<Notification>, u64), StoreError> {
    let bind = |text: String| {
        sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(sql(search.from_ms.unwrap_or(0)))
            .bind(sql(search.to_ms.unwrap_or(u64::MAX)))
            .bind(search.trigger.as_deref().map(plain).unwrap_or_default())
            .bind(search.call.as_deref().map(plain).unwrap_or_default())
            .bind(search.extension.as_deref().map(plain).unwrap_or_default())
            .bind(sql(search.site_id.unwrap_or(0)))
    };
    let total = bind(format!("SELECT COUNT(*) FROM emergency_notifications WHERE {MATCHES}"))
        .fetch_one(&mut *connection)
        .await?;
    let total = unsigned(total.try_get(0)?)?;
    let rows = bind(format!(
        "SELECT id, at_ms, trigger_type, call_id, actor, details FROM emergency_notifications
         WHERE {MATCHES} ORDER BY at_ms DESC, id DESC LIMIT $7"
    ))
    .bind(i64::from(search.limit))
    .fetch_all(&mut *connection)
    .await?;
    let mut notifications = Vec::with_capacity(rows.len());
    for row in rows {
        let id: String = row.try_get(0)?;
        let deliveries = deliveries(connection, &id).await?;
        let confirmed = || deliveries.iter().filter(|one| one.is_confirmed());
        let mut contacts_notified: Vec<String> =
            confirmed().map(|one| one.contact_name.clone()).collect();
        contacts_notified.dedup();
        let mut methods_used: Vec<String> = confirmed().map(|one| one.method.clone()).collect();
        methods_used.sort_unstable();
        methods_used.dedup();
        notifications.push(Notification {
            id,
            timestamp: clock::rfc3339(unsigned(row.try_get(1)?)?),
            trigger_type: row.try_get(2)?,
            call_id: row.try_get(3)?,
            actor: row.try_get(4)?,
            details: serde_json::from_str(&row.try_get::<String, _>(5)?)?,
            notification_status: status(deliveries.iter().map(|one| one.state)).to_owned(),
            contacts_notified,
            methods_used,
            deliveries,
        });
    }
    Ok((notifications, total))
}

/// The deliveries of one notification, in the order of priority.
///
/// # Errors
/// What the database says.
pub async fn deliveries(
    connection: &mut AnyConnection,
    notification: &str,
) -> Result<Vec<Delivery>, StoreError> {
    sqlx::query(
        "SELECT contact_id, contact_name, method, address, priority, state, reason, attempts,
                COALESCE(sent_ms, -1), COALESCE(delivered_ms, -1), acknowledged_by, updated_ms
         FROM emergency_deliveries WHERE notification_id = $1
         ORDER BY priority, contact_name, contact_id, method",
    )
    .bind(notification.to_owned())
    .fetch_all(connection)
    .await?
    .iter()
    .map(read_delivery)
    .collect()
}

fn read_delivery(row: &AnyRow) -> Result<Delivery, StoreError> {
    let at = |index: usize| -> Result<Option<String>, StoreError> {
        Ok(u64::try_from(row.try_get::<i64, _>(index)?).ok().map(clock::rfc3339))
    };
    Ok(Delivery {
        contact_id: row.try_get(0)?,
        contact_name: row.try_get(1)?,
        method: row.try_get(2)?,
        address: row.try_get(3)?,
        priority: unsigned(row.try_get(4)?)?,
        state: State::read(&row.try_get::<String, _>(5)?)?,
        reason: row.try_get(6)?,
        attempts: unsigned(row.try_get(7)?)?,
        sent_at: at(8)?,
        delivered_at: at(9)?,
        acknowledged_by: row.try_get(10)?,
        updated_at: clock::rfc3339(unsigned(row.try_get(11)?)?),
    })
}

/// How the notification of each emergency call of a period ended, by call (see [`status`]).
///
/// # Errors
/// What the database says.
pub async fn statuses(
    connection: &mut AnyConnection,
    from_ms: u64,
    to_ms: u64,
) -> Result<BTreeMap<String, &'static str>, StoreError> {
    let rows = sqlx::query(
        "SELECT n.call_id, COALESCE(d.state, '') FROM emergency_notifications n
         LEFT JOIN emergency_deliveries d ON d.notification_id = n.id
         WHERE n.trigger_type = '911_call' AND n.call_id IS NOT NULL
             AND n.at_ms >= $1 AND n.at_ms < $2
         GROUP BY n.call_id, COALESCE(d.state, '')",
    )
    .bind(sql(from_ms))
    .bind(sql(to_ms))
    .fetch_all(connection)
    .await?;
    let mut states: BTreeMap<String, Vec<State>> = BTreeMap::new();
    for row in rows {
        let all = states.entry(row.try_get(0)?).or_default();
        let state: String = row.try_get(1)?;
        if !state.is_empty() {
            all.push(State::read(&state)?);
        }
    }
    Ok(states.into_iter().map(|(call, states)| (call, status(states))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_notification_is_the_best_of_its_deliveries() {
        assert_eq!(status([]), "no_contacts");
        assert_eq!(status([State::Failed, State::Failed]), "failed");
        assert_eq!(status([State::Failed, State::Sent]), "pending");
        assert_eq!(status([State::Queued, State::Delivered, State::Failed]), "delivered");
        assert_eq!(status([State::Acknowledged, State::Delivered]), "acknowledged");
    }
}
