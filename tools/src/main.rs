//! `ravelin`: the one binary. It decides nothing itself: it reads the command line and calls the
//! planes' crates, or the control plane's API.
#![forbid(unsafe_code)]

mod agent;
mod cli;
mod client;
mod exit;
mod offline;
mod print;
mod up;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{AuditCommand, Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // Help and version were asked for; anything else is wrong usage.
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let result = match cli.command {
        Command::Up(args) => up::run(&args),
        Command::Edge(args) => up::edge(args),
        Command::Control(args) => up::control(&args),
        Command::Check(args) => offline::check::run(&args),
        Command::Apply(args) => client::config::apply(&args),
        Command::Rollback(args) => client::config::rollback(&args),
        Command::Parse(args) => offline::parse::run(&args),
        Command::Explain(args) => offline::explain::run(&args),
        Command::Audit(args) => match args.command {
            AuditCommand::Verify(args) => offline::audit::verify(&args),
            AuditCommand::Export(args) => offline::audit::export(&args),
        },
        Command::Calls(args) => client::live::calls(&args),
        Command::Trunks(args) => client::live::trunks(&args),
        Command::Trace(args) => client::live::trace(&args),
        Command::Demo(args) => agent::run(&args),
    };
    match result {
        Ok(outcome) => outcome.into(),
        Err(failure) => {
            eprintln!("ravelin: {failure}");
            failure.into()
        }
    }
}
