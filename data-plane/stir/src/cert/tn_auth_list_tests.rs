use proptest::prelude::*;

use super::*;

fn tn(text: &str) -> Tn {
    Tn::exact(text.as_bytes()).unwrap()
}

fn list(entries: Vec<TnEntry>) -> TnAuthList {
    TnAuthList::new(entries).unwrap()
}

fn range(start: &str, count: u64) -> TnEntry {
    TnEntry::Range { start: tn(start), count }
}

/// The DER that ST-38 gives for a service provider code.
#[test]
fn service_provider_code() {
    let der = [0x30, 0x08, 0xa0, 0x06, 0x16, 0x04, b'1', b'2', b'3', b'4'];
    let parsed = TnAuthList::from_der(&der).unwrap();
    assert_eq!(parsed.entries(), [TnEntry::Spc("1234".into())]);
    assert_eq!(parsed.to_der(), der);
    assert_eq!(parsed.covers(&tn("12155551212")), Coverage::BySpc);
    for fine in ["123a", "12345"] {
        assert_eq!(list(vec![TnEntry::Spc(fine.into())]).spc(), Some(fine));
    }
}

/// ST-38: malformed encodings that occur in production, and others.
#[test]
fn malformed() {
    let cases: &[&[u8]] = &[
        &[],
        &[0x30, 0x00],
        // Untagged strings.
        &[0x30, 0x06, 0x13, 0x04, b'1', b'2', b'3', b'4'],
        &[0x30, 0x06, 0x16, 0x04, b'1', b'2', b'3', b'4'],
        // PrintableString inside the tag.
        &[0x30, 0x08, 0xa0, 0x06, 0x13, 0x04, b'1', b'2', b'3', b'4'],
        // Implicit tag.
        &[0x30, 0x06, 0x80, 0x04, b'1', b'2', b'3', b'4'],
        // Inner length too short and too long.
        &[0x30, 0x08, 0xa0, 0x06, 0x16, 0x03, b'1', b'2', b'3', b'4'],
        &[0x30, 0x08, 0xa0, 0x06, 0x16, 0x05, b'1', b'2', b'3', b'4'],
        // Trailing octet, length not minimal, indefinite length, empty code.
        &[0x30, 0x08, 0xa0, 0x06, 0x16, 0x04, b'1', b'2', b'3', b'4', 0],
        &[0x30, 0x81, 0x08, 0xa0, 0x06, 0x16, 0x04, b'1', b'2', b'3', b'4'],
        &[0x30, 0x80, 0xa0, 0x06, 0x16, 0x04, b'1', b'2', b'3', b'4', 0, 0],
        &[0x30, 0x04, 0xa0, 0x02, 0x16, 0x00],
        // Unknown choice; a number with a letter; sixteen digits.
        &[0x30, 0x08, 0xa3, 0x06, 0x16, 0x04, b'1', b'2', b'3', b'4'],
        &[0x30, 0x06, 0xa2, 0x04, 0x16, 0x02, b'1', b'x'],
        b"\x30\x14\xa2\x12\x16\x101234567890123456",
        // Counts 0, 1, -1 and not minimal.
        b"\x30\x0b\xa1\x09\x30\x07\x16\x0212\x02\x01\x00",
        b"\x30\x0b\xa1\x09\x30\x07\x16\x0212\x02\x01\x01",
        b"\x30\x0b\xa1\x09\x30\x07\x16\x0212\x02\x01\xff",
        b"\x30\x0c\xa1\x0a\x30\x08\x16\x0212\x02\x02\x00\x05",
    ];
    for der in cases {
        assert_eq!(TnAuthList::from_der(der), None, "{der:02x?}");
    }
}

/// ST-39.
#[test]
fn ranges() {
    let numbers = list(vec![range("12125551000", 1000), TnEntry::One(tn("911"))]);
    for (number, covered) in [
        ("12125551000", true),
        ("12125551999", true),
        ("12125552000", false),
        ("12125550999", false),
        ("2125551000", false),
        ("012125551000", false),
        ("911", true),
        ("912", false),
        ("*1125551000", false),
    ] {
        assert_eq!(numbers.covers(&tn(number)) == Coverage::ByNumber, covered, "{number}");
    }
    // 98 + 2 is beyond two digits, 97 + 2 is not.
    let der = |start: &[u8; 2], count: u8| {
        let mut der = b"\x30\x0b\xa1\x09\x30\x07\x16\x02".to_vec();
        der.extend_from_slice(start);
        der.extend_from_slice(&[2, 1, count]);
        TnAuthList::from_der(&der).unwrap().entries()[0].clone()
    };
    assert_eq!(der(b"97", 2), range("97", 2));
    assert_eq!(der(b"98", 2), TnEntry::InvalidRange);
    assert_eq!(der(b"*1", 2), TnEntry::InvalidRange);
    // A count of 2^80 neither wraps nor allocates.
    let huge = b"\x30\x15\xa1\x13\x30\x11\x16\x0212\x02\x0b\x01\0\0\0\0\0\0\0\0\0\0";
    assert_eq!(TnAuthList::from_der(huge).unwrap().entries(), [TnEntry::InvalidRange]);
}

/// RFC 9060 4, its own example among them.
#[test]
fn delegation() {
    let parent = list(vec![range("12125551000", 1000), TnEntry::Spc("70ZZ".into())]);
    let narrow = list(vec![range("12125551000", 1000)]);
    for child in [vec![range("12125551500", 100)], vec![TnEntry::One(tn("12125551824"))]] {
        assert!(parent.encompasses(&list(child.clone())));
        assert!(narrow.encompasses(&list(child)));
    }
    for child in [
        vec![range("12125551500", 501)],
        vec![range("12125550999", 3)],
        vec![TnEntry::One(tn("12125552000"))],
        vec![TnEntry::Spc("70ZZ".into())],
    ] {
        assert!(!narrow.encompasses(&list(child)));
    }
    assert!(parent.encompasses(&list(vec![TnEntry::Spc("70zz".into())])));
    assert!(!parent.encompasses(&list(vec![TnEntry::Spc("70AA".into())])));
}

proptest! {
    #[test]
    fn total(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Some(list) = TnAuthList::from_der(&bytes) {
            prop_assert!(list.entries().contains(&TnEntry::InvalidRange)
                || list.to_der() == bytes);
        }
    }

    #[test]
    fn round_trip(start in "[1-9][0-9]{0,9}", count in 2u64..70_000, code in "[0-9A-Z]{4}", one in "[0-9*#]{1,15}") {
        let entries = vec![TnEntry::Spc(code.into()), TnEntry::One(tn(&one)), range(&start, count)];
        let end: u128 = start.parse::<u128>().unwrap() + u128::from(count);
        if end < 10u128.pow(u32::try_from(start.len()).unwrap()) {
            let list = TnAuthList::new(entries).unwrap();
            prop_assert_eq!(TnAuthList::from_der(&list.to_der()), Some(list));
        } else {
            prop_assert_eq!(TnAuthList::new(entries), None);
        }
    }
}
