//! What a call holds of the media table.

mod survive;
mod way_back;

use std::net::SocketAddr;

use ravelin_contract::cdr::MediaCount;
use ravelin_policy::RealmId;
use ravelin_srtp::Keys;
use smallvec::SmallVec;

use super::{
    MediaTable, PayloadMap, Remote, Security,
    endpoint::{Endpoint, NO_PAIR},
    peering::Peering,
    pool::Draw,
    quality::Formats,
    retired::Retired,
};
use crate::{
    counters::Counters, emergency::Passage, limits::STREAMS_PER_CALL_MAX, port::MediaPortId,
    time::Instant,
};

pub(crate) use survive::{HalfImage, Lost, Places};
use way_back::Left;

/// A party of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Caller,
    Callee,
}

impl Side {
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
        }
    }
}

/// Where one side's ports are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub realm: RealmId,
    /// Whether the party is reached by IPv6. Without a range of that family the realm's other one
    /// is taken.
    pub v6: bool,
}

/// No port pair is free where one is needed, or the call wants too many. Counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortsExhausted;

impl std::fmt::Display for PortsExhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no media port free")
    }
}

impl std::error::Error for PortsExhausted {}

#[derive(Clone, Copy, Debug)]
pub(super) struct Half {
    pub(super) pair: u32,
    pub(super) generation: u32,
    /// What an offer or answer under way asks for.
    staged: Option<Remote>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    caller: Half,
    callee: Half,
    /// Both parties once agreed to send and to receive: what is less than that is hold
    /// (RFC 3264 8.4).
    pub(super) talked: bool,
}

impl Stream {
    pub(super) fn half(&self, side: Side) -> &Half {
        match side {
            Side::Caller => &self.caller,
            Side::Callee => &self.callee,
        }
    }

    fn half_mut(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Caller => &mut self.caller,
            Side::Callee => &mut self.callee,
        }
    }
}

/// From the payload types of one side of a stream to those of the other; `None`: they are the same.
type StagedPayload = (Side, usize, Option<Box<PayloadMap>>);

/// The port pairs of one call, two for each of its media streams. It goes back by
/// [`MediaTable::release`]; the counters of the streams are read before that.
#[derive(Debug)]
#[must_use = "ports come back only through MediaTable::release"]
pub struct Anchor {
    places: [Place; 2],
    pub(super) streams: SmallVec<[Stream; 1]>,
    /// Ports of the callee's side in other places, that an answer may still come to.
    left: Vec<Left>,
    /// What payload types of a party mean, as an offer or answer under way says.
    staged_formats: Vec<(Side, usize, Formats)>,
    /// The protection that an offer or answer under way asks for.
    securities: SmallVec<[(Side, usize, Security); 2]>,
    /// What was in use before.
    retired: Retired,
    /// The payload types that it makes different.
    payload: Vec<StagedPayload>,
    /// The same of ICE and DTLS.
    pub(super) peerings: SmallVec<[(Side, usize, Peering); 0]>,
}

impl Anchor {
    /// Where the ports of `side` were drawn.
    #[must_use]
    pub fn place(&self, side: Side) -> Place {
        let [caller, callee] = self.places;
        match side {
            Side::Caller => caller,
            Side::Callee => callee,
        }
    }

    /// Number of media streams.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Notes what `side` signalled for stream `index`, to take effect with
    /// [`MediaTable::commit`]. An index that does not exist is ignored.
    pub fn stage(&mut self, side: Side, index: usize, remote: Remote) {
        if let Some(stream) = self.streams.get_mut(index) {
            stream.half_mut(side).staged = Some(remote);
        }
    }

    /// Notes what the payload types mean that `side` signalled for stream `index`, to take effect
    /// together with [`Self::stage`].
    pub(crate) fn stage_formats(&mut self, side: Side, index: usize, formats: Formats) {
        self.staged_formats.retain(|(of, at, _)| (*of, *at) != (side, index));
        if index < self.streams.len() {
            self.staged_formats.push((side, index, formats));
        }
    }

    /// What `side` signalled for stream `index` and has not yet taken effect.
    #[must_use]
    pub fn staged(&self, side: Side, index: usize) -> Option<Remote> {
        self.streams.get(index)?.half(side).staged
    }

