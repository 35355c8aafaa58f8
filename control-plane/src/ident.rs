//! Random values, digests, and identifiers made of them.

use aws_lc_rs::{digest, rand};
use ravelin_contract::chain::to_hex;

use crate::clock;

/// Fresh random octets from the system's generator.
///
/// # Panics
/// If the system has no random source: nothing here may go on with a guessable secret.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    rand::fill(&mut octets).expect("the system's random source works");
    octets
}

/// Lower-case hexadecimal SHA-256.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    to_hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// An identifier that sorts by time and never collides: UUIDv7 (RFC 9562 5.7).
#[must_use]
pub fn uuid_v7() -> String {
    let mut octets = random::<16>();
    octets[..6].copy_from_slice(&clock::unix_ms().to_be_bytes()[2..]);
    octets[6] = 0x70 | (octets[6] & 0x0f);
    octets[8] = 0x80 | (octets[8] & 0x3f);
    let hex = to_hex(&octets);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_version_and_variant_and_differ() {
        let (first, second) = (uuid_v7(), uuid_v7());
        assert_ne!(first, second);
        assert_eq!(first.len(), 36);
        assert_eq!(first.as_bytes()[14], b'7');
        assert!(matches!(first.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert!(first[..13] <= second[..13], "sorted by time");
    }

    #[test]
    fn digest_is_sha_256() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
