//! Parse and rewrite of descriptions as peers send them.

use super::*;
use crate::limits::SDP_FORMAT_MAX_COUNT;

const CALL: &str = "v=0\r\n\
    o=alice 2890844526 2890844527 IN IP4 192.0.2.1\r\n\
    s=A call\r\n\
    i=unknown to us\r\n\
    c=IN IP4 192.0.2.1\r\n\
    b=AS:128\r\n\
    t=0 0\r\n\
    a=tool:x\r\n\
    m=audio 49170 RTP/AVP 0 8 101\r\n\
    a=rtpmap:0 PCMU/8000\r\n\
    a=rtpmap:101 telephone-event/8000\r\n\
    a=fmtp:101 0-16\r\n\
    a=ptime:20\r\n\
    a=sendonly\r\n\
    m=video 51372 RTP/AVPF 99\r\n\
    c=IN IP6 2001:db8::1\r\n\
    a=rtcp:53020 IN IP6 2001:db8::1\r\n\
    a=rtpmap:99 opus/48000/2\r\n\
    m=image 0 udptl t38\r\n";

fn parse(text: &str) -> Description<'_> {
    Description::parse(text.as_bytes()).unwrap()
}

fn error(text: &str) -> SdpError {
    Description::parse(text.as_bytes()).map(|_| ()).unwrap_err()
}

#[test]
fn reads_both_levels() {
    let sdp = parse(CALL);
    assert_eq!(sdp.origin().version, b"2890844527");
    assert_eq!(sdp.line(b's'), Some(&b"A call"[..]));
    let [audio, video, image] = sdp.medias() else { panic!("three media") };
    assert_eq!((audio.kind, audio.port, audio.port_count), (MediaKind::Audio, 49_170, 1));
    assert_eq!(audio.proto, b"RTP/AVP");
    assert!(audio.is_rtp());
    assert!(audio.formats().eq([&b"0"[..], b"8", b"101"]));
    assert_eq!(audio.rtcp_port(), Some(49_171));
    assert_eq!(audio.ptime_ms(), Some(20));
    assert_eq!(audio.fmtp(b"101"), Some(&b"0-16"[..]));
    assert_eq!(sdp.direction_of(audio), Direction::SendOnly);
    let events = audio.rtp_maps().nth(1).unwrap();
    assert_eq!((events.payload, events.encoding), (101, &b"telephone-event"[..]));
    assert_eq!(sdp.connection_of(audio).unwrap().address, Some("192.0.2.1".parse().unwrap()));
    assert_eq!(video.rtcp_port(), Some(53_020));
    assert_eq!(video.rtp_maps().next().unwrap().channels, 2);
    assert_eq!(sdp.connection_of(video).unwrap().address, Some("2001:db8::1".parse().unwrap()));
    assert_eq!(sdp.direction_of(video), Direction::SendRecv);
    assert_eq!((image.port, image.rtcp_port(), image.is_rtp()), (0, None, false));
}

#[test]
fn session_direction_holds_for_media_without_one() {
    let sdp = CALL.replace("a=tool:x", "a=inactive");
    let sdp = parse(&sdp);
    assert_eq!(sdp.direction_of(&sdp.medias()[0]), Direction::SendOnly);
    assert_eq!(sdp.direction_of(&sdp.medias()[1]), Direction::Inactive);
}

#[test]
fn a_direction_has_no_value() {
    let sdp = CALL.replace("a=sendonly", "a=sendonly:x");
    assert_eq!(parse(&sdp).direction_of(&parse(&sdp).medias()[0]), Direction::SendRecv);
    let mut streams = [stream(40_000), stream(40_002), stream(0)];
    streams[0].direction = Some(Direction::Inactive);
    let out = rewritten(&sdp, &with("198.51.100.7", &streams));
    assert!(out.contains("a=sendonly:x\r\na=inactive\r\n"));
    assert_eq!(parse(&out).direction_of(&parse(&out).medias()[0]), Direction::Inactive);
}

