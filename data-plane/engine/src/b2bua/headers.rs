//! What becomes of each header on its way from one leg to the other.
//!
//! | Treatment | Headers |
//! |---|---|
//! | own | Via, From, To, Call-ID, CSeq, Contact, Max-Forwards, Route, Record-Route, Content-Length: made anew per leg |
//! | body | Content-Type and the other headers that describe the body: go with it |
//! | filtered | Supported, Require, Unsupported, Allow: only what works through Ravelin stays |
//! | hidden | P-Asserted-Identity, Diversion, History-Info and the like: pass, but a host that is an address of the other side becomes our own; an upstream `verstat` goes (ST-64) |
//! | rewritten | Warning: its agent becomes `ravelin` |
//! | dropped | what names an element, a dialog, a credential or a charging point of the other side |
//! | copied | all others, unknown ones included, line by line, in order (EM-29, ST-32) |

use ravelin_wire::sip::{HeaderName, Message, Warning, tokens};

/// Extensions (option tags) that work through Ravelin without its help.
const OPTIONS_PASSED: &[&[u8]] = &[
    b"timer",
    b"histinfo",
    b"geolocation-sip",
    b"geolocation-http",
    b"resource-priority",
    b"answermode",
    b"from-change",
    b"uui",
];

/// Methods that Ravelin takes, as an Allow value.
pub(crate) const ALLOW: &[u8] = b"INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, MESSAGE";

/// What is done with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    Own,
    Body,
    OptionTags,
    Methods,
    Hidden,
    Warning,
    Dropped,
    Copied,
}

/// Decides by name. `raw` is the name as on the wire, for those that have no [`HeaderName`].
pub(crate) fn treatment(name: HeaderName, raw: &[u8]) -> Treatment {
    use HeaderName as H;
    match name {
        H::Via
        | H::From
        | H::To
        | H::CallId
        | H::CSeq
        | H::Contact
        | H::MaxForwards
        | H::Route
        | H::RecordRoute
        | H::ContentLength => Treatment::Own,
        H::ContentType
        | H::ContentDisposition
        | H::ContentEncoding
        | H::ContentLanguage
        | H::ContentId
        | H::MimeVersion => Treatment::Body,
        H::Supported | H::Require | H::Unsupported => Treatment::OptionTags,
        H::Allow => Treatment::Methods,
        H::PAssertedIdentity
        | H::PPreferredIdentity
        | H::Diversion
        | H::HistoryInfo
        | H::ReferredBy
        | H::ReplyTo => Treatment::Hidden,
        H::Warning => Treatment::Warning,
        H::AuthenticationInfo
        | H::Authorization
        | H::ProxyAuthenticate
        | H::ProxyAuthorization
        | H::WwwAuthenticate
        | H::ProxyRequire
        | H::InReplyTo
        | H::Join
        | H::Replaces
        | H::RAck
        | H::RSeq
        | H::Path
        | H::ServiceRoute
        | H::PChargingVector
        | H::Server
        | H::UserAgent
        | H::Timestamp => Treatment::Dropped,
        H::Other => other(raw),
        _ => Treatment::Copied,
    }
}

/// Extension headers that are not copied: they name elements of the other side's network, or claim
/// a verification that only a trusted peer may claim (ST-66).
fn other(raw: &[u8]) -> Treatment {
    const HIDDEN: &[&[u8]] = &[b"Remote-Party-ID"];
    const DROPPED: &[&[u8]] = &[
        b"Target-Dialog",
        b"P-Charging-Function-Addresses",
        b"P-Visited-Network-ID",
        b"P-Associated-URI",
        b"P-Served-User",
        b"Security-Client",
        b"Security-Server",
        b"Security-Verify",
        b"Flow-Timer",
        b"P-Attestation-Indicator",
        b"Attestation-Info",
        b"Origination-Id",
    ];
    let is = |list: &[&[u8]]| list.iter().any(|name| name.eq_ignore_ascii_case(raw));
    match raw.first() {
        Some(b'P' | b'p' | b'T' | b't' | b'S' | b's' | b'F' | b'f' | b'A' | b'a' | b'O' | b'o')
            if is(DROPPED) =>
        {
            Treatment::Dropped
        }
        Some(b'R' | b'r') if is(HIDDEN) => Treatment::Hidden,
        _ => Treatment::Copied,
    }
}

