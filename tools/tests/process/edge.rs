//! `ravelin edge` alone: start, refusal to start, SIGHUP, crash.

use std::{fs, net::UdpSocket, path::Path, process::Command, time::Duration};

use ravelin_contract::chain::Entry;

use crate::{
    peer::{Peer, connect},
    support::{Process, Scratch, address, chain, config, kinds, ravelin, run, text},
};

fn edge(config: &Path, data: &Path) -> Command {
    let mut command = ravelin();
    command.arg("edge").arg("--config").arg(config).arg("--data").arg(data);
    command
}

fn start(config: &Path, data: &Path) -> Process {
    let mut process = Process::start(&mut edge(config, data));
    process.wait_for_line("edge: ready", 1);
    process
}

/// An OPTIONS to the access listener, and the first line of what comes back.
fn ask(place: u8) -> String {
    let socket = UdpSocket::bind(address(place, 1, 7, 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    let local = socket.local_addr().expect("an address");
    let listener = address(place, 0, 10, 5060);
    let request = format!(
        "OPTIONS sip:{listener} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK1;rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:a@{local}>;tag=1\r\nTo: <sip:{listener}>\r\n\
         Call-ID: {local}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    );
    let mut buffer = [0; 4_096];
    for _ in 0..20 {
        socket.send_to(request.as_bytes(), listener).expect("sent");
        if let Ok((length, _)) = socket.recv_from(&mut buffer) {
            return text(&buffer[..length]).lines().next().unwrap_or_default().to_owned();
        }
    }
    panic!("no answer from {listener}");
}

#[test]
fn an_edge_answers_and_stops_in_order() {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &config(2));
    let process = start(&file, &scratch.data());
    assert_eq!(ask(2), "SIP/2.0 200 OK");
    let pid = fs::read_to_string(scratch.data().join("run/edge.pid")).unwrap();
    assert_eq!(pid.trim(), process.id().to_string());
    process.stop();
    let kinds = kinds(&chain(&scratch.data()));
    assert!(kinds.contains(&"edge.started".to_owned()));
    assert_eq!(kinds.last().map(String::as_str), Some("edge.stopped"));
    assert!(!kinds.contains(&"gap".to_owned()));
}

#[test]
fn a_killed_edge_leaves_a_chain_that_holds_and_a_gap_that_is_told() {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &config(3));
    for _ in 0..3 {
        let mut process = start(&file, &scratch.data());
        assert_eq!(ask(3), "SIP/2.0 200 OK");
        process.signal("KILL");
        process.wait();
    }
    start(&file, &scratch.data()).stop();
    let entries = chain(&scratch.data());
    let gaps = entries.iter().filter(|entry| matches!(entry, Entry::Gap { .. })).count();
    assert_eq!(gaps, 3, "{:?}", kinds(&entries));
    let verified = run(ravelin().args(["audit", "verify", "--data"]).arg(scratch.data()));
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
    assert!(text(&verified.stdout).contains("3 gaps told"), "{}", text(&verified.stdout));
}

/// The kernel frees the sockets of a killed edge only after the process is gone.
#[test]
fn an_edge_waits_for_an_address_that_is_let_go_soon() {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &config(12));
    let before = UdpSocket::bind(address(12, 0, 10, 5060)).expect("a socket");
    let mut process = Process::start(&mut edge(&file, &scratch.data()));
    process.wait_for_line(":5060 is in use; waiting", 1);
    drop(before);
    process.wait_for_line("edge: ready", 1);
    assert_eq!(ask(12), "SIP/2.0 200 OK");
    process.stop();
}

#[test]
fn an_altered_audit_log_is_found_by_the_command() {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &config(4));
    start(&file, &scratch.data()).stop();
    let segment = scratch.data().join("audit/segment-00000000000000000001.jsonl");
    let log = fs::read_to_string(&segment).unwrap();
    fs::write(&segment, log.replacen("edge.started", "edge.st4rted", 1)).unwrap();
    let verified = run(ravelin().args(["audit", "verify", "--data"]).arg(scratch.data()));
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified.stdout).contains("was altered"), "{}", text(&verified.stdout));
    let exported = run(ravelin().args(["audit", "export", "--data"]).arg(scratch.data()));
    assert_eq!(exported.status.code(), Some(1), "an export must not hide the break");
}

