//! The verdict on every message of RFC 4475 and RFC 5118 (`tests/conformance`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ravelin_wire::sdp::Description;
use ravelin_wire::sip::{Framing, HeaderName, Message, Method, Uri, salvage};
use ravelin_wire::verdict::{Verdict, verdict};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance").join(name)
}

fn read(name: &str, file: &str) -> Vec<u8> {
    std::fs::read(folder(name).join("messages").join(file)).unwrap()
}

fn manifest(name: &str) -> Vec<[String; 7]> {
    let text = std::fs::read_to_string(folder(name).join("manifest.tsv")).unwrap();
    let row = |line: &str| {
        let columns: Vec<String> = line.split('\t').map(str::to_owned).collect();
        columns.try_into().unwrap_or_else(|_| panic!("{name}: malformed row: {line}"))
    };
    text.lines().skip(1).map(row).collect()
}

fn walk(name: &str) {
    let mut listed = BTreeSet::new();
    for [file, _section, bytes, expected, kind, reason, _note] in manifest(name) {
        let message = read(name, &file);
        assert_eq!(message.len().to_string(), bytes, "{file} has changed");
        let got = match verdict(&message) {
            Verdict::Accept { kind } => format!("accept {kind} -"),
            Verdict::Reject { cause, reason } => format!("reject {cause} {reason}"),
        };
        assert_eq!(got, format!("{expected} {kind} {reason}"), "{file}");
        assert!(listed.insert(file.clone()), "{file} is listed twice");
    }
    let present: BTreeSet<String> = std::fs::read_dir(folder(name).join("messages"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(present, listed, "files and manifest differ");
}

#[test]
fn rfc4475_verdicts() {
    walk("rfc4475");
}

#[test]
fn rfc5118_verdicts() {
    walk("rfc5118");
}

#[test]
fn responses_are_never_answerable() {
    for file in ["scalarlg.dat", "bigcode.dat"] {
        let bytes = read("rfc4475", file);
        let error = Message::parse(&bytes, Framing::Datagram).unwrap_err();
        assert!(!error.answerable(), "{file}");
        assert!(salvage(&bytes).is_none(), "{file}");
    }
}

#[test]
fn broken_requests_can_be_answered() {
    let source = "192.0.2.99:5062".parse().unwrap();
    for [file, _, _, expected, ..] in manifest("rfc4475") {
        let bytes = read("rfc4475", &file);
        if expected != "reject" {
            continue;
        }
        let Some(salvage) = salvage(&bytes) else {
            // Two responses, one broken Via, one without Via.
            let hopeless = ["scalarlg.dat", "bigcode.dat", "badinv01.dat", "test.dat"];
            assert!(hopeless.contains(&&*file), "{file}");
            continue;
        };
        let mut answer = Vec::new();
        salvage.write_answer(400, b"Bad Request", b"x1", source, &[], &mut answer).unwrap();
        let text = String::from_utf8(answer).unwrap();
        assert!(text.starts_with("SIP/2.0 400 Bad Request\r\nVia: SIP/"), "{file}");
        assert!(text.contains(";received=192.0.2.99"), "{file}: {text}");
        assert!(text.ends_with("\r\nContent-Length: 0\r\n\r\n"), "{file}");
    }
}

/// RFC 4475 3.1.1.1: what all those blanks and folds come to.
#[test]
fn wsinv_in_detail() {
    let bytes = read("rfc4475", "wsinv.dat");
    let message = Message::parse(&bytes, Framing::Datagram).unwrap();
    assert_eq!(message.method(), Some(Method::Invite));
    assert_eq!(message.to().tag(), Some(&b"1918181833n"[..]));
    assert_eq!(message.from().tag(), Some(&b"98asjd8"[..]));
    assert_eq!(message.from().uri, b"sip:jdrosen@example.com");
    assert_eq!(message.from().display, br#""J Rosenberg \\\"""#);
    assert_eq!(message.max_forwards(), Some(68));
    assert_eq!((message.cseq().number, message.cseq().method), (9, Method::Invite));
    assert_eq!(message.via_count(), 3);
    assert_eq!(message.top_via().branch, Some(&b"390skdjuw"[..]));
    assert!(!message.top_via().has_cookie());
    assert_eq!(message.header(HeaderName::Subject), Some(&b""[..]));
    let contact = message.contact().unwrap();
    assert_eq!(contact.param(b"newparam"), Some(&b"newvalue"[..]));
    assert_eq!(contact.param(b"q"), Some(&b"0.33"[..]));
    let unusual = message.headers().find(|h| h.raw_name == b"UnknownHeaderWithUnusualValue");
    assert_eq!(unusual.unwrap().value, b";;,,;;,;");
    assert_eq!(message.body().len(), 150);
    assert_eq!(Description::parse(message.body()).unwrap().medias().len(), 2);
}

#[test]
fn longreq_has_34_vias() {
    let bytes = read("rfc4475", "longreq.dat");
    let message = Message::parse(&bytes, Framing::Datagram).unwrap();
    assert_eq!(message.values(HeaderName::Via).count(), 34);
    assert_eq!(message.top_via().branch, None);
}

/// RFC 4475 3.1.1.8: the second message in the datagram is not part of the first.
#[test]
fn dblreq_ends_after_the_first_request() {
    let bytes = read("rfc4475", "dblreq.dat");
    let message = Message::parse(&bytes, Framing::Datagram).unwrap();
    assert_eq!(message.body(), b"");
    assert_eq!(bytes.len() - message.raw().len(), 450);
    assert!(message.raw().ends_with(b"\r\n\r\n"));
}

/// RFC 4475 3.1.1.11: the binary part keeps its NUL octets and bare LF.
#[test]
fn mpart01_parts() {
    let bytes = read("rfc4475", "mpart01.dat");
    let message = Message::parse(&bytes, Framing::Datagram).unwrap();
    let mut parts = message.content().unwrap().parts(message.body()).unwrap();
    let text = parts.next().unwrap();
    assert!(text.content_type().unwrap().is(b"text", b"plain"));
    assert_eq!(text.body, b"Hello");
    let signature = parts.next().unwrap();
    assert!(signature.content_type().unwrap().is(b"application", b"octet-stream"));
    assert!(signature.body.contains(&0));
    let start = signature.offset;
    assert_eq!(&message.body()[start..start + signature.body.len()], signature.body);
    assert!(parts.next().is_none());
    assert!(parts.is_closed());
}

/// RFC 4475 3.1.1.4, 3.1.1.9 and RFC 5118 4.3, 4.4, 4.10: what is user, host and port.
#[test]
fn uris_in_detail() {
    let parse = |name: &str, file: &str| {
        let bytes = read(name, file);
        let message = Message::parse(&bytes, Framing::Datagram).unwrap();
        let uri = Uri::parse(message.request_uri().unwrap()).unwrap();
        (uri.user.map(<[u8]>::to_vec), uri.host_ip(), uri.port)
    };
    let semi = parse("rfc4475", "semiuri.dat");
    assert_eq!(semi.0.as_deref(), Some(&b"user;par=u%40example.net"[..]));
    let ip = |s: &str| Some(s.parse().unwrap());
    let ambiguous = parse("rfc5118", "port-ambiguous.dat");
    assert_eq!((ambiguous.1, ambiguous.2), (ip("2001:db8::10:5070"), None));
    let plain = parse("rfc5118", "port-unambiguous.dat");
    assert_eq!((plain.1, plain.2), (ip("2001:db8::10"), Some(5070)));
    for file in ["ipv6-bug-abnf-3-colons.dat", "ipv6-correct-abnf-2-colons.dat"] {
        assert_eq!(parse("rfc5118", file).1, ip("2001:db8::192.0.2.1"), "{file}");
    }
}

/// RFC 5118 4.5.
#[test]
fn received_with_and_without_brackets() {
    for file in ["via-received-param-with-delim.dat", "via-received-param-no-delim.dat"] {
        let bytes = read("rfc5118", file);
        let via = Message::parse(&bytes, Framing::Datagram).unwrap().top_via();
        assert_eq!(via.received, Some("2001:db8::9:255".parse().unwrap()), "{file}");
    }
}

/// RFC 5118 4.6 to 4.9, and every SDP body of RFC 4475 that arrives whole.
#[test]
fn bodies_are_descriptions() {
    let mut seen = 0;
    for name in ["rfc4475", "rfc5118"] {
        for [file, .., note] in manifest(name) {
            let bytes = read(name, &file);
            let Ok(message) = Message::parse(&bytes, Framing::Datagram) else { continue };
            if message.content_type() != Some(b"application/sdp") || note.contains("cuts the body")
            {
                continue;
            }
            let parsed = Description::parse(message.body());
            assert!(parsed.is_ok_and(|sdp| !sdp.medias().is_empty()), "{file}");
            seen += 1;
        }
    }
    assert_eq!(seen, 10);
}
