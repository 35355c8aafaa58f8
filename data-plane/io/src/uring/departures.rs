//! What a batch of sends is made of: datagrams, and runs of them that are one send.
//!
//! Several packets of one stream in one turn are frames of video, T.38, real-time text, or what
//! gathered while the shard was kept from running. Where [`RUN_MIN`] or more of them follow each
//! other, they go into the stack as one (UDP generic segmentation offload) and it cuts them apart:
//! at the receiver they are the same datagrams. A packet capture on this machine shows a run as one
//! long packet where the interface takes it whole, so runs too short to be worth it are left alone,
//! and with them all of ordinary speech.

use crate::driver::MEDIA_DATAGRAM_MAX_BYTES;
use crate::sys::ring::Tag;
use ravelin_engine::port::{Egress, Tx, TxQueue};

/// Shortest run: with fewer the one longer send is not cheaper enough.
pub(super) const RUN_MIN: usize = 4;

/// Longest run: what every kernel with segmentation takes (`UDP_MAX_SEGMENTS`, 64 before 6.9).
pub(super) const RUN_MAX: usize = 64;

/// Octets of a run: an IPv4 datagram with the headers.
const RUN_BYTES_MAX: usize = 65_507;

/// One send: a datagram, or a run.
pub(super) struct Departure<'q> {
    pub first: Tx<'q>,
    /// All octets.
    pub octets: &'q [u8],
    pub tag: Tag,
}

pub(super) struct Departures<'q> {
    queue: &'q TxQueue,
    place: usize,
    /// Places before this one are known to begin no run.
    alone_until: usize,
}

impl<'q> Departures<'q> {
    pub(super) const fn new(queue: &'q TxQueue) -> Self {
        Self { queue, place: 0, alone_until: 0 }
    }

    /// Datagrams and octets of the send at this place.
    fn at(&mut self, first: &Tx<'q>) -> (usize, &'q [u8]) {
        let alone = (1, first.bytes);
        let len = first.bytes.len();
        let media = matches!(first.egress, Egress::Media { .. });
        if self.place < self.alone_until || !media || !(1..=MEDIA_DATAGRAM_MAX_BYTES).contains(&len)
        {
            return alone;
        }
        let (count, octets) = self.queue.run(self.place, RUN_MAX.min(RUN_BYTES_MAX / len));
        if count < RUN_MIN {
            self.alone_until = self.place + count;
            return alone;
        }
        (count, octets)
    }
}

impl<'q> Iterator for Departures<'q> {
    type Item = Departure<'q>;

    fn next(&mut self) -> Option<Departure<'q>> {
        let first = self.queue.get(self.place)?;
        let place = u32::try_from(self.place).ok()?;
        let (count, octets) = self.at(&first);
        self.place += count;
        // A run is no longer than `RUN_MAX`, its datagrams no longer than media may be.
        let tag = Tag { place, count: count as u16, segment: first.bytes.len() as u16 };
        Some(Departure { first, octets, tag })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{self, Choice, Driver, Options};
    use crate::xdp::tests::world::{World, missing, run, skip};
    use ravelin_engine::port::{ListenerId, MediaPortId, Token};
    use std::net::{SocketAddr, UdpSocket};
    use std::time::Duration;

    fn media(number: u8) -> Egress {
        Egress::Media { port: MediaPortId(1), to: ([192, 0, 2, number], 9).into() }
    }

    fn sends(entries: &[(Egress, usize)]) -> Vec<(u32, u16, usize)> {
        let mut queue = TxQueue::default();
        for (egress, len) in entries {
            queue.push(*egress, Token::default(), &vec![7; *len]);
        }
        Departures::new(&queue).map(|it| (it.tag.place, it.tag.count, it.octets.len())).collect()
    }

