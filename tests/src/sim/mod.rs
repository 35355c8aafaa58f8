//! The seeded simulator: real engines, one per shard, between simulated peers on a virtual clock.
//! The network between them loses, repeats, delays and reorders; peers fall silent at any step.
//! One seed is one run, the same on every machine.
//!
//! What is judged at the end of a run (design 9):
//! - nothing is left: calls, legs, transactions, timers, streams, ports and permits are at zero;
//! - both parties of a call agree on how it ended, unless one of them fell silent;
//! - no party ever got media of another call.
//!
//! In some runs the process ends without a word, at any step, and the next one takes over what was
//! written down: then confirmed calls are judged as if nothing had happened, the others may be lost.

mod act;
mod crash;
mod judge;
mod peer;
mod plan;
mod rng;
mod text;
mod world;

pub use judge::Verdict;
pub use plan::{Plan, Weather};
pub use world::{World, run};
