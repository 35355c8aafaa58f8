//! The compliance commands against both planes, with an emergency call on record (P-69).

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Instant,
};

use serde_json::Value;

use crate::support::{PATIENCE, Process, Scratch, config, ravelin, run, text};

const PLACE: u8 = 24;

/// Both planes on addresses of their own, and a way to ask them.
struct Planes {
    up: Option<Process>,
    scratch: Scratch,
    file: PathBuf,
}

impl Planes {
    fn start() -> Self {
        let scratch = Scratch::new();
        let file = scratch.write("ravelin.yml", &config(PLACE));
        let mut command = ravelin();
        command.arg("up").arg("--config").arg(&file).arg("--data").arg(scratch.data());
        let mut up = Process::start(&mut command);
        up.wait_for_line("ravelin: up.", 1);
        Self { up: Some(up), scratch, file }
    }

    /// A command that asks this control plane.
    fn ask(&self, words: &str) -> Output {
        let url = format!("http://127.4.{}.1:8080", u32::from(PLACE) * 10);
        let mut command = ravelin();
        command.args(words.split(' ')).args(["--url", &url, "--data"]).arg(self.scratch.data());
        run(&mut command)
    }

    /// The same, as JSON; expects this exit code.
    fn json(&self, words: &str, code: i32) -> Value {
        let output = self.ask(&format!("{words} --json"));
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{words}: {out}{err}");
        assert_eq!(out.lines().count(), 1, "{words}: {out}");
        serde_json::from_str(&out).unwrap()
    }
}

fn today(format: &str) -> String {
    let output = Command::new("date").args(["-u", format]).output().unwrap();
    text(&output.stdout).trim().to_owned()
}

fn check<'a>(report: &'a Value, id: &str) -> &'a Value {
    report["checks"].as_array().unwrap().iter().find(|check| check["id"] == id).unwrap()
}

#[test]
fn karis_law_reports_and_soc2_work_against_both_planes() {
    let mut planes = Planes::start();
    let day = today("+%F");
    let demo = run(ravelin().args(["demo", "--seconds", "1", "--config"]).arg(&planes.file));
    assert!(demo.status.success(), "{}", text(&demo.stdout));
    karis_law(&planes);
    reports(&planes);
    soc2(&planes);
    audit_package(&planes, &day);

    // Nobody answers: that is no verdict.
    planes.up.take().unwrap().stop();
    for words in ["verify karis-law", "report sites --month 2024-12", "soc2 test"] {
        let output = planes.ask(words);
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert_eq!(text(&output.stderr).lines().count(), 1, "{words}");
    }
}

fn karis_law(planes: &Planes) {
    let report = planes.json("verify karis-law", 0);
    assert_eq!((&report["passed"], &report["source"]), (&true.into(), &"control-plane".into()));
    for id in ["mode", "direct_911", "no_prefix", "routing", "location", "nodes", "logging"] {
        assert_eq!(check(&report, id)["result"], "pass", "{report}");
    }
    // The trunks of the example are not probed: nothing fails, and it is said what to do.
    let reach = check(&report, "trunk_reachability");
    assert_eq!(reach["result"], "warn");
    assert!(reach["todo"].as_str().unwrap().contains("options"));
    let shown = text(&planes.ask("verify karis-law").stdout);
    assert!(shown.contains("pass  direct_911") && shown.contains("because no software can"));
}

