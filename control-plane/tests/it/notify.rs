//! Delivery of emergency notifications through real sockets (compliance-systems K3-K7; EM-3,
//! EM-77, EM-78).

use aws_lc_rs::hmac;
use ravelin_contract::{chain::Entry, link::ApplyResult};
use ravelin_control::{
    datadir::DataDir,
    notify::{Contact, Method as ContactMethod, Policy, State, deliveries, queue, work},
    store::Store,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::{
    sinks::{Hook, MailServer, Manner, Posted},
    support::{Node, Plane, TempDir, document, event},
};

/// The usual document with this in `features.emergency_notification`.
fn with(block: &str) -> String {
    let block: String = block.lines().map(|line| format!("    {line}\n")).collect();
    document("edge-1", "")
        .replace("control:\n", &format!("  emergency_notification:\n{block}control:\n"))
}

fn smtp(server: &MailServer) -> String {
    format!("smtp_url: \"smtp://{}\"\nemail_from: \"SBC <sbc@x.example>\"\n", server.address)
}

async fn edge(plane: &Plane) -> Node<UnixStream> {
    let mut node = Node::connect(&plane.data(), "edge-1").await;
    node.apply(ApplyResult::Active).await;
    node
}

/// What the edge says of a 911 call.
fn notify(call: &str) -> Entry {
    told("emergency.notify", call, &[])
}

fn told(kind: &str, call: &str, more: &[(&str, Value)]) -> Entry {
    let mut fields = vec![
        ("number", json!("911")),
        ("extension", json!("1001")),
        ("callback", json!("+13135551000")),
        ("location", json!("1234 Industrial Blvd, Building: A, Floor 1, Detroit, MI, 48201")),
        ("site", json!("Detroit Factory")),
        ("site_id", json!(7)),
        ("trunk", json!("detroit_emergency")),
        ("psap", json!("911")),
    ];
    fields.extend_from_slice(more);
    event(kind, Some(call), &fields)
}

/// Waits until the notification of `call` satisfies `enough`; returns it.
async fn history(plane: &Plane, call: &str, enough: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/api/emergency/history?call_id={call}");
    let all = plane.eventually(&path, |all| enough(&all["history"][0])).await;
    all["history"][0].clone()
}

fn delivery<'a>(notification: &'a Value, method: &str) -> &'a Value {
    notification["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["method"] == method)
        .unwrap()
}

fn all_in(notification: &Value, states: &[&str]) -> bool {
    notification["deliveries"].as_array().is_some_and(|all| {
        all.iter().all(|one| states.contains(&one["state"].as_str().unwrap_or_default()))
    })
}

async fn metric(plane: &Plane, line: &str) -> bool {
    let text = plane.http.get(format!("{}/metrics", plane.base)).send().await.unwrap();
    text.text().await.unwrap().lines().any(|have| have == line)
}

