//! Parties behind a NAT, and those who would like to be taken for one.

use super::*;
use crate::limits::{
    LATCH_CANDIDATES, LATCH_PACKETS, LATCH_UNPROVEN_MAX, LATCH_WINDOW, SPRAYED_PORTS_MIN,
    SPRAYER_MEMORY,
};

/// What the caller's SDP says, where its NAT lets it appear, and where its signalling comes from.
const INSIDE: &str = "192.168.7.2:7000";
const OUTSIDE: &str = "198.51.100.9:31002";
const NEAR: &str = "198.51.100.9";
const FAR_SIDE: &str = "127.0.2.1:8000";

fn behind_nat(signalled: &str) -> Remote {
    Remote { nat: Nat::Latch { near: NEAR.parse().unwrap() }, ..remote(addr(signalled)) }
}

/// A sender of RTP.
#[derive(Clone, Copy)]
struct Sender {
    at: SocketAddr,
    ssrc: u32,
    sequence: u16,
}

impl Sender {
    fn new(at: &str, ssrc: u32) -> Self {
        Self { at: addr(at), ssrc, sequence: 65_530 }
    }

    fn packet(&mut self) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = vec![0x80, 0];
        packet.extend_from_slice(&self.sequence.to_be_bytes());
        packet.extend_from_slice(&[0; 4]);
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        packet.extend_from_slice(&[0xff; 160]);
        packet
    }
}

/// One call whose caller is behind a NAT.
struct Natted {
    rig: Rig,
    anchor: Anchor,
    caller: MediaPortId,
    callee: MediaPortId,
}

impl Natted {
    fn new() -> Self {
        let mut rig = Rig::new(table(8, Limits::default()));
        let anchor = rig.allocate(Instant(0)).unwrap();
        let (caller, callee) =
            (rig.port(&anchor, Side::Caller, 0), rig.port(&anchor, Side::Callee, 0));
        let mut call = Self { rig, anchor, caller, callee };
        call.signal(INSIDE);
        call.rig.table.set_remote(
            call.rig.now,
            &call.anchor,
            Side::Callee,
            0,
            remote(addr(FAR_SIDE)),
        );
        call
    }

    fn signal(&mut self, address: &str) {
        let Self { rig, anchor, .. } = self;
        rig.table.set_remote(rig.now, anchor, Side::Caller, 0, behind_nat(address));
    }

    fn wait(&mut self, ms: u64) {
        self.rig.now = self.rig.now + Duration::from_millis(ms);
    }

    fn send(&mut self, sender: &mut Sender) -> Result<(), DropReason> {
        self.rig.relay(self.caller, sender.at, &sender.packet()).map(|(port, to)| {
            assert_eq!((port, to), (self.callee, addr(FAR_SIDE)));
        })
    }

    /// One packet each 20 ms; how many passed.
    fn stream(&mut self, sender: &mut Sender, packets: u32) -> u32 {
        let mut passed = 0;
        for _ in 0..packets {
            self.wait(20);
            passed += u32::from(self.send(sender).is_ok());
        }
        passed
    }

    /// Where the caller gets its media.
    fn reached(&mut self) -> SocketAddr {
        self.rig.relay(self.callee, addr(FAR_SIDE), &rtp_packet(1)).unwrap().1
    }

    fn end(self) {
        let Self { mut rig, anchor, .. } = self;
        rig.table.release(rig.now, anchor);
    }
}

