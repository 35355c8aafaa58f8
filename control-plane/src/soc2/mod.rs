//! SOC 2 controls: seeded once by migration, changed only by requests, with every test and every
//! change kept (compliance-systems 5). Reading is a SELECT and nothing else (defect C1).

pub mod drill;
mod evidence;
pub mod package;
pub mod scrub;
pub mod seal;
mod tar;

use std::collections::BTreeMap;

pub use evidence::{EVIDENCE_MAX_BYTES, Evidence, EvidenceRef, MEDIA_TYPES};
use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, Row, any::AnyRow};

use crate::{
    clock,
    error::StoreError,
    store::{sql, unsigned},
};

/// A test older than this does not count as current: the source documents ask for one a quarter.
pub const TEST_PERIOD_DAYS: u64 = 90;

/// Category of a control, under the names of the source documents.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
pub enum Category {
    Security,
    Availability,
    #[serde(rename = "Processing Integrity")]
    ProcessingIntegrity,
    Confidentiality,
}

impl Category {
    pub const ALL: [Self; 4] =
        [Self::Security, Self::Availability, Self::ProcessingIntegrity, Self::Confidentiality];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Security => "Security",
            Self::Availability => "Availability",
            Self::ProcessingIntegrity => "Processing Integrity",
            Self::Confidentiality => "Confidentiality",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|category| category.name() == name)
    }
}

/// How far a control is implemented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Implemented,
    Pending,
    NotImplemented,
}

impl Status {
    pub const ALL: [Self; 3] = [Self::Implemented, Self::Pending, Self::NotImplemented];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Implemented => "implemented",
            Self::Pending => "pending",
            Self::NotImplemented => "not_implemented",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// One control as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Control {
    pub control_id: String,
    pub control_category: Category,
    pub description: String,
    pub implementation_status: Status,
    pub last_tested: Option<String>,
    pub test_results: Option<String>,
    /// Criterion of TSC 2017 (rev. 2022) that the text belongs to.
    pub tsc_reference: Option<String>,
    /// Counts the changes; send it back to be told when somebody else was faster.
    pub revision: u64,
}

/// A change of a control; `None` leaves the field as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub control_category: Option<Category>,
    pub description: Option<String>,
    pub implementation_status: Option<Status>,
    pub test_results: Option<String>,
    /// What the test printed; only together with `test_results`.
    pub evidence: Option<Evidence>,
    pub tsc_reference: Option<String>,
}

/// One test of one control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ControlTest {
    pub results: String,
    /// `passed`, `failed`, or `recorded` when the text begins with neither.
    pub outcome: String,
    pub tested_at: String,
    pub tester: String,
    pub evidence: Vec<EvidenceRef>,
}

/// One change of one control.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ControlChange {
    pub changed_at: String,
    pub actor: String,
    #[schema(value_type = Option<Object>)]
    pub before: Option<serde_json::Value>,
    #[schema(value_type = Object)]
    pub after: serde_json::Value,
}

/// Counts of one category.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct CategoryCount {
    pub total: u64,
    pub implemented: u64,
    pub tested_passing: u64,
}

/// The compliance report: the shapes of both source documents.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Report {
    pub total_controls: u64,
    pub implemented: u64,
    pub not_implemented: u64,
    pub pending: u64,
    /// Controls that were ever tested.
    pub tested: u64,
    /// Implemented, and the last test passed within the period.
    pub tested_passing: u64,
    pub test_period_days: u64,
    /// Date of the last audit that was recorded; null when none was.
    pub last_audit_date: Option<String>,
    /// Share of controls that are implemented and tested passing within the period.
    pub compliance_percentage: f64,
    /// Share of controls that are marked implemented, tested or not.
    pub implemented_percentage: f64,
    pub categories: BTreeMap<String, CategoryCount>,
}

const COLUMNS: &str = "SELECT control_id, control_category, description, implementation_status,
    last_tested, test_results, tsc_reference, revision FROM soc2_controls";

/// Controls by their number, of one category or all.
///
/// # Errors
/// What the database says.
pub async fn controls(
    connection: &mut AnyConnection,
    category: Option<Category>,
) -> Result<Vec<Control>, StoreError> {
    let text = format!("{COLUMNS} WHERE ($1 = '' OR control_category = $1) ORDER BY id");
    sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(category.map_or("", Category::name).to_owned())
        .fetch_all(connection)
        .await?
        .iter()
        .map(read)
        .collect()
}

/// One control by its id.
///
/// # Errors
/// What the database says.
pub async fn control(
    connection: &mut AnyConnection,
    id: &str,
) -> Result<Option<Control>, StoreError> {
    let text = format!("{COLUMNS} WHERE control_id = $1");
    sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(id.replace('\0', ""))
        .fetch_optional(connection)
        .await?
        .as_ref()
        .map(read)
        .transpose()
}

