//! Both planes with `ravelin up`, and calls with audio through them.

use std::{collections::BTreeSet, fs, path::Path, process::Output, time::Instant};

use serde_json::Value;

use crate::{
    peer::{Peer, connect},
    support::{PATIENCE, Process, Scratch, address, config, ravelin, run, signal, text},
};

fn demo(config: &Path) -> (Output, Vec<Value>) {
    let output = run(ravelin().args(["demo", "--seconds", "1", "--json", "--config"]).arg(config));
    let calls =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output, calls)
}

#[test]
fn calls_with_audio_pass_and_a_dead_plane_is_started_again() {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &config(14));
    let data = scratch.data();
    let made = run(ravelin()
        .args(["stir", "cert", "new", "--spc", "1234", "--out"])
        .arg(data.join("certs")));
    assert!(made.status.success());
    let mut up =
        Process::start(ravelin().arg("up").arg("--config").arg(&file).arg("--data").arg(&data));
    up.wait_for_line("ravelin: up.", 1);

    let (output, calls) = demo(&file);
    assert_eq!(output.status.code(), Some(0), "{calls:#?}\n{}", up.log());
    assert_eq!(calls[0]["call"], "ordinary");
    assert_eq!(calls[0]["trunk"], "carrier-a");
    assert_eq!(calls[0]["signed"], true);
    assert_eq!(calls[0]["callee_verified"], 50);
    assert_eq!(calls[0]["caller_verified"], 50);
    assert_eq!(calls[1]["call"], "emergency");
    assert_eq!(calls[1]["trunk"], "detroit_emergency");
    assert_eq!(calls[1]["location"], true);

    // The edge dies: it is there again, and carries calls.
    let pid = || fs::read_to_string(data.join("run/edge.pid")).unwrap_or_default();
    let before = pid();
    signal(before.trim().parse().unwrap(), "KILL");
    up.wait_for_line("edge: ready", 2);
    assert_ne!(pid(), before);
    let (output, calls) = demo(&file);
    assert_eq!(output.status.code(), Some(0), "{calls:#?}\n{}", up.log());

    let began = Instant::now();
    up.stop();
    assert!(began.elapsed() < PATIENCE);
    let verified = run(ravelin().args(["audit", "verify", "--data"]).arg(&data));
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
}

/// Processes that a process has started.
fn children(of: u32) -> Vec<String> {
    let is_child = |id: &String| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        parent == Some(&of.to_string())
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    let names = all.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.parse::<u32>().is_ok()).filter(is_child).collect()
}

#[test]
fn planes_end_with_a_supervisor_that_was_killed() {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &config(17));
    let data = scratch.data();
    let start = || {
        let mut command = ravelin();
        let mut up =
            Process::start(command.arg("up").arg("--config").arg(&file).arg("--data").arg(&data));
        up.wait_for_line("ravelin: up.", 1);
        up
    };
    let mut up = start();
    let edge = fs::read_to_string(data.join("run/edge.pid")).unwrap().trim().to_owned();
    let planes = children(up.id());
    assert!(planes.len() == 2 && planes.contains(&edge), "{planes:?}");
    up.signal("KILL");
    up.wait();
    let end = Instant::now() + PATIENCE;
    while planes.iter().any(|id| Path::new("/proc").join(id).exists()) {
        assert!(Instant::now() < end, "a plane goes on without a supervisor: {planes:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Its ports and its data directory are free.
    start().stop();
}

#[test]
fn a_demonstration_without_ravelin_does_not_pass() {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &config(15));
    let (output, calls) = demo(&file);
    assert_eq!(output.status.code(), Some(1), "{calls:?} {}", text(&output.stderr));
    assert_eq!(calls[0]["verdict"], "failed");
}

/// Octets of the headers of IPv4 and UDP.
const IP_AND_UDP: usize = 28;

