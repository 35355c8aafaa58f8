//! Streams as networks deliver them: lost, reordered, repeated, forged, across wraps and rekeying.

mod common;

use std::collections::BTreeSet;

use common::{key, open_rtcp, open_rtp, pair, rtcp, rtp, seal_rtcp, seal_rtp};
use proptest::prelude::*;
use ravelin_srtp::{
    Keys, Master, Mki, Opener, Refusal, Sealer, Suite,
    limits::{REPLAY_WINDOW, SOURCES_MAX},
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Packets from somewhere near a wrap, some lost, displaced by less than the window, some twice:
    /// each that arrives opens once, and to what it was.
    #[test]
    fn every_packet_opens_once(
        suite in 0..Suite::ALL.len(),
        before_wrap in 0_u32..400,
        rollovers in 0_u32..3,
        fates in prop::collection::vec((0_u8..10, 0_u64..REPLAY_WINDOW / 2), 300..700),
    ) {
        let suite = Suite::ALL[suite];
        let (mut sealer, mut opener) = pair(suite, 1);
        // Let both get to the rollover counter in big steps.
        let first = (rollovers << 16 | 0xffff) - before_wrap;
        let mut arrivals = Vec::new();
        for index in (0..first).step_by(20_000).chain(first..first + fates.len() as u32) {
            let packet = rtp(42, index as u16, &index.to_be_bytes());
            let sealed = seal_rtp(&mut sealer, &packet).unwrap();
            match index.checked_sub(first) {
                None => prop_assert_eq!(open_rtp(&mut opener, &sealed).unwrap(), packet),
                Some(at) => {
                    let (fate, shift) = fates[at as usize];
                    if fate > 0 {
                        arrivals.push((u64::from(index) + shift, packet.clone(), sealed.clone()));
                    }
                    if fate > 7 {
                        arrivals.push((u64::from(index) + 40, packet, sealed));
                    }
                }
            }
        }
        arrivals.sort_by_key(|(due, _, _)| *due);
        let mut seen = BTreeSet::new();
        for (_, packet, sealed) in arrivals {
            let index = u32::from_be_bytes(packet[12..16].try_into().unwrap());
            if seen.insert(index) {
                prop_assert_eq!(open_rtp(&mut opener, &sealed).unwrap(), packet);
            } else {
                prop_assert_eq!(open_rtp(&mut opener, &sealed), Err(Refusal::Replay));
            }
        }
    }

    /// Whatever comes, an opener that heard of nothing yet takes nothing of it, and a stream goes on.
    #[test]
    fn arbitrary_octets_change_nothing(
        suite in 0..Suite::ALL.len(),
        octets in prop::collection::vec(any::<u8>(), 0..120),
        header in prop::option::of(any::<u16>()),
    ) {
        let (mut sealer, mut opener) = pair(Suite::ALL[suite], 2);
        let first = seal_rtp(&mut sealer, &rtp(42, 65_000, b"one")).unwrap();
        open_rtp(&mut opener, &first).unwrap();
        let mut forged = octets;
        if let Some(sequence) = header {
            let mut packet = rtp(42, sequence, &forged);
            std::mem::swap(&mut forged, &mut packet);
        }
        prop_assert!(open_rtp(&mut opener, &forged).is_err());
        prop_assert!(open_rtcp(&mut opener, &forged).is_err());
        prop_assert_eq!(opener.sources(), 1);
        for sequence in [65_001, 64_990, 65_535, 3] {
            let packet = rtp(42, sequence, b"two");
            let sealed = seal_rtp(&mut sealer, &packet).unwrap();
            prop_assert_eq!(open_rtp(&mut opener, &sealed).unwrap(), packet);
        }
    }
}

/// lessons.md 2.19: a hundred of them once ended a call.
#[test]
fn a_million_bad_packets_change_nothing() {
    let suite = Suite::AesCm128HmacSha1_32;
    let (mut sealer, mut opener) = pair(suite, 4);
    let good = seal_rtp(&mut sealer, &rtp(5, 100, &[1; 8])).unwrap();
    open_rtp(&mut opener, &good).unwrap();
    let mut forged = seal_rtp(&mut pair(suite, 5).0, &rtp(5, 101, &[1; 8])).unwrap();
    let left = opener.rtp_left();
    let mut refused = 0_u32;
    for count in 0..1_000_000_u32 {
        let sequence = (101 + count / 16) as u16;
        forged[2..4].copy_from_slice(&sequence.to_be_bytes());
        forged[12] = count as u8;
        let refusal = open_rtp(&mut opener, &forged).unwrap_err();
        refused += u32::from(matches!(refusal, Refusal::Authentication | Refusal::Replay));
    }
    assert_eq!(refused, 1_000_000);
    assert_eq!((opener.rtp_left(), opener.sources()), (left, 1));
    let next = rtp(5, 101, &[2; 8]);
    let sealed = seal_rtp(&mut sealer, &next).unwrap();
    assert_eq!(open_rtp(&mut opener, &sealed).unwrap(), next);
}

