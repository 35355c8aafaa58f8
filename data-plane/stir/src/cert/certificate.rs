//! What this crate needs to know of one X.509 certificate, read once and held as plain values.

use aws_lc_rs::signature as aws;
use x509_parser::prelude::{AlgorithmIdentifier, FromDer, ParsedExtension, X509Certificate};
use x509_parser::x509::X509Name;

use super::claim_constraints::ClaimConstraints;
use super::der;
use super::tn_auth_list::TnAuthList;
use crate::outcome::Reason;

/// DER content octets of the object identifiers that matter here.
pub(super) mod oid {
    pub(crate) const TN_AUTH_LIST: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 26];
    pub(crate) const JWT_CLAIM_CONSTRAINTS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 27];
    pub(crate) const E_JWT_CLAIM_CONSTRAINTS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 33];
    const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    const P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];
    const P521: &[u8] = &[0x2b, 0x81, 4, 0, 0x23];
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    const ECDSA_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3];
    const RSA_PKCS1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];

    use super::{Hash, KeyType, SignatureType};

    pub(super) fn key_type(algorithm: &[u8], curve: Option<&[u8]>) -> KeyType {
        match (algorithm, curve) {
            (EC_PUBLIC_KEY, Some(P256)) => KeyType::P256,
            (EC_PUBLIC_KEY, Some(P384)) => KeyType::P384,
            (EC_PUBLIC_KEY, Some(P521)) => KeyType::P521,
            (RSA, _) => KeyType::Rsa,
            _ => KeyType::Other,
        }
    }

    pub(super) fn signature_type(algorithm: &[u8]) -> Option<SignatureType> {
        let (last, arc) = algorithm.split_last()?;
        match (arc, *last) {
            (ECDSA_SHA2, 2) => Some(SignatureType::Ecdsa(Hash::Sha256)),
            (ECDSA_SHA2, 3) => Some(SignatureType::Ecdsa(Hash::Sha384)),
            (ECDSA_SHA2, 4) => Some(SignatureType::Ecdsa(Hash::Sha512)),
            (RSA_PKCS1, 11) => Some(SignatureType::Rsa(Hash::Sha256)),
            (RSA_PKCS1, 12) => Some(SignatureType::Rsa(Hash::Sha384)),
            (RSA_PKCS1, 13) => Some(SignatureType::Rsa(Hash::Sha512)),
            _ => None,
        }
    }
}

/// Kind of a public key (ST-42).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    P256,
    P384,
    P521,
    Rsa,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignatureType {
    Ecdsa(Hash),
    Rsa(Hash),
}

/// A public key with its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    pub key_type: KeyType,
    /// The whole SubjectPublicKeyInfo: what key and certificate are compared by (ST-12).
    pub spki: Box<[u8]>,
    /// The content of its BIT STRING: the point, or the RSA key.
    pub(crate) bits: Box<[u8]>,
}

/// The key usage bits that matter here (RFC 5280 4.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUsage {
    pub digital_signature: bool,
    pub key_cert_sign: bool,
    pub crl_sign: bool,
}

/// An extension that a certificate should have at most one good copy of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension<T> {
    Absent,
    Malformed,
    Present(T),
}

impl<T> Extension<T> {
    pub const fn present(&self) -> Option<&T> {
        match self {
            Self::Present(value) => Some(value),
            _ => None,
        }
    }

    fn read(value: Option<T>) -> Self {
        value.map_or(Self::Malformed, Self::Present)
    }
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub der: Box<[u8]>,
    /// Subject and issuer for people.
    pub subject: String,
    pub issuer: String,
    /// Names in a form that is equal when RFC 5280 7.1 says that they are.
    pub(super) subject_key: Box<[u8]>,
    pub(super) issuer_key: Box<[u8]>,
    /// Content of the serial number's INTEGER, without leading zeros.
    pub serial: Box<[u8]>,
    /// Seconds since 1970-01-01, both inclusive.
    pub not_before: i64,
    pub not_after: i64,
    pub public_key: PublicKey,
    /// Basic constraints: CA flag and path length.
    pub ca: bool,
    pub path_length: Option<u32>,
    pub key_usage: Option<KeyUsage>,
    pub subject_key_id: Option<Box<[u8]>>,
    pub authority_key_id: Option<Box<[u8]>>,
    pub tn_auth_list: Extension<TnAuthList>,
    /// Constraints on claims, of either kind. Malformed also if there are both kinds (RFC 9118 6).
    pub claim_constraints: Extension<ClaimConstraints>,
    /// There is a critical extension that is not understood here.
    pub unknown_critical: bool,
    pub(super) signature_type: Option<SignatureType>,
    signature: Box<[u8]>,
    tbs: Box<[u8]>,
}

