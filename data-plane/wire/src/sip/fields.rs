//! Small header values: numbers, CSeq, RAck, Reason, timers, token lists.

use std::net::IpAddr;

use super::chars::{self, TOKEN, is_lws, quoted_len, split, trim, trim_start};
use super::name::Method;
use super::params::Params;
use super::values::{Values, split_commas};
use crate::limits::METHOD_MAX_BYTES;

/// A run of digits as a number. `None` when empty, not digits, or above 2^64-1. Leading zeros are
/// fine.
#[must_use]
#[inline]
pub fn decimal(s: &[u8]) -> Option<u64> {
    if s.is_empty() {
        return None;
    }
    s.iter().try_fold(0u64, |n, &c| {
        let digit = c.checked_sub(b'0').filter(|&d| d < 10)?;
        n.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A `delta-seconds` that may be too large: saturates at 2^32-1 (RFC 3261 20.19). `None`: no
/// number.
#[must_use]
pub fn delta_seconds(s: &[u8]) -> Option<u32> {
    let s = trim(s);
    if s.is_empty() || !s.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(decimal(s).and_then(|n| u32::try_from(n).ok()).unwrap_or(u32::MAX))
}

/// Appends `n` in decimal.
pub(crate) fn push_decimal(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        if let (Some(slot), Ok(digit)) = (digits.get_mut(at), u8::try_from(n % 10)) {
            *slot = b'0' + digit;
        }
        n /= 10;
        if n == 0 || at == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

/// Appends an address as text; IPv6 without brackets.
pub(crate) fn push_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            for (at, octet) in ip.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                push_decimal(out, u64::from(octet));
            }
        }
        // Writing to a Vec cannot fail.
        IpAddr::V6(ip) => drop(std::io::Write::write_fmt(out, format_args!("{ip}"))),
    }
}

/// CSeq (RFC 3261 20.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// Sequence number, below 2^31.
    pub number: u32,
    /// Method of the request.
    pub method: Method<'a>,
}

impl<'a> CSeq<'a> {
    /// Parses a whole value.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (number, rest) = word(value)?;
        let number = u32::try_from(decimal(number)?).ok().filter(|&n| n < 1 << 31)?;
        Some(Self { number, method: method(rest)? })
    }
}

/// RAck (RFC 3262 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RAck<'a> {
    /// RSeq of the provisional response.
    pub rseq: u32,
    /// CSeq of the provisional response.
    pub cseq: CSeq<'a>,
}

impl<'a> RAck<'a> {
    /// Parses a whole value.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (rseq, rest) = word(value)?;
        let rseq = u32::try_from(decimal(rseq)?).ok().filter(|&n| n > 0)?;
        Some(Self { rseq, cseq: CSeq::parse(rest)? })
    }
}

/// The first word of `s`, and what follows the white space after it.
fn word(s: &[u8]) -> Option<(&[u8], &[u8])> {
    let s = trim(s);
    let (first, rest) = split(s, s.iter().position(|&c| is_lws(c))?);
    Some((first, trim_start(rest)))
}

/// All of `s` as a method.
pub(crate) fn method(s: &[u8]) -> Option<Method<'_>> {
    let known = Method::of(s);
    (!known.is_other() || s.len() <= METHOD_MAX_BYTES && chars::all(s, TOKEN)).then_some(known)
}

/// One value of Reason (RFC 3326): `Q.850;cause=16;text="..."`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason<'a> {
    /// `SIP`, `Q.850`, `STIR` ...
    pub protocol: &'a [u8],
    /// The cause, if there is one and it is a number.
    pub cause: Option<u16>,
    /// The text with its quotes.
    pub text: Option<&'a [u8]>,
    /// All parameters.
    pub params: Params<'a>,
}

impl<'a> Reason<'a> {
    /// Parses one value.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let value = trim(value);
        let (protocol, rest) = split(value, chars::run(value, TOKEN));
        if protocol.is_empty() {
            return None;
        }
        let params = Params::parse(rest)?;
        let cause = params.get(b"cause").and_then(decimal).and_then(|n| u16::try_from(n).ok());
        Some(Self { protocol, cause, text: params.get(b"text"), params })
    }
}

/// Retry-After (RFC 3261 20.33): `120 (comment);duration=60`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter {
    /// Seconds to wait; saturated at 2^32-1.
    pub seconds: u32,
}

impl RetryAfter {
    /// Parses a whole value; comment and parameters are passed over.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = trim(value);
        let digits = value.iter().position(|c| !c.is_ascii_digit()).unwrap_or(value.len());
        let (seconds, rest) = split(value, digits);
        let rest = trim_start(rest);
        matches!(rest.first(), None | Some(b';' | b'('))
            .then(|| delta_seconds(seconds).map(|seconds| Self { seconds }))
            .flatten()
    }
}

/// Session-Expires, and Min-SE without refresher (RFC 4028).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionExpires {
    /// Interval in seconds; saturated at 2^32-1.
    pub seconds: u32,
    /// `Some(true)`: the UAC refreshes; `Some(false)`: the UAS.
    pub refresher_uac: Option<bool>,
}

impl SessionExpires {
    /// Parses a whole value.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = trim(value);
        let end = memchr::memchr(b';', value).unwrap_or(value.len());
        let (seconds, params) = split(value, end);
        let refresher_uac = match Params::parse(params)?.get(b"refresher") {
            Some(who) if who.eq_ignore_ascii_case(b"uac") => Some(true),
            Some(who) if who.eq_ignore_ascii_case(b"uas") => Some(false),
            Some(_) => return None,
            None => None,
        };
        Some(Self { seconds: delta_seconds(seconds)?, refresher_uac })
    }
}

/// One value of Warning (RFC 3261 20.43).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warning<'a> {
    /// Three digits.
    pub code: u16,
    /// Host or pseudonym of the element.
    pub agent: &'a [u8],
    /// Text with its quotes.
    pub text: &'a [u8],
}

impl<'a> Warning<'a> {
    /// Parses one value.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (code, rest) = word(value)?;
        let (agent, text) = word(rest)?;
        if code.len() != 3 || text.first() != Some(&b'"') || quoted_len(text) != Some(text.len()) {
            return None;
        }
        Some(Self { code: u16::try_from(decimal(code)?).ok()?, agent, text })
    }
}

/// The tokens of a list header (Allow, Supported, Require ...).
#[must_use]
pub const fn tokens(value: &[u8]) -> Values<'_> {
    split_commas(value)
}
