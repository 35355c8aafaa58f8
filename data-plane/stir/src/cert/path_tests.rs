use rcgen::{
    BasicConstraints, IsCa, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ECDSA_P521_SHA512, PKCS_RSA_SHA256,
};

use super::*;
use crate::cert::tn_auth_list::TnEntry;
use crate::test_ca::{Ca, NOW, Wish, tn_auth_list};
use crate::tn::Tn;

fn check(body: &[&str], anchors: &[&Ca]) -> Result<VerifiedChain, Reason> {
    let body = read_chain(body.concat().as_bytes())?;
    let anchors: Vec<_> =
        anchors.iter().flat_map(|anchor| read_chain(anchor.pem().as_bytes()).unwrap()).collect();
    let now = i64::try_from(NOW).unwrap();
    let chain = validate(&body, &anchors, now)?;
    chain.check_time(now)?;
    Ok(chain)
}

fn why(body: &[&str], anchors: &[&Ca]) -> &'static str {
    check(body, anchors).map_or_else(Reason::label, |_| "valid")
}

/// ST-42: the path may be signed with any of four algorithms, the leaf's own key may not.
#[test]
fn algorithms() {
    for algorithm in [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ECDSA_P521_SHA512,
        &PKCS_RSA_SHA256,
    ] {
        let root = Ca::root(&Wish { algorithm, ..Wish::ca("root") });
        let sub = root.sub(&Wish { algorithm, ..Wish::ca("sub") });
        let leaf = sub.issue(&Wish::spc());
        assert_eq!(why(&[&leaf.pem, &sub.pem()], &[&root]), "valid");
        let leaf = root.issue(&Wish { algorithm, ..Wish::spc() });
        let own = why(&[&leaf.pem], &[&root]);
        let p256 = std::ptr::eq(algorithm, &raw const PKCS_ECDSA_P256_SHA256);
        assert_eq!(own, if p256 { "valid" } else { "key_type" });
    }
}

/// ST-43, ST-52: who is trusted, and in what order certificates may come.
#[test]
fn anchors_and_bodies() {
    let root = Ca::root(&Wish::ca("root"));
    let sub = root.sub(&Wish::ca("sub"));
    let leaf = sub.issue(&Wish::spc());
    let stranger = Ca::root(&Wish::ca("root"));
    let (leaf, sub_pem, root_pem) = (leaf.pem.as_str(), sub.pem(), root.pem());
    assert_eq!(why(&[leaf, &sub_pem], &[&root]), "valid");
    assert_eq!(why(&[leaf, &root_pem, &sub_pem], &[&root]), "valid");
    assert_eq!(why(&[leaf], &[&sub]), "valid");
    assert_eq!(why(&[leaf, &sub_pem], &[&stranger, &root]), "valid");
    assert_eq!(why(&[leaf, &sub_pem, &root_pem], &[]), "certificate_untrusted");
    assert_eq!(why(&[leaf, &sub_pem, &root_pem], &[&stranger]), "certificate_untrusted");
    assert_eq!(why(&[leaf], &[&root]), "intermediate_missing");
    assert_eq!(why(&[leaf], &[]), "intermediate_missing");
    assert_eq!(why(&[&sub_pem, leaf], &[&root]), "basic_constraints");
    assert_eq!(why(&[], &[&root]), "certificate_malformed");
    assert_eq!(
        why(&["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"], &[&root]),
        "certificate_malformed"
    );
    let nine = [leaf; 9];
    assert_eq!(why(&nine, &[&root]), "certificate_malformed");
}

/// Same names and, by force, no key identifiers to tell them apart: the signature does.
#[test]
fn impostor_with_the_same_name() {
    let root = Ca::root(&Wish::ca("root"));
    let impostor = Ca::root(&Wish::ca("root"));
    let leaf = impostor.issue(&Wish::spc());
    assert_eq!(why(&[&leaf.pem], &[&root]), "intermediate_missing");
    assert_eq!(why(&[&leaf.pem, &impostor.pem()], &[&root]), "certificate_untrusted");
}

/// One octet changed in a certificate: it does not parse, or its signature is bad, or the change
/// hit the key identifier that names the issuer. Never valid.
#[test]
fn every_flip_fails() {
    let root = Ca::root(&Wish::ca("root"));
    let leaf = root.issue(&Wish::spc());
    let der = crate::cert::pem::certificates(leaf.pem.as_bytes()).unwrap().remove(0);
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 1;
        let text = crate::cert::pem::encode("CERTIFICATE", &changed);
        assert_ne!(why(&[&text], &[&root]), "valid", "octet {at}");
    }
}

