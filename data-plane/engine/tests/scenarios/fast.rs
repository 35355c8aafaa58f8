//! Calls whose packets go by on the fast path: what their records say of them.

use std::collections::BTreeMap;

use ravelin_engine::{
    engine::Engine,
    port::{FastChange, FastCount, MediaPortId},
    time::Instant,
};

use crate::common::*;

/// The fast path of a shard as its driver has it: what it was told of, and what it counted.
#[derive(Default)]
pub struct Kernel {
    flows: BTreeMap<MediaPortId, FastCount>,
}

impl Kernel {
    /// The end of a turn of the shard.
    pub fn turn(&mut self, engine: &mut Engine) {
        let (mut changes, mut counts) = (Vec::new(), Vec::new());
        engine.take_fast_changes(&mut changes);
        for change in changes {
            match change {
                FastChange::Set { port, flow } => {
                    let begun = FastCount { port, epoch: flow.epoch, ..FastCount::default() };
                    counts.extend(self.flows.insert(port, begun));
                }
                FastChange::Clear { port } => counts.extend(self.flows.remove(&port)),
            }
        }
        engine.fast_counts(&counts);
    }

    /// Packets of 172 octets go by at every port that has a flow.
    fn forward(&mut self, now: Instant, packets: u64) {
        for count in self.flows.values_mut() {
            count.packets += packets;
            count.bytes += packets * 172;
            count.highest_sequence = count.highest_sequence.wrapping_add(packets as u16);
            count.last = now;
        }
    }
}

fn packet(n: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(n.to_be_bytes());
    packet.extend((u32::from(n) * 160).to_be_bytes());
    packet.extend([1, 2, 3, 4]);
    packet.extend([0xd5; 160]);
    packet
}

/// A call with both of its streams on the fast path, ten packets of each seen before.
fn forwarded(world: &mut World) -> Caller {
    world.engine.use_fast_path();
    world.fast = Some(Kernel::default());
    let mut caller = Caller::dial(world, "+12125551234");
    world.expect(PBX, "SIP/2.0 100");
    let callee = Callee::take(world, CARRIER_A);
    callee.answer(world);
    world.expect(CARRIER_A, "ACK ");
    let ok = world.expect(PBX, "SIP/2.0 200");
    caller.learn(&ok);
    caller.ack(world, "");
    let near = addr(&format!("127.0.0.10:{}", ok.media_port(0)));
    let far = addr(&format!("127.0.0.20:{}", callee.invite.media_port(0)));
    for n in 0..10 {
        world.send_media("127.0.1.1:40000", near, &packet(n));
        world.send_media("127.0.2.1:50000", far, &packet(n));
        world.pass(20);
    }
    assert_eq!(world.fast.as_ref().unwrap().flows.len(), 2, "both streams are taken over");
    caller
}

/// The last second before a BYE is in the record too: counts of flows that ended come in the turn
/// that ended them, and the record waits for them.
#[test]
fn records_have_every_packet_that_went_by() {
    let mut world = World::new();
    let mut caller = forwarded(&mut world);
    let now = world.now.mono;
    world.fast.as_mut().unwrap().forward(now, 40);
    caller.request(&mut world, "BYE", "");
    assert!(world.fast.as_ref().unwrap().flows.is_empty(), "both flows are cleared");
    let cdr = world.call_cdr();
    let sides = [cdr.media_caller.unwrap(), cdr.media_callee.unwrap()];
    assert_eq!(sides.map(|side| (side.packets, side.bytes)), [(50, 50 * 172); 2]);
    assert_eq!(world.cdrs().len(), 2, "one of the call, one of its attempt");
    for record in world.cdrs() {
        assert_eq!(record.streams.len(), 2);
        assert_eq!(record.streams.iter().map(|stream| stream.packets).sum::<u64>(), 100);
    }
    world.expect(PBX, "SIP/2.0 200");
    let bye = world.expect(CARRIER_A, "BYE ");
    world.send(CARRIER_A, CORE, &bye.reply("200 OK", "", ""));
    world.all_gone();
}

/// A driver that does not tell its last counts in time loses them, and no record.
#[test]
fn a_record_does_not_wait_for_counts_that_do_not_come() {
    let mut world = World::new();
    let mut caller = forwarded(&mut world);
    world.fast = None;
    caller.request(&mut world, "BYE", "");
    assert_eq!(world.call_cdr().media_caller.unwrap().packets, 10);
    assert_eq!(world.cdrs().len(), 2);
    // What is told after that is of no call.
    let mut changes = Vec::new();
    world.engine.take_fast_changes(&mut changes);
    assert!(changes.iter().any(|change| matches!(change, FastChange::Clear { .. })));
}
