//! The end of the process: every call that is still up ends in order, with its records.

use super::Engine;
use crate::{
    b2bua::{leg::Side, release},
    cause::Cause,
    core::Turn,
    emergency,
    port::TxQueue,
    time::Now,
};

impl Engine {
    /// No new ordinary calls from now on; emergency calls go on (EM-68).
    pub fn begin_drain(&mut self) {
        self.core.draining = true;
    }

    /// Calls that have not ended. Those that only wait for the last answers of their parties are
    /// not among them; [`super::Tables::calls`] counts them too.
    #[must_use]
    pub fn live_calls(&self) -> usize {
        self.calls.iter().filter(|(_, call)| call.end.is_none()).count()
    }

    /// Ends calls, at most `most` at a time: BYE to both parties of an answered one; of any other
    /// 503 to the caller and CANCEL to whom it reached. Their records are written. Returns how many
    /// are left. New calls get 503 from now on, emergency calls too: the next node can carry them,
    /// this one cannot any more.
    ///
    /// What follows a BYE or a CANCEL still needs turns: go on with them until
    /// [`super::Tables::calls`] is zero or patience is over.
    pub fn shutdown(&mut self, now: Now, most: usize, out: &mut TxQueue) -> usize {
        self.core.draining = true;
        self.core.stopping = true;
        let up: Vec<usize> = self
            .calls
            .iter()
            .filter(|(_, call)| call.end.is_none())
            .map(|(slot, _)| slot)
            .take(most)
            .collect();
        for slot in up {
            self.contain(now, out, |engine, turn| engine.end_for_stop(turn, slot));
        }
        self.live_calls()
    }

    /// The last turn before the process ends: a BYE that waits for an ACK (RFC 3261 15) goes out
    /// without it, for nobody will be there to send it later.
    pub fn last_words(&mut self, now: Now, out: &mut TxQueue) {
        self.shutdown(now, usize::MAX, out);
        let silent: Vec<usize> = self.calls.iter().map(|(slot, _)| slot).collect();
        for slot in silent {
            self.contain(now, out, |engine, turn| {
                let Some(key) = engine.calls.get(slot).map(|call| call.key) else { return };
                engine.with_call(turn, key, |core, call, turn| {
                    for side in [Side::Caller, Side::Callee] {
                        release::say_goodbye_unheard(core, call, turn, side);
                    }
                });
            });
        }
    }

    fn end_for_stop(&mut self, turn: &mut Turn<'_>, slot: usize) {
        let Some(key) = self.calls.get(slot).map(|call| call.key) else { return };
        self.with_call(turn, key, |core, call, turn| {
            core.counters.calls_stopped += 1;
            if call.is_emergency() {
                emergency::cut_off(core, call, turn);
            }
            if call.answer_at.is_some() {
                release::hang_up(core, call, turn, None, Cause::Stopped);
            } else {
                release::refuse(core, call, turn, 503, Cause::Stopped, None);
            }
        });
    }
}
