//! A shard on which every DTLS handshake that it takes is under way, and none ends.

use std::sync::Arc;

use ravelin_engine::limits::{DTLS_HANDSHAKES_MAX, Limits};
use ravelin_srtp::dtls::Identity;

use crate::common::*;

fn world() -> World {
    let text = CONFIG
        .replacen("  - id: pbx\n", "  - id: pbx\n    media: { srtp: dtls }\n", 1)
        .replace("limits: { calls: 5, cps: 100 }", "limits: { calls: 2000, cps: 2000 }")
        .replace("ports: 20000-20063", "ports: 20000-29999")
        .replace("ports: 30000-30063", "ports: 30000-39999");
    let mut world = World::with(&text, Limits::default());
    let identity = Identity::generate(std::time::Instant::now()).unwrap();
    world.engine.set_dtls_identity(Arc::new(identity));
    world
}

/// A caller who wants us to begin the handshake, and never answers it.
fn offer(port: u16) -> String {
    let print = vec!["AB"; 32].join(":");
    format!(
        "Content-Type: application/sdp\n\nv=0\no=x 1 1 IN IP4 127.0.1.1\ns=-\nc=IN IP4 127.0.1.1\n\
         t=0 0\nm=audio {port} UDP/TLS/RTP/SAVP 0\na=fingerprint:sha-256 {print}\na=setup:passive\n\
         a=rtcp-mux\n"
    )
}

fn call(world: &mut World, number: &str, at: &str, port: u16) {
    let uri = format!("sip:{number}@127.0.0.10");
    let mut caller = Caller::invite(world, PBX, ACCESS, &uri, &offer(port));
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(world, at);
    callee.answer(world);
    world.expect(at, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(world, "");
    // None of them is over before the last has begun.
    world.pass(5);
}

/// EM-55: however many others shake hands, a call for help does not wait for them.
#[test]
fn a_911_call_shakes_hands_though_no_other_call_can() {
    let mut world = world();
    let most = u16::try_from(DTLS_HANDSHAKES_MAX).unwrap();
    for number in 0..most {
        call(&mut world, "+12125551234", CARRIER_A, 40_000 + 2 * number);
    }
    let hello_to = |world: &World, port: u16| {
        let to = addr(&format!("127.0.1.1:{port}"));
        world.media.iter().any(|(at, bytes)| *at == to && bytes[..1] == [22])
    };
    assert!((0..most).all(|number| hello_to(&world, 40_000 + 2 * number)));
    call(&mut world, "+12125551234", CARRIER_A, 50_000);
    call(&mut world, "911", PSAP_1, 50_002);
    world.pass(1_000);
    assert!(!hello_to(&world, 50_000));
    assert!(hello_to(&world, 50_002));
}
