//! API tokens. Only the SHA-256 of a token is stored; the token itself is 256 random bits and is
//! shown once.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use ravelin_contract::chain::to_hex;
use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, Row, any::AnyRow};

use crate::{
    clock,
    error::StoreError,
    ident,
    store::{sql, unsigned},
};

/// Start of every token, so that a leaked one is recognised by scanners.
const PREFIX: &str = "rvl_";

/// What the holder of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, tokens included.
    Admin,
    /// Config, sites, contacts.
    Operator,
    /// Reads everything, writes SOC 2 controls and their tests.
    Auditor,
    /// Reads the live state, CDRs and config.
    Viewer,
}

impl Role {
    /// Every role, for tables and tests.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Operator, Self::Auditor, Self::Viewer];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Viewer => "viewer",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// A stored token, without anything that would let its reader use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Token {
    pub id: String,
    pub name: String,
    pub role: Role,
    pub created_by: String,
    pub created_at: String,
    pub expires_at: Option<String>,
    pub revoked_at: Option<String>,
}

/// Makes a token and stores its digest; returns the stored part and the token itself.
///
/// # Errors
/// What the database says.
pub async fn create(
    connection: &mut AnyConnection,
    name: &str,
    role: Role,
    created_by: &str,
    expires_ms: Option<u64>,
) -> Result<(Token, String), StoreError> {
    let id = to_hex(&ident::random::<8>());
    let secret = format!("{PREFIX}{id}_{}", to_hex(&ident::random::<32>()));
    let created_ms = clock::unix_ms();
    sqlx::query(
        "INSERT INTO tokens (id, name, role, hash, created_by, created_ms, expires_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(id.clone())
    .bind(name.to_owned())
    .bind(role.name().to_owned())
    .bind(ident::sha256_hex(secret.as_bytes()))
    .bind(created_by.to_owned())
    .bind(sql(created_ms))
    .bind(expires_ms.map(sql))
    .execute(connection)
    .await?;
    let token = Token {
        id,
        name: name.to_owned(),
        role,
        created_by: created_by.to_owned(),
        created_at: clock::rfc3339(created_ms),
        expires_at: expires_ms.map(clock::rfc3339),
        revoked_at: None,
    };
    Ok((token, secret))
}

/// The token that `secret` is, if it is one in force. The digest is compared in constant time; the
/// row is found by the public part of the token.
///
/// # Errors
/// What the database says.
pub async fn authenticate(
    connection: &mut AnyConnection,
    secret: &str,
) -> Result<Option<Token>, StoreError> {
    let Some((id, _)) = secret.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')) else {
        return Ok(None);
    };
    let row = sqlx::query(
        "SELECT id, name, role, created_by, created_ms, COALESCE(expires_ms, 0),
                COALESCE(revoked_ms, 0), hash FROM tokens WHERE id = $1",
    )
    .bind(id.replace('\0', ""))
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let hash: String = row.try_get(7)?;
    let given = ident::sha256_hex(secret.as_bytes());
    if verify_slices_are_equal(hash.as_bytes(), given.as_bytes()).is_err() {
        return Ok(None);
    }
    let (expires, revoked) = (unsigned(row.try_get(5)?)?, unsigned(row.try_get(6)?)?);
    if revoked > 0 || (expires > 0 && expires <= clock::unix_ms()) {
        return Ok(None);
    }
    read(&row).map(Some)
}

/// One token in force by its public id, for a login that was made with it.
///
/// # Errors
/// What the database says.
pub async fn in_force(
    connection: &mut AnyConnection,
    id: &str,
) -> Result<Option<Token>, StoreError> {
    sqlx::query(
        "SELECT id, name, role, created_by, created_ms, COALESCE(expires_ms, 0),
                COALESCE(revoked_ms, 0) FROM tokens
         WHERE id = $1 AND revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > $2)",
    )
    .bind(id.to_owned())
    .bind(sql(clock::unix_ms()))
    .fetch_optional(connection)
    .await?
    .as_ref()
    .map(read)
    .transpose()
}

/// Every token, newest first, revoked ones included.
///
/// # Errors
/// What the database says.
pub async fn list(connection: &mut AnyConnection) -> Result<Vec<Token>, StoreError> {
    sqlx::query(
        "SELECT id, name, role, created_by, created_ms, COALESCE(expires_ms, 0),
                COALESCE(revoked_ms, 0) FROM tokens ORDER BY created_ms DESC, id",
    )
    .fetch_all(connection)
    .await?
    .iter()
    .map(read)
    .collect()
}

/// Revokes a token; false if there is no such token in force.
///
/// # Errors
/// What the database says.
pub async fn revoke(connection: &mut AnyConnection, id: &str) -> Result<bool, StoreError> {
    let result =
        sqlx::query("UPDATE tokens SET revoked_ms = $1 WHERE id = $2 AND revoked_ms IS NULL")
            .bind(sql(clock::unix_ms()))
            .bind(id.replace('\0', ""))
            .execute(connection)
            .await?;
    Ok(result.rows_affected() > 0)
}

/// Admin tokens in force, so that the last one is not revoked.
///
/// # Errors
/// What the database says.
pub async fn admins(connection: &mut AnyConnection) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "SELECT COUNT(*) FROM tokens WHERE role = 'admin' AND revoked_ms IS NULL
         AND (expires_ms IS NULL OR expires_ms > $1)",
    )
    .bind(sql(clock::unix_ms()))
    .fetch_one(connection)
    .await?;
    unsigned(row.try_get(0)?)
}

fn read(row: &AnyRow) -> Result<Token, StoreError> {
    let role: String = row.try_get(2)?;
    let (expires, revoked) = (unsigned(row.try_get(5)?)?, unsigned(row.try_get(6)?)?);
    Ok(Token {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        role: Role::from_name(&role)
            .ok_or_else(|| StoreError::Corrupt(format!("role {role} of a token")))?,
        created_by: row.try_get(3)?,
        created_at: clock::rfc3339(unsigned(row.try_get(4)?)?),
        expires_at: (expires > 0).then(|| clock::rfc3339(expires)),
        revoked_at: (revoked > 0).then(|| clock::rfc3339(revoked)),
    })
}
