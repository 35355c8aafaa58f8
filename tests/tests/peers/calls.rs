//! Ordinary calls under load.

use std::time::Duration;

use ravelin_tests::{
    product::{Folder, Product},
    sipp::{Grade, Sipp},
    wait::{self, Watch},
};

use super::support::{SBC, is_forgiven, settle, start};

/// SIPp's built-in scenarios at 300 calls/s for 60 s on two shards (issue: "must show" 2): no call
/// fails, nothing is sent twice, both parties agree, every table returns to zero.
///
/// A machine that stands still for long makes SIPp repeat itself whatever Ravelin does. When a
/// watch that runs beside has seen that, and only then, the minute is played again. A failed
/// call is never forgiven.
#[test]
fn default_scenarios_at_300_calls_per_second() {
    let Some((folder, product)) = start("default_scenarios") else { return };
    let calls = 18_000;
    let mut minutes = 0;
    loop {
        minutes += 1;
        let watch = Watch::start();
        let mut callee = Sipp::start(
            folder.path(),
            &format!("uas{minutes}"),
            &format!("-sn uas -i 127.8.2.1 -p 5060 -m {calls}"),
        );
        let mut caller = Sipp::start(
            folder.path(),
            &format!("uac{minutes}"),
            &format!("-sn uac {SBC} -i 127.8.1.1 -p 5060 -s 14045551234 -r 300 -m {calls} -l 3000"),
        );
        let expected = Grade { created: calls, successful: calls, failed: 0, retransmissions: 0 };
        let of_caller = caller.finish(Duration::from_secs(150));
        let of_callee = callee.finish(Duration::from_secs(30));
        assert_eq!((of_caller.successful, of_caller.failed), (calls, 0), "the caller's count");
        assert_eq!((of_callee.successful, of_callee.failed), (calls, 0), "the callee's count");
        if of_caller == expected && of_callee == expected {
            break;
        }
        is_forgiven(watch, minutes, &format!("repeats: {of_caller:?} {of_callee:?}"));
    }
    settle(&product);
    let expected = (calls * 2 * minutes) as f64;
    let stored = || product.metric("ravelin_cdrs_stored_total");
    wait::until("a call and an attempt record for each call", ALL_STORED, || {
        stored().filter(|records| *records >= expected)
    });
    assert_eq!(stored(), Some(expected), "a call and an attempt record for each call");
}

/// Within which a slow disk has what the edge handed in.
const ALL_STORED: Duration = Duration::from_secs(60);

/// Rounds of calls in which tables grow to their working size: longer than what ends a call's
/// transactions (32 s, RFC 3261 17).
const ROUNDS_TO_GROW: usize = 3;
const ROUNDS: usize = 9;
const CALLS_OF_A_ROUND: u64 = 6_000;

/// Memory is flat over repeats: with calls coming all the time it is the same after 54,000 of them as
/// after 18,000. (That nothing at all is left of a call is a test of the engine, `heap.rs`.)
#[test]
fn memory_is_flat_over_repeats() {
    let Some((folder, product)) = start("memory_is_flat") else { return };
    let calls = CALLS_OF_A_ROUND * ROUNDS as u64;
    let mut callee =
        Sipp::start(folder.path(), "uas", &format!("-sn uas -i 127.8.2.1 -p 5060 -m {calls}"));
    let mut sizes = Vec::new();
    for round in 0..ROUNDS {
        let mut caller = Sipp::start(
            folder.path(),
            &format!("uac{round}"),
            &format!(
                "-sn uac {SBC} -i 127.8.1.1 -p 5060 -s 14045551234 -r 300 -m {CALLS_OF_A_ROUND}"
            ),
        );
        assert_eq!(caller.finish(Duration::from_secs(120)).successful, CALLS_OF_A_ROUND);
        sizes.push(product.edge_rss().expect("the edge is running"));
    }
    callee.finish(Duration::from_secs(30));
    settle(&product);
    let median = |sizes: &[u64]| {
        let mut sorted = sizes.to_vec();
        sorted.sort_unstable();
        sorted[sorted.len() / 2]
    };
    let (first, last) = sizes[ROUNDS_TO_GROW..].split_at((ROUNDS - ROUNDS_TO_GROW) / 2);
    let (first, last) = (median(first), median(last));
    // Steps of the allocator and batches of a slow disk. Three rounds of calls are between the two.
    let noise = first / 20 + (4 << 20);
    assert!(last <= first + noise, "resident memory grows: {sizes:?}");
}

/// Recorded audio on 200 calls at once, echoed by the callee: every packet comes back.
#[test]
fn audio_on_200_concurrent_calls() {
    let name = "audio_on_200_concurrent_calls";
    if !is_root() {
        super::support::skip(name, "SIPp plays recorded audio through raw sockets: needs root");
        return;
    }
    let Some((folder, product)) = start(name) else { return };
    std::os::unix::fs::symlink("/usr/share/sip-tester", folder.path().join("pcap"))
        .expect("link to SIPp's recordings");
    let mut rounds = 0;
    loop {
        rounds += 1;
        let watch = Watch::start();
        let Err(why) = audio(&folder, &product, rounds) else { break };
        is_forgiven(watch, rounds, &why);
    }
}

/// A round of calls with audio; an error is what a machine that stands still makes of them.
fn audio(folder: &Folder, product: &Product, round: u64) -> Result<(), String> {
    let calls = 400;
    let mut callee = Sipp::start(
        folder.path(),
        &format!("uas{round}"),
        &format!("-sn uas -i 127.8.2.1 -p 5060 -mp 7000 -rtp_echo -m {calls}"),
    );
    let mut caller = Sipp::start(
        folder.path(),
        &format!("uac{round}"),
        &format!(
            "-sn uac_pcap {SBC} -i 127.8.1.1 -p 5060 -s 14045551234 -mi 127.8.1.1 -mp 8000 -r 20 \
             -l 200 -m {calls}"
        ),
    );
    let of_caller = caller.finish(Duration::from_secs(180));
    assert_eq!((of_caller.successful, of_caller.failed), (calls, 0), "the caller's count");
    let of_callee = callee.finish(Duration::from_secs(30));
    assert_eq!((of_callee.successful, of_callee.failed), (calls, 0), "the callee's count");
    settle(product);
    let records = wait::until("one call record each", ALL_STORED, || {
        let records = records_of_calls(product);
        (records.len() as u64 >= calls * round).then_some(records)
    });
    assert_eq!(records.len() as u64, calls * round, "one call record each");
    if of_caller.retransmissions > 0 {
        return Err(format!("repeats: {of_caller:?}"));
    }
    // The newest come first.
    for record in &records[..calls as usize] {
        let sent = record["media_caller"]["packets"].as_u64().unwrap_or_default();
        let echoed = record["media_callee"]["packets"].as_u64().unwrap_or_default();
        // The recording has 236 packets of audio and a digit of telephone events.
        assert!(sent > 200, "the caller sent audio: {record}");
        // SIPp echoes 10,000 packets/s from one socket, whose queue holds few of them.
        if echoed + 25 < sent {
            return Err(format!("{echoed} of {sent} came back: {record}"));
        }
    }
    Ok(())
}

/// Records of calls, the newest first.
fn records_of_calls(product: &Product) -> Vec<serde_json::Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/cdrs?kind=call&limit=1000{cursor}");
        let (_, text) = product.request("GET", &path, None).expect("CDRs through the API");
        let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        found.extend(answer["cdrs"].as_array().expect("cdrs").iter().cloned());
        match answer["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self")
        .map(|data| std::os::unix::fs::MetadataExt::uid(&data) == 0)
        .unwrap_or(false)
}
