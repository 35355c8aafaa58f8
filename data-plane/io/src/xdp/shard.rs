//! The driver of one shard: the socket driver, and the fast path around it.

use super::FastPath;
use super::layout::{Action, Count, Decision};
use super::polling::{Looks, Why};
use super::table::{HopKey, Refused};
use crate::af_xdp::{Station, Way};
use crate::clock;
use crate::driver::{
    Count as DriverCount, Driver, FAST_WATCH_FIRST, Interest, Kind, RECEIVE_BATCH_MAX, Ready, Rx,
    Stats, Waker, WatchKey,
};
use crate::sys::bpf;
use ravelin_engine::port::{
    FastChange, FastCount, FastFlow, FastKind, ListenerId, Local, MediaPortId, ShardId, Token,
    TxQueue,
};
use ravelin_engine::time::Instant;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait while frames wait for an interface that had no room.
const UNSENT_WAIT: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug)]
struct Active {
    slot: u32,
    generation: u32,
    flow: FastFlow,
    before: Before,
}

/// What was counted of a flow before its interface went away.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    packets: u64,
    bytes: u64,
    lost: u64,
}

pub(super) struct Shard {
    fast: Arc<FastPath>,
    inner: Box<dyn Driver>,
    shard: ShardId,
    ports: Vec<Option<SocketAddr>>,
    /// Code points of what leaves each port.
    marks: BTreeMap<u32, u8>,
    station: Station,
    looks: Looks,
    /// Changes of next hops when the station last asked.
    hops: (u64, u64),
    /// What became ready, the station's own apart.
    ready: Vec<Ready>,
    events: Vec<Ready>,
    active: BTreeMap<u32, Active>,
    /// Flows that the sockets have, for want of an interface or a socket there: set again when the
    /// interfaces change.
    waiting: BTreeMap<u32, (FastFlow, Before)>,
    /// Changes of interfaces, and sockets that came later, as they were when last looked at.
    interfaces: (u64, u64),
    /// Last counts of flows that others have replaced.
    finished: Vec<FastCount>,
    /// Flows that were cleared and not counted for the last time.
    ended: Vec<(u32, Active)>,
    /// Room for one port's counts of all CPUs.
    cpus: Vec<Count>,
}

impl Shard {
    pub(super) fn new(fast: Arc<FastPath>, inner: Box<dyn Driver>, shard: ShardId) -> Self {
        let cpus = Vec::with_capacity(fast.counts.cpus());
        let interfaces = (fast.interface_changes(), fast.places.given());
        let mut shard = Self {
            fast,
            inner,
            shard,
            ports: Vec::new(),
            marks: BTreeMap::new(),
            station: Station::default(),
            looks: Looks::of(shard),
            hops: (0, 0),
            ready: Vec::new(),
            events: Vec::new(),
            active: BTreeMap::new(),
            waiting: BTreeMap::new(),
            interfaces,
            finished: Vec::new(),
            ended: Vec::new(),
            cpus,
        };
        shard.take_sockets();
        shard
    }

    /// AF_XDP sockets that were bound since the last time.
    fn take_sockets(&mut self) {
        for station in self.fast.places.take(self.shard) {
            self.station.join(station, &mut *self.inner);
        }
    }

