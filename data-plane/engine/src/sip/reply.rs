//! Answers: where they go (RFC 3261 18.2.2, RFC 3581) and what they repeat of the request (8.2.6.2).

use std::net::{IpAddr, SocketAddr};

use ravelin_wire::sip::{HeaderName, Message, Transport, Via, Writer, write_via_with_source};

use crate::port::{Egress, Local, Meta};

/// Port of SIP over UDP and TCP when the Via names none.
const SIP_PORT: u16 = 5060;
/// Port of SIP over TLS when the Via names none.
const SIPS_PORT: u16 = 5061;

/// Where the answer to a request goes. Over a stream: back through its connection, and if that is
/// gone, to the source address at the port of sent-by. Over UDP: to the source address, at the
/// source port if `rport` asks for it, else at the port of sent-by.
///
/// The answer never leaves the packet's source address: `maddr` and the host of sent-by could make
/// us send to others (RFC 3261 18.2.2 allows it; a reflector is the price). `None`: the source is
/// no address of one host.
#[must_use]
pub fn response_egress(meta: &Meta, via: &Via<'_>) -> Option<Egress> {
    let source = meta.source;
    if !is_one_host(source.ip()) || source.port() == 0 {
        return None;
    }
    let default = if matches!(via.transport, Transport::Tls) { SIPS_PORT } else { SIP_PORT };
    let sent_by_port = via.port.filter(|port| *port != 0).unwrap_or(default);
    match meta.local {
        Local::Signalling { listener } => {
            let port = if via.rport.is_some() { source.port() } else { sent_by_port };
            Some(Egress::Udp { listener, to: SocketAddr::new(source.ip(), port) })
        }
        Local::Stream { listener, flow } => Some(Egress::Flow {
            flow,
            or_connect: Some((listener, SocketAddr::new(source.ip(), sent_by_port))),
        }),
        Local::Media { .. } => None,
    }
}

fn is_one_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !broadcast
}

/// Begins an answer to `request`: status line, Via values, From, To, Call-ID, CSeq. `to_tag` is
/// added when the To has no tag and it is not empty (a 100 needs none). The caller adds its headers
/// and ends the message.
pub fn begin<'b>(
    request: &Message<'_>,
    source: SocketAddr,
    code: u16,
    reason: &[u8],
    to_tag: &[u8],
    out: &'b mut Vec<u8>,
) -> Writer<'b> {
    let mut writer = Writer::new(out);
    writer.status_line(code, reason).header_with(HeaderName::Via, |out| {
        write_via_with_source(&request.top_via(), source, out);
    });
    if request.via_count() > 1 {
        for via in request.values(HeaderName::Via).skip(1) {
            writer.header(HeaderName::Via, via);
        }
    }
    writer.header(HeaderName::From, request.header(HeaderName::From).unwrap_or_default());
    let to = request.header(HeaderName::To).unwrap_or_default();
    if to_tag.is_empty() || request.to().tag().is_some() {
        writer.header(HeaderName::To, to);
    } else {
        // Without angle brackets too what follows the URI is a header parameter (RFC 3261 20).
        writer.header_parts(HeaderName::To, &[to, b";tag=", to_tag]);
    }
    writer.header(HeaderName::CallId, request.call_id());
    let cseq = request.cseq();
    writer.header_with(HeaderName::CSeq, |out| {
        write_cseq(out, cseq.number, cseq.method.as_bytes());
    });
    writer
}

/// `number METHOD`.
pub fn write_cseq(out: &mut Vec<u8>, number: u32, method: &[u8]) {
    write_number(out, number);
    out.push(b' ');
    out.extend_from_slice(method);
}

/// Appends `number` in decimal.
pub fn write_number(out: &mut Vec<u8>, number: u32) {
    let mut divisor = 1_000_000_000;
    let mut started = false;
    while divisor > 0 {
        let digit = number / divisor % 10;
        started |= digit != 0 || divisor == 1;
        if started {
            out.push(b'0' + u8::try_from(digit).unwrap_or(0));
        }
        divisor /= 10;
    }
}

