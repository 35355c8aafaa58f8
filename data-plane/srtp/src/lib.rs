//! SRTP and SRTCP (RFC 3711, RFC 6188, RFC 7714) and their keys, as pure functions of what is handed
//! in: this crate opens no socket, file or thread, reads no clock and draws no randomness (seeds are
//! handed in; only [`dtls`] has its ephemeral keys from the crypto library), keeps no key beyond the value that owns it, and decides no policy.
//!
//! [`open::Opener`] authenticates and decrypts what one party sends, [`seal::Sealer`] protects what is
//! sent to it; each holds one direction of one m-line. [`keys`] holds master keys, [`sdes`] reads and
//! writes them as `a=crypto` (RFC 4568), [`dtls`] agrees on them with the peer (RFC 5764).
//! `record` tells of them in a call record that outlives the process. [`integrity`] signs STUN. Nothing here is learnt from a packet whose tag does not
//! verify, and no packet index is ever used twice under a key.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap
    )
)]

mod base64;
mod derive;
pub mod dtls;
pub mod integrity;
pub mod keys;
pub mod limits;
pub mod open;
mod packet;
pub mod random;
mod record;
mod refusal;
mod replay;
pub mod sdes;
pub mod seal;
mod suite;
mod transform;
#[cfg(test)]
mod vectors;

pub use keys::{Keying, Keys, Master, MasterKey, Mki};
pub use open::Opener;
pub use refusal::Refusal;
pub use seal::Sealer;
pub use suite::Suite;
