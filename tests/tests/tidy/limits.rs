//! The manual's table of limits against the constants of the data plane.

use std::{collections::BTreeSet, path::Path};

use ravelin_tests::tree;

use super::{read, relative};

/// Constants that bound no call, peer or config, and why they stand in no table.
const INNER: &[(&str, &[&str])] = &[
    (
        "how much is done before the next thing has its turn: what is left is done then",
        &[
            "io/src/cross.rs RECEIVE_MAX",
            "io/src/driver.rs RECEIVE_BATCH_MAX",
            "io/src/sockets.rs ERRORS_TAKEN_MAX",
            "io/src/sys/epoll.rs EVENTS_MAX",
            "io/src/sys/segments.rs RUNS_MAX",
            "io/src/uring.rs EVENTS_MAX",
            "io/src/xdp/polling.rs LOOKS_MAX",
            "src/crypto.rs INLINE_JOBS_MAX",
            "src/shard.rs SEND_ROUNDS_MAX",
            "wire/src/limits.rs STREAM_READ_MAX_BYTES",
        ],
    ),
    (
        "what is kept for reuse: more goes back to the allocator",
        &[
            "engine/src/core.rs POOL_MAX",
            "engine/src/core.rs POOL_BUFFER_MAX_BYTES",
            "engine/src/sip/transaction/buffers.rs FREE_MAX",
            "engine/src/sip/transaction/flows.rs SPARE_MAX",
            "io/src/cross.rs KEPT_BUFFER_MAX_BYTES",
            "wire/src/limits.rs STREAM_IDLE_MAX_BYTES",
        ],
    ),
    (
        "how long a loop waits",
        &[
            "io/src/host.rs WAIT_MAX",
            "io/src/host.rs WAIT_WITH_TASKS_MAX",
            "io/src/uring/pace.rs WINDOW_MAX",
        ],
    ),
    (
        "a size that follows from a format or from other limits, and that nothing can exceed",
        &[
            "engine/src/limits.rs TIMERS_MAX",
            "io/src/af_xdp/binding.rs RX_FRAMES_MAX",
            "io/src/af_xdp/frame.rs HEAD_MAX_BYTES",
            "io/src/sockets.rs DSCP_MAX",
            "io/src/sys/ethtool.rs VALUES_MAX",
            "io/src/uring/departures.rs RUN_MAX",
            "io/src/uring/departures.rs RUN_BYTES_MAX",
            "io/src/xdp/loader.rs WORDS_MAX",
            "policy/src/class/mod.rs NUMBER_MAX",
            "policy/src/class/mod.rs OUTSIDE_PREFIX_MAX",
            "policy/src/compile/realms.rs DSCP_MAX",
            "policy/src/lpm/mod.rs SEGMENTS_MAX",
            "policy/src/lpm/mod.rs RANGES_MAX",
            "policy/src/lpm/mod.rs VALUE_MAX",
            "policy/src/lpm/mod.rs MAX",
            "policy/src/numbers.rs E164_MAX",
            "policy/src/yaml.rs NODES_MAX",
            "srtp/src/dtls/fingerprint.rs DIGEST_MAX_BYTES",
            "srtp/src/keys.rs KEYING_MAX_BYTES",
            "srtp/src/limits.rs OVERHEAD_MAX",
            "srtp/src/random.rs DRAW_MAX_BYTES",
            "wire/src/demux.rs ZERO_KEEP_ALIVE_MAX_BYTES",
            "wire/src/sip/date.rs UNIX_MAX_SECONDS",
        ],
    ),
    (
        "how far a measurement goes; no packet or call meets it",
        &[
            "engine/src/limits.rs LATCH_SEQUENCE_STEP_MAX",
            "engine/src/media/quality/formats.rs NAME_MAX",
            "engine/src/media/quality/reports.rs SENT_MAX",
            "engine/src/media/quality/reports.rs ROUND_TRIP_MAX_NS",
            "engine/src/media/quality/sequence.rs MAX_DROPOUT",
            "engine/src/media/quality/sequence.rs MAX_MISORDER",
            "src/shard.rs TURN_NS_MAX",
        ],
    ),
    (
        "how many faults of one document are told",
        &["policy/src/compile/faults.rs FAULTS_MAX", "policy/src/lpm/flatten.rs OVERLAPS_MAX"],
    ),
    (
        "of the load generator",
        &["io/src/sys/packet.rs FRAME_MAX_BYTES", "io/src/traffic.rs SIDES_MAX"],
    ),
    ("a name of the kernel's", &["io/src/sys/xsk/mod.rs XDP_MAX_TX_SKB_BUDGET"]),
];

