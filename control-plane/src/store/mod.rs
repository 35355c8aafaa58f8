//! The store: SQLite inside the data directory, or PostgreSQL. One writer, many readers.
//!
//! Every change is one transaction that holds the change *and* the audit event that tells of it, so
//! that neither exists without the other. Readers cannot write (SQLite: `query_only`).

pub mod configs;
pub mod query;
pub mod records;
pub mod sites;
pub mod tokens;

use std::{
    borrow::Cow,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use ravelin_contract::{
    audit::{AuditEvent, Severity},
    chain::{Entry, Head, hash_from_hex, to_hex},
};
use sqlx::{
    Any, AnyConnection, AnyPool, Connection, Row, SqlSafeStr, Transaction,
    any::{AnyConnectOptions, AnyPoolOptions},
    migrate::{Migration, MigrationType, Migrator},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    clock,
    datadir::DataDir,
    error::{ControlError, StoreError},
    log,
};

/// Readers beside the one writer.
const READERS_MAX: u32 = 4;
/// How long a piece of work waits for a connection before it fails with an error.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the database may be held by a control plane that is going.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const LOCK_INTERVAL: Duration = Duration::from_millis(100);
/// PostgreSQL advisory lock that says "a control plane uses this database" ("RVLN").
const ADVISORY_LOCK: i64 = 0x5256_4c4e;
/// The control plane's own chain of admin events stands in the same tables under this name.
pub const OWN_NODE: &str = "control";

/// Which database stands behind the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

/// The store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    readers: AnyPool,
    writer: AnyPool,
    turn: Arc<Mutex<()>>,
    backend: Backend,
}

impl Store {
    /// Opens the store that `setting` names (`sqlite:PATH`, relative to the data directory, or
    /// `postgres://...`) and brings its tables up to date.
    ///
    /// # Errors
    /// [`ControlError::Setting`] for an unknown kind of store, [`ControlError::AlreadyRunning`] when
    /// another control plane holds the database, else what the database says.
    pub async fn open(setting: &str, data: &DataDir) -> Result<Self, ControlError> {
        sqlx::any::install_default_drivers();
        let (url, backend) = store_url(setting, data)?;
        let options = AnyConnectOptions::from_str(&url).map_err(|error| ControlError::Setting {
            path: "control.store",
            reason: error.to_string(),
        })?;
        let pool = |most: u32| {
            AnyPoolOptions::new()
                .max_connections(most)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        if backend == Backend::Postgres {
            free(&options, setting).await?;
        }
        let writer = pool(1)
            .after_connect(move |connection, _| Box::pin(prepare(connection, backend, true)))
            .connect_with(options.clone())
            .await
            .map_err(StoreError::from)?;
        migrator().run(&writer).await.map_err(StoreError::from)?;
        let readers = pool(READERS_MAX)
            .after_connect(move |connection, _| Box::pin(prepare(connection, backend, false)))
            .connect_with(options)
            .await
            .map_err(StoreError::from)?;
        Ok(Self { readers, writer, turn: Arc::default(), backend })
    }

    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Connections for reading.
    #[must_use]
    pub fn reader(&self) -> &AnyPool {
        &self.readers
    }

    /// Waits for its turn and begins a change.
    ///
    /// # Errors
    /// What the database says.
    pub async fn write(&self) -> Result<WriteTx, StoreError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let tx = self.writer.begin().await?;
        Ok(WriteTx { tx, _turn: turn })
    }

    /// Writes a copy of the whole store, as of one instant, to `file`, which must not exist. SQLite
    /// only: PostgreSQL has tools of its own.
    ///
    /// # Errors
    /// What the database says.
    pub async fn backup(&self, file: &std::path::Path) -> Result<(), StoreError> {
        let name = file
            .to_str()
            .ok_or_else(|| StoreError::Corrupt("the path of a backup is not UTF-8".to_owned()))?;
        // A connection of its own, which the pool replaces: the copy reads one instant while the
        // writer goes on, and a reader may not write anywhere.
        let mut connection = self.readers.acquire().await?.detach();
        sqlx::raw_sql("PRAGMA query_only = OFF;").execute(&mut connection).await?;
        sqlx::query("VACUUM INTO $1").bind(name.to_owned()).execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }

    /// Closes every connection; SQLite folds its log into the database file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A change that has begun. Dropped without [`WriteTx::commit`] it never happened.
#[derive(Debug)]
pub struct WriteTx {
    tx: Transaction<'static, Any>,
    _turn: OwnedMutexGuard<()>,
}

impl WriteTx {
    pub fn connection(&mut self) -> &mut AnyConnection {
        &mut self.tx
    }

    /// Adds `event` to the control plane's own chain, in this transaction.
    ///
    /// # Errors
    /// What the database says; the change must then be given up.
    pub async fn audit(&mut self, event: AuditEvent) -> Result<(), StoreError> {
        log::audit(&event);
        let head = records::head(&mut self.tx, OWN_NODE).await?;
        let (epoch, breaks, mut head) =
            head.map_or((1, 0, Head::START), |head| (head.epoch, head.breaks, head.head));
        let record = head.seal(&Entry::Audit(event.clone()))?;
        records::insert_event(&mut self.tx, OWN_NODE, epoch, &record, &event, None).await?;
        let head = records::StoredHead { epoch, breaks, head };
        records::set_head(&mut self.tx, OWN_NODE, &head).await
    }

    /// Makes the change durable.
    ///
    /// # Errors
    /// What the database says; then nothing was changed.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.tx.commit().await?)
    }
}

