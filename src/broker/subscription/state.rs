//! What the owner of a subscription knows of its messages, and how deliveries and settlements change it.
//!
//! Each message is in one of these states:
//!
//! * new: it lies at or after the first message that was never handed out;
//! * outstanding: a worker has it;
//! * waiting: it is delivered again once it is due;
//! * settled: it was acknowledged, parked or moved to a dead-letter topic, and is not delivered any more.
//!
//! What is to be stored of that gathers until [`State::take_unstored`]: acknowledgements as changes of a
//! bitmap, and a row for each message that is to be retried, parked or moved. A message with a row counts as
//! settled in the bitmap, so that it holds up no floor. That a message is outstanding is not stored: after
//! the death of a broker, its next owner delivers such messages again. If each is delivered exactly once, it
//! holds them back for a while, as `taking_over` describes.

mod standing;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    broker::subscription::{
        changes::Changes,
        deliveries::{ALL, Delivered, Deliveries, DeliveryId, Outstanding, WorkerId},
        exceptions::{Exception, Exceptions},
        request::{Settlement, Verdict},
        reservation::{Held, Reservations},
        settled::Settled,
        unstored::{Row, Unstored, Unwritten},
    },
    metrics::SubscriptionCounts,
    model::{DeliveryPolicy, Offset, OffsetRange},
};

/// A message that was not settled in time is stored if it is delivered again only after so long: the owner may
/// have ended by then.
const LONG_DELAY: Duration = Duration::from_secs(10);

/// What the owner of a subscription knows.
pub(crate) struct State {
    pub(super) policy: DeliveryPolicy,
    pub(super) settled: Settled,
    /// The first message that was never handed out, but for those that are held back.
    pub(super) next: Offset,
    /// Messages before it were removed from the log.
    removed_before: Offset,
    /// How many of these were not acknowledged.
    lost: u64,
    pub(super) deliveries: Deliveries,
    pub(super) exceptions: Exceptions,
    pub(super) reservations: Reservations,
    /// What is held back, or was, as the owner before may have handed it out.
    pub(super) held: Option<Held>,
    unstored: Unstored,
    counts: SubscriptionCounts,
}

impl State {
    /// The state that was stored. The first delivery gets the id `first`.
    pub(crate) fn new(
        policy: DeliveryPolicy,
        settled: Settled,
        exceptions: Exceptions,
        first: DeliveryId,
    ) -> Self {
        Self {
            policy,
            next: settled.floor(),
            removed_before: Offset(0),
            lost: 0,
            settled,
            deliveries: Deliveries::new(first),
            exceptions,
            reservations: Reservations::default(),
            held: None,
            unstored: Unstored::default(),
            counts: SubscriptionCounts::default(),
        }
    }

    /// What has become of messages since the last call.
    pub(crate) fn take_counts(&mut self) -> SubscriptionCounts {
        std::mem::take(&mut self.counts)
    }

    /// The first messages before `head` that were never handed out and are not settled.
    pub(crate) fn next_new(&self, head: Offset) -> Option<OffsetRange> {
        let held = self.held.as_ref().filter(|held| held.is_over);
        let held = held.map(|held| OffsetRange { start: held.next, end: held.end.min(head) });
        let new = OffsetRange { start: self.next, end: head };
        held.into_iter().chain([new]).find_map(|range| self.settled.open(range).next())
    }

    /// The messages that are due to be delivered again.
    pub(crate) fn due(&self, now: Instant, limit: usize) -> Vec<Offset> {
        let mut due: Vec<Offset> = self.exceptions.due(now, limit).collect();
        due.sort_unstable();
        due
    }

