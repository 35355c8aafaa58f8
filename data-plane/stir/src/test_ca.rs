//! Certificates for this crate's tests, made by an independent library.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName,
    DnType, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SignatureAlgorithm,
    date_time_ymd,
};

use crate::cert::tn_auth_list::{OID, TnAuthList, TnEntry};
use crate::sign::Signer;
use crate::trust::{Trust, TrustBuilder};

/// 2025-06-15 12:00:00 UTC: within the validity of everything that is made here.
pub(crate) const NOW: u64 = 1_749_988_800;
pub(crate) const X5U: &str = "https://cr.example.com/sp.pem";

pub(crate) struct Leaf {
    pub(crate) pem: String,
    pub(crate) key_pem: String,
}

/// How a test wants its certificate.
pub(crate) struct Wish {
    pub(crate) name: &'static str,
    pub(crate) algorithm: &'static SignatureAlgorithm,
    pub(crate) ca: IsCa,
    pub(crate) usages: Vec<KeyUsagePurpose>,
    /// Object identifier, value, critical.
    pub(crate) extensions: Vec<(Vec<u64>, Vec<u8>, bool)>,
    pub(crate) years: (i32, i32),
}

impl Wish {
    pub(crate) fn ca(name: &'static str) -> Self {
        Self {
            name,
            algorithm: &PKCS_ECDSA_P256_SHA256,
            ca: IsCa::Ca(BasicConstraints::Unconstrained),
            usages: vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign],
            extensions: vec![],
            years: (2020, 2040),
        }
    }

    pub(crate) fn leaf(entries: Vec<TnEntry>) -> Self {
        Self {
            name: "leaf",
            ca: IsCa::ExplicitNoCa,
            usages: vec![KeyUsagePurpose::DigitalSignature],
            extensions: vec![tn_auth_list(entries)],
            years: (2025, 2026),
            ..Self::ca("leaf")
        }
    }

    pub(crate) fn spc() -> Self {
        Self::leaf(vec![TnEntry::Spc("1234".into())])
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.name);
        params.is_ca = self.ca;
        params.key_usages = self.usages.clone();
        params.use_authority_key_identifier_extension = true;
        params.not_before = date_time_ymd(self.years.0, 1, 1);
        params.not_after = date_time_ymd(self.years.1, 1, 1);
        params.custom_extensions = self
            .extensions
            .iter()
            .map(|(oid, value, critical)| {
                let mut extension = CustomExtension::from_oid_content(oid, value.clone());
                extension.set_criticality(*critical);
                extension
            })
            .collect();
        params
    }
}

pub(crate) fn tn_auth_list(entries: Vec<TnEntry>) -> (Vec<u64>, Vec<u8>, bool) {
    (OID.to_vec(), TnAuthList::new(entries).unwrap().to_der(), false)
}

pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn root(wish: &Wish) -> Self {
        let key = KeyPair::generate_for(wish.algorithm).unwrap();
        Self(CertifiedIssuer::self_signed(wish.params(), key).unwrap())
    }

    pub(crate) fn sub(&self, wish: &Wish) -> Self {
        let key = KeyPair::generate_for(wish.algorithm).unwrap();
        Self(CertifiedIssuer::signed_by(wish.params(), key, &self.0).unwrap())
    }

    pub(crate) fn issue(&self, wish: &Wish) -> Leaf {
        let key = KeyPair::generate_for(wish.algorithm).unwrap();
        let certificate = wish.params().signed_by(&key, &self.0).unwrap();
        Leaf { pem: certificate.pem(), key_pem: key.serialize_pem() }
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn issuer(&self) -> &CertifiedIssuer<'static, KeyPair> {
        &self.0
    }
}

/// Anchors and chains by URL, valid at [`NOW`].
pub(crate) fn trust(anchors: &[&Ca], chains: &[(&str, &str)]) -> Trust {
    let mut builder = TrustBuilder::default();
    for anchor in anchors {
        builder.anchors_pem(anchor.pem().as_bytes()).unwrap();
    }
    for (url, pem) in chains {
        builder.chain_pem(url, pem.as_bytes());
    }
    let (trust, refused) = builder.build(NOW);
    assert_eq!(refused, []);
    trust
}

/// A signer with a service provider code, and a trust that knows it.
pub(crate) fn pair() -> (Signer, Trust) {
    let root = Ca::root(&Wish::ca("root"));
    let leaf = root.issue(&Wish::spc());
    let signer = Signer::load(leaf.pem.as_bytes(), leaf.key_pem.as_bytes(), X5U, NOW).unwrap();
    (signer, trust(&[&root], &[(X5U, &leaf.pem)]))
}

/// A token of any content, signed by `key_pem`, in a header value of any form.
pub(crate) fn forge(key_pem: &str, jose: &str, payload: &str, params: &str) -> Vec<u8> {
    let mut token = Vec::new();
    crate::base64::encode_url(jose.as_bytes(), &mut token);
    token.push(b'.');
    crate::base64::encode_url(payload.as_bytes(), &mut token);
    let key = crate::cert::pem::blocks(key_pem.as_bytes()).unwrap().remove(0).der;
    let key = aws_lc_rs::signature::EcdsaKeyPair::from_private_key_der(
        &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        &key,
    )
    .unwrap();
    let signature = key.sign(&aws_lc_rs::rand::SystemRandom::new(), &token).unwrap();
    token.push(b'.');
    crate::base64::encode_url(signature.as_ref(), &mut token);
    token.extend_from_slice(params.as_bytes());
    token
}
