//! Outputs and exit codes that scripts rely on.

use serde_json::Value;

use crate::support::{Scratch, config, ravelin, run, text};

const INVITE: &str = "INVITE sip:bob@biloxi.example SIP/2.0\r\n\
    Via: SIP/2.0/UDP client.atlanta.example:5060;branch=z9hG4bK74bf9\r\n\
    Max-Forwards: 70\r\nFrom: <sip:alice@atlanta.example>;tag=9fxced76sl\r\n\
    To: <sip:bob@biloxi.example>\r\nCall-ID: 3848276298220188511\r\nCSeq: 2 INVITE\r\n\
    Contact: <sip:alice@client.atlanta.example>\r\nContent-Length: 0\r\n\r\n";

#[test]
fn parse_judges_each_file_on_one_line() {
    let scratch = Scratch::new();
    let good = scratch.write("invite", INVITE);
    let answer = INVITE
        .replace("INVITE sip:bob@biloxi.example SIP/2.0", "SIP/2.0 200 OK")
        .replace("bob@biloxi.example>", "bob@biloxi.example>;tag=1");
    let answer = scratch.write("answer", &answer);
    let bad = scratch.write("bad", &INVITE.replace("Call-ID: 3848276298220188511\r\n", ""));
    let junk = scratch.write("junk", "\0\u{1}not sip at all");

    let output = run(ravelin().arg("parse").args([&good, &answer]));
    assert_eq!(
        text(&output.stdout),
        format!("{} accept INVITE\n{} accept 200\n", good.display(), answer.display())
    );
    assert_eq!(output.status.code(), Some(0));

    let output = run(ravelin().arg("parse").args([&bad, &junk, &good]));
    let lines = text(&output.stdout);
    let lines: Vec<&str> = lines.lines().collect();
    assert!(lines[0].starts_with(&format!("{} reject 400 ", bad.display())), "{lines:?}");
    assert!(lines[1].starts_with(&format!("{} reject ", junk.display())), "{lines:?}");
    assert!(lines[2].ends_with(" accept INVITE"), "{lines:?}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn parse_as_json_has_the_same_keys_for_every_file() {
    let scratch = Scratch::new();
    let good = scratch.write("invite", INVITE);
    let bad = scratch.write("bad", &INVITE.replace("CSeq: 2 INVITE\r\n", ""));
    let output = run(ravelin().args(["parse", "--json"]).args([&good, &bad]));
    let lines: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["cause", "file", "kind", "reason", "verdict"]);
    }
    assert_eq!(lines[0]["verdict"], "accept");
    assert_eq!(lines[0]["kind"], "INVITE");
    assert_eq!(lines[0]["cause"], Value::Null);
    assert_eq!(lines[1]["verdict"], "reject");
    assert_eq!(lines[1]["cause"], 400);
    assert_eq!(lines[1]["kind"], Value::Null);
    assert!(lines[1]["reason"].is_string());
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_the_others_are_judged() {
    let scratch = Scratch::new();
    let good = scratch.write("invite", INVITE);
    let output = run(ravelin().args(["parse", "/nonexistent"]).arg(&good));
    assert!(text(&output.stdout).ends_with("accept INVITE\n"));
    let error = text(&output.stderr);
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("/nonexistent"));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn check_names_every_fault_with_path_and_line() {
    let scratch = Scratch::new();
    let good = scratch.write("good.yml", &config(1));
    let output = run(ravelin().arg("check").arg(&good));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));

    let broken = config(1)
        .replace("trunks: [carrier-a, carrier-b] }", "trunks: [carrier-x] }")
        .replace("sources: [127.4.12.0/24]", "sources: [somewhere]");
    let bad = scratch.write("bad.yml", &broken);
    let output = run(ravelin().arg("check").arg(&bad));
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stdout);
    let line_of = |part: &str| broken.lines().position(|line| line.contains(part)).unwrap() + 1;
    for (part, path) in
        [("carrier-x", "routes[0].trunks[0]"), ("somewhere", "trunks[1].sources[0]")]
    {
        let place = format!("{}:{}: error: {path}", bad.display(), line_of(part));
        assert!(told.contains(&place), "{place:?} is not in:\n{told}");
    }
    assert_eq!(text(&output.stderr).lines().count(), 1);
}

#[test]
fn check_with_a_data_directory_finds_missing_certificates() {
    let scratch = Scratch::new();
    let file = scratch.write("good.yml", &config(1));
    let data = scratch.data();
    let check = || run(ravelin().args(["check", "--data"]).arg(&data).arg(&file));
    let output = check();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("features.stir_shaken.certificate_path"));
    let made = run(ravelin()
        .args(["stir", "cert", "new", "--spc", "1234", "--out"])
        .arg(data.join("certs")));
    assert!(made.status.success(), "{}", text(&made.stderr));
    let output = check();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
}

#[test]
fn explain_answers_with_the_keys_that_scripts_know() {
    let scratch = Scratch::new();
    let file = scratch.write("ravelin.yml", &config(0));
    let explain = |to: &str| {
        let output = run(ravelin()
            .args(["explain", "--realm", "access", "--source", "127.4.1.7", "--json"])
            .args(["--from", "sip:+13135550100@x", "--to", to, "--config"])
            .arg(&file));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let call = explain("sip:911@sbc.example");
    let mut keys: Vec<&str> = call.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let mut wanted =
        ["class", "site", "elin", "psap", "location", "trunks", "attestation", "rule", "snapshot"];
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
    assert_eq!(call["class"], "emergency");
    assert_eq!(call["site"], "Detroit Factory");
    assert_eq!(call["elin"], "+13135551000");
    assert_eq!(
        call["trunks"],
        serde_json::json!(["detroit_emergency", "detroit_emergency_backup", "emergency"])
    );
    let call = explain("sip:+13135550911@sbc.example");
    assert_eq!(call["class"], "none");
    assert_eq!(call["trunks"], serde_json::json!(["carrier-a", "carrier-b"]));
    assert_eq!(call["attestation"], "A");
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    for arguments in [
        &["parse"][..],
        &["nonsense"],
        &["check", "--nonsense", "x"],
        &["explain", "--config", "x"],
        &["rollback", "seven"],
        &["check", "/nonexistent.yml"],
        &["edge"],
        &["apply", "--data", "/nonexistent", "/nonexistent.yml"],
        &["audit", "verify", "--data", "/nonexistent"],
        &["demo", "--config", "/nonexistent.yml"],
    ] {
        let output = run(ravelin().args(arguments));
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
        assert!(error.starts_with("ravelin: "), "{arguments:?}: {error}");
    }
}

#[test]
fn help_has_an_example_for_every_command() {
    let help = text(&run(ravelin().arg("--help")).stdout);
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() >= 12, "{commands:?}");
    for command in commands {
        let output = run(ravelin().args([command, "--help"]));
        assert_eq!(output.status.code(), Some(0));
        let help = text(&output.stdout);
        assert!(help.contains("Example") || help.contains("Commands:"), "{command}:\n{help}");
    }
}
