//! The audit package: control inventory, implementation evidence, test results, change logs, the
//! report and the check of the audit chains, in one archive. The same state gives the same octets:
//! nothing in it tells when or by whom it was made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{AnyConnection, Row};

use super::{
    evidence, scrub,
    seal::{self, Signer},
    tar,
};
use crate::{
    clock,
    error::StoreError,
    ident,
    publish::redacted,
    store::{query, sql, unsigned},
};

/// Audit events of one package; a longer period is refused.
pub const EVENTS_MAX: u64 = 200_000;
const FORMAT: &str = "ravelin-soc2-package/1";
const MANIFEST: &str = "manifest.json";
/// Digest of the manifest, in the form that `sha256sum -c` reads.
const SEAL: &str = "manifest.json.sha256";
/// Signature over the manifest, 64 octets, and the key that it was made with.
const SIGNATURE: &str = "manifest.json.sig";
const PUBLIC: &str = "evidence.pub";

/// Why a package was not made.
#[derive(Debug)]
pub enum PackageFault {
    /// More audit events than [`EVENTS_MAX`].
    TooManyEvents(u64),
    Archive(String),
    Store(StoreError),
}

impl From<StoreError> for PackageFault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<sqlx::Error> for PackageFault {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<serde_json::Error> for PackageFault {
    fn from(error: serde_json::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The period of a package: from the first instant of one day to the last of another, UTC.
#[derive(Clone, Debug)]
pub struct Period {
    from: String,
    to: String,
    from_ms: u64,
    to_ms: u64,
}

impl Period {
    /// Both days, `YYYY-MM-DD`, are part of the period.
    ///
    /// # Errors
    /// The name of the field that is wrong, and what it must be.
    pub fn days(from: &str, to: &str) -> Result<Self, (&'static str, &'static str)> {
        let day = |text: &str| {
            let dashes = text.len() == 10 && text.as_bytes()[4] == b'-';
            clock::parse_ms(text).filter(|_| dashes)
        };
        let from_ms = day(from).ok_or(("from", "must be a day, YYYY-MM-DD"))?;
        let to_ms = day(to).ok_or(("to", "must be a day, YYYY-MM-DD"))? + 86_400_000;
        if from_ms >= to_ms {
            return Err(("to", "lies before the first day"));
        }
        Ok(Self { from: from.to_owned(), to: to.to_owned(), from_ms, to_ms })
    }
}

/// `manifest.json`: the first file of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: String,
    /// Release that wrote it.
    pub software: String,
    /// First and last day of the period, UTC.
    pub from: String,
    pub to: String,
    pub controls: u64,
    pub tests: u64,
    pub evidence: u64,
    pub audit_events: u64,
    /// Every chain of records in the store was whole.
    pub chains_intact: bool,
    pub note: String,
    /// Every other file of the archive.
    pub files: Vec<FileEntry>,
}

/// One file of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    pub path: String,
    pub size: u64,
    pub sha256: String,
}

const NOTE: &str = "Evidence as Ravelin recorded it, with secrets taken out. Whether it suffices \
    is the auditor's to say; this package claims no compliance.";

/// Makes the package. `connection` should be in a transaction, so that all parts are of one state.
///
/// # Errors
/// See [`PackageFault`].
pub async fn build(
    connection: &mut AnyConnection,
    period: &Period,
    signer: &Signer,
) -> Result<Vec<u8>, PackageFault> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let controls = super::controls(connection, None).await?;
    put(&mut files, "controls/inventory.json", &json!({ "controls": controls }))?;
    let (mut tests, mut pieces) = (0_u64, 0_u64);
    for control in &controls {
        let id = &control.control_id;
        let found = tests_of(connection, id, period).await?;
        let changes = changes_of(connection, id, period).await?;
        tests += count(&found);
        put(&mut files, &format!("tests/{id}.json"), &json!({ "control_id": id, "tests": found }))?;
        let log = json!({ "control_id": id, "changes": changes });
        put(&mut files, &format!("changes/controls/{id}.json"), &log)?;
        let known: Vec<u64> = found.iter().filter_map(|test| test["id"].as_u64()).collect();
        for piece in evidence::of_control(connection, id).await? {
            if known.contains(&piece.test_id) {
                pieces += 1;
                let kind = if piece.listed.media_type == "text/plain" { "txt" } else { "json" };
                let name = format!("evidence/{id}/{:08}.{kind}", piece.test_id);
                files.insert(name, scrub::text(&piece.content).into_bytes());
            }
        }
    }
    let report = super::report(connection, period.to_ms).await?;
    put(&mut files, "report/compliance.json", &report)?;
    put(&mut files, "report/audits.json", &audits(connection).await?)?;
    config(connection, period, &mut files).await?;
    let events = events(connection, period, &mut files).await?;
    let chains_intact = chains(connection, period, &mut files).await?;
    let listed = files
        .iter()
        .map(|(path, content)| FileEntry {
            path: path.clone(),
            size: count(content),
            sha256: ident::sha256_hex(content),
        })
        .collect();
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        from: period.from.clone(),
        to: period.to.clone(),
        controls: count(&controls),
        tests,
        evidence: pieces,
        audit_events: events,
        chains_intact,
        note: NOTE.to_owned(),
        files: listed,
    };
    let manifest = pretty(&manifest)?;
    let digest = digest_line(&manifest).into_bytes();
    let signature = signer.sign(&manifest).map_err(PackageFault::Archive)?;
    let mut archive = vec![
        (MANIFEST.to_owned(), manifest),
        (SEAL.to_owned(), digest),
        (SIGNATURE.to_owned(), signature),
        (PUBLIC.to_owned(), signer.public().into_bytes()),
    ];
    archive.extend(files);
    tar::write(&archive).map_err(PackageFault::Archive)
}