#[test]
fn a_party_behind_a_nat_is_found_and_loses_no_packet() {
    let mut call = Natted::new();
    let mut party = Sender::new(OUTSIDE, 7);
    assert_eq!(call.stream(&mut party, LATCH_PACKETS - 1), LATCH_PACKETS - 1);
    assert_eq!(call.reached(), addr(INSIDE), "not proven yet");
    assert_eq!(call.stream(&mut party, 100), 100);
    assert_eq!(call.reached(), addr(OUTSIDE));
    // Its RTCP comes from the next port up of the same host, ours goes there.
    let odd = |port: MediaPortId| MediaPortId(port.0 + 1);
    let (caller, callee) = (odd(call.caller), odd(call.callee));
    assert!(call.rig.relay(caller, addr("198.51.100.9:31003"), &RTCP_PACKET).is_ok());
    let far_rtcp = addr("127.0.2.1:8001");
    let back = call.rig.relay(callee, far_rtcp, &RTCP_PACKET).unwrap();
    assert_eq!(back, (caller, addr("198.51.100.9:31003")));
    let elsewhere = call.rig.relay(caller, addr("198.51.100.9:31005"), &RTCP_PACKET);
    assert_eq!(elsewhere, Err(DropReason::MediaSource));
    // Once found it may change its SSRC; nobody else is let in, from its host or any other.
    assert_eq!(call.stream(&mut Sender::new(OUTSIDE, 8), 10), 10);
    for other in ["198.51.100.9:31004", "198.51.100.9:7000", "203.0.113.5:9"] {
        assert_eq!(call.stream(&mut Sender::new(other, 7), 20), 0, "{other}");
    }
    call.end();
}

/// The one that has shown least makes room: a party that has begun to show itself is found though
/// its host sends from many ports once.
#[test]
fn candidates_are_bounded_and_the_weakest_makes_room() {
    let mut call = Natted::new();
    let mut party = Sender::new(OUTSIDE, 7);
    call.stream(&mut party, 2);
    for other in 0..2 * LATCH_CANDIDATES as u16 {
        let mut other = Sender::new(&format!("{NEAR}:{}", 40_000 + other), 100);
        let _ = call.send(&mut other);
    }
    call.stream(&mut party, LATCH_PACKETS - 2);
    assert_eq!(call.reached(), addr(OUTSIDE));
    call.end();

    // As many that have shown as much: the one heard longest ago is forgotten, and begins again.
    let mut call = Natted::new();
    let mut party = Sender::new(OUTSIDE, 7);
    call.stream(&mut party, LATCH_PACKETS - 1);
    for other in 0..LATCH_CANDIDATES as u16 {
        let mut other = Sender::new(&format!("{NEAR}:{}", 40_000 + other), 100);
        for _ in 0..LATCH_PACKETS - 1 {
            let _ = call.send(&mut other);
        }
    }
    call.stream(&mut party, 1);
    assert_eq!(call.reached(), addr(INSIDE), "forgotten");
    call.end();
}

#[test]
fn multiplexed_rtcp_follows_the_latch() {
    let mut call = Natted::new();
    let Natted { rig, anchor, .. } = &mut call;
    let mux = Remote { rtcp_mux: true, ..behind_nat(INSIDE) };
    rig.table.set_remote(rig.now, anchor, Side::Caller, 0, mux);
    call.stream(&mut Sender::new(OUTSIDE, 7), 5);
    let (caller, callee) = (call.caller, call.callee);
    assert!(call.rig.relay(caller, addr(OUTSIDE), &RTCP_PACKET).is_ok());
    let far_rtcp = addr("127.0.2.1:8001");
    let back = call.rig.relay(MediaPortId(callee.0 + 1), far_rtcp, &RTCP_PACKET);
    assert_eq!(back, Ok((caller, addr(OUTSIDE))));
    call.end();
}

/// Whatever somebody from elsewhere sends, and whenever: nothing passes, nothing is diverted.
#[test]
fn another_host_never_latches() {
    let mut call = Natted::new();
    let mut attacker = Sender::new("203.0.113.5:9000", 1);
    assert_eq!(call.stream(&mut attacker, 200), 0);
    assert_eq!(call.reached(), addr(INSIDE));
    assert_eq!(call.rig.counters.drops(DropReason::MediaSource), 200);
    call.end();
}

