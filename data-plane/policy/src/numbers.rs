//! Dialled numbers and the patterns that routes and entitlements are written with.

use ravelin_contract::config::NumberPlan;

use crate::class::normalised;

/// Longest dial string that is compared with patterns; a longer one matches only `*`.
const DIALLED_MAX: usize = 32;

/// Digits of an international number (E.164).
const E164_MAX: usize = 15;

/// A user part as patterns see it: without visual separators and parameters, percent-decoded, and
/// where possible completed to an international number (ST-14).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialled {
    /// The number as dialled without `+`, with room in front for a country code.
    bytes: [u8; DIALLED_MAX + 1],
    local: Span,
    international: Option<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    end: usize,
}

impl Dialled {
    /// `None` if the user part is empty, too long for a number or holds anything but digits, `*`,
    /// `#` and a leading `+`.
    pub(crate) fn parse(user: &[u8], plan: NumberPlan) -> Option<Self> {
        let mut bytes = [0; DIALLED_MAX + 1];
        // One octet of room for the country code 1.
        let mut end = 1;
        let mut plus = false;
        for byte in normalised(user) {
            match byte {
                b'+' if end == 1 && !plus => plus = true,
                b'0'..=b'9' | b'*' | b'#' => {
                    *bytes.get_mut(end)? = byte;
                    end += 1;
                }
                _ => return None,
            }
        }
        if end == 1 {
            return None;
        }
        let mut dialled = Self { bytes, local: Span { start: 1, end }, international: None };
        dialled.international = dialled.complete(plan, plus);
        Some(dialled)
    }

    fn complete(&mut self, plan: NumberPlan, plus: bool) -> Option<Span> {
        let Span { start, end } = self.local;
        let digits = self.bytes.get(start..end)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let span = if plus {
            Span { start, end }
        } else if let Some(prefix) = international_prefix(digits, plan) {
            Span { start: start + prefix, end }
        } else if plan == NumberPlan::Nanp && digits.len() == 10 && digits[0] >= b'2' {
            self.bytes[0] = b'1';
            Span { start: 0, end }
        } else if digits[0] == b'0' {
            // A trunk prefix of some national plan that we do not know.
            return None;
        } else {
            let shortest = match plan {
                NumberPlan::Nanp => 11,
                NumberPlan::E164 => 7,
            };
            if digits.len() < shortest {
                return None;
            }
            Span { start, end }
        };
        (span.end - span.start <= E164_MAX).then_some(span)
    }

    /// Digits as dialled, without `+`.
    fn local(&self) -> &[u8] {
        self.bytes.get(self.local.start..self.local.end).unwrap_or_default()
    }

    /// The international number without `+`, if it is one.
    pub(crate) fn international(&self) -> Option<&[u8]> {
        let span = self.international?;
        self.bytes.get(span.start..span.end)
    }
}

/// Length of the prefix that introduces an international number.
fn international_prefix(digits: &[u8], plan: NumberPlan) -> Option<usize> {
    /// A shorter rest is not a number in another country.
    const REST_MIN: usize = 7;
    let prefixes: &[&[u8]] = match plan {
        NumberPlan::Nanp => &[b"011", b"00"],
        NumberPlan::E164 => &[b"00"],
    };
    prefixes
        .iter()
        .find(|prefix| digits.starts_with(prefix) && digits.len() >= prefix.len() + REST_MIN)
        .map(|prefix| prefix.len())
}

/// `+13135550100`, `+1313*`, `*`: a number pattern of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// `*`: whatever is dialled, names included.
    Any,
    Number {
        /// Digits, `*` and `#`, without `+`.
        literal: Box<[u8]>,
        /// Written with `+`: compared with the international number only.
        plus: bool,
        /// Written with `*` at the end.
        prefix: bool,
    },
}

