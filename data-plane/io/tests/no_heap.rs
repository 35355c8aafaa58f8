//! A turn allocates nothing once everything has grown to its working size.

use allocation_counter::measure;
use ravelin_engine::port::{Egress, ListenerId, Local, MediaPortId, ShardId, Token, TxQueue};
use ravelin_io::cross::{self, Crossed};
use ravelin_io::driver::{self, Choice, Driver, Options, Rx};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// Echoes what arrives until `count` datagrams were echoed.
fn echo(driver: &mut dyn Driver, queue: &mut TxQueue, count: usize) {
    let mut echoed = 0;
    while echoed < count {
        driver.wait(Duration::from_millis(50)).unwrap();
        driver.receive(&mut |rx| {
            let Rx::Datagram { meta, bytes, .. } = rx else { return };
            let to = meta.source;
            let egress = match meta.local {
                Local::Signalling { listener } => Egress::Udp { listener, to },
                Local::Media { port } => Egress::Media { port, to },
                Local::Stream { .. } => return,
            };
            queue.push(egress, Token::default(), bytes);
        });
        echoed += queue.len();
        driver.send(queue, &mut |_, error| panic!("{error}"));
        queue.clear();
    }
}

fn rounds(
    driver: &mut dyn Driver,
    queue: &mut TxQueue,
    peer: &UdpSocket,
    to: &[SocketAddr],
    rounds: usize,
) {
    let mut back = [0; 2_048];
    for _ in 0..rounds {
        for _ in 0..8 {
            for to in to {
                peer.send_to(&[7; 900], to).unwrap();
            }
        }
        echo(driver, queue, 8 * to.len());
        for _ in 0..8 * to.len() {
            assert_eq!(peer.recv(&mut back).unwrap(), 900);
        }
    }
}

fn a_turn_allocates_nothing(choice: Choice) {
    let Ok(opened) = driver::open(choice, &Options::default()) else {
        eprintln!("skipped: {choice:?} cannot be had here");
        return;
    };
    let mut driver = opened.driver;
    let at = "127.5.4.1:0".parse().unwrap();
    let peer = UdpSocket::bind("127.5.4.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let to = [
        driver.open_listener(ListenerId(0), at).unwrap(),
        driver.open_media(MediaPortId(0), at).unwrap(),
        driver.open_media(MediaPortId(1), at).unwrap(),
    ];
    let mut queue = TxQueue::default();
    rounds(driver.as_mut(), &mut queue, &peer, &to, 20);
    let allocations = measure(|| rounds(driver.as_mut(), &mut queue, &peer, &to, 50));
    assert_eq!(allocations.count_total, 0, "{allocations:?}");
}

#[test]
fn a_turn_of_uring_allocates_nothing() {
    a_turn_allocates_nothing(Choice::Uring);
}

#[test]
fn a_turn_of_mmsg_allocates_nothing() {
    a_turn_allocates_nothing(Choice::Mmsg);
}

#[test]
fn crossing_between_shards_allocates_nothing() {
    let mut ends = cross::mesh(2, 64);
    let (left, right) = ends.split_at_mut(1);
    let meta = ravelin_engine::port::Meta {
        source: "127.5.4.2:5060".parse().unwrap(),
        local: Local::Signalling { listener: ListenerId(0) },
    };
    let mut cross = |count: usize| {
        for _ in 0..count {
            for _ in 0..32 {
                assert!(left[0].forward(ShardId(1), meta, &[5; 1_200]));
            }
            let got = right[0].receive(&mut |crossed| match crossed {
                Crossed::Received { bytes, .. } => assert_eq!(bytes.len(), 1_200),
                other => panic!("nothing was to be sent: {other:?}"),
            });
            assert_eq!(got, 32);
        }
    };
    cross(4);
    let allocations = measure(|| cross(50));
    assert_eq!(allocations.count_total, 0, "{allocations:?}");
}