fn digest_line(manifest: &[u8]) -> String {
    format!("{}  {MANIFEST}\n", ident::sha256_hex(manifest))
}

fn count<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

fn pretty(value: &impl Serialize) -> Result<Vec<u8>, PackageFault> {
    let mut value = serde_json::to_value(value)?;
    scrub::value(&mut value);
    let mut text = serde_json::to_vec_pretty(&value)?;
    text.push(b'\n');
    Ok(text)
}

fn put(
    files: &mut BTreeMap<String, Vec<u8>>,
    path: &str,
    value: &impl Serialize,
) -> Result<(), PackageFault> {
    files.insert(path.to_owned(), pretty(value)?);
    Ok(())
}

async fn tests_of(
    connection: &mut AnyConnection,
    id: &str,
    period: &Period,
) -> Result<Vec<Value>, PackageFault> {
    let rows = sqlx::query(
        "SELECT id, results, outcome, tested_at, tester FROM soc2_control_tests
         WHERE control_id = $1 AND tested_ms >= $2 AND tested_ms < $3 ORDER BY id",
    )
    .bind(id.to_owned())
    .bind(sql(period.from_ms))
    .bind(sql(period.to_ms))
    .fetch_all(&mut *connection)
    .await?;
    let evidence = evidence::of_control(connection, id).await?;
    rows.iter()
        .map(|row| {
            let test_id = unsigned(row.try_get(0)?)?;
            let listed: Vec<_> = evidence
                .iter()
                .filter(|piece| piece.test_id == test_id)
                .map(|piece| &piece.listed)
                .collect();
            Ok(json!({
                "id": test_id,
                "results": row.try_get::<String, _>(1)?,
                "outcome": row.try_get::<String, _>(2)?,
                "tested_at": row.try_get::<String, _>(3)?,
                "tester": row.try_get::<String, _>(4)?,
                "evidence": listed,
            }))
        })
        .collect()
}

async fn changes_of(
    connection: &mut AnyConnection,
    id: &str,
    period: &Period,
) -> Result<Vec<super::ControlChange>, PackageFault> {
    let (_, changes) = super::history(connection, id).await?;
    let inside = |change: &super::ControlChange| {
        clock::parse_ms(&change.changed_at)
            .is_some_and(|at| (period.from_ms..period.to_ms).contains(&at))
    };
    Ok(changes.into_iter().filter(inside).collect())
}

async fn audits(connection: &mut AnyConnection) -> Result<Value, PackageFault> {
    let rows = sqlx::query(
        "SELECT audit_date, auditor, note, recorded_by, recorded_at FROM soc2_audits ORDER BY id",
    )
    .fetch_all(connection)
    .await?;
    let mut audits = Vec::with_capacity(rows.len());
    for row in rows {
        audits.push(json!({
            "audit_date": row.try_get::<String, _>(0)?,
            "auditor": row.try_get::<String, _>(1)?,
            "note": row.try_get::<String, _>(2)?,
            "recorded_by": row.try_get::<String, _>(3)?,
            "recorded_at": row.try_get::<String, _>(4)?,
        }));
    }
    Ok(json!({ "audits": audits }))
}

