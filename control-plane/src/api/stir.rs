//! `POST /stir/v1/signing` and `POST /stir/v1/verification` in the shapes of ATIS-1000082 (ST-76 to
//! ST-80). Errors have the shape of that document on these two routes, whoever makes them.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use ravelin_contract::audit::Severity;
use ravelin_policy::AttestationLevel;
use ravelin_stir::{
    limits::{DEST_VALUES_MAX, IDENTITY_VALUE_BYTES_MAX},
    outcome::{Outcome, Verstat},
    sign::{Attest, SignError, SignRequest},
    tn::{Party, UserIsTn, canonicalise, party},
    verify::Verdict,
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{App, auth::Caller};
use crate::{
    clock, ident,
    stir::{self, Credentials},
    store::{EventExt, event},
};

/// Largest body, in octets (ST-80).
pub(super) const BODY_MAX_BYTES: usize = 64 * 1024;
/// How far a time in a request may be from ours, in seconds (ST-80).
const TIME_TOLERANCE_S: u64 = 60;
/// Names the request in both directions; one that a client sends is given back.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-requestid");
const REQUEST_ID_MAX_BYTES: usize = 128;
const PREFIX: &str = "/stir/v1/";

/// The body of every error on these routes.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct RequestErrorBody {
    #[serde(rename = "requestError")]
    request_error: RequestError,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
enum RequestError {
    /// The request cannot be served as it is.
    ServiceException(Exception),
    /// Who asks, or how, is against the rules.
    PolicyException(Exception),
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Exception {
    /// Stable id, such as `SVC4001`.
    message_id: &'static str,
    /// `%1`, `%2` stand for the variables.
    text: &'static str,
    variables: Vec<String>,
}

/// An error on its way to the client.
#[derive(Debug)]
pub(crate) struct Fault {
    status: StatusCode,
    policy: bool,
    exception: Exception,
}

/// Marks an answer whose body has its final shape.
#[derive(Clone, Copy, Debug)]
struct Dressed;

impl Fault {
    fn service(
        status: StatusCode,
        message_id: &'static str,
        text: &'static str,
        variables: impl Into<Vec<String>>,
    ) -> Self {
        let exception = Exception { message_id, text, variables: variables.into() };
        Self { status, policy: false, exception }
    }

    fn policy(status: StatusCode, message_id: &'static str, text: &'static str) -> Self {
        let exception = Exception { message_id, text, variables: Vec::new() };
        Self { status, policy: true, exception }
    }

    fn missing(parameter: &str) -> Self {
        let text = "Error: Missing mandatory parameter '%1'.";
        Self::service(StatusCode::BAD_REQUEST, "SVC4001", text, [parameter.to_owned()])
    }

    fn invalid(parameter: &str, reason: impl Into<String>) -> Self {
        let text = "Error: Invalid '%1' parameter value: %2.";
        let variables = [parameter.to_owned(), reason.into()];
        Self::service(StatusCode::BAD_REQUEST, "SVC4005", text, variables)
    }

    fn unreadable(reason: impl Into<String>) -> Self {
        let text = "Error: Failed to parse received message body: %1.";
        Self::service(StatusCode::BAD_REQUEST, "SVC4006", text, [reason.into()])
    }

    fn unavailable(reason: impl Into<String>) -> Self {
        let text = "Error: The service is not available: %1.";
        Self::service(StatusCode::SERVICE_UNAVAILABLE, "SVC5030", text, [reason.into()])
    }

    fn internal() -> Self {
        let text = "Error: Internal Server Error. Please try again later.";
        Self::policy(StatusCode::INTERNAL_SERVER_ERROR, "POL5000", text)
    }

    /// The shape of this document for an answer that something else made.
    fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => {
                Self::policy(status, "POL4010", "Error: A valid Bearer token is needed.")
            }
            StatusCode::FORBIDDEN => {
                Self::policy(status, "POL4030", "Error: The role of this token may not do this.")
            }
            StatusCode::NOT_FOUND => {
                let text = "Error: Requested resource was not found.";
                Self::service(status, "SVC4003", text, [])
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                Self::policy(status, "POL4050", "Error: Method not allowed.")
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                let text = "Error: The body is larger than %1 octets.";
                Self::service(status, "SVC4130", text, [BODY_MAX_BYTES.to_string()])
            }
            status if status.is_client_error() => {
                let text = "Error: The request was refused.";
                Self::service(status, "SVC4006", text, [])
            }
            status => Self { status, ..Self::internal() },
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let request_error = if self.policy {
            RequestError::PolicyException(self.exception)
        } else {
            RequestError::ServiceException(self.exception)
        };
        let body = Json(RequestErrorBody { request_error });
        (self.status, Extension(Dressed), body).into_response()
    }
}

/// Gives every answer under `/stir/v1/` its shape and its request id.
pub(super) async fn dress(request: Request, next: Next) -> Response {
    if !request.uri().path().starts_with(PREFIX) {
        return next.run(request).await;
    }
    let given = request.headers().get(&REQUEST_ID).cloned();
    let id = given
        .filter(|id| id.len() <= REQUEST_ID_MAX_BYTES)
        .or_else(|| HeaderValue::from_str(&ident::uuid_v7()).ok());
    let mut response = next.run(request).await;
    let status = response.status();
    if status.as_u16() >= 400 && response.extensions().get::<Dressed>().is_none() {
        let challenge = response.headers_mut().remove(header::WWW_AUTHENTICATE);
        response = Fault::of_status(status).into_response();
        if let Some(challenge) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
    }
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The object under `name` in a body that is as it must be.
fn read(
    headers: &HeaderMap,
    body: &Bytes,
    name: &'static str,
) -> Result<Map<String, Value>, Fault> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    let media = |text: &str| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if let Some(accept) = text(header::ACCEPT)
        && !accept
            .split(',')
            .any(|one| matches!(&*media(one), "application/json" | "application/*" | "*/*"))
    {
        let what = "Error: Requested response body type '%1' is not supported.";
        let status = StatusCode::NOT_ACCEPTABLE;
        return Err(Fault::service(status, "SVC4002", what, [accept.to_owned()]));
    }
    if body.is_empty() {
        let what = "Error: Missing request body.";
        return Err(Fault::service(StatusCode::BAD_REQUEST, "SVC4000", what, []));
    }
    if !headers.contains_key(header::CONTENT_LENGTH) {
        let what = "Error: Missing mandatory Content-Length header.";
        return Err(Fault::service(StatusCode::LENGTH_REQUIRED, "SVC4007", what, []));
    }
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    if media(kind) != "application/json" {
        let what = "Error: Unsupported request body type, expected 'application/json'.";
        return Err(Fault::service(StatusCode::UNSUPPORTED_MEDIA_TYPE, "SVC4004", what, []));
    }
    let mut whole: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| Fault::unreadable(error.to_string()))?;
    let inner = whole.remove(name).ok_or_else(|| Fault::missing(name))?;
    only(&whole, "", &[])?;
    match inner {
        Value::Object(inner) => Ok(inner),
        _ => Err(Fault::invalid(name, "must be an object")),
    }
}