/// Addresses of the side that a message came from, and what stands in their place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hide<'a> {
    /// Hosts as they are written in URIs: the peer's, and our own on that side.
    pub hosts: [&'a [u8]; 2],
    /// Our host on the side that the message goes to.
    pub by: &'a [u8],
}

/// Headers that do not pass besides those of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skip {
    /// Privacy is overridden toward the PSAP (EM-57), Require is ignored (EM-55).
    pub emergency: bool,
    /// Asserted identities give way to the callback number.
    pub identities: bool,
}

impl Skip {
    fn skips(self, name: HeaderName) -> bool {
        match name {
            HeaderName::Privacy | HeaderName::Require => self.emergency,
            HeaderName::PAssertedIdentity | HeaderName::PPreferredIdentity => self.identities,
            _ => false,
        }
    }
}

/// Appends the headers of `message` that go to the other leg, each line complete. Body headers are
/// written by whoever writes the body.
pub(crate) fn write_passed(message: &Message<'_>, hide: Hide<'_>, out: &mut Vec<u8>) {
    write_passed_except(message, hide, Skip::default(), out);
}

/// As [`write_passed`], without what `skip` names.
pub(crate) fn write_passed_except(
    message: &Message<'_>,
    hide: Hide<'_>,
    skip: Skip,
    out: &mut Vec<u8>,
) {
    for header in message.headers() {
        let raw = header.raw_name;
        if skip.skips(header.name) {
            continue;
        }
        match treatment(header.name, raw) {
            Treatment::Copied => write_line(raw, header.value, out),
            Treatment::Hidden => {
                write_name(raw, out);
                write_hidden(header.value, hide, out);
                out.extend_from_slice(b"\r\n");
            }
            Treatment::OptionTags => {
                write_list(raw, header.value, out, passes);
            }
            Treatment::Methods => {
                write_list(raw, header.value, out, |method| {
                    tokens(ALLOW).any(|ours| ours == method)
                });
            }
            Treatment::Warning => write_warning(raw, header.value, out),
            Treatment::Own | Treatment::Body | Treatment::Dropped => {}
        }
    }
}

/// Appends the headers that describe the body, except Content-Length.
pub(crate) fn write_body_headers(message: &Message<'_>, out: &mut Vec<u8>) {
    for header in message.headers() {
        if treatment(header.name, header.raw_name) == Treatment::Body {
            write_line(header.raw_name, header.value, out);
        }
    }
}

/// Whether an extension works through Ravelin.
pub(crate) fn passes(option_tag: &[u8]) -> bool {
    OPTIONS_PASSED.iter().any(|known| known.eq_ignore_ascii_case(option_tag))
}

/// Appends the option tags of `Require` that Ravelin cannot honour, comma-separated. Empty: all
/// can be honoured. `Proxy-Require` counts as well: in front of the peer we are its proxy.
pub(crate) fn write_unsupported(message: &Message<'_>, out: &mut Vec<u8>) {
    for name in [HeaderName::Require, HeaderName::ProxyRequire] {
        for tag in message.values(name) {
            if !passes(tag) || name == HeaderName::ProxyRequire {
                if !out.is_empty() {
                    out.extend_from_slice(b", ");
                }
                push_value(tag, out);
            }
        }
    }
}

fn write_name(name: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
}

