//! What is measured in the core.

use super::{
    leases::LeaseMetrics,
    publishing::PublishMetrics,
    relay::RelayMetrics,
    subscriptions::SubscriptionMetrics,
    text::{Instruments, Metrics},
    traffic::Traffic,
};

/// What is measured of publishes, leases and traffic.
#[derive(Default)]
pub struct BrokerMetrics {
    /// Publishes.
    pub publishing: PublishMetrics,
    /// Leases.
    pub leases: LeaseMetrics,
    /// The relay.
    pub relay: RelayMetrics,
    /// Subscriptions.
    pub subscriptions: SubscriptionMetrics,
    /// What goes through, by topic.
    pub traffic: Traffic,
}

impl Instruments for BrokerMetrics {
    fn register(&self, metrics: &mut Metrics) {
        metrics.register(&self.publishing);
        metrics.register(&self.leases);
        metrics.register(&self.relay);
        metrics.register(&self.subscriptions);
    }
}