#[test]
fn sequence_numbers_wrap_in_any_order() {
    for suite in Suite::ALL {
        let (mut sealer, mut opener) = pair(*suite, 6);
        let order = [65_534, 65_535, 0, 1, 65_533, 2];
        let sealed: Vec<_> = order
            .iter()
            .map(|sequence| seal_rtp(&mut sealer, &rtp(9, *sequence, b"x")).unwrap())
            .collect();
        for at in [2_usize, 0, 5, 1, 4, 3] {
            // Before any packet was heard, 0 is taken for the first; then 65,534 is before the
            // beginning of the stream.
            if at == 2 {
                continue;
            }
            assert!(open_rtp(&mut opener, &sealed[at]).is_ok(), "{suite} {at}");
            assert_eq!(open_rtp(&mut opener, &sealed[at]), Err(Refusal::Replay));
        }
        assert!(open_rtp(&mut opener, &sealed[2]).is_ok());
    }
}

/// RFC 4568 6.4: the first packets of a stream were lost, and the wrap with them.
#[test]
fn a_stream_heard_late_is_found_behind_its_first_wrap() {
    for suite in Suite::ALL {
        let (mut sealer, mut opener) = pair(*suite, 7);
        seal_rtp(&mut sealer, &rtp(9, 65_500, b"lost")).unwrap();
        let packet = rtp(9, 20, b"heard");
        let sealed = seal_rtp(&mut sealer, &packet).unwrap();
        assert_eq!(open_rtp(&mut opener, &sealed).unwrap(), packet);
        let packet = rtp(9, 65_510, b"late");
        let sealed = seal_rtp(&mut sealer, &packet).unwrap();
        assert_eq!(open_rtp(&mut opener, &sealed).unwrap(), packet);
    }
}

/// No two packets are ever sealed under one index: not the same sequence number again, nor one that
/// is too old to tell.
#[test]
fn nothing_is_sealed_twice() {
    for suite in Suite::ALL {
        let (mut sealer, _) = pair(*suite, 8);
        let order = [10_u16, 11, 10, 500, 372, 373, 371, 11, 500, 501];
        let sealed =
            order.map(|sequence| seal_rtp(&mut sealer, &rtp(1, sequence, b"payload")).map(|_| ()));
        let again = Err(Refusal::Replay);
        let expected = [Ok(()), Ok(()), again, Ok(()), again, Ok(()), again, again, again, Ok(())];
        assert_eq!(sealed, expected);
        // SRTCP numbers its packets itself.
        let sealed: BTreeSet<_> =
            (0..50).map(|_| seal_rtcp(&mut sealer, &rtcp(1, b"abcdef")).unwrap()).collect();
        assert_eq!(sealed.len(), 50);
    }
}

/// A source that begins anew under its SSRC, from any number to any other: all but its first packet
/// go on, and whoever heard it before goes on hearing it.
#[test]
fn a_source_that_begins_anew_is_numbered_on() {
    for suite in Suite::ALL {
        let (mut sealer, mut opener) = pair(*suite, 14);
        let mut used = BTreeSet::new();
        let mut expected = 60_000_u16;
        for (run, first) in [60_000, 100, 40_000, 39_000, 6_500, 60_000, 20_000, 19_800, 65_500]
            .into_iter()
            .enumerate()
        {
            let mut lost = 0;
            for count in 0..300_u16 {
                let packet = rtp(1, first + count % 35, &[run as u8; 20]);
                let mut packet = packet;
                let number = first.wrapping_add(count);
                packet[2..4].copy_from_slice(&number.to_be_bytes());
                let Ok(sealed) = seal_rtp(&mut sealer, &packet) else {
                    lost += 1;
                    continue;
                };
                let opened = open_rtp(&mut opener, &sealed).unwrap();
                assert_eq!(opened[4..], packet[4..], "{suite} {run} {count}");
                assert_eq!(opened[..2], packet[..2]);
                assert!(used.insert((sealed[2..4].to_vec(), sealed[12..].to_vec())));
                let number = u16::from_be_bytes([opened[2], opened[3]]);
                // Within a run nothing is missing, and the first one begins as it says.
                if count > 1 || run == 0 {
                    assert_eq!(number, expected, "{suite} {run} {count}");
                }
                expected = number.wrapping_add(1);
            }
            assert!(lost <= 1, "{suite} {run}: {lost} lost");
        }
    }
}

