//! Messages that wait to be sent.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, SetOnce},
    time::Instant,
};

use super::{
    super::{Error, message::checked_size},
    acknowledgement::{Acknowledgement, Outcome},
};
use crate::proto::NewMessage;

/// What a message, and each of its headers, counts for besides its bytes.
const OVERHEAD: usize = 100;

/// How much may gather, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) linger: Duration,
    pub(super) batch_messages: usize,
    pub(super) batch_bytes: usize,
    pub(super) buffered_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(1),
            batch_messages: 4_000,
            batch_bytes: 1024 * 1024,
            buffered_bytes: 32 * 1024 * 1024,
        }
    }
}

/// Messages of one request.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) messages: Vec<NewMessage>,
    bytes: usize,
    /// The room that its messages take.
    cost: usize,
    pub(super) began: Instant,
    pub(super) outcome: Outcome,
}

impl Batch {
    fn new(capacity: usize) -> Self {
        let messages = Vec::with_capacity(capacity);
        let outcome = Arc::new(SetOnce::new());
        Self { messages, bytes: 0, cost: 0, began: Instant::now(), outcome }
    }

    /// Tells all who wait for one of the messages.
    pub(super) fn settle(&self, outcome: Result<i64, Error>) {
        let _ = self.outcome.set(outcome);
    }
}

/// Nobody waits for ever: what is dropped without an answer may be stored or not.
impl Drop for Batch {
    fn drop(&mut self) {
        if !self.outcome.initialized() {
            let reason = "the producer was dropped before the broker answered".to_owned();
            self.settle(Err(Error::Lost { reason }));
        }
    }
}

/// When there is something to send.
#[derive(Debug, PartialEq)]
pub(super) enum Due {
    Now,
    At(Instant),
    /// When there is more.
    Later,
}

/// Messages that wait to be sent, in order; those that were sent count until they are answered.
#[derive(Debug)]
pub(super) struct Buffer {
    limits: Limits,
    /// Bytes for which there is room. Closed when nothing more is taken in.
    room: Semaphore,
    state: Mutex<State>,
    /// There is something new to look at.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    full: VecDeque<Batch>,
    /// What gathers, if anything does.
    open: Option<Batch>,
    /// Nothing lingers until so much is sent.
    hurry: bool,
    /// Why nothing more is taken in.
    ended: Option<Error>,
    /// What went wrong first since the last flush.
    failure: Option<Error>,
    /// What became of the newest batch that was taken to be sent.
    taken: Option<Outcome>,
    /// How many messages that one had, as the next one may.
    expected: usize,
}

impl Buffer {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            room: Semaphore::new(limits.buffered_bytes),
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Takes a message in, after waiting for room.
    pub(super) async fn add(&self, message: NewMessage) -> Result<Acknowledgement, Error> {
        let bytes = checked_size(&message)?;
        let cost = bytes + OVERHEAD * (1 + message.headers.len());
        // A message takes 1 MiB at most.
        let permits = cost as u32;
        let room = match self.room.try_acquire_many(permits) {
            Ok(room) => Ok(room),
            Err(_) => self.room.acquire_many(permits).await,
        };
        match room {
            Ok(room) => room.forget(),
            Err(_) => return Err(self.state().ended.clone().unwrap_or(Error::Closed)),
        }
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(ended) = &state.ended {
            return Err(ended.clone());
        }
        let mut news = false;
        if state.open.as_ref().is_some_and(|batch| !self.fits(batch, bytes)) {
            state.full.extend(state.open.take());
            news = true;
        }
        let expected = state.expected;
        let batch = state.open.get_or_insert_with(|| {
            news = true;
            Batch::new(expected)
        });
        let acknowledgement = Acknowledgement::new(batch.outcome.clone(), batch.messages.len());
        batch.messages.push(message);
        batch.bytes += bytes;
        batch.cost += cost;
        if batch.messages.len() == self.limits.batch_messages {
            state.full.extend(state.open.take());
            news = true;
        }
        drop(guard);
        if news {
            self.changed.notify_one();
        }
        Ok(acknowledgement)
    }

    fn fits(&self, batch: &Batch, bytes: usize) -> bool {
        batch.bytes + bytes <= self.limits.batch_bytes
    }

    /// When the next batch is to be sent; `idle` if nothing is under way.
    pub(super) fn due(&self, idle: bool) -> Due {
        let state = self.state();
        match &state.open {
            _ if !state.full.is_empty() => Due::Now,
            Some(_) if idle || state.hurry => Due::Now,
            Some(batch) => match batch.began + self.limits.linger {
                over if over <= Instant::now() => Due::Now,
                lingers => Due::At(lingers),
            },
            None => Due::Later,
        }
    }

    /// When the first message came that waits to be sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let state = self.state();
        state.full.front().or(state.open.as_ref()).map(|batch| batch.began)
    }

    /// The next batch to be sent.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut state = self.state();
        let batch = match state.full.pop_front() {
            Some(full) => full,
            None => {
                state.hurry = false;
                state.open.take()?
            }
        };
        state.taken = Some(batch.outcome.clone());
        state.expected = batch.messages.len();
        Some(batch)
    }

    /// Waits until there may be something new to send.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// A batch was answered: its room is free.
    pub(super) fn settle(&self, batch: &Batch, outcome: Result<i64, Error>) {
        if let Err(error) = &outcome {
            self.state().failure.get_or_insert_with(|| error.clone());
        }
        batch.settle(outcome);
        self.room.add_permits(batch.cost);
    }

    /// Takes nothing more in.
    pub(super) fn end(&self, error: &Error) {
        self.state().ended.get_or_insert_with(|| error.clone());
        self.room.close();
    }

    /// Takes nothing more in, and gives all that waits to be sent this error. What was sent is to
    /// be settled before: whoever waits for the newest takes all others for answered.
    pub(super) fn fail(&self, error: &Error) {
        self.end(error);
        let mut state = self.state();
        let mut waiting = std::mem::take(&mut state.full);
        waiting.extend(state.open.take());
        if let Some(newest) = waiting.back() {
            // Who flushes from now on waits for it, and is told.
            state.taken = Some(newest.outcome.clone());
            state.failure.get_or_insert_with(|| error.clone());
        }
        drop(state);
        waiting.iter().for_each(|batch| self.settle(batch, Err(error.clone())));
    }

    /// Lets nothing linger, and returns what is to become of the newest batch: it is answered last.
    pub(super) fn flush(&self) -> Option<Outcome> {
        let mut state = self.state();
        state.hurry = state.open.is_some();
        let newest = state.open.as_ref().or(state.full.back());
        let last = newest.map(|batch| batch.outcome.clone()).or(state.taken.clone());
        drop(state);
        self.changed.notify_one();
        last
    }

    /// What went wrong first, once.
    pub(super) fn take_failure(&self) -> Option<Error> {
        self.state().failure.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