/// An admin event with its usual parts; add `fields` with [`EventExt::with`].
#[must_use]
pub fn event(kind: &str, severity: Severity, actor: &str, snapshot: u64) -> AuditEvent {
    AuditEvent {
        kind: kind.to_owned(),
        severity,
        unix_ms: clock::unix_ms(),
        mono_ns: clock::mono_ns(),
        shard: None,
        call: None,
        actor: Some(actor.to_owned()),
        snapshot,
        fields: std::collections::BTreeMap::new(),
    }
}

/// Builder step for [`AuditEvent`].
pub trait EventExt {
    #[must_use]
    fn with(self, name: &str, value: impl Into<serde_json::Value>) -> Self;
}

impl EventExt for AuditEvent {
    fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }
}

/// SQL integers are signed; numbers here never come near the edge, and are pinned to it if they do.
#[must_use]
pub fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The reverse of [`sql`].
///
/// # Errors
/// A negative number where none can be.
pub fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Corrupt(format!("negative number {number}")))
}

fn store_url(setting: &str, data: &DataDir) -> Result<(String, Backend), ControlError> {
    let refuse = |reason: String| ControlError::Setting { path: "control.store", reason };
    let resolved = if let Some(name) = setting.strip_prefix("env:") {
        Cow::Owned(std::env::var(name).map_err(|error| refuse(format!("{name}: {error}")))?)
    } else if let Some(path) = setting.strip_prefix("file:") {
        let text = std::fs::read_to_string(data.root().join(path))
            .map_err(|error| refuse(format!("{path}: {error}")))?;
        Cow::Owned(text.trim().to_owned())
    } else {
        Cow::Borrowed(setting)
    };
    if resolved.starts_with("postgres://") || resolved.starts_with("postgresql://") {
        return Ok((resolved.into_owned(), Backend::Postgres));
    }
    let Some(path) = resolved.strip_prefix("sqlite:") else {
        return Err(refuse("must be sqlite:PATH or postgres://...".to_owned()));
    };
    let path = data.root().join(path.trim_start_matches("//"));
    let Some(path) = path.to_str() else {
        return Err(refuse("the path is not UTF-8".to_owned()));
    };
    // The driver reads a URL: octets with a meaning there are escaped.
    let mut escaped = String::with_capacity(path.len());
    for octet in path.bytes() {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                escaped.push(char::from(octet));
            }
            _ => escaped.push_str(&format!("%{octet:02X}")),
        }
    }
    Ok((format!("sqlite:{escaped}?mode=rwc"), Backend::Sqlite))
}

async fn prepare(
    connection: &mut AnyConnection,
    backend: Backend,
    writer: bool,
) -> Result<(), sqlx::Error> {
    match (backend, writer) {
        (Backend::Sqlite, true) => {
            sqlx::raw_sql("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
                .execute(connection)
                .await?;
        }
        (Backend::Sqlite, false) => {
            sqlx::raw_sql("PRAGMA query_only = ON;").execute(connection).await?;
        }
        (Backend::Postgres, true) => {
            let row = sqlx::query("SELECT pg_try_advisory_lock($1)")
                .bind(ADVISORY_LOCK)
                .fetch_one(&mut *connection)
                .await?;
            if !row.try_get::<bool, _>(0)? {
                return Err(sqlx::Error::Configuration(LOCKED.into()));
            }
            sqlx::raw_sql("SET synchronous_commit = on").execute(connection).await?;
        }
        (Backend::Postgres, false) => {
            sqlx::raw_sql("SET default_transaction_read_only = on").execute(connection).await?;
        }
    }
    Ok(())
}

const LOCKED: &str = "another control plane uses this database";

/// Says at once if another control plane holds the database; the pool itself, which takes the lock
/// with each new connection, would only try until it gives up.
///
/// A control plane that has just ended holds it until the server has noticed: that is waited for.
async fn free(options: &AnyConnectOptions, setting: &str) -> Result<(), ControlError> {
    let end = Instant::now() + LOCK_TIMEOUT;
    loop {
        match try_free(options, setting).await {
            Err(ControlError::AlreadyRunning { .. }) if Instant::now() < end => {
                tokio::time::sleep(LOCK_INTERVAL).await;
            }
            result => return result,
        }
    }
}

async fn try_free(options: &AnyConnectOptions, setting: &str) -> Result<(), ControlError> {
    let mut connection = AnyConnection::connect_with(options).await.map_err(StoreError::from)?;
    let prepared = prepare(&mut connection, Backend::Postgres, true).await;
    // Ending the connection frees the lock.
    connection.close().await.map_err(StoreError::from)?;
    prepared.map_err(|error| match error {
        sqlx::Error::Configuration(inner) if inner.to_string() == LOCKED => {
            ControlError::AlreadyRunning { what: without_password(setting) }
        }
        other => StoreError::from(other).into(),
    })
}

/// A store URL that may be shown.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(host)) if scheme < host => {
            format!("{}{}", &url[..scheme + 3], &url[host + 1..])
        }
        _ => url.to_owned(),
    }
}

/// The migrations, compiled in. A migration that was released is never edited: its checksum is kept
/// in the database and compared at each start.
fn migrator() -> Migrator {
    let step = |version, name: &'static str, sql: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        step(1, "initial", include_str!("../../migrations/0001_initial.sql")),
        step(2, "soc2", include_str!("../../migrations/0002_soc2.sql")),
        step(3, "delivery", include_str!("../../migrations/0003_delivery.sql")),
        step(4, "evidence", include_str!("../../migrations/0004_evidence.sql")),
    ])
}

/// Reads a head's hash.
pub(crate) fn read_hash(text: &str) -> Result<[u8; 32], StoreError> {
    hash_from_hex(text).ok_or_else(|| StoreError::Corrupt("hash of a chain head".to_owned()))
}

/// Writes a head's hash.
pub(crate) fn write_hash(hash: &[u8; 32]) -> String {
    to_hex(hash)
}
