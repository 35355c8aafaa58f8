//! Which trunk and target a call tries next, and what an answer means for the search.

use std::net::SocketAddr;

use ravelin_policy::{RealmId, Snapshot, Transport, TrunkId};
use smallvec::SmallVec;

use crate::{
    cause::Cause,
    ids::Generator,
    limits::ATTEMPTS_MAX,
    loadout::Loadout,
    port::{Egress, ListenerId},
    sip::transaction::Hop,
    time::Instant,
};

/// One target of one trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub trunk: TrunkId,
    /// Index into the trunk's targets.
    pub target: u16,
}

/// The ways of one call, in the order in which they are tried.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    ways: SmallVec<[Way; 4]>,
    next: usize,
    /// No target was up: these are tried all the same.
    last_resort: bool,
}

/// Which targets of a trunk a plan takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Take {
    Up,
    /// Down by their probes, and not asking to be left alone.
    Down,
    /// All that are not up.
    Rest,
}

impl Plan {
    /// The next way, once.
    pub(crate) fn next(&mut self) -> Option<Way> {
        let way = self.ways.get(self.next).copied()?;
        self.next += 1;
        Some(way)
    }

    /// The last way once more: it was not the way that failed.
    pub(crate) fn step_back(&mut self) {
        self.next = self.next.saturating_sub(1);
    }

    pub(crate) fn has_more(&self) -> bool {
        self.next < self.ways.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ways.is_empty()
    }

    /// From the beginning again (EM-54).
    pub(crate) fn restart(&mut self) {
        self.next = 0;
    }

    /// Whether every target of the call is down by its probes.
    pub(crate) fn is_last_resort(&self) -> bool {
        self.last_resort
    }

    /// The targets of `trunks` that are up, trunk by trunk, each trunk's by priority, those of one
    /// priority drawn by weight. If none is, those that are down: to be wrong about one costs every
    /// call, to try it costs one that is lost anyway.
    pub(crate) fn ordinary(
        loadout: &Loadout,
        trunks: impl Iterator<Item = TrunkId> + Clone,
        now: Instant,
        draw: &mut Generator,
    ) -> Self {
        let mut plan = Self::default();
        for trunk in trunks.clone() {
            plan.add(loadout, trunk, now, draw, Take::Up);
        }
        if plan.is_empty() {
            plan.last_resort = true;
            for trunk in trunks {
                plan.add(loadout, trunk, now, draw, Take::Down);
            }
        }
        plan.ways.truncate(ATTEMPTS_MAX);
        plan
    }

    /// As [`Self::ordinary`], but what is down comes last within its trunk and is never left out
    /// (EM-50: health orders, never excludes).
    pub(crate) fn emergency(
        loadout: &Loadout,
        trunks: impl Iterator<Item = TrunkId>,
        now: Instant,
        draw: &mut Generator,
    ) -> Self {
        let mut plan = Self::default();
        for trunk in trunks {
            plan.add(loadout, trunk, now, draw, Take::Up);
            plan.add(loadout, trunk, now, draw, Take::Rest);
        }
        plan
    }

    fn add(
        &mut self,
        loadout: &Loadout,
        trunk: TrunkId,
        now: Instant,
        draw: &mut Generator,
        take: Take,
    ) {
        let index = usize::from(trunk.0);
        let Some(settings) = loadout.snapshot.trunks.get(index) else { return };
        let gauge = loadout.gauges.get(index);
        let health = |target: usize| gauge.and_then(|gauge| gauge.targets().get(target));
        let is_wanted = |target: usize| {
            let up = health(target).is_none_or(|health| health.is_usable(now));
            match take {
                Take::Up => up,
                Take::Down => !up && health(target).is_some_and(|health| !health.is_held(now)),
                Take::Rest => !up,
            }
        };
        let first = self.ways.len();
        for (target, _) in settings.targets.iter().enumerate() {
            let Ok(number) = u16::try_from(target) else { break };
            if is_wanted(target) {
                self.ways.push(Way { trunk, target: number });
            }
        }
        let Some(added) = self.ways.get_mut(first..) else { return };
        let priority = |way: &Way| {
            settings.targets.get(usize::from(way.target)).map_or(u16::MAX, |target| target.priority)
        };
        let weight = |way: &Way| {
            settings.targets.get(usize::from(way.target)).map_or(0, |target| target.weight)
        };
        added.sort_by_key(priority);
        let mut rest = added;
        while let Some(head) = rest.first().copied() {
            let equal = rest.iter().take_while(|way| priority(way) == priority(&head)).count();
            let Some((group, after)) = rest.split_at_mut_checked(equal) else { break };
            draw_by_weight(group, weight, draw);
            rest = after;
        }
    }
}

