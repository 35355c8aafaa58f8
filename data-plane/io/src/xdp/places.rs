//! AF_XDP sockets of all shards, by interface: bound where the program is, also when an interface comes
//! while the edge runs, and handed to the shards.

use crate::af_xdp::{self, Bound, Station, Wanted};
use crate::sys::bpf::Map;
use ravelin_engine::port::ShardId;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) struct Places {
    shards: u8,
    map: Arc<Map>,
    state: Mutex<State>,
    /// Times that a shard was given sockets.
    given: AtomicU64,
}

struct State {
    /// By place in the program's map; the interface, and what became of it.
    bound: Vec<Option<(u32, Bound)>>,
    /// What each shard has not taken so far.
    stations: Vec<Vec<Station>>,
}

impl Places {
    /// `shards`: 0 for none.
    pub(super) fn bind(wanted: &[Wanted], shards: u8, map: &Arc<Map>) -> Self {
        let (stations, bound) = match shards {
            0 => (Vec::new(), Vec::new()),
            _ => af_xdp::bind(wanted, shards, map),
        };
        let interfaces = wanted.iter().map(|wanted| wanted.interface);
        let state = State {
            bound: interfaces.zip(bound).map(Some).collect(),
            stations: stations.into_iter().map(|station| vec![station]).collect(),
        };
        let map = Arc::clone(map);
        Self { shards, map, state: Mutex::new(state), given: AtomicU64::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a shard has no socket to take.
    pub(super) fn is_without(&self, shard: ShardId) -> bool {
        let state = self.state();
        let waiting = state.stations.get(usize::from(shard.0));
        waiting.is_none_or(|stations| stations.iter().all(Station::is_empty))
    }

    /// What became of each interface.
    pub(super) fn bound(&self) -> Vec<Bound> {
        self.state().bound.iter().flatten().map(|(_, bound)| bound.clone()).collect()
    }

    /// Changes when there is something to [`Self::take`].
    pub(super) fn given(&self) -> u64 {
        self.given.load(Ordering::Acquire)
    }

    /// The sockets of a shard that it has not taken so far.
    pub(super) fn take(&self, shard: ShardId) -> Vec<Station> {
        let mut state = self.state();
        let found = state.stations.get_mut(usize::from(shard.0));
        found.map(std::mem::take).unwrap_or_default()
    }

    /// An interface is gone: nothing is delivered to its sockets any more, which the shards close, and
    /// its place is free.
    pub(super) fn leave(&self, interface: u32) {
        let mut state = self.state();
        let State { bound, stations } = &mut *state;
        for (number, place) in (0..).zip(bound) {
            if place.as_ref().is_some_and(|(index, _)| *index == interface) {
                *place = None;
                let left = af_xdp::leave(number, self.shards, &self.map);
                for (waiting, station) in stations.iter_mut().zip(left) {
                    waiting.push(station);
                }
            }
        }
        drop(state);
        self.given.fetch_add(1, Ordering::Release);
    }

    /// Binds sockets to an interface that has the program now. Those of one that kept them go on.
    pub(super) fn join(&self, wanted: &Wanted) -> Option<Bound> {
        if self.shards == 0 {
            return None;
        }
        let mut state = self.state();
        let known = state.bound.iter().flatten().find(|(index, _)| *index == wanted.interface);
        if let Some((_, bound)) = known {
            return Some(bound.clone());
        }
        let memory = state.bound.iter().flatten().map(|(_, bound)| bound.bytes).sum::<u64>();
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        let free = state.bound.iter().position(Option::is_none);
        let place = free.unwrap_or(state.bound.len());
        let number = u32::try_from(place).unwrap_or(u32::MAX);
        let (stations, bound) = af_xdp::bind_at(number, wanted, self.shards, &self.map, memory);
        let entry = Some((wanted.interface, bound.clone()));
        match state.bound.get_mut(place) {
            Some(free) => *free = entry,
            None => state.bound.push(entry),
        }
        for (waiting, station) in state.stations.iter_mut().zip(stations) {
            waiting.push(station);
        }
        drop(state);
        self.given.fetch_add(1, Ordering::Release);
        Some(bound)
    }
}
