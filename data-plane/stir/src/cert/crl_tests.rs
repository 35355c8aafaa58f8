use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber, SigningKey,
    date_time_ymd,
};
use x509_parser::prelude::X509Certificate;

use super::*;
use crate::cert::{Certificate, der::element, pem};
use crate::outcome::Reason;
use crate::test_ca::{Ca, NOW, Wish, X5U};
use crate::trust::{Trust, TrustBuilder};

fn now() -> i64 {
    i64::try_from(NOW).unwrap()
}

fn certificate(text: &str) -> Arc<Certificate> {
    let der = pem::certificates(text.as_bytes()).unwrap().remove(0);
    Arc::new(Certificate::from_der(&der).unwrap())
}

/// The DER of a certificate's subject.
fn subject(text: &str) -> Vec<u8> {
    let der = pem::certificates(text.as_bytes()).unwrap().remove(0);
    X509Certificate::from_der(&der).unwrap().1.subject().as_raw().to_vec()
}

const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const INDIRECT: &[u8] = b"\x30\x0f\x06\x03\x55\x1d\x1c\x01\x01\xff\x04\x05\x30\x03\x84\x01\xff";

/// A list as the STI-PA signs it: entries with the name of their certificate's issuer, or without
/// one. `next` is a UTCTime.
fn list(by: &Ca, entries: &[(Option<Vec<u8>>, &[u8])], extensions: &[u8], next: &str) -> Vec<u8> {
    let time = |text: &str| element(0x17, text.as_bytes());
    let mut revoked = vec![];
    for (issuer, serial) in entries {
        let mut entry = element(der::INTEGER, serial);
        entry.extend(time("250601000000Z"));
        if let Some(issuer) = issuer {
            let names = element(der::SEQUENCE, &element(der::context(4), issuer));
            let mut extension = b"\x06\x03\x55\x1d\x1d\x01\x01\xff".to_vec();
            extension.extend(element(0x04, &names));
            let extension = element(der::SEQUENCE, &extension);
            entry.extend(element(der::SEQUENCE, &extension));
        }
        revoked.extend(element(der::SEQUENCE, &entry));
    }
    let mut tbs = element(der::INTEGER, &[1]);
    tbs.extend_from_slice(ECDSA_SHA256);
    tbs.extend(subject(&by.pem()));
    tbs.extend(time("250601000000Z"));
    tbs.extend(time(next));
    tbs.extend(element(der::SEQUENCE, &revoked));
    if !extensions.is_empty() {
        tbs.extend(element(der::context(0), &element(der::SEQUENCE, extensions)));
    }
    let tbs = element(der::SEQUENCE, &tbs);
    let mut signature = vec![0];
    signature.extend(by.issuer().key().sign(&tbs).unwrap());
    let signature = element(der::BIT_STRING, &signature);
    element(der::SEQUENCE, &[tbs, ECDSA_SHA256.to_vec(), signature].concat())
}

const LATER: &str = "250701000000Z";

/// ST-45: issuer and serial, an issuer that is inherited, and the same serial of another issuer.
#[test]
fn indirect_list() {
    let pa = Ca::root(&Wish::ca("policy administrator"));
    let [one, two] = ["sti-ca one", "sti-ca two"].map(|name| Ca::root(&Wish::ca(name)));
    let leaves = [&one, &one, &two].map(|ca| certificate(&ca.issue(&Wish::spc()).pem));
    let serial = |leaf: &Certificate| {
        let mut serial = leaf.serial.to_vec();
        if serial[0] >= 0x80 {
            serial.insert(0, 0);
        }
        serial
    };
    let [first, second, third] = [&leaves[0], &leaves[1], &leaves[2]].map(|leaf| serial(leaf));
    let anchors = [certificate(&pa.pem())];
    let (one_name, two_name) = (subject(&one.pem()), subject(&two.pem()));
    let entries: &[(Option<Vec<u8>>, &[u8])] = &[
        // Not of the list's own issuer, so of nobody here.
        (None, &third),
        (Some(two_name.clone()), &first),
        (Some(one_name), &first),
        (None, &second),
    ];
    let der = list(&pa, entries, INDIRECT, LATER);
    let read = RevocationList::from_der(&der, &anchors, now()).unwrap();
    assert_eq!(read.len(), 4);
    assert_eq!(leaves.each_ref().map(|leaf| read.revokes(leaf)), [true, true, false]);

    let refused = |der: &[u8], anchors: &[Arc<Certificate>], now| {
        RevocationList::from_der(der, anchors, now).err()
    };
    assert_eq!(refused(&der, &[], now()), Some(CrlError::Untrusted));
    assert_eq!(refused(&der, &[certificate(&one.pem())], now()), Some(CrlError::Untrusted));
    let namesake = Ca::root(&Wish::ca("policy administrator"));
    assert_eq!(refused(&der, &[certificate(&namesake.pem())], now()), Some(CrlError::Signature));
    assert_eq!(refused(&der, &anchors, 1_748_000_000), Some(CrlError::NotYetValid));
    for at in [10, der.len() / 2, der.len() - 1] {
        let mut changed = der.clone();
        changed[at] ^= 1;
        assert!(refused(&changed, &anchors, now()).is_some(), "octet {at}");
    }
    // An entry for another issuer in a list that does not say that it is indirect; an unknown
    // critical extension.
    let direct = list(&pa, &[(Some(two_name), &first)], b"", LATER);
    assert_eq!(refused(&direct, &anchors, now()), Some(CrlError::Unsupported));
    let critical = b"\x30\x0c\x06\x03\x2a\x03\x04\x01\x01\xff\x04\x02\x05\x00";
    let critical = list(&pa, &[(None, &first)], critical, LATER);
    assert_eq!(refused(&critical, &anchors, now()), Some(CrlError::Unsupported));
}