    /// Hands messages to a worker: their offsets, in order, and sizes.
    pub(crate) fn hand_out(
        &mut self,
        worker: WorkerId,
        messages: &[(Offset, u32)],
        now: Instant,
    ) -> (DeliveryId, Vec<Delivered>) {
        let mut delivered = Vec::with_capacity(messages.len());
        for &(offset, bytes) in messages {
            let attempt = match self.exceptions.get(offset) {
                Some(known) => {
                    let attempts = known.attempts + 1;
                    self.exceptions.put(offset, Exception { attempts, due: None, ..known });
                    attempts
                }
                None => self.record_first(offset),
            };
            self.counts.redelivered += u64::from(attempt > 1);
            delivered.push(Delivered { offset, attempt, bytes });
        }
        self.counts.delivered += delivered.len() as u64;
        let deadline = self.deadline(now);
        let id = self.deliveries.add(worker, delivered.iter().copied(), deadline);
        (id, delivered)
    }

    /// Carries a verdict out; returns how many messages it applied to. The others are not outstanding in that
    /// delivery: they never were, they are settled, or their deadline has passed.
    pub(crate) fn settle(&mut self, settlement: &Settlement, now: Instant) -> usize {
        let Settlement { delivery, ranges, verdict } = settlement;
        let delivery = DeliveryId(*delivery);
        let ranges = if ranges.is_empty() { &[ALL][..] } else { ranges };
        match verdict {
            Verdict::Acknowledge => {
                self.settle_each(delivery, ranges, |state, it| state.acknowledge(it.offset))
            }
            Verdict::Retry { delay } => {
                let retried =
                    self.settle_each(delivery, ranges, |state, it| state.retry(it, *delay, now));
                self.counts.retried += retried as u64;
                retried
            }
            Verdict::Reject { reason } => {
                self.settle_each(delivery, ranges, |state, it| state.park(it, reason.clone()))
            }
            Verdict::Release => {
                self.settle_each(delivery, ranges, |state, it| state.release(it, now))
            }
            Verdict::Extend { by } => {
                let by = by.unwrap_or(self.policy.ack_deadline);
                let extended = self.deliveries.extend(delivery, ranges, now + by);
                if self.policy.exactly_once && extended > 0 {
                    self.reservations.extend(self.next, by, now);
                }
                extended
            }
        }
    }

    /// Settles those messages of a delivery that are outstanding; returns how many there were.
    fn settle_each(
        &mut self,
        delivery: DeliveryId,
        ranges: &[OffsetRange],
        settle: impl Fn(&mut Self, Delivered),
    ) -> usize {
        let taken = self.deliveries.take(delivery, ranges);
        let settled = taken.len();
        taken.into_iter().for_each(|message| settle(self, message));
        settled
    }

    /// Has messages delivered again whose deadlines have passed.
    pub(crate) fn expire(&mut self, now: Instant) {
        for message in self.deliveries.expire(now) {
            self.give_back(message, now);
        }
    }

    /// Takes a delivery back that did not reach its worker. It does not count as an attempt.
    pub(crate) fn take_back(&mut self, delivery: DeliveryId, now: Instant) {
        for message in self.deliveries.take(delivery, &[ALL]) {
            self.release(message, now);
        }
    }

    /// Delivers a message again at once, as if it had not been delivered this time.
    fn release(&mut self, message: Delivered, now: Instant) {
        let Delivered { offset, attempt, .. } = message;
        if self.is_removed(message) {
            return;
        }
        let is_stored = self.exceptions.get(offset).is_some_and(|known| known.is_stored);
        let exception = Exception { attempts: attempt - 1, due: Some(now), is_stored };
        self.exceptions.put(offset, exception);
    }

    /// A worker has gone: what it has is delivered again. Others may still settle it if that is to be done
    /// exactly once.
    pub(crate) fn leave(&mut self, worker: WorkerId, now: Instant) {
        if self.policy.exactly_once {
            return;
        }
        for message in self.deliveries.release(worker) {
            self.give_back(message, now);
        }
    }

