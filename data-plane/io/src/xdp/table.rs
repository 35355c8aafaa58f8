//! What stands in the maps, and who asked for it. One for all shards: it is touched when a call
//! changes, never for a packet.

use super::hops::{Message, Via};
use super::interfaces::{Interfaces, Mode};
use super::layout::{
    self, Action, Decision, FLOW_BYTES, Hop, delivers, flow, generation_of, port_of, same_decision,
};
use super::shared::{Flows, Slot};
use crossbeam::channel::Sender;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Slot 0 of the flows carries the owner's mark instead.
pub(super) const MARK_SLOT: u32 = 0;

/// A way through the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct HopKey {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
}

/// Why a flow stays with the sockets. None is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The program is not attached where the packets arrive, or would not leave there.
    Interface,
    /// IPv4 on one side, IPv6 on the other.
    Family,
    /// More flows than slots, or more ports of one place than there may be.
    Full,
    /// For user space, and there is no AF_XDP socket where its packets arrive.
    NoSocket,
}

impl Refused {
    pub(super) const ALL: [(Self, &'static str); 4] = [
        (Self::Interface, "interface"),
        (Self::Family, "address_family"),
        (Self::Full, "full"),
        (Self::NoSocket, "no_af_xdp"),
    ];
}

#[derive(Debug)]
struct Used {
    decision: Decision,
    generation: u32,
    hop: Option<HopKey>,
    /// Its interface went away: empty until whoever set it has counted it and sets it again.
    lost: bool,
}

#[derive(Debug, Default)]
struct HopState {
    hop: Option<Hop>,
    via: Option<Via>,
    slots: BTreeSet<u32>,
}

/// Ports, flows and next hops of this node.
pub(super) struct Table {
    flows: Flows,
    interfaces: Interfaces,
    /// Which slot a port has, for ever: what stands in it is always of this port.
    slots: HashMap<SocketAddr, u32>,
    next_slot: u32,
    used: BTreeMap<u32, Used>,
    /// Flows of the process before, until they are set again.
    left: BTreeMap<u32, [u8; FLOW_BYTES]>,
    hops: BTreeMap<HopKey, HopState>,
    generation: u32,
    resolver: Sender<Message>,
    changes: Arc<HopChanges>,
}

/// What tells those who keep next hops of their own that they are to ask again.
#[derive(Debug, Default)]
pub(super) struct HopChanges {
    /// Next hops that became known.
    pub(super) found: AtomicU64,
    /// Those that were known and are another now, or none.
    pub(super) moved: AtomicU64,
    /// Times that interfaces got or lost the program or a media address.
    pub(super) interfaces: AtomicU64,
}

impl Table {
    /// Takes over what stands in the maps.
    pub(super) fn adopt(flows: Flows, interfaces: Interfaces, resolver: Sender<Message>) -> Self {
        let mut table = Self {
            flows,
            interfaces,
            slots: HashMap::new(),
            next_slot: MARK_SLOT + 1,
            used: BTreeMap::new(),
            left: BTreeMap::new(),
            hops: BTreeMap::new(),
            generation: 0,
            resolver,
            changes: Arc::default(),
        };
        // Slots are given away one after the other.
        while let Some(Slot { flow, torn }) = table.flows.read(table.next_slot)
            && let Some(port) = port_of(&flow)
        {
            let slot = table.next_slot;
            if !table.flows.leads_to(port, slot) {
                // Killed before the program was led here: nobody's, and given away anew.
                break;
            }
            table.next_slot += 1;
            table.slots.insert(port, slot);
            if torn {
                table.flows.empty(slot);
            } else if let Some(generation) = generation_of(&flow) {
                table.generation = table.generation.max(generation);
                if delivers(&flow) {
                    // Its socket ended with its process, and the place may be another shard's now.
                    table.flows.empty(slot);
                } else {
                    table.left.insert(slot, flow);
                }
            }
        }
        // Counts of flows that were cleared may carry higher ones.
        table.generation = table.generation.wrapping_add(1 << 20);
        table
    }