/// Versions that were made or put in force in the period, and the document in force at its end.
async fn config(
    connection: &mut AnyConnection,
    period: &Period,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), PackageFault> {
    let versions = sqlx::query(
        "SELECT version, sha256, author, source, comment, created_ms FROM config_versions
         WHERE created_ms >= $1 AND created_ms < $2 ORDER BY version",
    )
    .bind(sql(period.from_ms))
    .bind(sql(period.to_ms))
    .fetch_all(&mut *connection)
    .await?;
    let mut made = Vec::with_capacity(versions.len());
    for row in versions {
        made.push(json!({
            "version": row.try_get::<i64, _>(0)?,
            "sha256": row.try_get::<String, _>(1)?,
            "author": row.try_get::<String, _>(2)?,
            "source": row.try_get::<String, _>(3)?,
            "comment": row.try_get::<String, _>(4)?,
            "created_at": clock::rfc3339(unsigned(row.try_get(5)?)?),
        }));
    }
    let rows = sqlx::query(
        "SELECT activation, version, actor, action, at_ms FROM config_activations
         WHERE at_ms < $1 ORDER BY activation",
    )
    .bind(sql(period.to_ms))
    .fetch_all(&mut *connection)
    .await?;
    let (mut activations, mut last) = (Vec::new(), None);
    for row in rows {
        let at_ms = unsigned(row.try_get(4)?)?;
        last = Some(unsigned(row.try_get(1)?)?);
        if at_ms >= period.from_ms {
            activations.push(json!({
                "activation": row.try_get::<i64, _>(0)?,
                "version": row.try_get::<i64, _>(1)?,
                "actor": row.try_get::<String, _>(2)?,
                "action": row.try_get::<String, _>(3)?,
                "at": clock::rfc3339(at_ms),
            }));
        }
    }
    let log = json!({ "versions": made, "activations": activations });
    put(files, "changes/config.json", &log)?;
    if let Some(version) = last
        && let Some(stored) = crate::store::configs::load(connection, version).await?
    {
        let shown = redacted(&stored.document).unwrap_or_else(|| scrub::HIDDEN.to_owned());
        let head = format!(
            "# Version {version}, sha256 {} as stored. Literal secrets are left out.\n",
            stored.sha256
        );
        files.insert("implementation/config.yml".to_owned(), (head + &shown).into_bytes());
    }
    Ok(())
}

/// Audit events of every node in the period, one JSON line each. The hash is that of the record as
/// stored; a record from which a secret was taken out does not give it again.
async fn events(
    connection: &mut AnyConnection,
    period: &Period,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<u64, PackageFault> {
    let row = sqlx::query("SELECT COUNT(*) FROM audit_events WHERE at_ms >= $1 AND at_ms < $2")
        .bind(sql(period.from_ms))
        .bind(sql(period.to_ms))
        .fetch_one(&mut *connection)
        .await?;
    let total = unsigned(row.try_get(0)?)?;
    if total > EVENTS_MAX {
        return Err(PackageFault::TooManyEvents(total));
    }
    let rows = sqlx::query(
        "SELECT node, epoch, seq, flaw, line FROM audit_events
         WHERE at_ms >= $1 AND at_ms < $2 ORDER BY node, epoch, seq",
    )
    .bind(sql(period.from_ms))
    .bind(sql(period.to_ms))
    .fetch_all(connection)
    .await?;
    let mut lines = Vec::new();
    for row in rows {
        let record: Value = serde_json::from_str(&row.try_get::<String, _>(4)?)?;
        let mut event = json!({
            "node": row.try_get::<String, _>(0)?,
            "epoch": row.try_get::<i64, _>(1)?,
            "seq": row.try_get::<i64, _>(2)?,
            "flaw": row.try_get::<Option<String>, _>(3)?,
            "hash": record["hash"],
            "entry": record["entry"],
        });
        scrub::value(&mut event);
        serde_json::to_writer(&mut lines, &event)?;
        lines.push(b'\n');
    }
    files.insert("changes/audit_events.jsonl".to_owned(), lines);
    Ok(total)
}

/// The check of every chain, and where each stood in the period.
async fn chains(
    connection: &mut AnyConnection,
    period: &Period,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<bool, PackageFault> {
    let mut intact = true;
    let mut all = Vec::new();
    for chain in query::verify(connection, None).await? {
        intact &= chain.intact;
        let ends = ends(connection, &chain.node, chain.epoch, period).await?;
        all.push(json!({
            "node": chain.node,
            "epoch": chain.epoch,
            "intact": chain.intact,
            "breaks_total": chain.breaks_total,
            "breaks": chain.breaks,
            "in_period": ends,
        }));
    }
    let result = json!({ "intact": intact, "chains": all });
    put(files, "audit_chain.json", &result)?;
    Ok(intact)
}

/// Where a chain stood in the period: its first and last record, and the digest of the last one.
async fn ends(
    connection: &mut AnyConnection,
    node: &str,
    epoch: u64,
    period: &Period,
) -> Result<Value, PackageFault> {
    let row = sqlx::query(
        "SELECT COUNT(*), COALESCE(MIN(seq), 0), COALESCE(MAX(seq), 0) FROM (
             SELECT seq FROM audit_events
                 WHERE node = $1 AND epoch = $2 AND at_ms >= $3 AND at_ms < $4
             UNION ALL SELECT seq FROM cdrs
                 WHERE node = $1 AND epoch = $2 AND start_ms >= $3 AND start_ms < $4) found",
    )
    .bind(node.to_owned())
    .bind(sql(epoch))
    .bind(sql(period.from_ms))
    .bind(sql(period.to_ms))
    .fetch_one(&mut *connection)
    .await?;
    let (records, first, last): (i64, i64, i64) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if records == 0 {
        return Ok(Value::Null);
    }
    let row = sqlx::query(
        "SELECT line FROM audit_events WHERE node = $1 AND epoch = $2 AND seq = $3
         UNION ALL SELECT line FROM cdrs WHERE node = $1 AND epoch = $2 AND seq = $3",
    )
    .bind(node.to_owned())
    .bind(sql(epoch))
    .bind(last)
    .fetch_one(connection)
    .await?;
    let record: Value = serde_json::from_str(&row.try_get::<String, _>(0)?)?;
    Ok(json!({
        "records": records,
        "first_seq": first,
        "last_seq": last,
        "last_hash": record["hash"],
    }))
}

/// A package that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    pub manifest: Manifest,
    /// Fingerprint of the key that signed it. That it is the key of a certain system is known only
    /// to who got that key from there.
    pub signer: String,
}