/// Refuses members that are not understood: what they ask for would be left out silently.
fn only(object: &Map<String, Value>, path: &str, known: &[&str]) -> Result<(), Fault> {
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(Fault::invalid(&format!("{path}{name}"), "is not a known parameter")),
        None => Ok(()),
    }
}

fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a Value, Fault> {
    object.get(name).filter(|value| !value.is_null()).ok_or_else(|| Fault::missing(name))
}

fn string<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a str, Fault> {
    member(object, name)?.as_str().ok_or_else(|| Fault::invalid(name, "must be a string"))
}

fn number(value: &Value, path: &str) -> Result<Party, Fault> {
    let text = value.as_str().ok_or_else(|| Fault::invalid(path, "must be a string"))?;
    let tn =
        canonicalise(text.as_bytes()).map_err(|error| Fault::invalid(path, error.to_string()))?;
    Ok(tn.into())
}

fn uri(value: &Value, path: &str) -> Result<Party, Fault> {
    let text = value.as_str().ok_or_else(|| Fault::invalid(path, "must be a string"))?;
    party(text.as_bytes(), UserIsTn::WithUserPhone)
        .filter(|party| matches!(party, Party::Uri(_)))
        .ok_or_else(|| Fault::invalid(path, "is not a URI that a PASSporT can name"))
}

