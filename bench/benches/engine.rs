//! The engine in memory: one whole call from INVITE to the answer to BYE, and one relayed packet.
//! Allocated by what the product is linked with.

use std::{hint::black_box, net::SocketAddr, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ravelin_bench::rig::{ACCESS, CALLEE, CALLER, CORE, Rig, answer, sdp};
use ravelin_engine::port::{Local, MediaPortId, Meta};
use ravelin_wire::sip::{Framing, Message};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn whole_call(c: &mut Criterion) {
    let mut rig = Rig::new();
    // Tables reach their working size after 64*T1.
    for _ in 0..40_000 {
        rig.call();
    }
    c.bench_function("engine/whole_call", |b| {
        b.iter_custom(|calls| (0..calls).map(|_| rig.call().0).sum());
    });
}

fn relay(c: &mut Criterion) {
    let mut rig = Rig::new();
    let mut ports = Vec::new();
    let mut spent = Duration::ZERO;
    for call in 0..500_u16 {
        let body = sdp("127.0.1.1", 10_000 + call * 2);
        let invite = format!(
            "INVITE sip:service@127.0.0.10 SIP/2.0\r\nVia: SIP/2.0/UDP {CALLER};branch=z9hG4bK-{call}\r\n\
             From: <sip:a@{CALLER}>;tag={call}\r\nTo: <sip:service@127.0.0.10>\r\n\
             Call-ID: relay-{call}\r\nCSeq: 1 INVITE\r\nContact: <sip:a@{CALLER}>\r\n\
             Max-Forwards: 70\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        rig.feed(CALLER, ACCESS, invite.as_bytes(), &mut spent);
        let invite = rig.sent(CALLEE, "INVITE ");
        let ok = answer(&invite, 200, &sdp("127.0.2.1", 10_000 + call * 2));
        rig.feed(CALLEE, CORE, ok.as_bytes(), &mut spent);
        let ok = rig.sent(CALLER, "SIP/2.0 200 ");
        let ok = Message::parse(&ok, Framing::Datagram).expect("valid");
        let text = std::str::from_utf8(ok.body()).expect("text");
        let port = text.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next());
        let port: u16 = port.expect("there").parse().expect("number");
        let local = SocketAddr::from(([127, 0, 0, 10], port));
        let id = rig.engine.media_ports().iter().position(|spec| spec.addr == local);
        let id = MediaPortId(u32::try_from(id.expect("ours")).expect("few"));
        ports.push((id, SocketAddr::from(([127, 0, 1, 1], 10_000 + call * 2))));
    }
    let mut packet = vec![0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4];
    packet.resize(172, 0xff);
    let mut group = c.benchmark_group("engine/relay");
    group.throughput(Throughput::Elements(1));
    for streams in [1, 500] {
        group.bench_function(format!("{streams}_streams"), |b| {
            let now = rig.now();
            let mut next = 0;
            b.iter(|| {
                let (port, source) = ports[next];
                next = (next + 1) % streams;
                if rig.tx.len() == 64 {
                    rig.tx.clear();
                }
                let meta = Meta { source, local: Local::Media { port } };
                rig.engine.receive(now, meta, black_box(&packet), &mut rig.tx)
            });
        });
    }
    // As calls send: each packet has the next number and time of its stream, 20 ms apart.
    let mut numbers = vec![0_u16; ports.len()];
    let mut now = rig.now();
    for streams in [1, 500] {
        group.bench_function(format!("{streams}_streams_in_sequence"), |b| {
            let apart = 20_000_000 / streams as u64;
            let mut next = 0;
            b.iter(|| {
                let (port, source) = ports[next];
                let number = numbers[next].wrapping_add(1);
                numbers[next] = number;
                packet[2..4].copy_from_slice(&number.to_be_bytes());
                packet[4..8].copy_from_slice(&(u32::from(number) * 160).to_be_bytes());
                now.mono.0 += apart;
                next = (next + 1) % streams;
                if rig.tx.len() == 64 {
                    rig.tx.clear();
                }
                let meta = Meta { source, local: Local::Media { port } };
                rig.engine.receive(now, meta, black_box(&packet), &mut rig.tx)
            });
        });
    }
    group.finish();
    assert!(rig.engine.counters().rtp_packets > 0);
}

criterion_group!(benches, whole_call, relay);
criterion_main!(benches);
