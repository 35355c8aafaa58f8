//! Writing messages: full header names, one space after the colon, no folds, a Content-Length that
//! is right, and no way for a value to become a header.

use super::chars::{self, TOKEN, is_lws, trim};
use super::fields::push_decimal;
use super::name::HeaderName;
use crate::limits::MESSAGE_MAX_BYTES;

/// Why a message could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// A method, URI, header name or reason phrase that could break the line.
    StartLine,
    /// A header name that is no token.
    HeaderName,
    /// A header value with CR or LF outside a fold, or another control character.
    HeaderValue,
    /// Content-Length is the writer's own.
    ContentLength,
    /// More than [`MESSAGE_MAX_BYTES`].
    TooLarge,
}

impl std::fmt::Display for WriteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::StartLine => "octet not allowed in start line",
            Self::HeaderName => "octet not allowed in header name",
            Self::HeaderValue => "octet not allowed in header value",
            Self::ContentLength => "Content-Length is written with the body",
            Self::TooLarge => "message too large to write",
        })
    }
}

impl std::error::Error for WriteError {}

/// Appends one message to a buffer. The first error sticks, and [`Writer::finish`] or
/// [`Writer::body`] then takes back everything written.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
    start: usize,
    error: Option<WriteError>,
}

impl<'b> Writer<'b> {
    /// A writer that appends to `out`.
    #[must_use]
    pub const fn new(out: &'b mut Vec<u8>) -> Self {
        let start = out.len();
        Self { out, start, error: None }
    }

    /// `METHOD uri SIP/2.0`.
    pub fn request_line(&mut self, method: &[u8], uri: &[u8]) -> &mut Self {
        let uri_ok = !uri.is_empty() && chars::span(uri, chars::OPAQUE) == uri.len();
        if !chars::all(method, TOKEN) || !uri_ok {
            return self.fail(WriteError::StartLine);
        }
        self.out.extend_from_slice(method);
        self.out.push(b' ');
        self.out.extend_from_slice(uri);
        self.out.extend_from_slice(b" SIP/2.0\r\n");
        self
    }

    /// `SIP/2.0 code reason`.
    pub fn status_line(&mut self, code: u16, reason: &[u8]) -> &mut Self {
        if !(100..700).contains(&code) || reason.iter().any(u8::is_ascii_control) {
            return self.fail(WriteError::StartLine);
        }
        self.out.extend_from_slice(b"SIP/2.0 ");
        push_decimal(self.out, u64::from(code));
        self.out.push(b' ');
        self.out.extend_from_slice(reason);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// One header line. Folds in `value` become one space, white space at its ends goes.
    pub fn header(&mut self, name: HeaderName, value: &[u8]) -> &mut Self {
        self.header_parts(name, &[value])
    }

    /// One header line whose value is the `parts` one after the other.
    pub fn header_parts(&mut self, name: HeaderName, parts: &[&[u8]]) -> &mut Self {
        match name {
            HeaderName::ContentLength => self.fail(WriteError::ContentLength),
            HeaderName::Other => self.fail(WriteError::HeaderName),
            _ => self.line(name.as_str().as_bytes(), parts),
        }
    }

    /// One header line of a name that may not be known. A known one is written in its full form.
    pub fn header_named(&mut self, name: &[u8], value: &[u8]) -> &mut Self {
        match HeaderName::of(name) {
            HeaderName::Other if chars::all(name, TOKEN) => self.line(name, &[value]),
            known => self.header(known, value),
        }
    }

    /// One header line with a number.
    pub fn header_number(&mut self, name: HeaderName, value: u64) -> &mut Self {
        self.header_with(name, |out| push_decimal(out, value))
    }

    /// One header line whose value `fill` appends. `fill` must only append.
    pub fn header_with(&mut self, name: HeaderName, fill: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        match name {
            HeaderName::ContentLength => return self.fail(WriteError::ContentLength),
            HeaderName::Other => return self.fail(WriteError::HeaderName),
            _ if self.error.is_some() => return self,
            _ => {}
        }
        self.out.extend_from_slice(name.as_str().as_bytes());
        self.out.extend_from_slice(b": ");
        let value_at = self.out.len();
        fill(self.out);
        let value = self.out.get(value_at..).unwrap_or_default();
        if chars::text_len(value) != value.len() {
            return self.fail(WriteError::HeaderValue);
        }
        self.out.extend_from_slice(b"\r\n");
        self
    }

    fn line(&mut self, name: &[u8], parts: &[&[u8]]) -> &mut Self {
        if self.error.is_some() {
            return self;
        }
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        let value_at = self.out.len();
        for part in parts {
            if let Err(error) = append_unfolded(self.out, part) {
                return self.fail(error);
            }
        }
        // Only the joined value has ends to trim.
        let value = self.out.get(value_at..).unwrap_or_default();
        let kept = trim(value).len();
        let lead = value.iter().position(|&c| !is_lws(c)).unwrap_or(0);
        if lead > 0 {
            self.out.drain(value_at..value_at + lead);
        }
        self.out.truncate(value_at + kept);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Ends the message with a body: Content-Type if given, Content-Length, empty line, octets.
    ///
    /// # Errors
    /// The first thing that could not be written; the buffer is then as it was.
    pub fn body(mut self, content_type: Option<&[u8]>, body: &[u8]) -> Result<(), WriteError> {
        if let Some(content_type) = content_type {
            self.header(HeaderName::ContentType, content_type);
        }
        self.out.extend_from_slice(b"Content-Length: ");
        push_decimal(self.out, u64::try_from(body.len()).unwrap_or(u64::MAX));
        self.out.extend_from_slice(b"\r\n\r\n");
        self.out.extend_from_slice(body);
        if self.out.len() - self.start > MESSAGE_MAX_BYTES {
            self.fail(WriteError::TooLarge);
        }
        match self.error {
            None => Ok(()),
            Some(error) => {
                self.out.truncate(self.start);
                Err(error)
            }
        }
    }

    /// Ends the message without a body.
    ///
    /// # Errors
    /// As [`Writer::body`].
    pub fn finish(self) -> Result<(), WriteError> {
        self.body(None, b"")
    }

    fn fail(&mut self, error: WriteError) -> &mut Self {
        self.error = self.error.or(Some(error));
        self
    }
}

/// Appends `value` with each fold, and the blanks after it, turned into one space.
fn append_unfolded(out: &mut Vec<u8>, value: &[u8]) -> Result<(), WriteError> {
    let mut rest = value;
    loop {
        let at = chars::text_len(rest);
        if at == rest.len() {
            out.extend_from_slice(rest);
            return Ok(());
        }
        let (head, tail) = chars::split(rest, at);
        out.extend_from_slice(head);
        match tail.strip_prefix(b"\r\n") {
            Some(tail) if matches!(tail.first(), Some(b' ' | b'\t')) => {
                out.push(b' ');
                rest = chars::trim_start(tail);
            }
            // White space at the end of a value may have lost its blank to trimming.
            _ => return Err(WriteError::HeaderValue),
        }
    }
}
