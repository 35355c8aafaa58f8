//! SIP parse and write, SDP parse and rewrite: nanoseconds per message and octets per second.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ravelin_wire::sdp::{Description, Rewrite, StreamRewrite, rewrite};
use ravelin_wire::sip::{Framing, HeaderName, Message, StartLine, StreamFramer, Writer};
use ravelin_wire::{demux, rtp};

/// An INVITE as a trunk sends it: 984 octets with SDP.
fn invite() -> Vec<u8> {
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

const OK: &[u8] = b"SIP/2.0 200 OK\r\n\
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

const BYE: &[u8] = b"BYE sip:+13135550123@203.0.113.9:5060 SIP/2.0\r\n\
    Via: SIP/2.0/UDP 203.0.113.77:5060;branch=z9hG4bK-524287-1---3a1d5a7c0b3e2d42;rport\r\n\
    Max-Forwards: 70\r\n\
    From: <sip:+13135550100@carrier.example.net>;tag=9fxced76sl\r\n\
    To: <sip:+13135550123@sbc.example.com>;tag=as58f4201b\r\n\
    Call-ID: 3848276298220188511@203.0.113.77\r\n\
    CSeq: 2 BYE\r\n\
    Content-Length: 0\r\n\r\n";

/// Parses, then reads what an SBC needs of an INVITE: dialog and transaction identifiers, target,
/// identity, body.
fn parse_and_read(bytes: &[u8]) -> usize {
    let message = Message::parse(bytes, Framing::Datagram).unwrap();
    let target = message.target();
    let contact = message.contact();
    message.call_id().len()
        + message.from().tag().map_or(0, <[u8]>::len)
        + message.to().tag().map_or(0, <[u8]>::len)
        + message.top_via().branch.map_or(0, <[u8]>::len)
        + usize::from(message.max_forwards().unwrap_or(70))
        + target.and_then(|uri| uri.user).map_or(0, <[u8]>::len)
        + contact.map_or(0, |contact| contact.uri.len())
        + message.values(HeaderName::PAssertedIdentity).map(<[u8]>::len).sum::<usize>()
        + usize::from(message.lists(HeaderName::Supported, b"100rel"))
        + message.content().map_or(0, |content| content.subtype.len())
        + message.body().len()
}

fn write(message: &Message<'_>, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out);
    match message.start() {
        StartLine::Request { method, uri } => writer.request_line(method.as_bytes(), uri),
        StartLine::Response { code, reason } => writer.status_line(code, reason),
    };
    for header in message.headers() {
        if header.name != HeaderName::ContentLength {
            writer.header_named(header.raw_name, header.value);
        }
    }
    writer.body(None, message.body()).unwrap();
}

fn sip(c: &mut Criterion) {
    let invite = invite();
    let messages = [("invite_sdp", &invite[..]), ("200_sdp", OK), ("bye", BYE)];
    let mut group = c.benchmark_group("sip_parse");
    for (name, bytes) in messages {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |b| b.iter(|| parse_and_read(black_box(bytes))));
    }
    group.finish();

    let mut group = c.benchmark_group("sip_write");
    for (name, bytes) in messages {
        let message = Message::parse(bytes, Framing::Datagram).unwrap();
        let mut out = Vec::with_capacity(2048);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                write(black_box(&message), &mut out);
                out.len()
            });
        });
    }
    group.finish();

    let stream = [&invite[..], BYE, OK].concat();
    let mut group = c.benchmark_group("sip_stream");
    group.throughput(Throughput::Bytes(stream.len() as u64));
    group.bench_function("three_messages", |b| {
        let mut framer = StreamFramer::new();
        b.iter(|| {
            framer.push(black_box(&stream)).unwrap();
            let mut frames = 0;
            while let Ok(Some(frame)) = framer.next() {
                black_box(frame);
                frames += 1;
            }
            assert_eq!(frames, 3);
        });
    });
    group.finish();
}

fn sdp(c: &mut Criterion) {
    let invite = invite();
    let body = Message::parse(&invite, Framing::Datagram).unwrap().body();
    let mut group = c.benchmark_group("sdp");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("parse", |b| {
        b.iter(|| Description::parse(black_box(body)).unwrap().medias().len());
    });
    let streams = [StreamRewrite { port: 40_000, rtcp_port: Some(40_001), direction: None }];
    let with = Rewrite {
        username: b"-",
        id: 1_718_280_192,
        version: 1,
        address: "198.51.100.7".parse().unwrap(),
        streams: &streams,
        strip_ice: true,
        inside: &[b"192.0.2.1", b"198.51.100.1"],
    };
    let mut out = Vec::with_capacity(1024);
    group.bench_function("rewrite", |b| {
        b.iter(|| {
            out.clear();
            rewrite(black_box(body), &with, &mut out).unwrap();
            out.len()
        });
    });
    group.finish();
}

fn media(c: &mut Criterion) {
    let mut packet = vec![0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4];
    packet.resize(172, 0xff);
    let mut group = c.benchmark_group("rtp");
    group.bench_function("demux_and_header", |b| {
        b.iter(|| {
            let packet = black_box(&packet[..]);
            (demux::first_byte(packet), rtp::Header::parse(packet).unwrap().sequence)
        });
    });
    group.finish();
}

criterion_group!(benches, sip, sdp, media);
criterion_main!(benches);