/// From the party's own host, in one burst, faster than anybody talks.
#[test]
fn a_burst_does_not_latch_and_five_packets_pass_at_most() {
    let mut call = Natted::new();
    let mut attacker = Sender::new("198.51.100.9:5", 1);
    let passed: u32 = (0..1_000).map(|_| u32::from(call.send(&mut attacker).is_ok())).sum();
    assert_eq!(passed, LATCH_UNPROVEN_MAX);
    assert_eq!(call.reached(), addr(INSIDE));
    assert_eq!(call.rig.counters.drops(DropReason::MediaUnproven), 995);
    // The party comes and is found all the same.
    let passed = call.stream(&mut Sender::new(OUTSIDE, 7), 50);
    assert!(passed >= 40, "{passed}");
    assert_eq!(call.reached(), addr(OUTSIDE));
    // No re-INVITE gives more credit.
    call.signal("192.168.7.2:7002");
    assert_eq!(call.stream(&mut Sender::new("198.51.100.9:31010", 9), LATCH_PACKETS - 1), 0);
    call.end();
}

/// Changing source ports, SSRCs or sequence numbers is no way around.
#[test]
fn what_is_not_one_stream_does_not_latch() {
    let mut call = Natted::new();
    let mut passed = 0;
    for round in 0..400_u16 {
        call.wait(20);
        let mut sender = Sender::new(&format!("198.51.100.9:{}", 2_000 + round % 6), 3);
        sender.sequence = round * 50;
        match round % 3 {
            0 => sender.ssrc = u32::from(round),
            1 => sender.at.set_port(2_000),
            _ => {}
        }
        passed += u32::from(call.send(&mut sender).is_ok());
    }
    assert_eq!(passed, LATCH_UNPROVEN_MAX);
    assert_eq!(call.reached(), addr(INSIDE));
    call.end();
}

/// Two from the same host at the same time, each as good as the other: neither is believed until one
/// of them stops. What speaks for one decides.
#[test]
fn rivals_block_each_other_unless_one_is_likelier() {
    let mut call = Natted::new();
    let (mut one, mut two) = (Sender::new(OUTSIDE, 7), Sender::new("198.51.100.9:40000", 8));
    let mut passed = 0;
    for _ in 0..40 {
        passed += call.stream(&mut one, 1) + call.stream(&mut two, 1);
    }
    assert_eq!(passed, LATCH_UNPROVEN_MAX);
    assert_eq!(call.reached(), addr(INSIDE));
    assert!(call.stream(&mut one, 40) > 20, "the other has stopped");
    assert_eq!(call.reached(), addr(OUTSIDE));
    call.end();

    // The NAT has kept the port.
    let mut call = Natted::new();
    let (mut one, mut two) =
        (Sender::new("198.51.100.9:40000", 8), Sender::new("198.51.100.9:7000", 7));
    for _ in 0..10 {
        call.stream(&mut one, 1);
        call.stream(&mut two, 1);
    }
    assert_eq!(call.reached(), addr("198.51.100.9:7000"));
    call.end();
}

#[test]
fn the_signalled_address_ends_the_search() {
    let mut call = Natted::new();
    assert_eq!(call.stream(&mut Sender::new(INSIDE, 7), 1), 1);
    assert_eq!(call.stream(&mut Sender::new(OUTSIDE, 7), 50), 0);
    assert_eq!(call.reached(), addr(INSIDE));
    call.end();
    // It takes the stream back from whoever was first, once it has shown that it streams.
    let mut call = Natted::new();
    assert_eq!(call.stream(&mut Sender::new(OUTSIDE, 7), 10), 10);
    call.stream(&mut Sender::new(INSIDE, 7), 10);
    assert_eq!(call.reached(), addr(INSIDE));
    call.end();
}

#[test]
fn the_search_ends() {
    let mut call = Natted::new();
    call.wait(u64::try_from(LATCH_WINDOW.as_millis()).unwrap());
    assert_eq!(call.stream(&mut Sender::new(OUTSIDE, 7), 50), 0);
    // The next offer, be it the same, begins it again.
    call.signal(INSIDE);
    assert_eq!(call.stream(&mut Sender::new(OUTSIDE, 7), 50), 50);
    call.end();
}