/// The phrase for a status code (RFC 3261 21 and the extensions that we answer with).
#[must_use]
pub const fn phrase(code: u16) -> &'static str {
    match code {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        199 => "Early Dialog Terminated",
        200 => "OK",
        202 => "Accepted",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        424 => "Bad Location Information",
        428 => "Use Identity Header",
        429 => "Provide Referrer Identity",
        433 => "Anonymity Disallowed",
        436 => "Bad Identity Info",
        437 => "Unsupported Credential",
        438 => "Invalid Identity Header",
        469 => "Bad Info Package",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        580 => "Precondition Failure",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        607 => "Unwanted",
        608 => "Rejected",
        // RFC 3261 8.1.3.2: an unknown code means what x00 of its class means.
        _ => match code / 100 {
            1 => "Session Progress",
            2 => "OK",
            3 => "Multiple Choices",
            4 => "Bad Request",
            5 => "Server Internal Error",
            _ => "Busy Everywhere",
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::port::{FlowId, ListenerId, ShardId};

    fn udp(source: &str) -> Meta {
        Meta {
            source: source.parse().unwrap(),
            local: Local::Signalling { listener: ListenerId(3) },
        }
    }

    fn to(meta: &Meta, via: &str) -> Option<String> {
        match response_egress(meta, &Via::parse(via.as_bytes()).unwrap())? {
            Egress::Udp { listener: ListenerId(3), to } => Some(to.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn udp_answers_go_to_the_source_and_the_port_that_the_via_asks_for() {
        let meta = udp("192.0.2.7:40000");
        for (via, expected) in [
            ("SIP/2.0/UDP 192.0.2.7:5070;branch=z9hG4bK1", "192.0.2.7:5070"),
            ("SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1", "192.0.2.7:5060"),
            ("SIP/2.0/UDP 192.0.2.7:5070;rport;branch=z9hG4bK1", "192.0.2.7:40000"),
            ("SIP/2.0/UDP host.example.com:5070;rport=9;branch=z9hG4bK1", "192.0.2.7:40000"),
            ("SIP/2.0/UDP 198.51.100.1:5070;branch=z9hG4bK1", "192.0.2.7:5070"),
            ("SIP/2.0/UDP 198.51.100.1;maddr=239.1.1.1;ttl=9;branch=z9hG4bK1", "192.0.2.7:5060"),
            ("SIP/2.0/UDP 1.2.3.4;received=198.51.100.9;branch=z9hG4bK1", "192.0.2.7:5060"),
        ] {
            assert_eq!(to(&meta, via).as_deref(), Some(expected), "{via}");
        }
        let meta = udp("[2001:db8::7]:40000");
        let via = "SIP/2.0/UDP [2001:db8::9]:5070;branch=z9hG4bK1";
        assert_eq!(to(&meta, via).as_deref(), Some("[2001:db8::7]:5070"));
    }

    #[test]
    fn no_answer_goes_to_many_hosts_or_to_none() {
        for source in ["255.255.255.255:5060", "239.0.0.1:5060", "0.0.0.0:5060", "[ff02::1]:5060"] {
            assert_eq!(to(&udp(source), "SIP/2.0/UDP h;rport;branch=z9hG4bK1"), None, "{source}");
        }
        assert_eq!(to(&udp("192.0.2.7:0"), "SIP/2.0/UDP h;branch=z9hG4bK1"), None);
    }

    #[test]
    fn stream_answers_use_the_connection_and_may_come_back_to_sent_by() {
        let flow = FlowId { shard: ShardId(1), slot: 4, generation: 9 };
        let source = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 7), 40_000));
        let meta = Meta { source, local: Local::Stream { listener: ListenerId(2), flow } };
        for (via, port) in [
            ("SIP/2.0/TCP h.example.com;branch=z9hG4bK1", 5060),
            ("SIP/2.0/TLS h.example.com;branch=z9hG4bK1", 5061),
            ("SIP/2.0/TCP h.example.com:5099;branch=z9hG4bK1", 5099),
        ] {
            let egress = response_egress(&meta, &Via::parse(via.as_bytes()).unwrap());
            let to = SocketAddr::new(source.ip(), port);
            let or_connect = Some((ListenerId(2), to));
            assert_eq!(egress, Some(Egress::Flow { flow, or_connect }), "{via}");
        }
    }

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 1, 9, 10, 100, 4_294_967_295, 2_147_483_647, 1_000_000_000] {
            let mut out = Vec::new();
            write_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
