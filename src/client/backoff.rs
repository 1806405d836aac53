//! Pauses between tries.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses from 100 ms to 5 s, each twice as long as the one before and shortened by chance, so that
/// the clients of one broker do not come back all at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// How long to wait before the next try, as a broker asked for at the least.
    pub(super) fn next_after(&mut self, asked: Duration) -> Duration {
        self.next().max(asked.min(LONGEST))
    }

    /// How long to wait before the next try.
    pub(super) fn next(&mut self) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.tries.min(10)).min(LONGEST);
        self.tries += 1;
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// The last try went well.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew_after_a_good_try() {
        let mut backoff = Backoff::default();
        for longest in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            let longest = Duration::from_millis(longest);
            let pause = backoff.next();
            assert!(pause >= longest / 2 && pause <= longest, "{pause:?} of {longest:?}");
        }
        (0..100).for_each(|_| assert!(backoff.next() <= LONGEST));
        backoff.reset();
        assert!(backoff.next() <= FIRST);
        assert_eq!(backoff.next_after(Duration::from_secs(1)), Duration::from_secs(1));
        assert_eq!(backoff.next_after(Duration::from_secs(3600)), LONGEST);
    }
}
