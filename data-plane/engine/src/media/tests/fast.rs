//! The fast path only narrows: a model of a kernel that obeys what it is told forwards what the slow
//! path alone would have forwarded, and nothing else.

use super::*;
use crate::port::{FastChange, FastCount, FastFlow, FastKind};

/// Does what it is told: plain RTP of a known flow goes out, all else goes up.
#[derive(Default)]
struct Kernel {
    flows: HashMap<MediaPortId, FastFlow>,
    counts: HashMap<MediaPortId, FastCount>,
    /// Last counts of flows that are no more.
    finals: Vec<FastCount>,
}

impl Kernel {
    fn program(&mut self, changes: &[FastChange]) {
        for change in changes {
            match *change {
                FastChange::Set { port, flow } => {
                    self.flows.insert(port, flow);
                    let count = FastCount { port, epoch: flow.epoch, ..FastCount::default() };
                    self.finals.extend(self.counts.insert(port, count));
                }
                FastChange::Clear { port } => {
                    assert!(self.flows.remove(&port).is_some(), "cleared once");
                }
            }
        }
    }

    /// From which port and to where, if it is forwarded here.
    fn take(
        &mut self,
        now: Instant,
        port: MediaPortId,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Option<(MediaPortId, SocketAddr)> {
        let flow = self.flows.get(&port)?;
        let header = rtp_header(bytes)?;
        let FastKind::Forward { out, to, .. } = flow.kind else { return None };
        if flow.source != source || flow.ssrc != header {
            return None;
        }
        let count = self.counts.get_mut(&port).unwrap();
        count.packets += 1;
        count.bytes += bytes.len() as u64;
        count.last = now;
        Some((out, to))
    }
}

/// SSRC of plain RTP with nothing unusual in its header.
fn rtp_header(bytes: &[u8]) -> Option<u32> {
    let plain = bytes.len() >= 12 && bytes[0] == 0x80 && !(192..=223).contains(&bytes[1]);
    plain.then(|| u32::from_be_bytes(bytes[8..12].try_into().unwrap()))
}

/// The same table with and without a fast path.
struct Twins {
    slow: Rig,
    fast: Rig,
    kernel: Kernel,
    calls: Vec<(Anchor, Anchor)>,
    changes: Vec<FastChange>,
    forwarded: u32,
}

impl Twins {
    fn new() -> Self {
        let slow = Rig::new(table(6, Limits::default()));
        let mut fast = Rig::new(table(6, Limits::default()));
        fast.table.use_fast_path();
        let (kernel, calls, changes) = (Kernel::default(), Vec::new(), Vec::new());
        Self { slow, fast, kernel, calls, changes, forwarded: 0 }
    }

    /// Does the same to both.
    fn both(&mut self, mut work: impl FnMut(&mut Rig, &mut Anchor), call: usize) {
        let Some((slow, fast)) = self.calls.get_mut(call) else { return };
        work(&mut self.slow, slow);
        work(&mut self.fast, fast);
        self.settle();
    }

    fn settle(&mut self) {
        if self.kernel.finals.len() > 2 {
            self.count();
        }
        self.fast.table.take_fast_changes(&mut self.changes);
        self.kernel.program(&self.changes);
        self.changes.clear();
    }

    fn allocate(&mut self) {
        let now = self.slow.now;
        if let (Ok(slow), Ok(fast)) = (self.slow.allocate(now), self.fast.allocate(now)) {
            self.calls.push((slow, fast));
        }
    }

    fn release(&mut self, call: usize) {
        let (slow, fast) = self.calls.swap_remove(call);
        self.count();
        let totals = |rig: &Rig, anchor: &Anchor| {
            [Side::Caller, Side::Callee].map(|side| rig.table.count(anchor, side))
        };
        let ports = [Side::Caller, Side::Callee].map(|side| self.fast.port(&fast, side, 0));
        assert_eq!(totals(&self.slow, &slow), totals(&self.fast, &fast), "counted once, somewhere");
        self.slow.table.release(self.slow.now, slow);
        self.fast.table.release(self.fast.now, fast);
        self.settle();
        for port in ports {
            assert!(!self.kernel.flows.contains_key(&port), "a port rests alone");
        }
    }

    fn count(&mut self) {
        let finals = self.kernel.finals.drain(..);
        let counts: Vec<FastCount> = finals.chain(self.kernel.counts.values().copied()).collect();
        self.fast.table.fast_counts(&counts);
    }

