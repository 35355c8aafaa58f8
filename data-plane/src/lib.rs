//! The data plane: turns settings into running shards. It parses no SIP and decides nothing about a
//! call: that is the engine's. It needs no control plane, no name service and no network file system.
#![forbid(unsafe_code)]

pub mod spool;
pub mod telemetry;
