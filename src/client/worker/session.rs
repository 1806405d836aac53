//! What one stream has brought, until it is settled.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::{
    extending::Extending,
    job::{Job, Verdict},
    settling::Settling,
    stream::Requests,
};
use crate::proto::{Settled, SubscriptionAttached};

/// How many requests may be unanswered before verdicts gather.
const WINDOW: i64 = 8;

/// A stream's messages.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) requests: Requests,
    /// Messages whose handlers have not begun.
    queue: VecDeque<Job>,
    settling: Settling,
    extending: Extending,
    delivering: Delivering,
    /// Whether no message came since there was nothing more to deliver.
    is_caught_up: bool,
}

/// Whether the broker delivers messages.
#[derive(Debug, PartialEq, Eq)]
enum Delivering {
    On,
    /// It is to be asked for no more.
    StopWanted,
    Stopped,
}

impl Session {
    pub(super) fn new(requests: Requests) -> Self {
        Self {
            requests,
            queue: VecDeque::new(),
            settling: Settling::default(),
            extending: Extending::default(),
            delivering: Delivering::On,
            is_caught_up: false,
        }
    }

    pub(super) fn record_attached(&mut self, attached: &SubscriptionAttached) {
        self.extending.set_policy(&attached.policy.clone().unwrap_or_default());
    }

    pub(super) fn record_caught_up(&mut self) {
        self.is_caught_up = true;
    }

    pub(super) fn record_settled(&mut self, settled: &Settled) {
        self.requests.record_answer(settled.request_id);
    }

    /// Enqueues the first `limit` messages, and gives the others back; returns how many are enqueued.
    pub(super) fn accept(&mut self, jobs: Vec<Job>, limit: usize) -> usize {
        self.is_caught_up = false;
        let (now, before) = (Instant::now(), self.queue.len());
        for job in &jobs {
            self.extending.add(job.delivery(), job.offset, now);
        }
        self.queue.extend(jobs);
        let given_back = self.queue.split_off(self.queue.len().min(before.saturating_add(limit)));
        self.give_back(given_back);
        self.queue.len() - before
    }

    /// The next message to work on.
    pub(super) fn next_job(&mut self) -> Option<Job> {
        self.queue.pop_front()
    }

    /// How many messages wait for a handler.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Records what becomes of a message.
    pub(super) fn conclude(&mut self, delivery: i64, offset: i64, verdict: Verdict) {
        self.extending.remove(delivery, offset);
        self.settling.add(delivery, offset, verdict);
    }

    /// Asks the broker for no more messages.
    pub(super) fn stop_delivery(&mut self) {
        if self.delivering == Delivering::On {
            self.delivering = Delivering::StopWanted;
        }
    }

    /// Gives back, for another worker, whatever has not begun.
    pub(super) fn give_back_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.queue);
        self.give_back(waiting);
    }

    fn give_back(&mut self, jobs: VecDeque<Job>) {
        for job in jobs {
            self.conclude(job.delivery(), job.offset, Verdict::Release);
        }
    }

    /// Whether all messages are settled and the broker was asked for no more; or, if that is enough, had
    /// no more to deliver.
    pub(super) fn is_over(&self, until_caught_up: bool) -> bool {
        let gets_no_more =
            self.delivering == Delivering::Stopped || until_caught_up && self.is_caught_up;
        gets_no_more
            && self.extending.is_empty()
            && self.settling.is_empty()
            && self.requests.unanswered() == 0
    }

    /// When deadlines are to be extended, if that is not due yet.
    pub(super) fn extend_at(&mut self, now: Instant) -> Option<Instant> {
        self.extending.next().filter(|at| *at > now)
    }

    /// Whether there is something to send. Deadlines do not wait for answers.
    pub(super) fn has_request(&mut self, now: Instant) -> bool {
        let may_settle = self.requests.unanswered() < WINDOW;
        self.delivering == Delivering::StopWanted
            || self.extending.next().is_some_and(|at| at <= now)
            || may_settle && !self.settling.is_empty()
    }

    /// Sends one request.
    pub(super) fn send(&mut self, now: Instant) {
        if self.delivering == Delivering::StopWanted {
            self.delivering = Delivering::Stopped;
            return self.requests.stop_delivery();
        }
        let extensions = self.extending.take(now);
        let settlements = match extensions.is_empty() {
            true => self.settling.take(),
            false => extensions,
        };
        if !settlements.is_empty() {
            self.requests.settle(settlements);
        }
    }
}
