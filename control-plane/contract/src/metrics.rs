//! Counters, gauges and histograms of one node.

use serde::{Deserialize, Serialize};

/// One report, sent about once a second. Values are totals since the edge started, summed over its
/// shards unless a sample says otherwise in a label.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricsReport {
    pub unix_ms: u64,
    /// When the edge started; a change means that totals began again.
    pub started_unix_ms: u64,
    pub samples: Vec<Sample>,
    pub histograms: Vec<Histogram>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<Buckets>,
}

/// One counter or gauge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Prometheus name without the `ravelin_` prefix; a counter's ends in `_total`.
    pub name: String,
    pub help: String,
    pub kind: SampleKind,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleKind {
    Counter,
    Gauge,
}

/// Quantiles of an HDR histogram, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    pub name: String,
    pub help: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(String, String)>,
    pub count: u64,
    pub sum_ns: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
}

/// A histogram with fixed bounds, which can be summed over shards and nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Buckets {
    /// Prometheus name without the `ravelin_` prefix, with its unit.
    pub name: String,
    pub help: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(String, String)>,
    /// Upper bounds, ascending, in the unit of the name; a value equal to a bound is under it.
    pub bounds: Vec<f64>,
    /// How many values lie under each bound and above the one before, and behind them how many
    /// above the last.
    pub counts: Vec<u64>,
    /// Of all values.
    pub sum: f64,
}
