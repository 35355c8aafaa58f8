//! The signature over the manifest of an audit package: Ed25519 (RFC 8032), which gives the same
//! octets for the same manifest. The key is made at the first start and stays in `certs/`.

use std::path::Path;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use rcgen::{KeyPair, PKCS_ED25519, SigningKey};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};

use crate::{datadir::write_private, error::ControlError, ident};

const KEY: &str = "evidence.key";
const PUBLIC: &str = "evidence.pub";
/// An Ed25519 SubjectPublicKeyInfo up to the 32 octets of the key (RFC 8410 4).
const SPKI_HEAD: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Signs manifests.
#[derive(Debug)]
pub struct Signer(KeyPair);

impl Signer {
    /// Makes the key if it is missing, and its public half beside it for auditors.
    ///
    /// # Errors
    /// Names the file that failed.
    pub fn ensure(certs: &Path) -> Result<(), ControlError> {
        let path = certs.join(KEY);
        if !path.exists() {
            let key = KeyPair::generate_for(&PKCS_ED25519).map_err(refused)?;
            write_private(&path, key.serialize_pem().as_bytes())?;
        }
        let signer = Self::open(certs)?;
        write_private(&certs.join(PUBLIC), signer.public().as_bytes())
    }

    /// Reads the key.
    ///
    /// # Errors
    /// Names the file that failed, or says that it is no Ed25519 key.
    pub fn open(certs: &Path) -> Result<Self, ControlError> {
        let path = certs.join(KEY);
        let text =
            std::fs::read_to_string(&path).map_err(|source| ControlError::File { path, source })?;
        let key = KeyPair::from_pem(&text).map_err(refused)?;
        if key.is_compatible(&PKCS_ED25519) {
            return Ok(Self(key));
        }
        Err(ControlError::Certificate(format!("{KEY} is no Ed25519 key")))
    }

    /// The public key as PEM.
    #[must_use]
    pub fn public(&self) -> String {
        self.0.public_key_pem()
    }

    /// 64 octets.
    ///
    /// # Errors
    /// What the library says.
    pub fn sign(&self, manifest: &[u8]) -> Result<Vec<u8>, String> {
        self.0.sign(manifest).map_err(|error| error.to_string())
    }
}

#[allow(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn refused(error: rcgen::Error) -> ControlError {
    ControlError::Certificate(error.to_string())
}

/// SHA-256 of a public key (of its SubjectPublicKeyInfo), as people compare keys.
///
/// # Errors
/// Says that the text is no Ed25519 key in PEM.
pub fn fingerprint(public: &[u8]) -> Result<String, String> {
    Ok(ident::sha256_hex(&spki(public)?))
}

fn spki(public: &[u8]) -> Result<Vec<u8>, String> {
    let read = SubjectPublicKeyInfoDer::from_pem_slice(public)
        .map_err(|error| format!("the public key does not read: {error}"))?;
    if read.len() == SPKI_HEAD.len() + 32 && read.starts_with(&SPKI_HEAD) {
        return Ok(read.to_vec());
    }
    Err("the public key is no Ed25519 key".to_owned())
}

/// Checks a signature; returns the fingerprint of the key.
///
/// # Errors
/// Says what does not fit.
pub(super) fn check(public: &[u8], manifest: &[u8], signature: &[u8]) -> Result<String, String> {
    let key = spki(public)?;
    let raw = key.get(SPKI_HEAD.len()..).unwrap_or_default();
    UnparsedPublicKey::new(&ED25519, raw)
        .verify(manifest, signature)
        .map_err(|_| "the signature does not fit".to_owned())?;
    Ok(ident::sha256_hex(&key))
}
