//! SDP (RFC 8866, RFC 4566): a borrowed parse of session and media level, and [`rewrite`].
//!
//! Input lines may end in CRLF or bare LF; a CR anywhere else, or a NUL, refuses the whole
//! description, since two readers could see two sets of lines.

mod hide;
mod line;
mod media;
mod mend;
mod narrow;
mod rewrite;

pub use line::{Attribute, Connection, Direction, Origin, RtcpAttribute, RtpMap};
pub use media::{Media, MediaKind};
pub use mend::{Mended, is_whole, mend};
pub use narrow::{crowd, leave_out, put_back, streams};
pub use rewrite::{Rewrite, RewriteError, StreamRewrite, rewrite, rewrite_parsed};

use crate::limits::{SDP_LINE_MAX_BYTES, SDP_LINE_MAX_COUNT, SDP_MAX_BYTES, SDP_MEDIA_MAX_COUNT};
use line::Lines;

/// Why a description is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SdpError {
    /// Longer than [`SDP_MAX_BYTES`], or too many or too long lines.
    TooLarge,
    /// More than [`SDP_MEDIA_MAX_COUNT`] media descriptions.
    TooManyMedia,
    /// A line that is not `letter=value`, or holds CR or NUL.
    Line,
    /// The first line is not `v=0`.
    Version,
    /// No o= line, two of them, or one that breaks its grammar.
    Origin,
    /// A c= line that breaks its grammar.
    Connection,
    /// An m= line that breaks its grammar.
    Media,
    /// An a=rtcp line that breaks its grammar (RFC 3605).
    Rtcp,
}

impl SdpError {
    /// Stable text.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "SDP too large",
            Self::TooManyMedia => "SDP with too many media",
            Self::Line => "malformed SDP line",
            Self::Version => "SDP does not start with v=0",
            Self::Origin => "malformed SDP origin",
            Self::Connection => "malformed SDP connection",
            Self::Media => "malformed SDP media line",
            Self::Rtcp => "malformed SDP rtcp attribute",
        }
    }
}

impl std::fmt::Display for SdpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for SdpError {}

/// Values of all `a=fingerprint` lines of a body (RFC 8122 5), at session and media level. Needs no
/// well-formed description: a body that is refused has the fingerprints that it shows.
pub fn fingerprints(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|c| matches!(c, b'\r' | b'\n'))
        .filter_map(|line| line.strip_prefix(b"a=fingerprint:"))
}

/// A parsed session description.
#[derive(Clone, Debug)]
pub struct Description<'a> {
    origin: Origin<'a>,
    session: &'a [u8],
    connection: Option<Connection<'a>>,
    direction: Option<Direction>,
    /// A level has more than one c= line.
    more_connections: bool,
    /// Types of the session-level lines: one bit for each letter.
    kinds: u32,
    medias: [Media<'a>; SDP_MEDIA_MAX_COUNT],
    count: usize,
}

