//! Rules in the maps: checksums that are wrong, ports with one place, rules that are being written.

use super::packet::{comparable, udp_checksum};
use super::program::{HERE, PASS, Program, TX, audio, decision, forwarded, hop, packet};
use super::world::skip;
use crate::xdp::interfaces::Interfaces;
use crate::xdp::layout::{
    self, Action, CHAIN_MAX, Decision, FLAG_FILL_CHECKSUM, FLAG_KEEP_PARTIAL, Hop, Ingress, place,
};
use crate::xdp::table::Table;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const INGRESS: Ingress = Ingress { mac: HERE, vlan: 0, flags: 0 };

/// A checksum that was wrong is forwarded wrong, so that whoever receives it drops it, as the socket
/// would have here. The one exception cannot be told apart: on an interface of this machine's own,
/// the sum of the pseudo header alone says that the rest is to be filled in.
#[test]
fn a_wrong_checksum_is_never_repaired() {
    let program = match Program::load() {
        Ok(program) => program,
        Err(why) => return skip("a_wrong_checksum_is_never_repaired", &why),
    };
    let mut generation = 0;
    for v6 in [false, true] {
        let decision = decision(v6);
        let Action::Forward { source, target, .. } = decision.action else { panic!() };
        for flags in [0, FLAG_FILL_CHECKSUM, FLAG_KEEP_PARTIAL] {
            generation += 1;
            program.set(generation, &decision, &Ingress { flags, ..INGRESS }, Some(&hop(0)));
            let mut sent = packet(&decision, None, audio(1, 160));
            let whole = sent.frame();
            let at = whole.len() - 172 - 2;
            let right = u16::from_be_bytes([whole[at], whole[at + 1]]);
            let empty = udp_checksum(sent.from.ip(), sent.to.ip(), &[]);
            let partial = super::packet::sum(&[], u32::from(!empty) + 180) as u16;
            for wrong in (1..=0xffff_u16).step_by(7).chain([right ^ 1, right ^ 0x8000, !right]) {
                if wrong == right || (flags != 0 && wrong == partial) {
                    continue;
                }
                sent.udp_checksum = Some(wrong);
                let (verdict, frame) = program.run(&sent);
                assert_eq!(verdict, TX);
                let left = &frame[frame.len() - 180..];
                let field = u16::from_be_bytes([left[6], left[7]]);
                let mut udp = left.to_vec();
                udp[6..8].fill(0);
                assert_ne!(field, udp_checksum(source.ip(), target.ip(), &udp), "{wrong:04x}");
                assert_ne!(field, 0, "none at all would be believed");
            }
        }
    }
}

