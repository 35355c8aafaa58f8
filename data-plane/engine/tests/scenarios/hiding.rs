//! Nothing that one side reads names the other side's network (features 1, row 7); what a body or a
//! demand of a peer may be.

use crate::common::*;

/// An INVITE that names its own network wherever a message can.
#[test]
fn the_callee_reads_nothing_of_the_caller() {
    let mut world = World::new();
    let sdp = "v=0\no=pbx 1 1 IN IP4 10.7.7.7\ns=call on pbx.inside.example\nu=http://inside.example/\n\
        e=ann@inside.example\np=+1 313 555 0100\nc=IN IP4 127.0.1.1\nt=0 0\nk=clear:secret\n\
        a=x-made-at:127.0.1.1\nm=audio 40000 RTP/AVP 0\na=rtcp:40001 IN IP4 127.0.1.1\n\
        a=candidate:1 1 UDP 1 127.0.1.1 40000 typ host\na=ssrc:1 cname:a@10.7.7.7\n";
    let more = format!(
        "Via: SIP/2.0/UDP pbx.inside.example;branch=z9hG4bKinner\n\
         P-Asserted-Identity: \"Ann\" <sip:+13135550100@pbx.inside.example>, <tel:+13135550100>\n\
         Diversion: <sip:+13135550111@10.9.9.9:5080>;reason=no-answer\n\
         History-Info: <sip:+13135550111@127.0.1.1>;index=1\n\
         Referred-By: <sip:carol@pbx.inside.example>\nPrivacy: id\n\
         Call-Info: <http://pbx.inside.example/ann.png>;purpose=icon\n\
         Reason: Q.850;cause=16;text=\"at pbx.inside.example\"\n\
         X-Trace: call-z9hG4bK-t1@127.0.1.1\n\
         Warning: 399 pbx.inside.example \"from 127.0.1.1\"\n\
         Content-Type: application/sdp\n\n{sdp}"
    );
    Caller::invite(&mut world, PBX, ACCESS, "sip:+12125551234@127.0.0.10", &more);
    world.expect(PBX, "SIP/2.0 100");
    let invite = world.expect(CARRIER_A, "INVITE ");
    for inside in [
        "127.0.1.",
        "127.0.0.10",
        "10.7.7.7",
        "10.9.9.9",
        "inside",
        "z9hG4bK-t1",
        "http:",
        "k=",
        "p=+1",
        "e=ann",
    ] {
        assert!(!invite.0.contains(inside), "{inside} in {}", invite.0);
    }
    assert_eq!(
        invite.header("P-Asserted-Identity"),
        "\"Ann\" <sip:+13135550100@127.0.0.20>, <tel:+13135550100>"
    );
    assert_eq!(invite.header("Diversion"), "<sip:+13135550111@127.0.0.20>;reason=no-answer");
    assert_eq!(invite.header("Privacy"), "id");
    assert!(invite.body().contains("s=-\r\n"));
}

