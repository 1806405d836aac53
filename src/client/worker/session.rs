//! What one stream has brought, until it is settled.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::{
    extending::Extending,
    job::{Job, Verdict},
    settling::Settling,
    stream::Requests,
};
use crate::proto::{Settled, Settlement, SubscriptionAttached};

/// How many requests may be unanswered before verdicts gather.
const WINDOW: i64 = 8;

/// The number of a delivery that no worker has: those of brokers are far greater.
const NO_DELIVERY: i64 = 1;

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
    /// It has been asked, and is to be asked for an answer: messages that are on their way come before that.
    AnswerWanted,
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
        // Its deadline is extended until the verdict is sent, which may have to wait.
        self.settling.add(delivery, offset, verdict);
    }

    /// Whether the broker delivers messages to work on. Others that come are on their way since before.
    pub(super) fn takes_more(&self) -> bool {
        self.delivering == Delivering::On
    }

    /// Asks the broker for no more messages once it has had no more to deliver and all are settled.
    pub(super) fn stop_when_caught_up(&mut self) {
        if self.is_caught_up && self.is_settled() {
            self.stop_delivery();
        }
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

    /// Whether the broker was asked for no more messages, none is on its way, and all are settled.
    pub(super) fn is_over(&self) -> bool {
        self.delivering == Delivering::Stopped && self.is_settled()
    }

    fn is_settled(&self) -> bool {
        self.extending.is_empty() && self.settling.is_empty() && self.requests.unanswered() == 0
    }

    /// When deadlines are to be extended, if that is not due yet.
    pub(super) fn extend_at(&mut self, now: Instant) -> Option<Instant> {
        self.extending.next().filter(|at| *at > now)
    }

    /// Whether there is something to send. Deadlines do not wait for answers.
    pub(super) fn has_request(&mut self, now: Instant) -> bool {
        let may_settle = self.requests.unanswered() < WINDOW;
        matches!(self.delivering, Delivering::StopWanted | Delivering::AnswerWanted)
            || self.extending.next().is_some_and(|at| at <= now)
            || may_settle && !self.settling.is_empty()
    }

    /// Sends one request.
    pub(super) fn send(&mut self, now: Instant) {
        match self.delivering {
            Delivering::StopWanted => {
                self.delivering = Delivering::AnswerWanted;
                return self.requests.stop_delivery();
            }
            Delivering::AnswerWanted => {
                self.delivering = Delivering::Stopped;
                return self.requests.settle(vec![nothing()]);
            }
            Delivering::On | Delivering::Stopped => {}
        }
        let extensions = self.extending.take(now);
        let settlements = match extensions.is_empty() {
            true => {
                let Self { settling, extending, .. } = self;
                settling.take(|delivery, offset| extending.remove(delivery, offset))
            }
            false => extensions,
        };
        if !settlements.is_empty() {
            self.requests.settle(settlements);
        }
    }
}

/// A settlement that applies to no message, for its answer.
fn nothing() -> Settlement {
    let verdict = Some(Verdict::Release.into());
    Settlement { delivery: NO_DELIVERY, verdict, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        client::Message,
        proto::{
            self, DeliveryPolicy, SubscribeRequest, settlement::Verdict as ProtoVerdict,
            subscribe_request::Request,
        },
    };

    fn job(offset: i64) -> Job {
        let message = proto::Message { offset, ..Default::default() };
        Job::new(Message::from(message), 1, 7)
    }

    /// A session whose messages have a deadline of ten seconds, and what it sends.
    fn session() -> (Session, mpsc::Receiver<SubscribeRequest>) {
        let (sender, sent) = mpsc::channel(100);
        let mut session = Session::new(Requests::new(sender));
        let ack_deadline = Some(prost_types::Duration { seconds: 10, nanos: 0 });
        let policy = Some(DeliveryPolicy { ack_deadline, ..Default::default() });
        session.record_attached(&SubscriptionAttached { policy, ..Default::default() });
        (session, sent)
    }

    fn verdicts(sent: &mut mpsc::Receiver<SubscribeRequest>) -> Vec<ProtoVerdict> {
        match sent.try_recv().unwrap().request.unwrap() {
            Request::Settle(request) => {
                request.settlements.into_iter().map(|it| it.verdict.unwrap()).collect()
            }
            other => panic!("settlements expected, not {other:?}"),
        }
    }

    #[test]
    fn a_message_is_extended_until_its_verdict_is_sent() {
        let (mut session, mut sent) = session();
        let now = Instant::now();
        let count = WINDOW + 1;
        assert_eq!(session.accept((0..count).map(job).collect(), 100), count as usize);
        for offset in 0..WINDOW {
            session.conclude(7, offset, Verdict::Acknowledge);
            assert!(session.has_request(now));
            session.send(now);
            assert_eq!(verdicts(&mut sent), [ProtoVerdict::from(Verdict::Acknowledge)]);
        }
        session.conclude(7, WINDOW, Verdict::Acknowledge);
        assert!(!session.has_request(now), "it waits for answers");
        let later = now + std::time::Duration::from_secs(6);
        assert!(session.has_request(later));
        session.send(later);
        assert!(matches!(verdicts(&mut sent)[..], [ProtoVerdict::Extend(_)]));
        assert!(!session.has_request(later));
        session.record_settled(&Settled { request_id: 1, ..Default::default() });
        session.record_settled(&Settled { request_id: 2, ..Default::default() });
        assert!(session.has_request(later));
        session.send(later);
        assert_eq!(verdicts(&mut sent), [ProtoVerdict::from(Verdict::Acknowledge)]);
        assert_eq!(session.extend_at(later), None);
    }

    #[test]
    fn what_comes_after_there_was_nothing_more_is_given_back_before_the_end() {
        let (mut session, mut sent) = session();
        let now = Instant::now();
        session.stop_when_caught_up();
        assert!(session.takes_more(), "it is not caught up");
        session.record_caught_up();
        session.stop_when_caught_up();
        assert!(!session.takes_more());
        session.send(now);
        let stop = sent.try_recv().unwrap().request.unwrap();
        assert!(matches!(stop, Request::Stop(_)), "{stop:?}");
        session.send(now);
        assert_eq!(verdicts(&mut sent), [ProtoVerdict::from(Verdict::Release)]);
        assert!(!session.is_over(), "messages may be on their way");
        assert_eq!(session.accept(vec![job(3)], 0), 0);
        session.record_settled(&Settled { request_id: 1, ..Default::default() });
        assert!(!session.is_over() && session.has_request(now));
        session.send(now);
        assert_eq!(verdicts(&mut sent), [ProtoVerdict::from(Verdict::Release)]);
        session.record_settled(&Settled { request_id: 2, ..Default::default() });
        assert!(session.is_over());
    }
}
