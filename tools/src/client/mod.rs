//! Commands that ask the control plane through its API.

pub(crate) mod config;
pub(crate) mod live;
mod pcap;

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use crate::{cli::ApiArgs, exit::Failure};

/// How long one request may take. Activation waits for every node.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// An answer of the API.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    /// Whether the API did what was asked.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The answer if it is a good one.
    ///
    /// # Errors
    /// Any other is a command that could not run.
    pub(crate) fn good(self) -> Result<Self, Failure> {
        if self.is_success() { Ok(self) } else { Err(Failure::cannot_run(self.error())) }
    }

    /// `error` of an error answer, with what to do where the status says it.
    pub(crate) fn error(&self) -> String {
        let text = self.body["error"].as_str().unwrap_or("no reason was given");
        match self.status {
            401 => format!("{text}: give a token with --token, RAVELIN_TOKEN or --data"),
            403 => format!("{text}: the role of this token does not allow it"),
            status => format!("{text} ({status})"),
        }
    }

    /// `fields` of an error answer: path and reason.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let fields = self.body["fields"].as_object();
        fields
            .into_iter()
            .flatten()
            .map(|(path, text)| (path.as_str(), text.as_str().unwrap_or_default()))
    }
}

/// One request to the API.
///
/// # Errors
/// A line that says what to do when no answer came.
pub(crate) fn request(
    api: &ApiArgs,
    method: Method,
    path: &str,
    body: Option<(&'static str, String)>,
) -> Result<Answer, Failure> {
    let token = token(api)?;
    let url = format!("{}{path}", api.url.trim_end_matches('/'));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::cannot_run(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let failed = |error: &dyn std::fmt::Display| Failure::cannot_run(format!("{url}: {error}"));
        let client = reqwest::Client::builder()
            .timeout(REQUEST_LIMIT)
            .build()
            .map_err(|error| failed(&error))?;
        let mut request = client.request(method, &url).bearer_auth(token);
        if let Some((kind, text)) = body {
            request = request.header("Content-Type", kind).body(text);
        }
        let answer = request.send().await.map_err(|error| {
            if error.is_connect() {
                Failure::cannot_run(format!(
                    "no control plane answers at {}; is `ravelin up` running?",
                    api.url
                ))
            } else {
                failed(&error)
            }
        })?;
        let status = answer.status().as_u16();
        let text = answer.text().await.map_err(|error| failed(&error))?;
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text)
                .map_err(|_| failed(&format!("status {status} with something that is no JSON")))?
        };
        Ok(Answer { status, body })
    })
}

pub(crate) fn token(api: &ApiArgs) -> Result<String, Failure> {
    if let Some(token) = &api.token {
        return Ok(token.clone());
    }
    if let Ok(token) = std::env::var("RAVELIN_TOKEN")
        && !token.is_empty()
    {
        return Ok(token);
    }
    let path = api.data.join("admin.token");
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failure::cannot_run(format!(
            "no token: {} cannot be read ({error}); give --token, RAVELIN_TOKEN or --data",
            path.display()
        ))
    })?;
    Ok(text.trim().to_owned())
}
