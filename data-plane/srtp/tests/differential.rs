//! Against an independent implementation (webrtc-srtp, on RustCrypto), in both directions.

mod common;

use common::{key, open_rtcp, open_rtp, pair, rtcp, rtp, seal_rtcp, seal_rtp};
use proptest::prelude::*;
use ravelin_srtp::Suite;
use webrtc_srtp::{context::Context, protection_profile::ProtectionProfile};

fn peer(suite: Suite, seed: u8) -> Context {
    let profile = match suite {
        Suite::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        Suite::AesCm128HmacSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
        Suite::AesCm256HmacSha1_80 => ProtectionProfile::Aes256CmHmacSha1_80,
        Suite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Suite::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
    };
    let key = key(suite, seed);
    let (key, salt) = key.key_and_salt().split_at(suite.key_bytes());
    Context::new(key, salt, profile, None, None).unwrap()
}

/// Over two wraps of the sequence number, with payloads of all small lengths, an extension and
/// contributing sources.
#[test]
fn streams_agree_over_rollovers() {
    for suite in Suite::ALL {
        let (mut sealer, mut opener) = pair(*suite, 3);
        let (mut their_sealer, mut their_opener) = (peer(*suite, 3), peer(*suite, 3));
        for index in (0..140_000_u32).step_by(97) {
            let sequence = index as u16;
            let payload = vec![index as u8; index as usize % 180];
            let mut packet = rtp(0xcafe_0001, sequence, &payload);
            if index % 3 == 1 {
                packet[0] |= 0x11;
                packet.splice(12..12, [9, 9, 9, 9, 0x12, 0x34, 0, 1, 1, 2, 3, 4]);
            }
            let ours = seal_rtp(&mut sealer, &packet).unwrap();
            let theirs = their_sealer.encrypt_rtp(&packet).unwrap();
            assert_eq!(ours, theirs, "{suite} {index}");
            assert_eq!(open_rtp(&mut opener, &theirs).unwrap(), packet, "{suite} {index}");
            assert_eq!(their_opener.decrypt_rtp(&ours).unwrap(), packet, "{suite} {index}");
        }
    }
}

#[test]
fn control_packets_agree() {
    for suite in Suite::ALL {
        let (mut sealer, mut opener) = pair(*suite, 5);
        let (mut their_sealer, mut their_opener) = (peer(*suite, 5), peer(*suite, 5));
        for count in 0..300_u32 {
            let packet = rtcp(77 + count % 2, b"abcdef");
            let ours = seal_rtcp(&mut sealer, &packet).unwrap();
            assert_eq!(their_opener.decrypt_rtcp(&ours).unwrap(), packet, "{suite} {count}");
            let theirs = their_sealer.encrypt_rtcp(&packet).unwrap();
            assert_eq!(theirs.len(), ours.len());
            assert_eq!(open_rtcp(&mut opener, &theirs).unwrap(), packet, "{suite} {count}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// One octet of what the other sealed is changed: neither opens it, except where the change is
    /// none.
    #[test]
    fn neither_opens_what_was_changed(
        suite in 0..Suite::ALL.len(),
        sequence: u16,
        length in 0_usize..200,
        at: prop::sample::Index,
        change in 1_u8..,
    ) {
        let suite = Suite::ALL[suite];
        let packet = rtp(1, sequence, &vec![7; length]);
        let mut protected = peer(suite, 9).encrypt_rtp(&packet).unwrap().to_vec();
        let at = at.index(protected.len());
        protected[at] ^= change;
        let (_, mut opener) = pair(suite, 9);
        prop_assert!(open_rtp(&mut opener, &protected).is_err());
        prop_assert_eq!(opener.sources(), 0);
        prop_assert!(peer(suite, 9).decrypt_rtp(&protected).is_err());
    }
}