    /// Interfaces got or lost the program: flows that are not there are set again, and those for user
    /// space are led to the sockets that there are.
    fn follow_interfaces(&mut self) {
        let newest = (self.fast.interface_changes(), self.fast.places.given());
        if newest == self.interfaces {
            return;
        }
        let sockets = newest.1 != self.interfaces.1;
        self.interfaces = newest;
        if sockets {
            // What polls has to know of the new ones.
            self.looks.end(&self.fast.polling);
            self.looks = Looks::of(self.shard);
            self.take_sockets();
            let why = if self.station.is_empty() { Why::NoSocket } else { Why::Rate };
            self.fast.polling.set(self.shard.0.into(), why);
        }
        let moved = self.active.iter().filter(|(port, active)| {
            let is_lost = self.fast.table().is_lost(active.slot);
            is_lost
                || matches!(active.flow.kind, FastKind::Deliver { .. })
                    && self.decision(MediaPortId(**port), &active.flow)
                        != self.fast.table().decision(active.slot)
        });
        let moved: Vec<_> = moved.map(|(port, active)| (*port, *active)).collect();
        let waiting = std::mem::take(&mut self.waiting);
        self.fast.wait_for_interface(-(waiting.len() as i64));
        for (port, (flow, before)) in waiting {
            // Who waits was counted when it began to.
            let _ = self.try_set(MediaPortId(port), &flow, before);
        }
        for (port, Active { flow, .. }) in moved {
            // What it has counted is told now, and goes on from there.
            self.end_active(MediaPortId(port));
            let before = self.finished.last().map_or_else(Before::default, |count| Before {
                packets: count.packets,
                bytes: count.bytes,
                lost: count.lost,
            });
            let _ = self.try_set(MediaPortId(port), &flow, before);
        }
        if sockets {
            self.find_ways(true);
        }
    }

    fn address(&self, port: MediaPortId) -> Option<SocketAddr> {
        self.ports.get(usize::try_from(port.0).ok()?).copied().flatten()
    }

    fn decision(&self, port: MediaPortId, flow: &FastFlow) -> Option<Decision> {
        let action = match flow.kind {
            FastKind::Forward { out, to, dscp } => Action::Forward {
                source: self.address(out)?,
                target: to,
                tos: dscp.unwrap_or(0) << 2,
            },
            FastKind::Deliver { out, to } => {
                let interface = self.fast.table().ingress(self.address(port)?.ip())?;
                Action::Deliver {
                    socket: self.station.first(interface)?,
                    out: HopKey { from: self.address(out)?.ip(), to: to.ip() },
                }
            }
        };
        Some(Decision {
            local: self.address(port)?,
            source: flow.source,
            ssrc: flow.ssrc,
            clock_hz: flow.clock_hz,
            user_types: flow.payload_types_to_user,
            action,
        })
    }

    fn set(&mut self, port: MediaPortId, flow: &FastFlow) {
        self.wait_no_more(port);
        self.end_active(port);
        if let Err(refused) = self.try_set(port, flow, Before::default()) {
            self.fast.refuse(refused);
        }
    }

    fn wait_no_more(&mut self, port: MediaPortId) {
        if self.waiting.remove(&port.0).is_some() {
            self.fast.wait_for_interface(-1);
        }
    }

    /// Ends the flow of a port, if it has one: nothing is forwarded between its last count and the
    /// first of the next.
    fn end_active(&mut self, port: MediaPortId) {
        self.station.clear_route(port);
        if let Some(active) = self.active.remove(&port.0) {
            self.fast.table().clear(active.slot);
            let count = self.count(port.0, active);
            self.finished.push(count);
        }
    }

    /// Sets the flow of a port that has none, or has it wait.
    fn try_set(
        &mut self,
        port: MediaPortId,
        flow: &FastFlow,
        before: Before,
    ) -> Result<(), Refused> {
        let outcome = self.begin(port, flow, before);
        if matches!(outcome, Err(Refused::Interface | Refused::NoSocket)) {
            self.waiting.insert(port.0, (*flow, before));
            self.fast.wait_for_interface(1);
        }
        outcome
    }

    fn begin(&mut self, port: MediaPortId, flow: &FastFlow, before: Before) -> Result<(), Refused> {
        // A port that is not open has no packets; without a socket of ours they take the others.
        let Some(decision) = self.decision(port, flow) else {
            if let Some(local) = self.address(port) {
                self.fast.table().clear_port(local);
            }
            return match flow.kind {
                FastKind::Deliver { .. } => Err(Refused::NoSocket),
                FastKind::Forward { .. } => Ok(()),
            };
        };
        let (slot, generation) = self.fast.table().set(decision)?;
        if let FastKind::Deliver { out, to } = flow.kind
            && let Some(from) = self.address(out)
        {
            let tos = self.marks.get(&out.0).map_or(0, |dscp| dscp << 2);
            self.station.set_route(port, out, from, to, tos);
        }
        self.active.insert(port.0, Active { slot, generation, flow: *flow, before });
        Ok(())
    }

