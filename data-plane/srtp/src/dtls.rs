//! DTLS-SRTP (RFC 5763, RFC 5764): the handshake that agrees on the master keys of one m-line, with
//! the peer's certificate checked against the fingerprint in SDP.
//!
//! Time is handed in. Ephemeral keys and signature nonces are the one thing in this crate that is
//! drawn from the crypto library's own generator: no caller may choose them.
//!
//! Nothing that is not authenticated may end a handshake that is done or disturb one that goes on
//! (lessons.md 2.22). [`guard`] reads each datagram before the DTLS library does and keeps from it
//! what a peer in this state cannot have sent: hellos that offer nothing we take, hellos of anybody
//! else than the one whose hello was accepted, alerts in the clear.

mod association;
mod cookie;
mod fingerprint;
pub mod guard;
mod identity;
pub mod limits;
mod setup;

pub use association::{Association, Exported, Failure, State};
pub use fingerprint::{Fingerprint, Fingerprints, Hash};
pub use guard::Rejection;
pub use identity::{Identity, IdentityError};
pub use setup::{Role, Setup};
