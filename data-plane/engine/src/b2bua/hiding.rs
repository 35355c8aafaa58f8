//! What an element of one side goes by, and how it is kept from the other side: hosts, addresses and
//! Call-IDs in header values.

use ravelin_wire::{
    names,
    sip::{HeaderName, Message, NameAddr, tokens},
};
use smallvec::SmallVec;

use super::headers::push_value;

/// Addresses of the side that a message came from, and what stands in their place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hide<'a> {
    /// Hosts as they are written in URIs: the peer's, and our own on that side.
    pub hosts: [&'a [u8]; 2],
    /// Our host on the side that the message goes to.
    pub by: &'a [u8],
    /// Call-ID of the dialog that the message goes to.
    pub call_id: &'a [u8],
}

/// What must not be read on the other side: gathered once per message.
#[derive(Debug)]
pub(crate) struct Veil<'a> {
    /// The Call-ID first, empty if it is no telling one; then hosts.
    names: SmallVec<[&'a [u8]; 8]>,
    hide: Hide<'a>,
}

/// Names of one message that are looked for. More are not: a route of that length is refused
/// elsewhere.
const NAMES_MAX: usize = 24;

/// Shortest Call-ID that is looked for. A shorter one may be any word: `1` stands in every
/// `counter=1`, and to hide it would break the header.
const TELLING_CALL_ID_MIN: usize = 8;

fn is_telling(call_id: &[u8]) -> bool {
    call_id.len() >= TELLING_CALL_ID_MIN
}

impl<'a> Veil<'a> {
    pub(crate) fn of(message: &Message<'a>, hide: Hide<'a>) -> Self {
        let mut veil = Self { names: SmallVec::new(), hide };
        let call_id = message.call_id();
        veil.names.push(if is_telling(call_id) { call_id } else { b"" });
        for host in hide.hosts {
            veil.add(host);
        }
        // What the parser has split already, then what is left.
        veil.add(message.top_via().host);
        veil.add(message.contact().map_or(&[], |contact| contact.host()));
        let more_vias = message.via_count() > 1;
        let mut contacts = 0;
        for header in message.headers() {
            match header.name {
                HeaderName::Via if more_vias => veil.gather(header.name, header.value),
                HeaderName::Contact => {
                    contacts += 1;
                    if contacts > 1 || header.value.contains(&b',') {
                        veil.gather(header.name, header.value);
                    }
                }
                HeaderName::RecordRoute => veil.gather(header.name, header.value),
                _ => {}
            }
        }
        veil
    }

    fn gather(&mut self, name: HeaderName, value: &'a [u8]) {
        for element in tokens(value) {
            let host = match name {
                HeaderName::Via => sent_by(element),
                _ => NameAddr::parse(element).map(|party| party.host()),
            };
            self.add(host.unwrap_or_default());
        }
    }

    /// A single word without a dot or colon is too likely to mean something else.
    fn add(&mut self, host: &'a [u8]) {
        let told = host.iter().any(|b| matches!(b, b'.' | b':'));
        let public = host.eq_ignore_ascii_case(b"anonymous.invalid");
        if told && !public && self.names.len() < NAMES_MAX && !self.names.contains(&host) {
            self.names.push(host);
        }
    }

    /// The hosts, for what has its own way of replacing them.
    pub(crate) fn hosts(&self) -> &[&'a [u8]] {
        self.names.get(1..).unwrap_or_default()
    }

    fn is_inside(&self, host: &[u8]) -> bool {
        is_address(host) || self.hosts().iter().any(|name| name.eq_ignore_ascii_case(host))
    }

    /// Appends a value on one line, with ours in the place of each name of the other side.
    pub(crate) fn push(&self, value: &[u8], out: &mut Vec<u8>) {
        let mut from = 0;
        while let Some(found) = names::find(value, from, &self.names) {
            push_value(value.get(from..found.start).unwrap_or_default(), out);
            out.extend_from_slice(if found.index == 0 { self.hide.call_id } else { self.hide.by });
            from = found.end;
        }
        push_value(value.get(from..).unwrap_or_default(), out);
    }
}

/// Whether a host is a literal address, as URIs have it.
fn is_address(host: &[u8]) -> bool {
    let bare = host.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")).unwrap_or(host);
    std::str::from_utf8(bare).is_ok_and(|text| text.parse::<std::net::IpAddr>().is_ok())
}

/// Host of the sent-by of a Via value.
fn sent_by(via: &[u8]) -> Option<&[u8]> {
    let rest = via.trim_ascii();
    let at = rest.iter().position(u8::is_ascii_whitespace)?;
    let rest = rest.get(at..)?.trim_ascii_start();
    let end = rest.iter().position(|b| matches!(b, b';' | b' ' | b'\t')).unwrap_or(rest.len());
    let host_port = rest.get(..end)?;
    match host_port.first() {
        Some(b'[') => {
            let close = host_port.iter().position(|&b| b == b']')?;
            host_port.get(..=close)
        }
        _ => host_port.split(|&b| b == b':').next(),
    }
}

