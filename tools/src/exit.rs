//! Exit codes: 0 done or passed, 1 checked and not passed, 2 wrong usage or could not run.

use std::{fmt, process::ExitCode};

/// How a command ended that could run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    NotPassed,
}

impl Outcome {
    pub(crate) fn of(passed: bool) -> Self {
        if passed { Self::Passed } else { Self::NotPassed }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Passed => Self::SUCCESS,
            Outcome::NotPassed => Self::from(1),
        }
    }
}

/// Why a command could not run, or what it found wrong, in one line that says what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    /// The command could not run.
    pub(crate) fn cannot_run(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 2 }
    }

    /// The command ran, and the answer is no.
    pub(crate) fn not_passed(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever a peer or a file put into it.
        let line: String =
            self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        f.write_str(&line)
    }
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        Self::from(failure.code)
    }
}
