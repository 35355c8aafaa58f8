//! What must hold for any octets that the wire parsers are given. The fuzz targets call these, and
//! so do the property tests of `data-plane/wire`.
#![allow(dead_code)] // each target uses one of them

use std::net::{IpAddr, SocketAddr};

use ravelin_wire::sdp::{self, Description, Direction, Rewrite, StreamRewrite, rewrite};
use ravelin_wire::sip::{
    Frame, Framing, HeaderName, Message, NameAddr, Params, StartLine, StreamFramer, Uri, Via,
    WriteError, Writer, parse_date, repair, salvage, split_commas, unquote, uri, write_date,
};
use ravelin_wire::{demux, rtcp, rtp, stun};

/// Totality; and what is accepted, when it is written out again, is the same message to a reader
/// that knows nothing of folds, white space and compact forms.
pub(crate) fn sip_message(data: &[u8]) {
    let _ = demux::first_byte(data);
    repaired(data);
    match Message::parse(data, Framing::Datagram) {
        Ok(message) => accepted(&message),
        Err(error) => {
            assert!((400..600).contains(&error.status()));
            if let Some(salvage) = salvage(data) {
                assert!(error.answerable());
                let mut out = b"kept".to_vec();
                let written = salvage.write_answer(400, b"Bad", b"t", source(), &[], &mut out);
                if written.is_err() {
                    assert_eq!(out, b"kept");
                } else {
                    lines_are_clean(&out[4..]);
                }
            }
        }
    }
}

/// A repaired copy is a message that is safe to pass on, or is refused after all.
fn repaired(data: &[u8]) {
    let mut copy = Vec::new();
    if !repair(data, &mut copy) {
        assert!(copy.is_empty());
        assert!(Message::parse(data, Framing::Datagram).is_err());
    } else if let Ok(message) = Message::parse(&copy, Framing::Datagram) {
        accepted(&message);
    }
}

fn source() -> SocketAddr {
    "192.0.2.7:5099".parse().unwrap()
}

fn accepted(message: &Message<'_>) {
    for header in message.headers() {
        for element in split_commas(header.value) {
            let _ =
                NameAddr::parse(element).map(|addr| (addr.tag(), addr.uri(), addr.safe_display()));
            let _ = Via::parse(element);
        }
    }
    let _ = (message.contact(), message.top_via(), message.max_forwards(), message.via_count());
    if let Some(content) = message.content() {
        if let Some(parts) = content.parts(message.body()) {
            for part in parts {
                let at = part.offset;
                assert_eq!(&message.body()[at..at + part.body.len()], part.body);
            }
        }
        if let Some(part) = content.find_part(message.body(), b"application", b"sdp") {
            let at = part.offset;
            assert_eq!(&message.body()[at..at + part.body.len()], part.body);
        }
    }

    // The accepted octets are a fixed point of parsing.
    let again = Message::parse(message.raw(), Framing::Datagram).unwrap();
    assert_eq!((again.raw(), again.body()), (message.raw(), message.body()));

    let mut out = Vec::new();
    if let Err(error) = write(message, &mut out) {
        // Escaped controls in a display name are legal to read and never written.
        assert!(matches!(error, WriteError::HeaderValue | WriteError::TooLarge));
        assert!(out.is_empty());
        return;
    }
    lines_are_clean(&out);
    // On a stream, so that framing is checked too.
    let again = Message::parse(&out, Framing::Stream).unwrap();
    assert_eq!(start(&again), start(message));
    assert_eq!(again.body(), message.body());
    assert_eq!(again.call_id(), message.call_id());
    assert_eq!(again.cseq(), message.cseq());
    assert_eq!(again.from().uri, message.from().uri);
    assert_eq!(again.from().tag(), message.from().tag());
    assert_eq!(again.to().tag(), message.to().tag());
    assert_eq!(again.max_forwards(), message.max_forwards());
    let (ours, theirs) = (again.top_via(), message.top_via());
    assert_eq!((ours.host, ours.port, ours.branch), (theirs.host, theirs.port, theirs.branch));
    assert_eq!((ours.received, ours.rport), (theirs.received, theirs.rport));
    assert_eq!(again.via_count(), message.via_count());
    assert_eq!(naive_headers(&out), flat_headers(message));
    let mut twice = Vec::new();
    write(&again, &mut twice).unwrap();
    assert_eq!(twice, out);
    // A framer agrees on where it ends.
    let mut framer = StreamFramer::new();
    framer.push(&out).unwrap();
    assert_eq!(framer.next(), Ok(Some(Frame::Message(&out))));

    if message.method().is_some_and(|m| m.as_bytes() != b"ACK") {
        let salvage = salvage(message.raw()).unwrap();
        let mut answer = Vec::new();
        salvage.write_answer(400, b"Bad", b"t", source(), &[], &mut answer).unwrap();
        let answer = Message::parse(&answer, Framing::Stream).unwrap();
        assert_eq!(answer.code(), Some(400));
        assert_eq!(answer.via_count(), message.via_count());
        assert_eq!(answer.cseq(), message.cseq());
        assert_eq!(answer.call_id(), message.call_id());
        assert_eq!(answer.to().tag(), message.to().tag().or(Some(b"t")));
    }
}

