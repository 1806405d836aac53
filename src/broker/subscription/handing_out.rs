//! Hands messages to the workers that wait for them: first those that are due again, then new ones.

mod standing;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::{
    broker::{
        budget::Hold,
        consume::delivery::Delivery as Reading,
        error::Error,
        log::{
            messages::{FrameLimits, Messages},
            topics::LogReader,
        },
        subscription::{
            delays,
            deliveries::DeliveryId,
            gathering::Gathered,
            limits::{Allowance, allowance},
            reads::{MAX_WANTED, Next, Outcome, Reads},
            receivers::{Receiver, Worker},
            request::{Delivery, Idle, Limit, Received, Settlement},
            state::State,
        },
    },
    model::{Filter, MessageRef, Offset, OffsetRange, TopicName},
};

/// How many messages may be delivered again. Beyond that, no new ones are handed out until some are settled.
pub(super) const MAX_EXCEPTIONS: usize = 200_000;

/// How many rows may wait to be stored. Beyond that, no new messages are handed out until some are: one write
/// stores them all, and others wait for it.
const MAX_UNSTORED_ROWS: usize = 20_000;

/// How many workers are answered, and how many messages are left out or delayed, before the owner looks for
/// what else it has to do.
const MAX_ANSWERS: usize = 16;
const MAX_LEFT_OUT: usize = 10_000;

/// How long to wait before a failed read is tried again, and how long streams wait for one that succeeds.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const FAILING_TIMEOUT: Duration = Duration::from_secs(5);

/// The messages of a subscription, and the workers that wait for them.
pub(super) struct Handout {
    reading: Arc<Reading>,
    reads: Reads,
    head: watch::Receiver<Offset>,
    pub state: State,
    pub receivers: VecDeque<Receiver>,
    /// Whether more can be handed out at once.
    has_more: bool,
    /// Whether messages wait for a larger reservation to be stored.
    is_reserving: bool,
    /// How many messages the filter has left out, and how many were delayed, in this pass.
    left_out: usize,
    /// Whether rows must be stored before more can be handed out.
    waits_for_write: bool,
    /// What was due then was offered to all who wait.
    offered_at: Option<Instant>,
    failing: Option<Failing>,
}

/// Reads that fail.
#[derive(Clone, Copy)]
struct Failing {
    since: Instant,
    retry_at: Instant,
}

/// What wakes an owner that hands out messages.
pub(super) enum Woken {
    Read(Outcome),
    HeadMoved,
    HasMore,
}

/// What there is for a worker.
enum Found {
    Deliveries(Gathered),
    Idle(Idle),
    /// It is being read or reserved, or looked for in the next pass.
    Reading,
}

fn matches(filter: &Filter, message: &MessageRef<'_>) -> bool {
    let headers = message.headers.map(|headers| headers.entries());
    filter.matches(|name| headers.and_then(|headers| headers.get(name)).map(String::as_str))
}

impl Handout {
    pub(super) fn new(
        reading: Arc<Reading>,
        topic: TopicName,
        log: Arc<LogReader>,
        state: State,
        floor: Offset,
    ) -> Self {
        let head = log.head.clone();
        let reads = Reads::new(reading.clone(), topic, log, floor);
        let receivers = VecDeque::new();
        Self {
            reading,
            reads,
            head,
            state,
            receivers,
            has_more: false,
            is_reserving: false,
            left_out: 0,
            waits_for_write: false,
            offered_at: None,
            failing: None,
        }
    }

    /// The offset that the topic's next message gets.
    pub(super) fn head(&self) -> Offset {
        *self.head.borrow()
    }

    /// Carries verdicts out; returns how many messages each applied to.
    pub(super) fn settle(&mut self, settlements: &[Settlement], now: Instant) -> Vec<usize> {
        // A delivery ends at its deadline, and not when somebody looks.
        self.state.expire(now);
        settlements.iter().map(|settlement| self.state.settle(settlement, now)).collect()
    }

