//! The program alone, one packet at a time: VLANs, checksums that are not there yet, and the counts.

use super::packet::{Packet, comparable, rtp, sum, udp_checksum};
use super::world::skip;
use crate::sys::bpf;
use crate::sys::thread::pin_to;
use crate::xdp::layout::{
    self, Action, Count, Decision, FLAG_FILL_CHECKSUM, FLAG_KEEP_PARTIAL, Hop, Ingress, port_of,
};
use crate::xdp::shard::merge;
use crate::xdp::shared::{Counts, Flows};
use aya::programs::{ProgramFd, Xdp};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

pub(super) const HERE: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(super) const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(super) const NEXT: [u8; 6] = [2, 0, 0, 0, 0, 3];
pub(super) const OUT: [u8; 6] = [2, 0, 0, 0, 0, 4];
const SSRC: u32 = 0x0102_0304;
pub(super) const PASS: u32 = 2;
pub(super) const TX: u32 = 3;
const SLOTS: u32 = 64;
const CPUS: u32 = 256;
/// Loopback has this index in every namespace; the program only compares it.
const INTERFACE: u32 = 1;

pub(super) struct Program {
    relay: ProgramFd,
    pub(super) flows: Flows,
    counts: Counts,
    object: aya::Ebpf,
}

impl Program {
    pub(super) fn load() -> Result<Self, String> {
        let mut loader = aya::EbpfLoader::new();
        loader.map_max_entries("flows", SLOTS).map_max_entries("counts", SLOTS * CPUS);
        loader.override_global("cpus", &CPUS, true);
        let loaded = loader.load(aya::include_bytes_aligned!("../../../bpf/relay.o"));
        let mut object = loaded.map_err(|error| format!("no BPF here: {error}"))?;
        let relay: &mut Xdp = object.program_mut("relay").unwrap().try_into().unwrap();
        relay.load().map_err(|error| format!("no XDP here: {error}"))?;
        let relay = relay.fd().unwrap().try_clone().unwrap();
        let map = |name| crate::xdp::loader::map(&object, name).unwrap();
        let flows = Flows::new(&map("ports"), &map("flows")).unwrap();
        let counts = Counts::new(&map("counts"), CPUS).unwrap();
        Ok(Self { relay, flows, counts, object })
    }

    /// Sets the flow of a port, which gets the next slot if it has none.
    pub(super) fn set(
        &self,
        generation: u32,
        decision: &Decision,
        ingress: &Ingress,
        hop: Option<&Hop>,
    ) {
        let given = |slot: &u32| self.flows.leads_to(decision.local, *slot);
        let slot = (1..SLOTS).find(given).unwrap_or_else(|| {
            let unused = |slot: &u32| port_of(&self.flows.read(*slot).unwrap().flow).is_none();
            let slot = (1..SLOTS).find(unused).unwrap();
            assert!(self.flows.give(decision.local, slot));
            slot
        });
        let next = self.flows.next(slot);
        self.flows.write(slot, &layout::flow(next, generation, decision, ingress, hop));
    }

    pub(super) fn run(&self, packet: &Packet) -> (u32, Vec<u8>) {
        bpf::run_once(self.relay.as_fd(), &packet.frame(), INTERFACE).unwrap()
    }

    /// The same maps as another process has them.
    pub(super) fn map_again(&self) -> Flows {
        let map = |name| crate::xdp::loader::map(&self.object, name).unwrap();
        Flows::new(&map("ports"), &map("flows")).unwrap()
    }

    /// What the flow in the first slot has counted.
    fn count(&self, generation: u32) -> Count {
        let mut cpus = Vec::new();
        self.counts.read(1, generation, &mut cpus);
        merge(&cpus)
    }
}

pub(super) fn decision(v6: bool) -> Decision {
    let [local, source, out, target] = if v6 {
        ["[fd00::1]:20000", "[fd00::2]:4000", "[fd01::1]:20002", "[fd01::2]:5000"]
    } else {
        ["192.0.2.1:20000", "192.0.2.2:4000", "198.51.100.1:20002", "198.51.100.2:5000"]
    }
    .map(|address| address.parse::<SocketAddr>().unwrap());
    Decision {
        local,
        source,
        ssrc: SSRC,
        clock_hz: 8_000,
        user_types: [101, 0xff],
        action: Action::Forward { source: out, target, tos: 46 << 2 },
    }
}