fn start(message: &Message<'_>) -> (Vec<u8>, Vec<u8>, u16) {
    match message.start() {
        StartLine::Request { method, uri } => (method.as_bytes().to_vec(), uri.to_vec(), 0),
        StartLine::Response { code, reason } => (Vec::new(), reason.to_vec(), code),
    }
}

/// Writes `message` as it would be passed on.
fn write(message: &Message<'_>, out: &mut Vec<u8>) -> Result<(), WriteError> {
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
    writer.body(None, message.body())
}

/// Every line ends in CRLF, none starts with a blank, every one but the first has its colon right
/// after the name, and no control character is left.
fn lines_are_clean(message: &[u8]) {
    let end = message.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = std::str::from_utf8(&message[..end]).unwrap();
    for (i, line) in head.split("\r\n").enumerate() {
        assert!(!line.chars().any(|c| c.is_ascii_control() && c != '\t'), "{line:?}");
        if i > 0 {
            let (name, value) = line.split_once(": ").unwrap();
            assert!(name.bytes().all(|c| c.is_ascii_graphic()), "{line:?}");
            assert_eq!(value, value.trim_matches([' ', '\t']));
        }
    }
}

/// Header lines as the simplest reader sees them, Content-Length apart.
fn naive_headers(message: &[u8]) -> Vec<(String, String)> {
    let end = message.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = std::str::from_utf8(&message[..end]).unwrap();
    let lines = head.split("\r\n").skip(1).map(|line| line.split_once(": ").unwrap());
    let own = |(name, value): (&str, &str)| (name.to_ascii_lowercase(), value.to_owned());
    lines.map(own).filter(|(name, _)| name != "content-length").collect()
}

/// Header lines as the parsed message has them, folds undone.
fn flat_headers(message: &Message<'_>) -> Vec<(String, String)> {
    let others = message.headers().filter(|header| header.name != HeaderName::ContentLength);
    others
        .map(|header| {
            let name = match header.name {
                HeaderName::Other => std::str::from_utf8(header.raw_name).unwrap(),
                known => known.as_str(),
            };
            let mut value = std::str::from_utf8(header.value).unwrap().to_owned();
            while let Some(at) = value.find("\r\n") {
                let tail = value[at..].trim_start_matches([' ', '\t', '\r', '\n']).to_owned();
                value.truncate(at);
                value.push(' ');
                value.push_str(&tail);
            }
            (name.to_ascii_lowercase(), value)
        })
        .collect()
}

