//! Metrics of the nodes and of the control plane in one text.

use ravelin_contract::{
    chain::Entry,
    link::{ApplyResult, Up},
    metrics::{Buckets, Histogram, MetricsReport, Sample, SampleKind},
};

use crate::support::{Node, PATIENCE, Plane, cdr, document, event};

fn sample(name: &str, kind: SampleKind, labels: &[(&str, &str)], value: f64) -> Sample {
    Sample {
        name: name.to_owned(),
        help: format!("Help of {name}."),
        kind,
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        value,
    }
}

async fn scrape(plane: &Plane) -> String {
    let response = plane.http.get(format!("{}/metrics", plane.base)).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let kind = response.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text"));
    response.text().await.unwrap()
}

#[tokio::test]
async fn samples_of_nodes_carry_their_node_and_strange_ones_are_counted() {
    let plane = Plane::start(&document("edge-1", "")).await;
    for name in ["edge-1", "edge-2"] {
        let mut node = Node::connect(&plane.data(), name).await;
        node.apply(ApplyResult::Active).await;
        node.store(&[event("x", None, &[]), Entry::Cdr(cdr("c", 1))]).await;
        let report = MetricsReport {
            unix_ms: 1,
            started_unix_ms: 1_000,
            samples: vec![
                sample("drops_total", SampleKind::Counter, &[("reason", "a\"b\nc")], 7.0),
                sample("drops_total", SampleKind::Counter, &[("reason", "other")], 1.0),
                sample("calls", SampleKind::Gauge, &[], 3.0),
                sample("bad name", SampleKind::Gauge, &[], 3.0),
                sample("calls", SampleKind::Counter, &[], 3.0),
            ],
            histograms: vec![Histogram {
                name: "invite_parse".to_owned(),
                help: "INVITE parse".to_owned(),
                count: 10,
                sum_ns: 5_000_000_000,
                p50_ns: 500_000_000,
                ..Histogram::default()
            }],
            buckets: vec![
                Buckets {
                    name: "stream_mos".to_owned(),
                    help: "Scores.".to_owned(),
                    labels: vec![("trunk".to_owned(), "a".to_owned())],
                    bounds: vec![3.5, 4.3],
                    counts: vec![1, 2, 4],
                    sum: 29.5,
                },
                Buckets { name: "short".to_owned(), counts: vec![1, 2], ..Buckets::default() },
            ],
        };
        node.up(&Up::Metrics(Box::new(report))).await;
        // The connection lives on while the metrics are read.
        std::mem::drop(tokio::spawn(async move { while node.down().await.is_ok() {} }));
    }
    let text = tokio::time::timeout(PATIENCE, async {
        loop {
            let text = scrape(&plane).await;
            if text.contains("edge-2\"} 3") {
                return text;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("both nodes' metrics");
    for line in [
        "# TYPE ravelin_drops counter",
        "ravelin_drops_total{node=\"edge-1\",reason=\"a\\\"b\\nc\"} 7",
        "ravelin_drops_total{node=\"edge-2\",reason=\"other\"} 1",
        "ravelin_calls{node=\"edge-1\"} 3",
        "ravelin_invite_parse_seconds{node=\"edge-1\",quantile=\"0.5\"} 0.5",
        "ravelin_invite_parse_observations_total{node=\"edge-1\"} 10",
        "ravelin_control_samples_hidden{node=\"edge-1\"} 2",
        "# TYPE ravelin_stream_mos histogram",
        "ravelin_stream_mos_bucket{le=\"3.5\",node=\"edge-1\",trunk=\"a\"} 1",
        "ravelin_stream_mos_bucket{le=\"4.3\",node=\"edge-1\",trunk=\"a\"} 3",
        "ravelin_stream_mos_bucket{le=\"+Inf\",node=\"edge-2\",trunk=\"a\"} 7",
        "ravelin_stream_mos_count{node=\"edge-1\",trunk=\"a\"} 7",
        "ravelin_stream_mos_sum{node=\"edge-1\",trunk=\"a\"} 29.5",
        "ravelin_node_connected{node=\"edge-1\"} 1",
        "ravelin_config_version 1",
        "ravelin_audit_events_stored_total{node=\"edge-1\"} 1",
        "ravelin_cdrs_stored_total{node=\"edge-2\"} 1",
    ] {
        let found = text
            .lines()
            .any(|have| have == line || have.strip_suffix(".0").is_some_and(|have| have == line));
        assert!(found, "{line} is missing in\n{text}");
    }
    assert_eq!(text.matches("# TYPE ravelin_drops ").count(), 1, "one family, two nodes");
    assert!(text.ends_with("# EOF\n"));
    plane.stop().await;
}