    /// Notes how stream `index` is protected between `side` and us, to take effect with
    /// [`MediaTable::commit`]. What is not staged stays as it is.
    pub fn stage_security(&mut self, side: Side, index: usize, security: Security) {
        self.securities.retain(|(of, at, _)| (*of, *at) != (side, index));
        if index < self.streams.len() {
            self.securities.push((side, index, security));
        }
    }

    /// The pair of stream `index` towards `side`.
    pub(super) fn pair(&self, side: Side, index: usize) -> Option<u32> {
        Some(self.streams.get(index)?.half(side).pair)
    }

    /// Forgets what was staged: the offer was refused.
    pub fn roll_back(&mut self) {
        self.securities.clear();
        self.peerings.clear();
        for stream in &mut self.streams {
            stream.caller.staged = None;
            stream.callee.staged = None;
        }
        self.payload.clear();
        self.staged_formats.clear();
    }

    /// Forgets what a description of `side` staged: it cannot be used. What the other party has
    /// offered stays.
    pub fn unstage(&mut self, side: Side) {
        self.securities.retain(|(of, ..)| *of != side);
        self.peerings.retain(|(of, ..)| *of != side);
        self.staged_formats.retain(|(of, ..)| *of != side);
        // Numbers follow from an answer, for both directions.
        self.payload.clear();
        for stream in &mut self.streams {
            stream.half_mut(side).staged = None;
        }
    }

    /// From the payload types of `side` to those of the other, with the same effect; `None`: they
    /// are the same.
    pub(crate) fn stage_payload(&mut self, side: Side, index: usize, map: Option<Box<PayloadMap>>) {
        self.payload.retain(|staged| (staged.0, staged.1) != (side, index));
        self.payload.push((side, index, map));
    }
}

impl MediaTable {
    /// Draws ports for `count` streams between a caller and a callee. All or nothing.
    ///
    /// # Errors
    /// [`PortsExhausted`]; counted.
    pub fn allocate(
        &mut self,
        now: Instant,
        caller: Place,
        callee: Place,
        count: usize,
        passage: Passage<'_>,
        counters: &mut Counters,
    ) -> Result<Anchor, PortsExhausted> {
        let mut anchor = Anchor {
            places: [caller, callee],
            streams: SmallVec::new(),
            left: Vec::new(),
            securities: SmallVec::new(),
            retired: Retired::default(),
            payload: Vec::new(),
            staged_formats: Vec::new(),
            peerings: SmallVec::new(),
        };
        self.extend(now, &mut anchor, count, passage, counters)?;
        Ok(anchor)
    }

    /// Draws ports for more streams until the call has `count`. All or nothing.
    ///
    /// # Errors
    /// [`PortsExhausted`]; counted.
    pub fn extend(
        &mut self,
        now: Instant,
        anchor: &mut Anchor,
        count: usize,
        passage: Passage<'_>,
        counters: &mut Counters,
    ) -> Result<(), PortsExhausted> {
        let before = anchor.streams.len();
        let [caller, callee] = anchor.places;
        self.sweep(now);
        let mut enough = count <= STREAMS_PER_CALL_MAX;
        while enough && anchor.streams.len() < count {
            match (self.draw(now, caller, passage), self.draw(now, callee, passage)) {
                (Some(first), Some(second)) => {
                    self.join(first, second);
                    let caller = self.half(first);
                    let callee = self.half(second);
                    anchor.streams.push(Stream { caller, callee, talked: false });
                }
                (first, second) => {
                    for pair in [first, second].into_iter().flatten() {
                        self.undraw(pair);
                    }
                    enough = false;
                }
            }
        }
        if enough {
            return Ok(());
        }
        while anchor.streams.len() > before {
            if let Some(stream) = anchor.streams.pop() {
                for half in [stream.caller, stream.callee] {
                    self.clear(half);
                    self.undraw(half.pair);
                }
                self.streams -= 1;
            }
        }
        counters.media_ports_refused += 1;
        Err(PortsExhausted)
    }

    /// Where `side` was told, or is to be told, to send stream `index`: the address for SDP.
    #[must_use]
    pub fn local(&self, anchor: &Anchor, side: Side, index: usize) -> Option<SocketAddr> {
        let half = anchor.streams.get(index)?.half(side);
        let spec = self.specs.get(half.pair as usize * 2)?;
        let pool = self.pools.iter().find(|pool| pool.contains(half.pair))?;
        Some(SocketAddr::new(pool.advertise(), spec.addr.port()))
    }

