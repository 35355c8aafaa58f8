//! The STIR/SHAKEN authentication service and verification service, as pure functions of what is
//! handed in: this crate opens no socket, file or thread, fetches no certificate, reads no clock
//! and draws no randomness, except the nonce that aws-lc draws inside an ECDSA signature (ST-13).
//!
//! Outgoing: [`sign::Signer`] writes a complete Identity header value (RFC 8224, RFC 8225,
//! RFC 8588). Incoming: [`verify::verify`] judges the Identity headers of one request against a
//! [`trust::Trust`], an immutable table of already validated certificate chains, and returns a
//! [`verify::Verdict`]; it never returns a SIP response (what to do with a verdict is the trunk's
//! policy). [`batch`] does the same for many calls in one go.
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
pub mod batch;
pub mod cert;
pub mod identity;
mod json;
pub mod limits;
pub mod outcome;
pub mod passport;
pub mod sign;
pub mod tn;
pub mod trust;
pub mod verify;

#[cfg(test)]
mod test_ca;
