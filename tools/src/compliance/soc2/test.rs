//! `ravelin soc2 test`: runs the tests, judges each control, and records what was found.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ravelin_edge::{settings, telemetry::utc_time};
use ravelin_policy::Document;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    args::TestArgs,
    outside::{self, Test},
    probe::Probe,
};
use crate::{
    compliance::text,
    exit::{Failure, Outcome},
    print,
};

const CONTROLS: &str = "/api/framework/compliance/soc2/controls";
const CONTROL: &str = "/api/framework/compliance/soc2/control";
const DRILL: &str = "/api/framework/compliance/soc2/drill";

/// The controls of the source documents; all must be registered.
const DEFAULT: [&str; 16] = [
    "CC1.1", "CC1.2", "CC2.1", "CC3.1", "CC5.1", "CC6.1", "CC6.2", "CC6.6", "CC7.1", "CC7.2",
    "A1.1", "A1.2", "PI1.1", "PI1.2", "C1.1", "C1.2",
];
/// A test older than this is not periodic.
const PERIOD_MS: u64 = 90 * 86_400_000;

/// What was found of one control.
struct Found {
    category: String,
    /// `None`: nothing that a program could test.
    passed: Option<bool>,
    details: String,
    tests: Vec<Value>,
}

pub(super) fn run(args: &TestArgs) -> Result<Outcome, Failure> {
    let mut api = args.api.clone();
    if let Some(file) = &args.config {
        api.url = url_of(file)?;
    }
    let probe = Probe::new(&api)?;
    let controls = probe.own(&Method::GET, CONTROLS, None)?.good(CONTROLS)?;
    let known: Vec<(String, String)> = controls["controls"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| (text(&one["control_id"]), text(&one["control_category"])))
        .collect();
    if let Some(unknown) = args.control.iter().find(|id| !known.iter().any(|(one, _)| one == *id)) {
        return Err(Failure::cannot_run(format!(
            "there is no control {unknown:?}; see {CONTROLS}"
        )));
    }
    let wanted = |id: &str| args.control.is_empty() || args.control.iter().any(|one| one == id);
    let mut tests = inside(&probe, wanted)?;
    tests.extend(outside::run(&probe, wanted)?);
    let at = now();
    let found: BTreeMap<String, Found> = known
        .into_iter()
        .filter(|(id, _)| wanted(id))
        .map(|(id, category)| {
            let found = judge(category, tests.iter().filter(|test| test.control_id == id));
            (id, found)
        })
        .collect();
    if !args.no_record {
        record(&probe, &found, &at)?;
    }
    let controls = probe.own(&Method::GET, CONTROLS, None)?.good(CONTROLS)?;
    let framework = framework(&controls["controls"]);
    let count = |outcome: Option<bool>| found.values().filter(|one| one.passed == outcome).count();
    let (passed, failed, skipped) = (count(Some(true)), count(Some(false)), count(None));
    let sound = failed == 0 && framework.iter().all(|(_, passed, _)| *passed);
    if args.json {
        let controls: BTreeMap<&String, Value> = found
            .iter()
            .map(|(id, one)| {
                let tested_at = one.passed.map(|_| at.clone());
                let value = json!({
                    "passed": one.passed,
                    "details": one.details,
                    "category": one.category,
                    "tested_at": tested_at,
                    "tests": one.tests,
                });
                (id, value)
            })
            .collect();
        let framework: BTreeMap<&str, Value> = framework
            .iter()
            .map(|(name, passed, text)| (*name, json!({"passed": passed, "details": text})))
            .collect();
        print::json(&json!({
            "timestamp": at,
            "total_controls": found.len(),
            "passed": passed,
            "failed": failed,
            "skipped": skipped,
            "recorded": !args.no_record,
            "controls": controls,
            "framework": framework,
        }))?;
        return Ok(Outcome::of(sound));
    }
    if !args.quiet {
        for (id, one) in &found {
            let mark = match one.passed {
                Some(true) => "pass",
                Some(false) => "FAIL",
                None => "skip",
            };
            print::line(&print::plain(&format!("{mark}  {id:<6} {}", one.details)))?;
        }
        for (name, passed, text) in &framework {
            let mark = if *passed { "pass" } else { "FAIL" };
            print::line(&print::plain(&format!("{mark}  {name:<24} {text}")))?;
        }
    }
    let total = found.len();
    print::line(&format!("{total} controls: {passed} passed, {failed} failed, {skipped} skipped"))?;
    Ok(Outcome::of(sound))
}

/// Where the control plane of a config file answers.
fn url_of(file: &Path) -> Result<String, Failure> {
    let text = settings::read_document(file).map_err(Failure::cannot_run)?;
    let document = Document::from_yaml(&text).map_err(|errors| {
        let errors = settings::one_line(&errors);
        Failure::cannot_run(format!("{} is not valid: {errors}", file.display()))
    })?;
    let control = document.config.control.ok_or_else(|| {
        Failure::cannot_run(format!("{} has no control block; give --url", file.display()))
    })?;
    let scheme = if control.tls.is_some() { "https" } else { "http" };
    Ok(format!("{scheme}://{}", control.listen))
}

fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    utc_time(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// The tests that the control plane runs on itself.
fn inside(probe: &Probe, wanted: impl Fn(&str) -> bool) -> Result<Vec<Test>, Failure> {
    let reply = probe.own(&Method::POST, DRILL, None)?;
    if reply.status == 403 {
        let text = "an admin or auditor token is needed: give --token, RAVELIN_TOKEN or --data";
        return Err(Failure::cannot_run(text));
    }
    let answer = reply.good(DRILL)?;
    let tests = answer["tests"].as_array().into_iter().flatten();
    let tests = tests.map(|test| Test {
        control_id: text(&test["control_id"]),
        name: text(&test["name"]),
        outcome: match test["outcome"].as_str() {
            Some("passed") => "passed",
            Some("skipped") => "skipped",
            _ => "failed",
        },
        details: text(&test["details"]),
    });
    Ok(tests.filter(|test| wanted(&test.control_id)).collect())
}

fn judge<'t>(category: String, tests: impl Iterator<Item = &'t Test>) -> Found {
    let (mut passed, mut failed, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    let mut all = Vec::new();
    for test in tests {
        let line = format!("{}: {}", test.name, test.details);
        match test.outcome {
            "passed" => passed.push(line),
            "skipped" => skipped.push(line),
            _ => failed.push(line),
        }
        all.push(json!({"name": test.name, "outcome": test.outcome, "details": test.details}));
    }
    let (verdict, details) = if !failed.is_empty() {
        (Some(false), failed.join("; "))
    } else if !passed.is_empty() {
        passed.extend(skipped.into_iter().map(|line| format!("not run: {line}")));
        (Some(true), passed.join("; "))
    } else if !skipped.is_empty() {
        (None, skipped.join("; "))
    } else {
        let text = "no program can test this; record what people found with the control's route";
        (None, text.to_owned())
    };
    Found { category, passed: verdict, details, tests: all }
}

/// Appends each result to the tests of its control, with what was seen as evidence.
fn record(probe: &Probe, found: &BTreeMap<String, Found>, at: &str) -> Result<(), Failure> {
    for (id, one) in found {
        let word = match one.passed {
            Some(true) => "PASSED",
            Some(false) => "FAILED",
            None => continue,
        };
        let evidence = json!({
            "command": "ravelin soc2 test",
            "software": env!("CARGO_PKG_VERSION"),
            "tested_at": at,
            "tests": one.tests,
        });
        let body = json!({
            "control_id": id,
            "test_results": format!("{word} - {} (Tested: {at})", one.details),
            "evidence": {"media_type": "application/json", "content": evidence.to_string()},
        });
        probe.own(&Method::POST, CONTROL, Some(&body))?.good(CONTROL)?;
    }
    Ok(())
}

/// What the source documents ask of the framework itself. A control that is not marked implemented
/// claims nothing, so nothing is asked of it.
fn framework(controls: &Value) -> Vec<(&'static str, bool, String)> {
    let all: Vec<&Value> = controls.as_array().into_iter().flatten().collect();
    let missing: Vec<&str> =
        DEFAULT.into_iter().filter(|id| !all.iter().any(|one| one["control_id"] == *id)).collect();
    let implemented: Vec<&&Value> =
        all.iter().filter(|one| one["implementation_status"] == "implemented").collect();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let oldest = u64::try_from(now_ms.as_millis()).unwrap_or(0).saturating_sub(PERIOD_MS);
    let oldest = utc_time(oldest);
    let without = |fits: &dyn Fn(&Value) -> bool| -> Vec<String> {
        implemented.iter().filter(|one| !fits(one)).map(|one| text(&one["control_id"])).collect()
    };
    let starts = |one: &Value, word: &str| {
        let results = text(&one["test_results"]).to_ascii_lowercase();
        results.trim_start().starts_with(word)
    };
    let failing = without(&|one| !starts(one, "fail"));
    let undocumented = without(&|one| one["test_results"].is_string());
    // Both are RFC 3339 in UTC, so that they sort as text.
    let stale = without(&|one| one["last_tested"].as_str().is_some_and(|at| at >= oldest.as_str()));
    let count = implemented.len();
    let line = |faults: &[String], good: String| {
        if faults.is_empty() { good } else { faults.join(", ") }
    };
    vec![
        (
            "all registered",
            missing.is_empty(),
            if missing.is_empty() {
                format!("{} controls, the 16 default ones among them", all.len())
            } else {
                format!("missing: {}", missing.join(", "))
            },
        ),
        (
            "status current",
            failing.is_empty(),
            line(&failing, format!("{count} marked implemented, none whose last test failed")),
        ),
        (
            "results documented",
            undocumented.is_empty(),
            line(&undocumented, format!("{count} marked implemented, each with a test result")),
        ),
        (
            "periodic testing",
            stale.is_empty(),
            line(&stale, format!("{count} marked implemented, each tested within 90 days")),
        ),
    ]
}
