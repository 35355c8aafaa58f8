//! STUN messages of RFC 5769.

use ravelin_wire::demux::{Kind, first_byte};
use ravelin_wire::stun::{Check, Class, FINGERPRINT, Message, Role, Writer, attribute};

fn octets(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn rfc5769_messages() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/rfc5769/messages.tsv");
    let table = std::fs::read_to_string(path).unwrap();
    let mut seen = Vec::new();
    for row in table.lines().skip(1) {
        let [section, title, fingerprint, hex] = row.split('\t').collect::<Vec<_>>()[..] else {
            panic!("malformed row: {row}");
        };
        let bytes = octets(hex);
        assert_eq!(first_byte(&bytes), Kind::Stun, "{title}");
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.method, 1, "{title}");
        let expected = (fingerprint == "right").then_some(true);
        assert_eq!(message.fingerprint_ok(), expected, "{title}");
        seen.push((section.to_owned(), message.class));
        // Any bit of what it covers changes the fingerprint.
        if expected.is_some() {
            for bit in [0, 7, 8 * 20 + 3, 8 * 40] {
                let mut changed = bytes.clone();
                changed[20 + bit / 8] ^= 1 << (bit % 8);
                if let Some(message) = Message::parse(&changed) {
                    assert_ne!(message.fingerprint_ok(), Some(true), "{title} {bit}");
                }
            }
            let (last, _) = message.attributes().last().unwrap();
            assert_eq!(last, FINGERPRINT);
        }
        for len in 0..bytes.len() {
            assert!(Message::parse(&bytes[..len]).is_none(), "{title} {len}");
        }
    }
    let class = |section: &str| seen.iter().find(|(s, _)| s == section).unwrap().1;
    assert_eq!(class("2.1"), Class::Request);
    assert_eq!(class("2.2"), Class::Success);
    assert_eq!(class("2.3"), Class::Success);
    assert_eq!(class("2.4"), Class::Request);
}

fn vector(section: &str) -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/rfc5769/messages.tsv");
    let table = std::fs::read_to_string(path).unwrap();
    let row = table.lines().find(|row| row.starts_with(section)).unwrap();
    octets(row.rsplit('\t').next().unwrap())
}

#[test]
fn rfc5769_request_as_a_connectivity_check() {
    let bytes = vector("2.1");
    let check = Check::read(&Message::parse(&bytes).unwrap()).unwrap();
    assert_eq!(check.username, Some(&b"evtj:h6vY"[..]));
    assert_eq!(check.priority, Some(0x6e00_01ff));
    assert_eq!(check.role, Some(Role::Controlled(0x932f_f9b1_5126_3b36)));
    assert!(!check.use_candidate && check.unknown.is_empty());
}

/// The octets of XOR-MAPPED-ADDRESS, FINGERPRINT and the header are those of the RFC.
#[test]
fn rfc5769_responses_written() {
    let addresses = ["192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"];
    for (section, address) in ["2.2", "2.3"].into_iter().zip(addresses) {
        let theirs = vector(section);
        let theirs = Message::parse(&theirs).unwrap();
        let tag = *theirs.integrity().unwrap().tag;
        let mut out = Vec::new();
        // SOFTWARE is padded with spaces there and with zeros here: the same length.
        Writer::binding(&mut out, Class::Success, theirs.transaction)
            .attribute(attribute::SOFTWARE, theirs.first(attribute::SOFTWARE).unwrap())
            .xor_mapped_address(address.parse().unwrap())
            .integrity(|_| tag)
            .finish();
        let ours = Message::parse(&out).unwrap();
        assert_eq!(ours.fingerprint_ok(), Some(true));
        assert_eq!(out.len(), theirs.bytes().len());
        assert_eq!(out[..20], theirs.bytes()[..20]);
        let without_crc = |m: &Message<'_>| -> Vec<(u16, Vec<u8>)> {
            let kept = m.attributes().filter(|(kind, _)| *kind != FINGERPRINT);
            kept.map(|(kind, value)| (kind, value.to_vec())).collect()
        };
        assert_eq!(without_crc(&ours), without_crc(&theirs));
    }
}
