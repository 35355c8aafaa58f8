//! The process ends, and the next one takes its calls over.

use std::collections::BTreeMap;

use ravelin_engine::{
    checkpoint::{Change, Kept},
    port::MediaPortId,
};

use super::{
    judge::Pardon,
    plan::Moment,
    world::{Event, World, new_engines},
};

/// What outlives a process, and what the judge must know of it.
#[derive(Debug, Default)]
pub(super) struct Survival {
    /// By shard and slot.
    records: BTreeMap<(usize, u32), Vec<u8>>,
    /// Nobody listens.
    pub(super) down: bool,
    /// Turns of the run.
    turns: u64,
    /// Processes so far, the first one apart.
    starts: u8,
    pub(super) pardon: Pardon,
}

impl World {
    /// Counts a turn; says where in it the process ends, if it does.
    pub(super) fn next_crash(&mut self) -> Option<Moment> {
        self.survival.turns += 1;
        let turn = self.survival.turns;
        self.plan.crashes.iter().find(|crash| crash.turn == turn).map(|crash| crash.at)
    }

    pub(super) fn write_records(&mut self, shard: usize) {
        let now = self.now();
        let records = &mut self.survival.records;
        self.engines[shard].checkpoints(now, &mut |change| match change {
            Change::Put { slot, bytes, .. } => {
                records.insert((shard, slot), bytes.to_vec());
            }
            Change::Remove { slot } => {
                records.remove(&(shard, slot));
            }
        });
    }

    pub(super) fn crash(&mut self) {
        let turn = self.survival.turns;
        let crash = self.plan.crashes.iter().find(|crash| crash.turn == turn);
        let down_ms = crash.map_or(1, |crash| crash.down_ms);
        if self.trace {
            eprintln!(
                "{:>8} -- the process ends; {} records",
                self.now_ms,
                self.survival.records.len()
            );
        }
        self.tx.clear();
        self.survival.down = true;
        self.survival.pardon.crashed = true;
        let kept: Vec<u32> = self.survival.records.values().filter_map(|r| number_of(r)).collect();
        // Of a call that is not confirmed, or ended already, either party may still wait for a word.
        for call in self.peers[0].calls.values() {
            if kept.contains(&call.number) {
                self.survival.pardon.kept.insert(call.number);
            } else {
                self.survival.pardon.lost.insert(call.number);
            }
        }
        for tick in &mut self.ticks {
            *tick = None;
        }
        let at = self.now_ms + down_ms;
        self.schedule(at, Event::Restart);
    }

    pub(super) fn restart(&mut self) {
        self.survival.starts += 1;
        self.survival.down = false;
        self.engines = new_engines(&self.snapshot, self.plan.seed, self.survival.starts);
        let now = self.now();
        for shard in 0..self.engines.len() {
            let own = (shard, 0)..=(shard, u32::MAX);
            let records: Vec<Vec<u8>> =
                self.survival.records.range(own).map(|(_, bytes)| bytes.clone()).collect();
            let kept: Vec<Kept<'_>> = records
                .iter()
                .map(|bytes| Kept { bytes, condemned: None, alive: now.mono })
                .collect();
            let engine = &mut self.engines[shard];
            let adoption = engine.adopt(now, &kept, &mut self.tx);
            assert_eq!(adoption.adopted + adoption.finishing, kept.len(), "{adoption:?}");
            for port in 0..engine.media_ports().len() {
                engine.media_port_opened(MediaPortId(u32::try_from(port).unwrap_or(u32::MAX)));
            }
            self.after_turn(shard);
            if self.survival.down {
                // Again, while it was starting.
                return;
            }
        }
    }
}

/// The call that a record is of: its caller has the number in its From.
fn number_of(record: &[u8]) -> Option<u32> {
    let mark = b"+1313555";
    let at = record.windows(mark.len()).position(|window| window == mark)?;
    let digits = record.get(at + mark.len()..)?.get(..4)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
