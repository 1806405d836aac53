//! Pauses between retries.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

const LONGEST: Duration = Duration::from_secs(5);

/// Jitter lengthens a pause to at most twice the length that it has here.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(LONGEST.checked_div(2).expect("2 is not 0"))
    .without_max_times()
    .with_jitter();

/// Pauses that double from 100 ms up to 5 s. Jitter shortens each by up to half, so that the
/// clients of one broker do not all return at once.
#[derive(Debug)]
pub(super) struct Backoff(ExponentialBackoff);

impl Default for Backoff {
    fn default() -> Self {
        Self(PAUSES.build())
    }
}

impl Backoff {
    /// How long to wait before the next try: at least as long as the broker asked for, within the
    /// longest pause.
    pub(super) fn next_after(&mut self, requested: Duration) -> Duration {
        self.next().max(requested.min(LONGEST))
    }

    /// How long to wait before the next try.
    pub(super) fn next(&mut self) -> Duration {
        self.0.next().unwrap_or(LONGEST)
    }

    /// Starts again with the shortest pause, after a success.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_start_short_again_after_a_success() {
        let mut backoff = Backoff::default();
        for longest in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            let longest = Duration::from_millis(longest);
            let pause = backoff.next();
            assert!(pause >= longest / 2 && pause <= longest, "{pause:?} of {longest:?}");
        }
        (0..100).for_each(|_| assert!(backoff.next() <= LONGEST));
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(100));
        assert_eq!(backoff.next_after(Duration::from_secs(1)), Duration::from_secs(1));
        assert_eq!(backoff.next_after(Duration::from_secs(3600)), LONGEST);
    }
}
