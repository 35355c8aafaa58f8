use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::refusal::Refusal;

fn suite() -> impl Strategy<Value = Suite> {
    prop::sample::select(Suite::ALL)
}

fn keys() -> impl Strategy<Value = Keys> {
    let master = (any::<[u8; 46]>(), option::of(1_u64..1 << 48));
    (suite(), vec(master, 1..=MASTER_KEYS_MAX), 1..=128_usize, any::<bool>()).prop_map(
        |(suite, masters, mki_bytes, unencrypted)| {
            let named = masters.len() > 1 || mki_bytes % 2 == 0;
            let masters = (1..).zip(masters).map(|(number, (octets, lifetime))| Master {
                key: MasterKey::new(suite, &octets[..suite.keying_bytes()]).unwrap(),
                mki: named.then(|| Mki::new(number, mki_bytes).unwrap()),
                lifetime,
            });
            let mut keys = Keys::several(masters).unwrap();
            keys.unencrypted_rtcp = unencrypted;
            keys
        },
    )
}

fn rtp(ssrc: u32, sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 1]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0x55; 20]);
    packet
}

fn rtcp(ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend(ssrc.to_be_bytes());
    packet
}

fn seal(sealer: &mut Sealer, mut packet: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    let length = packet.len();
    packet.resize(length + crate::limits::OVERHEAD_MAX, 0);
    let sealed = match packet[1] {
        201 => sealer.seal_rtcp(&mut packet, length),
        _ => sealer.seal_rtp(&mut packet, length),
    };
    sealed.map(|length| packet[..length].to_vec())
}

fn open(opener: &mut Opener, packet: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut out = vec![0; packet.len()];
    let is_rtcp = packet[1] == 201;
    let opened = match is_rtcp {
        true => opener.open_rtcp(packet, &mut out),
        false => opener.open_rtp(packet, &mut out),
    };
    opened.map(|length| out[..length].to_vec())
}

fn sealer_again(sealer: &Sealer, keys: &Keys) -> Sealer {
    let mut record = Vec::new();
    sealer.save(&mut record);
    let mut rest = &record[..];
    let loaded = Sealer::load(keys, &mut rest).unwrap();
    assert!(rest.is_empty());
    loaded
}

proptest! {
    #[test]
    fn keys_come_back_as_they_were_and_nothing_less_is_taken_for_keys(keys in keys()) {
        let mut bytes = Vec::new();
        keys.save(&mut bytes);
        for length in 0..bytes.len() {
            prop_assert_eq!(Keys::load(&mut &bytes[..length]), None);
        }
        bytes.push(7);
        let mut rest = &bytes[..];
        prop_assert_eq!(Keys::load(&mut rest), Some(keys));
        prop_assert_eq!(rest, [7]);
    }

    /// Whatever was sent after the record, as long as the record claimed it, no index comes again.
    #[test]
    fn no_index_is_used_again_after_the_end_of_the_process(
        suite in suite(),
        first in any::<u16>(),
        before in 1_u16..300,
        unrecorded in 0..=RTP_LEAD as u16,
        steps in vec(0_u16..80, 1..40),
    ) {
        let octets = [9; 46];
        let keys = Keys::single(MasterKey::new(suite, &octets[..suite.keying_bytes()]).unwrap());
        let mut sealer = Sealer::new(&keys);
        let mut opener = Opener::new(&keys);
        let mut used = std::collections::BTreeMap::new();
        let mut sequence = first;
        for _ in 0..before {
            sequence = sequence.wrapping_add(1);
            let sealed = seal(&mut sealer, rtp(7, sequence)).unwrap();
            open(&mut opener, &sealed).unwrap();
            open(&mut opener, &seal(&mut sealer, rtcp(7)).unwrap()).unwrap();
        }
        let highest = |sealer: &Sealer| sealer.sources.find(7).unwrap().highest();
        let mut later = sealer_again(&sealer, &keys);
        sealer.kept();
        for at in 1..=unrecorded {
            let sealed = seal(&mut sealer, rtp(7, sequence.wrapping_add(at))).unwrap();
            used.insert(highest(&sealer), sealed);
            seal(&mut sealer, rtcp(7)).unwrap();
        }
        prop_assert!(!sealer.take_outrun());
        let recorded = sequence;
        for (at, step) in steps.into_iter().enumerate() {
            sequence = sequence.wrapping_add(step);
            match seal(&mut later, rtp(7, sequence)) {
                Ok(sealed) => {
                    prop_assert!(!used.contains_key(&highest(&later)));
                    // The party goes on where it was: its rollover counter fits.
                    prop_assert_eq!(open(&mut opener, &sealed), Ok(rtp(7, sequence)));
                }
                Err(Refusal::Replay) => {
                    let claimed = u64::from(sequence.wrapping_sub(recorded)) <= RTP_LEAD;
                    prop_assert!(claimed || (at > 0 && step == 0));
                }
                Err(other) => prop_assert!(false, "{other:?}"),
            }
            prop_assert!(later.rtcp_index > u64::from(before) + u64::from(unrecorded) - 1);
            open(&mut opener, &seal(&mut later, rtcp(7)).unwrap()).unwrap();
        }
    }

    /// What was taken is not taken again, and rollover counters go on.
    #[test]
    fn an_opener_goes_on_where_its_record_was(
        keys in keys(),
        first in any::<u16>(),
        packets in 1_u16..400,
    ) {
        let mut sealer = Sealer::new(&keys);
        let mut opener = Opener::new(&keys);
        let mut last = Vec::new();
        for at in 0..packets {
            let Ok(sealed) = seal(&mut sealer, rtp(7, first.wrapping_add(at))) else { break };
            if open(&mut opener, &sealed).is_err() {
                break;
            }
            last = sealed;
        }
        let mut record = Vec::new();
        opener.save(&mut record);
        for length in 0..record.len() {
            prop_assert!(Opener::load(&keys, &mut &record[..length]).is_none());
        }
        let mut later = Opener::load(&keys, &mut &record[..]).unwrap();
        prop_assert_eq!(later.rtp_left(), opener.rtp_left());
        let windows = |of: &Opener| of.rtp.windows().map(|(s, w)| (s, *w)).collect::<Vec<_>>();
        prop_assert_eq!(windows(&later), windows(&opener));
        if !last.is_empty() {
            prop_assert_eq!(open(&mut later, &last), open(&mut opener, &last));
        }
    }
}