/// RFC 2782: again and again one of those left, with a chance in proportion to its weight.
fn draw_by_weight(group: &mut [Way], weight: impl Fn(&Way) -> u16, draw: &mut Generator) {
    for at in 0..group.len() {
        let Some(left) = group.get_mut(at..) else { return };
        // Weight 0 keeps a small chance.
        let share = |way: &Way| usize::from(weight(way)).max(1);
        let total: usize = left.iter().map(&share).sum();
        let mut point = draw.below(total);
        let chosen = left.iter().position(|way| {
            let hit = point < share(way);
            point = point.saturating_sub(share(way));
            hit
        });
        left.swap(0, chosen.unwrap_or(0));
    }
}

/// Where requests to a target leave from: the first listener of the trunk's realm with the
/// transport and the address family of the target. `None`: the realm has no such listener.
pub(crate) fn hop(snapshot: &Snapshot, way: Way) -> Option<(ListenerId, Hop, SocketAddr)> {
    let trunk = snapshot.trunk(way.trunk)?;
    let target = trunk.targets.get(usize::from(way.target))?;
    let to = target.addr;
    let listener = |transport| find_listener(snapshot, trunk.realm, transport, to);
    match target.transport {
        Transport::Udp => {
            let from = listener(Transport::Udp)?;
            let tcp = listener(Transport::Tcp).map(|tcp| (tcp, to));
            Some((from, Hop { egress: Egress::Udp { listener: from, to }, tcp }, to))
        }
        transport => {
            let from = listener(transport)?;
            let transport = match transport {
                Transport::Tls => crate::port::Transport::Tls,
                _ => crate::port::Transport::Tcp,
            };
            let egress = Egress::Connect { listener: from, to, transport };
            Some((from, Hop { egress, tcp: None }, to))
        }
    }
}

/// The first listener of a realm with this transport and the address family of `to`.
pub(crate) fn find_listener(
    snapshot: &Snapshot,
    realm: RealmId,
    transport: Transport,
    to: SocketAddr,
) -> Option<ListenerId> {
    let at = snapshot.listeners.iter().position(|listener| {
        listener.realm == realm
            && listener.transport == transport
            && listener.bind.is_ipv4() == to.is_ipv4()
    })?;
    u16::try_from(at).ok().map(ListenerId)
}

/// What a final response of one target means for the search of an ordinary call.
///
/// | Answer | Then |
/// |---|---|
/// | 408, 430, 5xx | next: this way is in trouble, another may not be |
/// | 401, 407 | next: a trunk that wants credentials that we do not have |
/// | 3xx | next: redirection is not followed |
/// | 403, 404, 410, 480, 484, 486, 487, 488, 600, 603, 604, 606, 607, 608 and all others | final: they are about the callee, the caller or the call, and every way would say the same |
///
/// Nothing is tried after a provisional 18x has reached the caller: a callee was found. An
/// emergency call knows no final refusal: it tries the next trunk after each (EM-51).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Next,
    Final,
}

pub(crate) fn meaning(code: u16) -> Meaning {
    match code {
        300..=399 | 401 | 407 | 408 | 430 | 500..=599 => Meaning::Next,
        _ => Meaning::Final,
    }
}

/// What the caller is told when the last way failed with `code`: answers that only make sense
/// between us and that trunk become ours.
pub(crate) fn told(code: u16) -> (u16, Cause) {
    match code {
        300..=399 => (480, Cause::Redirected),
        // The challenge is for us, not for the caller: its headers are not passed on.
        401 | 407 => (403, Cause::FarSideRefused),
        // A hop limit, loop or extension fault between us and the trunk is not the caller's.
        420 | 421 | 482 | 483 => (502, Cause::FarSideRefused),
        _ => (code, Cause::FarSideRefused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// features 1, row 10; issue: never after 486, 600, 603.
    #[test]
    fn the_cause_table() {
        for code in [302, 401, 407, 408, 500, 502, 503, 504] {
            assert_eq!(meaning(code), Meaning::Next, "{code}");
        }
        for code in [400, 403, 404, 410, 480, 484, 486, 487, 488, 600, 603, 604, 606, 607, 608] {
            assert_eq!(meaning(code), Meaning::Final, "{code}");
        }
    }

    #[test]
    fn a_draw_keeps_every_target_and_follows_the_weights() {
        let seed = crate::ids::Seed([3; 32]);
        let mut draw = Generator::new(&seed, crate::port::ShardId(0));
        let mut first = [0_u32; 2];
        for _ in 0..4_000 {
            let mut group = [0, 1].map(|target| Way { trunk: TrunkId(0), target });
            draw_by_weight(&mut group, |way| if way.target == 0 { 300 } else { 100 }, &mut draw);
            first[usize::from(group[0].target)] += 1;
            assert_ne!(group[0], group[1]);
        }
        assert!((2_700..3_300).contains(&first[0]), "{first:?}");
    }
}
