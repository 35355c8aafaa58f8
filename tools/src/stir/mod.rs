//! `ravelin stir`: sign, verify and make certificates offline, with the code of the data plane.
//! Nothing here opens a connection: certificates come from files.

mod cert;
mod check;
mod issue;
mod message;
mod sign;
mod time;
mod verify;

use std::{fs, path::Path};

use clap::{Args, Subcommand};
use ravelin_stir::tn::NumberPlan;

use crate::exit::{Failure, Outcome};

/// Arguments of `ravelin stir`.
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct StirArgs {
    #[command(subcommand)]
    command: StirCommand,
}

#[derive(Debug, Subcommand)]
enum StirCommand {
    /// Write a SHAKEN Identity header value, or sign a SIP message
    #[command(
        after_help = "Examples:\n  ravelin stir sign --cert sp.pem --key sp.key --x5u https://cr.example.com/sp.pem \\\n      --attest A --orig +13135551000 --dest +12125550100\n  ravelin stir sign --cert sp.pem --key sp.key --x5u https://cr.example.com/sp.pem \\\n      --attest B --message invite.sip > signed.sip"
    )]
    Sign(sign::SignArgs),
    /// Judge the Identity headers of SIP messages
    #[command(
        after_help = "Examples:\n  ravelin stir verify --ca sti-ca.pem --cert https://cr.example.com/sp.pem=sp.pem invite.sip\n  ravelin stir verify --json --ca sti-ca.pem --cert sp.pem --at 2025-06-15T12:00:00Z *.sip\n\nExit code 0 if every message passed, 1 if not. Without --ca nothing is trusted."
    )]
    Verify(verify::VerifyArgs),
    /// Make, renew and check certificates
    Cert(cert::CertArgs),
}

/// How numbers without `+` in a message are completed (ST-14): `number_plan` of a trunk.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PlanArg {
    Nanp,
    E164,
}

impl PlanArg {
    const fn plan(self) -> NumberPlan<'static> {
        match self {
            Self::Nanp => NumberPlan::NANP,
            Self::E164 => NumberPlan::E164,
        }
    }
}

pub(crate) fn run(args: &StirArgs) -> Result<Outcome, Failure> {
    match &args.command {
        StirCommand::Sign(args) => sign::run(args),
        StirCommand::Verify(args) => verify::run(args),
        StirCommand::Cert(args) => cert::run(args),
    }
}

/// Read of one file at most: larger than any message, chain or revocation list.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let explain =
        |error| Failure::cannot_run(format!("{} cannot be read: {error}", path.display()));
    if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        use std::io::Read as _;
        std::io::stdin().lock().take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(explain)?;
        return Ok(bytes);
    }
    let length = fs::metadata(path).map_err(explain)?.len();
    if length > FILE_BYTES_MAX {
        return Err(Failure::cannot_run(format!("{} is larger than 64 MiB", path.display())));
    }
    fs::read(path).map_err(explain)
}

#[cfg(test)]
mod tests;