/// Checks that an archive holds what its manifest says, and nothing else, and that its signature
/// fits; with `public` (PEM), that it was made with that key.
///
/// # Errors
/// Every fault that was found.
pub fn verify(bytes: &[u8], public: Option<&[u8]>) -> Result<Whole, Vec<String>> {
    let files = tar::read(bytes).map_err(|fault| vec![fault])?;
    let [first, second, third, fourth, rest @ ..] = files.as_slice() else {
        return Err(vec!["the archive has no manifest".to_owned()]);
    };
    let names = [&first.0, &second.0, &third.0, &fourth.0];
    if names != [MANIFEST, SEAL, SIGNATURE, PUBLIC] {
        return Err(vec![format!("{MANIFEST} and what belongs to it are not the first files")]);
    }
    let manifest = first.1;
    if second.1 != digest_line(manifest).as_bytes() {
        return Err(vec![format!("{MANIFEST}: is not what {SEAL} says")]);
    }
    let signer = seal::check(fourth.1, manifest, third.1)
        .map_err(|fault| vec![format!("{SIGNATURE}: {fault}")])?;
    let manifest = serde_json::from_slice::<Manifest>(manifest)
        .map_err(|error| vec![format!("{MANIFEST}: {error}")])?;
    let mut faults = Vec::new();
    if let Some(public) = public {
        match seal::fingerprint(public) {
            Ok(wanted) if wanted == signer => {}
            Ok(wanted) => faults.push(format!("{PUBLIC}: signed by {signer}, not by {wanted}")),
            Err(fault) => faults.push(fault),
        }
    }
    if manifest.format != FORMAT {
        faults.push(format!("{MANIFEST}: format {:?} is not known", manifest.format));
    }
    let mut listed: BTreeMap<&str, &FileEntry> =
        manifest.files.iter().map(|file| (file.path.as_str(), file)).collect();
    for (name, content) in rest {
        match listed.remove(name.as_str()) {
            None => faults.push(format!("{name}: is not in the manifest")),
            Some(entry) => {
                if entry.size != count(content) || entry.sha256 != ident::sha256_hex(content) {
                    faults.push(format!("{name}: is not what the manifest says"));
                }
            }
        }
    }
    faults.extend(listed.keys().map(|name| format!("{name}: is missing")));
    if faults.is_empty() { Ok(Whole { manifest, signer }) } else { Err(faults) }
}
