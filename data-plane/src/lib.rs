//! The data plane: turns settings into running shards. It parses no SIP and decides nothing about a
//! call: that is the engine's. It needs no control plane, no name service and no network file system.
//!
//! | Module | What |
//! |---|---|
//! | [`settings`] | file or last good snapshot -> compiled settings and credentials |
//! | `survival` | records of calls that outlive a crash |
//! | `start` | settings -> sockets, engines, threads |
//! | `shard` | one turn of one shard: the glue |
//! | `open_files` | how many sockets the process may open, and what it does with fewer |
//! | `retire` | config versions that no call holds leave the shards |
//! | `mailbox` | questions and snapshots for running shards |
//! | [`link`] | the stream to the control plane |
//! | [`spool`] | audit events and CDRs, chained and durable |
//! | [`telemetry`] | log lines, counters, the watchdog |
//! | `edge` | the life of the process |
#![forbid(unsafe_code)]

mod crypto;
mod edge;
pub mod link;
pub mod mailbox;
mod open_files;
mod retire;
pub mod settings;
mod shard;
pub mod snapshots;
pub mod spool;
mod start;
mod survival;
mod takeover;
pub mod telemetry;

pub use edge::{FAREWELL_WITHIN, run};
pub use settings::EdgeOptions;
pub use survival::{ForgetOutcome, Forgotten, forget};