/// `{"tn": "..."}` or `{"uri": "..."}`.
fn one(object: &Map<String, Value>, name: &str) -> Result<Party, Fault> {
    let inner = member(object, name)?;
    let inner = inner.as_object().ok_or_else(|| Fault::invalid(name, "must be an object"))?;
    only(inner, &format!("{name}."), &["tn", "uri"])?;
    match (inner.get("tn"), inner.get("uri")) {
        (Some(tn), None) => number(tn, &format!("{name}.tn")),
        (None, Some(text)) => uri(text, &format!("{name}.uri")),
        (None, None) => Err(Fault::missing(&format!("{name}.tn"))),
        (Some(_), Some(_)) => Err(Fault::invalid(name, "must have tn or uri, not both")),
    }
}

/// `{"tn": ["...", ...], "uri": [...]}`, at least one value.
fn many(object: &Map<String, Value>, name: &str) -> Result<Vec<Party>, Fault> {
    let inner = member(object, name)?;
    let inner = inner.as_object().ok_or_else(|| Fault::invalid(name, "must be an object"))?;
    only(inner, &format!("{name}."), &["tn", "uri"])?;
    let mut all = Vec::new();
    for (key, read) in [("tn", number as fn(&Value, &str) -> _), ("uri", uri)] {
        let Some(values) = inner.get(key) else { continue };
        let path = format!("{name}.{key}");
        let values = values.as_array().ok_or_else(|| Fault::invalid(&path, "must be an array"))?;
        for value in values {
            all.push(read(value, &path)?);
        }
    }
    match all.len() {
        0 => Err(Fault::missing(&format!("{name}.tn"))),
        count if count > DEST_VALUES_MAX => {
            Err(Fault::invalid(name, format!("has more than {DEST_VALUES_MAX} values")))
        }
        _ => Ok(all),
    }
}

/// Seconds since 1970-01-01 that are close to ours (ST-80).
fn time(object: &Map<String, Value>, name: &str, now_unix: u64) -> Result<u64, Fault> {
    let value = member(object, name)?;
    let time = value.as_u64().ok_or_else(|| {
        Fault::invalid(name, "must be a whole number of seconds since 1970-01-01")
    })?;
    if time.abs_diff(now_unix) > TIME_TOLERANCE_S {
        let reason = format!("is more than {TIME_TOLERANCE_S} s from the time here ({now_unix})");
        return Err(Fault::invalid(name, reason));
    }
    Ok(time)
}

/// 8-4-4-4-12 hexadecimal digits.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let dashes = text.match_indices('-').map(|(at, _)| at);
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let shaped = text.len() == 36 && dashes.eq([8, 13, 18, 23]);
    let sound = shaped && digits.bytes().all(|octet| octet.is_ascii_hexdigit());
    sound.then(|| u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)).flatten()
}

fn sign_request(request: &Map<String, Value>, now_unix: u64) -> Result<SignRequest, Fault> {
    only(request, "", &["attest", "dest", "iat", "orig", "origid"])?;
    let attest = Attest::from_text(string(request, "attest")?)
        .ok_or_else(|| Fault::invalid("attest", "must be A, B or C"))?;
    let (orig, dest) = (one(request, "orig")?, many(request, "dest")?);
    let iat = time(request, "iat", now_unix)?;
    let origid = uuid(string(request, "origid")?)
        .ok_or_else(|| Fault::invalid("origid", "must be a UUID"))?;
    Ok(SignRequest { attest, orig, dest: dest.into_iter().collect(), iat, origid })
}