/// However a stream is cut into reads, the frames are the same. The first octet seeds the cuts.
pub(crate) fn sip_stream(data: &[u8]) {
    let Some((&seed, stream)) = data.split_first() else { return };
    let whole = frames(stream, |_| stream.len().max(1));
    let single = frames(stream, |_| 1);
    assert_eq!(single, whole);
    let mut state = u32::from(seed) + 1;
    let mixed = frames(stream, |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(state >> 24).unwrap() + 1
    });
    assert_eq!(mixed, whole);
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Message(Vec<u8>),
    Ping,
    Pong,
    Failed,
}

/// All frames of `stream`, read in pieces of the lengths that `piece` gives.
pub(crate) fn frames(stream: &[u8], mut piece: impl FnMut(usize) -> usize) -> Vec<Got> {
    let mut framer = StreamFramer::new();
    let mut got = Vec::new();
    let mut at = 0;
    while at < stream.len() {
        let next = (at + piece(at)).min(stream.len()).min(at + 65_536);
        if framer.push(&stream[at..next]).is_err() {
            break;
        }
        at = next;
        loop {
            match framer.next() {
                Ok(None) => break,
                Ok(Some(Frame::Ping)) => got.push(Got::Ping),
                Ok(Some(Frame::Pong)) => got.push(Got::Pong),
                Ok(Some(Frame::Message(bytes))) => {
                    // What the framer cut is never short or long.
                    if let Err(error) = Message::parse(bytes, Framing::Stream) {
                        let reason = error.reason();
                        assert!(!reason.starts_with("body") && !reason.starts_with("octets after"));
                        assert!(!reason.starts_with("Content-Length"), "{reason}");
                    }
                    got.push(Got::Message(bytes.to_vec()));
                }
                Err(_) => {
                    got.push(Got::Failed);
                    assert!(framer.push(b"x").is_err());
                    return got;
                }
            }
        }
    }
    got
}

/// The pieces of an accepted URI make up the URI again; the small parsers are total.
pub(crate) fn uri(data: &[u8]) {
    if let Some(uri) = Uri::parse(data) {
        let mut again = data.split(|&c| c == b':').next().unwrap().to_vec();
        again.push(b':');
        match uri.scheme {
            uri::Scheme::Sip | uri::Scheme::Sips => {
                if let Some(user) = uri.user {
                    again.extend_from_slice(user);
                    if let Some(password) = uri.password {
                        again.push(b':');
                        again.extend_from_slice(password);
                    }
                    again.push(b'@');
                }
                again.extend_from_slice(uri.host);
                let port_at = again.len();
                again.extend_from_slice(uri.params.as_bytes());
                if !uri.headers.is_empty() {
                    again.push(b'?');
                    again.extend_from_slice(uri.headers);
                }
                if let Some(port) = uri.port {
                    // Leading zeros of a port are legal.
                    let rest = data[port_at..].strip_prefix(b":").unwrap();
                    let digits = rest.iter().take_while(|c| c.is_ascii_digit()).count();
                    let text = std::str::from_utf8(&rest[..digits]).unwrap();
                    assert_eq!(text.parse(), Ok(port));
                    again.splice(port_at..port_at, format!(":{text}").into_bytes());
                }
            }
            _ => again.extend_from_slice(uri.opaque),
        }
        assert_eq!(again, data);
        let _ = (uri.host(), uri.host_ip(), uri.user_number(), uri.params.get(b"user"));
        // In angle brackets any URI is an address; and it cannot end them early.
        let mut bracketed = b"<".to_vec();
        bracketed.extend_from_slice(data);
        bracketed.extend_from_slice(b">;tag=1");
        let addr = NameAddr::parse(&bracketed).unwrap();
        assert_eq!((addr.uri, addr.tag()), (data, Some(&b"1"[..])));
        assert_eq!(split_commas(&bracketed).count(), 1);
    }
    if let Some(addr) = NameAddr::parse(data) {
        assert!(Uri::parse(addr.uri).is_some());
        for (name, value) in addr.params.iter() {
            assert!(!name.is_empty());
            let _ = value.map(|v| unquote(v).count());
        }
    }
    if let Some(via) = Via::parse(data) {
        let mut out = Vec::new();
        ravelin_wire::sip::write_via_with_source(&via, source(), &mut out);
        if !out.iter().any(u8::is_ascii_control) {
            let again = Via::parse(&out).unwrap();
            assert_eq!((again.host, again.port, again.branch), (via.host, via.port, via.branch));
            let answered = via.rport.is_some();
            assert_eq!(again.rport, answered.then_some(Some(5099)));
        }
    }
    if let Some(params) = Params::parse(data) {
        assert!(params.iter().count() <= ravelin_wire::limits::PARAM_MAX_COUNT);
    }
    if let Some(unix) = parse_date(data) {
        let mut text = Vec::new();
        write_date(unix, &mut text);
        assert_eq!(parse_date(&text), Some(unix));
    }
    assert!(uri::percent_decode(data).count() <= data.len());
    assert_eq!(split_commas(data).map(<[u8]>::to_vec).collect::<Vec<_>>(), naive_commas(data));
}

