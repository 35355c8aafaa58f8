//! The end of a run: no new calls, time for those that are up, then an orderly end for the rest.

use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use ravelin_contract::audit::Severity;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::{DRAIN_LOOK_EVERY, Edge, Event, FAREWELL_AT_ONCE, FAREWELL_WITHIN, lock};
use crate::{
    mailbox::{Left, Shards},
    telemetry::{event, log},
};

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waited {
    Done,
    TimeIsUp,
    /// A second signal.
    Hurried,
    /// A shard ended by itself, or does not answer: waiting is no use.
    Broken,
}

/// The events of the process while it stops.
struct Stopping<'a> {
    shards: Shards,
    events: &'a Receiver<Event>,
    ended: usize,
}

impl Edge {
    /// Takes no new calls and waits for those that are left. What is still up then is ended, and
    /// the shards end when the parties have answered that, or have had time to.
    pub(super) fn stop(&self, events: &Receiver<Event>, why: &str) {
        let Some(shards) = lock(&self.shards).clone() else { return };
        let began = Instant::now();
        let within = self.options.drain_within;
        let up = shards.drain().unwrap_or_default();
        let text = format!(
            "{why}: taking no new calls; {} are up and have {} s to end",
            up.live,
            within.as_secs()
        );
        log("info", "edge", &text);
        let draining = event("edge.draining", Severity::Warning)
            .field("because", why)
            .field("calls", up.live)
            .field("within_ms", u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
        self.spool.event(draining.into_event());
        let mut stopping = Stopping { shards, events, ended: 0 };

        let (waited, left) = stopping.wait(within, |left| left.live == 0);
        let hurried = waited == Waited::Hurried;
        if left.live > 0 {
            let text = format!("{} calls are still up: ending them", left.live);
            log("warning", "edge", &text);
        }
        stopping.shards.shutdown();
        if waited != Waited::Broken {
            let patience = if hurried { FAREWELL_AT_ONCE } else { FAREWELL_WITHIN };
            stopping.wait(patience, |left| left.all == 0);
        }
        stopping.shards.last_words();
        // Two turns of every shard: the first sends the words, and what has to cross to the shard
        // that owns its connection is there when the second is over.
        let _ = stopping.shards.drain();
        let last = stopping.shards.drain().unwrap_or_default();
        stopping.shards.stop();
        stopping.wait_for_the_shards();
        *lock(&self.shards) = None;
        // An orderly stop leaves nothing in the kernel.
        *lock(&self.fast) = None;
        // Its calls have ended in order: the next process has nothing to take over.
        self.survival.remove();
        let severity = if left.live > 0 { Severity::Alarm } else { Severity::Info };
        let drained = event("edge.drained", severity)
            .field("calls_ended", left.live)
            .field("unanswered_byes", last.all)
            .field("hurried", hurried)
            .field("after_ms", u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        self.spool.event(drained.into_event());
    }
}

impl Stopping<'_> {
    /// Looks again and again until `done`, at most for `patience`.
    fn wait(&mut self, patience: Duration, done: impl Fn(Left) -> bool) -> (Waited, Left) {
        let deadline = Instant::now() + patience;
        loop {
            let Ok(left) = self.shards.drain() else { return (Waited::Broken, Left::default()) };
            if done(left) {
                return (Waited::Done, left);
            }
            let now = Instant::now();
            if now >= deadline {
                return (Waited::TimeIsUp, left);
            }
            match self.events.recv_timeout(DRAIN_LOOK_EVERY.min(deadline - now)) {
                Ok(Event::Signal(SIGTERM | SIGINT)) => return (Waited::Hurried, left),
                Ok(Event::ShardEnded(_)) => {
                    self.ended += 1;
                    return (Waited::Broken, left);
                }
                // Documents are for a process that goes on.
                Ok(Event::Signal(_) | Event::Push(_)) | Err(_) => {}
            }
        }
    }

    fn wait_for_the_shards(&mut self) {
        while self.ended < self.shards.count() {
            match self.events.recv_timeout(Duration::from_secs(2)) {
                Ok(Event::ShardEnded(_)) => self.ended += 1,
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
}
