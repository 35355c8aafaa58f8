use proptest::prelude::*;

use super::*;

fn us() -> ClassTable {
    ClassTable::new(Country::default_profile(), &[], "9")
}

fn us_without_prefix() -> ClassTable {
    ClassTable::new(Country::default_profile(), &[], "")
}

const SOS: Class = Class::Emergency(Service::Sos);

/// The table of emergency.md section 3, row by row (EM-10, EM-11).
#[test]
fn detection_table() {
    let table = us();
    let cases: &[(&str, Class)] = &[
        ("sip:911@x", SOS),
        ("sips:911@x", SOS),
        ("tel:911", SOS),
        ("tel:911;phone-context=+1", SOS),
        ("sip:911;phone-context=x@y;user=dialstring", SOS),
        ("sip:+911@x", SOS),
        ("sip:9-1-1@x", SOS),
        ("sip:%39%31%31@x", SOS),
        ("sip:9911@x", SOS),
        ("sip:9-911@x", SOS),
        ("urn:service:sos", SOS),
        ("URN:SERVICE:SOS", SOS),
        ("urn:service:sos.police", Class::Emergency(Service::Police)),
        ("urn:service:sos.unknown.x", SOS),
        ("sip:sos@x", Class::None),
        ("sip:112@x", Class::None),
        ("sip:999@x", Class::None),
        ("sip:1911@x", Class::None),
        ("sip:12911@x", Class::None),
        ("sip:*911@x", Class::None),
        ("sip:0911@x", Class::None),
        ("sip:2125551911@x", Class::None),
        ("sip:+13125550911@x", Class::None),
        ("sip:+13135550911@x", Class::None),
        ("sip:+19115550100@x", Class::None),
        ("sip:9112@x", Class::None),
        ("sip:91100@x", Class::None),
        ("sip:5911@x", Class::None),
        ("sip:911911@x", Class::None),
        ("sip:933@x", Class::TestAddress),
        ("urn:service:test.sos.fire", Class::TestSos),
        ("urn:service:counseling.suicide", Class::Crisis),
        ("sip:988@x", Class::Crisis),
        ("sip:alice@911.example.com", Class::None),
        ("sip:x@y;tag=911", Class::None),
        ("sip:911x@y", Class::None),
    ];
    for (uri, class) in cases {
        assert_eq!(table.classify(uri.as_bytes()), *class, "{uri}");
    }
}

/// compliance-systems.md 1.2 and E8: what the original implementation got wrong, and more spellings.
#[test]
fn near_misses_and_odd_spellings() {
    let table = us();
    let emergency = [
        "SIP:911@x",
        "TEL:9-1-1",
        "tel:+911",
        "sip:(911)@x",
        "sip:9%2D1.1@x",
        "sip:%2B911@x",
        "sip:911:secret@x",
        "sip:911@[2001:db8::1]:5060;transport=tcp",
        "sip:911;user=phone@x",
        "sip:9 911@x",
        "sip:911%3Bx@y",
        "sips:9911;phone-context=example.com@x;user=phone",
        "urn:service:sos.FIRE",
        "urn:service:sos.ecall.manual",
        "urn:service:sos.",
        "urn:service:sos?+x",
        "urn:Service:Sos.Police.local",
    ];
    for uri in emergency {
        assert!(matches!(table.classify(uri.as_bytes()), Class::Emergency(_)), "{uri}");
    }
    let none = [
        "",
        "911",
        ":911@x",
        "sip:",
        "sip:@x",
        "sip:911",
        "tel:",
        "tel:9911911",
        "sip:++911@x",
        "sip:9+11@x",
        "sip:911+@x",
        "sip:%2539%31%31@x",
        "sip:%3&911@x",
        "sip:9%11@x",
        "sip:011911@x",
        "sip:99911@x",
        "sip:9933@x",
        "sip:9988@x",
        "sip:9331@x",
        "sip:911,1@x",
        "sip:911*@x",
        "sip:911#@x",
        "sip:\u{0}911@x",
        "sip:911%00@x",
        "sip:٩١١@x",
        "sip:911\n@x",
        " sip:911@x",
        "http:911@x",
        "sip :911@x",
        "tel://911",
        "tel:000000000000000000000000000000000911",
        "urn:service:sosx",
        "urn:service:xsos",
        "urn:service:test",
        "urn:service:test.sosx",
        "urn:service:",
        "urn:services:sos",
        "urn:sos",
        "service:sos",
        "urn:service:%73os",
        "sip:urn:service:sos@x",
        "sip:bob@x;user=911",
        "sip:x;911@y",
    ];
    for uri in none {
        assert_eq!(table.classify(uri.as_bytes()), Class::None, "{uri}");
    }
}