#[test]
fn sighup_puts_a_changed_file_in_force_and_refuses_a_broken_one_whole() {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &config(5));
    let mut process = start(&file, &scratch.data());
    fs::write(&file, config(5).replace("Detroit Factory", "Detroit Works")).unwrap();
    process.signal("HUP");
    process.wait_for_line("config version 2 is in force", 1);
    fs::write(&file, config(5).replace("calls: 500", "calls: many")).unwrap();
    process.signal("HUP");
    process.wait_for_line("config version 3 refused: ", 1);
    assert!(process.log().contains("trunks[0].limits.calls"), "{}", process.log());
    assert_eq!(ask(5), "SIP/2.0 200 OK");
    process.stop();
    let kept = fs::read_to_string(scratch.data().join("snapshots/last-good.json")).unwrap();
    assert!(kept.contains("Detroit Works"));
    let kinds = kinds(&chain(&scratch.data()));
    assert!(kinds.contains(&"config.activated".to_owned()), "{kinds:?}");
    assert!(kinds.contains(&"config.refused".to_owned()), "{kinds:?}");
}

/// E2, E3, E4: production and a sign of a test run contradict each other.
#[test]
fn production_refuses_to_start_when_something_says_that_this_is_a_test() {
    let scratch = Scratch::new();
    let plain = scratch.write("latest/ravelin.yml", &config(6));
    let named = scratch.write("my_Test_config.yml", &config(6));
    let refuse = |command: &mut Command, because: &str| {
        let output = run(command);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        let last = error.lines().last().unwrap_or_default();
        assert!(last.contains("deployment.mode") && last.contains(because), "{error}");
    };
    for variable in
        ["PYTEST_CURRENT_TEST", "TEST_MODE", "TESTING", "PBX_TEST_MODE", "RAVELIN_TEST_MODE"]
    {
        refuse(edge(&plain, &scratch.data()).env(variable, "1"), variable);
    }
    refuse(&mut edge(&named, &scratch.data()), "my_Test_config.yml");

    // Off is off, and a directory's name says nothing.
    for off in ["0", "false", "no", "off", ""] {
        let mut process = Process::start(edge(&plain, &scratch.data()).env("TEST_MODE", off));
        process.wait_for_line("edge: ready", 1);
        process.stop();
    }
    // Declared test mode and a sign of it agree.
    let test = scratch.write("t.yml", &config(6).replace("mode: production", "mode: test"));
    let mut process = Process::start(edge(&test, &scratch.data()).env("TEST_MODE", "1"));
    process.wait_for_line("all emergency calls will be blocked", 1);
    process.stop();
}

#[test]
fn a_taken_port_and_a_taken_data_directory_are_named() {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &config(7));
    let process = start(&file, &scratch.data());
    let output = run(&mut edge(&file, &scratch.path().join("other")));
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    let last = error.lines().last().unwrap_or_default();
    assert!(last.contains("access-udp") && last.contains("another process uses it"), "{last}");

    let output = run(&mut edge(&file, &scratch.data()));
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains(&format!("pid {}", process.id())), "{error}");
    process.stop();
}

#[test]
fn a_cold_start_without_control_plane_runs_on_the_last_good_document() {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &config(8));
    start(&file, &scratch.data()).stop();
    fs::remove_file(&file).unwrap();
    let mut command = ravelin();
    command.args(["edge", "--control", "unix:/nonexistent/link.sock", "--data"]);
    let mut process = Process::start(command.arg(scratch.data()));
    process.wait_for_line("edge: ready", 1);
    process.wait_for_line("control plane not reached", 1);
    assert_eq!(ask(8), "SIP/2.0 200 OK");
    process.stop();
}

