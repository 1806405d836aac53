//! What an owner has to store, is storing, and who waits for that.
//!
//! One write is under way at a time; what is settled meanwhile goes into the next one. A write that fails is
//! tried again as it was: storing it twice changes nothing.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use crate::{
    broker::{
        error::Error,
        subscription::{
            changes::Changes,
            settled::Settled,
            state::{Row, State, Unstored},
            writer::{SettlementWriter, Written},
        },
    },
    model::{ConsumerKey, Epoch, Offset, OffsetRange},
    storage::{MessageChange, StoreOutcome, SubscriptionWrite},
};

/// How many rows there may be of what is settled. Then one that says the same takes their place.
const MAX_DELTAS: usize = 64;

/// How long to wait before a failed write is tried again; doubles up to the longer one.
const SHORT_PAUSE: Duration = Duration::from_millis(50);
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// How long a write may fail. Then what the owner knows is given up, and callers are told that the outcome is
/// unknown.
const FAILING_TIMEOUT: Duration = Duration::from_secs(5);

/// How many messages each settlement of a call applied to.
pub(super) type SettleOutcome = Result<Vec<usize>, Error>;

/// How many messages a call was about.
pub(super) type CountOutcome = Result<usize, Error>;

/// A call that is answered once what it changed is stored.
pub(super) enum Caller {
    Settles { applied: Vec<usize>, reply: oneshot::Sender<SettleOutcome> },
    Unparks { count: usize, reply: oneshot::Sender<CountOutcome> },
}

/// Why nothing can be stored any more.
pub(super) enum Lost {
    /// The epoch has ended.
    Fenced,
    /// Writes have failed for too long.
    Failing(Error),
}

/// What an owner stores.
pub(super) struct Storing {
    key: ConsumerKey,
    epoch: Epoch,
    next_number: i64,
    /// The rows of what is settled beyond the floor: their numbers, and where each ends.
    deltas: VecDeque<(i64, Offset)>,
    /// What is being stored, and whoever waits for that.
    write: Option<Arc<SubscriptionWrite>>,
    waiting: Vec<Caller>,
    under_way: Option<Pin<Box<dyn Future<Output = Written> + Send>>>,
    /// When it is tried again, the pause before that, and when it was first tried.
    retry_at: Option<Instant>,
    pause: Duration,
    begun_at: Option<Instant>,
    /// Those who wait for the next write.
    next: Vec<Caller>,
}

impl Caller {
    fn answer(self, stored: Result<(), Error>) {
        // A caller that has gone does not receive it.
        match self {
            Self::Settles { applied, reply } => drop(reply.send(stored.map(|()| applied))),
            Self::Unparks { count, reply } => drop(reply.send(stored.map(|()| count))),
        }
    }
}

impl Storing {
    /// Continues after the rows that are stored, and settles what they say.
    pub(super) fn load(
        key: ConsumerKey,
        epoch: Epoch,
        stored: Vec<(i64, Vec<u8>)>,
        head: Offset,
        settled: &mut Settled,
    ) -> Result<Self, Error> {
        let (mut deltas, mut next_number) = (VecDeque::new(), 0);
        for (number, encoded) in stored {
            let Some(changes) = Changes::decode(&encoded) else {
                let (topic_number, consumer_number) = (key.topic.0, key.consumer);
                tracing::error!(topic_number, consumer_number, number, "found a damaged row");
                return Err(Error::internal());
            };
            let mut end = Offset(0);
            for range in changes.ranges() {
                // Beyond the head, the log was truncated, and offsets are used again.
                settled.settle(OffsetRange { start: range.start, end: range.end.min(head) });
                end = range.end;
            }
            deltas.push_back((number, end));
            next_number = number + 1;
        }
        Ok(Self {
            key,
            epoch,
            next_number,
            deltas,
            write: None,
            waiting: Vec::new(),
            under_way: None,
            retry_at: None,
            pause: SHORT_PAUSE,
            begun_at: None,
            next: Vec::new(),
        })
    }

    /// Answers a caller once everything is stored that is settled by now.
    pub(super) fn add(&mut self, caller: Caller) {
        self.next.push(caller);
    }