#[test]
fn outside_prefix_is_tenant_data() {
    let without = us_without_prefix();
    assert_eq!(without.classify(b"sip:9911@x"), Class::None);
    assert_eq!(without.classify(b"sip:911@x"), SOS);
    let long = ClassTable::new(Country::default_profile(), &[], "81");
    assert_eq!(long.classify(b"sip:81911@x"), SOS);
    assert_eq!(long.classify(b"sip:9911@x"), Class::None);
    assert_eq!(long.classify(b"sip:8181911@x"), Class::None);
}

#[test]
fn country_and_extra_numbers_are_data() {
    let with_112 = ClassTable::new(Country::default_profile(), &["112".into()], "9");
    assert_eq!(with_112.classify(b"sip:112@x"), SOS);
    assert_eq!(with_112.classify(b"sip:9112@x"), SOS);
    assert_eq!(with_112.classify(b"sip:1112@x"), Class::None);
    let of = |code: &str| ClassTable::new(Country::by_code(code).unwrap(), &[], "");
    assert_eq!(of("gb").classify(b"tel:999"), SOS);
    assert_eq!(of("GB").classify(b"tel:911"), Class::None);
    assert_eq!(of("DE").classify(b"tel:110"), Class::Emergency(Service::Police));
    assert_eq!(of("JP").classify(b"tel:119"), Class::Emergency(Service::Fire));
    assert_eq!(of("AU").classify(b"tel:000"), SOS);
    assert_eq!(of("NZ").classify(b"tel:111"), SOS);
    assert_eq!(of("CA").classify(b"tel:933"), Class::TestAddress);
    assert!(Country::by_code("XX").is_none());
    for code in Country::codes().split(", ") {
        let table = of(code);
        for number in table.numbers() {
            assert!(number.len() + OUTSIDE_PREFIX_MAX <= NUMBER_MAX);
            let uri = [b"sip:", number, b"@x"].concat();
            assert!(matches!(table.classify(&uri), Class::Emergency(_)), "{code}");
        }
    }
}

#[test]
fn services_by_urn() {
    let table = us();
    let service = |label: &str| table.classify(format!("urn:service:sos.{label}").as_bytes());
    for (label, expected) in [
        ("ambulance", Service::Ambulance),
        ("animal-control", Service::AnimalControl),
        ("gas", Service::Gas),
        ("marine", Service::Marine),
        ("mountain", Service::Mountain),
        ("physician", Service::Physician),
        ("poison", Service::Poison),
        ("country-specific", Service::CountrySpecific),
        ("ecall.automatic", Service::EcallAutomatic),
        ("ecall.other", Service::Sos),
        ("ecall", Service::Sos),
        ("fire.forest", Service::Fire),
    ] {
        assert_eq!(service(label), Class::Emergency(expected), "{label}");
    }
}

/// E6, E7, section 1.1: what the guard blocks in test mode, whatever the spelling.
#[test]
fn guard_superset() {
    for uri in [
        "911",
        " 911 ",
        "911\n",
        "9911",
        "9-911",
        "1911",
        "12911",
        "0911",
        "011911",
        "*911",
        "+911",
        "9-1-1",
        "tel:911",
        "urn:service:sos",
        "sips:911@x",
        "sip:911;phone-context=+1@x",
        "sip:%39%31%31@x",
        "2125551911",
        "sip:+13125550911@x",
        "sip:*911@x",
        "sip:911",
        "112",
        "sip:999@x",
        "urn:service:sos.fire",
        "SIP:1911@host",
    ] {
        assert!(guard_matches(uri.as_bytes()), "{uri}");
    }
    for uri in [
        "",
        "1001",
        "5551234567",
        "9111",
        "811",
        "sip:alice@911.example.com",
        "urn:service:test.sos",
        "933",
        "988",
        "sip:911x@y",
        "sip:bob@x;tag=911",
        "sip:5551000@x",
    ] {
        assert!(!guard_matches(uri.as_bytes()), "{uri}");
    }
}

