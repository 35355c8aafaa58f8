//! `ravelin forget`: keys of calls that a killed edge left in memory.

use ravelin_edge::ForgetOutcome;

use crate::{
    cli::ForgetArgs,
    exit::{Failure, Outcome},
    print,
};

pub(crate) fn run(args: &ForgetArgs) -> Result<Outcome, Failure> {
    let all = ravelin_edge::forget(args.data.as_deref(), args.now).map_err(Failure::cannot_run)?;
    let mut passed = true;
    for one in &all {
        let place = one.place.display();
        print::line(&match one.outcome {
            ForgetOutcome::Wiped(calls) => format!("{place}: keys wiped, {calls} calls"),
            ForgetOutcome::InUse => format!("{place}: left alone, its edge lives"),
            ForgetOutcome::StillGood(seconds) => {
                passed = false;
                format!("{place}: left alone, an edge takes its calls over for {seconds} s more")
            }
        })?;
    }
    if all.is_empty() {
        print::line("nothing was left")?;
    }
    // With a data directory the question is whether that one's keys are gone.
    Ok(Outcome::of(passed || args.data.is_none()))
}
