//! One report of the node out of the counters of its shards, the spool and the process.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use ravelin_contract::metrics::{Buckets, Histogram, MetricsReport, Sample, SampleKind};
use ravelin_io::xdp::{FastPath, FastSample};

use super::unix_ms;
use crate::{
    mailbox::{ShardReport, Shards},
    spool::SpoolHandle,
};

/// Where the numbers come from.
pub(crate) struct Sources {
    pub(crate) started_unix_ms: u64,
    pub(crate) shards: Arc<Mutex<Option<Shards>>>,
    pub(crate) spool: SpoolHandle,
    pub(crate) link_connected: Arc<AtomicBool>,
    pub(crate) process: Arc<ProcessCounters>,
    /// Streams below the sockets.
    pub(crate) fast: Arc<Mutex<Option<Arc<FastPath>>>>,
    /// Driver in use and why, for `edge_info`.
    pub(crate) driver: Arc<Mutex<(String, String)>>,
}

/// Counters of the process that no shard owns.
#[derive(Debug, Default)]
pub(crate) struct ProcessCounters {
    pub(crate) documents_applied: AtomicU64,
    pub(crate) documents_refused: AtomicU64,
    pub(crate) shard_stalls: AtomicU64,
    pub(crate) shards_silent: AtomicU64,
    pub(crate) snapshot_version: AtomicU64,
    pub(crate) test_mode: AtomicBool,
    pub(crate) stir_faults: AtomicU64,
    /// End of the signing certificate's validity, seconds since 1970-01-01; 0 without one.
    pub(crate) certificate_not_after: AtomicU64,
    /// Media port pairs of the config that could not be opened.
    pub(crate) media_pairs_missing: AtomicU64,
}

impl Sources {
    /// The report of this moment. A shard that does not answer is left out and counted.
    pub(crate) fn report(&self) -> MetricsReport {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let in_service = shards.as_ref().map_or(0, Shards::count);
        let reports = match shards.map(|shards| shards.reports()) {
            Some(Ok(reports)) => reports,
            Some(Err(_)) => {
                self.process.shards_silent.fetch_add(1, Ordering::Relaxed);
                Vec::new()
            }
            None => Vec::new(),
        };
        let (mut samples, histograms, buckets) = merge(reports);
        self.add_own(&mut samples, in_service as u64);
        MetricsReport {
            unix_ms: unix_ms(),
            started_unix_ms: self.started_unix_ms,
            samples,
            histograms,
            buckets,
        }
    }

    fn add_own(&self, samples: &mut Vec<Sample>, in_service: u64) {
        use SampleKind::{Counter, Gauge};
        let spool = self.spool.status();
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let process = &self.process;
        for (name, help, kind, value) in [
            (
                "audit_records_total",
                "Number of the last durable record",
                Counter,
                load(&spool.synced_seq),
            ),
            (
                "audit_stored",
                "Last record stored by the control plane",
                Gauge,
                load(&spool.stored_seq),
            ),
            (
                "audit_lost_total",
                "Records given up because a queue was full",
                Counter,
                load(&spool.lost),
            ),
            ("audit_gaps_total", "Gap records sealed", Counter, load(&spool.gaps)),
            ("audit_syncs_total", "Group syncs of the audit spool", Counter, load(&spool.syncs)),
            (
                "audit_write_errors_total",
                "Writes that the disk refused",
                Counter,
                load(&spool.write_errors),
            ),
            (
                "audit_write_failing",
                "1 while the disk refuses audit records",
                Gauge,
                u64::from(spool.failing.load(Ordering::Relaxed)),
            ),
            ("audit_spool_bytes", "Octets of all audit segments", Gauge, load(&spool.bytes)),
            ("shards_in_service", "Shards that take calls", Gauge, in_service),
            (
                "link_connected",
                "1 while the control plane is connected",
                Gauge,
                u64::from(self.link_connected.load(Ordering::Relaxed)),
            ),
            (
                "config_applied_total",
                "Documents put in force",
                Counter,
                load(&process.documents_applied),
            ),
            (
                "config_refused_total",
                "Documents refused",
                Counter,
                load(&process.documents_refused),
            ),
            (
                "config_version",
                "Version of the snapshot in force",
                Gauge,
                load(&process.snapshot_version),
            ),
            (
                "shard_stalls_total",
                "Turns of shards that took too long",
                Counter,
                load(&process.shard_stalls),
            ),
            (
                "shard_silent_total",
                "Questions that a shard did not answer in time",
                Counter,
                load(&process.shards_silent),
            ),
            (
                "test_mode",
                "1 if emergency calls are blocked because this is a test node",
                Gauge,
                u64::from(process.test_mode.load(Ordering::Relaxed)),
            ),
            (
                "stir_credential_faults",
                "Certificates and keys that cannot be used",
                Gauge,
                load(&process.stir_faults),
            ),
            (
                "stir_certificate_not_after_seconds",
                "End of the signing certificate's validity, UTC; 0 without one",
                Gauge,
                load(&process.certificate_not_after),
            ),
            (
                "media_pairs_missing",
                "Media port pairs of the config that are not open",
                Gauge,
                load(&process.media_pairs_missing),
            ),
            ("process_resident_bytes", "Resident memory", Gauge, resident_bytes()),
        ] {
            samples.push(sample(name, help, kind, Vec::new(), value));
        }
        if let Some(fast) = &*self.fast.lock().unwrap_or_else(PoisonError::into_inner) {
            fast.samples(&mut |FastSample { name, help, label, shard, value, total }| {
                let shard = shard.map(|shard| ("shard", shard.to_string()));
                let label = label.map(|(key, value)| (key, value.to_owned()));
                let labels = shard.into_iter().chain(label);
                let labels = labels.map(|(key, value)| (key.to_owned(), value));
                let kind = if total { Counter } else { Gauge };
                samples.push(sample(name, help, kind, labels.collect(), value));
            });
        }
        let (driver, reason) = self.driver.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let labels = vec![
            ("driver".to_owned(), driver),
            ("reason".to_owned(), reason),
            ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ];
        samples.push(sample("edge_info", "Always 1; driver and version", Gauge, labels, 1));
    }
}