/// Splits at commas the slow way: one octet and one flag at a time.
pub(crate) fn naive_commas(line: &[u8]) -> Vec<Vec<u8>> {
    // A quote that is never closed, or holds what a quoted string must not, hides what follows.
    fn string_end(s: &[u8], from: usize) -> Option<usize> {
        let mut i = from + 1;
        while i < s.len() {
            match s[i] {
                b'"' => return Some(i),
                b'\\' => match s.get(i + 1)? {
                    b'\r' | b'\n' | 0x80.. => return None,
                    _ => i += 2,
                },
                b'\t' | b'\r' | b'\n' => i += 1,
                0x00..=0x1f | 0x7f => return None,
                _ => i += 1,
            }
        }
        None
    }
    let mut out = vec![Vec::new()];
    let mut angle = false;
    let mut i = 0;
    while i < line.len() {
        let c = line[i];
        if c == b'"' && !angle {
            let end = match string_end(line, i) {
                Some(end) => end + 1,
                None => line.len(),
            };
            out.last_mut().unwrap().extend_from_slice(&line[i..end]);
            i = end;
            continue;
        }
        match c {
            b'<' => angle = true,
            b'>' => angle = false,
            _ => {}
        }
        if c == b',' && !angle {
            out.push(Vec::new());
        } else {
            out.last_mut().unwrap().push(c);
        }
        i += 1;
    }
    let blank = |c: &u8| matches!(c, b' ' | b'\t' | b'\r' | b'\n');
    out.iter()
        .map(|element| {
            let start = element.iter().position(|c| !blank(c)).unwrap_or(element.len());
            let end = element.iter().rposition(|c| !blank(c)).map_or(start, |end| end + 1);
            element[start..end].to_vec()
        })
        .filter(|element| !element.is_empty())
        .collect()
}

/// What is mended is a description in which every stream in use has one port and an address, and what
/// was whole keeps its streams.
fn sdp_mend(data: &[u8]) {
    let mut out = Vec::new();
    sdp::mend(data, std::net::IpAddr::from([192, 0, 2, 1]), &mut out);
    let mended = Description::parse(&out).expect("mended");
    assert!(sdp::is_whole(&mended));
    let Ok(whole) = Description::parse(data) else { return };
    // A longer description is cut.
    let lines = data.iter().filter(|c| **c == b'\n').count();
    if sdp::is_whole(&whole) && data.len() <= 16_384 && lines <= 1_000 {
        let streams = |of: &Description<'_>| -> Vec<(u16, Vec<u8>, Vec<u8>)> {
            let line = |media: &sdp::Media<'_>| {
                (media.port, media.kind_text.to_vec(), media.proto.to_vec())
            };
            of.medias().iter().map(line).collect()
        };
        assert_eq!(streams(&whole), streams(&mended));
    }
}

