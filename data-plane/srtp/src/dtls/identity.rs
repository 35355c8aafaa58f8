//! The certificate that we show. Its name says nothing: peers check it against the fingerprint in
//! SDP and nothing else (RFC 5763 5).

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use aws_lc_rs::{
    digest,
    encoding::AsDer,
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use dimpl::{
    DtlsCertificate,
    crypto::{CryptoProvider, aws_lc_rs::default_provider},
};

use super::{
    Fingerprint, Hash, cookie,
    limits::{FLIGHT_FIRST, FLIGHT_RETRIES, HANDSHAKE_MAX, MTU, WAITING_DATAGRAMS_MAX},
};

/// The crypto library would not make a key or a signature, or the DTLS library a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentityError(&'static str);

impl std::fmt::Display for IdentityError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot make a DTLS certificate: {}", self.0)
    }
}

impl std::error::Error for IdentityError {}

/// Key and self-signed certificate of one process: ECDSA P-256, made once and never stored.
#[derive(Debug)]
pub struct Identity {
    /// Time 0 of everything that is handed in.
    pub(super) origin: Instant,
    made: OnceLock<Result<Made, IdentityError>>,
    provider: fn() -> CryptoProvider,
    associations: AtomicU64,
}

/// What takes time to make: the crypto library gathers entropy before it draws its first key.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) certificate: DtlsCertificate,
    pub(super) config: Arc<dimpl::Config>,
    /// What cookies are made with.
    pub(super) secret: hmac::Key,
    fingerprint: Fingerprint,
}

impl Identity {
    /// Draws a key and signs a certificate. `origin` is when the clock of the caller was 0; only
    /// differences matter.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn generate(origin: Instant) -> Result<Self, IdentityError> {
        let identity = Self::deferred(origin);
        identity.make().map(|()| identity)
    }

    /// One whose key is drawn by [`Self::make`], or by the first who needs it: associations that have
    /// their keys already do not wait for it.
    #[must_use]
    pub fn deferred(origin: Instant) -> Self {
        Self {
            origin,
            made: OnceLock::new(),
            provider: default_provider,
            associations: AtomicU64::new(0),
        }
    }

    /// As [`Self::generate`], with handshakes of other primitives: what fuzzing tries needs no
    /// public-key work.
    #[cfg(fuzzing)]
    pub fn fuzzed(
        origin: Instant,
        provider: fn() -> CryptoProvider,
    ) -> Result<Self, IdentityError> {
        let identity = Self { provider, ..Self::deferred(origin) };
        identity.make().map(|()| identity)
    }

    /// Draws the key if nobody has; who comes while that is done waits for it.
    ///
    /// # Errors
    /// [`IdentityError`], the same each time.
    pub fn make(&self) -> Result<(), IdentityError> {
        self.made().map(|_| ())
    }

    /// Whether the key was drawn.
    #[must_use]
    pub fn is_made(&self) -> bool {
        matches!(self.made.get(), Some(Ok(_)))
    }

    pub(super) fn made(&self) -> Result<&Made, IdentityError> {
        self.made.get_or_init(|| Made::with((self.provider)())).as_ref().map_err(|error| *error)
    }

    /// A number that no other association has.
    pub(super) fn next_number(&self) -> u64 {
        self.associations.fetch_add(1, Ordering::Relaxed)
    }

    /// What SDP says of the certificate, under SHA-256.
    ///
    /// # Errors
    /// As [`Self::make`], which this does if nobody has.
    pub fn fingerprint(&self) -> Result<&Fingerprint, IdentityError> {
        self.made().map(|made| &made.fingerprint)
    }
}

