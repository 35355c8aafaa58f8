//! What a driver with a fast path may take over: the flow of one port is a function of the state of
//! its two endpoints, told again whenever that state changes. The fast path only narrows: it is told
//! of a flow after the slow path has let packets of it pass, and it is told to let go before anything
//! else about the stream is answered or counted.

use super::{
    MediaTable,
    endpoint::{Component, Endpoint, NO_PAIR, Packet},
    quality::PassedBy,
};
use crate::port::{FastChange, FastCount, FastFlow, FastKind, MediaPortId};

/// What the fast path was told of one endpoint, and what it told. Only endpoints that it ever had a
/// flow of have one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// In the fast path now.
    flow: Option<FastFlow>,
    /// Of the last flows of this use of the pair: their final counts may still be on their way.
    flows: [Counted; FLOWS_COUNTED],
    /// Where the next one goes.
    next: usize,
    /// Counted in of the flow that the process before has left, until it is claimed.
    left: Option<Counted>,
}

/// Flows of one use of a pair whose counts are taken. They are asked for each second; a stream that
/// changes more often than this in between loses counts, never packets.
const FLOWS_COUNTED: usize = 4;

/// What is counted in of one flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// 0: none.
    epoch: u32,
    packets: u64,
    bytes: u64,
    lost: u64,
    /// Among these, what the kernel counts no more: packets, octets, lost.
    gone: [u64; 3],
    /// Its packets go out without being seen here.
    forwards: bool,
    /// It was there before this process: unless it went on, its counts begin again.
    inherited: bool,
}

impl Counted {
    /// For a call record: packets, octets, lost, of those that the flow in the kernel counts.
    pub(super) fn parts(&self) -> [u64; 3] {
        let [packets, bytes, lost] = self.gone;
        [
            self.packets.saturating_sub(packets),
            self.bytes.saturating_sub(bytes),
            self.lost.saturating_sub(lost),
        ]
    }
}

/// The engine's end of the fast path of a shard.
#[derive(Debug, Default)]
pub(super) struct Fast {
    enabled: bool,
    /// Of the newest flow: no two flows of this process have the same.
    epoch: u32,
    changes: Vec<FastChange>,
}

impl Told {
    /// Packets of the party go out without being seen here.
    pub(super) fn forwards(&self) -> bool {
        self.flow.is_some_and(|flow| goes_by(&flow))
    }

    /// What is counted in of the flow in the kernel now.
    pub(super) fn counted(&self) -> Option<&Counted> {
        let epoch = self.flow?.epoch;
        self.flows.iter().find(|one| one.epoch == epoch && one.forwards)
    }

    /// Of a flow that the process before has left, what a call record says.
    pub(super) fn of_record([packets, bytes, lost]: [u64; 3]) -> Self {
        let left = Counted { packets, bytes, lost, inherited: true, ..Counted::default() };
        Self { left: Some(left), ..Self::default() }
    }
}

impl MediaTable {
    /// The driver has a fast path: from now on it is told of streams, at once of those that were taken
    /// over with a flow. The driver finds that flow as the process before has left it, lets it go on
    /// and counts on.
    pub fn use_fast_path(&mut self) {
        self.fast.enabled = true;
        for pair in (0..).take(self.endpoints.len()) {
            if self.endpoints.get(pair as usize).is_some_and(|end| end.other != NO_PAIR) {
                self.tell_fast(pair);
            }
        }
        // A flow that is told of later is a new one.
        for endpoint in &mut self.endpoints {
            if let Some(told) = &mut endpoint.told {
                told.left = None;
            }
        }
    }

    /// Moves what the fast path is to be told into `into`, in order. Once a turn.
    pub fn take_fast_changes(&mut self, into: &mut Vec<FastChange>) {
        into.append(&mut self.fast.changes);
    }