/// Two packets far behind that do not follow each other are late, and no new beginning; nor is the
/// same one twice.
#[test]
fn late_packets_are_no_new_beginning() {
    let (mut sealer, _) = pair(Suite::AeadAes128Gcm, 15);
    let mut seal = |number| seal_rtp(&mut sealer, &rtp(1, number, b"x")).map(|sealed| sealed[3]);
    assert_eq!(seal(1_000), Ok(1_000_u16 as u8));
    for number in [500, 502, 502, 600, 599, 501] {
        assert_eq!(seal(number), Err(Refusal::Replay));
    }
    assert_eq!(seal(1_001), Ok(1_001_u16 as u8));
}

/// A sender that jumps ahead by more than half the numbers, or was not heard for so long: the first
/// index ahead is tried. What was recorded stays out.
#[test]
fn an_opener_follows_a_jump_ahead_and_no_jump_back() {
    for suite in Suite::ALL {
        let (_, mut opener) = pair(*suite, 16);
        let keys = Keys::single(key(*suite, 16));
        let mut recorded = Vec::new();
        for first in [100_u16, 50_000, 20_000, 60_000] {
            // A context of its own each time, as of a sender that starts again and counts on.
            let mut sealer = Sealer::new(&keys);
            if first < 50_000 && !recorded.is_empty() {
                seal_rtp(&mut sealer, &rtp(1, 65_000, b"unheard")).unwrap();
            }
            if first == 60_000 {
                seal_rtp(&mut sealer, &rtp(1, 65_000, b"unheard")).unwrap();
                seal_rtp(&mut sealer, &rtp(1, 20_100, b"unheard")).unwrap();
                seal_rtp(&mut sealer, &rtp(1, 50_000, b"unheard")).unwrap();
            }
            for sequence in first..first + 200 {
                let packet = rtp(1, sequence, b"payload");
                let sealed = seal_rtp(&mut sealer, &packet).unwrap();
                assert_eq!(open_rtp(&mut opener, &sealed).unwrap(), packet, "{suite} {sequence}");
                recorded.push(sealed);
            }
        }
        for sealed in &recorded {
            assert!(open_rtp(&mut opener, sealed).is_err());
        }
        // Back under the same rollover counter: what may have been used is not used again.
        let mut sealer = Sealer::new(&keys);
        let sealed = seal_rtp(&mut sealer, &rtp(1, 40_000, b"payload")).unwrap();
        assert!(open_rtp(&mut opener, &sealed).is_err());
    }
}

#[test]
fn sources_have_their_own_counters_and_are_bounded() {
    let (mut sealer, mut opener) = pair(Suite::AeadAes128Gcm, 9);
    for round in 0..3 {
        for ssrc in 0..SOURCES_MAX as u32 {
            let packet = rtp(ssrc, (ssrc as u16) << 4 | round, b"x");
            let sealed = seal_rtp(&mut sealer, &packet).unwrap();
            assert_eq!(open_rtp(&mut opener, &sealed).unwrap(), packet);
        }
    }
    assert_eq!(opener.sources(), SOURCES_MAX);
    let packet = rtp(u32::MAX, 1, b"x");
    assert_eq!(seal_rtp(&mut sealer, &packet), Err(Refusal::Sources));
    let (mut other, _) = pair(Suite::AeadAes128Gcm, 9);
    let sealed = seal_rtp(&mut other, &packet).unwrap();
    assert_eq!(open_rtp(&mut opener, &sealed), Err(Refusal::Sources));
    for ssrc in 0..=SOURCES_MAX as u32 {
        let sealed = seal_rtcp(&mut sealer, &rtcp(ssrc, b"abcdef")).unwrap();
        let opened = open_rtcp(&mut opener, &sealed);
        assert_eq!(opened.is_ok(), ssrc < SOURCES_MAX as u32);
        if ssrc == SOURCES_MAX as u32 {
            assert_eq!(opened, Err(Refusal::Sources));
        }
    }
    // Those that are known go on.
    let sealed = seal_rtp(&mut sealer, &rtp(3, 60, b"x")).unwrap();
    assert!(open_rtp(&mut opener, &sealed).is_ok());
}

