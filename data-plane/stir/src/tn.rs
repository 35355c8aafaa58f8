//! Telephone numbers and URIs in the canonical form that PASSporT claims use (RFC 8224 8.3 and 8.5;
//! ST-14 to ST-16, ST-21). Total on arbitrary octets.

use std::fmt;

use smallvec::SmallVec;

use crate::limits::{TN_DIGITS_MAX, URI_BYTES_MAX};

/// A canonical telephone number: one to fifteen of `0-9 # *`, no `+`, no separators. Held in line,
/// so it is copied without an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tn {
    len: u8,
    /// Zero after `len`, so that derived equality is equality of numbers.
    digits: [u8; TN_DIGITS_MAX],
}

/// Why something is not a telephone number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TnError {
    Empty,
    /// More than fifteen digits.
    TooLong,
    /// Something that is no digit, `#`, `*` or visual separator, or `+` not in front.
    Character,
}

impl TnError {
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Empty => "the number is empty",
            Self::TooLong => "the number has more than 15 digits",
            Self::Character => "the number has a character that no number has",
        }
    }
}

impl fmt::Display for TnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl std::error::Error for TnError {}

impl Tn {
    /// Reads a number that must already be canonical, as in a `tn` claim.
    ///
    /// # Errors
    /// If it is empty, too long or has anything but `0-9 # *`.
    pub fn exact(text: &[u8]) -> Result<Self, TnError> {
        let mut tn = Self { len: 0, digits: [0; TN_DIGITS_MAX] };
        for octet in text {
            if !is_tn_octet(*octet) {
                return Err(TnError::Character);
            }
            tn.push(*octet)?;
        }
        if tn.len == 0 { Err(TnError::Empty) } else { Ok(tn) }
    }

    /// The digits.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.digits.get(..usize::from(self.len)).unwrap_or_default()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// Digits only: a number that a TNAuthList range can cover, and not a service code.
    #[must_use]
    pub fn is_digits(&self) -> bool {
        self.as_bytes().iter().all(u8::is_ascii_digit)
    }

    fn push(&mut self, octet: u8) -> Result<(), TnError> {
        let slot = self.digits.get_mut(usize::from(self.len)).ok_or(TnError::TooLong)?;
        *slot = octet;
        self.len += 1;
        Ok(())
    }
}

impl fmt::Display for Tn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Tn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tn({})", self.as_str())
    }
}

const fn is_tn_octet(octet: u8) -> bool {
    matches!(octet, b'0'..=b'9' | b'#' | b'*')
}

/// RFC 3966 visual separators, and the blank that people put there.
const fn is_separator(octet: u8) -> bool {
    matches!(octet, b'-' | b'.' | b'(' | b')' | b' ')
}

/// Turns the user part of a `tel:`, `sip:` or `sips:` URI into a canonical number: parameters after
/// `;` dropped, percent-encoding decoded, visual separators and a leading `+` dropped (ST-14).
///
/// # Errors
/// If what remains is not a number.
pub fn canonicalise(user: &[u8]) -> Result<Tn, TnError> {
    let user = user.split(|octet| *octet == b';').next().unwrap_or_default();
    let mut tn = Tn { len: 0, digits: [0; TN_DIGITS_MAX] };
    let mut plus = false;
    for octet in PercentDecoded::new(user) {
        let octet = octet.map_err(|_| TnError::Character)?;
        match octet {
            _ if is_separator(octet) => {}
            b'+' if tn.len == 0 && !plus => plus = true,
            _ if is_tn_octet(octet) => tn.push(octet)?,
            _ => return Err(TnError::Character),
        }
    }
    if tn.len == 0 { Err(TnError::Empty) } else { Ok(tn) }
}

/// How a trunk writes national numbers, to complete them before signing (ST-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberPlan<'a> {
    /// Country code, digits only: `1`.
    pub country: &'a str,
    /// Prefix for calls inside the country that is dropped, `0` in most of the world, `1` in North
    /// America; may be empty.
    pub national_prefix: &'a str,
    /// Prefix for international calls that is dropped: `011`, `00`; may be empty.
    pub international_prefix: &'a str,
    /// Digits of a complete national number without prefixes, shortest and longest: (10, 10).
    pub national_digits: (u8, u8),
    /// Lowest first digit of a national number without prefixes.
    pub national_first: u8,
}

/// What follows an international prefix; less of it is a short code that looks like one (`000`).
const INTERNATIONAL_DIGITS_MIN: usize = 7;