pub(super) fn packet(decision: &Decision, vlan: Option<u16>, payload: Vec<u8>) -> Packet {
    Packet {
        target_mac: HERE,
        source_mac: PEER,
        vlan,
        from: decision.source,
        to: decision.local,
        payload,
        tos: 0,
        ttl: 3,
        fragment: 0,
        options: Vec::new(),
        extension: None,
        udp_checksum: None,
        ip_checksum: None,
        udp_length_off: 0,
        ip_length_off: 0,
        trailer: 0,
        cut: 0,
    }
}

/// What must leave for a packet.
pub(super) fn forwarded(decision: &Decision, packet: &Packet, vlan: Option<u16>) -> Packet {
    let Action::Forward { source, target, tos } = decision.action else { panic!() };
    Packet {
        target_mac: NEXT,
        source_mac: OUT,
        vlan,
        from: source,
        to: target,
        tos,
        ttl: 64,
        fragment: 0x4000,
        udp_checksum: None,
        trailer: 0,
        ..packet.clone()
    }
}

pub(super) fn hop(vlan: u16) -> Hop {
    Hop { interface: INTERFACE, vlan, target_mac: NEXT, source_mac: OUT, mtu: 1_500, ttl: 64 }
}

pub(super) fn audio(sequence: u16, length: usize) -> Vec<u8> {
    rtp(0x80, 0, sequence, SSRC, &vec![0x5a; length])
}

#[test]
fn vlan_tags_come_and_go() {
    let program = match Program::load() {
        Ok(program) => program,
        Err(why) => return skip("vlan_tags_come_and_go", &why),
    };
    let mut generation = 0;
    for v6 in [false, true] {
        for (arrives, leaves) in [(0, 0), (7, 7), (7, 8), (0, 7), (7, 0), (4_094, 1)] {
            let decision = decision(v6);
            generation += 1;
            let ingress = Ingress { mac: HERE, vlan: arrives, flags: 0 };
            program.set(generation, &decision, &ingress, Some(&hop(leaves)));
            let tag = |vlan: u16| (vlan != 0).then_some(vlan);
            for length in [0, 1, 20, 33, 160, 1_400] {
                let mut sent = packet(&decision, tag(arrives), audio(1, length));
                sent.trailer = length % 3;
                let (verdict, frame) = program.run(&sent);
                assert_eq!(verdict, TX, "{v6} {arrives} {leaves} {length}");
                let expected = forwarded(&decision, &sent, tag(leaves)).frame();
                assert_eq!(comparable(&frame), comparable(&expected));
            }
            // Another tag, a tag more, a tag less: not the interface that was decided.
            for other in [Some(9), (arrives == 0).then_some(7).or(Some(0)), None] {
                if other != tag(arrives) {
                    let sent = packet(&decision, other, audio(2, 160));
                    assert_eq!(program.run(&sent), (PASS, sent.frame()), "{other:?}");
                }
            }
        }
    }
}