impl<'a> Description<'a> {
    /// Parses a whole body.
    ///
    /// # Errors
    /// See [`SdpError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, SdpError> {
        if bytes.len() > SDP_MAX_BYTES {
            return Err(SdpError::TooLarge);
        }
        // Made and filled where the caller wants it: moving it costs as much as reading one.
        let mut parsed = Ok(Self {
            origin: Origin { username: &[], id: &[], version: &[], address: &[] },
            session: &[],
            connection: None,
            direction: None,
            more_connections: false,
            kinds: 0,
            medias: [Media::EMPTY; SDP_MEDIA_MAX_COUNT],
            count: 0,
        });
        if let Ok(description) = &mut parsed
            && let Err(error) = description.read(bytes)
        {
            parsed = Err(error);
        }
        parsed
    }

    fn read(&mut self, bytes: &'a [u8]) -> Result<(), SdpError> {
        let Self { medias, .. } = self;
        let mut count = 0_usize;
        let mut origin = None;
        let mut session_end = bytes.len();
        // Start of the lines of the media description being read.
        let mut section_at = 0;
        let mut lines = Lines::new(bytes);
        let mut seen = 0;
        while let Some(line) = lines.next_checked()? {
            seen += 1;
            if seen > SDP_LINE_MAX_COUNT || line.text.len() > SDP_LINE_MAX_BYTES {
                return Err(SdpError::TooLarge);
            }
            if (seen == 1) != (line.kind == b'v') || seen == 1 && line.value != b"0" {
                return Err(SdpError::Version);
            }
            if count == 0 {
                self.kinds |= kind_bit(line.kind);
            }
            match line.kind {
                b'o' => {
                    let parsed = Origin::parse(line.value).ok_or(SdpError::Origin)?;
                    if count > 0 || origin.replace(parsed).is_some() {
                        return Err(SdpError::Origin);
                    }
                }
                b'c' => {
                    let connection = Connection::parse(line.value).ok_or(SdpError::Connection)?;
                    // The first of each level holds.
                    let first = match count.checked_sub(1).and_then(|last| medias.get_mut(last)) {
                        Some(media) => &mut media.connection,
                        None => &mut self.connection,
                    };
                    self.more_connections |= first.is_some();
                    first.get_or_insert(connection);
                }
                b'a' => {
                    let attribute = Attribute::of(line.value);
                    let rtcp = match attribute.name {
                        b"rtcp" => {
                            let value = attribute.value.and_then(RtcpAttribute::parse);
                            Some(value.ok_or(SdpError::Rtcp)?)
                        }
                        _ => None,
                    };
                    match count.checked_sub(1).and_then(|last| medias.get_mut(last)) {
                        Some(media) => media.note(&attribute, rtcp),
                        None => self.direction = self.direction.or_else(|| attribute.direction()),
                    }
                }
                b'm' => {
                    close_section(bytes, medias, count, section_at, line.start);
                    if count == 0 {
                        session_end = line.start;
                    }
                    let media = Media::parse_line(line.value).ok_or(SdpError::Media)?;
                    *medias.get_mut(count).ok_or(SdpError::TooManyMedia)? = media;
                    count += 1;
                    section_at = line.end;
                }
                _ => {}
            }
        }
        close_section(bytes, medias, count, section_at, bytes.len());
        if seen == 0 {
            return Err(SdpError::Version);
        }
        self.origin = origin.ok_or(SdpError::Origin)?;
        self.session = bytes.get(..session_end).unwrap_or_default();
        self.count = count;
        Ok(())
    }

    /// The o= line.
    #[must_use]
    pub const fn origin(&self) -> Origin<'a> {
        self.origin
    }

    /// The media descriptions, in order.
    #[must_use]
    pub fn medias(&self) -> &[Media<'a>] {
        self.medias.get(..self.count).unwrap_or_default()
    }

    /// Leaves out all media descriptions but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        self.count = self.count.min(count);
    }

    /// Value of the first session-level line of type `kind` (`b's'`, `b't'` ...).
    #[must_use]
    pub fn line(&self, kind: u8) -> Option<&'a [u8]> {
        Lines::new(self.session).find(|line| line.kind == kind).map(|line| line.value)
    }

    /// Session-level connection.
    #[must_use]
    pub const fn connection(&self) -> Option<Connection<'a>> {
        self.connection
    }

    /// Session-level attributes, in order.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> {
        Lines::new(self.session).filter_map(|line| line.attribute())
    }

    /// The connection that holds for `media`: its own, else the session's.
    #[must_use]
    pub fn connection_of(&self, media: &Media<'a>) -> Option<Connection<'a>> {
        media.connection().or_else(|| self.connection())
    }

    /// The direction that holds for `media`: its own, else the session's, else sendrecv
    /// (RFC 8866 6.7).
    #[must_use]
    pub fn direction_of(&self, media: &Media<'a>) -> Direction {
        media.direction().or(self.direction).unwrap_or_default()
    }

    /// Whether no c= line stands behind another of its level: [`Self::connection`] and those of the
    /// media are all that there are.
    pub(crate) const fn has_one_connection_each(&self) -> bool {
        !self.more_connections
    }

    /// Whether there is a session-level line of type `kind`.
    pub(crate) const fn has_line(&self, kind: u8) -> bool {
        self.kinds & kind_bit(kind) != 0
    }
}

/// The bit of a line type, which is a lower-case letter.
const fn kind_bit(kind: u8) -> u32 {
    1 << (kind & 31)
}

/// Gives media description `count - 1` its lines.
fn close_section<'a>(
    bytes: &'a [u8],
    medias: &mut [Media<'a>],
    count: usize,
    from: usize,
    to: usize,
) {
    if let Some(media) = count.checked_sub(1).and_then(|last| medias.get_mut(last)) {
        media.section = bytes.get(from..to).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests;
