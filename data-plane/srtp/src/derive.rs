//! Session keys from a master key (RFC 3711 4.3, RFC 6188 3, RFC 7714 11), with a key derivation rate
//! of zero: each is derived once.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};

/// What a session key is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Label {
    RtpEncryption = 0,
    RtpAuthentication = 1,
    RtpSalt = 2,
    RtcpEncryption = 3,
    RtcpAuthentication = 4,
    RtcpSalt = 5,
}

/// AES in counter mode; the key tells which. `None`: neither 16 nor 32 octets.
pub(crate) fn counter_mode(key: &[u8]) -> Option<EncryptingKey> {
    let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
    EncryptingKey::ctr(UnboundCipherKey::new(algorithm, key).ok()?).ok()
}

/// Exclusive or of `data` and the key stream that starts at `counter`.
pub(crate) fn apply(cipher: &EncryptingKey, counter: [u8; 16], data: &mut [u8]) -> Option<()> {
    cipher.less_safe_encrypt(data, EncryptionContext::Iv128(counter.into())).ok().map(|_| ())
}

/// Fills `out` with the session key of `label`.
pub(crate) fn derive(
    master: &EncryptingKey,
    master_salt: &[u8],
    label: Label,
    out: &mut [u8],
) -> Option<()> {
    let mut counter = [0; 16];
    for (octet, salt) in counter.iter_mut().zip(master_salt) {
        *octet = *salt;
    }
    // The label stands 48 bits above the end of the 112-bit salt.
    let [_, _, _, _, _, _, _, at, ..] = &mut counter;
    *at ^= label as u8;
    out.fill(0);
    apply(master, counter, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::{hex, vectors};

    /// RFC 3711 B.2, RFC 6188 7.1 (AES-192 of 7.3 is no suite of ours).
    #[test]
    fn the_key_stream_is_that_of_the_standards() {
        let mut checked = 0;
        for vector in vectors("aes-cm-keystream") {
            let key = hex(&vector["session_key"]);
            if key.len() == 24 {
                continue;
            }
            let cipher = counter_mode(&key).unwrap();
            for block in vector["blocks"].as_array().unwrap() {
                let counter: [u8; 16] = hex(&block["counter"]).try_into().unwrap();
                let mut stream = [0; 16];
                apply(&cipher, counter, &mut stream).unwrap();
                assert_eq!(stream.to_vec(), hex(&block["keystream"]));
                checked += 1;
            }
        }
        assert_eq!(checked, 12);
    }

    /// RFC 3711 B.3, RFC 6188 7.2.
    #[test]
    fn session_keys_are_those_of_the_standards() {
        let mut checked = 0;
        for vector in vectors("kdf-aes-cm-prf") {
            let key = hex(&vector["master_key"]);
            if key.len() == 24 {
                continue;
            }
            let cipher = counter_mode(&key).unwrap();
            let salt = hex(&vector["master_salt"]);
            for (name, label) in [
                ("cipher_key", Label::RtpEncryption),
                ("auth_key", Label::RtpAuthentication),
                ("cipher_salt", Label::RtpSalt),
            ] {
                let Some(output) = vector["outputs"].get(name) else { continue };
                let expected = hex(&output["value"]);
                let mut derived = vec![0xee; expected.len()];
                derive(&cipher, &salt, label, &mut derived).unwrap();
                assert_eq!(derived, expected, "{} {name}", vector["source"]);
                checked += 1;
            }
        }
        assert_eq!(checked, 6);
    }
}