    /// Answers workers that have waited for long enough, and forgets those that have gone.
    pub(super) fn answer_late(&mut self, now: Instant) {
        let is_looking = self.is_looking();
        let is_over = |receiver: &Receiver| {
            receiver.reply.is_closed()
                || receiver.answered_at(is_looking).is_some_and(|at| at <= now)
        };
        if !self.receivers.iter().any(is_over) {
            return;
        }
        let head = self.head();
        for receiver in std::mem::take(&mut self.receivers) {
            match is_over(&receiver) {
                true => drop(receiver.answer(Ok(Received { head, ..Received::default() }))),
                false => self.receivers.push_back(receiver),
            }
        }
    }

    /// Whether it is not known yet what there is for everyone who waits.
    fn is_looking(&self) -> bool {
        self.reads.is_under_way()
            || self.has_more
            || self.waits_for_write
            || self.is_reserving
            || self.failing.is_some()
    }

    /// Hands out what there is, to those who have waited the longest.
    pub(super) fn hand_out(&mut self, now: Instant) {
        (self.has_more, self.left_out) = (false, 0);
        (self.waits_for_write, self.is_reserving) = (false, false);
        if self.failing.is_some_and(|failing| failing.retry_at > now) {
            return;
        }
        let (mut index, mut answers) = (0, 0);
        while index < self.receivers.len() && !self.reads.is_under_way() {
            if answers == MAX_ANSWERS {
                self.has_more = true;
                return;
            }
            let found = match self.receivers[index].reply.is_closed() {
                true => None,
                false => Some(self.find(index, now)),
            };
            match found {
                None => drop(self.receivers.remove(index)),
                Some(Found::Deliveries(gathered)) => {
                    self.deliver(index, gathered, now);
                    answers += 1;
                }
                Some(Found::Idle(idle)) if self.receivers[index].worker.wants_to_know(idle) => {
                    self.say_idle(index, idle);
                }
                Some(Found::Idle(_)) => index += 1,
                Some(Found::Reading) => return,
            }
        }
        if !self.reads.is_under_way() {
            (self.offered_at, self.failing) = (Some(now), None);
            if self.state.next_due().is_none_or(|due| due > now) {
                self.reads.forget_again();
            }
        }
    }

    /// Refuses messages to all who wait for some.
    pub(super) fn refuse_all(&mut self, error: &Error) {
        for receiver in self.receivers.drain(..) {
            // One that has gone does not receive it.
            let _ = receiver.answer(Err(error.clone()));
        }
    }

    fn find(&mut self, index: usize, now: Instant) -> Found {
        let Receiver { worker, max_messages, .. } = self.receivers[index];
        if !self.has_waiting(now) {
            return Found::Idle(Idle::CaughtUp);
        }
        let allowance = match self.allowance(worker) {
            Ok(allowance) => allowance,
            Err(limit) => return Found::Idle(Idle::Stalled(limit)),
        };
        if self.state.reserved_end(now).is_none() {
            self.is_reserving = true;
            return Found::Reading;
        }
        let mut gathered = Gathered::new(worker.id(), max_messages, allowance);
        let stopped = match self.gather_again(&mut gathered, now) {
            None => self.gather_new(&mut gathered, now),
            stopped => stopped,
        };
        match stopped {
            _ if !gathered.is_empty() => Found::Deliveries(gathered),
            Some(found) => found,
            None => Found::Idle(Idle::CaughtUp),
        }
    }

    /// Gathers messages that are delivered again. Returns why it stopped, if there are more.
    fn gather_again(&mut self, gathered: &mut Gathered, now: Instant) -> Option<Found> {
        let due = self.state.due(now, gathered.messages_left());
        let mut due = &due[..];
        while let Some(&first) = due.first() {
            let Some(batch) = self.reads.batch_of(first) else {
                if gathered.is_empty() {
                    // Also for those that follow.
                    let more = self.state.due(now, MAX_WANTED);
                    self.reads.begin_again(due.iter().copied().chain(more));
                }
                return Some(Found::Reading);
            };
            // As many as follow each other in this batch.
            let follow = due.iter().zip(first.0..batch.end().0);
            let count = follow.take_while(|(due, next)| due.0 == *next).count();
            let Some(messages) = gathered.fit_of(batch, first, count) else {
                return Some(Found::Idle(Idle::Stalled(gathered.bytes_limit())));
            };
            due = &due[messages.count()..];
            gathered.add(messages, &mut self.state);
        }
        None
    }