#[tokio::test]
async fn mail_and_webhook_carry_what_must_be_said() {
    let (mail, hook) = (MailServer::start(Manner::Take).await, Hook::start(StatusCode::OK).await);
    let block =
        format!("{}webhook_url: {}\nwebhook_secret: file:hook.key\n", smtp(&mail), hook.url);
    let plane = Plane::start(&with(&block)).await;
    // The secret is read when a config comes in force, not at each use: the file comes first.
    std::fs::write(plane.data().join("hook.key"), "s3cret\n").unwrap();
    let plane = plane.restart().await;
    let mut node = edge(&plane).await;
    node.store(&[notify("call-1"), notify("call-1")]).await;
    let done = history(&plane, "call-1", |one| all_in(one, &["delivered"])).await;
    assert_eq!(done["notification_status"], "delivered", "{done}");
    assert_eq!(done["contacts_notified"], json!(["Security Desk", "security@company.example"]));
    assert_eq!(done["methods_used"], json!(["call", "email"]));
    for delivery in done["deliveries"].as_array().unwrap() {
        assert_eq!((&delivery["attempts"], &delivery["reason"]), (&json!(1), &Value::Null));
        assert!(delivery["delivered_at"].is_string());
    }

    let mails = mail.mails();
    assert_eq!(mails.len(), 1, "{mails:?}");
    for words in [
        "Subject: EMERGENCY ALERT: 911_call",
        "From: SBC <sbc@x.example>",
        "<security@company.example>",
        "A 911 call was made.",
        "Callback number: +13135551000",
        "Location: 1234 Industrial Blvd, Building: A, Floor 1, Detroit, MI, 48201",
        "ELIN: +13135551000",
        "Site: Detroit Factory",
        "Trunk: detroit_emergency",
        "Call id: call-1",
        "Time: 2024-11-30T20:53:20Z",
        "Class: REAL",
    ] {
        assert!(mails[0].contains(words), "{words} is missing in\n{}", mails[0]);
    }

    let posted = hook.posted();
    assert_eq!(posted.len(), 1);
    let body = posted[0].json();
    assert_eq!((&body["method"], &body["class"]), (&json!("call"), &json!("REAL")));
    assert_eq!(body["contact"]["address"], "5000");
    for (field, value) in [
        ("callback_number", json!("+13135551000")),
        ("call_id", json!("call-1")),
        ("elin", json!("+13135551000")),
        ("site_id", json!(7)),
        ("trunk", json!("detroit_emergency")),
        ("time", json!("2024-11-30T20:53:20Z")),
        ("notification_id", done["id"].clone()),
    ] {
        assert_eq!(body[field], value, "{field}");
    }
    assert_eq!(posted[0].header("idempotency-key"), body["id"].as_str().unwrap());
    let signature = posted[0].header("x-ravelin-signature");
    let (time, signed) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let octets: Vec<u8> = (0..signed.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&signed[at..at + 2], 16).unwrap())
        .collect();
    let text = [time.as_bytes(), b".", &posted[0].body].concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"s3cret");
    hmac::verify(&key, &text, &octets).expect("the signature is of the secret's key");

    let line =
        "ravelin_emergency_delivery_attempts_total{method=\"email\",outcome=\"delivered\"} 1";
    assert!(metric(&plane, line).await);
    let receipts = plane.get("/api/audit/events?kind=emergency.notification.delivered").await;
    let receipts = receipts["events"].as_array().unwrap().clone();
    assert_eq!(receipts.len(), 2, "one receipt for each");
    assert!(receipts.iter().any(|one| {
        one["fields"]["answer"].as_str().is_some_and(|text| text.contains("queued as 4711"))
    }));
    plane.stop().await;
}

#[tokio::test]
async fn a_mail_server_that_hangs_holds_up_nothing_else() {
    let (mail, hook) = (MailServer::start(Manner::Silent).await, Hook::start(StatusCode::OK).await);
    let block = format!("{}webhook_url: {}\n", smtp(&mail), hook.url);
    let plane = Plane::start(&with(&block)).await;
    let mut node = edge(&plane).await;
    // More calls than there are places for attempts under way: the records are stored, the desk
    // is called for every one of them, and only the mails wait.
    for number in 0..12 {
        node.store(&[notify(&format!("call-{number}"))]).await;
    }
    for number in 0..12 {
        let told = history(&plane, &format!("call-{number}"), |one| {
            delivery(one, "call")["state"] == "delivered"
        })
        .await;
        assert_ne!(delivery(&told, "email")["state"], "delivered");
        assert_eq!(told["notification_status"], "delivered");
    }
    assert_eq!(hook.posted().len(), 12);
    assert!(mail.mails().is_empty());
    let all = plane.get("/api/emergency/history").await;
    let under_way = all["history"].as_array().unwrap().iter();
    let under_way = under_way.filter(|one| delivery(one, "email")["state"] == "sent").count();
    assert_eq!(under_way, ravelin_control::notify::deliver::LANE_MAX);
    assert_eq!(plane.get("/api/health").await["status"], "ok");
    plane.stop().await;
}

#[tokio::test]
async fn a_busy_mail_server_is_asked_again() {
    let mail = MailServer::start(Manner::Answer("451 4.7.1 try again later", 1)).await;
    let plane = Plane::start(&with(&smtp(&mail))).await;
    edge(&plane).await.store(&[notify("call-1")]).await;
    let done =
        history(&plane, "call-1", |one| delivery(one, "email")["state"] == "delivered").await;
    assert_eq!(delivery(&done, "email")["attempts"], 2);
    assert_eq!(mail.mails().len(), 1);
    let retried = "ravelin_emergency_delivery_attempts_total{method=\"email\",outcome=\"retry\"} 1";
    assert!(metric(&plane, retried).await);
    plane.stop().await;
}

