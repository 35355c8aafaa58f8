//! Searches over the stored records, and the check of their chains.

use ravelin_contract::chain::{Head, Record, hash_from_hex};
use serde::Serialize;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row, any::AnyRow, query::Query};

use crate::{
    error::StoreError,
    store::{records, sql, unsigned},
};

/// Most rows of one answer.
pub const PAGE_MAX: u32 = 1_000;
/// Rows of one answer when the caller does not say.
pub const PAGE_DEFAULT: u32 = 100;
/// Records read at once while a chain is checked.
const VERIFY_PAGE: i64 = 2_000;
/// Breaks of one chain that are listed; all are counted.
const BREAKS_LISTED_MAX: usize = 100;

/// A place in a list that is ordered by time, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    at_ms: u64,
    epoch: u64,
    seq: u64,
    node: String,
}

impl Cursor {
    /// Reads the text that an earlier answer gave as `next`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, '.');
        let mut number = || parts.next()?.parse().ok();
        let (at_ms, epoch, seq) = (number()?, number()?, number()?);
        Some(Self { at_ms, epoch, seq, node: parts.next()?.to_owned() })
    }

    fn text(&self) -> String {
        format!("{}.{}.{}.{}", self.at_ms, self.epoch, self.seq, self.node)
    }
}

/// One stored record.
#[derive(Clone, Debug)]
pub struct Found {
    pub node: String,
    pub epoch: u64,
    pub seq: u64,
    pub at_ms: u64,
    pub flaw: Option<String>,
    /// The entry as JSON, as the node wrote it.
    pub entry: serde_json::Value,
    /// SHA-256 of the record, from its line.
    pub hash: String,
}

/// One answer: records, and where the next page begins.
#[derive(Clone, Debug)]
pub struct Page {
    pub rows: Vec<Found>,
    pub next: Option<String>,
}

/// What a search asks for. Empty fields match everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// First millisecond.
    pub from_ms: Option<u64>,
    /// First millisecond after the range.
    pub to_ms: Option<u64>,
    pub node: Option<String>,
    pub call: Option<String>,
    /// CDRs: inbound or outbound trunk.
    pub trunk: Option<String>,
    /// CDRs only.
    pub emergency: Option<bool>,
    /// Kind of event, or `call` / `attempt` for CDRs.
    pub kind: Option<String>,
    /// Events only.
    pub severity: Option<String>,
    /// Events only.
    pub actor: Option<String>,
    /// CDRs only.
    pub site: Option<String>,
    pub limit: u32,
    pub cursor: Option<Cursor>,
}

enum Value {
    Number(i64),
    Text(String),
}

/// A statement under construction: constant text, values only through placeholders.
struct Statement {
    text: String,
    values: Vec<Value>,
}

impl Statement {
    fn condition(&mut self, before: &'static str, value: Value, after: &'static str) {
        self.values.push(value);
        self.text.push_str(" AND ");
        self.text.push_str(before);
        self.text.push_str(&format!("${}", self.values.len()));
        self.text.push_str(after);
    }

    fn text_is(&mut self, before: &'static str, value: Option<&String>) {
        if let Some(value) = value {
            self.condition(before, Value::Text(value.replace('\0', "\u{fffd}")), "");
        }
    }

    fn bind(&self) -> Query<'_, Any, sqlx::any::AnyArguments> {
        let mut query = sqlx::query(AssertSqlSafe(self.text.clone()));
        for value in &self.values {
            query = match value {
                Value::Number(number) => query.bind(*number),
                Value::Text(text) => query.bind(text.clone()),
            };
        }
        query
    }
}

/// Audit events that match, newest first.
///
/// # Errors
/// What the database says.
pub async fn events(connection: &mut AnyConnection, filter: &Filter) -> Result<Page, StoreError> {
    let mut statement = Statement {
        text: "SELECT node, epoch, seq, at_ms, flaw, line FROM audit_events WHERE 1 = 1".to_owned(),
        values: Vec::new(),
    };
    statement.text_is("kind = ", filter.kind.as_ref());
    statement.text_is("severity = ", filter.severity.as_ref());
    statement.text_is("actor = ", filter.actor.as_ref());
    search(connection, statement, filter, "at_ms").await
}

