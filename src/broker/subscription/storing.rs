//! What an owner has to store, is storing, and who waits for that.
//!
//! One write is under way at a time; what is settled meanwhile goes into the next one. A write that fails is
//! tried again as it was: storing it twice changes nothing. What is too much for one write is stored in several,
//! and callers are answered when the last one is on disk.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use crate::{
    broker::{
        error::Error,
        subscription::{
            changes::Changes,
            dead_letters::{Copier, Copies, Letter},
            settled::Settled,
            state::State,
            unstored::{Letters, Part, PartLimits, Unwritten},
            writer::{SettlementWriter, Written},
        },
    },
    metrics::SubscriptionCounts,
    model::{ConsumerKey, Epoch, Offset, OffsetRange},
    storage::{DeadLetters, MessageChange, StoreOutcome, StoredReservation, SubscriptionWrite},
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

/// How many messages a call was about; `None` if another epoch has begun, and nothing was done.
pub(super) type CountOutcome = Result<Option<usize>, Error>;

/// A call that is answered once what it changed is stored.
pub(super) enum Caller {
    Settles { applied: Vec<usize>, reply: oneshot::Sender<SettleOutcome> },
    Unparks { count: usize, reply: oneshot::Sender<CountOutcome> },
    Changes { reply: oneshot::Sender<Result<(), Error>> },
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
    /// What is being stored, what comes after that, and whoever waits for both.
    write: Option<Arc<SubscriptionWrite>>,
    rest: Option<Unwritten>,
    waiting: Vec<Caller>,
    /// What the write moves to a dead-letter topic.
    letters: Option<Letters>,
    under_way: Option<Pin<Box<dyn Future<Output = Progress> + Send>>>,
    /// When it is tried again, the pause before that, and when it was first tried.
    retry_at: Option<Instant>,
    pause: Duration,
    begun_at: Option<Instant>,
    /// Those who wait for the next write.
    next: Vec<Caller>,
    counts: SubscriptionCounts,
}

/// What was under way.
pub(super) enum Progress {
    Copied(Result<Copies, Error>),
    Written(Written),
}

