//! Arguments of `ravelin soc2`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::ApiArgs;

#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Soc2Args {
    #[command(subcommand)]
    pub(crate) command: Soc2Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Soc2Command {
    /// Test the controls against the running system, and record the results with their evidence
    #[command(
        after_help = "Examples:\n  ravelin soc2 test --data /var/lib/ravelin\n  ravelin soc2 test --control CC6.2 --control A1.2 --json\n  ravelin soc2 test --no-record --quiet\n\nIt asks every route without a token, tries with each role what it may not do, sends bad configs, and\nhas the control plane restore and tamper with a copy of its store. An admin token is needed for the\nroles, and an admin or auditor token to record. The configuration in force is not changed.\n\nExit code 0: no test failed; 1: one failed; 2: could not run."
    )]
    Test(TestArgs),
    /// Write the audit package of a period, or check one
    #[command(
        after_help = "Examples:\n  ravelin soc2 package --from 2026-01-01 --to 2026-06-30 --out audit.tar\n  ravelin soc2 package --verify audit.tar --key evidence.pub\n\nBoth days belong to the period, UTC. The same state gives the same octets; keep the digest that is\nprinted apart from the file. Exit code 0: made, or whole; 1: not whole, or a chain of records is\nbroken; 2: could not run."
    )]
    Package(PackageArgs),
}

#[derive(Args, Debug)]
pub(crate) struct TestArgs {
    /// Config file of the control plane: its control.listen says where to ask, in place of --url
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Only this control; may be repeated
    #[arg(long, value_name = "ID")]
    pub(crate) control: Vec<String>,
    /// Record nothing
    #[arg(long)]
    pub(crate) no_record: bool,
    /// Only the closing line
    #[arg(long, conflicts_with = "json")]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PackageArgs {
    /// First day of the period, UTC; a year before the last one without it
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub(crate) from: Option<String>,
    /// Last day of the period, which belongs to it; today without it
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub(crate) to: Option<String>,
    /// File to write, one that exists is replaced; ravelin-soc2-FROM-TO.tar here without it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Check that this package holds what its manifest says, and nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to", "out"])]
    pub(crate) verify: Option<PathBuf>,
    /// Key that must have signed it: certs/evidence.pub of the control plane, got on another way
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub(crate) key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
