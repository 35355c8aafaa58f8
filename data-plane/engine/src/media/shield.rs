//! SRTP between one party and us (RFC 3711): what comes from the party is opened, what goes to it is
//! sealed. A stream without a shield is plain, or SRTP that passes from end to end as it is.

use super::endpoint::Packet;
use crate::drops::DropReason;

/// The keys of one party's stream, both ways. There are none: no stream has a shield.
#[derive(Debug)]
pub(super) enum Shield {}

impl Shield {
    /// Authenticates and decrypts the packet that is `arena[start..]`, in place; it becomes shorter.
    /// Nothing has been learnt from the packet before this. On failure the caller forgets it.
    ///
    /// # Errors
    /// Why it is not a packet of the party.
    pub(super) fn open(
        &mut self,
        _packet: Packet,
        _arena: &mut Vec<u8>,
        _start: usize,
    ) -> Result<(), DropReason> {
        match *self {}
    }

    /// Encrypts and authenticates the packet that is `arena[start..]`, in place; it becomes longer.
    /// On failure the caller forgets it.
    ///
    /// # Errors
    /// Why it cannot go out.
    pub(super) fn seal(
        &mut self,
        _packet: Packet,
        _arena: &mut Vec<u8>,
        _start: usize,
    ) -> Result<(), DropReason> {
        match *self {}
    }
}
