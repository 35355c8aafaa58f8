//! The messages that are parsed and written.

/// An INVITE as a trunk sends it: 984 octets with SDP.
///
/// # Panics
/// If the text below has changed its length.
#[must_use]
pub fn invite() -> Vec<u8> {
    let sdp = "v=0\r\n\
        o=- 1718280192 1718280193 IN IP4 203.0.113.77\r\n\
        s=-\r\n\
        c=IN IP4 203.0.113.77\r\n\
        t=0 0\r\n\
        m=audio 16384 RTP/AVP 0 8 101\r\n\
        a=rtpmap:0 PCMU/8000\r\n\
        a=rtpmap:8 PCMA/8000\r\n\
        a=rtpmap:101 telephone-event/8000\r\n\
        a=fmtp:101 0-16\r\n\
        a=ptime:20\r\n\
        a=sendrecv\r\n";
    let head = "INVITE sip:+13135550123@sbc.example.com:5060;user=phone SIP/2.0\r\n\
        Via: SIP/2.0/UDP 203.0.113.77:5060;rport;branch=z9hG4bK-524287-1---8f1d5a7c0b3e2d41\r\n\
        Max-Forwards: 70\r\n\
        From: \"Alice Example\" <sip:+13135550100@carrier.example.net;user=phone>;tag=9fxced\r\n\
        To: <sip:+13135550123@sbc.example.com;user=phone>\r\n\
        Call-ID: 3848276298220188511@203.0.113.77\r\n\
        CSeq: 1 INVITE\r\n\
        Contact: <sip:+13135550100@203.0.113.77:5060;transport=udp>\r\n\
        Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, UPDATE, PRACK, INFO\r\n\
        Supported: timer, 100rel\r\n\
        P-Asserted-Identity: <sip:+13135550100@carrier.example.net>\r\n";
    let type_and_length =
        format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n", sdp.len());
    let fixed = head.len() + type_and_length.len() + sdp.len();
    // Filled up to the round figure by the product name.
    let agent = format!("User-Agent: {:x<1$}\r\n", "Trunk/1.0-", 984 - fixed - 14);
    let message = format!("{head}{agent}{type_and_length}{sdp}").into_bytes();
    assert_eq!(message.len(), 984);
    message
}

/// A 200 to an INVITE, with SDP.
pub const OK: &[u8] = b"SIP/2.0 200 OK\r\n\
    Via: SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bK0000000001a2b3c4d5e6f70819\r\n\
    From: <sip:+13135550100@198.51.100.7>;tag=0000000001a2b3c4d5\r\n\
    To: <sip:+13135550123@203.0.113.9>;tag=as58f4201b\r\n\
    Call-ID: 00f3a9b1c2d3e4f5\r\n\
    CSeq: 1 INVITE\r\n\
    Contact: <sip:+13135550123@203.0.113.9:5060>\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 129\r\n\r\n\
    v=0\r\no=- 20518 0 IN IP4 203.0.113.9\r\ns=-\r\nc=IN IP4 203.0.113.9\r\nt=0 0\r\n\
    m=audio 30000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\n";

/// A BYE.
pub const BYE: &[u8] = b"BYE sip:+13135550123@203.0.113.9:5060 SIP/2.0\r\n\
    Via: SIP/2.0/UDP 203.0.113.77:5060;branch=z9hG4bK-524287-1---3a1d5a7c0b3e2d42;rport\r\n\
    Max-Forwards: 70\r\n\
    From: <sip:+13135550100@carrier.example.net>;tag=9fxced76sl\r\n\
    To: <sip:+13135550123@sbc.example.com>;tag=as58f4201b\r\n\
    Call-ID: 3848276298220188511@203.0.113.77\r\n\
    CSeq: 2 BYE\r\n\
    Content-Length: 0\r\n\r\n";
