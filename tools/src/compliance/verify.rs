//! `ravelin verify karis-law`: against the running control plane, or a config file alone.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ravelin_control::{karis, publish};
use ravelin_edge::{settings, telemetry::utc_time};
use ravelin_policy::Document;
use reqwest::Method;
use serde_json::Value;

use super::{
    args::{KarisLawArgs, VerifyArgs, VerifyCommand},
    text,
};
use crate::{
    client,
    exit::{Failure, Outcome},
    print,
};

pub(crate) fn run(args: &VerifyArgs) -> Result<Outcome, Failure> {
    match &args.command {
        VerifyCommand::KarisLaw(args) => karis_law(args),
    }
}

fn karis_law(args: &KarisLawArgs) -> Result<Outcome, Failure> {
    let report = match &args.config {
        Some(file) => of_file(file)?,
        None => {
            let path = "/api/compliance/karis-law";
            client::request(&args.api, Method::GET, path, None)?.good()?.body
        }
    };
    let passed = report["passed"].as_bool().ok_or_else(|| {
        Failure::cannot_run("the control plane answered without a verdict; is it the same release?")
    })?;
    if args.json {
        print::json(&report)?;
    } else {
        show(&report)?;
    }
    Ok(Outcome::of(passed))
}

fn of_file(file: &Path) -> Result<Value, Failure> {
    let document = settings::read_document(file).map_err(Failure::cannot_run)?;
    let not_valid = |errors: Vec<ravelin_contract::link::FieldError>| {
        let errors = settings::one_line(&errors);
        Failure::cannot_run(format!("{} is not valid: {errors}", file.display()))
    };
    let snapshot = ravelin_policy::compile(&document, 0).map_err(not_valid)?.snapshot;
    let raw = Document::from_yaml(&document).map_err(not_valid)?;
    let contacts = publish::contacts_of(&snapshot.features);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let now = utc_time(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let report = karis::of_file(&raw, &snapshot, &contacts, now);
    serde_json::to_value(report).map_err(|error| Failure::cannot_run(error.to_string()))
}

fn show(report: &Value) -> Result<(), Failure> {
    let mut counts = [0_usize; 4];
    for check in report["checks"].as_array().into_iter().flatten() {
        let result = text(&check["result"]);
        let at = ["pass", "warn", "fail", "skip"].iter().position(|name| *name == result);
        if let Some(count) = at.and_then(|at| counts.get_mut(at)) {
            *count += 1;
        }
        let (id, what) = (text(&check["id"]), text(&check["text"]));
        print::line(&print::plain(&format!("{result:<5} {id:<20} {what}")))?;
        let details = check["details"].as_array().cloned().unwrap_or_default();
        for detail in &details {
            print::line(&print::plain(&format!("        {}", text(detail))))?;
        }
        let total = check["details_total"].as_u64().unwrap_or_default();
        let more = total.saturating_sub(u64::try_from(details.len()).unwrap_or(u64::MAX));
        if more > 0 {
            print::line(&format!("        and {more} more"))?;
        }
        if !check["todo"].is_null() {
            print::line(&print::plain(&format!("      > {}", text(&check["todo"]))))?;
        }
    }
    let [pass, warn, fail, skip] = counts;
    print::line(&format!("{pass} passed, {warn} warnings, {fail} failed, {skip} skipped"))?;
    print::line("Not checked, because no software can:")?;
    for duty in report["operator_duties"].as_array().into_iter().flatten() {
        print::line(&print::plain(&format!("  - {}", text(duty))))?;
    }
    Ok(())
}