#[test]
fn rtcp_port_follows_the_attributes() {
    let port = |lines: &str| {
        let text = format!("v=0\no=- 1 1 IN IP4 h.example\nc=IN IP4 h.example\n{lines}");
        parse(&text).medias()[0].rtcp_port()
    };
    assert_eq!(port("m=audio 4000 RTP/AVP 0\n"), Some(4001));
    assert_eq!(port("m=audio 4000 RTP/AVP 0\na=rtcp-mux\n"), Some(4000));
    assert_eq!(port("m=audio 4000 RTP/AVP 0\na=rtcp:5000\na=rtcp-mux\n"), Some(5000));
    assert_eq!(port("m=audio 65535 RTP/AVP 0\n"), None);
}

#[test]
fn line_ends() {
    assert_eq!(parse(&CALL.replace("\r\n", "\n")).medias().len(), 3);
    assert_eq!(parse(CALL.trim_end()).medias().len(), 3);
    assert_eq!(parse(&format!("{CALL}\r\n\r\n")).medias().len(), 3);
    assert_eq!(error(&CALL.replace("a=tool:x", "a=tool:x\r\n")), SdpError::Line);
    assert_eq!(error(&CALL.replace("a=tool:x", "a=x\rc=IN IP4 10.0.0.1")), SdpError::Line);
    assert_eq!(error(&CALL.replace("a=tool:x", "a=x\0")), SdpError::Line);
    assert_eq!(error(&CALL.replace("a=tool:x", " a=x")), SdpError::Line);
    assert_eq!(error(&CALL.replace("a=tool:x", "a =x")), SdpError::Line);
    assert_eq!(error(&CALL.replace("a=tool:x", "A=x")), SdpError::Line);
}

#[test]
fn refuses_broken_lines() {
    let table = [
        ("v=0", "v=1", SdpError::Version),
        ("v=0\r\n", "", SdpError::Version),
        ("v=0\r\n", "v=0\r\nv=0\r\n", SdpError::Version),
        ("o=alice 2890844526 2890844527 IN IP4 192.0.2.1\r\n", "", SdpError::Origin),
        ("2890844527 IN", "x IN", SdpError::Origin),
        ("2890844527 IN IP4", "2890844527 IN IP5", SdpError::Origin),
        ("s=A call", "o=bob 1 1 IN IP4 192.0.2.2", SdpError::Origin),
        ("c=IN IP4 192.0.2.1", "c=IN IP4 192.0.2.256", SdpError::Connection),
        ("c=IN IP4 192.0.2.1", "c=IN IP4", SdpError::Connection),
        ("c=IN IP4 192.0.2.1", "c=IN IP4 2001:db8::1", SdpError::Connection),
        ("c=IN IP4 192.0.2.1", "c=IN IP4 192.0.2.1 x", SdpError::Connection),
        ("c=IN IP6 2001:db8::1", "c=IN IP6 [2001:db8::1]", SdpError::Connection),
        ("audio 49170 RTP/AVP 0 8 101", "audio 49170 RTP/AVP", SdpError::Media),
        ("audio 49170 RTP", "audio 65536 RTP", SdpError::Media),
        ("audio 49170 RTP", "audio -1 RTP", SdpError::Media),
        ("audio 49170 RTP", "audio 49170/0 RTP", SdpError::Media),
        ("audio 49170 RTP", "audio x RTP", SdpError::Media),
        ("a=rtcp:53020 IN", "a=rtcp:65536 IN", SdpError::Rtcp),
        ("a=rtcp:53020 IN IP6 2001:db8::1", "a=rtcp", SdpError::Rtcp),
        ("a=rtcp:53020 IN IP6 2001:db8::1", "a=rtcp:1 IN IP6 x y", SdpError::Rtcp),
    ];
    for (good, bad, expected) in table {
        assert!(CALL.contains(good));
        assert_eq!(error(&CALL.replacen(good, bad, 1)), expected, "{bad}");
    }
    assert_eq!(error(""), SdpError::Version);
}

