//! Messages out of a byte stream (RFC 3261 18.3, RFC 5626 3.5.1).

use super::error::ErrorKind;
use super::fields::decimal;
use super::lines::{self, Index};
use super::name::HeaderName;
use crate::limits::{
    MESSAGE_MAX_BYTES, STREAM_BUFFER_MAX_BYTES, STREAM_IDLE_MAX_BYTES, STREAM_READ_MAX_BYTES,
};

/// What the stream holds next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// One message, for [`crate::sip::Message::parse`] with [`crate::sip::Framing::Stream`].
    Message(&'a [u8]),
    /// A line end between messages: the answer to a ping of ours, or nothing at all.
    Pong,
    /// The second of two line ends in a row: a ping, to be answered with CRLF.
    Ping,
}

/// Where the next message begins is no longer known: the connection must be closed. The octets that
/// were not understood stay in [`StreamFramer::pending`], from which an answer may be salvaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramingError {
    kind: ErrorKind,
}

impl FramingError {
    /// Which rule was broken.
    #[must_use]
    pub const fn kind(self) -> ErrorKind {
        self.kind
    }
}

impl std::fmt::Display for FramingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.reason())
    }
}

impl std::error::Error for FramingError {}

/// Cuts a stream into messages. Holds at most [`STREAM_BUFFER_MAX_BYTES`], looks at no octet twice
/// while it waits for more, and allocates only while its buffer grows to its working size.
///
/// The way to use it: `push` what was read, at most [`STREAM_READ_MAX_BYTES`]; call `next` until it
/// gives `Ok(None)`; repeat.
#[derive(Debug, Default)]
pub struct StreamFramer {
    buffer: Vec<u8>,
    /// What has been handed out already.
    consumed: usize,
    /// How far the search for the end of the headers has come.
    searched: usize,
    /// Length of the message that is being gathered, once its headers are known.
    message: Option<usize>,
    /// A line end came just before.
    line_end: bool,
    failed: Option<FramingError>,
}

impl StreamFramer {
    /// A framer with no buffer yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds octets that were read.
    ///
    /// # Errors
    /// When the stream has failed before, or the caller does not drain what it pushes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), FramingError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.compact();
        if self.buffer.len().saturating_add(bytes.len()) > STREAM_BUFFER_MAX_BYTES {
            return Err(self.fail(ErrorKind::TooLarge));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next frame, or `None` until more octets come.
    ///
    /// # Errors
    /// When no further message can be found. The error stays.
    #[allow(clippy::should_implement_trait)] // lends from itself, which an Iterator cannot
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, FramingError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let length = match self.message {
            Some(length) => length,
            None => match self.find_message() {
                Ok(Found::Length(length)) => length,
                Ok(Found::LineEnd(ping)) => {
                    return Ok(Some(if ping { Frame::Ping } else { Frame::Pong }));
                }
                Ok(Found::Nothing) => {
                    self.compact();
                    return Ok(None);
                }
                Err(kind) => return Err(self.fail(kind)),
            },
        };
        self.message = Some(length);
        let start = self.consumed;
        let Some(end) = start.checked_add(length).filter(|&end| end <= self.buffer.len()) else {
            return Ok(None);
        };
        self.message = None;
        self.consumed = end;
        self.searched = end;
        Ok(self.buffer.get(start..end).map(Frame::Message))
    }

    /// Forgets what has been handed out, and gives memory back when nothing is left: a connection
    /// that once carried a large message does not hold its size for ever.
    fn compact(&mut self) {
        self.buffer.drain(..self.consumed);
        self.searched = self.searched.saturating_sub(self.consumed);
        self.consumed = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > STREAM_IDLE_MAX_BYTES {
            self.buffer = Vec::new();
        }
    }

    /// The octets that are not part of a frame handed out.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.buffer.get(self.consumed..).unwrap_or_default()
    }

    /// Whether a message has begun and is not complete: what a receive deadline is for.
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        !self.pending().is_empty()
    }

    fn fail(&mut self, kind: ErrorKind) -> FramingError {
        *self.failed.insert(FramingError { kind })
    }

    fn find_message(&mut self) -> Result<Found, ErrorKind> {
        let pending = self.buffer.get(self.consumed..).unwrap_or_default();
        match pending {
            [] | [b'\r'] => return Ok(Found::Nothing),
            [b'\r', b'\n', ..] => {
                self.consumed += 2;
                self.searched = self.consumed;
                let ping = self.line_end;
                self.line_end = !ping;
                return Ok(Found::LineEnd(ping));
            }
            // A start line begins with a letter or another token character.
            [first, ..] if !first.is_ascii_graphic() => return Err(ErrorKind::StartLine),
            _ => {}
        }
        self.line_end = false;
        // The end may lie across the last octets already searched.
        let from = self.searched.saturating_sub(3).max(self.consumed);
        let unsearched = self.buffer.get(from..).unwrap_or_default();
        let Some(at) = memchr::memmem::find(unsearched, b"\r\n\r\n") else {
            self.searched = self.buffer.len();
            return if pending.len() > MESSAGE_MAX_BYTES {
                Err(ErrorKind::TooLarge)
            } else {
                Ok(Found::Nothing)
            };
        };
        let head_len = from + at + 4 - self.consumed;
        let head = pending.get(..head_len).unwrap_or_default();
        if head_len > MESSAGE_MAX_BYTES {
            return Err(ErrorKind::TooLarge);
        }
        let body_len = body_length(head)?;
        let length = head_len.checked_add(body_len).filter(|&n| n <= MESSAGE_MAX_BYTES);
        length.map(Found::Length).ok_or(ErrorKind::ContentLengthTooLarge)
    }
}

enum Found {
    Nothing,
    /// A line end; whether it completes a ping.
    LineEnd(bool),
    /// A message of this length, not all of which need be there.
    Length(usize),
}

/// Content-Length of a whole head. Any doubt about where a line ends is an error: the octets after
/// it could be read as another message.
fn body_length(head: &[u8]) -> Result<usize, ErrorKind> {
    let (_, headers_at) = lines::start_line(head)?;
    let mut index = Index::EMPTY;
    if lines::scan(head, headers_at, &mut index)? != head.len() {
        return Err(ErrorKind::HeadersUnterminated);
    }
    let mut lengths = index.entries().iter().filter(|e| e.name == HeaderName::ContentLength);
    let length = lengths.next().ok_or(ErrorKind::ContentLengthMissing)?;
    if lengths.next().is_some() {
        return Err(ErrorKind::DuplicateHeader);
    }
    let length = decimal(length.value(head)).ok_or(ErrorKind::ContentLength)?;
    usize::try_from(length)
        .ok()
        .filter(|&n| n <= MESSAGE_MAX_BYTES)
        .ok_or(ErrorKind::ContentLengthTooLarge)
}

// One read always fits beside an unfinished message.
const _: () = assert!(STREAM_BUFFER_MAX_BYTES >= MESSAGE_MAX_BYTES + STREAM_READ_MAX_BYTES);