/// Never from RTCP or what is not sound, even of the right host (lessons.md 2.20).
#[test]
fn only_sound_rtp_teaches() {
    let mut call = Natted::new();
    let mut party = Sender::new(OUTSIDE, 7);
    for _ in 0..50 {
        call.wait(20);
        for port in [call.caller, MediaPortId(call.caller.0 + 1)] {
            for bytes in [
                &RTCP_PACKET[..],
                &[0x80, 201, 0, 1],
                &[0x80, 201],
                &[0x80, 0, 0, 1],
                &[0; 20],
                &[],
            ] {
                assert!(call.rig.relay(port, party.at, bytes).is_err());
            }
        }
        // A CSRC list, an extension and padding that do not fit.
        for first in [0x8f, 0x90, 0xa0] {
            let mut packet = party.packet();
            packet.truncate(20);
            packet[0] = first;
            assert_eq!(
                call.rig.relay(call.caller, party.at, &packet),
                Err(DropReason::MediaMalformed)
            );
        }
    }
    assert_eq!(call.reached(), addr(INSIDE));
    assert_eq!(call.stream(&mut party, LATCH_PACKETS), LATCH_PACKETS, "no credit was used");
    assert_eq!(call.reached(), addr(OUTSIDE));
    call.end();
}

/// lessons.md 1.4: what comes late from the old port of a party that has moved does not bring it
/// back there.
#[test]
fn strays_of_an_earlier_epoch_never_latch_again() {
    let mut call = Natted::new();
    let mut old = Sender::new(OUTSIDE, 7);
    assert_eq!(call.stream(&mut old, 10), 10);
    let (moved, outside) = ("192.168.7.2:7002", "198.51.100.9:31004");
    call.signal(moved);
    // The old stream goes on for a while, before and among the new one.
    assert_eq!(call.stream(&mut old, 30), 0);
    assert_eq!(call.reached(), addr(moved));
    let mut new = Sender::new(outside, 7);
    let mut passed = 0;
    for _ in 0..30 {
        assert_eq!(call.stream(&mut old, 1), 0);
        passed += call.stream(&mut new, 1);
    }
    assert!(passed >= 30 - LATCH_PACKETS, "{passed}");
    assert_eq!(call.reached(), addr(outside));
    // Many moves later it is still one, and what the party is told again is believed again.
    for port in [7_004, 7_006] {
        call.signal(&format!("192.168.7.2:{port}"));
        assert_eq!(call.stream(&mut old, 30) + call.stream(&mut new, 30), 0);
    }
    call.signal(INSIDE);
    assert_eq!(call.reached(), addr(OUTSIDE), "where it was when it last said so");
    assert_eq!(call.stream(&mut old, 10), 10);
    assert_eq!(call.stream(&mut new, 30), 0);
    call.end();
}

/// A refresh, a hold by 0.0.0.0 and its end: the party is where it was, at once; if its NAT gave it
/// another port meanwhile, it is found again.
#[test]
fn the_same_address_again_keeps_what_was_learnt() {
    let mut call = Natted::new();
    let mut party = Sender::new(OUTSIDE, 7);
    assert_eq!(call.stream(&mut party, 10), 10);
    call.signal(INSIDE);
    assert_eq!(call.reached(), addr(OUTSIDE));
    assert_eq!(call.stream(&mut party, 10), 10);
    let hold = Remote { rtp: None, rtcp: None, ..behind_nat(INSIDE) };
    let Natted { rig, anchor, .. } = &mut call;
    rig.table.set_remote(rig.now, anchor, Side::Caller, 0, hold);
    assert_eq!(call.send(&mut party), Err(DropReason::MediaNoPeer));
    call.signal(INSIDE);
    assert_eq!(call.reached(), addr(OUTSIDE));
    call.signal(INSIDE);
    let rebound = "198.51.100.9:31100";
    assert!(call.stream(&mut Sender::new(rebound, 7), 20) > 0);
    assert_eq!(call.reached(), addr(rebound));
    assert_eq!(call.stream(&mut party, 20), 0);
    // Its signalling comes from another network: nothing of the old one holds.
    let Natted { rig, anchor, .. } = &mut call;
    let roamed =
        Remote { nat: Nat::Latch { near: "203.0.113.77".parse().unwrap() }, ..behind_nat(INSIDE) };
    rig.table.set_remote(rig.now, anchor, Side::Caller, 0, roamed);
    assert_eq!(call.reached(), addr(INSIDE));
    assert_eq!(call.stream(&mut Sender::new("203.0.113.77:9", 7), 20), 20 - (LATCH_PACKETS - 1));
    assert_eq!(call.reached(), addr("203.0.113.77:9"));
    call.end();
}

