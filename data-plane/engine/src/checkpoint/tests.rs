//! Records as octets: what goes in comes out, and nothing else is taken for a record.

use proptest::{collection::vec, option, prelude::*};

use super::{
    LAYOUT, Refused,
    layout::{HEADER_BYTES, Header, Writer, body_hash, seal},
    record::*,
};
use crate::{
    b2bua::dialog::Parts,
    media::{Nat, Remote},
    time::{Instant, Now},
};
use ravelin_contract::cdr::MediaCount;
use std::net::SocketAddr;

/// Everything that a record borrows.
#[derive(Clone, Debug)]
struct Owned {
    texts: Vec<String>,
    octets: Vec<Vec<u8>>,
    addresses: Vec<SocketAddr>,
    numbers: Vec<u64>,
    flags: Vec<bool>,
}

fn owned() -> impl Strategy<Value = Owned> {
    let address = prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port))),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port))),
    ];
    (
        vec("[a-zA-Z0-9é._-]{0,12}", 24),
        vec(vec(any::<u8>(), 0..40), 24),
        vec(address, 16),
        vec(any::<u64>(), 48),
        vec(any::<bool>(), 48),
    )
        .prop_map(|(texts, octets, addresses, numbers, flags)| Owned {
            texts,
            octets,
            addresses,
            numbers,
            flags,
        })
}

/// Hands out what a record is made of, round and round.
struct Source<'a> {
    from: &'a Owned,
    at: usize,
}

impl<'a> Source<'a> {
    fn next<T>(&mut self, all: &'a [T]) -> &'a T {
        self.at += 1;
        &all[self.at % all.len()]
    }

    fn text(&mut self) -> &'a str {
        self.next::<String>(&self.from.texts)
    }

    fn octets(&mut self) -> &'a [u8] {
        self.next::<Vec<u8>>(&self.from.octets)
    }

    fn address(&mut self) -> SocketAddr {
        *self.next(&self.from.addresses)
    }

    fn flag(&mut self) -> bool {
        *self.next(&self.from.flags)
    }

    fn u64(&mut self) -> u64 {
        *self.next(&self.from.numbers)
    }

    fn u32(&mut self) -> u32 {
        self.u64() as u32
    }

    fn u16(&mut self) -> u16 {
        self.u64() as u16
    }

    fn u8(&mut self) -> u8 {
        self.u64() as u8
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| make(self))
    }

    fn instant(&mut self) -> Instant {
        Instant(self.u64())
    }

    fn leg(&mut self) -> LegRecord<'a> {
        let identity = self.octets();
        let call_id_end = self.u16() % (identity.len() as u16 + 1);
        let to_end = call_id_end + self.u16() % (identity.len() as u16 + 1 - call_id_end);
        LegRecord {
            dialog: Parts {
                identity,
                call_id_end,
                to_end,
                local_tag: [self.u8(); crate::ids::TAG_LEN],
                remote_tag: self.octets(),
                target: self.octets(),
                routes: self.octets(),
                strict: self.flag(),
                local_cseq: self.u32(),
                remote_cseq: self.maybe(Self::u32),
            },
            listener: self.text(),
            hop: HopRecord {
                transport: self.u8(),
                listener: self.text(),
                to: self.address(),
                tcp: self.maybe(|from| (from.text(), from.address())),
            },
            behind_nat: self.flag(),
            description: (self.u64(), self.u64(), self.maybe(Self::u64)),
            keys: self.octets().into(),
            awaits_ack: self.maybe(Self::u32),
            asked: self.maybe(|from| AskedRecord {
                transport: from.u8(),
                listener: from.text(),
                to: from.address(),
                head: from.octets(),
            }),
            goodbye: self.u8(),
            user: self.octets(),
            peer_host: self.octets(),
        }
    }

    fn half(&mut self) -> HalfRecord<'a> {
        HalfRecord {
            local: self.address(),
            generation: self.u32(),
            remote: Remote {
                rtp: self.maybe(Self::address),
                rtcp: self.maybe(Self::address),
                rtcp_mux: self.flag(),
                sends: self.flag(),
                receives: self.flag(),
                nat: match self.flag() {
                    true => Nat::Latch { near: self.address().ip() },
                    false => Nat::Signalled,
                },
                encrypted: self.flag(),
                datagrams: self.flag(),
            },
            last_packet: self.maybe(Self::instant),
            parts: self.octets(),
        }
    }

    fn attempt(&mut self) -> AttemptRecord<'a> {
        AttemptRecord {
            number: self.u16(),
            trunk: self.maybe(Self::text),
            target_index: self.u16(),
            target: self.address(),
            started: self.instant(),
            ring_at: self.maybe(Self::instant),
            answer_at: self.maybe(Self::instant),
            end_at: self.maybe(Self::instant),
            status: self.u16(),
            cause: self.u16(),
            identity_out: self.text(),
            attestation_rule: self.maybe(Self::text),
            call_id: self.octets(),
            permit: self.flag(),
        }
    }

    fn record(&mut self, streams: usize, attempts: usize) -> Record<'a> {
        let count = |from: &mut Self| MediaCount {
            packets: from.u64(),
            bytes: from.u64(),
            rtcp_packets: from.u64(),
            dropped: from.u64(),
        };
        Record {
            header: Header {
                shard: self.u8(),
                slot: self.u32(),
                sequence: self.u64(),
                written: Now { mono: self.instant(), unix_ms: self.u64() },
            },
            id: [self.u8(); 32],
            adopted: self.u16(),
            snapshot: self.u64(),
            class: self.u8(),
            preempts: self.flag(),
            early_offer: self.flag(),
            node_permit: self.flag(),
            trunk_permit: self.flag(),
            started: Now { mono: self.instant(), unix_ms: self.u64() },
            ring_at: self.maybe(Self::instant),
            answer_at: self.maybe(Self::instant),
            end: self.maybe(|from| Ended {
                at: from.instant(),
                by: from.u8(),
                cause: from.u16(),
                status: from.u16(),
            }),
            source: self.address(),
            inbound: self.maybe(Self::text),
            route: self.maybe(Self::text),
            emergency: self.maybe(|from| Emergency {
                site: from.maybe(Self::text),
                chain: (0..from.u8() % 16).map(|_| from.text()).collect(),
            }),
            location: self.maybe(|from| (from.text(), from.u8())),
            identity_in: self.maybe(Self::text),
            from: self.octets(),
            to: self.octets(),
            counts: [count(self), count(self)],
            caller: self.leg(),
            callee: self.leg(),
            attempts: (0..attempts).map(|_| self.attempt()).collect(),
            winner: self.u16(),
            left_out: self.u16(),
            anchor: self.maybe(|from| AnchorRecord {
                places: [(from.text(), from.flag()), (from.text(), from.flag())],
                streams: (0..streams).map(|_| [from.half(), from.half()]).collect(),
            }),
        }
    }
}

