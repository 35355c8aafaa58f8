//! What can be understood of a description that breaks the grammar, as one that does not. For calls
//! that are not to be lost over a line (EM-55): everybody else's are refused.

use std::net::IpAddr;

use super::{
    Description, SdpError,
    line::{Attribute, Connection, Origin, RtcpAttribute},
    media::Media,
};
use crate::{
    limits::{
        SDP_FORMAT_MAX_COUNT, SDP_LINE_MAX_BYTES, SDP_LINE_MAX_COUNT, SDP_MAX_BYTES,
        SDP_MEDIA_MAX_COUNT,
    },
    sip::{decimal, push_decimal, push_ip, uri::parse_ipv4},
};

/// Lines that a mended description may have besides those of the input: v=, o=, c=.
const ADDED_LINES: usize = 4;
/// Octets of the input that are not looked at, so that no line end and no `IN IP6` that is added can
/// make it too large.
const ADDED_BYTES: usize = 12 * SDP_LINE_MAX_COUNT;
const _: () = assert!(SDP_MAX_BYTES > ADDED_BYTES);
/// What a refused stream is written as when its line says nothing that can be read.
const REFUSED: &[u8] = b"audio 0 RTP/AVP 0";
/// Formats of audio that names none: those that every RTP audio device has (RFC 3551 6).
const AUDIO_FORMATS: &[u8] = b"0 8";
/// Protocols as RFC 3551, RFC 3711, RFC 4585, RFC 5124, RFC 5764 write them.
const PROTOCOLS: [&[u8]; 6] =
    [b"RTP/AVP", b"RTP/AVPF", b"RTP/SAVP", b"RTP/SAVPF", b"UDP/TLS/RTP/SAVP", b"UDP/TLS/RTP/SAVPF"];

/// What was mended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Why the description would have been refused.
    pub first: Option<SdpError>,
    /// Lines that were left out, put right or added.
    pub faults: usize,
    /// An address that nobody signalled was put in: where the sender's media is can only be guessed.
    pub guessed: bool,
    /// The m-lines beyond [`SDP_MEDIA_MAX_COUNT`], refused, each with its end: an answer has as many as
    /// its offer (RFC 3264 6).
    pub excess: Vec<u8>,
}

impl Mended {
    fn fault(&mut self, why: SdpError) {
        self.first.get_or_insert(why);
        self.faults += 1;
    }
}

/// Appends to `out` what can be read of `input`, as a description that [`Description::parse`] takes
/// and in which every stream in use has one port and an address. The streams keep their places
/// (RFC 3264 6): one that cannot be read is refused. `near`: where the sender is, for a stream
/// without an address.
pub fn mend(input: &[u8], near: IpAddr, out: &mut Vec<u8>) -> Mended {
    let mut found = Found::default();
    let bounded = input.get(..SDP_MAX_BYTES - ADDED_BYTES).unwrap_or(input);
    if bounded.len() < input.len() {
        found.mended.fault(SdpError::TooLarge);
    }
    // An input that ends its lines with CR alone has no other ends.
    let lines = bounded.split(|c| matches!(c, b'\r' | b'\n')).filter(|line| !line.is_empty());
    for (at, line) in lines.enumerate() {
        if at >= SDP_LINE_MAX_COUNT - ADDED_LINES {
            found.mended.fault(SdpError::TooLarge);
            break;
        }
        found.take(line);
    }
    found.close();
    let Found { origin, connected, session, medias, needs, mut mended, .. } = found;
    let named = origin.and_then(|origin| any_address(origin.address));
    out.extend_from_slice(b"v=0\r\n");
    match origin.filter(|origin| origin.address.iter().all(u8::is_ascii_graphic)) {
        Some(origin) => {
            let words = [origin.username, origin.id, origin.version, b"IN"];
            out.extend_from_slice(b"o=");
            for word in words {
                out.extend_from_slice(word);
                out.push(b' ');
            }
            let v6 = named.is_some_and(|ip| ip.is_ipv6());
            out.extend_from_slice(if v6 { b"IP6 " } else { b"IP4 " });
            out.extend_from_slice(origin.address);
        }
        None => {
            mended.fault(SdpError::Origin);
            out.extend_from_slice(b"o=- 0 0");
            push_address(near, out);
        }
    }
    out.extend_from_slice(b"\r\n");
    if needs && !connected {
        mended.fault(SdpError::Connection);
        let known = named.filter(|ip| !ip.is_unspecified());
        mended.guessed |= known.is_none();
        out.extend_from_slice(b"c=");
        let start = out.len();
        push_address(known.unwrap_or(near), out);
        out.remove(start);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(&session);
    out.extend_from_slice(&medias);
    mended
}

/// Whether a description that parses is one that can be relayed: every stream in use has one port and
/// an address.
#[must_use]
pub fn is_whole(description: &Description<'_>) -> bool {
    description.medias().iter().filter(|media| media.port != 0).all(|media| {
        media.port_count == 1
            && description.connection_of(media).is_some()
            && !is_misspelt(media.proto)
    })
}

#[derive(Default)]
struct Found<'a> {
    origin: Option<Origin<'a>>,
    /// The session level has an address.
    connected: bool,
    /// The lines behind o= and c= of the session, and those of the streams.
    session: Vec<u8>,
    medias: Vec<u8>,
    count: usize,
    /// Of the stream being read: it is in use and has no address of its own so far.
    open: bool,
    /// Such a stream is behind us.
    needs: bool,
    mended: Mended,
}