#[test]
fn a_checksum_that_is_not_there_yet_is_made() {
    let name = "a_checksum_that_is_not_there_yet_is_made";
    let program = match Program::load() {
        Ok(program) => program,
        Err(why) => return skip(name, &why),
    };
    for v6 in [false, true] {
        let decision = decision(v6);
        for (generation, flags) in [(1, 0), (2, FLAG_FILL_CHECKSUM), (3, FLAG_KEEP_PARTIAL)] {
            let ingress = Ingress { mac: HERE, vlan: 0, flags };
            program.set(generation, &decision, &ingress, Some(&hop(0)));
            for length in [0, 1, 5, 20, 160, 161, 1_000] {
                let mut sent = packet(&decision, None, audio(3, length));
                let whole = sent.frame();
                let at = whole.len() - length - 12 - 2;
                let right = u16::from_be_bytes([whole[at], whole[at + 1]]);
                // What a local sender leaves to the hardware: the sum of the pseudo header.
                let empty = udp_checksum(sent.from.ip(), sent.to.ip(), &[]);
                let partial = u32::from(!empty) + (8 + sent.payload.len()) as u32;
                sent.udp_checksum = Some(sum(&partial.to_be_bytes(), 0) as u16);
                let (verdict, frame) = program.run(&sent);
                assert_eq!(verdict, TX);
                let expected = forwarded(&decision, &sent, None).frame();
                match flags {
                    FLAG_FILL_CHECKSUM => {
                        assert_eq!(comparable(&frame), comparable(&expected), "{v6} {length}");
                    }
                    FLAG_KEEP_PARTIAL => {
                        let Action::Forward { source, target, .. } = decision.action else {
                            panic!()
                        };
                        let empty = udp_checksum(source.ip(), target.ip(), &[]);
                        let wanted = u32::from(!empty) + (8 + sent.payload.len()) as u32;
                        let wanted = sum(&wanted.to_be_bytes(), 0) as u16;
                        assert_eq!(frame[at..at + 2], wanted.to_be_bytes());
                    }
                    // On a card such a packet is a broken one, and stays broken.
                    _ if sent.udp_checksum != Some(right) => assert_ne!(frame, expected),
                    _ => {}
                }
            }
            // None at all: made over IPv4, passed on over IPv6, where it may not be.
            let mut sent = packet(&decision, None, audio(4, 160));
            sent.udp_checksum = Some(0);
            let (verdict, frame) = program.run(&sent);
            if v6 {
                assert_eq!((verdict, frame), (PASS, sent.frame()));
            } else {
                let expected = forwarded(&decision, &sent, None).frame();
                assert_eq!((verdict, comparable(&frame)), (TX, comparable(&expected)));
            }
        }
    }
}

#[test]
fn without_a_next_hop_or_above_its_mtu_packets_pass() {
    let name = "without_a_next_hop_or_above_its_mtu_packets_pass";
    let program = match Program::load() {
        Ok(program) => program,
        Err(why) => return skip(name, &why),
    };
    let decision = decision(false);
    let ingress = Ingress { mac: HERE, vlan: 0, flags: 0 };
    program.set(1, &decision, &ingress, None);
    let sent = packet(&decision, None, audio(1, 160));
    assert_eq!(program.run(&sent), (PASS, sent.frame()));
    program.set(2, &decision, &ingress, Some(&Hop { mtu: 200, ..hop(0) }));
    assert_eq!(program.run(&sent).0, TX);
    let longer = packet(&decision, None, audio(2, 161));
    assert_eq!(program.run(&longer), (PASS, longer.frame()));
}

/// RFC 3550 A.3: packets expected less packets that came, whatever their order, and a leap of the
/// numbers is no loss.
#[test]
fn counts_are_those_of_the_rfc() {
    let program = match Program::load() {
        Ok(program) => program,
        Err(why) => return skip("counts_are_those_of_the_rfc", &why),
    };
    let decision = decision(false);
    let ingress = Ingress { mac: HERE, vlan: 0, flags: 0 };
    let rows: [(&[u16], u64, u16); 8] = [
        (&[10, 11, 12, 13], 0, 13),
        (&[10, 12, 13], 1, 13),
        (&[10, 12, 11, 13], 0, 13),
        (&[10, 9, 8, 13], 2, 13),
        (&[65_534, 65_535, 0, 2], 1, 2),
        (&[0, 65_535, 65_534, 1], 0, 1),
        // A leap: one packet alone says nothing, two in a row begin a new row.
        (&[10, 11, 30_000, 12, 14], 1, 14),
        (&[10, 12, 40_000, 40_001, 40_003], 2, 40_003),
    ];
    for (generation, (sequences, lost, highest)) in (1..).zip(rows) {
        program.set(generation, &decision, &ingress, Some(&hop(0)));
        for &sequence in sequences {
            assert_eq!(program.run(&packet(&decision, None, audio(sequence, 160))).0, TX);
        }
        let count = program.count(generation);
        assert_eq!(count.packets, sequences.len() as u64);
        assert_eq!(count.bytes, 172 * sequences.len() as u64);
        assert_eq!((count.lost(), count.sequence()), (lost, highest), "{sequences:?}");
    }
    // Packets that user space takes are no gap, and not forwarded.
    program.set(100, &decision, &ingress, Some(&hop(0)));
    for (sequence, kind) in [(1, 0), (2, 101), (3, 101), (4, 0)] {
        let payload = rtp(0x80, kind, sequence, SSRC, &[0; 160]);
        let verdict = if kind == 0 { TX } else { PASS };
        assert_eq!(program.run(&packet(&decision, None, payload)).0, verdict);
    }
    let count = program.count(100);
    assert_eq!((count.packets, count.lost()), (2, 0));
}

