//! Tests of controls that need the inside: the store is copied, restored and tampered with, never
//! the original (compliance-systems C3). Each test can fail, and says what it saw.

use std::path::{Path, PathBuf};

use ravelin_contract::config::SecretSource;
use ravelin_policy::Document;
use serde::Serialize;
use sqlx::Row;

use crate::{
    collect::registry::Registry,
    datadir::DataDir,
    error::{ControlError, StoreError},
    ident, notify,
    publish::{self, Active, redacted},
    store::{
        Backend, Store, query,
        tokens::{self, Role},
        unsigned,
    },
};

/// Prefix of the folders under `run/` in which drills work.
const FOLDER: &str = "drill-";
/// What must stay free on the disk beside two copies of the store.
const ROOM_MIN_BYTES: u64 = 64 * 1024 * 1024;
/// A node that told no figures for this long is not monitored.
const METRICS_AGE_MAX_MS: u64 = 60_000;
/// Tables whose rows must all come back from a backup.
const TABLES: [&str; 11] = [
    "config_versions",
    "config_activations",
    "tokens",
    "audit_events",
    "cdrs",
    "multi_site_e911_configs",
    "emergency_notifications",
    "soc2_controls",
    "soc2_control_tests",
    "soc2_control_changes",
    "soc2_evidence",
];

const RESTORE: &str = "a backup of the store comes back whole";
const TAMPER: &str = "a changed and a removed record are found, on a copy";
const DISPOSE: &str = "what is revoked or deleted is of no use, and nothing is left";

/// How one test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DrillOutcome {
    Passed,
    Failed,
    /// Could not be run here; `details` says why.
    Skipped,
}

/// One test.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct DrillTest {
    pub control_id: &'static str,
    pub name: &'static str,
    pub outcome: DrillOutcome,
    pub details: String,
}

impl DrillTest {
    fn of(control_id: &'static str, name: &'static str, result: Result<String, String>) -> Self {
        let (outcome, details) = match result {
            Ok(details) => (DrillOutcome::Passed, details),
            Err(details) => (DrillOutcome::Failed, details),
        };
        Self { control_id, name, outcome, details }
    }

    fn skipped(control_id: &'static str, name: &'static str, why: &str) -> Self {
        Self { control_id, name, outcome: DrillOutcome::Skipped, details: why.to_owned() }
    }
}

/// What a drill looks at.
#[derive(Debug)]
pub struct Drill<'a> {
    pub store: &'a Store,
    /// The data directory.
    pub data: &'a Path,
    pub active: Option<&'a Active>,
    pub registry: &'a Registry,
    /// The API is served over TLS.
    pub https: bool,
    pub now_ms: u64,
}

