//! Unforeseeable octets from a seed: AES-256 in counter mode whose key is replaced by its own first
//! output at each draw, so that what was drawn before cannot be told from what is kept.

use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use zeroize::Zeroize;

/// Source of key octets. Not `Clone`: two copies would give the same keys.
pub struct Source {
    key: [u8; 32],
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source(..)")
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// Most octets of one draw.
const DRAW_MAX_BYTES: usize = 64;

impl Source {
    /// `seed` must be unforeseeable, and used for nothing else together with `purpose`.
    #[must_use]
    pub fn new(seed: &[u8; 32], purpose: &[u8]) -> Self {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, seed);
        let tag = aws_lc_rs::hmac::sign(&key, purpose);
        let mut key = [0; 32];
        for (octet, from) in key.iter_mut().zip(tag.as_ref()) {
            *octet = *from;
        }
        Self { key }
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        for part in out.chunks_mut(DRAW_MAX_BYTES) {
            let mut stream = [0; 32 + DRAW_MAX_BYTES];
            let made = UnboundCipherKey::new(&AES_256, &self.key)
                .and_then(EncryptingKey::ctr)
                .and_then(|key| {
                    let start = EncryptionContext::Iv128([0; 16].into());
                    key.less_safe_encrypt(&mut stream, start)
                });
            // Neither call can fail for a key and a counter of these lengths; were it to, octets
            // that can be told in advance would be a hole, so the process must not go on.
            assert!(made.is_ok(), "AES-256-CTR of a fixed length");
            let (next, rest) = stream.split_at(32);
            self.key.copy_from_slice(next);
            for (octet, from) in part.iter_mut().zip(rest) {
                *octet = *from;
            }
            stream.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ_and_follow_from_the_seed() {
        let mut first = Source::new(&[1; 32], b"a");
        let mut second = Source::new(&[1; 32], b"a");
        let mut other = Source::new(&[1; 32], b"b");
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1_000 {
            let (mut x, mut y, mut z) = ([0; 30], [0; 30], [0; 30]);
            first.fill(&mut x);
            second.fill(&mut y);
            other.fill(&mut z);
            assert_eq!(x, y);
            assert!(seen.insert(x) && seen.insert(z));
        }
        let mut long = [0; 200];
        first.fill(&mut long);
        assert!(long.chunks(8).all(|part| part.iter().any(|octet| *octet != 0)));
    }
}
