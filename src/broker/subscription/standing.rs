//! How a subscription stands: what is left to do, and who works on it.

use std::time::Duration;

use crate::{
    broker::subscription::{deliveries::Outstanding, request::Limit, settled::Settled},
    model::{ConsumerId, LogEnds, Offset, OffsetRange, TopicId, TopicName},
};

/// What is left of a subscription's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many messages of the log are not acknowledged and not parked.
    pub unacknowledged: u64,
    /// The oldest of them.
    pub oldest: Option<Offset>,
    /// How many messages were removed from the log before they were acknowledged, since the last seek.
    pub lost: u64,
}

/// Messages that have rows, to be delivered again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Retried {
    /// How many of them are in the log.
    pub kept: u64,
    /// The oldest of those.
    pub oldest: Option<Offset>,
    /// How many were removed from the log.
    pub removed: u64,
}

/// Who works on a subscription's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Working {
    /// What workers have.
    pub outstanding: Outstanding,
    /// How many workers wait for messages or have some.
    pub workers: usize,
    /// What keeps messages that wait from being delivered to any worker.
    pub stalled_by: Option<Limit>,
}

/// How a subscription stands, as its owner knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub topic: TopicId,
    pub backlog: Backlog,
    pub working: Working,
}

/// What is left of a subscription that this broker owns.
#[derive(Clone, Debug)]
pub struct Owned {
    /// Its topic.
    pub topic: TopicName,
    /// Its id.
    pub subscription: ConsumerId,
    /// What is left.
    pub backlog: Backlog,
    /// For how long the oldest message that is not acknowledged has been stored; zero if there is none, and
    /// `None` if that is not known.
    pub oldest_age: Option<Duration>,
}

impl Backlog {
    /// What is left of a log; `lost` is what was counted when messages before the floor were removed.
    pub(crate) fn of(settled: &Settled, ends: LogEnds, retried: Retried, lost: u64) -> Self {
        let LogEnds { start, head } = ends;
        let open = |start, end| settled.open(OffsetRange { start, end });
        let count = |start, end| open(start, end).map(|range| range.count() as u64).sum::<u64>();
        let first = open(start, head).next().map(|range| range.start);
        Self {
            unacknowledged: count(start, head) + retried.kept,
            oldest: first.into_iter().chain(retried.oldest).min(),
            // Those that no owner has noticed yet.
            lost: lost + count(settled.floor(), start.min(head)) + retried.removed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_what_is_open_in_the_log_and_what_is_retried() {
        let mut settled = Settled::before(Offset(10));
        settled.settle(OffsetRange { start: Offset(12), end: Offset(20_000) });
        let ends = |start, head| LogEnds { start: Offset(start), head: Offset(head) };
        let retried = Retried { kept: 2, oldest: Some(Offset(7)), removed: 0 };
        let backlog = Backlog::of(&settled, ends(0, 20_005), retried, 0);
        assert_eq!(backlog, Backlog { unacknowledged: 9, oldest: Some(Offset(7)), lost: 0 });
        let retried = Retried { kept: 1, oldest: Some(Offset(500)), removed: 1 };
        let backlog = Backlog::of(&settled, ends(11, 20_000), retried, 3);
        assert_eq!(backlog, Backlog { unacknowledged: 2, oldest: Some(Offset(11)), lost: 5 });
        let backlog = Backlog::of(&settled, ends(20_003, 20_003), Retried::default(), 0);
        assert_eq!(backlog, Backlog { unacknowledged: 0, oldest: None, lost: 5 });
    }

    #[test]
    fn nothing_is_left_of_a_log_that_ends_before_the_floor() {
        let ends = LogEnds { start: Offset(0), head: Offset(4) };
        let backlog = Backlog::of(&Settled::before(Offset(9)), ends, Retried::default(), 0);
        assert_eq!(backlog, Backlog::default());
    }
}
