//! Whole packets from RFC 7714 16 and 17 and from libsrtp's own test, in `tests/conformance/srtp`.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, LessSafeKey, UnboundKey};

use crate::{
    Keys, Master, MasterKey, Mki, Opener, Refusal, Sealer, Suite,
    packet::tests::{hex, vectors},
    transform::{Session, Transform},
};

/// The session keys of RFC 7714's examples are given as such, not derived.
fn gcm(vector: &serde_json::Value) -> Session {
    let key = hex(&vector["key"]);
    let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
    let made = || Transform::Gcm {
        key: LessSafeKey::new(UnboundKey::new(algorithm, &key).unwrap()),
        salt: hex(&vector["salt"]).try_into().unwrap(),
    };
    Session { rtp: made(), rtcp: made() }
}

fn gcm_keys(vector: &serde_json::Value) -> Keys {
    let long = hex(&vector["key"]).len() == 32;
    let suite = if long { Suite::AeadAes256Gcm } else { Suite::AeadAes128Gcm };
    Keys::single(MasterKey::new(suite, &vec![0; suite.keying_bytes()]).unwrap())
}

fn packets(vector: &serde_json::Value) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let packets = vector["packets"].as_object().unwrap();
    let of = |words: &[&str]| {
        let found = packets.iter().find(|(name, _)| words.contains(&name.as_str()));
        found.map(|(_, text)| hex(text))
    };
    let plain = of(&[
        "Encrypting the following packet",
        "Tagging the following packet",
        "Verified and decrypted packet",
        "Verified packet",
    ]);
    let protected = of(&[
        "Encrypted and tagged packet",
        "Tagged packet",
        "Decrypting the following packet",
        "Verifying the following packet",
    ]);
    (plain, protected)
}

#[test]
fn srtp_of_rfc_7714() {
    let mut checked = 0;
    for vector in vectors("srtp-aead-gcm") {
        let source = vector["source"].as_str().unwrap();
        if source.ends_with(".3") || source.ends_with(".4") {
            // Authentication alone: UNENCRYPTED_SRTP is refused.
            continue;
        }
        let (plain, protected) = packets(&vector);
        let protected = protected.unwrap();
        let plain = plain.unwrap_or_else(|| {
            let mut packet = hex(&vector["aad"]);
            packet.extend(hex(&vector["plaintext"]));
            packet
        });
        let mut sealer = Sealer::new(&gcm_keys(&vector));
        sealer.masters[0].session = gcm(&vector);
        let mut buffer = plain.clone();
        buffer.resize(plain.len() + sealer.rtp_overhead(), 0);
        assert_eq!(sealer.seal_rtp(&mut buffer, plain.len()), Ok(protected.len()));
        assert_eq!(buffer, protected, "{source}");
        let mut opener = Opener::new(&gcm_keys(&vector));
        opener.masters[0].session = gcm(&vector);
        let mut out = vec![0; protected.len()];
        assert_eq!(opener.open_rtp(&protected, &mut out), Ok(plain.len()));
        assert_eq!(out[..plain.len()], plain, "{source}");
        checked += 1;
    }
    assert_eq!(checked, 4);
}

#[test]
fn srtcp_of_rfc_7714() {
    let mut checked = 0;
    for vector in vectors("srtcp-aead-gcm") {
        let source = vector["source"].as_str().unwrap();
        let (plain, protected) = packets(&vector);
        let (plain, protected) = (plain.unwrap(), protected.unwrap());
        let mut keys = gcm_keys(&vector);
        keys.unencrypted_rtcp = source.ends_with(".3") || source.ends_with(".4");
        let mut sealer = Sealer::new(&keys);
        sealer.masters[0].session = gcm(&vector);
        sealer.rtcp_index = 0x5d4;
        let mut buffer = plain.clone();
        buffer.resize(plain.len() + sealer.rtcp_overhead(), 0);
        assert_eq!(sealer.seal_rtcp(&mut buffer, plain.len()), Ok(protected.len()), "{source}");
        assert_eq!(buffer, protected, "{source}");
        let mut opener = Opener::new(&keys);
        opener.masters[0].session = gcm(&vector);
        let mut out = vec![0; protected.len()];
        assert_eq!(opener.open_rtcp(&protected, &mut out), Ok(plain.len()), "{source}");
        assert_eq!(out[..plain.len()], plain, "{source}");
        checked += 1;
    }
    assert_eq!(checked, 4);
}

