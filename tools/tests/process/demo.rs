//! Both planes with `ravelin up`, and calls with audio through them.

use std::{fs, path::Path, process::Output, time::Instant};

use serde_json::Value;

use crate::support::{PATIENCE, Process, Scratch, config, ravelin, run, signal, text};

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
    up.signal("KILL");
    up.wait();
    let end = Instant::now() + PATIENCE;
    while Path::new("/proc").join(&edge).exists() {
        assert!(Instant::now() < end, "the edge goes on without a supervisor");
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
