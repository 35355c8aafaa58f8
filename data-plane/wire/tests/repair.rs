//! EM-55: what is mended in an emergency call, and what is not.

use ravelin_wire::sip::{Framing, Message, repair};

fn request(lines: &str) -> Vec<u8> {
    format!(
        "INVITE sip:911@example.net SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\n\
         From: <sip:a@b>;tag=1\r\nTo: <sip:911@example.net>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\
         {lines}Content-Length: 4\r\n\r\nbody"
    )
    .into_bytes()
}

/// The header lines of the repaired message behind CSeq, and before Content-Length.
fn mended(bytes: &[u8]) -> Option<String> {
    let mut out = b"kept".to_vec();
    if !repair(bytes, &mut out) {
        assert_eq!(out, b"kept");
        return None;
    }
    assert!(out.starts_with(b"kept"));
    let message = Message::parse(&out[4..], Framing::Datagram).ok()?;
    assert_eq!(message.body(), b"body");
    let text = String::from_utf8(message.raw().to_vec()).unwrap();
    let (_, rest) = text.split_once("CSeq: 1 INVITE\r\n").unwrap();
    Some(rest.split_once("Content-Length").unwrap().0.to_owned())
}

#[test]
fn what_a_call_can_do_without_is_left_out() {
    for (lines, left) in [
        ("", ""),
        ("Subject: a\r\n", "Subject: a\r\n"),
        ("Date: Fri, 01 Jan 2010 16:00:00 EST\r\nSubject: a\r\n", "Subject: a\r\n"),
        ("Max-Forwards: 256\r\n", ""),
        ("Max-Forwards: seventy\r\n", ""),
        ("Max-Forwards: 70\r\nMax-Forwards: 10\r\n", "Max-Forwards: 70\r\n"),
        ("Expires: 60\r\nExpires: 90\r\n", "Expires: 60\r\n"),
        ("P-Asserted-Identity: <sip:a\r\n", ""),
        ("Require: <x>\r\n", ""),
        ("From: <sip:a@b>;tag=1\r\n", ""),
        ("i: x\r\nt: <sip:911@example.net>\r\nContent-Length: 4\r\n", ""),
        ("Priority: a\u{1}b\r\n", "Priority: a?b\r\n"),
        ("Subject : a\r\n b\r\n", "Subject: a\r\n b\r\n"),
    ] {
        assert_eq!(mended(&request(lines)).as_deref(), Some(left), "{lines}");
    }
    let mut latin = request("Organization: Caf@\r\n");
    let at = latin.windows(4).position(|four| four == b"Caf@").unwrap() + 3;
    latin[at] = 0xe9;
    assert_eq!(mended(&latin).as_deref(), Some("Organization: Caf?\r\n"));
}

#[test]
fn what_a_call_is_made_of_is_not_guessed() {
    for lines in [
        "From: <sip:other@b>;tag=1\r\n",
        "Call-ID: y\r\n",
        "Content-Length: 0\r\n",
        "Via: rubbish\r\n",
        "Contact: <sip:a\r\n",
        "Route: <sip:a\r\n",
        "Content-Type: x\r\n",
        "no colon\r\n",
        "Subject: a\nRoute: <sip:evil>\r\n",
        "Subject: a\rb\r\n",
    ] {
        assert_eq!(mended(&request(lines)), None, "{lines}");
    }
    assert!(!repair(b"", &mut Vec::new()));
    assert!(!repair(b"INVITE sip:911@h SIP/2.0\r\n", &mut Vec::new()));
    assert!(!repair(&[b'x'; 70_000], &mut Vec::new()));
}
