//! Tests of controls from outside, over the API: what strangers get, what each role may not do,
//! what becomes of a bad config, and whether refusals are seen.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::probe::Probe;
use crate::exit::Failure;

/// How long a sign of refused requests may take to appear in the audit trail.
const SIGN_TIMEOUT: Duration = Duration::from_secs(10);
const SIGN_INTERVAL: Duration = Duration::from_millis(200);
/// Life of the tokens of the test, should it be interrupted before it revokes them.
const TOKEN_LIFE_S: u64 = 300;
/// Routes that are open to everybody by design.
const OPEN: [&str; 3] = ["/api/health", "/metrics", "/api/openapi.json"];

/// What each role may not do. No body is sent: whoever was let through would be told 400.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("viewer", "PUT", "/api/config"),
    ("viewer", "POST", "/api/config/activate"),
    ("viewer", "POST", "/api/config/rollback"),
    ("viewer", "POST", "/api/e911/multi-site/config"),
    ("viewer", "DELETE", "/api/e911/multi-site/config/4294967295"),
    ("viewer", "POST", "/api/e911/extension-site"),
    ("viewer", "POST", "/api/emergency/contacts"),
    ("viewer", "POST", "/api/emergency/trigger"),
    ("viewer", "POST", "/api/framework/compliance/soc2/control"),
    ("viewer", "GET", "/api/audit/events"),
    ("viewer", "GET", "/api/reports/emergency"),
    ("viewer", "GET", "/api/tokens"),
    ("auditor", "PUT", "/api/config"),
    ("auditor", "POST", "/api/config/activate"),
    ("auditor", "POST", "/api/config/rollback"),
    ("auditor", "POST", "/api/e911/multi-site/config"),
    ("auditor", "DELETE", "/api/e911/multi-site/config/4294967295"),
    ("auditor", "POST", "/api/emergency/contacts"),
    ("auditor", "POST", "/api/emergency/trigger"),
    ("auditor", "GET", "/api/tokens"),
    ("auditor", "POST", "/api/tokens"),
    ("operator", "POST", "/api/framework/compliance/soc2/control"),
    ("operator", "POST", "/api/framework/compliance/soc2/audit"),
    ("operator", "GET", "/api/tokens"),
    ("operator", "POST", "/api/tokens"),
];
/// What each role must be able to read, so that a refusal of everything does not pass.
const ALLOWED: &[(&str, &str)] =
    &[("viewer", "/api/nodes"), ("auditor", "/api/audit/events"), ("operator", "/api/cdrs")];

/// Documents that must be refused whole: not YAML, an unknown key, a trunk that nobody has.
const BAD: [(&str, &str); 3] = [
    ("no YAML", "node: [edge\n"),
    ("an unknown key", "node: edge-1\nedge: {}\ncolour: red\n"),
    (
        "a trunk that does not exist",
        "node: edge-1\nedge: {}\nroutes: [{ id: r, from: [nobody], to: \"*\", trunks: [nobody] }]\n",
    ),
];

/// One test.
pub(super) struct Test {
    pub(super) control_id: String,
    pub(super) name: String,
    /// `passed`, `failed` or `skipped`.
    pub(super) outcome: &'static str,
    pub(super) details: String,
}

/// How a test ended that could run.
enum Verdict {
    Passed(String),
    Failed(String),
    Skipped(String),
}

type Run = fn(&Probe) -> Result<Verdict, Failure>;

const TESTS: &[(&str, &str, Run)] = &[
    ("CC6.1", "each role may not do what it should not", roles),
    ("CC6.2", "no route opens without a valid token", strangers),
    ("CC7.1", "refused requests are counted and audited", seen),
    ("PI1.1", "a bad config is refused whole and by field", refused_whole),
];

/// Runs the tests of the controls that `wanted` takes.
pub(super) fn run(probe: &Probe, wanted: impl Fn(&str) -> bool) -> Result<Vec<Test>, Failure> {
    let mut done = Vec::new();
    for (control_id, name, test) in TESTS {
        if !wanted(control_id) {
            continue;
        }
        let (outcome, details) = match test(probe)? {
            Verdict::Passed(details) => ("passed", details),
            Verdict::Failed(details) => ("failed", details),
            Verdict::Skipped(details) => ("skipped", details),
        };
        done.push(Test {
            control_id: (*control_id).to_owned(),
            name: (*name).to_owned(),
            outcome,
            details,
        });
    }
    Ok(done)
}

/// Every method and path of the API's own description.
fn routes(probe: &Probe) -> Result<Vec<(Method, String)>, Failure> {
    let path = "/api/openapi.json";
    let described = probe.send(&Method::GET, path, None, None)?.good(path)?;
    let mut routes = Vec::new();
    for (path, methods) in described["paths"].as_object().into_iter().flatten() {
        if OPEN.contains(&path.as_str()) {
            continue;
        }
        let mut filled = String::new();
        for (index, part) in path.split(['{', '}']).enumerate() {
            // Every other part is the name of a placeholder.
            filled.push_str(if index % 2 == 1 { "4294967295" } else { part });
        }
        for method in methods.as_object().into_iter().flatten().map(|(name, _)| name) {
            if let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) {
                routes.push((method, filled.clone()));
            }
        }
    }
    Ok(routes)
}

