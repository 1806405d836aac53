//! What is left to do, as the owner knows it, and what was lost.

use super::State;
use crate::{
    broker::subscription::{
        deliveries::WorkerId,
        standing::{Backlog, Retried},
    },
    model::LogEnds,
};

impl State {
    /// Counts on from what was lost before.
    pub(crate) fn continue_lost(&mut self, lost: u64) {
        self.lost = lost;
    }

    /// Counts messages that were removed before they were acknowledged. The total is stored, and not the
    /// difference, so that a write may be repeated.
    pub(super) fn count_lost(&mut self, messages: usize) {
        if messages > 0 {
            self.lost += messages as u64;
            self.unstored.lost = Some(self.lost);
        }
    }

    /// The workers that have messages.
    pub(crate) fn workers(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.deliveries.workers()
    }

    /// What is left to do.
    pub(crate) fn backlog(&self, ends: LogEnds) -> Backlog {
        let mut retried = Retried::default();
        for offset in self.exceptions.stored() {
            if offset < ends.start {
                retried.removed += 1;
            } else if offset < ends.head {
                retried.oldest = retried.oldest.or(Some(offset));
                retried.kept += 1;
            }
        }
        Backlog::of(&self.settled, ends, retried, self.lost)
    }
}