/// A trunk without `nat: latch` learns nothing, and after a change of mind neither.
#[test]
fn without_leave_nothing_is_learnt() {
    let mut call = Natted::new();
    let Natted { rig, anchor, .. } = &mut call;
    rig.table.set_remote(rig.now, anchor, Side::Caller, 0, remote(addr(INSIDE)));
    assert_eq!(call.stream(&mut Sender::new(OUTSIDE, 7), 50), 0);
    assert_eq!(call.stream(&mut Sender::new(INSIDE, 7), 50), 50);
    call.end();
}

/// Whoever was heard on closed ports may not latch; it may do all that a signalled source may
/// (lessons.md 1.18).
#[test]
fn a_sprayer_cannot_latch_and_a_signalled_source_may_have_sprayed() {
    let mut call = Natted::new();
    let mut sprayer = Sender::new("198.51.100.9:6000", 1);
    let closed: Vec<MediaPortId> = (0..16)
        .map(|id| MediaPortId(id * 2))
        .filter(|port| *port != call.caller && *port != call.callee)
        .collect();
    for port in &closed {
        let refused = call.rig.relay(*port, sprayer.at, &sprayer.packet());
        assert_eq!(refused, Err(DropReason::MediaPortIdle));
    }
    assert_eq!(call.stream(&mut sprayer, 20), 0);
    assert_eq!(call.rig.counters.drops(DropReason::MediaSprayer), 20);
    assert_eq!(call.rig.table.sprayers(), 1);
    // Another socket of the same host, as another phone behind the same NAT has: nothing is held
    // against it.
    assert_eq!(call.stream(&mut Sender::new(OUTSIDE, 7), 20), 20);
    // What it signals itself it may use.
    call.signal("198.51.100.9:6000");
    assert_eq!(call.stream(&mut sprayer, 20), 20);
    // It is forgotten.
    let later = call.rig.now + SPRAYER_MEMORY;
    call.rig.table.sweep(later);
    assert_eq!(call.rig.table.sprayers(), 0);
    call.end();
}

/// One closed port is no crime, unless it is the very port that opens later.
#[test]
fn waiting_at_a_port_until_it_opens_is_spraying() {
    let mut rig = Rig::new(table(1, Limits::default()));
    let (mut early, mut party) = (Sender::new("198.51.100.9:6000", 1), Sender::new(OUTSIDE, 7));
    // The only pair on the caller's side.
    assert!(rig.relay(MediaPortId(0), early.at, &early.packet()).is_err());
    let anchor = rig.allocate(rig.now).unwrap();
    let caller = rig.port(&anchor, Side::Caller, 0);
    assert_eq!(caller, MediaPortId(0));
    rig.table.set_remote(rig.now, &anchor, Side::Caller, 0, behind_nat(INSIDE));
    rig.table.set_remote(rig.now, &anchor, Side::Callee, 0, remote(addr(FAR_SIDE)));
    assert_eq!(rig.relay(caller, early.at, &early.packet()), Err(DropReason::MediaSprayer));
    for _ in 0..10 {
        rig.now = rig.now + Duration::from_millis(20);
        assert!(rig.relay(caller, party.at, &party.packet()).is_ok());
    }
    rig.table.release(rig.now, anchor);
    // The party does not stop at once, and calls again, by the same ports: that is held against
    // nobody.
    for _ in 0..10 {
        rig.now = rig.now + Duration::from_millis(20);
        let late = rig.relay(caller, party.at, &party.packet());
        assert_eq!(late, Err(DropReason::MediaPortIdle));
    }
    rig.now = rig.now + Limits::default().media_quarantine_least;
    let anchor = rig.allocate(rig.now).unwrap();
    assert_eq!(rig.port(&anchor, Side::Caller, 0), caller);
    rig.table.set_remote(rig.now, &anchor, Side::Caller, 0, behind_nat(INSIDE));
    rig.table.set_remote(rig.now, &anchor, Side::Callee, 0, remote(addr(FAR_SIDE)));
    for _ in 0..10 {
        rig.now = rig.now + Duration::from_millis(20);
        assert!(rig.relay(caller, party.at, &party.packet()).is_ok());
    }
    rig.table.release(rig.now, anchor);
}

