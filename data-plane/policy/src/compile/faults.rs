//! What is wrong with a document.

use ravelin_contract::link::FieldError;

/// Errors and warnings kept of one document: who has more has other worries.
const FAULTS_MAX: usize = 1000;

/// Kind of a fault, for the API's status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    Invalid,
    /// Something else in the document has the same name, number or range (409).
    Conflict,
}

#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) path: String,
    pub(crate) reason: String,
    pub(crate) kind: FaultKind,
}

impl Fault {
    pub(crate) fn into_error(self) -> FieldError {
        FieldError { path: self.path, line: None, reason: self.reason }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    errors: Vec<Fault>,
    warnings: Vec<FieldError>,
}

impl Faults {
    pub(crate) fn error(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.add(path.into(), reason.into(), FaultKind::Invalid);
    }

    pub(crate) fn conflict(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.add(path.into(), reason.into(), FaultKind::Conflict);
    }

    fn add(&mut self, path: String, reason: String, kind: FaultKind) {
        if self.errors.len() < FAULTS_MAX {
            self.errors.push(Fault { path, reason, kind });
        }
    }

    pub(crate) fn warn(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        if self.warnings.len() < FAULTS_MAX {
            self.warnings.push(FieldError { path: path.into(), line: None, reason: reason.into() });
        }
    }

    /// The value, or the fault noted and `None`.
    pub(crate) fn check<T, E: Into<String>>(
        &mut self,
        path: impl Into<String>,
        result: Result<T, E>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(reason) => {
                self.error(path, reason);
                None
            }
        }
    }

    /// The number, or the fault noted and the default.
    pub(crate) fn in_range<T: PartialOrd + std::fmt::Display + Copy>(
        &mut self,
        path: &str,
        value: T,
        range: std::ops::RangeInclusive<T>,
    ) -> T {
        if !range.contains(&value) {
            let reason = format!("{value} is not within {}-{}", range.start(), range.end());
            self.error(path, reason);
        }
        value
    }

    /// The warnings if there are no errors.
    pub(crate) fn finish(self) -> Result<Vec<FieldError>, Vec<Fault>> {
        if self.errors.is_empty() { Ok(self.warnings) } else { Err(self.errors) }
    }
}
