//! Calls whose descriptions name ports of ours.

use super::*;
use crate::limits::{HAIRPIN_PACKETS_PER_SECOND, HAIRPIN_REST};

/// Two calls, or three; whoever is not named is at home.
struct Calls {
    rig: Rig,
    anchors: Vec<Anchor>,
}

impl Calls {
    fn new(count: usize) -> Self {
        let mut rig = Rig::new(table(8, Limits::default()));
        let anchors = (0..count).map(|_| rig.allocate(Instant(0)).unwrap()).collect();
        Self { rig, anchors }
    }

    /// Where Ravelin's port of a call is.
    fn at(&self, call: usize, side: Side) -> SocketAddr {
        let port = self.rig.port(&self.anchors[call], side, 0);
        self.rig.table.specs()[port.0 as usize].addr
    }

    fn signal(&mut self, call: usize, side: Side, party: SocketAddr) {
        let now = self.rig.now;
        self.rig.table.set_remote(now, &self.anchors[call], side, 0, remote(party));
    }

    /// Ports of ours name each other.
    fn join(&mut self, one: (usize, Side), other: (usize, Side)) {
        let [at_one, at_other] = [one, other].map(|(call, side)| self.at(call, side));
        self.signal(one.0, one.1, at_other);
        self.signal(other.0, other.1, at_one);
    }

    fn port_at(&self, at: SocketAddr) -> Option<MediaPortId> {
        let place = self.rig.table.specs().iter().position(|spec| spec.addr == at)?;
        Some(MediaPortId(u32::try_from(place).unwrap()))
    }

    /// Follows a packet until it leaves for somebody else, or `steps` times.
    fn follow(
        &mut self,
        mut from: SocketAddr,
        mut to: SocketAddr,
        packet: &[u8],
        steps: u32,
    ) -> Result<Option<SocketAddr>, DropReason> {
        for _ in 0..steps {
            let Some(port) = self.port_at(to) else { return Ok(Some(to)) };
            let (left, next) = self.rig.relay(port, from, packet)?;
            (from, to) = (self.rig.table.specs()[left.0 as usize].addr, next);
        }
        Ok(None)
    }
}

use Side::{Callee, Caller};

/// A proxy that passes descriptions on stands twice between a caller and a callee: three calls, the
/// one in the middle from port to port. All media of a call passes, for as long as it likes.
#[test]
fn a_call_that_comes_back_twice_is_heard() {
    let mut calls = Calls::new(3);
    let (caller, callee) = (addr("127.0.1.1:7000"), addr("127.0.1.2:7000"));
    calls.signal(0, Caller, caller);
    calls.join((0, Callee), (1, Callee));
    calls.join((1, Caller), (2, Caller));
    calls.signal(2, Callee, callee);
    let packet = rtp_packet(1);
    for second in 0..30 {
        for number in 0..u64::from(HAIRPIN_PACKETS_PER_SECOND) {
            calls.rig.now = Instant::from_millis(second * 1_000 + number);
            for (from, call, side, to) in [(caller, 0, Caller, callee), (callee, 2, Callee, caller)]
            {
                let entry = calls.at(call, side);
                assert_eq!(calls.follow(from, entry, &packet, 9), Ok(Some(to)), "{second} s");
            }
        }
    }
}

/// Two calls in a ring: one packet that was on its way when the last offer took effect would go round
/// for ever. It is dropped before long, RTCP and datagrams too, and the calls work when they no longer
/// name each other.
#[test]
fn nothing_goes_round_in_a_ring_of_calls() {
    for (packet, datagrams) in [(rtp_packet(1), false), (vec![1, 2, 3], true)] {
        let mut calls = Calls::new(2);
        calls.join((0, Caller), (1, Caller));
        calls.join((0, Callee), (1, Callee));
        for call in 0..2 {
            for side in [Caller, Callee] {
                let told = calls.rig.table.remote(&calls.anchors[call], side, 0).unwrap();
                let told = Remote { datagrams, ..told };
                calls.rig.table.set_remote(calls.rig.now, &calls.anchors[call], side, 0, told);
            }
        }
        let [from, to] = [(1, Caller), (0, Caller)].map(|(call, side)| calls.at(call, side));
        let round = 10 * HAIRPIN_PACKETS_PER_SECOND;
        assert_eq!(calls.follow(from, to, &packet, round), Err(DropReason::MediaLoop));
        let counted = calls.rig.table.count(&calls.anchors[0], Caller).packets;
        assert_eq!(counted, u64::from(HAIRPIN_PACKETS_PER_SECOND));
        // Others that were in it.
        assert_eq!(calls.follow(from, to, &packet, round), Err(DropReason::MediaLoop));
        assert_eq!(calls.rig.counters.drops(DropReason::MediaLoop), 2);
        // The other way round is another direction.
        let [from, to] = [(1, Callee), (0, Callee)].map(|(call, side)| calls.at(call, side));
        assert_eq!(calls.follow(from, to, &packet, round), Err(DropReason::MediaLoop));

        let callee = addr("127.0.2.1:8000");
        for call in 0..2 {
            let told = Remote { datagrams, ..remote(callee) };
            calls.rig.table.set_remote(calls.rig.now, &calls.anchors[call], Callee, 0, told);
        }
        let [from, to] = [(1, Caller), (0, Caller)].map(|(call, side)| calls.at(call, side));
        assert_eq!(calls.follow(from, to, &packet, round), Ok(Some(callee)), "no ring any more");
    }
}

/// When the rest is over, what passes is counted anew.
#[test]
fn a_direction_that_had_too_much_passes_again_after_its_rest() {
    let mut calls = Calls::new(2);
    calls.join((0, Caller), (1, Caller));
    calls.join((0, Callee), (1, Callee));
    let [from, to] = [(1, Caller), (0, Caller)].map(|(call, side)| calls.at(call, side));
    let packet = rtp_packet(1);
    let round = 10 * HAIRPIN_PACKETS_PER_SECOND;
    assert_eq!(calls.follow(from, to, &packet, round), Err(DropReason::MediaLoop));
    calls.rig.now = calls.rig.now + HAIRPIN_REST;
    assert_eq!(calls.follow(from, to, &packet, 1), Ok(None));
}
