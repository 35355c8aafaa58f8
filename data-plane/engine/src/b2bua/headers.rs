//! What becomes of each header on its way from one leg to the other.
//!
//! | Treatment | Headers |
//! |---|---|
//! | own | Via, From, To, Call-ID, CSeq, Contact, Max-Forwards, Route, Record-Route, Content-Length: made anew per leg |
//! | body | Content-Type and the other headers that describe the body: go with it |
//! | filtered | Supported, Require, Unsupported, Allow: only what works through Ravelin stays |
//! | hidden | P-Asserted-Identity, Diversion, History-Info and the like: pass, but a host that is an IP address, or a name that an element of the other side goes by, becomes our own; an upstream `verstat` goes (ST-64) |
//! | rewritten | Warning: its agent becomes `ravelin` |
//! | pointers | Call-Info, Alert-Info, Error-Info: pass value by value, except those that point into the other side's network; `cid:`, `urn:` and what serves emergency calls always pass (EM-29, EM-46) |
//! | sealed | Identity, Geolocation, Geolocation-Routing: octet for octet (EM-29, ST-32) |
//! | dropped | what names an element, a dialog, a credential or a charging point of the other side |
//! | copied | all others, unknown ones included, line by line, in order; where a host or Call-ID of the other side stands in them, ours takes its place |
//!
//! What an element of the other side goes by: its packets' source, our own address there, the hosts
//! of Via, Contact and Record-Route, and the Call-ID.

use ravelin_wire::sip::{HeaderName, Message, Warning, is_one_line, tokens};

use super::{
    hiding::{Hide, Veil, points_elsewhere, write_hidden},
    verstat,
};

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
    Pointers,
    Sealed,
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
        H::CallInfo | H::AlertInfo | H::ErrorInfo => Treatment::Pointers,
        H::Identity | H::Geolocation | H::GeolocationRouting => Treatment::Sealed,
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

/// Headers that do not pass besides those of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skip {
    /// Privacy is overridden toward the PSAP (EM-57), Require is ignored (EM-55).
    pub emergency: bool,
    /// Asserted identities give way to the callback number.
    pub identities: bool,
    /// Of these the one with this index gets a `verstat` with this value (ST-64).
    pub verstat: Option<(usize, &'static str)>,
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
    let mut veil = None;
    // Values of P-Asserted-Identity so far.
    let mut asserted = 0;
    for header in message.headers() {
        let raw = header.raw_name;
        if skip.skips(header.name) {
            continue;
        }
        match treatment(header.name, raw) {
            Treatment::Sealed => write_line(raw, header.value, out),
            Treatment::Copied => {
                write_name(raw, out);
                veil.get_or_insert_with(|| Veil::of(message, hide)).push(header.value, out);
                out.extend_from_slice(b"\r\n");
            }
            Treatment::Hidden if marks(header.name, skip) => {
                let veil = veil.get_or_insert_with(|| Veil::of(message, hide));
                for value in tokens(header.value) {
                    let mut hidden = Vec::new();
                    write_hidden(value, veil, &mut hidden);
                    write_name(raw, out);
                    match skip.verstat.filter(|(index, _)| *index == asserted) {
                        Some((_, outcome)) => verstat::insert(&hidden, outcome, out),
                        None => out.extend_from_slice(&hidden),
                    }
                    out.extend_from_slice(b"\r\n");
                    asserted += 1;
                }
            }
            Treatment::Hidden => {
                write_name(raw, out);
                let veil = veil.get_or_insert_with(|| Veil::of(message, hide));
                write_hidden(header.value, veil, out);
                out.extend_from_slice(b"\r\n");
            }
            Treatment::Pointers => {
                let veil = veil.get_or_insert_with(|| Veil::of(message, hide));
                write_list(raw, header.value, out, |value| points_elsewhere(value, veil));
            }
            Treatment::OptionTags => {
                write_list(raw, header.value, out, passes);
            }
            Treatment::Methods => {
                write_list(raw, header.value, out, |method| {
                    tokens(ALLOW).any(|ours| ours == method)
                });
            }
            Treatment::Warning => {
                let veil = veil.get_or_insert_with(|| Veil::of(message, hide));
                write_warning(raw, header.value, veil, out);
            }
            Treatment::Own | Treatment::Body | Treatment::Dropped => {}
        }
    }
}

