//! One port pair as the end of a stream: what its party signalled, and the hooks that a packet of
//! that party passes.

use std::net::SocketAddr;

use super::{
    dtls::Dtls,
    fast::Told,
    gate::{Gate, Nat},
    hairpin::Hairpin,
    ice::Ice,
    notice::Owner,
    payload::PayloadMap,
    quality::Quality,
    shield::Shield,
};
use crate::{port::MediaPortId, time::Instant};

/// What a party signalled for one stream, and what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where it sends RTP from and receives it; `None` while not known, or for a refused stream.
    pub rtp: Option<SocketAddr>,
    /// The same for RTCP: `a=rtcp`, else the port after RTP's. `None`: no RTCP.
    pub rtcp: Option<SocketAddr>,
    /// RTCP goes to its RTP port: agreed between it and us (RFC 5761 5.1.1).
    pub rtcp_mux: bool,
    /// Its packets go to the other party (its direction is sendrecv or sendonly).
    pub sends: bool,
    /// It gets the other party's packets (sendrecv or recvonly).
    pub receives: bool,
    /// Where its packets may come from.
    pub nat: Nat,
    /// SRTP that passes as it is: contents cannot be checked, headers still are. A stream that we
    /// decrypt has a shield instead.
    pub encrypted: bool,
    /// Not RTP: datagrams of a protocol that we do not look into, on the even port alone.
    pub datagrams: bool,
}

impl Remote {
    /// Nothing is known, nothing passes.
    pub const NONE: Self = Self {
        rtp: None,
        rtcp: None,
        rtcp_mux: false,
        sends: false,
        receives: false,
        nat: Nat::Signalled,
        encrypted: false,
        datagrams: false,
    };
}

impl Default for Remote {
    fn default() -> Self {
        Self::NONE
    }
}

/// Which port of a pair (the word of RFC 8445).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Component {
    /// The even port: RTP, and RTCP of peers that multiplex (RFC 5761).
    Rtp,
    /// The odd port.
    Rtcp,
}

impl Component {
    pub(super) const fn of(port: MediaPortId) -> Self {
        if port.0.is_multiple_of(2) { Self::Rtp } else { Self::Rtcp }
    }

    pub(super) const fn port(self, pair: u32) -> MediaPortId {
        match self {
            Self::Rtp => MediaPortId(pair * 2),
            Self::Rtcp => MediaPortId(pair * 2 + 1),
        }
    }
}

/// What a packet of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Rtp,
    Rtcp,
}

/// One port pair.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// The pair of the same stream towards the other party; [`NO_PAIR`] while unused.
    pub(super) other: u32,
    /// Which use of the pair this is: an `Anchor` of an earlier one changes nothing.
    pub(super) generation: u32,
    pub(super) remote: Remote,
    /// Whose packets are let in.
    pub(super) gate: Gate,
    /// Where the party of the last use was: its last packets come in late.
    former: [Option<SocketAddr>; 2],
    /// Of what came from this party.
    pub(super) quality: Quality,
    /// SRTP between this party and us, both ways.
    pub(super) shield: Option<Box<Shield>>,
    pub(super) ice: Option<Box<Ice>>,
    pub(super) dtls: Option<Box<Dtls>>,
    /// DTLS and SRTP of RTCP that has a port of its own (RFC 5764 4.1.1).
    pub(super) control: Option<Box<Control>>,
    /// The party is a port of ours.
    pub(super) hairpin: Option<Box<Hairpin>>,
    /// From this party's payload types to the other's.
    pub(super) payload: Option<Box<PayloadMap>>,
    /// What the fast path knows.
    pub(super) told: Option<Box<Told>>,
    /// The place of the call whose record tells of the stream.
    pub(super) kept_by: Option<u32>,
    /// Whose call it is.
    pub(super) owner: Option<Owner>,
}

/// An association of its own for RTCP.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) dtls: Dtls,
    pub(super) shield: Shield,
}

pub(super) const NO_PAIR: u32 = u32::MAX;

impl Endpoint {
    pub(super) fn unused() -> Self {
        Self {
            other: NO_PAIR,
            generation: 0,
            remote: Remote::NONE,
            gate: Gate::default(),
            former: [None; 2],
            quality: Quality::default(),
            shield: None,
            ice: None,
            dtls: None,
            control: None,
            hairpin: None,
            payload: None,
            told: None,
            kept_by: None,
            owner: None,
        }
    }

    /// What protects packets of the party on one of its ports.
    pub(super) fn shield_of(&mut self, component: Component) -> Option<&mut Shield> {
        match (&mut self.control, component) {
            (Some(control), Component::Rtcp) => Some(&mut control.shield),
            _ => self.shield.as_deref_mut(),
        }
    }

    /// Begins a new use of the pair.
    pub(super) fn begin(&mut self, other: u32) {
        *self = Self { other, generation: self.generation.wrapping_add(1), ..Self::unused() };
    }

    /// Ends the use; what was counted stays readable until the next begins.
    pub(super) fn end(&mut self) {
        *self = Self {
            generation: self.generation,
            quality: std::mem::take(&mut self.quality),
            told: self.told.take(),
            former: [Component::Rtp, Component::Rtcp].map(|one| self.gate.source(one)),
            ..Self::unused()
        };
    }

    /// Whether the party of the last use was there.
    pub(super) fn knew(&self, source: SocketAddr) -> bool {
        self.former.contains(&Some(source))
    }

    /// Whether its call is an emergency call.
    pub(super) fn serves_emergency(&self) -> bool {
        self.owner.is_some_and(|owner| owner.emergency)
    }

    /// What the party signalled takes effect: a new epoch.
    pub(super) fn apply(&mut self, now: Instant, remote: Remote) {
        let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        self.remote =
            Remote { rtp: remote.rtp.map(canonical), rtcp: remote.rtcp.map(canonical), ..remote };
        let announced = self.announced();
        self.gate.signalled(now, &announced);
    }

    /// Where packets for this party go, and which of our ports they leave from.
    pub(super) fn destination(&self, packet: Packet) -> Option<(Component, SocketAddr)> {
        let component = match packet {
            Packet::Rtcp if !self.remote.rtcp_mux => Component::Rtcp,
            _ => Component::Rtp,
        };
        // RTCP goes on while the media is on hold (RFC 3264 5.1).
        let wanted = self.remote.receives || packet == Packet::Rtcp;
        self.gate.source(component).filter(|_| wanted).map(|to| (component, to))
    }

    /// Whether packets of this party go to the other.
    pub(super) fn may_send(&self, packet: Packet) -> bool {
        self.remote.sends || packet == Packet::Rtcp
    }
}
