//! When messages are due, at a rate.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// Requests at even distances, which all publishers share. One that is late does not put off those
/// that follow: they are due when they are, and their times say so.
///
/// A thread of its own tells when one is due: the runtime's timers know milliseconds only, as much
/// as an acknowledgement takes.
pub(super) struct Pace {
    began: Instant,
    apart: Duration,
    due: Semaphore,
    taken: AtomicU64,
}

impl Pace {
    pub(super) fn start(began: Instant, apart: Duration) -> Arc<Self> {
        // Fewer than one apart would be all at once, without an end.
        let apart = apart.max(Duration::from_nanos(1));
        let pace =
            Arc::new(Self { began, apart, due: Semaphore::new(0), taken: AtomicU64::new(0) });
        let of_thread = Arc::downgrade(&pace);
        thread::spawn(move || keep(&of_thread));
        pace
    }

    /// Waits for the next request to be due, and tells when it was.
    pub(super) async fn next(&self) -> Instant {
        if let Ok(due) = self.due.acquire().await {
            due.forget();
        }
        self.time_of(self.taken.fetch_add(1, Ordering::Relaxed))
    }

    fn time_of(&self, number: u64) -> Instant {
        self.began + self.apart.mul_f64(number as f64)
    }
}

/// Lets requests go when they are due, for as long as somebody wants them.
#[allow(clippy::disallowed_methods)] // No task runs on this thread.
fn keep(pace: &Weak<Pace>) {
    let mut let_go = 0;
    while let Some(pace) = pace.upgrade() {
        let next = pace.time_of(let_go);
        let now = Instant::now();
        if now >= next {
            // As many as may have become due in one sleep, but not all that a long break left.
            let due = (let_go..).take(1_024).take_while(|&number| pace.time_of(number) <= now);
            let due = due.count();
            pace.due.add_permits(due);
            let_go += due as u64;
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
    async fn requests_are_due_at_even_distances_and_never_before() {
        let began = Instant::now();
        let pace = Pace::start(began, Duration::from_micros(500));
        for number in 0..20 {
            let due = pace.next().await;
            assert_eq!(due, began + Duration::from_micros(500 * number));
            assert!(Instant::now() >= due);
        }
    }
}
