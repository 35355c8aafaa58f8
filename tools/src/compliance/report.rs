//! `ravelin report`: the monthly reports, written for people, spreadsheets and scripts.

use reqwest::Method;
use serde_json::Value;

use super::{
    args::{MonthArgs, ReportArgs, ReportCommand, ReportFormat},
    layout::{Block, print_markdown, print_text},
    text,
};
use crate::{
    client,
    exit::{Failure, Outcome},
    offline::audit::quote,
    print,
};

/// Key in the report, and head of the column.
type Column = (&'static str, &'static str);

const CALLS: &[Column] = &[
    ("started_at", "started"),
    ("call", "call"),
    ("from", "from"),
    ("to", "dialled"),
    ("site", "site"),
    ("outcome", "outcome"),
    ("trunk", "trunk"),
    ("attempts", "attempts"),
    ("status", "status"),
    ("invite_out_ms", "INVITE out ms"),
    ("ring_ms", "ring ms"),
    ("answer_ms", "answer ms"),
    ("duration_ms", "duration ms"),
    ("location_source", "location from"),
    ("location_age_days", "location age days"),
    ("elin", "callback"),
    ("notified", "notified"),
];

const SITES: &[Column] = &[
    ("site_id", "site"),
    ("site_name", "name"),
    ("calls", "calls"),
    ("answered", "answered"),
    ("not_delivered", "not delivered"),
    ("failovers", "failovers"),
    ("location_known_percentage", "located %"),
    ("trunks", "trunks"),
    ("elins", "callback numbers"),
];

const HOPS: &[Column] = &[
    ("call", "call"),
    ("attempt", "attempt"),
    ("trunk", "trunk"),
    ("target", "target"),
    ("invite_out_ms", "INVITE out ms"),
    ("ring_ms", "ring ms"),
    ("answer_ms", "answer ms"),
    ("end_ms", "end ms"),
    ("status", "status"),
    ("cause_text", "cause"),
];

const CALL_HEADS: &[&str] = &heads::<17>(CALLS);
const SITE_HEADS: &[&str] = &heads::<9>(SITES);
const HOP_HEADS: &[&str] = &heads::<10>(HOPS);

const fn heads<const N: usize>(columns: &[Column]) -> [&'static str; N] {
    let mut out = [""; N];
    let mut at = 0;
    while at < N {
        out[at] = columns[at].1;
        at += 1;
    }
    out
}

pub(crate) fn run(args: &ReportArgs) -> Result<Outcome, Failure> {
    match &args.command {
        ReportCommand::Emergency(args) => {
            make(&args.month, "/api/reports/emergency", "", emergency, CALLS, "calls")
        }
        ReportCommand::Sites(args) => {
            let site = args.site_id.map(|id| format!("&site_id={id}")).unwrap_or_default();
            make(&args.month, "/api/reports/sites", &site, sites, SITES, "sites")
        }
    }
}

fn make(
    args: &MonthArgs,
    path: &str,
    more: &str,
    layout: fn(&Value) -> Vec<Block>,
    columns: &[Column],
    rows: &str,
) -> Result<Outcome, Failure> {
    let digits = |text: &str, count: usize| {
        text.len() == count && text.bytes().all(|octet| octet.is_ascii_digit())
    };
    let month = args.month.split_once('-');
    if !month.is_some_and(|(year, month)| digits(year, 4) && digits(month, 2)) {
        let text = format!("{:?} is no month; give --month YYYY-MM", args.month);
        return Err(Failure::cannot_run(text));
    }
    let path = format!("{path}?month={}{more}", args.month);
    let answer = client::request(&args.api, Method::GET, &path, None)?;
    if answer.status == 400 {
        let fields: Vec<String> =
            answer.fields().map(|(name, reason)| format!("{name} {reason}")).collect();
        return Err(Failure::cannot_run(format!("{}: {}", answer.error(), fields.join("; "))));
    }
    let report = answer.good()?.body;
    match (args.json, args.format) {
        (true, _) | (_, ReportFormat::Json) => print::json(&report)?,
        (_, ReportFormat::Text) => print_text(&layout(&report))?,
        (_, ReportFormat::Md) => print_markdown(&layout(&report))?,
        (_, ReportFormat::Csv) => csv(&report[rows], columns)?,
    }
    Ok(Outcome::Passed)
}

fn emergency(report: &Value) -> Vec<Block> {
    let mut blocks = summary(report, "Emergency calls");
    blocks.push(Block::Heading("Calls".to_owned()));
    blocks.push(Block::Table { head: CALL_HEADS, rows: rows(&report["calls"], CALLS) });
    closing(report, &mut blocks);
    blocks
}