/// Whether a value of Call-Info or the like may be read on the other side.
pub(super) fn points_elsewhere(value: &[u8], veil: &Veil<'_>) -> bool {
    let Some(party) = NameAddr::parse(value) else { return false };
    let scheme = party.uri.split(|&b| b == b':').next().unwrap_or_default();
    let within = [&b"cid"[..], b"urn", b"data"].iter().any(|own| own.eq_ignore_ascii_case(scheme));
    let purpose = party.param(b"purpose").unwrap_or_default();
    let purpose = purpose.strip_prefix(b"\"").unwrap_or(purpose);
    let emergency = [&b"EmergencyCallData"[..], b"emergency-", b"nena-"]
        .iter()
        .any(|kind| purpose.get(..kind.len()).is_some_and(|p| p.eq_ignore_ascii_case(kind)));
    if within || emergency {
        return true;
    }
    // scheme://user@host:port/path, or scheme:user@host.
    let rest = party.uri.get(scheme.len() + 1..).unwrap_or_default();
    let rest = rest.strip_prefix(b"//").unwrap_or(rest);
    let end =
        rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#' | b';')).unwrap_or(rest.len());
    let authority = rest.get(..end).unwrap_or_default();
    let host = authority.rsplit(|&b| b == b'@').next().unwrap_or_default();
    let host = match host.iter().position(|&b| b == b']') {
        Some(close) => host.get(..=close).unwrap_or_default(),
        None => host.split(|&b| b == b':').next().unwrap_or_default(),
    };
    !veil.is_inside(host) && names::find(party.uri, 0, &veil.names).is_none()
}

/// Appends a value with hidden hosts, and without a `verstat` parameter.
pub(crate) fn write_hidden(value: &[u8], veil: &Veil<'_>, out: &mut Vec<u8>) {
    // A Call-ID may have a host in it: it goes first, and whole.
    let call_id = veil.names.get(..1).unwrap_or_default();
    if names::find(value, 0, call_id).is_none() {
        return write_hosts_hidden(value, veil, out);
    }
    let mut own = Vec::with_capacity(value.len());
    let mut from = 0;
    while let Some(found) = names::find(value, from, call_id) {
        own.extend_from_slice(value.get(from..found.start).unwrap_or_default());
        own.extend_from_slice(veil.hide.call_id);
        from = found.end;
    }
    own.extend_from_slice(value.get(from..).unwrap_or_default());
    write_hosts_hidden(&own, veil, out);
}

fn write_hosts_hidden(value: &[u8], veil: &Veil<'_>, out: &mut Vec<u8>) {
    let mut copied = 0;
    let mut at = 0;
    while let Some(rest) = value.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(found) = rest.iter().position(|b| matches!(b, b'@' | b';' | b':')) else { break };
        let mark = at + found;
        let tail = value.get(mark..).unwrap_or_default();
        at = mark + 1;
        if tail.first() == Some(&b';') {
            if let Some(length) = verstat_length(tail) {
                veil.push(value.get(copied..mark).unwrap_or_default(), out);
                copied = mark + length;
                at = copied;
            }
            continue;
        }
        // A host stands behind `@`, or behind the scheme if there is no user.
        let after = tail.get(1..).unwrap_or_default();
        let scheme = value.get(copied..mark).unwrap_or_default();
        if tail.first() == Some(&b':') && !ends_in_sip(scheme) {
            continue;
        }
        let length = host_length(after);
        let host = after.get(..length).unwrap_or_default();
        let whole = after.get(length).is_none_or(|&b| ends_host(b));
        if length == 0 || !whole || !veil.is_inside(host) {
            continue;
        }
        veil.push(value.get(copied..at).unwrap_or_default(), out);
        out.extend_from_slice(veil.hide.by);
        let port = match after.get(length..).unwrap_or_default().split_first() {
            Some((b':', digits)) => {
                1 + digits.iter().take_while(|digit| digit.is_ascii_digit()).count()
            }
            _ => 0,
        };
        copied = at + length + port;
        at = copied;
    }
    veil.push(value.get(copied..).unwrap_or_default(), out);
}

/// Octets of a `;verstat=...` that `text` begins with.
fn verstat_length(text: &[u8]) -> Option<usize> {
    const VERSTAT: &[u8] = b";verstat=";
    let is = text.get(..VERSTAT.len())?.eq_ignore_ascii_case(VERSTAT);
    let end = text
        .iter()
        .skip(1)
        .position(|&b| matches!(b, b';' | b'@' | b'>' | b'?' | b',') || b <= b' ')
        .map_or(text.len(), |end| end + 1);
    is.then_some(end)
}

/// Octets of the host that `text` begins with, brackets of an IPv6 address included.
fn host_length(text: &[u8]) -> usize {
    if text.first() == Some(&b'[') {
        return text.iter().position(|&b| b == b']').map_or(0, |close| close + 1);
    }
    text.iter().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')).count()
}