#[test]
fn bounds() {
    let head = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\nc=IN IP4 192.0.2.1\r\n";
    let media = "m=audio 4000 RTP/AVP 0\r\n";
    let most = format!("{head}{}", media.repeat(SDP_MEDIA_MAX_COUNT));
    assert_eq!(parse(&most).medias().len(), SDP_MEDIA_MAX_COUNT);
    assert_eq!(error(&format!("{most}{media}")), SdpError::TooManyMedia);

    let lines = |n: usize| format!("{head}{}", "a=x\r\n".repeat(n));
    assert!(Description::parse(lines(SDP_LINE_MAX_COUNT - 3).as_bytes()).is_ok());
    assert_eq!(error(&lines(SDP_LINE_MAX_COUNT - 2)), SdpError::TooLarge);

    let line = |n: usize| format!("{head}a={}\r\n", "x".repeat(n - 2));
    assert!(Description::parse(line(SDP_LINE_MAX_BYTES).as_bytes()).is_ok());
    assert_eq!(error(&line(SDP_LINE_MAX_BYTES + 1)), SdpError::TooLarge);

    let formats = |n: usize| format!("{head}m=audio 4000 RTP/AVP{}\r\n", " 0".repeat(n));
    assert!(Description::parse(formats(SDP_FORMAT_MAX_COUNT).as_bytes()).is_ok());
    assert_eq!(error(&formats(SDP_FORMAT_MAX_COUNT + 1)), SdpError::Media);

    assert_eq!(error(&"x".repeat(SDP_MAX_BYTES + 1)), SdpError::TooLarge);
    assert_eq!(error(&"x".repeat(SDP_MAX_BYTES)), SdpError::Line);
}

fn with<'r>(address: &str, streams: &'r [StreamRewrite<'r>]) -> Rewrite<'r> {
    let address = address.parse().unwrap();
    Rewrite {
        username: b"-",
        id: 77,
        version: 3,
        address,
        streams,
        strip_keys: false,
        placeholder: false,
        lines: b"",
        tail: b"",
        inside: &[b"pbx.inside.example"],
    }
}

fn stream(port: u16) -> StreamRewrite<'static> {
    StreamRewrite { port, rtcp_port: Some(port + 1), ..StreamRewrite::default() }
}