    /// Gathers messages that were never handed out. Returns why it stopped, if there are more.
    fn gather_new(&mut self, gathered: &mut Gathered, now: Instant) -> Option<Found> {
        while gathered.messages_left() > 0 {
            let range = self.next_new()?;
            if self.left_out >= MAX_LEFT_OUT {
                self.has_more = true;
                return Some(Found::Reading);
            }
            if self.state.unstored_rows() >= MAX_UNSTORED_ROWS {
                // They are stored next, and the owner is woken when they are.
                self.waits_for_write = true;
                return Some(Found::Reading);
            }
            if self.state.exceptions() >= MAX_EXCEPTIONS {
                return Some(Found::Idle(Idle::Stalled(Limit::Retried)));
            }
            let reserved = self.state.reserved_end(now).filter(|end| range.start < *end);
            let Some(reserved) = reserved else {
                self.is_reserving = true;
                return Some(Found::Reading);
            };
            let limits = gathered.limits();
            let limits = FrameLimits { end: limits.end.min(reserved), ..limits };
            match self.reads.next_new(range, limits) {
                Next::Messages(messages)
                    if self.skip_filtered(&messages) || self.delay(&messages) => {}
                Next::Messages(messages) if gathered.has_room_for(&messages) => {
                    gathered.add(messages, &mut self.state);
                }
                Next::Messages(_) => {
                    return Some(Found::Idle(Idle::Stalled(gathered.bytes_limit())));
                }
                Next::Unread => {
                    if gathered.is_empty() {
                        self.reads.begin_new(range);
                    }
                    return Some(Found::Reading);
                }
                Next::Nothing => return None,
            }
        }
        None
    }

    /// Skips messages that the filter leaves out. Returns false if it leaves none out, or there is no
    /// filter.
    fn skip_filtered(&mut self, messages: &Messages) -> bool {
        let Some(filter) = self.state.policy().filter.clone() else { return false };
        let before = self.left_out;
        for message in messages.iter().filter(|message| !matches(&filter, message)) {
            self.left_out += 1;
            self.state.leave_out(message.offset);
        }
        self.left_out > before
    }

    /// Has messages wait whose time has not come. Returns false if there are none.
    fn delay(&mut self, messages: &Messages) -> bool {
        let room = MAX_EXCEPTIONS.saturating_sub(self.state.exceptions());
        let delayed = delays::delay(messages, &mut self.state, room);
        self.left_out += delayed;
        delayed > 0
    }

    /// The next messages that were never handed out.
    fn next_new(&self) -> Option<OffsetRange> {
        self.state.next_new(self.head()).filter(|range| !self.reads.found_nothing(*range))
    }

    /// Whether there are messages that could be handed out, if workers have room for them.
    fn has_waiting(&self, now: Instant) -> bool {
        self.state.next_due().is_some_and(|due| due <= now) || self.next_new().is_some()
    }

    /// Answers a receiver with messages.
    fn deliver(&mut self, index: usize, gathered: Gathered, now: Instant) {
        let Some(mut receiver) = self.receivers.remove(index) else { return };
        let (deliveries, bytes) = gathered.into_deliveries();
        let room = match &receiver.answers {
            None => Ok(None),
            Some(share) => match share.try_hold(bytes) {
                Some(room) => Ok(Some(room)),
                None => Err(Error::AnswersUnread { limit: share.most() }),
            },
        };
        let ids: Vec<DeliveryId> = deliveries.iter().map(|it| DeliveryId(it.id)).collect();
        let unsent = receiver.unsent.take().map(|unsent| unsent.of(ids.clone()));
        let answer = room.map(|room| {
            let received = self.received(receiver.worker, deliveries, room);
            Received { unsent, ..received }
        });
        let is_refused = answer.is_err();
        if !receiver.answer(answer) || is_refused {
            // Nobody has them. Those who were found to get nothing may want them.
            ids.into_iter().for_each(|id| self.state.take_back(id, now));
            self.has_more = true;
        }
    }

