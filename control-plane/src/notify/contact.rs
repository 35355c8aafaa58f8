//! Who is told, and by which rules.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, Row, any::AnyRow};

use crate::{
    clock,
    error::StoreError,
    store::{sql, unsigned},
};

/// Most contacts; a request that would pass it is refused.
pub const CONTACTS_MAX: u64 = 1_000;
/// How long the contacts of one priority have before those of the next are told as well.
pub const ESCALATE_AFTER_DEFAULT: Duration = Duration::from_secs(30);

/// How a contact is reached.
#[derive(
    Clone,
    Copy,
    Debug,
    Hash,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    Call,
    Page,
    Email,
    Sms,
}

impl Method {
    pub const ALL: [Self; 4] = [Self::Call, Self::Page, Self::Email, Self::Sms];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Page => "page",
            Self::Email => "email",
            Self::Sms => "sms",
        }
    }

    /// The reverse of [`Self::name`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
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
    /// `api`, or `config` for those of the config document.
    pub source: String,
    /// Of `karis_law.notification_contacts`, where each entry names its one method: told whatever
    /// `emergency_notification.methods` says.
    #[serde(skip)]
    pub by_law: bool,
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

/// What the config document says about notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Contacts that the document names and that are told of 911 calls.
    pub contacts: Arc<[Contact]>,
    /// Whether the contacts of the API are told of 911 calls
    /// (`emergency_notification.{enabled,notify_on_911}`).
    pub api_contacts_on_911: bool,
    /// Methods in use (`emergency_notification.methods`).
    pub methods: Vec<Method>,
    /// See [`ESCALATE_AFTER_DEFAULT`].
    pub escalate_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            contacts: Arc::default(),
            api_contacts_on_911: true,
            methods: Method::ALL.to_vec(),
            escalate_after: ESCALATE_AFTER_DEFAULT,
        }
    }
}

impl Policy {
    /// Whether `contact` may be told by `method`.
    #[must_use]
    pub fn allows(&self, contact: &Contact, method: Method) -> bool {
        contact.by_law || self.methods.contains(&method)
    }
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
        by_law: false,
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
