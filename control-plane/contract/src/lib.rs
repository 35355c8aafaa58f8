//! What the control plane and the data plane exchange. No logic beyond the wire format itself: no
//! IO, no clock, no policy.
//!
//! | Module | Direction | What |
//! |---|---|---|
//! | [`config`] | down | the raw config document, as users write it |
//! | [`link`] | both | the frames of the stream between the planes |
//! | [`chain`] | up | hash-chained records: the envelope of everything that must not be lost |
//! | [`audit`] | up | audit events |
//! | [`cdr`] | up | call detail records |
//! | [`metrics`] | up | counters, gauges and histograms of one node |
//! | [`view`] | up | live views: calls, trunks, explain |
#![forbid(unsafe_code)]

pub mod audit;
pub mod cdr;
pub mod chain;
pub mod config;
pub mod link;
pub mod metrics;
pub mod view;

/// Version of the frames in [`link`]: another one whenever a frame is added or changes. Both ends
/// refuse a peer whose number differs, with the words of [`link::other_protocol`].
///
/// 2: `query_call`, its answer `call`, and the streams of a call in views and records.
pub const PROTOCOL_VERSION: u32 = 2;
