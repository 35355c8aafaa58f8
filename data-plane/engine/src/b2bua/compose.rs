//! Writes the requests and responses of the B2BUA. Everything that names a side is that side's own:
//! Via, Contact, tags, Call-ID (features 1, row 7).

use std::net::SocketAddr;

use ravelin_policy::{RealmId, Snapshot, Transport};
use ravelin_wire::sip::{HeaderName, Message, NameAddr, Scheme, Uri};

use super::{
    headers::{push_number, push_value},
    hiding::Veil,
};
use crate::ids::BranchText;

/// What a listener looks like in messages, written once per snapshot.
#[derive(Clone, Debug)]
pub(crate) struct ListenerText {
    pub realm: RealmId,
    pub bind: SocketAddr,
    /// Address without port, IPv6 in brackets.
    pub host: Vec<u8>,
    /// `Via: SIP/2.0/UDP host:port;branch=`.
    via: Vec<u8>,
    /// `host:port`, with `;transport=` unless it is UDP.
    contact: Vec<u8>,
}

impl ListenerText {
    /// The texts of every listener of a snapshot, by index.
    pub(crate) fn all(snapshot: &Snapshot) -> Vec<Self> {
        snapshot
            .listeners
            .iter()
            .map(|listener| {
                let host = host_text(listener.advertise);
                let transport = match listener.transport {
                    Transport::Udp => "UDP",
                    Transport::Tcp => "TCP",
                    Transport::Tls => "TLS",
                };
                let port = listener.advertise.port();
                let host_text = String::from_utf8_lossy(&host);
                let via =
                    format!("Via: SIP/2.0/{transport} {host_text}:{port};branch=").into_bytes();
                let contact = match listener.transport {
                    Transport::Udp => format!("{host_text}:{port}"),
                    Transport::Tcp => format!("{host_text}:{port};transport=tcp"),
                    Transport::Tls => format!("{host_text}:{port};transport=tls"),
                }
                .into_bytes();
                Self { realm: listener.realm, bind: listener.bind, host, via, contact }
            })
            .collect()
    }

    /// `Contact` line with the user part that this side knows us by.
    pub(crate) fn write_contact(&self, user: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"Contact: <sip:");
        if !user.is_empty() {
            out.extend_from_slice(user);
            out.push(b'@');
        }
        out.extend_from_slice(&self.contact);
        out.extend_from_slice(b">\r\n");
    }

    /// Request line, Via and Max-Forwards.
    pub(crate) fn write_request(
        &self,
        method: &[u8],
        uri: &[u8],
        branch: &BranchText,
        max_forwards: u8,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(method);
        out.push(b' ');
        out.extend_from_slice(uri);
        out.extend_from_slice(b" SIP/2.0\r\n");
        out.extend_from_slice(&self.via);
        out.extend_from_slice(branch);
        out.extend_from_slice(b";rport\r\nMax-Forwards: ");
        push_number(u64::from(max_forwards), out);
        out.extend_from_slice(b"\r\n");
    }
}

/// An address without port, IPv6 in brackets.
pub(crate) fn host_text(address: SocketAddr) -> Vec<u8> {
    let mut text = Vec::with_capacity(24);
    push_host(address, &mut text);
    text
}

/// Appends an address without port, IPv6 in brackets.
pub(crate) fn push_host(address: SocketAddr, out: &mut Vec<u8>) {
    match address {
        SocketAddr::V4(v4) => {
            for (index, octet) in v4.ip().octets().into_iter().enumerate() {
                if index != 0 {
                    out.push(b'.');
                }
                push_number(u64::from(octet), out);
            }
        }
        SocketAddr::V6(v6) => out.extend_from_slice(format!("[{}]", v6.ip()).as_bytes()),
    }
}

/// Appends `address:port`.
pub(crate) fn push_address(address: SocketAddr, out: &mut Vec<u8>) {
    push_host(address, out);
    out.push(b':');
    push_number(u64::from(address.port()), out);
}

/// `Content-Length: 0` and the end of the headers.
pub(crate) fn write_no_body(out: &mut Vec<u8>) {
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}

/// Content-Length, the end of the headers, the body.
pub(crate) fn write_content(body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"Content-Length: ");
    push_number(body.len() as u64, out);
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

