//! Records of every node, kept line by line as they came (contract `chain`).
//!
//! A record that repeats is recognised, one that breaks the chain is kept with its flaw and raises
//! one alarm per batch. Nothing that arrived is dropped, and no record can stop the ones behind it.

use ravelin_contract::{
    audit::{AuditEvent, Severity},
    cdr::{Cdr, CdrKind},
    chain::{ChainError, Entry, Head, Record, hash_from_hex},
};
use sqlx::{AnyConnection, Row};

use crate::{
    error::StoreError,
    notify,
    store::{EventExt, OWN_NODE, WriteTx, event, read_hash, sql, unsigned, write_hash},
};

/// Longest text in a searched column, in octets; the line itself is kept whole.
const COLUMN_MAX_BYTES: usize = 512;
/// Kind of the event rows that stand for a [`Entry::Gap`].
pub const KIND_GAP: &str = "chain.gap";
/// Kind of the event rows whose entry this build cannot read.
pub const KIND_UNREADABLE: &str = "record.unreadable";
/// Kind of the alarm for a chain that breaks.
pub const KIND_BROKEN: &str = "chain.broken";
/// Kind of the alarm for a node that came back with another spool.
pub const KIND_FOREIGN: &str = "chain.restarted";

/// End of the stored chain of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredHead {
    /// Counts the spools that this node came with, from 1.
    pub epoch: u64,
    /// Flawed records so far.
    pub breaks: u64,
    pub head: Head,
}

impl StoredHead {
    /// Of a node that never sent a record.
    pub const START: Self = Self { epoch: 1, breaks: 0, head: Head::START };
}

/// What became of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Every record up to this number is stored.
    pub seq: u64,
    pub events: u64,
    pub cdrs: u64,
    pub repeats: u64,
    pub flaws: u64,
    /// Emergency notifications that were queued.
    pub notifications: u64,
}

/// The stored end of `node`'s chain.
///
/// # Errors
/// What the database says.
pub async fn head(
    connection: &mut AnyConnection,
    node: &str,
) -> Result<Option<StoredHead>, StoreError> {
    sqlx::query("SELECT epoch, seq, hash, breaks FROM chain_heads WHERE node = $1")
        .bind(node.to_owned())
        .fetch_optional(connection)
        .await?
        .map(|row| {
            Ok(StoredHead {
                epoch: unsigned(row.try_get(0)?)?,
                breaks: unsigned(row.try_get(3)?)?,
                head: Head {
                    seq: unsigned(row.try_get(1)?)?,
                    hash: read_hash(row.try_get::<String, _>(2)?.as_str())?,
                },
            })
        })
        .transpose()
}

/// Moves the stored end of `node`'s chain.
///
/// # Errors
/// What the database says.
pub async fn set_head(
    connection: &mut AnyConnection,
    node: &str,
    head: &StoredHead,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO chain_heads (node, epoch, seq, hash, breaks) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (node) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq,
             hash = excluded.hash, breaks = excluded.breaks",
    )
    .bind(node.to_owned())
    .bind(sql(head.epoch))
    .bind(sql(head.head.seq))
    .bind(write_hash(&head.head.hash))
    .bind(sql(head.breaks))
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores one batch of one node in `tx`. Call [`WriteTx::commit`] before answering the node.
///
/// # Errors
/// What the database says; then nothing of the batch may be taken as stored.
pub async fn ingest(
    tx: &mut WriteTx,
    node: &str,
    records: &[Record],
    notify: &notify::Policy,
) -> Result<Stored, StoreError> {
    let mut at = head(tx.connection(), node).await?.unwrap_or(StoredHead::START);
    let mut done =
        Stored { seq: at.head.seq, events: 0, cdrs: 0, repeats: 0, flaws: 0, notifications: 0 };
    let mut first_flaw: Option<(u64, String)> = None;
    for record in records {
        let flaw = match place(tx.connection(), node, &mut at, record).await? {
            Place::Repeat => {
                done.repeats += 1;
                continue;
            }
            Place::Next => None,
            Place::Flawed(flaw) => Some(flaw),
            Place::Foreign => {
                foreign_alarm(tx, node, at.epoch, record.seq).await?;
                None
            }
        };
        if let Some(flaw) = &flaw {
            at.breaks += 1;
            done.flaws += 1;
            first_flaw.get_or_insert_with(|| (record.seq, flaw.clone()));
        }
        insert(tx, node, at.epoch, record, flaw, notify, &mut done).await?;
    }
    done.seq = at.head.seq;
    set_head(tx.connection(), node, &at).await?;
    if let Some((seq, flaw)) = first_flaw {
        let alarm = event(KIND_BROKEN, Severity::Alarm, "system", 0)
            .with("node", node)
            .with("epoch", at.epoch)
            .with("seq", seq)
            .with("flawed_records", done.flaws)
            .with("reason", flaw);
        tx.audit(alarm).await?;
    }
    Ok(done)
}

