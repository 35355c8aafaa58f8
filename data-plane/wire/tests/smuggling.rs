//! Header smuggling: each trick is refused, or read in the one way in which it is also written.
//! The table is the matrix of our security page; each row names what the next parser might do.

use ravelin_wire::sip::{ErrorKind, Framing, HeaderName, Message, StartLine, WriteError, Writer};

/// A good request with `extra` header lines before Content-Length and `body` after it.
fn request(extra: &str, length: &str, body: &str) -> Vec<u8> {
    format!(
        "MESSAGE sip:b@example.net SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa\r\n\
         From: <sip:a@example.com>;tag=1\r\n\
         To: <sip:b@example.net>\r\n\
         Call-ID: c1\r\n\
         CSeq: 1 MESSAGE\r\n\
         {extra}{length}\r\n{body}"
    )
    .into_bytes()
}

fn refused(bytes: &[u8]) -> ErrorKind {
    Message::parse(bytes, Framing::Datagram).map(|_| ()).unwrap_err().kind()
}

/// The header lines of what we would pass on, the request line left out.
fn forwarded(bytes: &[u8]) -> Result<Vec<String>, WriteError> {
    let message = Message::parse(bytes, Framing::Datagram).unwrap();
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    let StartLine::Request { method, uri } = message.start() else { panic!("a request") };
    writer.request_line(method.as_bytes(), uri);
    for header in message.headers() {
        if header.name != HeaderName::ContentLength {
            writer.header_named(header.raw_name, header.value);
        }
    }
    writer.body(None, message.body())?;
    let end = out.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(out[..end].to_vec()).unwrap();
    Ok(head.split("\r\n").skip(1).map(str::to_owned).collect())
}

const LENGTH: &str = "Content-Length: 0\r\n";

#[test]
fn refused_octets_and_lines() {
    use ErrorKind as E;
    let table: &[(&str, &str, ErrorKind)] = &[
        ("bare LF ends a line", "Q: a\nRoute: <sip:evil>\r\n", E::BareLineEnd),
        ("bare LF in a value after a fold", "Q: a\r\n b\nY: c\r\n", E::BareLineEnd),
        ("bare CR in a value", "Q: a\rRoute: <sip:evil>\r\n", E::BareLineEnd),
        ("CR CR LF", "Q: a\r\r\n", E::BareLineEnd),
        ("LF CR", "Q: a\n\rY: b\r\n", E::BareLineEnd),
        ("bare CR before the colon", "Q\r: a\r\n", E::HeaderName),
        ("bare CR right after the colon", "Q:\ra\r\n", E::BareLineEnd),
        ("NUL in a value", "Q: a\0b\r\n", E::ControlCharacter),
        ("NUL in a name", "Q\0: a\r\n", E::HeaderName),
        ("NUL in quotes of an unknown header", "Q: \"a\\\0b\"\r\n", E::ControlCharacter),
        ("NUL unescaped in a display name", "Contact: \"a\0b\" <sip:a@b>\r\n", E::ControlCharacter),
        ("vertical tab", "Q: a\x0bb\r\n", E::ControlCharacter),
        ("DEL", "Q: a\x7fb\r\n", E::ControlCharacter),
        ("no colon", "Foobar roobar\r\n", E::HeaderName),
        ("empty name", ": a\r\n", E::HeaderName),
        ("blank inside a name", "Q Y: a\r\n", E::HeaderName),
        ("fold before the colon", "Q\r\n : a\r\n", E::HeaderName),
        ("name that is no token", "Q[]: a\r\n", E::HeaderName),
        ("UTF-8 in a name", "Fröm: a\r\n", E::HeaderName),
    ];
    for (what, lines, kind) in table {
        assert_eq!(refused(&request(lines, LENGTH, "")), *kind, "{what}");
    }
}

#[test]
fn refused_encodings() {
    let overlong: [(&str, &[u8]); 6] = [
        ("overlong CR", b"\xc0\x8d"),
        ("overlong LF", b"\xc0\x8a"),
        ("overlong colon", b"\xe0\x80\xba"),
        ("surrogate", b"\xed\xa0\x80"),
        ("lone continuation", b"\x80"),
        ("above U+10FFFF", b"\xf4\x90\x80\x80"),
    ];
    for (what, octets) in overlong {
        let mut bytes = request("Q: a", "\r\n", "");
        let at = bytes.windows(4).position(|w| w == b"Q: a").unwrap() + 4;
        bytes.splice(at..at, octets.iter().copied());
        assert_eq!(refused(&bytes), ErrorKind::NotUtf8, "{what}");
    }
    let good = request("Q: grüß 世界\r\n", LENGTH, "");
    assert!(forwarded(&good).unwrap().contains(&"Q: grüß 世界".to_owned()));
}

