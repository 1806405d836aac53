//! Counts the calls of a connection that its client cancels, and tells when they become a flood.
//!
//! A cancelled call costs the broker about as much as one that is answered, and its client nothing,
//! not even one of the calls that it may have open. HTTP/2's own limit counts only calls that nobody
//! has looked at yet: a broker that keeps pace with a flood never reaches it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

/// Calls that may be cancelled at once: all that a connection may have open, eight times over.
const AT_ONCE: f64 = 16_384.0;

/// Calls that may be cancelled as soon as they begin every second, for as long as it goes on.
const EACH_SECOND: f64 = 1_024.0;

/// A call that was under way for longer counts against the calls that a connection may have open,
/// and needs no other limit: clients with short deadlines cancel as many as they like.
const AT_ONCE_CANCELLED: Duration = Duration::from_millis(10);

/// The cancelled calls of one connection.
pub(super) struct Cancellations {
    left: Mutex<Left>,
    flood: CancellationToken,
}

/// How many calls may still be cancelled, as of a moment.
struct Left {
    calls: f64,
    at: Instant,
}

/// A call that is under way; counted as cancelled if it is dropped soon and unanswered, or if its
/// request was cut off before it was read: that holds also where the broker is late.
pub(super) struct UnderWay {
    cancellations: Arc<Cancellations>,
    answered: bool,
    cut_off: Arc<AtomicBool>,
    began: Instant,
}

/// Tells of a call's request that it was cut off.
pub(super) struct CutOff(Arc<AtomicBool>);

impl Cancellations {
    pub(super) fn new() -> Arc<Self> {
        let left = Mutex::new(Left { calls: AT_ONCE, at: Instant::now() });
        Arc::new(Self { left, flood: CancellationToken::new() })
    }

    pub(super) fn call(self: &Arc<Self>) -> UnderWay {
        UnderWay {
            cancellations: self.clone(),
            answered: false,
            cut_off: Arc::default(),
            began: Instant::now(),
        }
    }

    /// Waits until more calls were cancelled than ordinary clients cancel.
    pub(super) async fn flood(&self) {
        self.flood.cancelled().await;
    }

    fn count(&self, now: Instant) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if !left.take(now) {
            self.flood.cancel();
        }
    }
}

impl Left {
    /// Takes one call; false if none was left.
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.calls = (self.calls + passed * EACH_SECOND).min(AT_ONCE) - 1.0;
        self.at = now;
        self.calls >= 0.0
    }
}

impl UnderWay {
    /// What is told when the request is cut off: such a call is answered with an error, which
    /// nobody hears.
    pub(super) fn cut_off(&self) -> CutOff {
        CutOff(self.cut_off.clone())
    }

    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl CutOff {
    pub(super) fn tell(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let cut_off = self.cut_off.load(Ordering::Relaxed);
        if cut_off || !self.answered && self.began.elapsed() < AT_ONCE_CANCELLED {
            self.cancellations.count(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_and_a_steady_rate_are_fine_and_more_is_a_flood() {
        let mut now = Instant::now();
        let mut left = Left { calls: AT_ONCE, at: now };
        assert!((0..16_384).all(|_| left.take(now)));
        // At the steady rate for ten seconds, in steps of a millisecond.
        for _ in 0..10_000 {
            now += Duration::from_millis(1);
            assert!(left.take(now));
        }
        assert!(!(0..2_000).all(|_| left.take(now)));
        now += Duration::from_secs(60);
        assert!((0..16_384).all(|_| left.take(now)));
        assert!(!left.take(now));
    }

    #[test]
    fn a_call_that_was_answered_does_not_count() {
        let cancellations = Cancellations::new();
        (0..20_000).for_each(|_| cancellations.call().answered());
        assert!(!cancellations.flood.is_cancelled());
        (0..100_000).for_each(|_| drop(cancellations.call()));
        assert!(cancellations.flood.is_cancelled());
    }

    #[test]
    fn a_call_whose_request_was_cut_off_counts_though_it_was_answered() {
        let cancellations = Cancellations::new();
        for _ in 0..100_000 {
            let call = cancellations.call();
            call.cut_off().tell();
            call.answered();
        }
        assert!(cancellations.flood.is_cancelled());
    }
}
