//! A call: both legs, the attempts to reach the callee, and everything that must end with it.

use std::{hash::BuildHasher, net::SocketAddr, sync::Arc};

use foldhash::fast::FixedState;
use ravelin_contract::cdr::Party;
use ravelin_policy::{Class, RealmId, RouteId, SiteMatch, TrunkId};
use ravelin_wire::sip::{Framing, Message};
use smallvec::SmallVec;

use super::{
    capture::Capture,
    dialog::{PeerTag, replace_tag},
    ladder::{Peer, Steps},
    leg::{Goodbye, Leg, Relay, Side},
    sdp::Oddities,
    silence::Silence,
};
use crate::{
    admission::Permit,
    cause::Cause,
    checkpoint::Survival,
    core::Core,
    counters::MethodLabel,
    emergency::{EmergencyRoute, walk::Progress},
    identity::CallKey,
    ids::{Handle, TagText},
    loadout::Loadout,
    media::{Anchor, Place},
    route::{Plan, Way},
    sip::transaction::{ClientKey, ServerKey, TuKey},
    time::{Instant, Now},
    timer::TimerId,
};

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The caller's Identity is being verified.
    Verifying,
    /// A callee is being looked for; the caller has seen nothing but 100.
    Routing,
    /// The caller has seen an 18x.
    Ringing,
    Answered,
    /// Released; transactions have to end.
    Ending,
}

/// What an attempt to reach the callee has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptState {
    /// The INVITE waits for its signature.
    Signing,
    /// The INVITE is out.
    Calling,
    /// Given up by us: cancelled, or about to be when a provisional comes.
    Abandoned,
    /// Refused, timed out, not deliverable.
    Failed,
    Answered,
}

/// One outgoing INVITE, to one target of one trunk.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// 1.. in the order tried.
    pub number: u16,
    pub way: Way,
    pub trunk: TrunkId,
    pub target: SocketAddr,
    pub leg: Leg,
    pub state: AttemptState,
    pub progress: Progress,
    /// The INVITE transaction while it exists.
    pub client: Option<ClientKey>,
    pub permit: Option<Permit>,
    pub timer: TimerId,
    pub started: Instant,
    pub ring_at: Option<Instant>,
    pub answer_at: Option<Instant>,
    pub end_at: Option<Instant>,
    /// Final status, or 0.
    pub status: u16,
    pub cause: Cause,
    /// Attestation signed, or why none.
    pub identity_out: &'static str,
    pub attestation_rule: Option<&'static str>,
}

impl Attempt {
    /// Its INVITE may still be answered.
    pub(crate) fn is_open(&self) -> bool {
        matches!(
            self.state,
            AttemptState::Signing | AttemptState::Calling | AttemptState::Abandoned
        ) && (self.client.is_some() || self.state == AttemptState::Signing)
    }
}

/// A branch of a fork whose description the caller has seen: to the caller it is a dialog of its own
/// (RFC 3261 12.1, 13.2.1).
#[derive(Debug)]
pub(crate) struct Fork {
    /// See [`branch_of`].
    pub branch: u64,
    /// The tag of ours that it was shown under.
    pub own: TagText,
    /// Its last response with a description, as received.
    pub said: Vec<u8>,
}

/// Tells branch `tag` of attempt `number` from the other branches of the call.
pub(crate) fn branch_of(number: u16, tag: &[u8]) -> u64 {
    FixedState::with_seed(0).hash_one((number, tag))
}

/// How and why a call ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub at: Instant,
    pub by: Party,
    pub cause: Cause,
    /// Final status toward the caller; 200 for an answered call.
    pub status: u16,
}

/// What a call was admitted with.
#[derive(Debug, Default)]
pub(crate) struct Permits {
    pub node: Option<Permit>,
    pub trunk: Option<Permit>,
}

/// Timers of a call.
#[derive(Debug)]
pub(crate) struct CallTimers {
    pub ring: TimerId,
    pub max_duration: TimerId,
    pub restart: TimerId,
    pub silence: TimerId,
    pub failure: TimerId,
    pub linger: TimerId,
}

