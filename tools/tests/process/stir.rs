//! The HTTP routes of ATIS-1000082 against the offline commands: what one signs, the other verifies
//! (ST-76, ST-77).

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Output,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::support::{Process, Scratch, config, ravelin, run, text};

const URL: &str = "https://certs.example.com/sp.pem";
const ORIGID: &str = "de305d54-75b4-431b-adb2-eb6b9e546014";

/// A control plane with certificates, and how to ask it.
struct Plane {
    scratch: Scratch,
    api: String,
    process: Process,
}

impl Plane {
    fn start(place: u8) -> Self {
        let scratch = Scratch::new();
        let text = config(place).replace("127.4.", "127.13.");
        let listen = text.lines().find_map(|line| line.trim().strip_prefix("listen: "));
        let api = listen.and_then(|rest| rest.split_whitespace().next()).expect("control.listen");
        let api = api.to_owned();
        let file = scratch.write("ravelin.yml", &text);
        make(&scratch.data().join("certs"));
        let mut control = ravelin();
        control.arg("control").arg("--config").arg(&file).arg("--data").arg(scratch.data());
        let mut process = Process::start(&mut control);
        process.wait_for_line("ready", 1);
        Self { scratch, api, process }
    }

    fn certs(&self) -> PathBuf {
        self.scratch.data().join("certs")
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let token = fs::read_to_string(self.scratch.data().join("admin.token")).expect("a token");
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.api).expect("the API");
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            token.trim(),
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).expect("JSON")
    }

    fn verdict(&self, identity: &str) -> Value {
        let body = json!({"verificationRequest": {"from": {"tn": "13135551000"}, "time": now(),
            "to": {"tn": ["12125550100"]}, "identity": identity}});
        self.post("/stir/v1/verification", &body)["verificationResponse"].take()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
}

fn make(folder: &Path) {
    let made = run(ravelin().args(["stir", "cert", "new", "--spc", "1234", "--out"]).arg(folder));
    assert!(made.status.success(), "{}", text(&made.stderr));
}

fn invite(identity: &str) -> String {
    format!(
        "INVITE sip:+12125550100@carrier.example SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa\r\nMax-Forwards: 70\r\n\
         From: <sip:+13135551000@pbx.example>;tag=1\r\nTo: <sip:+12125550100@carrier.example>\r\n\
         Call-ID: a@b\r\nCSeq: 1 INVITE\r\nContact: <sip:192.0.2.1>\r\nIdentity: {identity}\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

fn verify(certs: &Path, message: &Path) -> (Output, Value) {
    let output = run(ravelin()
        .args(["stir", "verify", "--json", "--ca"])
        .arg(certs.join("sti-ca.pem"))
        .arg("--cert")
        .arg(format!("{URL}={}", certs.join("sp.pem").display()))
        .arg(message));
    let line = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, line)
}

fn sign(certs: &Path) -> String {
    let output = run(ravelin()
        .args(["stir", "sign", "--x5u", URL, "--attest", "B", "--origid", ORIGID])
        .args(["--orig", "+13135551000", "--dest", "+12125550100", "--cert"])
        .arg(certs.join("sp.pem"))
        .arg("--key")
        .arg(certs.join("sp.key")));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

#[test]
fn what_the_api_signs_the_command_verifies_and_back() {
    let plane = Plane::start(21);
    let (certs, scratch) = (plane.certs(), &plane.scratch);
    let ask = json!({"signingRequest": {"attest": "A", "dest": {"tn": ["12125550100"]},
        "iat": now(), "orig": {"tn": "13135551000"}, "origid": ORIGID}});
    let signed = plane.post("/stir/v1/signing", &ask);
    let identity = signed["signingResponse"]["identity"].as_str().expect("an identity").to_owned();
    let (output, line) = verify(&certs, &scratch.write("good.sip", &invite(&identity)));
    assert_eq!(output.status.code(), Some(0), "{line}");
    let expected = [
        ("outcome", json!("passed")),
        ("cause", Value::Null),
        ("verstat", json!("TN-Validation-Passed")),
        ("attest", json!("A")),
        ("origid", json!(ORIGID)),
    ];
    for (key, value) in expected {
        assert_eq!(line[key], value, "{key}: {line}");
    }
    // The command refuses it for another caller, and with a foreign authority.
    let other = invite(&identity).replace("13135551000", "13135551001");
    let (output, line) = verify(&certs, &scratch.write("other.sip", &other));
    assert_eq!((output.status.code(), &line["cause"]), (Some(1), &json!(438)), "{line}");
    let foreign = scratch.path().join("foreign");
    make(&foreign);
    let (output, line) = verify(&foreign, &scratch.write("good.sip", &invite(&identity)));
    assert_eq!((output.status.code(), &line["outcome"]), (Some(1), &json!("bad-token")), "{line}");

    let passed = plane.verdict(&sign(&certs));
    let expected = json!({"verstat": "TN-Validation-Passed", "attest": "B", "origid": ORIGID});
    assert_eq!(passed, expected);
    let refused = plane.verdict(&sign(&foreign));
    assert_eq!(refused["verstat"], "TN-Validation-Failed", "{refused}");

    // A renewed certificate is used without a restart.
    let renewed = run(ravelin().args(["stir", "cert", "renew", "--out"]).arg(&certs));
    assert!(renewed.status.success(), "{}", text(&renewed.stderr));
    let signed = plane.post("/stir/v1/signing", &ask);
    let identity = signed["signingResponse"]["identity"].as_str().expect("an identity").to_owned();
    let (output, line) = verify(&certs, &scratch.write("renewed.sip", &invite(&identity)));
    assert_eq!(output.status.code(), Some(0), "{line}");
    plane.process.stop();
}
