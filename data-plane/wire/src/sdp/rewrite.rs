//! A description for the other leg: our origin, address and ports, everything else as it was.

use std::net::IpAddr;

use super::hide::{Names, holds_foreign_address};
use super::line::{Attribute, Connection, Direction, Line, Lines, words};
use super::{Description, Media, SdpError};
use crate::{
    names,
    sip::{decimal, push_decimal, push_ip},
};

/// What to put into a description.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite<'r> {
    /// User name of o=; `-` hides it.
    pub username: &'r [u8],
    /// Identifier of o=, the same for the life of the leg.
    pub id: u64,
    /// Version of o=, one more with each change (RFC 3264 8).
    pub version: u64,
    /// Our media address, for o=, every c= and a=rtcp.
    pub address: IpAddr,
    /// One for each m= line, in order.
    pub streams: &'r [StreamRewrite<'r>],
    /// Leave lines of keying out (see [`super::Attribute::is_keying`]): the parties do not encrypt
    /// from end to end.
    pub strip_keys: bool,
    /// The unspecified address in c= is that of an agent which has no candidate yet (RFC 8840 4.1.1),
    /// and no hold: ours is written in its place.
    pub placeholder: bool,
    /// Whole lines, each with its end, to add to the session level.
    pub lines: &'r [u8],
    /// Whole lines to add behind the last stream: streams that the input lacks.
    pub tail: &'r [u8],
    /// Hosts of the peer, besides those of its o= and c= lines: where one of them stands in an
    /// attribute or a title, our address takes its place.
    pub inside: &'r [&'r [u8]],
}

/// What to put into one media description.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StreamRewrite<'r> {
    /// Our RTP port; 0 refuses the stream. A stream that is refused in the input stays so. Of a
    /// refused stream only the m= line, c= and a=mid are written: nothing else means anything
    /// (RFC 3264 6, 8.2).
    pub port: u16,
    /// Our RTCP port. An a=rtcp line is written when the input has one or the port is not the one
    /// above RTP; `None` leaves such lines out.
    pub rtcp_port: Option<u16>,
    /// Kind of media to write in place of the input's.
    pub kind: Option<&'r [u8]>,
    /// Direction to write in place of the input's.
    pub direction: Option<Direction>,
    /// Transport protocol to write in place of the input's.
    pub proto: Option<&'r [u8]>,
    /// Whether a=rtcp-mux is written; `None`: as in the input.
    pub rtcp_mux: Option<bool>,
    /// Payload types to write in place of the input's, by the input's.
    pub payloads: Option<&'r [u8; 128]>,
    /// Value of an a=mid to write where the input has none: an answer names the streams as the
    /// offer did (RFC 8829 5.3.1).
    pub mid: Option<&'r [u8]>,
    /// Whole lines, each with its end, to add.
    pub lines: &'r [u8],
}

/// Why a description cannot be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewriteError {
    /// The input is no description.
    Sdp(SdpError),
    /// `streams` has not as many entries as the input has m= lines.
    StreamCount,
    /// A stream in use has no connection at either level.
    NoConnection,
    /// A stream wants several ports (`49170/2`).
    PortCount,
    /// The user name would break the o= line.
    Username,
}

impl RewriteError {
    /// Stable text.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Sdp(error) => error.reason(),
            Self::StreamCount => "SDP streams and ports do not match",
            Self::NoConnection => "SDP stream without connection",
            Self::PortCount => "SDP stream with several ports",
            Self::Username => "octet not allowed in SDP user name",
        }
    }
}

impl std::fmt::Display for RewriteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for RewriteError {}

impl From<SdpError> for RewriteError {
    fn from(error: SdpError) -> Self {
        Self::Sdp(error)
    }
}

/// Appends the rewritten `input` to `out`. Lines of ICE and bundling are left out (see
/// [`super::Attribute::is_ice`]): they name transport addresses that are not ours. Lines that are not
/// understood are kept octet for octet; every line ends in CRLF.
///
/// # Errors
/// See [`RewriteError`]; `out` is then as it was.
pub fn rewrite(input: &[u8], with: &Rewrite<'_>, out: &mut Vec<u8>) -> Result<(), RewriteError> {
    let description = Description::parse(input)?;
    rewrite_parsed(&description, with, out)
}

/// As [`rewrite`], for a description that is parsed already.
///
/// # Errors
/// See [`RewriteError`]; `out` is then as it was.
pub fn rewrite_parsed(
    description: &Description<'_>,
    with: &Rewrite<'_>,
    out: &mut Vec<u8>,
) -> Result<(), RewriteError> {
    let medias = description.medias();
    if medias.len() != with.streams.len() {
        return Err(RewriteError::StreamCount);
    }
    if with.username.is_empty() || !with.username.iter().all(u8::is_ascii_graphic) {
        return Err(RewriteError::Username);
    }
    for (media, stream) in medias.iter().zip(with.streams) {
        let in_use = media.port != 0 && stream.port != 0;
        if in_use && media.port_count > 1 {
            return Err(RewriteError::PortCount);
        }
        if in_use && description.connection_of(media).is_none() {
            return Err(RewriteError::NoConnection);
        }
    }
    let names = Names::of(description, with.inside);
    session_level(description, with, &names, out);
    for (media, stream) in medias.iter().zip(with.streams) {
        media_level(media, stream, with, &names, out);
    }
    out.extend_from_slice(with.tail);
    Ok(())
}

