//! Requests to the API as strangers and as holders of other tokens send them, over one client.

use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{cli::ApiArgs, client, exit::Failure};

/// Drills and packages go over the whole store.
const REQUEST_LIMIT: Duration = Duration::from_secs(600);

/// One client of the API.
pub(super) struct Probe {
    runtime: Runtime,
    client: Client,
    base: String,
    /// Of the person who runs the command.
    pub(super) token: String,
}

/// Status and JSON body of an answer; null where the body is no JSON.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Probe {
    pub(super) fn new(api: &ApiArgs) -> Result<Self, Failure> {
        let token = client::token(api)?;
        let cannot = |error: &dyn std::fmt::Display| Failure::cannot_run(error.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| cannot(&error))?;
        let client =
            Client::builder().timeout(REQUEST_LIMIT).build().map_err(|error| cannot(&error))?;
        Ok(Self { runtime, client, base: api.url.trim_end_matches('/').to_owned(), token })
    }

    /// One request; `token` as given, `None` sends none.
    pub(super) fn send(
        &self,
        method: &Method,
        path: &str,
        token: Option<&str>,
        body: Option<(&str, &str)>,
    ) -> Result<Reply, Failure> {
        let (status, bytes) = self.bytes(method, path, token, body)?;
        Ok(Reply { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
    }

    /// The same with the octets of the answer.
    pub(super) fn bytes(
        &self,
        method: &Method,
        path: &str,
        token: Option<&str>,
        body: Option<(&str, &str)>,
    ) -> Result<(u16, Vec<u8>), Failure> {
        let url = format!("{}{path}", self.base);
        let failed = |error: reqwest::Error| {
            if error.is_connect() {
                let text =
                    format!("no control plane answers at {}; is `ravelin up` running?", self.base);
                return Failure::cannot_run(text);
            }
            Failure::cannot_run(format!("{url}: {error}"))
        };
        self.runtime.block_on(async {
            let mut request = self.client.request(method.clone(), &url);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            if let Some((kind, text)) = body {
                request = request.header("Content-Type", kind).body(text.to_owned());
            }
            let answer = request.send().await.map_err(failed)?;
            let status = answer.status().as_u16();
            Ok((status, answer.bytes().await.map_err(failed)?.to_vec()))
        })
    }

    /// A JSON request with the token of the person.
    pub(super) fn own(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply, Failure> {
        let text = body.map(Value::to_string);
        let body = text.as_deref().map(|text| ("application/json", text));
        self.send(method, path, Some(&self.token), body)
    }
}

impl Reply {
    /// The body of a good answer.
    pub(super) fn good(self, what: &str) -> Result<Value, Failure> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        let text = self.body["error"].as_str().unwrap_or("no reason was given").to_owned();
        let more = self.body["fields"].as_object().into_iter().flatten();
        let more: String = more
            .map(|(name, reason)| format!("; {name} {}", reason.as_str().unwrap_or_default()))
            .collect();
        Err(Failure::cannot_run(format!("{what}: {text}{more} ({})", self.status)))
    }
}