/// The caller's INVITE while it has no final response.
#[derive(Debug)]
pub(crate) struct PendingInvite {
    pub server: ServerKey,
    /// As received: attempts are written from it.
    pub request: Vec<u8>,
    /// What responses repeat of it.
    pub head: Vec<u8>,
    /// Its Record-Route lines.
    pub routes: Vec<u8>,
    /// Max-Forwards of what we send.
    pub max_forwards: u8,
}

impl PendingInvite {
    /// The INVITE, read again. It was read before, so it can be.
    pub(crate) fn message(&self) -> Option<Message<'_>> {
        Message::parse(&self.request, Framing::Datagram).ok()
    }

    pub(crate) fn give_back(self, core: &mut Core) {
        for buffer in [self.request, self.head, self.routes] {
            core.pool.give(buffer);
        }
    }
}

/// A call.
#[derive(Debug)]
pub(crate) struct Call {
    pub key: CallKey,
    /// See [`call_id_text`].
    pub id: [u8; CALL_ID_LEN],
    pub started: Now,
    pub loadout: Arc<Loadout>,
    pub phase: Phase,
    pub class: Class,
    pub emergency: Option<EmergencyRoute>,
    /// Ordinary calls may be ended for it (EM-64, EM-67).
    pub preempts: bool,
    /// Identity value made for the attempt that is about to leave, of an emergency call.
    pub emergency_identity: Vec<u8>,
    pub location: Option<SiteMatch>,
    pub source: SocketAddr,
    pub inbound: Option<TrunkId>,
    /// Of the node, and of the caller's trunk.
    pub permits: Permits,
    pub route: Option<RouteId>,
    /// Calling party (URI) and Request-URI as received, for records.
    pub from: SmallVec<[u8; 64]>,
    pub to: SmallVec<[u8; 64]>,
    pub identity_in: Option<&'static str>,
    /// What a trunk that asks for it is told of the verification (ST-63). `None`: nothing.
    pub verstat: Option<&'static str>,
    /// Value of a Reason header that reports a failed verification that the call survived (ST-61).
    pub stir_reason: Option<&'static str>,
    /// The INVITE had an offer.
    pub early_offer: bool,
    /// What the caller is told if no way is left.
    pub last_failure: (u16, Cause),

    pub caller: Leg,
    /// The caller's INVITE transaction, as long as it may exist.
    pub server: ServerKey,
    pub pending: Option<PendingInvite>,
    pub plan: Plan,
    pub attempts: SmallVec<[Attempt; 1]>,
    /// Index of the attempt that was answered.
    pub winner: Option<usize>,
    pub anchor: Option<Anchor>,
    pub relays: SmallVec<[Relay; 1]>,
    /// Branches of forks whose description the caller has seen.
    pub forks: SmallVec<[Fork; 1]>,
    /// Of these, the one whose media is in force.
    pub heard: Option<u64>,
    /// Tags of answers of other branches of a fork, which were hung up.
    pub turned_down: Vec<PeerTag>,
    pub timers: CallTimers,
    /// Whether the parties still send.
    pub silence: Silence,
    pub ring_at: Option<Instant>,
    pub answer_at: Option<Instant>,
    pub end: Option<End>,
    pub steps: Steps,
    /// Its messages, if they are kept.
    pub capture: Option<Box<Capture>>,
    /// Its time to linger is over.
    pub given_up: bool,
    /// Way of an emergency call whose target refused encryption: it is offered plain RTP.
    pub plain_way: Option<(TrunkId, u16)>,
    /// What was done to the descriptions of caller and callee of an emergency call.
    pub oddities: [Oddities; 2],
    /// What a restart would need of it.
    pub survival: Survival,
}

/// Branches of forks that the caller is shown as dialogs of their own. Further ones share the last.
const FORKS_MAX: usize = 8;
/// Branches of a fork that are remembered as hung up. A further one gets its BYE with each of its
/// answers.
pub(crate) const TURNED_DOWN_MAX: usize = 16;

/// Octets of a call's id.
pub(crate) const CALL_ID_LEN: usize = 32;

