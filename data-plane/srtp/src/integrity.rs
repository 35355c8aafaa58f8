//! MESSAGE-INTEGRITY of STUN (RFC 8489 14.5): HMAC-SHA1 under a short-term password.

use aws_lc_rs::{constant_time, hmac};

/// Octets of the tag.
pub const TAG_BYTES: usize = 20;

/// A password, ready to sign and to verify with.
#[derive(Clone)]
pub struct IntegrityKey(hmac::Key);

impl std::fmt::Debug for IntegrityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IntegrityKey(..)")
    }
}

impl IntegrityKey {
    /// For a password as SDP carries it: ICE's are ASCII, so it needs no preparation.
    #[must_use]
    pub fn new(password: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password))
    }

    /// HMAC-SHA1 of `parts`, one after the other.
    #[must_use]
    pub fn tag(&self, parts: &[&[u8]]) -> [u8; TAG_BYTES] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let tag = context.sign();
        tag.as_ref().try_into().unwrap_or_default()
    }

    /// Whether `tag` is the HMAC of `parts`, in a time that does not tell where it differs.
    #[must_use]
    pub fn verifies(&self, parts: &[&[u8]], tag: &[u8; TAG_BYTES]) -> bool {
        constant_time::verify_slices_are_equal(&self.tag(parts), tag).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2202 3, cases 1 and 2.
    #[test]
    fn rfc2202() {
        let hex = |tag: [u8; 20]| tag.map(|octet| format!("{octet:02x}")).concat();
        let tag = IntegrityKey::new(&[0x0b; 20]).tag(&[b"Hi ", b"There"]);
        assert_eq!(hex(tag), "b617318655057264e28bc0b6fb378c8ef146be00");
        let key = IntegrityKey::new(b"Jefe");
        let tag = key.tag(&[b"what do ya want for nothing?"]);
        assert_eq!(hex(tag), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
        assert!(key.verifies(&[b"what do ya want ", b"for nothing?"], &tag));
        assert!(!key.verifies(&[b"what do ya want for nothing"], &tag));
    }
}