/// `Record-Route` lines of a request, for the responses that make its dialog (RFC 3261 12.1.1).
pub(crate) fn write_record_routes(request: &Message<'_>, out: &mut Vec<u8>) {
    for header in request.headers().filter(|header| header.name == HeaderName::RecordRoute) {
        out.extend_from_slice(b"Record-Route: ");
        push_value(header.value, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// URI parameters that mean nothing, or too much, on the other side.
fn param_passes(name: &[u8]) -> bool {
    const DROPPED: &[&[u8]] = &[
        b"transport",
        b"maddr",
        b"ttl",
        b"lr",
        b"method",
        b"ob",
        b"gr",
        b"received",
        b"alias",
        b"tgrp",
        b"trunk-context",
        b"verstat",
    ];
    !DROPPED.iter().any(|dropped| dropped.eq_ignore_ascii_case(name))
}

/// A URI of the other side as this side may see it: the user stays, the host becomes `host`
/// (`host:port` in a Request-URI). A tel URI becomes `sip:` with `user=phone` (RFC 3261 19.1.6);
/// anything else is copied.
pub(crate) fn write_uri(uri: &Uri<'_>, raw: &[u8], host: &[u8], out: &mut Vec<u8>) {
    match uri.scheme {
        Scheme::Sip | Scheme::Sips => {
            out.extend_from_slice(b"sip:");
            if let Some(user) = uri.user {
                write_user(user, out);
                out.push(b'@');
            }
            // RFC 3323 4.1.1.3: this host names nobody, and says so.
            if uri.host.eq_ignore_ascii_case(b"anonymous.invalid") {
                out.extend_from_slice(uri.host);
            } else {
                out.extend_from_slice(host);
            }
            for (name, value) in uri.params.iter().filter(|(name, _)| param_passes(name)) {
                out.push(b';');
                out.extend_from_slice(name);
                if let Some(value) = value {
                    out.push(b'=');
                    out.extend_from_slice(value);
                }
            }
        }
        Scheme::Tel => {
            out.extend_from_slice(b"sip:");
            out.extend(
                uri.user
                    .unwrap_or_default()
                    .iter()
                    .filter(|byte| !matches!(byte, b'-' | b'.' | b'(' | b')')),
            );
            out.push(b'@');
            out.extend_from_slice(host);
            out.extend_from_slice(b";user=phone");
        }
        Scheme::Urn | Scheme::Other => out.extend_from_slice(raw),
    }
}

/// The user part without a `verstat` of the other side inside it (ST-64).
fn write_user(user: &[u8], out: &mut Vec<u8>) {
    const VERSTAT: &[u8] = b"verstat=";
    for (index, piece) in user.split(|&byte| byte == b';').enumerate() {
        let is_verstat =
            piece.get(..VERSTAT.len()).is_some_and(|head| head.eq_ignore_ascii_case(VERSTAT));
        if index != 0 && is_verstat {
            continue;
        }
        if index != 0 {
            out.push(b';');
        }
        out.extend_from_slice(piece);
    }
}

/// A From or To value without tag: the display name, without hosts of the other side in it, and the
/// URI as [`write_uri`] has it.
pub(crate) fn write_party(party: &NameAddr<'_>, host: &[u8], veil: &Veil<'_>, out: &mut Vec<u8>) {
    let display = party.safe_display();
    if !display.is_empty() {
        veil.push(display, out);
        out.push(b' ');
    }
    out.push(b'<');
    match party.uri() {
        Some(uri) => write_uri(&uri, party.uri, host, out),
        None => push_value(party.uri, out),
    }
    out.push(b'>');
}

#[cfg(test)]
mod tests {
    use ravelin_wire::sip::Framing;

    use super::*;
    use crate::b2bua::hiding::Hide;

    fn uri(text: &str) -> String {
        let mut out = Vec::new();
        let parsed = Uri::parse(text.as_bytes()).unwrap();
        write_uri(&parsed, text.as_bytes(), b"203.0.113.5", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_user_stays_and_the_host_changes() {
        for (given, wanted) in [
            (
                "sip:+1313@192.0.2.1:5080;user=phone;transport=tcp",
                "sip:+1313@203.0.113.5;user=phone",
            ),
            ("sip:192.0.2.1;lr;x=y", "sip:203.0.113.5;x=y"),
            ("sips:a;npdi;rn=+1@inner.example", "sip:a;npdi;rn=+1@203.0.113.5"),
            ("sip:anonymous@anonymous.invalid", "sip:anonymous@anonymous.invalid"),
            ("tel:+1-313-555;phone-context=x", "sip:+1313555@203.0.113.5;user=phone"),
            ("sip:+1313;verstat=No-TN-Validation;cpc=p@h", "sip:+1313;cpc=p@203.0.113.5"),
            ("urn:service:sos", "urn:service:sos"),
        ] {
            assert_eq!(uri(given), wanted);
        }
    }

    #[test]
    fn addresses_read_as_they_do_elsewhere() {
        for text in ["127.0.0.1:5060", "203.0.113.255:1", "[2001:db8::1]:65535"] {
            let mut out = Vec::new();
            push_address(text.parse().unwrap(), &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }

    #[test]
    fn a_party_keeps_its_display_name() {
        let party = NameAddr::parse(b"\"A, B\" <sip:a@192.0.2.1>;tag=x").unwrap();
        let text = "INVITE sip:1@h SIP/2.0\r\nVia: SIP/2.0/UDP pbx.inside.example;branch=z9hG4bKx\r\n\
            From: \"at pbx.inside.example\" <sip:a@h>;tag=1\r\nTo: <sip:1@h>\r\nCall-ID: c\r\n\
            CSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n";
        let message = Message::parse(text.as_bytes(), Framing::Datagram).unwrap();
        let hide = Hide { hosts: [b"", b""], by: b"us", call_id: b"" };
        let veil = Veil::of(&message, hide);
        let mut out = Vec::new();
        write_party(&party, b"us", &veil, &mut out);
        assert_eq!(out, b"\"A, B\" <sip:a@us>");
        out.clear();
        write_party(&message.from(), b"us", &veil, &mut out);
        assert_eq!(out, b"\"at us\" <sip:a@us>");
    }
}