impl NumberPlan<'_> {
    /// North American numbering plan.
    pub const NANP: NumberPlan<'static> = NumberPlan {
        country: "1",
        national_prefix: "1",
        international_prefix: "011",
        national_digits: (10, 10),
        national_first: b'2',
    };

    /// Numbers come with their country code; `00` in front of it is dropped.
    pub const E164: NumberPlan<'static> = NumberPlan {
        country: "",
        national_prefix: "",
        international_prefix: "00",
        national_digits: (1, 0),
        national_first: b'0',
    };

    /// Numbers come with their country code and nothing else.
    pub const CANONICAL: NumberPlan<'static> =
        NumberPlan { international_prefix: "", ..Self::E164 };

    /// As [`canonicalise`], and national numbers get the country code. Numbers with a leading `+`,
    /// short codes, emergency numbers and numbers with `#` or `*` stay as dialled.
    ///
    /// # Errors
    /// If the user part is not a number or the completed number is too long.
    pub fn canonicalise(&self, user: &[u8]) -> Result<Tn, TnError> {
        let tn = canonicalise(user)?;
        let international = PercentDecoded::new(user)
            .map_while(Result::ok)
            .find(|octet| !is_separator(*octet))
            .is_some_and(|octet| octet == b'+');
        if international || !tn.is_digits() {
            return Ok(tn);
        }
        let digits = tn.as_bytes();
        let (shortest, longest) = self.national_digits;
        let fits = |rest: &[u8]| {
            rest.len() >= usize::from(shortest)
                && rest.len() <= usize::from(longest)
                && rest.first().is_some_and(|first| *first >= self.national_first)
        };
        if !self.international_prefix.is_empty()
            && let Some(rest) = digits.strip_prefix(self.international_prefix.as_bytes())
            && rest.len() >= INTERNATIONAL_DIGITS_MIN
            && !fits(digits)
        {
            return Tn::exact(rest);
        }
        let national = if fits(digits) {
            digits
        } else {
            match digits.strip_prefix(self.national_prefix.as_bytes()) {
                Some(rest) if !self.national_prefix.is_empty() && fits(rest) => rest,
                _ => return Ok(tn),
            }
        };
        let mut complete = Tn::exact(self.country.as_bytes())?;
        for digit in national {
            complete.push(*digit)?;
        }
        Ok(complete)
    }
}

/// A calling or called party as a claim names it: `tn` or `uri`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    Tn(Tn),
    /// RFC 8224 8.5 form (ST-16).
    Uri(Box<str>),
}

impl From<Tn> for Party {
    fn from(tn: Tn) -> Self {
        Self::Tn(tn)
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tn(tn) => tn.fmt(f),
            Self::Uri(uri) => f.write_str(uri),
        }
    }
}

/// The identities that one SIP URI may stand for, most specific first: its number if it has one,
/// and its URI form. A claim that equals any of them is about this party.
pub type Parties = SmallVec<[Party; 2]>;

/// When the user part of a `sip:` URI is taken as a number (ST-14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserIsTn {
    /// Whenever it canonicalises to one: the usual trunk between carriers.
    #[default]
    IfItLooksSo,
    /// Only with `user=phone` (or `tel:`).
    WithUserPhone,
}

/// The identities of the party that a URI of From, P-Asserted-Identity, To or the request line
/// names (ST-14, ST-16, ST-17). `uri` is the URI without display name, angle brackets or header
/// parameters. Empty if it is no URI that a PASSporT can name.
#[must_use]
pub fn parties(uri: &[u8], rule: UserIsTn) -> Parties {
    parties_in(uri, rule, &NumberPlan::CANONICAL)
}

/// As [`parties`], with national numbers completed as `plan` has it (ST-14).
#[must_use]
pub fn parties_in(uri: &[u8], rule: UserIsTn, plan: &NumberPlan<'_>) -> Parties {
    let mut found = Parties::new();
    let Some(parts) = UriParts::split(uri) else { return found };
    let number = match parts.scheme {
        Scheme::Tel => plan.canonicalise(parts.user.unwrap_or_default()).ok(),
        Scheme::Sip | Scheme::Sips if rule == UserIsTn::IfItLooksSo || parts.user_phone() => {
            parts.user.and_then(|user| plan.canonicalise(user).ok())
        }
        _ => None,
    };
    if let Some(tn) = number {
        found.push(Party::Tn(tn));
    }
    if let Some(uri) = parts.canonical_uri() {
        found.push(Party::Uri(uri));
    }
    found
}

/// The one identity to sign for a URI: its number, else its URI form (ST-16).
#[must_use]
pub fn party(uri: &[u8], rule: UserIsTn) -> Option<Party> {
    party_in(uri, rule, &NumberPlan::CANONICAL)
}

/// As [`party`], with a national number completed as `plan` has it (ST-14).
#[must_use]
pub fn party_in(uri: &[u8], rule: UserIsTn, plan: &NumberPlan<'_>) -> Option<Party> {
    parties_in(uri, rule, plan).into_iter().next()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Tel,
    Sip,
    Sips,
    Urn,
}

/// A URI taken apart without judging its grammar further than canonical form needs.
struct UriParts<'a> {
    scheme: Scheme,
    /// User part with its parameters, without password. For `tel:` and `urn:` the whole rest.
    user: Option<&'a [u8]>,
    host: &'a [u8],
    params: &'a [u8],
}

