//! Leases: how many streams got one, and how long that took.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
};

use super::text::{Instruments, Metrics};

/// What is measured of leases.
pub struct LeaseMetrics {
    acquisitions: Family<AcquisitionLabels, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AcquisitionLabels {
    how: &'static str,
}

/// How a stream got its lease.
const HOW: [&str; 2] = ["wait", "take_over"];

impl Default for LeaseMetrics {
    fn default() -> Self {
        fn seconds() -> Histogram {
            Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0])
        }
        let acquisitions: Family<_, _, fn() -> _> = Family::new_with_constructor(seconds);
        // They exist from the start, so that the first one counts as an increase.
        for how in HOW {
            drop(acquisitions.get_or_create(&AcquisitionLabels { how }));
        }
        Self { acquisitions }
    }
}

impl LeaseMetrics {
    /// Counts a stream that got its lease after some time, by taking it over or by waiting until it
    /// was free.
    pub fn count_acquisition(&self, is_take_over: bool, took: Duration) {
        let labels = AcquisitionLabels { how: HOW[usize::from(is_take_over)] };
        self.acquisitions.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

impl Instruments for LeaseMetrics {
    fn register(&self, metrics: &mut Metrics) {
        metrics.add(
            "trunkline_lease_acquisition_seconds",
            "Time from when a stream of this broker began to when it had its lease, by how it got it",
            self.acquisitions.clone(),
        );
    }
}
