//! The Identity header field value (RFC 8224 4; ST-22 to ST-25): a token with parameters, alone or
//! in a comma-joined list. Never panics, whatever the octets.

use crate::limits::{IDENTITY_PARAMS_MAX, IDENTITY_VALUE_BYTES_MAX};
use crate::outcome::Reason;

/// One Identity header field value, taken apart. Nothing is decoded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    /// `header.payload.signature`, or `..signature` in compact form.
    pub token: &'a [u8],
    /// The URL of `info`, without its angle brackets.
    pub info: Info<'a>,
    /// `alg`, unquoted. Absent means ES256.
    pub alg: Option<&'a [u8]>,
    /// `ppt`, unquoted.
    pub ppt: Option<&'a [u8]>,
}

/// The `info` parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Info<'a> {
    Url(&'a [u8]),
    Missing,
    /// Not `<URL>`, or there twice.
    Malformed,
}

impl<'a> Identity<'a> {
    /// Takes one element of an Identity header apart.
    ///
    /// # Errors
    /// The reason, if it is not a token followed by parameters within the limits.
    pub fn parse(value: &'a [u8]) -> Result<Self, Reason> {
        if value.len() > IDENTITY_VALUE_BYTES_MAX {
            return Err(Reason::IdentityTooLong);
        }
        let mut parts = Split::new(value, b';');
        let token = trim(parts.next().unwrap_or_default());
        if token.is_empty() || !token.iter().all(|octet| is_token_octet(*octet)) {
            return Err(Reason::IdentitySyntax);
        }
        let mut found = Self { token, info: Info::Missing, alg: None, ppt: None };
        for (count, param) in parts.enumerate() {
            if count >= IDENTITY_PARAMS_MAX {
                return Err(Reason::IdentitySyntax);
            }
            found.param(trim(param))?;
        }
        Ok(found)
    }

    fn param(&mut self, param: &'a [u8]) -> Result<(), Reason> {
        let equals = param.iter().position(|octet| *octet == b'=');
        let (name, value) = match equals {
            Some(at) => (param.get(..at), param.get(at + 1..)),
            None => (Some(param), None),
        };
        let (name, value) = (trim(name.unwrap_or_default()), value.map(trim));
        if name.is_empty() || !name.iter().all(|octet| is_param_octet(*octet)) {
            return Err(Reason::IdentitySyntax);
        }
        if name.eq_ignore_ascii_case(b"info") {
            let url = value
                .and_then(|value| value.strip_prefix(b"<"))
                .and_then(|value| value.strip_suffix(b">"));
            self.info = match (url, self.info) {
                (Some(url), Info::Missing) if is_url(url) => Info::Url(url),
                _ => Info::Malformed,
            };
        } else if name.eq_ignore_ascii_case(b"alg") {
            Self::once(&mut self.alg, value)?;
        } else if name.eq_ignore_ascii_case(b"ppt") {
            Self::once(&mut self.ppt, value)?;
        } else if let Some(value) = value {
            generic(value).ok_or(Reason::IdentitySyntax)?;
        }
        Ok(())
    }

    fn once(slot: &mut Option<&'a [u8]>, value: Option<&'a [u8]>) -> Result<(), Reason> {
        let value = value.and_then(unquote).ok_or(Reason::IdentitySyntax)?;
        if slot.replace(value).is_some() {
            return Err(Reason::IdentitySyntax);
        }
        Ok(())
    }

    /// Whether the token is in compact form (RFC 8225 7).
    #[must_use]
    pub fn is_compact(&self) -> bool {
        self.token.starts_with(b"..")
    }
}

/// The elements of a comma-joined header value, blank ones left out. Commas inside quotes and angle
/// brackets do not separate.
pub fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    Split::new(value, b',').map(trim).filter(|element| !element.is_empty())
}

/// Splits at a separator outside of quoted strings and angle brackets.
struct Split<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

impl<'a> Split<'a> {
    const fn new(text: &'a [u8], separator: u8) -> Self {
        Self { rest: Some(text), separator }
    }
}

impl<'a> Iterator for Split<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let (mut quoted, mut bracket, mut escaped) = (false, false, false);
        let at = rest.iter().position(|octet| {
            if escaped {
                escaped = false;
            } else if quoted {
                match *octet {
                    b'\\' => escaped = true,
                    b'"' => quoted = false,
                    _ => {}
                }
            } else if bracket {
                bracket = *octet != b'>';
            } else {
                match *octet {
                    b'"' => quoted = true,
                    b'<' => bracket = true,
                    octet => return octet == self.separator,
                }
            }
            false
        });
        self.rest = at.and_then(|at| rest.get(at + 1..));
        Some(at.and_then(|at| rest.get(..at)).unwrap_or(rest))
    }
}

/// Without blanks and folds at either end.
fn trim(text: &[u8]) -> &[u8] {
    let blank = |octet: &u8| matches!(octet, b' ' | b'\t' | b'\r' | b'\n');
    let start = text.iter().position(|octet| !blank(octet)).unwrap_or(text.len());
    let end = text.iter().rposition(|octet| !blank(octet)).map_or(start, |at| at + 1);
    text.get(start..end).unwrap_or_default()
}

/// base64url characters and dots (erratum 6499). Anything else is left to the strict decoder, which
/// would refuse it as well; control and non-ASCII octets are refused here.
const fn is_token_octet(octet: u8) -> bool {
    octet.is_ascii_graphic() && !matches!(octet, b'"' | b'<' | b'>')
}

/// RFC 3261 token.
const fn is_param_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric()
        || matches!(octet, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
}

fn is_url(url: &[u8]) -> bool {
    !url.is_empty()
        && url.iter().all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'<' | b'>' | b'"'))
}

/// The value of `alg` or `ppt`: a token, quoted or not. None if it is neither.
fn unquote(value: &[u8]) -> Option<&[u8]> {
    let inner = match value.strip_prefix(b"\"") {
        Some(rest) => rest.strip_suffix(b"\"")?,
        None => value,
    };
    (!inner.is_empty() && inner.iter().all(|octet| is_param_octet(*octet))).then_some(inner)
}

/// The value of an unknown parameter: token, host or quoted string.
fn generic(value: &[u8]) -> Option<()> {
    let quoted = |inner: &[u8]| {
        let mut escaped = false;
        inner.iter().all(|octet| {
            let fine = escaped || *octet != b'"';
            escaped = !escaped && *octet == b'\\';
            fine && (*octet >= 0x20 || *octet == b'\t') && *octet != 0x7f
        }) && !escaped
    };
    let fine = match value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) {
        Some(inner) => quoted(inner),
        None => value.iter().all(|octet| octet.is_ascii_graphic() && *octet != b'"'),
    };
    fine.then_some(())
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
