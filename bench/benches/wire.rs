//! SIP parse and write, SDP parse and rewrite: nanoseconds per message and octets per second.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ravelin_bench::{
    messages::{BYE, OK, invite},
    work::{parse_and_read, rewrite_sdp, write},
};
use ravelin_wire::{
    demux, rtp,
    sdp::Description,
    sip::{Framing, Message, StreamFramer},
};

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
    let mut out = Vec::with_capacity(1024);
    group.bench_function("rewrite", |b| {
        b.iter(|| {
            out.clear();
            rewrite_sdp(body, &mut out);
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
