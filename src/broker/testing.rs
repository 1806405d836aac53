//! What the rooms' property tests share.
//!
//! Futures are polled by hand, so each interleaving is one that was chosen, and no clock runs.
//!
//! # Where a wake-up could be missed
//!
//! Each test interleaves the two sides at every await by hand: before the waiting side first runs,
//! while it works between its check and its wait, while it waits, and when its wait was given up
//! for another (as `select!` does) just when it was woken. What lies between two awaits runs on one
//! thread here; loom, which could take that apart, cannot see into tokio's `Notify` and `watch`.
//!
//! | who waits, for what | what would miss it |
//! |---|---|
//! | a standby with the turn, for somebody urgent (`WaitQueue::take_over_waits`) | the look at the queue, then the wait: the queue grows first, then `Notify` keeps a permit |
//! | the next in line, for the turn (`Permit::drop`) | the turn is sent to one who has just gone: it comes back and goes on |
//! | a standby with the turn, for another broker to let go (`Waiter::freed_elsewhere`) | the hint comes after the lock was refused and before the wait: a permit is kept |
//! | the keeper, for leases to look at (`Leases::looked_for`) | the set is emptied, then filled again before the next wait: it is filled first, then a permit is kept |
//! | a stream at its topic's end (`LogReader::head`) | the head moves during the read: it is noted before the read |
//! | a reader that joins a topic (`TopicLogs::subscribe`) | the head moves between the read of the ends and the joining: the first read comes after it |
//! | a stream that is woken by a head (`TopicLogs::batch_stored`) | the batch is not there yet: it is kept before the head moves |
//! | streams at one place of a log (`LogReader::begin_read`) | what was read is not there yet: it is shared before the place is given up |
//! | a stream with all that it may have under way (`Lease::committed_beyond`) | a commit comes between the look at the room and the wait: the wait is for more than what was looked at |
//! | a stream, for news of its lease (`Lease::news`) | a seek or an end comes while it does something else: the wait is for a state, not for a change |
//! | a stream or a pull, for its topic's end (`LogReader::gone`) | the topic is deleted while it reads: the token stays cancelled |
//! | the sender of hints (`Outbox::some`) | something is told between the taking and the next wait: it is there first, then a permit is kept |
//!
//! Not here, as their other side is the database: `poll_now`, which is notified after the session
//! listens, so that the poll's read comes after `LISTEN`; and a lease that is changed between the
//! beginning of its epoch and its entry in the slot, which only the keeper's poll finds.

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
        // A counterexample becomes a test of its own, not a file beside the sources.
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