impl Pattern {
    /// The pattern, or what is wrong with the text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let complaint =
            || format!("`{text}` is not a number pattern; write `+13135550100`, `+1313*` or `*`");
        let (body, prefix) = match text.strip_suffix('*') {
            Some(body) => (body, true),
            None => (text, false),
        };
        let (body, plus) = match body.strip_prefix('+') {
            Some(body) => (body, true),
            None => (body, false),
        };
        let literal: Vec<u8> =
            body.bytes().filter(|byte| !matches!(byte, b'-' | b'.' | b'(' | b')' | b' ')).collect();
        let valid = |byte: &u8| byte.is_ascii_digit() || (!plus && matches!(byte, b'*' | b'#'));
        if literal.is_empty() || literal.len() > DIALLED_MAX || !literal.iter().all(valid) {
            return Err(complaint());
        }
        if plus && literal.len() > E164_MAX {
            return Err(format!("`{text}` has more than {E164_MAX} digits"));
        }
        Ok(Self::Number { literal: literal.into(), plus, prefix })
    }

    /// The first of `numbers` that this pattern would take in. A pattern with `+` and `*` is a
    /// range of international numbers and takes in none: `+91*` is India. `*` means everything else.
    pub(crate) fn collides_with(&self, numbers: impl Iterator<Item = Vec<u8>>) -> Option<String> {
        let Self::Number { literal, plus, prefix } = self else { return None };
        if *plus && *prefix {
            return None;
        }
        let mut numbers = numbers;
        let taken = |number: &Vec<u8>| {
            if *prefix { number.starts_with(literal) } else { **number == **literal }
        };
        numbers.find(taken).map(|number| String::from_utf8_lossy(&number).into_owned())
    }
}

/// Patterns with a value each; the lowest value of all patterns that match wins. Lookup costs a
/// binary search for each length of prefix in use, however many patterns there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct PatternMap {
    any: Option<u32>,
    plus: Group,
    bare: Group,
}

/// Literals of one kind, sorted, each with its lowest value.
#[derive(Clone, Debug, Default)]
struct Group {
    exact: Vec<(Box<[u8]>, u32)>,
    prefixes: Vec<(Box<[u8]>, u32)>,
    /// Lengths that occur among `prefixes`.
    lengths: Vec<usize>,
}

impl PatternMap {
    pub(crate) fn new<'p>(patterns: impl IntoIterator<Item = (&'p Pattern, u32)>) -> Self {
        let mut map = Self::default();
        for (pattern, value) in patterns {
            match pattern {
                Pattern::Any => map.any = Some(map.any.map_or(value, |v| v.min(value))),
                Pattern::Number { literal, plus, prefix } => {
                    let group = if *plus { &mut map.plus } else { &mut map.bare };
                    let list = if *prefix { &mut group.prefixes } else { &mut group.exact };
                    list.push((literal.clone(), value));
                }
            }
        }
        map.plus.finish();
        map.bare.finish();
        map
    }

    /// The lowest value of the patterns that match; `None` for `dialled` is something that is not a
    /// number.
    pub(crate) fn lookup(&self, dialled: Option<&Dialled>) -> Option<u32> {
        let mut best = self.any;
        let mut offer = |found: Option<u32>| {
            if let Some(value) = found {
                best = Some(best.map_or(value, |b: u32| b.min(value)));
            }
        };
        if let Some(dialled) = dialled {
            offer(self.bare.lookup(dialled.local()));
            if let Some(international) = dialled.international() {
                offer(self.plus.lookup(international));
                offer(self.bare.lookup(international));
            }
        }
        best
    }
}

impl Group {
    fn finish(&mut self) {
        for list in [&mut self.exact, &mut self.prefixes] {
            list.sort();
            list.dedup_by(|later, kept| later.0 == kept.0);
            list.shrink_to_fit();
        }
        self.lengths = self.prefixes.iter().map(|(literal, _)| literal.len()).collect();
        self.lengths.sort_unstable();
        self.lengths.dedup();
    }

    fn lookup(&self, number: &[u8]) -> Option<u32> {
        let find = |list: &[(Box<[u8]>, u32)], literal: &[u8]| {
            let at = list.binary_search_by(|(known, _)| (**known).cmp(literal)).ok()?;
            list.get(at).map(|(_, value)| *value)
        };
        let mut best = find(&self.exact, number);
        for &length in &self.lengths {
            let Some(literal) = number.get(..length) else { break };
            if let Some(value) = find(&self.prefixes, literal) {
                best = Some(best.map_or(value, |b| b.min(value)));
            }
        }
        best
    }
}