/// A direct list of the issuer's own, made by another library.
#[test]
fn direct_list() {
    let ca = Ca::root(&Wish::ca("sti-ca"));
    let leaf = certificate(&ca.issue(&Wish::spc()).pem);
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2025, 6, 1),
        next_update: date_time_ymd(2025, 7, 1),
        crl_number: SerialNumber::from_slice(&[1]),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from_slice(&leaf.serial),
            revocation_time: date_time_ymd(2025, 5, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let made = params.signed_by(ca.issuer()).unwrap();
    let read = RevocationList::from_der(made.der(), &[certificate(&ca.pem())], now()).unwrap();
    assert!(read.revokes(&leaf));
    assert!(!read.revokes(&certificate(&ca.issue(&Wish::spc()).pem)));
}

/// ST-46: what a chain is worth with a list, a stale list and a bad one.
#[test]
fn in_trust() {
    let pa = Ca::root(&Wish::ca("policy administrator"));
    let root = Ca::root(&Wish::ca("sti-ca"));
    let [good, bad] = [0, 1].map(|_| root.issue(&Wish::spc()).pem);
    let bad_serial = certificate(&bad).serial.to_vec();
    let name = subject(&root.pem());
    let entries: &[(Option<Vec<u8>>, &[u8])] = &[(Some(name), &bad_serial)];
    let build = |der: &[u8], hard: bool| -> (Trust, Vec<CrlError>) {
        let mut builder = TrustBuilder::default();
        builder.anchors_pem(root.pem().as_bytes()).unwrap();
        builder.crl_anchors_pem(pa.pem().as_bytes()).unwrap();
        builder.crl(pem::encode("X509 CRL", der).as_bytes()).unwrap();
        builder.crl_hard(hard);
        builder.chain_pem(X5U, good.as_bytes());
        builder.chain_pem("https://cr.example.com/bad.pem", bad.as_bytes());
        builder.build(NOW)
    };
    let der = list(&pa, entries, INDIRECT, LATER);
    let (trust, refused) = build(&der, false);
    assert_eq!(refused, []);
    assert!(trust.chain(X5U, NOW).is_ok());
    let revoked = trust.chain("https://cr.example.com/bad.pem", NOW).err();
    assert_eq!(revoked, Some(Reason::CertificateRevoked));
    // 2025-07-01 is when the list ends; a week of grace, or none.
    let end = 1_751_328_000;
    let week = 7 * 24 * 3600;
    assert!(trust.chain(X5U, end + week).is_ok());
    assert_eq!(trust.chain(X5U, end + week + 1).err(), Some(Reason::RevocationUnknown));
    let (trust, _) = build(&der, true);
    assert!(trust.chain(X5U, end).is_ok());
    assert_eq!(trust.chain(X5U, end + 1).err(), Some(Reason::RevocationUnknown));
    // A list with a bad signature changes nothing, and is reported.
    let mut forged = der;
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let (trust, refused) = build(&forged, false);
    assert_eq!(refused, [CrlError::Signature]);
    assert!(trust.chain("https://cr.example.com/bad.pem", NOW).is_ok());
    let (trust, _) = build(&forged, true);
    assert_eq!(trust.chain(X5U, NOW).err(), Some(Reason::RevocationUnknown));
}
