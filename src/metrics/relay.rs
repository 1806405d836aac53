//! The relay: messages that were published from SQL and moved into the log.

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

use super::text::{Instruments, Metrics};

/// What is measured of the relay.
#[derive(Default)]
pub struct RelayMetrics {
    moved: Counter,
    dropped: Counter,
    blocked: Gauge,
}

impl RelayMetrics {
    /// Counts messages that were moved from the outbox into the log.
    pub fn moved(&self, messages: usize) {
        self.moved.inc_by(messages as u64);
    }

    /// Counts messages that were dropped, as their topics were deleted.
    pub fn dropped(&self, messages: usize) {
        self.dropped.inc_by(messages as u64);
    }

    /// Sets how many topics there are whose messages could not be stored at the last try.
    pub fn blocked_topics(&self, topics: usize) {
        self.blocked.set(topics as i64);
    }
}

impl Instruments for RelayMetrics {
    fn register(&self, metrics: &mut Metrics) {
        metrics.add(
            "trunkline_outbox_moved_messages",
            "Messages that this broker moved from the outbox of SQL publishers into the log",
            self.moved.clone(),
        );
        metrics.add(
            "trunkline_outbox_dropped_messages",
            "Messages that this broker dropped from the outbox, as their topics were deleted",
            self.dropped.clone(),
        );
        metrics.add(
            "trunkline_outbox_blocked_topics",
            "Topics whose messages this broker could not move out of the outbox at the last try",
            self.blocked.clone(),
        );
    }
}
