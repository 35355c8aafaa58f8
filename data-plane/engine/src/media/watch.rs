//! What an operator and a watchdog want to know of the streams of a call.

use std::time::Duration;

use ravelin_contract::cdr::{Party, StreamQuality};

use super::{Anchor, MediaTable, Remote, Side, anchor::Stream, quality::Quality};
use crate::time::Instant;

/// The fast path's counts of a packet are here this long after it came.
const FAST_COUNTS_WITHIN: Duration = Duration::from_millis(2_500);

impl Side {
    /// As records name it.
    #[must_use]
    pub const fn party(self) -> Party {
        match self {
            Self::Caller => Party::Caller,
            Self::Callee => Party::Callee,
        }
    }
}

/// What a stream of one party counts for in the histograms of its trunk. Times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Score {
    /// Mean opinion score in hundredths.
    pub mos: Option<u16>,
    pub jitter: Option<u64>,
    pub round_trip: Option<u64>,
    pub expected: u64,
    pub lost: u64,
    pub dtmf_events: u32,
}

impl MediaTable {
    /// The quality of every stream of a call: what the caller sent, then what the callee sent.
    #[must_use]
    pub fn qualities(&self, anchor: &Anchor) -> Vec<StreamQuality> {
        let mut out = Vec::with_capacity(anchor.streams.len() * 2);
        for (index, stream) in anchor.streams.iter().enumerate() {
            let index = u8::try_from(index).unwrap_or(u8::MAX);
            for side in [Side::Caller, Side::Callee] {
                if let Some((own, other)) = self.both(stream, side) {
                    out.push(own.report(index, side.party(), other));
                }
            }
        }
        out
    }

    /// The scores of the streams that `side` sent anything in.
    pub(crate) fn scores(&self, anchor: &Anchor, side: Side) -> impl Iterator<Item = Score> {
        let both = anchor.streams.iter().filter_map(move |stream| self.both(stream, side));
        both.filter(|(own, _)| own.has_come()).map(|(own, other)| {
            let (expected, lost) = own.expected_and_lost();
            Score {
                mos: own.mos(other),
                jitter: own.jitter_ns(),
                round_trip: own.round_trip_ns(),
                expected,
                lost,
                dtmf_events: own.dtmf_events(),
            }
        })
    }

    fn both(&self, stream: &Stream, side: Side) -> Option<(&Quality, &Quality)> {
        let own = self.end(*stream.half(side))?;
        let other = self.end(*stream.half(side.other()))?;
        Some((&own.quality, &other.quality))
    }

    /// Notes which streams both parties have agreed to send and receive.
    pub(super) fn note_talk(&self, anchor: &mut Anchor) {
        for stream in &mut anchor.streams {
            stream.talked |= self.flows(stream, Side::Caller) && self.flows(stream, Side::Callee);
        }
    }

    /// Packets of `side` in this stream go to the other party, as both have agreed.
    pub(super) fn flows(&self, stream: &Stream, side: Side) -> bool {
        let remote =
            |side: Side| self.end(*stream.half(side)).map_or(Remote::NONE, |end| end.remote);
        let (own, other) = (remote(side), remote(side.other()));
        own.sends && other.receives && self.is_taken(stream)
    }

    /// Neither party has refused the stream. With ICE no address need be known before the checks.
    pub(super) fn is_taken(&self, stream: &Stream) -> bool {
        [Side::Caller, Side::Callee].into_iter().all(|side| {
            let end = self.end(*stream.half(side)).filter(|end| end.remote != Remote::NONE);
            end.is_some_and(|end| end.remote.rtp.is_some() || end.ice.is_some())
        })
    }

    /// Whether packets of `side` are to be expected. Not in a stream that was refused, that flows
    /// the other way alone, or that is on hold: hold is what is less than sendrecv, once it was
    /// that, whichever way it is spelled (RFC 3264 8.4, and the unspecified address of RFC 2543).
    /// Who holds may play music or may be silent, who is held may be either; nothing is owed.
    #[must_use]
    pub fn owes(&self, anchor: &Anchor, side: Side) -> bool {
        anchor.streams.iter().any(|stream| {
            let held = stream.talked && !self.flows(stream, side.other());
            self.flows(stream, side) && !held
        })
    }

    /// Packets of the call go out without being seen here.
    pub(crate) fn is_forwarded(&self, anchor: &Anchor) -> bool {
        let mut halves = anchor
            .streams
            .iter()
            .flat_map(|stream| [Side::Caller, Side::Callee].map(|side| stream.half(side)));
        halves.any(|half| {
            let told = self.end(*half).and_then(|end| end.told.as_ref());
            told.is_some_and(|told| told.forwards())
        })
    }

    /// How much later than a packet comes it may be known here that it came: the fast path tells of
    /// those that it forwards about once a second.
    pub(crate) fn heard_late_by(&self, anchor: &Anchor, side: Side) -> Duration {
        let mut ends = anchor.streams.iter().filter_map(|stream| self.end(*stream.half(side)));
        let forwarded = ends.any(|end| end.told.as_ref().is_some_and(|told| told.forwards()));
        if forwarded { FAST_COUNTS_WITHIN } else { Duration::ZERO }
    }

    /// Counts that `side` was silent for too long in the streams in which it owes packets.
    pub(crate) fn note_silence(&mut self, anchor: &Anchor, side: Side, since: Instant) {
        for stream in &anchor.streams {
            if !self.flows(stream, side) {
                continue;
            }
            if let Some(end) = self.end_mut(*stream.half(side))
                && end.quality.last_packet.is_none_or(|last| last <= since)
            {
                end.quality.timeouts = end.quality.timeouts.saturating_add(1);
            }
        }
    }
}