#[tokio::test]
async fn a_refused_connection_is_tried_again_and_survives_a_restart() {
    // A server that read the mail and never said so: nobody knows whether it arrived.
    let mail = MailServer::start(Manner::TakeAndHang).await;
    let plane = Plane::start(&with(&smtp(&mail))).await;
    edge(&plane).await.store(&[notify("call-1")]).await;
    history(&plane, "call-1", |one| {
        delivery(one, "email")["state"] == "sent" && mail.mails().len() == 1
    })
    .await;
    mail.behave(Manner::Take);
    let plane = plane.restart().await;
    let done =
        history(&plane, "call-1", |one| delivery(one, "email")["state"] == "delivered").await;
    assert_eq!(delivery(&done, "email")["attempts"], 2);
    let mails = mail.mails();
    let id = |mail: &String| {
        mail.lines().find(|line| line.starts_with("Message-ID:")).unwrap().to_owned()
    };
    assert_eq!(mails.len(), 2);
    assert_eq!(id(&mails[0]), id(&mails[1]), "a repeat can be told by its id");

    // Nobody listens at all: the row goes back to the queue with the reason.
    let nobody = tokio::net::TcpListener::bind("127.10.0.26:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let block = format!("smtp_url: smtp://{address}\nemail_from: sbc@x.example\n");
    let (status, staged) = plane.send(Method::PUT, "/api/config", &with(&block)).await;
    assert_eq!(status, StatusCode::OK, "{staged}");
    let body = json!({"version": staged["version"]});
    assert_eq!(plane.post("/api/config/activate", body).await.0, StatusCode::OK);
    edge(&plane).await.store(&[notify("call-2")]).await;
    let waits = history(&plane, "call-2", |one| {
        let email = delivery(one, "email");
        email["state"] == "queued" && email["attempts"] == 1
    })
    .await;
    let reason = delivery(&waits, "email")["reason"].as_str().unwrap();
    assert!(reason.to_lowercase().contains("refused"), "{reason}");
    plane.stop().await;
}

#[tokio::test]
async fn what_reaches_nobody_is_an_alarm() {
    let mail = MailServer::start(Manner::Answer("550 5.7.1 no such sender", 9)).await;
    let plane = Plane::start(&with(&smtp(&mail))).await;
    edge(&plane).await.store(&[notify("call-1")]).await;
    let failed = history(&plane, "call-1", |one| all_in(one, &["failed"])).await;
    assert_eq!(failed["notification_status"], "failed");
    assert_eq!(failed["contacts_notified"], json!([]));
    let reason = delivery(&failed, "email")["reason"].as_str().unwrap();
    assert!(reason.contains("550") && reason.contains("no such sender"), "{reason}");
    assert_eq!(delivery(&failed, "call")["reason"], "no adapter configured");
    let alarms = plane.get("/api/audit/events?kind=emergency.notification.failed").await;
    assert_eq!(alarms["events"].as_array().unwrap().len(), 2);
    assert!(alarms["events"][0]["severity"] == "alarm", "{alarms}");
    let path = "/api/audit/events?kind=emergency.notification.undelivered";
    let alarms = plane.get(path).await;
    assert_eq!(alarms["events"][0]["severity"], "critical");
    assert_eq!(alarms["events"][0]["call"], "call-1");
    assert!(metric(&plane, "ravelin_emergency_notifications_undelivered_total 1").await);
    assert!(metric(&plane, "ravelin_emergency_deliveries_pending 0").await);
    plane.stop().await;
}

#[tokio::test]
async fn the_next_priority_is_told_when_the_one_before_cannot_be_reached() {
    let hook = Hook::start(StatusCode::OK).await;
    let block = format!(
        "webhook_url: {}\nmethods: [call, sms]\nescalate_after: 1h\ncontacts:\n\
         - {{ name: First, email: a@x.example, priority: 1, notification_methods: [email] }}\n\
         - {{ name: Second, extension: \"2\", priority: 2 }}\n\
         - {{ name: Third, phone: \"+13135550103\", priority: 3, notification_methods: [sms] }}\n",
        hook.url
    );
    let text = with(&block);
    let law = text.find("    notification_contacts:\n").unwrap();
    let end = text.find("  emergency_notification:\n").unwrap();
    let text = format!("{}{}", &text[..law], &text[end..]);
    let plane = Plane::start(&text).await;
    edge(&plane).await.store(&[notify("call-1")]).await;
    // First cannot be told by a method that is switched off; that leaves level 2 as the first one.
    let told = history(&plane, "call-1", |one| one["deliveries"][1]["state"] == "delivered").await;
    let of = |one: &Value| [0, 1, 2].map(|at| one["deliveries"][at]["state"].clone());
    assert_eq!(of(&told), ["failed", "delivered", "queued"], "{told}");
    assert!(told["deliveries"][0]["reason"].as_str().unwrap().contains("methods"));
    // Somebody takes notice: the third is spared.
    let acknowledge = "/api/emergency/acknowledge";
    let body = json!({"notification_id": told["id"]});
    assert_eq!(plane.post(acknowledge, body.clone()).await.0, StatusCode::OK);
    let told = history(&plane, "call-1", |one| one["notification_status"] == "acknowledged").await;
    assert_eq!(of(&told), ["failed", "acknowledged", "acknowledged"]);
    assert_eq!(told["contacts_notified"], json!(["Second"]));
    assert_eq!(hook.posted().len(), 1);
    let unknown = json!({"notification_id": "none"});
    assert_eq!(plane.post(acknowledge, unknown).await.0, StatusCode::NOT_FOUND);
    let viewer = plane.token("viewer").await;
    let refused = plane.call_as(&viewer, Method::POST, acknowledge, Some(body)).await.0;
    assert_eq!(refused, StatusCode::FORBIDDEN);

    // When level 2 fails, level 3 does not wait for its hour.
    hook.answer(StatusCode::GONE);
    edge(&plane).await.store(&[notify("call-2")]).await;
    let told = history(&plane, "call-2", |one| all_in(one, &["failed"])).await;
    assert_eq!(told["deliveries"][2]["reason"], "HTTP 410 Gone");
    plane.stop().await;
}

#[tokio::test]
async fn a_call_that_nobody_took_and_one_that_was_given_up_are_told_too() {
    let hook = Hook::start(StatusCode::OK).await;
    let plane = Plane::start(&with(&format!("webhook_url: {}\n", hook.url))).await;
    edge(&plane)
        .await
        .store(&[
            notify("call-1"),
            told("emergency.failed", "call-1", &[("delivered", json!(false))]),
            notify("call-2"),
            told("emergency.ended", "call-2", &[("abandoned", json!(true))]),
            told("emergency.ended", "call-3", &[("abandoned", json!(false))]),
        ])
        .await;
    plane
        .eventually("/api/emergency/history", |all| {
            all["history"].as_array().unwrap().iter().all(|one| all_in(one, &["delivered"]))
        })
        .await;
    let all = plane.get("/api/emergency/history").await;
    assert_eq!(all["total"], 4);
    let mut kinds: Vec<String> = hook
        .posted()
        .iter()
        .map(Posted::json)
        .filter(|body| body["method"] == "call")
        .map(|body| format!("{} {}", body["call_id"], body["trigger_type"]))
        .collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        [
            "\"call-1\" \"911_call\"",
            "\"call-1\" \"911_not_delivered\"",
            "\"call-2\" \"911_abandoned\"",
            "\"call-2\" \"911_call\""
        ]
    );
    let texts: Vec<Value> = hook.posted().iter().map(|one| one.json()["text"].clone()).collect();
    assert!(texts.iter().any(|text| text.as_str().unwrap().contains("NOT DELIVERED")), "{texts:?}");
    for (search, total) in [
        ("trigger_type=911_abandoned", 1),
        ("site_id=7", 4),
        ("site_id=8", 0),
        ("extension=1001", 4),
        ("from=2024-12-01", 0),
        ("to=2024-12-01", 4),
    ] {
        let found = plane.get(&format!("/api/emergency/history?{search}")).await;
        assert_eq!(found["total"], total, "{search}");
    }
    plane.stop().await;
}