    /// Flows that an earlier process left and nobody claimed so far.
    pub(super) fn left(&self) -> usize {
        self.left.len()
    }

    pub(super) fn flows_in_use(&self) -> usize {
        self.used.len()
    }

    /// Flows that wait for their next hop, with the sockets.
    pub(super) fn without_hop(&self) -> usize {
        self.hops.values().filter(|state| state.hop.is_none()).map(|state| state.slots.len()).sum()
    }

    /// What stands in a slot by the engine's decision.
    pub(super) fn decision(&self, slot: u32) -> Option<Decision> {
        self.used.get(&slot).map(|used| used.decision)
    }

    /// Whether the interface of a flow went away.
    pub(super) fn is_lost(&self, slot: u32) -> bool {
        self.used.get(&slot).is_some_and(|used| used.lost)
    }

    /// Flows whose interface went away, and that nobody has taken back so far.
    pub(super) fn lost(&self) -> usize {
        self.used.values().filter(|used| used.lost).count()
    }

    pub(super) fn changes(&self) -> Arc<HopChanges> {
        Arc::clone(&self.changes)
    }

    /// The way to somewhere that a flow asked for, as far as it is known.
    pub(super) fn hop(&self, key: &HopKey) -> Option<Hop> {
        self.hops.get(key)?.hop
    }

    /// Where packets to an address arrive.
    pub(super) fn ingress(&self, address: IpAddr) -> Option<u32> {
        self.interfaces.ingress(address).map(|(interface, _)| interface)
    }

    pub(super) fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// The interfaces have changed.
    pub(super) fn set_interfaces(&mut self, interfaces: Interfaces) {
        if !self.interfaces.serves_as(&interfaces) {
            self.changes.interfaces.fetch_add(1, Ordering::Release);
        }
        self.interfaces = interfaces;
        for slot in self.used.keys().copied().collect::<Vec<_>>() {
            // A flow that cannot be written any more is cleared by `write`.
            let _ = self.write(slot);
        }
    }

    pub(super) fn hops(&self) -> impl Iterator<Item = (HopKey, Option<Hop>, Option<Via>)> {
        self.hops.iter().map(|(key, state)| (*key, state.hop, state.via))
    }

    /// Sets the flow of a port. Returns its slot and its generation: that of the flow that stood
    /// there, if it is the same one, so that its counts go on.
    pub(super) fn set(&mut self, decision: Decision) -> Result<(u32, u32), Refused> {
        let slot = self.slot(decision.local)?;
        self.forget(slot);
        let refused = self.refusal(&decision);
        let left = self.left.remove(&slot);
        if let Some(refused) = refused {
            self.flows.empty(slot);
            return Err(refused);
        }
        let hop = match decision.action {
            Action::Forward { source, target, .. } => {
                Some(HopKey { from: source.ip(), to: target.ip() })
            }
            Action::Deliver { out, .. } => Some(out),
        };
        self.generation = self.generation.wrapping_add(1).max(1);
        let mut generation = self.generation;
        if let Some(key) = hop {
            let state = self.hops.entry(key).or_default();
            state.slots.insert(slot);
            if state.hop.is_none() {
                if let Some(left) = &left {
                    // Goes on by the way that it had until the network is asked.
                    state.hop = layout::hop_of(left);
                }
                // A full channel: the next tick asks for every hop that is missing.
                let _ = self.resolver.try_send(Message::Resolve(key));
            }
        }
        if let (Some(left), Some((_, ingress))) =
            (&left, self.interfaces.ingress(decision.local.ip()))
            && same_decision(left, &flow(0, 0, &decision, &ingress, None))
        {
            generation = generation_of(left).unwrap_or(generation);
        }
        self.used.insert(slot, Used { decision, generation, hop, lost: false });
        self.write(slot)?;
        Ok((slot, generation))
    }

