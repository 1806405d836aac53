//! Reads messages for the owner of a subscription, beside its other work: workers settle messages, and the
//! lease may end, while the database takes its time.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use crate::{
    broker::{
        consume::delivery::Delivery,
        error::Error,
        log::{
            cursor::Cursor,
            messages::{FrameLimits, Messages},
            topics::{LogReader, Observation},
        },
        subscription::state::State,
    },
    model::{Batch, Offset, OffsetRange, TopicName},
    storage::LogSlice,
};

/// How many messages that are delivered again one read looks for.
pub(super) const MAX_WANTED: usize = 1_000;

/// How many batches that such reads found are kept.
const MAX_KEPT: usize = 64;

/// How many bytes such a read takes from the database.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// The messages of a log, as an owner reads them.
pub(super) struct Reads {
    delivery: Arc<Delivery>,
    topic: TopicName,
    log: Arc<LogReader>,
    /// Reads messages that were never handed out.
    cursor: Cursor,
    /// The batches of messages that are delivered again which reads have found, by their first offsets.
    again: BTreeMap<Offset, Arc<Batch>>,
    under_way: Option<Pin<Box<dyn Future<Output = Outcome> + Send>>>,
    /// New messages that a read did not find, although the head says that there are some.
    nothing: Option<OffsetRange>,
}

/// What a read found.
pub(super) enum Outcome {
    New { cursor: Cursor, range: OffsetRange, filled: Result<bool, Error> },
    Again { first: Offset, observation: Observation, read: Result<Option<LogSlice>, Error> },
}

/// The next messages that were never handed out.
pub(super) enum Next {
    Messages(Messages),
    /// There are none.
    Nothing,
    /// They must be read from the database.
    Unread,
}

impl Reads {
    pub(super) fn new(
        delivery: Arc<Delivery>,
        topic: TopicName,
        log: Arc<LogReader>,
        from: Offset,
    ) -> Self {
        let cursor = Cursor::new(from, *log.head.borrow());
        let again = BTreeMap::new();
        Self { delivery, topic, log, cursor, again, under_way: None, nothing: None }
    }

    pub(super) fn log(&self) -> &LogReader {
        &self.log
    }

    /// Whether a read is under way.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Waits for the read that is under way; for ever if there is none.
    pub(super) async fn finished(&mut self) -> Outcome {
        match &mut self.under_way {
            Some(under_way) => {
                let outcome = under_way.await;
                self.under_way = None;
                outcome
            }
            None => std::future::pending().await,
        }
    }

    /// Keeps what a read found, and records what was removed from the log.
    pub(super) fn conclude(&mut self, outcome: Outcome, state: &mut State) -> Result<(), Error> {
        match outcome {
            Outcome::New { cursor, range, filled } => {
                self.cursor = cursor;
                if !filled? {
                    return Err(self.topic_not_found());
                }
                match self.cursor.take_gap() {
                    Some(gap) => state.skip_before(gap.end),
                    None if self.cursor.is_empty() => self.nothing = Some(range),
                    None => {}
                }
            }
            Outcome::Again { first, observation, read } => {
                let Some(LogSlice { batches, ends }) = read? else {
                    return Err(self.topic_not_found());
                };
                // What was read counts as removed otherwise, if the log start offset went back.
                self.log.observe_ends(ends, &observation);
                state.skip_before(ends.start);
                state.forget_from(ends.head);
                let is_there = ends.start <= first && first < ends.head;
                let has_it = |batch: &Arc<Batch>| batch.base <= first && first < batch.end();
                if is_there && !batches.iter().any(has_it) {
                    return Err(Error::unavailable());
                }
                if self.again.len() > MAX_KEPT {
                    self.again.clear();
                }
                self.again.extend(batches.into_iter().map(|batch| (batch.base, batch)));
            }
        }
        Ok(())
    }

    fn topic_not_found(&self) -> Error {
        Error::TopicNotFound { topic: self.topic.clone() }
    }

    /// Whether a read did not find these new messages, and the head has not moved since.
    pub(super) fn found_nothing(&self, range: OffsetRange) -> bool {
        self.nothing == Some(range)
    }

    /// There may be what a read did not find.
    pub(super) fn head_moved(&mut self) {
        self.nothing = None;
    }

    /// Forgets batches of messages that are delivered again: none is due.
    pub(super) fn forget_again(&mut self) {
        self.again.clear();
    }

    /// Begins to read messages that are delivered again.
    pub(super) fn begin_again(&mut self, offsets: impl Iterator<Item = Offset>) {
        let mut wanted: Vec<Offset> = offsets.collect();
        let Some(&first) = wanted.first() else { return };
        // The first one must be found, however much the others take.
        wanted.retain(|offset| *offset >= first);
        wanted.sort_unstable();
        wanted.dedup();
        wanted.truncate(MAX_WANTED);
        let (delivery, topic) = (self.delivery.clone(), self.log.topic());
        let observation = self.log.begin();
        self.under_way = Some(Box::pin(async move {
            let read = delivery.storage.read_batches_of(topic, &wanted, READ_BYTES).await;
            Outcome::Again { first, observation, read: read.map_err(Error::of_read) }
        }));
    }

    /// Begins to read messages that were never handed out: those that [`Self::next_new`] did not find.
    pub(super) fn begin_new(&mut self, range: OffsetRange) {
        let placeholder = Cursor::new(self.cursor.position(), self.cursor.head());
        let mut cursor = std::mem::replace(&mut self.cursor, placeholder);
        let (delivery, log) = (self.delivery.clone(), self.log.clone());
        self.under_way = Some(Box::pin(async move {
            let filled = cursor.fill(&delivery.storage, &log).await;
            Outcome::New { cursor, range, filled }
        }));
    }

    /// The batch of a message that is delivered again, if it need not be read.
    pub(super) fn batch_of(&self, offset: Offset) -> Option<Arc<Batch>> {
        // Messages before the log start offset are removed, though they may still be here.
        if offset < self.log.start() {
            return None;
        }
        let read = self.again.range(..=offset).next_back().map(|(_, batch)| batch);
        match read.filter(|batch| offset < batch.end()) {
            Some(read) => Some(read.clone()),
            None => self.log.cached(offset, 1).into_iter().next(),
        }
    }

    /// The next messages that were never handed out, if they need not be read: those in `range`, as many as
    /// fit.
    pub(super) fn next_new(&mut self, range: OffsetRange, limits: FrameLimits) -> Next {
        match self.cursor.position() <= range.start {
            true => self.cursor.skip_to(range.start),
            false => self.cursor = Cursor::new(range.start, range.end),
        }
        if !self.cursor.fill_from_cache(&self.log) {
            return Next::Unread;
        }
        let limits = FrameLimits { end: limits.end.min(range.end), ..limits };
        self.cursor.peek_messages(limits).map_or(Next::Nothing, Next::Messages)
    }
}
