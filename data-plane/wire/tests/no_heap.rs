//! Parsing takes nothing from the heap, whatever the message; writing takes only what the caller's
//! buffer grows by.

use allocation_counter::measure;
use ravelin_wire::sdp::{Description, Rewrite, StreamRewrite, rewrite};
use ravelin_wire::sip::{Framing, HeaderName, Message, StreamFramer, Uri, Writer, salvage};
use ravelin_wire::{demux, rtcp, rtp, stun};

fn corpus() -> Vec<Vec<u8>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance");
    let folders = ["rfc4475/messages", "rfc5118/messages"];
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap());
    files.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
}

fn heap_uses(run: impl FnOnce()) -> u64 {
    measure(run).count_total
}

#[test]
fn the_counter_counts() {
    assert_eq!(heap_uses(|| drop(std::hint::black_box(vec![1u8; 64]))), 1);
}

#[test]
fn parsing_and_reading_use_no_heap() {
    for bytes in corpus() {
        let uses = heap_uses(|| {
            let Ok(message) = Message::parse(&bytes, Framing::Datagram) else {
                let _ = salvage(&bytes).map(|salvage| salvage.vias().count());
                return;
            };
            let _ = (message.contact(), message.top_via(), message.from().tag());
            let _ = message.request_uri().and_then(Uri::parse).map(|uri| uri.host_ip());
            let _ = message.values(HeaderName::Via).count();
            let _ = message.lists(HeaderName::Supported, b"timer");
            let sdp = message
                .content()
                .and_then(|content| content.find_part(message.body(), b"application", b"sdp"));
            if let Some(Ok(sdp)) = sdp.map(|part| Description::parse(part.body)) {
                for media in sdp.medias() {
                    let _ = (sdp.connection_of(media), sdp.direction_of(media));
                    let _ = (media.rtcp_port(), media.rtp_maps().count());
                }
            }
        });
        assert_eq!(uses, 0, "{}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn media_views_use_no_heap() {
    let packet = [0x80, 8, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 9, 9, 9, 9];
    let mut check = Vec::new();
    stun::Writer::binding(&mut check, stun::Class::Request, [1; 12])
        .attribute(stun::attribute::USERNAME, b"abcd:wxyz")
        .attribute(0x7fff, b"")
        .integrity(|_| [0; 20])
        .finish();
    let uses = heap_uses(|| {
        let _ = demux::first_byte(&packet);
        let _ = rtp::Header::parse(&packet);
        let _ = rtcp::Compound::parse(&packet).map(|c| c.packets().count());
        let _ = stun::Message::parse(&packet);
        let message = stun::Message::parse(&check).unwrap();
        assert!(stun::Check::read(&message).is_ok() && message.integrity().is_some());
    });
    assert_eq!(uses, 0);
}

#[test]
fn writing_into_a_grown_buffer_uses_no_heap() {
    let sdp = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
        m=audio 4000 RTP/AVP 0\r\na=rtcp:4001\r\n";
    let streams = [StreamRewrite { port: 5000, rtcp_port: Some(5001), ..StreamRewrite::default() }];
    let address = "2001:db8::1".parse().unwrap();
    let with = Rewrite {
        username: b"-",
        id: 1,
        version: 2,
        address,
        streams: &streams,
        strip_keys: true,
        placeholder: false,
        lines: b"",
        tail: b"",
        inside: &[b"pbx.example"],
    };
    let mut body = Vec::with_capacity(1024);
    let mut out = Vec::with_capacity(4096);
    let uses = heap_uses(|| {
        rewrite(sdp, &with, &mut body).unwrap();
        let mut writer = Writer::new(&mut out);
        writer.request_line(b"INVITE", b"sip:a@b");
        writer.header(HeaderName::From, b"\"folded\r\n name\" <sip:a@b>");
        writer.header_number(HeaderName::MaxForwards, 69);
        writer.body(Some(b"application/sdp"), &body).unwrap();
    });
    assert_eq!(uses, 0);
}

#[test]
fn a_framer_at_work_uses_no_heap() {
    let message = b"OPTIONS sip:a@b SIP/2.0\r\nl: 4\r\n\r\nbody";
    let mut framer = StreamFramer::new();
    for _ in 0..3 {
        framer.push(message).unwrap();
        while framer.next().unwrap().is_some() {}
    }
    let uses = heap_uses(|| {
        for _ in 0..100 {
            framer.push(message).unwrap();
            while framer.next().unwrap().is_some() {}
        }
    });
    assert_eq!(uses, 0);
}
