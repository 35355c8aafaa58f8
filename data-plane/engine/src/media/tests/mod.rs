mod conformity;
mod fast;
mod hairpin;
mod nat;
mod peering;
mod records;
mod srtp;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use proptest::prelude::*;
use ravelin_policy::Driver;

use super::*;
use crate::{
    counters::Counters,
    drops::DropReason,
    emergency::EmergencyRoute,
    port::{Egress, TxQueue},
};

const ACCESS: RealmId = RealmId(0);
const CORE: RealmId = RealmId(1);
const CALLER: Place = Place { realm: ACCESS, v6: false };
const CALLEE: Place = Place { realm: CORE, v6: false };

fn range(realm: RealmId, address: &str, first_port: u16, pairs: u16) -> MediaRange {
    let address: IpAddr = address.parse().unwrap();
    MediaRange {
        realm,
        address,
        advertise: address,
        first_port,
        last_port: first_port + pairs * 2 - 1,
        driver: Driver::Auto,
        dscp: None,
    }
}

fn table_of(ranges: &[MediaRange], limits: Limits) -> MediaTable {
    let mut table = MediaTable::new(ranges, ShardId(0), 1, limits, &Seed([3; 32]));
    for id in 0..table.specs().len() {
        table.port_opened(MediaPortId(u32::try_from(id).unwrap()));
    }
    table
}

fn table(pairs: u16, limits: Limits) -> MediaTable {
    let ranges =
        [range(ACCESS, "127.0.0.10", 20_000, pairs), range(CORE, "127.0.0.20", 30_000, pairs)];
    table_of(&ranges, limits)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A party at `addr` that sends and receives.
fn remote(addr: SocketAddr) -> Remote {
    Remote {
        rtp: Some(addr),
        rtcp: Some(SocketAddr::new(addr.ip(), addr.port() + 1)),
        sends: true,
        receives: true,
        ..Remote::NONE
    }
}

fn rtp_packet(mark: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 0, 0, 1, 0, 0, 0, 160, 0, 0, 0, 9];
    packet.extend_from_slice(&mark.to_be_bytes());
    packet
}

/// A receiver report without blocks.
const RTCP_PACKET: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 9];

struct Rig {
    table: MediaTable,
    tx: TxQueue,
    counters: Counters,
    /// When what is relayed arrives.
    now: Instant,
}

impl Rig {
    fn new(table: MediaTable) -> Self {
        let now = Instant::from_millis(1);
        Self { table, tx: TxQueue::default(), counters: Counters::default(), now }
    }

    fn allocate(&mut self, now: Instant) -> Result<Anchor, PortsExhausted> {
        self.table.allocate(now, CALLER, CALLEE, 1, None, &mut self.counters)
    }

