//! The maps that this process has in its own memory: ports, flows, counts. One writer; the program
//! reads flows while they are written, and its counts are read while it writes them.

use super::layout::{
    CHAIN_MAX, COUNT_BYTES, Count, FLOW_BYTES, PLACES, empty, next_of, place, port_of,
};
use crate::sys::bpf::Map;
use crate::sys::shared::SharedArray;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};

const FLOW_WORDS: usize = FLOW_BYTES / 8;

fn map(map: &Map) -> io::Result<SharedArray> {
    let entries = usize::try_from(map.max_entries()).map_err(|_| io::ErrorKind::InvalidInput)?;
    SharedArray::new(map.as_fd(), map.sizes().1, entries)
}

/// `ports` and `flows`.
pub(super) struct Flows {
    ports: SharedArray,
    flows: SharedArray,
}

/// What stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) flow: [u8; FLOW_BYTES],
    /// Somebody was killed while writing it: nothing but port, address and `next` can be believed.
    pub(super) torn: bool,
}

impl Flows {
    /// # Errors
    /// The kernel's, or `InvalidInput`: these are not the maps of this layout.
    pub(super) fn new(ports: &Map, flows: &Map) -> io::Result<Self> {
        let right = ports.sizes() == (4, 4)
            && ports.max_entries() == PLACES
            && flows.sizes() == (4, FLOW_BYTES);
        if !right {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self { ports: map(ports)?, flows: map(flows)? })
    }

    /// Slots, the first of which is no flow.
    pub(super) fn slots(&self) -> u32 {
        u32::try_from(self.flows.len()).unwrap_or(u32::MAX)
    }

    fn words(&self, slot: u32) -> Option<&[AtomicU64]> {
        self.flows.value(usize::try_from(slot).ok()?)
    }

    pub(super) fn read(&self, slot: u32) -> Option<Slot> {
        let mut flow = [0; FLOW_BYTES];
        for (octets, word) in flow.chunks_exact_mut(8).zip(self.words(slot)?) {
            octets.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        let torn = flow[0] & 1 != 0;
        flow[..4].fill(0);
        Some(Slot { flow, torn })
    }

    /// Replaces what stands in a slot, whole for every packet. Nothing happens where no slot is.
    pub(super) fn write(&self, slot: u32, flow: &[u8; FLOW_BYTES]) {
        let Some(words) = self.words(slot) else { return };
        let Some((first, rest)) = words.split_first() else { return };
        let mut new = [0; FLOW_WORDS];
        for (word, octets) in new.iter_mut().zip(flow.chunks_exact(8)) {
            *word = u64::from_ne_bytes(octets.try_into().unwrap_or_default());
        }
        // `sequence` is the low half of the first word, on the machines that this runs on.
        let odd = first.load(Ordering::Relaxed) | 1;
        first.store(odd, Ordering::Relaxed);
        // Nothing of the rule before the odd number...
        fence(Ordering::Release);
        for (word, new) in rest.iter().zip(&new[1..]) {
            word.store(*new, Ordering::Relaxed);
        }
        // ...and all of it before the even one.
        let even = (odd as u32).wrapping_add(1);
        first.store(new[0] & !0xffff_ffff | u64::from(even), Ordering::Release);
    }

    fn first(&self, place: u32) -> Option<&AtomicU64> {
        self.ports.value(usize::try_from(place).ok()?)?.first()
    }

    /// The slots with the place of a port, in the order in which the program asks them.
    fn chain(&self, local: SocketAddr) -> Vec<(u32, Slot)> {
        let mut chain = Vec::new();
        let mut next = self.first(place(local)).map_or(0, |at| at.load(Ordering::Relaxed) as u32);
        while next != 0
            && chain.len() < CHAIN_MAX
            && let Some(slot) = self.read(next)
        {
            chain.push((next, slot));
            next = next_of(&slot.flow);
        }
        chain
    }

    /// Whether the program finds this slot for this port.
    pub(super) fn leads_to(&self, local: SocketAddr, slot: u32) -> bool {
        self.chain(local)
            .iter()
            .any(|(found, Slot { flow, .. })| *found == slot && port_of(flow) == Some(local))
    }

    /// Gives a slot to a port for good. False: as many ports as can have the same place.
    pub(super) fn give(&self, local: SocketAddr, slot: u32) -> bool {
        let chain = self.chain(local);
        let Some(first) = self.first(place(local)) else { return false };
        if chain.len() >= CHAIN_MAX {
            return false;
        }
        self.write(slot, &empty(local, chain.first().map_or(0, |(first, _)| *first)));
        // Whoever sees the slot sees what is in it.
        first.store(u64::from(slot), Ordering::Release);
        true
    }

    /// Ends the flow of a slot; its port stays.
    pub(super) fn empty(&self, slot: u32) {
        if let Some(Slot { flow, .. }) = self.read(slot)
            && let Some(local) = port_of(&flow)
        {
            self.write(slot, &empty(local, next_of(&flow)));
        }
    }

    /// Leaves a slot as somebody does who is killed while writing it.
    #[cfg(test)]
    pub(super) fn tear(&self, slot: u32) {
        self.words(slot).unwrap()[0].fetch_or(1, Ordering::Relaxed);
    }

    /// The slot after this one.
    pub(super) fn next(&self, slot: u32) -> u32 {
        self.read(slot).map_or(0, |slot| next_of(&slot.flow))
    }
}

/// `counts`.
pub(super) struct Counts {
    counts: SharedArray,
    cpus: usize,
}

impl Counts {
    /// # Errors
    /// The kernel's, or `InvalidInput`: this is not the map of this layout.
    pub(super) fn new(counts: &Map, cpus: u32) -> io::Result<Self> {
        let cpus = usize::try_from(cpus).map_err(|_| io::ErrorKind::InvalidInput)?;
        if counts.sizes() != (4, COUNT_BYTES) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self { counts: map(counts)?, cpus })
    }

    pub(super) fn cpus(&self) -> usize {
        self.cpus
    }

    /// What each CPU counted of the flow with this generation, into an empty list.
    pub(super) fn read(&self, slot: u32, generation: u32, into: &mut Vec<Count>) {
        let Ok(slot) = usize::try_from(slot) else { return };
        let first = slot * self.cpus;
        for words in (first..first + self.cpus).filter_map(|index| self.counts.value(index)) {
            let count = Count::read(words);
            if count.generation == generation && count.seen > 0 {
                into.push(count);
            }
        }
    }
}
