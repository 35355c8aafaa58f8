//! Configuration under load, and planes that are killed (issue: "must show" 5 and 6).

use std::{
    process::Command,
    time::{Duration, Instant},
};

use ravelin_tests::{
    product::{Folder, Product, binary, signal},
    sipp::{Grade, Sipp},
    wait::{self, Watch},
};

use super::support::{CONFIG, SBC, is_forgiven, settle, start};

/// Twenty pushes a second, every second one bad: no call fails, each bad one is refused whole with
/// path and reason, and the node reports the version in force.
///
/// A machine that stands still makes SIPp repeat itself: then, and only then, it is played again.
#[test]
fn pushes_under_load_lose_no_call() {
    let Some((folder, product)) = start("pushes_under_load") else { return };
    let mut rounds = 0;
    loop {
        rounds += 1;
        let watch = Watch::start();
        let grade = pushes(&folder, &product, rounds);
        if grade.retransmissions == 0 {
            break;
        }
        is_forgiven(watch, rounds, &format!("something was sent twice: {grade:?}"));
    }
    settle(&product);
}

/// A round of calls and pushes; gives what the caller counts.
fn pushes(folder: &Folder, product: &Product, round: u64) -> Grade {
    let calls = 3_000;
    let mut callee = Sipp::start(
        folder.path(),
        &format!("uas{round}"),
        &format!("-sn uas -i 127.8.2.1 -p 5060 -m {calls}"),
    );
    let mut caller = Sipp::start(
        folder.path(),
        &format!("uac{round}"),
        &format!("-sn uac {SBC} -i 127.8.1.1 -p 5060 -s 14045551234 -r 150 -m {calls}"),
    );
    let mut last_good = 0;
    let begin = Instant::now();
    for push in 0..400_u32 {
        let due = begin + Duration::from_millis(u64::from(push) * 50);
        while Instant::now() < due {
            wait::pause();
        }
        if push % 2 == 0 {
            let number = round * 1_000 + u64::from(push);
            let good =
                CONFIG.replace("\"+1313555*\"", &format!("\"+1313555*\", \"+1{number:010}\""));
            assert_ne!(good, CONFIG, "the pushed document differs");
            last_good = stage(product, &good);
            let body = format!("{{\"version\":{last_good}}}");
            let (status, text) = product
                .request("POST", "/api/config/activate", Some(("application/json", &body)))
                .expect("an answer");
            assert_eq!(status, 200, "activation of a good version: {text}");
            assert!(text.contains("\"result\":\"active\""), "{text}");
        } else {
            let bad = CONFIG.replace("trunks: [carrier]", "trunks: [nobody]");
            let (status, text) = product
                .request("PUT", "/api/config", Some(("application/yaml", &bad)))
                .expect("an answer");
            assert_eq!(status, 422, "a bad version is refused: {text}");
            assert!(text.contains("routes[0].trunks[0]") && text.contains("nobody"), "{text}");
        }
    }
    let grade = caller.finish(Duration::from_secs(60));
    assert_eq!((grade.successful, grade.failed), (calls, 0), "the caller's count: {grade:?}");
    assert_eq!(callee.finish(Duration::from_secs(30)).failed, 0, "the callee's count");
    let (_, text) = product.request("GET", "/api/nodes", None).expect("an answer");
    let nodes: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(nodes["nodes"][0]["active_version"], last_good, "{text}");
    grade
}

fn stage(product: &Product, document: &str) -> u64 {
    let (status, text) = product
        .request("PUT", "/api/config", Some(("application/yaml", document)))
        .expect("an answer");
    assert_eq!(status, 200, "a good version is staged: {text}");
    let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    answer["version"].as_u64().expect("a version")
}

