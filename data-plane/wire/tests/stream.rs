//! Stream framing: keep-alives, pipelining, Content-Length in every bad form, bounds.

use ravelin_wire::limits::{MESSAGE_MAX_BYTES, STREAM_BUFFER_MAX_BYTES, STREAM_READ_MAX_BYTES};
use ravelin_wire::sip::{ErrorKind, Frame, Framing, Message, StreamFramer, salvage};

fn message(length_line: &str, body: &str) -> Vec<u8> {
    format!(
        "MESSAGE sip:b@example.net SIP/2.0\r\n\
         Via: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bKa\r\n\
         From: <sip:a@example.com>;tag=1\r\n\
         To: <sip:b@example.net>\r\n\
         Call-ID: c1\r\n\
         CSeq: 1 MESSAGE\r\n\
         {length_line}\r\n{body}"
    )
    .into_bytes()
}

fn good() -> Vec<u8> {
    message("Content-Length: 4\r\n", "body")
}

/// Frames of one push, as far as they go, and the error that ends them.
fn drain(stream: &[u8]) -> (Vec<Vec<u8>>, Option<ErrorKind>) {
    let mut framer = StreamFramer::new();
    framer.push(stream).unwrap();
    let mut frames = Vec::new();
    loop {
        match framer.next() {
            Ok(Some(Frame::Message(bytes))) => frames.push(bytes.to_vec()),
            Ok(Some(_)) => {}
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error.kind())),
        }
    }
}

#[test]
fn pipelined_messages_come_out_one_by_one() {
    let (frames, error) = drain(&[good(), good(), message("l: 0\r\n", "")].concat());
    assert_eq!((frames.len(), error), (3, None));
    assert_eq!(frames[0], good());
    for frame in frames {
        assert!(Message::parse(&frame, Framing::Stream).is_ok());
    }
}

/// RFC 5626 3.5.1: CRLF CRLF asks, CRLF answers; line ends between messages mean nothing else.
#[test]
fn keep_alives() {
    let mut framer = StreamFramer::new();
    framer.push(b"\r\n\r\n").unwrap();
    assert_eq!(framer.next(), Ok(Some(Frame::Pong)));
    assert_eq!(framer.next(), Ok(Some(Frame::Ping)));
    assert_eq!(framer.next(), Ok(None));
    framer.push(b"\r").unwrap();
    assert_eq!(framer.next(), Ok(None));
    framer.push(b"\n").unwrap();
    assert_eq!(framer.next(), Ok(Some(Frame::Pong)));
    framer.push(&good()).unwrap();
    assert_eq!(framer.next(), Ok(Some(Frame::Message(&good()))));
    framer.push(b"\r\n").unwrap();
    assert_eq!(framer.next(), Ok(Some(Frame::Pong)), "a message lies between the two");
    framer.push(b"\r\n").unwrap();
    assert_eq!(framer.next(), Ok(Some(Frame::Ping)));
    assert!(!framer.is_mid_message());
}

/// After each of these nobody knows where the next message starts: what follows is never read as
/// one.
#[test]
fn bad_lengths_end_the_stream() {
    use ErrorKind as E;
    let table = [
        ("", E::ContentLengthMissing),
        ("Content-Length: -1\r\n", E::ContentLength),
        ("Content-Length: 4 4\r\n", E::ContentLength),
        ("Content-Length: 4,4\r\n", E::ContentLength),
        ("Content-Length:\r\n", E::ContentLength),
        ("Content-Length: 2147483648\r\n", E::ContentLengthTooLarge),
        ("Content-Length: 4294967300\r\n", E::ContentLengthTooLarge), // 4 when cut to 32 bits
        ("Content-Length: 18446744073709551616\r\n", E::ContentLength),
        ("Content-Length: 65535\r\n", E::ContentLengthTooLarge), // the headers count too
        ("Content-Length: 4\r\nContent-Length: 4\r\n", E::DuplicateHeader),
        ("Content-Length: 4\r\nl: 0\r\n", E::DuplicateHeader),
        ("Content-Length: 4\r\nX-A\r\n", E::HeaderName),
        ("Content-Length: 4\nX-A: b\r\n", E::BareLineEnd),
        ("Content-Length: 4\r\n\nX-A: b\r\n", E::BareLineEnd),
        ("X-A: b\rContent-Length: 9\r\nContent-Length: 4\r\n", E::BareLineEnd),
        ("X-A: b\0\r\nContent-Length: 4\r\n", E::ControlCharacter),
    ];
    for (length, kind) in table {
        let stream = [good(), message(length, "body"), good()].concat();
        let (frames, error) = drain(&stream);
        assert_eq!(frames, [good()], "{length}");
        assert_eq!(error, Some(kind), "{length}");
    }
}

/// RFC 4475 3.1.2.3: the sender may be told before the connection is closed.
#[test]
fn what_broke_the_stream_can_be_answered() {
    let bad = message("Content-Length: -1\r\n", "body");
    let mut framer = StreamFramer::new();
    framer.push(&bad).unwrap();
    assert!(framer.next().is_err());
    assert_eq!(salvage(framer.pending()).unwrap().call_id, Some(&b"c1"[..]));
    assert!(framer.push(&good()).is_err());
    assert!(framer.next().is_err());
}

#[test]
fn what_is_not_sip_is_refused_at_once() {
    let mut hello = vec![0x16, 3, 1, 2, 0];
    hello.resize(100, 0);
    for junk in [&hello[..], b"\0", b"\n", b" x", b"\xff"] {
        assert_eq!(drain(junk), (vec![], Some(ErrorKind::StartLine)));
    }
    assert_eq!(drain(b"\rX").1, Some(ErrorKind::StartLine));
}

#[test]
fn the_largest_message_passes_and_one_octet_more_does_not() {
    let head = message("Content-Length: 00000\r\n", "").len();
    let body = "x".repeat(MESSAGE_MAX_BYTES - head);
    let largest = message(&format!("Content-Length: {}\r\n", body.len()), &body);
    assert_eq!(largest.len(), MESSAGE_MAX_BYTES);
    assert_eq!(drain(&largest), (vec![largest.clone()], None));
    let larger = message(&format!("Content-Length: {}\r\n", body.len() + 1), &body);
    assert_eq!(drain(&larger).1, Some(ErrorKind::ContentLengthTooLarge));
}

#[test]
fn headers_without_end_are_cut_off() {
    let mut framer = StreamFramer::new();
    let mut pushed = 0;
    let error = loop {
        framer.push(b"X-A: 0123456789abcdef0123456789abcdef\r\n").unwrap();
        pushed += 39;
        match framer.next() {
            Ok(None) => {}
            Ok(Some(frame)) => panic!("{frame:?}"),
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(error, ErrorKind::TooLarge);
    assert!(pushed <= MESSAGE_MAX_BYTES + 39);
}

#[test]
fn a_caller_that_does_not_drain_is_refused() {
    let mut framer = StreamFramer::new();
    let read = vec![b'x'; STREAM_READ_MAX_BYTES];
    let mut held = 0;
    while framer.push(&read).is_ok() {
        held += read.len();
    }
    assert!(held <= STREAM_BUFFER_MAX_BYTES);
    assert!(framer.next().is_err());
}