    /// Adds what the fast path counted; gives packets and octets that are new. Counts of a flow of an
    /// earlier use of its port are of no stream any more, and what was delivered is counted here.
    pub fn fast_counts(&mut self, counts: &[FastCount]) -> (u64, u64) {
        let mut total = (0, 0);
        for count in counts {
            let Some(endpoint) = self.endpoints.get_mut((count.port.0 / 2) as usize) else {
                continue;
            };
            let Some(told) = &mut endpoint.told else { continue };
            let mut flows = told.flows.iter_mut();
            let Some(counted) = flows.find(|one| one.epoch == count.epoch && one.forwards) else {
                continue;
            };
            if std::mem::take(&mut counted.inherited) && count.packets < counted.packets {
                // It did not go on: the driver has begun another.
                (counted.packets, counted.bytes, counted.lost) = (0, 0, 0);
            }
            let packets = count.packets.saturating_sub(counted.packets);
            let bytes = count.bytes.saturating_sub(counted.bytes);
            (counted.packets, counted.bytes, counted.gone) =
                (count.packets, count.bytes, count.gone);
            let lost = count.lost.saturating_sub(counted.lost);
            // What was late is no longer lost, and is not lost again when more is.
            counted.lost = counted.lost.max(count.lost);
            endpoint.quality.passed_by(PassedBy {
                packets,
                bytes,
                lost,
                jitter: count.jitter,
                last: count.last,
            });
            total = (total.0 + packets, total.1 + bytes);
        }
        total
    }

    /// Tells the fast path what has become of the flows of a stream, one of whose pairs is `pair`.
    pub(super) fn tell_fast(&mut self, pair: u32) {
        if !self.fast.enabled {
            return;
        }
        let other = self.endpoints.get(pair as usize).map_or(NO_PAIR, |endpoint| endpoint.other);
        for (pair, other) in [(pair, other), (other, pair)] {
            let Some(flow) = self.flow(pair, other) else {
                self.let_go(pair);
                continue;
            };
            let Some(endpoint) = self.endpoints.get_mut(pair as usize) else { continue };
            let told = endpoint.told.get_or_insert_default();
            if told.flow.is_some_and(|known| FastFlow { epoch: 0, ..known } == flow) {
                continue;
            }
            // Zero would be that of no flow.
            self.fast.epoch = self.fast.epoch.wrapping_add(1).max(1);
            let flow = FastFlow { epoch: self.fast.epoch, ..flow };
            told.flow = Some(flow);
            let forwards = goes_by(&flow);
            if forwards {
                endpoint.quality.pass_by();
            } else {
                endpoint.quality.pass_no_more();
            }
            if let Some(counted) = told.flows.get_mut(told.next) {
                let left = told.left.take().filter(|_| forwards).unwrap_or_default();
                *counted = Counted { epoch: flow.epoch, forwards, ..left };
            }
            told.next = (told.next + 1) % FLOWS_COUNTED;
            self.fast.changes.push(FastChange::Set { port: Component::Rtp.port(pair), flow });
        }
    }

    /// The fast path has nothing more to do with a pair.
    pub(super) fn let_go(&mut self, pair: u32) {
        let Some(endpoint) = self.endpoints.get_mut(pair as usize) else { return };
        if endpoint.told.as_mut().is_some_and(|told| told.flow.take().is_some()) {
            endpoint.quality.pass_no_more();
            self.fast.changes.push(FastChange::Clear { port: Component::Rtp.port(pair) });
        }
    }

    /// What the fast path may take over of the packets that arrive on `pair`, its epoch left open.
    fn flow(&self, pair: u32, other: u32) -> Option<FastFlow> {
        let from = self.endpoints.get(pair as usize)?;
        let to = self.endpoints.get(other as usize)?;
        // What may go round is counted here.
        let inside = from.hairpin.is_some() && to.hairpin.is_some();
        if from.other != other || to.other != pair || !to.gate.is_certain() || inside {
            return None;
        }
        let (source, ssrc) = from.gate.steady()?;
        let (component, address) =
            to.destination(Packet::Rtp).filter(|_| from.may_send(Packet::Rtp))?;
        let out = component.port(other);
        let kind = if is_untouched(from, to) {
            FastKind::Forward { out, to: address, dscp: self.dscp(out) }
        } else {
            FastKind::Deliver { out, to: address }
        };
        let (clock_hz, payload_types_to_user) = from.quality.fast_formats();
        Some(FastFlow { source, ssrc, kind, epoch: 0, clock_hz, payload_types_to_user })
    }

    fn dscp(&self, port: MediaPortId) -> Option<u8> {
        self.specs.get(port.0 as usize)?.dscp
    }
}

/// Whether packets of a flow go out without being seen here. No fast path makes one family of
/// addresses of the other: it is told of such a flow and counts that it leaves it here.
fn goes_by(flow: &FastFlow) -> bool {
    let FastKind::Forward { to, .. } = flow.kind else { return false };
    flow.source.is_ipv4() == to.is_ipv4()
}

/// Whether packets leave as they came.
fn is_untouched(from: &Endpoint, to: &Endpoint) -> bool {
    from.shield.is_none() && to.shield.is_none() && from.payload.is_none()
}
