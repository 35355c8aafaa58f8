//! Bytes to typed values and back: SIP, SDP, RTP, RTCP, STUN. It does no input or output, reads no
//! clock, keeps no state between messages (the stream framer's buffer apart) and takes nothing from
//! the heap while it parses: every view borrows the datagram it was made from.
//!
//! All input is a peer's. Every entry point is total on arbitrary bytes, every limit is a constant
//! in [`limits`], and every refusal has a reason with a stable text. What is accepted and written
//! out again by [`sip::Writer`] or [`sdp::rewrite`] means the same to the next parser.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
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

pub mod demux;
pub mod limits;
pub mod names;
pub mod rtcp;
pub mod rtp;
pub mod sdp;
pub mod sip;
pub mod stun;
pub mod verdict;
