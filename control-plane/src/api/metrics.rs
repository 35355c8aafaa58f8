//! Metrics: the control plane's own, and those of the nodes under one roof.

use std::collections::{BTreeMap, HashMap};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, text::encode},
    metrics::{MetricType, counter::Counter, exemplar::Exemplar, family::Family},
    registry::Registry,
};
use ravelin_contract::metrics::{Buckets, MetricsReport, SampleKind};

use super::App;
use crate::{notify, stir, store::records::Stored};

/// Samples of one node that are shown; a node with more is cut and counted.
const SAMPLES_MAX: usize = 20_000;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabel {
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NodeLabel {
    node: String,
}

/// What the control plane counts itself.
#[derive(Debug, Default)]
pub struct OwnCounters {
    pub repeats: Counter,
    pub flaws: Counter,
    pub store_failures: Counter,
    pub links_refused: Counter,
    pub auth_refused: Counter,
    pub connections_refused: Counter,
    pub notify: notify::meters::Meters,
    pub stir: stir::Meters,
    requests: Family<CodeLabel, Counter>,
    events_stored: Family<NodeLabel, Counter>,
    cdrs_stored: Family<NodeLabel, Counter>,
}

impl OwnCounters {
    pub fn stored(&self, node: &str, stored: &Stored) {
        let label = NodeLabel { node: node.to_owned() };
        self.events_stored.get_or_create(&label).inc_by(stored.events);
        self.cdrs_stored.get_or_create(&label).inc_by(stored.cdrs);
        self.repeats.inc_by(stored.repeats);
        self.flaws.inc_by(stored.flaws);
    }

    pub fn request(&self, status: StatusCode) {
        self.requests.get_or_create(&CodeLabel { code: status.as_u16() }).inc();
    }

    fn register(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            ("records_repeats", "Records that were stored already", &self.repeats),
            ("records_flaws", "Records that break their chain", &self.flaws),
            ("store_failures", "Transactions that failed", &self.store_failures),
            ("links_refused", "Node connections refused", &self.links_refused),
            ("auth_refused", "Requests refused for want of a right", &self.auth_refused),
            ("connections_refused", "HTTP connections refused", &self.connections_refused),
        ] {
            registry.register(format!("control_{name}"), help, counter.clone());
        }
        let stored = "Audit events of the node that were stored";
        registry.register("audit_events_stored", stored, self.events_stored.clone());
        let stored = "CDRs of the node that were stored, of calls and of attempts";
        registry.register("cdrs_stored", stored, self.cdrs_stored.clone());
        registry.register("control_requests", "HTTP requests by status", self.requests.clone());
        self.notify.register(registry);
        self.stir.register(registry);
    }
}

/// All metrics in OpenMetrics text, which Prometheus reads.
#[utoipa::path(get, path = "/metrics", tag = "health", security(()),
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    let mut registry = Registry::with_prefix("ravelin");
    app.counters.register(&mut registry);
    let all = app.registry.all();
    let reports = all
        .iter()
        .filter(|node| node.is_connected())
        .filter_map(|node| Some((node.name.clone(), node.metrics()?)))
        .collect();
    let connected = all.iter().map(|node| (node.name.clone(), node.is_connected())).collect();
    registry.register_collector(Box::new(Nodes {
        reports,
        connected,
        config_version: app.version(),
    }));
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The nodes' reports, encoded at each scrape.
#[derive(Debug)]
struct Nodes {
    reports: Vec<(String, MetricsReport)>,
    connected: Vec<(String, bool)>,
    config_version: u64,
}

type Labels = Vec<(String, String)>;

/// One family: what Prometheus wants to see together.
struct Shown {
    help: String,
    kind: SampleKind,
    samples: Vec<(Labels, f64)>,
}

