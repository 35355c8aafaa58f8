//! Admission: how many calls, and how many new calls per second, a trunk may have, over all shards.
//!
//! A call that is let in holds a [`Permit`]; the call ends, the permit is dropped, the count goes
//! down. There is no other way to change the count, so it cannot drift (design 4). Gauges belong to
//! trunk ids and survive config versions through the [`Registry`], which lives off the cores; a
//! shard touches a gauge once per call, never per packet.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use ravelin_policy::{Snapshot, Transport};

use crate::{emergency::Passage, limits::CPS_MAX, time::Instant};

/// Which limit refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many calls as allowed exist.
    Calls,
    /// As many calls as allowed came within the last second.
    Rate,
}

/// The right of one call to exist. Dropping it gives the place back.
#[derive(Debug)]
#[must_use = "a permit that is dropped admits nothing"]
pub struct Permit {
    counts: Arc<Counts>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counts.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What all shards and all config versions share of one trunk.
#[derive(Debug, Default)]
struct Counts {
    /// Permits that exist.
    calls: AtomicU32,
    refused_calls: AtomicU64,
    refused_rate: AtomicU64,
}

/// One trunk (or the whole node) under one config version.
#[derive(Debug)]
pub struct TrunkGauge {
    counts: Arc<Counts>,
    calls_max: Option<u32>,
    window: Option<Arc<Window>>,
    targets: Vec<Arc<TargetHealth>>,
}

impl TrunkGauge {
    /// Lets a call in or says which limit is reached. With an emergency token it always lets in,
    /// and counts (emergency.md 1, rule 2).
    ///
    /// # Errors
    /// [`Refusal`]; counted in [`Self::refused`].
    pub fn admit(&self, now: Instant, passage: Passage<'_>) -> Result<Permit, Refusal> {
        if passage.is_some() {
            self.counts.calls.fetch_add(1, Ordering::AcqRel);
            return Ok(self.permit());
        }
        let limit = self.calls_max.unwrap_or(u32::MAX);
        let taken = self.counts.calls.fetch_update(Ordering::AcqRel, Ordering::Acquire, |calls| {
            (calls < limit).then(|| calls.saturating_add(1))
        });
        if taken.is_err() {
            self.counts.refused_calls.fetch_add(1, Ordering::Relaxed);
            return Err(Refusal::Calls);
        }
        let permit = self.permit();
        if self.window.as_ref().is_some_and(|window| !window.admit(now)) {
            self.counts.refused_rate.fetch_add(1, Ordering::Relaxed);
            return Err(Refusal::Rate);
        }
        Ok(permit)
    }

    /// The permit of a call that was let in by the process before this one: it counts, and no limit
    /// refuses it.
    pub fn readmit(&self) -> Permit {
        self.counts.calls.fetch_add(1, Ordering::AcqRel);
        self.permit()
    }

    fn permit(&self) -> Permit {
        Permit { counts: Arc::clone(&self.counts) }
    }

    /// Permits that exist, over all shards.
    #[must_use]
    pub fn calls(&self) -> u32 {
        self.counts.calls.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn calls_max(&self) -> Option<u32> {
        self.calls_max
    }

    /// Calls refused since start because a limit was reached: by `calls`, by `cps`.
    #[must_use]
    pub fn refused(&self) -> (u64, u64) {
        (
            self.counts.refused_calls.load(Ordering::Relaxed),
            self.counts.refused_rate.load(Ordering::Relaxed),
        )
    }

    /// Health of the targets, in the order of the snapshot.
    #[must_use]
    pub fn targets(&self) -> &[Arc<TargetHealth>] {
        &self.targets
    }

    /// Whether target `index` may be tried. An unknown index may not.
    #[must_use]
    pub fn is_usable(&self, index: usize, now: Instant) -> bool {
        self.targets.get(index).is_some_and(|target| target.is_usable(now))
    }

    /// A gauge of its own, apart from any registry: for tests and for the whole node.
    #[must_use]
    pub fn standalone(calls_max: Option<u32>, cps: Option<u32>) -> Self {
        Self {
            counts: Arc::default(),
            calls_max,
            window: cps.map(|cps| Arc::new(Window::new(cps))),
            targets: Vec::new(),
        }
    }
}

/// Exactly at most `cps` admissions in any period of one second, and all of them at once if they
/// come at once: a ring of the times of the last `cps` admissions. A place in the ring is free for
/// admission `n` when admission `n - cps`, which holds it, is a second old.
#[derive(Debug)]
struct Window {
    places: Box<[AtomicU64]>,
    /// Admissions so far.
    next: AtomicU64,
}

const LAP_BITS: u32 = 16;
const LAP_MASK: u64 = (1 << LAP_BITS) - 1;
const SECOND_US: u64 = 1_000_000;

impl Window {
    fn new(cps: u32) -> Self {
        Self {
            places: (0..cps.min(CPS_MAX)).map(|_| AtomicU64::new(0)).collect(),
            next: AtomicU64::new(0),
        }
    }