    /// Where the packet goes, and from which of our ports.
    fn relay(
        &mut self,
        port: MediaPortId,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Result<(MediaPortId, SocketAddr), DropReason> {
        self.tx.clear();
        // Whatever a driver says comes next.
        self.table.read_ahead(&[port, MediaPortId(0), port, MediaPortId(u32::MAX)]);
        self.table.relay(self.now, port, source, bytes, &mut self.tx, &mut self.counters)?;
        assert_eq!(self.tx.len(), 1);
        let sent = self.tx.iter().next().unwrap();
        assert_eq!(sent.bytes, bytes, "relayed octet by octet");
        match sent.egress {
            Egress::Media { port, to } => Ok((port, to)),
            other => panic!("{other:?}"),
        }
    }

    fn port(&self, anchor: &Anchor, side: Side, index: usize) -> MediaPortId {
        self.table.port(anchor, side, index).unwrap()
    }
}

#[test]
fn both_directions_and_rtcp_pass_between_the_signalled_addresses() {
    let mut rig = Rig::new(table(8, Limits::default()));
    let (a, b) = (addr("127.0.1.1:7000"), addr("127.0.2.1:8000"));
    let mut anchor = rig.allocate(Instant(0)).unwrap();
    let (pa, pb) = (rig.port(&anchor, Side::Caller, 0), rig.port(&anchor, Side::Callee, 0));
    assert_eq!(rig.table.local(&anchor, Side::Caller, 0).unwrap().ip(), addr("127.0.0.10:0").ip());

    anchor.stage(Side::Caller, 0, remote(a));
    assert_eq!(rig.relay(pa, a, &rtp_packet(1)), Err(DropReason::MediaNoPeer), "only staged");
    anchor.stage(Side::Callee, 0, remote(b));
    rig.table.commit(Instant(0), &mut anchor);

    assert_eq!(rig.relay(pa, a, &rtp_packet(1)), Ok((pb, b)));
    assert_eq!(rig.relay(pb, b, &rtp_packet(2)), Ok((pa, a)));
    let odd = |port: MediaPortId| MediaPortId(port.0 + 1);
    let next = |addr: SocketAddr| SocketAddr::new(addr.ip(), addr.port() + 1);
    assert_eq!(rig.relay(odd(pa), next(a), &RTCP_PACKET), Ok((odd(pb), next(b))));
    assert_eq!(rig.relay(odd(pb), next(b), &RTCP_PACKET), Ok((odd(pa), next(a))));
    // Multiplexed RTCP goes to where the other party takes it (RFC 5761).
    assert_eq!(rig.relay(pa, a, &RTCP_PACKET), Ok((odd(pb), next(b))));
    let mux = |at| Remote { rtcp_mux: true, ..remote(at) };
    rig.table.set_remote(Instant(0), &anchor, Side::Callee, 0, mux(b));
    assert_eq!(rig.relay(odd(pa), next(a), &RTCP_PACKET), Ok((pb, b)));
    assert_eq!(rig.relay(pb, b, &RTCP_PACKET), Ok((odd(pa), next(a))));

    let count = rig.table.count(&anchor, Side::Caller);
    assert_eq!((count.packets, count.bytes, count.rtcp_packets, count.dropped), (1, 16, 3, 0));
    assert_eq!(rig.table.last_packet(&anchor, Side::Caller), Some(Instant::from_millis(1)));
    assert_eq!((rig.counters.rtp_packets, rig.counters.rtcp_packets), (2, 5));
    assert_eq!((rig.table.streams(), rig.table.ports_in_use()), (1, 4));
    rig.table.release(Instant(0), anchor);
    assert_eq!((rig.table.streams(), rig.table.ports_quarantined()), (0, 4));
    assert_eq!(rig.relay(pa, a, &rtp_packet(3)), Err(DropReason::MediaPortIdle));
}

#[test]
fn every_wrong_packet_has_a_reason_and_moves_nothing() {
    let mut rig = Rig::new(table(8, Limits::default()));
    let (a, b) = (addr("127.0.1.1:7000"), addr("127.0.2.1:8000"));
    let anchor = rig.allocate(Instant(0)).unwrap();
    let pa = rig.port(&anchor, Side::Caller, 0);
    rig.table.set_remote(Instant(0), &anchor, Side::Caller, 0, remote(a));
    rig.table.set_remote(Instant(0), &anchor, Side::Callee, 0, remote(b));
    let stun = {
        let mut stun = [0; 20];
        stun[4..8].copy_from_slice(&0x2112_a442_u32.to_be_bytes());
        stun
    };
    let rtp = rtp_packet(1);
    for (port, source, bytes, reason) in [
        (pa, addr("127.0.1.1:7002"), &rtp[..], DropReason::MediaSource),
        (pa, addr("127.0.1.2:7000"), &rtp, DropReason::MediaSource),
        (pa, b, &rtp, DropReason::MediaSource),
        (MediaPortId(pa.0 + 1), a, &RTCP_PACKET, DropReason::MediaSource),
        (pa, a, &rtp[..11], DropReason::MediaMalformed),
        (pa, a, &[0x8f, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1], DropReason::MediaMalformed),
        (pa, a, &RTCP_PACKET[..4], DropReason::MediaMalformed),
        (MediaPortId(pa.0 + 1), addr("127.0.1.1:7001"), &rtp, DropReason::MediaMalformed),
        (pa, a, &stun, DropReason::MediaUnsupported),
        (pa, a, &[22; 40], DropReason::MediaUnsupported),
        (pa, a, b"INVITE sip:x SIP/2.0", DropReason::MediaUnsupported),
        (pa, a, b"", DropReason::KeepAlive),
        (MediaPortId(u32::MAX), a, &rtp, DropReason::MediaPortIdle),
    ] {
        let before = rig.counters.drops(reason);
        assert_eq!(rig.relay(port, source, bytes), Err(reason), "{bytes:?} from {source}");
        assert_eq!(rig.counters.drops(reason), before + 1);
        assert!(rig.tx.is_empty());
    }
    // What is too long to be taken whole, from the party, from a stranger, and at no stream's port.
    for (port, source, reason) in [
        (pa, a, DropReason::MediaTooLong),
        (MediaPortId(pa.0 + 1), addr("127.0.1.2:7000"), DropReason::MediaTooLong),
        (MediaPortId(u32::MAX), a, DropReason::MediaPortIdle),
    ] {
        let (before, dropped) =
            (rig.counters.drops(reason), rig.table.count(&anchor, Side::Caller).dropped);
        assert_eq!(rig.table.too_long(rig.now, port, source, &mut rig.counters), reason);
        assert_eq!(rig.counters.drops(reason), before + 1);
        let more = u64::from((port, source) == (pa, a));
        assert_eq!(rig.table.count(&anchor, Side::Caller).dropped, dropped + more);
    }
    // And still nothing was learnt.
    assert_eq!(rig.relay(pa, a, &rtp).map(|sent| sent.1), Ok(b));
    // Each stands in the record of the stream that has the port.
    let told = rig.table.qualities(&anchor);
    let drops =
        ["media_source", "media_malformed", "media_unsupported", "keep_alive", "media_too_long"]
            .map(|reason| told[0].drops.get(reason).copied());
    assert_eq!(drops, [Some(4), Some(4), Some(3), Some(1), Some(2)]);
    assert_eq!((told[0].drops.len(), told[1].drops.len()), (5, 0));
    rig.table.release(Instant(0), anchor);
}

#[test]
fn hold_stops_media_and_lets_rtcp_pass() {
    let mut rig = Rig::new(table(8, Limits::default()));
    let (a, b) = (addr("127.0.1.1:7000"), addr("127.0.2.1:8000"));
    let anchor = rig.allocate(Instant(0)).unwrap();
    let (pa, pb) = (rig.port(&anchor, Side::Caller, 0), rig.port(&anchor, Side::Callee, 0));
    rig.table.set_remote(
        Instant(0),
        &anchor,
        Side::Caller,
        0,
        Remote { receives: false, ..remote(a) },
    );
    rig.table.set_remote(
        Instant(0),
        &anchor,
        Side::Callee,
        0,
        Remote { sends: false, ..remote(b) },
    );
    assert_eq!(rig.relay(pa, a, &rtp_packet(1)), Ok((pb, b)), "music on hold");
    assert_eq!(rig.relay(pb, b, &rtp_packet(1)), Err(DropReason::MediaNoPeer));
    let rtcp = rig.relay(MediaPortId(pb.0 + 1), addr("127.0.2.1:8001"), &RTCP_PACKET);
    assert_eq!(rtcp.map(|sent| sent.1), Ok(addr("127.0.1.1:7001")));
    assert_eq!(rig.table.count(&anchor, Side::Callee).dropped, 1);
    rig.table.release(Instant(0), anchor);
}

#[test]
fn a_new_answer_ends_the_old_address_at_once() {
    let mut rig = Rig::new(table(8, Limits::default()));
    let (a, a2) = (addr("127.0.1.1:7000"), addr("127.0.1.9:9000"));
    let b = addr("127.0.2.1:8000");
    let mut anchor = rig.allocate(Instant(0)).unwrap();
    let (pa, pb) = (rig.port(&anchor, Side::Caller, 0), rig.port(&anchor, Side::Callee, 0));
    rig.table.set_remote(Instant(0), &anchor, Side::Caller, 0, remote(a));
    rig.table.set_remote(Instant(0), &anchor, Side::Callee, 0, remote(b));
    anchor.stage(Side::Caller, 0, remote(a2));
    anchor.roll_back();
    rig.table.commit(Instant(0), &mut anchor);
    assert_eq!(rig.relay(pb, b, &rtp_packet(1)), Ok((pa, a)), "a refused offer changes nothing");
    anchor.stage(Side::Caller, 0, remote(a2));
    rig.table.commit(Instant(0), &mut anchor);
    assert_eq!(rig.relay(pb, b, &rtp_packet(1)), Ok((pa, a2)));
    assert_eq!(rig.relay(pa, a, &rtp_packet(1)), Err(DropReason::MediaSource));
    rig.table.release(Instant(0), anchor);
}

#[test]
fn families_meet() {
    let ranges = [
        range(ACCESS, "2001:db8::10", 20_000, 2),
        range(ACCESS, "127.0.0.10", 20_000, 2),
        range(CORE, "127.0.0.20", 30_000, 4),
    ];
    let mut rig = Rig::new(table_of(&ranges, Limits::default()));
    let (a, b) = (addr("[2001:db8::1]:7000"), addr("127.0.2.1:8000"));
    let six = Place { realm: ACCESS, v6: true };
    let anchor = rig.table.allocate(Instant(0), six, CALLEE, 1, None, &mut rig.counters).unwrap();
    assert!(rig.table.local(&anchor, Side::Caller, 0).unwrap().is_ipv6());
    assert!(rig.table.local(&anchor, Side::Callee, 0).unwrap().is_ipv4());
    rig.table.set_remote(Instant(0), &anchor, Side::Caller, 0, remote(a));
    rig.table.set_remote(Instant(0), &anchor, Side::Callee, 0, remote(b));
    let (pa, pb) = (rig.port(&anchor, Side::Caller, 0), rig.port(&anchor, Side::Callee, 0));
    assert_eq!(rig.relay(pa, a, &rtp_packet(1)), Ok((pb, b)));
    assert_eq!(rig.relay(pb, b, &rtp_packet(1)), Ok((pa, a)));
    // The callee's realm has no IPv6: its IPv4 serves.
    let anchor2 = rig
        .table
        .allocate(Instant(0), six, Place { realm: CORE, v6: true }, 1, None, &mut rig.counters)
        .unwrap();
    assert!(rig.table.local(&anchor2, Side::Callee, 0).unwrap().is_ipv4());
    rig.table.release(Instant(0), anchor);
    rig.table.release(Instant(0), anchor2);
}

#[test]
fn a_call_moves_to_a_trunk_in_another_realm() {
    let ranges = [
        range(ACCESS, "127.0.0.10", 20_000, 4),
        range(CORE, "127.0.0.20", 30_000, 4),
        range(RealmId(2), "127.0.0.30", 40_000, 1),
    ];
    let mut rig = Rig::new(table_of(&ranges, Limits::default()));
    let a = addr("127.0.1.1:7000");
    let mut anchor = rig.allocate(Instant(0)).unwrap();
    rig.table.set_remote(Instant(0), &anchor, Side::Caller, 0, remote(a));
    rig.table.set_remote(Instant(0), &anchor, Side::Callee, 0, remote(addr("127.0.2.1:8000")));
    let old = rig.port(&anchor, Side::Callee, 0);
    let place = Place { realm: RealmId(2), v6: false };
    let moved =
        rig.table.move_callee(Instant(0), &mut anchor, place, false, None, &mut rig.counters);
    assert_eq!(moved, Ok(()));
    let (pa, pb) = (rig.port(&anchor, Side::Caller, 0), rig.port(&anchor, Side::Callee, 0));
    assert_ne!(pb, old);
    assert_eq!(rig.relay(pa, a, &rtp_packet(1)), Err(DropReason::MediaNoPeer), "not yet known");
    assert_eq!(
        rig.relay(old, addr("127.0.2.1:8000"), &rtp_packet(1)),
        Err(DropReason::MediaPortIdle)
    );
    let b = addr("127.0.3.1:8000");
    rig.table.set_remote(Instant(0), &anchor, Side::Callee, 0, remote(b));
    assert_eq!(rig.relay(pa, a, &rtp_packet(1)), Ok((pb, b)));
    assert_eq!(rig.table.streams(), 1);
    // No room there for a second call: it stays where it was.
    let mut second = rig.allocate(Instant(0)).unwrap();
    let before = rig.port(&second, Side::Callee, 0);
    let moved =
        rig.table.move_callee(Instant(0), &mut second, place, true, None, &mut rig.counters);
    assert_eq!(moved, Err(PortsExhausted));
    assert_eq!(rig.port(&second, Side::Callee, 0), before);
    rig.table.release(Instant(0), anchor);
    rig.table.release(Instant(0), second);
    assert_eq!((rig.table.streams(), rig.table.ports_free()), (0, 2 * (4 + 4 + 1) - 10));
}

/// An attempt that was left may be answered late: its ports are still its own, closed meanwhile, and
/// rest when nobody else can answer.
#[test]
fn a_call_that_moves_back_finds_its_ports() {
    let ranges = [
        range(ACCESS, "127.0.0.10", 20_000, 4),
        range(CORE, "127.0.0.20", 30_000, 4),
        range(RealmId(2), "127.0.0.30", 40_000, 4),
    ];
    let mut rig = Rig::new(table_of(&ranges, Limits::default()));
    let (a, b) = (addr("127.0.1.1:7000"), addr("127.0.2.1:8000"));
    let mut anchor = rig.allocate(Instant(0)).unwrap();
    rig.table.set_remote(Instant(0), &anchor, Side::Caller, 0, remote(a));
    rig.table.set_remote(Instant(0), &anchor, Side::Callee, 0, remote(b));
    let (pa, old) = (rig.port(&anchor, Side::Caller, 0), rig.port(&anchor, Side::Callee, 0));
    let elsewhere = Place { realm: RealmId(2), v6: false };
    let go = |rig: &mut Rig, anchor: &mut Anchor, place| {
        rig.table.move_callee(Instant(0), anchor, place, true, None, &mut rig.counters).unwrap();
    };
    go(&mut rig, &mut anchor, elsewhere);
    let new = rig.port(&anchor, Side::Callee, 0);
    assert_eq!((rig.table.ports_in_use(), rig.table.ports_quarantined()), (6, 0));
    assert_eq!(rig.relay(old, b, &rtp_packet(1)), Err(DropReason::MediaNoPeer), "not the callee");
    assert_eq!(rig.relay(pa, a, &rtp_packet(1)), Err(DropReason::MediaNoPeer));
    rig.table.extend(Instant(0), &mut anchor, 2, None, &mut rig.counters).unwrap();
    go(&mut rig, &mut anchor, CALLEE);
    assert_eq!(rig.port(&anchor, Side::Callee, 0), old);
    rig.table.set_remote(Instant(0), &anchor, Side::Callee, 0, remote(b));
    assert_eq!(rig.relay(pa, a, &rtp_packet(1)), Ok((old, b)));
    assert_eq!(rig.relay(old, b, &rtp_packet(1)), Ok((pa, a)));
    assert_eq!(rig.relay(new, b, &rtp_packet(1)), Err(DropReason::MediaNoPeer));
    assert_eq!((rig.table.ports_in_use(), rig.table.ports_quarantined()), (12, 0));
    rig.table.forget_left(Instant(0), &mut anchor);
    assert_eq!((rig.table.ports_in_use(), rig.table.ports_quarantined()), (8, 4));
    assert_eq!(rig.relay(new, b, &rtp_packet(1)), Err(DropReason::MediaPortIdle));
    go(&mut rig, &mut anchor, elsewhere);
    rig.table.release(Instant(0), anchor);
    assert_eq!((rig.table.ports_in_use(), rig.table.ports_quarantined()), (0, 16));
}

#[test]
fn only_opened_pairs_are_drawn_and_refusal_is_all_or_nothing() {
    let ranges = [range(ACCESS, "127.0.0.10", 20_000, 3), range(CORE, "127.0.0.20", 30_000, 3)];
    let limits = Limits { media_reserve_percent: 0, ..Limits::default() };
    let mut rig = Rig::new(MediaTable::new(&ranges, ShardId(0), 1, limits, &Seed([3; 32])));
    assert_eq!(rig.allocate(Instant(0)).unwrap_err(), PortsExhausted);
    // Both ports of two access pairs, of one core pair, and one port of another.
    for id in [0, 1, 2, 3, 6, 7, 8] {
        rig.table.port_opened(MediaPortId(id));
        rig.table.port_opened(MediaPortId(id));
    }
    assert_eq!(rig.table.ports_free(), 6);
    let two = rig.table.allocate(Instant(0), CALLER, CALLEE, 2, None, &mut rig.counters);
    assert_eq!(two.unwrap_err(), PortsExhausted);
    assert_eq!((rig.table.ports_free(), rig.table.streams()), (6, 0));
    let mut one = rig.allocate(Instant(0)).unwrap();
    let more = rig.table.extend(Instant(0), &mut one, 2, None, &mut rig.counters);
    assert_eq!((more, one.streams()), (Err(PortsExhausted), 1));
    assert_eq!(rig.counters.media_ports_refused, 3);
    let nine = rig.table.extend(Instant(0), &mut one, STREAMS + 1, None, &mut rig.counters);
    assert_eq!(nine, Err(PortsExhausted));
    rig.table.release(Instant(0), one);
}

const STREAMS: usize = crate::limits::STREAMS_PER_CALL_MAX;

#[test]
fn ordinary_calls_leave_the_reserve_to_emergency_calls() {
    let limits = Limits { media_reserve_percent: 10, ..Limits::default() };
    let mut rig = Rig::new(table(20, limits));
    let token = EmergencyRoute::for_test();
    let mut anchors = Vec::new();
    while let Ok(anchor) = rig.allocate(Instant(0)) {
        anchors.push(anchor);
    }
    assert_eq!(anchors.len(), 18);
    for _ in 0..2 {
        let emergency =
            rig.table.allocate(Instant(0), CALLER, CALLEE, 1, Some(&token), &mut rig.counters);
        anchors.push(emergency.unwrap());
    }
    let no_more =
        rig.table.allocate(Instant(0), CALLER, CALLEE, 1, Some(&token), &mut rig.counters);
    assert!(no_more.is_err(), "there is no pair at all");
    // A pair that still rests serves an emergency call, and nobody else.
    rig.table.release(Instant(0), anchors.remove(0));
    assert!(rig.allocate(Instant(0)).is_err());
    let emergency =
        rig.table.allocate(Instant(0), CALLER, CALLEE, 1, Some(&token), &mut rig.counters);
    anchors.push(emergency.unwrap());
    for anchor in anchors {
        rig.table.release(Instant(0), anchor);
    }
}

#[test]
fn ports_rest_and_draws_cannot_be_foretold() {
    let limits = Limits { media_reserve_percent: 0, ..Limits::default() };
    let mut rig = Rig::new(table(200, limits));
    let mut drawn = Vec::new();
    let mut now = Instant(0);
    for _ in 0..100 {
        let anchor = rig.allocate(now).unwrap();
        drawn.push(rig.port(&anchor, Side::Caller, 0).0 / 2);
        rig.table.release(now, anchor);
    }
    assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), 100, "none came back within its rest");
    let sequential = drawn.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
    assert!(sequential < 20, "{sequential} of 99 draws were the next port");
    now = now + limits.media_quarantine;
    rig.table.sweep(now);
    assert_eq!((rig.table.ports_quarantined(), rig.table.ports_free()), (0, 800));
}

