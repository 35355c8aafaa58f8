//! `ravelin calls`, `trunks`, `trace`, `audit verify --url`: what the control plane knows now.

use ravelin_contract::view::Ladder;
use reqwest::Method;
use serde_json::Value;

use super::request;
use crate::{
    cli::{ApiArgs, AuditVerifyArgs, CallsArgs, LiveArgs, TraceArgs},
    exit::{Failure, Outcome},
    print,
};

/// Key of a field in the API's answer, and head of its column.
type Column = (&'static str, &'static str);

const CALLS: &[Column] = &[
    ("id", "id"),
    ("state", "state"),
    ("from", "from"),
    ("to", "to"),
    ("inbound_trunk", "in"),
    ("outbound_trunk", "out"),
    ("class", "class"),
    ("packets_from_caller", "rtp in"),
    ("packets_from_callee", "rtp out"),
    ("age_ms", "age ms"),
];

const TRUNKS: &[Column] = &[
    ("node", "node"),
    ("id", "trunk"),
    ("role", "role"),
    ("state", "state"),
    ("calls", "calls"),
    ("calls_limit", "limit"),
    ("refused_total", "refused"),
];

const STREAMS: &[Column] = &[
    ("stream", "stream"),
    ("from", "from"),
    ("codec", "codec"),
    ("packets", "packets"),
    ("bytes", "octets"),
    ("lost", "lost"),
    ("loss_percent", "lost %"),
    ("jitter_ms", "jitter ms"),
    ("jitter_max_ms", "highest"),
    ("rtt_ms", "rtt ms"),
    ("mos", "mos"),
    ("dtmf_events", "digits"),
    ("ssrc_changes", "new sources"),
    ("latches", "latched"),
    ("timeouts", "timeouts"),
    ("drops", "dropped"),
];

pub(crate) fn calls(args: &CallsArgs) -> Result<Outcome, Failure> {
    match &args.call {
        None => list(&args.live, "/api/calls", "calls", CALLS),
        Some(id) => streams(&args.live, id),
    }
}

/// The streams of one call: as they are, or as its record has them.
fn streams(args: &LiveArgs, id: &str) -> Result<Outcome, Failure> {
    let answer = request(&args.api, Method::GET, &format!("/api/calls/{}", segment(id)), None)?;
    if answer.status == 404 {
        return Err(Failure::not_passed(format!("no node and no record knows the call {id}")));
    }
    let answer = answer.good()?;
    let over = answer.body["cdrs"].as_array().into_iter().flatten();
    let over = over.into_iter().find(|cdr| cdr["kind"] == "call");
    let live = Some(&answer.body["call"]).filter(|call| !call.is_null());
    let streams = live.or(over).map(|call| &call["streams"]).and_then(Value::as_array);
    rows(args, streams.map(Vec::as_slice).unwrap_or_default(), "streams", STREAMS)
}

pub(crate) fn trunks(args: &LiveArgs) -> Result<Outcome, Failure> {
    list(args, "/api/trunks", "trunks", TRUNKS)
}

pub(crate) fn trace(args: &TraceArgs) -> Result<Outcome, Failure> {
    let path = format!("/api/calls/{}/ladder", segment(&args.call_id));
    let answer = request(&args.api, Method::GET, &path, None)?;
    if answer.status == 404 {
        return Err(Failure::not_passed(format!(
            "no node knows the call {}; a ladder is kept as long as its call",
            args.call_id
        )));
    }
    let answer = answer.good()?;
    if let Some(file) = &args.pcap {
        return write_pcap(file, answer.body);
    }
    for step in answer.body["steps"].as_array().into_iter().flatten() {
        if args.json {
            print::json(step)?;
            continue;
        }
        let arrow = if step["inbound"].as_bool().unwrap_or_default() { "-->" } else { "<--" };
        print::line(&print::plain(&format!(
            "{:>9} ms  {:<20} {arrow} ravelin  {}",
            text(&step["at_ms"]),
            text(&step["peer"]),
            text(&step["summary"])
        )))?;
    }
    let omitted = answer.body["omitted"].as_u64().unwrap_or_default();
    if omitted > 0 && !args.json {
        print::line(&format!("{omitted} more messages were not kept"))?;
    }
    Ok(Outcome::Passed)
}

/// Writes the messages that the node kept of the call.
fn write_pcap(file: &std::path::Path, body: Value) -> Result<Outcome, Failure> {
    let ladder: Ladder = serde_json::from_value(body)
        .map_err(|error| Failure::cannot_run(format!("the answer is no ladder: {error}")))?;
    if ladder.packets.is_empty() {
        return Err(Failure::not_passed(
            "no message of this call was kept: set edge.limits.capture_bytes before it begins; \
             emergency calls are never kept",
        ));
    }
    let pcap = super::pcap::file(&ladder.packets).map_err(Failure::cannot_run)?;
    std::fs::write(file, pcap)
        .map_err(|error| Failure::cannot_run(format!("{}: {error}", file.display())))?;
    let omitted = match ladder.packets_omitted {
        0 => String::new(),
        count => format!("; {count} more found no room"),
    };
    print::line(&format!("{}: {} messages{omitted}", file.display(), ladder.packets.len()))?;
    Ok(Outcome::Passed)
}

/// Asks the control plane to check the chains that it has stored.
pub(crate) fn audit_verify(url: &str, args: &AuditVerifyArgs) -> Result<Outcome, Failure> {
    let api = ApiArgs { url: url.to_owned(), token: args.token.clone(), data: args.data.clone() };
    let answer = request(&api, Method::GET, "/api/audit/verify", None)?.good()?;
    let whole = answer.body["intact"].as_bool().unwrap_or_default();
    if args.json {
        print::json(&answer.body)?;
        return Ok(Outcome::of(whole));
    }
    for chain in answer.body["chains"].as_array().into_iter().flatten() {
        let intact = chain["intact"].as_bool().unwrap_or_default();
        print::line(&print::plain(&format!(
            "{}: {}, {} records, {} to {}",
            text(&chain["node"]),
            if intact { "whole" } else { "BROKEN" },
            text(&chain["records"]),
            text(&chain["first_seq"]),
            text(&chain["last_seq"])
        )))?;
        for place in chain["breaks"].as_array().into_iter().flatten() {
            let reason = text(&place["reason"]);
            print::line(&print::plain(&format!("  at {}: {reason}", text(&place["seq"]))))?;
        }
    }
    Ok(Outcome::of(whole))
}

fn list(args: &LiveArgs, path: &str, key: &str, columns: &[Column]) -> Result<Outcome, Failure> {
    let answer = request(&args.api, Method::GET, path, None)?.good()?;
    let items = answer.body[key].as_array().cloned().unwrap_or_default();
    rows(args, &items, key, columns)
}

fn rows(
    args: &LiveArgs,
    items: &[Value],
    key: &str,
    columns: &[Column],
) -> Result<Outcome, Failure> {
    if args.json {
        for item in items {
            print::json(item)?;
        }
    } else if items.is_empty() {
        print::line(&format!("no {key}"))?;
    } else {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(columns.iter().map(|(_, head)| *head));
        for item in items {
            table.add_row(columns.iter().map(|(key, _)| print::plain(&text(&item[*key]))));
        }
        print::line(&table.to_string())?;
    }
    Ok(Outcome::Passed)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Percent-encodes what may not stand in a path segment (RFC 3986 3.3).
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("%{octet:02X}"));
        }
    }
    out
}