fn session_level(
    description: &Description<'_>,
    with: &Rewrite<'_>,
    names: &Names<'_>,
    out: &mut Vec<u8>,
) {
    let mut connected = false;
    for line in Lines::new(description.session) {
        let attribute = line.attribute();
        match line.kind {
            b'o' => {
                out.extend_from_slice(b"o=");
                out.extend_from_slice(with.username);
                out.push(b' ');
                push_decimal(out, with.id);
                out.push(b' ');
                push_decimal(out, with.version);
                address(out, with.address, b" ");
                end(out);
                if !description.has_line(b's') {
                    out.extend_from_slice(b"s=-\r\n");
                }
            }
            // A name of the call may be the name of a machine.
            b's' if line.value.is_empty() || names::may_name_a_host(line.value) => {
                out.extend_from_slice(b"s=-\r\n");
            }
            // Who made the description, and how to reach them; keys in clear (RFC 8866 5.12 forbids
            // k=). Nothing in a call needs them.
            b'u' | b'e' | b'p' | b'k' => {}
            b'c' if connected => {}
            b'c' => {
                connected = true;
                connection(out, &line, with);
            }
            // An a=rtcp line here has no stream to belong to.
            b'a' if attribute.is_some_and(|a| leaks(&a, with) || a.name == b"rtcp") => {}
            b't' => {
                let before = out.len();
                keep(out, &line, with, names);
                // RFC 8866 5.9 wants one, whatever stood in this.
                if out.len() == before {
                    out.extend_from_slice(b"t=0 0\r\n");
                }
            }
            _ => keep(out, &line, with, names),
        }
    }
    if !description.has_line(b't') {
        out.extend_from_slice(b"t=0 0\r\n");
    }
    out.extend_from_slice(with.lines);
}

fn media_level(
    media: &Media<'_>,
    stream: &StreamRewrite<'_>,
    with: &Rewrite<'_>,
    names: &Names<'_>,
    out: &mut Vec<u8>,
) {
    let port = if media.port == 0 { 0 } else { stream.port };
    media_line(media, port, stream, out);
    let mut connected = false;
    let mut rtcp = stream.rtcp_port.filter(|_| port != 0);
    let default_rtcp = port.checked_add(1);
    for line in Lines::new(media.section) {
        let attribute = line.attribute();
        match line.kind {
            b'c' if connected => {}
            b'c' => {
                connected = true;
                connection(out, &line, with);
            }
            _ if port == 0 && attribute.is_none_or(|a| a.name != b"mid") => {}
            b'a' if attribute.is_some_and(|a| leaks(&a, with)) => {}
            b'a' if attribute.is_some_and(|a| a.name == b"rtcp") => {
                if let Some(port) = rtcp.take() {
                    rtcp_line(out, port, with.address);
                }
            }
            b'a' if stream.rtcp_mux.is_some()
                && attribute.is_some_and(|a| matches!(a.name, b"rtcp-mux" | b"rtcp-mux-only")) => {}
            b'a' if stream.direction.is_some()
                && attribute.is_some_and(|a| a.direction().is_some()) => {}
            b'a' if stream.payloads.is_some()
                && attribute.is_some_and(|a| mapped_line(&a, stream, out)) => {}
            b'k' => {}
            _ => keep(out, &line, with, names),
        }
    }
    if let Some(mid) = stream.mid.filter(|_| media.attribute(b"mid").is_none()) {
        out.extend_from_slice(b"a=mid:");
        out.extend_from_slice(mid);
        end(out);
    }
    if port == 0 {
        return;
    }
    if let Some(port) = rtcp.filter(|port| Some(*port) != default_rtcp) {
        rtcp_line(out, port, with.address);
    }
    if stream.rtcp_mux == Some(true) {
        out.extend_from_slice(b"a=rtcp-mux\r\n");
    }
    if let Some(direction) = stream.direction {
        out.extend_from_slice(b"a=");
        out.extend_from_slice(direction.as_str().as_bytes());
        end(out);
    }
    out.extend_from_slice(stream.lines);
}

fn media_line(media: &Media<'_>, port: u16, stream: &StreamRewrite<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"m=");
    out.extend_from_slice(stream.kind.unwrap_or(media.kind_text));
    out.push(b' ');
    push_decimal(out, u64::from(port));
    out.push(b' ');
    if stream.proto.is_none() && stream.payloads.is_none() {
        out.extend_from_slice(media.tail);
        return end(out);
    }
    out.extend_from_slice(stream.proto.unwrap_or(media.proto));
    for format in media.formats() {
        out.push(b' ');
        push_payload(format, stream, out);
    }
    end(out);
}