/// Ports of several addresses with the same place: each has its own rule, another one has none, and
/// there is an end of them.
#[test]
fn ports_with_one_place_are_kept_apart() {
    let program = match Program::load() {
        Ok(program) => program,
        Err(why) => return skip("ports_with_one_place_are_kept_apart", &why),
    };
    let same: Vec<SocketAddr> = (0..=u8::MAX)
        .flat_map(|last| {
            let v6 = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)]);
            [IpAddr::from([192, 0, 2, last]), v6]
        })
        .map(|ip| {
            let port = 7_u32.wrapping_sub(place(SocketAddr::new(ip, 0))) & 0xffff;
            SocketAddr::new(ip, port as u16)
        })
        .filter(|at| at.port() > 1_024)
        .take(CHAIN_MAX + 1)
        .collect();
    assert!(same.iter().all(|at| place(*at) == 7));
    let rule = |index: usize, local: SocketAddr| {
        let mut decision = Decision { local, ..decision(local.is_ipv6()) };
        let Action::Forward { target, .. } = &mut decision.action else { panic!() };
        target.set_port(6_000 + index as u16);
        decision
    };
    let (last, rest) = same.split_last().unwrap();
    for (index, local) in rest.iter().enumerate() {
        program.set(1, &rule(index, *local), &INGRESS, Some(&hop(0)));
    }
    assert!(!program.flows.give(*last, 63), "one more than the program asks");
    for (index, local) in rest.iter().enumerate() {
        let decision = rule(index, *local);
        let sent = packet(&decision, None, audio(1, 20));
        let (verdict, frame) = program.run(&sent);
        assert_eq!(verdict, TX, "{local}");
        assert_eq!(comparable(&frame), comparable(&forwarded(&decision, &sent, None).frame()));
    }
    let sent = packet(&rule(0, *last), None, audio(1, 20));
    assert_eq!(program.run(&sent), (PASS, sent.frame()));
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A packet meets one rule or the other, or goes to the sockets: never half of each.
#[test]
fn a_rule_is_read_whole_while_it_is_written() {
    let program = match Program::load() {
        Ok(program) => program,
        Err(why) => return skip("a_rule_is_read_whole_while_it_is_written", &why),
    };
    const RUNS: u32 = 50_000;
    let one = decision(false);
    let mut other = one;
    other.action = Action::Forward {
        source: "203.0.113.77:31002".parse().unwrap(),
        target: "203.0.113.200:41000".parse().unwrap(),
        tos: 0,
    };
    let far = Hop { target_mac: [6; 6], source_mac: [8; 6], ttl: 200, ..hop(0) };
    program.set(1, &one, &INGRESS, Some(&hop(0)));
    let sent = packet(&one, None, audio(1, 160));
    let mut second = forwarded(&other, &sent, None);
    (second.target_mac, second.source_mac, second.ttl) = ([6; 6], [8; 6], 200);
    let expected = [forwarded(&one, &sent, None).frame(), second.frame()].map(|f| comparable(&f));
    let flows = [
        layout::flow(0, 1, &one, &INGRESS, Some(&hop(0))),
        layout::flow(0, 1, &other, &INGRESS, Some(&far)),
    ];
    let done = AtomicBool::new(false);
    let mut seen = [0_u32; 3];
    thread::scope(|scope| {
        scope.spawn(|| {
            // The pauses let packets meet every moment of a write, and find whole rules too.
            for (pause, flow) in (0..97).cycle().zip(flows.iter().cycle()) {
                program.flows.write(1, flow);
                (0..pause).for_each(|_| std::hint::spin_loop());
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        // Whatever becomes of the checks below, the writer ends.
        let _ends = Ends(&done);
        let mut torn = None;
        // The writer may not have had its turn yet.
        let until = Instant::now() + Duration::from_secs(20);
        let mut runs = 0;
        while runs < RUNS || (seen[..2].contains(&0) && Instant::now() < until) {
            runs += 1;
            let (verdict, frame) = program.run(&sent);
            if verdict == PASS {
                seen[2] += 1;
                continue;
            }
            let frame = comparable(&frame);
            match expected.iter().position(|expected| *expected == frame) {
                Some(rule) => seen[rule] += 1,
                None => torn = Some(frame),
            }
        }
        assert_eq!(torn, None, "half of each rule");
    });
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

/// A process that is killed while it writes leaves the port to the sockets; the next one believes
/// nothing of that rule.
#[test]
fn a_rule_that_was_half_written_is_nobodys() {
    let program = match Program::load() {
        Ok(program) => program,
        Err(why) => return skip("a_rule_that_was_half_written_is_nobodys", &why),
    };
    let decision = decision(false);
    program.set(1, &decision, &INGRESS, Some(&hop(0)));
    let sent = packet(&decision, None, audio(1, 160));
    assert_eq!(program.run(&sent).0, TX);
    program.flows.tear(1);
    assert_eq!(program.run(&sent), (PASS, sent.frame()));
    let (resolver, _questions) = crossbeam::channel::bounded(1);
    let table = Table::adopt(program.map_again(), Interfaces::default(), resolver.clone());
    assert_eq!(table.left(), 0);
    // And it can be set anew.
    assert_eq!(program.run(&sent), (PASS, sent.frame()));
    program.set(2, &decision, &INGRESS, Some(&hop(0)));
    assert_eq!(program.run(&sent).0, TX);
    // A whole one is taken over.
    assert_eq!(Table::adopt(program.map_again(), Interfaces::default(), resolver).left(), 1);
}
