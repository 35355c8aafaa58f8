//! Emergency calls: a type decided once at ingress, and the token that no gate may refuse.
//!
//! An [`EmergencyRoute`] can only be made by [`EmergencyRoute::decide`], from what the classifier
//! of the snapshot says about the Request-URI. Every gate of the engine (admission, table room,
//! media ports, drain, identity, header oddities) takes a [`Passage`]; `Some` is required and
//! sufficient to pass (emergency.md 1, rules 1, 2 and 7). A gate never looks at the call itself.

mod events;
pub mod pidf;
pub(crate) mod sources;
pub(crate) mod walk;

use ravelin_policy::RealmId;
use smallvec::SmallVec;

use crate::{cause::Cause, identity::CallKey};

pub(crate) use events::{
    answered, attempt_failed, attempted, blocked, callback, chain_exhausted, cut_off, decide,
    denied, described, ended, excess, gave_way, location, location_body, psap, restart, started,
    unacknowledged, write_callback,
};

/// An emergency call that found no room, and what it needs (EM-64).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Starved {
    pub key: CallKey,
    /// [`Cause::MediaPortsFull`] or [`Cause::TransactionsFull`].
    pub cause: Cause,
    /// Where the caller and the callee need ports.
    pub realms: [RealmId; 2],
    pub streams: usize,
}

/// What a gate is handed: the token, or nothing for an ordinary call.
pub type Passage<'a> = Option<&'a EmergencyRoute>;

/// The trunks to try, in order, as indices into the snapshot's trunks (EM-50).
pub type Chain = SmallVec<[u16; 8]>;

/// The token: an emergency call, where it comes from and which trunks carry it.
///
/// There is no other constructor than [`Self::decide`], and [`Self::readopt`] for a call that had one
/// before a restart, and no way to copy one: the call owns it.
#[derive(Debug)]
pub struct EmergencyRoute {
    site: Option<u32>,
    chain: Chain,
}

impl EmergencyRoute {
    /// Makes the token. Called in one place, where an initial request enters
    /// ([`crate::engine`]), with the classifier's verdict already `Emergency`.
    pub(crate) fn decide(site: Option<u32>, chain: impl Iterator<Item = u16>) -> Self {
        let mut trunks = Chain::new();
        for trunk in chain {
            if !trunks.contains(&trunk) {
                trunks.push(trunk);
            }
        }
        Self { site, chain: trunks }
    }

    /// The token of a call that had one when the process before this one ended.
    pub(crate) fn readopt(site: Option<u32>, chain: impl Iterator<Item = u16>) -> Self {
        Self::decide(site, chain)
    }

    /// Index of the caller's site in the snapshot, if its packet source belongs to one (EM-22).
    #[must_use]
    pub fn site(&self) -> Option<u32> {
        self.site
    }

    /// The trunks in the order they are tried (EM-50).
    #[must_use]
    pub fn chain(&self) -> &[u16] {
        &self.chain
    }

    /// A token for tests of gates that live in other modules.
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self::decide(None, std::iter::empty())
    }
}