/// Ravelin's own id of a call, unique over nodes and restarts: milliseconds of its start, shard,
/// slot, 40 unforeseeable bits, in hexadecimal.
pub(crate) fn call_id_text(unix_ms: u64, handle: Handle) -> [u8; CALL_ID_LEN] {
    let mut text = [0; CALL_ID_LEN];
    let (time, rest) = text.split_at_mut(12);
    let (shard, rest) = rest.split_at_mut(2);
    let (slot, nonce) = rest.split_at_mut(8);
    crate::ids::hex(unix_ms, time);
    crate::ids::hex(u64::from(handle.shard.0), shard);
    crate::ids::hex(u64::from(handle.slot), slot);
    crate::ids::hex(handle.nonce, nonce);
    text
}

impl Call {
    /// Owner of the call's transactions.
    pub(crate) fn tu(&self) -> TuKey {
        tu_of(self.key)
    }

    pub(crate) fn id_text(&self) -> String {
        crate::records::text(&self.id)
    }

    /// The attempt whose callee the caller talks to: the one that was answered, before that the last
    /// one that rings.
    pub(crate) fn callee(&self) -> Option<usize> {
        let rings = |attempt: &Attempt| {
            attempt.state == AttemptState::Calling && !attempt.leg.dialog.remote_tag.is_empty()
        };
        self.winner.or_else(|| self.attempts.iter().rposition(rings))
    }

    /// The leg of `side`: the callee has one once an attempt rings.
    pub(crate) fn leg(&self, side: Side) -> Option<&Leg> {
        match side {
            Side::Caller => Some(&self.caller),
            Side::Callee => {
                self.callee().and_then(|at| self.attempts.get(at)).map(|attempt| &attempt.leg)
            }
        }
    }

    pub(crate) fn leg_mut(&mut self, side: Side) -> Option<&mut Leg> {
        match side {
            Side::Caller => Some(&mut self.caller),
            Side::Callee => {
                self.callee().and_then(|at| self.attempts.get_mut(at)).map(|found| &mut found.leg)
            }
        }
    }

    /// The leg that a request inside a dialog belongs to, by the tag that is ours.
    pub(crate) fn side_of(&self, local_tag: &[u8]) -> Option<Side> {
        if self.caller.dialog.local_tag == local_tag {
            return Some(Side::Caller);
        }
        self.leg(Side::Callee).filter(|leg| leg.dialog.local_tag == local_tag).map(|_| Side::Callee)
    }

    /// Sees to it that the caller hears a response of attempt `number` and its branch `tag` in the
    /// dialog that is that branch's. `described`: the response has a session description; until one
    /// was seen, all branches may share a dialog.
    pub(crate) fn show_branch(
        &mut self,
        core: &mut Core,
        number: u16,
        tag: &[u8],
        described: bool,
    ) {
        let branch = branch_of(number, tag);
        let current = self.caller.dialog.local_tag;
        let known = self.forks.iter().find(|fork| fork.branch == branch).map(|fork| fork.own);
        let own = match known {
            Some(own) => own,
            None if !described || self.forks.len() >= FORKS_MAX => return,
            None if self.forks.is_empty() => current,
            None => core.layer.identifiers().handle(self.key.slot).tag(),
        };
        if known.is_none() {
            self.forks.push(Fork { branch, own, said: Vec::new() });
        }
        if own != current {
            if let Some(pending) = &mut self.pending {
                replace_tag(&mut pending.head, &current, &own);
            }
            self.caller.dialog.set_local_tag(own);
        }
    }

    /// The media that a response of attempt `number` describes is in force now, and comes back if that
    /// branch is the one that answers.
    pub(crate) fn heard_branch(&mut self, core: &mut Core, number: u16, message: &Message<'_>) {
        let branch = branch_of(number, message.to().tag().unwrap_or_default());
        self.heard = Some(branch);
        if let Some(fork) = self.forks.iter_mut().find(|fork| fork.branch == branch) {
            let before = std::mem::replace(&mut fork.said, core.pool.copy(message.raw()));
            core.pool.give(before);
        }
    }

