//! What several benches need; the benches themselves are in `benches/`, the runs against other
//! products in `peers/`. It takes no times but those that [`rig::Rig`] hands back.
#![forbid(unsafe_code)]

pub mod messages;
pub mod rig;
pub mod work;

use ravelin_stir::{
    cert::{TnAuthList, TnEntry, tn_auth_list},
    sign::Signer,
    trust::{Trust, TrustBuilder},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// 2025-06-15 12:00:00 UTC, the time of the benches.
pub const NOW_UNIX: u64 = 1_749_988_800;
/// Where the certificate of [`Credentials`] is published.
pub const X5U: &str = "https://cr.example.com/shaken/sp.pem";

/// A signing key with its certificate, and a trust that has both.
pub struct Credentials {
    pub chain_pem: String,
    pub key_pem: String,
    pub signer: Signer,
    pub trust: Trust,
}

/// Makes a certification authority and a certificate with a service provider code.
///
/// # Panics
/// If the libraries refuse, which they do not.
#[must_use]
pub fn credentials() -> Credentials {
    let params = |name: &str| {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2025, 1, 1);
        params.not_after = date_time_ymd(2035, 1, 1);
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut root = params("bench authority");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().expect("key"))
        .expect("certificate of the authority");
    let list = TnAuthList::new(vec![TnEntry::Spc("1234".into())]).expect("TNAuthList");
    let mut leaf = params("bench provider");
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.custom_extensions =
        vec![CustomExtension::from_oid_content(tn_auth_list::OID, list.to_der())];
    let key = KeyPair::generate().expect("key");
    let chain_pem = leaf.signed_by(&key, &root).expect("certificate").pem();
    let key_pem = key.serialize_pem();
    let signer = Signer::load(chain_pem.as_bytes(), key_pem.as_bytes(), X5U, NOW_UNIX)
        .expect("signer of the certificate made here");
    let mut builder = TrustBuilder::default();
    builder.anchors_pem(root.pem().as_bytes()).expect("anchor");
    builder.chain_pem(X5U, chain_pem.as_bytes());
    let (trust, _) = builder.build(NOW_UNIX);
    Credentials { chain_pem, key_pem, signer, trust }
}
