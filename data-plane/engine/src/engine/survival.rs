//! Calls that outlive the process: their records go out, and come in at the next start.

use slab::Slab;

use super::Engine;
use crate::{
    b2bua::{call::Call, outcome},
    checkpoint::{
        Adoption, COUNTERS_EVERY, COUNTERS_PER_TURN, Change, Kept, NotAdopted, Restored, Scribe,
        Written, is_worth_keeping, packets_now, restore, take_up,
    },
    core::{Core, Turn},
    port::{MediaPortId, TxQueue},
    sip::transaction::ServerKey,
    time::{Instant, Now},
};

/// What the engine knows of records and their calls.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Somebody takes records.
    on: bool,
    /// Slots of calls to be looked at, each once.
    marked: Vec<u32>,
    /// Slots whose record is of no use any more.
    gone: Vec<u32>,
    scribe: Scribe,
    /// Where the round over all counters stands, and when the next one begins.
    round: usize,
    next_round: Instant,
}

impl Records {
    /// A call was worked on.
    pub(super) fn touched(&mut self, call: &mut Call) {
        if self.on && call.answer_at.is_some() && !call.survival.marked {
            call.survival.marked = true;
            self.marked.push(call.key.slot);
        }
    }

    /// A call is no more.
    pub(super) fn removed(&mut self, call: &Call) {
        if self.on && call.survival.stored {
            self.gone.push(call.key.slot);
        }
    }
}

impl Engine {
    /// From now on records of confirmed calls are made. Who asks for it takes them with
    /// [`Self::checkpoints`] in each turn.
    pub fn begin_checkpoints(&mut self) {
        self.survivors.on = true;
    }

    /// Whether [`Self::checkpoints`] has anything to hand out that has to do with what was just
    /// done.
    #[must_use]
    pub fn has_checkpoints(&self) -> bool {
        !self.survivors.marked.is_empty()
            || !self.survivors.gone.is_empty()
            || self.core.media.has_changed()
    }

    /// Records are where others could read them: none that holds a key is made, and calls with SRTP
    /// or ICE do not outlive the process.
    pub fn keep_no_keys(&mut self) {
        self.core.media.keep_no_keys();
    }

