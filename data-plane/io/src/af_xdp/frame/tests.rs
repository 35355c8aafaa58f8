//! Frames against an independent writer ([`Packet`], octet by octet), and against arbitrary octets.

use super::*;
use crate::xdp::tests::packet::{Packet, comparable};

fn way(vlan: u16) -> Way {
    Way {
        interface: 3,
        vlan,
        target_mac: [2, 0, 0, 0, 0, 9],
        source_mac: [2, 0, 0, 0, 0, 1],
        mtu: 1_500,
        ttl: 64,
    }
}

fn packet(from: &str, to: &str, vlan: Option<u16>, payload: Vec<u8>) -> Packet {
    Packet {
        target_mac: [2, 0, 0, 0, 0, 9],
        source_mac: [2, 0, 0, 0, 0, 1],
        vlan,
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        payload,
        tos: 46 << 2,
        ttl: 64,
        fragment: 0x4000,
        options: Vec::new(),
        extension: None,
        udp_checksum: None,
        ip_checksum: None,
        udp_length_off: 0,
        ip_length_off: 0,
        trailer: 0,
        cut: 0,
    }
}

const PAIRS: [(&str, &str); 2] =
    [("10.96.6.2:4000", "10.96.6.1:20000"), ("[fd96:6::2]:4000", "[fd96:6::1]:20001")];

fn all() -> impl Iterator<Item = Packet> {
    PAIRS.into_iter().flat_map(|(from, to)| {
        [None, Some(7)].into_iter().flat_map(move |vlan| {
            [0, 1, 2, 3, 5, 7, 12, 172, 173, 1_400].into_iter().flat_map(move |length: usize| {
                [0x00, 0xff, 0x5a].map(|octet| packet(from, to, vlan, vec![octet; length]))
            })
        })
    })
}

#[test]
fn what_was_sent_is_read() {
    for packet in all() {
        for trailer in [0, 1, 46] {
            let packet = Packet { trailer, ..packet.clone() };
            let frame = packet.frame();
            let found = parse(&frame, false).unwrap();
            assert_eq!((found.source, found.target), (packet.from, packet.to));
            assert_eq!(found.payload, packet.payload);
        }
    }
}

#[test]
fn what_is_written_is_that_of_an_independent_writer() {
    for packet in all() {
        let vlan = packet.vlan.unwrap_or(0);
        let template = Template::new(packet.from, packet.to, packet.tos, &way(vlan)).unwrap();
        // What stood there before does not matter.
        let mut frame = [0xaa; 2_048];
        let length = template.write(&mut frame, &packet.payload).unwrap();
        assert_eq!(comparable(&frame[..length]), comparable(&packet.frame()), "{packet:?}");
    }
}

#[test]
fn nothing_longer_than_the_way_allows_is_written() {
    for (from, to) in PAIRS {
        let template =
            Template::new(from.parse().unwrap(), to.parse().unwrap(), 0, &way(0)).unwrap();
        let most = 1_500 - 8 - if from.starts_with('[') { 40 } else { 20 };
        assert!(template.write(&mut [0; 2_048], &vec![1; most]).is_some());
        assert_eq!(template.write(&mut [0; 2_048], &vec![1; most + 1]), None);
        assert_eq!(template.write(&mut [0; 512], &vec![1; 600]), None, "the frame is shorter");
    }
    let mixed = (PAIRS[0].0.parse().unwrap(), PAIRS[1].1.parse().unwrap());
    assert!(Template::new(mixed.0, mixed.1, 0, &way(0)).is_none());
}

