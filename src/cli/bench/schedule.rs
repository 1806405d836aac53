//! What a run's publishers have to publish, and when.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::{sleep_until, timeout_at};

use super::{
    arguments::{LoadArgs, PublishArgs},
    pace::Pace,
    payload::Payload,
};
use crate::proto::NewMessage;

/// How long to wait for answers once the time to publish is over.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// The schedule that all publishers of a run share.
pub(super) struct Schedule {
    payload: Payload,
    /// Bytes of a payload.
    size: usize,
    /// Messages of a request.
    batch: u64,
    pace: Option<Arc<Pace>>,
    /// When publishing ends; none if a number of messages is published.
    end: Option<Instant>,
    /// The number of messages to publish.
    limit: u64,
    /// The number of messages that publishers have taken so far.
    taken: AtomicU64,
}

/// A request that is to be sent.
pub(super) struct DueRequest {
    pub(super) at: Instant,
    /// The number of its first message.
    first: u64,
    pub(super) count: u64,
}

impl Schedule {
    pub(super) fn start(load: &LoadArgs, args: &PublishArgs, now: Instant) -> Arc<Self> {
        let batch = u64::from(args.batch);
        let interval = args.rate.map(|rate| Duration::from_secs_f64(batch as f64 / rate));
        Arc::new(Self {
            payload: load.payload,
            size: load.size as usize,
            batch,
            pace: interval.map(|interval| Pace::start(now, interval)),
            end: args.amount.messages.is_none().then(|| now + args.amount.duration),
            limit: args.amount.messages.unwrap_or(u64::MAX),
            taken: AtomicU64::new(0),
        })
    }

    /// Waits until the next request is due; `None` once all messages are taken or the time is over.
    pub(super) async fn next(&self) -> Option<DueRequest> {
        let at = match &self.pace {
            Some(pace) => self.in_time(pace.next()).await?,
            None => Instant::now(),
        };
        if self.end.is_some_and(|end| Instant::now() >= end) {
            return None;
        }
        let first = self.taken.fetch_add(self.batch, Ordering::Relaxed);
        let count = self.limit.saturating_sub(first).min(self.batch);
        (count > 0).then_some(DueRequest { at, first, count })
    }

    /// Waits for a future; `None` if the time to publish ends first.
    pub(super) async fn in_time<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        match self.end {
            Some(end) => timeout_at(end.into(), future).await.ok(),
            None => Some(future.await),
        }
    }

    /// Waits until unanswered requests are to be abandoned; for ever if a number of messages is
    /// published.
    pub(super) async fn abandoned(&self) {
        match self.end {
            Some(end) => sleep_until((end + LAST_ANSWERS).into()).await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn messages(&self, due: &DueRequest) -> Vec<NewMessage> {
        let DueRequest { at, first, count } = *due;
        self.payload.make(first..first + count, self.size, at).map(NewMessage::new).collect()
    }
}
