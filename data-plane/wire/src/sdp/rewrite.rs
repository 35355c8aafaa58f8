//! A description for the other leg: our origin, address and ports, everything else as it was.

use std::net::IpAddr;

use super::line::{Attribute, Connection, Direction, Line, Lines};
use super::{Description, Media, SdpError};
use crate::{
    names,
    sip::{push_decimal, push_ip},
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
    pub streams: &'r [StreamRewrite],
    /// Leave ICE and bundling lines out (see [`super::Attribute::is_ice`]): they name transport
    /// addresses that are not ours.
    pub strip_ice: bool,
    /// Hosts of the peer, besides those of its o= and c= lines: where one of them stands in an
    /// attribute or a title, our address takes its place.
    pub inside: &'r [&'r [u8]],
}

/// Names that are looked for in one description. More are not.
const NAMES_MAX: usize = 12;

/// The hosts that must not be read on the other side.
struct Names<'n> {
    names: [&'n [u8]; NAMES_MAX],
    count: usize,
}

impl<'n> Names<'n> {
    fn of(description: &Description<'n>, inside: &[&'n [u8]]) -> Self {
        let mut all = Self { names: [&[]; NAMES_MAX], count: 0 };
        inside.iter().for_each(|name| all.add(name));
        if description.has_one_connection_each() {
            all.add(description.origin().address);
            all.add(description.connection().map_or(&[], |connection| connection.text));
            for media in description.medias() {
                all.add(media.connection().map_or(&[], |connection| connection.text));
            }
            return all;
        }
        let medias = description.medias().iter().map(|media| media.section);
        for section in std::iter::once(description.session).chain(medias) {
            for line in Lines::new(section) {
                // Of o=: user, id, version, net, family, address; of c=: net, family, address.
                let place = match line.kind {
                    b'o' => 5,
                    b'c' => 2,
                    _ => continue,
                };
                let word = line.value.split(|&b| b == b' ').filter(|w| !w.is_empty()).nth(place);
                let host = word.and_then(|word| word.split(|&b| b == b'/').next());
                all.add(host.unwrap_or_default());
            }
        }
        all
    }

    /// Single words without a dot or colon are too likely to mean something else.
    fn add(&mut self, name: &'n [u8]) {
        let held = matches!(name, b"0.0.0.0" | b"::");
        let host = name.iter().any(|b| matches!(b, b'.' | b':'));
        if held || !host || self.all().contains(&name) {
            return;
        }
        if let Some(slot) = self.names.get_mut(self.count) {
            *slot = name;
            self.count += 1;
        }
    }

    fn all(&self) -> &[&'n [u8]] {
        self.names.get(..self.count).unwrap_or_default()
    }
}

/// What to put into one media description.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamRewrite {
    /// Our RTP port; 0 refuses the stream. A stream that is refused in the input stays so.
    pub port: u16,
    /// Our RTCP port. An a=rtcp line is written when the input has one or the port is not the one
    /// above RTP; `None` leaves such lines out.
    pub rtcp_port: Option<u16>,
    /// Direction to write in place of the input's.
    pub direction: Option<Direction>,
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

/// Appends the rewritten `input` to `out`. Lines that are not understood are kept octet for octet;
/// every line ends in CRLF.
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
                connection(out, &line, with.address);
            }
            // An a=rtcp line here has no stream to belong to.
            b'a' if attribute.is_some_and(|a| leaks(&a, with) || a.name == b"rtcp") => {}
            _ => keep(out, &line, with, names),
        }
    }
    if !description.has_line(b't') {
        out.extend_from_slice(b"t=0 0\r\n");
    }
}

fn media_level(
    media: &Media<'_>,
    stream: &StreamRewrite,
    with: &Rewrite<'_>,
    names: &Names<'_>,
    out: &mut Vec<u8>,
) {
    let port = if media.port == 0 { 0 } else { stream.port };
    out.extend_from_slice(b"m=");
    out.extend_from_slice(media.kind_text);
    out.push(b' ');
    push_decimal(out, u64::from(port));
    out.push(b' ');
    out.extend_from_slice(media.tail);
    end(out);
    let mut connected = false;
    let mut rtcp = stream.rtcp_port.filter(|_| port != 0);
    let default_rtcp = port.checked_add(1);
    for line in Lines::new(media.section) {
        let attribute = line.attribute();
        match line.kind {
            b'c' if connected => {}
            b'c' => {
                connected = true;
                connection(out, &line, with.address);
            }
            b'a' if attribute.is_some_and(|a| leaks(&a, with)) => {}
            b'a' if attribute.is_some_and(|a| a.name == b"rtcp") => {
                if let Some(port) = rtcp.take() {
                    rtcp_line(out, port, with.address);
                }
            }
            b'a' if stream.direction.is_some()
                && attribute.is_some_and(|a| a.direction().is_some()) => {}
            b'k' => {}
            _ => keep(out, &line, with, names),
        }
    }
    if let Some(port) = rtcp.filter(|port| Some(*port) != default_rtcp) {
        rtcp_line(out, port, with.address);
    }
    if let Some(direction) = stream.direction {
        out.extend_from_slice(b"a=");
        out.extend_from_slice(direction.as_str().as_bytes());
        end(out);
    }
}

/// Whether an attribute names addresses of the other leg.
fn leaks(attribute: &Attribute<'_>, with: &Rewrite<'_>) -> bool {
    attribute.name == b"source-filter" || with.strip_ice && attribute.is_ice()
}

/// A line as it is, but for hosts of the peer in it.
fn keep(out: &mut Vec<u8>, line: &Line<'_>, with: &Rewrite<'_>, names: &Names<'_>) {
    let mut from = 0;
    if matches!(line.kind, b'a' | b'i') {
        while let Some(found) = names::find(line.text, from, names.all()) {
            out.extend_from_slice(line.text.get(from..found.start).unwrap_or_default());
            push_ip(out, with.address);
            from = found.end;
        }
    }
    out.extend_from_slice(line.text.get(from..).unwrap_or_default());
    end(out);
}

/// c= with our address; an old-style hold stays one, in our address family.
fn connection(out: &mut Vec<u8>, line: &Line<'_>, ours: IpAddr) {
    let hold = Connection::parse(line.value).is_some_and(|c| c.is_hold());
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