fn read(row: &AnyRow) -> Result<Control, StoreError> {
    let (category, status): (String, String) = (row.try_get(1)?, row.try_get(3)?);
    Ok(Control {
        control_id: row.try_get(0)?,
        control_category: Category::from_name(&category)
            .ok_or_else(|| StoreError::Corrupt(format!("category {category}")))?,
        description: row.try_get(2)?,
        implementation_status: Status::from_name(&status)
            .ok_or_else(|| StoreError::Corrupt(format!("status {status}")))?,
        last_tested: row.try_get(4)?,
        test_results: row.try_get(5)?,
        tsc_reference: row.try_get(6)?,
        revision: unsigned(row.try_get(7)?)?,
    })
}

/// Registers a control, or changes the one by that id; returns it as it stands then. History and
/// tests are appended, never replaced.
///
/// # Errors
/// What the database says.
pub async fn save(
    connection: &mut AnyConnection,
    id: &str,
    before: Option<&Control>,
    change: Change,
    actor: &str,
) -> Result<Control, StoreError> {
    let now_ms = clock::unix_ms();
    let now = clock::rfc3339(now_ms / 1_000 * 1_000);
    let mut after = before.cloned().unwrap_or_else(|| Control {
        control_id: id.to_owned(),
        control_category: Category::Security,
        description: String::new(),
        implementation_status: Status::Pending,
        last_tested: None,
        test_results: None,
        tsc_reference: None,
        revision: 0,
    });
    after.revision += 1;
    if let Some(category) = change.control_category {
        after.control_category = category;
    }
    if let Some(description) = change.description {
        after.description = description;
    }
    if let Some(status) = change.implementation_status {
        after.implementation_status = status;
    }
    if let Some(reference) = change.tsc_reference {
        after.tsc_reference = Some(reference);
    }
    if let Some(results) = change.test_results.clone() {
        after.test_results = Some(results);
        after.last_tested = Some(now.clone());
    }
    let row = sqlx::query("SELECT COALESCE(MAX(id), 0) FROM soc2_controls")
        .fetch_one(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO soc2_controls (id, control_id, control_category, description,
             implementation_status, last_tested, test_results, tsc_reference, revision)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (control_id) DO UPDATE SET control_category = excluded.control_category,
             description = excluded.description,
             implementation_status = excluded.implementation_status,
             last_tested = excluded.last_tested, test_results = excluded.test_results,
             tsc_reference = excluded.tsc_reference, revision = excluded.revision",
    )
    .bind(row.try_get::<i64, _>(0)? + 1)
    .bind(after.control_id.clone())
    .bind(after.control_category.name().to_owned())
    .bind(after.description.clone())
    .bind(after.implementation_status.name().to_owned())
    .bind(after.last_tested.clone())
    .bind(after.test_results.clone())
    .bind(after.tsc_reference.clone())
    .bind(sql(after.revision))
    .execute(&mut *connection)
    .await?;
    if let Some(results) = change.test_results {
        let test = append_test(connection, id, &results, (now_ms, &now), actor).await?;
        if let Some(evidence) = change.evidence {
            evidence::append(connection, test, id, &evidence).await?;
        }
    }
    append_change(connection, before, &after, &now, actor).await?;
    Ok(after)
}

