//! One side of a call goes elsewhere: to a trunk in another realm, whose answer may not be the first.
//! Ports that an attempt was told of stay its own until nobody can answer to them any more: a late
//! answer that wins finds its media where it was told to send it.

use smallvec::SmallVec;

use super::{Anchor, Half, MediaTable, Place, PortsExhausted, Side};
use crate::{
    counters::Counters,
    emergency::Passage,
    media::{Remote, peering::Peering},
    time::Instant,
};

/// The ports of the callee's side in a place that it has left, by stream.
#[derive(Debug)]
pub(super) struct Left {
    place: Place,
    halves: SmallVec<[Half; 1]>,
}

impl MediaTable {
    /// Goes over to ports of the callee's side in another place: the call tries a trunk in another
    /// realm, or one that it has tried before. What was signalled on that side is forgotten. `keep`:
    /// an attempt in the place that is left may still be answered; else its ports rest. All or nothing.
    ///
    /// # Errors
    /// [`PortsExhausted`]; counted.
    pub fn move_callee(
        &mut self,
        now: Instant,
        anchor: &mut Anchor,
        place: Place,
        keep: bool,
        passage: Passage<'_>,
        counters: &mut Counters,
    ) -> Result<(), PortsExhausted> {
        self.sweep(now);
        let known = anchor.left.iter().position(|left| left.place == place);
        let known = known.map(|at| anchor.left.swap_remove(at));
        let before = known.as_ref().map_or(0, |left| left.halves.len());
        let mut drawn: SmallVec<[u32; 2]> = SmallVec::new();
        while before + drawn.len() < anchor.streams.len() {
            let Some(pair) = self.draw(now, place, passage) else {
                for pair in drawn {
                    self.undraw(pair);
                }
                anchor.left.extend(known);
                counters.media_ports_refused += 1;
                return Err(PortsExhausted);
            };
            drawn.push(pair);
        }
        self.hang_up_callee(now, anchor);
        let back = known.iter().flat_map(|left| &left.halves).map(|half| half.pair);
        let pairs: SmallVec<[u32; 2]> = back.chain(drawn).collect();
        let mut left = Left { place: anchor.place(Side::Callee), halves: SmallVec::new() };
        for (stream, pair) in anchor.streams.iter_mut().zip(pairs) {
            left.halves.push(stream.callee);
            self.join(stream.caller.pair, pair);
            stream.callee = self.half(pair);
            stream.talked = false;
        }
        if keep {
            self.left += left.halves.len();
            anchor.left.push(left);
        } else {
            for half in left.halves {
                self.put_to_rest(now, half);
            }
        }
        self.left -= before;
        for stream in &anchor.streams {
            self.tell_fast(stream.caller.pair);
        }
        let [_, callee] = &mut anchor.places;
        *callee = place;
        Ok(())
    }

    /// Nobody is the callee any more: what comes from who was is not let in, and nothing is sent there.
    /// Keys go out of use.
    pub(crate) fn hang_up_callee(&mut self, now: Instant, anchor: &mut Anchor) {
        for index in 0..anchor.streams.len() {
            if self.remote(anchor, Side::Callee, index) == Some(Remote::NONE) {
                continue;
            }
            self.set_peering(anchor, Side::Callee, index, Peering::default());
            self.set_security(anchor, Side::Callee, index, crate::media::Security::None);
            self.set_remote(now, anchor, Side::Callee, index, Remote::NONE);
        }
    }

    /// The call is answered: nobody answers elsewhere.
    pub(crate) fn forget_left(&mut self, now: Instant, anchor: &mut Anchor) {
        for left in std::mem::take(&mut anchor.left) {
            self.rest_left(now, &left);
        }
    }

    pub(super) fn rest_left(&mut self, now: Instant, left: &Left) {
        for half in &left.halves {
            self.put_to_rest(now, *half);
        }
        self.left = self.left.saturating_sub(left.halves.len());
    }
}
