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

mod why;

pub(super) use why::{Note, Notes, Why};

use super::interfaces::{Interfaces, Mode};
use super::netdev::{Deferral, Netdev, Queue};
use crate::af_xdp::Station;
use crate::clock;
use crate::sys::napi::Poller;
use crate::sys::thread;
use crate::uring::pace::Pace;
use ravelin_engine::port::ShardId;
use ravelin_engine::time::Instant;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use why::Obstacle;

/// How often a busy shard looks: what it adds to a packet's way is half of it, and it is a hundredth of
/// the pause between two packets of a voice. A turn costs some 15 us whatever it serves (code and data
/// that went out of the caches while the core slept, going to sleep and back, waking the other ends'
/// threads), a packet in it 0.9 us (`bench/peers/srtp`; `bench/README.md` has the table).
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
#[derive(Debug)]
pub(super) struct Polling {
    state: Mutex<State>,
    /// Counts the changes of `queues`.
    version: AtomicU64,
    /// [`Why`] of each shard, as far as it is its own.
    shards: Vec<AtomicU8>,
}

#[derive(Debug, Default)]
struct State {
    shards: u32,
    queues: Vec<u32>,
    obstacle: Option<Obstacle>,
}

impl Polling {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            state: Mutex::default(),
            version: AtomicU64::new(0),
            shards: (0..shards).map(|_| AtomicU8::new(Why::Rate as u8)).collect(),
        }
    }

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

    pub(super) fn set(&self, shard: usize, why: Why) {
        if let Some(own) = self.shards.get(shard) {
            own.store(why as u8, Ordering::Relaxed);
        }
    }

    /// As it is now, for each shard.
    pub(super) fn each(&self) -> Vec<Why> {
        let all = self.state().obstacle.as_ref().map(|obstacle| obstacle.why);
        let own = self.shards.iter().map(|own| own.load(Ordering::Relaxed));
        let own = own.map(|own| Why::ALL.get(usize::from(own)).copied().unwrap_or(Why::Failed));
        own.map(|own| match own {
            Why::NoSocket | Why::Failed => own,
            _ => all.unwrap_or(own),
        })
        .collect()
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
    /// Whether this machine has what polling needs, as far as it can be told before.
    pub(super) fn survey(&mut self, polling: &Polling, interfaces: &Interfaces) {
        let obstacle = match Poller::new() {
            Err(error) => Some(Obstacle::kernel(&error)),
            Ok(_) => self.each(interfaces).err(),
        };
        polling.state().obstacle = obstacle;
    }

    /// Puts off the kernel's own look, or undoes it, as the shards want it now.
    pub(super) fn follow(&mut self, polling: &Polling, interfaces: &Interfaces) {
        if polling.state().shards == 0 {
            self.undo();
            return;
        }
        let (mut polled, mut refused) = (Vec::new(), None);
        let found = self.each(interfaces);
        for queue in found.as_deref().unwrap_or_default() {
            if queue.deferral != Deferral::default() {
                polled.push(queue.id);
                continue;
            }
            match self.set(queue.id, DEFERRED) {
                Ok(()) => {
                    self.queues.push(queue.id);
                    polled.push(queue.id);
                }
                Err(error) => refused = Some(error),
            }
        }
        let refused = refused.filter(|_| polled.is_empty()).map(|error| {
            Obstacle::new(
                Why::Refused,
                format!("the kernel does not put off its own look (6.13 does): {error}"),
            )
        });
        polling.state().obstacle = found.err().or(refused);
        polling.publish(polled);
    }

    /// Undoes what a process before us left.
    pub(super) fn undo_left(&mut self, interfaces: &Interfaces) {
        let all = self.each(interfaces).unwrap_or_default().into_iter();
        let left = all.filter(|queue| queue.deferral == DEFERRED).map(|queue| queue.id);
        self.queues.extend(left);
        self.undo();
    }

    /// As it was before.
    pub(super) fn undo(&mut self) {
        for queue in std::mem::take(&mut self.queues) {
            // One that is gone is as it was.
            let _ = self.set(queue, Deferral::default());
        }
    }

    /// The queues that are polled while shards are busy, or why there are none.
    fn each(&mut self, interfaces: &Interfaces) -> Result<Vec<Queue>, Obstacle> {
        let is_veth = |index| interfaces.link(index).is_some_and(|link| link.kind == KIND);
        let attached = interfaces.attached.iter();
        let those: Vec<_> = attached
            .filter(|(index, attached)| attached.mode == Mode::Native && is_veth(**index))
            .map(|(index, _)| *index)
            .collect();
        if those.is_empty() {
            let text = "no interface with AF_XDP is a veth in native mode";
            return Err(Obstacle::new(Why::Interface, text));
        }
        let mut queues = Vec::new();
        for index in those {
            queues.extend(self.netdev()?.queues(index).unwrap_or_default());
        }
        if queues.is_empty() {
            let text = "the kernel names no queue (NAPI id) of these interfaces";
            return Err(Obstacle::new(Why::NoQueue, text));
        }
        Ok(queues)
    }

    fn netdev(&mut self) -> Result<&mut Netdev, Obstacle> {
        let netdev = match self.netdev.take() {
            Some(netdev) => netdev,
            None => Netdev::open().map_err(|error| Obstacle::kernel(&error))?,
        };
        Ok(self.netdev.insert(netdev))
    }

    fn set(&mut self, queue: u32, deferral: Deferral) -> io::Result<()> {
        self.netdev.as_mut().map_or(Ok(()), |netdev| netdev.set(queue, deferral))
    }
}

/// Undoes what a killed process left at interfaces that had its program, or what somebody says had
/// it. Returns how many queues that were, and what is in the way of the rest.
pub(super) fn undo_left_at(interfaces: &[u32]) -> (usize, Vec<String>) {
    let Ok(mut netdev) = Netdev::open() else { return (0, Vec::new()) };
    let (mut undone, mut refused) = (0, Vec::new());
    for interface in interfaces {
        for queue in netdev.queues(*interface).unwrap_or_default() {
            if queue.deferral != DEFERRED {
                continue;
            }
            match netdev.set(queue.id, Deferral::default()) {
                Ok(()) => undone += 1,
                Err(error) => refused.push(format!("queue {}: {error}", queue.id)),
            }
        }
    }
    (undone, refused)
}

/// The looks of one shard.
#[derive(Default)]
pub(super) struct Looks {
    pace: Pace,
    poller: Option<Poller>,
    /// Of the shard.
    place: usize,
    /// This kernel has no polling.
    never: bool,
    busy: bool,
    /// That it polls is known.
    shown: bool,
    version: u64,
    next: Instant,
    full: bool,
}

impl Looks {
    pub(super) fn of(shard: ShardId) -> Self {
        Self { place: usize::from(shard.0), ..Self::default() }
    }

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
                    polling.set(self.place, Why::Failed);
                    return false;
                }
            }
            // Else a pause lasts half as long again.
            let _ = thread::precise_timers();
        }
        self.busy = busy;
        if !busy && std::mem::take(&mut self.shown) {
            polling.set(self.place, Why::Rate);
        }
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
        if !std::mem::replace(&mut self.shown, true) {
            polling.set(self.place, Why::Polls);
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
                polling.set(self.place, Why::Failed);
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