/// A constant: `path NAME`, and its value as written.
fn constants(root: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for path in tree::files(&root.join("data-plane"), "rs") {
        let name = relative(&root.join("data-plane"), &path);
        let apart = ["/tests/", "/examples/", "/benches/"].iter().any(|part| name.contains(part));
        if apart || name.ends_with("tests.rs") {
            continue;
        }
        let text = read(&path);
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (place, _) in text.match_indices("const ") {
            let line = text[..place].rsplit('\n').next().unwrap_or_default().trim_start();
            let visible = line.is_empty() || (line.starts_with("pub") && !line.contains("fn"));
            let (Some((head, _)), true) = (text[place..].split_once(';'), visible) else {
                continue;
            };
            let Some((head, value)) = head.split_once(" =") else { continue };
            let Some((constant, _)) = head["const ".len()..].split_once(':') else { continue };
            let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            all.push((format!("{name} {constant}"), value));
        }
    }
    all
}

/// What stands in a cell between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Each row names a constant with its number, and a test that exists; and each constant whose name says
/// that it is the most of something stands in a row, or is an inner one for a reason.
#[test]
fn the_manual_lists_every_limit() {
    let root = tree::root();
    let manual = read(&root.join("docs/MANUAL.md"));
    let (_, table) = manual.split_once("\n## 18. Limits").expect("docs/MANUAL.md has section 18");
    let constants = constants(&root);
    let sources: String =
        tree::files(&root, "rs").iter().map(|path| read(path)).collect::<Vec<_>>().join("\n");
    let mut listed = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| ") && line.contains(".rs`")) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let [_, constant, at, seen, test] = cells[..] else { panic!("not five cells: {row}") };
        let [path, constant] = quoted(constant).collect::<Vec<_>>()[..] else { panic!("{row}") };
        let (name, value) = constant.split_once(" = ").unwrap_or_else(|| panic!("{row}"));
        let id = format!("{path} {name}");
        let found = constants.iter().find(|(known, _)| *known == id);
        let (_, right) = found.unwrap_or_else(|| panic!("no such constant: {row}"));
        assert_eq!(value, right, "docs/MANUAL.md: {id}");
        assert!(!at.trim().is_empty(), "what happens at the limit? {row}");
        for word in quoted(seen) {
            // A metric, with its labels or without; a drop reason; an event; a command.
            let word = word.split('{').next().unwrap_or_default().trim_start_matches("ravelin_");
            let known = word.contains(' ')
                || sources.contains(&format!("\"{word}\""))
                || sources.contains(&format!("\"{}\"", word.trim_end_matches("_seconds")));
            assert!(known, "nothing is called {word}: {row}");
        }
        for test in quoted(test) {
            assert!(sources.contains(&format!("fn {test}(")), "no such test: {row}");
        }
        assert!(listed.insert(id.clone()), "twice: {id}");
    }
    assert!(listed.len() >= 100, "only {} rows", listed.len());
    let inner = INNER.iter().flat_map(|(_, names)| *names).map(|name| (*name).to_owned());
    for name in inner {
        assert!(constants.iter().any(|(known, _)| *known == name), "no such constant: {name}");
        assert!(listed.insert(name.clone()), "twice: {name}");
    }
    let bounds = constants.iter().filter(|(id, _)| {
        let name = id.rsplit(' ').next().unwrap_or_default();
        name.split('_').any(|word| word == "MAX")
    });
    let left: Vec<_> = bounds.filter(|(id, _)| !listed.contains(id)).collect();
    assert!(left.is_empty(), "in no row of docs/MANUAL.md 18, and no inner ones: {left:#?}");
}