    fn clear(&mut self, port: MediaPortId) {
        self.wait_no_more(port);
        self.station.clear_route(port);
        match self.active.remove(&port.0) {
            Some(active) => {
                self.fast.table().clear(active.slot);
                self.ended.push((port.0, active));
            }
            None => {
                if let Some(local) = self.address(port) {
                    self.fast.table().clear_port(local);
                }
            }
        }
    }

    /// Asks for the ways of what leaves past the sockets, if they may have changed; `all`: they have.
    fn find_ways(&mut self, all: bool) {
        let newest = self.fast.hop_changes();
        if newest == self.hops && !all && !self.station.has_new_routes() {
            return;
        }
        let moved = all || newest.1 != self.hops.1;
        self.hops = newest;
        let table = self.fast.table();
        self.station.find_ways(moved, &|from, to| {
            let hop = table.hop(&HopKey { from: from.ip(), to: to.ip() })?;
            Some(Way {
                interface: hop.interface,
                vlan: hop.vlan,
                target_mac: hop.target_mac,
                source_mac: hop.source_mac,
                mtu: hop.mtu,
                ttl: hop.ttl,
            })
        });
    }

    /// What became ready goes to the station or stays for the shard, whoever asks first.
    fn sort_ready(&mut self) {
        self.inner.take_ready(&mut self.events);
        for ready in self.events.drain(..) {
            if ready.key.0 >= FAST_WATCH_FIRST {
                self.station.ready(&ready);
            } else {
                self.ready.push(ready);
            }
        }
    }

    fn count(&mut self, port: u32, active: Active) -> FastCount {
        self.cpus.clear();
        self.fast.counts.read(active.slot, active.generation, &mut self.cpus);
        let sum = merge(&self.cpus);
        FastCount {
            port: MediaPortId(port),
            epoch: active.flow.epoch,
            packets: active.before.packets + sum.packets,
            bytes: active.before.bytes + sum.bytes,
            lost: active.before.lost + sum.lost(),
            gone: [active.before.packets, active.before.bytes, active.before.lost],
            jitter: sum.jitter >> 4,
            highest_sequence: sum.sequence(),
            last: instant(sum.last),
        }
    }
}

/// What several CPUs counted of one stream. They number its packets alike, so it adds up; jitter goes
/// on from one CPU to the next, so it is that of the last.
pub(super) fn merge(cpus: &[Count]) -> Count {
    let Some(last) = cpus.iter().max_by_key(|cpu| cpu.last) else { return Count::default() };
    let sum = |part: fn(&Count) -> u64| cpus.iter().map(part).fold(0, u64::wrapping_add);
    Count {
        packets: sum(|cpu| cpu.packets),
        bytes: sum(|cpu| cpu.bytes),
        seen: sum(|cpu| cpu.seen),
        first: cpus.iter().map(|cpu| cpu.first).min().unwrap_or(last.first),
        highest: cpus.iter().map(|cpu| cpu.highest).max().unwrap_or(last.highest),
        ..*last
    }
}

/// The kernel's time as ours: both count the same clock from another beginning.
fn instant(kernel_ns: u64) -> Instant {
    if kernel_ns == 0 {
        return Instant::default();
    }
    let ago = bpf::monotonic_ns().saturating_sub(kernel_ns);
    Instant(clock::monotonic().0.saturating_sub(ago).max(1))
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.looks.end(&self.fast.polling);
        self.fast.wait_for_interface(-(self.waiting.len() as i64));
    }
}

impl Driver for Shard {
    fn kind(&self) -> Kind {
        Kind::Xdp
    }