    /// The call is answered, or over: what its branches said is not needed any more.
    pub(crate) fn forget_branches(&mut self, core: &mut Core) {
        for fork in std::mem::take(&mut self.forks) {
            core.pool.give(fork.said);
        }
    }

    /// Where the two sides get their media ports, the callee's for attempt `index`.
    pub(crate) fn places(&self, core: &Core, index: usize) -> [Place; 2] {
        let of = |leg: &Leg| {
            let listener = core.listener(leg.listener);
            Place {
                realm: listener.map_or(RealmId(u16::MAX), |own| own.realm),
                v6: listener.is_some_and(|own| own.bind.is_ipv6()),
            }
        };
        let callee = self.attempts.get(index).map_or(&self.caller, |attempt| &attempt.leg);
        [of(&self.caller), of(callee)]
    }

    /// The trunk that `side` is behind.
    pub(crate) fn trunk(&self, side: Side) -> Option<TrunkId> {
        match side {
            Side::Caller => self.inbound,
            Side::Callee => self.callee().and_then(|at| self.attempts.get(at)).map(|at| at.trunk),
        }
    }

    pub(crate) fn attempt_of(&self, client: ClientKey) -> Option<usize> {
        self.attempts.iter().position(|attempt| attempt.client == Some(client))
    }

    /// Who a message of `side` is from or to, for the ladder.
    pub(crate) fn peer(&self, side: Side) -> Peer {
        match side {
            Side::Caller => Peer::Caller,
            Side::Callee => Peer::Callee(
                self.callee().and_then(|at| self.attempts.get(at)).map_or(0, |found| found.number),
            ),
        }
    }

    /// Notes a message for the ladder. `code` 0: a request.
    pub(crate) fn note(
        &mut self,
        now: Instant,
        peer: Peer,
        inbound: bool,
        method: MethodLabel,
        code: u16,
    ) {
        self.steps.note(now.since(self.started.mono), peer, inbound, method, code);
    }

    pub(crate) fn note_received(&mut self, now: Instant, peer: Peer, message: &Message<'_>) {
        let method = MethodLabel::of(message.cseq().method.as_bytes());
        self.note(now, peer, true, method, message.code().unwrap_or(0));
    }

    pub(crate) fn is_emergency(&self) -> bool {
        self.emergency.is_some()
    }

    /// The BYE of this transaction has its answer, or will never have one.
    pub(crate) fn goodbye_said(&mut self, client: ClientKey) {
        let legs = self.attempts.iter_mut().map(|attempt| &mut attempt.leg);
        for leg in legs.chain(std::iter::once(&mut self.caller)) {
            if leg.goodbye == Goodbye::Sent(client) {
                leg.goodbye = Goodbye::Done;
            }
        }
    }

    /// Waits for nothing any more.
    pub(crate) fn give_up(&mut self) {
        self.given_up = true;
    }

    /// Nothing is left that could concern the call.
    pub(crate) fn is_over(&self) -> bool {
        if self.given_up {
            return true;
        }
        let said = |goodbye: Goodbye| matches!(goodbye, Goodbye::No | Goodbye::Done);
        self.phase == Phase::Ending
            && self.pending.is_none()
            && self.relays.is_empty()
            && said(self.caller.goodbye)
            && self.attempts.iter().all(|attempt| !attempt.is_open() && said(attempt.leg.goodbye))
    }
}

/// Bits 63 and 62 mark owners that are no calls.
pub(crate) const GENERATION_MASK: u32 = 0x3fff_ffff;

pub(crate) fn tu_of(key: CallKey) -> TuKey {
    TuKey(u64::from(key.generation & GENERATION_MASK) << 32 | u64::from(key.slot))
}

/// The call that an event of a transaction is for; `None`: the prober's, a message's, or
/// nobody's.
pub(crate) fn call_of(owner: TuKey) -> Option<CallKey> {
    if owner.0 >> 62 != 0 {
        return None;
    }
    Some(CallKey {
        slot: u32::try_from(owner.0 & 0xffff_ffff).ok()?,
        generation: u32::try_from(owner.0 >> 32).ok()?,
    })
}
