//! PASSporT: signing and verifying a full SHAKEN token, alone and in batches of 8 and 32, next to
//! the bare ECDSA operation of aws-lc-rs over the same octets. The certificate is cached, as it is
//! on a call. There is no algebraic batch verification of ECDSA here: what a batch saves is what is
//! left between a single token and the bare operation. `cargo bench -p ravelin-bench --bench
//! passport`.

use std::hint::black_box;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        ParsedPublicKey, UnparsedPublicKey,
    },
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ravelin_bench::{Credentials, NOW_UNIX, credentials};
use ravelin_stir::{
    batch::{SignBatch, sign_batch, verify_batch},
    cert::pem,
    outcome::Outcome,
    sign::{Attest, SignRequest, uuid_v4},
    tn::{Party, Tn},
    verify::{VerifyRequest, verify},
};

const BATCHES: [usize; 3] = [1, 8, 32];

fn tn(number: u64) -> Party {
    Tn::exact(number.to_string().as_bytes()).expect("digits").into()
}

/// Calls between different numbers: no token is like another.
fn requests() -> Vec<SignRequest> {
    (0..32u8)
        .map(|index| SignRequest {
            attest: Attest::A,
            orig: tn(13_135_551_000 + u64::from(index)),
            dest: [tn(12_125_550_100 + u64::from(index))].into_iter().collect(),
            iat: NOW_UNIX,
            origid: uuid_v4([index; 16]),
        })
        .collect()
}

/// What the signature of a header value is over.
fn signed_part(value: &[u8]) -> &[u8] {
    let end = value.iter().position(|octet| *octet == b';').expect("parameters");
    let token = &value[..end];
    let dot = token.iter().rposition(|octet| *octet == b'.').expect("signature");
    &token[..dot]
}

fn sign(criterion: &mut Criterion) {
    let Credentials { signer, key_pem, .. } = credentials();
    let requests = requests();
    let messages: Vec<Vec<u8>> = requests
        .iter()
        .map(|request| {
            let mut value = Vec::new();
            signer.sign(request, &mut value).expect("signed");
            signed_part(&value).to_vec()
        })
        .collect();

    let mut group = criterion.benchmark_group("passport_sign");
    group.throughput(Throughput::Elements(1));
    let der = pem::blocks(key_pem.as_bytes()).expect("PEM").remove(0).der;
    let key = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
        .expect("P-256 key");
    let random = SystemRandom::new();
    group.bench_function("bare_ecdsa", |bench| {
        let mut next = messages.iter().cycle();
        bench.iter(|| {
            let message = next.next().expect("endless");
            key.sign(&random, black_box(message)).expect("signed")
        });
    });
    group.bench_function("single", |bench| {
        let mut out = Vec::with_capacity(1024);
        let mut next = requests.iter().cycle();
        bench.iter(|| {
            out.clear();
            let request = next.next().expect("endless");
            signer.sign(black_box(request), &mut out).expect("signed");
            out.len()
        });
    });
    for size in BATCHES {
        group.throughput(Throughput::Elements(size as u64));
        let mut batch = SignBatch::default();
        group.bench_function(BenchmarkId::new("batch", size), |bench| {
            bench.iter(|| {
                sign_batch(&signer, black_box(&requests[..size]), &mut batch);
                batch.get(size - 1).is_some_and(|last| last.is_ok())
            });
        });
    }
    group.finish();
}

/// One received request: header value and parties.
struct Received {
    value: [Vec<u8>; 1],
    orig: [Party; 1],
    dest: [Party; 1],
}

fn verify_tokens(criterion: &mut Criterion) {
    let Credentials { signer, trust, key_pem, .. } = credentials();
    let received: Vec<Received> = requests()
        .into_iter()
        .map(|request| {
            let mut value = Vec::new();
            signer.sign(&request, &mut value).expect("signed");
            Received { value: [value], orig: [request.orig], dest: [request.dest[0].clone()] }
        })
        .collect();
    let values: Vec<[&[u8]; 1]> = received.iter().map(|one| [one.value[0].as_slice()]).collect();
    let calls: Vec<VerifyRequest<'_>> = received
        .iter()
        .zip(&values)
        .map(|(one, identities)| VerifyRequest {
            identities,
            orig: &one.orig,
            to: &one.dest,
            request_uri: &one.dest,
            now_unix: NOW_UNIX,
            ..VerifyRequest::default()
        })
        .collect();
    assert!(calls.iter().all(|call| verify(&trust, call).outcome() == Outcome::Passed));

    let mut group = criterion.benchmark_group("passport_verify");
    group.throughput(Throughput::Elements(1));
    let der = pem::blocks(key_pem.as_bytes()).expect("PEM").remove(0).der;
    let key = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
        .expect("P-256 key");
    let point = key.public_key().as_ref().to_vec();
    // As many messages and signatures as the tokens have: one alone trains the branch predictor.
    let signed: Vec<_> = received
        .iter()
        .map(|one| {
            let message = signed_part(&one.value[0]);
            (message, key.sign(&SystemRandom::new(), message).expect("signed"))
        })
        .collect();
    group.bench_function("bare_ecdsa", |bench| {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point);
        let mut next = signed.iter().cycle();
        bench.iter(|| {
            let (message, signature) = next.next().expect("endless");
            key.verify(black_box(message), signature.as_ref()).expect("valid");
        });
    });
    group.bench_function("bare_ecdsa_parsed_key", |bench| {
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).expect("point");
        let mut next = signed.iter().cycle();
        bench.iter(|| {
            let (message, signature) = next.next().expect("endless");
            key.verify_sig(black_box(message), signature.as_ref()).expect("valid");
        });
    });
    group.bench_function("single", |bench| {
        let mut next = calls.iter().cycle();
        bench.iter(|| {
            let verdict = verify(&trust, black_box(next.next().expect("endless")));
            verdict.outcome() == Outcome::Passed
        });
    });
    for size in BATCHES {
        group.throughput(Throughput::Elements(size as u64));
        let mut verdicts = Vec::new();
        group.bench_function(BenchmarkId::new("batch", size), |bench| {
            bench.iter(|| {
                verify_batch(&trust, black_box(&calls[..size]).iter().copied(), &mut verdicts);
                verdicts.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, sign, verify_tokens);
criterion_main!(benches);
