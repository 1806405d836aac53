//! How fast to try again.

use std::time::Duration;

/// Pauses between tries that grow from 50 ms to 2 s.
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(Duration::from_millis(50))
    }

    /// Begins anew, if what was tried worked for some seconds.
    pub(crate) fn settle(&mut self, worked_for: Duration) {
        if worked_for > Duration::from_secs(5) {
            *self = Self::new();
        }
    }

    /// Waits before the next try.
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(Duration::from_secs(2));
    }
}
