//! Tokens, keys and certificates printed in RFCs, through the public interface. Several of them are
//! printed wrong and must fail (tests/conformance/stir/README.md).

use ravelin_stir::cert::{Certificate, TnAuthList, TnEntry, pem};
use ravelin_stir::outcome::{Outcome, Reason};
use ravelin_stir::passport::read::Type;
use ravelin_stir::passport::write::{push_jose, push_shaken};
use ravelin_stir::sign::Attest;
use ravelin_stir::tn::{Party, Tn, UserIsTn, parties};
use ravelin_stir::trust::{Trust, TrustBuilder};
use ravelin_stir::verify::{Verdict, VerifyRequest, verify};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData, SubjectPublicKeyInfo, date_time_ymd,
};

fn file(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/stir/");
    std::fs::read_to_string(format!("{folder}{name}")).expect(name).trim().to_owned()
}

/// Trust in a certificate, issued here, for a published key at a published URL.
fn trust(key: &impl PublicKeyData, url: &str, now: u64) -> Trust {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2010, 1, 1);
    params.not_after = date_time_ymd(2030, 1, 1);
    let leaf = {
        let list = TnAuthList::new(vec![TnEntry::Spc("1234".into())]).unwrap();
        let oid = ravelin_stir::cert::tn_auth_list::OID;
        let mut params = params.clone();
        params.custom_extensions = vec![CustomExtension::from_oid_content(oid, list.to_der())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params
    };
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let leaf = leaf.signed_by(key, &root).unwrap();
    let mut builder = TrustBuilder::default();
    builder.anchors_pem(root.pem().as_bytes()).unwrap();
    builder.chain_pem(url, leaf.pem().as_bytes());
    builder.build(now).0
}

fn published_key(name: &str) -> SubjectPublicKeyInfo {
    SubjectPublicKeyInfo::from_pem(&file(name)).unwrap()
}

fn judge(trust: &Trust, values: &[&str], from: &str, to: &str, now_unix: u64) -> Verdict {
    let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
    let parties = |uri: &str| parties(uri.as_bytes(), UserIsTn::IfItLooksSo);
    let (from, to) = (parties(from), parties(to));
    verify(
        trust,
        &VerifyRequest {
            identities: &values,
            orig: &from,
            to: &to,
            request_uri: &to,
            date: Some(now_unix),
            now_unix,
            ..VerifyRequest::default()
        },
    )
}

const CALLER: &str = "tel:+12155551212";
const ALICE: &str = "sip:alice@example.com";

#[test]
fn rfc8588_section_6_is_written_byte_for_byte() {
    let document: serde_json::Value = serde_json::from_str(&file("rfc8588-s6.json")).unwrap();
    let mut jose = Vec::new();
    push_jose(Type::Shaken, "https://cert.example.org/passport.cer", &mut jose);
    assert_eq!(document["deterministic_header"], String::from_utf8(jose).unwrap());
    let tn = |digits: &[u8]| Party::from(Tn::exact(digits).unwrap());
    let origid = 0x123e_4567_e89b_12d3_a456_4266_5544_0000_u128.to_be_bytes();
    let mut payload = Vec::new();
    let (orig, dest) = (tn(b"12155550121"), [tn(b"12155550131")]);
    push_shaken(Attest::A, &orig, &dest, 1_443_208_345, &origid, &mut payload);
    assert_eq!(document["deterministic_payload"], String::from_utf8(payload).unwrap());
}

#[test]
fn rfc8946_inner_token_is_valid() {
    let now = 1_443_208_345;
    let url = "https://www.example.com/cert.cer";
    let trust = trust(&published_key("rfc8946-appendix-a-public.pem"), url, now);
    let inner = format!("{};info=<{url}>", file("rfc8946-s5-opt-inner.jws"));
    assert_eq!(judge(&trust, &[&inner], CALLER, "tel:+12155551213", now).reason, Reason::Valid);
    // Signed properly, but its `div` is the number of nobody: no chain, and its target is covered
    // by nothing else.
    let div = file("rfc8946-s3-div.identity");
    let verdict = judge(&trust, &[&div, &inner], CALLER, "tel:+12155551214", now);
    assert_eq!(verdict.reason, Reason::DivIncomplete);
    let div_o = file("rfc8946-s5-div-o.identity");
    let verdict = judge(&trust, &[&div_o], CALLER, "tel:+12155551214", now);
    assert_eq!(verdict.reason, Reason::ClaimDest);
}

#[test]
fn rfc8225_appendix_a_is_signed_by_neither_key() {
    let now = 1_471_375_418;
    let url = "https://cert.example.org/passport.cer";
    let token = format!("{};info=<{url}>", file("rfc8225-appendix-a.jws"));
    let a1 = KeyPair::from_pem(&file("rfc8225-a1-private.pem")).unwrap();
    let a2 = published_key("rfc8225-a2-public.pem");
    for trust in [trust(&a1, url, now), trust(&a2, url, now)] {
        assert_eq!(judge(&trust, &[&token], CALLER, ALICE, now).reason, Reason::Signature);
    }
    assert_ne!(a1.der_bytes(), a2.der_bytes());
}

#[test]
fn tokens_that_are_printed_wrong() {
    let now = 1_443_208_345;
    let url = "https://cert.example.org/passport.cer";
    let trust = trust(&published_key("rfc8225-a2-public.pem"), url, now);
    let jws = |name: &str| format!("{};info=<{url}>", file(name));
    for (value, reason) in [
        (jws("rfc8225-s7-1.jws"), Reason::ClaimIat),
        (jws("rfc8816-s9.jws"), Reason::ClaimIat),
        (file("rfc8224-s4-1-1-full.identity"), Reason::InfoNotX5u),
        (file("rfc8443-s4-1-rph.identity"), Reason::InfoNotX5u),
        (file("rfc8224-s4-1-1-compact.identity"), Reason::CertificateUnavailable),
    ] {
        let verdict = judge(&trust, &[&value], CALLER, ALICE, now);
        assert_eq!(verdict.reason, reason);
        assert_ne!(verdict.outcome(), Outcome::Passed);
    }
}

#[test]
fn rfc9118_certificate() {
    let der = pem::certificates(file("rfc9118-s5-certificate.pem").as_bytes()).unwrap().remove(0);
    let certificate = Certificate::from_der(&der).unwrap();
    let list = certificate.tn_auth_list.present().unwrap();
    assert_eq!(list.entries(), [TnEntry::Spc("1234".into())]);
    assert!(certificate.claim_constraints.present().is_some_and(|found| !found.is_void()));
    assert_eq!((certificate.ca, certificate.unknown_critical), (false, false));
}
