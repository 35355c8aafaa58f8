//! Scenarios: the real engine between hand-made SIP peers on virtual time, one file per subject.
#![allow(unreachable_pub)] // a test binary exports nothing
#![allow(dead_code)]

mod call;
mod cancel;
mod common;
mod conformity;
mod crash;
mod crash_keys;
mod crossings;
mod early;
mod emergency;
mod exchanges;
mod failover;
mod failure;
mod fast;
mod forks;
mod handshakes;
mod help;
mod hiding;
mod identity;
mod keys_again;
mod leaks;
mod limits;
mod peering;
mod places;
mod preempt;
mod quality;
mod refusal;
mod sdes;
mod silence;
mod stop;
mod streams;
mod within;