    /// Delivers parked messages again, as if for the first time; returns how many there are. Those that are
    /// delivered again already are not parked.
    pub(crate) fn replay(&mut self, parked: &[Offset], now: Instant) -> usize {
        let (due, with_workers) = (self.replayed_at(now), self.with_workers());
        let replayed = parked.iter().filter(|offset| {
            let is_parked = self.may_be_parked(**offset)
                && **offset >= self.removed_before
                && !with_workers.contains(*offset);
            if is_parked {
                // It is settled, too: after a seek back, it may count as new.
                self.wait_stored(**offset, 0, due);
            }
            is_parked
        });
        let replayed = replayed.count();
        if replayed > 0 {
            self.renew_reservation(now);
        }
        replayed
    }

    /// Forgets parked messages; returns how many there are. Those that are delivered again by now are not
    /// parked.
    pub(crate) fn discard(&mut self, parked: &[Offset]) -> usize {
        let discarded = parked.iter().filter(|offset| {
            let is_parked = self.may_be_parked(**offset);
            if is_parked {
                self.unstored.rows.insert(**offset, Row::Removed);
            }
            is_parked
        });
        discarded.count()
    }

    /// Whether a message that was found to be parked still is: it may be delivered again by now or, if a seek
    /// went back, be on its way to a dead-letter topic.
    fn may_be_parked(&self, offset: Offset) -> bool {
        let is_moved = matches!(self.unstored.rows.get(&offset), Some(Row::Moved { .. }));
        !is_moved && !self.is_exception(offset)
    }

    /// Has a message wait that was never handed out: it is delivered at that time.
    pub(crate) fn delay(&mut self, offset: Offset, due: Instant) {
        self.wait_stored(offset, 0, due);
        self.next = self.settled.next_open(self.next);
    }

    /// Has a message wait until it is due, with a row.
    fn wait_stored(&mut self, offset: Offset, attempts: u32, due: Instant) {
        self.exceptions.put(offset, Exception { attempts, due: Some(due), is_stored: true });
        self.unstored.rows.insert(offset, Row::Retry { attempts, due });
        self.settle_one(offset);
    }

    /// Settles a message that was never handed out, and is not to be.
    pub(crate) fn leave_out(&mut self, offset: Offset) {
        self.settle_one(offset);
        self.next = self.settled.next_open(self.next);
    }

    pub(crate) fn policy(&self) -> &DeliveryPolicy {
        &self.policy
    }

