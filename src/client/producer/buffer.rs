//! Messages that wait to be sent.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, Semaphore, SetOnce},
    time::Instant,
};

use super::{
    acknowledgement::{Acknowledgement, Outcome},
    limits::Limits,
    send_span::SendSpan,
};
use crate::{
    client::{error::Error, message::checked_size},
    proto::NewMessage,
};

/// What a message, and each of its headers, counts for besides its bytes.
const OVERHEAD: usize = 100;

/// The messages of one request, and the outcome that they share.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) messages: Vec<NewMessage>,
    bytes: usize,
    /// The room that its messages take up.
    cost: usize,
    /// When the first message came.
    pub(super) began: Instant,
    pub(super) outcome: Outcome,
    /// The spans of messages that are traced, with their indexes.
    spans: Mutex<Vec<(usize, SendSpan)>>,
}

impl Request {
    fn new(capacity: usize) -> Self {
        let messages = Vec::with_capacity(capacity);
        let outcome = Arc::new(SetOnce::new());
        Self {
            messages,
            bytes: 0,
            cost: 0,
            began: Instant::now(),
            outcome,
            spans: Mutex::default(),
        }
    }

    /// Answers everyone who waits for one of the messages.
    pub(super) fn settle(&self, outcome: Result<i64, Error>) {
        // Before anybody hears of it, who may end the program next.
        for (index, span) in self.spans.lock().drain(..) {
            span.end(outcome.as_ref().copied().map(|first| first + index as i64));
        }
        let _ = self.outcome.set(outcome);
    }
}

/// Nobody waits for ever: a request dropped without an answer settles as lost.
impl Drop for Request {
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
    /// Once the buffer changes.
    Later,
}

/// Messages that wait to be sent, in order. Messages already sent take up room until they are
/// answered.
#[derive(Debug)]
pub(super) struct Buffer {
    limits: Limits,
    /// Bytes for which there is room. Closed when the buffer accepts no more messages.
    room: Semaphore,
    state: Mutex<State>,
    /// Wakes the delivery: a request may be due.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    full: VecDeque<Request>,
    /// The request that gathers messages, if there is one.
    open: Option<Request>,
    /// The open request is sent without lingering.
    flushing: bool,
    /// Why no more messages are accepted.
    ended: Option<Error>,
    /// The first error since the last flush.
    failure: Option<Error>,
    /// The outcome of the newest request that was taken to be sent.
    taken: Option<Outcome>,
    /// How many messages that request had, as a guess for the next one.
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

    /// Enqueues a message, after waiting for room. Takes its span, if it is enqueued.
    pub(super) async fn add(
        &self,
        message: NewMessage,
        span: &mut Option<SendSpan>,
    ) -> Result<Acknowledgement, Error> {
        let bytes = checked_size(&message)?;
        let cost = bytes + OVERHEAD * (1 + message.headers.len());
        // Fits: a message has at most 1 MiB.
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
        let mut changed = false;
        if state.open.as_ref().is_some_and(|open| !self.fits(open, bytes)) {
            state.full.extend(state.open.take());
            changed = true;
        }
        let expected = state.expected;
        let open = state.open.get_or_insert_with(|| {
            changed = true;
            Request::new(expected)
        });
        let acknowledgement = Acknowledgement::new(open.outcome.clone(), open.messages.len());
        open.spans.get_mut().extend(span.take().map(|span| (open.messages.len(), span)));
        open.messages.push(message);
        open.bytes += bytes;
        open.cost += cost;
        if open.messages.len() == self.limits.request_messages {
            state.full.extend(state.open.take());
            changed = true;
        }
        drop(guard);
        if changed {
            self.changed.notify_one();
        }
        Ok(acknowledgement)
    }

    fn fits(&self, open: &Request, bytes: usize) -> bool {
        open.bytes + bytes <= self.limits.request_bytes
    }

    /// When the next request is to be sent; `idle` if no request is unanswered.
    pub(super) fn due(&self, idle: bool) -> Due {
        let state = self.state();
        match &state.open {
            _ if !state.full.is_empty() => Due::Now,
            Some(_) if idle || state.flushing => Due::Now,
            Some(open) => match open.began + self.limits.linger {
                past if past <= Instant::now() => Due::Now,
                later => Due::At(later),
            },
            None => Due::Later,
        }
    }

    /// When the oldest message came that waits to be sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let state = self.state();
        state.full.front().or(state.open.as_ref()).map(|request| request.began)
    }

    /// Takes the next request to be sent.
    pub(super) fn take(&self) -> Option<Request> {
        let mut state = self.state();
        let request = match state.full.pop_front() {
            Some(full) => full,
            None => {
                state.flushing = false;
                state.open.take()?
            }
        };
        state.taken = Some(request.outcome.clone());
        state.expected = request.messages.len();
        Some(request)
    }

    /// Waits until a request may be due.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Settles a request that was taken, and frees its room.
    pub(super) fn settle(&self, request: &Request, outcome: Result<i64, Error>) {
        if let Err(error) = &outcome {
            self.state().failure.get_or_insert_with(|| error.clone());
        }
        request.settle(outcome);
        self.room.add_permits(request.cost);
    }

    /// Accepts no more messages.
    pub(super) fn end(&self, error: &Error) {
        self.state().ended.get_or_insert_with(|| error.clone());
        self.room.close();
    }

    /// Accepts no more messages, and settles those that wait to be sent with this error. Requests
    /// already sent must be settled before: a flush waits for the newest outcome and takes all
    /// older requests for answered.
    pub(super) fn fail(&self, error: &Error) {
        self.end(error);
        let mut state = self.state();
        let mut waiting = std::mem::take(&mut state.full);
        waiting.extend(state.open.take());
        if let Some(newest) = waiting.back() {
            // A flush from now on waits for this outcome, and so fails with the error.
            state.taken = Some(newest.outcome.clone());
            state.failure.get_or_insert_with(|| error.clone());
        }
        drop(state);
        waiting.iter().for_each(|request| self.settle(request, Err(error.clone())));
    }

    /// Sends the open request without lingering, and returns the outcome of the newest request,
    /// which is answered last.
    pub(super) fn flush(&self) -> Option<Outcome> {
        let mut state = self.state();
        state.flushing = state.open.is_some();
        let newest = state.open.as_ref().or(state.full.back());
        let newest = newest.map(|request| request.outcome.clone()).or(state.taken.clone());
        drop(state);
        self.changed.notify_one();
        newest
    }

    /// Takes the first error since the last flush.
    pub(super) fn take_failure(&self) -> Option<Error> {
        self.state().failure.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}
