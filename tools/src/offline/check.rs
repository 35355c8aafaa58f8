//! `ravelin check`: a config file, before it is used.

use std::path::Path;

use ravelin_contract::link::FieldError;
use ravelin_edge::settings;

use crate::{
    cli::CheckArgs,
    exit::{Failure, Outcome},
    print,
};

pub(crate) fn run(args: &CheckArgs) -> Result<Outcome, Failure> {
    let name = args.file.display().to_string();
    let text = settings::read_document(&args.file).map_err(Failure::cannot_run)?;
    let mut warnings = Vec::new();
    let errors = match ravelin_policy::compile(&text, 0) {
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

fn describe(name: &str, severity: &str, fault: &FieldError) -> String {
    let line = fault.line.map(|line| format!("{line}:")).unwrap_or_default();
    print::plain(&format!("{name}:{line} {severity}: {}: {}", fault.path, fault.reason))
}

fn unusable(stir: &ravelin_policy::Stir, data: &Path) -> Vec<FieldError> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    settings::credentials(stir, data, now.unwrap_or_default().as_secs()).faults
}
