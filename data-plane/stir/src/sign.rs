//! The authentication service: writes SHAKEN Identity header values (ST-1 to ST-5, ST-9 to ST-13).

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use smallvec::SmallVec;

use crate::cert::path::{check_leaf, read_chain};
use crate::cert::pem;
use crate::cert::tn_auth_list::{Coverage, TnAuthList};
use crate::cert::url::{UrlError, check_url};
use crate::limits::DEST_VALUES_MAX;
use crate::outcome::Reason;
use crate::passport::read::Type;
use crate::passport::write;
use crate::tn::Party;

/// Attestation level (RFC 8588 4). There is no default: it is the output of a decision (ST-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attest {
    A,
    B,
    C,
}

impl Attest {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        }
    }

    /// Exactly one of `A`, `B`, `C`.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        match text {
            "A" => Some(Self::A),
            "B" => Some(Self::B),
            "C" => Some(Self::C),
            _ => None,
        }
    }
}

/// What one SHAKEN PASSporT shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignRequest {
    pub attest: Attest,
    /// The calling party: from P-Asserted-Identity if the trunk is trusted, else From (ST-17).
    pub orig: Party,
    /// The called party as it leaves, after the last rewrite (ST-17).
    pub dest: SmallVec<[Party; 1]>,
    /// Seconds since 1970-01-01 UTC.
    pub iat: u64,
    /// UUID octets, written in 8-4-4-4-12 form (ST-9). [`uuid_v4`] makes one of 16 random octets.
    pub origid: [u8; 16],
}

/// Sets version 4 and variant bits on 16 octets of the caller's randomness (RFC 9562 5.4).
#[must_use]
pub const fn uuid_v4(mut random: [u8; 16]) -> [u8; 16] {
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    random
}

/// Why a key, certificate or URL cannot be used to sign (ST-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialError {
    /// The certificate, or the chain, is not fit to sign tokens.
    Certificate(Reason),
    /// The text has no private key, or one that is not unencrypted PKCS #8 or SEC 1.
    KeyMalformed,
    /// The key is not on P-256.
    KeyType,
    /// The key is not the one of the certificate.
    KeyMismatch,
    /// The URL breaks the policy that verifiers apply to it.
    Url(UrlError),
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(reason) => write!(f, "certificate: {}", reason.label()),
            Self::KeyMalformed => f.write_str("no unencrypted private key in PEM"),
            Self::KeyType => f.write_str("the private key is not a P-256 key"),
            Self::KeyMismatch => f.write_str("the private key is not the key of the certificate"),
            Self::Url(error) => write!(f, "x5u: {error}"),
        }
    }
}

impl std::error::Error for CredentialError {}

/// Why one token was not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    /// `iat` is not within the certificate's validity (RFC 8224 6.1 step 3).
    CertificateExpired,
    CertificateNotYetValid,
    /// The certificate is for certain numbers, and the calling number is none of them.
    Scope,
    /// No destination, or more than a verifier reads.
    Dest,
    /// The library refused to sign.
    Crypto,
}

impl SignError {
    /// Stable id for counters and records.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateNotYetValid => "certificate_not_yet_valid",
            Self::Scope => "scope",
            Self::Dest => "dest",
            Self::Crypto => "crypto",
        }
    }
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl std::error::Error for SignError {}

/// A key with its certificate chain and URL: checked once, then only read. They are one value, so
/// that no token can be signed by one key and point to the certificate of another (ST-85).
pub struct Signer {
    key: EcdsaKeyPair,
    x5u: Box<str>,
    /// The encoded JOSE header and the dot behind it: the same for every token.
    header: Box<[u8]>,
    /// What follows the token in the header field value.
    params: Box<[u8]>,
    /// None: any number, for offline tools.
    tn_auth_list: Option<TnAuthList>,
    not_before: u64,
    not_after: u64,
}

impl fmt::Debug for Signer {
    /// Without the key (ST-86).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("x5u", &self.x5u).finish_non_exhaustive()
    }
}

impl Signer {
    /// Checks and loads a certificate chain (PEM, leaf first), its key (PEM, PKCS #8 or SEC 1) and
    /// the URL that the chain is published under.
    ///
    /// # Errors
    /// If any of them cannot be used to sign at `now_unix` (seconds since 1970-01-01).
    pub fn load(
        chain_pem: &[u8],
        key_pem: &[u8],
        x5u: &str,
        now_unix: u64,
    ) -> Result<Self, CredentialError> {
        check_url(x5u.as_bytes()).map_err(CredentialError::Url)?;
        let chain = read_chain(chain_pem).map_err(CredentialError::Certificate)?;
        let leaf =
            chain.first().ok_or(CredentialError::Certificate(Reason::CertificateMalformed))?;
        check_leaf(leaf).map_err(CredentialError::Certificate)?;
        let now = i64::try_from(now_unix).unwrap_or(i64::MAX);
        leaf.check_time(now).map_err(CredentialError::Certificate)?;
        let key = read_key(key_pem)?;
        // The certificate's key is on P-256, so equal points are equal keys (ST-12).
        if key.public_key().as_ref() != leaf.public_key.bits.as_ref() {
            return Err(CredentialError::KeyMismatch);
        }
        let tn_auth_list = leaf
            .tn_auth_list
            .present()
            .cloned()
            .ok_or(CredentialError::Certificate(Reason::TnAuthListMissing))?;
        let not_before = u64::try_from(leaf.not_before).unwrap_or(0);
        let not_after = u64::try_from(leaf.not_after).unwrap_or(0);
        Ok(Self { tn_auth_list: Some(tn_auth_list), not_before, not_after, ..Self::of(key, x5u) })
    }