    /// When a deadline passes, or an earlier time.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        [self.deliveries.next_deadline(), self.hold_ends()].into_iter().flatten().min()
    }

    /// When a message is to be delivered again.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.exceptions.next_due()
    }

    /// When a message is to be delivered again, after a time.
    pub(crate) fn next_due_after(&self, time: Instant) -> Option<Instant> {
        self.exceptions.next_due_after(time)
    }

    /// Whether a message is delivered again.
    pub(crate) fn is_exception(&self, offset: Offset) -> bool {
        self.exceptions.get(offset).is_some()
    }

    /// How many messages are delivered again.
    pub(crate) fn exceptions(&self) -> usize {
        self.exceptions.len()
    }

    /// How much a worker has.
    pub(crate) fn outstanding_of(&self, worker: WorkerId) -> Outstanding {
        self.deliveries.outstanding_of(worker)
    }

    /// How much is with workers.
    pub(crate) fn outstanding(&self) -> Outstanding {
        self.deliveries.outstanding()
    }

    /// The first message that is not settled.
    pub(crate) fn floor(&self) -> Offset {
        self.settled.floor()
    }

    /// All that is settled from an offset on, but for what has yet to be taken to be stored. The offset is not
    /// beyond the floor.
    pub(crate) fn settled_from(&self, from: Offset) -> Changes {
        let mut settled = Changes::default();
        let start = from.max(self.removed_before);
        settled.note(OffsetRange { start, end: self.floor() });
        self.settled.beyond_floor().for_each(|range| settled.note(range));
        settled.forget_those_of(&self.unstored.settled);
        settled
    }

    /// Takes what is to be stored; `None` if there is nothing.
    pub(crate) fn take_unstored(&mut self) -> Option<Unwritten> {
        let floor = self.floor();
        self.unstored.reservation = self.reservations.take_wanted();
        let is_something = !self.unstored.is_empty();
        is_something.then(|| Unwritten::new(std::mem::take(&mut self.unstored), floor))
    }

    /// How many rows are to be stored.
    pub(crate) fn unstored_rows(&self) -> usize {
        self.unstored.rows.len()
    }

    /// Skips messages that were removed from the log. A worker that has one may still settle it.
    pub(crate) fn skip_before(&mut self, start: Offset) {
        if start <= self.removed_before {
            return;
        }
        self.removed_before = start;
        let retried = self.forget(OffsetRange { start: Offset(0), end: start });
        // Nothing of it lies beyond the floor then.
        let open = self.settled.settle(OffsetRange { start: self.settled.floor(), end: start });
        self.unstored.floor_moved = true;
        self.count_lost(retried + open);
        self.next = self.next.max(start);
    }

    /// Forgets the messages from an offset on that are to be delivered again: the log was truncated.
    pub(crate) fn forget_from(&mut self, head: Offset) {
        self.forget(OffsetRange { start: head, end: ALL.end });
    }

    /// Returns how many of them have rows.
    fn forget(&mut self, range: OffsetRange) -> usize {
        let removed = self.exceptions.remove_range(range);
        let count = removed.len();
        self.unstored.rows.extend(removed.into_iter().map(|offset| (offset, Row::Removed)));
        count
    }

    fn acknowledge(&mut self, offset: Offset) {
        self.counts.acknowledged += 1;
        if let Some(Exception { is_stored: true, .. }) = self.exceptions.remove(offset) {
            self.unstored.rows.insert(offset, Row::Removed);
        }
        self.settle_one(offset);
    }

    /// A worker asked for another delivery.
    fn retry(&mut self, message: Delivered, delay: Option<Duration>, now: Instant) {
        let Delivered { offset, attempt, .. } = message;
        if self.is_removed(message) {
            return;
        }
        if self.policy.is_last(attempt) {
            let reason = format!("it was delivered {attempt} times, and no worker acknowledged it");
            return self.park(message, reason.into());
        }
        let due = now + delay.unwrap_or_else(|| self.policy.retry_delay(attempt));
        self.wait_stored(offset, attempt, due);
    }

    /// A worker has gone, or its time is up.
    fn give_back(&mut self, message: Delivered, now: Instant) {
        self.counts.expired += 1;
        let Delivered { offset, attempt, .. } = message;
        if self.is_removed(message) {
            return;
        }
        let was_stored = self.exceptions.get(offset).is_some_and(|known| known.is_stored);
        // A message that ends its workers is to be parked at last, so each attempt counts even if the
        // broker ends as well.
        let delay = self.policy.retry_delay(attempt);
        if was_stored || self.policy.max_deliveries.is_some() || delay >= LONG_DELAY {
            return self.retry(message, None, now);
        }
        let due = now + delay;
        let exception = Exception { attempts: attempt, due: Some(due), is_stored: false };
        self.exceptions.put(offset, exception);
    }

    /// Parks a message, or moves it to the dead-letter topic if there is one.
    fn park(&mut self, message: Delivered, reason: Arc<str>) {
        let Delivered { offset, attempt: attempts, bytes } = message;
        self.exceptions.remove(offset);
        let row = match &self.policy.dead_letter_topic {
            Some(to) => Row::Moved { attempts, reason, to: to.clone(), bytes },
            None => {
                self.counts.parked += 1;
                Row::Parked { attempts, reason }
            }
        };
        self.unstored.rows.insert(offset, row);
        self.settle_one(offset);
    }

    /// Whether a message can be delivered no more.
    fn is_removed(&self, Delivered { offset, .. }: Delivered) -> bool {
        offset < self.removed_before
    }

    fn settle_one(&mut self, offset: Offset) {
        let range = OffsetRange { start: offset, end: offset.after(1) };
        if self.settled.settle(range) > 0 {
            self.unstored.settled.note(range);
        }
    }
}