#[test]
fn refused_repetitions() {
    let singles = [
        "From: <sip:x@y>;tag=2",
        "f: <sip:x@y>;tag=2",
        "FROM : <sip:x@y>;tag=2",
        "To: <sip:x@y>",
        "t:<sip:x@y>",
        "Call-ID: c2",
        "i: c1",
        "CSeq: 1 MESSAGE",
        "Content-Length: 0",
        "l: 0",
        "L\t:0",
    ];
    for line in singles {
        let bytes = request(&format!("{line}\r\n"), LENGTH, "");
        assert_eq!(refused(&bytes), ErrorKind::DuplicateHeader, "{line}");
    }
    let pairs = [
        ("Max-Forwards: 70", "max-forwards: 70"),
        ("Content-Type: text/plain", "c: application/sdp"),
        ("Date: Sat, 13 Nov 2010 23:29:00 GMT", "Date: Sat, 13 Nov 2010 23:29:01 GMT"),
        ("Expires: 1", "Expires: 2"),
        ("Refer-To: <sip:a@b>", "r: <sip:c@d>"),
        ("Replaces: x;to-tag=1;from-tag=2", "Replaces: y;to-tag=1;from-tag=2"),
        ("Session-Expires: 90", "x: 1800"),
        ("Event: a", "o: b"),
    ];
    for (one, two) in pairs {
        assert!(forwarded(&request(&format!("{one}\r\n"), LENGTH, "")).is_ok(), "{one}");
        let bytes = request(&format!("{one}\r\n{two}\r\n"), LENGTH, "");
        assert_eq!(refused(&bytes), ErrorKind::DuplicateHeader, "{two}");
    }
}

#[test]
fn refused_joined_singletons() {
    use ErrorKind as E;
    let table = [
        ("From: <sip:a@example.com>;tag=1", "From: <sip:a@b>;tag=1, <sip:evil@b>;tag=2", E::From),
        ("From: <sip:a@example.com>;tag=1", "From: sip:a@b, sip:evil@b", E::From),
        ("From: <sip:a@example.com>;tag=1", "From: <sip:a@b>;tag=1;tag=2", E::From),
        ("From: <sip:a@example.com>;tag=1", "From: <sip:a@b>;tag=", E::From),
        ("To: <sip:b@example.net>", "To: <sip:b@c>,<sip:d@e>", E::To),
        ("Call-ID: c1", "Call-ID: c1, c2", E::CallId),
        ("Call-ID: c1", "Call-ID: c1 c2", E::CallId),
        ("Call-ID: c1", "Call-ID: c1\r\n c2", E::CallId),
        ("Call-ID: c1", "Call-ID:", E::CallId),
        ("CSeq: 1 MESSAGE", "CSeq: 1 MESSAGE, 2 BYE", E::CSeq),
        ("CSeq: 1 MESSAGE", "CSeq: 1 BYE", E::CSeqMethod),
        ("CSeq: 1 MESSAGE", "CSeq: 1 message", E::CSeqMethod),
        ("CSeq: 1 MESSAGE", "CSeq: 2147483648 MESSAGE", E::CSeq),
        ("CSeq: 1 MESSAGE", "CSeq: 4294967297 MESSAGE", E::CSeq),
        ("CSeq: 1 MESSAGE", "CSeq: -1 MESSAGE", E::CSeq),
        ("CSeq: 1 MESSAGE", "CSeq: 1MESSAGE", E::CSeq),
    ];
    for (good, bad, kind) in table {
        let bytes = String::from_utf8(request("", LENGTH, "")).unwrap();
        let bytes = bytes.replace(good, bad);
        assert!(bytes.contains(bad));
        assert_eq!(refused(bytes.as_bytes()), kind, "{bad}");
    }
}

