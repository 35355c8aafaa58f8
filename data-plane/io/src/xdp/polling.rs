//! Polling, for shards that are busy with AF_XDP.
//!
//! A veth announces each packet: a thread of the kernel is woken for it, hands it to the AF_XDP
//! socket, and that wakes the shard. At tens of thousands of packets a second most of the time goes
//! into these two switches. So a busy shard looks by itself, every [`EVERY`]: within one system call
//! the queues are read in its own thread ([`crate::sys::napi`]), the rings have what came, and one
//! turn serves it all. The kernel's own look at the queues is put off meanwhile ([`DEFERRED`]), and
//! happens all the same when no shard looks for that long.
//!
//! It is put off while some shard polls, for the whole interface: streams that are forwarded there
//! wait for the next look as well. Who set something else by hand keeps it, and polling has less to
//! gain then. A process that is killed leaves it put off; the next one undoes it.

use super::interfaces::{Interfaces, Mode};
use super::netdev::{Deferral, Netdev, Queue};
use crate::af_xdp::Station;
use crate::clock;
use crate::sys::napi::Poller;
use crate::sys::thread;
use crate::uring::pace::Pace;
use ravelin_engine::time::Instant;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often a busy shard looks: what it adds to a packet's way is half of it, and it is a hundredth of
/// the pause between two packets of a voice. A turn costs some 20 us whatever it serves (going to
/// sleep and back, the other ends' threads woken, caches that went cold), a packet in it 1.3 us: at
/// 50,000 packets a second (`bench/peers/srtp`, both cores in use) 8.8 us a packet through the sockets,
/// 5.3 by looks every 100 us, 3.3 every 200 us.
pub(super) const EVERY: Duration = Duration::from_micros(200);

/// How the kernel's own look is put off. The time is one that nobody else would choose: by it the next
/// process knows what a killed one left.
pub(super) const DEFERRED: Deferral = Deferral { looks: 1, nanos: 599_983 };

/// Only such interfaces: a card has its own means against an interrupt for each packet.
const KIND: &str = "veth";

/// Most frames that a look takes from a queue: with so many from all, it looks again, there may be
/// more.
const FULL: u32 = 16;
/// Looks before a turn.
const LOOKS_MAX: u32 = 4;