fn rewritten(input: &str, with: &Rewrite<'_>) -> String {
    let mut out = Vec::new();
    rewrite(input.as_bytes(), with, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn rewrite_replaces_addresses_and_keeps_the_rest() {
    let streams = [stream(40_000), stream(40_002), stream(40_004)];
    let out = rewritten(CALL, &with("198.51.100.7", &streams));
    let expected = "v=0\r\n\
        o=- 77 3 IN IP4 198.51.100.7\r\n\
        s=A call\r\n\
        i=unknown to us\r\n\
        c=IN IP4 198.51.100.7\r\n\
        b=AS:128\r\n\
        t=0 0\r\n\
        a=tool:x\r\n\
        m=audio 40000 RTP/AVP 0 8 101\r\n\
        a=rtpmap:0 PCMU/8000\r\n\
        a=rtpmap:101 telephone-event/8000\r\n\
        a=fmtp:101 0-16\r\n\
        a=ptime:20\r\n\
        a=sendonly\r\n\
        m=video 40002 RTP/AVPF 99\r\n\
        c=IN IP4 198.51.100.7\r\n\
        a=rtcp:40003 IN IP4 198.51.100.7\r\n\
        a=rtpmap:99 opus/48000/2\r\n\
        m=image 0 udptl t38\r\n";
    assert_eq!(out, expected);
}

#[test]
fn rewrite_switches_the_address_family() {
    let streams = [stream(40_000), stream(40_002), stream(0)];
    let out = rewritten(CALL, &with("2001:db8:5::7", &streams));
    assert!(out.contains("o=- 77 3 IN IP6 2001:db8:5::7\r\n"));
    assert_eq!(out.matches("c=IN IP6 2001:db8:5::7\r\n").count(), 2);
    assert!(out.contains("a=rtcp:40003 IN IP6 2001:db8:5::7\r\n"));
    assert!(!out.contains("192.0.2.1") && !out.contains("2001:db8::1"));
}

#[test]
fn rewrite_refuses_streams_with_port_zero() {
    let streams = [stream(40_000), StreamRewrite::default(), stream(0)];
    let out = rewritten(CALL, &with("198.51.100.7", &streams));
    assert!(out.contains("m=video 0 RTP/AVPF 99\r\n"));
    assert!(!out.contains("a=rtcp:"), "no port to name");
}

#[test]
fn rewrite_sets_directions() {
    let mut streams = [stream(40_000), stream(40_002), stream(0)];
    streams[0].direction = Some(Direction::Inactive);
    streams[1].direction = Some(Direction::RecvOnly);
    let out = rewritten(CALL, &with("198.51.100.7", &streams));
    assert!(!out.contains("a=sendonly"));
    assert!(out.contains("a=ptime:20\r\na=inactive\r\nm=video"));
    assert!(out.contains("opus/48000/2\r\na=recvonly\r\nm=image"));
}

#[test]
fn rewrite_names_an_rtcp_port_that_is_not_the_next() {
    let sdp = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
        m=audio 4000 RTP/AVP 0\r\na=rtcp-mux\r\n";
    let muxed = StreamRewrite { port: 5000, rtcp_port: Some(5000), ..StreamRewrite::default() };
    let out = rewritten(sdp, &with("198.51.100.7", &[muxed]));
    assert!(out.ends_with("a=rtcp-mux\r\na=rtcp:5000 IN IP4 198.51.100.7\r\n"));
    let none = StreamRewrite { port: 5000, rtcp_port: None, ..StreamRewrite::default() };
    assert!(rewritten(sdp, &with("198.51.100.7", &[none])).ends_with("a=rtcp-mux\r\n"));
}

/// RFC 3264 8.4: the old way to hold stays one across the address families.
#[test]
fn rewrite_keeps_an_old_style_hold() {
    let held = CALL.replacen("c=IN IP4 192.0.2.1", "c=IN IP4 0.0.0.0", 1);
    let streams = [stream(40_000), stream(40_002), stream(0)];
    let out = rewritten(&held, &with("198.51.100.7", &streams));
    assert!(out.contains("\r\nc=IN IP4 0.0.0.0\r\n"));
    assert!(out.contains("c=IN IP4 198.51.100.7\r\na=rtcp"));
    let out = rewritten(&held, &with("2001:db8:5::7", &streams));
    assert!(out.contains("\r\nc=IN IP6 ::\r\n"));
}

#[test]
fn rewrite_leaves_no_address_of_the_other_leg() {
    let sdp = "v=0\no=carol 28908 28908 IN IP4 10.1.1.1\ns= \nc=IN IP4 10.1.1.1\n\
        c=IN IP4 10.1.1.2\nt=0 0\na=group:BUNDLE 0\na=ice-lite\na=ice-options:trickle\n\
        a=source-filter: incl IN IP4 * 10.1.1.3\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\nc=IN IP4 10.1.1.4/127\nc=IN IP4 10.1.1.5\n\
        a=rtcp:9 IN IP4 10.1.1.6\na=rtcp:11 IN IP4 10.1.1.7\n\
        a=candidate:1 1 udp 2130706431 10.1.1.8 8998 typ host\n\
        a=remote-candidates:1 10.1.1.9 8998\na=end-of-candidates\na=ice-ufrag:8hhY\na=ice-pwd:x\n\
        a=fingerprint:sha-256 19:E2\na=setup:actpass\na=x-vendor:kept\n";
    let streams = [stream(40_000)];
    let out = rewritten(sdp, &with("198.51.100.7", &streams));
    assert!(!out.contains("10.1.1."), "{out}");
    assert!(!out.contains("carol"));
    assert_eq!(out.matches("c=IN").count(), 2);
    assert_eq!(out.matches("a=rtcp:").count(), 1);
    for kept in ["a=fingerprint:sha-256 19:E2\r\n", "a=setup:actpass\r\n", "a=x-vendor:kept\r\n"] {
        assert!(out.contains(kept), "{out}");
    }
    assert!(!out.contains("BUNDLE") && !out.contains("ice-"));
}

#[test]
fn rewrite_adds_what_the_grammar_demands() {
    let sdp = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0\r\n";
    let out = rewritten(sdp, &with("198.51.100.7", &[stream(40_000)]));
    assert!(out.starts_with("v=0\r\no=- 77 3 IN IP4 198.51.100.7\r\ns=-\r\nc="));
    assert!(out.contains("t=0 0\r\nm=audio"));
    let empty = sdp.replace("c=", "s=\r\nc=");
    assert_eq!(rewritten(&empty, &with("198.51.100.7", &[stream(40_000)])), out);
}

#[test]
fn rewrite_refuses_and_leaves_the_buffer_alone() {
    let refuse = |sdp: &str, with: &Rewrite<'_>| {
        let mut out = b"x".to_vec();
        let result = rewrite(sdp.as_bytes(), with, &mut out);
        assert_eq!(out, b"x");
        result.unwrap_err()
    };
    let two = [stream(40_000), stream(40_002)];
    let three = [stream(40_000), stream(40_002), stream(40_004)];
    let address = "198.51.100.7";
    assert_eq!(refuse(CALL, &with(address, &two)), RewriteError::StreamCount);
    let lonely = CALL.replacen("c=IN IP4 192.0.2.1\r\n", "", 1);
    assert_eq!(refuse(&lonely, &with(address, &three)), RewriteError::NoConnection);
    let many = CALL.replace("audio 49170 ", "audio 49170/2 ");
    assert_eq!(refuse(&many, &with(address, &three)), RewriteError::PortCount);
    for username in [&b""[..], b"a b", b"a\r\nc=IN IP4 10.0.0.1"] {
        let bad = Rewrite { username, ..with(address, &three) };
        assert_eq!(refuse(CALL, &bad), RewriteError::Username);
    }
    let broken = CALL.replace("v=0", "v=1");
    assert_eq!(refuse(&broken, &with(address, &three)), RewriteError::Sdp(SdpError::Version));
}

#[test]
fn fingerprints_of_both_levels() {
    let body =
        b"v=0\r\na=fingerprint:sha-256 19:E2\r\nm=audio 9 RTP/SAVP 0\na=fingerprint:sha-1 AA\n\
        a=x-fingerprint:no\na=fingerprint\n";
    assert!(super::fingerprints(body).eq([&b"sha-256 19:E2"[..], b"sha-1 AA"]));
    assert_eq!(super::fingerprints(b"").count(), 0);
}

/// Found by fuzzing: CRs at the very end are line ends to some reader.
#[test]
fn bare_cr_at_the_end_is_refused() {
    let body = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\nm=audio 9 RTP/AVP 0";
    for (end, ok) in [
        ("", true),
        ("\r", true),
        ("\r\n", true),
        ("\n\n", true),
        ("\r\n\r\n\n", true),
        ("\r\n\r", false),
        ("\r\n\r\r", false),
        ("\n\r\r\n", false),
        ("\r\r\n", false),
    ] {
        assert_eq!(Description::parse(format!("{body}{end}").as_bytes()).is_ok(), ok, "{end:?}");
    }
}

/// Nothing of a description names the side that it came from (features 1, row 7).
#[test]
fn no_host_of_the_other_side_is_left() {
    let sdp = "v=0\r\no=bob 1 1 IN IP4 10.1.1.1\r\ns=call on pbx.inside.example\r\n\
        i=made by pbx.inside.example\r\nu=http://www.inside.example/a.pdf\r\n\
        e=bob@inside.example (Bob)\r\np=+1 313 555 0100\r\nc=IN IP4 10.1.1.2\r\nb=AS:64\r\n\
        t=0 0\r\nk=uri:https://keys.inside.example/1\r\na=tool:pbx 1.2\r\na=x-from:10.1.1.1:99\r\n\
        m=audio 5004 RTP/AVP 0\r\ni=from PBX.inside.example\r\nc=IN IP4 10.1.1.3/127\r\nk=prompt\r\n\
        a=ssrc:1 cname:bob@10.1.1.3\r\na=fmtp:0 v=10.1.1.33\r\n";
    let streams = [stream(40_000)];
    let mut out = Vec::new();
    rewrite(sdp.as_bytes(), &with("198.51.100.7", &streams), &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "v=0\r\no=- 77 3 IN IP4 198.51.100.7\r\ns=-\r\ni=made by 198.51.100.7\r\n\
         c=IN IP4 198.51.100.7\r\nb=AS:64\r\nt=0 0\r\na=tool:pbx 1.2\r\n\
         a=x-from:198.51.100.7:99\r\nm=audio 40000 RTP/AVP 0\r\ni=from 198.51.100.7\r\n\
         c=IN IP4 198.51.100.7\r\na=ssrc:1 cname:bob@198.51.100.7\r\na=fmtp:0 v=10.1.1.33\r\n"
    );
}

/// Found by fuzzing: what a peer calls its host stood across the type of a line, and the line that went
/// out was none.
#[test]
fn the_type_of_a_line_is_no_name() {
    let sdp = "v=0\r\no=- 1 1 IN IP4 a=x:\r\ns=-\r\nc=IN IP4 10.1.1.2\r\nt=0 0\r\n\
        a=x:/1\r\nm=audio 5004 RTP/AVP 0\r\na=x:/2\r\n";
    let streams = [stream(40_000)];
    let out = rewritten(sdp, &with("198.51.100.7", &streams));
    assert!(out.contains("\r\na=x:/1\r\n") && out.ends_with("\r\na=x:/2\r\n"), "{out}");
    parse(&out);
}

/// Found by fuzzing: a time line that names another side's address went without a successor.
#[test]
fn a_time_line_that_is_left_out_is_replaced() {
    let sdp = "v=0\r\no=- 1 1 IN IP4 10.1.1.1\r\ns=-\r\nc=IN IP4 10.1.1.2\r\n\
        t=0 0 udp 10.0.1.1 typ host\r\nm=audio 5004 RTP/AVP 0\r\n";
    let streams = [stream(40_000)];
    let out = rewritten(sdp, &with("2001:db8::9", &streams));
    assert!(!out.contains("10.0.1.1"), "{out}");
    assert!(out.contains("\r\nt="), "{out}");
    assert_eq!(rewritten(&out, &with("2001:db8::9", &streams)), out);
}

/// RFC 3264 6, 8.2: of a refused stream nothing but its place is told.
#[test]
fn a_refused_stream_says_nothing() {
    let sdp = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\n\
        m=message 2855 TCP/MSRP *\r\nc=IN IP4 192.0.2.1\r\na=path:msrp://192.0.2.4:2855/x;tcp\r\n\
        a=mid:0\r\nm=audio 0 RTP/AVP 111 0\r\nc=IN IP4 192.0.2.1\r\na=bundle-only\r\na=mid:1\r\n\
        a=rtpmap:111 opus/48000/2\r\na=crypto:1 X inline:y\r\nm=audio 5000 RTP/AVP 0\r\n\
        c=IN IP4 192.0.2.1\r\na=mid:2\r\na=rtcp-mux-only\r\na=rtcp-mux\r\n\
        a=alt:1 1 : a b 192.0.2.9 5000\r\n";
    let kept = StreamRewrite { rtcp_mux: Some(true), ..stream(40_004) };
    let out = rewritten(sdp, &with("198.51.100.7", &[stream(0), stream(40_002), kept]));
    assert_eq!(
        out,
        "v=0\r\no=- 77 3 IN IP4 198.51.100.7\r\ns=-\r\nt=0 0\r\nm=message 0 TCP/MSRP *\r\n\
         c=IN IP4 198.51.100.7\r\na=mid:0\r\nm=audio 0 RTP/AVP 111 0\r\nc=IN IP4 198.51.100.7\r\n\
         a=mid:1\r\nm=audio 40004 RTP/AVP 0\r\nc=IN IP4 198.51.100.7\r\na=mid:2\r\na=rtcp-mux\r\n"
    );
}

#[test]
fn rewrite_puts_our_keys_in_place_of_theirs() {
    let sdp = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
        a=fingerprint:sha-256 19:E2\r\na=setup:actpass\r\na=tls-id:abc\r\n\
        m=audio 5000 UDP/TLS/RTP/SAVPF 0\r\na=crypto:1 AES inline:theirs\r\na=setup:active\r\n\
        a=key-mgmt:mikey AQ\r\na=connection:new\r\na=ptime:20\r\n";
    let ours = StreamRewrite {
        proto: Some(b"RTP/SAVPF"),
        lines: b"a=crypto:7 AES inline:ours\r\n",
        ..stream(40_000)
    };
    let streams = [ours];
    let secret = Rewrite { strip_keys: true, lines: b"a=ice-lite\r\n", ..with("::1", &streams) };
    assert_eq!(
        rewritten(sdp, &secret),
        "v=0\r\no=- 77 3 IN IP6 ::1\r\ns=-\r\nc=IN IP6 ::1\r\nt=0 0\r\na=ice-lite\r\n\
         m=audio 40000 RTP/SAVPF 0\r\na=ptime:20\r\na=crypto:7 AES inline:ours\r\n"
    );
}

#[test]
fn a_stream_without_a_name_gets_the_one_of_the_offer() {
    let sdp = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
        m=audio 5000 RTP/AVP 0\r\nm=audio 5010 RTP/AVP 0\r\na=mid:own\r\nm=video 0 RTP/AVP 96\r\n";
    let named = |mid: &'static [u8], port| StreamRewrite { mid: Some(mid), ..stream(port) };
    let streams = [named(b"0", 40_000), named(b"1", 40_002), named(b"2", 0)];
    let text = rewritten(sdp, &with("::1", &streams));
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("a=mid")).collect();
    assert_eq!(lines, ["a=mid:0", "a=mid:own", "a=mid:2"], "{text}");
    assert!(text.ends_with("m=video 0 RTP/AVP 96\r\na=mid:2\r\n"), "{text}");
}

