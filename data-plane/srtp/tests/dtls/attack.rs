//! The race for the ClientHello (lessons.md 2.22), and other datagrams that anybody can forge: they
//! come from the right address, and must change nothing.

use ravelin_srtp::dtls::{Rejection, State};

use crate::pair::{Pair, SECOND};

const SPOOFED: usize = 12_800;

/// A ClientHello with the one suite `suite`, written by hand.
pub(crate) fn hello(random: u8, suite: u16, extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![0xfe, 0xfd];
    body.extend_from_slice(&[random; 32]);
    body.extend_from_slice(&[0, 0]); // no id, no cookie
    body.extend_from_slice(&[0, 2]);
    body.extend_from_slice(&suite.to_be_bytes());
    body.extend_from_slice(&[1, 0]);
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend_from_slice(extensions);
    handshake(1, 0, &body)
}

pub(crate) fn handshake(kind: u8, sequence: u8, body: &[u8]) -> Vec<u8> {
    let length = &(body.len() as u32).to_be_bytes()[1..];
    let mut message = vec![kind];
    message.extend_from_slice(length);
    message.extend_from_slice(&[0, sequence, 0, 0, 0]);
    message.extend_from_slice(length);
    message.extend_from_slice(body);
    record(22, 0, sequence, &message)
}

