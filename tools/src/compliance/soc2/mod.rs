//! `ravelin soc2`: tests of controls that exercise the system, and the audit package.

pub(crate) mod args;
mod outside;
mod package;
mod probe;
mod test;

use self::args::{Soc2Args, Soc2Command};
use crate::exit::{Failure, Outcome};

pub(crate) fn run(args: &Soc2Args) -> Result<Outcome, Failure> {
    match &args.command {
        Soc2Command::Test(args) => test::run(args),
        Soc2Command::Package(args) => package::run(args),
    }
}
