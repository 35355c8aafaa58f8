//! Properties of the parsers over generated input: the invariants of the fuzz targets, and writing
//! what was generated and reading it back.

#[path = "../../../tests/fuzz/wire/invariants.rs"]
mod invariants;

use proptest::prelude::*;
use ravelin_wire::sip::{
    Framing, HeaderName, Message, NameAddr, StreamFramer, Writer, decimal, parse_date,
    split_commas, write_date,
};

/// Octets that look a little like SIP, so that the parsers get past the first line.
fn sip_like() -> impl Strategy<Value = Vec<u8>> {
    let words: &[&str] = &[
        "INVITE sip:a@b SIP/2.0",
        "SIP/2.0 200 OK",
        "SIP/2.0",
        "Via",
        "v",
        "SIP/2.0/UDP h",
        "From",
        "To",
        "<sip:a@b>",
        "sip:",
        "tel:+1",
        "urn:service:sos",
        ";tag=1",
        ";branch=z9hG4bK1",
        ";",
        "=",
        ",",
        "\"",
        "\\",
        "<",
        ">",
        ":",
        " ",
        "\t",
        "\r\n",
        "\r\n",
        "\r\n ",
        "\r",
        "\n",
        "\0",
        "Call-ID",
        "x",
        "CSeq",
        "1 INVITE",
        "Contact",
        "Content-Length",
        "l",
        "0",
        "5",
        "4294967296",
        "Content-Type",
        "multipart/mixed;boundary=q",
        "--q",
        "\r\n\r\n",
        "[::1]",
        "%41",
        "@",
        "?",
        "é",
        "Route",
        "Max-Forwards",
        "70",
        "Date",
        "P-Asserted-Identity",
    ];
    let word = prop_oneof![
        9 => proptest::sample::select(words).prop_map(|w| w.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 1..4),
    ];
    proptest::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

/// A message of the conformance set with a few octets changed, put in or taken out.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance");
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    for folder in ["rfc4475/messages", "rfc5118/messages"] {
        let mut files: Vec<_> =
            std::fs::read_dir(root.join(folder)).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        corpus.extend(files.iter().map(|file| std::fs::read(file).unwrap()));
    }
    let edits =
        proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 0..5);
    (proptest::sample::select(corpus), edits).prop_map(|(mut message, edits)| {
        for (index, octet, kind) in edits {
            let at = index.index(message.len());
            match kind {
                0 => message[at] = octet,
                1 => message.insert(at, octet),
                _ if message.len() > 1 => drop(message.remove(at)),
                _ => {}
            }
        }
        message
    })
}

/// Lines of a description, right ones and others.
fn sdp_like() -> impl Strategy<Value = Vec<u8>> {
    let lines: &[&str] = &[
        "c=IN IP4 192.0.2.1",
        "c=IN IP6 2001:db8::5",
        "c=IN IP4 0.0.0.0",
        "c=IN IP4 h.example",
        "c=IN IP4 224.2.1.1/127/3",
        "b=AS:64",
        "t=0 0",
        "a=sendonly",
        "a=inactive",
        "a=recvonly",
        "m=audio 4000 RTP/AVP 0 8",
        "m=video 0 RTP/AVP 31",
        "m=audio 4000/2 RTP/SAVP 0",
        "m=image 5000 udptl t38",
        "a=rtcp:4009",
        "a=rtcp:4009 IN IP4 10.0.0.1",
        "a=rtcp-mux",
        "a=rtpmap:0 PCMU/8000",
        "a=fmtp:101 0-16",
        "a=ptime:20",
        "a=candidate:1 1 udp 1 10.0.0.1 9 typ host",
        "a=ice-ufrag:x",
        "a=group:BUNDLE 0",
        "a=source-filter: incl IN IP4 * 10.0.0.1",
        "a=x:y",
        "i=info",
        "k=clear:x",
        "s=again",
        "z=0 0",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x",
        "junk",
    ];
    let line = proptest::sample::select(lines);
    let end = prop_oneof![8 => Just("\r\n"), 1 => Just("\n")];
    (any::<u8>(), proptest::collection::vec((line, end), 0..24)).prop_map(|(seed, lines)| {
        let mut text = vec![seed];
        text.extend_from_slice(b"v=0\r\no=- 1 2 IN IP4 10.9.9.9\r\ns=-\r\n");
        for (line, end) in lines {
            text.extend_from_slice(line.as_bytes());
            text.extend_from_slice(end.as_bytes());
        }
        text
    })
}

fn token() -> impl Strategy<Value = String> {
    "[A-Za-z0-9.!%*_+`'~-]{1,12}"
}