#[test]
fn control_packets_are_protected_and_open_once() {
    for suite in Suite::ALL {
        for unencrypted in [false, true] {
            let mut keys = Keys::single(key(*suite, 10));
            keys.unencrypted_rtcp = unencrypted;
            let (mut sealer, mut opener) = (Sealer::new(&keys), Opener::new(&keys));
            let packet = rtcp(5, b"secret");
            let sealed: Vec<_> =
                (0..200).map(|_| seal_rtcp(&mut sealer, &packet).unwrap()).collect();
            let shows = sealed[0].windows(6).any(|part| part == b"secret");
            assert_eq!(shows, unencrypted);
            for at in [0, 3, 1, 2, 199, 198, 72] {
                assert_eq!(open_rtcp(&mut opener, &sealed[at]).unwrap(), packet, "{suite} {at}");
                assert_eq!(open_rtcp(&mut opener, &sealed[at]), Err(Refusal::Replay));
            }
            assert_eq!(open_rtcp(&mut opener, &sealed[71]), Err(Refusal::Replay), "too old");
            for at in 0..sealed[150].len() {
                let mut forged = sealed[150].clone();
                forged[at] ^= 1;
                assert!(open_rtcp(&mut opener, &forged).is_err(), "{suite} {at}");
            }
            assert!(open_rtcp(&mut opener, &sealed[150]).is_ok());
        }
    }
}

fn masters(suite: Suite, lifetime: Option<u64>) -> Keys {
    let of = |id: u8| Master { key: key(suite, id), mki: Mki::new(u64::from(id), 3), lifetime };
    Keys::several([of(1), of(2), of(3)]).unwrap()
}

#[test]
fn the_identifier_tells_the_master_key() {
    for suite in Suite::ALL {
        let keys = masters(*suite, None);
        let mut opener = Opener::new(&keys);
        for (at, master) in keys.masters().iter().enumerate() {
            let mut sealer = Sealer::new(&Keys::several([master.clone()]).unwrap());
            let packet = rtp(1, at as u16, b"payload");
            let sealed = seal_rtp(&mut sealer, &packet).unwrap();
            assert_eq!(sealed.len(), packet.len() + 3 + suite.rtp_tag_bytes());
            assert_eq!(open_rtp(&mut opener, &sealed).unwrap(), packet);
            let report = rtcp(1 + at as u32, b"abcdef");
            let sealed = seal_rtcp(&mut sealer, &report).unwrap();
            assert_eq!(open_rtcp(&mut opener, &sealed).unwrap(), report);
        }
        let stranger = Master { key: key(*suite, 1), mki: Mki::new(9, 3), lifetime: None };
        let mut sealer = Sealer::new(&Keys::several([stranger]).unwrap());
        let sealed = seal_rtp(&mut sealer, &rtp(1, 50, b"payload")).unwrap();
        assert_eq!(open_rtp(&mut opener, &sealed), Err(Refusal::MasterKey));
        let sealed = seal_rtcp(&mut sealer, &rtcp(1, b"abcdef")).unwrap();
        assert_eq!(open_rtcp(&mut opener, &sealed), Err(Refusal::MasterKey));
    }
}

/// RFC 3711 9.2, RFC 4568 6.1: the next master key takes over; after the last one nothing is sealed
/// or opened, and nothing is sealed in the clear.
#[test]
fn a_spent_key_is_never_used_again() {
    for suite in Suite::ALL {
        let keys = masters(*suite, Some(5));
        let (mut sealer, mut opener) = (Sealer::new(&keys), Opener::new(&keys));
        let mut identifiers = Vec::new();
        for sequence in 0..15 {
            let packet = rtp(1, sequence, b"payload");
            let sealed = seal_rtp(&mut sealer, &packet).unwrap();
            let mki_end =
                if suite.is_aead() { sealed.len() } else { sealed.len() - suite.rtp_tag_bytes() };
            identifiers.push(sealed[mki_end - 1]);
            assert_eq!(open_rtp(&mut opener, &sealed).unwrap(), packet);
            let report = rtcp(1, b"abcdef");
            let sealed = seal_rtcp(&mut sealer, &report).unwrap();
            assert_eq!(open_rtcp(&mut opener, &sealed).unwrap(), report);
        }
        assert_eq!(identifiers, [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3]);
        assert_eq!((sealer.rtp_left(), sealer.rtcp_left(), opener.rtp_left()), (0, 0, 0));
        assert_eq!(seal_rtp(&mut sealer, &rtp(1, 15, b"payload")), Err(Refusal::Spent));
        assert_eq!(seal_rtcp(&mut sealer, &rtcp(1, b"abcdef")), Err(Refusal::Spent));
        // A peer that goes on regardless is not listened to.
        let mut peer = Sealer::new(&masters(*suite, None));
        let sealed = seal_rtp(&mut peer, &rtp(1, 16, b"payload")).unwrap();
        assert_eq!(open_rtp(&mut opener, &sealed), Err(Refusal::Spent));
        let mut reports = (0..16).map(|_| seal_rtcp(&mut peer, &rtcp(1, b"abcdef")).unwrap());
        assert_eq!(open_rtcp(&mut opener, &reports.nth(15).unwrap()), Err(Refusal::Spent));
    }
}

