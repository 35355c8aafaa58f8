//! Media descriptions.

use super::line::{Attribute, Connection, Direction, Lines, RtcpAttribute, RtpMap, words};
use crate::limits::SDP_FORMAT_MAX_COUNT;
use crate::sip::decimal;

/// Kind of medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the documentation
pub enum MediaKind {
    Audio,
    Video,
    Text,
    Application,
    Message,
    Image,
    Other,
}

/// One m= line and the lines that belong to it.
#[derive(Clone, Copy, Debug)]
pub struct Media<'a> {
    /// Kind.
    pub kind: MediaKind,
    /// Kind as written.
    pub kind_text: &'a [u8],
    /// Port; 0 refuses or ends the stream.
    pub port: u16,
    /// Number of ports; 1 when not written.
    pub port_count: u16,
    /// Transport protocol: `RTP/AVP`, `RTP/SAVP`, `udptl` ...
    pub proto: &'a [u8],
    /// Formats separated by spaces, as written: payload types for RTP.
    pub formats_text: &'a [u8],
    /// Protocol and formats as they stand in the line.
    pub(crate) tail: &'a [u8],
    /// The lines after m=.
    pub(crate) section: &'a [u8],
    pub(crate) connection: Option<Connection<'a>>,
    direction: Option<Direction>,
    rtcp: Option<RtcpAttribute<'a>>,
    rtcp_mux: bool,
    /// It has keys for SRTP.
    keys: bool,
}

impl<'a> Media<'a> {
    pub(crate) const EMPTY: Self = Self {
        kind: MediaKind::Other,
        kind_text: &[],
        port: 0,
        port_count: 1,
        proto: &[],
        formats_text: &[],
        tail: &[],
        section: &[],
        connection: None,
        direction: None,
        rtcp: None,
        rtcp_mux: false,
        keys: false,
    };

    /// Parses the value of an m= line (RFC 8866 5.14).
    pub(crate) fn parse_line(value: &'a [u8]) -> Option<Self> {
        let (kind_text, rest) = word(value)?;
        let (ports, tail) = word(rest)?;
        let (proto, formats_text) = word(tail)?;
        let mut parts = ports.splitn(2, |&c| c == b'/');
        let port = u16::try_from(decimal(parts.next()?)?).ok()?;
        let port_count = match parts.next() {
            Some(n) => u16::try_from(decimal(n)?).ok().filter(|n| *n > 0)?,
            None => 1,
        };
        let count = words(formats_text).take(SDP_FORMAT_MAX_COUNT + 1).count();
        let token = |s: &[u8]| s.iter().all(u8::is_ascii_graphic);
        if count == 0 || count > SDP_FORMAT_MAX_COUNT || !token(kind_text) || !token(proto) {
            return None;
        }
        let kind = match kind_text {
            b"audio" => MediaKind::Audio,
            b"video" => MediaKind::Video,
            b"text" => MediaKind::Text,
            b"application" => MediaKind::Application,
            b"message" => MediaKind::Message,
            b"image" => MediaKind::Image,
            _ => MediaKind::Other,
        };
        Some(Self { kind, kind_text, port, port_count, proto, formats_text, tail, ..Self::EMPTY })
    }

    /// The formats, in order of preference.
    pub fn formats(&self) -> impl Iterator<Item = &'a [u8]> + Clone {
        words(self.formats_text)
    }

    /// Whether the protocol is RTP with one of the profiles AVP, AVPF, SAVP, SAVPF, also over DTLS.
    #[must_use]
    pub fn is_rtp(&self) -> bool {
        let proto = self.proto.strip_prefix(b"UDP/TLS/").unwrap_or(self.proto);
        matches!(proto, b"RTP/AVP" | b"RTP/AVPF" | b"RTP/SAVP" | b"RTP/SAVPF")
    }

    /// The first connection of its own.
    #[must_use]
    pub const fn connection(&self) -> Option<Connection<'a>> {
        self.connection
    }

    /// Its attributes, in order.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> {
        Lines::new(self.section).filter_map(|line| line.attribute())
    }

    /// The first attribute `name`.
    #[must_use]
    pub fn attribute(&self, name: &[u8]) -> Option<Attribute<'a>> {
        self.attributes().find(|attribute| attribute.name == name)
    }

    /// Its own direction.
    #[must_use]
    pub const fn direction(&self) -> Option<Direction> {
        self.direction
    }

    /// a=rtcp.
    #[must_use]
    pub const fn rtcp(&self) -> Option<RtcpAttribute<'a>> {
        self.rtcp
    }

    /// Takes the next attribute; `rtcp` if it is a=rtcp. Of each kind the first holds.
    pub(crate) fn note(&mut self, attribute: &Attribute<'a>, rtcp: Option<RtcpAttribute<'a>>) {
        self.direction = self.direction.or_else(|| attribute.direction());
        self.rtcp = self.rtcp.or(rtcp);
        self.rtcp_mux |= attribute.name == b"rtcp-mux";
        self.keys |= matches!(attribute.name, b"crypto" | b"fingerprint");
    }

    /// Port of RTCP: that of a=rtcp, the RTP port with a=rtcp-mux, else the next one up. `None`
    /// when the stream is refused.
    #[must_use]
    pub fn rtcp_port(&self) -> Option<u16> {
        if self.port == 0 {
            return None;
        }
        match self.rtcp() {
            Some(rtcp) => Some(rtcp.port),
            None if self.rtcp_mux() => Some(self.port),
            None => self.port.checked_add(1),
        }
    }

    /// Whether RTP and RTCP may share a port (RFC 5761).
    #[must_use]
    pub const fn rtcp_mux(&self) -> bool {
        self.rtcp_mux
    }

    /// Packet time in ms.
    #[must_use]
    pub fn ptime_ms(&self) -> Option<u16> {
        let value = self.attribute(b"ptime")?.value?;
        decimal(value.trim_ascii()).and_then(|n| u16::try_from(n).ok())
    }

    /// The well-formed a=rtpmap lines.
    pub fn rtp_maps(&self) -> impl Iterator<Item = RtpMap<'a>> {
        self.attributes()
            .filter(|attribute| attribute.name == b"rtpmap")
            .filter_map(|attribute| RtpMap::parse(attribute.value?))
    }

    /// Format parameters of `format`.
    #[must_use]
    pub fn fmtp(&self, format: &[u8]) -> Option<&'a [u8]> {
        self.attributes().filter(|attribute| attribute.name == b"fmtp").find_map(|attribute| {
            let (name, params) = word(attribute.value?)?;
            (name == format).then_some(params)
        })
    }

    /// Whether keys for SRTP are offered: SDES (RFC 4568) or DTLS (RFC 5763).
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.keys || self.proto.windows(4).any(|w| w == b"SAVP")
    }
}

/// The first word of `s`, and the rest without its leading spaces.
fn word(s: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b' ', s).unwrap_or(s.len());
    let (first, rest) = s.split_at_checked(end)?;
    let lead = rest.iter().position(|&c| c != b' ').unwrap_or(rest.len());
    (!first.is_empty()).then_some((first, rest.get(lead..)?))
}
