//! Spans: how many there were, and how many of them reached the collector.

use prometheus_client::metrics::counter::Counter;

use super::text::{Instruments, Metrics};

/// What is measured of spans. Cheap to clone; all clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct TraceMetrics {
    ended: Counter,
    exported: Counter,
    failed: Counter,
}

impl TraceMetrics {
    /// Counts a span that has ended.
    pub fn count_ended(&self) {
        self.ended.inc();
    }

    /// Counts spans that the collector has accepted.
    pub fn count_exported(&self, spans: usize) {
        self.exported.inc_by(spans as u64);
    }

    /// Counts spans that the collector has not accepted.
    pub fn count_failed(&self, spans: usize) {
        self.failed.inc_by(spans as u64);
    }
}

impl Instruments for TraceMetrics {
    fn register(&self, metrics: &mut Metrics) {
        metrics.add(
            "trunkline_trace_spans_ended",
            "Spans of calls, publishes and flushes that have ended",
            self.ended.clone(),
        );
        metrics.add(
            "trunkline_trace_spans_exported",
            "Spans that the collector has accepted",
            self.exported.clone(),
        );
        metrics.add(
            "trunkline_trace_spans_failed",
            "Spans that were sent and that the collector has not accepted; others that ended and were \
             not exported were dropped from a full queue, or wait in it",
            self.failed.clone(),
        );
    }
}
