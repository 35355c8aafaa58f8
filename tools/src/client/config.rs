//! `ravelin apply` and `ravelin rollback`: config versions through the API.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Answer, request};
use crate::{
    cli::{ApiArgs, ApplyArgs, RollbackArgs},
    exit::{Failure, Outcome},
    print,
};

pub(crate) fn apply(args: &ApplyArgs) -> Result<Outcome, Failure> {
    let document =
        ravelin_edge::settings::read_document(&args.file).map_err(Failure::cannot_run)?;
    let body = Some(("application/yaml", document));
    if args.dry_run {
        let answer = request(&args.api, Method::POST, "/api/config/validate", body)?;
        if !answer.is_success() {
            return refused(&answer, args.json);
        }
        if args.json {
            print::json(&answer.body)?;
        } else {
            print::line(&format!("{}: valid; nothing was changed", args.file.display()))?;
        }
        return Ok(Outcome::Passed);
    }
    let staged = request(&args.api, Method::PUT, "/api/config", body)?;
    if !staged.is_success() {
        return refused(&staged, args.json);
    }
    let version = staged.body["version"].as_u64().ok_or_else(|| {
        Failure::cannot_run("the control plane staged the file but named no version")
    })?;
    put_in_force(&args.api, "/api/config/activate", version, args.json)
}

pub(crate) fn rollback(args: &RollbackArgs) -> Result<Outcome, Failure> {
    put_in_force(&args.api, "/api/config/rollback", args.version, args.json)
}

fn put_in_force(
    api: &ApiArgs,
    path: &str,
    version: u64,
    as_json: bool,
) -> Result<Outcome, Failure> {
    let body = Some(("application/json", json!({ "version": version }).to_string()));
    let answer = request(api, Method::POST, path, body)?;
    if !answer.is_success() {
        return refused(&answer, as_json);
    }
    let nodes = answer.body["nodes"].as_array().cloned().unwrap_or_default();
    if as_json {
        print::json(&answer.body)?;
    } else {
        show(&answer.body, &nodes, version)?;
    }
    // A node that is away, or that already has a newer version, did not refuse this one.
    let failed = |node: &Value| node["result"] == "refused" || node["result"] == "timeout";
    Ok(Outcome::of(!nodes.iter().any(failed)))
}

/// Version and acknowledgement of each node.
fn show(body: &Value, nodes: &[Value], version: u64) -> Result<(), Failure> {
    let version = body["version"].as_u64().unwrap_or(version);
    print::line(&format!("version {version} is the one in force"))?;
    for node in nodes {
        let name = node["node"].as_str().unwrap_or("?");
        let result = node["result"].as_str().unwrap_or("no answer");
        print::line(&print::plain(&format!("  {name}: {result}")))?;
        for error in node["errors"].as_array().into_iter().flatten() {
            let path = error["path"].as_str().unwrap_or("document");
            let reason = error["reason"].as_str().unwrap_or_default();
            print::line(&print::plain(&format!("    {path}: {reason}")))?;
        }
    }
    if nodes.is_empty() {
        print::line("  no node is connected; nodes take it when they connect")?;
    }
    for path in body["restart"].as_array().into_iter().flatten() {
        let path = path.as_str().unwrap_or_default();
        print::line(&print::plain(&format!("  needs a restart: {path}")))?;
    }
    Ok(())
}

fn refused(answer: &Answer, as_json: bool) -> Result<Outcome, Failure> {
    if matches!(answer.status, 401 | 403) {
        return Err(Failure::cannot_run(answer.error()));
    }
    if as_json {
        print::json(&answer.body)?;
    } else {
        for (path, reason) in answer.fields() {
            print::line(&print::plain(&format!("error: {path}: {reason}")))?;
        }
    }
    Err(Failure::not_passed(format!("refused, nothing was changed: {}", answer.error())))
}
