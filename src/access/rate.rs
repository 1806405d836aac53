//! How fast a principal may publish.
//!
//! A rate permits bursts of one second. A request passes as long as something is left, however much
//! it takes: what it takes too much is owed, and what follows waits until that is made up for. So a
//! request of any size is possible, and large ones are not passed over for small ones.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock, Reference as _},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{NotKeyed, StateStore},
};

use crate::model::{Allowance, Limit};

/// The finest steps in which a rate is made up for.
const STEPS_PER_SECOND: u64 = 1_000_000;

const NANOSECONDS: u128 = 1_000_000_000;

/// A limit that a principal has used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UsedUp {
    pub limit: Limit,
    pub value: u64,
    /// When something will be left.
    pub wait: Duration,
}

/// The rates of a principal.
pub(crate) struct Rates<C: Clock = MonotonicClock> {
    messages: Option<Rate<C>>,
    bytes: Option<Rate<C>>,
}

/// A rate, and how much of it is used.
struct Rate<C: Clock> {
    limit: Limit,
    per_second: u64,
    limiter: RateLimiter<NotKeyed, Arrival, C, NoOpMiddleware<C::Instant>>,
    arrival: Arrival,
    clock: C,
    /// The limiter's start, but for the moment that it took to make it.
    start: C::Instant,
    /// What the limiter takes for a step.
    step: u64,
    /// How far ahead the arrival may be while something is left.
    tolerance: u64,
}

/// The time by which everything that was taken is made up for, which the limiter counts from its
/// start in nanoseconds. Shared with the limiter, so that more than it has can be taken of it.
#[derive(Clone, Default)]
struct Arrival(Arc<AtomicU64>);

impl StateStore for Arrival {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            let (outcome, after) = decide((before > 0).then(|| before.into()))?;
            let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
            match self.0.compare_exchange_weak(before, after.into(), success, failure) {
                Ok(_) => return Ok(outcome),
                Err(changed) => before = changed,
            }
        }
    }
}

impl Arrival {
    /// Moves the time; a wish beyond the end of time moves it there.
    fn shift(&self, later: u64, earlier: u64) {
        let shifted = |arrival: u64| Some(arrival.saturating_add(later).saturating_sub(earlier));
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        // Cannot fail, as `shifted` always yields a time.
        let _ = self.0.fetch_update(success, failure, shifted);
    }
}

impl Rates {
    /// The rates of an allowance; `None` if it has none.
    pub(crate) fn new(allowance: &Allowance) -> Option<Self> {
        Self::with_clock(allowance, &MonotonicClock)
    }
}

impl<C: Clock + Clone> Rates<C> {
    fn with_clock(allowance: &Allowance, clock: &C) -> Option<Self> {
        let rate = |limit| Some(Rate::new(limit, allowance.get(limit)?, clock.clone()));
        let rates =
            Self { messages: rate(Limit::MessagesPerSecond), bytes: rate(Limit::BytesPerSecond) };
        (rates.messages.is_some() || rates.bytes.is_some()).then_some(rates)
    }

    /// Whether something is left of each rate.
    pub(crate) fn check(&self) -> Result<(), UsedUp> {
        self.each().try_for_each(Rate::check)
    }

    /// Takes what a request needs if something is left of each rate, and otherwise nothing. Requests
    /// that are checked at the same moment may all take what is left: each owes what it takes.
    pub(crate) fn take(&self, messages: usize, bytes: usize) -> Result<(), UsedUp> {
        self.check()?;
        self.charge(messages, bytes);
        Ok(())
    }

    /// Takes what a request needs, whatever is left.
    pub(crate) fn charge(&self, messages: usize, bytes: usize) {
        if let Some(rate) = &self.messages {
            rate.charge(messages);
        }
        if let Some(rate) = &self.bytes {
            rate.charge(bytes);
        }
    }

    /// Whether something is owed, so that the rates must be remembered.
    pub(crate) fn are_used(&self) -> bool {
        self.check().is_err()
    }

    fn each(&self) -> impl Iterator<Item = &Rate<C>> {
        self.messages.iter().chain(&self.bytes)
    }
}

impl<C: Clock + Clone> Rate<C> {
    fn new(limit: Limit, per_second: u64, clock: C) -> Self {
        let steps = u32::try_from(per_second.clamp(1, STEPS_PER_SECOND)).ok();
        let steps = steps.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(steps);
        let step = quota.replenish_interval().as_nanos() as u64;
        let tolerance = step * u64::from(steps.get() - 1);
        let arrival = Arrival::default();
        let start = clock.now();
        let limiter = RateLimiter::new(quota, arrival.clone(), clock.clone());
        Self { limit, per_second, limiter, arrival, clock, start, step, tolerance }
    }

    /// Whether something is left. It only reads, as what was taken for a moment could refuse another
    /// request.
    fn check(&self) -> Result<(), UsedUp> {
        let Self { limit, per_second: value, .. } = *self;
        let now = self.clock.now().duration_since(self.start).as_u64();
        let arrival = self.arrival.0.load(Ordering::Relaxed);
        match arrival.saturating_sub(self.tolerance).saturating_sub(now) {
            0 => Ok(()),
            wait => Err(UsedUp { limit, value, wait: Duration::from_nanos(wait) }),
        }
    }

