//! `name-addr` and `addr-spec` with header parameters (RFC 3261 20.10, 25.1).

use super::chars::{self, TOKEN, quoted_len, split, trim, trim_start};
use super::params::Params;
use super::uri::Uri;

/// One value of From, To, Contact, Route, Record-Route, P-Asserted-Identity, Refer-To and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// Display name as on the wire, with its quotes if it has them; empty if there is none.
    pub display: &'a [u8],
    /// The URI without angle brackets.
    pub uri: &'a [u8],
    /// Header parameters, those after the brackets.
    pub params: Params<'a>,
    tag: Option<&'a [u8]>,
    host: &'a [u8],
}

impl<'a> NameAddr<'a> {
    /// Parses one whole value. Without angle brackets everything after the first `;` is a header
    /// parameter, and the URI may hold neither `,` nor `?` (RFC 3261 20).
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let mut parsed = Self::EMPTY;
        Self::parse_to(value, &mut parsed)?;
        Some(parsed)
    }

    /// Not parsed yet.
    pub(crate) const EMPTY: Self =
        Self { display: &[], uri: &[], params: Params::unchecked(&[]), tag: None, host: &[] };

    /// As [`NameAddr::parse`], written where it is to stay: a message parses many, and handing them
    /// over by value costs more than reading them. `None` leaves `slot` in either state.
    pub(crate) fn parse_to(value: &'a [u8], slot: &mut Self) -> Option<()> {
        let value = trim(value);
        let (display, uri, rest) = match *value.first()? {
            b'"' => {
                let (display, rest) = split(value, quoted_len(value)?);
                let (uri, rest) = bracketed(trim_start(rest))?;
                (display, uri, rest)
            }
            b'<' => {
                let (uri, rest) = bracketed(value)?;
                (&[][..], uri, rest)
            }
            _ => match chars::find(value, b'<') {
                // A `<` further on belongs to a quoted parameter when the start is a URI.
                Some(at) if is_display(split(value, at).0) => {
                    let (display, rest) = split(value, at);
                    let (uri, rest) = bracketed(rest)?;
                    (trim(display), uri, rest)
                }
                _ => {
                    let end = chars::find(value, b';').unwrap_or(value.len());
                    let (uri, rest) = split(value, end);
                    let uri = trim(uri);
                    if uri.iter().any(|c| matches!(c, b',' | b'?')) {
                        return None;
                    }
                    (&[][..], uri, rest)
                }
            },
        };
        let host = Uri::parse(uri)?.host;
        let mut tag = None;
        let params = Params::parse_each(rest, |name, value| {
            if name.eq_ignore_ascii_case(b"tag") {
                // It names a dialog: not without a value.
                tag = Some(value?);
            }
            Some(())
        })?;
        *slot = Self { display, uri, params, tag, host };
        Some(())
    }

    /// The tag, if there is one.
    #[must_use]
    #[inline]
    pub const fn tag(&self) -> Option<&'a [u8]> {
        self.tag
    }

    /// Host of the URI, IPv6 with its brackets; empty where the scheme has none.
    #[must_use]
    #[inline]
    pub const fn host(&self) -> &'a [u8] {
        self.host
    }

    /// Value of header parameter `name`, if it has one.
    #[must_use]
    pub fn param(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.params.get(name)
    }

    /// The URI, split. Total: a parsed value holds a valid URI.
    #[must_use]
    pub fn uri(&self) -> Option<Uri<'a>> {
        Uri::parse(self.uri)
    }

    /// The display name to put into another message: as it stands, or nothing when it holds a
    /// control character. Such are legal as escapes in quotes (RFC 4475 3.1.1.2) and dangerous to
    /// every parser that counts on text.
    #[must_use]
    pub fn safe_display(&self) -> &'a [u8] {
        let control = |c: &u8| c.is_ascii_control() && !chars::is_lws(*c);
        if self.display.iter().any(control) { &[] } else { self.display }
    }
}

/// `<uri>` at the start of `s`, and what follows.
fn bracketed(s: &[u8]) -> Option<(&[u8], &[u8])> {
    let s = s.strip_prefix(b"<")?;
    let (uri, rest) = split(s, chars::find(s, b'>')?);
    Some((uri, rest.get(1..)?))
}

/// `*(token LWS)`: what may stand before `<` without quotes. The LWS before `<` may be missing
/// (RFC 4475 3.1.1.6).
fn is_display(s: &[u8]) -> bool {
    s.iter().all(|&c| chars::is(c, TOKEN) || chars::is_lws(c))
}