/// The SIP messages of a capture of UDP over IPv4 without a link layer; one that was sent again, because
/// somebody was slow, once.
fn messages(capture: &[u8]) -> BTreeSet<String> {
    let (mut rest, mut found) = (&capture[24..], BTreeSet::new());
    while let Some((head, after)) = rest.split_first_chunk::<16>() {
        let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let (packet, after) = after.split_at(length);
        found.insert(text(packet.get(IP_AND_UDP..).unwrap_or_default()));
        rest = after;
    }
    found
}

fn count(messages: &BTreeSet<String>, start: &str) -> usize {
    messages.iter().filter(|message| message.starts_with(start)).count()
}

/// `ravelin trace`: a call is found by the Call-ID of a leg; its messages are there if the config
/// asked for them.
#[test]
fn a_trace_shows_the_ladder_and_writes_the_messages_it_was_told_to_keep() {
    const PLACE: u8 = 1;
    let scratch = Scratch::new();
    let keeping =
        config(PLACE).replacen("edge:\n", "edge:\n  limits: { capture_bytes: 64KiB }\n", 1);
    let file = scratch.write("ravelin.yml", &keeping);
    let data = scratch.data();
    let mut command = ravelin();
    let mut up =
        Process::start(command.arg("up").arg("--config").arg(&file).arg("--data").arg(&data));
    up.wait_for_line("ravelin: up.", 1);
    let mut caller = Peer::new(address(PLACE, 1, 7, 0), address(PLACE, 0, 10, 5060));
    let mut carrier = Peer::new(address(PLACE, 2, 1, 5060), address(PLACE, 0, 20, 5060));
    connect(&mut caller, &mut carrier, "traced", "+12125550001");
    let mut psap = Peer::new(address(PLACE, 9, 1, 5060), address(PLACE, 0, 20, 5060));
    connect(&mut caller, &mut psap, "sos", "911");

    let url = keeping.lines().find_map(|line| line.trim().strip_prefix("listen: ")).unwrap();
    let url = format!("http://{}", url.split_whitespace().next().unwrap());
    let call_id = |name: &str| format!("{name}@{}", caller.address());
    let trace = |name: &str, more: &[&std::ffi::OsStr]| {
        let mut command = ravelin();
        command.args(["trace", "--url", &url, "--call-id", &call_id(name), "--data"]).arg(&data);
        run(command.args(more))
    };
    let ladder = trace("traced", &[]);
    assert_eq!(ladder.status.code(), Some(0), "{}", text(&ladder.stderr));
    let ladder = text(&ladder.stdout);
    assert!(ladder.contains("200 (INVITE)") && ladder.contains("carrier-a"), "{ladder}");

    let capture = scratch.path().join("call.pcap");
    // The caller's ACK may still be on its way.
    let end = Instant::now() + PATIENCE;
    let messages = loop {
        let written = trace("traced", &["--pcap".as_ref(), capture.as_ref()]);
        assert_eq!(written.status.code(), Some(0), "{}", text(&written.stderr));
        let bytes = fs::read(&capture).unwrap();
        assert_eq!(bytes[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
        let messages = messages(&bytes);
        if count(&messages, "ACK sip:") == 2 || Instant::now() >= end {
            break messages;
        }
    };
    for part in ["INVITE sip:+12125550001@", "SIP/2.0 100 ", "SIP/2.0 200 OK", "ACK sip:"] {
        // Once from one leg, once to the other, but for the 100 of ours.
        let count = count(&messages, part);
        assert!(count == 2 || count == 1 && part.contains("100"), "{part}: {count}");
    }
    let traced = format!("Call-ID: {}", call_id("traced"));
    assert!(messages.iter().any(|message| message.contains(&traced)));
    // Who dialled 911 is nobody's capture (EM-41).
    let refused = trace("sos", &["--pcap".as_ref(), capture.as_ref()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("emergency calls are never kept"));
    up.signal("TERM");
    up.wait_for_line("taking no new calls", 1);
    up.signal("TERM");
    assert!(up.wait().success(), "{}", up.log());
}
