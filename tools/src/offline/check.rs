//! `ravelin check`: a config file, before it is used.

use std::{fs, path::Path};

use ravelin_contract::link::FieldError;
use ravelin_edge::settings;

use crate::{
    cli::CheckArgs,
    exit::{Failure, Outcome},
    print,
};

pub(crate) fn run(args: &CheckArgs) -> Result<Outcome, Failure> {
    let name = args.file.display().to_string();
    let text = read(&args.file).map_err(Failure::cannot_run)?;
    let mut warnings = Vec::new();
    let errors = match text.and_then(|text| ravelin_policy::compile(&text, 0)) {
        Ok(compiled) => {
            warnings = compiled.warnings;
            match &args.data {
                Some(data) => unusable(&compiled.snapshot.stir, data),
                None => Vec::new(),
            }
        }
        Err(errors) => errors,
    };
    for (faults, severity) in [(&errors, "error"), (&warnings, "warning")] {
        for fault in faults {
            if args.json {
                print::json(&serde_json::json!({
                    "file": name,
                    "severity": severity,
                    "path": fault.path,
                    "line": fault.line,
                    "reason": fault.reason,
                }))?;
            } else {
                print::line(&describe(&name, severity, fault))?;
            }
        }
    }
    if errors.is_empty() {
        if !args.json {
            print::line(&format!("{name}: valid"))?;
        }
        return Ok(Outcome::Passed);
    }
    let count = errors.len();
    let plural = if count == 1 { "" } else { "s" };
    Err(Failure::not_passed(format!("{name} is not valid: {count} error{plural}")))
}

/// The text of a file that can be read. Outer error: it cannot; inner: it is no text, or too much.
fn read(path: &Path) -> Result<Result<String, Vec<FieldError>>, String> {
    let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
    if size > settings::DOCUMENT_BYTES_MAX {
        let most = settings::DOCUMENT_BYTES_MAX;
        let reason = format!("the file has {size} octets; at most {most} are read");
        return Ok(Err(vec![FieldError { path: String::new(), line: None, reason }]));
    }
    let octets = fs::read(path)
        .map_err(|error| format!("config file {} cannot be read: {error}", path.display()))?;
    Ok(String::from_utf8(octets).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = error.as_bytes().iter().take(good).filter(|octet| **octet == b'\n').count();
        let line = u32::try_from(before + 1).ok();
        let reason = "not UTF-8: save the file in that encoding".to_owned();
        vec![FieldError { path: String::new(), line, reason }]
    }))
}

fn describe(name: &str, severity: &str, fault: &FieldError) -> String {
    let line = fault.line.map(|line| format!("{line}:")).unwrap_or_default();
    let path = if fault.path.is_empty() { String::new() } else { format!("{}: ", fault.path) };
    print::plain(&format!("{name}:{line} {severity}: {path}{}", fault.reason))
}

fn unusable(stir: &ravelin_policy::Stir, data: &Path) -> Vec<FieldError> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    settings::credentials(stir, data, now.unwrap_or_default().as_secs()).faults
}
