use proptest::prelude::*;

use super::*;

fn ok(text: &str) -> bool {
    check(text.as_bytes()).is_some()
}

/// RFC 8259 grammar and the bounds of ST-26.
#[test]
fn accepts_and_refuses() {
    for good in [
        "{}",
        " {\"a\" : [ 1 , -0.5e+3, true,false , null,\"\\u00e9\\/\" ] } ",
        "[]",
        "\"\\ud83d\\ude00\"",
        "0",
        "{\"a\":{\"a\":1},\"b\":{\"a\":1}}",
        "[[[[[[[[]]]]]]]]",
    ] {
        assert!(ok(good), "{good}");
    }
    for bad in [
        "",
        "{",
        "{\"a\":1,}",
        "{\"a\":1,\"a\":2}",
        "{\"a\":1,\"\\u0061\":2}",
        "{\"x\":{\"a\":1,\"a\":1}}",
        "[1,]",
        "[1 2]",
        "{\"a\" 1}",
        "{a:1}",
        "01",
        "1.",
        ".5",
        "1e",
        "+1",
        "-",
        "tru",
        "\"\\x\"",
        "\"\\ud83d\"",
        "\"\\ud83dx\"",
        "\"\\ude00\"",
        "\"a\nb\"",
        "\"a",
        "{} {}",
        "{}x",
        "\u{feff}{}",
        "[[[[[[[[[]]]]]]]]]",
        "NaN",
        "'a'",
    ] {
        assert!(!ok(bad), "{bad}");
    }
    assert!(check(b"\"\xff\"").is_none());
    let many = |count: usize| {
        let members: Vec<_> = (0..count).map(|index| format!("\"k{index}\":1")).collect();
        format!("{{{}}}", members.join(","))
    };
    assert!(ok(&many(JSON_MEMBERS_MAX)));
    assert!(!ok(&many(JSON_MEMBERS_MAX + 1)));
}

#[test]
fn reads_in_place() {
    let text = " { \"orig\" : {\"tn\" : \"1\\u0032\" } ,\"dest\":{\"tn\":[ \"a,]}\" , \"b\\\"\" ]}, \"iat\" : 12 } ";
    let value = check(text.as_bytes()).unwrap();
    assert_eq!(value.member("orig").unwrap().member("tn").unwrap().string().unwrap(), "12");
    let dest: Vec<_> = value
        .member("dest")
        .and_then(|dest| dest.member("tn"))
        .and_then(Value::elements)
        .unwrap()
        .map(|element| element.string().unwrap().into_owned())
        .collect();
    assert_eq!(dest, ["a,]}", "b\""]);
    assert_eq!(value.member("iat").unwrap().unsigned(), Some(12));
    assert_eq!(value.members().unwrap().count(), 3);
    assert_eq!(value.member("nothing"), None);
    for not in ["1.0", "-1", "1e2", "\"1\"", "true", "18446744073709551616"] {
        assert_eq!(check(not.as_bytes()).unwrap().unsigned(), None, "{not}");
    }
}

proptest! {
    #[test]
    fn total(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(value) = check(&bytes) {
            let _ = value.members().map(Iterator::count);
            let _ = value.elements().map(Iterator::count);
        }
    }

    /// Same judgement as another parser on texts that are nearly JSON.
    #[test]
    fn agrees_with_serde_json(text in "[\\[\\]{}:,\"a0-1.e\\\\ ]{0,14}") {
        let peer = serde_json::from_str::<serde_json::Value>(&text);
        // The peer takes the last of duplicate names.
        if peer.is_err() {
            prop_assert!(!ok(&text), "{}", text);
        }
    }

    #[test]
    fn strings_round_trip(text in any::<String>()) {
        let mut literal = Vec::new();
        push_string(&text, &mut literal);
        let value = check(&literal).unwrap();
        prop_assert_eq!(value.string().unwrap(), text.clone());
        prop_assert_eq!(serde_json::from_slice::<String>(&literal).unwrap(), text);
    }

    #[test]
    fn numbers_round_trip(number in any::<u64>()) {
        let mut text = Vec::new();
        push_number(number, &mut text);
        prop_assert_eq!(text, number.to_string().into_bytes());
    }
}