    /// Where stream `index` comes in from `side` on this machine: of the version of IP that it can
    /// leave by.
    pub(crate) fn bound(&self, anchor: &Anchor, side: Side, index: usize) -> Option<SocketAddr> {
        let pair = anchor.streams.get(index)?.half(side).pair;
        self.specs.get(pair as usize * 2).map(|spec| spec.addr)
    }

    /// The RTP port of `side` for stream `index`.
    #[must_use]
    pub fn port(&self, anchor: &Anchor, side: Side, index: usize) -> Option<MediaPortId> {
        Some(MediaPortId(anchor.streams.get(index)?.half(side).pair * 2))
    }

    /// Lets what both sides signalled take effect at once: the offer was answered.
    pub fn commit(&mut self, now: Instant, anchor: &mut Anchor) {
        for (side, index, security) in std::mem::take(&mut anchor.securities) {
            self.set_security(anchor, side, index, security);
        }
        for (side, index, peering) in std::mem::take(&mut anchor.peerings) {
            self.set_peering(anchor, side, index, peering);
        }
        for stream in &mut anchor.streams {
            for half in [&mut stream.caller, &mut stream.callee] {
                if let Some(remote) = half.staged.take() {
                    self.apply(now, *half, remote);
                }
                self.settle(half.pair);
            }
        }
        for (side, index, formats) in anchor.staged_formats.drain(..) {
            let half = anchor.streams.get(index).map(|stream| *stream.half(side));
            if let Some(end) = half.and_then(|half| self.end_mut(half)) {
                end.quality.set_formats(formats);
            }
        }
        for (side, index, map) in std::mem::take(&mut anchor.payload) {
            if let Some(endpoint) = self.end_of(anchor, side, index) {
                endpoint.payload = map;
            }
        }
        self.note_talk(anchor);
        for stream in &anchor.streams {
            self.tell_fast(stream.caller.pair);
        }
    }

    /// The endpoint that is `side` of stream `index`, while it is.
    fn end_of(&mut self, anchor: &Anchor, side: Side, index: usize) -> Option<&mut Endpoint> {
        let half = anchor.streams.get(index)?.half(side);
        let endpoint = self.endpoints.get_mut(half.pair as usize)?;
        (endpoint.generation == half.generation && endpoint.other != NO_PAIR).then_some(endpoint)
    }

    /// Sets how stream `index` is protected between `side` and us, at once. Keys that were in use in
    /// this call go on with their counters; new ones begin anew (RFC 4568 7.1.4).
    pub fn set_security(
        &mut self,
        anchor: &mut Anchor,
        side: Side,
        index: usize,
        security: Security,
    ) {
        let Some(stream) = anchor.streams.get(index) else { return };
        let half = *stream.half(side);
        let endpoint = self.endpoints.get_mut(half.pair as usize);
        if let Some(endpoint) = endpoint.filter(|endpoint| endpoint.generation == half.generation) {
            security.install(&mut endpoint.shield, &mut anchor.retired);
        }
        self.tell_fast(half.pair);
    }

    /// Whether what goes to `side` in stream `index` is under these keys now.
    pub(crate) fn seals_with(
        &self,
        anchor: &Anchor,
        side: Side,
        index: usize,
        keys: &Keys,
    ) -> bool {
        let end = anchor.streams.get(index).and_then(|stream| self.end(*stream.half(side)));
        let shield = end.and_then(|end| end.shield.as_ref());
        shield.is_some_and(|shield| shield.seals_with(keys))
    }

    /// Sets what `side` signalled for stream `index`, at once.
    pub fn set_remote(
        &mut self,
        now: Instant,
        anchor: &Anchor,
        side: Side,
        index: usize,
        remote: Remote,
    ) {
        if let Some(stream) = anchor.streams.get(index) {
            self.apply(now, *stream.half(side), remote);
            self.tell_fast(stream.half(side).pair);
        }
    }

    /// What is in effect for `side` of stream `index`.
    #[must_use]
    pub fn remote(&self, anchor: &Anchor, side: Side, index: usize) -> Option<Remote> {
        let half = anchor.streams.get(index)?.half(side);
        let endpoint = self.endpoints.get(half.pair as usize)?;
        (endpoint.generation == half.generation).then_some(endpoint.remote)
    }

