//! Signing and verifying as far as the engine decides: who is signed, what waits, what is recorded.

use std::sync::Arc;

use ravelin_engine::{admission::Registry, limits::Limits};
use ravelin_stir::{
    cert::tn_auth_list::{OID, TnAuthList, TnEntry},
    sign::Signer,
    trust::{Trust, TrustBuilder},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::common::*;

const X5U: &str = "https://certs.example.com/sp.pem";

/// A provider's credential, and a trust that knows it.
fn credential() -> (Signer, Trust) {
    let now = START_UNIX_MS / 1000;
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "root");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (ca.not_before, ca.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
    let root = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name.push(DnType::CommonName, "SHAKEN 1234");
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.use_authority_key_identifier_extension = true;
    (leaf.not_before, leaf.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2030, 1, 1));
    let list = TnAuthList::new(vec![TnEntry::Spc("1234".into())]).unwrap().to_der();
    leaf.custom_extensions = vec![CustomExtension::from_oid_content(OID, list)];
    let key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&key, &root).unwrap();
    let pem = leaf.pem();
    let signer = Signer::load(pem.as_bytes(), key.serialize_pem().as_bytes(), X5U, now).unwrap();
    let mut trust = TrustBuilder::default();
    trust.anchors_pem(root.pem().as_bytes()).unwrap();
    trust.chain_pem(X5U, pem.as_bytes());
    let (trust, refused) = trust.build(now);
    assert_eq!(refused, []);
    (signer, trust)
}

fn world_with_credential(carrier: &str) -> World {
    let (signer, trust) = credential();
    let registry = Registry::default();
    let loadout = loadout(&config(carrier), 1, &registry)
        .with_identity(Some(Arc::new(signer)), Arc::new(trust));
    World::from_loadout(registry, loadout, Limits::default())
}