/// A parsed description covers its input: counts, levels and typed lines agree with a plain split.
pub(crate) fn sdp_parse(data: &[u8]) {
    sdp_mend(data);
    let Ok(description) = Description::parse(data) else { return };
    let text: Vec<&[u8]> = data
        .split(|&c| c == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(text[0], b"v=0");
    assert!(text.iter().all(|line| line[1] == b'=' && !line.contains(&b'\r')));
    let medias = description.medias();
    assert_eq!(text.iter().filter(|line| line[0] == b'm').count(), medias.len());
    let attributes = text.iter().filter(|line| line[0] == b'a').count();
    let found: usize = medias.iter().map(|media| media.attributes().count()).sum();
    assert_eq!(attributes, found + description.attributes().count());
    for media in medias {
        assert!(media.formats().count() > 0);
        let _ = (media.connection(), media.rtcp(), media.rtcp_port(), media.ptime_ms());
        let _ = (media.is_rtp(), media.is_secure(), media.rtp_maps().count());
        let _ = (description.connection_of(media), description.direction_of(media));
        for format in media.formats() {
            let _ = media.fmtp(format);
        }
    }
}

/// A rewritten description is a description: ours where it must be, the peer's lines where it may
/// be.
pub(crate) fn sdp_rewrite(data: &[u8]) {
    let Some((&seed, input)) = data.split_first() else { return };
    let address: IpAddr =
        if seed & 1 == 0 { "198.51.100.9" } else { "2001:db8::9" }.parse().unwrap();
    let Ok(before) = Description::parse(input) else { return };
    let streams: Vec<StreamRewrite<'_>> = (0..before.medias().len())
        .map(|i| StreamRewrite {
            port: if seed & 2 == 0 { 40_000 + 2 * u16::try_from(i).unwrap() } else { 0 },
            rtcp_port: match seed & 12 {
                0 => None,
                4 => Some(40_001 + 2 * u16::try_from(i).unwrap()),
                _ => Some(50_001),
            },
            direction: (seed & 16 != 0).then_some(Direction::SendOnly),
            proto: (seed & 64 != 0).then_some(b"RTP/SAVP"),
            rtcp_mux: (seed & 128 != 0).then_some(true),
            ..StreamRewrite::default()
        })
        .collect();
    let with = Rewrite {
        username: b"-",
        id: 7,
        version: u64::from(seed),
        address,
        streams: &streams,
        strip_keys: seed & 32 != 0,
        placeholder: false,
        lines: b"",
        tail: b"",
        inside: &[],
    };
    let mut out = b"kept".to_vec();
    if rewrite(input, &with, &mut out).is_err() {
        assert_eq!(out, b"kept");
        return;
    }
    let out = &out[4..];
    let after = Description::parse(out).unwrap();
    // What stands in for a host of the input, or may be one: not compared.
    let connections = before.medias().iter().filter_map(|media| before.connection_of(media));
    let mut hosts: Vec<Vec<u8>> = connections
        .filter_map(|connection| connection.address)
        .map(|address| address.to_string().into_bytes())
        .collect();
    hosts.push(address.to_string().into_bytes());
    // As they stand in o= and c=, each of several in a section, and without what is behind a slash.
    let origins = input.split(|c| matches!(c, b'\r' | b'\n'));
    for line in origins.filter(|line| matches!(line, [b'o' | b'c', b'=', ..])) {
        for word in line.split(|c| *c == b' ') {
            let host = word.split(|c| *c == b'/').next().unwrap_or_default();
            let named =
                [word, host].into_iter().filter(|name| name.iter().any(|c| b".:".contains(c)));
            hosts.extend(named.map(<[u8]>::to_vec));
        }
    }
    let names_a_host = |a: &ravelin_wire::sdp::Attribute<'_>| {
        let may = |text: &[u8]| {
            ravelin_wire::names::may_name_a_host(text) || hosts.iter().any(|host| text == host)
        };
        // An address over IPv6 may begin in the name.
        let whole = [a.name, b":", a.value.unwrap_or_default()].concat();
        let part = |c: &u8| c.is_ascii_hexdigit() || matches!(c, b'.' | b':');
        let colons = |word: &[u8]| word.iter().filter(|c| **c == b':').count();
        let v6 = whole.split(|c| !part(c)).any(|word| colons(word) >= 2);
        // A host that is no address may be any text, colons included.
        let holds = |host: &[u8]| whole.windows(host.len()).any(|w| w.eq_ignore_ascii_case(host));
        let named = hosts.iter().any(|host| !host.is_empty() && holds(host));
        may(a.name) || a.value.is_some_and(may) || a.name.contains(&b'.') || v6 || named
    };
    assert_eq!(after.origin().address, address.to_string().as_bytes());
    assert_eq!(after.medias().len(), before.medias().len());
    for ((old, new), stream) in before.medias().iter().zip(after.medias()).zip(&streams) {
        assert_eq!(new.port, if old.port == 0 { 0 } else { stream.port });
        assert_eq!(new.kind_text, old.kind_text);
        assert_eq!(new.proto, stream.proto.unwrap_or(old.proto));
        assert!(new.formats().eq(old.formats()), "order and number of formats");
        if new.port == 0 {
            assert!(new.attributes().all(|a| a.name == b"mid"), "a refused stream says nothing");
            continue;
        }
        let connection = after.connection_of(new).unwrap();
        let held = before.connection_of(old).unwrap().is_hold();
        assert_eq!(connection.is_hold(), held);
        assert!(held || connection.address == Some(address));
        if let Some(rtcp) = stream.rtcp_port {
            let muxed = new.rtcp().is_none() && new.rtcp_mux();
            assert!(muxed || new.rtcp_port() == Some(rtcp));
        }
        assert!(stream.rtcp_mux.is_none() || new.rtcp_mux());
        assert!(!with.strip_keys || !new.attributes().any(|a| a.is_keying()));
        if let Some(direction) = stream.direction {
            assert_eq!(after.direction_of(new), direction);
        } else {
            assert_eq!(after.direction_of(new), before.direction_of(old));
        }
        assert!(!new.attributes().any(|attribute| attribute.is_ice()));
        let kept = |a: &ravelin_wire::sdp::Attribute<'_>| {
            a.name != b"rtcp"
                && a.name != b"source-filter"
                && a.direction().is_none()
                && !a.is_ice()
                && !(with.strip_keys && a.is_keying())
                && !(stream.rtcp_mux.is_some() && a.name.starts_with(b"rtcp-mux"))
                && !names_a_host(a)
        };
        assert!(old.attributes().filter(kept).eq(new.attributes().filter(kept)));
    }
    // What stands alone in an attribute as an address of this form is nobody's but ours. Behind what
    // is no name (RFC 8866 9: a token) it is the rest of some other text.
    let attributes = after.medias().iter().flat_map(|media| media.attributes());
    for attribute in attributes.filter(|a| a.name.iter().all(u8::is_ascii_graphic)) {
        let text = attribute.value.and_then(|value| std::str::from_utf8(value).ok());
        // One over IPv6 has colons of its own: glued to a name, its tail looks like another.
        let ours = [attribute.name, b":", attribute.value.unwrap_or_default()].concat();
        if let Some(Ok(found)) = text.map(str::parse::<IpAddr>)
            && !matches!(attribute.name, b"rtpmap" | b"fmtp")
            && !ours.ends_with(address.to_string().as_bytes())
            && !(found.is_ipv6() && attribute.name.last().is_some_and(u8::is_ascii_hexdigit))
        {
            assert!(found == address || found.is_unspecified(), "{attribute:?}");
        }
    }
    let lines = |text: &[u8]| text.iter().filter(|c| **c == b'\n').count();
    let added = 2 + 4 * before.medias().len();
    assert!(lines(out) <= lines(input) + 1 + added, "more lines than came and were added");
    let mut twice = Vec::new();
    rewrite(out, &with, &mut twice).unwrap();
    assert_eq!(twice, out, "not a fixed point");
}