    /// Begins to store what there is to store, unless that is under way.
    pub(super) fn begin(
        &mut self,
        state: &mut State,
        writer: &Arc<SettlementWriter>,
        now: Instant,
    ) {
        if self.under_way.is_some() || self.retry_at.is_some_and(|at| at > now) {
            return;
        }
        if self.write.is_none() {
            self.waiting.append(&mut self.next);
            match state.take_unstored() {
                Some(unstored) => self.write = Some(Arc::new(self.write_of(unstored, state, now))),
                None => self.answer_waiting(&Ok(())),
            }
        }
        if let Some(write) = self.write.clone() {
            self.begun_at.get_or_insert(now);
            let writer = writer.clone();
            self.retry_at = None;
            self.under_way = Some(Box::pin(async move { writer.store(write).await }));
        }
    }

    /// Waits for the outcome of what is being stored; for ever if there is nothing.
    pub(super) async fn written(&mut self) -> Written {
        match &mut self.under_way {
            Some(under_way) => {
                let written = under_way.await;
                self.under_way = None;
                written
            }
            None => std::future::pending().await,
        }
    }

    /// Records an outcome, and answers those whom it concerns.
    pub(super) fn conclude(&mut self, written: Written, now: Instant) -> Result<(), Lost> {
        let error = match written {
            Ok(StoreOutcome::Stored) => {
                self.write = None;
                (self.pause, self.begun_at) = (SHORT_PAUSE, None);
                self.answer_waiting(&Ok(()));
                return Ok(());
            }
            Ok(StoreOutcome::Fenced) => return Err(Lost::Fenced),
            Ok(StoreOutcome::Locked) => Error::unavailable(),
            Err(error) => error,
        };
        let since = *self.begun_at.get_or_insert(now);
        // A first failure may have taken as long by itself.
        if now - since >= FAILING_TIMEOUT && self.pause > SHORT_PAUSE {
            return Err(Lost::Failing(error));
        }
        self.retry_at = Some(now + self.pause);
        self.pause = (2 * self.pause).min(LONG_PAUSE);
        Ok(())
    }

    /// Answers everyone that it is not known what became of their settlements.
    pub(super) fn abandon(mut self) {
        self.waiting.append(&mut self.next);
        self.answer_waiting(&Err(Error::outcome_unknown()));
    }

    /// Whether something is to be stored, or somebody waits for that.
    pub(super) fn is_busy(&self) -> bool {
        self.write.is_some() || !self.waiting.is_empty() || !self.next.is_empty()
    }

    /// When a failed write is to be tried again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    fn answer_waiting(&mut self, stored: &Result<(), Error>) {
        self.waiting.drain(..).for_each(|caller| caller.answer(stored.clone()));
    }

    fn write_of(&mut self, unstored: Unstored, state: &State, now: Instant) -> SubscriptionWrite {
        let floor = state.floor();
        let mut settled = unstored.settled;
        settled.forget_before(floor);
        while self.deltas.front().is_some_and(|(_, end)| *end <= floor) {
            self.deltas.pop_front();
        }
        if !settled.is_empty() && self.deltas.len() >= MAX_DELTAS {
            settled = state.settled_beyond_floor();
            self.deltas.clear();
        }
        let delta = settled.end().map(|end| {
            let number = self.next_number;
            self.next_number += 1;
            self.deltas.push_back((number, end));
            (number, settled.encode())
        });
        let kept = unstored.rows.iter().rev().find(|(_, row)| **row != Row::Removed);
        let last_row = kept.map(|(offset, _)| offset.after(1));
        let ends = [delta.as_ref().and(settled.end()), last_row];
        let messages = unstored.rows.into_iter().map(|(offset, row)| {
            let change = match row {
                Row::Retry { attempts, due } => {
                    MessageChange::Retry { attempts, due_in: due.saturating_duration_since(now) }
                }
                Row::Parked { attempts, reason } => MessageChange::Park { attempts, reason },
                Row::Removed => MessageChange::Remove,
            };
            (offset, change)
        });
        SubscriptionWrite {
            key: self.key,
            epoch: self.epoch,
            floor,
            end: ends.into_iter().flatten().fold(floor, Offset::max),
            delta,
            keep_from: self.deltas.front().map_or(self.next_number, |(number, _)| *number),
            messages: messages.collect(),
            lost: unstored.lost,
        }
    }
}
