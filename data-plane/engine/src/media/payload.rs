//! Payload types that differ between the legs of a call (RFC 3264 6.1): each packet gets the number
//! that the receiving party gave the format.

use crate::drops::DropReason;

/// From the payload types of one party to those of the other. There is none: both parties of every
/// call use the same numbers.
#[derive(Debug)]
pub(super) enum PayloadMap {}

impl PayloadMap {
    /// Rewrites a plain RTP packet in place.
    ///
    /// # Errors
    /// Why the other party cannot get it.
    pub(super) fn apply(&mut self, _packet: &mut [u8]) -> Result<(), DropReason> {
        match *self {}
    }
}
