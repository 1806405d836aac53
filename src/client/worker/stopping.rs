//! When a worker is to stop, and how long its handlers have from then on.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, sleep_until};

/// How long a worker that stops waits for its last settlements once its handlers have had their time.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

pub(super) struct Stopping {
    asked: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// How long the handlers have.
    timeout: Duration,
    began_at: Option<Instant>,
    /// How many handlers ran when their time was over, if it is.
    aborted: Option<usize>,
}

/// What comes next when a worker stops.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StopStep {
    /// The worker is to stop.
    Begun,
    /// The time of the handlers is over.
    TimeIsOver,
    /// Nothing is worth waiting for any more.
    PatienceIsOver,
}

impl Stopping {
    pub(super) fn new(asked: impl Future<Output = ()> + Send + 'static, timeout: Duration) -> Self {
        Self { asked: Box::pin(asked), timeout, began_at: None, aborted: None }
    }

    /// Whether the worker stops.
    pub(super) fn has_begun(&self) -> bool {
        self.began_at.is_some()
    }

    /// Begins to stop, unless that has begun.
    pub(super) fn begin(&mut self) {
        self.began_at.get_or_insert_with(Instant::now);
    }

    /// Waits for the next step. Nothing is lost if this is dropped before.
    pub(super) async fn next_step(&mut self) -> StopStep {
        // `None` also for a time that no clock shows.
        let time_is_over = self.began_at.and_then(|began| began.checked_add(self.timeout));
        match (self.began_at, self.aborted) {
            (None, _) => {
                self.asked.as_mut().await;
                self.begin();
                StopStep::Begun
            }
            (Some(_), None) => {
                wait_until(time_is_over).await;
                StopStep::TimeIsOver
            }
            (Some(_), Some(_)) => {
                wait_until(time_is_over.and_then(|at| at.checked_add(LAST_ANSWERS))).await;
                StopStep::PatienceIsOver
            }
        }
    }

    /// How many handlers did not end in time.
    pub(super) fn aborted(&self) -> usize {
        self.aborted.unwrap_or(0)
    }

    /// Records that so many handlers are aborted, as their time is over.
    pub(super) fn record_aborted(&mut self, handlers: usize) {
        self.aborted = Some(handlers);
    }
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn handlers_have_their_time_once_the_worker_stops() {
        let mut stopping = Stopping::new(std::future::ready(()), Duration::from_millis(20));
        assert!(!stopping.has_begun());
        assert_eq!(stopping.next_step().await, StopStep::Begun);
        let began = Instant::now();
        assert!(stopping.has_begun());
        assert_eq!(stopping.next_step().await, StopStep::TimeIsOver);
        assert!(began.elapsed() >= Duration::from_millis(10));
        stopping.record_aborted(2);
        assert_eq!(stopping.aborted(), 2);
    }

    #[tokio::test]
    async fn handlers_may_have_all_the_time_there_is() {
        let mut stopping = Stopping::new(std::future::pending(), Duration::MAX);
        stopping.begin();
        let step = tokio::time::timeout(Duration::from_millis(20), stopping.next_step()).await;
        assert!(step.is_err(), "{step:?}");
    }
}