/// CDRs that match, newest first.
///
/// # Errors
/// What the database says.
pub async fn cdrs(connection: &mut AnyConnection, filter: &Filter) -> Result<Page, StoreError> {
    let mut statement = Statement {
        text: "SELECT node, epoch, seq, start_ms, flaw, line FROM cdrs WHERE 1 = 1".to_owned(),
        values: Vec::new(),
    };
    statement.text_is("kind = ", filter.kind.as_ref());
    statement.text_is("site = ", filter.site.as_ref());
    if let Some(emergency) = filter.emergency {
        statement.condition("emergency = ", Value::Number(i64::from(emergency)), "");
    }
    if let Some(trunk) = &filter.trunk {
        statement.condition("(inbound_trunk = ", Value::Text(trunk.clone()), "");
        let number = statement.values.len();
        statement.text.push_str(&format!(" OR outbound_trunk = ${number})"));
    }
    search(connection, statement, filter, "start_ms").await
}

async fn search(
    connection: &mut AnyConnection,
    mut statement: Statement,
    filter: &Filter,
    time: &'static str,
) -> Result<Page, StoreError> {
    statement.text_is("node = ", filter.node.as_ref());
    statement.text_is("call_id = ", filter.call.as_ref());
    let (from, to) =
        if time == "at_ms" { ("at_ms >= ", "at_ms < ") } else { ("start_ms >= ", "start_ms < ") };
    if let Some(ms) = filter.from_ms {
        statement.condition(from, Value::Number(sql(ms)), "");
    }
    if let Some(ms) = filter.to_ms {
        statement.condition(to, Value::Number(sql(ms)), "");
    }
    if let Some(cursor) = &filter.cursor {
        let base = statement.values.len();
        statement.values.extend([
            Value::Number(sql(cursor.at_ms)),
            Value::Number(sql(cursor.epoch)),
            Value::Number(sql(cursor.seq)),
            Value::Text(cursor.node.replace('\0', "")),
        ]);
        statement.text.push_str(&format!(
            " AND ({time}, epoch, seq, node) < (${}, ${}, ${}, ${})",
            base + 1,
            base + 2,
            base + 3,
            base + 4
        ));
    }
    let limit = filter.limit.clamp(1, PAGE_MAX);
    statement.text.push_str(&format!(
        " ORDER BY {time} DESC, epoch DESC, seq DESC, node DESC LIMIT {}",
        limit + 1
    ));
    let mut rows = statement
        .bind()
        .fetch_all(connection)
        .await?
        .iter()
        .map(read)
        .collect::<Result<Vec<_>, _>>()?;
    let more = rows.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    if more {
        rows.pop();
    }
    let next = rows.last().filter(|_| more).map(|row| {
        Cursor { at_ms: row.at_ms, epoch: row.epoch, seq: row.seq, node: row.node.clone() }.text()
    });
    Ok(Page { rows, next })
}

fn read(row: &AnyRow) -> Result<Found, StoreError> {
    let line: String = row.try_get(5)?;
    let record: Record = serde_json::from_str(&line)?;
    Ok(Found {
        node: row.try_get(0)?,
        epoch: unsigned(row.try_get(1)?)?,
        seq: unsigned(row.try_get(2)?)?,
        at_ms: unsigned(row.try_get(3)?)?,
        flaw: row.try_get(4)?,
        entry: serde_json::from_str(record.entry.get())?,
        hash: record.hash,
    })
}

