//! `ravelin stir cert new` and `cert renew`; `cert check` is in its own file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use ravelin_stir::{
    cert::{Certificate, TnAuthList, TnEntry, pem},
    tn::{Tn, canonicalise},
};

use super::{
    check,
    issue::{self, Issued, Validity},
    read, time,
};
use crate::{
    exit::{Failure, Outcome},
    print,
};

const DAY_S: u64 = 24 * 3600;
/// Certificates begin a little in the past, for verifiers whose clock is behind.
const BACKDATE_S: u64 = 3600;

#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct CertArgs {
    #[command(subcommand)]
    command: CertCommand,
}

#[derive(Debug, Subcommand)]
enum CertCommand {
    /// Make a test authority and a certificate with a TNAuthList
    #[command(
        after_help = "Example:\n  ravelin stir cert new --out data/certs --spc 1234\n\nWrites sti-ca.pem, sti-ca.key, sp.pem (leaf and authority) and sp.key. For trials only: real\ncertificates come from an approved STI-CA."
    )]
    New(NewArgs),
    /// Issue a certificate anew, for the same numbers
    #[command(
        after_help = "Example:\n  ravelin stir cert renew --out data/certs\n\nReplaces sp.pem and sp.key, each whole; the old ones stay as sp.pem.old and sp.key.old. Publish\nthe new chain under a new URL, or keep the old one available for a day."
    )]
    Renew(RenewArgs),
    /// Check certificate chains as the data plane would
    #[command(
        after_help = "Examples:\n  ravelin stir cert check --ca sti-ca.pem sp.pem\n  ravelin stir cert check --json --ca sti-ca.pem --key sp.key --url https://cr.example.com/sp.pem sp.pem"
    )]
    Check(check::CheckArgs),
}

