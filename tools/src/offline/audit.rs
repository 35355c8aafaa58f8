//! `ravelin audit`: the hash chain on disk, checked and exported.

use std::path::{Path, PathBuf};

use ravelin_contract::chain::{Entry, Record};
use ravelin_edge::{
    spool::{self, Verification},
    telemetry::utc_time,
};
use serde_json::json;

use crate::{
    cli::{AuditExportArgs, AuditVerifyArgs, ExportFormat},
    client,
    exit::{Failure, Outcome},
    print,
};

pub(crate) fn verify(args: &AuditVerifyArgs) -> Result<Outcome, Failure> {
    if let Some(url) = &args.url {
        return client::live::audit_verify(url, args);
    }
    let dir = audit_dir(&args.data)?;
    let found = spool::verify(&dir).map_err(|error| cannot_read(&dir, &error))?;
    if args.json {
        print::json(&json!({
            "verdict": if found.fault.is_none() { "intact" } else { "broken" },
            "records": found.records,
            "first": found.range.map(|(first, _)| first),
            "last": found.range.map(|(_, last)| last),
            "gaps": found.gaps.iter().map(|(seq, reason)| json!({"seq": seq, "reason": reason})).collect::<Vec<_>>(),
            "file": found.fault.as_ref().map(|(file, _)| file.display().to_string()),
            "reason": found.fault.as_ref().map(|(_, error)| error.to_string()),
        }))?;
        return Ok(Outcome::of(found.fault.is_none()));
    }
    let range = found.range.map_or_else(
        || "no records".to_owned(),
        |(first, last)| format!("records {first} to {last}"),
    );
    for (seq, reason) in &found.gaps {
        print::line(&print::plain(&format!("gap at record {seq}: {reason}")))?;
    }
    match &found.fault {
        None => {
            print::line(&format!("intact: {range}, {} gaps told", found.gaps.len()))?;
            Ok(Outcome::Passed)
        }
        Some((file, error)) => {
            print::line(&format!("broken: {range} hold, then {}: {error}", file.display()))?;
            Ok(Outcome::NotPassed)
        }
    }
}

pub(crate) fn export(args: &AuditExportArgs) -> Result<Outcome, Failure> {
    let dir = audit_dir(&args.data)?;
    if matches!(args.format, ExportFormat::Csv) {
        print::line("seq,time,type,kind,severity,call,entry,hash")?;
    }
    let mut failure = None;
    let found: Verification = spool::verify_each(&dir, |record| {
        if failure.is_none() {
            let line = match args.format {
                ExportFormat::Jsonl => serde_json::to_string(record).map_err(|e| e.to_string()),
                ExportFormat::Csv => csv(record),
            };
            failure = line.map_err(Failure::cannot_run).and_then(|line| print::line(&line)).err();
        }
    })
    .map_err(|error| cannot_read(&dir, &error))?;
    match (failure, found.fault) {
        (Some(failure), _) => Err(failure),
        (None, Some((file, error))) => Err(Failure::not_passed(format!(
            "the chain breaks in {}: {error}; records from there on were not exported",
            file.display()
        ))),
        (None, None) => Ok(Outcome::Passed),
    }
}

fn csv(record: &Record) -> Result<String, String> {
    let entry = record.entry.get();
    let (kind_of, time, kind, severity, call) =
        match serde_json::from_str(entry).map_err(|error| error.to_string())? {
            Entry::Audit(event) => {
                let severity = format!("{:?}", event.severity).to_lowercase();
                ("audit", event.unix_ms, event.kind, severity, event.call)
            }
            Entry::Cdr(cdr) => {
                let kind = format!("{:?}", cdr.kind).to_lowercase();
                ("cdr", cdr.start_unix_ms, kind, String::new(), Some(cdr.call))
            }
            Entry::Gap { unix_ms, reason, .. } => ("gap", unix_ms, reason, String::new(), None),
        };
    let call = call.unwrap_or_default();
    let fields = [
        record.seq.to_string(),
        utc_time(time),
        kind_of.to_owned(),
        kind,
        severity,
        call,
        entry.to_owned(),
        record.hash.clone(),
    ];
    Ok(fields.map(|field| quote(&field)).join(","))
}

/// RFC 4180 quoting, where needed. A leading sign that a spreadsheet would run as a formula is
/// kept as text by an apostrophe.
pub(crate) fn quote(field: &str) -> String {
    let field = if field.starts_with(['=', '+', '-', '@']) {
        format!("'{field}")
    } else {
        field.to_owned()
    };
    if field.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field
    }
}

fn audit_dir(data: &Path) -> Result<PathBuf, Failure> {
    let dir = data.join("audit");
    if dir.is_dir() {
        Ok(dir)
    } else {
        let text = format!("{} has no audit log; give --data DIR", data.display());
        Err(Failure::cannot_run(text))
    }
}

fn cannot_read(dir: &Path, error: &std::io::Error) -> Failure {
    Failure::cannot_run(format!("{} cannot be read: {error}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn fields_cannot_leave_their_cell() {
        assert_eq!(quote("plain"), "plain");
        assert_eq!(quote("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quote("=1+1"), "'=1+1");
        assert_eq!(quote("x\r\ny"), "\"x\r\ny\"");
    }
}