    #[test]
    fn runs_are_of_four_and_more_packets_of_media() {
        let signalling = Egress::Udp { listener: ListenerId(1), to: ([192, 0, 2, 1], 9).into() };
        assert_eq!(sends(&[(media(1), 172); 3]), [(0, 1, 172), (1, 1, 172), (2, 1, 172)]);
        assert_eq!(sends(&[(media(1), 172); 4]), [(0, 4, 688)]);
        assert_eq!(sends(&[(signalling, 172); 5]).len(), 5);
        // One to somebody else between them.
        let mut mixed = vec![(media(1), 100); 9];
        mixed[4].0 = media(2);
        assert_eq!(sends(&mixed), [(0, 4, 400), (4, 1, 100), (5, 4, 400)]);
        // A frame of video: equal packets, and what was left.
        let frame = [(media(1), 1_200), (media(1), 1_200), (media(1), 1_200), (media(1), 300)];
        assert_eq!(sends(&[frame, frame].concat()), [(0, 4, 3_900), (4, 4, 3_900)]);
        // None is longer than the kernel takes.
        let counts = |len| sends(&[(media(1), len); 100]).iter().map(|it| it.1).collect::<Vec<_>>();
        assert_eq!(counts(100), [64, 36]);
        assert_eq!(counts(MEDIA_DATAGRAM_MAX_BYTES), [34, 34, 32]);
        assert_eq!(counts(MEDIA_DATAGRAM_MAX_BYTES + 1), [1; 100]);
        assert_eq!(counts(0), [1; 100]);
    }

    /// Packets of a stream as they arrive at the far end of a wire.
    fn arrive(world: &World, driver: &mut dyn Driver, peer: &UdpSocket, lengths: &[usize]) {
        let to = peer.local_addr().unwrap();
        let packet = |at: usize| vec![at as u8; lengths[at]];
        let mut queue = TxQueue::default();
        for at in 0..lengths.len() {
            queue.push(Egress::Media { port: MediaPortId(1), to }, Token::default(), &packet(at));
        }
        driver.send(&queue, &mut |_, error| panic!("{error}"));
        let mut octets = [0; 4_096];
        for at in 0..lengths.len() {
            let len = peer.recv(&mut octets).unwrap_or_else(|error| panic!("{at}: {error}"));
            assert!(octets[..len] == packet(at), "{at} of {} in {}", lengths.len(), world.here);
        }
    }

    /// Whatever the interface can do for a run, each of its packets arrives, alone and in order.
    #[test]
    fn a_run_arrives_as_its_packets() {
        let name = "a_run_arrives_as_its_packets";
        if let Some(why) = missing() {
            return skip(name, &why);
        }
        let world = World::new(1);
        world.address("d0", "192.0.2.1/24", "192.0.2.9", World::mac(&world.peer, "p0"));
        world.address("d0", "2001:db8::1/64", "2001:db8::9", World::mac(&world.peer, "p0"));
        for address in ["192.0.2.9/24", "2001:db8::9/64"] {
            run(&format!("ip -n {} addr add {address} dev p0", world.peer));
        }
        for (ours, theirs) in
            [("192.0.2.1:0", "192.0.2.9:0"), ("[2001:db8::1]:0", "[2001:db8::9]:0")]
        {
            let peer = World::inside(&world.peer, || UdpSocket::bind(theirs).unwrap());
            peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            world.here(|| {
                let at: SocketAddr = ours.parse().unwrap();
                let Ok(opened) = driver::open(Choice::Uring, &Options::default()) else {
                    return skip(name, "io_uring cannot be had here");
                };
                let mut driver = opened.driver;
                driver.open_media(MediaPortId(1), at).unwrap();
                let here = &world.here;
                let mut sent = 0;
                let mut segmented = Vec::new();
                for (mtu, words) in [
                    (1_500, "tx on gso on tx-udp-segmentation on"),
                    (1_500, "tx on gso on tx-udp-segmentation off"),
                    (1_500, "tx off gso off"),
                    // Each packet in two fragments: no run.
                    (1_280, "tx on gso on tx-udp-segmentation on"),
                ] {
                    run(&format!("ip netns exec {here} ethtool -K d0 {words}"));
                    run(&format!("ip -n {here} link set d0 mtu {mtu}"));
                    for lengths in [vec![1_300; 7], [vec![1_300; 5], vec![20; 5]].concat()] {
                        let before = driver.stats().tx_segmented;
                        arrive(&world, driver.as_mut(), &peer, &lengths);
                        sent += lengths.len() as u64;
                        segmented.push(driver.stats().tx_segmented - before);
                    }
                }
                assert_eq!(driver.stats().tx_datagrams, sent);
                assert_eq!(driver.stats().tx_errors.iter().sum::<u64>(), 0);
                // What the third interface takes depends on the kernel.
                let (sure, rest) = segmented.split_at(4);
                assert_eq!(sure, [7, 10, 7, 10]);
                assert_eq!(rest[2], 0);
            });
        }
    }
}