fn encode(record: &Record<'_>) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    record.write(&mut Writer(&mut bytes));
    let hash = body_hash(&bytes[HEADER_BYTES..]);
    seal(&mut bytes, record.header, hash);
    bytes
}

/// Every field, whatever the lifetimes.
fn told(record: Result<Record<'_>, Refused>) -> String {
    format!("{record:?}")
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(owned in owned(), at: u8, streams in 0..3_usize, attempts in 0..4_usize) {
        let record = Source { from: &owned, at: at.into() }.record(streams, attempts);
        let bytes = encode(&record);
        prop_assume!(bytes.len() <= super::RECORD_BYTES_MAX);
        prop_assert_eq!(told(Record::decode(&bytes)), told(Ok(record.clone())));
        // What stands behind it in its place is not its business.
        let longer = [&bytes[..], &[0xa5; 100]].concat();
        prop_assert_eq!(told(Record::decode(&longer)), told(Ok(record)));
    }

    #[test]
    fn any_octets_at_all_are_refused_or_read(bytes in vec(any::<u8>(), 0..300), cut in option::of(0..300_usize)) {
        let mut bytes = bytes;
        if let Some(cut) = cut {
            // A header that looks right.
            let whole = Source { from: &tiny(), at: cut }.record(1, 1).header;
            bytes.resize(bytes.len().max(HEADER_BYTES), 0);
            let hash = body_hash(&bytes[HEADER_BYTES..]);
            seal(&mut bytes, whole, hash);
        }
        let _ = Record::decode(&bytes);
    }
}

fn tiny() -> Owned {
    Owned {
        texts: vec!["access".into(), "core".into(), "x".into()],
        octets: vec![b"sip:a@b".to_vec(), Vec::new(), vec![7; 30]],
        addresses: vec!["192.0.2.1:5060".parse().unwrap(), "[2001:db8::1]:20000".parse().unwrap()],
        numbers: (1..40).map(|n| n * 0x0101_0307).collect(),
        flags: vec![true, true, false],
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let owned = tiny();
    let bytes = encode(&Source { from: &owned, at: 0 }.record(2, 2));
    assert!(Record::decode(&bytes).is_ok());
    for bit in 0..bytes.len() * 8 {
        let mut other = bytes.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        let refused = Record::decode(&other).expect_err("a flipped bit was not seen");
        match bit / 8 {
            0..4 => assert_eq!(refused, Refused::NoRecord),
            4..6 => assert!(matches!(refused, Refused::Layout(_)), "{refused}"),
            12..16 => assert!(matches!(refused, Refused::Truncated | Refused::Checksum)),
            _ => assert_eq!(refused, Refused::Checksum, "bit {bit}"),
        }
    }
    for length in 0..bytes.len() {
        let refused = Record::decode(&bytes[..length]).expect_err("a cut was not seen");
        assert_eq!(refused, Refused::Truncated, "{length} octets");
    }
}

#[test]
fn another_layout_is_refused_by_its_number() {
    let owned = tiny();
    let mut bytes = encode(&Source { from: &owned, at: 3 }.record(1, 1));
    bytes[4..6].copy_from_slice(&(LAYOUT + 1).to_le_bytes());
    let refused = Record::decode(&bytes).unwrap_err();
    assert_eq!(refused, Refused::Layout(LAYOUT + 1));
    assert_eq!(refused.to_string(), "the record has layout 3, not 2");
    assert_eq!(Record::decode(&[0; 4_096]), Err(Refused::NoRecord));
}

/// The layout is a contract between versions: this record was written by layout 2. If it cannot be
/// read any more, [`LAYOUT`] needs another number.
#[test]
fn the_layout_is_the_one_that_its_number_names() {
    let owned = tiny();
    let bytes = encode(&Source { from: &owned, at: 1 }.record(1, 1));
    assert_eq!(
        (bytes.len(), format!("{:016x}", body_hash(&bytes[HEADER_BYTES..]))),
        (938, "2622d0339e55c4ce".to_owned())
    );
}