#[tokio::test]
async fn a_test_is_marked_and_can_be_for_one_contact() {
    let hook = Hook::start(StatusCode::ACCEPTED).await;
    let plane = Plane::start(&with(&format!("webhook_url: {}\n", hook.url))).await;
    let path = "/api/emergency/test";
    assert_eq!(plane.call(Method::GET, path, None).await.0, StatusCode::METHOD_NOT_ALLOWED);
    let body = json!({"contact_id": "config:call:5000"});
    let (status, queued) = plane.post(path, body).await;
    assert_eq!((status, &queued["queued"]), (StatusCode::OK, &json!(1)), "{queued}");
    let nobody = json!({"contact_id": "nobody"});
    assert_eq!(plane.post(path, nobody).await.0, StatusCode::NOT_FOUND);
    assert_eq!(plane.post(path, json!({"contact": 1})).await.0, StatusCode::BAD_REQUEST);
    plane
        .eventually("/api/emergency/history", |all| {
            all["total"] == 1 && all_in(&all["history"][0], &["delivered"])
        })
        .await;
    let posted = hook.posted();
    assert_eq!(posted.len(), 1);
    let body = posted[0].json();
    assert_eq!((&body["class"], &body["trigger_type"]), (&json!("TEST"), &json!("test")));
    assert!(body["text"].as_str().unwrap().starts_with("[TEST] "));
    assert_eq!(posted[0].header("x-ravelin-signature"), "", "no secret, no signature");
    let remove = "/api/emergency/contacts/config:call:5000";
    assert_eq!(plane.call(Method::DELETE, remove, None).await.0, StatusCode::CONFLICT);
    plane.stop().await;
}