impl Caller {
    fn answer(self, stored: Result<(), Error>) {
        // A caller that has gone does not receive it.
        match self {
            Self::Settles { applied, reply } => drop(reply.send(stored.map(|()| applied))),
            Self::Unparks { count, reply } => drop(reply.send(stored.map(|()| Some(count)))),
            Self::Changes { reply } => drop(reply.send(stored)),
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
            rest: None,
            waiting: Vec::new(),
            letters: None,
            under_way: None,
            retry_at: None,
            pause: SHORT_PAUSE,
            begun_at: None,
            next: Vec::new(),
            counts: SubscriptionCounts::default(),
        })
    }

    /// Answers a caller once everything is stored that is settled by now.
    pub(super) fn add(&mut self, caller: Caller) {
        self.next.push(caller);
    }

    /// What has become of messages since the last call.
    pub(super) fn take_counts(&mut self) -> SubscriptionCounts {
        std::mem::take(&mut self.counts)
    }

    /// Begins to store what there is to store, unless that is under way.
    pub(super) fn begin(
        &mut self,
        state: &mut State,
        writer: &Arc<SettlementWriter>,
        copier: &Arc<Copier>,
        now: Instant,
    ) {
        if self.under_way.is_some() || self.retry_at.is_some_and(|at| at > now) {
            return;
        }
        if self.write.is_none() {
            self.write = self.next_write(state, now).map(Arc::new);
        }
        let Some(write) = self.write.clone() else {
            return self.answer_waiting(&Ok(()));
        };
        self.begun_at.get_or_insert(now);
        self.retry_at = None;
        let under_way: Pin<Box<dyn Future<Output = Progress> + Send>> = match &self.letters {
            Some(Letters { letters, are_copied: false, .. }) => {
                let (copier, letters) = (copier.clone(), letters.clone());
                Box::pin(async move { Progress::Copied(copier.copy(&letters).await) })
            }
            _ => {
                let writer = writer.clone();
                Box::pin(async move { Progress::Written(writer.store(write).await) })
            }
        };
        self.under_way = Some(under_way);
    }

    /// What is to be stored next, if there is anything.
    fn next_write(&mut self, state: &mut State, now: Instant) -> Option<SubscriptionWrite> {
        let mut rest = match self.rest.take() {
            Some(rest) => rest,
            None => {
                self.waiting.append(&mut self.next);
                state.take_unstored()?
            }
        };
        let part = rest.cut(PartLimits::OF_A_WRITE);
        let write = self.write_of(part, rest.held(), state, now);
        self.rest = Some(rest).filter(|rest| !rest.is_empty());
        Some(write)
    }

    /// Waits for the outcome of what is under way; for ever if there is nothing.
    pub(super) async fn progress(&mut self) -> Progress {
        match &mut self.under_way {
            Some(under_way) => {
                let progress = under_way.await;
                self.under_way = None;
                progress
            }
            None => std::future::pending().await,
        }
    }

    /// Records an outcome, and answers those whom it concerns.
    pub(super) fn conclude(
        &mut self,
        progress: Progress,
        state: &mut State,
        now: Instant,
    ) -> Result<(), Lost> {
        let error = match progress {
            Progress::Copied(Ok(copies)) => {
                self.add_copies(copies);
                (self.pause, self.begun_at) = (SHORT_PAUSE, None);
                return Ok(());
            }
            Progress::Written(Ok(StoreOutcome::Stored)) => {
                self.stored(state);
                return Ok(());
            }
            Progress::Written(Ok(StoreOutcome::NoDeadLetterTopic)) => {
                self.park_letters("does not exist");
                return Ok(());
            }
            Progress::Written(Ok(StoreOutcome::DeadLettersRefused)) => {
                self.park_letters("did not take it, as the broker's log says");
                return Ok(());
            }
            Progress::Written(Ok(StoreOutcome::Fenced)) => return Err(Lost::Fenced),
            Progress::Written(Ok(StoreOutcome::Locked)) => Error::unavailable(),
            Progress::Copied(Err(error)) | Progress::Written(Err(error)) => error,
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

    fn stored(&mut self, state: &mut State) {
        let write = self.write.take();
        if write.is_some_and(|write| write.reservation.is_some()) {
            state.note_stored();
        }
        let moved = self.letters.take().map_or(0, |moved| moved.letters.len());
        self.counts.dead_letters += moved as u64;
        (self.pause, self.begun_at) = (SHORT_PAUSE, None);
        if self.rest.is_none() {
            self.answer_waiting(&Ok(()));
        }
    }

    /// Adds to a write what becomes of the messages that it moves.
    fn add_copies(&mut self, copies: Copies) {
        let (Some(write), Some(Letters { to, .. })) = (&mut self.write, self.letters.take()) else {
            return;
        };
        let write = Arc::make_mut(write);
        let Copies { draft, copied, refused, removed } = copies;
        for Letter { offset, .. } in removed {
            let (topic_number, consumer_number) = (self.key.topic.0, self.key.consumer);
            tracing::warn!(topic_number, consumer_number, %offset, "lost a dead letter before it was moved");
            write.messages.push((offset, MessageChange::Remove));
        }
        self.counts.parked += refused.len() as u64;
        for (letter, invalid) in refused {
            let (part, problem) = (invalid.part, invalid.problem);
            let why = format!("cannot take it: {part} {problem}");
            write.messages.push((letter.offset, letter.parked(&to, &why)));
        }
        if copied.is_empty() {
            return;
        }
        let done = |letter: &Letter| (letter.offset, MessageChange::Remove);
        write.messages.extend(copied.iter().map(done));
        write.dead_letters = Some(DeadLetters { topic: to.clone(), draft });
        self.letters = Some(Letters { to, letters: copied.into(), are_copied: true });
    }

    /// Parks the messages that a write would move. Nothing of it is stored, also by an earlier try: it would have
    /// been found.
    fn park_letters(&mut self, why: &str) {
        let (Some(write), Some(Letters { to, letters, .. })) =
            (&mut self.write, self.letters.take())
        else {
            return;
        };
        let write = Arc::make_mut(write);
        write.dead_letters = None;
        let parked: HashMap<Offset, &Letter> =
            letters.iter().map(|letter| (letter.offset, letter)).collect();
        for (offset, change) in &mut write.messages {
            if let Some(letter) = parked.get(offset) {
                *change = letter.parked(&to, why);
            }
        }
        self.counts.parked += letters.len() as u64;
    }

    /// Answers everyone that it is not known what became of their settlements.
    pub(super) fn abandon(mut self) {
        self.waiting.append(&mut self.next);
        self.answer_waiting(&Err(Error::outcome_unknown()));
    }

    /// Whether something is to be stored, or somebody waits for that.
    pub(super) fn is_busy(&self) -> bool {
        self.write.is_some()
            || self.rest.is_some()
            || !self.waiting.is_empty()
            || !self.next.is_empty()
    }

    /// When a failed write is to be tried again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    fn answer_waiting(&mut self, stored: &Result<(), Error>) {
        self.waiting.drain(..).for_each(|caller| caller.answer(stored.clone()));
    }

    /// The write of a part; `held` is what later parts settle.
    fn write_of(
        &mut self,
        part: Part,
        held: &Changes,
        state: &State,
        now: Instant,
    ) -> SubscriptionWrite {
        let (floor, last_row) = (part.floor, part.last_row());
        let (reservation, lost) = (part.reservation, part.lost);
        let (mut settled, messages, letters) = part.into_changes(now);
        settled.forget_before(floor);
        while self.deltas.front().is_some_and(|(_, end)| *end <= floor) {
            self.deltas.pop_front();
        }
        if !settled.is_empty() && self.deltas.len() >= MAX_DELTAS {
            settled = state.settled_from(floor);
            settled.forget_those_of(held);
            self.deltas.clear();
        }
        // The number of the row says whether the dead letters were appended, even if it says nothing else.
        let end = settled.end().or(letters.is_some().then_some(floor));
        let delta = end.map(|end| {
            let number = self.next_number;
            self.next_number += 1;
            self.deltas.push_back((number, end));
            (number, settled.encode())
        });
        self.letters = letters;
        SubscriptionWrite {
            key: self.key,
            epoch: self.epoch,
            floor,
            end: [end, last_row].into_iter().flatten().fold(floor, Offset::max),
            delta,
            keep_from: self.deltas.front().map_or(self.next_number, |(number, _)| *number),
            messages,
            reservation: reservation.map(|reservation| StoredReservation {
                end: reservation.end,
                left: reservation.until.saturating_duration_since(now),
            }),
            lost,
            dead_letters: None,
        }
    }
}