    fn open_listener(&mut self, id: ListenerId, at: SocketAddr) -> io::Result<SocketAddr> {
        self.inner.open_listener(id, at)
    }

    fn open_media(&mut self, id: MediaPortId, at: SocketAddr) -> io::Result<SocketAddr> {
        let bound = self.inner.open_media(id, at)?;
        let index = usize::try_from(id.0).map_err(|_| io::ErrorKind::InvalidInput)?;
        if self.ports.len() <= index {
            self.ports.resize(index + 1, None);
        }
        self.ports[index] = Some(bound);
        self.station.open(id, bound);
        Ok(bound)
    }

    fn mark(&mut self, port: Local, dscp: u8) -> io::Result<()> {
        self.inner.mark(port, dscp)?;
        if let Local::Media { port } = port {
            self.marks.insert(port.0, dscp);
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        self.follow_interfaces();
        if self.station.is_empty() {
            return self.inner.wait(timeout);
        }
        self.find_ways(false);
        let mut timeout = timeout;
        let (fast, station) = (&self.fast, &self.station);
        if self.looks.judge(&fast.polling, station, || fast.tell_polling())
            && self.looks.look(&fast.polling, station, timeout)
        {
            self.station.counters.polls += 1;
            timeout = Duration::ZERO;
        } else if !self.ready.is_empty() || self.station.arm(&mut *self.inner) {
            timeout = Duration::ZERO;
        } else if self.station.has_unsent() {
            timeout = timeout.min(UNSENT_WAIT);
        }
        let events = self.inner.wait(timeout)?;
        self.sort_ready();
        Ok(events + usize::from(self.station.has_arrived()))
    }

    fn receive(&mut self, sink: &mut dyn FnMut(Rx<'_>)) -> usize {
        // What went to the sockets before a stream came here is older.
        let datagrams = self.inner.receive(sink);
        let frames = self.station.receive(RECEIVE_BATCH_MAX.saturating_sub(datagrams), sink);
        self.inner.also_received(frames);
        self.looks.received(frames);
        datagrams + frames
    }

    fn send(&mut self, queue: &TxQueue, failed: &mut dyn FnMut(Token, io::Error)) {
        let rest = self.station.send(queue).unwrap_or(queue);
        self.inner.send(rest, failed);
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn watch(&mut self, key: WatchKey, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        if key.0 >= FAST_WATCH_FIRST {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more watches than allowed"));
        }
        self.inner.watch(key, fd, interest)
    }

    fn unwatch(&mut self, key: WatchKey, fd: BorrowedFd<'_>) {
        self.inner.unwatch(key, fd);
        self.ready.retain(|ready| ready.key != key);
    }

    fn take_ready(&mut self, into: &mut Vec<Ready>) {
        // Some became ready while the driver received.
        self.sort_ready();
        into.append(&mut self.ready);
    }

    fn program(&mut self, changes: &[FastChange]) {
        for change in changes {
            match change {
                FastChange::Set { port, flow } => self.set(*port, flow),
                FastChange::Clear { port } => self.clear(*port),
            }
        }
    }

    fn fast_counts(&mut self, into: &mut Vec<FastCount>) {
        self.station.revive();
        self.last_fast_counts(into);
        let mut port = None;
        loop {
            let after = port.map_or(0, |port| port + 1);
            let Some((&next, &active)) = self.active.range(after..).next() else { break };
            port = Some(next);
            let count = self.count(next, active);
            into.push(count);
            if next == u32::MAX {
                break;
            }
        }
    }

    fn last_fast_counts(&mut self, into: &mut Vec<FastCount>) {
        into.append(&mut self.finished);
        while let Some((port, active)) = self.ended.pop() {
            let count = self.count(port, active);
            into.push(count);
        }
    }

    fn stats(&self) -> &Stats {
        self.inner.stats()
    }

    fn counts(&self, sink: &mut dyn FnMut(DriverCount)) {
        self.inner.counts(sink);
        if !self.station.is_unused() {
            self.station.each(sink);
        }
    }
}
