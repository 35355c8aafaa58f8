//! Cost of protecting and opening one packet (172 octets: 20 ms of G.711) under each suite, against
//! the operations of aws-lc alone on the same octets in the same run. The difference between `seal`
//! and `raw` is ours: header, index, replay window, copies.
//!
//! `raw/hmac_sha1/*` compares the ways to HMAC that aws-lc-rs offers: one call with a key that was
//! prepared (what the crate does), a context in two parts, and a key that is prepared each time.

use std::hint::black_box;

use aws_lc_rs::{
    aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey},
    hmac,
};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ravelin_srtp::{Keys, MasterKey, Opener, Sealer, Suite};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PACKET_BYTES: usize = 172;
const HEADER_BYTES: usize = 12;

fn packet(sequence: u16) -> [u8; PACKET_BYTES] {
    let mut packet = [0x55; PACKET_BYTES];
    packet[0] = 0x80;
    packet[1] = 8;
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet[8..12].copy_from_slice(&7_u32.to_be_bytes());
    packet
}

fn keys(suite: Suite) -> Keys {
    Keys::single(MasterKey::new(suite, &vec![3; suite.keying_bytes()]).expect("a key"))
}

fn raw(c: &mut Criterion) {
    let mut group = c.benchmark_group("srtp/raw");
    for (name, algorithm, length) in [("aes128_ctr", &AES_128, 16), ("aes256_ctr", &AES_256, 32)] {
        let key = UnboundCipherKey::new(algorithm, &vec![3; length]).expect("a key");
        let key = EncryptingKey::ctr(key).expect("a key");
        let mut data = packet(1);
        group.bench_function(name, |b| {
            b.iter(|| {
                let counter = EncryptionContext::Iv128([9; 16].into());
                key.less_safe_encrypt(black_box(&mut data[HEADER_BYTES..]), counter)
            });
        });
    }
    for (name, algorithm, length) in
        [("aes128_gcm", &AES_128_GCM, 16), ("aes256_gcm", &AES_256_GCM, 32)]
    {
        let key = UnboundKey::new(algorithm, &vec![3; length]).expect("a key");
        let key = LessSafeKey::new(key);
        let mut data = packet(1);
        group.bench_function(name, |b| {
            b.iter(|| {
                let (clear, payload) = data.split_at_mut(HEADER_BYTES);
                let nonce = Nonce::assume_unique_for_key([9; 12]);
                key.seal_in_place_separate_tag(nonce, Aad::from(&*clear), black_box(payload))
                    .expect("sealed")
            });
        });
    }
    // The packet and its rollover counter.
    let mut data = packet(1).to_vec();
    data.extend([0; 4]);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &[3; 20]);
    group.bench_function("hmac_sha1/prepared_key", |b| {
        b.iter(|| hmac::sign(&key, black_box(&data)));
    });
    group.bench_function("hmac_sha1/into_buffer", |b| {
        let mut out = [0; 20];
        b.iter(|| {
            let tag = hmac::sign_to_buffer(&key, black_box(&data), &mut out);
            black_box(tag.is_ok())
        });
    });
    group.bench_function("hmac_sha1/context_in_two_parts", |b| {
        b.iter(|| {
            let mut context = hmac::Context::with_key(&key);
            context.update(black_box(&data[..PACKET_BYTES]));
            context.update(black_box(&data[PACKET_BYTES..]));
            context.sign()
        });
    });
    group.bench_function("hmac_sha1/new_key", |b| {
        b.iter(|| {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, black_box(&[3; 20]));
            hmac::sign(&key, black_box(&data))
        });
    });
    group.finish();
}

fn suites(c: &mut Criterion) {
    for suite in Suite::ALL {
        let mut group = c.benchmark_group(format!("srtp/{suite}"));
        let mut sealer = Sealer::new(&keys(*suite));
        let mut buffer = vec![0; PACKET_BYTES + sealer.rtp_overhead()];
        let mut sequence = 0_u16;
        group.bench_function("seal", |b| {
            b.iter(|| {
                sequence = sequence.wrapping_add(1);
                buffer[..PACKET_BYTES].copy_from_slice(&packet(sequence));
                sealer.seal_rtp(black_box(&mut buffer), PACKET_BYTES).expect("sealed")
            });
        });
        // An opener takes a packet once: a batch is opened in order by a new one.
        const BATCH: usize = 512;
        let mut sealer = Sealer::new(&keys(*suite));
        let sealed: Vec<Vec<u8>> = (0..BATCH as u16)
            .map(|sequence| {
                let mut buffer = packet(sequence).to_vec();
                buffer.resize(PACKET_BYTES + sealer.rtp_overhead(), 0);
                sealer.seal_rtp(&mut buffer, PACKET_BYTES).expect("sealed");
                buffer
            })
            .collect();
        let mut out = vec![0; PACKET_BYTES + sealer.rtp_overhead()];
        group.throughput(criterion::Throughput::Elements(BATCH as u64));
        group.bench_function("open_512", |b| {
            b.iter_batched(
                || Opener::new(&keys(*suite)),
                |mut opener| {
                    for packet in &sealed {
                        let opened = opener.open_rtp(black_box(packet), &mut out);
                        black_box(opened.expect("opened"));
                    }
                    opener
                },
                BatchSize::LargeInput,
            );
        });
        let mut opener = Opener::new(&keys(*suite));
        let mut forged = sealed[0].clone();
        *forged.last_mut().expect("a tag") ^= 1;
        group.throughput(criterion::Throughput::Elements(1));
        group.bench_function("refuse_forged", |b| {
            b.iter(|| opener.open_rtp(black_box(&forged), &mut out).expect_err("forged"));
        });
        group.finish();
    }
}

criterion_group!(benches, raw, suites);
criterion_main!(benches);
