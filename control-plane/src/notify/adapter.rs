//! The ways out: e-mail over SMTP, and a webhook for everything else.
//!
//! Every attempt has a deadline, whatever the other side does. A redirect is not followed and no
//! proxy of the environment is used: only the config document says where a caller's location goes.

use std::{fs, net::IpAddr, path::Path, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Tokio1Executor,
    message::{Mailbox, Message as Email, header::ContentType},
};
use ravelin_contract::{
    chain::to_hex,
    config::{Features, SecretSource, SecretText},
};
use reqwest::{StatusCode, Url, redirect};

use super::{
    Method,
    message::Message,
    queue::NO_ADAPTER,
    work::{Outcome, Work},
};
use crate::clock;

/// How long one step of an SMTP exchange may take.
const SMTP_STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one attempt may take in all.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the webhook's server has to accept the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the webhook has for its whole answer.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// What carries notifications under one config version.
#[derive(Debug, Default)]
pub struct Adapters {
    smtp: Option<Result<Smtp, String>>,
    webhook: Option<Result<Webhook, String>>,
    page_priority: String,
}

impl Adapters {
    /// Reads the settings and the secrets they refer to. An adapter that cannot be used stays, with
    /// the reason: what it should have carried fails with that reason.
    #[must_use]
    pub fn of(features: &Features, data: &Path) -> Self {
        let Some(block) = &features.emergency_notification else { return Self::default() };
        let smtp = block.smtp_url.as_ref().map(|url| {
            let from = block.email_from.as_deref().ok_or("email_from is not set")?;
            Smtp::new(&resolve(url, data)?, from)
        });
        let webhook = block.webhook_url.as_ref().map(|url| {
            let secret = block.webhook_secret.as_ref();
            let secret = secret.map(|secret| resolve(secret, data)).transpose()?;
            Webhook::new(&resolve(url, data)?, secret.as_deref())
        });
        Self { smtp, webhook, page_priority: block.page_priority.clone() }
    }

    /// Makes one attempt. Ends within [`ATTEMPT_TIMEOUT`].
    pub async fn send(&self, work: &Work) -> Outcome {
        let message = Message::new(work, &self.page_priority);
        let attempt = async {
            match (work.method, &self.smtp, &self.webhook) {
                (Method::Email, Some(smtp), _) => match smtp {
                    Ok(smtp) => smtp.send(&message).await,
                    Err(reason) => Outcome::Failed(format!("smtp: {reason}")),
                },
                (_, _, Some(Ok(webhook))) => webhook.send(&message).await,
                (_, _, Some(Err(reason))) => Outcome::Failed(format!("webhook: {reason}")),
                (_, _, None) => Outcome::Failed(NO_ADAPTER.to_owned()),
            }
        };
        tokio::time::timeout(ATTEMPT_TIMEOUT, attempt).await.unwrap_or_else(|_| {
            Outcome::Retry(format!("no answer in {} s", ATTEMPT_TIMEOUT.as_secs()))
        })
    }
}

/// The text of a secret.
fn resolve(secret: &SecretText, data: &Path) -> Result<String, String> {
    match secret.source() {
        SecretSource::Literal(text) => Ok(text.to_owned()),
        SecretSource::Env(name) => std::env::var(name).map_err(|error| format!("{name}: {error}")),
        SecretSource::File(path) => fs::read_to_string(data.join(path))
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|error| format!("{path}: {error}")),
    }
}

struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl std::fmt::Debug for Smtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Smtp").field("from", &self.from).finish_non_exhaustive()
    }
}

impl Smtp {
    fn new(url: &str, from: &str) -> Result<Self, String> {
        let from = from.parse().map_err(|error| format!("email_from: {error}"))?;
        // The error may repeat the URL, which holds a password.
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
            .map_err(|_| "smtp_url is not a URL of a mail server".to_owned())?;
        Ok(Self { transport: builder.timeout(Some(SMTP_STEP_TIMEOUT)).build(), from })
    }

    async fn send(&self, message: &Message<'_>) -> Outcome {
        let address = match message.contact.address.parse() {
            Ok(address) => address,
            Err(error) => return Outcome::Failed(format!("the contact's address: {error}")),
        };
        let to = Mailbox::new(Some(message.contact.name.to_owned()), address);
        let domain = self.from.email.domain();
        let email = Email::builder()
            .from(self.from.clone())
            .to(to)
            .subject(message.subject())
            .message_id(Some(format!("<{}@{domain}>", message.id)))
            .header(ContentType::TEXT_PLAIN)
            .body(message.body());
        let email = match email {
            Ok(email) => email,
            Err(error) => return Outcome::Failed(format!("the mail cannot be written: {error}")),
        };
        match self.transport.send(email).await {
            Ok(answer) => {
                let words: Vec<&str> = answer.message().collect();
                Outcome::Delivered(format!("{} {}", answer.code(), words.join(" ")))
            }
            Err(error) if error.is_permanent() => Outcome::Failed(smtp_reason(&error)),
            Err(error) => Outcome::Retry(smtp_reason(&error)),
        }
    }
}