/// The rule of EM-10 in the plainest words, with heap, strings and no regard to speed.
fn reference(uri: &[u8], prefix: &str) -> Class {
    let text: String = uri.iter().map(|&b| char::from(b)).collect();
    let Some((scheme, rest)) = text.split_once(':') else { return Class::None };
    let user = match scheme.to_ascii_lowercase().as_str() {
        "tel" => rest.to_owned(),
        "sip" | "sips" => match rest.split_once('@') {
            Some((user, _)) => user.split(':').next().unwrap().to_owned(),
            None => return Class::None,
        },
        "urn" => {
            let lower = rest.to_ascii_lowercase();
            let Some(name) = lower.strip_prefix("service:") else { return Class::None };
            let name = name.split(['?', '#']).next().unwrap();
            let dotted = format!("{name}.");
            return if dotted.starts_with("sos.") {
                // The reference does not tell services apart.
                SOS
            } else if dotted.starts_with("test.sos.") {
                Class::TestSos
            } else if dotted.starts_with("counseling.suicide.") {
                Class::Crisis
            } else {
                Class::None
            };
        }
        _ => return Class::None,
    };
    let mut decoded = String::new();
    let chars: Vec<char> = user.chars().collect();
    let mut i = 0;
    while i < chars.len() {
        let pair: String = chars.iter().skip(i + 1).take(2).collect();
        let is_hex = pair.len() == 2 && pair.chars().all(|c| c.is_ascii_hexdigit());
        if chars[i] == '%' && is_hex {
            decoded.push(char::from(u8::from_str_radix(&pair, 16).unwrap()));
            i += 3;
        } else {
            decoded.push(chars[i]);
            i += 1;
        }
    }
    let plain: String =
        decoded.split(';').next().unwrap().chars().filter(|c| !"-.() ".contains(*c)).collect();
    let number = plain.strip_prefix('+').unwrap_or(&plain);
    match number {
        "911" => SOS,
        "933" => Class::TestAddress,
        "988" => Class::Crisis,
        _ if !prefix.is_empty() && number == format!("{prefix}911") => SOS,
        _ => Class::None,
    }
}

fn same(a: Class, b: Class) -> bool {
    matches!((a, b), (Class::Emergency(_), Class::Emergency(_))) || a == b
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// EM-16: total, and equal to the reference, on URIs made of the pieces that matter.
    #[test]
    fn equals_reference_on_uri_pieces(pieces in prop::collection::vec(prop::sample::select(vec![
        "sip:", "sips:", "tel:", "urn:", "SIP:", "service:", "sos", "test.", ".", "police", "9", "1",
        "1", "11", "911", "933", "988", "-", "(", ")", " ", "+", "%39", "%31", "%2", "%", "%3B", ";",
        "@", "x", ":", "?", "#", "*", "0", "é", "counseling.suicide", "user=phone",
    ]), 0..9)) {
        let uri = pieces.concat();
        prop_assert!(same(us().classify(uri.as_bytes()), reference(uri.as_bytes(), "9")), "{uri}");
    }

    /// The same with a number in the user part of a well-formed URI.
    #[test]
    fn equals_reference_on_numbers(
        scheme in prop::sample::select(vec!["sip:", "sips:", "tel:", "Tel:"]),
        number in "[+(]?[89]?[-. ]?[0-9]{0,2}(911|9-11|933|988|9%311)?[0-9;]{0,2}",
        tail in prop::sample::select(vec!["@x", "@[::1];user=phone", "", ";phone-context=+1"]),
    ) {
        let uri = format!("{scheme}{number}{tail}");
        prop_assert!(same(us().classify(uri.as_bytes()), reference(uri.as_bytes(), "9")), "{uri}");
        let none = us_without_prefix();
        prop_assert!(same(none.classify(uri.as_bytes()), reference(uri.as_bytes(), "")), "{uri}");
    }

    #[test]
    fn equals_reference_on_arbitrary_bytes(uri in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(same(us().classify(&uri), reference(&uri, "9")));
        let emergency = matches!(us().classify(&uri), Class::Emergency(_));
        prop_assert!(guard_matches(&uri) || !emergency);
    }

    /// The guard blocks all that classification would let through as emergency.
    #[test]
    fn guard_contains_emergency(number in "[+]?9?[-. ]{0,2}9[-.]?1[( ]?1[)]?(;x)?") {
        let uri = format!("sip:{number}@x");
        if matches!(us().classify(uri.as_bytes()), Class::Emergency(_)) {
            prop_assert!(guard_matches(uri.as_bytes()));
        }
    }
}

/// G1: every number of up to six digits, and every E.164 number around 911 suffixes: exactly four
/// dial strings are something.
#[test]
fn no_other_number_is_anything() {
    let table = us();
    let mut hits = Vec::new();
    let mut uri = Vec::with_capacity(32);
    for width in 1..=6_usize {
        for number in 0..10_u32.pow(u32::try_from(width).unwrap()) {
            uri.clear();
            uri.extend_from_slice(b"sip:");
            uri.extend_from_slice(format!("{number:0width$}").as_bytes());
            uri.extend_from_slice(b"@x");
            let class = table.classify(&uri);
            if class != Class::None {
                hits.push((format!("{number:0width$}"), class));
            }
        }
    }
    let expected =
        [("911", SOS), ("933", Class::TestAddress), ("988", Class::Crisis), ("9911", SOS)];
    assert_eq!(hits, expected.map(|(n, c)| (n.to_owned(), c)));
    for area in 200..1000_u32 {
        for uri in [format!("sip:+1{area}5550911@x"), format!("tel:{area}5551911")] {
            assert_eq!(table.classify(uri.as_bytes()), Class::None, "{uri}");
        }
    }
}
