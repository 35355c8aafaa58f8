//! The two kinds of protection: AES in counter mode with HMAC-SHA1, and AES-GCM.
//!
//! HMAC runs over one piece of memory: the rollover counter, which is authenticated behind the packet
//! but not sent, is written for a moment where MKI and tag stand.

use aws_lc_rs::{
    aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    cipher::EncryptingKey,
    constant_time, hmac,
};
use zeroize::Zeroize;

use crate::{
    derive::{Label, apply, counter_mode, derive},
    keys::MasterKey,
};

/// Octets of an HMAC-SHA1 key (RFC 3711 5.2, RFC 4568 6.2).
const AUTHENTICATION_KEY_BYTES: usize = 20;

/// Session keys of SRTP or of SRTCP. All are wiped by the library when dropped, and show nothing of
/// themselves.
pub(crate) enum Transform {
    Counter(Box<Counter>),
    Gcm { key: LessSafeKey, salt: [u8; 12] },
}

/// AES in counter mode and HMAC-SHA1.
pub(crate) struct Counter {
    pub(crate) cipher: EncryptingKey,
    pub(crate) authentication: hmac::Key,
    pub(crate) salt: [u8; 14],
}

impl Drop for Transform {
    fn drop(&mut self) {
        match self {
            Self::Counter(counter) => counter.salt.zeroize(),
            Self::Gcm { salt, .. } => salt.zeroize(),
        }
    }
}

impl std::fmt::Debug for Transform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Counter(_) => "Counter(..)",
            Self::Gcm { .. } => "Gcm(..)",
        })
    }
}

/// Session keys of one master key.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) rtp: Transform,
    pub(crate) rtcp: Transform,
}

impl Session {
    /// `None`: the library refuses, which it does only without memory.
    pub(crate) fn derive(master: &MasterKey) -> Option<Self> {
        let [rtp, rtcp] = [
            [Label::RtpEncryption, Label::RtpAuthentication, Label::RtpSalt],
            [Label::RtcpEncryption, Label::RtcpAuthentication, Label::RtcpSalt],
        ];
        Some(Self { rtp: Transform::derive(master, rtp)?, rtcp: Transform::derive(master, rtcp)? })
    }
}

impl Transform {
    fn derive(
        master: &MasterKey,
        [encryption, authentication, salting]: [Label; 3],
    ) -> Option<Self> {
        let suite = master.suite();
        let (key, salt) = master.parts();
        let source = counter_mode(key)?;
        let mut key = [0; 32];
        let key_octets = key.get_mut(..suite.key_bytes())?;
        derive(&source, salt, encryption, key_octets)?;
        let made = if suite.is_aead() {
            let mut session_salt = [0; 12];
            derive(&source, salt, salting, &mut session_salt)?;
            let algorithm = if suite.key_bytes() == 32 { &AES_256_GCM } else { &AES_128_GCM };
            let key = LessSafeKey::new(UnboundKey::new(algorithm, key_octets).ok()?);
            Self::Gcm { key, salt: session_salt }
        } else {
            let mut session_salt = [0; 14];
            derive(&source, salt, salting, &mut session_salt)?;
            let mut hmac_key = [0; AUTHENTICATION_KEY_BYTES];
            derive(&source, salt, authentication, &mut hmac_key)?;
            let authentication = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &hmac_key);
            hmac_key.zeroize();
            let cipher = counter_mode(key_octets)?;
            Self::Counter(Box::new(Counter { cipher, authentication, salt: session_salt }))
        };
        key.zeroize();
        Some(made)
    }
}

/// First counter block of a packet (RFC 3711 4.1.1). `index` has 48 bits for SRTP, 31 for SRTCP.
pub(crate) fn counter_block(salt: &[u8; 14], ssrc: u32, index: u64) -> [u8; 16] {
    let mut salted = [0; 16];
    for (octet, salt) in salted.iter_mut().zip(salt) {
        *octet = *salt;
    }
    let packet = u128::from(ssrc) << 64 | u128::from(index) << 16;
    (u128::from_be_bytes(salted) ^ packet).to_be_bytes()
}

/// Nonce of a packet (RFC 7714 8.1, 9.1): both forms put 48 bits behind the SSRC.
pub(crate) fn nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let mut salted = [0; 16];
    for (octet, salt) in salted.iter_mut().skip(4).zip(salt) {
        *octet = *salt;
    }
    let mixed = u128::from_be_bytes(salted) ^ (u128::from(ssrc) << 48 | u128::from(index));
    let [_, _, _, _, nonce @ ..] = mixed.to_be_bytes();
    Nonce::assume_unique_for_key(nonce)
}

impl Counter {
    /// Encrypts or decrypts.
    pub(crate) fn crypt(&self, ssrc: u32, index: u64, data: &mut [u8]) -> Option<()> {
        apply(&self.cipher, counter_block(&self.salt, ssrc, index), data)
    }

    pub(crate) fn tag(&self, data: &[u8]) -> hmac::Tag {
        hmac::sign(&self.authentication, data)
    }

    /// Whether `tag`, of its own length, is that of `data`. In constant time.
    pub(crate) fn verifies(&self, data: &[u8], tag: &[u8]) -> bool {
        let made = self.tag(data);
        made.as_ref()
            .get(..tag.len())
            .is_some_and(|made| constant_time::verify_slices_are_equal(made, tag).is_ok())
    }
}

/// Encrypts `data` in place and gives its tag, 16 octets.
pub(crate) fn gcm_seal(
    key: &LessSafeKey,
    nonce: Nonce,
    clear: &[u8],
    data: &mut [u8],
) -> Option<aws_lc_rs::aead::Tag> {
    key.seal_in_place_separate_tag(nonce, Aad::from(clear), data).ok()
}

/// Decrypts `data` into `out`, of the same length, if the tag verifies.
pub(crate) fn gcm_open(
    key: &LessSafeKey,
    nonce: Nonce,
    clear: &[u8],
    data: &[u8],
    tag: &[u8],
    out: &mut [u8],
) -> Option<()> {
    key.open_separate_gather(nonce, Aad::from(clear), data, tag, out).ok()
}