/// Master keys, derivation, encryption and tag together.
#[test]
fn packets_of_libsrtp() {
    let mut checked = Vec::new();
    for vector in vectors("srtp-packet").into_iter().chain(vectors("srtcp-packet")) {
        let profile = vector["profile"].as_str().unwrap();
        let suite = match profile {
            "AES_CM_128_HMAC_SHA1_80" | "AES_CM_128_HMAC_SHA1_80 with MKI" => {
                Suite::AesCm128HmacSha1_80
            }
            "AES_CM_256_HMAC_SHA1_80" => Suite::AesCm256HmacSha1_80,
            "AEAD_AES_128_GCM" => Suite::AeadAes128Gcm,
            // No suites of ours.
            _ => continue,
        };
        let key = hex(&vector["master_key"]);
        let salt = hex(&vector["master_salt"]);
        let key = MasterKey::of_parts(suite, &key, &salt).unwrap();
        let mki = vector.get("mki").map(|mki| {
            let octets = hex(mki);
            let value = octets.iter().fold(0, |value, octet| value << 8 | u64::from(*octet));
            Mki::new(value, octets.len()).unwrap()
        });
        let keys = Keys::several([Master { key, mki, lifetime: None }]).unwrap();
        let plain = hex(&vector["plaintext_packet"]);
        let protected = hex(&vector["protected_packet"]);
        let (mut sealer, mut opener) = (Sealer::new(&keys), Opener::new(&keys));
        let mut buffer = plain.clone();
        let mut out = vec![0; protected.len()];
        let (sealed, opened);
        if vector["kind"] == "srtp-packet" {
            buffer.resize(plain.len() + sealer.rtp_overhead(), 0);
            sealed = sealer.seal_rtp(&mut buffer, plain.len());
            opened = opener.open_rtp(&protected, &mut out);
        } else {
            sealer.rtcp_index = vector["srtcp_index"].as_u64().unwrap();
            buffer.resize(plain.len() + sealer.rtcp_overhead(), 0);
            sealed = sealer.seal_rtcp(&mut buffer, plain.len());
            opened = opener.open_rtcp(&protected, &mut out);
        }
        assert_eq!(sealed, Ok(protected.len()), "{profile}");
        assert_eq!(buffer, protected, "{profile}");
        assert_eq!(opened, Ok(plain.len()), "{profile}");
        assert_eq!(out[..plain.len()], plain, "{profile}");
        checked.push(profile.to_owned());
    }
    assert_eq!(checked.len(), 7, "{checked:?}");
}

/// The last indices of all: after them the key is spent, whatever its count says.
#[test]
fn no_index_follows_the_last() {
    let key = MasterKey::new(Suite::AeadAes128Gcm, &[9; 28]).unwrap();
    let mut sealer = Sealer::new(&Keys::single(key));
    sealer.sources.mark(7, (1 << 48) - 2);
    let seal = |sealer: &mut Sealer, sequence: u16| {
        let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet.resize(12 + 20 + 16, 1);
        sealer.seal_rtp(&mut packet, 32)
    };
    assert!(seal(&mut sealer, 0xffff).is_ok());
    assert_eq!(seal(&mut sealer, 0), Err(Refusal::Spent));
    assert_eq!(seal(&mut sealer, 0xffff), Err(Refusal::Replay));
    sealer.rtcp_index = (1 << 31) - 1;
    let report = || {
        let mut packet = vec![0x80, 201, 0, 1, 0, 0, 0, 7];
        packet.resize(8 + 20, 0);
        packet
    };
    assert!(sealer.seal_rtcp(&mut report(), 8).is_ok());
    assert_eq!(sealer.seal_rtcp(&mut report(), 8), Err(Refusal::Spent));
    assert_eq!(sealer.rtcp_left(), 0);
}