#[test]
fn refused_lengths() {
    use ErrorKind as E;
    let table = [
        ("Content-Length: -1\r\n", E::ContentLength),
        ("Content-Length: +2\r\n", E::ContentLength),
        ("Content-Length: 2 2\r\n", E::ContentLength),
        ("Content-Length: 2, 2\r\n", E::ContentLength),
        ("Content-Length: 0x2\r\n", E::ContentLength),
        ("Content-Length: 2;a\r\n", E::ContentLength),
        ("Content-Length:\r\n", E::ContentLength),
        ("Content-Length: ２\r\n", E::ContentLength),
        ("Content-Length: 99999999999999999999999\r\n", E::ContentLength),
        ("Content-Length: 3\r\n", E::BodyTruncated),
        ("Content-Length: 2147483648\r\n", E::BodyTruncated),
        ("Content-Length: 4294967298\r\n", E::BodyTruncated), // 2 when cut to 32 bits
        ("Content-Length: 4294967328\r\n", E::BodyTruncated),
        ("Content-Length: 18446744073709551615\r\n", E::BodyTruncated),
        ("Content-Length: 2\r\nContent-Length: 2\r\n", E::DuplicateHeader),
        ("Content-Length: 2\r\nl: 0\r\n", E::DuplicateHeader),
    ];
    for (length, kind) in table {
        assert_eq!(refused(&request("", length, "ab")), kind, "{length}");
        let error = Message::parse(&request("", length, "ab"), Framing::Datagram).unwrap_err();
        assert_eq!((error.status(), error.answerable()), (400, true), "{length}");
    }
    for length in ["Content-Length: 2\r\n", "Content-Length: 0002\r\n", "l:\r\n 2\r\n \r\n", ""] {
        let bytes = request("", length, "ab");
        assert_eq!(Message::parse(&bytes, Framing::Datagram).unwrap().body(), b"ab", "{length}");
    }
}

/// What is accepted in an unusual form goes out in the usual one.
#[test]
fn normalised_forms() {
    let table = [
        ("Subject : a\r\n", "Subject: a"),
        ("Subject\t \t:\ta\r\n", "Subject: a"),
        ("s:a\r\n", "Subject: a"),
        ("sUBJECT:   a   \r\n", "Subject: a"),
        ("Subject:\r\n a\r\n", "Subject: a"),
        ("Subject: a\r\n\t b\r\n  c\r\n", "Subject: a b c"),
        ("Subject: a\r\n \r\n b\r\n", "Subject: a b"),
        ("Subject: a\r\n \r\n", "Subject: a"),
        ("Subject:\r\n", "Subject: "),
        ("k: a\r\n", "Supported: a"),
        ("x-Own_Header%!: a:b:c\r\n", "x-Own_Header%!: a:b:c"),
        (
            "P-Asserted-Identity: \"x\\\"\r\n y\" <sip:a@b>\r\n",
            "P-Asserted-Identity: \"x\\\" y\" <sip:a@b>",
        ),
    ];
    for (line, expected) in table {
        let lines = forwarded(&request(line, LENGTH, "")).unwrap();
        assert!(lines.contains(&expected.to_owned()), "{line:?}: {lines:?}");
        assert_eq!(lines.len(), 7, "{line:?}: {lines:?}");
    }
}

/// Controls escaped in a quoted display name are legal (RFC 4475 3.1.1.2) and are never passed on.
#[test]
fn escaped_controls_are_read_and_not_written() {
    let bytes = request("Contact: \"a\\\0b\\\x07\" <sip:a@b>\r\n", LENGTH, "");
    let message = Message::parse(&bytes, Framing::Datagram).unwrap();
    assert_eq!(message.contact().unwrap().safe_display(), b"");
    assert_eq!(forwarded(&bytes), Err(WriteError::HeaderValue));
}