    /// What came from `side`, over all streams.
    #[must_use]
    pub fn count(&self, anchor: &Anchor, side: Side) -> MediaCount {
        let mut total = MediaCount::default();
        for stream in &anchor.streams {
            let half = stream.half(side);
            let Some(endpoint) = self.endpoints.get(half.pair as usize) else { continue };
            if endpoint.generation == half.generation {
                total.packets += endpoint.quality.packets;
                total.bytes += endpoint.quality.bytes;
                total.rtcp_packets += endpoint.quality.rtcp_packets;
                total.dropped += endpoint.quality.dropped;
            }
        }
        total
    }

    /// When the last packet from `side` came, over all streams.
    #[must_use]
    pub fn last_packet(&self, anchor: &Anchor, side: Side) -> Option<Instant> {
        let halves = anchor.streams.iter().map(|stream| stream.half(side));
        halves
            .filter_map(|half| self.endpoints.get(half.pair as usize))
            .filter_map(|endpoint| endpoint.quality.last_packet)
            .max()
    }

    /// Takes the ports back; they rest before they are drawn again.
    pub fn release(&mut self, now: Instant, anchor: Anchor) {
        self.rest(now, &anchor);
        drop(anchor);
    }

    /// As [`Self::release`]; what was counted may still be asked for, until the ports are drawn again.
    pub(crate) fn rest(&mut self, now: Instant, anchor: &Anchor) {
        for stream in &anchor.streams {
            self.put_to_rest(now, stream.caller);
            self.put_to_rest(now, stream.callee);
            self.streams = self.streams.saturating_sub(1);
        }
        for left in &anchor.left {
            self.rest_left(now, left);
        }
    }

    fn draw(&mut self, now: Instant, place: Place, passage: Passage<'_>) -> Option<u32> {
        let by = Draw::new(now, &self.limits, passage.is_some());
        let Self { pools, draws, .. } = self;
        let mut draw = |v6: bool| {
            pools
                .iter_mut()
                .filter(|pool| pool.realm() == place.realm && pool.is_v6() == v6)
                .find_map(|pool| pool.draw(by, draws))
        };
        draw(place.v6).or_else(|| draw(!place.v6))
    }

    fn undraw(&mut self, pair: u32) {
        if let Some(pool) = self.pool_of_pair(pair) {
            pool.undraw(pair);
        }
    }

    /// Makes two pairs the ends of one stream. One that is an end already keeps its state.
    fn join(&mut self, first: u32, second: u32) {
        let mut fresh = 0;
        for (pair, other) in [(first, second), (second, first)] {
            let Some(endpoint) = self.endpoints.get_mut(pair as usize) else { continue };
            if endpoint.other == NO_PAIR {
                endpoint.begin(other);
                fresh += 1;
            }
            endpoint.other = other;
        }
        if fresh == 2 {
            self.streams += 1;
        }
    }

    fn half(&self, pair: u32) -> Half {
        let generation = self.endpoints.get(pair as usize).map_or(0, |end| end.generation);
        Half { pair, generation, staged: None }
    }

    /// The end that a half is, while it is.
    pub(super) fn end(&self, half: Half) -> Option<&Endpoint> {
        let end = self.endpoints.get(half.pair as usize)?;
        (end.generation == half.generation).then_some(end)
    }

    pub(super) fn end_mut(&mut self, half: Half) -> Option<&mut Endpoint> {
        let end = self.endpoints.get_mut(half.pair as usize)?;
        (end.generation == half.generation).then_some(end)
    }

    fn apply(&mut self, now: Instant, half: Half, remote: Remote) {
        let Some(endpoint) = self.endpoints.get_mut(half.pair as usize) else { return };
        if endpoint.generation == half.generation && endpoint.other != NO_PAIR {
            endpoint.apply(now, remote);
            self.note_hairpin(half.pair);
        }
    }

    /// True if the half was the current use of its pair.
    fn clear(&mut self, half: Half) -> bool {
        let Some(endpoint) = self.endpoints.get_mut(half.pair as usize) else { return false };
        let current = endpoint.generation == half.generation && endpoint.other != NO_PAIR;
        if current {
            let failed = endpoint.ice.as_ref().is_some_and(|ice| ice.has_failed());
            self.notices.totals.ice_failed += u64::from(failed);
            endpoint.end();
            self.let_go(half.pair);
        }
        current
    }

    fn put_to_rest(&mut self, now: Instant, half: Half) {
        let until = now + self.limits.media_quarantine;
        if self.clear(half)
            && let Some(pool) = self.pool_of_pair(half.pair)
        {
            pool.rest(half.pair, until);
        }
    }
}
