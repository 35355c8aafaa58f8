//! Typed views of single header values and URIs, and every limit at its edge.

use ravelin_wire::limits::{
    HEADER_LINE_MAX_BYTES, HEADER_MAX_COUNT, HEADER_NAME_MAX_BYTES, ID_MAX_BYTES, LIST_MAX_COUNT,
    MESSAGE_MAX_BYTES, METHOD_MAX_BYTES, MULTIPART_MAX_DEPTH, MULTIPART_MAX_PARTS, PARAM_MAX_COUNT,
    URI_MAX_BYTES, VIA_MAX_COUNT,
};
use ravelin_wire::sip::{
    CSeq, ContentType, ErrorKind, Framing, HeaderName, Host, Message, Method, NameAddr, RAck,
    Reason, RetryAfter, Scheme, SessionExpires, Transport, Uri, Via, Warning, delta_seconds,
    parse_date, tokens, unquote, uri, write_date, write_via_with_source,
};

#[test]
fn every_known_header_is_found_in_any_case_and_form() {
    for &name in HeaderName::ALL {
        let text = name.as_str();
        assert_eq!(HeaderName::of(text.as_bytes()), name);
        assert_eq!(HeaderName::of(text.to_ascii_uppercase().as_bytes()), name);
        assert_eq!(HeaderName::of(text.to_ascii_lowercase().as_bytes()), name);
        assert_eq!(HeaderName::of(format!("{text}x").as_bytes()), HeaderName::Other);
    }
    // The compact forms that IANA lists.
    let compact = [
        ("a", "Accept-Contact"),
        ("b", "Referred-By"),
        ("c", "Content-Type"),
        ("d", "Request-Disposition"),
        ("e", "Content-Encoding"),
        ("f", "From"),
        ("i", "Call-ID"),
        ("j", "Reject-Contact"),
        ("k", "Supported"),
        ("l", "Content-Length"),
        ("m", "Contact"),
        ("n", "Identity-Info"),
        ("o", "Event"),
        ("r", "Refer-To"),
        ("s", "Subject"),
        ("t", "To"),
        ("u", "Allow-Events"),
        ("v", "Via"),
        ("x", "Session-Expires"),
        ("y", "Identity"),
    ];
    for (short, long) in compact {
        assert_eq!(HeaderName::of(short.as_bytes()).as_str(), long);
        assert_eq!(HeaderName::of(short.to_uppercase().as_bytes()).as_str(), long);
    }
    for unknown in ["", "z", "q", "Fro", "Via-", "X-Via", "content_length"] {
        assert_eq!(HeaderName::of(unknown.as_bytes()), HeaderName::Other, "{unknown}");
    }
}

#[test]
fn methods_are_case_sensitive() {
    for &method in Method::KNOWN {
        assert_eq!(Method::of(method.as_bytes()), method);
        let lower = method.as_bytes().to_ascii_lowercase();
        assert!(Method::of(&lower).is_other());
    }
}

