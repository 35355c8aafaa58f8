//! Config documents by version, and which one is in force.

use serde::Serialize;
use sqlx::{AnyConnection, Row, any::AnyRow};

use crate::{
    clock,
    error::StoreError,
    store::{sql, unsigned},
};

/// One stored config version. Never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub version: u64,
    pub sha256: String,
    pub document: String,
    pub author: String,
    /// How it came: `file`, `api`, `e911`.
    pub source: String,
    pub comment: String,
    /// The version that the author had before him; 0 when he did not say.
    pub base: u64,
    pub created_ms: u64,
}

/// One stored version without its document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct VersionSummary {
    pub version: u64,
    pub sha256: String,
    pub author: String,
    pub source: String,
    pub comment: String,
    pub base: Option<u64>,
    pub created_at: String,
    pub active: bool,
}

/// A new version, before it has a number.
#[derive(Clone, Copy, Debug)]
pub struct NewVersion<'a> {
    pub version: u64,
    pub sha256: &'a str,
    pub document: &'a str,
    pub author: &'a str,
    pub source: &'a str,
    pub comment: &'a str,
    pub base: Option<u64>,
}

/// Which version is in force, and the running number of that activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activation {
    pub activation: u64,
    pub version: u64,
}

/// The number that the next version gets.
///
/// # Errors
/// What the database says.
pub async fn next_version(connection: &mut AnyConnection) -> Result<u64, StoreError> {
    latest_version(connection).await.map(|latest| latest + 1)
}

/// The newest version's number; 0 in an empty store.
///
/// # Errors
/// What the database says.
pub async fn latest_version(connection: &mut AnyConnection) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT COALESCE(MAX(version), 0) FROM config_versions")
        .fetch_one(connection)
        .await?;
    unsigned(row.try_get(0)?)
}

/// Stores a version.
///
/// # Errors
/// What the database says.
pub async fn insert(connection: &mut AnyConnection, new: NewVersion<'_>) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO config_versions
             (version, sha256, document, author, source, comment, base, created_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(sql(new.version))
    .bind(new.sha256.to_owned())
    .bind(new.document.to_owned())
    .bind(new.author.to_owned())
    .bind(new.source.to_owned())
    .bind(new.comment.to_owned())
    .bind(new.base.map(sql))
    .bind(sql(clock::unix_ms()))
    .execute(connection)
    .await?;
    Ok(())
}

/// Puts a stored version in force.
///
/// # Errors
/// What the database says.
pub async fn activate(
    connection: &mut AnyConnection,
    version: u64,
    actor: &str,
    action: &str,
) -> Result<Activation, StoreError> {
    let activation = active(connection).await?.map_or(1, |active| active.activation + 1);
    sqlx::query(
        "INSERT INTO config_activations (activation, version, actor, action, at_ms)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(sql(activation))
    .bind(sql(version))
    .bind(actor.to_owned())
    .bind(action.to_owned())
    .bind(sql(clock::unix_ms()))
    .execute(connection)
    .await?;
    Ok(Activation { activation, version })
}

/// What is in force; `None` in an empty store.
///
/// # Errors
/// What the database says.
pub async fn active(connection: &mut AnyConnection) -> Result<Option<Activation>, StoreError> {
    sqlx::query(
        "SELECT activation, version FROM config_activations ORDER BY activation DESC LIMIT 1",
    )
    .fetch_optional(connection)
    .await?
    .map(|row| {
        Ok(Activation {
            activation: unsigned(row.try_get(0)?)?,
            version: unsigned(row.try_get(1)?)?,
        })
    })
    .transpose()
}

/// One version with its document; `None` if there is no such number.
///
/// # Errors
/// What the database says.
pub async fn load(
    connection: &mut AnyConnection,
    version: u64,
) -> Result<Option<Version>, StoreError> {
    sqlx::query(
        "SELECT version, sha256, document, author, source, comment, COALESCE(base, 0), created_ms
         FROM config_versions WHERE version = $1",
    )
    .bind(sql(version))
    .fetch_optional(connection)
    .await?
    .map(|row| {
        Ok(Version {
            version: unsigned(row.try_get(0)?)?,
            sha256: row.try_get(1)?,
            document: row.try_get(2)?,
            author: row.try_get(3)?,
            source: row.try_get(4)?,
            comment: row.try_get(5)?,
            base: unsigned(row.try_get(6)?)?,
            created_ms: unsigned(row.try_get(7)?)?,
        })
    })
    .transpose()
}

/// Versions below `before`, newest first.
///
/// # Errors
/// What the database says.
pub async fn list(
    connection: &mut AnyConnection,
    before: u64,
    limit: u32,
) -> Result<Vec<VersionSummary>, StoreError> {
    let in_force = active(connection).await?.map_or(0, |active| active.version);
    sqlx::query(
        "SELECT version, sha256, author, source, comment, COALESCE(base, 0), created_ms
         FROM config_versions WHERE version < $1 ORDER BY version DESC LIMIT $2",
    )
    .bind(sql(before))
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?
    .iter()
    .map(|row| summary(row, in_force))
    .collect()
}

fn summary(row: &AnyRow, in_force: u64) -> Result<VersionSummary, StoreError> {
    let version = unsigned(row.try_get(0)?)?;
    let base = unsigned(row.try_get(5)?)?;
    Ok(VersionSummary {
        version,
        sha256: row.try_get(1)?,
        author: row.try_get(2)?,
        source: row.try_get(3)?,
        comment: row.try_get(4)?,
        base: (base > 0).then_some(base),
        created_at: clock::rfc3339(unsigned(row.try_get(6)?)?),
        active: version == in_force,
    })
}

/// One named value that is kept beside the tables.
///
/// # Errors
/// What the database says.
pub async fn meta(
    connection: &mut AnyConnection,
    name: &str,
) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT value FROM meta WHERE name = $1")
        .bind(name.to_owned())
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Sets a named value.
///
/// # Errors
/// What the database says.
pub async fn set_meta(
    connection: &mut AnyConnection,
    name: &str,
    value: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO meta (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(name.to_owned())
    .bind(value.to_owned())
    .execute(connection)
    .await?;
    Ok(())
}