    fn len(&self) -> u64 {
        self.places.len() as u64
    }

    /// A place holds microseconds and, in its low bits, the lap (from 1) in which it was taken, so
    /// that a shard that sees a place taken and `next` not yet moved can move it itself.
    fn admit(&self, now: Instant) -> bool {
        if self.places.is_empty() {
            return false;
        }
        let now_us = now.0 / 1_000;
        loop {
            let number = self.next.load(Ordering::Acquire);
            let lap = (number / self.len() + 1) & LAP_MASK;
            let place = usize::try_from(number % self.len()).unwrap_or(0);
            let Some(place) = self.places.get(place) else { return false };
            let held = place.load(Ordering::Acquire);
            if held != 0 && held & LAP_MASK == lap {
                self.advance(number);
                continue;
            }
            // Zero: never taken.
            if held != 0 && (held >> LAP_BITS) + SECOND_US > now_us {
                return false;
            }
            let taken = now_us << LAP_BITS | lap;
            if place.compare_exchange(held, taken, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                self.advance(number);
                return true;
            }
        }
    }

    fn advance(&self, from: u64) {
        // Whoever comes second finds it done.
        let _ = self.next.compare_exchange(from, from + 1, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// What OPTIONS probing knows of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// Not probed, or not often enough yet: usable.
    Unprobed,
    Up,
    Down,
}

impl TargetState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unprobed => "unprobed",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// Health of one target of one trunk. Written by the prober on one shard, read by all.
#[derive(Debug, Default)]
pub struct TargetHealth {
    state: AtomicU8,
    failures: AtomicU32,
    /// Asked to be left alone until then (503 with Retry-After), nanoseconds.
    held_until: AtomicU64,
    /// When it last answered a call, nanoseconds; at most [`ALIVE_GRAIN`] behind.
    alive_at: AtomicU64,
}

/// How often an answer is written down: all shards share the place, so not for each.
const ALIVE_GRAIN: Duration = Duration::from_secs(1);

const UP: u8 = 1;
const DOWN: u8 = 2;

impl TargetHealth {
    #[must_use]
    pub fn state(&self) -> TargetState {
        match self.state.load(Ordering::Relaxed) {
            UP => TargetState::Up,
            DOWN => TargetState::Down,
            _ => TargetState::Unprobed,
        }
    }

    /// Failed probes in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn is_usable(&self, now: Instant) -> bool {
        self.state() != TargetState::Down && !self.is_held(now)
    }

    /// Whether it asked to be left alone, and still is to be.
    #[must_use]
    pub fn is_held(&self, now: Instant) -> bool {
        self.held_until.load(Ordering::Relaxed) > now.0
    }

    /// It answered a request of a call.
    pub fn heard(&self, now: Instant) {
        let before = Instant(self.alive_at.load(Ordering::Relaxed));
        if now.since(before) >= ALIVE_GRAIN || before == Instant::default() {
            self.alive_at.store(now.0, Ordering::Relaxed);
        }
    }

    /// Whether it answered a call in the last `period`.
    #[must_use]
    pub fn heard_within(&self, now: Instant, period: Duration) -> bool {
        let last = self.alive_at.load(Ordering::Relaxed);
        last != 0 && now.since(Instant(last)) < period
    }

    /// It answered. True if it was down.
    pub fn succeeded(&self) -> bool {
        self.failures.store(0, Ordering::Relaxed);
        self.held_until.store(0, Ordering::Relaxed);
        self.state.swap(UP, Ordering::Relaxed) == DOWN
    }

    /// It did not answer, or cannot serve. True if it goes down by this.
    pub fn failed(&self, failures_max: u32) -> bool {
        let failures = self.failures.load(Ordering::Relaxed).saturating_add(1);
        self.failures.store(failures, Ordering::Relaxed);
        failures >= failures_max.max(1) && self.state.swap(DOWN, Ordering::Relaxed) != DOWN
    }

    /// It asked to be left alone for `pause`.
    pub fn hold(&self, now: Instant, pause: Duration) {
        self.held_until.store((now + pause).0, Ordering::Relaxed);
    }

    /// Probing has ended: nothing is known.
    pub fn forget(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.held_until.store(0, Ordering::Relaxed);
        self.alive_at.store(0, Ordering::Relaxed);
        self.state.store(0, Ordering::Relaxed);
    }
}

/// The gauges of all trunks, and of the node, over all config versions. Off the cores: it locks and
/// allocates.
#[derive(Debug, Default)]
pub struct Registry {
    trunks: Mutex<HashMap<String, Known>>,
    node: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    counts: Arc<Counts>,
    window: Option<Arc<Window>>,
    targets: HashMap<(SocketAddr, Transport), Arc<TargetHealth>>,
}

impl Registry {
    /// The gauge of the whole node: `edge.limits.calls` and `cps`, over all trunks and shards.
    #[must_use]
    pub fn node_gauge(&self, snapshot: &Snapshot) -> Arc<TrunkGauge> {
        let mut node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = &snapshot.limits;
        Arc::new(node.gauge(Some(limits.calls), limits.cps, std::iter::empty()))
    }

