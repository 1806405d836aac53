//! Spans: how many of them reached the collector.

use prometheus_client::metrics::counter::Counter;

use super::text::{Instruments, Metrics};

/// What is measured of spans.
#[derive(Debug, Default)]
pub struct TraceMetrics {
    exported: Counter,
    failed: Counter,
    dropped: Counter,
}

impl TraceMetrics {
    /// Counts spans that the collector has accepted.
    pub fn count_exported(&self, spans: usize) {
        self.exported.inc_by(spans as u64);
    }

    /// Counts spans that the collector has not accepted.
    pub fn count_failed(&self, spans: usize) {
        self.failed.inc_by(spans as u64);
    }

    /// Counts a span that the queue had no room for.
    pub fn count_dropped(&self) {
        self.dropped.inc();
    }

    /// How many spans the queue had no room for.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }
}

impl Instruments for TraceMetrics {
    fn register(&self, metrics: &mut Metrics) {
        metrics.add(
            "trunkline_trace_spans_exported",
            "Spans that the collector has accepted",
            self.exported.clone(),
        );
        metrics.add(
            "trunkline_trace_spans_failed",
            "Spans that were sent, and that the collector has not accepted",
            self.failed.clone(),
        );
        metrics.add(
            "trunkline_trace_spans_dropped",
            "Spans that were not sent, because the queue was full",
            self.dropped.clone(),
        );
    }
}