/// The control plane is killed under load: no call fails, 911 routes, and after it is back every
/// record is stored.
#[test]
fn killing_the_control_plane_loses_nothing() {
    let Some((folder, product)) = start("killing_control") else { return };
    let calls = 2_000;
    let mut callee =
        Sipp::start(folder.path(), "uas", &format!("-sn uas -i 127.8.2.1 -p 5060 -m {calls}"));
    let mut psap = Sipp::start(folder.path(), "psap", "-sn uas -i 127.8.9.1 -p 5060 -m 3");
    let mut caller = Sipp::start(
        folder.path(),
        "uac",
        &format!("-sn uac {SBC} -i 127.8.1.1 -p 5060 -s 14045551234 -r 100 -m {calls}"),
    );
    for round in 0..3 {
        let victim = wait::until("a control plane to kill", Duration::from_secs(20), || {
            product.metric("ravelin_shards_in_service").filter(|shards| *shards > 0.0)?;
            product.plane("control")
        });
        signal(victim, "KILL");
        let mut emergency = Sipp::start(
            folder.path(),
            &format!("emergency{round}"),
            &format!("-sn uac {SBC} -i 127.8.1.2 -p 5060 -s 911 -m 1"),
        );
        assert_eq!(emergency.finish(Duration::from_secs(20)).successful, 1, "911, round {round}");
    }
    let grade = caller.finish(Duration::from_secs(90));
    assert_eq!((grade.successful, grade.failed), (calls, 0), "the caller's count: {grade:?}");
    assert_eq!(callee.finish(Duration::from_secs(30)).failed, 0, "the callee's count");
    assert_eq!(psap.finish(Duration::from_secs(30)).successful, 3, "the PSAP's count");
    // One record for each call and one for each attempt, stored once.
    let expected = (calls + 3) * 2;
    wait::until("every record is stored", Duration::from_secs(60), || {
        (stored_records(&product) == expected).then_some(())
    });
    let (_, text) = product.request("GET", "/api/audit/verify", None).expect("an answer");
    assert!(text.contains("\"intact\":true"), "{text}");
}

/// Counts CDRs page by page.
fn stored_records(product: &Product) -> u64 {
    let mut count = 0;
    let mut cursor = String::new();
    loop {
        let path = format!("/api/cdrs?limit=1000{cursor}");
        let Ok((200, text)) = product.request("GET", &path, None) else { return count };
        let page: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        count += page["cdrs"].as_array().map_or(0, Vec::len) as u64;
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return count,
        }
    }
}

/// The edge is killed under load: its chain still verifies, what is missing is recorded as a gap,
/// and the edge that is started in its place takes calls.
#[test]
fn killing_the_edge_leaves_a_chain_that_verifies() {
    let Some((folder, product)) = start("killing_edge") else { return };
    let _callee = Sipp::start(folder.path(), "uas", "-sn uas -i 127.8.2.1 -p 5060");
    let caller = Sipp::start(
        folder.path(),
        "uac",
        &format!("-sn uac {SBC} -i 127.8.1.1 -p 5060 -s 14045551234 -r 100 -m 100000"),
    );
    wait::until("calls are made", Duration::from_secs(20), || {
        (caller.grade().successful > 300).then_some(())
    });
    let victim = product.plane("edge").expect("an edge");
    signal(victim, "KILL");
    drop(caller);
    wait::until("another edge is in service", Duration::from_secs(30), || {
        let edge = product.plane("edge").filter(|edge| *edge != victim)?;
        product.metric("ravelin_shards_in_service").filter(|shards| *shards > 0.0)?;
        Some(edge)
    });
    let output = Command::new(binary())
        .args(["audit", "verify", "--json", "--data"])
        .arg(&product.data)
        .output()
        .expect("ravelin audit verify");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    let mut again = Sipp::start(
        folder.path(),
        "again",
        &format!("-sn uac {SBC} -i 127.8.1.3 -p 5060 -s 14045551234 -m 20 -r 20"),
    );
    assert_eq!(again.finish(Duration::from_secs(30)).successful, 20, "calls after the restart");
    wait::until("the restart is on record", Duration::from_secs(20), || {
        let export = Command::new(binary())
            .args(["audit", "export", "--data"])
            .arg(&product.data)
            .output()
            .expect("ravelin audit export");
        let text = String::from_utf8_lossy(&export.stdout).into_owned();
        text.contains("\"type\":\"gap\"").then_some(())
    });
}
