//! Finds names (hosts, addresses, Call-IDs) as whole words in text that may hold them anywhere.

/// Where a name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// First octet of the name.
    pub start: usize,
    /// The octet behind it.
    pub end: usize,
    /// Which of the names it is.
    pub index: usize,
}

/// The first place at or behind `from` where one of `names` stands as a whole word, in any case:
/// `10.0.0.1` is not found in `10.0.0.12`, nor `pbx.example` in `my-pbx.example`. Where two names
/// begin at the same octet, the longer is found. Empty names are never found. A name begins and ends
/// with a letter, digit or bracket.
#[must_use]
pub fn find(text: &[u8], from: usize, names: &[&[u8]]) -> Option<Found> {
    // Most words begin like none of the names.
    let bit = |first: &u8| 1_u64 << ((first | 0x20) & 63);
    let starts = names.iter().filter_map(|name| name.first()).fold(0, |all, c| all | bit(c));
    let mut inside = from.checked_sub(1).and_then(|at| text.get(at)).is_some_and(in_word);
    for (offset, byte) in text.get(from..)?.iter().enumerate() {
        let begins = !inside;
        inside = in_word(byte);
        if !begins || starts & bit(byte) == 0 {
            continue;
        }
        let start = from + offset;
        let rest = text.get(start..).unwrap_or_default();
        let longest = names
            .iter()
            .enumerate()
            .filter(|(_, name)| !name.is_empty() && begins_with(rest, name))
            .max_by_key(|(_, name)| name.len());
        if let Some((index, name)) = longest {
            return Some(Found { start, end: start + name.len(), index });
        }
    }
    None
}

fn begins_with(text: &[u8], name: &[u8]) -> bool {
    let (Some(head), rest) = (text.get(..name.len()), text.get(name.len()..)) else {
        return false;
    };
    if !head.eq_ignore_ascii_case(name) {
        return false;
    }
    match rest.unwrap_or_default() {
        // A dot that ends a sentence, or the root of a domain name.
        [b'.', after @ ..] => !after.first().is_some_and(in_word),
        [next, ..] => !in_word(next),
        [] => true,
    }
}

/// Whether an octet can stand inside a host name or a dotted address.
const fn in_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// Whether text holds something that can name a host: a mailbox, or letters or digits on both sides
/// of a dot or colon.
#[must_use]
pub fn may_name_a_host(text: &[u8]) -> bool {
    text.contains(&b'@')
        || text.windows(3).any(|three| {
            matches!(three, [before, b'.' | b':', after]
                if before.is_ascii_alphanumeric() && (after.is_ascii_alphanumeric() || *after == b':'))
        })
        || text.windows(2).any(|two| two == b"::")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str, names: &[&str]) -> Option<(usize, usize)> {
        let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        find(text.as_bytes(), 0, &names).map(|found| (found.start, found.index))
    }

    #[test]
    fn whole_words_only() {
        assert_eq!(at("at 10.0.0.1", &["10.0.0.1"]), Some((3, 0)));
        assert_eq!(at("at 10.0.0.1.", &["10.0.0.1"]), Some((3, 0)));
        assert_eq!(at("<sip:a@PBX.example:5060>", &["pbx.example"]), Some((7, 0)));
        assert_eq!(at("at 10.0.0.12", &["10.0.0.1"]), None);
        assert_eq!(at("at 110.0.0.1", &["10.0.0.1"]), None);
        assert_eq!(at("my-pbx.example", &["pbx.example"]), None);
        assert_eq!(at("pbx.example.org", &["pbx.example"]), None);
        assert_eq!(at("id=[2001:db8::1];x", &["", "[2001:db8::1]"]), Some((3, 1)));
        assert_eq!(at("x abc@h y", &["h", "abc@h", "abc"]), Some((2, 1)));
        assert_eq!(at("", &["h"]), None);
    }

    #[test]
    fn what_may_name_a_host() {
        for text in ["bob@pbx", "10.0.0.1", "call at pbx.inside", "fe80::1", "h:5060"] {
            assert!(may_name_a_host(text.as_bytes()), "{text}");
        }
        for text in ["-", "A call", "SIPp Normal Call", "Done. Next: more", ""] {
            assert!(!may_name_a_host(text.as_bytes()), "{text}");
        }
    }

    proptest! {
        /// Replaced one after the other, none is left.
        #[test]
        fn nothing_is_left(text in "[a.@: -]{0,40}", name in "a([a.@]{0,3}a)?") {
            let names = [name.as_bytes()];
            let mut rest = Vec::new();
            let mut from = 0;
            while let Some(found) = find(text.as_bytes(), from, &names) {
                prop_assert!(found.start >= from && found.end > found.start);
                rest.extend_from_slice(&text.as_bytes()[from..found.start]);
                rest.push(b'*');
                from = found.end;
            }
            rest.extend_from_slice(&text.as_bytes()[from.min(text.len())..]);
            prop_assert_eq!(find(&rest, 0, &names), None);
        }
    }
}