fn smtp_reason(error: &lettre::transport::smtp::Error) -> String {
    let mut reason = format!("smtp: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !reason.ends_with(&inner_text) {
            reason.push_str(": ");
            reason.push_str(&inner_text);
        }
        source = inner.source();
    }
    reason
}

struct Webhook {
    client: reqwest::Client,
    url: Url,
    key: Option<Arc<hmac::Key>>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Path and query may hold a token.
        f.debug_struct("Webhook").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

impl Webhook {
    fn new(url: &str, secret: Option<&str>) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|error| format!("webhook_url: {error}"))?;
        let secure = url.scheme() == "https";
        let near = url.scheme() == "http" && is_loopback(&url);
        if !secure && !near {
            return Err("webhook_url must be https (http only to a loopback address)".to_owned());
        }
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(WEBHOOK_TIMEOUT)
            .redirect(redirect::Policy::none())
            .https_only(secure)
            .no_proxy()
            .user_agent(concat!("ravelin/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("webhook: {error}"))?;
        let key = secret.map(|text| Arc::new(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())));
        Ok(Self { client, url, key })
    }

    async fn send(&self, message: &Message<'_>) -> Outcome {
        let body = match serde_json::to_vec(message) {
            Ok(body) => body,
            Err(error) => return Outcome::Failed(format!("the message: {error}")),
        };
        let mut request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("idempotency-key", &message.id);
        if let Some(key) = &self.key {
            let signature = signature(key, clock::unix_ms() / 1_000, &body);
            request = request.header("x-ravelin-signature", signature);
        }
        match request.body(body).send().await {
            Ok(answer) => judge(answer.status()),
            // Its own words repeat the URL, which may hold a token.
            Err(error) => {
                let inner = std::error::Error::source(&error).map(ToString::to_string);
                let what = if error.is_timeout() { "no answer in time" } else { "no answer" };
                Outcome::Retry(format!("webhook: {what}: {}", inner.unwrap_or_default()))
            }
        }
    }
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA256 over the seconds, a dot and the body. The time is part of it, so
/// that a receiver can refuse what was recorded earlier.
fn signature(key: &hmac::Key, unix_s: u64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(format!("{unix_s}.").as_bytes());
    context.update(body);
    format!("t={unix_s},v1={}", to_hex(context.sign().as_ref()))
}

fn judge(status: StatusCode) -> Outcome {
    let words = format!("HTTP {status}");
    let passing = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
        // A proxy or a deployment that is being repaired says these.
        StatusCode::NOT_FOUND,
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
    ];
    if status.is_success() {
        Outcome::Delivered(words)
    } else if status.is_server_error() || passing.contains(&status) {
        Outcome::Retry(words)
    } else {
        Outcome::Failed(words)
    }
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_covers_time_and_body() {
        // The same by `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key`.
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        assert_eq!(signature(&key, 1_700_000_000, b"{\"a\":1}"), SIGNED);
        assert_ne!(signature(&key, 1_700_000_001, b"{\"a\":1}"), SIGNED);
        assert_ne!(signature(&key, 1_700_000_000, b"{\"a\":2}"), SIGNED);
    }

    const SIGNED: &str =
        "t=1700000000,v1=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03";

    #[test]
    fn a_webhook_is_https_or_on_this_machine() {
        for good in [
            "https://hooks.example/x",
            "http://127.0.0.1:8/x",
            "http://[::1]:8/",
            "http://localhost",
        ] {
            assert!(Webhook::new(good, None).is_ok(), "{good}");
        }
        for bad in
            ["http://hooks.example/x", "ftp://127.0.0.1/x", "hooks.example", "http://10.0.0.1"]
        {
            assert!(Webhook::new(bad, None).is_err(), "{bad}");
        }
        assert!(Smtp::new("smtp://127.0.0.1:25", "sbc@x.example").is_ok());
        assert!(Smtp::new("http://127.0.0.1:25", "sbc@x.example").is_err());
        assert!(Smtp::new("smtp://127.0.0.1:25", "nobody").is_err());
    }

    #[test]
    fn answers_of_the_webhook() {
        let of = |code: u16| judge(StatusCode::from_u16(code).unwrap());
        assert!(matches!(of(200), Outcome::Delivered(_)));
        assert!(matches!(of(202), Outcome::Delivered(_)));
        for code in [408, 425, 429, 500, 502, 503, 404, 401] {
            assert!(matches!(of(code), Outcome::Retry(_)), "{code}");
        }
        for code in [301, 307, 400, 410, 413, 422] {
            assert!(matches!(of(code), Outcome::Failed(_)), "{code}");
        }
    }
}
