//! Reading what clients send: bounded, complete, unknown fields refused.

use std::collections::BTreeMap;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// A JSON body. Whatever does not read as `T` is a 400 that names the field.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let json = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| {
            kind.to_str().is_ok_and(|kind| {
                kind.split(';').next().is_some_and(|kind| {
                    let kind = kind.trim().to_ascii_lowercase();
                    kind == "application/json" || kind.ends_with("+json")
                })
            })
        });
        if !json {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be application/json",
            ));
        }
        let bytes = bytes(request, state).await?;
        let mut reader = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let reason = error.into_inner().to_string();
            let path = if path == "." { unknown_field(&reason).unwrap_or(path) } else { path };
            ApiError::bad_request("the body does not read").field(path, reason)
        })?;
        reader.end().map_err(|error| ApiError::bad_request(format!("after the body: {error}")))?;
        Ok(Self(value))
    }
}

/// The field that serde calls unknown or missing at the top of a body.
fn unknown_field(reason: &str) -> Option<String> {
    reason.split('`').nth(1).map(str::to_owned)
}

/// A body as text, whatever its type: config documents are YAML or JSON.
#[derive(Debug)]
pub(crate) struct Text(pub(crate) String);

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = bytes(request, state).await?;
        String::from_utf8(bytes.into())
            .map(Self)
            .map_err(|_| ApiError::bad_request("the body is not UTF-8"))
    }
}

async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state).await.map_err(|error| {
        let status = error.status();
        ApiError::new(status, error.body_text())
    })
}

/// The query string as single values; a name given twice, or one that is not among `known`, is a
/// 400.
#[derive(Debug)]
pub(crate) struct Query(BTreeMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::bad_request(error.body_text()))?
            .0;
        let mut values = BTreeMap::new();
        for (name, value) in pairs {
            if values.contains_key(&name) {
                return Err(ApiError::bad_request("query").field(name, "given twice"));
            }
            values.insert(name, value);
        }
        Ok(Self(values))
    }
}

impl Query {
    /// Refuses names that this route does not know, so that a misspelt filter does not match all.
    ///
    /// # Errors
    /// 400 with each unknown name.
    pub(crate) fn only(self, known: &[&str]) -> Result<Self, ApiError> {
        let mut unknown = self.0.keys().filter(|name| !known.contains(&name.as_str())).peekable();
        if unknown.peek().is_none() {
            return Ok(self);
        }
        let error = ApiError::bad_request("unknown query parameter");
        Err(unknown.fold(error, |error, name| {
            error.field(name, format!("must be one of: {}", known.join(", ")))
        }))
    }

    #[must_use]
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A whole number in `range`.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub(crate) fn number(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, ApiError> {
        self.text(name)
            .map(|text| {
                text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
                    ApiError::bad_request("query").field(
                        name,
                        format!("must be a number from {} to {}", range.start(), range.end()),
                    )
                })
            })
            .transpose()
    }

    /// A point in time.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub(crate) fn time(&self, name: &str) -> Result<Option<u64>, ApiError> {
        self.text(name)
            .map(|text| {
                crate::clock::parse_ms(text).ok_or_else(|| {
                    ApiError::bad_request("query")
                        .field(name, "must be RFC 3339, a date, or UTC milliseconds")
                })
            })
            .transpose()
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.text(name) {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => Err(ApiError::bad_request("query").field(name, "must be true or false")),
        }
    }
}
