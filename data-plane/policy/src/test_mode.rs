//! Signals that a process runs in a test (E2-E4), judged by pure functions: whoever starts the
//! process hands in the file name and the environment.

use ravelin_contract::config::Mode;

/// Environment variables that mean test mode when they are set to something that is not off. The
/// first four are those of the source documents, the last one is our own.
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

impl std::fmt::Display for TestSignal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Variable { name, value } => {
                write!(f, "environment variable {name}={}", value.escape_default())
            }
            Self::FileName(name) => {
                write!(f, "config file name `{}` contains `test`", name.escape_default())
            }
        }
    }
}

/// All signals of this start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestSignals(pub Vec<TestSignal>);

impl TestSignals {
    /// Why a start in `mode` must be refused: production declared, but the surroundings say test
    /// (E3, E4, EM-17). `None`: no contradiction.
    #[must_use]
    pub fn contradiction(&self, mode: Mode) -> Option<String> {
        if mode == Mode::Test || self.0.is_empty() {
            return None;
        }
        let signals: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        Some(format!(
            "deployment.mode is production, but {}; remove it or set deployment.mode to test",
            signals.join(" and ")
        ))
    }
}

/// Collects the test signals of a start. `file_name` may be a path: only its last part counts, never
/// a directory such as `latest/` (E3). Values `0`, `false`, `no`, `off` and nothing mean off (E2),
/// except for `PYTEST_CURRENT_TEST`, which carries a test's name.
#[must_use]
pub fn test_signals<'a>(
    file_name: Option<&str>,
    variables: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> TestSignals {
    let mut signals = Vec::new();
    for (name, value) in variables {
        if TEST_VARIABLES.contains(&name) && is_on(name, value) {
            signals.push(TestSignal::Variable { name: name.to_owned(), value: value.to_owned() });
        }
    }
    if let Some(name) = file_name.and_then(|path| path.rsplit(['/', '\\']).next())
        && name.to_lowercase().contains("test")
    {
        signals.push(TestSignal::FileName(name.to_owned()));
    }
    TestSignals(signals)
}

fn is_on(name: &str, value: &str) -> bool {
    let value = value.trim();
    if name == "PYTEST_CURRENT_TEST" {
        return !value.is_empty();
    }
    !["", "0", "false", "no", "off"].iter().any(|off| value.eq_ignore_ascii_case(off))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, value: &str) -> bool {
        !test_signals(None, [(name, value)]).0.is_empty()
    }

    #[test]
    fn variables_can_be_off() {
        for name in ["TEST_MODE", "TESTING", "PBX_TEST_MODE", "RAVELIN_TEST_MODE"] {
            for on in ["1", "true", "yes", "on", "anything", "2"] {
                assert!(variable(name, on), "{name}={on}");
            }
            for off in ["", " ", "0", "false", "False", "NO", "off"] {
                assert!(!variable(name, off), "{name}={off}");
            }
        }
        assert!(variable("PYTEST_CURRENT_TEST", "tests/test_x.py::y (call)"));
        assert!(variable("PYTEST_CURRENT_TEST", "0"));
        assert!(!variable("PYTEST_CURRENT_TEST", ""));
        assert!(!variable("LATEST", "1"));
        assert!(!variable("test_mode", "1"));
    }

    #[test]
    fn only_the_name_of_the_file_counts() {
        for on in ["test_config.yml", "/etc/ravelin/my-Test.yml", "attestation.yml", "TEST"] {
            assert!(!test_signals(Some(on), []).0.is_empty(), "{on}");
        }
        for off in ["latest/ravelin.yml", "/contest/a/b.yml", "ravelin.yml", "/tests/x/", ""] {
            assert!(test_signals(Some(off), []).0.is_empty(), "{off}");
        }
    }

    #[test]
    fn contradiction_names_every_signal() {
        let signals = test_signals(Some("a/test.yml"), [("TEST_MODE", "1"), ("HOME", "/")]);
        let text = signals.contradiction(Mode::Production).unwrap();
        assert!(text.contains("TEST_MODE=1") && text.contains("`test.yml`"), "{text}");
        assert_eq!(signals.contradiction(Mode::Test), None);
        assert_eq!(TestSignals::default().contradiction(Mode::Production), None);
    }
}
