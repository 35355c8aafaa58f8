//! Room for emergency calls (EM-64): they may use everything, and when everything is in use the
//! newest ordinary call gives way; one that nobody has answered yet before one that is talked on.

use std::net::IpAddr;

use super::Engine;
use crate::{
    b2bua::{call::Call, release, starved},
    cause::Cause,
    core::{Turn, ctx},
    emergency::{self, Starved, sources::Standing},
    limits::STREAMS_PER_CALL_MAX,
    media::Side,
    sip::transaction::Room,
};

/// Ordinary calls that one emergency call may cost at a time: one for each pair that it needs.
const VICTIMS_MAX: usize = 2 * STREAMS_PER_CALL_MAX;

impl Engine {
    /// Whether ordinary calls may be ended for an emergency call of `source` (EM-67).
    pub(super) fn may_preempt(&mut self, turn: &Turn<'_>, source: IpAddr) -> bool {
        match self.core.sources.count(turn.now.mono, source) {
            Standing::First => true,
            Standing::Excess { newly } => {
                self.core.counters.emergency_excess += 1;
                if newly {
                    emergency::excess(&mut self.core, turn, source);
                }
                false
            }
        }
    }

    /// Makes room in the transaction tables for an emergency call that has just come.
    pub(super) fn make_transaction_room(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..VICTIMS_MAX {
            if self.core.layer.has_room(Room::Emergency) {
                return;
            }
            let Some(slot) = self.with_transactions() else { return };
            self.give_way(turn, slot, Cause::TransactionsFull);
        }
    }

    /// Gives room to the emergency calls that found none.
    pub(super) fn relieve(&mut self, turn: &mut Turn<'_>) {
        let mut victims = 0;
        let hungry = !self.core.starved.is_empty();
        while let Some(needs) = self.core.starved.pop() {
            let Some(slot) = self.victim(&needs).filter(|_| victims < VICTIMS_MAX) else {
                // Nobody has what is missing: the chain begins again while the caller holds.
                self.with_call(turn, needs.key, |core, call, turn| {
                    if call.end.is_none() {
                        emergency::chain_exhausted(core, call, turn);
                    }
                });
                continue;
            };
            victims += 1;
            self.give_way(turn, slot, needs.cause);
            self.with_call(turn, needs.key, starved::again);
        }
        if hungry {
            // What went out is of several calls, an emergency call among them: kept of none.
            self.current = None;
        }
    }

    /// The call that gives way.
    fn victim(&self, starved: &Starved) -> Option<usize> {
        let hungry =
            usize::try_from(starved.key.slot).ok().and_then(|slot| self.calls.get(slot))?;
        if !hungry.preempts {
            return None;
        }
        if starved.cause == Cause::TransactionsFull {
            return self.with_transactions();
        }
        let [caller, callee] = starved.realms;
        let lacks = |realm| {
            let sides = [caller, callee].iter().filter(|needed| **needed == realm).count();
            self.core.media.drawable(realm) < sides * starved.streams
        };
        let missing = [caller, callee].map(|realm| lacks(realm).then_some(realm));
        self.newest(|call| {
            call.anchor.as_ref().is_some_and(|anchor| {
                let realms = [Side::Caller, Side::Callee].map(|side| anchor.place(side).realm);
                realms.iter().any(|realm| missing.contains(&Some(*realm)))
            })
        })
    }

    /// An answered call soon holds no transaction; its end would only need more.
    fn with_transactions(&self) -> Option<usize> {
        self.newest(|call| call.answer_at.is_none())
    }

    /// The newest ordinary call with what is asked for, an unanswered one first.
    fn newest(&self, has: impl Fn(&Call) -> bool) -> Option<usize> {
        self.calls
            .iter()
            .filter(|(_, call)| !call.is_emergency() && call.end.is_none() && has(call))
            .max_by_key(|(_, call)| {
                (call.answer_at.is_none(), call.started.mono, call.key.generation)
            })
            .map(|(slot, _)| slot)
    }

    fn give_way(&mut self, turn: &mut Turn<'_>, slot: usize, resource: Cause) {
        let Some(key) = self.calls.get(slot).map(|call| call.key) else { return };
        self.with_call(turn, key, |core, call, turn| {
            core.counters.calls_preempted += 1;
            emergency::gave_way(core, call, turn, resource);
            if call.answer_at.is_some() {
                release::hang_up(core, call, turn, None, Cause::Preempted);
            } else {
                release::refuse(core, call, turn, 503, Cause::Preempted, None);
            }
            if resource == Cause::TransactionsFull {
                // Its last words are out; what would repeat them is what is needed.
                core.layer.kill_server(call.server, ctx!(core, turn));
                call.give_up();
            }
        });
    }
}
