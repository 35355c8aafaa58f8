//! Emergency calls: every gate lets them through, every trunk is tried, everything is told.

use ravelin_contract::audit::Severity;
use ravelin_engine::{drops::DropReason, engine::Received, limits::Limits};

use crate::common::*;

fn dial_911(world: &mut World) -> Caller {
    Caller::dial(world, "911")
}

#[test]
fn a_911_call_reaches_the_first_trunk_of_the_site_with_callback_and_location() {
    let mut world = World::new();
    let mut caller = dial_911(&mut world);
    world.expect(PBX, "SIP/2.0 100");
    let psap = Callee::take(&mut world, PSAP_1);
    assert_eq!(psap.invite.request_uri(), "sip:911@127.0.9.1:5060");
    assert!(
        psap.invite.header("From").starts_with("<sip:+13135551000@127.0.0.20;user=phone>;tag=")
    );
    assert_eq!(
        psap.invite.header("P-Asserted-Identity"),
        "<sip:+13135551000@127.0.0.20;user=phone>"
    );
    assert_eq!(psap.invite.header("Priority"), "emergency");
    // Our own location object, since the caller sent none (EM-30, EM-31).
    let geolocation = psap.invite.header("Geolocation");
    let cid = geolocation.trim_start_matches("<cid:").trim_end_matches('>');
    assert!(psap.invite.body().contains(&format!("Content-ID: <{cid}>")));
    assert!(psap.invite.body().contains("Industrial"));
    assert!(psap.invite.header("Content-Type").starts_with("multipart/mixed"));
    assert!(psap.invite.body().contains("c=IN IP4 127.0.0.20"));
    psap.reply(&mut world, "180 Ringing", "");
    world.expect(PBX, "SIP/2.0 180");
    psap.answer(&mut world);
    world.expect(PSAP_1, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    caller.request(&mut world, "BYE", "");
    let bye = world.expect(PSAP_1, "BYE ");
    world.send(PSAP_1, CORE, &bye.reply("200 OK", "", ""));
    assert_eq!(
        world.event_kinds(),
        [
            "emergency.started",
            "emergency.attempt",
            "emergency.notify",
            "emergency.answered",
            "emergency.ended"
        ]
    );
    let events = world.events();
    assert_eq!(
        events[0].line().as_deref(),
        Some(
            "[E911] INFO: E911 call allowed in production - number: 911, extension: +13135550100, \
             location: 1234 Industrial Blvd, Building: Building A, Floor 1, Detroit, MI, 48201"
        )
    );
    let notify = events[2];
    assert_eq!(notify.severity, Severity::Alarm);
    assert_eq!(notify.fields["number"], "911");
    assert_eq!(notify.fields["extension"], "+13135550100");
    assert_eq!(notify.fields["callback"], "+13135551000");
    assert_eq!(notify.fields["trunk"], "psap-1");
    assert_eq!(
        notify.fields["location"],
        "1234 Industrial Blvd, Building: Building A, Floor 1, Detroit, MI, 48201"
    );
    let cdr = world.call_cdr();
    assert!(cdr.emergency);
    assert_eq!((cdr.class.as_str(), cdr.site.as_deref()), ("emergency", Some("Detroit")));
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn the_forms_of_an_emergency_call_and_its_near_misses() {
    for (uri, at) in [
        ("sip:911@127.0.0.10", PSAP_1),
        ("sips:911@127.0.0.10", PSAP_1),
        ("tel:911", PSAP_1),
        ("urn:service:sos", PSAP_1),
        ("URN:service:sos.fire", PSAP_1),
        ("sip:+13135550911@127.0.0.10", CARRIER_A),
        ("sip:2125551911@127.0.0.10", CARRIER_A),
        ("sip:9112@127.0.0.10", CARRIER_A),
    ] {
        let mut world = World::new();
        let body = sdp_part("127.0.1.1", 40_000);
        let caller = Caller::invite(&mut world, PBX, ACCESS, uri, &body);
        let invite = world.expect(at, "INVITE ");
        let expected = if at == PSAP_1 {
            "sip:911@127.0.9.1:5060".to_owned()
        } else {
            format!("{}@127.0.2.1:5060", uri.split('@').next().unwrap())
        };
        assert_eq!(invite.request_uri(), expected);
        caller.cancel(&mut world);
        world.forget_inbox();
        world.all_gone();
    }
}

/// Every final refusal and every kind of silence leads to the next trunk (EM-51).
#[test]
fn every_failure_advances_and_the_chain_is_site_then_global() {
    for status in ["403 x", "404 x", "486 x", "488 x", "503 x", "600 x", "603 x", "302 x", "407 x"]
    {
        let mut world = World::new();
        let mut caller = dial_911(&mut world);
        world.expect(PBX, "SIP/2.0 100");
        for at in [PSAP_1, PSAP_2] {
            let psap = Callee::take(&mut world, at);
            psap.reply(&mut world, status, "");
            world.expect(at, "ACK ");
        }
        let psap = Callee::take(&mut world, PSAP_GLOBAL);
        assert_eq!(psap.invite.request_uri(), "sip:911@127.0.9.9:5060");
        psap.answer(&mut world);
        world.expect(PSAP_GLOBAL, "ACK ");
        let ok = world.expect(PBX, "SIP/2.0 200");
        caller.learn(&ok);
        caller.ack(&mut world, "");
        world.quiet();
        caller.request(&mut world, "BYE", "");
        world.forget_inbox();
        world.all_gone();
    }
}

#[test]
fn silence_is_left_after_2_s_a_bare_100_after_8_s_and_ringing_never() {
    let mut world = World::new();
    let caller = dial_911(&mut world);
    let first = Callee::take(&mut world, PSAP_1);
    world.pass(1_900);
    assert!(world.try_take(PSAP_2).is_none());
    world.pass(200);
    let second = Callee::take(&mut world, PSAP_2);
    second.reply(&mut world, "100 Trying", "");
    world.pass(7_800);
    assert!(world.try_take(PSAP_GLOBAL).is_none());
    world.pass(300);
    let third = Callee::take(&mut world, PSAP_GLOBAL);
    third.reply(&mut world, "180 Ringing", "");
    world.forget_inbox();
    world.pass(400_000);
    assert!(world.try_take(PSAP_1).is_none(), "PSAPs ring long (EM-52)");
    assert_eq!(world.engine.tables().calls, 1, "no ring timeout ends a 911 call");
    let _ = first;
    caller.cancel(&mut world);
    assert!(world.event_kinds().contains(&"emergency.ended"));
    let ended = world.events().into_iter().find(|e| e.kind == "emergency.ended").unwrap();
    assert_eq!(ended.fields["abandoned"], true);
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn a_late_answer_of_an_abandoned_trunk_wins_once() {
    for delay in [0, 100, 1_000, 5_000, 7_900] {
        let mut world = World::new();
        let mut caller = dial_911(&mut world);
        let first = Callee::take(&mut world, PSAP_1);
        world.pass(2_100);
        let second = Callee::take(&mut world, PSAP_2);
        second.reply(&mut world, "100 Trying", "");
        world.pass(delay);
        first.answer(&mut world);
        second.answer(&mut world);
        world.pass(0);
        let mut acks = Vec::new();
        let mut byes = Vec::new();
        for at in [PSAP_1, PSAP_2] {
            while let Some(message) = world.try_take(at) {
                match message.start().split(' ').next().unwrap() {
                    "ACK" => acks.push(at),
                    "BYE" => byes.push(at),
                    _ => {}
                }
            }
        }
        assert_eq!((acks, byes), (vec![PSAP_1, PSAP_2], vec![PSAP_2]), "delay {delay}");
        let mut answers = 0;
        while let Some(message) = world.try_take(PBX) {
            if message.start().starts_with("SIP/2.0 200") {
                answers += 1;
                caller.learn(&message);
            }
        }
        assert_eq!(answers, 1);
        caller.ack(&mut world, "");
        caller.request(&mut world, "BYE", "");
        world.forget_inbox();
        world.all_gone();
    }
}

#[test]
fn the_chain_begins_again_for_a_minute_then_gives_up_loudly() {
    let mut world = World::new();
    dial_911(&mut world);
    let mut rounds = 0;
    let until = world.now.mono.as_millis() + 70_000;
    while world.now.mono.as_millis() < until {
        for at in [PSAP_1, PSAP_2, PSAP_GLOBAL] {
            if let Some(message) = world.try_take(at)
                && message.start().starts_with("INVITE")
            {
                rounds += usize::from(at == PSAP_1);
                world.send(at, CORE, &message.reply("503 x", "t", ""));
            }
        }
        world.pass(100);
    }
    assert!((40..=61).contains(&rounds), "{rounds}");
    world.expect(PBX, "SIP/2.0 100");
    let refused = world.expect(PBX, "SIP/2.0 503");
    assert_eq!(refused.header("Reason"), "ravelin;cause=208;text=\"No emergency route\"");
    let failed = world.events().into_iter().find(|e| e.kind == "emergency.failed").unwrap();
    assert_eq!(failed.severity, Severity::Critical);
    assert_eq!(failed.fields["delivered"], false);
    let notified = world.event_kinds().iter().filter(|kind| **kind == "emergency.notify").count();
    assert_eq!(notified, 1);
    world.forget_inbox();
    world.all_gone();
}

/// G2: no gate refuses.
#[test]
fn no_gate_refuses_a_911_call() {
    let config = CONFIG
        .replace("limits: { calls: 5, cps: 100 }", "limits: { calls: 1, cps: 1 }")
        .replace("ports: 20000-20063", "ports: 20000-20007")
        .replace("ports: 30000-30063", "ports: 30000-30007");
    let limits = Limits {
        calls: 2,
        calls_emergency_reserve: 1,
        client_transactions: 3,
        server_transactions: 4,
        transactions_reserve: 1,
        media_reserve_percent: 50,
        ..Limits::default()
    };
    let mut world = World::with(&config, limits);
    let ordinary = Caller::dial(&mut world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    Caller::dial(&mut world, "+12125551235");
    world.expect(PBX, "SIP/2.0 503");
    world.engine.begin_drain();
    world.forget_inbox();
    let odd = "Require: 100rel, foo\nProxy-Require: bar\nX: y\n";
    let more = format!("{odd}{}", sdp_part("127.0.1.1", 40_002));
    let caller = Caller::invite(&mut world, PBX, ACCESS, "sip:911@127.0.0.10", &more);
    let psap = Callee::take(&mut world, PSAP_1);
    assert_eq!(psap.invite.try_header("Require"), None);
    psap.reply(&mut world, "180 Ringing", "");
    caller.cancel(&mut world);
    ordinary.cancel(&mut world);
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn max_forwards_zero_is_repaired() {
    let mut world = World::new();
    let invite = format!(
        "INVITE sip:911@127.0.0.10 SIP/2.0\nVia: SIP/2.0/UDP {PBX};branch=z9hG4bK-mf\n\
         Max-Forwards: 0\nFrom: <sip:a@127.0.1.1>;tag=1\nTo: <sip:911@127.0.0.10>\nCall-ID: mf\n\
         CSeq: 1 INVITE\nContact: <sip:a@{PBX}>\n"
    );
    world.send(PBX, ACCESS, &invite);
    let invite = world.expect(PSAP_1, "INVITE ");
    assert_eq!(invite.header("Max-Forwards"), "70");
    world.send(PSAP_1, CORE, &invite.reply("180 Ringing", "x", ""));
    world.forget_inbox();
    world.pass(1_000);
    assert_eq!(world.engine.tables().calls, 1);
}

#[test]
fn an_unknown_phone_of_an_access_network_may_call_911_and_nothing_else() {
    let mut world = World::new();
    let body = sdp_part("10.1.1.1", 40_000);
    Caller::invite(&mut world, "10.1.1.1:5060", ACCESS, "sip:1234@127.0.0.10", &body);
    assert_eq!(world.last, Received::Dropped(DropReason::UnknownSource));
    let caller = Caller::invite(&mut world, "10.1.1.1:5060", ACCESS, "sip:911@127.0.0.10", &body);
    world.expect("10.1.1.1:5060", "SIP/2.0 100");
    // No site: straight to the global trunk, with the caller's own identity.
    let invite = world.expect(PSAP_GLOBAL, "INVITE sip:911@127.0.9.9:5060 ");
    assert!(invite.header("From").contains("+13135550100"));
    caller.cancel(&mut world);
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn an_emergency_call_from_a_network_that_may_not_start_one_is_refused_and_alarmed() {
    let mut world = World::new();
    let body = sdp_part("127.0.2.1", 50_000);
    Caller::invite(&mut world, CARRIER_A, CORE, "sip:911@127.0.0.20", &body);
    let answer = world.take(CARRIER_A);
    if answer.start().starts_with("SIP/2.0 403") {
        assert_eq!(world.event_kinds(), ["emergency.denied"]);
        assert_eq!(world.events()[0].severity, Severity::Alarm);
    } else {
        panic!("{}", answer.0);
    }
    world.all_gone();
}

/// E1, E5, G9: in test mode nothing that looks like an emergency call reaches a trunk.
#[test]
fn test_mode_blocks_what_looks_like_an_emergency_call_with_an_answer() {
    let config = CONFIG.replace("mode: production", "mode: test");
    for number in ["911", "9911", "1911", "12911", "*911", "2125551911", "+13125550911"] {
        let mut world = World::with(&config, Limits::default());
        Caller::dial(&mut world, number);
        world.expect(PBX, "SIP/2.0 100");
        let refused = world.expect(PBX, "SIP/2.0 403");
        assert_eq!(refused.header("Reason"), "ravelin;cause=210;text=\"Blocked in test mode\"");
        assert!(refused.header("Warning").contains("test mode"));
        world.quiet();
        assert!(world.event_kinds().contains(&"emergency.blocked"), "{number}");
        let event = world.events().into_iter().find(|e| e.kind == "emergency.blocked").unwrap();
        assert_eq!(event.fields["mode"], "test");
        // The seed's line is a rendering of this event.
        let line = event.line().expect("a line of the source documents");
        let start = "[E911] WARNING: E911 call blocked in test mode - number: ";
        assert!(line.starts_with(&format!("{start}{number}, extension: ")), "{line}");
        assert!(world.events().iter().all(|e| e.kind == event.kind || e.line().is_none()));
        world.all_gone();
    }
    let mut world = World::with(&config, Limits::default());
    let caller = Caller::dial(&mut world, "+12125551234");
    world.expect(CARRIER_A, "INVITE ");
    caller.cancel(&mut world);
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn the_callers_own_location_is_passed_octet_for_octet() {
    let mut world = World::new();
    let pidf = "<?xml version=\"1.0\"?>\n<presence entity=\"pres:a@127.0.1.1\">here</presence>";
    let body = format!(
        "--e\nContent-Type: application/sdp\n\n{}\n--e\nContent-Type: application/pidf+xml\n\
         Content-ID: <l@127.0.1.1>\n\n{pidf}\n--e--\n",
        sdp("127.0.1.1", 40_000)
    );
    let more = format!(
        "Geolocation: <cid:l@127.0.1.1>;x=y\nGeolocation: <https://l.example/1>\n\
         Geolocation-Routing: no\nContent-Type: multipart/mixed;boundary=e\n\n{body}"
    );
    let caller = Caller::invite(&mut world, PBX, ACCESS, "sip:911@127.0.0.10", &more);
    let invite = world.expect(PSAP_1, "INVITE ");
    assert_eq!(invite.headers("Geolocation"), ["<cid:l@127.0.1.1>;x=y", "<https://l.example/1>"]);
    assert_eq!(invite.headers("Geolocation-Routing"), ["no"]);
    assert!(invite.body().contains(&pidf.replace('\n', "\r\n")));
    caller.cancel(&mut world);
    world.forget_inbox();
    world.all_gone();
}

/// EM-22, EM-25, EM-30: whose location is believed is the trunk's setting; ours comes last.
#[test]
fn a_location_of_a_peer_that_is_not_trusted_gets_ours_behind_it() {
    let trusting = CONFIG.replace(
        "    numbers: [\"+1313555*\"]\n",
        "    numbers: [\"+1313555*\"]\n    trust: { location: true }\n",
    );
    for (config, ours) in [(CONFIG, true), (&trusting, false)] {
        let mut world = World::with(config, Limits::default());
        let body = sdp_part("127.0.1.1", 40_000);
        let more = format!("Geolocation: <https://l.example/1>\n{body}");
        let caller = Caller::invite(&mut world, PBX, ACCESS, "sip:911@127.0.0.10", &more);
        let invite = world.expect(PSAP_1, "INVITE ");
        let values = invite.headers("Geolocation");
        assert_eq!(values[0], "<https://l.example/1>");
        assert_eq!(values.len() == 2 && values[1].starts_with("<cid:"), ours, "{values:?}");
        assert_eq!(invite.body().contains("application/pidf+xml"), ours);
        caller.cancel(&mut world);
        world.forget_inbox();
        world.all_gone();
    }
}

/// EM-62, ten rules 1: more streams than a call may have cost an emergency call those streams alone.
#[test]
fn too_many_streams_refuse_an_ordinary_call_and_never_a_911_call() {
    let mut world = World::new();
    let streams = |ip: &str, port: u16| {
        let video = |index: u16| format!("m=video {} RTP/AVP 96\n", port + 2 * index);
        sdp_part(ip, port) + &(1..11).map(video).collect::<String>()
    };
    let dial = |world: &mut World, number: &str| {
        let uri = format!("sip:{number}@127.0.0.10");
        Caller::invite(world, PBX, ACCESS, &uri, &streams("127.0.1.1", 40_000))
    };
    let caller = dial(&mut world, "12125550123");
    world.expect(PBX, "SIP/2.0 100");
    let refused = world.expect(PBX, "SIP/2.0 488");
    assert!(refused.header("Reason").starts_with("ravelin;cause=305;"));
    caller.ack_refusal(&mut world, &refused);
    let mut caller = dial(&mut world, "911");
    world.expect(PBX, "SIP/2.0 100");
    let psap = Callee::take(&mut world, PSAP_1);
    let with_port = |msg: &Msg| (0..11).map(|index| msg.media_port(index) != 0).collect::<Vec<_>>();
    let eight = [[true; 8].as_slice(), &[false; 3]].concat();
    assert_eq!(with_port(&psap.invite), eight);
    // What the PSAP says about a stream that it was not offered changes nothing.
    psap.reply(&mut world, "200 OK", &streams("127.0.9.1", 50_000));
    world.expect(PSAP_1, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    assert_eq!(with_port(&ok), eight);
    caller.learn(&ok);
    caller.ack(&mut world, "");
    // And its record holds what a call may have.
    assert_eq!(world.crash(300).adopted, 1);
    world.forget_inbox();
    caller.request(&mut world, "BYE", "");
    world.forget_inbox();
    world.all_gone();
}

/// RFC 3264 6: the answer has as many m-lines as the offer, however many are looked at. On record.
#[test]
fn a_911_call_with_more_streams_than_are_looked_at_is_answered_all_of_them() {
    let mut world = World::new();
    let video: String = (1..20).map(|at| format!("m=video {} RTP/AVP 96\n", 41_000 + at)).collect();
    let offer = sdp_part("127.0.1.1", 40_000) + &video;
    let mut caller = Caller::invite(&mut world, PBX, ACCESS, "sip:911@127.0.0.10", &offer);
    world.expect(PBX, "SIP/2.0 100");
    let psap = Callee::take(&mut world, PSAP_1);
    assert_eq!(psap.invite.body().matches("\nm=").count(), 16);
    psap.answer(&mut world);
    world.expect(PSAP_1, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    let lines: Vec<_> = ok.body().lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(lines.len(), 20, "{}", ok.body());
    assert!(!lines[0].starts_with("m=audio 0 "));
    assert!(lines[1..].iter().all(|line| *line == "m=video 0 RTP/AVP 96"), "{lines:?}");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    caller.request(&mut world, "BYE", "");
    assert_eq!(world.call_cdr().sdp_caller, ["mended"]);
    world.forget_inbox();
    world.all_gone();
}

/// EM-50: however many trunks there are, none is left out, and the call outlives a crash.
#[test]
fn every_trunk_of_a_long_chain_is_tried() {
    let more: String = (1..=60)
        .map(|at| {
            let name = "x".repeat(50);
            format!(
                "  - {{ id: {name}{at}, realm: core, role: emergency, may_carry_emergency: true, \
                 targets: [{{ uri: \"sip:127.0.8.{at}:5060\" }}] }}\n"
            )
        })
        .collect();
    let config = CONFIG.replace("routes:\n", &format!("{more}routes:\n"));
    let mut world = World::with(&config, Limits::default());
    let mut caller = dial_911(&mut world);
    world.expect(PBX, "SIP/2.0 100");
    let near = [PSAP_1, PSAP_2, PSAP_GLOBAL].map(str::to_owned);
    let chain: Vec<String> =
        near.into_iter().chain((1..=60).map(|at| format!("127.0.8.{at}:5060"))).collect();
    let (last, others) = chain.split_last().unwrap();
    for at in others {
        let trunk = Callee::take(&mut world, at);
        trunk.reply(&mut world, "503 Service Unavailable", "");
        world.expect(at, "ACK ");
    }
    let trunk = Callee::take(&mut world, last);
    trunk.answer(&mut world);
    world.expect(last, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    assert_eq!(world.crash_into(&config, 0, 1, None, 300).adopted, 1);
    world.forget_inbox();
    caller.request(&mut world, "BYE", "");
    world.expect(PBX, "SIP/2.0 200");
    world.expect(last, "BYE ");
    world.forget_inbox();
    world.all_gone();
}

/// Audio is what a call for help is for: it is heard behind however many other streams.
#[test]
fn the_audio_of_a_911_call_is_heard_behind_any_number_of_streams() {
    let stream = |at: u16| format!("m=video {} RTP/AVP 96\na=mid:v{at}\n", 41_000 + 2 * at);
    for videos in [7, 8, 12, 40] {
        let mut world = World::new();
        let offer = |port: u16, more: &str| {
            let [head, audio] = [0, 1].map(|half| {
                let text = sdp_part("127.0.1.1", port);
                let (head, audio) = text.split_once("m=audio").unwrap();
                if half == 0 { head.to_owned() } else { format!("m=audio{audio}") }
            });
            head + &(0..videos).map(stream).collect::<String>() + &audio + more
        };
        let uri = "sip:911@127.0.0.10";
        let body = offer(40_000, "m=text 45000 RTP/AVP 98\n");
        let mut caller = Caller::invite(&mut world, PBX, ACCESS, uri, &body);
        world.expect(PBX, "SIP/2.0 100");
        let mut psap = Callee::take(&mut world, PSAP_1);
        let at = usize::from(videos.min(7));
        let far = psap.invite.media_port(at);
        assert_ne!(far, 0, "{}", psap.invite.body());
        let refusals = "m=video 0 RTP/AVP 96\n".repeat(at);
        let answer = |port: u16| {
            let text = sdp_part("127.0.9.1", port);
            text.replace("m=audio", &format!("{refusals}m=audio")) + "m=text 0 RTP/AVP 98\n"
        };
        psap.reply(&mut world, "200 OK", &answer(50_000));
        world.expect(PSAP_1, "ACK ");
        let ok = world.expect(PBX, "SIP/2.0 200");
        let kinds = |msg: &Msg| -> Vec<String> {
            let lines = msg.body().lines().filter(|line| line.starts_with("m="));
            lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
        };
        let mut asked = vec!["m=video".to_owned(); usize::from(videos)];
        asked.extend(["m=audio".to_owned(), "m=text".to_owned()]);
        assert_eq!(kinds(&ok), asked, "{}", ok.body());
        let in_use = |msg: &Msg| {
            (0..kinds(msg).len()).filter(|at| msg.media_port(*at) != 0).collect::<Vec<_>>()
        };
        assert_eq!(in_use(&ok), [usize::from(videos)]);
        let mids = ok.body().matches("a=mid:v").count();
        assert_eq!(mids, usize::from(videos), "RFC 5888 9.1\n{}", ok.body());
        caller.learn(&ok);
        caller.ack(&mut world, "");
        let near = addr(&format!("127.0.0.10:{}", ok.media_port(usize::from(videos))));
        let far = addr(&format!("127.0.0.20:{far}"));
        let packet = [&[0x80, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9], &[0x55; 20][..]].concat();
        let heard = |world: &mut World, phone: &str, at: &str| {
            world.media.clear();
            world.send_media(phone, near, &packet);
            world.send_media(at, far, &packet);
            assert_eq!(world.media, [(addr(at), packet.clone()), (addr(phone), packet.clone())]);
        };
        heard(&mut world, "127.0.1.1:40000", "127.0.9.1:50000");
        // Both parties may offer again, each what it knows of.
        caller.request(&mut world, "INVITE", &offer(42_000, "m=text 0 RTP/AVP 98\n"));
        world.expect(PBX, "SIP/2.0 100");
        let again = world.expect(PSAP_1, "INVITE ");
        assert_eq!(kinds(&again), kinds(&psap.invite));
        world.send(PSAP_1, CORE, &again.reply("200 OK", "", &answer(50_000)));
        world.expect(PSAP_1, "ACK ");
        let ok = world.expect(PBX, "SIP/2.0 200");
        assert_eq!((kinds(&ok), in_use(&ok)), (asked.clone(), vec![usize::from(videos)]));
        caller.ack(&mut world, "");
        heard(&mut world, "127.0.1.1:42000", "127.0.9.1:50000");
        psap.request(&mut world, "INVITE", &answer(52_000));
        world.expect(PSAP_1, "SIP/2.0 100");
        let again = world.expect(PBX, "INVITE ");
        assert_eq!((kinds(&again), in_use(&again)), (asked.clone(), vec![usize::from(videos)]));
        let theirs = offer(43_000, "m=text 0 RTP/AVP 98\n").replace("m=video 41", "m=video 0");
        let theirs = theirs.lines().map(|line| match line.strip_prefix("m=video ") {
            Some(_) => "m=video 0 RTP/AVP 96\n".to_owned(),
            None => format!("{line}\n"),
        });
        let theirs: String = theirs.collect();
        world.send(PBX, ACCESS, &again.reply("200 OK", "", &theirs));
        world.expect(PBX, "ACK ");
        let ok = world.expect(PSAP_1, "SIP/2.0 200");
        assert_eq!(kinds(&ok), kinds(&psap.invite));
        world.forget_inbox();
        heard(&mut world, "127.0.1.1:43000", "127.0.9.1:52000");
        // What it does not know of has no place in an answer without audio either.
        psap.request(&mut world, "INVITE", &answer(52_000));
        let again = world.take(PBX);
        let silent = theirs.replace("m=audio 43000", "m=audio 0");
        world.send(PBX, ACCESS, &again.reply("200 OK", "", &silent));
        world.expect(PSAP_1, "SIP/2.0 100");
        let ok = world.expect(PSAP_1, "SIP/2.0 200");
        assert_eq!((kinds(&ok), in_use(&ok)), (kinds(&psap.invite), vec![]));
        world.forget_inbox();
        caller.request(&mut world, "BYE", "");
        world.forget_inbox();
        world.all_gone();
    }
}

/// Of a call whose streams are all of no use, the PSAP is offered audio, however many they are.
#[test]
fn a_911_call_of_many_useless_streams_is_offered_as_audio() {
    for streams in [7, 8, 16, 20] {
        let mut world = World::new();
        let chat = "m=message 9 TCP/MSRP *\n".repeat(streams);
        let text = sdp_part("127.0.1.1", 40_000);
        let body = text.split_once("m=audio").unwrap().0.to_owned() + &chat;
        let mut caller = Caller::invite(&mut world, PBX, ACCESS, "sip:911@127.0.0.10", &body);
        world.expect(PBX, "SIP/2.0 100");
        let psap = Callee::take(&mut world, PSAP_1);
        assert_ne!(psap.invite.media_port(7), 0, "{}", psap.invite.body());
        let refusals = "m=message 0 TCP/MSRP *\n".repeat(7);
        let answer = sdp_part("127.0.9.1", 50_000);
        let answer = answer.replace("m=audio", &format!("{refusals}m=audio"));
        psap.reply(&mut world, "200 OK", &answer);
        world.expect(PSAP_1, "ACK ");
        let ok = world.expect(PBX, "SIP/2.0 200");
        let lines = ok.body().matches("\nm=message 0 TCP/MSRP *").count();
        assert_eq!((lines, ok.body().matches("\nm=").count()), (streams, streams));
        caller.learn(&ok);
        caller.ack(&mut world, "");
        caller.request(&mut world, "BYE", "");
        world.forget_inbox();
        world.all_gone();
    }
}

/// EM-60: the caller of an emergency call cannot put the PSAP on hold.
#[test]
fn a_hold_by_the_caller_is_refused_and_not_carried() {
    let mut world = World::new();
    let mut caller = dial_911(&mut world);
    let psap = Callee::take(&mut world, PSAP_1);
    psap.answer(&mut world);
    world.expect(PBX, "SIP/2.0 100");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    world.forget_inbox();
    let hold = sdp_with("127.0.1.1", 40_000, 2, "sendonly");
    caller.request(&mut world, "INVITE", &format!("Content-Type: application/sdp\n\n{hold}"));
    world.expect(PBX, "SIP/2.0 488");
    world.quiet();
    // Time alone ends no emergency call (EM-61).
    world.pass(13 * 3_600_000);
    assert_eq!(world.engine.tables().calls, 1);
    caller.request(&mut world, "BYE", "");
    world.forget_inbox();
    world.all_gone();
}

/// EM-19: 933 goes only to a trunk that reads the address back, shows the number whose address is
/// tested, and tells nobody of an emergency.
#[test]
fn an_address_test_is_no_emergency_call() {
    let config = CONFIG
        .replace("sources: [127.0.3.0/24]\n", "sources: [127.0.3.0/24]\n    address_test: true\n");
    let mut world = World::with(&config, Limits::default());
    let caller = Caller::dial(&mut world, "933");
    let invite = world.expect(CARRIER_B, "INVITE sip:933@127.0.3.1:5060 ");
    assert!(invite.header("From").contains("sip:+13135551000@"));
    assert_eq!(invite.try_header("Priority"), None);
    caller.cancel(&mut world);
    assert_eq!(world.event_kinds(), [] as [&str; 0]);
    assert_eq!(world.call_cdr().class, "test_address");
    assert!(!world.call_cdr().emergency);
    world.forget_inbox();
    world.all_gone();
}

/// RAY BAUM'S Act, EM-4: the location goes along whether or not the caller describes its media.
#[test]
fn a_call_without_an_offer_carries_its_location() {
    let mut world = World::new();
    Caller::invite(&mut world, PBX, ACCESS, "sip:911@127.0.0.10", "");
    world.expect(PBX, "SIP/2.0 100");
    let invite = world.expect(PSAP_1, "INVITE ");
    let parsed = invite.parsed();
    let kind = parsed.content().unwrap();
    assert!(kind.find_part(parsed.body(), b"application", b"sdp").is_none());
    let part = kind.find_part(parsed.body(), b"application", b"pidf+xml").unwrap();
    let id = std::str::from_utf8(part.content_id().unwrap()).unwrap();
    assert_eq!(invite.header("Geolocation"), format!("<cid:{}>", id.trim_matches(['<', '>'])));
}