#[test]
fn uris() {
    let parse = |s: &'static str| Uri::parse(s.as_bytes());
    let uri = parse("SIPS:al%20ice:se$cret@[2001:DB8::1]:5061;transport=TCP;lr?a=b&c=").unwrap();
    assert_eq!(uri.scheme, Scheme::Sips);
    assert_eq!(uri.user, Some(&b"al%20ice"[..]));
    assert_eq!(uri.password, Some(&b"se$cret"[..]));
    assert_eq!((uri.host, uri.port), (&b"[2001:DB8::1]"[..], Some(5061)));
    assert_eq!(uri.host_ip(), Some("2001:db8::1".parse().unwrap()));
    assert_eq!(uri.params.get(b"TRANSPORT"), Some(&b"TCP"[..]));
    assert_eq!(uri.params.find(b"lr"), Some(None));
    assert!(!uri.params.has(b"user"));
    assert_eq!(uri.headers, b"a=b&c=");

    let tel = parse("tel:+1-(313).555-0911;phone-context=example.com").unwrap();
    assert_eq!((tel.scheme, tel.user), (Scheme::Tel, Some(&b"+1-(313).555-0911"[..])));
    assert_eq!(tel.params.get(b"phone-context"), Some(&b"example.com"[..]));
    assert!(parse("tel:*21#A").is_some() && parse("sip:a@[2001:db8:::192.0.2.1]").is_some());
    assert_eq!(parse("tel:911").unwrap().user_number(), Some(&b"911"[..]));
    assert_eq!(parse("urn:service:sos").unwrap().opaque, b"service:sos");
    assert_eq!(parse("URN:Service:SOS.fire").unwrap().scheme, Scheme::Urn);
    assert_eq!(parse("http://a/b?c#d").unwrap().scheme, Scheme::Other);
    assert_eq!(parse("sip:911;x=y@h").unwrap().user_number(), Some(&b"911"[..]));
    assert_eq!(parse("sip:*21#@h").unwrap().user, Some(&b"*21#"[..]));
    assert_eq!(parse("sip:h.example.").unwrap().host(), Some(Host::Name(b"h.example.")));
    assert_eq!(parse("sip:under_score-1.example:5060").unwrap().port, Some(5060));
    assert!(parse("sip:a@h;%6Cr").unwrap().params.has(b"lr"));

    for bad in [
        "",
        "sip",
        ":",
        "sip:",
        "1sip:x",
        "si p:x",
        "sip:a b@h",
        "sip:a@",
        "sip::p@h",
        "sip:a@h:",
        "sip:a@h:99999",
        "sip:a@h:5060x",
        "sip:a@h x",
        "sip:a@-h",
        "sip:a@h-",
        "sip:a@h..x",
        "sip:a@1.2.3",
        "sip:a@01.2.3.4",
        "sip:a@[::1",
        "sip:a@::1",
        "sip:a@[1.2.3.4]",
        "sip:a@[]",
        "sip:a@h;",
        "sip:a@h;=x",
        "sip:a@h;x=",
        "sip:a@h?",
        "sip:a@h?x",
        "sip:a@h?x=y&",
        "sip:%@h",
        "sip:%4@h",
        "sip:a%zz@h",
        "sip:a@h;x=%",
        "sip:\"a\"@h",
        "sip:<a>@h",
        "sip:a@b@c",
        "sip:ä@h",
        "sip:a@[:::]",
        "sip:a@[1:::2]",
        "sip:a@[2001:db8:::1:192.0.2.1]",
        "tel:12a4g",
        "tel:+1ABC",
        "tel:+1*23",
        "tel:+1#",
        "tel:-",
        "tel:+;x",
        "urn:x",
        "urn::x",
        "urn:a_b:c",
        "name:",
        "x:a b",
        "x:<>",
    ] {
        assert!(Uri::parse(bad.as_bytes()).is_none(), "{bad}");
    }
    assert_eq!(uri::percent_decode(b"v%61lue%25%34%31").collect::<Vec<_>>(), b"value%41");
    assert_eq!(uri::percent_decode(b"%%4%zz%0").collect::<Vec<_>>(), b"%%4%zz%0");
}