pub(crate) fn record(kind: u8, epoch: u8, sequence: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, sequence];
    out.extend_from_slice(&(body.len() as u16).to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// use_srtp with AES128_CM_SHA1_80, extended master secret, groups and signature algorithms.
const EXTENSIONS: &[u8] =
    &[0, 14, 0, 5, 0, 2, 0, 1, 0, 0, 23, 0, 0, 0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3];

/// What is forged, in turn.
fn forged(index: usize) -> Vec<u8> {
    let random = (index % 251) as u8;
    match index % 8 {
        // TLS_NULL_WITH_NULL_NULL, and a null cipher with a hash.
        0 => hello(random, 0x0000, EXTENSIONS),
        1 => hello(random, 0x003b, EXTENSIONS),
        // A hello that is all right but for the cookie.
        2 => hello(random, 0xc02b, EXTENSIONS),
        3 => hello(random, 0xc02b, &[]),
        // handshake_failure and close_notify in the clear.
        4 => record(21, 0, random, &[2, 40]),
        5 => record(21, 0, random, &[1, 0]),
        // HelloRequest; ChangeCipherSpec is left to the library.
        6 => handshake(0, random, &[]),
        _ => {
            let mut broken = hello(random, 0xc02b, EXTENSIONS);
            broken.truncate(20 + index % 60);
            broken
        }
    }
}

#[test]
fn spoofed_hellos_before_during_and_after_change_nothing() {
    let mut pair = Pair::new();
    let mut spoofed = 0;
    let mut attack = |pair: &mut Pair, count: usize| {
        let mut answered = 0;
        for _ in 0..count {
            let datagram = forged(spoofed);
            spoofed += 1;
            let mut sent = 0;
            let state = pair.server.state();
            let result = pair.server.receive(pair.now, &datagram, &mut |answer| {
                // No amplification: what answers a hello is shorter than the hello.
                assert!(answer.len() <= datagram.len());
                sent += 1;
            });
            assert!(matches!(result, Ok(None) | Err(_)), "{result:?}");
            assert!(state == pair.server.state() || state == State::Idle);
            answered += sent;
        }
        answered
    };
    // Before: only what is a usable hello is answered, with a cookie and nothing else.
    let answered = attack(&mut pair, SPOOFED / 4);
    assert_eq!(answered, SPOOFED / 4 / 8);
    pair.start();
    let until = pair.now + 20 * SECOND;
    let mut during = 0;
    while pair.step(until) {
        let done = pair.server.state() == State::Done;
        if !done && during < SPOOFED / 2 {
            let answered = attack(&mut pair, SPOOFED / 16);
            during += SPOOFED / 16;
            // Once a hello was accepted, no other one is even answered.
            let accepted = pair.from_server.len() > 1;
            assert!(!accepted || answered == 0, "{answered} answers");
        }
        if pair.exported.0.is_some() && pair.exported.1.is_some() {
            break;
        }
    }
    let (client, server) = pair.keys();
    assert_eq!((&client.local, &client.remote), (&server.remote, &server.local));
    // After: silence.
    assert_eq!(attack(&mut pair, SPOOFED), 0);
    assert_eq!(pair.server.state(), State::Done);
    assert!(spoofed >= SPOOFED + SPOOFED / 2);
}

/// What hellos forged in the client's name are answered with reaches the client itself, before its own
/// answer does. It is told nothing that it would not have been told.
#[test]
fn answers_to_forged_hellos_do_not_mislead_the_client() {
    for forged in [&[0_u8][..], &[1], &[0, 0, 1], &[1, 2, 0, 3]] {
        let mut pair = Pair::new();
        for (random, sequence) in (1..).zip(forged) {
            let mut body = vec![0xfe, 0xfd];
            body.extend([random; 32]);
            body.extend([0, 32]);
            body.extend([9; 32]);
            body.extend([0, 2, 0xc0, 0x2b, 1, 0, 0, EXTENSIONS.len() as u8]);
            body.extend(EXTENSIONS);
            let hello = handshake(1, *sequence, &body);
            pair.start();
            pair.deliver(false, &hello);
        }
        pair.run(20 * SECOND);
        let (client, server) = pair.keys();
        assert_eq!((&client.local, &client.remote), (&server.remote, &server.local), "{forged:?}");
    }
}

#[test]
fn each_forgery_is_refused_for_its_reason() {
    let mut pair = Pair::new();
    let mut reason = |datagram: &[u8]| pair.server.receive(pair.now, datagram, &mut |_| {}).err();
    assert_eq!(reason(&hello(1, 0, EXTENSIONS)), Some(Rejection::UselessHello));
    assert_eq!(reason(&hello(1, 0xc02b, &EXTENSIONS[9..])), Some(Rejection::UselessHello));
    assert_eq!(reason(&record(21, 0, 0, &[2, 40])), Some(Rejection::PlainAlert));
    assert_eq!(reason(&record(23, 1, 0, &[0; 40])), Some(Rejection::Unexpected));
    assert_eq!(reason(&record(22, 2, 0, &[0; 40])), Some(Rejection::Malformed));
    assert_eq!(reason(&handshake(11, 1, &[0; 40])), Some(Rejection::Unexpected));
    assert_eq!(reason(&[]), Some(Rejection::Malformed));
    assert_eq!(reason(&[22, 1, 2, 3]), Some(Rejection::Malformed));
    let nine = record(20, 0, 0, &[1]).repeat(9);
    assert_eq!(reason(&nine), Some(Rejection::Unexpected));
    assert_eq!(pair.server.state(), State::Idle);
    pair.run(10 * SECOND);
    let mut reason = |datagram: &[u8]| pair.server.receive(pair.now, datagram, &mut |_| {}).err();
    assert_eq!(reason(&hello(1, 0xc02b, EXTENSIONS)), Some(Rejection::StrayHello));
    let hello = pair.hello.clone();
    let mut reason = |datagram: &[u8]| pair.server.receive(pair.now, datagram, &mut |_| {}).err();
    assert_eq!(reason(&hello), Some(Rejection::StrayHello));
    assert_eq!(reason(&nine), Some(Rejection::Malformed));
    // To the client nobody says hello.
    let to_client = pair.client.receive(pair.now, &hello, &mut |_| {});
    assert_eq!(to_client, Err(Rejection::StrayHello));
}

/// Random octets behind each kind of header, at every stage: no panic, and the handshake ends well
/// or begins again, never with keys that the other side has not.
#[test]
fn noise_at_every_stage_never_yields_wrong_keys() {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..40 {
        let mut pair = Pair::new();
        pair.start();
        let until = pair.now + 44 * SECOND;
        while pair.step(until) {
            let to_client = next() % 2 == 0;
            let of = if to_client { &pair.from_server } else { &pair.from_client };
            let mut noise = match of.last() {
                Some(last) if next() % 2 == 0 => last.clone(),
                _ => record((20 + next() % 4) as u8, (next() % 2) as u8, 0, &[7; 60]),
            };
            for _ in 0..1 + next() % 3 {
                let at = (next() as usize) % noise.len();
                noise[at] = next() as u8;
            }
            if next() % 4 == 0 {
                pair.deliver(to_client, &noise);
            }
        }
        if let (Some(client), Some(server)) = pair.exported.clone() {
            assert_eq!((client.local, client.remote), (server.remote, server.local));
        }
    }
}

/// A peer that says a hello again and again, its flight lost: the answer is the same flight, and
/// not more of it than the timer alone would send.
#[test]
fn repeated_hellos_do_not_multiply_the_flight() {
    let mut pair = Pair::new();
    pair.start();
    let until = pair.now + SECOND;
    while pair.step(until) && pair.from_client.len() < 2 {}
    let hello = pair.from_client.last().unwrap().clone();
    let mut sent = 0;
    for _ in 0..SPOOFED {
        let _ = pair.server.receive(pair.now, &hello, &mut |datagram| sent += datagram.len());
    }
    assert!(sent < 8 * 1_150, "{sent} octets");
}