/// Read in a place where files may be read.
async fn credentials(app: &App, now_unix: u64) -> Result<(Arc<Credentials>, Ceiling), Fault> {
    let active =
        app.publisher.active().ok_or_else(|| Fault::unavailable("no config is in force"))?;
    let ceiling = active.snapshot.stir.ceiling;
    let app = app.clone();
    let loaded = tokio::task::spawn_blocking(move || {
        app.stir.get(active.activation, &active.snapshot.stir, &app.data, now_unix)
    });
    Ok((loaded.await.map_err(|_| Fault::internal())?, ceiling))
}

type Ceiling = Option<AttestationLevel>;

/// `default_attestation` bounds what may be asked for (ST-10): refused, not lowered, for the client
/// would believe that it got what it asked for.
fn allowed(attest: Attest, ceiling: Ceiling) -> bool {
    let wanted = match attest {
        Attest::A => AttestationLevel::A,
        Attest::B => AttestationLevel::B,
        Attest::C => AttestationLevel::C,
    };
    ceiling.is_none_or(|ceiling| wanted >= ceiling)
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SigningAnswer {
    #[serde(rename = "signingResponse")]
    signing_response: Signed,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Signed {
    /// Value of the Identity header.
    identity: String,
}

/// Sign a call: make the value of its Identity header.
#[utoipa::path(post, path = "/stir/v1/signing", tag = "stir",
    request_body(content = serde_json::Value, example = json!({"signingRequest": {"attest": "A",
        "dest": {"tn": ["12125550100"]}, "iat": 1_767_225_600, "orig": {"tn": "13135551000"},
        "origid": "de305d54-75b4-431b-adb2-eb6b9e546014"}})),
    responses((status = 200, body = SigningAnswer), (status = 400, body = RequestErrorBody),
        (status = 403, body = RequestErrorBody), (status = 503, body = RequestErrorBody)))]