/// A payload type under its new number; anything else as it is.
fn push_payload(format: &[u8], stream: &StreamRewrite<'_>, out: &mut Vec<u8>) {
    let mapped = stream.payloads.and_then(|map| {
        let old = usize::try_from(decimal(format)?).ok()?;
        map.get(old).copied()
    });
    match mapped {
        Some(new) => push_decimal(out, u64::from(new)),
        None => out.extend_from_slice(format),
    }
}

/// Writes an attribute that speaks of payload types with their new numbers; false: it does not.
fn mapped_line(attribute: &Attribute<'_>, stream: &StreamRewrite<'_>, out: &mut Vec<u8>) -> bool {
    let fmtp = attribute.name == b"fmtp";
    let Some(value) = attribute.value else { return false };
    if !fmtp && !matches!(attribute.name, b"rtpmap" | b"rtcp-fb") {
        return false;
    }
    let mut parts = words(value);
    let Some(format) = parts.next() else { return false };
    out.extend_from_slice(b"a=");
    out.extend_from_slice(attribute.name);
    out.push(b':');
    push_payload(format, stream, out);
    // Spaces inside parameters mean nothing, but stay as they are.
    let lead = value.iter().position(|c| *c != b' ').unwrap_or(0);
    let rest = value.get(lead + format.len()..).unwrap_or_default();
    if fmtp {
        parameters(rest, stream, out);
    } else {
        out.extend_from_slice(rest);
    }
    end(out);
    true
}

/// Format parameters that name payload types: `apt` (RFC 4588 8.6), and the list of redundant
/// encodings (RFC 2198 5), which is numbers between slashes.
fn parameters(text: &[u8], stream: &StreamRewrite<'_>, out: &mut Vec<u8>) {
    let list = text.trim_ascii();
    if list.contains(&b'/') && list.iter().all(|c| c.is_ascii_digit() || *c == b'/') {
        for (index, format) in list.split(|c| *c == b'/').enumerate() {
            out.push(if index == 0 { b' ' } else { b'/' });
            push_payload(format, stream, out);
        }
        return;
    }
    for (index, parameter) in text.split(|c| *c == b';').enumerate() {
        if index > 0 {
            out.push(b';');
        }
        let start = parameter.iter().position(|c| *c != b' ').unwrap_or(parameter.len());
        match parameter.get(start..).and_then(|bare| bare.strip_prefix(b"apt=")) {
            Some(format) => {
                out.extend_from_slice(parameter.get(..start + 4).unwrap_or_default());
                push_payload(format.trim_ascii(), stream, out);
            }
            None => out.extend_from_slice(parameter),
        }
    }
}

/// Whether an attribute names addresses of the other leg.
fn leaks(attribute: &Attribute<'_>, with: &Rewrite<'_>) -> bool {
    attribute.name == b"source-filter"
        || attribute.is_ice()
        || with.strip_keys && attribute.is_keying()
}

/// A line as it is, but for hosts of the peer in it. One that holds another address all the same is
/// left out, unless it tells how a format is to be decoded.
fn keep(out: &mut Vec<u8>, line: &Line<'_>, with: &Rewrite<'_>, names: &Names<'_>) {
    let start = out.len();
    let mut from = 0;
    out.extend([line.kind, b'=']);
    if matches!(line.kind, b'a' | b'i') {
        // Not in the type of the line, whatever a peer calls its host.
        while let Some(found) = names::find(line.value, from, names.all()) {
            out.extend_from_slice(line.value.get(from..found.start).unwrap_or_default());
            push_ip(out, with.address);
            from = found.end;
        }
    }
    out.extend_from_slice(line.value.get(from..).unwrap_or_default());
    let format = line.attribute().is_some_and(|a| matches!(a.name, b"rtpmap" | b"fmtp"));
    let written = out.get(start..).unwrap_or_default();
    if !format && holds_foreign_address(written, with.address) {
        return out.truncate(start);
    }
    end(out);
}

/// c= with our address; an old-style hold stays one, in our address family.
fn connection(out: &mut Vec<u8>, line: &Line<'_>, with: &Rewrite<'_>) {
    let ours = with.address;
    let hold = !with.placeholder && Connection::parse(line.value).is_some_and(|c| c.is_hold());
    let shown = match ours {
        IpAddr::V4(_) if hold => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) if hold => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        ours => ours,
    };
    address(out, shown, b"c=");
    end(out);
}

fn rtcp_line(out: &mut Vec<u8>, port: u16, ours: IpAddr) {
    out.extend_from_slice(b"a=rtcp:");
    push_decimal(out, u64::from(port));
    address(out, ours, b" ");
    end(out);
}

fn address(out: &mut Vec<u8>, address: IpAddr, before: &[u8]) {
    out.extend_from_slice(before);
    out.extend_from_slice(if address.is_ipv4() { b"IN IP4 " } else { b"IN IP6 " });
    push_ip(out, address);
}

fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}