    fn charge(&self, amount: usize) {
        let later = self.time_of(amount);
        if later == 0 {
            return;
        }
        match self.limiter.check() {
            Ok(()) => self.arrival.shift(later, self.step),
            // The time is in the future already.
            Err(_) => self.arrival.shift(later, 0),
        }
    }

    /// How long it takes to make up for an amount.
    fn time_of(&self, amount: usize) -> u64 {
        let time = amount as u128 * NANOSECONDS / u128::from(self.per_second.max(1));
        u64::try_from(time).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;
    use proptest::prelude::*;

    use super::*;

    fn rates(limits: &[(Limit, u64)]) -> (Rates<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        // The limiter's start is not the clock's.
        clock.advance(Duration::from_secs(7));
        let with =
            |allowance: Allowance, &(limit, value): &(Limit, u64)| allowance.with(limit, value);
        let allowance = limits.iter().fold(Allowance::default(), with);
        (Rates::with_clock(&allowance, &clock).unwrap(), clock)
    }

    fn wait(outcome: Result<(), UsedUp>) -> u64 {
        outcome.unwrap_err().wait.as_micros() as u64
    }

    #[test]
    fn an_allowance_without_rates_has_none() {
        let streams = Allowance::default().with(Limit::Streams, 1);
        assert!(Rates::new(&streams).is_none());
    }

    #[test]
    fn what_a_second_permits_passes_at_once_and_then_in_steps() {
        let (rates, clock) = rates(&[(Limit::MessagesPerSecond, 10)]);
        for _ in 0..10 {
            rates.check().unwrap();
            rates.take(1, 1_000_000).unwrap();
        }
        let refused = rates.take(1, 0).unwrap_err();
        assert_eq!((refused.limit, refused.value), (Limit::MessagesPerSecond, 10));
        assert_eq!(refused.wait, Duration::from_millis(100));
        clock.advance(refused.wait);
        rates.take(1, 0).unwrap();
        assert_eq!(wait(rates.check()), 100_000);
        clock.advance(Duration::from_secs(60));
        for _ in 0..10 {
            rates.take(1, 0).unwrap();
        }
        assert_eq!(wait(rates.take(1, 0)), 100_000, "no more than a second's is kept");
    }

    #[test]
    fn a_request_of_any_size_passes_and_what_it_takes_too_much_is_owed() {
        let (rates, clock) = rates(&[(Limit::MessagesPerSecond, 10)]);
        rates.take(9, 0).unwrap();
        rates.take(101, 0).unwrap();
        assert!(rates.are_used());
        assert_eq!(wait(rates.take(1, 0)), 10_100_000);
        clock.advance(Duration::from_secs(10));
        assert_eq!(wait(rates.take(1, 0)), 100_000, "refusals take nothing");
        clock.advance(Duration::from_millis(100));
        rates.take(1, 0).unwrap();
        // Also if nobody asked meanwhile.
        rates.charge(20, 0);
        clock.advance(Duration::from_secs(60));
        assert!(!rates.are_used());
        rates.take(1, 0).unwrap();
    }

    #[test]
    fn both_rates_hold_and_a_refusal_by_one_takes_nothing_of_the_other() {
        let (rates, clock) =
            rates(&[(Limit::MessagesPerSecond, 2), (Limit::BytesPerSecond, 1_000)]);
        rates.take(1, 2_000).unwrap();
        for _ in 0..5 {
            assert_eq!(rates.take(1, 1).unwrap_err().limit, Limit::BytesPerSecond);
        }
        clock.advance(Duration::from_secs(2));
        rates.take(2, 0).unwrap();
        assert_eq!(rates.take(1, 0).unwrap_err().limit, Limit::MessagesPerSecond);
    }

    #[test]
    fn whoever_only_asks_takes_nothing_for_a_moment_either() {
        let (rates, _clock) = rates(&[(Limit::MessagesPerSecond, 2), (Limit::BytesPerSecond, 10)]);
        rates.take(1, 100).unwrap();
        let arrival = || rates.each().map(|rate| rate.arrival.0.load(Ordering::Relaxed));
        let before: Vec<_> = arrival().collect();
        assert!(rates.check().is_err() && rates.are_used());
        assert_eq!(rates.take(1, 1).unwrap_err().limit, Limit::BytesPerSecond);
        assert!(arrival().eq(before));
    }

    proptest! {
        /// Over any time, no more passes than the rate, a burst, and one request.
        #[test]
        fn a_rate_holds_in_the_long_run(
            per_second in prop_oneof![1_u64..100, 1_u64..10_000_000_000],
            requests in prop::collection::vec((1_usize..20_000_000, 0_u64..5_000), 1..50),
        ) {
            let (rates, clock) = rates(&[(Limit::BytesPerSecond, per_second)]);
            let (mut passed, mut elapsed, mut largest) = (0_u128, 0_u128, 0_u128);
            for (bytes, pause) in requests {
                clock.advance(Duration::from_millis(pause));
                elapsed += u128::from(pause);
                if rates.take(1, bytes).is_ok() {
                    passed += bytes as u128;
                    largest = largest.max(bytes as u128);
                }
                let permitted = u128::from(per_second) * (elapsed + 1_000) / 1_000;
                // Times are whole nanoseconds.
                prop_assert!(passed <= permitted + permitted / 1_000 + largest + 50);
            }
        }
    }
}