pub(crate) async fn signing(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<SigningAnswer>, Fault> {
    let now_unix = clock::unix_ms() / 1_000;
    let request = sign_request(&read(&headers, &body, "signingRequest")?, now_unix)?;
    let (credentials, ceiling) = credentials(&app, now_unix).await?;
    let signer =
        credentials.signer.as_ref().map_err(|reason| Fault::unavailable(reason.clone()))?;
    if !allowed(request.attest, ceiling) {
        let text = "Error: default_attestation does not allow this attestation level.";
        return Err(Fault::policy(StatusCode::FORBIDDEN, "POL4031", text));
    }
    let mut identity = Vec::new();
    signer.sign(&request, &mut identity).map_err(|error| match error {
        SignError::Scope => Fault::policy(
            StatusCode::FORBIDDEN,
            "POL4032",
            "Error: The certificate is not for this calling number.",
        ),
        SignError::Dest => Fault::invalid("dest", "has no value, or too many"),
        SignError::CertificateExpired | SignError::CertificateNotYetValid => {
            Fault::unavailable(format!("certificate: {error}"))
        }
        SignError::Crypto => Fault::internal(),
    })?;
    let identity = String::from_utf8(identity).map_err(|_| Fault::internal())?;
    let dest: Vec<String> = request.dest.iter().map(ToString::to_string).collect();
    // Who had what signed with the provider's key.
    let signed = event("stir.signed", Severity::Info, &caller.name(), app.version())
        .with("attest", request.attest.as_str())
        .with("orig", request.orig.to_string())
        .with("dest", dest)
        .with("iat", request.iat);
    let stored = async {
        let mut tx = app.store.write().await?;
        tx.audit(signed).await?;
        tx.commit().await
    };
    stored.await.map_err(|error| {
        tracing::error!(%error, "a signature could not be recorded, and is not given out");
        Fault::internal()
    })?;
    app.counters.stir.signed(request.attest);
    Ok(Json(SigningAnswer { signing_response: Signed { identity } }))
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct VerificationAnswer {
    #[serde(rename = "verificationResponse")]
    verification_response: Verified,
}

/// The verdict. Clients of this interface read the reason under one of two spellings of its names:
/// both are given.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Verified {
    /// `TN-Validation-Passed`, `TN-Validation-Failed` or `No-TN-Validation`.
    verstat: &'static str,
    /// STIR cause (RFC 8224 6.2.2), absent if it passed.
    #[serde(rename = "reasoncode", skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(rename = "reasontext", skip_serializing_if = "Option::is_none")]
    text: Option<&'static str>,
    /// Ravelin's own id of the reason.
    #[serde(rename = "reasondesc", skip_serializing_if = "Option::is_none")]
    desc: Option<&'static str>,
    #[serde(rename = "reasonCode", skip_serializing_if = "Option::is_none")]
    code_camel: Option<u16>,
    #[serde(rename = "reasonText", skip_serializing_if = "Option::is_none")]
    text_camel: Option<&'static str>,
    #[serde(rename = "reasonDesc", skip_serializing_if = "Option::is_none")]
    desc_camel: Option<&'static str>,
    /// Only if it passed (ST-66).
    #[serde(skip_serializing_if = "Option::is_none")]
    attest: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origid: Option<String>,
}

impl Verified {
    fn of(verdict: &Verdict) -> Self {
        let passed = verdict.outcome() == Outcome::Passed;
        let (code, text) = (verdict.cause(), verdict.outcome().text());
        let desc = (!passed).then(|| verdict.reason.label());
        Self {
            verstat: verdict.verstat().unwrap_or(Verstat::NoValidation).as_str(),
            code,
            text,
            desc,
            code_camel: code,
            text_camel: text,
            desc_camel: desc,
            attest: verdict.attest.filter(|_| passed).map(Attest::as_str),
            origid: verdict.origid.as_deref().filter(|_| passed).map(str::to_owned),
        }
    }
}

/// Judge the Identity header of a call.
#[utoipa::path(post, path = "/stir/v1/verification", tag = "stir",
    request_body(content = serde_json::Value, example = json!({"verificationRequest": {
        "from": {"tn": "13135551000"}, "to": {"tn": ["12125550100"]}, "time": 1_767_225_600,
        "identity": "eyJ...;info=<https://cert.example/sp.pem>;alg=ES256;ppt=shaken"}})),
    responses((status = 200, body = VerificationAnswer), (status = 400, body = RequestErrorBody),
        (status = 503, body = RequestErrorBody)))]
pub(crate) async fn verification(
    State(app): State<App>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<VerificationAnswer>, Fault> {
    let now_unix = clock::unix_ms() / 1_000;
    let request = read(&headers, &body, "verificationRequest")?;
    only(&request, "", &["from", "identity", "time", "to"])?;
    let (from, to) = (one(&request, "from")?, many(&request, "to")?);
    // Our own clock decides about the token's age: a client cannot make an old one fresh.
    time(&request, "time", now_unix)?;
    let identity = string(&request, "identity")?.trim();
    if identity.len() > IDENTITY_VALUE_BYTES_MAX {
        let reason = format!("is longer than {IDENTITY_VALUE_BYTES_MAX} octets");
        return Err(Fault::invalid("identity", reason));
    }
    let (credentials, _) = credentials(&app, now_unix).await?;
    let trust = credentials.trust.as_ref().map_err(|reason| Fault::unavailable(reason.clone()))?;
    let verdict = stir::judge(trust, &from, &to, identity, now_unix);
    app.counters.stir.verified(verdict.outcome());
    Ok(Json(VerificationAnswer { verification_response: Verified::of(&verdict) }))
}