/// What one CPU sees of a stream goes on where another left it: over wraps that it missed, after an
/// absence of thousands of packets, over leaps, and with the jitter that was.
#[test]
fn several_cpus_are_one_stream() {
    let name = "several_cpus_are_one_stream";
    let program = match Program::load() {
        Ok(program) => program,
        Err(why) => return skip(name, &why),
    };
    if !(0..2).all(|cpu| on_cpu(cpu, || ())) {
        return skip(name, "it needs CPUs 0 and 1");
    }
    let decision = decision(false);
    let ingress = Ingress { mac: HERE, vlan: 0, flags: 0 };
    let pass = |cpu: usize, sequences: &mut dyn Iterator<Item = u16>| {
        let sequences: Vec<_> = sequences.collect();
        assert!(on_cpu(cpu, || {
            for &sequence in &sequences {
                assert_eq!(program.run(&packet(&decision, None, audio(sequence, 20))).0, TX);
            }
        }));
        sequences.len() as u64
    };
    let wait = || thread::sleep(Duration::from_millis(1_050));
    let count_of = |generation: u32, packets: u64, lost: u64, highest: u16| {
        let count = program.count(generation);
        let found = (count.packets, count.lost(), count.sequence());
        assert_eq!(found, (packets, lost, highest), "{generation}");
    };

    // Turn and turn about, and then one of them alone for longer than a gap may be: no loss.
    program.set(1, &decision, &ingress, Some(&hop(0)));
    let mut sent = 0;
    for start in (0..400).step_by(20) {
        sent += pass(usize::from(start % 40 == 0), &mut (start..start + 20));
    }
    sent += pass(0, &mut (400..4_000));
    sent += pass(1, &mut (4_000..4_020).filter(|number| *number != 4_010));
    count_of(1, sent, 1, 4_019);

    // One is away for a whole cycle of the numbers, and comes back at the number that it would
    // expect; the loss of that time is no one's gain.
    program.set(2, &decision, &ingress, Some(&hop(0)));
    let mut sent = pass(0, &mut (0..1_000));
    sent += pass(1, &mut (1_000..=u16::MAX).chain(0..990).filter(|number| *number % 1_000 != 500));
    wait();
    sent += pass(0, &mut (1_000..1_100));
    // 1,500 to 65,500, 500, and 990 to 999.
    count_of(2, sent, 65 + 1 + 10, 1_099);

    // The party starts its numbers anew while they are shared: what was missing before is still
    // missing, once.
    program.set(3, &decision, &ingress, Some(&hop(0)));
    let mut sent = pass(0, &mut (100..110)) + pass(1, &mut (115..120)) + pass(0, &mut (120..125));
    sent += pass(1, &mut (40_000..40_010)) + pass(0, &mut (40_011..40_020));
    sent += pass(1, &mut (40_020..40_022));
    count_of(3, sent, 6, 40_021);
}

/// Runs on one CPU; false: there is no such.
fn on_cpu(cpu: usize, work: impl FnOnce() + Send) -> bool {
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let there = pin_to(cpu).is_ok();
            if there {
                work();
            }
            there
        });
        thread.join().unwrap()
    })
}
