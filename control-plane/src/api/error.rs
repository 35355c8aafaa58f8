//! Errors of the API: `{"error": text, "fields": {path: text}}`.

use std::collections::BTreeMap;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use ravelin_contract::link::FieldError;
use serde::Serialize;

use crate::{error::StoreError, publish::ConfigFault};

/// Field errors of one answer; more are summed up in one line.
const FIELDS_MAX: usize = 200;

/// The body of every error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ErrorBody {
    pub error: String,
    /// Path of the field, and what is wrong with it.
    pub fields: BTreeMap<String, String>,
}

/// An error on its way to the client.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub(super) body: ErrorBody,
}

impl ApiError {
    #[must_use]
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, body: ErrorBody { error: error.into(), fields: BTreeMap::new() } }
    }

    #[must_use]
    pub fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{what} not found"))
    }

    #[must_use]
    pub fn conflict(error: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, error)
    }

    /// The error in one line, for a page.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = self.body.error.clone();
        for (path, reason) in &self.body.fields {
            text.push_str(&format!("; {path}: {reason}"));
        }
        text
    }

    /// Adds what is wrong with one field.
    #[must_use]
    pub fn field(mut self, path: impl Into<String>, reason: impl Into<String>) -> Self {
        self.body.fields.insert(path.into(), reason.into());
        self
    }

    /// Adds the faults of a document, with their lines.
    #[must_use]
    pub fn faults(mut self, faults: &[FieldError]) -> Self {
        for fault in faults.iter().take(FIELDS_MAX) {
            let reason = match fault.line {
                Some(line) => format!("line {line}: {}", fault.reason),
                None => fault.reason.clone(),
            };
            self.body
                .fields
                .entry(fault.path.clone())
                .and_modify(|all| {
                    all.push_str("; ");
                    all.push_str(&reason);
                })
                .or_insert(reason);
        }
        if faults.len() > FIELDS_MAX {
            self.body.error.push_str(&format!(" ({} faults, the first are listed)", faults.len()));
        }
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        // The database's words may hold data of others: they go to the log.
        tracing::error!(%error, "store");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the store failed; see the log")
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl From<ConfigFault> for ApiError {
    fn from(fault: ConfigFault) -> Self {
        match fault {
            ConfigFault::Invalid(faults) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "the config document has faults")
                    .faults(&faults)
            }
            ConfigFault::TooLarge => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "the config document is too large")
            }
            ConfigFault::NoSuchVersion => Self::not_found("config version"),
            ConfigFault::NothingActive => Self::conflict("no config is in force yet"),
            ConfigFault::Moved { expected, found } => Self::conflict(format!(
                "built on version {expected}, which is no longer the current one ({found})"
            )),
            ConfigFault::Store(error) => error.into(),
        }
    }
}
