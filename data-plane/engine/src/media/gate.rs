//! Whose packet is it: the source gate of one party's stream (lessons.md 1.3, 1.4, 2.20, 2.21).
//!
//! A packet is looked at when it comes from exactly the address that its party signalled. Every
//! offer or answer begins a new epoch: what held before it holds no longer.

use std::net::SocketAddr;

use ravelin_wire::rtp;

use super::endpoint::{Component, Remote};
use crate::{drops::DropReason, time::Instant};

/// Where the packets of one party come from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gate {
    /// Offers and answers that have taken effect.
    epoch: u32,
    rtp: Option<SocketAddr>,
    rtcp: Option<SocketAddr>,
}

impl Gate {
    /// An offer or answer takes effect.
    pub(super) fn signalled(&mut self, remote: &Remote) {
        *self = Self { epoch: self.epoch.wrapping_add(1), rtp: remote.rtp, rtcp: remote.rtcp };
    }

    /// The party has shown by an authenticated connectivity check where it is (RFC 8445 8.1.1).
    pub(super) fn nominated(&mut self, component: Component, source: SocketAddr) {
        match component {
            Component::Rtp => self.rtp = Some(source),
            Component::Rtcp => self.rtcp = Some(source),
        }
    }

    /// Where the party is reached, and the only place its packets come from.
    pub(super) fn source(&self, component: Component) -> Option<SocketAddr> {
        match component {
            Component::Rtp => self.rtp,
            Component::Rtcp => self.rtcp,
        }
    }

    /// May this source be looked at? Changes nothing.
    ///
    /// # Errors
    /// [`DropReason::MediaNoPeer`] while no source is known, [`DropReason::MediaSource`] for
    /// another than that.
    pub(super) fn check(&self, component: Component, from: SocketAddr) -> Result<(), DropReason> {
        match self.source(component) {
            Some(source) if source == from => Ok(()),
            Some(_) => Err(DropReason::MediaSource),
            None => Err(DropReason::MediaNoPeer),
        }
    }

    /// Takes notice of an RTP packet that passed [`Self::check`] and is what it claims to be: its
    /// header is sound and, with SRTP, its tag was verified.
    ///
    /// # Errors
    /// Why it goes no further.
    #[allow(clippy::unused_self)] // the gate of a signalled source learns nothing
    pub(super) fn learn(
        &mut self,
        _now: Instant,
        _from: SocketAddr,
        _header: &rtp::Header<'_>,
    ) -> Result<(), DropReason> {
        Ok(())
    }
}