/// Whether `text` ends in the scheme of a SIP URI.
fn ends_in_sip(text: &[u8]) -> bool {
    let tail = |length: usize| text.len().checked_sub(length).and_then(|at| text.get(at..));
    tail(3).is_some_and(|end| end.eq_ignore_ascii_case(b"sip"))
        || tail(4).is_some_and(|end| end.eq_ignore_ascii_case(b"sips"))
}

const fn ends_host(byte: u8) -> bool {
    matches!(byte, b':' | b';' | b'>' | b'?' | b',' | b'"') || byte <= b' '
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ravelin_wire::sip::Framing;

    use super::*;

    const HIDE: Hide<'static> =
        Hide { hosts: [b"192.0.2.1", b"198.51.100.9"], by: b"203.0.113.5", call_id: b"ours" };

    fn veil() -> Veil<'static> {
        let mut veil = Veil { names: SmallVec::new(), hide: HIDE };
        veil.names.push(b"c@192.0.2.1");
        for host in [HIDE.hosts[0], HIDE.hosts[1], b"pbx.inside.example", b"short"] {
            veil.add(host);
        }
        veil
    }

    fn hidden(value: &str) -> String {
        let mut out = Vec::new();
        write_hidden(value.as_bytes(), &veil(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn addresses_of_the_other_side_become_ours_and_names_stay() {
        assert_eq!(
            hidden("\"A\" <sip:+1313@192.0.2.1:5060;user=phone>, <tel:+1313>"),
            "\"A\" <sip:+1313@203.0.113.5;user=phone>, <tel:+1313>"
        );
        assert_eq!(
            hidden("<sip:a@PBX.inside.example;x>, <sip:b@[2001:db8::1]:5061>"),
            "<sip:a@203.0.113.5;x>, <sip:b@203.0.113.5>"
        );
        assert_eq!(hidden("<sip:10.0.0.7;lr>;index=1"), "<sip:203.0.113.5;lr>;index=1");
        // Any address, known or not: an address is a machine's.
        assert_eq!(hidden("<sip:a@192.0.2.11>"), "<sip:a@203.0.113.5>");
        assert_eq!(hidden("<sip:a@h?Call-ID=c@192.0.2.1>"), "<sip:a@h?Call-ID=ours>");
        assert_eq!(
            hidden("<sip:+1;phone-context=a.b@x.example>"),
            "<sip:+1;phone-context=a.b@x.example>"
        );
        assert_eq!(hidden("<sip:a@example.com>;reason=x"), "<sip:a@example.com>;reason=x");
        assert_eq!(hidden("sip:a@198.51.100.9"), "sip:a@203.0.113.5");
    }

    #[test]
    fn an_upstream_verstat_is_stripped() {
        // ST-64
        assert_eq!(
            hidden("<sip:+1313;verstat=TN-Validation-Passed@example.com;user=phone>"),
            "<sip:+1313@example.com;user=phone>"
        );
        assert_eq!(hidden("<tel:+1313;Verstat=No-TN-Validation>"), "<tel:+1313>");
        assert_eq!(hidden("<tel:+1;verstat=x;verstat=y;cpc=z>"), "<tel:+1;cpc=z>");
    }

    /// `1` is no name of a call but a digit of everything.
    #[test]
    fn a_call_id_that_may_be_any_word_is_not_looked_for() {
        for (call_id, found) in [("1", false), ("counter", false), ("3848276298220188511", true)] {
            let text = format!(
                "INVITE sip:1@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nFrom: <sip:a@h>;tag=1\r\n\
                 To: <sip:1@h>\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n\r\n"
            );
            let message = Message::parse(text.as_bytes(), Framing::Datagram).unwrap();
            let mut out = Vec::new();
            let value = format!("<sip:a@example.com>;counter=1;x={call_id}");
            write_hidden(value.as_bytes(), &Veil::of(&message, HIDE), &mut out);
            let x = if found { "ours" } else { call_id };
            let expected = format!("<sip:a@example.com>;counter=1;x={x}");
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    /// As many as a message can hold, at the cost of one pass.
    #[test]
    fn a_value_full_of_call_ids_is_hidden_in_one_pass() {
        let value = "c@192.0.2.1;".repeat(5_000);
        assert_eq!(hidden(&value), "ours;".repeat(5_000));
    }

    proptest! {
        /// Whatever stands in a value, one line goes out, and a second pass changes nothing.
        #[test]
        fn a_value_stays_one_line(value in prop::collection::vec(prop_oneof![
            Just(b'@'), Just(b';'), Just(b'\r'), Just(b'\n'), Just(b'>'), any::<u8>()], 0..80)) {
            let mut once = Vec::new();
            write_hidden(&value, &veil(), &mut once);
            prop_assert!(!once.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
        }
    }
}
