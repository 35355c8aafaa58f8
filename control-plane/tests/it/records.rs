//! Records of nodes: stored before they are receipted, recognised when they repeat, kept with their
//! flaw when they break the chain, found again, checked.

use ravelin_contract::{
    chain::{Entry, Head},
    link::{ApplyResult, Down, Up},
};
use serde_json::json;

use crate::support::{Node, Plane, cdr, document, event};

async fn connected(plane: &Plane) -> Node<tokio::net::UnixStream> {
    let mut node = Node::connect(&plane.data(), "edge-1").await;
    node.apply(ApplyResult::Active).await;
    node
}

#[tokio::test]
async fn records_are_stored_and_the_node_resumes_behind_them() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let mut node = connected(&plane).await;
    let entries: Vec<Entry> = (0..2_000)
        .map(|n| match n % 2 {
            0 => Entry::Cdr(cdr(&format!("call-{n}"), n)),
            _ => event("call.ended", Some(&format!("call-{n}")), &[]),
        })
        .collect();
    for chunk in entries.chunks(100) {
        node.store(chunk).await;
    }
    let verified = plane.get("/api/audit/verify?node=edge-1").await;
    assert_eq!(verified["intact"], true, "{verified}");
    assert_eq!(verified["chains"][0]["records"], 2_000);

    // Every page once, newest first, none twice.
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = plane.get(&format!("/api/cdrs?limit=300{cursor}")).await;
        seen.extend(page["cdrs"].as_array().unwrap().iter().map(|cdr| cdr["call"].clone()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 1_000);
    assert_eq!((&seen[0], &seen[999]), (&json!("call-1998"), &json!("call-0")));

    let plane = plane.restart().await;
    let again = Node::connect(&plane.data(), "edge-1").await;
    assert_eq!(again.head, node.head);
    assert_eq!(again.head.seq, 2_000);
    plane.stop().await;
}

#[tokio::test]
async fn a_repeat_is_stored_once() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let mut node = connected(&plane).await;
    let records: Vec<_> =
        (0..10).map(|n| node.head.seal(&Entry::Cdr(cdr(&format!("c{n}"), n))).unwrap()).collect();
    node.send_records(records.clone()).await;
    drop(node);
    // The receipt was lost: the node sends the same again, and more behind it.
    let mut node = Node::connect(&plane.data(), "edge-1").await;
    node.apply(ApplyResult::Active).await;
    let mut again = records;
    again.push(node.head.seal(&event("more", None, &[])).unwrap());
    node.send_records(again).await;
    assert_eq!(plane.get("/api/cdrs").await["cdrs"].as_array().unwrap().len(), 10);
    assert_eq!(plane.get("/api/audit/verify").await["intact"], true);
    let broken = plane.get("/api/audit/events?kind=chain.broken").await;
    assert_eq!(broken["events"], json!([]));
    plane.stop().await;
}