    /// A signer without a certificate, for offline tools: nothing but key and URL is checked, and
    /// it signs for any number at any time. The data plane never uses it.
    ///
    /// # Errors
    /// If the key is not a P-256 key, or the URL is none that a verifier accepts.
    pub fn without_certificate(key_pem: &[u8], x5u: &str) -> Result<Self, CredentialError> {
        check_url(x5u.as_bytes()).map_err(CredentialError::Url)?;
        Ok(Self::of(read_key(key_pem)?, x5u))
    }

    fn of(key: EcdsaKeyPair, x5u: &str) -> Self {
        let mut jose = Vec::new();
        write::push_jose(Type::Shaken, x5u, &mut jose);
        let mut header = Vec::new();
        write::push_encoded(&jose, &mut header);
        header.push(b'.');
        Self {
            key,
            header: header.into(),
            params: format!(";info=<{x5u}>;alg=ES256;ppt=shaken").into_bytes().into(),
            x5u: x5u.into(),
            tn_auth_list: None,
            not_before: 0,
            not_after: u64::MAX,
        }
    }

    #[must_use]
    pub fn x5u(&self) -> &str {
        &self.x5u
    }

    /// Service provider code of the certificate.
    #[must_use]
    pub fn spc(&self) -> Option<&str> {
        self.tn_auth_list.as_ref().and_then(TnAuthList::spc)
    }

    /// End of the certificate's validity, seconds since 1970-01-01, for alarms (ST-56).
    #[must_use]
    pub const fn not_after(&self) -> u64 {
        self.not_after
    }

    /// Appends a complete Identity header field value to `out`; on error `out` is as before.
    ///
    /// # Errors
    /// See [`SignError`].
    pub fn sign(&self, request: &SignRequest, out: &mut Vec<u8>) -> Result<(), SignError> {
        let start = out.len();
        let mut payload = Vec::with_capacity(256);
        let result = self.append(request, &mut payload, out);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    /// As [`Self::sign`] with a buffer that a batch reuses. On error `out` may be longer.
    pub(crate) fn append(
        &self,
        request: &SignRequest,
        payload: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), SignError> {
        if request.iat < self.not_before {
            return Err(SignError::CertificateNotYetValid);
        }
        if request.iat > self.not_after {
            return Err(SignError::CertificateExpired);
        }
        if request.dest.is_empty() || request.dest.len() > DEST_VALUES_MAX {
            return Err(SignError::Dest);
        }
        let covered = |list: &TnAuthList| match &request.orig {
            Party::Tn(tn) => list.covers(tn) != Coverage::No,
            Party::Uri(_) => list.spc().is_some(),
        };
        if !self.tn_auth_list.as_ref().is_none_or(covered) {
            return Err(SignError::Scope);
        }
        payload.clear();
        let SignRequest { attest, orig, dest, iat, origid } = request;
        write::push_shaken(*attest, orig, dest, *iat, origid, payload);
        let start = out.len();
        out.extend_from_slice(&self.header);
        write::push_encoded(payload, out);
        let signed = out.get(start..).unwrap_or_default();
        // The library draws the nonce itself and ignores the generator that it is given (ST-13).
        let signature =
            self.key.sign(&SystemRandom::new(), signed).map_err(|_| SignError::Crypto)?;
        out.push(b'.');
        write::push_encoded(signature.as_ref(), out);
        out.extend_from_slice(&self.params);
        Ok(())
    }
}

/// The first private key of a PEM text.
fn read_key(text: &[u8]) -> Result<EcdsaKeyPair, CredentialError> {
    let blocks = pem::blocks(text).ok_or(CredentialError::KeyMalformed)?;
    let key = blocks
        .iter()
        .find(|block| matches!(block.label.as_str(), "PRIVATE KEY" | "EC PRIVATE KEY"));
    let Some(key) = key else {
        let rsa = blocks.iter().any(|block| block.label == "RSA PRIVATE KEY");
        return Err(if rsa { CredentialError::KeyType } else { CredentialError::KeyMalformed });
    };
    EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.der)
        .map_err(|_| CredentialError::KeyType)
}