enum Place {
    /// Follows the head; the head has moved.
    Next,
    /// Already stored.
    Repeat,
    /// Kept, and the chain is broken here for this reason.
    Flawed(String),
    /// First record of another spool; a new epoch has begun.
    Foreign,
}

async fn place(
    connection: &mut AnyConnection,
    node: &str,
    at: &mut StoredHead,
    record: &Record,
) -> Result<Place, StoreError> {
    if record.seq <= at.head.seq {
        match stored_hash(connection, node, at.epoch, record.seq).await? {
            Some(hash) if hash == record.hash => return Ok(Place::Repeat),
            // A number that was missed before: kept, the head stays.
            None if record.seq > 0 => return Ok(Place::Flawed("came late".to_owned())),
            _ => {
                at.epoch += 1;
                at.head = Head::START;
                return Ok(match at.head.accept(record) {
                    Ok(()) => Place::Foreign,
                    Err(error) => force(at, record, &error),
                });
            }
        }
    }
    Ok(match at.head.accept(record) {
        Ok(()) => Place::Next,
        Err(error) => force(at, record, &error),
    })
}

/// Goes on behind a record that does not fit, so that the sound ones after it can be told apart.
fn force(at: &mut StoredHead, record: &Record, error: &ChainError) -> Place {
    at.head = Head { seq: record.seq, hash: hash_from_hex(&record.hash).unwrap_or([0; 32]) };
    Place::Flawed(error.to_string())
}

async fn stored_hash(
    connection: &mut AnyConnection,
    node: &str,
    epoch: u64,
    seq: u64,
) -> Result<Option<String>, StoreError> {
    let row = sqlx::query(
        "SELECT line FROM audit_events WHERE node = $1 AND epoch = $2 AND seq = $3
         UNION ALL SELECT line FROM cdrs WHERE node = $1 AND epoch = $2 AND seq = $3",
    )
    .bind(node.to_owned())
    .bind(sql(epoch))
    .bind(sql(seq))
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        let line: String = row.try_get(0)?;
        Ok(serde_json::from_str::<Record>(&line)?.hash)
    })
    .transpose()
}

async fn foreign_alarm(
    tx: &mut WriteTx,
    node: &str,
    epoch: u64,
    seq: u64,
) -> Result<(), StoreError> {
    let alarm = event(KIND_FOREIGN, Severity::Alarm, "system", 0)
        .with("node", node)
        .with("epoch", epoch)
        .with("seq", seq)
        .with("reason", "the node came with another spool; its records start a new chain");
    tx.audit(alarm).await
}

