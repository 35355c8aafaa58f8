//! New calls for which this shard has no media port left go to the next shard, and so on round all of
//! them: a range is used up to its last pairs whatever shards the calls' names fall to (design 4).
//!
//! Only a call that nothing is known of yet is handed on. Whoever takes it owns it to its end, and its
//! name is in all that is sent for it. What comes in its name before that, the same INVITE again or its
//! CANCEL, still arrives here first: for as long as INVITEs are sent again we remember where they went,
//! and a CANCEL of which nobody knows goes round as well.

use std::collections::{HashMap, VecDeque};

use ravelin_policy::{Class, RealmId, Snapshot, TrunkId};
use ravelin_wire::sip::{Message, Method, Uri};
use smallvec::SmallVec;

use super::Engine;
use crate::{
    b2bua::{attempt::contact_user, invite::Arrival, sdp},
    core::Turn,
    emergency,
    ids::{Seed, siphash},
    limits::PLACEMENTS_MAX,
    port::{ListenerId, Meta, ShardId},
    time::Instant,
};

/// The shard that takes it whatever it lacks: the last of all, or the one whose ring to the next is
/// full.
const NOWHERE_ELSE: u8 = u8::MAX;

/// Calls that went to another shard, by what their Call-ID hashes to.
#[derive(Debug)]
pub(super) struct Placements {
    key: siphash::Key,
    /// With the end of each.
    known: HashMap<u64, (ShardId, Instant)>,
    /// Earliest first.
    ends: VecDeque<(u64, Instant)>,
    /// Shards that what is being received has come from before us; `None`: it came to us first, or
    /// from whoever took it from the network.
    tried: Option<u8>,
}

impl Placements {
    pub(super) fn new(seed: &Seed, shard: ShardId) -> Self {
        Self {
            key: seed.shard_key(b"placements", shard),
            known: HashMap::new(),
            ends: VecDeque::new(),
            tried: None,
        }
    }

    /// Sets what is being received apart from what belongs here by its name.
    pub(super) fn receiving(&mut self, tried: Option<u8>) {
        self.tried = tried;
    }

    /// Whether it was handed to us to be ours.
    pub(super) fn is_ours(&self) -> bool {
        self.tried.is_some()
    }

    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    fn sweep(&mut self, now: Instant) {
        while let Some((call, until)) = self.ends.front().copied()
            && until <= now
        {
            self.ends.pop_front();
            if self.known.get(&call).is_some_and(|(_, end)| *end <= now) {
                self.known.remove(&call);
            }
        }
    }

    fn find(&self, call_id: &[u8]) -> Option<ShardId> {
        if self.known.is_empty() {
            return None;
        }
        self.known.get(&self.key.hash(call_id)).map(|(shard, _)| *shard)
    }

    /// False: there is no room to remember it, and it has to stay.
    fn note(&mut self, call_id: &[u8], shard: ShardId, until: Instant) -> bool {
        if self.ends.len() >= PLACEMENTS_MAX {
            return false;
        }
        let call = self.key.hash(call_id);
        self.known.insert(call, (shard, until));
        self.ends.push_back((call, until));
        true
    }

    fn forget(&mut self, call_id: &[u8]) {
        self.known.remove(&self.key.hash(call_id));
    }
}

impl Engine {
    /// Calls that are remembered to have gone to another shard.
    #[must_use]
    pub fn placements(&self) -> usize {
        self.placements.count()
    }

    /// Where a request without a To tag of ours goes if not here, and how many shards it has then
    /// tried.
    pub(super) fn placed_elsewhere(
        &mut self,
        turn: &Turn<'_>,
        meta: &Meta,
        message: &Message<'_>,
        at: (ListenerId, RealmId),
    ) -> Option<(ShardId, u8)> {
        let method = message.method().filter(|method| {
            matches!(method, Method::Invite | Method::Cancel) && message.to().tag().is_none()
        })?;
        let now = turn.now.mono;
        self.placements.sweep(now);
        let shards = self.owners.shards();
        let tried = self.placements.tried.unwrap_or(0);
        if tried == NOWHERE_ELSE {
            self.placements.forget(message.call_id());
            return None;
        }
        let tried = tried.saturating_add(1);
        if tried >= shards {
            return None;
        }
        if let Some(shard) = self.placements.find(message.call_id()) {
            return Some((shard, tried));
        }
        let next = ShardId(self.core.shard.0.checked_add(1).filter(|n| *n < shards).unwrap_or(0));
        if method == Method::Cancel {
            let stray = !self.core.layer.knows_invite(message);
            return (stray && self.knows(at.1, meta)).then_some((next, tried));
        }
        // Seldom: all that follows costs more than most calls do.
        if !self.core.media.is_short() || self.core.layer.knows_invite(message) {
            return None;
        }
        if self.has_ports_for(turn, meta, message, at) {
            return None;
        }
        let until = now + self.core.limits.timeout() + self.core.limits.t4;
        if !self.placements.note(message.call_id(), next, until) {
            self.core.counters.placements_refused += 1;
            return None;
        }
        self.core.counters.calls_placed += 1;
        Some((next, tried))
    }

    /// Whether this shard has the ports that a new call begins with, on either side. What is turned
    /// away for another reason is said to.
    fn has_ports_for(
        &self,
        turn: &Turn<'_>,
        meta: &Meta,
        invite: &Message<'_>,
        (listener, realm): (ListenerId, RealmId),
    ) -> bool {
        let snapshot = &*self.core.loadout.snapshot;
        let trunk = snapshot.trunk_by_source(realm, meta.source);
        let class = snapshot.classify(realm, invite.request_uri().unwrap_or_default());
        let emergency = matches!(class, Class::Emergency(_));
        let allowed =
            || snapshot.realm(realm).is_some_and(|realm| realm.emergency_allowed) && emergency;
        if !(allowed() || (trunk.is_some() && !emergency)) {
            return true;
        }
        let arrival = Arrival { meta, invite, listener, realm, trunk, class, preempts: false };
        let streams = sdp::streams(invite);
        let mut callees = callee_realms(snapshot, &arrival);
        callees.sort_unstable();
        callees.dedup();
        let has = |of: RealmId, pairs: usize| {
            let media = &self.core.media;
            !media.serves(of) || media.available(turn.now.mono, of, emergency) >= pairs
        };
        has(realm, streams)
            && callees
                .into_iter()
                .all(|callee| has(callee, if callee == realm { 2 * streams } else { streams }))
    }
}

/// Where the callee of a new call may be.
fn callee_realms(snapshot: &Snapshot, arrival: &Arrival<'_>) -> SmallVec<[RealmId; 4]> {
    let realm_of = |trunk: TrunkId| Some(snapshot.trunk(trunk)?.realm);
    if matches!(arrival.class, Class::Emergency(_)) {
        let token = emergency::decide(snapshot, arrival);
        return token.chain().iter().filter_map(|trunk| realm_of(TrunkId(*trunk))).collect();
    }
    let uri = arrival.invite.request_uri().and_then(Uri::parse);
    let dialled = uri.and_then(|uri| uri.user).unwrap_or_default();
    let route = arrival.trunk.and_then(|from| snapshot.route(from, contact_user(dialled)));
    let settings = route.and_then(|route| snapshot.route_settings(route));
    let trunks = settings.map(|route| route.trunks.as_slice()).unwrap_or_default();
    trunks.iter().filter_map(|trunk| realm_of(*trunk)).collect()
}
