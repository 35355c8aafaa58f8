//! Streams whose parties are ports of ours: a proxy that sends a call back to us without a part in its
//! media passes our own description on, and the packets of two calls meet here. That is legitimate,
//! and so is a call in the middle of three, with a port of ours at either end. But four descriptions
//! may as well name each other in a ring. Then every packet in it goes round until an offer ends it,
//! as fast as the machine can, and nobody outside has to send anything.
//!
//! A ring consists of streams with our ports at both ends and of no others. Such a stream carries at
//! most [`HAIRPIN_PACKETS_PER_SECOND`] in each direction, many times what a call has and a fraction
//! of what a ring makes in a second. What is beyond it is dropped, and everything else of that
//! direction for [`HAIRPIN_REST`]: so a ring is empty when the rest is over.

use std::{net::SocketAddr, time::Duration};

use ravelin_policy::MediaRange;

use super::{
    MediaTable, Remote,
    endpoint::{Endpoint, NO_PAIR},
    gate::Nat,
};
use crate::{
    drops::DropReason,
    limits::{HAIRPIN_PACKETS_PER_SECOND, HAIRPIN_REST},
    time::Instant,
};

/// What came from a party that is a port of ours.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hairpin {
    /// Packets since then, for a second.
    since: Instant,
    packets: u32,
    /// Nothing passes before.
    rests_until: Option<Instant>,
}

impl Hairpin {
    fn count(&mut self, now: Instant) -> Result<(), DropReason> {
        if self.rests_until.is_some_and(|end| now < end) {
            return Err(DropReason::MediaLoop);
        }
        if now.since(self.since) >= Duration::from_secs(1) {
            (self.since, self.packets) = (now, 0);
        }
        self.packets += 1;
        if self.packets > HAIRPIN_PACKETS_PER_SECOND {
            *self = Self { rests_until: Some(now + HAIRPIN_REST), ..Self::default() };
            return Err(DropReason::MediaLoop);
        }
        Ok(())
    }
}

/// Whether a packet of the party of `from` may be one that comes round.
///
/// # Errors
/// [`DropReason::MediaLoop`].
pub(super) fn count(from: &mut Endpoint, to: &Endpoint, now: Instant) -> Result<(), DropReason> {
    match &mut from.hairpin {
        Some(hairpin) if to.hairpin.is_some() => hairpin.count(now),
        _ => Ok(()),
    }
}

/// Ports of ours, those of other shards too.
#[derive(Debug)]
pub(super) struct Own(Vec<MediaRange>);

impl Own {
    pub(super) fn new(ranges: &[MediaRange]) -> Self {
        Self(ranges.to_vec())
    }

    /// Whether a party that signalled this may be one of our ports.
    fn includes(&self, remote: &Remote) -> bool {
        let host = |range: &MediaRange, host| [range.address, range.advertise].contains(&host);
        let port = |at: SocketAddr| {
            let mut ranges = self.0.iter();
            ranges.any(|range| {
                host(range, at.ip()) && (range.first_port..=range.last_port).contains(&at.port())
            })
        };
        let told = [remote.rtp, remote.rtcp].into_iter().flatten();
        match remote.nat {
            Nat::Signalled => told.into_iter().any(port),
            // It is looked for at every port of these hosts.
            Nat::Latch { near } => {
                let mut hosts = told.map(|at| at.ip()).chain([near]);
                hosts.any(|at| self.0.iter().any(|range| host(range, at.to_canonical())))
            }
        }
    }
}

impl MediaTable {
    /// Notes whether the party at a pair is a port of ours.
    pub(super) fn note_hairpin(&mut self, pair: u32) {
        let Some(endpoint) = self.endpoints.get_mut(pair as usize) else { return };
        let inside = endpoint.other != NO_PAIR && self.own.includes(&endpoint.remote);
        match (inside, &endpoint.hairpin) {
            (true, None) => endpoint.hairpin = Some(Box::default()),
            (false, Some(_)) => endpoint.hairpin = None,
            _ => {}
        }
    }
}
