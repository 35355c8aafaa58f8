//! `ravelin stir cert check`: what the data plane thinks of certificate chains.

use std::path::PathBuf;

use clap::Args;
use ravelin_stir::{
    cert::{
        Certificate, TnEntry,
        certificate::{Extension, KeyType},
        check_url, path,
    },
    outcome::Reason,
    sign::Signer,
};
use serde::Serialize;

use super::{read, time, verify::TrustArgs};
use crate::{
    exit::{Failure, Outcome},
    print,
};

/// Any URL that verifiers accept: stands for the one that was not given.
const SOME_URL: &str = "https://certificate.example/chain.pem";

const DAY_S: i64 = 24 * 3600;

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Certificate chains, PEM (leaf first) or DER
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Private key that must be the leaf's
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// URL that the chain is published under, checked against the policy of verifiers
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Do not pass a certificate that ends within so many days: time to renew
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    days: u32,
    /// One JSON object per file
    #[arg(long)]
    json: bool,
}

#[derive(Default, Serialize)]
struct Line {
    file: String,
    /// `passed`, `bad-cred`, or `bad-info` for the URL.
    outcome: &'static str,
    cause: Option<u16>,
    reason: &'static str,
    detail: Option<String>,
    subject: Option<String>,
    issuer: Option<String>,
    serial: Option<String>,
    not_before: Option<String>,
    not_after: Option<String>,
    /// Whole days until the leaf's end; negative after it.
    days_left: Option<i64>,
    key: Option<&'static str>,
    tn_auth_list: Vec<String>,
    claim_constraints: bool,
    certificates: usize,
    /// Subjects from the leaf to the trust anchor.
    path: Vec<String>,
}

pub(crate) fn run(args: &CheckArgs) -> Result<Outcome, Failure> {
    if args.trust.ca.is_empty() {
        eprintln!("ravelin: no --ca, so no certificate is trusted");
    }
    let key = args.key.as_ref().map(|path| read(path)).transpose()?;
    let mut passed = true;
    for file in &args.files {
        let mut line = check(args, &read(file)?, key.as_deref(), &file.to_string_lossy())?;
        let soon = line.days_left.is_some_and(|left| left < i64::from(args.days));
        if line.cause.is_none() && soon {
            line.reason = "expires_soon";
        }
        passed &= line.cause.is_none() && !soon;
        if args.json {
            print::json(&line)?;
        } else {
            show(&line)?;
        }
    }
    Ok(Outcome::of(passed))
}

fn check(args: &CheckArgs, body: &[u8], key: Option<&[u8]>, name: &str) -> Result<Line, Failure> {
    let url = args.url.as_deref().unwrap_or(SOME_URL);
    let mut line =
        Line { file: name.to_owned(), outcome: "passed", reason: "valid", ..Line::default() };
    if let Ok(chain) = path::read_chain(body) {
        line.certificates = chain.len();
        if let Some(leaf) = chain.first() {
            describe(leaf, &mut line);
            let now = i64::try_from(args.trust.now_unix()).unwrap_or(i64::MAX);
            line.days_left = Some(leaf.not_after.saturating_sub(now).div_euclid(DAY_S));
        }
    }
    let mut builder = args.trust.builder()?;
    builder.chain_pem(url, body);
    let trust = args.trust.build(builder);
    match trust.chain(url, args.trust.now_unix()) {
        Ok(chain) => line.path = chain.path().iter().map(|one| one.subject.clone()).collect(),
        Err(reason) => refuse(&mut line, reason, None),
    }
    if let Err(error) = check_url(url.as_bytes()) {
        refuse(&mut line, Reason::InfoPolicy, Some(error.to_string()));
    }
    if let (Some(key), None) = (key, line.cause)
        && let Err(error) = Signer::load(body, key, url, args.trust.now_unix())
    {
        refuse(&mut line, Reason::KeyType, Some(error.to_string()));
        line.reason = "key";
    }
    Ok(line)
}

fn refuse(line: &mut Line, reason: Reason, detail: Option<String>) {
    line.outcome = reason.outcome().label();
    line.cause = reason.outcome().cause();
    line.reason = reason.label();
    line.detail = detail;
}

fn describe(leaf: &Certificate, line: &mut Line) {
    line.subject = Some(leaf.subject.clone());
    line.issuer = Some(leaf.issuer.clone());
    line.serial = Some(leaf.serial.iter().map(|octet| format!("{octet:02x}")).collect());
    line.not_before = Some(time::format(leaf.not_before));
    line.not_after = Some(time::format(leaf.not_after));
    line.key = Some(match leaf.public_key.key_type {
        KeyType::P256 => "P-256",
        KeyType::P384 => "P-384",
        KeyType::P521 => "P-521",
        KeyType::Rsa => "RSA",
        KeyType::Other => "other",
    });
    line.claim_constraints = !matches!(leaf.claim_constraints, Extension::Absent);
    let entries = leaf.tn_auth_list.present().map_or(&[][..], |list| list.entries());
    line.tn_auth_list = entries
        .iter()
        .map(|entry| match entry {
            TnEntry::Spc(code) => format!("spc {code}"),
            TnEntry::Range { start, count } => format!("range {start} count {count}"),
            TnEntry::One(tn) => format!("one {tn}"),
            TnEntry::InvalidRange => "invalid range".to_owned(),
        })
        .collect();
}

fn show(line: &Line) -> Result<(), Failure> {
    let name = print::plain(&line.file);
    print::line(&format!("{name} {} reason={}", line.outcome, line.reason))?;
    let field = |key: &str, value: &Option<String>| match value {
        Some(value) => print::line(&format!("  {key}: {}", print::plain(value))),
        None => Ok(()),
    };
    field("detail", &line.detail)?;
    field("subject", &line.subject)?;
    field("issuer", &line.issuer)?;
    field("serial", &line.serial)?;
    field("valid from", &line.not_before)?;
    field("valid until", &line.not_after)?;
    field("key", &line.key.map(str::to_owned))?;
    for entry in &line.tn_auth_list {
        field("for", &Some(entry.clone()))?;
    }
    for subject in &line.path {
        field("path", &Some(subject.clone()))?;
    }
    Ok(())
}