impl Nodes {
    fn families(&self) -> BTreeMap<String, Shown> {
        let mut families = BTreeMap::new();
        let mut add = |name: &str, help: &str, kind, labels: Labels, value: f64| {
            let name = match kind {
                SampleKind::Counter => name.strip_suffix("_total").unwrap_or(name),
                SampleKind::Gauge => name,
            };
            if !valid_name(name) || !labels.iter().all(|(name, _)| valid_name(name)) {
                return false;
            }
            let family = families.entry(name.to_owned()).or_insert_with(|| Shown {
                help: help.trim_end_matches('.').to_owned(),
                kind,
                samples: Vec::new(),
            });
            let fits = family.kind == kind;
            if fits {
                family.samples.push((labels, value));
            }
            fits
        };
        let gauge = SampleKind::Gauge;
        add(
            "config_version",
            "Config version in force",
            gauge,
            Vec::new(),
            whole(self.config_version),
        );
        for (node, connected) in &self.connected {
            let labels = vec![("node".to_owned(), node.clone())];
            add(
                "node_connected",
                "1 if the node is connected",
                gauge,
                labels,
                f64::from(u8::from(*connected)),
            );
        }
        for (node, report) in &self.reports {
            let mut hidden = report.samples.len().saturating_sub(SAMPLES_MAX);
            let with_node = |labels: &Labels| {
                let mut all = vec![("node".to_owned(), node.clone())];
                all.extend(labels.iter().filter(|(name, _)| name != "node").cloned());
                all
            };
            for sample in report.samples.iter().take(SAMPLES_MAX) {
                let labels = with_node(&sample.labels);
                if !add(&sample.name, &sample.help, sample.kind, labels, sample.value) {
                    hidden += 1;
                }
            }
            for histogram in &report.histograms {
                let name = format!("{}_seconds", histogram.name);
                for (quantile, ns) in [
                    ("0.5", histogram.p50_ns),
                    ("0.9", histogram.p90_ns),
                    ("0.99", histogram.p99_ns),
                    ("0.999", histogram.p999_ns),
                    ("1", histogram.max_ns),
                ] {
                    let mut labels = with_node(&histogram.labels);
                    labels.push(("quantile".to_owned(), quantile.to_owned()));
                    add(&name, &histogram.help, gauge, labels, whole(ns) / 1e9);
                }
                let counter = SampleKind::Counter;
                let labels = || with_node(&histogram.labels);
                let help = format!("{}: how many", histogram.help.trim_end_matches('.'));
                add(
                    &format!("{}_observations", histogram.name),
                    &help,
                    counter,
                    labels(),
                    whole(histogram.count),
                );
                let help = format!("{}: their sum", histogram.help.trim_end_matches('.'));
                let name = format!("{}_observed_seconds", histogram.name);
                add(&name, &help, counter, labels(), whole(histogram.sum_ns) / 1e9);
            }
            let labels = vec![("node".to_owned(), node.clone())];
            let hidden = u64::try_from(hidden).unwrap_or(u64::MAX);
            add(
                "control_samples_hidden",
                "Samples of the node that cannot be shown",
                gauge,
                labels,
                whole(hidden),
            );
            let labels = vec![("node".to_owned(), node.clone())];
            let started = whole(report.started_unix_ms) / 1e3;
            add("node_start_time_seconds", "When the node started", gauge, labels, started);
        }
        families
    }
}

/// Histograms of one name.
struct BucketFamily<'a> {
    help: String,
    of: Vec<(Labels, &'a Buckets)>,
}

impl Nodes {
    fn buckets(&self) -> BTreeMap<String, BucketFamily<'_>> {
        let mut families: BTreeMap<String, BucketFamily<'_>> = BTreeMap::new();
        for (node, report) in &self.reports {
            for buckets in report.buckets.iter().take(SAMPLES_MAX) {
                let named = valid_name(&buckets.name)
                    && buckets.labels.iter().all(|(name, _)| valid_name(name));
                if !named || buckets.counts.len() != buckets.bounds.len() + 1 {
                    continue;
                }
                let mut labels = vec![("node".to_owned(), node.clone())];
                labels.extend(buckets.labels.iter().filter(|(name, _)| name != "node").cloned());
                let help = buckets.help.trim_end_matches('.').to_owned();
                let of = Vec::new();
                let family = families
                    .entry(buckets.name.clone())
                    .or_insert_with(|| BucketFamily { help, of });
                family.of.push((labels, buckets));
            }
        }
        families
    }
}

#[allow(clippy::cast_precision_loss, reason = "metrics are floating point")]
fn whole(number: u64) -> f64 {
    number as f64
}

fn valid_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_')
}

impl Collector for Nodes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (name, family) in self.families() {
            let kind = match family.kind {
                SampleKind::Counter => MetricType::Counter,
                SampleKind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(&name, &family.help, None, kind)?;
            for (labels, value) in family.samples {
                if labels.is_empty() {
                    put(&mut metric, family.kind, value)?;
                } else {
                    put(&mut metric.encode_family(&labels)?, family.kind, value)?;
                }
            }
        }
        for (name, family) in self.buckets() {
            let kind = MetricType::Histogram;
            let mut metric = encoder.encode_descriptor(&name, &family.help, None, kind)?;
            for (labels, buckets) in family.of {
                let count = buckets.counts.iter().sum();
                let above = std::iter::once(f64::INFINITY);
                let bounds = buckets.bounds.iter().copied().chain(above);
                let counts: Vec<_> = bounds.zip(buckets.counts.iter().copied()).collect();
                let mut metric = metric.encode_family(&labels)?;
                let exemplars = None::<&HashMap<usize, Exemplar<Labels, f64>>>;
                metric.encode_histogram(buckets.sum, count, &counts, exemplars)?;
            }
        }
        Ok(())
    }
}

fn put(
    metric: &mut MetricEncoder<'_>,
    kind: SampleKind,
    value: f64,
) -> Result<(), std::fmt::Error> {
    match kind {
        SampleKind::Counter => metric.encode_counter(&value, None::<&Exemplar<Labels, f64>>),
        SampleKind::Gauge => metric.encode_gauge(&value),
    }
}
