//! Signing and verifying as far as the engine decides: who is signed, what waits, what is recorded.

use ravelin_engine::limits::Limits;

use crate::common::*;

fn config(carrier: &str) -> String {
    let features = "  stir_shaken:\n    enabled: true\n    certificate_path: certs/sp.pem\n    \
                    private_key_path: certs/sp.key\n    ca_cert_path: certs/ca.pem\n    \
                    service_provider_code: \"1234\"\n    \
                    certificate_url: \"https://certs.example.com/sp.pem\"\n    \
                    enable_signing: true\n    enable_verification: true\n    \
                    default_attestation: \"A\"\n";
    CONFIG
        .replace(
            "sources: [127.0.2.0/24]\n",
            &format!("sources: [127.0.2.0/24]\n    identity: {carrier}\n"),
        )
        .replace("features:\n", &format!("features:\n{features}"))
}

#[test]
fn without_a_credential_a_call_leaves_unsigned_counted_and_recorded() {
    let mut world = World::with(&config("{ sign: true }"), Limits::default());
    let caller = Caller::dial(&mut world, "+12125551234");
    let invite = world.expect(CARRIER_A, "INVITE ");
    assert_eq!(invite.try_header("Identity"), None);
    caller.cancel(&mut world);
    assert_eq!(world.engine.counters().unsigned_no_credential, 1);
    assert_eq!(world.call_cdr().identity_out.as_deref(), Some("unsigned:no-credential"));
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn an_identity_that_came_with_the_call_is_passed_on_and_not_joined_by_ours() {
    let mut world = World::with(&config("{ sign: true }"), Limits::default());
    let identity = "aa.bb.cc;info=<https://c.example/a.pem>;alg=ES256;ppt=shaken";
    let more = format!("Identity: {identity}\n{}", sdp_part("127.0.1.1", 40_000));
    let caller = Caller::invite(&mut world, PBX, ACCESS, "sip:+12125551234@127.0.0.10", &more);
    let invite = world.expect(CARRIER_A, "INVITE ");
    assert_eq!(invite.headers("Identity"), [identity]);
    caller.cancel(&mut world);
    assert_eq!(world.call_cdr().identity_out.as_deref(), Some("unsigned:passed-on"));
    world.forget_inbox();
    world.all_gone();
}

fn inbound(world: &mut World, more: &str) -> Caller {
    let more = format!("{more}{}", sdp_part("127.0.2.1", 50_000));
    Caller::invite(world, CARRIER_A, CORE, "sip:+13135550100@127.0.0.20", &more)
}

#[test]
fn an_unsigned_inbound_call_goes_on_with_its_outcome_recorded() {
    let mut world = World::with(&config("{ verify: true, on_failure: reject }"), Limits::default());
    let caller = inbound(&mut world, "");
    world.expect(CARRIER_A, "SIP/2.0 100");
    world.expect(PBX, "INVITE ");
    caller.cancel(&mut world);
    assert_eq!(world.call_cdr().identity_in.as_deref(), Some("none-absent"));
    world.forget_inbox();
    world.all_gone();
}

#[test]
fn a_bad_token_is_rejected_or_annotated_as_the_trunk_says() {
    let bad = "Identity: not-a-token\n";
    let mut world = World::with(&config("{ verify: true, on_failure: reject }"), Limits::default());
    inbound(&mut world, bad);
    world.expect(CARRIER_A, "SIP/2.0 100");
    let refused = world.take(CARRIER_A);
    let code: u16 = refused.start()[8..11].parse().unwrap();
    assert!([403, 436, 437, 438].contains(&code), "{}", refused.0);
    assert!(refused.headers("Reason").iter().any(|r| r.starts_with(&format!("STIR;cause={code}"))));
    assert_eq!(world.call_cdr().cause, 206);
    assert_eq!(world.call_cdr().status, code);
    world.quiet();
    world.all_gone();

    let mut world =
        World::with(&config("{ verify: true, on_failure: annotate }"), Limits::default());
    let caller = inbound(&mut world, bad);
    world.expect(CARRIER_A, "SIP/2.0 100");
    let invite = world.expect(PBX, "INVITE ");
    assert_eq!(invite.header("Identity"), "not-a-token");
    let contact = "Contact: <sip:pbx@127.0.1.1>\n";
    world.send(PBX, ACCESS, &invite.reply("180 Ringing", "p", contact));
    let ringing = world.expect(CARRIER_A, "SIP/2.0 180");
    assert!(ringing.header("Reason").starts_with("STIR;cause="), "ST-61");
    world.send(PBX, ACCESS, &invite.reply("183 Progress", "p", contact));
    assert_eq!(world.expect(CARRIER_A, "SIP/2.0 183").try_header("Reason"), None);
    caller.cancel(&mut world);
    world.forget_inbox();
    world.all_gone();
}