    fn packet(&mut self, port: MediaPortId, source: SocketAddr, bytes: &[u8]) {
        let alone = self.slow.relay(port, source, bytes);
        let fast = self.kernel.take(self.fast.now, port, source, bytes);
        self.forwarded += u32::from(fast.is_some());
        let together = fast.map_or_else(|| self.fast.relay(port, source, bytes), Ok);
        assert_eq!(alone, together);
        self.settle();
    }
}

/// An RTP packet of one of a few streams.
pub(super) fn packet(ssrc: u32, sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0; 4]);
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&[0xff; 20]);
    packet
}

/// Hosts and ports are few, so that they meet.
pub(super) fn place(which: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, which / 4 % 2 + 1], 7_000 + 2 * u16::from(which % 4)))
}

fn signalled(which: u8, kind: u8) -> Remote {
    let remote = remote(place(which));
    match kind % 8 {
        0 => Remote { rtp: None, rtcp: None, ..remote },
        1 => Remote { sends: false, ..remote },
        2 => Remote { receives: false, ..remote },
        3 | 4 => {
            let near = "198.51.100.1".parse().unwrap();
            Remote { nat: Nat::Latch { near }, ..remote }
        }
        5 => Remote { encrypted: true, ..remote },
        _ => remote,
    }
}

#[test]
fn a_steady_stream_is_taken_over_and_followed() {
    let mut twins = Twins::new();
    twins.allocate();
    let (a, b) = (place(0), place(4));
    let answer = |rig: &mut Rig, anchor: &mut Anchor| {
        anchor.stage(Side::Caller, 0, remote(a));
        anchor.stage(Side::Callee, 0, remote(b));
        rig.table.commit(rig.now, anchor);
    };
    twins.both(answer, 0);
    let (port, out) = {
        let (_, anchor) = &twins.calls[0];
        (twins.fast.port(anchor, Side::Caller, 0), twins.fast.port(anchor, Side::Callee, 0))
    };
    for sequence in 0..10 {
        twins.packet(port, a, &packet(1, sequence));
    }
    assert_eq!(twins.forwarded, 8);
    let flow = twins.kernel.flows[&port];
    assert_eq!((flow.source, flow.ssrc), (a, 1));
    assert_eq!(flow.kind, FastKind::Forward { out, to: b, dscp: None });
    // Not the party, or another SSRC: the slow path decides; the second follows once it is steady.
    twins.packet(port, b, &packet(1, 11));
    twins.packet(port, a, &packet(2, 11));
    assert_eq!((twins.forwarded, twins.kernel.flows[&port].ssrc), (8, 1));
    twins.packet(port, a, &packet(2, 12));
    assert_eq!(twins.kernel.flows[&port].ssrc, 2);
    // Hold, and its end: each ends the flow until the stream is heard again.
    let hold = |sends| {
        move |rig: &mut Rig, anchor: &mut Anchor| {
            rig.table.set_remote(
                rig.now,
                anchor,
                Side::Callee,
                0,
                Remote { receives: sends, ..remote(b) },
            );
        }
    };
    twins.both(hold(false), 0);
    assert!(twins.kernel.flows.is_empty());
    twins.both(hold(true), 0);
    let flow = twins.kernel.flows[&port];
    assert_eq!((flow.ssrc, flow.source), (2, a), "the sender has not changed");
    twins.both(answer, 0);
    assert!(twins.kernel.flows.is_empty(), "a new epoch");
    twins.packet(port, a, &packet(2, 13));
    twins.packet(port, a, &packet(2, 14));
    assert_eq!(twins.kernel.flows.len(), 1);
    twins.release(0);
    assert!(twins.kernel.flows.is_empty());
}

/// Counts that come after a port has another use are nobody's.
#[test]
fn counts_of_an_earlier_use_are_not_those_of_the_next() {
    let mut rig = Rig::new(table(1, Limits::default()));
    rig.table.use_fast_path();
    let (a, b) = (place(0), place(4));
    let mut epochs = Vec::new();
    for _ in 0..2 {
        let anchor = rig.allocate(rig.now).unwrap();
        let port = rig.port(&anchor, Side::Caller, 0);
        rig.table.set_remote(rig.now, &anchor, Side::Caller, 0, remote(a));
        rig.table.set_remote(rig.now, &anchor, Side::Callee, 0, remote(b));
        for sequence in 0..3 {
            rig.relay(port, a, &packet(1, sequence)).unwrap();
        }
        let mut changes = Vec::new();
        rig.table.take_fast_changes(&mut changes);
        let Some(FastChange::Set { flow, .. }) = changes.last() else { panic!("{changes:?}") };
        epochs.push(flow.epoch);
        let late = |epoch, packets| FastCount {
            port,
            epoch,
            packets,
            bytes: 32 * packets,
            ..FastCount::default()
        };
        let before = rig.table.count(&anchor, Side::Caller).packets;
        assert_eq!(before, 3);
        rig.table.fast_counts(&[late(epochs[0], 5)]);
        rig.table.fast_counts(&[late(epochs[0], 5)]);
        let after = rig.table.count(&anchor, Side::Caller).packets;
        assert_eq!(after, if epochs.len() == 1 { 8 } else { 3 });
        rig.table.release(rig.now, anchor);
        rig.now = rig.now + Limits::default().media_quarantine;
    }
    assert_ne!(epochs[0], epochs[1]);
}