/// What the check of one chain found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ChainReport {
    pub node: String,
    /// Which spool of the node; counts from 1.
    pub epoch: u64,
    pub records: u64,
    pub first_seq: Option<u64>,
    pub last_seq: Option<u64>,
    /// Every record is there, unaltered and in its place.
    pub intact: bool,
    pub breaks_total: u64,
    /// The first hundred breaks.
    pub breaks: Vec<ChainBreak>,
}

/// One place where a chain breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ChainBreak {
    pub seq: u64,
    pub reason: String,
}

/// Recomputes every hash of the stored records, of one node or of all.
///
/// # Errors
/// What the database says.
pub async fn verify(
    connection: &mut AnyConnection,
    only: Option<&str>,
) -> Result<Vec<ChainReport>, StoreError> {
    let chains = sqlx::query(
        "SELECT DISTINCT node, epoch FROM audit_events
         UNION SELECT DISTINCT node, epoch FROM cdrs
         UNION SELECT node, epoch FROM chain_heads ORDER BY 1, 2",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut reports = Vec::new();
    for row in chains {
        let (node, epoch): (String, u64) = (row.try_get(0)?, unsigned(row.try_get(1)?)?);
        if only.is_none_or(|only| only == node) {
            reports.push(verify_chain(connection, node, epoch).await?);
        }
    }
    Ok(reports)
}

async fn verify_chain(
    connection: &mut AnyConnection,
    node: String,
    epoch: u64,
) -> Result<ChainReport, StoreError> {
    let mut report = ChainReport {
        node,
        epoch,
        records: 0,
        first_seq: None,
        last_seq: None,
        intact: true,
        breaks_total: 0,
        breaks: Vec::new(),
    };
    // Read first: records that are stored while the check runs lie behind this head.
    let stored = records::head(connection, &report.node).await?;
    let stored = stored.filter(|head| head.epoch == epoch);
    let end = stored.map_or(i64::MAX, |head| sql(head.head.seq));
    let mut head = Head::START;
    let mut after = -1_i64;
    loop {
        let rows = sqlx::query(
            "SELECT seq, line FROM audit_events
                 WHERE node = $1 AND epoch = $2 AND seq > $3 AND seq <= $4
             UNION ALL SELECT seq, line FROM cdrs
                 WHERE node = $1 AND epoch = $2 AND seq > $3 AND seq <= $4
             ORDER BY 1 LIMIT $5",
        )
        .bind(report.node.clone())
        .bind(sql(epoch))
        .bind(after)
        .bind(end)
        .bind(VERIFY_PAGE)
        .fetch_all(&mut *connection)
        .await?;
        let Some(last) = rows.last() else { break };
        after = last.try_get(0)?;
        for row in &rows {
            let seq = unsigned(row.try_get(0)?)?;
            let line: String = row.try_get(1)?;
            check_line(&mut report, &mut head, seq, &line);
        }
        tokio::task::yield_now().await;
    }
    if let Some(stored) = stored
        && stored.head != head
    {
        broken(
            &mut report,
            stored.head.seq,
            format!("the chain was stored up to record {}, it ends otherwise", stored.head.seq),
        );
    }
    Ok(report)
}

fn check_line(report: &mut ChainReport, head: &mut Head, seq: u64, line: &str) {
    report.records += 1;
    report.first_seq.get_or_insert(seq);
    report.last_seq = Some(seq);
    match serde_json::from_str::<Record>(line) {
        Err(error) => broken(report, seq, format!("not a record: {error}")),
        Ok(record) if record.seq != seq => {
            broken(report, seq, format!("the line is record {}", record.seq));
        }
        Ok(record) => {
            if let Err(error) = head.accept(&record) {
                broken(report, seq, error.to_string());
                *head = Head { seq, hash: hash_from_hex(&record.hash).unwrap_or([0; 32]) };
            }
        }
    }
}

fn broken(report: &mut ChainReport, seq: u64, reason: String) {
    report.intact = false;
    report.breaks_total += 1;
    if report.breaks.len() < BREAKS_LISTED_MAX {
        report.breaks.push(ChainBreak { seq, reason });
    }
}