    /// The gauges for the trunks of `snapshot`, parallel to them. What a trunk of the same id had
    /// before is kept: its calls, its last second, the health of targets that stay.
    #[must_use]
    pub fn gauges(&self, snapshot: &Snapshot) -> Vec<Arc<TrunkGauge>> {
        // A panic while the lock was held leaves a map that is still sound.
        let mut known = self.trunks.lock().unwrap_or_else(PoisonError::into_inner);
        let gauges = snapshot
            .trunks
            .iter()
            .map(|trunk| {
                let known = known.entry(trunk.id.clone()).or_default();
                let targets = trunk.targets.iter().map(|t| (t.addr, t.transport));
                Arc::new(known.gauge(trunk.limits.calls, trunk.limits.cps, targets))
            })
            .collect();
        // Trunks that are gone are forgotten when their last call has ended.
        known.retain(|id, entry| {
            Arc::strong_count(&entry.counts) > 1
                || snapshot.trunks.iter().any(|trunk| trunk.id == *id)
        });
        gauges
    }
}

impl Known {
    fn gauge(
        &mut self,
        calls_max: Option<u32>,
        cps: Option<u32>,
        targets: impl Iterator<Item = (SocketAddr, Transport)>,
    ) -> TrunkGauge {
        self.window = cps.map(|cps| {
            let same = self.window.as_ref().filter(|window| window.len() == u64::from(cps));
            same.map_or_else(|| Arc::new(Window::new(cps)), Arc::clone)
        });
        let mut before = std::mem::take(&mut self.targets);
        let targets = targets
            .map(|target| {
                let health = before.remove(&target).unwrap_or_default();
                Arc::clone(self.targets.entry(target).or_insert(health))
            })
            .collect();
        TrunkGauge {
            counts: Arc::clone(&self.counts),
            calls_max,
            window: self.window.clone(),
            targets,
        }
    }
}

#[cfg(test)]
mod tests;
