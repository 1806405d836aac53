//! Queues publishes for the writers that own their topics.
//!
//! A publish that was enqueued is stored whether or not its caller waits for the answer: writers
//! are tasks of their own, so cancelling a call cancels nothing.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use parking_lot::RwLock;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};
use tokio_util::task::TaskTracker;

use crate::{
    broker::{
        budget::{Budget, Hold, Used},
        calls::Calls,
        error::Error,
        publish::{
            pending::{Answers, Caller, Pending},
            request::{Publish, Receipt},
            writer::{LogStore, Writer},
        },
    },
    metrics::PublishMetrics,
    model::TopicName,
    traces::PublishSpan,
};

/// How many bytes of publishes may be in flight. Beyond that, requests are not read, so that HTTP/2
/// flow control holds their clients back.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// The share of each owner: several times the largest request.
const MAX_BYTES_EACH: usize = MAX_BYTES / 4;

/// How many publishes may wait for one writer. Further ones wait to be enqueued.
const QUEUE_LENGTH: usize = 4_096;

/// Accepts publishes.
pub struct Publisher {
    calls: Calls,
    /// A queue for each writer; empty once the broker drains.
    queues: RwLock<Vec<mpsc::Sender<Pending>>>,
    budget: Arc<Budget>,
    metrics: PublishMetrics,
}

/// A queue that has no room, and the publish that waits for some.
type Full = Box<(mpsc::Sender<Pending>, Pending)>;

impl Publisher {
    pub(crate) fn start(
        log: Arc<LogStore>,
        writers: usize,
        calls: Calls,
        tasks: &TaskTracker,
    ) -> Self {
        let metrics = log.metrics.publishing.clone();
        let queues = (0..writers)
            .map(|_| {
                let (queue, pending) = mpsc::channel(QUEUE_LENGTH);
                tasks.spawn(Writer::new(log.clone(), pending).run());
                queue
            })
            .collect();
        let budget = Arc::new(Budget::new(MAX_BYTES, MAX_BYTES_EACH));
        Self { calls, queues: RwLock::new(queues), budget, metrics }
    }

    /// What the bytes of publishes are charged to, from their arrival to their answer.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Stores the messages of one request. `hold` is what its bytes were charged, `span` its
    /// span if it is traced.
    pub async fn publish(
        &self,
        publish: Publish,
        hold: Option<Hold>,
        span: Option<PublishSpan>,
    ) -> Result<Receipt, Error> {
        let answers = self.enqueue(publish, hold, span).await?.wait().await;
        answers.into_iter().next().unwrap_or(Err(Error::outcome_unknown()))
    }

    /// Enqueues a publish as soon as the queue has room for it. Publishes to one topic are stored in
    /// the order in which they are enqueued. `hold` is what its bytes were charged, and is returned
    /// with the answer.
    pub async fn enqueue(
        &self,
        publish: Publish,
        hold: Option<Hold>,
        span: Option<PublishSpan>,
    ) -> Result<Answers, Error> {
        let (answers, full) = self.try_enqueue(publish, hold, span)?;
        if let Some(full) = full {
            let (queue, pending) = *full;
            // Boxed, as a queue is rarely full.
            Box::pin(async move { queue.send(pending).await })
                .await
                .map_err(|_| Error::Draining)?;
        }
        Ok(answers)
    }

    /// Enqueues a publish. Returns it and its queue too if the queue has no room.
    fn try_enqueue(
        &self,
        publish: Publish,
        hold: Option<Hold>,
        span: Option<PublishSpan>,
    ) -> Result<(Answers, Option<Full>), Error> {
        self.calls.admit()?;
        let queue = self.queue_of(&publish.topic).ok_or(Error::Draining)?;
        let (outcome, answered) = oneshot::channel();
        let answers = Answers::of(&publish, answered);
        let timer = self.metrics.begin();
        let pending = Pending::new(publish, Caller { outcome, _hold: hold, timer, span });
        // This takes no room that goes to a sender that waits.
        match queue.try_send(pending) {
            Ok(()) => Ok((answers, None)),
            Err(TrySendError::Full(pending)) => Ok((answers, Some(Box::new((queue, pending))))),
            Err(TrySendError::Closed(_)) => Err(Error::Draining),
        }
    }

    /// How many publishes wait for a writer, and how many there is room for.
    pub(crate) fn queued(&self) -> Used {
        let queues = self.queues.read();
        let waiting = |queue: &mpsc::Sender<Pending>| queue.max_capacity() - queue.capacity();
        Used {
            used: queues.iter().map(waiting).sum(),
            limit: queues.iter().map(mpsc::Sender::max_capacity).sum(),
        }
    }

    /// Accepts no more publishes; the writers end once they have written those that are enqueued.
    pub(crate) fn close(&self) {
        self.queues.write().clear();
    }

    fn queue_of(&self, topic: &TopicName) -> Option<mpsc::Sender<Pending>> {
        let queues = self.queues.read();
        let mut hasher = DefaultHasher::new();
        topic.hash(&mut hasher);
        let writer = (hasher.finish() as usize).checked_rem(queues.len())?;
        queues.get(writer).cloned()
    }
}