    /// Ends the flow of a slot. Its counts stay.
    pub(super) fn clear(&mut self, slot: u32) {
        self.forget(slot);
        self.flows.empty(slot);
    }

    /// Ends what a process before us left at a port.
    pub(super) fn clear_port(&mut self, local: SocketAddr) {
        if let Some(&slot) = self.slots.get(&local) {
            self.left.remove(&slot);
            self.clear(slot);
        }
    }

    /// The network says how to get somewhere, or that it does not know.
    pub(super) fn set_hop(&mut self, key: HopKey, hop: Option<Hop>, via: Option<Via>) {
        let Some(state) = self.hops.get_mut(&key) else { return };
        state.via = via;
        if state.hop == hop {
            return;
        }
        let before = std::mem::replace(&mut state.hop, hop);
        let changed = if before.is_none() { &self.changes.found } else { &self.changes.moved };
        changed.fetch_add(1, Ordering::Release);
        for slot in state.slots.iter().copied().collect::<Vec<_>>() {
            let _ = self.write(slot);
        }
    }

    /// Ends the flows that nobody claimed.
    pub(super) fn end_unclaimed(&mut self) {
        while let Some((slot, _)) = self.left.pop_first() {
            self.flows.empty(slot);
        }
    }

    fn slot(&mut self, local: SocketAddr) -> Result<u32, Refused> {
        if let Some(&slot) = self.slots.get(&local) {
            return Ok(slot);
        }
        let slot = self.next_slot;
        if slot >= self.flows.slots() || !self.flows.give(local, slot) {
            return Err(Refused::Full);
        }
        self.next_slot += 1;
        self.slots.insert(local, slot);
        Ok(slot)
    }

    fn refusal(&self, decision: &Decision) -> Option<Refused> {
        if self.interfaces.ingress(decision.local.ip()).is_none() {
            return Some(Refused::Interface);
        }
        let v4 = decision.local.is_ipv4();
        let mut same = decision.source.is_ipv4() == v4;
        if let Action::Forward { source, target, .. } = decision.action {
            same &= source.is_ipv4() == v4 && target.is_ipv4() == v4;
        }
        (!same).then_some(Refused::Family)
    }

    /// Writes the flow of a slot as it is now.
    fn write(&mut self, slot: u32) -> Result<(), Refused> {
        let Some(used) = self.used.get_mut(&slot) else { return Ok(()) };
        if used.lost {
            return Ok(());
        }
        let Some((interface, ingress)) = self.interfaces.ingress(used.decision.local.ip()) else {
            // Packets that come by the sockets from now on would be missing in its counts.
            used.lost = true;
            self.flows.empty(slot);
            return Err(Refused::Interface);
        };
        let hop = used.hop.and_then(|key| self.hops.get(&key)).and_then(|state| state.hop);
        let mode = |index: u32| self.interfaces.attached.get(&index).map(|attached| attached.mode);
        let hop = hop.filter(|hop| {
            let Some(out) = self.interfaces.attached.get(&hop.interface) else { return false };
            // What a driver received, only a driver can send.
            !out.stalled && (mode(interface) == Some(Mode::Generic) || out.mode == Mode::Native)
        });
        let next = self.flows.next(slot);
        let flow = flow(next, used.generation, &used.decision, &ingress, hop.as_ref());
        let stands = self.flows.read(slot);
        // A packet that meets a rule while it is written goes to the sockets: not without need.
        if stands.is_none_or(|stands| stands.torn || stands.flow != flow) {
            self.flows.write(slot, &flow);
        }
        Ok(())
    }

    fn forget(&mut self, slot: u32) {
        let Some(Used { hop: Some(key), .. }) = self.used.remove(&slot) else { return };
        if let Some(state) = self.hops.get_mut(&key) {
            state.slots.remove(&slot);
            if state.slots.is_empty() {
                self.hops.remove(&key);
            }
        }
    }
}