/// ST-43: each certificate of the path at the time of use.
#[test]
fn validity() {
    let at = |root: (i32, i32), leaf: (i32, i32)| {
        let root = Ca::root(&Wish { years: root, ..Wish::ca("root") });
        let leaf = root.issue(&Wish { years: leaf, ..Wish::spc() });
        why(&[&leaf.pem], &[&root])
    };
    assert_eq!(at((2020, 2040), (2025, 2026)), "valid");
    assert_eq!(at((2020, 2040), (2024, 2025)), "certificate_expired");
    assert_eq!(at((2020, 2040), (2026, 2027)), "certificate_not_yet_valid");
    assert_eq!(at((2020, 2025), (2025, 2026)), "certificate_expired");
    let root = Ca::root(&Wish::ca("root"));
    let leaf = root.issue(&Wish::spc());
    let chain = check(&[&leaf.pem], &[&root]).unwrap();
    let (start, end) = (chain.path()[0].not_before, chain.path()[0].not_after);
    assert_eq!(chain.check_time(start), Ok(()));
    assert_eq!(chain.check_time(end), Ok(()));
    assert_eq!(chain.check_time(start - 1), Err(Reason::CertificateNotYetValid));
    assert_eq!(chain.check_time(end + 1), Err(Reason::CertificateExpired));
}

/// CA flags, key usage, path length and critical extensions.
#[test]
fn authority() {
    let root = Ca::root(&Wish::ca("root"));
    let leaf = |wish: Wish| why(&[&root.issue(&wish).pem], &[&root]);
    assert_eq!(leaf(Wish { usages: vec![], ..Wish::spc() }), "valid");
    assert_eq!(leaf(Wish { ca: IsCa::NoCa, ..Wish::spc() }), "valid");
    let usages = vec![KeyUsagePurpose::KeyAgreement];
    assert_eq!(leaf(Wish { usages, ..Wish::spc() }), "key_usage");
    let usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    assert_eq!(leaf(Wish { usages, ..Wish::spc() }), "key_usage");
    let ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(leaf(Wish { ca, ..Wish::spc() }), "basic_constraints");
    assert_eq!(leaf(Wish { extensions: vec![], ..Wish::spc() }), "tn_auth_list_missing");
    let oid = crate::cert::tn_auth_list::OID.to_vec();
    let extensions = vec![(oid, b"\x13\x041234".to_vec(), false)];
    assert_eq!(leaf(Wish { extensions, ..Wish::spc() }), "tn_auth_list_malformed");
    let unknown = |critical| {
        let mut wish = Wish::spc();
        wish.extensions.push((vec![1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0], critical));
        wish
    };
    assert_eq!(leaf(unknown(false)), "valid");
    assert_eq!(leaf(unknown(true)), "critical_extension");

    let below = |wish: Wish, depth: usize| {
        let mut body = vec![];
        let mut last = root.sub(&wish);
        for _ in 1..depth {
            let next = last.sub(&Wish::ca("deeper"));
            body.insert(0, last.pem());
            last = next;
        }
        body.insert(0, last.pem());
        body.insert(0, last.issue(&Wish::spc()).pem);
        let body: Vec<&str> = body.iter().map(String::as_str).collect();
        why(&body, &[&root])
    };
    assert_eq!(below(Wish::ca("sub"), 1), "valid");
    assert_eq!(below(Wish::ca("sub"), 2), "valid");
    assert_eq!(below(Wish::ca("sub"), 3), "path_too_long");
    let short = || Wish { ca: IsCa::Ca(BasicConstraints::Constrained(0)), ..Wish::ca("sub") };
    assert_eq!(below(short(), 1), "valid");
    assert_eq!(below(short(), 2), "path_too_long");
    assert_eq!(below(Wish { ca: IsCa::ExplicitNoCa, ..Wish::ca("sub") }, 1), "basic_constraints");
    let usages = vec![KeyUsagePurpose::CrlSign];
    assert_eq!(below(Wish { usages, ..Wish::ca("sub") }, 1), "key_usage");
}

/// RFC 9060: a parent with a TNAuthList delegates no more than it has (ST-41).
#[test]
fn delegation() {
    let one = |tn: &[u8]| TnEntry::One(Tn::exact(tn).unwrap());
    let root = Ca::root(&Wish::ca("root"));
    let range = TnEntry::Range { start: Tn::exact(b"12125551000").unwrap(), count: 1000 };
    let parent = root.sub(&Wish { extensions: vec![tn_auth_list(vec![range])], ..Wish::ca("sub") });
    let child = |entry| {
        let leaf = parent.issue(&Wish::leaf(vec![entry]));
        why(&[&leaf.pem, &parent.pem()], &[&root])
    };
    assert_eq!(child(one(b"12125551824")), "valid");
    assert_eq!(child(one(b"12125552000")), "tn_auth_list_scope");
    assert_eq!(child(TnEntry::Spc("1234".into())), "tn_auth_list_scope");
}