#[test]
fn odd_frames_have_reasons() {
    let reject = |packet: &Packet| parse(&packet.frame(), false).unwrap_err();
    for (from, to) in PAIRS {
        let v4 = !from.starts_with('[');
        let right = packet(from, to, None, vec![0x5a; 172]);
        for off in [-173, -1, 1, 100] {
            let odd = Packet { udp_length_off: off, ..right.clone() };
            assert_eq!(reject(&odd), Reject::Malformed, "UDP {off}");
            let odd = Packet { ip_length_off: off, ..right.clone() };
            assert_eq!(reject(&odd), Reject::Malformed, "IP {off}");
        }
        assert_eq!(reject(&Packet { cut: 1, ..right.clone() }), Reject::Malformed);
        let wrong = Packet { udp_checksum: Some(0x1234), ..right.clone() };
        assert_eq!(reject(&wrong), Reject::Checksum);
        let none = Packet { udp_checksum: Some(0), ..right.clone() };
        assert_eq!(parse(&none.frame(), false).is_ok(), v4, "RFC 768, RFC 8200 8.1");
        if v4 {
            let wrong = Packet { ip_checksum: Some(0x1111), ..right.clone() };
            assert_eq!(reject(&wrong), Reject::Checksum);
            for fragment in [0x2000, 0x0001, 0x8000] {
                assert_eq!(reject(&Packet { fragment, ..right.clone() }), Reject::Foreign);
            }
            let options = Packet { options: vec![1, 1, 1, 0], ..right.clone() };
            assert_eq!(reject(&options), Reject::Foreign);
        } else {
            let options = vec![17, 0, 1, 4, 0, 0, 0, 0];
            let odd = Packet { extension: Some(60), options, ..right.clone() };
            assert_eq!(reject(&odd), Reject::Foreign);
        }
        // Nobody between a local sender and us fills in the checksum.
        let addresses = match (right.from.ip(), right.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => sum(&from.octets()) + sum(&to.octets()),
            (IpAddr::V6(from), IpAddr::V6(to)) => sum(&from.octets()) + sum(&to.octets()),
            _ => unreachable!(),
        };
        let partial = fold(pseudo(addresses, 180)).to_be();
        let local = Packet { udp_checksum: Some(partial), ..right.clone() }.frame();
        assert_eq!(parse(&local, false), Err(Reject::Checksum));
        assert_eq!(parse(&local, true).unwrap().payload, right.payload);
    }
    let mut twice = packet(PAIRS[0].0, PAIRS[0].1, Some(7), vec![1; 20]).frame();
    twice[16..18].copy_from_slice(&ETHERTYPE_VLAN);
    assert_eq!(parse(&twice, false), Err(Reject::Foreign));
}

/// Numbers from a seed (xorshift64*): every failure comes again.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize
    }
}

/// Arbitrary octets, and right frames with some octets changed, cut anywhere: never a panic, and
/// what is taken for a datagram is one by the plain rules.
#[test]
fn arbitrary_octets_are_read_or_refused() {
    let mut numbers = Numbers(0x5eed_0012);
    let frames: Vec<_> = all().map(|packet| packet.frame()).collect();
    let mut taken = 0;
    for round in 0..200_000 {
        let mut frame = if round % 4 == 0 {
            (0..numbers.next() % 120).map(|_| numbers.next() as u8).collect()
        } else {
            frames[numbers.next() % frames.len()].clone()
        };
        for _ in 0..numbers.next() % 4 {
            if frame.is_empty() {
                break;
            }
            // Headers are where it matters.
            let reach = if round % 2 == 0 { frame.len() } else { frame.len().min(66) };
            let at = numbers.next() % reach;
            frame[at] = numbers.next() as u8;
        }
        if numbers.next().is_multiple_of(4) {
            frame.truncate(numbers.next() % (frame.len() + 1));
        }
        let partial = round % 3 == 0;
        let Ok(found) = parse(&frame, partial) else { continue };
        taken += 1;
        let ip = if frame[12..14] == ETHERTYPE_VLAN { 18 } else { 14 };
        let udp = ip + if frame[ip] >> 4 == 4 { 20 } else { 40 };
        let length = usize::from(u16::from_be_bytes([frame[udp + 4], frame[udp + 5]]));
        assert_eq!(found.payload, &frame[udp + 8..udp + length]);
        assert_eq!(found.source.port(), u16::from_be_bytes([frame[udp], frame[udp + 1]]));
        assert_eq!(found.target.port(), u16::from_be_bytes([frame[udp + 2], frame[udp + 3]]));
        assert_eq!(found.source.is_ipv4(), frame[ip] >> 4 == 4);
    }
    assert!(taken > 10_000, "{taken}");
}
