//! The broker's parts that need no database, driven through arbitrary sequences of what may happen
//! to them, and held against what they promise.
//!
//! Futures are polled by hand, so each interleaving is one that was chosen, and no clock runs.

mod at_once;
mod batcher;
mod by_hand;
mod delivery;
mod fan_out;
mod leases;
mod log;
mod wake_ups;

use std::fmt::Debug;

use proptest::{
    strategy::Strategy,
    test_runner::{Config, TestRunner},
};

/// Holds a property against so many arbitrary values, and tells the smallest one found that it
/// does not hold for.
fn check<S: Strategy<Value: Debug>>(cases: u32, values: S, property: impl Fn(S::Value)) {
    let config = Config {
        cases,
        // What was found belongs in a test of its own, not in a file beside the sources.
        failure_persistence: None,
        max_shrink_time: 10_000,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&values, |value| {
        property(value);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
