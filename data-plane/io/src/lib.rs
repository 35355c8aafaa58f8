//! The drivers under the engine. It decides nothing: no SIP, no call, no policy lives here, only
//! bytes, addresses and time on their way between sockets and the engine.
//!
//! | Module | What it is |
//! |---|---|
//! | [`driver`] | the seam: [`driver::Driver`], what it delivers, what it counts, how it is chosen
//! |
//! | [`uring`] | UDP through one private io_uring ring per shard: the default |
//! | [`mmsg`] | UDP through epoll, recvmmsg and sendmmsg, where io_uring is forbidden |
//! | [`xdp`] | the fast path around either: RTP forwarded by a program in the kernel |
//! | [`af_xdp`] | its part for streams whose contents must be touched: frames past the UDP path |
//! | [`stream`] | SIP over TCP: listeners, connections, framing, bounded queues, deadlines |
//! | [`cross`] | bounded rings between shards |
//! | [`host`] | the thread of a shard: pinned, hosted by a glommio executor that never parks |
//! | [`probe`] | what this kernel and this process may do, with a name for what is missing |
//! | [`clock`] | the one place that reads the clocks |
//! | [`traffic`] | test traffic below the IP stack, for the load generator |
//! | [`sys`] | the only `unsafe` of the product, behind safe types |
#![deny(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod addr;
pub mod af_xdp;
mod backlog;
pub mod clock;
pub mod cross;
pub mod driver;
mod giving_way;
pub mod host;
pub mod mmsg;
pub mod probe;
mod sockets;
pub mod stream;
pub mod sys;
pub mod traffic;
pub mod uring;
pub mod xdp;
