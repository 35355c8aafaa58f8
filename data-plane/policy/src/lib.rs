//! Config document to immutable [`Snapshot`]. Does no IO, reads no clock, file or environment, and
//! keeps no state: a document goes in, a snapshot or the list of its faults comes out.
//!
//! | Step | Where |
//! |---|---|
//! | YAML to raw types, unknown keys refused | [`document`] |
//! | raw types to a snapshot, every fault with path and line | [`compile()`] |
//! | what a shard asks of a snapshot, without lock or allocation | [`Snapshot`] |
//! | what would happen to a call, and why | [`explain()`] |
#![forbid(unsafe_code)]

pub mod class;
pub mod compile;
pub mod document;
mod explain;
mod ids;
pub mod lpm;
mod numbers;
pub mod snapshot;
mod test_mode;
mod yaml;

pub use class::{Class, Service, guard_matches};
pub use compile::{Compiled, compile, restart_needed};
pub use document::{Document, PinError, SiteError};
pub use explain::{Explanation, explain};
pub use ids::{RealmId, RouteId, SiteId, TrunkId};
pub use snapshot::{
    Address, Attestation, AttestationLevel, Driver, Dscp, EmergencyStep, HealthCheck, Ice,
    Identity, Limits, Listener, Location, MediaAction, MediaRange, Mode, Nat, NumberPlan,
    OnFailure, Realm, RealmKind, Role, Route, RtpTimeout, RuleId, Site, SiteMatch, SiteRule,
    Snapshot, Srtp, SrtpSuite, Stir, Target, Tier, Transport, Trunk, TrunkLimits, TrunkMedia,
    Trust,
};
pub use test_mode::{TEST_VARIABLES, TestSignal, TestSignals, test_signals};