impl Made {
    fn with(provider: CryptoProvider) -> Result<Self, IdentityError> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map_err(|_| IdentityError("no key"))?;
        let private_key = key.to_pkcs8v1().map_err(|_| IdentityError("key not written"))?;
        let certificate = self_signed(&key)?;
        let config = dimpl::Config::builder()
            .with_crypto_provider(cookie::provider(provider))
            .mtu(MTU)
            .max_queue_rx(WAITING_DATAGRAMS_MAX)
            .flight_start_rto(FLIGHT_FIRST)
            .flight_retries(FLIGHT_RETRIES)
            .handshake_timeout(HANDSHAKE_MAX)
            .build()
            .map_err(|_| IdentityError("no configuration"))?;
        Ok(Self {
            fingerprint: Fingerprint::of(Hash::Sha256, &certificate),
            certificate: DtlsCertificate {
                certificate,
                private_key: private_key.as_ref().to_vec(),
            },
            config: Arc::new(config),
            secret: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
                .map_err(|_| IdentityError("no secret"))?,
        })
    }
}

/// Not before 1 January 2000, not after the end of time (RFC 5280 4.1.2.5): no clock is needed, and
/// a peer that looks at the dates finds nothing to object to.
const VALIDITY: &[&[u8]] = &[b"\x17\x0d000101000000Z", b"\x18\x0f99991231235959Z"];
/// ecdsa-with-SHA256, 1.2.840.10045.4.3.2.
const ALGORITHM: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
/// CN=ravelin.
const NAME: &[u8] = b"\x30\x12\x31\x10\x30\x0e\x06\x03\x55\x04\x03\x0c\x07ravelin";
/// Version 3.
const VERSION: &[u8] = b"\xa0\x03\x02\x01\x02";
const SERIAL_BYTES: usize = 16;
const SEQUENCE: u8 = 0x30;

/// A certificate in DER (RFC 5280 4.1).
fn self_signed(key: &EcdsaKeyPair) -> Result<Vec<u8>, IdentityError> {
    let public = key.public_key().as_der().map_err(|_| IdentityError("public key not written"))?;
    let public = public.as_ref();
    // Positive, without a leading zero octet, different for each key.
    let hash = digest::digest(&digest::SHA256, public);
    let mut serial = vec![0x02, 0x10];
    serial.extend_from_slice(hash.as_ref().get(..SERIAL_BYTES).unwrap_or_default());
    if let Some(first) = serial.get_mut(2) {
        *first = *first & 0x7f | 0x40;
    }
    let validity = der(SEQUENCE, VALIDITY)?;
    let body = der(SEQUENCE, &[VERSION, &serial, ALGORITHM, NAME, &validity, NAME, public])?;
    let signature =
        key.sign(&SystemRandom::new(), &body).map_err(|_| IdentityError("not signed"))?;
    let signature = der(0x03, &[&[0], signature.as_ref()])?;
    der(SEQUENCE, &[&body, ALGORITHM, &signature])
}

/// One value: type, length, and the parts as content.
fn der(kind: u8, parts: &[&[u8]]) -> Result<Vec<u8>, IdentityError> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u16::try_from(length).map_err(|_| IdentityError("too long"))?;
    let [high, low] = length.to_be_bytes();
    let mut out = vec![kind];
    match (high, low) {
        (0, 0..=0x7f) => out.push(low),
        (0, _) => out.extend_from_slice(&[0x81, low]),
        _ => out.extend_from_slice(&[0x82, high, low]),
    }
    out.extend(parts.iter().copied().flatten());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_identity_is_another_and_says_its_fingerprint() {
        let identities = [(); 3].map(|()| Identity::generate(Instant::now()).unwrap());
        for identity in &identities {
            let certificate = &identity.made().unwrap().certificate.certificate;
            let said = identity.fingerprint().unwrap();
            assert_eq!(*said, Fingerprint::of(Hash::Sha256, certificate));
        }
        let [a, b, c] = identities.map(|identity| *identity.fingerprint().unwrap());
        assert!(a != b && b != c && a != c);
    }

    #[test]
    fn a_deferred_identity_is_made_once_by_whoever_needs_it_first() {
        let identity = Identity::deferred(Instant::now());
        assert!(!identity.is_made());
        let said = std::thread::scope(|scope| {
            let asked = [(); 4].map(|()| scope.spawn(|| *identity.fingerprint().unwrap()));
            asked.map(|thread| thread.join().unwrap())
        });
        assert!(identity.is_made());
        identity.make().unwrap();
        assert!(said.iter().all(|said| said == identity.fingerprint().unwrap()));
    }
}
