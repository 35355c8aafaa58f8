//! Whose packet is it: the source gate of one party's stream (lessons.md 1.3, 1.4, 2.20, 2.21).
//!
//! A packet is let in when it comes from exactly the address in force: the one that its party
//! signalled, or one that was learnt, by an authenticated connectivity check or, where the trunk
//! allows it, by latching (`latch.rs`). Every offer or answer that takes effect begins a new epoch.
//! Nothing but sound RTP, authenticated where the stream is SRTP, teaches the gate anything.

use std::net::{IpAddr, SocketAddr};

use ravelin_wire::rtp;

use super::{
    closed::Sprayers,
    endpoint::{Component, Remote},
    latch::{Latch, Proof},
};
use crate::{drops::DropReason, limits::STEADY_PACKETS, time::Instant};

/// Where a party's packets may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nat {
    /// Only from the addresses that its SDP names.
    #[default]
    Signalled,
    /// It may be behind a NAT of which its SDP does not know. `near`: where its signalling comes
    /// from.
    Latch { near: IpAddr },
}

/// How the source of a packet stands to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is the party's.
    Party,
    /// It may turn out to be; its packets are looked at.
    Candidate,
}

/// What an RTP packet taught the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learnt {
    Nothing,
    /// The party sends steadily, under an SSRC that is new in this epoch.
    Steady,
    /// Its source is from now on where the party is.
    Latched,
}

/// An RTP packet with a sound header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) now: Instant,
    /// The pair that it came in on.
    pub(super) pair: u32,
    pub(super) source: SocketAddr,
    pub(super) ssrc: u32,
    pub(super) sequence: u16,
    /// Its SRTP tag was verified: nobody but the party made it.
    pub(super) authentic: bool,
}

impl Heard {
    pub(super) fn new(
        now: Instant,
        pair: u32,
        source: SocketAddr,
        header: &rtp::Header<'_>,
        authentic: bool,
    ) -> Self {
        Self { now, pair, source, ssrc: header.ssrc, sequence: header.sequence, authentic }
    }
}

/// Where the packets of one party come from, and where those for it go.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// In force. `None`: nothing is let in.
    rtp: Option<SocketAddr>,
    rtcp: Option<SocketAddr>,
    /// What SDP named.
    signalled: Option<SocketAddr>,
    signalled_rtcp: Option<SocketAddr>,
    /// SSRC of the party's last RTP packet, and how many of it came in a row in this epoch.
    ssrc: u32,
    run: u32,
    /// The SSRC that the party sends steadily in this epoch.
    steady: Option<u32>,
    /// Offers and answers that have taken effect.
    epoch: u32,
    /// `rtp` was nominated by ICE.
    nominated: bool,
    /// Only where the trunk allows it.
    latch: Option<Box<Latch>>,
}

impl Gate {
    /// An offer or answer takes effect.
    pub(super) fn signalled(&mut self, now: Instant, remote: &Remote) {
        let same = remote.rtp.is_some() && remote.rtp == self.signalled;
        self.epoch = self.epoch.wrapping_add(1);
        self.run = 0;
        self.steady = None;
        self.signalled = remote.rtp;
        self.signalled_rtcp = remote.rtcp;
        if self.nominated && same {
            // What ICE has decided holds until ICE decides otherwise.
            return;
        }
        self.nominated = false;
        let learnt = match remote.nat {
            Nat::Signalled => {
                self.latch = None;
                None
            }
            Nat::Latch { near } => self.latch.get_or_insert_default().begin(now, near, remote.rtp),
        };
        match learnt {
            Some(source) => self.move_to(source),
            None => (self.rtp, self.rtcp) = (remote.rtp, remote.rtcp),
        }
    }

    /// The party has shown by an authenticated connectivity check where it is (RFC 8445 8.1.1).
    pub(super) fn nominated(&mut self, component: Component, source: SocketAddr) {
        self.nominated = true;
        self.latch = None;
        (self.run, self.steady) = (0, None);
        match component {
            Component::Rtp => self.rtp = Some(source),
            Component::Rtcp => self.rtcp = Some(source),
        }
    }