impl<'a> Found<'a> {
    fn take(&mut self, line: &'a [u8]) {
        let Some((kind, value)) = kind_of(line) else {
            return self.mended.fault(SdpError::Line);
        };
        match kind {
            b'm' => self.media(value),
            _ if !self.mended.excess.is_empty() => {}
            b'v' => {
                if value != b"0" {
                    self.mended.fault(SdpError::Version);
                }
            }
            b'o' => match Origin::parse(value) {
                Some(origin) if self.origin.is_none() && self.count == 0 => {
                    self.origin = Some(origin);
                }
                _ => self.mended.fault(SdpError::Origin),
            },
            b'c' => self.connection(value),
            b'a' => {
                let attribute = Attribute::of(value);
                let broken = attribute.name == b"rtcp"
                    && attribute.value.and_then(RtcpAttribute::parse).is_none();
                if broken {
                    self.mended.fault(SdpError::Rtcp);
                } else {
                    self.keep(kind, value);
                }
            }
            _ => self.keep(kind, value),
        }
    }

    fn keep(&mut self, kind: u8, value: &[u8]) {
        let section = if self.count == 0 { &mut self.session } else { &mut self.medias };
        section.extend([kind, b'=']);
        section.extend_from_slice(value);
        section.extend_from_slice(b"\r\n");
    }

    fn connection(&mut self, value: &[u8]) {
        let mut put_right = Vec::new();
        let value = if Connection::parse(value).is_some() {
            value
        } else {
            self.mended.fault(SdpError::Connection);
            // The family, the network type or their order is wrong; the address may be there.
            let words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            let Some(address) = words.clone().find_map(any_address) else { return };
            push_address(address, &mut put_right);
            put_right.get(1..).unwrap_or_default()
        };
        if self.count == 0 {
            self.connected = true;
        } else {
            self.open = false;
        }
        self.keep(b'c', value);
    }

    fn media(&mut self, value: &'a [u8]) {
        self.close();
        if self.count == SDP_MEDIA_MAX_COUNT {
            self.mended.fault(SdpError::TooManyMedia);
            let mut line = Vec::new();
            put_right(value, &mut line);
            return refused(&line, &mut self.mended.excess);
        }
        self.count += 1;
        let whole = Media::parse_line(value)
            .filter(|media| media.port == 0 || media.port_count == 1 && !is_misspelt(media.proto));
        if let Some(media) = whole {
            self.open = media.port != 0;
            return self.keep(b'm', value);
        }
        self.mended.fault(SdpError::Media);
        let mut line = Vec::new();
        let port = put_right(value, &mut line);
        let short = line.len() + 2 <= SDP_LINE_MAX_BYTES;
        let readable = short && Media::parse_line(&line).is_some();
        self.open = readable && port != 0;
        self.keep(b'm', if readable { &line } else { REFUSED });
    }

    /// The stream that was being read is complete.
    fn close(&mut self) {
        self.needs |= std::mem::take(&mut self.open);
    }
}

/// What a line is, and what it says.
pub(super) fn kind_of(line: &[u8]) -> Option<(u8, &[u8])> {
    let text = line.trim_ascii();
    match text {
        [kind, b'=', value @ ..]
            if kind.is_ascii_alphabetic()
                && text.len() <= SDP_LINE_MAX_BYTES
                && !value.contains(&0) =>
        {
            Some((kind.to_ascii_lowercase(), value.trim_ascii_start()))
        }
        _ => None,
    }
}

/// Whether it is one of [`PROTOCOLS`] but for the case of its letters.
fn is_misspelt(proto: &[u8]) -> bool {
    PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(proto) && *known != proto)
}