impl Drill<'_> {
    /// Runs every test. One that cannot run fails, it does not end the others.
    pub async fn run(&self) -> Vec<DrillTest> {
        let mut tests = vec![
            DrillTest::of(
                "CC5.1",
                "every change is attributed and audited",
                self.attributed().await,
            ),
            DrillTest::of(
                "CC6.6",
                "secrets are private, the API is not open",
                self.private().await,
            ),
            DrillTest::of("CC7.2", "somebody is told of an emergency", self.response().await),
            DrillTest::of("A1.1", "every node is watched", self.watched()),
            DrillTest::of("PI1.2", "every stored chain of records is whole", self.whole().await),
            DrillTest::of("C1.1", "what is secret is known and not shown", self.classified()),
        ];
        if self.store.backend() != Backend::Sqlite {
            let why = "the store is PostgreSQL: its backup is the database's, test it there";
            tests.push(DrillTest::skipped("A1.2", RESTORE, why));
            tests.push(DrillTest::skipped("CC7.1", TAMPER, why));
            tests.push(DrillTest::skipped("C1.2", DISPOSE, why));
            return tests;
        }
        if let Some(why) = no_room(self.data) {
            tests.push(DrillTest::skipped("A1.2", RESTORE, &why));
            tests.push(DrillTest::skipped("CC7.1", TAMPER, &why));
            tests.push(DrillTest::skipped("C1.2", DISPOSE, &why));
            return tests;
        }
        let folder = self.data.join("run").join(format!("{FOLDER}{}", ident::uuid_v7()));
        let restored = self.restore(&folder).await;
        let (tampered, disposed) = match &restored {
            Ok((copy, _)) => (tamper(copy).await, dispose(copy).await),
            Err(reason) => (Err(format!("no copy: {reason}")), Err(format!("no copy: {reason}"))),
        };
        if let Ok((copy, _)) = &restored {
            copy.close().await;
        }
        let removed = std::fs::remove_dir_all(&folder);
        tests.push(DrillTest::of("A1.2", RESTORE, restored.map(|(_, details)| details)));
        tests.push(DrillTest::of("CC7.1", TAMPER, tampered));
        let disposed = disposed.and_then(|details| {
            removed.map_err(|error| format!("the copy could not be removed: {error}"))?;
            let left = leftovers(self.data)?;
            if left == 0 { Ok(details) } else { Err(format!("{left} old copies lie in run/")) }
        });
        tests.push(DrillTest::of("C1.2", DISPOSE, disposed));
        tests
    }

    /// Copies the store as a backup would, opens the copy as a start would, and compares.
    async fn restore(&self, folder: &Path) -> Result<(Store, String), String> {
        let before = self.rows(self.store).await?;
        let data = DataDir::open(folder).map_err(|error| control(&error))?;
        let file = folder.join("ravelin.db");
        self.store.backup(&file).await.map_err(|error| said(&error))?;
        let copy =
            Store::open("sqlite:ravelin.db", &data).await.map_err(|error| control(&error))?;
        let after = self.rows(self.store).await?;
        let found = self.rows(&copy).await?;
        for (((table, found), before), after) in TABLES.iter().zip(&found).zip(&before).zip(&after)
        {
            if found < before || found > after {
                return Err(format!("{table}: {found} rows in the copy, {before} before it"));
            }
        }
        let mut reader = copy.reader().acquire().await.map_err(|error| error.to_string())?;
        let chains = query::verify(&mut reader, None).await.map_err(|error| said(&error))?;
        if let Some(broken) = chains.iter().find(|chain| !chain.intact) {
            return Err(format!("the chain of {} is broken in the copy", broken.node));
        }
        drop(reader);
        let records: u64 = chains.iter().map(|chain| chain.records).sum();
        let bytes = std::fs::metadata(&file).map_err(|error| error.to_string())?.len();
        let rows: u64 = found.iter().sum();
        Ok((
            copy,
            format!(
                "{bytes} octets, {rows} rows, {} chains of {records} records whole",
                chains.len()
            ),
        ))
    }

    async fn rows(&self, store: &Store) -> Result<Vec<u64>, String> {
        let mut reader = store.reader().acquire().await.map_err(|error| error.to_string())?;
        let mut counts = Vec::with_capacity(TABLES.len());
        for table in TABLES {
            let text = format!("SELECT COUNT(*) FROM {table}");
            let row = sqlx::query(sqlx::AssertSqlSafe(text))
                .fetch_one(&mut *reader)
                .await
                .map_err(|error| error.to_string())?;
            let count: i64 = row.try_get(0).map_err(|error| error.to_string())?;
            counts.push(unsigned(count).map_err(|error| said(&error))?);
        }
        Ok(counts)
    }

    /// Each activation and each change of a control has an actor, and an event in the chain.
    async fn attributed(&self) -> Result<String, String> {
        let mut reader = self.store.reader().acquire().await.map_err(|error| error.to_string())?;
        let mut counts = [0_u64; 4];
        for (count, text) in counts.iter_mut().zip([
            "SELECT COUNT(*) FROM config_activations WHERE actor <> ''",
            "SELECT COUNT(*) FROM audit_events WHERE node = 'control' AND actor IS NOT NULL AND kind
                 IN ('config.imported', 'config.activated', 'config.rolled_back')",
            "SELECT COUNT(*) FROM soc2_control_changes WHERE actor <> ''",
            "SELECT COUNT(*) FROM audit_events WHERE node = 'control' AND actor IS NOT NULL AND kind
                 IN ('soc2.control.registered', 'soc2.control.updated')",
        ]) {
            let row = sqlx::query(text).fetch_one(&mut *reader).await.map_err(|e| e.to_string())?;
            let found: i64 = row.try_get(0).map_err(|error| error.to_string())?;
            *count = unsigned(found).map_err(|error| said(&error))?;
        }
        let [activations, told, changes, recorded] = counts;
        if activations != told || changes != recorded {
            return Err(format!(
                "{activations} activations and {told} events of them, {changes} changes of \
                 controls and {recorded} events of them"
            ));
        }
        Ok(format!("{activations} activations and {changes} changes of controls, each audited"))
    }

    /// Files with secrets are the owner's, tokens are stored as digests, and what is not loopback
    /// is encrypted.
    async fn private(&self) -> Result<String, String> {
        use std::os::unix::fs::PermissionsExt;
        let mut files = vec![self.data.join("admin.token"), self.data.join("run/link.sock")];
        for entry in std::fs::read_dir(self.data.join("certs")).map_err(|e| e.to_string())? {
            let path = entry.map_err(|error| error.to_string())?.path();
            if path.extension().is_some_and(|kind| kind == "key") {
                files.push(path);
            }
        }
        let mut looked = 0;
        for path in &files {
            let mode = match std::fs::metadata(path) {
                Ok(found) => found.permissions().mode() & 0o777,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(format!("{}: {error}", path.display())),
            };
            looked += 1;
            // The socket stands in a folder that only the owner may enter.
            let is_socket = path.extension().is_some_and(|kind| kind == "sock");
            if mode & 0o077 != 0 && !is_socket {
                return Err(format!("{} has mode {mode:o}, it must be 600", path.display()));
            }
        }
        let run = std::fs::metadata(self.data.join("run")).map_err(|error| error.to_string())?;
        if run.permissions().mode() & 0o077 != 0 {
            return Err("run/ can be entered by others".to_owned());
        }
        let mut reader = self.store.reader().acquire().await.map_err(|error| error.to_string())?;
        let row = sqlx::query("SELECT COUNT(*) FROM tokens WHERE LENGTH(hash) <> 64")
            .fetch_one(&mut *reader)
            .await
            .map_err(|error| error.to_string())?;
        if row.try_get::<i64, _>(0).map_err(|error| error.to_string())? != 0 {
            return Err("a token is stored that is no digest".to_owned());
        }
        let control = self.active.and_then(|active| active.snapshot.control.as_ref());
        let listen = control.map_or("127.0.0.1:8080", |control| control.listen.as_str());
        let local =
            listen.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
        if !self.https && !local {
            return Err(format!("the API listens on {listen} without TLS"));
        }
        let how = if self.https { "over TLS" } else { "on loopback only" };
        Ok(format!("{looked} files are the owner's, tokens are digests, the API is {how}"))
    }

    async fn response(&self) -> Result<String, String> {
        let mut reader = self.store.reader().acquire().await.map_err(|error| error.to_string())?;
        let mut contacts = notify::contacts(&mut reader).await.map_err(|error| said(&error))?;
        contacts
            .extend(self.active.iter().flat_map(|active| active.notify.contacts.iter().cloned()));
        let reachable = contacts
            .iter()
            .filter(|contact| {
                let mut methods = contact.notification_methods.iter();
                methods.any(|method| contact.address(*method).is_some())
            })
            .count();
        if reachable == 0 {
            return Err("no contact can be told of an emergency call".to_owned());
        }
        Ok(format!("{reachable} contacts can be told of an emergency call"))
    }

    fn watched(&self) -> Result<String, String> {
        let nodes = self.registry.all();
        if nodes.is_empty() {
            return Err("no node ever connected".to_owned());
        }
        for node in &nodes {
            if !node.is_connected() {
                return Err(format!("{} is not connected", node.name));
            }
            let report = node.metrics().ok_or_else(|| format!("{} told no figures", node.name))?;
            let age = self.now_ms.saturating_sub(report.unix_ms);
            if age > METRICS_AGE_MAX_MS {
                return Err(format!("the last figures of {} are {age} ms old", node.name));
            }
        }
        Ok(format!("{} nodes are connected and tell their figures", nodes.len()))
    }

    async fn whole(&self) -> Result<String, String> {
        let mut reader = self.store.reader().acquire().await.map_err(|error| error.to_string())?;
        let chains = query::verify(&mut reader, None).await.map_err(|error| said(&error))?;
        for chain in &chains {
            if let Some(first) = chain.breaks.first() {
                return Err(format!(
                    "{} breaks at record {}: {}",
                    chain.node, first.seq, first.reason
                ));
            }
        }
        let records: u64 = chains.iter().map(|chain| chain.records).sum();
        if records == 0 {
            return Err("nothing is recorded".to_owned());
        }
        Ok(format!("{} chains, {records} records, each follows from the one before", chains.len()))
    }

    /// Known secrets in a document of our own, and the literal ones of the config in force.
    fn classified(&self) -> Result<String, String> {
        let canary = ident::uuid_v7();
        let text = format!(
            "node: drill\nedge: {{}}\nfeatures:\n  emergency_notification:\n    smtp_url: \
             \"smtps://u:{canary}@mail.example\"\n    webhook_url: \"https://x.example/{canary}\"\n    \
             webhook_secret: \"{canary}\"\n\
             emergency:\n  sms:\n    twilio: {{ account_sid: a, auth_token: \"{canary}\", \
             from_number: \"+15551230000\" }}\ncontrol:\n  listen: 127.0.0.1:1\n  store: \
             \"postgres://u:{canary}@db.example/x\"\n"
        );
        let shown = redacted(&text).ok_or("the document of the drill does not read")?;
        if shown.contains(&canary) {
            return Err("a secret of a document is shown to viewers".to_owned());
        }
        let mut known = 5;
        if let Some(active) = self.active {
            let shown = redacted(&active.document).ok_or("the config in force does not read")?;
            let mut document =
                Document::from_yaml(&active.document).map_err(|_| "does not read")?;
            let secrets: Vec<String> = publish::secrets(&mut document)
                .into_iter()
                .filter(|secret| matches!(secret.source(), SecretSource::Literal(_)))
                .map(|secret| secret.0.clone())
                .collect();
            known += secrets.len();
            if secrets.iter().any(|secret| shown.contains(secret.as_str())) {
                return Err("a secret of the config in force is shown to viewers".to_owned());
            }
        }
        Ok(format!("{known} secrets were looked for in what viewers see, none was there"))
    }
}