#[test]
fn the_caller_reads_nothing_of_the_callee() {
    let mut world = World::new();
    let caller = Caller::dial(&mut world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(&mut world, CARRIER_A);
    let call_id = callee.invite.header("Call-ID").to_owned();
    callee.reply(
        &mut world,
        "486 Busy at 127.0.2.1",
        &format!(
            "Reason: SIP;cause=486;text=\"from 127.0.2.1 in {call_id}\"\n\
             Warning: 399 gw.carrier.example \"see 127.0.2.1\"\n\
             Error-Info: <http://127.0.2.1/busy.wav>\n"
        ),
    );
    world.expect(CARRIER_A, "ACK ");
    let refused = world.expect(PBX, "SIP/2.0 486 Busy at 127.0.0.10\r\n");
    assert_eq!(
        refused.header("Reason"),
        format!("SIP;cause=486;text=\"from 127.0.0.10 in {}\"", caller.call_id)
    );
    assert_eq!(refused.header("Warning"), "399 ravelin \"see 127.0.0.10\"");
    assert!(!refused.0.contains("127.0.2.") && !refused.0.contains("Error-Info"));
}

/// RFC 3261 7.4.1, 8.2.3: what cannot be told cannot be hidden.
#[test]
fn a_body_without_a_type_is_refused_with_what_would_do() {
    let mut world = World::new();
    let sdp = sdp("127.0.1.1", 40_000);
    let more = format!("\n{sdp}");
    let caller = Caller::invite(&mut world, PBX, ACCESS, "sip:+12125551234@127.0.0.10", &more);
    let refused = world.expect(PBX, "SIP/2.0 415");
    assert!(refused.header("Accept").contains("application/sdp"));
    assert_eq!(refused.header("Accept-Encoding"), "identity");
    caller.ack_refusal(&mut world, &refused);
    world.quiet();
    // An emergency call is understood as well as can be (EM-55).
    Caller::invite(&mut world, PBX, ACCESS, "sip:911@127.0.0.10", &more);
    world.expect(PBX, "SIP/2.0 100");
    let invite = world.expect(PSAP_1, "INVITE ");
    assert!(invite.body().contains("m=audio 300") && !invite.0.contains("127.0.1.1"));
    assert!(invite.header("Content-Type").starts_with("multipart/mixed"), "location goes along");
}

#[test]
fn an_encoded_body_is_refused_with_what_would_do() {
    let mut world = World::new();
    let more = "Content-Type: application/sdp\nContent-Encoding: gzip\n\nxyz";
    Caller::invite(&mut world, PBX, ACCESS, "sip:+12125551234@127.0.0.10", more);
    world.expect(PBX, "SIP/2.0 100");
    let refused = world.expect(PBX, "SIP/2.0 415");
    assert_eq!(refused.header("Accept-Encoding"), "identity");
}

/// RFC 3261 8.2.2.3, wherever the request is.
#[test]
fn an_extension_that_we_do_not_have_is_named() {
    let mut world = World::new();
    let demand = "Require: nosuch, timer\n";
    let request = |method: &str| {
        format!(
            "{method} sip:+12125551234@127.0.0.10 SIP/2.0\nVia: SIP/2.0/UDP {PBX};branch=z9hG4bK{method}\n\
             Max-Forwards: 70\nFrom: <sip:a@127.0.1.1>;tag=1\nTo: <sip:b@127.0.0.10>\n\
             Call-ID: {method}\nCSeq: 1 {method}\n{demand}"
        )
    };
    for method in ["OPTIONS", "MESSAGE"] {
        world.send(PBX, ACCESS, &request(method));
        assert_eq!(world.expect(PBX, "SIP/2.0 420").header("Unsupported"), "nosuch", "{method}");
    }
    let (mut caller, _) = connected(&mut world);
    caller.request(&mut world, "INFO", demand);
    assert_eq!(world.expect(PBX, "SIP/2.0 420").header("Unsupported"), "nosuch");
    caller.request(&mut world, "INVITE", demand);
    assert_eq!(world.expect(PBX, "SIP/2.0 420").header("Unsupported"), "nosuch");
}

/// RFC 3261 8.2.6.1.
#[test]
fn the_100_repeats_the_timestamp() {
    let mut world = World::new();
    let more = format!("Timestamp: 54.25\n{}", sdp_part("127.0.1.1", 40_000));
    Caller::invite(&mut world, PBX, ACCESS, "sip:+12125551234@127.0.0.10", &more);
    assert_eq!(world.expect(PBX, "SIP/2.0 100").header("Timestamp"), "54.25");
    assert_eq!(world.expect(CARRIER_A, "INVITE ").try_header("Timestamp"), None);
}

/// RFC 3261 12.2.1.1.
#[test]
fn a_strict_router_of_the_caller_gets_its_own_uri() {
    let mut world = World::new();
    let more = format!(
        "Record-Route: <sip:127.0.1.9:5070>, <sip:127.0.1.8;lr>\n{}",
        sdp_part("127.0.1.1", 40_000)
    );
    let mut caller = Caller::invite(&mut world, PBX, ACCESS, "sip:+12125551234@127.0.0.10", &more);
    world.expect(PBX, "SIP/2.0 100");
    let mut callee = Callee::take(&mut world, CARRIER_A);
    assert_eq!(callee.invite.try_header("Record-Route"), None);
    callee.answer(&mut world);
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(&mut world, "");
    callee.request(&mut world, "BYE", "");
    world.expect(CARRIER_A, "SIP/2.0 200");
    let bye = world.expect("127.0.1.9:5070", "BYE sip:127.0.1.9:5070 ");
    assert_eq!(bye.headers("Route"), ["<sip:127.0.1.8;lr>", "<sip:+13135550100@127.0.1.1:5060>"]);
    world.send("127.0.1.9:5070", ACCESS, &bye.reply("200 OK", "", ""));
    world.all_gone();
}

/// E1, gate G9: no way out is left open in test mode.
#[test]
fn in_test_mode_no_message_goes_to_an_emergency_number() {
    let config = CONFIG.replace("mode: production", "mode: test");
    let mut world = World::with(&config, Default::default());
    for (number, wanted) in [("911", "SIP/2.0 403"), ("+12125551234", "")] {
        let message = format!(
            "MESSAGE sip:{number}@127.0.0.10 SIP/2.0\nVia: SIP/2.0/UDP {PBX};branch=z9hG4bK{number}\n\
             Max-Forwards: 70\nFrom: <sip:a@127.0.1.1>;tag=1\nTo: <sip:{number}@127.0.0.10>\n\
             Call-ID: m{number}\nCSeq: 1 MESSAGE\nContent-Type: text/plain\n\nhelp"
        );
        world.send(PBX, ACCESS, &message);
        if wanted.is_empty() {
            world.expect(CARRIER_A, "MESSAGE ");
        } else {
            world.expect(PBX, wanted);
        }
        world.quiet();
    }
}
