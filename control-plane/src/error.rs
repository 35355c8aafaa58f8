//! What stops the control plane, or one piece of work in it.

use std::{fmt, io, path::PathBuf};

use ravelin_contract::{chain::ChainError, link::FieldError};

/// Why the control plane cannot start, or had to stop.
#[derive(Debug)]
#[non_exhaustive]
pub enum ControlError {
    /// A file or directory of the data directory.
    File {
        path: PathBuf,
        source: io::Error,
    },
    /// The config file was refused; every fault with its path and line.
    Config {
        path: PathBuf,
        errors: Vec<FieldError>,
    },
    /// Another control plane uses the same data directory or database.
    AlreadyRunning {
        what: String,
    },
    /// A socket that could not be opened.
    Listen {
        address: String,
        source: io::Error,
    },
    /// A setting that this machine cannot honour.
    Setting {
        path: &'static str,
        reason: String,
    },
    /// The private certificates of the link.
    Certificate(String),
    Store(StoreError),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Config { path, errors } => {
                write!(f, "{}: {} error(s)", path.display(), errors.len())?;
                for error in errors {
                    write!(f, "\n  {}", render(error))?;
                }
                Ok(())
            }
            Self::AlreadyRunning { what } => {
                write!(f, "another control plane is using {what}; stop it first")
            }
            Self::Listen { address, source } => write!(f, "cannot listen on {address}: {source}"),
            Self::Setting { path, reason } => write!(f, "{path}: {reason}"),
            Self::Certificate(reason) => write!(f, "certificates of the link: {reason}"),
            Self::Store(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ControlError {}

impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// One fault of a config document as a line of text: path, line, reason.
#[must_use]
pub fn render(error: &FieldError) -> String {
    match error.line {
        Some(line) => format!("{} (line {line}): {}", error.path, error.reason),
        None => format!("{}: {}", error.path, error.reason),
    }
}

/// Why the store could not do its work.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    Database(sqlx::Error),
    Migrate(sqlx::migrate::MigrateError),
    /// A row that does not read as it was written.
    Corrupt(String),
    Chain(ChainError),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => write!(f, "database: {error}"),
            Self::Migrate(error) => write!(f, "database migration: {error}"),
            Self::Corrupt(reason) => write!(f, "database content: {reason}"),
            Self::Chain(error) => write!(f, "record chain: {error}"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Migrate(error)
    }
}

impl From<ChainError> for StoreError {
    fn from(error: ChainError) -> Self {
        Self::Chain(error)
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Corrupt(error.to_string())
    }
}