/// A pool that is used up gives back what has rested longest, but never what has not had the least
/// rest, and says how often.
#[test]
fn a_pool_under_pressure_shortens_the_rest_and_counts_it() {
    let limits = Limits { media_reserve_percent: 0, ..Limits::default() };
    let mut rig = Rig::new(table(2, limits));
    let start = Instant(0);
    let first = rig.allocate(start).unwrap();
    let port = rig.port(&first, Side::Caller, 0);
    rig.table.release(start, first);
    let second = rig.allocate(start).unwrap();
    let soon = start + (limits.media_quarantine_least - Duration::from_millis(1));
    assert!(rig.allocate(soon).is_err(), "the least rest is kept");
    let third = rig.allocate(start + limits.media_quarantine_least).unwrap();
    assert_eq!(rig.port(&third, Side::Caller, 0), port, "the pair that rested");
    assert_eq!(rig.table.ports_reused_early(), 2, "one pair on each side");
    for anchor in [second, third] {
        rig.table.release(soon, anchor);
    }
}

/// 24,000 calls through a pool of 1,000, with senders that do not stop when their call ends: no
/// packet of one call reaches the other party of another (lessons.md 1.1).
#[test]
fn no_packet_of_one_call_reaches_another() {
    const CALLS: u32 = 24_000;
    const LIVE: usize = 700;
    let limits = Limits { media_quarantine: Duration::from_millis(200), ..Limits::default() };
    let mut rig = Rig::new(table(1_000, limits));
    let party = |side: u8, call: u32| {
        let [_, high, low, _] = (call << 8).to_be_bytes();
        SocketAddr::from(([10, side, high, low], 4_000))
    };
    // Per call: anchor and the port that each side was told.
    let mut live: VecDeque<(u32, Anchor)> = VecDeque::new();
    let mut told: HashMap<u32, (MediaPortId, MediaPortId)> = HashMap::new();
    let mut ended: VecDeque<u32> = VecDeque::new();
    let (mut relayed, mut refused) = (0_u32, 0_u32);
    for call in 0..CALLS {
        let now = Instant::from_millis(u64::from(call));
        if live.len() >= LIVE {
            let (old, anchor) = live.pop_front().unwrap();
            rig.table.release(now, anchor);
            ended.push_back(old);
        }
        let Ok(anchor) = rig.allocate(now) else {
            refused += 1;
            continue;
        };
        rig.table.set_remote(Instant(0), &anchor, Side::Caller, 0, remote(party(1, call)));
        rig.table.set_remote(Instant(0), &anchor, Side::Callee, 0, remote(party(2, call)));
        told.insert(call, (rig.port(&anchor, Side::Caller, 0), rig.port(&anchor, Side::Callee, 0)));
        live.push_back((call, anchor));
        // Parties of calls that live and of calls long gone all send on.
        let senders = live.iter().step_by(97).map(|(call, _)| *call);
        for sender in senders.chain(ended.iter().rev().step_by(131).take(12).copied()) {
            let (caller_port, callee_port) = told[&sender];
            for (port, from, to) in [(caller_port, 1, 2), (callee_port, 2, 1)] {
                if let Ok((_, reached)) = rig.relay(port, party(from, sender), &rtp_packet(sender))
                {
                    assert_eq!(reached, party(to, sender));
                    relayed += 1;
                }
            }
        }
    }
    assert_eq!(refused, 0);
    assert!(relayed > 100_000, "{relayed}");
    for (_, anchor) in live {
        rig.table.release(Instant::from_millis(u64::from(CALLS)), anchor);
    }
    rig.table.sweep(Instant::from_millis(u64::from(CALLS) + 200));
    assert_eq!(
        (rig.table.streams(), rig.table.ports_quarantined(), rig.table.ports_free()),
        (0, 0, 4_000)
    );
}