#[tokio::test]
async fn a_broken_chain_is_kept_flagged_and_does_not_stop_what_follows() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let mut node = connected(&plane).await;
    let mut records: Vec<_> =
        (0..6).map(|n| node.head.seal(&Entry::Cdr(cdr(&format!("c{n}"), n))).unwrap()).collect();
    // The third record was altered on its way, the fifth is missing.
    let altered = records[2].entry.get().replace("c2", "cX");
    records[2].entry = serde_json::value::RawValue::from_string(altered).unwrap();
    records.remove(4);
    node.send_records(records).await;
    node.store(&[event("after", None, &[])]).await;

    let cdrs = plane.get("/api/cdrs").await;
    let flaws: Vec<_> = cdrs["cdrs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cdr| (cdr["seq"].as_u64().unwrap(), cdr["flaw"].is_string()))
        .collect();
    assert_eq!(flaws, [(6, true), (4, false), (3, true), (2, false), (1, false)]);
    let alarms = plane.get("/api/audit/events?kind=chain.broken&severity=alarm").await;
    assert_eq!(alarms["events"].as_array().unwrap().len(), 1);
    assert_eq!(alarms["events"][0]["fields"]["seq"], 3);
    assert_eq!(alarms["events"][0]["fields"]["flawed_records"], 2);
    let verified = plane.get("/api/audit/verify?node=edge-1").await;
    assert_eq!(verified["intact"], false);
    let breaks: Vec<_> = verified["chains"][0]["breaks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(breaks, [3, 6]);
    let nodes = plane.get("/api/nodes").await;
    assert_eq!(nodes["nodes"][0]["chain_breaks"], 2);
    plane.stop().await;
}

#[tokio::test]
async fn a_node_with_another_spool_starts_a_new_chain() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let mut node = connected(&plane).await;
    node.store(&[event("old", None, &[]), event("old", None, &[])]).await;
    node.head = Head::START;
    node.store(&[event("new", None, &[])]).await;
    node.store(&[event("new", None, &[]), event("new", None, &[]), event("new", None, &[])]).await;
    let verified = plane.get("/api/audit/verify?node=edge-1").await;
    assert_eq!(verified["intact"], true, "{verified}");
    assert_eq!(verified["chains"].as_array().unwrap().len(), 2);
    let all = plane.get("/api/audit/events?node=edge-1").await;
    assert_eq!(all["events"].as_array().unwrap().len(), 6, "nothing is lost");
    let alarms = plane.get("/api/audit/events?kind=chain.restarted").await;
    assert_eq!(alarms["events"].as_array().unwrap().len(), 1);
    plane.stop().await;
}

#[tokio::test]
async fn entries_that_this_build_cannot_read_are_kept() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let mut node = connected(&plane).await;
    let strange = r#"{"type":"from_the_future","n":1}"#;
    // Sealed as the chain demands, whatever the entry means.
    let mut record = node.head.seal(&event("x", None, &[])).unwrap();
    let before = Head::START;
    let raw = serde_json::value::RawValue::from_string(strange.to_owned()).unwrap();
    let mut input = before.hash.to_vec();
    input.extend_from_slice(&1_u64.to_be_bytes());
    input.extend_from_slice(strange.as_bytes());
    record.entry = raw;
    record.hash = ravelin_control::ident::sha256_hex(&input);
    node.head.hash = ravelin_contract::chain::hash_from_hex(&record.hash).unwrap();
    node.send_records(vec![record]).await;
    node.store(&[event("x", None, &[("dialled", json!("911\r\nforged: line\u{0}"))])]).await;
    let unread = plane.get("/api/audit/events?kind=record.unreadable").await;
    assert!(unread["events"][0]["flaw"].as_str().unwrap().contains("from_the_future"), "{unread}");
    let events = plane.get("/api/audit/events?kind=x").await;
    assert_eq!(events["events"][0]["fields"]["dialled"], "911\r\nforged: line\u{0}");
    let verified = plane.get("/api/audit/verify?node=edge-1").await;
    assert_eq!(verified["intact"], true, "{verified}");
    plane.stop().await;
}

/// Editing one octet in the store is found, at the record that was edited.
#[tokio::test]
async fn tampering_with_the_store_is_found_at_its_record() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let mut node = connected(&plane).await;
    let entries: Vec<Entry> = (0..20).map(|n| Entry::Cdr(cdr(&format!("c{n}"), n))).collect();
    node.store(&entries).await;
    drop(node);
    assert_eq!(plane.get("/api/audit/verify").await["intact"], true);
    tamper(
        &plane,
        "UPDATE cdrs SET line = replace(line, '\"status\":200', '\"status\":201') WHERE seq = 7",
    )
    .await;
    let verified = plane.get("/api/audit/verify?node=edge-1").await;
    assert_eq!(verified["chains"][0]["breaks"][0]["seq"], 7, "{verified}");
    tamper(&plane, "DELETE FROM cdrs WHERE seq = 20").await;
    let verified = plane.get("/api/audit/verify?node=edge-1").await;
    let breaks = verified["chains"][0]["breaks"].as_array().unwrap();
    assert_eq!(breaks.last().unwrap()["seq"], 20, "a cut end is found: {verified}");
    plane.stop().await;
}