#[test]
fn request_lines() {
    use ErrorKind as E;
    let table = [
        ("MESSAGE  sip:b@example.net SIP/2.0", E::RequestUri),
        ("MESSAGE sip:b@example.net  SIP/2.0", E::RequestUri),
        ("MESSAGE sip:b@example.net SIP/2.0 ", E::StartLine),
        ("MESSAGE sip:b@example.net\tSIP/2.0", E::StartLine),
        (" MESSAGE sip:b@example.net SIP/2.0", E::Method),
        ("MES\u{7f}SAGE sip:b@example.net SIP/2.0", E::Method),
        ("MESSAGE <sip:b@example.net> SIP/2.0", E::RequestUri),
        ("MESSAGE sip:b@example.net?Route=%3Csip:x%3E SIP/2.0", E::RequestUriHeaders),
        ("MESSAGE sip:b@example.net@evil.example SIP/2.0", E::RequestUri),
        ("MESSAGE sip:b%0d%0@example.net SIP/2.0", E::RequestUri),
        ("MESSAGE sip:b@example.net:0 SIP/2.0", E::RequestUri),
        ("MESSAGE sip:b@example.net:65536 SIP/2.0", E::RequestUri),
        ("MESSAGE sip:b@ex\u{e4}mple.net SIP/2.0", E::RequestUri),
        ("MESSAGE sip:b@1.2.3.256 SIP/2.0", E::RequestUri),
        ("MESSAGE sip:b@2001:db8::1 SIP/2.0", E::RequestUri),
        ("MESSAGE sip:b@[2001:db8::1 SIP/2.0", E::RequestUri),
        ("MESSAGE sip:b@[fe80::1%25eth0] SIP/2.0", E::RequestUri),
        ("MESSAGE sip: SIP/2.0", E::RequestUri),
        ("MESSAGE sip:@h SIP/2.0", E::RequestUri),
        ("MESSAGE sip:a@h;;lr SIP/2.0", E::RequestUri),
        ("MESSAGE tel: SIP/2.0", E::RequestUri),
        ("MESSAGE tel:+ SIP/2.0", E::RequestUri),
        ("MESSAGE urn:service SIP/2.0", E::RequestUri),
        ("MESSAGE b@example.net SIP/2.0", E::RequestUri),
        ("MESSAGE sip:b@example.net SIP/2.0.0", E::StartLine),
        ("MESSAGE sip:b@example.net SIP/2", E::StartLine),
        ("MESSAGE sip:b@example.net SIP/3.0", E::Version),
        ("MESSAGE sip:b@example.net SIP/1.0", E::Version),
        ("MESSAGE sip:b@example.net SIP/02.0", E::Version),
        ("MESSAGE sip:b@example.net HTTP/1.1", E::StartLine),
        ("MESSAGE sip:b@example.net", E::StartLine),
        ("MESSAGE", E::StartLine),
        ("SIP/2.0 99 x", E::StatusCode),
        ("SIP/2.0 700 x", E::StatusCode),
        ("SIP/2.0 4294967496 x", E::StatusCode),
        ("SIP/2.0 +20 x", E::StatusCode),
        ("SIP/2.0  200 x", E::StatusCode),
        ("SIP/7.0 200 OK", E::Version),
    ];
    let good = String::from_utf8(request("", LENGTH, "")).unwrap();
    let rest = good.split_once("\r\n").unwrap().1;
    for (line, kind) in table {
        let bytes = format!("{line}\r\n{rest}");
        assert_eq!(refused(bytes.as_bytes()), kind, "{line}");
    }
    // A fold after the start line would make its sense depend on the reader.
    let folded = good.replacen("\r\n", "\r\n ", 1);
    assert_eq!(refused(folded.as_bytes()), E::StartLine);
    for fine in ["sip/2.0", "SIP/2.0", "Sip/2.0"] {
        let bytes = good.replacen("SIP/2.0", fine, 1);
        assert!(forwarded(bytes.as_bytes()).is_ok());
    }
}