/// The memory is of fixed size; who floods it makes it forget, which is counted, and marks nobody
/// else.
#[test]
fn the_memory_of_sprayers_is_bounded() {
    let mut rig = Rig::new(table(8, Limits::default()));
    for n in 0..100_000_u32 {
        let source = SocketAddr::from((n.to_be_bytes(), 9));
        for pair in 0..SPRAYED_PORTS_MIN {
            assert!(rig.relay(MediaPortId(pair * 2), source, &rtp_packet(n)).is_err());
        }
    }
    let held = rig.table.sprayers();
    assert!((1_500..=2_048).contains(&held), "{held}");
    assert_eq!(rig.table.sprayers_displaced(), 100_000 - 2_048);
}

/// UDPTL of T.38: a primary sequence number, one packet of data, no secondary ones.
fn udptl(sequence: u8) -> Vec<u8> {
    vec![0, sequence, 1, 6, 0, 0]
}

impl Natted {
    /// Both parties agree on fax.
    fn fax(&mut self, address: &str) {
        let Self { rig, anchor, .. } = self;
        let ours = Remote { datagrams: true, ..behind_nat(address) };
        let theirs = Remote { datagrams: true, ..remote(addr(FAR_SIDE)) };
        for (side, remote) in [(Side::Caller, ours), (Side::Callee, theirs)] {
            rig.table.set_remote(rig.now, anchor, side, 0, remote);
        }
    }
}

/// A datagram that is not RTP says nothing of who made it, however many come and however well they are
/// numbered: nobody but who is at the signalled address is heard, or gets anything.
#[test]
fn a_spray_of_udptl_finds_no_way_in() {
    let mut call = Natted::new();
    call.fax(INSIDE);
    for sequence in 0..100 {
        call.wait(20);
        for from in [OUTSIDE, "198.51.100.9:7000", "192.168.7.2:7002", "203.0.113.5:7000"] {
            let refused = call.rig.relay(call.caller, addr(from), &udptl(sequence));
            assert_eq!(refused, Err(DropReason::MediaSource), "{from}");
        }
        let passed = call.rig.relay(call.caller, addr(INSIDE), &udptl(sequence));
        assert_eq!(passed, Ok((call.callee, addr(FAR_SIDE))));
        let back = call.rig.relay(call.callee, addr(FAR_SIDE), &udptl(sequence)).unwrap();
        assert_eq!(back.1, addr(INSIDE));
    }
    call.end();
}

/// Fax behind a NAT goes where the voice before it went, if it is signalled for the same address.
#[test]
fn fax_follows_the_voice_that_was_found() {
    let mut call = Natted::new();
    let mut party = Sender::new(OUTSIDE, 7);
    call.stream(&mut party, 20);
    assert_eq!(call.reached(), addr(OUTSIDE));
    call.fax(INSIDE);
    let passed = call.rig.relay(call.caller, addr(OUTSIDE), &udptl(1));
    assert_eq!(passed, Ok((call.callee, addr(FAR_SIDE))));
    let back = call.rig.relay(call.callee, addr(FAR_SIDE), &udptl(1)).unwrap();
    assert_eq!(back.1, addr(OUTSIDE));
    for from in [INSIDE, "198.51.100.9:31004", "203.0.113.5:31002"] {
        let refused = call.rig.relay(call.caller, addr(from), &udptl(2));
        assert_eq!(refused, Err(DropReason::MediaSource), "{from}");
    }
    call.end();
}
