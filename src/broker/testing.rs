//! What the property tests of the rooms share.
//!
//! Futures are polled by hand, so the test chooses each interleaving, and no clock runs.
//!
//! # Where a wake-up could be missed
//!
//! Each test interleaves the two sides by hand at every await: before the waiting side first runs,
//! between its check and its wait, while it waits, and when its wait is abandoned for another one
//! (as `select!` does) just as it is woken. The code between two awaits runs on one thread here;
//! loom, which could interleave that too, cannot see into tokio's `Notify` and `watch`.
//!
//! | what waits, and for what | how it could miss it, and why it does not |
//! |---|---|
//! | a standby with the permit, for a stream that takes over (`WaitQueue::take_over_waits`) | one joins between the check of the queue and the wait: the queue grows first, then `Notify` keeps the wake-up |
//! | the next stream in the queue, for the permit (`Permit::drop`) | the permit is sent to a stream that has just gone: it comes back, and the next one gets it |
//! | a standby with the permit, for another broker to release the lease (`Waiter::released_elsewhere`) | the notification comes after the lock was refused and before the wait: `Notify` keeps the wake-up |
//! | the session keeper, for leases to check (`Leases::next_scopes`) | the set is emptied, then filled again before the next wait: it is filled first, then `Notify` keeps the wake-up |
//! | a stream at the head, for more messages (`LogReader::head`) | the head moves during the read: the known head is noted before the read |
//! | a reader that joins a topic (`Observation::join`) | the head moves between the read of the ends and the joining: the first read of messages comes after both |
//! | a stream that a head wakes, for the batch (`TopicLogs::batch_stored`) | the batch is not cached yet: it is cached before the head moves |
//! | readers at the same offset, for one of them to read (`LogReader::begin_read`) | its batches are not cached yet: it shares them before it drops the read permit |
//! | a stream with as many messages in flight as it may have, for a commit (`Lease::committed_beyond`) | a commit comes between the check and the wait: the wait is for a position beyond the one that was checked |
//! | a stream, for a change of its lease (`Lease::event`) | a seek or an end comes while it does something else: the wait is for a state, not for a change |
//! | a stream or a pull, for the deletion of its topic (`LogReader::deleted`) | the topic is deleted while it reads: the token stays cancelled |
//! | the sender of notifications (`Outbox::wait`) | one is added between taking them and the next wait: it is added first, then `Notify` keeps the wake-up |
//!
//! Not tested here, as their other side is the database: `poll_now`, which is notified once the
//! session listens, so that the poll reads after `LISTEN`, and once a topic is said to be deleted;
//! and a lease that is changed between the
//! beginning of its epoch and its registration as active, which only the keeper's poll finds.

pub(crate) mod at_once;
pub(crate) mod by_hand;
pub(crate) mod log;

use std::fmt::Debug;

use proptest::{
    strategy::Strategy,
    test_runner::{Config, TestRunner},
};

/// Checks a property against `cases` arbitrary values, and reports the smallest counterexample.
pub(crate) fn check<S: Strategy<Value: Debug>>(cases: u32, values: S, property: impl Fn(S::Value)) {
    let config = Config {
        cases,
        // A counterexample becomes a test of its own rather than a file beside the sources.
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