/// What came after the record is not known; behind the first packet beyond it, nothing of it passes.
#[test]
fn what_came_after_the_record_is_not_taken_again_behind_the_next_packet() {
    let keys = Keys::single(MasterKey::new(Suite::AeadAes128Gcm, &[1; 28]).unwrap());
    for gap in [1, 5, 100, 300_u16] {
        let (mut sealer, mut opener) = (Sealer::new(&keys), Opener::new(&keys));
        let late = seal(&mut sealer, rtp(7, 9)).unwrap();
        open(&mut opener, &seal(&mut sealer, rtp(7, 10)).unwrap()).unwrap();
        open(&mut opener, &seal(&mut sealer, rtcp(7)).unwrap()).unwrap();
        let mut record = Vec::new();
        opener.save(&mut record);
        let mut unrecorded = Vec::new();
        for at in 1..=gap {
            unrecorded.push(seal(&mut sealer, rtp(7, 10 + at)).unwrap());
            unrecorded.push(seal(&mut sealer, rtcp(7)).unwrap());
        }
        unrecorded.iter().for_each(|packet| drop(open(&mut opener, packet).unwrap()));
        let mut later = Opener::load(&keys, &mut &record[..]).unwrap();
        for next in [rtp(7, 11 + gap), rtcp(7), rtp(7, 12 + gap)] {
            let sealed = seal(&mut sealer, next).unwrap();
            open(&mut later, &sealed).unwrap();
        }
        for packet in &unrecorded {
            assert_eq!(open(&mut later, packet), Err(Refusal::Replay), "{gap}");
        }
        // Late, and known not to have come: as ever.
        assert_eq!(open(&mut later, &late).is_ok(), gap < 120, "{gap}");
        let behind = seal(&mut sealer, rtp(7, 20 + gap)).unwrap();
        let ahead = seal(&mut sealer, rtp(7, 21 + gap)).unwrap();
        assert!(open(&mut later, &ahead).is_ok() && open(&mut later, &behind).is_ok());
    }
}

#[test]
fn a_sealer_says_when_it_outruns_its_record() {
    let keys = Keys::single(MasterKey::new(Suite::AeadAes128Gcm, &[1; 28]).unwrap());
    let mut sealer = Sealer::new(&keys);
    seal(&mut sealer, rtp(7, 1)).unwrap();
    assert!(!sealer.take_outrun(), "nobody keeps a record");
    sealer.kept();
    for at in 0..RTP_LEAD as u16 {
        seal(&mut sealer, rtp(7, 2 + at)).unwrap();
    }
    assert!(!sealer.take_outrun(), "the record claims them");
    seal(&mut sealer, rtp(7, 2 + RTP_LEAD as u16)).unwrap();
    assert!(sealer.take_outrun());
    assert!(!sealer.take_outrun());
    seal(&mut sealer, rtp(8, 1)).unwrap();
    assert!(sealer.take_outrun(), "a source of which no record tells");
    sealer.kept();
    for _ in 0..RTCP_LEAD {
        seal(&mut sealer, rtcp(7)).unwrap();
    }
    assert!(!sealer.take_outrun());
    seal(&mut sealer, rtcp(7)).unwrap();
    assert!(sealer.take_outrun());
    sealer.not_kept();
    seal(&mut sealer, rtp(9, 1)).unwrap();
    assert!(!sealer.take_outrun());
}
