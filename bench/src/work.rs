//! The work itself, once: the clock (`benches/wire.rs`, `engine.rs`) and the instruction counter
//! (`benches/instructions.rs`) measure the same functions.

use std::hint::black_box;

use ravelin_wire::{
    sdp::{Rewrite, StreamRewrite, rewrite},
    sip::{Framing, HeaderName, Message, StartLine, Writer},
};

/// Parses, then reads what an SBC needs of an INVITE: dialog and transaction identifiers, target,
/// identity, body.
///
/// # Panics
/// If `bytes` is no message.
#[inline(never)]
#[must_use]
pub fn parse_and_read(bytes: &[u8]) -> usize {
    let message = Message::parse(bytes, Framing::Datagram).expect("valid");
    let target = message.target();
    let contact = message.contact();
    message.call_id().len()
        + message.from().tag().map_or(0, <[u8]>::len)
        + message.to().tag().map_or(0, <[u8]>::len)
        + message.top_via().branch.map_or(0, <[u8]>::len)
        + usize::from(message.max_forwards().unwrap_or(70))
        + target.and_then(|uri| uri.user).map_or(0, <[u8]>::len)
        + contact.map_or(0, |contact| contact.uri.len())
        + message.values(HeaderName::PAssertedIdentity).map(<[u8]>::len).sum::<usize>()
        + usize::from(message.lists(HeaderName::Supported, b"100rel"))
        + message.content().map_or(0, |content| content.subtype.len())
        + message.body().len()
}

/// Writes `message` again, header by header.
///
/// # Panics
/// If it cannot be written.
#[inline(never)]
pub fn write(message: &Message<'_>, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out);
    match message.start() {
        StartLine::Request { method, uri } => writer.request_line(method.as_bytes(), uri),
        StartLine::Response { code, reason } => writer.status_line(code, reason),
    };
    for header in message.headers() {
        if header.name != HeaderName::ContentLength {
            writer.header_named(header.raw_name, header.value);
        }
    }
    writer.body(None, message.body()).expect("writable");
}

/// Parses and rewrites a session description of one stream.
///
/// # Panics
/// If it cannot be rewritten.
#[inline(never)]
pub fn rewrite_sdp(body: &[u8], out: &mut Vec<u8>) {
    let streams =
        [StreamRewrite { port: 40_000, rtcp_port: Some(40_001), ..StreamRewrite::default() }];
    let with = Rewrite {
        username: b"-",
        id: 1_718_280_192,
        version: 1,
        address: std::net::Ipv4Addr::new(198, 51, 100, 7).into(),
        streams: &streams,
        strip_keys: false,
        placeholder: false,
        lines: b"",
        tail: b"",
        inside: &[b"192.0.2.1", b"198.51.100.1"],
    };
    rewrite(black_box(body), &with, out).expect("valid");
}
