//! Health: open to everybody, says nothing secret.

use axum::{Json, extract::State, http::StatusCode};
use ravelin_policy::{Mode, TestSignal};
use serde::Serialize;
use sqlx::Row;

use super::App;
use crate::store::Backend;

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Health {
    /// `ok`, or `failing` with what fails in `problems`.
    status: &'static str,
    version: &'static str,
    config_version: Option<u64>,
    nodes: usize,
    nodes_connected: usize,
    /// Connected nodes that do not have the config in force.
    nodes_behind: Vec<String>,
    deployment: Deployment,
    store: &'static str,
    problems: Vec<String>,
}

/// Production or test, and why (compliance-systems E4).
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Deployment {
    /// `production`, `test`, or `unknown` while no config is in force.
    mode: &'static str,
    why: Vec<String>,
}

/// Whether the control plane works, and which mode is in force.
#[utoipa::path(get, path = "/api/health", tag = "health", security(()),
    responses((status = 200, body = Health), (status = 503, body = Health)))]
pub(crate) async fn health(State(app): State<App>) -> (StatusCode, Json<Health>) {
    let mut problems = Vec::new();
    let answer =
        async { sqlx::query("SELECT 1").fetch_one(app.store.reader()).await?.try_get::<i32, _>(0) };
    if answer.await.is_err() {
        problems.push("the store does not answer".to_owned());
    }
    let active = app.publisher.active();
    let all = app.registry.all();
    let connected: Vec<_> = all.iter().filter(|node| node.is_connected()).collect();
    let nodes_behind = active.as_ref().map_or_else(Vec::new, |active| {
        connected
            .iter()
            .filter(|node| node.info().active_version != active.version)
            .map(|node| node.name.clone())
            .collect()
    });
    let (mode, mut why) = match active.as_ref().map(|active| active.snapshot.mode) {
        None => ("unknown", vec!["no config is in force".to_owned()]),
        Some(Mode::Production) => {
            ("production", vec!["deployment.mode of the config in force".to_owned()])
        }
        Some(Mode::Test) => ("test", vec!["deployment.mode of the config in force".to_owned()]),
    };
    why.extend(app.signals.0.iter().map(|signal| match signal {
        TestSignal::Variable { name, .. } => format!("test signal: environment variable {name}"),
        TestSignal::FileName(name) => format!("test signal: config file name {name}"),
    }));
    let failing = !problems.is_empty();
    let health = Health {
        status: if failing { "failing" } else { "ok" },
        version: env!("CARGO_PKG_VERSION"),
        config_version: active.map(|active| active.version),
        nodes: all.len(),
        nodes_connected: connected.len(),
        nodes_behind,
        deployment: Deployment { mode, why },
        store: match app.store.backend() {
            Backend::Sqlite => "sqlite",
            Backend::Postgres => "postgres",
        },
        problems,
    };
    let status = if failing { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, Json(health))
}
