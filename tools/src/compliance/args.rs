//! Arguments of the compliance commands.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::ApiArgs;

#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct VerifyArgs {
    #[command(subcommand)]
    pub(crate) command: VerifyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VerifyCommand {
    /// Check direct 911 dialling, routing, notification, location and trunks of every site
    #[command(
        after_help = "Examples:\n  ravelin verify karis-law --data /var/lib/ravelin\n  ravelin verify karis-law --config ravelin.yml   # a file alone; what only a running system knows is skipped\n\nExit code 0: no check failed; 1: one failed; 2: could not run. No call is placed."
    )]
    KarisLaw(KarisLawArgs),
}

#[derive(Args, Debug)]
pub(crate) struct KarisLawArgs {
    /// Check this config file in place of the running control plane
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct ReportArgs {
    #[command(subcommand)]
    pub(crate) command: ReportCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReportCommand {
    /// Emergency calls of one month: response times, location, notification, every call
    #[command(
        after_help = "Examples:\n  ravelin report emergency --month 2026-11\n  ravelin report emergency --month 2026-11 --format csv > calls.csv\n\nMonths are UTC. Exit code 0: the report was made; 2: it could not be."
    )]
    Emergency(EmergencyReportArgs),
    /// Emergency calls by site: trunks, callback numbers, location, failovers, every attempt
    #[command(
        after_help = "Examples:\n  ravelin report sites --month 2026-11\n  ravelin report sites --site-id 1 --month 2026-11 --format md\n\nMonths are UTC. Exit code 0: the report was made; 2: it could not be, or there is no such site."
    )]
    Sites(SitesReportArgs),
}

#[derive(Args, Debug)]
pub(crate) struct MonthArgs {
    /// Month, UTC
    #[arg(long, value_name = "YYYY-MM")]
    pub(crate) month: String,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: ReportFormat,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    /// One JSON object; the same as --format json
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct EmergencyReportArgs {
    #[command(flatten)]
    pub(crate) month: MonthArgs,
}

#[derive(Args, Debug)]
pub(crate) struct SitesReportArgs {
    /// Only this site; every site without it
    #[arg(long, value_name = "N")]
    pub(crate) site_id: Option<u32>,
    #[command(flatten)]
    pub(crate) month: MonthArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For a terminal
    Text,
    /// Markdown
    Md,
    /// One JSON object with everything
    Json,
    /// One line per call, or per site
    Csv,
}
