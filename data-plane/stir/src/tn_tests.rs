use proptest::prelude::*;

use super::*;

fn canon(user: &str) -> Option<String> {
    canonicalise(user.as_bytes()).ok().map(|tn| tn.to_string())
}

fn uri(text: &str) -> Vec<String> {
    parties(text.as_bytes(), UserIsTn::IfItLooksSo).iter().map(ToString::to_string).collect()
}

/// ST-14.
#[test]
fn user_parts() {
    let cases = [
        ("+12155551212", Some("12155551212")),
        ("+1-215-555-1212", Some("12155551212")),
        ("+1 (215) 555.1212;phone-context=x", Some("12155551212")),
        ("%2B12155551212", Some("12155551212")),
        ("(+1)215", Some("1215")),
        ("911", Some("911")),
        ("*67#", Some("*67#")),
        ("%2a67%23", Some("*67#")),
        ("123456789012345", Some("123456789012345")),
        ("1234567890123456", None),
        ("", None),
        ("+", None),
        ("++1", None),
        ("1+2", None),
        ("alice", None),
        ("12a", None),
        ("12%3", None),
        ("12%zz", None),
        ("١٢٣", None),
    ];
    for (user, want) in cases {
        assert_eq!(canon(user).as_deref(), want, "{user}");
    }
}

/// ST-16, RFC 8224 8.5.
#[test]
fn uri_forms() {
    assert_eq!(
        uri("sip:Alice:secret@Example.COM:5070;transport=tcp?a=b"),
        ["sip:alice@example.com"]
    );
    assert_eq!(uri("SIPS:%61lice%40home@example.com"), ["sips:alice%40home@example.com"]);
    assert_eq!(uri("tel:+1-215-555-1212;ext=1"), ["12155551212"]);
    assert_eq!(
        uri("sip:+12155551212;npdi@gw.example:5060;user=phone"),
        ["12155551212", "sip:+12155551212@gw.example"]
    );
    assert_eq!(uri("urn:service:SOS"), ["urn:service:sos"]);
    assert_eq!(uri("sip:[2001:DB8::1]:5060"), ["sip:[2001:db8::1]"]);
    for bad in ["", "sip:", "sip:@", "mailto:a@b", "sip:a@", "sip:@h", "sip:a b@h", "sip:%4@h"] {
        assert_eq!(uri(bad), Vec::<String>::new(), "{bad}");
    }
    let strict = |text: &[u8]| parties(text, UserIsTn::WithUserPhone).len();
    assert_eq!(strict(b"sip:+12155551212@gw.example"), 1);
    assert_eq!(strict(b"sip:+12155551212@gw.example;user=phone"), 2);
}

#[test]
fn number_plan() {
    let complete = |user: &str| NumberPlan::NANP.canonicalise(user.as_bytes()).unwrap().to_string();
    assert_eq!(complete("2155551212"), "12155551212");
    assert_eq!(complete("12155551212"), "12155551212");
    assert_eq!(complete("+442079460000"), "442079460000");
    assert_eq!(complete("%2B442079460000"), "442079460000");
    assert_eq!(complete("011442079460000"), "442079460000");
    assert_eq!(complete("911"), "911");
    assert_eq!(complete("*67"), "*67");
    assert_eq!(complete("5000"), "5000");
    assert_eq!(complete("(215) 555-1212"), "12155551212");
    assert_eq!(complete("0155551212"), "0155551212", "no area code starts like this");
    assert_eq!(complete("01133"), "01133");
    let e164 = |user: &str| NumberPlan::E164.canonicalise(user.as_bytes()).unwrap().to_string();
    assert_eq!(e164("00442079460000"), "442079460000");
    assert_eq!(e164("2155551212"), "2155551212");
    assert_eq!(e164("000"), "000");
    let party = |uri: &str, plan: &NumberPlan<'_>| {
        party_in(uri.as_bytes(), UserIsTn::IfItLooksSo, plan).unwrap().to_string()
    };
    assert_eq!(party("sip:2155551212@h;user=phone", &NumberPlan::NANP), "12155551212");
    assert_eq!(party("tel:+2155551212", &NumberPlan::NANP), "2155551212");
    assert_eq!(party("tel:2155551212", &NumberPlan::CANONICAL), "2155551212");
    assert_eq!(party("sip:911@h", &NumberPlan::NANP), "911");
}

proptest! {
    /// ST-21: total, and a canonical number is its own canonical form.
    #[test]
    fn total_and_idempotent(user in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(tn) = canonicalise(&user) {
            prop_assert_eq!(canonicalise(tn.as_bytes()), Ok(tn));
            prop_assert_eq!(Tn::exact(tn.as_bytes()), Ok(tn));
        }
        let _ = parties(&user, UserIsTn::IfItLooksSo);
    }

    /// ST-21: spellings of one number collide.
    #[test]
    fn spellings_collide(digits in "[0-9]{1,15}", separators in proptest::collection::vec("[-. ()]{0,3}", 15)) {
        let mut spelling = String::from("+");
        for (digit, separator) in digits.chars().zip(&separators) {
            spelling.push_str(separator);
            spelling.push_str(&format!("%{:02x}", u32::from(digit)));
        }
        prop_assert_eq!(canon(&spelling), Some(digits.clone()));
        prop_assert_eq!(canon(&digits), Some(digits));
    }

    /// ST-21: two numbers never collide.
    #[test]
    fn numbers_differ(one in "[0-9#*]{1,15}", two in "[0-9#*]{1,15}") {
        prop_assert_eq!(canon(&one) == canon(&two), one == two);
    }

    /// The URI form is its own canonical form.
    #[test]
    fn uri_idempotent(text in "sips?:[A-Za-z0-9%.;:=+-]{1,12}@[A-Za-z0-9.-]{1,12}(:[0-9]{1,4})?") {
        for party in parties(text.as_bytes(), UserIsTn::WithUserPhone) {
            if let Party::Uri(form) = party {
                prop_assert!(parties(form.as_bytes(), UserIsTn::WithUserPhone)
                    .contains(&Party::Uri(form.clone())), "{}", form);
            }
        }
    }
}