async fn tamper(plane: &Plane, sql: &'static str) {
    use sqlx::Connection;
    let url = format!("sqlite:{}", plane.data().join("ravelin.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let done = sqlx::query(sql).execute(&mut connection).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
    connection.close().await.unwrap();
}

#[tokio::test]
async fn cdrs_are_found_by_what_they_say() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let mut node = connected(&plane).await;
    let mut emergency = cdr("sos", 50);
    emergency.emergency = true;
    emergency.site = Some("Detroit Factory".to_owned());
    emergency.outbound_trunk = Some("detroit_emergency".to_owned());
    let mut quoted = cdr("quoted", 60);
    quoted.from = "sip:\"a,b\"@x".to_owned();
    node.store(&[
        Entry::Cdr(cdr("plain", 10)),
        Entry::Cdr(emergency),
        Entry::Cdr(quoted),
        Entry::Gap { lost: Some(3), reason: "spool full".to_owned(), unix_ms: 1_734_000_000_000 },
    ])
    .await;
    for (query, expected) in [
        ("emergency=true", vec!["sos"]),
        ("emergency=false", vec!["quoted", "plain"]),
        ("trunk=detroit_emergency", vec!["sos"]),
        ("trunk=pbx", vec!["quoted", "sos", "plain"]),
        ("call=plain", vec!["plain"]),
        ("site=Detroit%20Factory", vec!["sos"]),
        ("from=1734000000020&to=1734000000060", vec!["sos"]),
        ("from=2024-12-13", vec![]),
        ("node=edge-2", vec![]),
        ("kind=attempt", vec![]),
    ] {
        let found = plane.get(&format!("/api/cdrs?{query}")).await;
        let calls: Vec<_> = found["cdrs"].as_array().unwrap().iter().map(|c| &c["call"]).collect();
        assert_eq!(calls, expected, "{query}");
    }
    for bad in ["from=tomorrow", "limit=0", "limit=9999", "cursor=x", "colour=red", "emergency=2"] {
        let (status, answer) =
            plane.call(reqwest::Method::GET, &format!("/api/cdrs?{bad}"), None).await;
        assert_eq!(status, 400, "{bad}");
        let name = bad.split('=').next().unwrap();
        assert!(answer["fields"][name].is_string(), "{bad}: {answer}");
    }
    let csv = plane
        .http
        .get(format!("{}/api/cdrs?call=quoted", plane.base))
        .bearer_auth(&plane.admin)
        .header("accept", "text/csv")
        .send()
        .await
        .unwrap();
    assert!(csv.headers()["content-type"].to_str().unwrap().starts_with("text/csv"));
    let csv = csv.text().await.unwrap();
    assert_eq!(csv.lines().count(), 2);
    assert!(csv.contains("\"sip:\"\"a,b\"\"@x\""), "{csv}");
    let gap = plane.get("/api/audit/events?kind=chain.gap").await;
    assert_eq!(gap["events"][0]["lost"], 3, "{gap}");
    plane.stop().await;
}

/// Several nodes at once; each keeps its own chain, and the writer commits them together.
#[tokio::test]
async fn many_nodes_hand_in_records_at_once() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..4 {
        let data = plane.data();
        tasks.spawn(async move {
            let mut node = Node::connect(&data, &format!("edge-{number}")).await;
            node.apply(ApplyResult::Active).await;
            // A stream without waiting, as a real spool is emptied.
            for chunk in 0..20_u64 {
                let records = (0..50)
                    .map(|n| {
                        let name = format!("{number}-{chunk}-{n}");
                        node.head.seal(&Entry::Cdr(cdr(&name, chunk * 50 + n))).unwrap()
                    })
                    .collect();
                node.up(&Up::Records { records }).await;
            }
            loop {
                if let Down::Stored { seq: 1_000 } = node.down().await.unwrap() {
                    return;
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let verified = plane.get("/api/audit/verify").await;
    assert_eq!(verified["intact"], true, "{verified}");
    let chains = verified["chains"].as_array().unwrap();
    assert_eq!(chains.iter().filter(|chain| chain["records"] == 1_000).count(), 4);
    plane.stop().await;
}