/// Appends one header line.
pub(crate) fn write_line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    write_name(name, out);
    push_value(value, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a value on one line: a fold becomes a blank, a stray CR, LF or NUL goes. What a parser
/// behind us reads cannot have more lines than what we read.
pub(crate) fn push_value(value: &[u8], out: &mut Vec<u8>) {
    let breaks = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
    if !value.iter().any(breaks) {
        out.extend_from_slice(value);
        return;
    }
    for (index, piece) in value.split(breaks).filter(|p| !p.is_empty()).enumerate() {
        let piece = if index == 0 { piece } else { piece.trim_ascii_start() };
        if index != 0 && !piece.is_empty() {
            out.push(b' ');
        }
        out.extend_from_slice(piece);
    }
}

fn write_list(name: &[u8], value: &[u8], out: &mut Vec<u8>, keep: impl Fn(&[u8]) -> bool) {
    let mut any = false;
    for token in tokens(value).filter(|token| keep(token)) {
        if any {
            out.extend_from_slice(b", ");
        } else {
            write_name(name, out);
            any = true;
        }
        push_value(token, out);
    }
    if any {
        out.extend_from_slice(b"\r\n");
    }
}

fn write_warning(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    for warning in tokens(value).filter_map(Warning::parse) {
        write_name(name, out);
        push_number(u64::from(warning.code), out);
        out.extend_from_slice(b" ravelin ");
        push_value(warning.text, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a value with hidden hosts, and without a `verstat` parameter.
pub(crate) fn write_hidden(value: &[u8], hide: Hide<'_>, out: &mut Vec<u8>) {
    const VERSTAT: &[u8] = b";verstat=";
    let mut copied = 0;
    let mut at = 0;
    while let Some(rest) = value.get(at..).filter(|rest| !rest.is_empty()) {
        let step = rest.iter().position(|&b| b == b'@' || b == b';');
        let Some(found) = step else { break };
        let mark = at + found;
        let tail = value.get(mark..).unwrap_or_default();
        at = mark + 1;
        if tail.first() == Some(&b';') {
            if tail.get(..VERSTAT.len()).is_some_and(|head| head.eq_ignore_ascii_case(VERSTAT)) {
                push_value(value.get(copied..mark).unwrap_or_default(), out);
                let gone = tail
                    .iter()
                    .skip(1)
                    .position(|&b| matches!(b, b';' | b'@' | b'>' | b'?' | b',') || b <= b' ')
                    .map_or(tail.len(), |end| end + 1);
                copied = mark + gone;
                at = copied;
            }
            continue;
        }
        let after = tail.get(1..).unwrap_or_default();
        let hit = hide.hosts.iter().find(|host| {
            !host.is_empty()
                && after.get(..host.len()).is_some_and(|head| head.eq_ignore_ascii_case(host))
                && after.get(host.len()).is_none_or(|&b| ends_host(b))
        });
        if let Some(host) = hit {
            push_value(value.get(copied..at).unwrap_or_default(), out);
            out.extend_from_slice(hide.by);
            let behind = after.get(host.len()..).unwrap_or_default();
            let port = match behind.split_first() {
                Some((b':', digits)) => {
                    1 + digits.iter().take_while(|digit| digit.is_ascii_digit()).count()
                }
                _ => 0,
            };
            copied = at + host.len() + port;
            at = copied;
        }
    }
    push_value(value.get(copied..).unwrap_or_default(), out);
}

const fn ends_host(byte: u8) -> bool {
    matches!(byte, b':' | b';' | b'>' | b'?' | b',' | b'"') || byte <= b' '
}

/// Appends a number in decimal.
pub(crate) fn push_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + u8::try_from(number % 10).unwrap_or(0);
        used += 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(20 - used..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ravelin_wire::sip::Framing;

    use super::*;

    const HIDE: Hide<'static> = Hide { hosts: [b"192.0.2.1", b"198.51.100.9"], by: b"203.0.113.5" };

    fn hidden(value: &str) -> String {
        let mut out = Vec::new();
        write_hidden(value.as_bytes(), HIDE, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn passed(headers: &str) -> String {
        let message = format!(
            "INVITE sip:1@198.51.100.9 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n\
             From: <sip:a@192.0.2.1>;tag=1\r\nTo: <sip:1@198.51.100.9>\r\nCall-ID: c@192.0.2.1\r\n\
             CSeq: 1 INVITE\r\nContact: <sip:a@192.0.2.1>\r\nMax-Forwards: 70\r\n{headers}\
             Content-Length: 0\r\n\r\n"
        );
        let parsed = Message::parse(message.as_bytes(), Framing::Datagram).unwrap();
        let mut out = Vec::new();
        write_passed(&parsed, HIDE, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn addresses_of_the_other_side_become_ours_and_names_stay() {
        assert_eq!(
            hidden("\"A\" <sip:+1313@192.0.2.1:5060;user=phone>, <tel:+1313>"),
            "\"A\" <sip:+1313@203.0.113.5;user=phone>, <tel:+1313>"
        );
        assert_eq!(hidden("<sip:a@192.0.2.11>"), "<sip:a@192.0.2.11>");
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

    #[test]
    fn what_must_pass_passes_in_order_and_unchanged() {
        let lines = "P-Asserted-Identity: \"Ann\" <sip:+13135550100@example.com>\r\n\
            Privacy: id\r\nDiversion: <sip:1@example.org>;reason=unknown\r\n\
            History-Info: <sip:2@example.org>;index=1\r\nReason: Q.850;cause=16;text=\"x\"\r\n\
            Identity: aa.bb.cc;info=<https://c.example/a.pem>;alg=ES256;ppt=shaken\r\n\
            y: dd.ee.ff;info=<https://c.example/b.pem>\r\n\
            Geolocation: <cid:a@192.0.2.1>, <https://l.example/x>\r\nGeolocation-Routing: no\r\n\
            Call-Info: <urn:emergency:uid:callid:a:b>;purpose=emergency-CallId\r\n\
            Priority: urgent\r\nSubject: hi\r\nDate: Sat, 13 Nov 2010 23:29:00 GMT\r\n\
            X-Extension: a, b;c\r\nSession-Expires: 1800;refresher=uac\r\nMin-SE: 90\r\n";
        assert_eq!(passed(lines), lines);
    }

    #[test]
    fn what_names_the_other_side_is_dropped_or_rewritten() {
        let out = passed(
            "Record-Route: <sip:192.0.2.7;lr>\r\nRoute: <sip:198.51.100.9;lr>\r\n\
             User-Agent: pbx 1\r\nServer: pbx\r\nReplaces: abc;to-tag=1;from-tag=2\r\n\
             Authorization: Digest username=\"a\"\r\nP-Charging-Vector: icid-value=1\r\n\
             p-visited-network-id: inner\r\nOrigination-Id: 1\r\n\
             Warning: 301 192.0.2.1 \"no\", 399 pbx.inner \"a, b\"\r\n",
        );
        assert_eq!(out, "Warning: 301 ravelin \"no\"\r\nWarning: 399 ravelin \"a, b\"\r\n");
    }

    #[test]
    fn only_what_works_is_announced() {
        let out = passed(
            "Supported: 100rel, timer, replaces\r\nk: outbound\r\n\
             Allow: INVITE, PRACK, ACK, BYE, REFER, UPDATE\r\nRequire: histinfo\r\n",
        );
        assert_eq!(
            out,
            "Supported: timer\r\nAllow: INVITE, ACK, BYE, UPDATE\r\nRequire: histinfo\r\n"
        );
    }

    proptest! {
        /// Whatever stands in a value, one line goes out, and a second pass changes nothing.
        #[test]
        fn a_value_stays_one_line(value in prop::collection::vec(prop_oneof![
            Just(b'@'), Just(b';'), Just(b'\r'), Just(b'\n'), Just(b'>'), any::<u8>()], 0..80)) {
            let mut once = Vec::new();
            write_hidden(&value, HIDE, &mut once);
            prop_assert!(!once.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
        }

        #[test]
        fn numbers_are_decimal(number: u64) {
            let mut out = Vec::new();
            push_number(number, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
