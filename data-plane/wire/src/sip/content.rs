//! Content-Type and multipart bodies (RFC 3261 7.4, RFC 2046 5.1, RFC 5621).

use super::chars::{self, TOKEN, split, trim, trim_start};
use super::name::HeaderName;
use super::params::Params;
use crate::limits::{BOUNDARY_MAX_BYTES, MULTIPART_MAX_DEPTH, MULTIPART_MAX_PARTS};

/// A media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentType<'a> {
    /// `application`, `multipart` ...
    pub kind: &'a [u8],
    /// `sdp`, `mixed` ...
    pub subtype: &'a [u8],
    /// Parameters.
    pub params: Params<'a>,
}

impl<'a> ContentType<'a> {
    /// Parses a whole value.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let value = trim(value);
        let (kind, rest) = split(value, chars::run(value, TOKEN));
        let rest = trim_start(trim_start(rest).strip_prefix(b"/")?);
        let (subtype, rest) = split(rest, chars::run(rest, TOKEN));
        if kind.is_empty() || subtype.is_empty() {
            return None;
        }
        Some(Self { kind, subtype, params: Params::parse(rest)? })
    }

    /// Whether this is `kind/subtype`, any case.
    #[must_use]
    pub const fn is(&self, kind: &[u8], subtype: &[u8]) -> bool {
        self.kind.eq_ignore_ascii_case(kind) && self.subtype.eq_ignore_ascii_case(subtype)
    }

    /// Whether this is `multipart/...`.
    #[must_use]
    pub const fn is_multipart(&self) -> bool {
        self.kind.eq_ignore_ascii_case(b"multipart")
    }

    /// The boundary of a multipart type without its quotes.
    #[must_use]
    pub fn boundary(&self) -> Option<&'a [u8]> {
        let value = self.params.get(b"boundary")?;
        let value = match value.strip_prefix(b"\"") {
            Some(inner) => inner.strip_suffix(b"\"")?,
            None => value,
        };
        let ok = |c: &u8| c.is_ascii_graphic() && !matches!(c, b'"' | b'\\') || *c == b' ';
        let fits = !value.is_empty() && value.len() <= BOUNDARY_MAX_BYTES;
        (fits && value.iter().all(ok) && value.last() != Some(&b' ')).then_some(value)
    }

    /// The parts of a multipart `body` of this type.
    #[must_use]
    pub fn parts(&self, body: &'a [u8]) -> Option<Parts<'a>> {
        if !self.is_multipart() {
            return None;
        }
        Some(Parts::new(self.boundary()?, body, 0, 1))
    }

    /// The first part of type `kind/subtype` in a `body` of this type: the body itself, or a part
    /// of a multipart, also of one inside.
    #[must_use]
    pub fn find_part(&self, body: &'a [u8], kind: &[u8], subtype: &[u8]) -> Option<Part<'a>> {
        if self.is(kind, subtype) {
            return Some(Part { headers: &[], body, offset: 0, depth: 0 });
        }
        find_in(self.parts(body)?, kind, subtype)
    }
}

/// Depth is bounded by [`MULTIPART_MAX_DEPTH`], which [`Part::parts`] enforces.
fn find_in<'a>(parts: Parts<'a>, kind: &[u8], subtype: &[u8]) -> Option<Part<'a>> {
    for part in parts {
        if part.content_type().is_some_and(|t| t.is(kind, subtype)) {
            return Some(part);
        }
        if let Some(found) = part.parts().and_then(|inner| find_in(inner, kind, subtype)) {
            return Some(found);
        }
    }
    None
}

/// One part of a multipart body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// Header lines of the part with their ends.
    pub headers: &'a [u8],
    /// Its content, octet-exact.
    pub body: &'a [u8],
    /// Where the content starts in the outermost body.
    pub offset: usize,
    depth: usize,
}