impl<'a> UriParts<'a> {
    fn split(uri: &'a [u8]) -> Option<Self> {
        if uri.len() > URI_BYTES_MAX {
            return None;
        }
        let colon = memchr(b':', uri)?;
        let (scheme, rest) = (uri.get(..colon)?, uri.get(colon + 1..)?);
        let scheme = [
            (b"tel".as_slice(), Scheme::Tel),
            (b"sip", Scheme::Sip),
            (b"sips", Scheme::Sips),
            (b"urn", Scheme::Urn),
        ]
        .into_iter()
        .find_map(|(name, known)| scheme.eq_ignore_ascii_case(name).then_some(known))?;
        if matches!(scheme, Scheme::Tel | Scheme::Urn) {
            return Some(Self { scheme, user: Some(rest), host: b"", params: b"" });
        }
        // The user part may contain `;` and `?`, so it is cut off first. `@` does not occur
        // unescaped in a host, so the last one ends the user part.
        let (user, rest) = match rest.iter().rposition(|octet| *octet == b'@') {
            Some(at) => (Some(rest.get(..at)?), rest.get(at + 1..)?),
            None => (None, rest),
        };
        let user =
            user.map(|user| memchr(b':', user).and_then(|at| user.get(..at)).unwrap_or(user));
        let end = rest.iter().position(|octet| matches!(octet, b';' | b'?')).unwrap_or(rest.len());
        let (hostport, params) = (rest.get(..end)?, rest.get(end..)?);
        let host = if hostport.first() == Some(&b'[') {
            hostport.get(..=memchr(b']', hostport)?)?
        } else {
            memchr(b':', hostport).and_then(|at| hostport.get(..at)).unwrap_or(hostport)
        };
        (!host.is_empty()).then_some(Self { scheme, user, host, params })
    }

    fn user_phone(&self) -> bool {
        let params = self.params.split(|octet| *octet == b'?').next().unwrap_or_default();
        params.split(|octet| *octet == b';').any(|param| param.eq_ignore_ascii_case(b"user=phone"))
    }

    /// RFC 8224 8.5: password, port, parameters and headers removed, lower case, unreserved
    /// characters decoded.
    fn canonical_uri(&self) -> Option<Box<str>> {
        let mut text = String::with_capacity(URI_BYTES_MAX.min(64));
        text.push_str(match self.scheme {
            Scheme::Tel => return None,
            Scheme::Sip => "sip:",
            Scheme::Sips => "sips:",
            Scheme::Urn => "urn:",
        });
        if let Some(user) = self.user {
            let user = match self.scheme {
                Scheme::Urn => user,
                _ => user.split(|octet| *octet == b';').next().unwrap_or_default(),
            };
            if user.is_empty() {
                return None;
            }
            push_normal(&mut text, user)?;
            if self.scheme != Scheme::Urn {
                text.push('@');
            }
        }
        push_normal(&mut text, self.host)?;
        Some(text.into_boxed_str())
    }
}

/// Appends in lower case, with escapes of unreserved characters decoded and the others in
/// upper-case hexadecimal. None for what cannot stand in a URI.
fn push_normal(text: &mut String, part: &[u8]) -> Option<()> {
    let mut octets = part.iter().copied();
    while let Some(octet) = octets.next() {
        if octet != b'%' {
            if !octet.is_ascii_graphic() || matches!(octet, b'<' | b'>' | b'"' | b'\\') {
                return None;
            }
            text.push(char::from(octet.to_ascii_lowercase()));
            continue;
        }
        let value = hex(octets.next()?)? << 4 | hex(octets.next()?)?;
        if value.is_ascii_alphanumeric() || b"-._~".contains(&value) {
            text.push(char::from(value.to_ascii_lowercase()));
        } else {
            text.push('%');
            for nibble in [value >> 4, value & 15] {
                text.push(char::from(*b"0123456789ABCDEF".get(usize::from(nibble))?));
            }
        }
    }
    Some(())
}

fn memchr(wanted: u8, text: &[u8]) -> Option<usize> {
    text.iter().position(|octet| *octet == wanted)
}

fn hex(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'a'..=b'f' => Some(octet - b'a' + 10),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

/// Octets with `%HH` decoded; an incomplete escape is an error.
struct PercentDecoded<'a> {
    rest: std::slice::Iter<'a, u8>,
}

impl<'a> PercentDecoded<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { rest: text.iter() }
    }
}

impl Iterator for PercentDecoded<'_> {
    type Item = Result<u8, ()>;

    fn next(&mut self) -> Option<Self::Item> {
        let octet = *self.rest.next()?;
        if octet != b'%' {
            return Some(Ok(octet));
        }
        let mut digit = || self.rest.next().and_then(|octet| hex(*octet));
        let value = digit().zip(digit()).map(|(high, low)| high << 4 | low);
        Some(value.ok_or(()))
    }
}

#[cfg(test)]
#[path = "tn_tests.rs"]
mod tests;