impl Certificate {
    /// Reads one certificate in DER.
    ///
    /// # Errors
    /// `CertificateMalformed`, also for trailing octets and extensions that are there twice.
    pub fn from_der(der: &[u8]) -> Result<Self, Reason> {
        Self::read(der).ok_or(Reason::CertificateMalformed)
    }

    fn read(der: &[u8]) -> Option<Self> {
        der::is_signed_frame(der).then_some(())?;
        let (rest, parsed) = X509Certificate::from_der(der).ok()?;
        let tbs = &parsed.tbs_certificate;
        let same_algorithm = parsed.signature_algorithm == tbs.signature;
        (rest.is_empty() && same_algorithm && parsed.signature_value.unused_bits == 0)
            .then_some(())?;
        let spki = &tbs.subject_pki;
        let curve = spki.algorithm.parameters.as_ref().map(x509_parser::asn1_rs::Any::as_bytes);
        let mut found = Self {
            der: der.into(),
            subject: tbs.subject.to_string(),
            issuer: tbs.issuer.to_string(),
            subject_key: name_key(&tbs.subject),
            issuer_key: name_key(&tbs.issuer),
            serial: serial_key(parsed.tbs_certificate.raw_serial()),
            not_before: tbs.validity.not_before.timestamp(),
            not_after: tbs.validity.not_after.timestamp(),
            public_key: PublicKey {
                key_type: oid::key_type(spki.algorithm.algorithm.as_bytes(), curve),
                spki: spki.raw.into(),
                bits: spki.subject_public_key.data.as_ref().into(),
            },
            ca: false,
            path_length: None,
            key_usage: None,
            subject_key_id: None,
            authority_key_id: None,
            tn_auth_list: Extension::Absent,
            claim_constraints: Extension::Absent,
            unknown_critical: false,
            signature_type: signature_type(&parsed.signature_algorithm),
            signature: parsed.signature_value.data.as_ref().into(),
            tbs: tbs.as_ref().into(),
        };
        // Refuses duplicates.
        tbs.extensions_map().ok()?;
        let mut enhanced = Extension::Absent;
        for extension in tbs.extensions() {
            match extension.oid.as_bytes() {
                oid::TN_AUTH_LIST => {
                    found.tn_auth_list = Extension::read(TnAuthList::from_der(extension.value));
                }
                oid::JWT_CLAIM_CONSTRAINTS => {
                    let read = ClaimConstraints::from_der(extension.value, false);
                    found.claim_constraints = Extension::read(read);
                }
                oid::E_JWT_CLAIM_CONSTRAINTS => {
                    let read = ClaimConstraints::from_der(extension.value, true);
                    enhanced = Extension::read(read);
                }
                _ => found.standard_extension(extension.critical, extension.parsed_extension())?,
            }
        }
        found.claim_constraints = match (found.claim_constraints, enhanced) {
            (older, Extension::Absent) => older,
            // RFC 9118 3: an extension that excludes a baseline claim counts as absent.
            (older, Extension::Present(constraints)) if constraints.is_void() => older,
            (Extension::Absent, enhanced) => enhanced,
            _ => Extension::Malformed,
        };
        Some(found)
    }

    fn standard_extension(
        &mut self,
        critical: bool,
        extension: &ParsedExtension<'_>,
    ) -> Option<()> {
        match extension {
            ParsedExtension::ParseError { .. } => return None,
            ParsedExtension::BasicConstraints(basic) => {
                self.ca = basic.ca;
                self.path_length = basic.path_len_constraint;
            }
            ParsedExtension::KeyUsage(usage) => {
                self.key_usage = Some(KeyUsage {
                    digital_signature: usage.digital_signature(),
                    key_cert_sign: usage.key_cert_sign(),
                    crl_sign: usage.crl_sign(),
                });
            }
            ParsedExtension::SubjectKeyIdentifier(id) => {
                self.subject_key_id = Some(id.0.into());
            }
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.into());
            }
            // Informative, or without effect on what is checked here.
            ParsedExtension::CertificatePolicies(_)
            | ParsedExtension::SubjectAlternativeName(_)
            | ParsedExtension::IssuerAlternativeName(_)
            | ParsedExtension::ExtendedKeyUsage(_)
            | ParsedExtension::CRLDistributionPoints(_)
            | ParsedExtension::AuthorityInfoAccess(_)
            | ParsedExtension::SubjectInfoAccess(_) => {}
            _ => self.unknown_critical |= critical,
        }
        Some(())
    }

    /// Whether `now` (seconds since 1970-01-01) is within the validity, ends included.
    ///
    /// # Errors
    /// Which end it is beyond.
    pub fn check_time(&self, now: i64) -> Result<(), Reason> {
        if now < self.not_before {
            Err(Reason::CertificateNotYetValid)
        } else if now > self.not_after {
            Err(Reason::CertificateExpired)
        } else {
            Ok(())
        }
    }

    /// Whether the key of `issuer` signed this certificate.
    ///
    /// # Errors
    /// `CertificateAlgorithm` if the algorithm is not supported, `CertificateSignature` if not.
    pub fn check_signature(&self, issuer: &PublicKey) -> Result<(), Reason> {
        check_signature(self.signature_type, issuer, &self.tbs, &self.signature)
    }

    /// Whether the key identifiers allow `issuer` to be the issuer. Missing ones allow it.
    #[must_use]
    pub(super) fn may_be_issued_by(&self, issuer: &Self) -> bool {
        self.issuer_key == issuer.subject_key
            && match (&self.authority_key_id, &issuer.subject_key_id) {
                (Some(wanted), Some(id)) => wanted == id,
                _ => true,
            }
    }

    /// Issuer and subject are the same name.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.issuer_key == self.subject_key
    }
}