/// True for `+` and 7 to 15 digits that do not start with 0.
pub(crate) fn is_e164(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (7..=E164_MAX).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && !digits.starts_with('0')
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn international(user: &str, plan: NumberPlan) -> Option<String> {
        let dialled = Dialled::parse(user.as_bytes(), plan)?;
        dialled.international().map(|digits| String::from_utf8(digits.to_vec()).unwrap())
    }

    #[test]
    fn numbers_are_completed_by_plan() {
        let nanp = |user: &str| international(user, NumberPlan::Nanp);
        for (user, expected) in [
            ("+13135550100", Some("13135550100")),
            ("13135550100", Some("13135550100")),
            ("3135550100", Some("13135550100")),
            ("(313) 555-0100", Some("13135550100")),
            ("+1-313-555-0100;ext=5", Some("13135550100")),
            ("%2B13135550100", Some("13135550100")),
            ("011442071234567", Some("442071234567")),
            ("00442071234567", Some("442071234567")),
            ("442071234567", Some("442071234567")),
            ("+442071234567", Some("442071234567")),
            ("1135550100", None),
            ("5550100", None),
            ("4412", None),
            ("02071234567", None),
            ("*72", None),
            ("+1234567890123456", None),
            ("alice", None),
            ("", None),
            ("++13135550100", None),
            ("1+3135550100", None),
        ] {
            assert_eq!(nanp(user).as_deref(), expected, "{user}");
        }
        let e164 = |user: &str| international(user, NumberPlan::E164);
        assert_eq!(e164("3135550100").as_deref(), Some("3135550100"));
        assert_eq!(e164("0013135550100").as_deref(), Some("13135550100"));
        assert_eq!(e164("123456"), None);
    }

    fn lookup(patterns: &[&str], user: &str) -> Option<u32> {
        let parsed: Vec<Pattern> = patterns.iter().map(|p| Pattern::parse(p).unwrap()).collect();
        let map = PatternMap::new(parsed.iter().zip(0..));
        map.lookup(Dialled::parse(user.as_bytes(), NumberPlan::Nanp).as_ref())
    }

    #[test]
    fn first_pattern_that_matches_wins() {
        let patterns = ["+13135551234", "+1313*", "+1*", "5*", "*72", "*"];
        for (user, expected) in [
            ("+13135551234", 0),
            ("313-555-1234", 0),
            ("+13135551235", 1),
            ("+12125550100", 2),
            ("5001", 3),
            ("*72", 4),
            ("alice", 5),
            ("", 5),
            ("+442071234567", 5),
            ("1313", 5),
        ] {
            assert_eq!(lookup(&patterns, user), Some(expected), "{user}");
        }
        assert_eq!(lookup(&["*", "+1313*"], "+13135550100"), Some(0), "order decides, not length");
        assert_eq!(lookup(&["+44*"], "4412"), None, "an extension is not a country");
        assert_eq!(lookup(&["1313*"], "+13135550100"), Some(0));
        assert_eq!(lookup(&["1313*"], "3135550100"), Some(0));
        assert_eq!(lookup(&[], "5"), None);
    }

    #[test]
    fn bad_patterns_are_refused() {
        for bad in ["", "+", "+*", "**x", "+1313a", "1313**5x", "+1#", "alice", "+1234567890123456"]
        {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Pattern::parse("+1 (313) 555-*"), Pattern::parse("+1313555*"));
    }

    #[test]
    fn e164_is_checked() {
        assert!(is_e164("+13135551000"));
        for bad in ["13135551000", "+", "+0135551000", "+123456", "+1234567890123456", "+1313 555"]
        {
            assert!(!is_e164(bad), "{bad}");
        }
    }

    /// One pattern against one number by the definition, on text.
    fn matches(pattern: &str, user: &str) -> bool {
        let clean =
            |text: &str| -> String { text.chars().filter(|c| !"-.() ".contains(*c)).collect() };
        let digits = clean(user);
        let numeric = digits.strip_prefix('+').unwrap_or(&digits).to_owned();
        let international = international(user, NumberPlan::Nanp);
        if pattern == "*" {
            return true;
        }
        let (body, prefix) = match pattern.strip_suffix('*') {
            Some(body) => (body, true),
            None => (pattern, false),
        };
        let hit = |number: &str, literal: &str| {
            if prefix { number.starts_with(literal) } else { number == literal }
        };
        match body.strip_prefix('+') {
            Some(literal) => international.is_some_and(|n| hit(&n, literal)),
            None => hit(&numeric, body) || international.is_some_and(|n| hit(&n, body)),
        }
    }

    proptest! {
        #[test]
        fn map_equals_one_by_one(
            patterns in prop::collection::vec("[+]?[123]{1,4}[*]?|[*]", 0..8),
            user in "[+]?[-]?[123]{1,11}",
        ) {
            let texts: Vec<&str> = patterns.iter().map(String::as_str).collect();
            let expected = texts.iter().position(|p| matches(p, &user));
            let found = lookup(&texts, &user).map(|v| usize::try_from(v).unwrap());
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn total_on_arbitrary_bytes(user in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(number) = Dialled::parse(&user, NumberPlan::Nanp)
                && let Some(digits) = number.international() {
                prop_assert!(digits.len() <= E164_MAX && digits.iter().all(u8::is_ascii_digit));
            }
        }
    }
}
