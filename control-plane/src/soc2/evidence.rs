//! What a test of a control printed, kept with its digest (compliance-systems C3, C4).

use serde::Serialize;
use sqlx::{AnyConnection, Row};

use crate::{
    error::StoreError,
    ident,
    store::{sql, unsigned},
};

/// Largest piece of evidence, in octets.
pub const EVIDENCE_MAX_BYTES: usize = 64 * 1024;
/// Kinds of evidence: text that a person can read.
pub const MEDIA_TYPES: [&str; 2] = ["application/json", "text/plain"];

/// Evidence as it comes in.
#[derive(Clone, Debug)]
pub struct Evidence {
    pub media_type: String,
    pub content: String,
}

/// Evidence as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct EvidenceRef {
    pub sha256: String,
    pub size: u64,
    pub media_type: String,
}

/// Evidence with its content, for the package.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) test_id: u64,
    pub(super) listed: EvidenceRef,
    pub(super) content: String,
}

pub(super) async fn append(
    connection: &mut AnyConnection,
    test_id: i64,
    control_id: &str,
    evidence: &Evidence,
) -> Result<(), StoreError> {
    let row = sqlx::query("SELECT COALESCE(MAX(id), 0) FROM soc2_evidence")
        .fetch_one(&mut *connection)
        .await?;
    let size = u64::try_from(evidence.content.len()).unwrap_or(u64::MAX);
    sqlx::query(
        "INSERT INTO soc2_evidence
             (id, test_id, control_id, media_type, size_bytes, sha256, content)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(row.try_get::<i64, _>(0)? + 1)
    .bind(test_id)
    .bind(control_id.to_owned())
    .bind(evidence.media_type.clone())
    .bind(sql(size))
    .bind(ident::sha256_hex(evidence.content.as_bytes()))
    .bind(evidence.content.clone())
    .execute(connection)
    .await?;
    Ok(())
}

/// Every piece of evidence of one control, in the order of its tests.
pub(super) async fn of_control(
    connection: &mut AnyConnection,
    control_id: &str,
) -> Result<Vec<Stored>, StoreError> {
    sqlx::query(
        "SELECT test_id, sha256, size_bytes, media_type, content FROM soc2_evidence
         WHERE control_id = $1 ORDER BY id",
    )
    .bind(control_id.to_owned())
    .fetch_all(connection)
    .await?
    .iter()
    .map(|row| {
        Ok(Stored {
            test_id: unsigned(row.try_get(0)?)?,
            listed: EvidenceRef {
                sha256: row.try_get(1)?,
                size: unsigned(row.try_get(2)?)?,
                media_type: row.try_get(3)?,
            },
            content: row.try_get(4)?,
        })
    })
    .collect()
}