#[test]
fn addresses() {
    let parse = |s: &'static str| NameAddr::parse(s.as_bytes());
    let addr = parse("\"A \\\"B\\\" <sip:no@no>\" <sip:a@b;x=1?h=v>;tag=t;q=\"a;b,c\"").unwrap();
    assert_eq!(addr.uri, b"sip:a@b;x=1?h=v");
    assert_eq!(addr.tag(), Some(&b"t"[..]));
    assert_eq!(addr.param(b"Q"), Some(&b"\"a;b,c\""[..]));
    assert_eq!(unquote(addr.display).collect::<Vec<_>>(), b"A \"B\" <sip:no@no>");
    let bare = parse("sip:a@b;tag=1;x").unwrap();
    assert_eq!((bare.uri, bare.tag()), (&b"sip:a@b"[..], Some(&b"1"[..])));
    assert!(bare.params.has(b"x"));
    let angle_later = parse("sip:a@b;x=\"<sip:evil@c>\"").unwrap();
    assert_eq!(angle_later.uri, b"sip:a@b");
    for bad in [
        "",
        "*",
        "<>",
        "<sip:a@b",
        "sip:a@b>",
        "\"x\"",
        "\"x\" sip:a@b",
        "x, y <sip:a@b>",
        "a@b <sip:a@b>",
        "<sip:a@b> <sip:c@d>",
        "<sip:a@b>tag=1",
        "<sip:a@b>;",
        "<sip:a@b>;;x",
        "<sip:a@b>;x;y;X=1",
        "<sip:a@b>;x=",
        "<sip:a@b>;x=\"y",
        "<sip:a@b>,",
        "sip:a@b,sip:c@d",
        "sip:a@b?x=y",
        "sip:a@b;x=1?y=2",
        "< sip:a@b>",
        "\"\\é\" <sip:a@b>",
        "ü <sip:a@b>",
    ] {
        assert!(parse(bad).is_none(), "{bad}");
    }
}

#[test]
fn vias() {
    let parse = |s: &'static str| Via::parse(s.as_bytes());
    let via =
        parse("SIP/2.0/TLS [2001:db8::1] : 5061 ; branch=z9hG4bKx;rport=99;received=192.0.2.1");
    let via = via.unwrap();
    assert_eq!((via.transport, via.port), (Transport::Tls, Some(5061)));
    assert_eq!((via.rport, via.received), (Some(Some(99)), Some("192.0.2.1".parse().unwrap())));
    assert_eq!(parse("sip/2.0/udp h;rport").unwrap().rport, Some(None));
    assert_eq!(parse("SIP/2.0/X-NEW h").unwrap().transport, Transport::Other(b"X-NEW"));
    assert!(parse("SIP/2.0/UDP h;branch=Z9HG4BKx").unwrap().has_cookie());
    for bad in [
        "",
        "SIP/2.0/UDP",
        "SIP/2.0/UDP ",
        "SIP/2.0 UDP h",
        "SIP/1.0/UDP h",
        "HTTP/2.0/UDP h",
        "SIP/2.0/UDPh",
        "SIP/2.0/UDP h h",
        "SIP/2.0/UDP h:0",
        "SIP/2.0/UDP h:65536",
        "SIP/2.0/UDP h:",
        "SIP/2.0/UDP 2001:db8::1",
        "SIP/2.0/UDP h;branch",
        "SIP/2.0/UDP h;branch=",
        "SIP/2.0/UDP h;branch=a;branch=b",
        "SIP/2.0/UDP h;branch=\"a\"",
        "SIP/2.0/UDP h;rport=x",
        "SIP/2.0/UDP h;rport=65536",
        "SIP/2.0/UDP h;rport;rport=1",
        "SIP/2.0/UDP h;received=h",
        "SIP/2.0/UDP h;received=1.2.3.4;received=1.2.3.5",
        "SIP/2.0/UDP h;ttl=256",
        "SIP/2.0/UDP h;maddr=[::1",
        "SIP/2.0/UDP h;;",
        "SIP/2.0/UDP h,",
        "SIP/2.0/UDP h (c)",
    ] {
        assert!(parse(bad).is_none(), "{bad}");
    }
}