pub(super) fn signature_type(algorithm: &AlgorithmIdentifier<'_>) -> Option<SignatureType> {
    oid::signature_type(algorithm.algorithm.as_bytes())
}

/// Verifies a signature on a certificate or revocation list (ST-42).
pub(super) fn check_signature(
    signature_type: Option<SignatureType>,
    issuer: &PublicKey,
    message: &[u8],
    signature: &[u8],
) -> Result<(), Reason> {
    use Hash::{Sha256, Sha384, Sha512};
    use SignatureType::{Ecdsa, Rsa};

    let algorithm: &'static dyn aws::VerificationAlgorithm = match (signature_type, issuer.key_type)
    {
        (Some(Ecdsa(Sha256)), KeyType::P256) => &aws::ECDSA_P256_SHA256_ASN1,
        (Some(Ecdsa(Sha384)), KeyType::P256) => &aws::ECDSA_P256_SHA384_ASN1,
        (Some(Ecdsa(Sha512)), KeyType::P256) => &aws::ECDSA_P256_SHA512_ASN1,
        (Some(Ecdsa(Sha256)), KeyType::P384) => &aws::ECDSA_P384_SHA256_ASN1,
        (Some(Ecdsa(Sha384)), KeyType::P384) => &aws::ECDSA_P384_SHA384_ASN1,
        (Some(Ecdsa(Sha512)), KeyType::P384) => &aws::ECDSA_P384_SHA512_ASN1,
        (Some(Ecdsa(Sha256)), KeyType::P521) => &aws::ECDSA_P521_SHA256_ASN1,
        (Some(Ecdsa(Sha384)), KeyType::P521) => &aws::ECDSA_P521_SHA384_ASN1,
        (Some(Ecdsa(Sha512)), KeyType::P521) => &aws::ECDSA_P521_SHA512_ASN1,
        (Some(Rsa(Sha256)), KeyType::Rsa) => &aws::RSA_PKCS1_2048_8192_SHA256,
        (Some(Rsa(Sha384)), KeyType::Rsa) => &aws::RSA_PKCS1_2048_8192_SHA384,
        (Some(Rsa(Sha512)), KeyType::Rsa) => &aws::RSA_PKCS1_2048_8192_SHA512,
        (Some(_), KeyType::P256 | KeyType::P384 | KeyType::P521 | KeyType::Rsa) => {
            return Err(Reason::CertificateSignature);
        }
        _ => return Err(Reason::CertificateAlgorithm),
    };
    aws::UnparsedPublicKey::new(algorithm, &issuer.bits)
        .verify(message, signature)
        .map_err(|_| Reason::CertificateSignature)
}

/// A name as octets that are equal for names that RFC 5280 7.1 calls equal: string types of one
/// spelling count as one type, case and blanks are folded.
pub(super) fn name_key(name: &X509Name<'_>) -> Box<[u8]> {
    let mut key = Vec::with_capacity(name.as_raw().len());
    for rdn in name.iter_rdn() {
        key.push(b'/');
        for attribute in rdn.iter() {
            let oid = attribute.attr_type().as_bytes();
            key.extend_from_slice(&oid.len().to_be_bytes());
            key.extend_from_slice(oid);
            let folded = attribute.as_str().ok().map(|text| {
                let words: Vec<_> = text.split_whitespace().map(str::to_lowercase).collect();
                words.join(" ").into_bytes()
            });
            let value = folded.as_deref().unwrap_or_else(|| attribute.as_slice());
            key.extend_from_slice(&value.len().to_be_bytes());
            key.extend_from_slice(value);
        }
    }
    key.into_boxed_slice()
}

/// A serial number without the zeros in front that some issuers write and some do not.
pub(super) fn serial_key(raw: &[u8]) -> Box<[u8]> {
    let zeros = raw.iter().take_while(|octet| **octet == 0).count();
    raw.get(zeros..).unwrap_or_default().into()
}