    fn received(&self, worker: Worker, deliveries: Vec<Delivery>, room: Option<Hold>) -> Received {
        let traffic = &self.reading.metrics.traffic;
        for Delivery { messages, .. } in &deliveries {
            traffic.count_consumed(self.reads.log().topic(), messages.count(), messages.bytes());
        }
        let outstanding = self.state.outstanding_of(worker.id());
        let head = self.head();
        Received { deliveries, head, room, idle: None, outstanding, unsent: None }
    }

    /// Tells a receiver why it gets no messages.
    fn say_idle(&mut self, index: usize, idle: Idle) {
        let Some(receiver) = self.receivers.remove(index) else { return };
        let received = self.received(receiver.worker, Vec::new(), None);
        // One that has gone lacks nothing.
        let _ = receiver.answer(Ok(Received { idle: Some(idle), ..received }));
    }

    /// Waits for a read to finish, or for new messages if somebody waits for them.
    pub(super) async fn woken(&mut self) -> Woken {
        let Self { reads, head, receivers, has_more, .. } = self;
        if *has_more {
            return Woken::HasMore;
        }
        tokio::select! {
            outcome = reads.finished() => Woken::Read(outcome),
            // Cannot fail: the sender lives as long as the reader.
            Ok(()) = head.changed(), if !receivers.is_empty() => Woken::HeadMoved,
            else => std::future::pending().await,
        }
    }

    /// Records what woke the owner.
    pub(super) fn wake(&mut self, woken: Woken) {
        match woken {
            Woken::HasMore => {}
            Woken::HeadMoved => self.reads.head_moved(),
            Woken::Read(outcome) => match self.reads.conclude(outcome, &mut self.state) {
                Ok(()) => self.failing = None,
                Err(error) => self.fail(error, Instant::now()),
            },
        }
    }

    /// Answers calls that a read has failed. Streams wait for the next try, unless it has failed for long:
    /// when they end, their workers lose all that they have.
    fn fail(&mut self, error: Error, now: Instant) {
        let error = error.logged("read messages of a subscription");
        let since = self.failing.map_or(now, |failing| failing.since);
        self.failing = Some(Failing { since, retry_at: now + RETRY_PAUSE });
        let may_pass = matches!(error, Error::DatabaseUnavailable(_));
        let streams_wait = may_pass && now - since < FAILING_TIMEOUT;
        for receiver in std::mem::take(&mut self.receivers) {
            match receiver.worker {
                Worker::Stream { .. } if streams_wait => self.receivers.push_back(receiver),
                _ => drop(receiver.answer(Err(error.clone()))),
            }
        }
    }

    /// How much a worker can be given now.
    fn allowance(&self, worker: Worker) -> Result<Allowance, Limit> {
        let has = self.state.outstanding_of(worker.id());
        allowance(worker, has, self.state.policy(), self.state.outstanding())
    }

    /// When something is to be done although nobody asks.
    pub(super) fn next_event(&self) -> Option<Instant> {
        let is_looking = self.is_looking();
        let late = self.receivers.iter().filter_map(|receiver| receiver.answered_at(is_looking));
        // What is due cannot be handed out while workers have too much, or are told why they get nothing. A
        // settlement changes that. What is being read is handed out after that.
        let can_hand_out = !is_looking && self.has_eager();
        let due = match self.offered_at {
            Some(time) => self.state.next_due_after(time),
            None => self.state.next_due(),
        };
        let due = due.filter(|_| can_hand_out);
        let retry = self.failing.filter(|_| !self.reads.is_under_way());
        let retry = retry.map(|failing| failing.retry_at);
        [self.state.next_deadline(), due, late.min(), retry].into_iter().flatten().min()
    }

    /// Whether somebody waits who has room for messages.
    fn has_eager(&self) -> bool {
        self.receivers.iter().any(|receiver| self.allowance(receiver.worker).is_ok())
    }

    /// Whether workers have messages, or wait for some.
    pub(super) fn is_busy(&self) -> bool {
        !self.receivers.is_empty() || self.state.outstanding().messages > 0
    }
}
