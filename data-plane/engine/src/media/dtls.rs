//! DTLS-SRTP with one party (RFC 5764): the handshake on the media port that gives a [`Shield`] its
//! keys.

use super::shield::Shield;
use crate::{drops::DropReason, time::Instant};

/// The DTLS association of one stream with one party. There is none: no stream uses DTLS.
#[derive(Debug)]
pub(super) enum Dtls {}

impl Dtls {
    /// Takes a DTLS datagram from the party's address. `send`: takes each datagram that goes back
    /// there. Gives the shield once the handshake is done and the fingerprint fits.
    ///
    /// # Errors
    /// Why it changed nothing.
    pub(super) fn receive(
        &mut self,
        _now: Instant,
        _datagram: &[u8],
        _send: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<Box<Shield>>, DropReason> {
        match *self {}
    }
}
