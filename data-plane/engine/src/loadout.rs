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
    /// The limits of the whole node (`limits` of the document), over all shards.
    pub node: Arc<TrunkGauge>,
}

impl Loadout {
    /// Without credentials: nothing is signed, nothing is trusted.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, registry: &Registry) -> Self {
        let gauges = registry.gauges(&snapshot);
        let node = registry.node_gauge(&snapshot);
        Self { snapshot, trust: Arc::new(Trust::default()), signer: None, gauges, node }
    }

    /// A copy whose reference count belongs to one shard: calls count up and down on it without
    /// touching memory that other shards write.
    #[must_use]
    pub(crate) fn private(&self) -> Self {
        Self {
            snapshot: Arc::clone(&self.snapshot),
            trust: Arc::clone(&self.trust),
            signer: self.signer.clone(),
            gauges: self.gauges.clone(),
            node: Arc::clone(&self.node),
        }
    }

    /// With the provider's credential and what its verification service trusts.
    #[must_use]
    pub fn with_identity(mut self, signer: Option<Arc<Signer>>, trust: Arc<Trust>) -> Self {
        self.signer = signer;
        self.trust = trust;
        self
    }
}
