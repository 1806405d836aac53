//! How often to poll, and how soon to retry.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// How often the tables are polled for what notifications missed: heads that moved, leases that
/// ended, locks that were released, and whether the database answers at all.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Pauses between retries, doubling from 50 ms to 2 s. Jitter shortens each by up to half, so that
/// brokers that failed together do not retry together.
pub(crate) struct Backoff(ExponentialBackoff);

impl Backoff {
    pub(crate) fn new() -> Self {
        // `backon`'s jitter lengthens a pause to at most twice the delay given here.
        let pauses = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(25))
            .with_max_delay(Duration::from_secs(1))
            .with_jitter()
            .without_max_times();
        Self(pauses.build())
    }

    /// Starts again from the shortest pause, if what was tried worked for some seconds.
    pub(crate) fn settle(&mut self, worked_for: Duration) {
        if worked_for > Duration::from_secs(5) {
            *self = Self::new();
        }
    }

    /// Waits before the next retry.
    pub(crate) async fn pause(&mut self) {
        // The sequence of pauses never ends.
        let pause = self.0.next().unwrap_or(Duration::from_secs(2));
        tokio::time::sleep(pause).await;
    }
}
