//! Takes publishes in and hands each to the writer that owns its topic.
//!
//! A publish that was taken in is written whether its caller waits for the answer or not: the
//! writers are tasks of their own, and a dropped call cancels nothing.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, RwLock},
};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::{
    broker::{
        Broker,
        error::Error,
        publish::{
            pending::{Caller, Pending},
            request::{Answers, Publish, Receipt, Run},
            writer,
        },
    },
    model::TopicName,
};

/// Bytes of publishes that may be on their way at the same time. When they are used up, unary
/// calls wait, and publish streams are no longer read, so that HTTP/2 holds their clients back.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// Publishes that may wait for one writer: as many as small ones can be in flight. The next one
/// waits before it is taken in.
const QUEUE_LENGTH: usize = 4_096;

/// What a message costs in memory besides its bytes.
const MESSAGE_OVERHEAD: usize = 96;

pub(crate) struct Publisher {
    /// A queue for each writer; none once the broker drains.
    queues: RwLock<Vec<mpsc::Sender<Pending>>>,
    room: Arc<Semaphore>,
}

impl Publisher {
    pub(crate) fn start(log: Arc<writer::LogStore>, writers: usize, tasks: &TaskTracker) -> Self {
        let queues = (0..writers)
            .map(|_| {
                let (queue, queued) = mpsc::channel(QUEUE_LENGTH);
                tasks.spawn(writer::Writer::new(log.clone(), queued).run());
                queue
            })
            .collect();
        Self { queues: RwLock::new(queues), room: Arc::new(Semaphore::new(QUEUE_BYTES)) }
    }

    /// Takes no more publishes; the writers end when they have written what was taken in.
    pub(crate) fn close(&self) {
        self.queues.write().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
    }

    async fn take_in(&self, run: Run) -> Result<Answers, Error> {
        let Publish { topic, messages, .. } = &run.publish;
        let size = messages.bytes() + messages.count() * MESSAGE_OVERHEAD;
        let size = size.min(QUEUE_BYTES) as u32;
        let room = self.room.clone().acquire_many_owned(size).await.map_err(|_| Error::Draining)?;
        let queue = self.queue_of(topic).ok_or(Error::Draining)?;
        let (outcome, answered) = oneshot::channel();
        let answers = Answers { counts: run.counts.clone(), outcome: answered };
        let queued = Pending::new(run, Caller { outcome, _room: room });
        queue.send(queued).await.map_err(|_| Error::Draining)?;
        Ok(answers)
    }

    fn queue_of(&self, topic: &TopicName) -> Option<mpsc::Sender<Pending>> {
        let queues = self.queues.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut hasher = DefaultHasher::new();
        topic.hash(&mut hasher);
        let writer = (hasher.finish() as usize).checked_rem(queues.len())?;
        queues.get(writer).cloned()
    }
}

impl Broker {
    /// Stores the messages of one request.
    pub async fn publish(&self, publish: Publish) -> Result<Receipt, Error> {
        let answers = self.take_in(publish.into()).await?.wait().await;
        answers.into_iter().next().unwrap_or(Err(Error::OutcomeUnknown))
    }

    /// Takes a run of requests in, once there is room for it; runs of one topic are stored in the
    /// order in which they were taken in.
    pub async fn take_in(&self, run: Run) -> Result<Answers, Error> {
        self.refuse_when_draining()?;
        self.publisher.take_in(run).await
    }
}