fn reports(planes: &Planes) {
    let month = today("+%Y-%m");
    let report = planes.json(&format!("report emergency --month {month}"), 0);
    assert_eq!((&report["total_calls"], &report["answered"]), (&1.into(), &1.into()), "{report}");
    for time in ["time_to_invite_out", "time_to_ring", "time_to_answer"] {
        assert_eq!(report[time]["count"], 1, "{time}: {report}");
    }
    assert_eq!(report["location_known_percentage"], 100.0);
    assert_eq!(report["elins"]["+13135551000"], 1);
    assert_eq!(report["calls"][0]["trunk"], "detroit_emergency");
    assert_eq!(report["calls"][0]["location_source"], "address");
    let site = planes.json(&format!("report sites --site-id 1 --month {month}"), 0);
    assert_eq!(site["sites"][0]["calls"], 1);
    assert_eq!(site["hops"][0]["trunk"], "detroit_emergency");
    assert_eq!(planes.json("report sites --month 2001-01", 0)["total_calls"], 0);

    let formats = |format: &str| {
        let output = planes.ask(&format!("report emergency --month {month} --format {format}"));
        assert_eq!(output.status.code(), Some(0), "{format}");
        text(&output.stdout)
    };
    assert!(formats("text").contains("INVITE in to 200"));
    assert!(formats("md").starts_with("# Emergency calls, "));
    let csv = formats("csv");
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert_eq!(csv.lines().next().unwrap().split(',').count(), 17);
    assert_eq!(serde_json::from_str::<Value>(&formats("json")).unwrap(), report);
    for words in [
        format!("report sites --site-id 77 --month {month}"),
        "report emergency --month 12-2024".to_owned(),
        "report emergency --month 2024-13".to_owned(),
        "report emergency".to_owned(),
    ] {
        let output = planes.ask(&words);
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(output.stdout.is_empty());
    }
}

