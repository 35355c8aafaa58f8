//! ICE-lite towards one party (RFC 8445 2.5): connectivity checks are answered, the pair that the
//! party nominates becomes the one that media passes on.

use std::net::SocketAddr;

use super::endpoint::Component;
use crate::{drops::DropReason, time::Instant};

/// The ICE agent of one stream towards one party. There is none: no stream uses ICE.
#[derive(Debug)]
pub(super) enum Ice {}

impl Ice {
    /// Takes a STUN message that came to a port of the stream, from anywhere. Appends the answer to
    /// `reply`; it goes back to `source` from the same port, also when an error is returned. Gives
    /// the address where this component's packets come from and go to from now on, when the check
    /// nominates it.
    ///
    /// # Errors
    /// Why it changed nothing.
    pub(super) fn receive(
        &mut self,
        _now: Instant,
        _component: Component,
        _source: SocketAddr,
        _message: &[u8],
        _reply: &mut Vec<u8>,
    ) -> Result<Option<SocketAddr>, DropReason> {
        match *self {}
    }
}