/// Lengths found by the media parsers add up to the datagram.
pub(crate) fn rtp_rtcp_stun(data: &[u8]) {
    let kind = demux::first_byte(data);
    if let Some(header) = rtp::Header::parse(data) {
        let extension = header.extension.map_or(0, |(_, content)| content.len() + 4);
        let sum = 12 + header.csrc.len() + extension + header.payload.len();
        assert_eq!(sum + usize::from(header.padding), data.len());
        assert!(matches!(kind, demux::Kind::Rtp | demux::Kind::Rtcp));
    }
    if let Some(compound) = rtcp::Compound::parse(data) {
        assert!(data.len() >= 8 && data.len().is_multiple_of(4));
        assert_eq!(compound.packets().map(|p| p.packet.len()).sum::<usize>(), data.len());
        assert!(compound.packets().next().unwrap().ssrc.is_some());
        assert_eq!(kind, demux::Kind::Rtcp);
    }
    if let Some(message) = stun::Message::parse(data) {
        let sum: usize =
            message.attributes().map(|(_, value)| 4 + value.len().next_multiple_of(4)).sum();
        assert_eq!(sum + 20, data.len());
        assert_eq!(kind, demux::Kind::Stun);
        let _ = message.fingerprint_ok();
        stun_check(&message);
    }
}