proptest! {
    /// Whatever is allocated, extended, moved and released: no pair is in two hands, and none is
    /// lost.
    #[test]
    fn pairs_are_conserved(steps in proptest::collection::vec((0..5_u8, any::<usize>(), 0..400_u64), 1..120)) {
        let limits = Limits {
            media_quarantine: Duration::from_millis(500),
            media_reserve_percent: 0,
            ..Limits::default()
        };
        let mut rig = Rig::new(table(12, limits));
        let mut anchors: Vec<Anchor> = Vec::new();
        let mut now = Instant(0);
        for (kind, which, ms) in steps {
            now = now + Duration::from_millis(ms);
            match kind {
                0 | 1 => {
                    let count = which % 3 + 1;
                    let anchor =
                        rig.table.allocate(now, CALLER, CALLEE, count, None, &mut rig.counters);
                    anchors.extend(anchor);
                }
                2 if !anchors.is_empty() => {
                    let at = which % anchors.len();
                    let count = which % 4;
                    let _ = rig.table.extend(now, &mut anchors[at], count, None, &mut rig.counters);
                }
                3 if !anchors.is_empty() => {
                    let at = which % anchors.len();
                    let place = if which % 2 == 0 { CALLER } else { CALLEE };
                    let _ = rig.table.move_callee(
                        now, &mut anchors[at], place, ms % 3 != 0, None, &mut rig.counters,
                    );
                    if ms % 5 == 0 {
                        rig.table.forget_left(now, &mut anchors[at]);
                    }
                }
                _ if !anchors.is_empty() => {
                    let anchor = anchors.swap_remove(which % anchors.len());
                    rig.table.release(now, anchor);
                }
                _ => {}
            }
            let mut held = HashSet::new();
            let mut streams = 0;
            for anchor in &anchors {
                for index in 0..anchor.streams() {
                    streams += 1;
                    for side in [Side::Caller, Side::Callee] {
                        prop_assert!(held.insert(rig.port(anchor, side, index)));
                    }
                }
            }
            prop_assert_eq!(rig.table.streams(), streams);
            prop_assert_eq!(
                rig.table.ports_in_use() + rig.table.ports_quarantined() + rig.table.ports_free(),
                48
            );
        }
    }
}

