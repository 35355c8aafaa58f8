//! Finding a party that is behind a NAT, and nobody else.
//!
//! Without a key, a packet proves nothing about its sender, so the search is bounded on every side:
//!
//! * in space: only the host that the party's signalling comes from, or one that its SDP names, and
//!   nobody who sprayed closed ports;
//! * in time: for [`LATCH_WINDOW`] after an offer or answer took effect, and only until the source in
//!   force is heard;
//! * in packets: [`LATCH_PACKETS`] of one SSRC in sequence, as slowly as a voice stream sends them,
//!   decide; of all that come before, [`LATCH_UNPROVEN_MAX`] pass, counted over the whole stream;
//! * nobody wins while a rival as good as he is sends too;
//! * a source of an earlier epoch is a stray in the next one, unless the party signals again what it
//!   signalled then (lessons.md 1.4).

use std::net::{IpAddr, SocketAddr};

use super::{closed::Sprayers, gate::Heard};
use crate::{
    drops::DropReason,
    limits::{
        LATCH_CANDIDATES, LATCH_PACKETS, LATCH_PAST, LATCH_RIVAL, LATCH_SEQUENCE_STEP_MAX,
        LATCH_SPAN, LATCH_UNPROVEN_MAX, LATCH_WINDOW,
    },
    time::Instant,
};

/// What a candidate has shown so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Not enough yet; the packet passes on credit.
    Wanting,
    /// The source is the party's.
    Given,
}

/// A source that may be the party's.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    source: SocketAddr,
    ssrc: u32,
    /// Of its last packet.
    sequence: u16,
    /// Packets in sequence, and when the first and the last of them came.
    packets: u32,
    first: Instant,
    last: Instant,
}

/// What was learnt in an epoch.
#[derive(Clone, Copy, Debug)]
struct Past {
    /// What the party had signalled; `None`: that means nothing any more.
    signalled: Option<SocketAddr>,
    source: SocketAddr,
}

#[derive(Debug, Default)]
pub(super) struct Latch {
    near: Option<IpAddr>,
    signalled: Option<SocketAddr>,
    /// End of the search.
    until: Instant,
    /// Nobody has been found yet.
    open: bool,
    /// Packets that passed on credit since the stream began.
    spent: u32,
    /// SSRC of the party when it was last heard.
    ssrc: Option<u32>,
    candidates: [Option<Candidate>; LATCH_CANDIDATES],
    past: [Option<Past>; LATCH_PAST],
    /// Where the next entry of `past` goes.
    next_past: usize,
}

