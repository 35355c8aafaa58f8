//! Log lines of the control plane: the form of the edge's, `TIME LEVEL PART: TEXT`, on standard
//! error; one JSON object each when the environment says `RAVELIN_LOG=json`.

use std::fmt;

use ravelin_contract::audit::{AuditEvent, Severity};
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    filter::Targets,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::clock;

/// Begins to write log lines. A second call changes nothing.
pub fn start() {
    let json = std::env::var_os("RAVELIN_LOG").is_some_and(|value| value == "json");
    // What libraries say below a warning is for their developers.
    let wanted = Targets::new()
        .with_default(Level::WARN)
        .with_target("ravelin_control", Level::INFO)
        .with_target("audit", Level::INFO);
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Lines { json })
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // Whoever runs a server inside a program of its own has its own subscriber.
    let _ = tracing_subscriber::registry().with(wanted).with(lines).try_init();
}

/// The line of an audit event: what the source documents word, or its kind and actor.
pub fn audit(event: &AuditEvent) {
    let line = event.line();
    let text = line.as_deref().unwrap_or(&event.kind);
    let kind = Some(&*event.kind).filter(|kind| *kind != text);
    let actor = event.actor.as_deref();
    match event.severity {
        Severity::Info => tracing::info!(target: "audit", kind, actor, "{text}"),
        Severity::Warning => tracing::warn!(target: "audit", kind, actor, "{text}"),
        Severity::Error | Severity::Alarm | Severity::Critical => {
            tracing::error!(target: "audit", kind, actor, "{text}");
        }
    }
}

/// UTC, always with milliseconds, so that lines stand in columns and sort as text.
fn time() -> String {
    let unix_ms = clock::unix_ms();
    let seconds = clock::rfc3339(unix_ms - unix_ms % 1_000);
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), unix_ms % 1_000)
}

struct Lines {
    json: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let part = if metadata.target() == "audit" { "audit" } else { "control" };
        writeln!(writer, "{}", fields.line(self.json, level(*metadata.level()), part))
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    }
}

/// Text and named values of one event.
#[derive(Default)]
struct Fields {
    text: String,
    named: Map<String, Value>,
}

impl Fields {
    fn line(self, json: bool, level: &str, part: &str) -> String {
        let time = time();
        if json {
            let mut line = Map::new();
            for (key, value) in
                [("time", &*time), ("level", level), ("part", part), ("text", &self.text)]
            {
                line.insert(key.into(), value.into());
            }
            // A field cannot take the place of one of those above.
            for (key, value) in self.named {
                line.entry(key).or_insert(value);
            }
            return Value::Object(line).to_string();
        }
        let mut line = format!("{time} {level} {part}: {}", self.text);
        for (key, value) in self.named {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            line.push_str(&format!(" {key}={text}"));
        }
        // A control character in what a peer sent must not forge a second line.
        line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    }

    fn take(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            self.text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        } else {
            self.named.insert(field.name().to_owned(), value);
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        let mut named = Map::new();
        named.insert("node".into(), "edge-1\n2026 error".into());
        named.insert("level".into(), "forged".into());
        Fields { text: "a link was refused".into(), named }
    }

    #[test]
    fn a_line_has_the_form_of_the_edges_and_stays_one() {
        let line = fields().line(false, "warning", "control");
        let (_, rest) = line.split_once(' ').unwrap();
        assert_eq!(
            rest,
            "warning control: a link was refused level=forged node=edge-1\u{fffd}2026 error"
        );
    }

    #[test]
    fn json_names_the_same_things_and_no_field_takes_their_place() {
        let line = fields().line(true, "warning", "control");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["level"], &value["part"]), (&"warning".into(), &"control".into()));
        assert_eq!(value["text"], "a link was refused");
        assert_eq!(value["node"], "edge-1\n2026 error");
        assert!(!line.contains('\n'));
        assert_eq!(value["time"].as_str().unwrap().len(), "2026-11-22T05:27:24.480Z".len());
    }
}
