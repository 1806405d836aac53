//! Shared subscriptions whose messages this broker hands to workers.

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

use super::text::{Instruments, Metrics};

/// What is measured of the subscriptions that this broker owns.
#[derive(Default)]
pub struct SubscriptionMetrics {
    owned: Gauge,
    outstanding: Gauge,
    delivered: Counter,
    redelivered: Counter,
    acknowledged: Counter,
    retried: Counter,
    expired: Counter,
    parked: Counter,
    dead_letters: Counter,
}

/// What has become of messages since that was last counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubscriptionCounts {
    /// Handed to workers.
    pub delivered: u64,
    /// Those of them that had been delivered before.
    pub redelivered: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Delivered again because a worker asked for it.
    pub retried: u64,
    /// Delivered again because they were not settled in time, or their workers had gone.
    pub expired: u64,
    /// Parked.
    pub parked: u64,
    /// Moved to a dead-letter topic.
    pub dead_letters: u64,
}

impl SubscriptionMetrics {
    /// Adds what has become of messages.
    pub fn count(&self, counts: SubscriptionCounts) {
        let SubscriptionCounts {
            delivered,
            redelivered,
            acknowledged,
            retried,
            expired,
            parked,
            dead_letters,
        } = counts;
        self.delivered.inc_by(delivered);
        self.redelivered.inc_by(redelivered);
        self.acknowledged.inc_by(acknowledged);
        self.retried.inc_by(retried);
        self.expired.inc_by(expired);
        self.parked.inc_by(parked);
        self.dead_letters.inc_by(dead_letters);
    }

    /// Counts a subscription that this broker begins to own.
    pub fn begin(&self) {
        self.owned.inc();
    }

    /// Counts a subscription that it owns no more, whose workers had so many messages.
    pub fn end(&self, outstanding: usize) {
        self.owned.dec();
        self.outstanding_changed(outstanding, 0);
    }

    /// Notes that the workers of a subscription have another number of messages.
    pub fn outstanding_changed(&self, before: usize, now: usize) {
        self.outstanding.inc_by(now as i64 - before as i64);
    }
}

impl Instruments for SubscriptionMetrics {
    fn register(&self, metrics: &mut Metrics) {
        metrics.add(
            "trunkline_subscriptions_owned",
            "Subscriptions whose messages this broker hands to workers",
            self.owned.clone(),
        );
        metrics.add(
            "trunkline_subscription_outstanding_messages",
            "Messages of these subscriptions that workers have and have not settled",
            self.outstanding.clone(),
        );
        for (name, help, counter) in [
            (
                "trunkline_subscription_delivered_messages",
                "Messages that this broker handed to workers, each time that it did",
                &self.delivered,
            ),
            (
                "trunkline_subscription_redelivered_messages",
                "Messages that this broker handed to workers again",
                &self.redelivered,
            ),
            (
                "trunkline_subscription_acknowledged_messages",
                "Messages that workers acknowledged",
                &self.acknowledged,
            ),
            (
                "trunkline_subscription_retried_messages",
                "Messages that workers asked to be delivered again",
                &self.retried,
            ),
            (
                "trunkline_subscription_expired_messages",
                "Messages that were not settled in time, or whose workers had gone",
                &self.expired,
            ),
            (
                "trunkline_subscription_parked_messages",
                "Messages that were rejected or delivered too often, and parked",
                &self.parked,
            ),
            (
                "trunkline_subscription_dead_letter_messages",
                "Messages that were rejected or delivered too often, and moved to a dead-letter topic",
                &self.dead_letters,
            ),
        ] {
            metrics.add(name, help, counter.clone());
        }
    }
}