/// Why the store cannot be copied: the edge's spool may lie on the same disk, and must not be
/// starved by a test.
fn no_room(data: &Path) -> Option<String> {
    let sizes = ["ravelin.db", "ravelin.db-wal"]
        .map(|name| std::fs::metadata(data.join(name)).map_or(0, |found| found.len()));
    let needed = sizes.iter().sum::<u64>().saturating_mul(2).saturating_add(ROOM_MIN_BYTES);
    let free = match rustix::fs::statvfs(data) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => return Some(format!("how much room is free is not known: {error}")),
    };
    (free < needed).then(|| format!("a copy may need {needed} octets, {free} are free"))
}

/// Changes one octet of a record of the copy, then takes one away; both must be found.
async fn tamper(copy: &Store) -> Result<String, String> {
    let mut tx = copy.write().await.map_err(|error| said(&error))?;
    let connection = tx.connection();
    let row = sqlx::query(
        "SELECT epoch, seq, line FROM audit_events WHERE node = 'control' ORDER BY seq LIMIT 1",
    )
    .fetch_optional(&mut *connection)
    .await
    .map_err(|error| error.to_string())?
    .ok_or("there is no record to change")?;
    let (epoch, seq): (i64, i64) = (
        row.try_get(0).map_err(|error| error.to_string())?,
        row.try_get(1).map_err(|error| error.to_string())?,
    );
    let line: String = row.try_get(2).map_err(|error| error.to_string())?;
    let changed = line.replacen("\"unix_ms\":", "\"unix_ms\":1", 1);
    if changed == line {
        return Err("the record could not be changed".to_owned());
    }
    for (what, text) in [
        (
            "changed",
            "UPDATE audit_events SET line = $1 WHERE node = 'control' AND epoch = $2 AND seq = $3",
        ),
        (
            "removed",
            "DELETE FROM audit_events WHERE $1 <> '' AND node = 'control' AND epoch = $2 AND seq = $3",
        ),
    ] {
        sqlx::query(text)
            .bind(changed.clone())
            .bind(epoch)
            .bind(seq)
            .execute(&mut *connection)
            .await
            .map_err(|error| error.to_string())?;
        let chains =
            query::verify(&mut *connection, Some("control")).await.map_err(|error| said(&error))?;
        let found = chains.iter().flat_map(|chain| &chain.breaks).any(|one| {
            // A record that is gone shows at the one behind it, or at the end.
            i64::try_from(one.seq).is_ok_and(|at| at >= seq)
        });
        if !found {
            return Err(format!("record {seq} was {what} in the copy, and it was not found"));
        }
    }
    Ok(format!("record {seq} was changed, then removed, in a copy; both were found"))
}

