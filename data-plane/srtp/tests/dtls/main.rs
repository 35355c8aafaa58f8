//! DTLS-SRTP: two associations with each other, under loss and under attack, and each with OpenSSL.

mod attack;
mod limits;
mod openssl;

mod pair;

use pair::{MILLISECOND, Pair, SECOND};
use ravelin_srtp::{
    Suite,
    dtls::{
        Failure, Fingerprint, Fingerprints, Hash, Rejection, Role, State,
        limits::{FLIGHT_FIRST, HANDSHAKE_MAX},
    },
};

#[test]
fn both_sides_get_the_same_keys_crosswise() {
    let mut pair = Pair::new();
    pair.run(10 * SECOND);
    let (client, server) = pair.keys();
    assert_eq!(client.local, server.remote);
    assert_eq!(client.remote, server.local);
    assert_ne!(client.local, client.remote);
    // The strongest profile that both know.
    assert_eq!(client.local.suite(), Suite::AeadAes256Gcm);
    assert_eq!((pair.client.state(), pair.server.state()), (State::Done, State::Done));
    // A second handshake of the same two agrees on others.
    let mut again = Pair::between(pair.identities.clone());
    again.run(10 * SECOND);
    assert_ne!(again.keys().0.local, client.local);
}

#[test]
fn a_certificate_that_sdp_does_not_name_gets_no_keys() {
    let other: Fingerprints = {
        let mut other = Fingerprints::default();
        assert!(other.add(Fingerprint::of(Hash::Sha256, b"another").to_string().as_bytes()));
        other
    };
    for wrong in [Role::Client, Role::Server] {
        let mut pair = Pair::new();
        pair.expect(wrong, other.clone());
        pair.run(120 * SECOND);
        let (client, server) = pair.exported.clone();
        let (refusing, keys, peer_keys) = match wrong {
            Role::Client => (&pair.client, client, server),
            Role::Server => (&pair.server, server, client),
        };
        assert_eq!(refusing.state(), State::Failed(Failure::Fingerprint));
        assert_eq!((keys, peer_keys), (None, None));
    }
}

#[test]
fn every_hash_of_a_fingerprint_is_checked() {
    for hash in [Hash::Sha1, Hash::Sha224, Hash::Sha256, Hash::Sha384, Hash::Sha512] {
        let mut pair = Pair::new();
        // What the server shows is first seen in a handshake of its own.
        let certificate = pair.certificate_of_server();
        let mut right = Fingerprints::default();
        assert!(right.add(Fingerprint::of(hash, &certificate).to_string().as_bytes()));
        pair.expect(Role::Client, right);
        pair.run(10 * SECOND);
        assert_eq!(pair.client.state(), State::Done, "{hash:?}");
    }
}

/// Flights lost, repeated and out of order; each seed another pattern. A datagram that is sent again
/// and again is lost twice at most: then each of the three exchanges needs five tries at most, two for
/// the way there and two for the way back, which are 6 s of waits, or 7.5 s where the library makes
/// each a quarter longer. No chance, the network's or the library's, makes that 44 s.
#[test]
fn handshakes_survive_loss_duplication_and_reordering() {
    for lost_percent in [20, 50, 100] {
        for seed in 1..=40_u64 {
            let mut pair = Pair::new();
            pair.disturb(seed, lost_percent);
            pair.lose_at_most(2);
            pair.run(44 * SECOND);
            let states = (pair.client.state(), pair.server.state());
            if let (Some(client), Some(server)) = pair.exported.clone() {
                assert_eq!(client.local, server.remote, "{lost_percent} % lost, seed {seed}");
            }
            let done = (State::Done, State::Done);
            assert_eq!(states, done, "{lost_percent} % lost, seed {seed}");
        }
    }
}

#[test]
fn a_silent_peer_ends_in_a_timeout() {
    let mut pair = Pair::new();
    pair.disturb(1, 100);
    pair.run(HANDSHAKE_MAX.as_nanos() as u64 - MILLISECOND);
    assert_eq!(pair.client.state(), State::Handshake, "its time is not over");
    pair.run(2 * MILLISECOND);
    assert_eq!(pair.client.state(), State::Failed(Failure::Timeout));
    assert_eq!(pair.server.state(), State::Idle, "heard nothing, holds nothing");
    assert_eq!(pair.client.deadline(), None);
    // One flight of one datagram. The library makes each wait longer or shorter by up to a quarter,
    // by chance: as many as fit when all are long, and when all are short.
    let transmissions = |percent: u128| {
        let mut at = 0;
        let waits = (0..).map(|number| (FLIGHT_FIRST.as_millis() << number) * percent / 100);
        1 + waits
            .take_while(|wait| {
                at += wait;
                at < HANDSHAKE_MAX.as_millis()
            })
            .count()
    };
    let possible = transmissions(125)..=transmissions(75);
    assert!(possible.contains(&pair.sent.0), "{} of {possible:?}", pair.sent.0);
}

#[test]
fn nothing_is_left_after_the_linger() {
    let mut pair = Pair::new();
    pair.run(10 * SECOND);
    pair.run(80 * SECOND);
    assert_eq!((pair.client.deadline(), pair.server.deadline()), (None, None));
    let hello = pair.hello.clone();
    let now = pair.now;
    let mut sent = 0;
    let result = pair.server.receive(now, &hello, &mut |_| sent += 1);
    assert_eq!((result, sent), (Err(Rejection::Over), 0));
    assert_eq!(pair.server.state(), State::Done);
}

/// What a handshake costs on the thread that moves packets. Printed, not asserted.
#[test]
fn cost_of_a_handshake() {
    let identities = Pair::new().identities;
    let mut longest = std::time::Duration::ZERO;
    let started = std::time::Instant::now();
    const ROUNDS: u32 = 20;
    for _ in 0..ROUNDS {
        let mut pair = Pair::between(identities.clone());
        pair.run(10 * SECOND);
        assert_eq!(pair.client.state(), State::Done);
        longest = longest.max(pair.longest);
    }
    println!(
        "both sides: {:?} per handshake, longest single call {longest:?}",
        started.elapsed() / ROUNDS
    );
}

/// RFC 6347 4.1: no record number of an epoch comes twice, those of HelloVerifyRequests included,
/// whoever makes the record: a peer that minds replays would drop the flight.
#[test]
fn record_numbers_of_an_epoch_are_used_once() {
    let mut pair = Pair::new();
    pair.run(10 * SECOND);
    let mut used = std::collections::BTreeSet::new();
    let mut in_the_clear = 0;
    for datagram in &pair.from_server {
        let mut rest = &datagram[..];
        while let [_, _, _, number @ ..] = rest {
            let epoch_and_sequence: [u8; 8] = number[..8].try_into().unwrap();
            in_the_clear += u32::from(number[..2] == [0, 0]);
            assert!(used.insert(epoch_and_sequence), "{epoch_and_sequence:?} twice");
            let length = usize::from(u16::from_be_bytes([number[8], number[9]]));
            rest = &rest[13 + length..];
        }
    }
    assert!(in_the_clear >= 3, "a request and a flight");
}