/// No fast path takes what comes by IPv4 and leaves by IPv6: its loss is seen here.
#[test]
fn a_stream_that_stays_here_is_measured_here() {
    let mut rig = Rig::new(table(1, Limits::default()));
    rig.table.use_fast_path();
    for (to, lost) in [("[2001:db8::9]:8000", 4), ("127.9.3.2:8000", 0)] {
        let (a, b) = (place(0), addr(to));
        let anchor = rig.allocate(rig.now).unwrap();
        let port = rig.port(&anchor, Side::Caller, 0);
        rig.table.set_remote(rig.now, &anchor, Side::Caller, 0, remote(a));
        rig.table.set_remote(rig.now, &anchor, Side::Callee, 0, remote(b));
        for sequence in (0..10).chain(14..20) {
            rig.relay(port, a, &packet(1, sequence)).unwrap();
        }
        let sent = rig.table.qualities(&anchor).remove(0);
        assert_eq!((sent.packets, sent.lost), (16, lost), "{to}");
        assert_eq!(rig.table.is_forwarded(&anchor), lost == 0);
        rig.table.release(rig.now, anchor);
        rig.now = rig.now + Limits::default().media_quarantine;
    }
}

proptest! {
    /// Whatever is offered, held, moved, sent by whom and released.
    #[test]
    fn the_fast_path_forwards_only_what_the_slow_path_would(
        steps in proptest::collection::vec((0..12_u8, any::<u8>(), any::<u8>(), any::<u8>()), 1..300)
    ) {
        let mut twins = Twins::new();
        for (number, (kind, a, b, c)) in steps.into_iter().enumerate() {
            let step = Duration::from_millis(u64::from(b % 32));
            twins.slow.now = twins.slow.now + step;
            twins.fast.now = twins.fast.now + step;
            let call = usize::from(a) % twins.calls.len().max(1);
            let side = if a & 0x80 == 0 { Side::Caller } else { Side::Callee };
            match kind {
                0 => twins.allocate(),
                1 => twins.both(|rig, anchor| {
                    rig.table.set_remote(rig.now, anchor, side, 0, signalled(b, c));
                }, call),
                2 => twins.both(|rig, anchor| {
                    anchor.stage(Side::Caller, 0, signalled(b, 7));
                    anchor.stage(Side::Callee, 0, signalled(c, 7));
                    rig.table.commit(rig.now, anchor);
                }, call),
                3 => twins.both(|rig, anchor| {
                    let Rig { table, counters, now, .. } = rig;
                    let _ = table.move_callee(*now, anchor, CALLEE, c % 2 == 0, None, counters);
                }, call),
                4 if !twins.calls.is_empty() && b % 4 == 0 => twins.release(call),
                5 => twins.count(),
                // A stream of what a party may send.
                6..=8 if !twins.calls.is_empty() => {
                    let port = twins.fast.port(&twins.calls[call].1, side, 0);
                    for n in 0..u16::from(c % 16) {
                        let tick = Duration::from_millis(10);
                        twins.slow.now = twins.slow.now + tick;
                        twins.fast.now = twins.fast.now + tick;
                        let sequence = u16::try_from(number).unwrap() * 16 + n;
                        twins.packet(port, place(b), &packet(u32::from(c % 3), sequence));
                    }
                }
                // Single ones, of anybody, to any port, sound and not.
                _ => {
                    let mut bytes = packet(u32::from(c % 3), u16::from(c));
                    match c % 5 {
                        0 => bytes[0] = c,
                        1 => bytes.truncate(usize::from(c) % 13),
                        2 => bytes = RTCP_PACKET.to_vec(),
                        _ => {}
                    }
                    twins.packet(MediaPortId(u32::from(a) % 26), place(b), &bytes);
                }
            }
        }
        while !twins.calls.is_empty() {
            twins.release(0);
        }
        prop_assert!(twins.kernel.flows.is_empty());
    }
}