/// Whether one of the values of a header gets a `verstat`.
fn marks(name: HeaderName, skip: Skip) -> bool {
    name == HeaderName::PAssertedIdentity && skip.verstat.is_some()
}

/// Appends the headers that describe the body, except Content-Length. A body that came without a
/// type is a session description: only those pass.
pub(crate) fn write_body_headers(message: &Message<'_>, out: &mut Vec<u8>) {
    if message.content().is_none() {
        write_line(b"Content-Type", b"application/sdp", out);
    }
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
    if is_one_line(value) {
        out.extend_from_slice(value);
        return;
    }
    let breaks = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
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

fn write_warning(name: &[u8], value: &[u8], veil: &Veil<'_>, out: &mut Vec<u8>) {
    for warning in tokens(value).filter_map(Warning::parse) {
        write_name(name, out);
        push_number(u64::from(warning.code), out);
        out.extend_from_slice(b" ravelin ");
        veil.push(warning.text, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a number in decimal.
pub(crate) fn push_number(mut number: u64, out: &mut Vec<u8>) {
    // Most have one, two or three digits: CSeq, octets of addresses, status codes.
    if let Ok(small) = u16::try_from(number)
        && small < 1_000
    {
        let digit = |value: u16| b'0' + u8::try_from(value % 10).unwrap_or(0);
        if small >= 100 {
            out.push(digit(small / 100));
        }
        if small >= 10 {
            out.push(digit(small / 10));
        }
        out.push(digit(small));
        return;
    }
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

    const HIDE: Hide<'static> =
        Hide { hosts: [b"192.0.2.1", b"198.51.100.9"], by: b"203.0.113.5", call_id: b"ours" };

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

    /// features 1, row 7.
    #[test]
    fn what_is_copied_names_no_host_and_no_call_id_of_the_other_side() {
        let out = passed(
            "Via: SIP/2.0/UDP pbx.inside.example:5060;branch=z9hG4bKy\r\n\
             Reason: SIP;cause=486;text=\"from PBX.inside.example, 192.0.2.1\"\r\n\
             X-Correlation: c@192.0.2.1;at=pbx.inside.example:5060\r\nX-Version: 192.0.2.10\r\n\
             Warning: 399 pbx \"ask 192.0.2.1\"\r\n",
        );
        assert_eq!(
            out,
            "Reason: SIP;cause=486;text=\"from 203.0.113.5, 203.0.113.5\"\r\n\
             X-Correlation: ours;at=203.0.113.5:5060\r\nX-Version: 192.0.2.10\r\n\
             Warning: 399 ravelin \"ask 203.0.113.5\"\r\n"
        );
    }

    #[test]
    fn a_pointer_into_the_other_network_does_not_pass() {
        let out = passed(
            "Via: SIP/2.0/UDP pbx.inside.example;branch=z9hG4bKy\r\n\
             Call-Info: <http://pbx.inside.example/ann.png>;purpose=icon, \
             <https://cards.example.org/ann>;purpose=card, <http://10.1.1.1:8080/x>;purpose=info\r\n\
             Alert-Info: <http://192.0.2.1/ring.wav>\r\nAlert-Info: <urn:alert:service:normal>\r\n\
             Call-Info: <cid:a@192.0.2.1>;purpose=EmergencyCallData.ProviderInfo\r\n\
             Call-Info: <https://192.0.2.1/s>;purpose=\"EmergencyCallData.SubscriberInfo\"\r\n",
        );
        assert_eq!(
            out,
            "Call-Info: <https://cards.example.org/ann>;purpose=card\r\n\
             Alert-Info: <urn:alert:service:normal>\r\n\
             Call-Info: <cid:a@192.0.2.1>;purpose=EmergencyCallData.ProviderInfo\r\n\
             Call-Info: <https://192.0.2.1/s>;purpose=\"EmergencyCallData.SubscriberInfo\"\r\n"
        );
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
        #[test]
        fn numbers_are_decimal(number: u64) {
            let mut out = Vec::new();
            push_number(number, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