async fn append_test(
    connection: &mut AnyConnection,
    id: &str,
    results: &str,
    (now_ms, now): (u64, &str),
    actor: &str,
) -> Result<i64, StoreError> {
    let row = sqlx::query("SELECT COALESCE(MAX(id), 0) FROM soc2_control_tests")
        .fetch_one(&mut *connection)
        .await?;
    let number = row.try_get::<i64, _>(0)? + 1;
    sqlx::query(
        "INSERT INTO soc2_control_tests
             (id, control_id, results, outcome, tested_ms, tested_at, tester)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(number)
    .bind(id.to_owned())
    .bind(results.to_owned())
    .bind(outcome(results).to_owned())
    .bind(sql(now_ms))
    .bind(now.to_owned())
    .bind(actor.to_owned())
    .execute(connection)
    .await?;
    Ok(number)
}

async fn append_change(
    connection: &mut AnyConnection,
    before: Option<&Control>,
    after: &Control,
    now: &str,
    actor: &str,
) -> Result<(), StoreError> {
    let row = sqlx::query("SELECT COALESCE(MAX(id), 0) FROM soc2_control_changes")
        .fetch_one(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO soc2_control_changes
             (id, control_id, changed_at, actor, before_state, after_state)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(row.try_get::<i64, _>(0)? + 1)
    .bind(after.control_id.clone())
    .bind(now.to_owned())
    .bind(actor.to_owned())
    .bind(before.map(serde_json::to_string).transpose()?)
    .bind(serde_json::to_string(after)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// How a test ended, from the beginning of its text.
#[must_use]
pub fn outcome(results: &str) -> &'static str {
    let begins = |word: &str| {
        results.trim_start().get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    if begins("pass") {
        "passed"
    } else if begins("fail") {
        "failed"
    } else {
        "recorded"
    }
}

/// Tests and changes of one control, oldest first.
///
/// # Errors
/// What the database says.
pub async fn history(
    connection: &mut AnyConnection,
    id: &str,
) -> Result<(Vec<ControlTest>, Vec<ControlChange>), StoreError> {
    let evidence = evidence::of_control(connection, id).await?;
    let tests = sqlx::query(
        "SELECT id, results, outcome, tested_at, tester FROM soc2_control_tests
         WHERE control_id = $1 ORDER BY id",
    )
    .bind(id.to_owned())
    .fetch_all(&mut *connection)
    .await?
    .iter()
    .map(|row| {
        let test = unsigned(row.try_get(0)?)?;
        Ok(ControlTest {
            results: row.try_get(1)?,
            outcome: row.try_get(2)?,
            tested_at: row.try_get(3)?,
            tester: row.try_get(4)?,
            evidence: evidence
                .iter()
                .filter(|piece| piece.test_id == test)
                .map(|piece| piece.listed.clone())
                .collect(),
        })
    })
    .collect::<Result<_, StoreError>>()?;
    let changes = sqlx::query(
        "SELECT changed_at, actor, before_state, after_state FROM soc2_control_changes
         WHERE control_id = $1 ORDER BY id",
    )
    .bind(id.to_owned())
    .fetch_all(connection)
    .await?
    .iter()
    .map(|row| {
        let before: Option<String> = row.try_get(2)?;
        Ok(ControlChange {
            changed_at: row.try_get(0)?,
            actor: row.try_get(1)?,
            before: before.map(|text| serde_json::from_str(&text)).transpose()?,
            after: serde_json::from_str(&row.try_get::<String, _>(3)?)?,
        })
    })
    .collect::<Result<_, StoreError>>()?;
    Ok((tests, changes))
}

/// Records that an audit took place.
///
/// # Errors
/// What the database says.
pub async fn insert_audit(
    connection: &mut AnyConnection,
    audit_date: &str,
    auditor: &str,
    note: &str,
    actor: &str,
) -> Result<(), StoreError> {
    let row = sqlx::query("SELECT COALESCE(MAX(id), 0) FROM soc2_audits")
        .fetch_one(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO soc2_audits (id, audit_date, auditor, note, recorded_by, recorded_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(row.try_get::<i64, _>(0)? + 1)
    .bind(audit_date.to_owned())
    .bind(auditor.to_owned())
    .bind(note.to_owned())
    .bind(actor.to_owned())
    .bind(clock::rfc3339(clock::unix_ms()))
    .execute(connection)
    .await?;
    Ok(())
}

/// The report as of `at_ms`: which tests are current depends on it.
///
/// # Errors
/// What the database says.
pub async fn report(connection: &mut AnyConnection, at_ms: u64) -> Result<Report, StoreError> {
    let controls = controls(connection, None).await?;
    let row =
        sqlx::query("SELECT MAX(audit_date) FROM soc2_audits").fetch_one(&mut *connection).await?;
    let last_audit_date: Option<String> = row.try_get(0)?;
    let oldest = at_ms.saturating_sub(TEST_PERIOD_DAYS * 86_400_000);
    let mut report = Report {
        total_controls: 0,
        implemented: 0,
        not_implemented: 0,
        pending: 0,
        tested: 0,
        tested_passing: 0,
        test_period_days: TEST_PERIOD_DAYS,
        last_audit_date,
        compliance_percentage: 0.0,
        implemented_percentage: 0.0,
        categories: BTreeMap::new(),
    };
    for control in &controls {
        let name = control.control_category.name().to_owned();
        let category = report.categories.entry(name).or_default();
        report.total_controls += 1;
        category.total += 1;
        match control.implementation_status {
            Status::Implemented => {
                report.implemented += 1;
                category.implemented += 1;
            }
            Status::Pending => report.pending += 1,
            Status::NotImplemented => report.not_implemented += 1,
        }
        report.tested += u64::from(control.last_tested.is_some());
        let current = control
            .last_tested
            .as_deref()
            .and_then(clock::parse_ms)
            .is_some_and(|tested| tested >= oldest);
        let passed = control.test_results.as_deref().is_some_and(|text| outcome(text) == "passed");
        if current && passed && control.implementation_status == Status::Implemented {
            report.tested_passing += 1;
            category.tested_passing += 1;
        }
    }
    report.compliance_percentage = percentage(report.tested_passing, report.total_controls);
    report.implemented_percentage = percentage(report.implemented, report.total_controls);
    Ok(report)
}

/// Percent with one decimal.
fn percentage(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    let tenths = (part * 1_000 + whole / 2) / whole;
    u32::try_from(tenths).map_or(100.0, |tenths| f64::from(tenths) / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read_from_the_words_of_the_source_documents() {
        for (text, expected) in [
            ("Passed - 2024-12-15", "passed"),
            ("PASSED - details (Tested: ts)", "passed"),
            (" pass", "passed"),
            ("FAILED - no backup", "failed"),
            ("Reviewed by hand", "recorded"),
            ("", "recorded"),
            ("p", "recorded"),
            ("\u{e9}\u{e9}\u{e9}", "recorded"),
        ] {
            assert_eq!(outcome(text), expected, "{text}");
        }
    }

    #[test]
    fn percentages_are_rounded_to_one_decimal() {
        assert!((percentage(1, 3) - 33.3).abs() < 1e-9);
        assert!((percentage(16, 16) - 100.0).abs() < 1e-9);
        assert!(percentage(0, 0).abs() < 1e-9);
    }
}