/// Header values as peers write them: printable, quotes closed or not at all there.
fn value() -> impl Strategy<Value = String> {
    "[!-~é世]([ \t!-~é世]{0,40}[!-~é世])?"
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn parse_is_total_and_safe_to_forward(data in prop_oneof![sip_like(), mutated()]) {
        invariants::sip_message(&data);
    }

    #[test]
    fn parse_is_total_on_noise(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        invariants::sip_message(&data);
        invariants::sip_stream(&data);
        invariants::uri(&data);
        invariants::sdp_parse(&data);
        invariants::sdp_rewrite(&data);
        invariants::rtp_rtcp_stun(&data);
    }

    #[test]
    fn small_parsers_agree_with_naive_ones(data in sip_like()) {
        invariants::uri(&data);
    }

    #[test]
    fn frames_do_not_depend_on_reads(
        messages in proptest::collection::vec(prop_oneof![
            mutated(),
            Just(b"\r\n".to_vec()),
            Just(b"\r\n\r\n".to_vec()),
            Just(b"OPTIONS sip:a SIP/2.0\r\nl: 7\r\n\r\n\r\n\r\n\r\nx".to_vec()),
        ], 0..5),
        seed in any::<u8>(),
    ) {
        let mut stream = vec![seed];
        stream.extend(messages.concat());
        invariants::sip_stream(&stream);
    }

    #[test]
    fn sdp_rewrite_is_ours_and_a_fixed_point(data in sdp_like()) {
        invariants::sdp_parse(&data[1..]);
        invariants::sdp_rewrite(&data);
    }

    #[test]
    fn what_is_written_is_read(
        method in token(),
        headers in proptest::collection::vec((token(), value()), 0..20),
        body in proptest::collection::vec(any::<u8>(), 0..200),
        number in 0u32..1 << 31,
    ) {
        prop_assume!(!method.starts_with("SIP"));
        // A name of ours would have a grammar of its own.
        let unknown = |name: &str| HeaderName::of(name.as_bytes()) == HeaderName::Other;
        prop_assume!(headers.iter().all(|(name, _)| unknown(name)));
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.request_line(method.as_bytes(), b"sip:b@example.net");
        writer.header(HeaderName::Via, b"SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa");
        writer.header(HeaderName::From, b"<sip:a@example.com>;tag=1");
        writer.header(HeaderName::To, b"<sip:b@example.net>");
        writer.header(HeaderName::CallId, b"c");
        let number_text = number.to_string();
        let cseq = [number_text.as_bytes(), b" ", method.as_bytes()];
        writer.header_parts(HeaderName::CSeq, &cseq);
        for (name, value) in &headers {
            writer.header_named(name.as_bytes(), value.as_bytes());
        }
        writer.body(None, &body).unwrap();
        let message = Message::parse(&out, Framing::Stream).unwrap();
        prop_assert_eq!(message.method().unwrap().as_bytes(), method.as_bytes());
        prop_assert_eq!(message.cseq().number, number);
        prop_assert_eq!(message.body(), &body[..]);
        let read: Vec<_> = message.headers().filter(|h| h.name == HeaderName::Other).collect();
        prop_assert_eq!(read.len(), headers.len());
        for (got, (name, value)) in read.iter().zip(&headers) {
            prop_assert_eq!(got.raw_name, name.as_bytes());
            prop_assert_eq!(got.value, value.as_bytes());
        }
    }

    #[test]
    fn name_addrs_are_read_as_built(
        display in proptest::option::of("[ -~é]{0,20}"),
        user in "[a-z0-9+;,?/&=-]{1,10}",
        params in proptest::collection::vec((token(), proptest::option::of(token())), 0..5),
    ) {
        let mut seen = std::collections::BTreeSet::new();
        prop_assume!(params.iter().all(|(name, _)| seen.insert(name.to_ascii_lowercase())));
        let escape = |d: String| d.replace('\\', "\\\\").replace('"', "\\\"");
        let quoted = display.map(|d| format!("\"{}\"", escape(d)));
        let mut text = quoted.clone().unwrap_or_default();
        text.push_str(&format!("<sip:{user}@h>"));
        for (name, value) in &params {
            text.push_str(&format!(" ;\r\n {name}"));
            if let Some(value) = value {
                text.push_str(&format!("\t= {value}"));
            }
        }
        let addr = NameAddr::parse(text.as_bytes()).unwrap();
        let (quoted, uri) = (quoted.unwrap_or_default(), format!("sip:{user}@h"));
        prop_assert_eq!(addr.display, quoted.as_bytes());
        prop_assert_eq!(addr.uri, uri.as_bytes());
        let got: Vec<_> = addr.params.iter().collect();
        let expected: Vec<_> =
            params.iter().map(|(n, v)| (n.as_bytes(), v.as_ref().map(|v| v.as_bytes()))).collect();
        prop_assert_eq!(got, expected);
        // In a list it is one element, whatever its display name and user hold.
        let list = format!("{text}, {text},{text}");
        prop_assert_eq!(split_commas(list.as_bytes()).count(), 3);
    }

    #[test]
    fn dates_come_back(unix in 0u64..253_402_300_800) {
        let mut text = Vec::new();
        write_date(unix, &mut text);
        prop_assert_eq!(parse_date(&text), Some(unix));
        prop_assert_eq!(text.len(), 29);
    }

    #[test]
    fn decimals_agree_with_the_standard_library(text in "[0-9]{0,24}") {
        prop_assert_eq!(decimal(text.as_bytes()), text.parse::<u64>().ok());
    }
}

/// A message of 50 KB that comes in one octet at a time is one frame, found at its last octet.
#[test]
fn slow_streams_are_framed_too() {
    let mut message = b"OPTIONS sip:a@b SIP/2.0\r\n".to_vec();
    for _ in 0..100 {
        message.extend_from_slice(b"X-Fill: ");
        message.resize(message.len() + 500, b'x');
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"Content-Length: 1\r\n\r\nz");
    let mut framer = StreamFramer::new();
    for (at, octet) in message.iter().enumerate() {
        framer.push(std::slice::from_ref(octet)).unwrap();
        let complete = framer.next().unwrap().is_some();
        assert_eq!(complete, at + 1 == message.len());
    }
    assert!(!framer.is_mid_message());
}
