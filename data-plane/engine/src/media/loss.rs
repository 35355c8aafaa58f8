//! Parties that nothing can pass to or from any more: DTLS came to nothing, or consent has ended.
//!
//! One line of several that fails ends nothing: only when none is left that carries media, or may
//! yet, has the party lost its media. A line that is refused counts for nothing; one that is on hold
//! counts while it lives, and ends nothing when it does not: who is held need not renew its consent
//! (RFC 7675 5.1 asks it of who sends), and may shake hands when the hold ends.

use ravelin_srtp::dtls::{Failure, State};

use super::{Anchor, MediaTable, Side, anchor::Stream, dtls::Dtls};
use crate::time::Instant;

/// Why nothing can pass between a party and us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// There are no keys (RFC 5763): the handshake failed, or was not begun in its time.
    Handshake,
    /// The party no longer consents to be sent anything (RFC 7675).
    Consent,
}

impl MediaTable {
    /// The call is answered, or an offer in it: what has no keys, and who has withdrawn its consent,
    /// has its full time from now on. A handshake that the party did not answer in time begins anew.
    pub(crate) fn expect_media(&mut self, now: Instant, anchor: &Anchor) {
        for stream in &anchor.streams {
            for half in [*stream.half(Side::Caller), *stream.half(Side::Callee)] {
                let identity = self.handshakes.identity().cloned();
                let Some(end) = self.end_mut(half) else { continue };
                let keyed = end.shield.as_ref().is_some_and(|shield| shield.is_keyed());
                if let Some(dtls) = &mut end.dtls {
                    if dtls.state() == State::Failed(Failure::Timeout)
                        && let Some(identity) = &identity
                    {
                        **dtls = Dtls::new(dtls.terms().clone(), identity);
                    }
                    dtls.expect(now, keyed);
                }
                if let Some(ice) = &mut end.ice {
                    ice.expect(now);
                }
                self.settle(half.pair);
            }
        }
    }

    /// Why `side` has lost its media, and the first line of which this is so. `None`: it has some, may
    /// yet have, or needs none now.
    pub(crate) fn loss(&self, anchor: &Anchor, side: Side) -> Option<(u8, Loss)> {
        let mut found = None;
        for (index, stream) in (0..).zip(&anchor.streams) {
            if !self.is_taken(stream) {
                continue;
            }
            let loss = self.loss_of(stream, side)?;
            let sends = self.flows(stream, side);
            let carries = sends || self.flows(stream, side.other());
            let held = !carries || stream.talked && !(sends && self.flows(stream, side.other()));
            if !held {
                found.get_or_insert((index, loss));
            }
        }
        found
    }

    /// Why nothing can pass in this line.
    fn loss_of(&self, stream: &Stream, side: Side) -> Option<Loss> {
        let end = self.end(*stream.half(side))?;
        if end.dtls.as_ref().is_some_and(|dtls| dtls.is_lost()) {
            return Some(Loss::Handshake);
        }
        // Who sends nothing need not ask whether it may.
        let lost = end.ice.as_ref().is_some_and(|ice| ice.is_lost());
        (lost && self.flows(stream, side)).then_some(Loss::Consent)
    }
}