/// Writes what an m= line was meant to say, as far as that can be told; gives its port.
pub(super) fn put_right(value: &[u8], out: &mut Vec<u8>) -> u16 {
    let mut words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let kind = words.next().unwrap_or_default();
    let ports = words.next().unwrap_or_default();
    // Of several ports the first: a hierarchy of encodings has its base there (RFC 8866 5.14).
    let first = ports.split(|c| *c == b'/').next().unwrap_or_default();
    let port = decimal(first).and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
    let proto = words.next().unwrap_or(b"RTP/AVP");
    let known = PROTOCOLS.iter().find(|known| known.eq_ignore_ascii_case(proto));
    out.extend_from_slice(kind);
    out.push(b' ');
    push_decimal(out, u64::from(port));
    out.push(b' ');
    out.extend_from_slice(known.copied().unwrap_or(proto));
    let before = out.len();
    for format in words.take(SDP_FORMAT_MAX_COUNT) {
        out.push(b' ');
        out.extend_from_slice(format);
    }
    if out.len() == before && kind == b"audio" && known.is_some() {
        out.push(b' ');
        out.extend_from_slice(AUDIO_FORMATS);
    }
    port
}

/// Writes an m-line that refuses the stream of another.
pub(super) fn refused(value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"m=");
    match Media::parse_line(value).filter(|_| value.len() + 2 <= SDP_LINE_MAX_BYTES) {
        Some(media) => {
            out.extend_from_slice(media.kind_text);
            out.extend_from_slice(b" 0 ");
            out.extend_from_slice(media.tail);
        }
        None => out.extend_from_slice(REFUSED),
    }
    out.extend_from_slice(b"\r\n");
}

/// An address of either family, in brackets or not, without what may stand behind a slash.
fn any_address(text: &[u8]) -> Option<IpAddr> {
    let text = text.split(|c| *c == b'/').next()?;
    if let Some(ip) = parse_ipv4(text) {
        return Some(IpAddr::V4(ip));
    }
    let bare = text.strip_prefix(b"[").and_then(|text| text.strip_suffix(b"]")).unwrap_or(text);
    std::str::from_utf8(bare).ok()?.parse().ok().map(IpAddr::V6)
}

