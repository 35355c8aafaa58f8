//! Lines of a description and the ones with a grammar of their own.

use std::net::IpAddr;

use super::SdpError;
use crate::sip::{chars, decimal, uri::parse_ipv4};

/// One `kind=value` line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) kind: u8,
    pub(crate) value: &'a [u8],
    /// Kind, `=` and value, without the line end.
    pub(crate) text: &'a [u8],
    /// Offset of the line, and of what follows its end.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl<'a> Line<'a> {
    pub(crate) fn attribute(&self) -> Option<Attribute<'a>> {
        (self.kind == b'a').then(|| Attribute::of(self.value))
    }
}

/// The lines of a description, or of a part of it that has been checked.
#[derive(Clone, Debug)]
pub(crate) struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next line; empty lines are allowed at the end and nowhere else.
    pub(crate) fn next_checked(&mut self) -> Result<Option<Line<'a>>, SdpError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.iter().all(|c| matches!(c, b'\r' | b'\n')) {
            // A CR is part of a line end or it is a line to some reader.
            let ends = rest.split_inclusive(|&c| c == b'\n');
            let mut ends = ends.map(|end| end == b"\n" || end == b"\r\n");
            return if ends.all(|ok| ok) { Ok(None) } else { Err(SdpError::Line) };
        }
        // CRLF, LF, or the end of all, before which a CR may stand; any other CR, and NUL, are
        // refused.
        let length = chars::line_len(rest);
        let (text, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        let end_length = match behind {
            [] => 0,
            [b'\n', ..] | [b'\r'] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => return Err(SdpError::Line),
        };
        let start = self.at;
        self.at = start + length + end_length;
        match text {
            [kind, b'=', value @ ..] if kind.is_ascii_lowercase() => {
                Ok(Some(Line { kind: *kind, value, text, start, end: self.at }))
            }
            _ => Err(SdpError::Line),
        }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        self.next_checked().ok().flatten()
    }
}

/// One a= line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Before the colon.
    pub name: &'a [u8],
    /// After the colon.
    pub value: Option<&'a [u8]>,
}

impl<'a> Attribute<'a> {
    pub(crate) fn of(line: &'a [u8]) -> Self {
        match chars::find(line, b':').and_then(|at| line.split_at_checked(at)) {
            Some((name, value)) => Self { name, value: value.get(1..) },
            None => Self { name: line, value: None },
        }
    }

    /// The direction that this line sets. One with a value is another attribute; blanks at the end,
    /// which break the grammar, are no reason to send to somebody who is on hold.
    #[must_use]
    pub const fn direction(&self) -> Option<Direction> {
        match self.value {
            None => Direction::of(self.name.trim_ascii_end()),
            Some(_) => None,
        }
    }

    /// Whether this line belongs to ICE (RFC 8839), or bundles streams on one port (RFC 9143): both
    /// are agreements between transport addresses that a media relay replaces.
    #[must_use]
    pub fn is_ice(&self) -> bool {
        matches!(
            self.name,
            b"candidate"
                | b"remote-candidates"
                | b"end-of-candidates"
                | b"ice-ufrag"
                | b"ice-pwd"
                | b"ice-options"
                | b"ice-lite"
                | b"ice-mismatch"
                | b"ice-pacing"
                | b"bundle-only"
        ) || self.name == b"group" && self.value.is_some_and(|v| v.starts_with(b"BUNDLE"))
    }
}

impl Attribute<'_> {
    /// Whether this line agrees on keys of SRTP: SDES (RFC 4568), DTLS (RFC 5763, RFC 8842) or MIKEY
    /// (RFC 4567).
    #[must_use]
    pub fn is_keying(&self) -> bool {
        matches!(
            self.name,
            b"crypto" | b"fingerprint" | b"setup" | b"connection" | b"tls-id" | b"key-mgmt"
        )
    }
}

/// Media direction (RFC 8866 6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Both ways.
    #[default]
    SendRecv,
    /// The describing party only sends.
    SendOnly,
    /// The describing party only receives.
    RecvOnly,
    /// Neither way.
    Inactive,
}

impl Direction {
    /// The direction that attribute `name` stands for.
    #[must_use]
    pub const fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"sendrecv" => Some(Self::SendRecv),
            b"sendonly" => Some(Self::SendOnly),
            b"recvonly" => Some(Self::RecvOnly),
            b"inactive" => Some(Self::Inactive),
            _ => None,
        }
    }

    /// As written after `a=`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// The same stream seen from the other side.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            other => other,
        }
    }

    /// Whether the describing party sends.
    #[must_use]
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether the describing party receives.
    #[must_use]
    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }
}

/// Words of a value separated by one or more spaces.
pub(crate) fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    value.split(|&c| c == b' ').filter(|word| !word.is_empty())
}