fn sample(
    name: &str,
    help: &str,
    kind: SampleKind,
    labels: Vec<(String, String)>,
    value: u64,
) -> Sample {
    // Exact up to 2^53.
    Sample { name: name.into(), help: help.into(), kind, labels, value: value as f64 }
}

/// Adds up what shards counted under the same name and labels; the order is that of the first shard.
fn merge(reports: Vec<ShardReport>) -> (Vec<Sample>, Vec<Histogram>, Vec<Buckets>) {
    let mut samples: Vec<Sample> = Vec::new();
    let mut histograms = Vec::new();
    let mut buckets: Vec<Buckets> = Vec::new();
    let mut places: HashMap<(String, Vec<(String, String)>), usize> = HashMap::new();
    for report in reports {
        for sample in report.samples {
            let key = (sample.name.clone(), sample.labels.clone());
            if let Some(sum) = places.get(&key).and_then(|&place| samples.get_mut(place)) {
                sum.value += sample.value;
            } else {
                places.insert(key, samples.len());
                samples.push(sample);
            }
        }
        histograms.extend(report.histograms);
        for more in report.buckets {
            let same = |known: &&mut Buckets| {
                known.name == more.name
                    && known.labels == more.labels
                    && known.bounds == more.bounds
            };
            if let Some(known) = buckets.iter_mut().find(same) {
                known.sum += more.sum;
                for (sum, count) in known.counts.iter_mut().zip(more.counts) {
                    *sum += count;
                }
            } else {
                buckets.push(more);
            }
        }
    }
    (samples, histograms, buckets)
}

/// From `/proc/self/statm`; 0 where there is none.
fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4_096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 =
        statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * PAGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_added_up_by_name_and_labels() {
        let of = |shard, a, b| ShardReport {
            shard,
            samples: vec![
                sample("x_total", "x", SampleKind::Counter, vec![("k".into(), "1".into())], a),
                sample("x_total", "x", SampleKind::Counter, vec![("k".into(), "2".into())], b),
            ],
            buckets: vec![Buckets {
                name: "y".into(),
                bounds: vec![1.0],
                counts: vec![a, b],
                sum: 0.5,
                ..Buckets::default()
            }],
            ..ShardReport::default()
        };
        let (samples, _, buckets) = merge(vec![of(0, 1, 2), of(1, 10, 20)]);
        assert_eq!((buckets.len(), &buckets[0].counts[..]), (1, &[11, 22][..]));
        assert!((buckets[0].sum - 1.0).abs() < 1e-9);
        let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
        assert_eq!(values, [11.0, 22.0]);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(resident_bytes() > 0);
    }
}