impl<'a> Part<'a> {
    /// Value of the first header `name` of the part.
    #[must_use]
    pub fn header(&self, name: HeaderName) -> Option<&'a [u8]> {
        self.headers.split(|&c| c == b'\n').find_map(|line| {
            let (field, value) = split(line, memchr::memchr(b':', line)?);
            (HeaderName::of(trim(field)) == name).then(|| trim(value.get(1..).unwrap_or_default()))
        })
    }

    /// Content-Type of the part.
    #[must_use]
    pub fn content_type(&self) -> Option<ContentType<'a>> {
        ContentType::parse(self.header(HeaderName::ContentType)?)
    }

    /// Content-ID of the part without its angle brackets (RFC 2392): what `cid:` names.
    #[must_use]
    pub fn content_id(&self) -> Option<&'a [u8]> {
        let id = self.header(HeaderName::ContentId)?;
        Some(id.strip_prefix(b"<").and_then(|id| id.strip_suffix(b">")).unwrap_or(id))
    }

    /// The parts of this part, when it is a multipart and not nested too deep.
    #[must_use]
    pub fn parts(&self) -> Option<Parts<'a>> {
        let kind = self.content_type()?;
        if !kind.is_multipart() || self.depth >= MULTIPART_MAX_DEPTH {
            return None;
        }
        Some(Parts::new(kind.boundary()?, self.body, self.offset, self.depth + 1))
    }
}

/// Iterator over the parts of a multipart body. Stops at the closing delimiter, at the end of the
/// body, or after [`MULTIPART_MAX_PARTS`].
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    boundary: &'a [u8],
    body: &'a [u8],
    /// Where the next part starts in `body`; `None` when there is no more.
    next: Option<usize>,
    base: usize,
    depth: usize,
    count: usize,
    closed: bool,
}

/// A delimiter line.
struct Delimiter {
    /// Where the content before it ends.
    content_end: usize,
    /// Where the line after it starts.
    after: usize,
    closing: bool,
}

impl<'a> Parts<'a> {
    fn new(boundary: &'a [u8], body: &'a [u8], base: usize, depth: usize) -> Self {
        let mut parts = Self { boundary, body, next: None, base, depth, count: 0, closed: false };
        // What stands before the first delimiter is a preamble, to be ignored.
        if let Some(first) = parts.delimiter(0) {
            parts.closed = first.closing;
            parts.next = (!first.closing).then_some(first.after);
        }
        parts
    }

    /// Whether the closing delimiter has been seen.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// The first delimiter line at or after `from`: `--boundary`, at the start of the body or after
    /// a line end, which belongs to it.
    fn delimiter(&self, from: usize) -> Option<Delimiter> {
        let mut at = from;
        loop {
            let found = memchr::memmem::find(self.body.get(at..)?, b"--")?;
            let dashes = at + found;
            at = dashes + 1;
            let before = self.body.get(..dashes)?;
            // A delimiter starts a line. CRLF by the rule, bare LF by tolerance.
            let content_end = if dashes == from {
                dashes
            } else if before.ends_with(b"\r\n") {
                dashes - 2
            } else if before.ends_with(b"\n") {
                dashes - 1
            } else {
                continue;
            };
            let Some(rest) = self.body.get(dashes + 2..)?.strip_prefix(self.boundary) else {
                continue;
            };
            let closing = rest.starts_with(b"--");
            let rest = if closing { rest.get(2..)? } else { rest };
            let line = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            // White space may follow, nothing else: a longer boundary is another one.
            if !trim(split(rest, line).0).is_empty() {
                continue;
            }
            let after = self.body.len() - rest.len() + (line + 1).min(rest.len());
            return Some(Delimiter { content_end: content_end.max(from), after, closing });
        }
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let start = self.next.take()?;
        if self.count >= MULTIPART_MAX_PARTS {
            return None;
        }
        self.count += 1;
        let end = match self.delimiter(start) {
            Some(delimiter) => {
                self.closed = delimiter.closing;
                self.next = (!delimiter.closing).then_some(delimiter.after);
                delimiter.content_end
            }
            // Cut off: the rest is the last part.
            None => self.body.len(),
        };
        let part = self.body.get(start..end).unwrap_or_default();
        let (headers, body) = split_head(part);
        let offset = self.base + start + (part.len() - body.len());
        Some(Part { headers, body, offset, depth: self.depth })
    }
}

/// Splits a part at its first empty line. A part may have no headers (it starts with the empty
/// line) or no content.
fn split_head(part: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while let Some(lf) = part.get(at..).and_then(|rest| memchr::memchr(b'\n', rest)) {
        let line = part.get(at..at + lf).unwrap_or_default();
        if line.is_empty() || line == b"\r" {
            let (headers, rest) = split(part, at);
            return (headers, rest.get(lf + 1..).unwrap_or_default());
        }
        at += lf + 1;
    }
    (part, &[])
}
