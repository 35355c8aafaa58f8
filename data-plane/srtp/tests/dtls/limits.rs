//! Each bound of one handshake, at it and one beyond.

use ravelin_srtp::dtls::{
    Failure, Rejection, State,
    limits::{HELLOS_MAX, MESSAGE_MAX_BYTES, RECORDS_MAX, RESTARTS_MAX, WAITING_DATAGRAMS_MAX},
};

use crate::{
    attack::{handshake, record},
    pair::{Pair, SECOND},
};

/// Octets of a record's header; its body begins with the handshake message's header.
const MESSAGE: usize = 13;
const CERTIFICATE: u8 = 11;

/// A pair whose network holds nothing back, until the client has answered the cookie.
fn greeted() -> (Pair, Vec<u8>) {
    let mut pair = Pair::new();
    pair.start();
    let until = pair.now + SECOND;
    while pair.from_client.len() < 2 && pair.step(until) {}
    let hello = pair.from_client[1].clone();
    (pair, hello)
}

#[test]
fn a_hello_after_too_many_is_not_accepted() {
    for (sequence, accepted) in [(HELLOS_MAX - 1, true), (HELLOS_MAX, false)] {
        let (mut pair, mut hello) = greeted();
        assert_eq!(pair.server.state(), State::Idle);
        hello[MESSAGE + 5] = sequence;
        let result = pair.server.receive(pair.now, &hello, &mut |_| {});
        let expected = if accepted { Ok(None) } else { Err(Rejection::Unexpected) };
        assert_eq!(result.map(|keys| keys.map(|_| ())), expected);
        assert_eq!(pair.server.state() == State::Handshake, accepted);
    }
}

/// Whatever breaks it: here, more messages that wait than there is room for.
#[test]
fn a_handshake_begins_again_so_often_and_no_more() {
    let (mut pair, _) = greeted();
    let flood =
        |pair: &mut Pair| (0..=WAITING_DATAGRAMS_MAX).for_each(|n| pair.deliver(true, &early(n)));
    for restart in 1..=RESTARTS_MAX {
        let before = pair.sent.0;
        flood(&mut pair);
        assert_eq!((pair.client.restarts(), pair.client.state()), (restart, State::Handshake));
        assert_eq!(pair.sent.0, before + 1, "a hello of a new handshake");
    }
    flood(&mut pair);
    assert_eq!(pair.client.state(), State::Failed(Failure::Protocol));
    assert_eq!(pair.client.deadline(), None);
    let after = pair.client.receive(pair.now, &early(0), &mut |_| panic!("it has failed"));
    assert_eq!(after.err(), Some(Rejection::Over));
}

/// Numbers from 2 on: the ServerHello before them never comes.
fn early(number: usize) -> Vec<u8> {
    handshake(CERTIFICATE, 2 + number as u8, &[0; 40])
}

/// Messages that are too early wait for the one that is missing, and their number is bounded.
#[test]
fn datagrams_that_wait_are_bounded() {
    let (mut pair, _) = greeted();
    for number in 0..WAITING_DATAGRAMS_MAX {
        pair.deliver(true, &early(number));
        assert_eq!(
            (pair.client.restarts(), pair.client.state()),
            (0, State::Handshake),
            "{number}"
        );
    }
    pair.deliver(true, &early(WAITING_DATAGRAMS_MAX));
    assert_eq!((pair.client.restarts(), pair.client.state()), (1, State::Handshake));
}

#[test]
fn messages_and_records_are_bounded() {
    let (mut pair, _) = greeted();
    let mut refused = |datagram: &[u8]| pair.client.receive(pair.now, datagram, &mut |_| {}).err();
    // The first fragment of a message whose length is announced in 24 bits.
    let announced = |length: usize| {
        let mut fragment = handshake(CERTIFICATE, 2, &[0; 40]);
        fragment[MESSAGE + 1..MESSAGE + 4].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
        fragment
    };
    assert_eq!(refused(&announced(MESSAGE_MAX_BYTES)), None);
    assert_eq!(refused(&announced(MESSAGE_MAX_BYTES + 1)), Some(Rejection::Malformed));
    let specs = |count| record(20, 0, 0, &[1]).repeat(count);
    assert_eq!(refused(&specs(RECORDS_MAX)), None);
    assert_eq!(refused(&specs(RECORDS_MAX + 1)), Some(Rejection::Malformed));
}