/// The typed view agrees with the raw walk, and what is written from it says the same.
fn stun_check(message: &stun::Message<'_>) {
    use stun::attribute::{
        COMPREHENSION_OPTIONAL, MESSAGE_INTEGRITY, PRIORITY, USE_CANDIDATE, USERNAME,
    };
    if let Some(integrity) = message.integrity() {
        let end = 4 + integrity.covered.len();
        assert_eq!(integrity.covered, &message.bytes()[4..end]);
        assert_eq!(message.bytes()[end..end + 4], [0, 8, 0, 20]);
        assert_eq!(&message.bytes()[end + 4..end + 24], integrity.tag);
        assert_eq!(
            usize::from(u16::from_be_bytes([integrity.head[2], integrity.head[3]])),
            end + 4
        );
    }
    let Ok(check) = stun::Check::read(message) else { return };
    let covered = || message.attributes().take_while(|(kind, _)| *kind != MESSAGE_INTEGRITY);
    let first = |wanted| covered().find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    assert_eq!(check.username, first(USERNAME));
    assert_eq!(check.priority.map(u32::to_be_bytes).as_ref().map(|v| &v[..]), first(PRIORITY));
    assert_eq!(check.use_candidate, first(USE_CANDIDATE).is_some());
    for kind in check.unknown.as_slice() {
        assert!(*kind < COMPREHENSION_OPTIONAL && first(*kind).is_some());
    }
    if message.attributes().count() > 60 || message.bytes().len() > 60_000 {
        return; // no room for what is added
    }
    let mut out = Vec::new();
    let mut writer = stun::Writer::binding(&mut out, message.class, message.transaction);
    for (kind, value) in covered().filter(|(kind, _)| *kind != stun::FINGERPRINT) {
        writer = writer.attribute(kind, value);
    }
    writer.integrity(|_| [0; 20]).finish();
    let again = stun::Message::parse(&out).expect("what is written is sound");
    assert_eq!(again.fingerprint_ok(), Some(true));
    assert_eq!(stun::Check::read(&again), Ok(check));
    assert_eq!((again.class, again.transaction), (message.class, message.transaction));
}