    /// Where the party is reached.
    pub(super) fn source(&self, component: Component) -> Option<SocketAddr> {
        match component {
            Component::Rtp => self.rtp,
            Component::Rtcp => self.rtcp,
        }
    }

    /// May a packet of this source be looked at? Changes nothing. `sealed`: the stream is SRTP that
    /// we authenticate before [`Self::learn`].
    ///
    /// # Errors
    /// [`DropReason::MediaNoPeer`] while the party has no address, [`DropReason::MediaSource`] for a
    /// source that is not the party's and cannot be.
    pub(super) fn check(
        &self,
        now: Instant,
        component: Component,
        from: SocketAddr,
        sealed: bool,
    ) -> Result<Admission, DropReason> {
        let Some(source) = self.source(component) else { return Err(DropReason::MediaNoPeer) };
        if source == from {
            return Ok(Admission::Party);
        }
        match &self.latch {
            Some(latch) if component == Component::Rtp && latch.admits(now, from, sealed) => {
                Ok(Admission::Candidate)
            }
            _ => Err(DropReason::MediaSource),
        }
    }

    /// See [`super::MediaTable::read_ahead`].
    pub(super) fn read_ahead(&self) -> u64 {
        u64::from(self.rtp.is_some()) ^ u64::from(self.ssrc) ^ u64::from(self.latch.is_some())
    }

    /// Takes notice of an RTP packet that passed [`Self::check`].
    ///
    /// # Errors
    /// Why it goes no further: [`DropReason::MediaUnproven`], [`DropReason::MediaSprayer`].
    pub(super) fn learn(
        &mut self,
        admission: Admission,
        heard: &Heard,
        sprayers: &Sprayers,
    ) -> Result<Learnt, DropReason> {
        if admission == Admission::Candidate {
            let Some(latch) = &mut self.latch else { return Err(DropReason::MediaSource) };
            if latch.hear(heard, sprayers)? == Proof::Wanting {
                return Ok(Learnt::Nothing);
            }
            self.move_to(heard.source);
            (self.ssrc, self.run, self.steady) = (heard.ssrc, 1, None);
            return Ok(Learnt::Latched);
        }
        if self.run == 0
            && let Some(latch) = &mut self.latch
        {
            latch.close(heard.source, heard.ssrc);
        }
        if self.ssrc == heard.ssrc {
            self.run = self.run.saturating_add(1);
        } else {
            (self.ssrc, self.run) = (heard.ssrc, 1);
        }
        if self.run == STEADY_PACKETS && self.steady != Some(heard.ssrc) {
            self.steady = Some(heard.ssrc);
            return Ok(Learnt::Steady);
        }
        Ok(Learnt::Nothing)
    }

    /// Where the party sends from, and under which SSRC, once it does so steadily in this epoch.
    pub(super) fn steady(&self) -> Option<(SocketAddr, u32)> {
        self.rtp.zip(self.steady)
    }

    /// As it was in the process before: where the party sends from, under which SSRC, and that it does
    /// so steadily.
    pub(super) fn resume(&mut self, ssrc: u32) {
        (self.ssrc, self.run, self.steady) = (ssrc, STEADY_PACKETS, Some(ssrc));
        if let (Some(latch), Some(source)) = (&mut self.latch, self.rtp) {
            latch.close(source, ssrc);
        }
    }

    /// Whether what comes for the party goes to where it is, as far as that can be known.
    pub(super) fn is_certain(&self) -> bool {
        self.latch.as_ref().is_none_or(|latch| latch.is_closed())
    }

    /// The party is at `source`. Its RTCP comes from where it said, if that is the same host, else
    /// from the next port up (RFC 3550 11).
    pub(super) fn move_to(&mut self, source: SocketAddr) {
        self.rtp = Some(source);
        self.rtcp = if self.signalled == Some(source) {
            self.signalled_rtcp
        } else {
            let next = source.port().checked_add(1).map(|port| SocketAddr::new(source.ip(), port));
            self.signalled_rtcp
                .and_then(|rtcp| if rtcp.ip() == source.ip() { Some(rtcp) } else { next })
        };
    }
}