fn sites(report: &Value) -> Vec<Block> {
    let mut blocks = summary(report, "Emergency calls by site");
    blocks.push(Block::Heading("Sites".to_owned()));
    blocks.push(Block::Table { head: SITE_HEADS, rows: rows(&report["sites"], SITES) });
    blocks.push(Block::Heading("Attempts".to_owned()));
    blocks.push(Block::Table { head: HOP_HEADS, rows: rows(&report["hops"], HOPS) });
    blocks.push(Block::Heading("Calls".to_owned()));
    blocks.push(Block::Table { head: CALL_HEADS, rows: rows(&report["calls"], CALLS) });
    closing(report, &mut blocks);
    blocks
}

fn summary(report: &Value, title: &str) -> Vec<Block> {
    let site = match &report["site_name"] {
        Value::String(name) => format!(", site {} ({name})", text(&report["site_id"])),
        _ => String::new(),
    };
    let value = |key: &str| text(&report[key]);
    let spread = |key: &str| {
        let of = &report[key];
        format!(
            "p50 {}, p99 {}, max {} ms ({} calls)",
            text(&of["p50_ms"]),
            text(&of["p99_ms"]),
            text(&of["max_ms"]),
            text(&of["count"])
        )
    };
    let findings = report["findings"].as_array().into_iter().flatten();
    let rows = findings
        .map(|one| {
            let mark = if one["passed"].as_bool().unwrap_or_default() { "ok" } else { "look" };
            vec![mark.to_owned(), text(&one["text"])]
        })
        .collect();
    vec![
        Block::Heading(format!("{title}, {}{site}", value("month"))),
        Block::Pairs(vec![
            ("period (UTC)", format!("{} to {}", value("from"), value("to"))),
            ("calls", value("total_calls")),
            ("answered", value("answered")),
            ("hung up before an answer", value("abandoned")),
            ("not delivered", value("not_delivered")),
            ("without a record of their end", value("no_record")),
            ("blocked in test mode", value("blocked_in_test_mode")),
            ("refused by realm", value("denied")),
            ("INVITE in to INVITE out", spread("time_to_invite_out")),
            ("INVITE in to 18x", spread("time_to_ring")),
            ("INVITE in to 200", spread("time_to_answer")),
            ("dispatchable location %", value("location_known_percentage")),
            ("location from", counts(&report["location_by_source"])),
            ("failovers", value("failovers")),
            ("calls by trunk", counts(&report["calls_by_trunk"])),
            ("calls by site", counts(&report["calls_by_site"])),
            ("callback numbers used", counts(&report["elins"])),
            ("notifications", value("notifications")),
            ("deliveries", value("deliveries")),
            ("deliveries confirmed %", value("notification_success_percentage")),
        ]),
        Block::Heading("Findings".to_owned()),
        Block::Table { head: &["", "finding"], rows },
    ]
}

fn closing(report: &Value, blocks: &mut Vec<Block>) {
    let omitted = report["calls_omitted"].as_u64().unwrap_or_default();
    if omitted > 0 {
        blocks.push(Block::Text(format!("{omitted} more calls are counted and not listed.")));
    }
    blocks.push(Block::Text(text(&report["note"])));
}

/// `{"a": 1, "b": 2}` as `a 1, b 2`.
fn counts(value: &Value) -> String {
    let all: Vec<String> = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, count)| format!("{name} {}", text(count)))
        .collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}

fn rows(items: &Value, columns: &[Column]) -> Vec<Vec<String>> {
    let row = |item: &Value| {
        let cell = |(key, _): &Column| match &item[*key] {
            value @ Value::Object(_) => counts(value),
            value => text(value),
        };
        columns.iter().map(cell).collect()
    };
    items.as_array().into_iter().flatten().map(row).collect()
}

fn csv(items: &Value, columns: &[Column]) -> Result<(), Failure> {
    let keys: Vec<&str> = columns.iter().map(|(key, _)| *key).collect();
    print::line(&keys.join(","))?;
    for item in items.as_array().into_iter().flatten() {
        let cells: Vec<String> = keys
            .iter()
            .map(|key| match &item[*key] {
                Value::Null => String::new(),
                Value::Object(_) => quote(&counts(&item[*key])),
                value => quote(&text(value)),
            })
            .collect();
        print::line(&cells.join(","))?;
    }
    Ok(())
}
