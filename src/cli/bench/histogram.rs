//! How long things took.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Times from 1 µs to an hour, each to three digits.
#[derive(Clone, Debug)]
pub(super) struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        // The bounds are good ones: this cannot fail.
        let histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3);
        Self(histogram.unwrap_or_else(|_| unreachable!()))
    }
}

impl Times {
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

    /// For people: the median, and how long the slowest took.
    pub(super) fn told(&self) -> String {
        let at = |percent| milliseconds(self.0.value_at_percentile(percent));
        let [p50, p90, p99, p999] = [50.0, 90.0, 99.0, 99.9].map(at);
        format!("p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms")
    }

    /// For programs, in milliseconds.
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
    fn times_are_told_by_percentile() {
        let mut times = Times::default();
        assert!(times.is_empty());
        times.add(Duration::from_millis(1), 99);
        let mut more = Times::default();
        more.add(Duration::from_millis(100), 1);
        times.add_all(&more);
        let told = times.object();
        assert!((told["p50"].as_f64().unwrap() - 1.0).abs() < 0.01, "{told}");
        assert!((told["max"].as_f64().unwrap() - 100.0).abs() < 0.1, "{told}");
        assert!(times.told().starts_with("p50 1.00 ms, p90 1.00 ms"), "{}", times.told());
    }
}