/// ` IN IP4 192.0.2.1`.
fn push_address(address: IpAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(if address.is_ipv4() { b" IN IP4 " } else { b" IN IP6 " });
    push_ip(out, address);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NEAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 77));

    fn mended(input: &str) -> (String, Mended) {
        let mut out = Vec::new();
        let what = mend(input.as_bytes(), NEAR, &mut out);
        let parsed = Description::parse(&out).unwrap();
        assert!(is_whole(&parsed));
        (String::from_utf8(out).unwrap(), what)
    }

    const HEAD: &str = "v=0\r\no=a 1 2 IN IP4 192.0.2.1\r\ns=-\r\n";
    const TAIL: &str = "t=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\na=ptime:20\r\n";
    const ADDRESS: &str = "c=IN IP4 192.0.2.1\r\n";

    #[test]
    fn what_is_whole_stays() {
        let whole = format!("{HEAD}{ADDRESS}{TAIL}").replace("s=-\r\nc", "c");
        assert_eq!(mended(&whole), (whole.clone(), Mended::default()));
    }

    #[test]
    fn what_can_be_read_is_kept() {
        let good = format!("{HEAD}{ADDRESS}{TAIL}");
        let table = [
            ("\r\n", "\r"),
            ("\r\n", "\n\n"),
            ("v=0", "v=1"),
            ("v=0\r\n", ""),
            ("t=0 0", "nonsense"),
            ("t=0 0", "=x"),
            ("t=0 0", "a=x\0y"),
            ("o=a 1 2", "o=a -1 x"),
            ("o=a 1 2 IN IP4 192.0.2.1\r\n", ""),
            ("s=-", "o=b 1 1 IN IP4 192.0.2.9"),
            ("c=IN IP4 192.0.2.1", "c=IP4 192.0.2.1"),
            ("c=IN IP4 192.0.2.1", "c=IN IP6 192.0.2.1"),
            ("c=IN IP4 192.0.2.1", "C= IN IP4 192.0.2.1 x"),
            ("m=audio 4000 RTP/AVP 0 8", "m= audio  4000\trtp/avp 0 8"),
            ("m=audio 4000 RTP/AVP 0 8", "m=audio 4000/2 RTP/AVP 0 8"),
            ("m=audio 4000 RTP/AVP 0 8", "m=audio 4000 RTP/AVP"),
            ("m=audio 4000 RTP/AVP 0 8", "m=audio 4000"),
            ("a=ptime:20", "a=rtcp:x\r\na=ptime:20"),
            ("a=ptime:20", "  a=ptime:20  "),
        ];
        for (from, to) in table {
            let (text, what) = mended(&good.replace(from, to));
            let parsed = Description::parse(text.as_bytes()).unwrap();
            let [audio] = parsed.medias() else { panic!("{to}: {text}") };
            assert_eq!((audio.port, audio.formats_text), (4000, b"0 8".as_slice()), "{to}");
            let address = parsed.connection_of(audio).unwrap().address;
            assert_eq!(address, Some("192.0.2.1".parse().unwrap()), "{to}");
            assert_eq!(audio.ptime_ms(), Some(20), "{to}");
            assert!(!what.guessed, "{to}");
            let silent = to.starts_with(['\r', '\n', ' ']) || from == "v=0\r\n";
            assert_eq!(what.faults == 0, silent, "{to}: {what:?}");
        }
    }

    #[test]
    fn a_stream_that_cannot_be_read_keeps_its_place() {
        for line in ["m=", "m=audio", "m=audio 99999 RTP/AVP 0", "m=\u{7} 4 RTP/AVP 0", "m=x 4 y"] {
            let (text, what) = mended(&format!("{HEAD}{ADDRESS}{line}\r\n{TAIL}"));
            let parsed = Description::parse(text.as_bytes()).unwrap();
            let ports: Vec<u16> = parsed.medias().iter().map(|media| media.port).collect();
            assert_eq!(ports, [0, 4000], "{line}");
            assert_eq!(what.first, Some(SdpError::Media), "{line}");
        }
        let many = "m=audio 4000 RTP/AVP 0\na=x:1\n".repeat(16);
        let more = "m=video 5000/2 rtp/avp 96 97\na=sendonly\nm=\u{7}\nc=IN IP4 192.0.2.9\n";
        let (text, what) = mended(&format!("{HEAD}{ADDRESS}{many}{more}"));
        assert_eq!(text.matches("m=").count(), SDP_MEDIA_MAX_COUNT);
        assert!(text.ends_with("m=audio 4000 RTP/AVP 0\r\na=x:1\r\n"), "{text}");
        assert_eq!((what.first, what.faults), (Some(SdpError::TooManyMedia), 2));
        let excess = b"m=video 0 RTP/AVP 96 97\r\nm=audio 0 RTP/AVP 0\r\n";
        assert_eq!(what.excess, excess, "their places in the answer");
    }

    #[test]
    fn an_address_is_found_where_there_is_one() {
        let of = |text: &str| {
            let (text, what) = mended(text);
            let parsed = Description::parse(text.as_bytes()).unwrap();
            let address = parsed.connection_of(&parsed.medias()[0]).unwrap().address;
            (address.unwrap().to_string(), what.guessed)
        };
        let said = |text: &str| (text.to_owned(), false);
        assert_eq!(of(&format!("{HEAD}{TAIL}")), said("192.0.2.1"), "that of o=");
        let v6 = format!("{HEAD}c=IN IP4 [2001:db8::9]/127\r\n{TAIL}");
        assert_eq!(of(&v6), said("2001:db8::9"));
        let own = format!("{HEAD}c=what\r\n{TAIL}c=IN IP4 192.0.2.5\r\n");
        assert_eq!(of(&own), said("192.0.2.5"));
        let none = HEAD.replace("192.0.2.1", "host.example");
        assert_eq!(of(&format!("{none}{TAIL}")), (NEAR.to_string(), true));
        assert_eq!(of(&TAIL.replace("t=0 0\r\n", "")), (NEAR.to_string(), true));
        // A refused stream stays as it is, and needs none.
        let refused = format!("{HEAD}m=audio 0/2 rtp/avp 0\r\n");
        assert_eq!(mended(&refused), (refused.clone(), Mended::default()));
        assert!(!mended(&TAIL.replace("4000", "0")).0.contains("c="));
    }

    #[test]
    fn what_is_added_leaves_it_within_its_bounds() {
        for line in ["c=::\n", "m=\n", "a=\r", "x\n"] {
            let (text, what) = mended(&line.repeat(SDP_MAX_BYTES));
            assert!(text.len() <= SDP_MAX_BYTES && what.faults > 0, "{line}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_description_in_the_end(
            octets in prop::collection::vec(any::<u8>(), 0..2_048),
        ) {
            let mut out = Vec::new();
            mend(&octets, NEAR, &mut out);
            prop_assert!(is_whole(&Description::parse(&out).unwrap()));
        }

        #[test]
        fn whatever_lines_come_are_a_description_in_the_end(
            lines in prop::collection::vec(
                prop_oneof![
                    "[vocmatbski]=.{0,40}",
                    "m=[a-z]{0,6} ?[0-9/]{0,7} ?[A-Z/]{0,12}( [0-9]{1,3}){0,3}",
                    "c=(IN )?(IP4 )?[0-9a-f.:/]{0,20}",
                    "o=. [0-9]{1,4} [0-9]{1,4} IN IP[46] [0-9a-z.:]{1,12}",
                    Just("m=".to_owned()),
                    Just("c=::".to_owned()),
                ],
                0..120,
            ),
            end in prop_oneof![Just("\r\n"), Just("\n"), Just("\r")],
        ) {
            let mut out = Vec::new();
            mend(lines.join(end).as_bytes(), NEAR, &mut out);
            let parsed = Description::parse(&out);
            prop_assert!(parsed.is_ok_and(|parsed| is_whole(&parsed)));
        }
    }
}