fn soc2(planes: &Planes) {
    let result = planes.json("soc2 test", 0);
    assert_eq!(result["total_controls"], 16, "{result}");
    assert_eq!(
        (&result["passed"], &result["failed"], &result["skipped"]),
        (&12.into(), &0.into(), &4.into()),
        "{result}"
    );
    let of = |result: &Value, id: &str| result["controls"][id].clone();
    assert_eq!(of(&result, "CC6.2")["passed"], true);
    assert!(of(&result, "CC6.2")["details"].as_str().unwrap().contains("answered 401"));
    // What only people can show is not passed by a program.
    assert_eq!(of(&result, "CC1.1")["passed"], Value::Null);
    for check in ["all registered", "status current", "results documented", "periodic testing"] {
        assert_eq!(result["framework"][check]["passed"], true, "{check}: {result}");
    }

    // A secret that others may read is found, and recorded behind the first result.
    let token = planes.scratch.data().join("admin.token");
    let mode = |mode| fs::set_permissions(&token, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    let result = planes.json("soc2 test --control CC6.6", 1);
    assert_eq!(of(&result, "CC6.6")["passed"], false, "{result}");
    assert_eq!(result["total_controls"], 1);
    mode(0o600);
    let quiet = planes.ask("soc2 test --control CC6.6 --no-record --quiet");
    assert_eq!(text(&quiet.stdout), "1 controls: 1 passed, 0 failed, 0 skipped\n");
    let file = planes.file.display();
    let by_file = planes.json(&format!("soc2 test --config {file} --control A1.2 --no-record"), 0);
    assert_eq!(by_file["recorded"], false);
    assert_eq!(planes.ask("soc2 test --control CC0.0").status.code(), Some(2));
    assert_eq!(planes.ask("soc2 test --token nobody").status.code(), Some(2));
}

/// `day`: on which the first records were made.
fn audit_package(planes: &Planes, day: &str) {
    let path = |name: &str| planes.scratch.path().join(name);
    let make = |name: &str| {
        let out = path(name);
        let out = out.display();
        // A run over midnight ends a day later.
        let made =
            planes.json(&format!("soc2 package --from {day} --to 2099-12-31 --out {out}"), 0);
        assert_eq!((&made["whole"], &made["chains_intact"]), (&true.into(), &true.into()));
        made
    };
    let mut made = make("one.tar");
    assert_eq!(made["tests"], 13, "twelve of the first run, one of the second: {made}");
    assert_eq!(made["evidence"], 13);
    // The same records make the same package; what a plane writes of its own accord may come between.
    let end = Instant::now() + PATIENCE;
    loop {
        let again = make("two.tar");
        if again["sha256"] == made["sha256"] {
            break;
        }
        assert!(Instant::now() < end, "{again} after {made}");
        made = make("one.tar");
    }
    assert!(fs::read(path("one.tar")).unwrap() == fs::read(path("two.tar")).unwrap());
    let mode = fs::metadata(path("one.tar")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let listed = Command::new("tar").arg("tf").arg(path("one.tar")).output().unwrap();
    let listed = text(&listed.stdout);
    for name in ["manifest.json", "controls/inventory.json", "audit_chain.json", "tests/CC6.2.json"]
    {
        assert!(listed.lines().any(|line| line == name), "{name}: {listed}");
    }
    let verify =
        |file: &Path| run(ravelin().args(["soc2", "package", "--json", "--verify"]).arg(file));
    assert_eq!(verify(&path("one.tar")).status.code(), Some(0));
    let public = planes.scratch.data().join("certs/evidence.pub");
    let signed = run(ravelin()
        .args(["soc2", "package", "--verify"])
        .arg(path("one.tar"))
        .arg("--key")
        .arg(&public));
    assert_eq!(signed.status.code(), Some(0), "{}", text(&signed.stderr));
    signed_for_others(&planes.scratch, &path("one.tar"), &public);
    let mut bytes = fs::read(path("one.tar")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path("two.tar"), bytes).unwrap();
    let changed = verify(&path("two.tar"));
    assert_eq!(changed.status.code(), Some(1), "{}", text(&changed.stdout));
    let changed: Value = serde_json::from_str(&text(&changed.stdout)).unwrap();
    assert_eq!(
        (&changed["whole"], changed["faults"].as_array().unwrap().len()),
        (&false.into(), 1)
    );
    assert_eq!(verify(&path("three.tar")).status.code(), Some(2));
    let year =
        planes.json(&format!("soc2 package --to {day} --out {}", path("y.tar").display()), 0);
    assert_eq!(year["to"], day);
    assert!(year["from"].as_str().unwrap() < day);
    assert_eq!(planes.ask("soc2 package --from 2026-01-32").status.code(), Some(2));
    let late = planes.ask("soc2 package --from 2026-02-01 --to 2026-01-01 --out x.tar");
    assert_eq!(late.status.code(), Some(2), "{}", text(&late.stderr));
}

/// What OpenSSL and sha256sum make of the package.
fn signed_for_others(scratch: &Scratch, package: &Path, public: &Path) {
    let folder = scratch.path().join("unpacked");
    fs::create_dir(&folder).unwrap();
    let tar = Command::new("tar").arg("xf").arg(package).arg("-C").arg(&folder).status().unwrap();
    assert!(tar.success());
    let sums = Command::new("sha256sum")
        .args(["-c", "manifest.json.sha256"])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(sums.status.success(), "{}", text(&sums.stderr));
    if Command::new("openssl").arg("version").output().is_err() {
        println!("SKIPPED compliance::signed_for_others: no openssl");
        return;
    }
    let checked = Command::new("openssl")
        .args(["pkeyutl", "-verify", "-pubin", "-rawin", "-in", "manifest.json"])
        .args(["-sigfile", "manifest.json.sig", "-inkey"])
        .arg(public.canonicalize().unwrap())
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}{}", text(&checked.stdout), text(&checked.stderr));
}

#[test]
fn karis_law_is_checked_on_a_file_alone() {
    let scratch = Scratch::new();
    let verify = |name: &str, content: &str, code: i32| -> Value {
        let file = scratch.write(name, content);
        let output = run(ravelin().args(["verify", "karis-law", "--json", "--config"]).arg(file));
        assert_eq!(output.status.code(), Some(code), "{name}: {}", text(&output.stderr));
        serde_json::from_str(&text(&output.stdout)).unwrap_or(Value::Null)
    };
    let good = config(PLACE);
    let report = verify("good.yml", &good, 0);
    assert_eq!(report["source"], "file");
    assert_eq!(check(&report, "routing")["result"], "pass");
    for id in ["nodes", "trunk_reachability", "logging"] {
        assert_eq!(check(&report, id)["result"], "skip", "{report}");
    }
    let silent = good
        .replace("mode: production", "mode: test")
        .replace("auto_notify: true", "auto_notify: false");
    let report = verify("silent.yml", &silent, 1);
    for id in ["mode", "notification", "contacts"] {
        assert_eq!(check(&report, id)["result"], "fail", "{report}");
    }
    verify("broken.yml", &good.replace("mode: production", "mode: perhaps"), 2);
}