/// A file system of its own for the audit log, small enough to be filled.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: std::path::PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&at).map_err(|error| error.to_string())?;
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "ravelin-test"])
            .arg(&at)
            .output()
            .map_err(|error| format!("mount: {error}"))?;
        if mount.status.success() { Ok(Self(at)) } else { Err(text(&mount.stderr)) }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_no_call_and_is_told_when_there_is_room_again() {
    let scratch = Scratch::new();
    let disk = match SmallDisk::mount(scratch.data().join("audit")) {
        Ok(disk) => disk,
        Err(why) => {
            println!("skipped: a full disk: a tmpfs cannot be mounted: {}", why.trim());
            return;
        }
    };
    let file = scratch.write("ravelin.yml", &config(16));
    let mut process = start(&file, &scratch.data());
    let filler = disk.0.join("filler");
    // The last octets too: write until the disk refuses.
    let mut full = fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut full, &[0; 512]).is_ok() {}
    drop(full);

    // The last page of the log has room for a few records more.
    for version in 2..40 {
        process.signal("HUP");
        process.wait_for_line(&format!("config version {version} is in force"), 1);
        if process.log().contains("audit spool cannot be written") {
            break;
        }
    }
    process.wait_for_line("audit spool cannot be written, calls go on", 1);
    assert_eq!(ask(16), "SIP/2.0 200 OK");
    fs::remove_file(&filler).unwrap();
    process.wait_for_line("audit spool is written again", 1);
    process.stop();
    let kinds = kinds(&chain(&scratch.data()));
    for kind in ["edge.started", "config.activated", "audit.write_failed", "edge.stopped"] {
        assert!(kinds.contains(&kind.to_owned()), "{kind} is missing: {kinds:?}");
    }
}

/// 100 pairs want 200 files and more; the process may open 400 of all kinds.
#[test]
fn a_low_limit_on_open_files_leaves_ports_out_says_so_and_carries_calls() {
    const PLACE: u8 = 23;
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &config(PLACE));
    let limited = |files: u32| {
        // Who may raise the limit would do so.
        let root = fs::metadata("/proc/self")
            .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        let less = if root { "setpriv --bounding-set=-sys_resource" } else { "" };
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {files} && exec {less} \"$0\" \"$@\"")]);
        let edge = edge(&file, &scratch.data());
        command.arg(edge.get_program()).args(edge.get_args());
        for (variable, _) in edge.get_envs() {
            command.env_remove(variable);
        }
        command
    };
    let output = run(&mut limited(200));
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.lines().last().unwrap_or_default().contains("LimitNOFILE="), "{error}");

    let mut process = Process::start(&mut limited(400));
    process.wait_for_line("edge: ready", 1);
    let log = process.log();
    assert!(log.contains("of 100 media port pairs are left out"), "{log}");
    let mut caller = Peer::new(address(PLACE, 1, 7, 0), address(PLACE, 0, 10, 5060));
    let mut carrier = Peer::new(address(PLACE, 2, 1, 5060), address(PLACE, 0, 20, 5060));
    connect(&mut caller, &mut carrier, "call", "+12125550001");
    process.signal("TERM");
    process.signal("TERM");
    process.wait();
    let kinds = kinds(&chain(&scratch.data()));
    assert!(kinds.contains(&"edge.media_ports_short".to_owned()), "{kinds:?}");
}

/// ST-56.
#[test]
fn a_certificate_that_ends_within_days_is_an_alarm_and_calls_are_signed() {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &config(0));
    let made = run(ravelin()
        .args(["stir", "cert", "new", "--spc", "1234", "--days", "5", "--out"])
        .arg(scratch.data().join("certs")));
    assert!(made.status.success(), "{}", text(&made.stderr));
    let mut process = start(&file, &scratch.data());
    process.wait_for_line("the signing certificate ends at", 1);
    assert!(!process.log().contains("unsigned"), "{}", process.log());
    process.stop();
    let told = chain(&scratch.data()).into_iter().find_map(|entry| match entry {
        Entry::Audit(event) if event.kind == "stir.certificate_expires" => Some(event),
        _ => None,
    });
    let told = told.expect("an event");
    assert_eq!(told.severity, ravelin_contract::audit::Severity::Alarm);
    assert!(told.fields["days_left"].as_u64().is_some_and(|days| days <= 5), "{told:?}");
}
