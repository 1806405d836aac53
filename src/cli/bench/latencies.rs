//! The distribution of latencies.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Latencies from 1 µs to an hour, to three significant digits.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        // It fails for invalid bounds only.
        let histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3);
        Self(histogram.unwrap_or_else(|_| unreachable!()))
    }
}

impl Latencies {
    pub(super) fn add(&mut self, took: Duration, count: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record_n(micros.max(1), count);
    }

    pub(super) fn add_all(&mut self, others: &Self) {
        // Both have the same bounds.
        let _ = self.0.add(&others.0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The percentiles for people.
    pub(super) fn describe(&self) -> String {
        let at = |percent| milliseconds(self.0.value_at_percentile(percent));
        let [p50, p90, p99, p999] = [50.0, 90.0, 99.0, 99.9].map(at);
        format!("p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms")
    }

    /// The percentiles for programs, in milliseconds.
    pub(super) fn object(&self) -> Value {
        let at = |percent| milliseconds(self.0.value_at_percentile(percent));
        json!({
            "p50": at(50.0), "p90": at(90.0), "p99": at(99.0), "p99.9": at(99.9),
            "max": milliseconds(self.0.max()),
        })
    }
}

fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_reported_by_percentile() {
        let mut latencies = Latencies::default();
        assert!(latencies.is_empty());
        latencies.add(Duration::from_millis(1), 99);
        let mut more = Latencies::default();
        more.add(Duration::from_millis(100), 1);
        latencies.add_all(&more);
        let object = latencies.object();
        assert!((object["p50"].as_f64().unwrap() - 1.0).abs() < 0.01, "{object}");
        assert!((object["max"].as_f64().unwrap() - 100.0).abs() < 0.1, "{object}");
        assert!(
            latencies.describe().starts_with("p50 1.00 ms, p90 1.00 ms"),
            "{}",
            latencies.describe()
        );
    }
}
