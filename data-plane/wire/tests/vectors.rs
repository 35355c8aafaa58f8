//! STUN messages of RFC 5769.

use ravelin_wire::demux::{Kind, first_byte};
use ravelin_wire::stun::{Class, FINGERPRINT, Message};

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
