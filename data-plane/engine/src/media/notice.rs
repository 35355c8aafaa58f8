//! What an operator should hear of a stream while its call goes on: that the keys of its SRTP come to
//! their end, that its DTLS handshake failed or was not begun, that its party no longer consents.
//!
//! A stream knows its call by a key that the call gave it; what is noticed waits here until the
//! engine looks, which is in the same turn. Each thing is told once for each set of keys,
//! association or pair, so that no party makes more of them than it has offers answered.

use std::time::Duration;

use ravelin_srtp::dtls::Failure;

use super::{Anchor, MediaTable, Side};
use crate::identity::CallKey;

/// Notices that wait; further ones are counted alone. The engine takes them in the turn.
const NOTICES_MAX: usize = 1_024;
/// Of the packets that a master key may protect, the part that is left when its end is announced:
/// one in this many.
pub(super) const KEY_WARNING_PART: u64 = 10;
/// How long a party of 50 packets a second has from a warning to the end of a key of 2^20.
const _: () = assert!((1 << 20) / KEY_WARNING_PART / 50 > Duration::from_secs(1_800).as_secs());

/// Whose call a stream is, and what it is in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    call: CallKey,
    side: Side,
    stream: u8,
    pub(super) emergency: bool,
}

/// What was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A tenth is left of what the master key may protect. `ours`: the one that we send under.
    KeyEnding { ours: bool },
    /// Nothing is left: packets are dropped from now on (`srtp_key_spent`).
    KeySpent { ours: bool },
    /// There will be no keys.
    HandshakeFailed(Failure),
    /// No handshake was begun in its time. It may yet be.
    HandshakeLate,
    /// The party's checks have ended, or have not come again in their time: it gets nothing until
    /// they do.
    ConsentLost,
}

/// A notice and what it is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noticed {
    pub(crate) call: CallKey,
    pub(crate) side: Side,
    pub(crate) stream: u8,
    pub(crate) what: Notice,
}

/// Totals of things that happen to streams a few times at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Pairs that a party nominated, one after another of the same stream too.
    pub ice_nominated: u64,
    /// Streams with ICE that ended without any nominated pair.
    pub ice_failed: u64,
    /// Parties whose checks ended.
    pub ice_consent_lost: u64,
    /// Master keys of SRTP near their end, and at it.
    pub keys_ending: u64,
    pub keys_spent: u64,
}

#[derive(Debug, Default)]
pub(super) struct Notices {
    waiting: Vec<Noticed>,
    pub(super) totals: Totals,
}

impl Notices {
    pub(super) fn add(&mut self, owner: Option<Owner>, what: Notice) {
        match what {
            Notice::KeyEnding { .. } => self.totals.keys_ending += 1,
            Notice::KeySpent { .. } => self.totals.keys_spent += 1,
            Notice::ConsentLost => self.totals.ice_consent_lost += 1,
            // Counted by outcome where it ends.
            Notice::HandshakeFailed(_) | Notice::HandshakeLate => {}
        }
        if let Some(Owner { call, side, stream, emergency: _ }) = owner
            && self.waiting.len() < NOTICES_MAX
        {
            self.waiting.push(Noticed { call, side, stream, what });
        }
    }
}

impl MediaTable {
    /// The streams of `anchor` are those of this call.
    pub(crate) fn own(&mut self, anchor: &Anchor, call: CallKey, emergency: bool) {
        for (stream, halves) in (0..).zip(&anchor.streams) {
            for side in [Side::Caller, Side::Callee] {
                if let Some(end) = self.end_mut(*halves.half(side)) {
                    end.owner = Some(Owner { call, side, stream, emergency });
                }
            }
        }
    }

    /// Whether [`Self::take_notices`] has something.
    #[inline]
    pub(crate) fn has_notices(&self) -> bool {
        !self.notices.waiting.is_empty()
    }

    pub(crate) fn take_notices(&mut self) -> Vec<Noticed> {
        std::mem::take(&mut self.notices.waiting)
    }

    /// Totals since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.notices.totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_that_wait_are_bounded_and_all_are_counted() {
        let owner = Owner {
            call: CallKey { slot: 1, generation: 1 },
            side: Side::Caller,
            stream: 0,
            emergency: false,
        };
        let mut notices = Notices::default();
        for _ in 0..NOTICES_MAX + 5 {
            notices.add(Some(owner), Notice::ConsentLost);
        }
        assert_eq!(notices.waiting.len(), NOTICES_MAX);
        assert_eq!(notices.totals.ice_consent_lost, NOTICES_MAX as u64 + 5);
    }
}
