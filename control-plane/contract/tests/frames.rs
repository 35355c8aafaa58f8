//! Frames survive the trip: what one plane writes, the other reads, octet for octet where hashes
//! depend on it.
use ravelin_contract::{
    audit::{AuditEvent, Severity},
    chain::{Entry, Head},
    link::{ApplyResult, Down, FieldError, Up},
    metrics::MetricsReport,
};

fn event(kind: &str) -> Entry {
    Entry::Audit(AuditEvent {
        kind: kind.to_owned(),
        severity: Severity::Info,
        unix_ms: 1_700_000_000_000,
        mono_ns: 7,
        shard: Some(1),
        call: None,
        actor: None,
        snapshot: 3,
        fields: [("dialled".to_owned(), "911\r\nforged".into())].into(),
    })
}

#[test]
fn records_keep_their_octets_and_hashes() {
    let mut sender = Head::START;
    let records = vec![sender.seal(&event("a")).unwrap(), sender.seal(&event("b")).unwrap()];
    let text = serde_json::to_vec(&Up::Records { records: records.clone() }).unwrap();
    let Up::Records { records: read } = serde_json::from_slice(&text).unwrap() else {
        panic!("another frame came out");
    };
    let mut receiver = Head::START;
    for (sent, got) in records.iter().zip(&read) {
        assert_eq!(sent.entry.get(), got.entry.get());
        receiver.accept(got).unwrap();
    }
    assert_eq!(receiver, sender);
}

#[test]
fn every_other_frame_reads_back_as_it_was_written() {
    let ups = [
        Up::Applied {
            version: 2,
            result: ApplyResult::Refused {
                errors: vec![FieldError { path: "a[0]".into(), line: Some(3), reason: "x".into() }],
            },
        },
        Up::Metrics(Box::new(MetricsReport { unix_ms: 1, ..MetricsReport::default() })),
        Up::Calls { query: 1, calls: Vec::new(), more: false },
        Up::Call { query: 3, call: None },
        Up::Ladder { query: 2, ladder: None },
        Up::Trunks { trunks: Vec::new() },
        Up::Pong { nonce: 9 },
    ];
    for up in &ups {
        let text = serde_json::to_string(up).unwrap();
        let back: Up = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }
    let downs = [
        Down::Config { version: 1, sha256: "00".into(), document: "a: \"b\"\n".into() },
        Down::Stored { seq: 4 },
        Down::QueryCalls { query: 1, limit: 10 },
        Down::QueryCall { query: 1, call: "x".into() },
        Down::QueryLadder { query: 1, call: "x".into() },
        Down::Ping { nonce: 1 },
        Down::Refused { reason: "no".into() },
    ];
    for down in &downs {
        let text = serde_json::to_string(down).unwrap();
        let back: Down = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }
}