#[derive(Args, Debug)]
struct NewArgs {
    /// Folder to write to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Service provider code (repeatable)
    #[arg(long, value_name = "CODE")]
    spc: Vec<String>,
    /// A number that the certificate is for (repeatable)
    #[arg(long, value_name = "TN")]
    tn: Vec<String>,
    /// Numbers that the certificate is for (repeatable)
    #[arg(long, value_name = "START:COUNT")]
    range: Vec<String>,
    /// Name in the certificate
    #[arg(long, value_name = "TEXT", default_value = "SHAKEN")]
    name: String,
    /// Days that the certificate is valid; the authority's ten times as long
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
    /// Begin of the validity (default: an hour ago)
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    from: Option<u64>,
    /// Use this authority instead of a new one
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    ca: Option<PathBuf>,
    /// Key of that authority
    #[arg(long, value_name = "FILE", requires = "ca")]
    ca_key: Option<PathBuf>,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

#[derive(Args, Debug)]
struct RenewArgs {
    /// Folder with sti-ca.pem, sti-ca.key, sp.pem and sp.key
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Days that the certificate is valid
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
    /// Keep the key
    #[arg(long)]
    keep_key: bool,
}

pub(crate) fn run(args: &CertArgs) -> Result<Outcome, Failure> {
    match &args.command {
        CertCommand::New(args) => new(args),
        CertCommand::Renew(args) => renew(args),
        CertCommand::Check(args) => check::run(args),
    }
}

fn new(args: &NewArgs) -> Result<Outcome, Failure> {
    let numbers = numbers(args)?;
    let from = args.from.unwrap_or_else(|| time::now_unix().saturating_sub(BACKDATE_S));
    let validity = |days: u64| Validity { from, to: from + days * DAY_S };
    let file = |name: &str| args.out.join(name);
    let (ca, ca_key, sp, sp_key) =
        (file("sti-ca.pem"), file("sti-ca.key"), file("sp.pem"), file("sp.key"));
    let existing = [&ca, &ca_key, &sp, &sp_key].into_iter().find(|path| path.exists());
    if let (Some(path), false) = (existing, args.force) {
        return Err(Failure::cannot_run(format!(
            "{} is there already: give --force to replace it, or use cert renew",
            path.display()
        )));
    }
    let authority = match (&args.ca, &args.ca_key) {
        (Some(certificate), Some(key)) => load(certificate, key)?,
        _ => issue::authority(validity(args.days * 10))?,
    };
    let leaf = issue::leaf(&authority, &args.name, &numbers, validity(args.days), None)?;
    fs::create_dir_all(&args.out).map_err(|error| {
        Failure::cannot_run(format!("{} cannot be made: {error}", args.out.display()))
    })?;
    issue::write(&ca, &authority.certificate, false)?;
    issue::write(&ca_key, &authority.key, true)?;
    issue::write(&sp_key, &leaf.key, true)?;
    issue::write(&sp, &leaf.certificate, false)?;
    print::line(&format!("{} certificate", sp.display()))?;
    print::line(&format!("{} key", sp_key.display()))?;
    print::line(&format!("{} trust anchor", ca.display()))?;
    Ok(Outcome::Passed)
}

fn renew(args: &RenewArgs) -> Result<Outcome, Failure> {
    let file = |name: &str| args.out.join(name);
    let (sp, sp_key) = (file("sp.pem"), file("sp.key"));
    let authority = load(&file("sti-ca.pem"), &file("sti-ca.key"))?;
    let (old_pem, old_key) = (text(&sp)?, text(&sp_key)?);
    let old = pem::certificates(old_pem.as_bytes())
        .and_then(|ders| Certificate::from_der(ders.first()?).ok())
        .ok_or_else(|| Failure::cannot_run(format!("{} has no certificate", sp.display())))?;
    let numbers = old.tn_auth_list.present().ok_or_else(|| {
        Failure::cannot_run(format!("{} has no readable TNAuthList", sp.display()))
    })?;
    let name = old.subject.rsplit_once("CN=").map_or("SHAKEN", |(_, name)| name);
    let from = time::now_unix().saturating_sub(BACKDATE_S);
    let validity = Validity { from, to: from + args.days * DAY_S };
    let key = args.keep_key.then_some(old_key.as_str());
    let leaf = issue::leaf(&authority, name, numbers, validity, key)?;
    issue::write(&file("sp.pem.old"), &old_pem, false)?;
    issue::write(&file("sp.key.old"), &old_key, true)?;
    issue::write(&sp_key, &leaf.key, true)?;
    issue::write(&sp, &leaf.certificate, false)?;
    let end = i64::try_from(validity.to).unwrap_or(i64::MAX);
    print::line(&format!("{} valid until {}", sp.display(), time::format(end)))?;
    Ok(Outcome::Passed)
}

fn load(certificate: &Path, key: &Path) -> Result<Issued, Failure> {
    Ok(Issued { certificate: text(certificate)?, key: text(key)? })
}

fn text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read(path)?)
        .map_err(|_| Failure::cannot_run(format!("{} is no PEM text", path.display())))
}

fn numbers(args: &NewArgs) -> Result<TnAuthList, Failure> {
    let tn = |text: &str| -> Result<Tn, Failure> {
        canonicalise(text.as_bytes())
            .map_err(|error| Failure::cannot_run(format!("{}: {error}", print::plain(text))))
    };
    let mut entries: Vec<TnEntry> =
        args.spc.iter().map(|code| TnEntry::Spc(code.as_str().into())).collect();
    for text in &args.range {
        let wrong = || Failure::cannot_run("--range is START:COUNT, such as 13135551000:1000");
        let (start, count) = text.split_once(':').ok_or_else(wrong)?;
        let count = count.parse().map_err(|_| wrong())?;
        entries.push(TnEntry::Range { start: tn(start)?, count });
    }
    for text in &args.tn {
        entries.push(TnEntry::One(tn(text)?));
    }
    if entries.is_empty() {
        return Err(Failure::cannot_run(
            "give --spc, --tn or --range: what the certificate is for",
        ));
    }
    TnAuthList::new(entries).ok_or_else(|| {
        Failure::cannot_run("these codes and numbers form no TNAuthList: check --spc and --range")
    })
}