    /// Hands out what has changed since the last time. To be called before what the engine wants
    /// sent is sent: no peer knows more of a call than its record.
    pub fn checkpoints(&mut self, now: Now, sink: &mut dyn FnMut(Change<'_>)) {
        let Self { core, calls, survivors, .. } = self;
        if !survivors.on {
            return;
        }
        survivors.look_at_counters(core, calls, now.mono);
        for slot in core.media.take_changed() {
            let found = usize::try_from(slot).ok().and_then(|slot| calls.get_mut(slot));
            if let Some(call) = found {
                survivors.touched(call);
            }
        }
        for slot in survivors.gone.drain(..) {
            sink(Change::Remove { slot });
        }
        for slot in survivors.marked.drain(..) {
            let found = usize::try_from(slot).ok().and_then(|slot| calls.get_mut(slot));
            let Some(call) = found.filter(|call| call.survival.marked) else { continue };
            call.survival.marked = false;
            match survivors.scribe.write(core, call, now) {
                Written::Record => {
                    core.counters.checkpoints += 1;
                    let (sequence, bytes) = (call.survival.sequence, survivors.scribe.record());
                    sink(Change::Put { slot, sequence, bytes });
                    if let Some(anchor) = &call.anchor {
                        core.media.kept(anchor, Some(slot));
                    }
                }
                Written::Same => {}
                Written::TooLong | Written::None => {
                    let worth = is_worth_keeping(call);
                    if worth && !call.survival.too_long {
                        call.survival.too_long = true;
                        core.counters.checkpoints_too_long += 1;
                    }
                    if let Some(anchor) = &call.anchor {
                        core.media.kept(anchor, None);
                    }
                    if std::mem::take(&mut call.survival.stored) {
                        sink(Change::Remove { slot });
                    }
                }
            }
        }
    }

    /// Takes over the calls of the process before. To be called once, before anything is received
    /// and before the media ports are opened: those that [`Self::is_media_port_held`] tells of are
    /// the first to open. The next [`Self::checkpoints`] hands out a record of each call that is
    /// left, whatever there was before.
    pub fn adopt(&mut self, now: Now, kept: &[Kept<'_>], out: &mut TxQueue) -> Adoption {
        let mut adoption = Adoption::default();
        self.contain(now, out, |engine, turn| {
            adoption = engine.adopt_all(turn, kept);
        });
        adoption
    }

    fn adopt_all(&mut self, turn: &mut Turn<'_>, kept: &[Kept<'_>]) -> Adoption {
        let mut adoption = Adoption::default();
        let places = self.core.media.places();
        let mut taken = vec![false; self.core.limits.calls as usize];
        let (mut stay, mut move_over) = (Vec::with_capacity(kept.len()), Vec::new());
        for one in kept {
            self.generation = self.generation.wrapping_add(1);
            let generation = self.generation & crate::b2bua::call::GENERATION_MASK;
            let mut restored =
                match restore(&mut self.core, one, generation, &places, turn.now.mono) {
                    Ok(restored) => restored,
                    Err(refused) => {
                        *adoption.unreadable.entry(refused.label()).or_default() += 1;
                        self.core.counters.checkpoints_unreadable += 1;
                        continue;
                    }
                };
            let slot = usize::try_from(restored.call.key.slot).unwrap_or(usize::MAX);
            match taken.get_mut(slot).filter(|taken| !**taken) {
                Some(taken) if restored.lost.is_none() => {
                    *taken = true;
                    stay.push((slot, restored));
                }
                _ => {
                    restored.lost = restored.lost.or(Some(NotAdopted::Slot));
                    move_over.push(restored);
                }
            }
        }
        // Those that only end may be in any place: nobody asks for them by it.
        let free = (0..).filter(|slot| !taken.get(*slot).copied().unwrap_or(false));
        let ends: Vec<_> = free.zip(move_over).collect();
        self.calls = stay
            .into_iter()
            .chain(ends)
            .map(|(slot, restored)| (slot, self.settle(turn, slot, restored, &mut adoption)))
            .collect::<Vec<_>>()
            .into_iter()
            .collect::<Slab<_>>();
        adoption
    }

    /// Lets a call of the process before go on, or ends it.
    fn settle(
        &mut self,
        turn: &mut Turn<'_>,
        slot: usize,
        mut restored: Restored,
        adoption: &mut Adoption,
    ) -> Box<Call> {
        let core = &mut self.core;
        restored.call.key.slot = u32::try_from(slot).unwrap_or(u32::MAX);
        if restored.call.end.is_some() {
            adoption.finishing += 1;
        } else if let Some(lost) = restored.lost {
            *adoption.ended.entry(lost.label()).or_default() += 1;
            core.counters.calls_not_adopted += 1;
            restored.call.permits = Default::default();
            for attempt in &mut restored.call.attempts {
                attempt.permit = None;
            }
            if let Some(anchor) = restored.call.anchor.take() {
                core.media.release(turn.now.mono, anchor);
            }
        } else {
            adoption.adopted += 1;
            adoption.emergency += usize::from(restored.call.is_emergency());
            core.counters.calls_adopted += 1;
        }
        take_up(core, turn, &mut restored);
        let mut call = restored.call;
        self.survivors.touched(&mut call);
        call
    }

    /// Whether a call holds a media port: after [`Self::adopt`], those to open first.
    #[must_use]
    pub fn is_media_port_held(&self, port: MediaPortId) -> bool {
        self.core.media.is_held(port)
    }

    /// A call that was taken over has waited long enough for ACKs.
    pub(super) fn unacknowledged(core: &mut Core, call: &mut Call, turn: &mut Turn<'_>) {
        for _ in 0..2 {
            outcome::ack_timeout(core, call, turn, ServerKey::NONE);
        }
    }
}

impl Records {
    /// A few calls in each turn: those whose counters moved get a new record, each at most once in
    /// [`COUNTERS_EVERY`].
    fn look_at_counters(&mut self, core: &Core, calls: &mut Slab<Box<Call>>, now: Instant) {
        if now < self.next_round {
            return;
        }
        let end = self.round.saturating_add(COUNTERS_PER_TURN);
        for slot in self.round..end {
            let Some(call) = calls.get_mut(slot).filter(|call| call.survival.stored) else {
                continue;
            };
            if call.end.is_none() && packets_now(core, call) != call.survival.packets {
                self.touched(call);
            }
        }
        self.round = end;
        // The slots of a slab lie close together, and none beyond its capacity.
        if end >= calls.capacity() {
            self.round = 0;
            self.next_round = now + COUNTERS_EVERY;
        }
    }
}
