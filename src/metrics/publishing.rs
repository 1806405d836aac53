//! Publishes: how long they take, and how large the batches are that they become.

use std::time::Instant;

use prometheus_client::metrics::histogram::Histogram;

use super::{
    buckets::seconds,
    text::{Instruments, Metrics},
};

/// What is measured of publishes. Cheap to clone; all clones share the instruments.
#[derive(Clone)]
pub struct PublishMetrics {
    duration: Histogram,
    batch_messages: Histogram,
}

/// Measures one publish, from when it was decoded to its answer.
pub struct PublishTimer {
    duration: Histogram,
    began: Instant,
}

impl Default for PublishMetrics {
    fn default() -> Self {
        let sizes = [1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 5_000.0, 10_000.0];
        Self { duration: seconds(), batch_messages: Histogram::new(sizes) }
    }
}

impl PublishMetrics {
    /// Begins to measure a publish.
    pub fn begin(&self) -> PublishTimer {
        PublishTimer { duration: self.duration.clone(), began: Instant::now() }
    }

    /// Counts a batch that was stored.
    pub fn count_batch(&self, messages: usize) {
        self.batch_messages.observe(messages as f64);
    }
}

impl PublishTimer {
    /// Ends the measurement: the publish has its answer.
    pub fn end(self) {
        self.duration.observe(self.began.elapsed().as_secs_f64());
    }
}

impl Instruments for PublishMetrics {
    fn register(&self, metrics: &mut Metrics) {
        metrics.add(
            "trunkline_publish_duration_seconds",
            "Time from when a publish is decoded to its answer; requests of a stream that are stored \
             together count as one publish",
            self.duration.clone(),
        );
        metrics.add(
            "trunkline_batch_messages",
            "Messages of each batch that this broker stored",
            self.batch_messages.clone(),
        );
    }
}
