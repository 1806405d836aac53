//! How many notices of a kind people get: the first ones of each minute. The others are counted.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// How long notices of a kind are counted together.
const INTERVAL: Duration = Duration::from_secs(60);

/// How many of them are printed.
const BURST: u32 = 10;

/// What was printed and held back of each kind.
pub(super) struct NoticeLimits<K>(HashMap<K, Printed>);

struct Printed {
    since: Instant,
    count: u32,
    held_back: u32,
}

impl<K: Eq + Hash> NoticeLimits<K> {
    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    /// Whether a notice is to be printed: then, how many of its kind were held back before it.
    pub(super) fn admit(&mut self, kind: K, now: Instant) -> Option<u32> {
        let printed = self.0.entry(kind).or_insert(Printed { since: now, count: 0, held_back: 0 });
        if now - printed.since > INTERVAL {
            (printed.since, printed.count) = (now, 0);
        }
        if printed.count == BURST {
            printed.held_back += 1;
            return None;
        }
        printed.count += 1;
        Some(std::mem::take(&mut printed.held_back))
    }

    /// How many notices were held back, and not reported since.
    pub(super) fn held_back(&self) -> u32 {
        self.0.values().map(|printed| printed.held_back).sum()
    }
}

/// The notice before one of whose kind some were held back.
pub(super) fn held_back_before(held_back: u32) -> Option<String> {
    (held_back > 0).then(|| format!("{held_back} notices like the next one were held back"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_notices_of_each_minute_are_printed_and_the_others_counted() {
        let (mut limits, began) = (NoticeLimits::new(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(limits.admit("lost", began), Some(0));
        }
        assert_eq!(limits.admit("lost", began + INTERVAL), None);
        assert_eq!(limits.admit("lost", began), None);
        assert_eq!(limits.admit("stalled", began), Some(0));
        assert_eq!(limits.held_back(), 2);
        let later = began + INTERVAL + Duration::from_secs(1);
        assert_eq!(limits.admit("lost", later), Some(2));
        assert_eq!(limits.admit("lost", later), Some(0));
        assert_eq!(limits.held_back(), 0);
    }
}