/// o= (RFC 8866 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// User name or `-`.
    pub username: &'a [u8],
    /// Identifier; digits, and more of them than 64 bits hold at times.
    pub id: &'a [u8],
    /// Version; grows by one with each change (RFC 3264 8).
    pub version: &'a [u8],
    /// Address or name.
    pub address: &'a [u8],
}

impl<'a> Origin<'a> {
    pub(crate) fn parse(value: &'a [u8]) -> Option<Self> {
        let mut words = words(value);
        let mut next = || words.next();
        let (username, id, version) = (next()?, next()?, next()?);
        let (net, kind, address) = (next()?, next()?, next()?);
        let digits = |s: &[u8]| s.iter().all(u8::is_ascii_digit);
        let kind_ok = net == b"IN" && matches!(kind, b"IP4" | b"IP6");
        (next().is_none() && kind_ok && digits(id) && digits(version)).then_some(Self {
            username,
            id,
            version,
            address,
        })
    }

    /// Whether `other` describes the same thing at the same version: nothing changed.
    #[must_use]
    pub fn is_same_version(&self, other: &Origin<'_>) -> bool {
        self.id == other.id && self.version == other.version
    }
}

/// c= (RFC 8866 5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection<'a> {
    /// The address as written, without TTL and count; may be a name.
    pub text: &'a [u8],
    /// The address, when it is one.
    pub address: Option<IpAddr>,
}

impl<'a> Connection<'a> {
    pub(crate) fn parse(value: &'a [u8]) -> Option<Self> {
        let mut words = words(value);
        let (net, kind, address) = (words.next()?, words.next()?, words.next()?);
        if net != b"IN" || words.next().is_some() {
            return None;
        }
        let mut parts = address.split(|&c| c == b'/');
        let text = parts.next().filter(|text| !text.is_empty())?;
        // TTL and number of addresses are for multicast, which is not relayed.
        if parts.clone().count() > 2 || !parts.all(|part| decimal(part).is_some()) {
            return None;
        }
        let address = parse_address(kind, text)?;
        Some(Self { text, address })
    }

    /// Whether this is the old way to put a call on hold (RFC 3264 8.4): the unspecified address.
    #[must_use]
    pub fn is_hold(&self) -> bool {
        self.address.is_some_and(|ip| ip.is_unspecified())
    }
}

/// An address of the family that `kind` names, or `Some(None)` for a name.
fn parse_address(kind: &[u8], text: &[u8]) -> Option<Option<IpAddr>> {
    let address = match kind {
        b"IP4" => parse_ipv4(text).map(IpAddr::V4),
        b"IP6" => std::str::from_utf8(text).ok()?.parse().ok().map(IpAddr::V6),
        _ => return None,
    };
    if address.is_some() {
        return Some(address);
    }
    let name = text.iter().all(|&c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_'));
    let number = |label: &[u8]| label.iter().all(u8::is_ascii_digit);
    let last = text.rsplit(|&c| c == b'.').next().unwrap_or_default();
    (name && !number(last)).then_some(None)
}

/// a=rtcp (RFC 3605).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtcpAttribute<'a> {
    /// Port of RTCP.
    pub port: u16,
    /// Address of RTCP when it is not that of the media.
    pub connection: Option<Connection<'a>>,
}

impl<'a> RtcpAttribute<'a> {
    pub(crate) fn parse(value: &'a [u8]) -> Option<Self> {
        let end = memchr::memchr(b' ', value).unwrap_or(value.len());
        let (port, rest) = value.split_at_checked(end)?;
        let port = u16::try_from(decimal(port)?).ok()?;
        let connection =
            if words(rest).next().is_none() { None } else { Some(Connection::parse(rest)?) };
        Some(Self { port, connection })
    }
}

/// a=rtpmap (RFC 8866 6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpMap<'a> {
    /// Payload type.
    pub payload: u8,
    /// Encoding name; compared without regard to case.
    pub encoding: &'a [u8],
    /// Clock rate in Hz.
    pub clock_hz: u32,
    /// Channels of audio; 1 when not written.
    pub channels: u8,
}

impl<'a> RtpMap<'a> {
    pub(crate) fn parse(value: &'a [u8]) -> Option<Self> {
        let mut words = words(value);
        let payload = u8::try_from(decimal(words.next()?)?).ok().filter(|p| *p < 128)?;
        let mut parts = words.next()?.split(|&c| c == b'/');
        let encoding = parts.next().filter(|name| !name.is_empty())?;
        let clock_hz = u32::try_from(decimal(parts.next()?)?).ok()?;
        let channels = match parts.next() {
            Some(n) => u8::try_from(decimal(n)?).ok()?,
            None => 1,
        };
        Some(Self { payload, encoding, clock_hz, channels })
    }
}
