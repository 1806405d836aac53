//! Counts the calls that a connection's client cancels, and reports when they become a flood.
//!
//! A cancelled call costs the broker about as much as an answered one, and costs its client nothing,
//! not even one of the calls that it may have open. HTTP/2's own limit counts only calls that the
//! server has not yet accepted, so a broker that keeps pace with a flood never reaches it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// How many calls may be cancelled in a burst: eight times as many as a connection may have open.
const BURST: f64 = 16_384.0;

/// How many calls a second may be cancelled soon after they begin, for any length of time.
const EACH_SECOND: f64 = 1_024.0;

/// Calls cancelled later than this are not counted, as the number of open calls limits them already:
/// clients with short deadlines may cancel any number.
const SOON: Duration = Duration::from_millis(10);

/// The cancelled calls of one connection.
pub(super) struct Cancellations {
    allowance: Mutex<Allowance>,
    flood: CancellationToken,
}

/// How many calls may still be cancelled, at a given time.
struct Allowance {
    calls: f64,
    at: Instant,
}

/// A call that is under way. It counts as cancelled if it is dropped soon and unanswered. It also
/// counts, however late the broker is, if its request was cut off before it was read.
pub(super) struct UnderWay {
    cancellations: Arc<Cancellations>,
    answered: bool,
    cut_off: Arc<AtomicBool>,
    began: Instant,
}

/// Records that a call's request was cut off.
pub(super) struct CutOff(Arc<AtomicBool>);

impl Cancellations {
    pub(super) fn new() -> Arc<Self> {
        let allowance = Mutex::new(Allowance { calls: BURST, at: Instant::now() });
        Arc::new(Self { allowance, flood: CancellationToken::new() })
    }

    pub(super) fn call(self: &Arc<Self>) -> UnderWay {
        UnderWay {
            cancellations: self.clone(),
            answered: false,
            cut_off: Arc::default(),
            began: Instant::now(),
        }
    }

    /// Waits until more calls are cancelled than ordinary clients cancel.
    pub(super) async fn flood(&self) {
        self.flood.cancelled().await;
    }

    fn count(&self, now: Instant) {
        if !self.allowance.lock().take(now) {
            self.flood.cancel();
        }
    }
}

impl Allowance {
    /// Takes one call; returns false if none was left.
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.calls = (self.calls + passed * EACH_SECOND).min(BURST) - 1.0;
        self.at = now;
        self.calls >= 0.0
    }
}

impl UnderWay {
    /// For the request's body to record that it was cut off. The call is then answered with an error
    /// that nobody receives, and so would count as answered.
    pub(super) fn cut_off(&self) -> CutOff {
        CutOff(self.cut_off.clone())
    }

    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl CutOff {
    pub(super) fn record(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let cut_off = self.cut_off.load(Ordering::Relaxed);
        if cut_off || !self.answered && self.began.elapsed() < SOON {
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
        let mut left = Allowance { calls: BURST, at: now };
        assert!((0..16_384).all(|_| left.take(now)));
        // Ten seconds at the steady rate, in steps of a millisecond.
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
    fn an_answered_call_does_not_count() {
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
            call.cut_off().record();
            call.answered();
        }
        assert!(cancellations.flood.is_cancelled());
    }
}