/// RFC 3261 18.2.1, RFC 3581 4: the packet source wins over what the sender wrote.
#[test]
fn via_of_an_answer() {
    let answer = |via: &str, source: &str| {
        let mut out = Vec::new();
        let via = Via::parse(via.as_bytes()).unwrap();
        write_via_with_source(&via, source.parse().unwrap(), &mut out);
        String::from_utf8(out).unwrap()
    };
    let table = [
        ("SIP/2.0/UDP 192.0.2.1;branch=x", "192.0.2.1:9", "SIP/2.0/UDP 192.0.2.1;branch=x"),
        ("SIP/2.0/UDP h;branch=x", "192.0.2.1:9", "SIP/2.0/UDP h;branch=x;received=192.0.2.1"),
        (
            "SIP/2.0/UDP 192.0.2.1:7;rport;branch=x",
            "192.0.2.1:9",
            "SIP/2.0/UDP 192.0.2.1:7;branch=x;received=192.0.2.1;rport=9",
        ),
        (
            "SIP/2.0/UDP h;received=203.0.113.1;rport=1;branch=x",
            "[2001:db8::1]:9",
            "SIP/2.0/UDP h;branch=x;received=2001:db8::1;rport=9",
        ),
        (
            "SIP / 2.0 / UDP\r\n h;a=\"b\r\n c\"",
            "[::ffff:192.0.2.1]:9",
            "SIP/2.0/UDP h;a=\"b   c\";received=192.0.2.1",
        ),
        ("SIP/2.0/TCP [2001:db8::1]", "[2001:db8:0::1]:9", "SIP/2.0/TCP [2001:db8::1]"),
    ];
    for (via, source, expected) in table {
        assert_eq!(answer(via, source), expected);
    }
}

#[test]
fn numbers_and_lists() {
    assert_eq!(CSeq::parse(b"0009\r\n  INVITE").unwrap().number, 9);
    assert_eq!(CSeq::parse(b"2147483647 X").unwrap().method, Method::Other(b"X"));
    assert_eq!(CSeq::parse(b"2147483648 X"), None);
    let rack = RAck::parse(b"776656 1 INVITE").unwrap();
    assert_eq!((rack.rseq, rack.cseq.number), (776_656, 1));
    for bad in [&b"0 1 INVITE"[..], b"1 INVITE", b"1 1", b"4294967296 1 INVITE", b"1 1 IN VITE"] {
        assert_eq!(RAck::parse(bad), None);
    }
    let reason = Reason::parse(b"Q.850;cause=16;text=\"Normal, clearing\"").unwrap();
    assert_eq!((reason.protocol, reason.cause), (&b"Q.850"[..], Some(16)));
    assert_eq!(reason.text, Some(&b"\"Normal, clearing\""[..]));
    assert_eq!(Reason::parse(b";cause=1"), None);
    assert_eq!(RetryAfter::parse(b"120 (in a meeting);duration=3600").unwrap().seconds, 120);
    assert_eq!(RetryAfter::parse(b"949302838503028349304023988").unwrap().seconds, u32::MAX);
    assert_eq!(RetryAfter::parse(b"12x"), None);
    let timer = SessionExpires::parse(b"1800 ;refresher=UAS").unwrap();
    assert_eq!((timer.seconds, timer.refresher_uac), (1800, Some(false)));
    assert_eq!(SessionExpires::parse(b"90").unwrap().refresher_uac, None);
    assert_eq!(SessionExpires::parse(b"90;refresher=me"), None);
    let warning = Warning::parse(b"399 h.example \"a, b\"").unwrap();
    assert_eq!((warning.code, warning.text), (399, &b"\"a, b\""[..]));
    assert_eq!(Warning::parse(b"1812 overture \"In Progress\""), None);
    assert_eq!(delta_seconds(b"99999999999999999999"), Some(u32::MAX));
    assert_eq!(delta_seconds(b"-1"), None);
    assert!(tokens(b" a ,, b\r\n ,c,").eq([&b"a"[..], b"b", b"c"]));
}

