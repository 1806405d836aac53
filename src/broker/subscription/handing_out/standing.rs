//! How a subscription stands, as its owner says it.

use std::collections::HashSet;

use tokio::time::Instant;

use super::{Handout, MAX_EXCEPTIONS};
use crate::{
    broker::subscription::{
        limits,
        request::Limit,
        standing::{Standing, Working},
    },
    model::LogEnds,
};

impl Handout {
    /// How the subscription stands.
    pub(in crate::broker::subscription) fn standing(&self, now: Instant) -> Standing {
        let ends = LogEnds { start: self.reads.log().start(), head: self.head() };
        let waiting = self.receivers.iter().filter(|it| !it.reply.is_closed());
        let workers: HashSet<_> =
            waiting.map(|it| it.worker.id()).chain(self.state.workers()).collect();
        Standing {
            topic: self.reads.log().topic(),
            backlog: self.state.backlog(ends),
            working: Working {
                outstanding: self.state.outstanding(),
                workers: workers.len(),
                stalled_by: self.stalled_by(now),
            },
        }
    }

    /// What keeps messages that wait from every worker, whatever room it has.
    fn stalled_by(&self, now: Instant) -> Option<Limit> {
        let has_due = self.state.next_due().is_some_and(|due| due <= now);
        if !self.has_waiting(now) {
            return None;
        }
        let is_full = !has_due && self.state.exceptions() >= MAX_EXCEPTIONS;
        limits::shared_limit(self.state.policy(), self.state.outstanding())
            .or(is_full.then_some(Limit::Retried))
    }
}