/// The bounds hold where no clock has to be waited for: on the store itself.
#[tokio::test]
async fn attempts_and_lanes_are_bounded() {
    let dir = TempDir::new();
    let data = DataDir::open(&dir.path().join("data")).unwrap();
    let store = Store::open("sqlite:test.db", &data).await.unwrap();
    let contact = |number: usize| Contact {
        id: format!("c{number:02}"),
        name: format!("Contact {number}"),
        extension: Some(format!("50{number:02}")),
        phone: None,
        email: None,
        priority: 1,
        notification_methods: vec![ContactMethod::Call],
        site_id: None,
        source: "config".to_owned(),
        by_law: true,
    };
    let contacts: Vec<Contact> = (0..20).map(contact).collect();
    let policy = Policy { contacts: contacts.into(), ..Policy::default() };
    let mut tx = store.write().await.unwrap();
    let details = std::collections::BTreeMap::new();
    queue::queue_manual(&mut tx, "manual", "tester", &details, &policy, None).await.unwrap();
    let now = ravelin_control::clock::unix_ms();
    let mut all = work::claim(&mut tx, ContactMethod::Call, 8, now).await.unwrap();
    assert_eq!(all.len(), 8, "no more than there is room for");
    assert!(all.iter().all(|one| one.attempt == 1));
    assert_eq!(work::claim(&mut tx, ContactMethod::Call, 99, now).await.unwrap().len(), 12);
    assert_eq!(work::claim(&mut tx, ContactMethod::Call, 99, now).await.unwrap().len(), 0);
    // The last attempt but one goes back to the queue, to be due later; the last one does not.
    let (mut last, mut before) = (all.remove(0), all.remove(0));
    before.attempt = work::ATTEMPTS_MAX - 1;
    last.attempt = work::ATTEMPTS_MAX;
    let again = |one: work::Work| (one, work::Outcome::Retry("busy".to_owned()));
    work::settle(&mut tx, &[again(before), again(last)], now).await.unwrap();
    let backlog = work::backlog(tx.connection(), now).await.unwrap();
    assert_eq!(backlog.pending, 19);
    assert!(backlog.next_due_ms.is_some_and(|due| due >= now + 60_000), "{backlog:?}");
    let id = &all[0].told.id;
    let states = deliveries(tx.connection(), id).await.unwrap();
    assert_eq!(states[0].reason.as_deref(), Some("gave up after 12 attempts: busy"));
    assert_eq!((states[0].state, states[1].state), (State::Failed, State::Queued));
    // What was under way when a process ended is due at once after the next start.
    assert_eq!(work::recover(&mut tx, now).await.unwrap(), 18);
    assert_eq!(work::claim(&mut tx, ContactMethod::Call, 99, now).await.unwrap().len(), 18);
    tx.commit().await.unwrap();
    store.close().await;
}
