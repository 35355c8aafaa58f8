//! `ravelin`: the one binary. It decides nothing itself: it reads the command line and calls the
//! planes' crates, or the control plane's API.
#![forbid(unsafe_code)]

mod agent;
mod cli;
mod client;
mod compliance;
mod exit;
mod load;
mod offline;
mod print;
mod stir;
mod up;

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};

use crate::cli::{AuditCommand, Cli, Command, NodeCommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match cli.command {
        Command::Up(args) => up::run(&args),
        Command::Edge(args) => up::edge(args),
        Command::Control(args) => up::control(&args),
        Command::Check(args) => offline::check::run(&args),
        Command::Apply(args) => client::config::apply(&args),
        Command::Rollback(args) => client::config::rollback(&args),
        Command::Node(args) => match args.command {
            NodeCommand::Add(args) => offline::node::add(&args),
        },
        Command::Forget(args) => offline::forget::run(&args),
        Command::Parse(args) => offline::parse::run(&args),
        Command::Explain(args) => offline::explain::run(&args),
        Command::Audit(args) => match args.command {
            AuditCommand::Verify(args) => offline::audit::verify(&args),
            AuditCommand::Export(args) => offline::audit::export(&args),
        },
        Command::Calls(args) => client::live::calls(&args),
        Command::Trunks(args) => client::live::trunks(&args),
        Command::Trace(args) => client::live::trace(&args),
        Command::Stir(args) => stir::run(&args),
        Command::Verify(args) => compliance::verify::run(&args),
        Command::Report(args) => compliance::report::run(&args),
        Command::Soc2(args) => compliance::soc2::run(&args),
        Command::Demo(args) => agent::run(&args),
        Command::Load(args) => load::run(&args),
    };
    match result {
        Ok(outcome) => outcome.into(),
        Err(failure) => {
            eprintln!("ravelin: {failure}");
            failure.into()
        }
    }
}

/// Help goes to standard output; a mistake is one line that says what to do, and exit code 2.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return match print::line(error.to_string().trim_end()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.into(),
        };
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        eprint!("{error}");
        return ExitCode::from(2);
    }
    let text = error.to_string();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().trim_start_matches("error: ");
    // Arguments that are missing stand on lines of their own.
    let listed: Vec<&str> =
        lines.take_while(|line| line.starts_with("  ")).map(str::trim).collect();
    let listed = if listed.is_empty() { String::new() } else { format!(" {}", listed.join(", ")) };
    eprintln!("ravelin: {first}{listed}; see `ravelin --help`");
    ExitCode::from(2)
}