/// A token that is revoked or past its time opens nothing, in the copy.
async fn dispose(copy: &Store) -> Result<String, String> {
    let mut tx = copy.write().await.map_err(|error| said(&error))?;
    let connection = tx.connection();
    let (token, secret) = tokens::create(connection, "drill", Role::Viewer, "drill", None)
        .await
        .map_err(|error| said(&error))?;
    let (_, expired) = tokens::create(connection, "drill", Role::Viewer, "drill", Some(1))
        .await
        .map_err(|error| said(&error))?;
    let usable = tokens::authenticate(connection, &secret).await.map_err(|error| said(&error))?;
    if usable.is_none() {
        return Err("a fresh token opens nothing".to_owned());
    }
    tokens::revoke(connection, &token.id).await.map_err(|error| said(&error))?;
    for (what, secret) in [("revoked", &secret), ("expired", &expired)] {
        let found = tokens::authenticate(connection, secret).await.map_err(|error| said(&error))?;
        if found.is_some() {
            return Err(format!("a token that is {what} still opens"));
        }
    }
    Ok("a revoked and an expired token open nothing; the copy of the drill is gone".to_owned())
}

/// Copies that an interrupted drill left behind. They are removed, and told.
fn leftovers(data: &Path) -> Result<usize, String> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(data.join("run")).map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        if entry.file_name().to_string_lossy().starts_with(FOLDER) {
            found.push(entry.path());
        }
    }
    for path in &found {
        std::fs::remove_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(found.len())
}

fn said(error: &StoreError) -> String {
    error.to_string()
}

fn control(error: &ControlError) -> String {
    error.to_string()
}
