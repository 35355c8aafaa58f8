//! The core of the SBC, one [`engine::Engine`] value per shard. It opens no socket, file or thread,
//! reads no clock, environment or random source: datagrams, time and seeds are handed in, datagrams
//! and records are taken out. That is what lets the same code run in the shard and in the
//! simulator.
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

pub mod admission;
mod b2bua;
pub mod cause;
pub mod checkpoint;
mod core;
pub mod counters;
pub mod drops;
pub mod emergency;
pub mod engine;
pub mod health;
pub mod identity;
pub mod ids;
pub mod limits;
pub mod loadout;
pub mod media;
pub mod port;
mod records;
mod route;
mod scores;
pub mod sip;
pub mod time;
pub mod timer;
