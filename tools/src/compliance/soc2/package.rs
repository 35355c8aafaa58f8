//! `ravelin soc2 package`: fetches the audit package, checks it, writes it; or checks one on disk.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use ravelin_control::{
    clock, ident,
    soc2::package::{self, Whole},
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{args::PackageArgs, probe::Probe};
use crate::{
    exit::{Failure, Outcome},
    print,
};

/// Length of the period when no first day is given.
const YEAR_MS: u64 = 364 * 86_400_000;

pub(super) fn run(args: &PackageArgs) -> Result<Outcome, Failure> {
    if let Some(file) = &args.verify {
        let read = |file: &Path| {
            fs::read(file)
                .map_err(|error| Failure::cannot_run(format!("{}: {error}", file.display())))
        };
        let key = args.key.as_deref().map(read).transpose()?;
        return show(file, &read(file)?, key.as_deref(), args.json);
    }
    let (from, to) = period(args)?;
    let out = args.out.clone().unwrap_or_else(|| format!("ravelin-soc2-{from}-{to}.tar").into());
    let probe = Probe::new(&args.api)?;
    let path = format!("/api/framework/compliance/soc2/package?from={from}&to={to}");
    let (status, bytes) = probe.bytes(&Method::GET, &path, Some(&probe.token), None)?;
    if status != 200 {
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let fields = body["fields"].as_object().into_iter().flatten();
        let fields: String = fields
            .map(|(name, reason)| format!("; {name} {}", reason.as_str().unwrap_or_default()))
            .collect();
        let text = body["error"].as_str().unwrap_or("no reason was given");
        return Err(Failure::cannot_run(format!("{text}{fields} ({status})")));
    }
    write(&out, &bytes)?;
    show(&out, &bytes, None, args.json)
}

/// First and last day. What is sent is a day or nothing: it goes into a path.
fn period(args: &PackageArgs) -> Result<(String, String), Failure> {
    for (name, day) in [("--from", &args.from), ("--to", &args.to)] {
        let Some(day) = day else { continue };
        let digits = day.bytes().all(|octet| octet.is_ascii_digit() || octet == b'-');
        if day.len() != 10 || !digits || clock::parse_ms(day).is_none() {
            return Err(Failure::cannot_run(format!("{name} {day:?} is no day; give YYYY-MM-DD")));
        }
    }
    let to_ms = args.to.as_deref().and_then(clock::parse_ms).unwrap_or_else(clock::unix_ms);
    let day = |ms: u64| clock::rfc3339(ms).chars().take(10).collect::<String>();
    let to = day(to_ms);
    let from = args.from.clone().unwrap_or_else(|| day(to_ms.saturating_sub(YEAR_MS)));
    Ok((from, to))
}

/// Beside its place first: a package is there whole, or not at all. Only the owner may read it.
fn write(out: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut name = out.as_os_str().to_owned();
    name.push(".part");
    let temporary = Path::new(&name);
    let written = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(temporary, out)
    };
    written().map_err(|error| Failure::cannot_run(format!("{}: {error}", out.display())))
}

fn show(file: &Path, bytes: &[u8], key: Option<&[u8]>, as_json: bool) -> Result<Outcome, Failure> {
    let name = file.display().to_string();
    let sha256 = ident::sha256_hex(bytes);
    match package::verify(bytes, key) {
        Ok(Whole { manifest, signer }) => {
            if as_json {
                print::json(&json!({
                    "file": name,
                    "whole": true,
                    "sha256": sha256,
                    "signer": signer,
                    "size": bytes.len(),
                    "from": manifest.from,
                    "to": manifest.to,
                    "controls": manifest.controls,
                    "tests": manifest.tests,
                    "evidence": manifest.evidence,
                    "audit_events": manifest.audit_events,
                    "chains_intact": manifest.chains_intact,
                    "faults": [],
                }))?;
            } else {
                print::line(&format!("{name}: whole, {} octets, sha256 {sha256}", bytes.len()))?;
                print::line(&print::plain(&format!(
                    "{} to {}: {} controls, {} tests, {} pieces of evidence, {} audit events",
                    manifest.from,
                    manifest.to,
                    manifest.controls,
                    manifest.tests,
                    manifest.evidence,
                    manifest.audit_events
                )))?;
                print::line(&format!("signed with the key {signer}"))?;
                let chains = if manifest.chains_intact { "whole" } else { "BROKEN" };
                print::line(&format!("chains of records: {chains}"))?;
            }
            Ok(Outcome::of(manifest.chains_intact))
        }
        Err(faults) => {
            if as_json {
                print::json(&json!({
                    "file": name,
                    "whole": false,
                    "sha256": sha256,
                    "size": bytes.len(),
                    "faults": faults,
                }))?;
            } else {
                for fault in &faults {
                    print::line(&print::plain(&format!("{name}: {fault}")))?;
                }
            }
            Err(Failure::not_passed(format!("{name} is not whole: {} faults", faults.len())))
        }
    }
}
