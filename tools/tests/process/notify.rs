//! Emergency notification beside a real 911 call: what is told never delays the call (EM-3, K3).

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use ravelin_contract::chain::Entry;
use serde_json::Value;

use crate::support::{PATIENCE, Process, Scratch, chain, config, ravelin, run};

/// A web server for one purpose: it answers 200 and hands out the bodies of the POSTs.
fn hook() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.10.0.81:0").expect("a socket");
    let address = listener.local_addr().expect("its address");
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let Some(body) = body_of(stream) else { continue };
            if send.send(body).is_err() {
                return;
            }
        }
    });
    (address, receive)
}

fn body_of(mut stream: TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut request = Vec::new();
    loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).ok().filter(|count| *count > 0)?;
        request.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
        })?;
        if body.len() >= length {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()?;
            return Some(body.to_owned());
        }
    }
}

fn get(api: &str, data: &Path, path: &str) -> Value {
    let token = fs::read_to_string(data.join("admin.token")).expect("a token");
    let mut stream = TcpStream::connect(api).expect("the API");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
        token.trim()
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str(body).expect("JSON")
}

#[test]
fn a_911_call_goes_out_while_the_mail_server_hangs() {
    let scratch = Scratch::new();
    // It takes connections and never says a word.
    let mail = TcpListener::bind("127.10.0.27:0").expect("a socket");
    let (hook, posted) = hook();
    let block = format!(
        "  emergency_notification:\n    smtp_url: \"smtp://{}\"\n    email_from: sbc@x.example\n    \
         webhook_url: \"http://{hook}/\"\n  e911:\n",
        mail.local_addr().expect("its address")
    );
    let text = config(20).replace("127.4.", "127.12.").replace("  e911:\n", &block);
    let listen = text.lines().find_map(|line| line.trim().strip_prefix("listen: "));
    let api = listen.and_then(|rest| rest.split_whitespace().next()).expect("control.listen");
    let api = api.to_owned();
    let file = scratch.write("ravelin.yml", &text);
    let data = scratch.data();
    let mut up =
        Process::start(ravelin().arg("up").arg("--config").arg(&file).arg("--data").arg(&data));
    up.wait_for_line("ravelin: up.", 1);
    let demo = run(ravelin().args(["demo", "--seconds", "1", "--json", "--config"]).arg(&file));
    assert_eq!(demo.status.code(), Some(0), "{}{}", crate::support::text(&demo.stdout), up.log());

    // The desk and the mobile phone are told, with what the law asks for; the mail hangs.
    let mut methods = Vec::new();
    while methods.len() < 2 {
        let body = posted.recv_timeout(PATIENCE).expect("the webhook is called");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((&body["trigger_type"], &body["class"]), (&"911_call".into(), &"REAL".into()));
        assert_eq!(body["callback_number"], "+13135551000");
        assert_eq!(body["trunk"], "detroit_emergency");
        assert!(body["location"].as_str().is_some_and(|at| at.contains("1234 Industrial Blvd")));
        methods.push(body["method"].as_str().expect("a method").to_owned());
    }
    methods.sort_unstable();
    assert_eq!(methods, ["call", "sms"]);
    let (_silent, _) = mail.accept().expect("the mail is being sent");
    let end = Instant::now() + PATIENCE;
    let told = loop {
        let history = get(&api, &data, "/api/emergency/history");
        let told = history["history"][0].clone();
        if told["contacts_notified"].as_array().is_some_and(|names| names.len() == 2) {
            break told;
        }
        assert!(Instant::now() < end, "{history}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(told["notification_status"], "delivered");
    let state = |method: &str| {
        let all = told["deliveries"].as_array().expect("deliveries");
        all.iter().find(|one| one["method"] == method).expect(method)["state"].clone()
    };
    // The attempt is under way, or was given up by now and waits for the next one.
    assert!(["sent", "queued"].map(Value::from).contains(&state("email")), "{told}");
    assert_eq!(state("call"), "delivered");

    // The seed's line, once, as a rendering of the event.
    let line = "[E911] INFO: E911 call allowed in production - number: 911, extension: ";
    up.wait_for_line(line, 1);
    assert_eq!(up.log().matches(line).count(), 1, "{}", up.log());
    let events = get(&api, &data, "/api/audit/events?kind=emergency.started");
    let shown = events["events"][0]["line"].as_str().expect("a line").to_owned();
    assert!(
        shown.starts_with(line) && shown.contains(", location: 1234 Industrial Blvd"),
        "{shown}"
    );
    up.stop();

    // The INVITE to the PSAP left before anybody was told, in the same turn of the shard.
    let entries = chain(&data);
    let at = |kind: &str| {
        entries.iter().find_map(|entry| match entry {
            Entry::Audit(event) if event.kind == kind => Some(event.mono_ns),
            _ => None,
        })
    };
    let (started, told) = (at("emergency.started"), at("emergency.notify"));
    assert_eq!(at("emergency.attempt"), told, "INVITE and notification are of one turn");
    assert_eq!(started, told, "and of the turn in which the caller's INVITE came");
}
