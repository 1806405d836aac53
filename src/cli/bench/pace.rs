//! Paces requests at a rate.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// Makes requests due at equal intervals, for all publishers together. A late request does not
/// delay the ones after it: they stay due at their own times, from which latencies are measured.
///
/// A dedicated thread releases the requests, as the runtime's timers have a resolution of a
/// millisecond, which is as long as an acknowledgement takes.
pub(super) struct Pace {
    start: Instant,
    interval: Duration,
    /// One permit for each request that is due and not yet taken.
    due: Semaphore,
    /// The number of requests taken so far.
    taken: AtomicU64,
}

impl Pace {
    pub(super) fn start(start: Instant, interval: Duration) -> Arc<Self> {
        // With an interval of 0, all requests of all time would be due at once.
        let interval = interval.max(Duration::from_nanos(1));
        let pace =
            Arc::new(Self { start, interval, due: Semaphore::new(0), taken: AtomicU64::new(0) });
        let for_thread = Arc::downgrade(&pace);
        thread::spawn(move || release(&for_thread));
        pace
    }

    /// Waits until the next request is due, and returns the time at which it was.
    pub(super) async fn next(&self) -> Instant {
        if let Ok(due) = self.due.acquire().await {
            due.forget();
        }
        self.time_of(self.taken.fetch_add(1, Ordering::Relaxed))
    }

    fn time_of(&self, number: u64) -> Instant {
        self.start + self.interval.mul_f64(number as f64)
    }
}

/// Releases requests when they are due, until the pace is dropped.
#[allow(clippy::disallowed_methods)] // No task runs on this thread.
fn release(pace: &Weak<Pace>) {
    let mut released = 0;
    while let Some(pace) = pace.upgrade() {
        let next = pace.time_of(released);
        let now = Instant::now();
        if now >= next {
            // Limits the requests that are released at once after a long break.
            let due = (released..).take(1_024).take_while(|&number| pace.time_of(number) <= now);
            let due = due.count();
            pace.due.add_permits(due);
            released += due as u64;
        } else {
            drop(pace);
            thread::sleep(next - now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_released_at_equal_intervals_and_never_early() {
        let start = Instant::now();
        let pace = Pace::start(start, Duration::from_micros(500));
        for number in 0..20 {
            let due = pace.next().await;
            assert_eq!(due, start + Duration::from_micros(500 * number));
            assert!(Instant::now() >= due);
        }
    }
}