#[test]
fn dates() {
    assert_eq!(parse_date(b"Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
    assert_eq!(parse_date(b"Sat, 13 Nov 2010 23:29:00 GMT"), Some(1_289_690_940));
    assert_eq!(parse_date(b"Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
    assert_eq!(parse_date(b"Fri, 1 Mar 2024 00:00:00 gmt"), Some(1_709_251_200));
    for bad in [
        "Fri, 01 Jan 2010 16:00:00 EST",
        "Fri, 01 Jan 2010 16:00:00",
        "Thu, 29 Feb 2023 12:00:00 GMT",
        "Thu, 31 Apr 2023 12:00:00 GMT",
        "Thu, 00 Apr 2023 12:00:00 GMT",
        "Thu, 01 Apr 1969 12:00:00 GMT",
        "Thu, 01 Apr 2023 24:00:00 GMT",
        "Thu, 01 Apr 2023 12:60:00 GMT",
        "Xxx, 01 Apr 2023 12:00:00 GMT",
        "Thu 01 Apr 2023 12:00:00 GMT",
        "2023-04-01T12:00:00Z",
        "",
        "Thu, 01 Apr 2023 12:00:00 GMT ",
    ] {
        assert_eq!(parse_date(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn a_time_beyond_the_calendar_is_its_last_second() {
    for unix in [253_402_300_799, 253_402_300_800, u64::MAX] {
        let mut text = Vec::new();
        write_date(unix, &mut text);
        assert_eq!(text, b"Fri, 31 Dec 9999 23:59:59 GMT");
    }
}

#[test]
fn multiparts() {
    let kind = ContentType::parse(b"multipart/mixed ; boundary=\"b 1\"").unwrap();
    let sdp = "v=0\r\n";
    let inner = format!("--in\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--in--");
    let body = format!(
        "preamble\r\n--b 1 \r\nContent-Type: text/plain\r\nContent-ID: <id@h>\r\n\
         \r\n--b 12\r\ntext\r\n\
         --b 1\r\nc: multipart/alternative;boundary=in\r\n\r\n{inner}\r\n\
         --b 1\r\n\r\nno headers\r\n--b 1--\r\nepilogue"
    );
    let mut parts = kind.parts(body.as_bytes()).unwrap();
    let text = parts.next().unwrap();
    assert_eq!(text.content_id(), Some(&b"id@h"[..]));
    assert_eq!(text.body, b"--b 12\r\ntext");
    assert_eq!(parts.next().unwrap().body, inner.as_bytes());
    let plain = parts.next().unwrap();
    assert_eq!((plain.headers, plain.body), (&b""[..], &b"no headers"[..]));
    assert!(parts.next().is_none() && parts.is_closed());
    let found = kind.find_part(body.as_bytes(), b"application", b"SDP").unwrap();
    assert_eq!(found.body, sdp.as_bytes());
    assert_eq!(found.offset, body.find("v=0").unwrap());
    assert!(kind.find_part(body.as_bytes(), b"image", b"png").is_none());

    let mut cut = kind.parts(b"--b 1\r\n\r\nhalf").unwrap();
    assert_eq!(cut.next().unwrap().body, b"half");
    assert!(!cut.is_closed());
    assert!(kind.parts(b"").unwrap().next().is_none());
    for bad in ["multipart", "/mixed", "multipart/", "multipart/mixed;boundary=", "a/b c"] {
        assert!(ContentType::parse(bad.as_bytes()).is_none(), "{bad}");
    }
    assert_eq!(ContentType::parse(b"multipart/mixed").unwrap().boundary(), None);
}

#[test]
fn multipart_bounds() {
    let kind = ContentType::parse(b"multipart/mixed;boundary=b").unwrap();
    let many = "--b\r\n\r\nx\r\n".repeat(MULTIPART_MAX_PARTS + 5);
    assert_eq!(kind.parts(many.as_bytes()).unwrap().count(), MULTIPART_MAX_PARTS);
    let nested = |depth: usize| {
        let core = "Content-Type: application/sdp\r\n\r\nv=0".to_owned();
        (1..depth).rev().fold(core, |inside, level| {
            format!(
                "Content-Type: multipart/mixed;boundary=b{level}\r\n\r\n\
                 --b{level}\r\n{inside}\r\n--b{level}--"
            )
        })
    };
    let find = |depth| {
        let body = format!("--b\r\n{}\r\n--b--", nested(depth));
        kind.find_part(body.as_bytes(), b"application", b"sdp").is_some()
    };
    assert!(find(MULTIPART_MAX_DEPTH));
    assert!(!find(MULTIPART_MAX_DEPTH + 1));
    assert!(!find(200));
}

/// A request with `extra` lines and this method and Request-URI.
fn request(method: &str, uri: &str, extra: &str) -> Vec<u8> {
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nFrom: <sip:a@b>;tag=1\r\n\
         To: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 {method}\r\n{extra}\r\n"
    )
    .into_bytes()
}

fn outcome(bytes: &[u8]) -> Result<(), ErrorKind> {
    Message::parse(bytes, Framing::Datagram).map(drop).map_err(|error| error.kind())
}

#[test]
fn limits_hold_at_their_edges() {
    let plain = |extra: &str| outcome(&request("INFO", "sip:a@b", extra));
    let edge = |at_limit: Result<(), ErrorKind>, beyond: Result<(), ErrorKind>, kind| {
        assert_eq!(at_limit, Ok(()), "{kind:?}");
        assert_eq!(beyond, Err(kind));
    };
    let lines = |n: usize| plain(&"A: b\r\n".repeat(n - 5));
    edge(lines(HEADER_MAX_COUNT), lines(HEADER_MAX_COUNT + 1), ErrorKind::TooManyHeaders);

    let line = |n: usize| plain(&format!("Q: {}\r\n", "x".repeat(n - 5)));
    edge(line(HEADER_LINE_MAX_BYTES), line(HEADER_LINE_MAX_BYTES + 1), ErrorKind::HeaderTooLong);
    let folded = |n: usize| plain(&format!("Q: {}x\r\n", "x\r\n ".repeat(n / 4)));
    edge(
        folded(HEADER_LINE_MAX_BYTES - 8),
        folded(HEADER_LINE_MAX_BYTES + 8),
        ErrorKind::HeaderTooLong,
    );

    let name = |n: usize| plain(&format!("{}: x\r\n", "q".repeat(n)));
    edge(
        name(HEADER_NAME_MAX_BYTES),
        name(HEADER_NAME_MAX_BYTES + 1),
        ErrorKind::HeaderNameTooLong,
    );

    let method = |n: usize| outcome(&request(&"M".repeat(n), "sip:a@b", ""));
    edge(method(METHOD_MAX_BYTES), method(METHOD_MAX_BYTES + 1), ErrorKind::Method);

    let uri = |n: usize| outcome(&request("INFO", &format!("sip:{}@b", "a".repeat(n - 6)), ""));
    edge(uri(URI_MAX_BYTES), uri(URI_MAX_BYTES + 1), ErrorKind::RequestUriTooLong);
    let contact = |n: usize| plain(&format!("Contact: <sip:{}@b>\r\n", "a".repeat(n - 6)));
    edge(contact(URI_MAX_BYTES), contact(URI_MAX_BYTES + 1), ErrorKind::Contact);

    let vias = |n: usize| plain(&format!("Via: {}\r\n", vec!["SIP/2.0/UDP h"; n - 1].join(",")));
    edge(vias(VIA_MAX_COUNT), vias(VIA_MAX_COUNT + 1), ErrorKind::TooManyVias);
    let routes = |n: usize| plain(&format!("Route: {}\r\n", vec!["<sip:h;lr>"; n].join(",")));
    edge(routes(LIST_MAX_COUNT), routes(LIST_MAX_COUNT + 1), ErrorKind::Route);
    let contacts = |n: usize| plain(&format!("Contact: {}\r\n", vec!["<sip:h>"; n].join(",")));
    edge(contacts(LIST_MAX_COUNT), contacts(LIST_MAX_COUNT + 1), ErrorKind::Contact);

    let names = |n: usize| (0..n).map(|i| format!(";p{i}=1")).collect::<String>();
    let params = |n: usize| plain(&format!("Contact: <sip:h>{}\r\n", names(n)));
    edge(params(PARAM_MAX_COUNT), params(PARAM_MAX_COUNT + 1), ErrorKind::Contact);
    let uri_params = |n: usize| plain(&format!("Contact: <sip:h{}>\r\n", names(n)));
    edge(uri_params(PARAM_MAX_COUNT), uri_params(PARAM_MAX_COUNT + 1), ErrorKind::Contact);

    let replace = |from: &str, to: String| {
        let text = String::from_utf8(request("INFO", "sip:a@b", "")).unwrap();
        outcome(text.replace(from, &to).as_bytes())
    };
    let id = "x".repeat(ID_MAX_BYTES);
    for (from, prefix) in
        [("Call-ID: x", "Call-ID: "), (";tag=1", ";tag="), (";branch=z9hG4bKa", ";branch=")]
    {
        edge(
            replace(from, format!("{prefix}{id}")),
            replace(from, format!("{prefix}{id}x")),
            ErrorKind::IdTooLong,
        );
    }

    let mut largest = request("INFO", "sip:a@b", "");
    largest.resize(MESSAGE_MAX_BYTES, b'x');
    assert_eq!(outcome(&largest), Ok(()));
    largest.push(b'x');
    let error = Message::parse(&largest, Framing::Datagram).unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::TooLarge, 513));
}

#[test]
fn every_error_has_a_text_and_a_status_of_its_own() {
    let mut texts: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.reason()).collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), ErrorKind::ALL.len());
    for kind in ErrorKind::ALL {
        assert!([400, 414, 501, 505, 513].contains(&kind.status()), "{kind:?}");
    }
}

#[test]
fn only_requests_other_than_ack_are_answerable() {
    let answerable =
        |text: &str| Message::parse(text.as_bytes(), Framing::Datagram).unwrap_err().answerable();
    assert!(answerable("INVITE sip:a@b SIP/2.0\r\n\r\n"));
    assert!(answerable("X sip:a@b SIP/9.0\r\n\r\n"));
    assert!(!answerable("ACK sip:a@b SIP/2.0\r\n\r\n"));
    assert!(!answerable("SIP/2.0 200 OK\r\n\r\n"));
    assert!(!answerable("\r\n\r\n"));
    assert!(!answerable("<html> x"));
}

/// A name that stands twice is found wherever the two stand, among few and among many, alike or not.
#[test]
fn a_second_parameter_of_a_name_is_found_anywhere() {
    for name in ["p", "longer-name", "%"] {
        for count in [2, 5, 6, 7, 8, 20, PARAM_MAX_COUNT] {
            let list = |names: &[String]| {
                names.iter().map(|name| format!(";{name}=1")).collect::<String>()
            };
            let names: Vec<String> = (10..10 + count).map(|n| format!("{name}{n}")).collect();
            let header = |names: &[String]| format!("<sip:h>{}", list(names)).into_bytes();
            let uri = |names: &[String]| format!("sip:h{}", list(names)).into_bytes();
            // `%10` is an escape in a URI and three octets of a header.
            assert!(NameAddr::parse(&header(&names)).is_some(), "{name} {count}");
            assert!(Uri::parse(&uri(&names)).is_some(), "{name} {count}");
            for (first, second) in [(0, count - 1), (count / 2, count - 1), (0, 1)] {
                let mut twice = names.clone();
                if first != second {
                    twice[second] = names[first].to_uppercase();
                    assert!(NameAddr::parse(&header(&twice)).is_none(), "{twice:?}");
                    assert!(Uri::parse(&uri(&twice)).is_none(), "{twice:?}");
                }
            }
        }
    }
}