/// One remote target for a dialog (RFC 3261 8.1.1.8); `*` and lists belong to REGISTER.
#[test]
fn contacts() {
    let with = |method: &str, contact: &str| {
        let text = String::from_utf8(request(contact, LENGTH, "")).unwrap();
        text.replace("MESSAGE", method).into_bytes()
    };
    let two = "Contact: <sip:a@b>, <sip:c@d>\r\n";
    let two_lines = "Contact: <sip:a@b>\r\nm: <sip:c@d>\r\n";
    for method in ["INVITE", "UPDATE", "SUBSCRIBE", "NOTIFY", "REFER"] {
        assert_eq!(refused(&with(method, two)), ErrorKind::ContactCount, "{method}");
        assert_eq!(refused(&with(method, two_lines)), ErrorKind::ContactCount, "{method}");
        assert_eq!(refused(&with(method, "Contact: *\r\n")), ErrorKind::Contact, "{method}");
    }
    assert!(forwarded(&with("REGISTER", two)).is_ok());
    assert!(forwarded(&with("REGISTER", "Contact: *\r\n")).is_ok());
    for mixed in ["*, <sip:a@b>", "<sip:a@b>, *", "*, *", "*\r\nm: <sip:a@b>"] {
        let bytes = with("REGISTER", &format!("Contact: {mixed}\r\n"));
        assert_eq!(refused(&bytes), ErrorKind::Contact, "{mixed}");
    }
    assert!(forwarded(&with("INVITE", "Contact: \"a,b\" <sip:c@d>\r\n")).is_ok());
    for bad in
        ["<sip:a@b>,", ",<sip:a@b>", "sip:a@b?x=y", "<sip:a@b", "<sip:a@b> x", "\"a <sip:a@b>"]
    {
        let bytes = with("INVITE", &format!("Contact: {bad}\r\n"));
        assert_eq!(refused(&bytes), ErrorKind::Contact, "{bad}");
    }
    let response = |code: u16| {
        let text = String::from_utf8(with("INVITE", two)).unwrap();
        text.replacen("INVITE sip:b@example.net SIP/2.0", &format!("SIP/2.0 {code} x"), 1)
    };
    assert_eq!(refused(response(200).as_bytes()), ErrorKind::ContactCount);
    assert!(Message::parse(response(302).as_bytes(), Framing::Datagram).is_ok());
}

#[test]
fn writer_refuses_what_would_break_out() {
    let attempt = |write: &dyn Fn(&mut Writer<'_>)| {
        let mut out = b"before".to_vec();
        let mut writer = Writer::new(&mut out);
        writer.request_line(b"OPTIONS", b"sip:a@b");
        write(&mut writer);
        let result = writer.finish();
        assert_eq!(out == b"before", result.is_err());
        result
    };
    let value = |v: &'static [u8]| {
        attempt(&|w| {
            w.header(HeaderName::Subject, v);
        })
    };
    assert_eq!(value(b"a\r\nRoute: <sip:evil>"), Err(WriteError::HeaderValue));
    assert_eq!(value(b"a\nb"), Err(WriteError::HeaderValue));
    assert_eq!(value(b"a\rb"), Err(WriteError::HeaderValue));
    assert_eq!(value(b"a\0b"), Err(WriteError::HeaderValue));
    assert_eq!(value(b"a\r\n b"), Ok(()));
    assert_eq!(value(b"\t a\tb \t"), Ok(()));
    let named = |n: &'static [u8]| {
        attempt(&|w| {
            w.header_named(n, b"x");
        })
    };
    assert_eq!(named(b"X-Own"), Ok(()));
    assert_eq!(named(b"X Own"), Err(WriteError::HeaderName));
    assert_eq!(named(b""), Err(WriteError::HeaderName));
    assert_eq!(named(b"Q:"), Err(WriteError::HeaderName));
    assert_eq!(named(b"l"), Err(WriteError::ContentLength));
    let line = |m: &'static [u8], u: &'static [u8]| {
        attempt(&|w| {
            w.request_line(m, u);
        })
    };
    assert_eq!(line(b"IN VITE", b"sip:a@b"), Err(WriteError::StartLine));
    assert_eq!(line(b"INVITE", b"sip:a@b SIP/2.0\r\nX: y"), Err(WriteError::StartLine));
    assert_eq!(line(b"INVITE", b""), Err(WriteError::StartLine));
    assert_eq!(
        attempt(&|w| {
            w.status_line(200, b"OK\r\nX: y");
        }),
        Err(WriteError::StartLine)
    );
    assert_eq!(
        attempt(&|w| {
            w.status_line(700, b"x");
        }),
        Err(WriteError::StartLine)
    );
    assert_eq!(
        attempt(&|w| {
            w.header_with(HeaderName::Subject, |out| out.extend(b"a\r\nX: y"));
        }),
        Err(WriteError::HeaderValue)
    );
    assert_eq!(
        attempt(&|w| {
            w.header_parts(HeaderName::Subject, &[b"a\r", b"\nX: y"]);
        }),
        Err(WriteError::HeaderValue)
    );
}