impl Latch {
    /// A new epoch. Gives the address where the party was when it last signalled this.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        near: IpAddr,
        signalled: Option<SocketAddr>,
    ) -> Option<SocketAddr> {
        let near = near.to_canonical();
        if self.near != Some(near) {
            // The party itself has moved: it is not where it was, whatever its SDP says.
            for past in self.past.iter_mut().flatten() {
                past.signalled = None;
            }
        }
        self.near = Some(near);
        self.signalled = signalled;
        self.until = now + LATCH_WINDOW;
        self.open = signalled.is_some();
        self.candidates = [None; LATCH_CANDIDATES];
        let known = |past: &&Past| signalled.is_some() && past.signalled == signalled;
        self.past.iter().flatten().find(known).map(|past| past.source)
    }

    /// May `from` be the party? `sealed`: a packet of somebody else will not be authentic.
    pub(super) fn admits(&self, now: Instant, from: SocketAddr, sealed: bool) -> bool {
        if now >= self.until {
            return false;
        }
        if self.signalled == Some(from) {
            return true;
        }
        let host = Some(from.ip());
        let near = sealed || self.near == host || self.signalled.map(|addr| addr.ip()) == host;
        self.open && near && !self.is_stray(from)
    }

    /// Takes notice of an RTP packet of a source that is admitted.
    ///
    /// # Errors
    /// [`DropReason::MediaSprayer`], [`DropReason::MediaUnproven`]
    pub(super) fn hear(&mut self, heard: &Heard, sprayers: &Sprayers) -> Result<Proof, DropReason> {
        if heard.authentic {
            self.close(heard.source, heard.ssrc);
            return Ok(Proof::Given);
        }
        let candidate = self.candidate(heard, sprayers)?;
        if candidate.packets >= LATCH_PACKETS
            && candidate.last.since(candidate.first) >= LATCH_SPAN
            && !self.has_rival(&candidate)
        {
            self.close(heard.source, heard.ssrc);
            return Ok(Proof::Given);
        }
        if self.spent >= LATCH_UNPROVEN_MAX {
            return Err(DropReason::MediaUnproven);
        }
        self.spent += 1;
        Ok(Proof::Wanting)
    }

    pub(super) fn is_closed(&self) -> bool {
        !self.open
    }

    /// The party is found at `source`: the search is over for this epoch.
    pub(super) fn close(&mut self, source: SocketAddr, ssrc: u32) {
        self.open = false;
        self.ssrc = Some(ssrc);
        self.candidates = [None; LATCH_CANDIDATES];
        let signalled = self.signalled;
        if let Some(past) = self.past.iter_mut().flatten().find(|past| past.signalled == signalled)
        {
            past.source = source;
            return;
        }
        if let Some(slot) = self.past.get_mut(self.next_past) {
            *slot = Some(Past { signalled, source });
        }
        self.next_past = (self.next_past + 1) % LATCH_PAST;
    }

    /// The candidate that sent the packet, the packet counted in.
    fn candidate(&mut self, heard: &Heard, sprayers: &Sprayers) -> Result<Candidate, DropReason> {
        let fresh = Candidate {
            source: heard.source,
            ssrc: heard.ssrc,
            sequence: heard.sequence,
            packets: 1,
            first: heard.now,
            last: heard.now,
        };
        let known = self.candidates.iter_mut().flatten().find(|one| one.source == heard.source);
        if let Some(known) = known {
            let step = heard.sequence.wrapping_sub(known.sequence);
            if known.ssrc != heard.ssrc || step > LATCH_SEQUENCE_STEP_MAX {
                *known = fresh;
            } else if step > 0 {
                known.packets = known.packets.saturating_add(1);
                known.sequence = heard.sequence;
                known.last = heard.now;
            }
            return Ok(*known);
        }
        if self.signalled != Some(heard.source)
            && sprayers.sprayed(heard.now, heard.source, heard.pair)
        {
            return Err(DropReason::MediaSprayer);
        }
        // Whoever has shown least makes room.
        let least = self
            .candidates
            .iter_mut()
            .min_by_key(|slot| slot.map_or((0, Instant::default()), |one| (one.packets, one.last)));
        if let Some(slot) = least {
            *slot = Some(fresh);
        }
        Ok(fresh)
    }

    /// Whether another source that is at least as likely sends too.
    fn has_rival(&self, candidate: &Candidate) -> bool {
        self.candidates.iter().flatten().any(|other| {
            other.source != candidate.source
                && other.packets > 1
                && candidate.last.since(other.last) < LATCH_RIVAL
                && self.likeness(other) >= self.likeness(candidate)
        })
    }

    /// What speaks for a candidate, beyond that it sends: the very address of the SDP, the SSRC that
    /// the party had before, the port of the SDP, which many NATs keep.
    fn likeness(&self, candidate: &Candidate) -> (bool, bool, bool) {
        (
            self.signalled == Some(candidate.source),
            self.ssrc == Some(candidate.ssrc),
            self.signalled.map(|addr| addr.port()) == Some(candidate.source.port()),
        )
    }

    /// Whether the party was here when it signalled something else, and only then.
    fn is_stray(&self, from: SocketAddr) -> bool {
        let mut here = self.past.iter().flatten().filter(|past| past.source == from).peekable();
        here.peek().is_some() && here.all(|past| past.signalled != self.signalled)
    }
}
