//! Queues publishes for the writers that own their topics.
//!
//! A publish that was enqueued is stored whether or not its caller waits for the answer: writers
//! are tasks of their own, so cancelling a call cancels nothing.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use parking_lot::RwLock;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::{
    broker::{
        calls::Calls,
        error::Error,
        publish::{
            pending::{Answers, Caller, Pending},
            request::{Publish, Receipt},
            writer::{LogStore, Writer},
        },
    },
    model::TopicName,
};

/// How many bytes of publishes may be in flight. Beyond that, unary calls wait, and publish streams
/// are not read, so that HTTP/2 flow control holds their clients back.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// How many publishes may wait for one writer. Further ones wait to be enqueued.
const QUEUE_LENGTH: usize = 4_096;

/// How much memory a message takes besides its bytes.
const MESSAGE_OVERHEAD: usize = 96;

/// Accepts publishes.
pub struct Publisher {
    calls: Calls,
    /// A queue for each writer; empty once the broker drains.
    queues: RwLock<Vec<mpsc::Sender<Pending>>>,
    room: Arc<Semaphore>,
}

impl Publisher {
    pub(crate) fn start(
        log: Arc<LogStore>,
        writers: usize,
        calls: Calls,
        tasks: &TaskTracker,
    ) -> Self {
        let queues = (0..writers)
            .map(|_| {
                let (queue, pending) = mpsc::channel(QUEUE_LENGTH);
                tasks.spawn(Writer::new(log.clone(), pending).run());
                queue
            })
            .collect();
        let room = Arc::new(Semaphore::new(MAX_BYTES));
        Self { calls, queues: RwLock::new(queues), room }
    }

    /// Stores the messages of one request.
    pub async fn publish(&self, publish: Publish) -> Result<Receipt, Error> {
        let answers = self.enqueue(publish).await?.wait().await;
        answers.into_iter().next().unwrap_or(Err(Error::outcome_unknown()))
    }

    /// Enqueues a publish as soon as there is room for it. Publishes to one topic are stored in the
    /// order in which they are enqueued.
    pub async fn enqueue(&self, publish: Publish) -> Result<Answers, Error> {
        self.calls.admit()?;
        let size = publish.messages.bytes() + publish.messages.count() * MESSAGE_OVERHEAD;
        let size = size.min(MAX_BYTES) as u32;
        let room = self.room.clone().acquire_many_owned(size).await.map_err(|_| Error::Draining)?;
        let queue = self.queue_of(&publish.topic).ok_or(Error::Draining)?;
        let (outcome, answered) = oneshot::channel();
        let answers = Answers::of(&publish, answered);
        let pending = Pending::new(publish, Caller { outcome, _room: room });
        queue.send(pending).await.map_err(|_| Error::Draining)?;
        Ok(answers)
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
