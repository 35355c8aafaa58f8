//! What the delivery counts and shows.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{Method, work::Outcome};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    method: &'static str,
    outcome: &'static str,
}

/// See the help texts at [`Meters::register`].
#[derive(Debug, Default)]
pub struct Meters {
    attempts: Family<Labels, Counter>,
    pub(super) undelivered: Counter,
    pub(super) pending: Gauge,
    pub(super) oldest_seconds: Gauge,
}

impl Meters {
    pub(super) fn attempt(&self, method: Method, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Delivered(_) => "delivered",
            Outcome::Retry(_) => "retry",
            Outcome::Failed(_) => "failed",
        };
        self.attempts.get_or_create(&Labels { method: method.name(), outcome }).inc();
    }

    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "emergency_delivery_attempts",
            "Attempts to tell a contact of an emergency, by method and outcome",
            self.attempts.clone(),
        );
        registry.register(
            "emergency_notifications_undelivered",
            "Emergency notifications that reached nobody",
            self.undelivered.clone(),
        );
        registry.register(
            "emergency_deliveries_pending",
            "Emergency deliveries that have neither arrived nor failed",
            self.pending.clone(),
        );
        registry.register(
            "emergency_delivery_oldest_pending_seconds",
            "Age of the oldest emergency notification with a pending delivery; 0 without one",
            self.oldest_seconds.clone(),
        );
    }
}