/// Fewer sockets than ports: every range has its share, and what is drawn was opened.
#[test]
fn a_bound_on_pairs_is_shared_out_over_the_ranges() {
    let range = |realm, first_port, last_port| MediaRange {
        realm: RealmId(realm),
        address: "127.0.0.1".parse().unwrap(),
        advertise: "127.0.0.1".parse().unwrap(),
        first_port,
        last_port,
        driver: ravelin_policy::Driver::Auto,
        dscp: None,
    };
    let ranges = [range(0, 20_000, 20_799), range(1, 30_000, 30_199), range(2, 40_000, 40_001)];
    for (bound, pairs) in [(u32::MAX, [400, 100, 1]), (501, [400, 100, 1]), (100, [79, 19, 1])] {
        let limits = Limits { media_pairs: bound, ..Limits::default() };
        let table = MediaTable::new(&ranges, ShardId(0), 1, limits, &Seed([3; 32]));
        let of = |first: u16, last: u16| {
            let specs = table.specs().iter();
            specs.filter(|spec| (first..=last).contains(&spec.addr.port())).count() / 2
        };
        assert_eq!([of(20_000, 20_799), of(30_000, 30_199), of(40_000, 40_001)], pairs);
        assert_eq!(table.specs().len(), 2 * pairs.iter().sum::<usize>());
    }
}