#[cfg(test)]
thread_local! {
    /// Shards of this thread are busy, whatever comes.
    pub(super) static BUSY: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

#[cfg(test)]
fn is_forced() -> bool {
    BUSY.with(std::cell::Cell::get)
}

#[cfg(not(test))]
const fn is_forced() -> bool {
    false
}

/// Between the shards that poll and the thread that tells the kernel.
#[derive(Debug, Default)]
pub(super) struct Polling {
    state: Mutex<State>,
    /// Counts the changes of `queues`.
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    shards: u32,
    queues: Vec<u32>,
}

impl Polling {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more shard polls, or one less. Says whether the kernel is to be told.
    fn change(&self, more: bool) -> bool {
        let mut state = self.state();
        let before = state.shards > 0;
        state.shards = if more { state.shards + 1 } else { state.shards.saturating_sub(1) };
        before != (state.shards > 0)
    }

    fn publish(&self, queues: Vec<u32>) {
        let mut state = self.state();
        if state.queues != queues {
            state.queues = queues;
            self.version.fetch_add(1, Ordering::Release);
        }
    }
}

/// What the kernel was told, to be undone.
#[derive(Default)]
pub(super) struct Deferred {
    netdev: Option<Netdev>,
    /// Those that were as soon as something arrives.
    queues: Vec<u32>,
}

impl Deferred {
    /// Puts off the kernel's own look, or undoes it, as the shards want it now.
    pub(super) fn follow(&mut self, polling: &Polling, interfaces: &Interfaces) {
        if polling.state().shards == 0 {
            self.undo();
            return;
        }
        let mut polled = Vec::new();
        for queue in self.each(interfaces) {
            if queue.deferral == Deferral::default() && self.set(queue.id, DEFERRED) {
                self.queues.push(queue.id);
                polled.push(queue.id);
            } else if queue.deferral != Deferral::default() {
                polled.push(queue.id);
            }
        }
        polling.publish(polled);
    }

    /// Undoes what a process before us left.
    pub(super) fn undo_left(&mut self, interfaces: &Interfaces) {
        let all = self.each(interfaces).into_iter();
        let left = all.filter(|queue| queue.deferral == DEFERRED).map(|queue| queue.id);
        self.queues.extend(left);
        self.undo();
    }

    /// As it was before.
    pub(super) fn undo(&mut self) {
        for queue in std::mem::take(&mut self.queues) {
            // One that is gone is as it was.
            self.set(queue, Deferral::default());
        }
    }

    fn each(&mut self, interfaces: &Interfaces) -> Vec<Queue> {
        if self.netdev.is_none() {
            self.netdev = Netdev::open().ok();
        }
        let Some(netdev) = &mut self.netdev else { return Vec::new() };
        let mut queues = Vec::new();
        for (index, attached) in &interfaces.attached {
            let kind = interfaces.link(*index).map(|link| link.kind.as_str());
            if attached.mode == Mode::Native && kind == Some(KIND) {
                queues.extend(netdev.queues(*index).unwrap_or_default());
            }
        }
        queues
    }

    fn set(&mut self, queue: u32, deferral: Deferral) -> bool {
        self.netdev.as_mut().is_some_and(|netdev| netdev.set(queue, deferral).is_ok())
    }
}

/// The looks of one shard.
#[derive(Default)]
pub(super) struct Looks {
    pace: Pace,
    poller: Option<Poller>,
    /// This kernel has no polling.
    never: bool,
    busy: bool,
    version: u64,
    next: Instant,
    full: bool,
}

impl Looks {
    /// So many frames came with the last turn.
    pub(super) fn received(&mut self, frames: usize) {
        self.pace.received(frames);
    }

    /// Begins or ends to poll, as the load is. `tell` is called when the kernel has to hear of it.
    /// True: the next wait is [`Self::look`].
    pub(super) fn judge(
        &mut self,
        polling: &Polling,
        station: &Station,
        tell: impl FnOnce(),
    ) -> bool {
        if self.never {
            return false;
        }
        let busy = self.pace.gather(clock::monotonic()).is_some() || is_forced();
        if busy == self.busy {
            return busy;
        }
        if busy && self.poller.is_none() {
            match Poller::new().and_then(|poller| station.watched_by(poller)) {
                Ok(poller) => self.poller = Some(poller),
                Err(_) => {
                    self.never = true;
                    return false;
                }
            }
            // Else a pause lasts half as long again.
            let _ = thread::precise_timers();
        }
        self.busy = busy;
        if polling.change(busy) {
            tell();
        }
        busy
    }

    /// Waits until the next look is due, at most so long, and looks. False: it has to be waited in
    /// another way.
    pub(super) fn look(&mut self, polling: &Polling, station: &Station, longest: Duration) -> bool {
        let Some(poller) = &mut self.poller else { return false };
        let version = polling.version.load(Ordering::Acquire);
        if version != self.version {
            self.version = version;
            poller.set_queues(&polling.state().queues);
        }
        if poller.is_idle() {
            return false;
        }
        let now = clock::monotonic();
        let mut pause = self.next.since(now).min(longest);
        if self.full {
            pause = Duration::ZERO;
        }
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        self.next = now + pause + EVERY;
        let mut wait = longest.min(EVERY);
        for _ in 0..LOOKS_MAX {
            let before = station.arrived();
            let polled = poller.poll(wait, &mut |key, poller| station.watch_again(key, poller));
            if polled.is_err() {
                self.never = true;
                self.end(polling);
                return false;
            }
            self.full = station.arrived().saturating_sub(before) >= FULL;
            if !self.full {
                break;
            }
            wait = Duration::ZERO;
        }
        true
    }

    /// Polls no more.
    pub(super) fn end(&mut self, polling: &Polling) {
        self.poller = None;
        if std::mem::take(&mut self.busy) {
            // The kernel is told with the next tick.
            polling.change(false);
        }
    }
}
