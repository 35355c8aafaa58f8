//! [`rig`] with handshakes that cost no public-key work: key exchange, signatures and random numbers
//! are toys, everything else is the product's. So many more inputs are tried, and each comes out the
//! same every time.
#![no_main]

#[path = "rig.rs"]
mod rig;

use std::{
    hash::{DefaultHasher, Hasher},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use dimpl::{
    CryptoError,
    crypto::{
        ActiveKeyExchange, Buf, CryptoProvider, HashAlgorithm, KeyProvider, NamedGroup,
        SecureRandom, SignatureAlgorithm, SignatureVerifier, SigningKey, SupportedKxGroup,
        aws_lc_rs::default_provider,
    },
};
use libfuzzer_sys::fuzz_target;
use ravelin_srtp::dtls::Identity;
use rig::Identities;

const PUBLIC_BYTES: usize = 32;
/// What every toy signature begins with.
const MARK: &[u8; 8] = b"toy sign";

/// Numbers drawn for this input.
static DRAWN: AtomicU64 = AtomicU64::new(0);

fn draw(out: &mut [u8]) {
    for chunk in out.chunks_mut(8) {
        // The steps of splitmix64.
        let mut z = DRAWN.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(z ^ (z >> 31)).to_be_bytes()[..chunk.len()]);
    }
}

#[derive(Debug)]
struct Random;

impl SecureRandom for Random {
    fn fill(&self, out: &mut [u8]) -> Result<(), CryptoError> {
        draw(out);
        Ok(())
    }
}

/// Both ends come to the sum of what they said.
#[derive(Debug)]
struct Group;

#[derive(Debug)]
struct Exchange([u8; PUBLIC_BYTES]);

impl SupportedKxGroup for Group {
    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }

    fn start_exchange(&self, _: Buf) -> Result<Box<dyn ActiveKeyExchange>, CryptoError> {
        let mut public = [0; PUBLIC_BYTES];
        draw(&mut public);
        Ok(Box::new(Exchange(public)))
    }
}

impl ActiveKeyExchange for Exchange {
    fn pub_key(&self) -> &[u8] {
        &self.0
    }

    fn complete(self: Box<Self>, theirs: &[u8], out: &mut Buf) -> Result<(), CryptoError> {
        let Ok(theirs) = <[u8; PUBLIC_BYTES]>::try_from(theirs) else {
            return Err(CryptoError::InvalidPublicKey(NamedGroup::X25519));
        };
        out.clear();
        for (one, other) in self.0.iter().zip(theirs) {
            out.push(one ^ other);
        }
        Ok(())
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// A digest of what is signed: nobody's in particular, so that a certificate is all that tells the
/// party from somebody else.
fn signature(data: &[u8]) -> [u8; 16] {
    let mut hasher = DefaultHasher::new();
    hasher.write(data);
    let mut out = [0; 16];
    out[..8].copy_from_slice(MARK);
    out[8..].copy_from_slice(&hasher.finish().to_be_bytes());
    out
}

#[derive(Debug)]
struct Key;

impl SigningKey for Key {
    fn sign(&mut self, data: &[u8], _: HashAlgorithm, out: &mut Buf) -> Result<(), CryptoError> {
        out.clear();
        out.extend_from_slice(&signature(data));
        Ok(())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        HashAlgorithm::SHA256
    }

    fn supported_hash_algorithms(&self) -> &[HashAlgorithm] {
        &[HashAlgorithm::SHA256]
    }
}

#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, _: &[u8]) -> Result<Box<dyn SigningKey>, CryptoError> {
        Ok(Box::new(Key))
    }
}

#[derive(Debug)]
struct Verifier;

impl SignatureVerifier for Verifier {
    fn verify_signature(
        &self,
        certificate: &[u8],
        data: &[u8],
        theirs: &[u8],
        hash: HashAlgorithm,
        algorithm: SignatureAlgorithm,
    ) -> Result<(), CryptoError> {
        if theirs == signature(data) {
            return Ok(());
        }
        // What is no toy: the library tries its primitives with vectors before it takes them.
        let real = default_provider().signature_verification;
        real.verify_signature(certificate, data, theirs, hash, algorithm)
    }
}

fn identities() -> &'static Identities {
    static MADE: OnceLock<Identities> = OnceLock::new();
    MADE.get_or_init(|| {
        let origin = std::time::Instant::now();
        let provider = || CryptoProvider {
            kx_groups: &[&Group],
            signature_verification: &Verifier,
            key_provider: &Keys,
            secure_random: &Random,
            ..default_provider()
        };
        std::array::from_fn(|_| {
            Arc::new(Identity::fuzzed(origin, provider).expect("an identity"))
        })
    })
}

fuzz_target!(|data: &[u8]| {
    let identities = identities();
    DRAWN.store(0, Ordering::Relaxed);
    rig::run(identities, data);
});
