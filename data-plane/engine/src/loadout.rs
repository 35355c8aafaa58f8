//! What a shard works with: settings, credentials and shared gauges of one config version. Built off
//! the packet path, handed over whole (`Engine::install`), dropped off the packet path.

use std::sync::Arc;

use ravelin_policy::Snapshot;
use ravelin_stir::{sign::Signer, trust::Trust};

use crate::admission::{Registry, TrunkGauge};

/// One config version, ready for use.
#[derive(Debug)]
pub struct Loadout {
    pub snapshot: Arc<Snapshot>,
    /// Validated certificate chains; empty: every token ends in `none-fetch`.
    pub trust: Arc<Trust>,
    /// The provider's credential; without one calls go out unsigned, counted and recorded.
    pub signer: Option<Arc<Signer>>,
    /// Parallel to `snapshot.trunks`; shared by all shards and by successive versions.
    pub gauges: Vec<Arc<TrunkGauge>>,
}

impl Loadout {
    /// Without credentials: nothing is signed, nothing is trusted.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, registry: &Registry) -> Self {
        let gauges = registry.gauges(&snapshot);
        Self { snapshot, trust: Arc::new(Trust::default()), signer: None, gauges }
    }

    /// With the provider's credential and what its verification service trusts.
    #[must_use]
    pub fn with_identity(mut self, signer: Option<Arc<Signer>>, trust: Arc<Trust>) -> Self {
        self.signer = signer;
        self.trust = trust;
        self
    }
}