/// RFC 3711 3.3.1 lets the rollover counter go on under a new key, RFC 4568 7.1.4 begins it anew: a
/// peer that does either is understood.
#[test]
fn new_keys_with_either_rollover_counter() {
    for suite in Suite::ALL {
        for goes_on in [false, true] {
            let (mut sealer, mut opener) = pair(*suite, 11);
            for index in (65_000..200_000_u32).step_by(5_000) {
                let sealed = seal_rtp(&mut sealer, &rtp(1, index as u16, b"old")).unwrap();
                open_rtp(&mut opener, &sealed).unwrap();
            }
            let keys = Keys::single(key(*suite, 12));
            let mut opener = Opener::following(&opener, &keys);
            let mut sealer = Sealer::new(&keys);
            if goes_on {
                // Brings the new sealer to the rollover counter of the old one.
                for index in (65_000..200_000_u32).step_by(5_000) {
                    seal_rtp(&mut sealer, &rtp(1, index as u16, b"unheard")).unwrap();
                }
            }
            for sequence in 200_000_u32..200_010 {
                let packet = rtp(1, sequence as u16, b"new");
                let sealed = seal_rtp(&mut sealer, &packet).unwrap();
                assert_eq!(open_rtp(&mut opener, &sealed).unwrap(), packet, "{suite} {goes_on}");
                assert_eq!(open_rtp(&mut opener, &sealed), Err(Refusal::Replay));
            }
        }
    }
}

#[test]
fn lengths_at_every_edge() {
    for suite in Suite::ALL {
        let keys =
            Keys::several([Master { key: key(*suite, 13), mki: Mki::new(1, 128), lifetime: None }])
                .unwrap();
        let (mut sealer, mut opener) = (Sealer::new(&keys), Opener::new(&keys));
        let packet = rtp(1, 1, b"");
        let mut small = packet.clone();
        small.resize(packet.len() + sealer.rtp_overhead() - 1, 0);
        assert_eq!(sealer.seal_rtp(&mut small, packet.len()), Err(Refusal::Room));
        assert_eq!(sealer.seal_rtp(&mut small, 11), Err(Refusal::Malformed));
        assert_eq!(sealer.seal_rtp(&mut small, 10_000), Err(Refusal::Room));
        assert_eq!(sealer.seal_rtcp(&mut small, 7), Err(Refusal::Malformed));
        let sealed = seal_rtp(&mut sealer, &packet).unwrap();
        for length in 0..sealed.len() {
            assert!(open_rtp(&mut opener, &sealed[..length]).is_err());
        }
        let mut short = vec![0; sealed.len() - 1];
        assert_eq!(opener.open_rtp(&sealed, &mut short), Err(Refusal::Room));
        assert_eq!(open_rtp(&mut opener, &sealed).unwrap(), packet);
        let sealed = seal_rtcp(&mut sealer, &rtcp(1, b"abcdef")).unwrap();
        for length in 0..sealed.len() {
            assert!(open_rtcp(&mut opener, &sealed[..length]).is_err());
        }
        assert!(open_rtcp(&mut opener, &sealed).is_ok());
    }
}

/// Keys are nowhere in what is shown of a value.
#[test]
fn nothing_shows_a_key() {
    for suite in Suite::ALL {
        let keys = masters(*suite, Some(7));
        let shown = format!("{keys:?} {:?} {:?}", Sealer::new(&keys), Opener::new(&keys));
        for master in keys.masters() {
            let octets = master.key.key_and_salt();
            let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
            let list = format!("{octets:?}");
            assert!(!shown.contains(&hex[..8]) && !shown.contains(&list[1..12]), "{shown}");
        }
    }
}