#[test]
fn payload_types_get_new_numbers_wherever_they_stand() {
    let sdp = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
        m=audio 5000 RTP/AVP 0 96 97 98\r\na=rtpmap:96 telephone-event/8000\r\na=fmtp:96 0-16\r\n\
        a=rtpmap:97 red/8000\r\na=fmtp:97 96/0/96\r\na=rtpmap:98 rtx/8000\r\n\
        a=fmtp:98 rtx-time=200; apt=96;x=96\r\na=rtcp-fb:* nack\r\na=rtcp-fb:96 nack pli\r\n\
        a=ptime:96\r\n";
    let mut map: [u8; 128] = std::array::from_fn(|at| u8::try_from(at).unwrap());
    map[96] = 101;
    map[97] = 127;
    let streams = [StreamRewrite { payloads: Some(&map), ..stream(40_000) }];
    let out = rewritten(sdp, &with("198.51.100.7", &streams));
    let expected = "m=audio 40000 RTP/AVP 0 101 127 98\r\na=rtpmap:101 telephone-event/8000\r\n\
        a=fmtp:101 0-16\r\na=rtpmap:127 red/8000\r\na=fmtp:127 101/0/101\r\na=rtpmap:98 rtx/8000\r\n\
        a=fmtp:98 rtx-time=200; apt=101;x=96\r\na=rtcp-fb:* nack\r\na=rtcp-fb:101 nack pli\r\n\
        a=ptime:96\r\n";
    assert_eq!(out.split_once("t=0 0\r\n").unwrap().1, expected);
}

/// RFC 3264 6: an answer has as many streams as the offer.
#[test]
fn streams_that_are_missing_are_added_refused() {
    let tail = b"m=video 0 RTP/AVP 99\r\n";
    let streams = [stream(40_000), stream(40_002), stream(0)];
    let with = Rewrite { tail, ..with("198.51.100.7", &streams) };
    let out = rewritten(CALL, &with);
    let out = parse(&out);
    assert_eq!(out.medias().len(), 4);
    assert_eq!((out.medias()[3].kind, out.medias()[3].port), (MediaKind::Video, 0));
}