fn strangers(probe: &Probe) -> Result<Verdict, Failure> {
    let routes = routes(probe)?;
    if routes.is_empty() {
        return Ok(Verdict::Failed("the API describes no route".to_owned()));
    }
    let forged = format!("rvl_{}_{}", "0".repeat(16), "0".repeat(64));
    for (method, path) in &routes {
        for token in [None, Some(forged.as_str())] {
            let status = probe.send(method, path, token, None)?.status;
            if status != 401 {
                let with = if token.is_some() { "a forged token" } else { "no token" };
                let text = format!("{method} {path} with {with} was answered {status}");
                return Ok(Verdict::Failed(text));
            }
        }
    }
    let count = routes.len();
    Ok(Verdict::Passed(format!("{count} routes, each answered 401 to no token and a forged one")))
}

fn roles(probe: &Probe) -> Result<Verdict, Failure> {
    let mut tokens = Vec::new();
    let result = roles_with(probe, &mut tokens);
    // Whatever was found: the tokens of the test go.
    for (id, secret) in &tokens {
        let path = format!("/api/tokens/{id}");
        let status = probe.own(&Method::DELETE, &path, None)?.status;
        if status != 204 {
            let text =
                format!("token {id} of this test could not be revoked ({status}); revoke it");
            return Ok(Verdict::Failed(text));
        }
        let status = probe.send(&Method::GET, "/api/nodes", Some(secret), None)?.status;
        if status != 401 {
            return Ok(Verdict::Failed(format!("a revoked token was answered {status}")));
        }
    }
    result
}

fn roles_with(probe: &Probe, made: &mut Vec<(String, String)>) -> Result<Verdict, Failure> {
    for role in ["viewer", "auditor", "operator"] {
        let body = json!({"name": "soc2 test", "role": role, "expires_in_s": TOKEN_LIFE_S});
        let reply = probe.own(&Method::POST, "/api/tokens", Some(&body))?;
        if reply.status == 403 {
            let text = "an admin token is needed to try each role";
            return Ok(Verdict::Skipped(text.to_owned()));
        }
        let token = reply.good("/api/tokens")?;
        let text = |key: &str| token[key].as_str().unwrap_or_default().to_owned();
        let secret = text("secret");
        made.push((text("id"), secret.clone()));
        for (_, method, path) in FORBIDDEN.iter().filter(|(of, ..)| *of == role) {
            let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
            let status = probe.send(&method, path, Some(&secret), None)?.status;
            if status != 403 {
                let text = format!("{role}: {method} {path} was answered {status}, not 403");
                return Ok(Verdict::Failed(text));
            }
        }
        for (_, path) in ALLOWED.iter().filter(|(of, _)| *of == role) {
            let status = probe.send(&Method::GET, path, Some(&secret), None)?.status;
            if status != 200 {
                return Ok(Verdict::Failed(format!("{role}: GET {path} was answered {status}")));
            }
        }
    }
    let count = FORBIDDEN.len();
    Ok(Verdict::Passed(format!("{count} things that a role may not do were refused with 403")))
}

fn refused_whole(probe: &Probe) -> Result<Verdict, Failure> {
    let versions = || -> Result<Value, Failure> {
        let path = "/api/config/versions";
        probe.own(&Method::GET, path, None)?.good(path)
    };
    let before = versions()?;
    for (what, document) in BAD {
        for (method, path) in [(Method::POST, "/api/config/validate"), (Method::PUT, "/api/config")]
        {
            let body = Some(("application/yaml", document));
            let reply = probe.send(&method, path, Some(&probe.token), body)?;
            if reply.status == 403 && method == Method::PUT {
                continue;
            }
            let named = reply.body["fields"].as_object().is_some_and(|fields| !fields.is_empty());
            if reply.status != 422 || !named {
                let status = reply.status;
                let text =
                    format!("{what}: {method} {path} was answered {status}, or named no field");
                return Ok(Verdict::Failed(text));
            }
        }
    }
    if versions()? != before {
        return Ok(Verdict::Failed("a refused document left a version behind".to_owned()));
    }
    let count = BAD.len();
    Ok(Verdict::Passed(format!("{count} bad documents were refused by field, nothing was stored")))
}

fn seen(probe: &Probe) -> Result<Verdict, Failure> {
    let path = "/api/audit/events?kind=auth.refused&limit=1000";
    let events = || -> Result<Option<u64>, Failure> {
        let reply = probe.own(&Method::GET, path, None)?;
        if reply.status == 403 {
            return Ok(None);
        }
        let events = reply.good("/api/audit/events")?;
        let all = events["events"].as_array().into_iter().flatten();
        Ok(Some(all.filter_map(|event| event["fields"]["requests"].as_u64()).sum()))
    };
    let Some(audited) = events()? else {
        return Ok(Verdict::Skipped("this token may not read audit events".to_owned()));
    };
    let counted = refusals(probe)?;
    for _ in 0..3 {
        probe.send(&Method::GET, "/api/nodes", None, None)?;
    }
    if refusals(probe)? < counted + 3 {
        return Ok(Verdict::Failed("refused requests do not show in the metrics".to_owned()));
    }
    let end = Instant::now() + SIGN_TIMEOUT;
    while Instant::now() < end {
        if events()?.unwrap_or_default() >= audited + 3 {
            return Ok(Verdict::Passed("3 refused requests were counted and audited".to_owned()));
        }
        std::thread::sleep(SIGN_INTERVAL);
    }
    Ok(Verdict::Failed("refused requests do not show in the audit trail".to_owned()))
}

/// The counter of refused requests.
fn refusals(probe: &Probe) -> Result<u64, Failure> {
    const NAME: &str = "ravelin_control_auth_refused_total";
    let (_, bytes) = probe.bytes(&Method::GET, "/metrics", None, None)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.lines()
        .find_map(|line| line.strip_prefix(NAME)?.split_whitespace().last()?.parse().ok())
        .ok_or_else(|| Failure::cannot_run(format!("/metrics has no {NAME}")))
}