async fn insert(
    tx: &mut WriteTx,
    node: &str,
    epoch: u64,
    record: &Record,
    flaw: Option<String>,
    notify: &notify::Policy,
    done: &mut Stored,
) -> Result<(), StoreError> {
    let connection = tx.connection();
    match serde_json::from_str::<Entry>(record.entry.get()) {
        Ok(Entry::Cdr(cdr)) => {
            insert_cdr(connection, node, epoch, record, &cdr, flaw).await?;
            done.cdrs += 1;
        }
        Ok(Entry::Audit(audit)) => {
            insert_event(connection, node, epoch, record, &audit, flaw).await?;
            if node != OWN_NODE {
                done.notifications +=
                    u64::from(notify::queue::queue_event(tx, node, &audit, notify).await?);
            }
            done.events += 1;
        }
        Ok(Entry::Gap { lost, reason, unix_ms }) => {
            let mut gap = event(KIND_GAP, Severity::Alarm, "system", 0)
                .with("lost", lost)
                .with("reason", reason);
            gap.unix_ms = unix_ms;
            insert_event(connection, node, epoch, record, &gap, flaw).await?;
            done.events += 1;
        }
        Err(error) => {
            let unreadable = event(KIND_UNREADABLE, Severity::Error, "system", 0);
            let flaw = flaw.unwrap_or_else(|| format!("cannot be read: {error}"));
            insert_event(connection, node, epoch, record, &unreadable, Some(flaw)).await?;
            done.events += 1;
        }
    }
    Ok(())
}

/// Stores one audit event with its line.
///
/// # Errors
/// What the database says.
pub async fn insert_event(
    connection: &mut AnyConnection,
    node: &str,
    epoch: u64,
    record: &Record,
    event: &AuditEvent,
    flaw: Option<String>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit_events
             (node, epoch, seq, at_ms, kind, severity, call_id, actor, snapshot, flaw, line)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(node.to_owned())
    .bind(sql(epoch))
    .bind(sql(record.seq))
    .bind(sql(event.unix_ms))
    .bind(column(&event.kind))
    .bind(severity_name(event.severity).to_owned())
    .bind(event.call.as_deref().map(column))
    .bind(event.actor.as_deref().map(column))
    .bind(sql(event.snapshot))
    .bind(flaw)
    .bind(serde_json::to_string(record)?)
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_cdr(
    connection: &mut AnyConnection,
    node: &str,
    epoch: u64,
    record: &Record,
    cdr: &Cdr,
    flaw: Option<String>,
) -> Result<(), StoreError> {
    let kind = match cdr.kind {
        CdrKind::Attempt => "attempt",
        CdrKind::Call => "call",
    };
    sqlx::query(
        "INSERT INTO cdrs (node, epoch, seq, start_ms, kind, call_id, attempt, inbound_trunk,
             outbound_trunk, status, emergency, site, flaw, line)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(node.to_owned())
    .bind(sql(epoch))
    .bind(sql(record.seq))
    .bind(sql(cdr.start_unix_ms))
    .bind(kind.to_owned())
    .bind(column(&cdr.call))
    .bind(i64::from(cdr.attempt))
    .bind(cdr.inbound_trunk.as_deref().map(column))
    .bind(cdr.outbound_trunk.as_deref().map(column))
    .bind(i64::from(cdr.status))
    .bind(i64::from(cdr.emergency))
    .bind(cdr.site.as_deref().map(column))
    .bind(flaw)
    .bind(serde_json::to_string(record)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// Name of a severity as it is stored and searched.
#[must_use]
pub fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
        Severity::Alarm => "alarm",
        Severity::Critical => "critical",
    }
}

/// A text as a searched column holds it: bounded, and without NUL, which PostgreSQL refuses (one
/// dialled octet must not keep a batch out of the store).
fn column(text: &str) -> String {
    let mut end = text.len().min(COLUMN_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace('\0', "\u{fffd}")
}

/// The stored end of every node's chain, by name.
///
/// # Errors
/// What the database says.
pub async fn heads(
    connection: &mut AnyConnection,
) -> Result<Vec<(String, StoredHead)>, StoreError> {
    sqlx::query("SELECT node, epoch, seq, hash, breaks FROM chain_heads ORDER BY node")
        .fetch_all(connection)
        .await?
        .into_iter()
        .map(|row| {
            Ok((
                row.try_get(0)?,
                StoredHead {
                    epoch: unsigned(row.try_get(1)?)?,
                    breaks: unsigned(row.try_get(4)?)?,
                    head: Head {
                        seq: unsigned(row.try_get(2)?)?,
                        hash: read_hash(row.try_get::<String, _>(3)?.as_str())?,
                    },
                },
            ))
        })
        .collect()
}