/// The whole way: signed by one call, verified by another, as two carriers would.
#[test]
fn a_signed_call_verifies() {
    let mut world = world_with_credential("{ sign: true, verify: true, on_failure: reject }");
    let caller = Caller::dial(&mut world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    let invite = world.expect(CARRIER_A, "INVITE ");
    let identity = invite.header("Identity").to_owned();
    assert!(identity.ends_with(&format!(";info=<{X5U}>;alg=ES256;ppt=shaken")), "{identity}");
    assert_eq!(invite.header("Date"), "Thu, 01 Jan 2026 00:00:00 GMT");
    caller.cancel(&mut world);
    let cdr = world.call_cdr();
    assert_eq!(cdr.identity_out.as_deref(), Some("A"));
    assert!(cdr.attestation_rule.is_some());
    world.forget_inbox();
    world.all_gone();

    let mut world = world_with_credential("{ sign: true, verify: true, on_failure: reject }");
    let caller = Caller::dial(&mut world, "+12125551234");
    let signed = world.expect(CARRIER_A, "INVITE ").header("Identity").to_owned();
    caller.cancel(&mut world);
    world.forget_inbox();
    // The number that was called comes back as a call to it, from the same caller.
    let more = format!("Identity: {signed}\n{}", sdp_part("127.0.2.1", 50_000));
    let back = Caller::invite(&mut world, CARRIER_A, CORE, "sip:+12125551234@127.0.0.20", &more);
    world.expect(CARRIER_A, "SIP/2.0 100");
    let invite = world.expect(PBX, "INVITE ");
    assert_eq!(invite.header("Identity"), signed, "ST-32: octet for octet");
    back.cancel(&mut world);
    let passed: Vec<_> = world.cdrs().iter().filter_map(|cdr| cdr.identity_in.clone()).collect();
    assert!(passed.iter().all(|outcome| outcome == "passed"), "{passed:?}");
    world.forget_inbox();
    // The same token for another call is refused.
    let more = format!("Identity: {signed}\n{}", sdp_part("127.0.2.1", 50_000));
    Caller::invite(&mut world, CARRIER_A, CORE, "sip:+13135550100@127.0.0.20", &more);
    world.expect(CARRIER_A, "SIP/2.0 100");
    let refused = world.expect(CARRIER_A, "SIP/2.0 438");
    assert!(refused.headers("Reason").iter().any(|r| r.starts_with("STIR;cause=438")));
    world.forget_inbox();
    world.all_gone();
}

/// ST-14: a national number is signed in full, and verified in full, whoever wrote it how.
#[test]
fn national_numbers_are_completed_before_signing_and_verifying() {
    for (dialled, comes_back) in [("2125551234", "+12125551234"), ("+12125551234", "2125551234")] {
        let mut world = world_with_credential("{ sign: true, verify: true, on_failure: reject }");
        let caller = Caller::dial(&mut world, dialled);
        let signed = world.expect(CARRIER_A, "INVITE ").header("Identity").to_owned();
        caller.cancel(&mut world);
        world.forget_inbox();
        let more = format!("Identity: {signed}\n{}", sdp_part("127.0.2.1", 50_000));
        let uri = format!("sip:{comes_back}@127.0.0.20");
        let back = Caller::invite(&mut world, CARRIER_A, CORE, &uri, &more);
        world.expect(PBX, "INVITE ");
        back.cancel(&mut world);
        world.forget_inbox();
        world.all_gone();
    }
}

/// ST-74: an emergency call on a trunk that signs leaves in the same turn, signed for sos.
#[test]
fn an_emergency_call_is_signed_without_waiting() {
    let (signer, trust) = credential();
    let registry = Registry::default();
    let config = config("{ sign: true }").replace(
        "    targets: [{ uri: \"sip:127.0.9.1:5060\" }]\n",
        "    targets: [{ uri: \"sip:127.0.9.1:5060\" }]\n    identity: { sign: true }\n",
    );
    let loadout =
        loadout(&config, 1, &registry).with_identity(Some(Arc::new(signer)), Arc::new(trust));
    let mut world = World::from_loadout(registry, loadout, Limits::default());
    let caller = Caller::dial(&mut world, "911");
    let invite = world.expect(PSAP_1, "INVITE ");
    assert!(invite.try_header("Identity").is_some());
    caller.cancel(&mut world);
    assert_eq!(world.call_cdr().identity_out.as_deref(), Some("A"));
    world.forget_inbox();
    world.all_gone();
}

fn config(carrier: &str) -> String {
    with_identity(CONFIG, carrier)
}

fn with_identity(config: &str, carrier: &str) -> String {
    let features = "  stir_shaken:\n    enabled: true\n    certificate_path: certs/sp.pem\n    \
                    private_key_path: certs/sp.key\n    ca_cert_path: certs/ca.pem\n    \
                    service_provider_code: \"1234\"\n    \
                    certificate_url: \"https://certs.example.com/sp.pem\"\n    \
                    enable_signing: true\n    enable_verification: true\n    \
                    default_attestation: \"A\"\n";
    config
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

/// ST-63..ST-65: the outcome is told where a trunk asks for it, in one place, and nowhere else.
#[test]
fn a_trunk_that_asks_is_told_how_the_number_verified() {
    let pbx = "numbers: [\"+1313555*\"]";
    let asks = format!("{pbx}\n    identity: {{ verstat: true }}");
    for (asked, config) in [(true, CONFIG.replace(pbx, &asks)), (false, CONFIG.to_owned())] {
        let (_, trust) = credential();
        let registry = Registry::default();
        let config = with_identity(&config, "{ verify: true }");
        let loadout = loadout(&config, 1, &registry).with_identity(None, Arc::new(trust));
        let mut world = World::from_loadout(registry, loadout, Limits::default());
        let sdp = sdp_part("127.0.2.1", 50_000);
        for (more, wanted, header) in [
            ("", "<sip:+13135550100;verstat=No-TN-Validation@127.0.0.10>", "From"),
            (
                "P-Asserted-Identity: <sip:+12125551234@x.example>, <tel:+12125551234>\n\
                 Identity: no.token.atall;info=<https://certs.example.com/sp.pem>\n",
                "<tel:+12125551234;verstat=TN-Validation-Failed>",
                "P-Asserted-Identity",
            ),
            (
                "P-Asserted-Identity: <sip:+12125551234;verstat=TN-Validation-Passed@x.example>\n",
                "<sip:+12125551234;verstat=No-TN-Validation@x.example>",
                "P-Asserted-Identity",
            ),
        ] {
            let more = format!("{more}{sdp}");
            Caller::invite(&mut world, CARRIER_A, CORE, "sip:+13135550111@127.0.0.20", &more);
            world.expect(CARRIER_A, "SIP/2.0 100");
            let invite = world.expect(PBX, "INVITE ");
            assert_eq!(invite.0.matches("verstat=").count(), usize::from(asked), "{}", invite.0);
            let told = invite.headers(header).iter().any(|value| value.contains(wanted));
            assert_eq!(told, asked, "{wanted} in {}", invite.0);
        }
    }
}
