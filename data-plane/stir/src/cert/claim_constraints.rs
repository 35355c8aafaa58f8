//! JWTClaimConstraints (RFC 8226 8) and EnhancedJWTClaimConstraints (RFC 9118 3): which claims a
//! certificate may sign (ST-40).

use super::der::{self, Reader};
use crate::json::Value;

/// Constraints of either kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimConstraints {
    must_include: Vec<Box<str>>,
    permitted: Vec<(Box<str>, Vec<Box<str>>)>,
    must_exclude: Vec<Box<str>>,
}

impl ClaimConstraints {
    /// Reads the value of either extension; only the enhanced one may exclude claims. None for
    /// anything but the DER of the RFCs.
    #[must_use]
    pub fn from_der(octets: &[u8], enhanced: bool) -> Option<Self> {
        let mut reader = Reader::new(der::single(octets, der::SEQUENCE)?);
        let mut found = Self::default();
        let mut any = false;
        if let Some(content) = reader.optional(der::context(0)) {
            found.must_include = names(content)?;
            any = true;
        }
        if let Some(content) = reader.optional(der::context(1)) {
            let mut list = Reader::new(der::single(content, der::SEQUENCE)?);
            while !list.is_empty() {
                let mut entry = Reader::new(list.expect(der::SEQUENCE)?);
                let claim = text(entry.expect(der::IA5_STRING)?)?;
                let mut values = Reader::new(entry.expect(der::SEQUENCE)?);
                entry.is_empty().then_some(())?;
                let mut allowed = Vec::new();
                while !values.is_empty() {
                    allowed.push(text(values.expect(der::UTF8_STRING)?)?);
                }
                (!allowed.is_empty()).then_some(())?;
                found.permitted.push((claim, allowed));
            }
            (!found.permitted.is_empty()).then_some(())?;
            any = true;
        }
        if enhanced && let Some(content) = reader.optional(der::context(2)) {
            found.must_exclude = names(content)?;
            any = true;
        }
        (any && reader.is_empty()).then_some(found)
    }

    /// RFC 9118 3: an extension that excludes a baseline claim counts as absent.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.must_exclude.iter().any(|claim| matches!(claim.as_ref(), "iat" | "orig" | "dest"))
    }

    /// Whether the payload keeps to the constraints. Values that are not strings are compared as
    /// JSON text.
    pub(crate) fn allow(&self, payload: Value<'_>) -> bool {
        let has = |claim: &str| payload.member(claim).is_some();
        self.must_include.iter().all(|claim| has(claim))
            && !self.must_exclude.iter().any(|claim| has(claim))
            && self.permitted.iter().all(|(claim, allowed)| {
                payload.member(claim).is_none_or(|value| {
                    let string = value.string();
                    let actual = string.as_deref().unwrap_or_else(|| value.raw());
                    allowed.iter().any(|one| one.as_ref() == actual)
                })
            })
    }
}

fn names(content: &[u8]) -> Option<Vec<Box<str>>> {
    let mut reader = Reader::new(der::single(content, der::SEQUENCE)?);
    let mut found = Vec::new();
    while !reader.is_empty() {
        found.push(text(reader.expect(der::IA5_STRING)?)?);
    }
    (!found.is_empty()).then_some(found)
}

fn text(content: &[u8]) -> Option<Box<str>> {
    std::str::from_utf8(content).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    /// The extension of RFC 9118 5, figure 2.
    const RFC9118: &[u8] = &[
        0x30, 0x40, 0xa0, 0x0e, 0x30, 0x0c, 0x16, 0x0a, b'c', b'o', b'n', b'f', b'i', b'd', b'e',
        b'n', b'c', b'e', 0xa1, 0x20, 0x30, 0x1e, 0x30, 0x1c, 0x16, 0x0a, b'c', b'o', b'n', b'f',
        b'i', b'd', b'e', b'n', b'c', b'e', 0x30, 0x0e, 0x0c, 0x04, b'h', b'i', b'g', b'h', 0x0c,
        0x06, b'm', b'e', b'd', b'i', b'u', b'm', 0xa2, 0x0c, 0x30, 0x0a, 0x16, 0x08, b'p', b'r',
        b'i', b'o', b'r', b'i', b't', b'y',
    ];

    #[test]
    fn rfc9118_example() {
        let constraints = ClaimConstraints::from_der(RFC9118, true).unwrap();
        assert!(!constraints.is_void());
        for (payload, allowed) in [
            (r#"{"confidence":"high"}"#, true),
            (r#"{"confidence":"medium","x":1}"#, true),
            (r#"{"confidence":"low"}"#, false),
            (r#"{"confidence":"High"}"#, false),
            (r#"{"x":1}"#, false),
            (r#"{"confidence":"high","priority":1}"#, false),
        ] {
            let payload = json::check(payload.as_bytes()).unwrap();
            assert_eq!(constraints.allow(payload), allowed, "{}", payload.raw());
        }
        // The older extension excludes nothing.
        assert_eq!(ClaimConstraints::from_der(RFC9118, false), None);
        for cut in 0..RFC9118.len() {
            assert_eq!(ClaimConstraints::from_der(&RFC9118[..cut], true), None);
        }
    }

    #[test]
    fn void_and_empty() {
        let exclude = |claim: &[u8]| {
            let name = der::element(der::IA5_STRING, claim);
            let names = der::element(der::context(2), &der::element(der::SEQUENCE, &name));
            ClaimConstraints::from_der(&der::element(der::SEQUENCE, &names), true).unwrap()
        };
        assert!(exclude(b"orig").is_void());
        assert!(!exclude(b"rcd").is_void());
        assert_eq!(ClaimConstraints::from_der(&[0x30, 0], true), None);
    }
}
