//! A publish on its way: what is asked, what is answered, and what waits in between.

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Error;
use crate::model::{Epoch, NewMessages, Offset, ProducerId, Sequence, TopicName};

/// Messages to store in one topic.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The topic.
    pub topic: TopicName,
    /// Who publishes.
    pub producer: ProducerId,
    /// The epoch that the producer's instance was given.
    pub epoch: Epoch,
    /// The first message's number in the producer's count, if it counts.
    pub sequence: Option<Sequence>,
    /// The head that the topic must have, if the producer says so.
    pub expected_head: Option<Offset>,
    /// What to store.
    pub messages: NewMessages,
}

/// Where messages were stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The offset of the first message.
    pub first: Offset,
    /// How many were stored.
    pub count: usize,
    /// Whether they had been stored before.
    pub duplicate: bool,
}

/// The answer to a publish that was taken in, once it is there.
pub struct Answer(pub(super) oneshot::Receiver<Result<Receipt, Error>>);

impl Answer {
    /// Waits for the answer.
    pub async fn wait(self) -> Result<Receipt, Error> {
        // A writer that is gone without an answer may have written.
        self.0.await.unwrap_or(Err(Error::OutcomeUnknown))
    }
}

/// A publish on its way to its writer.
pub(super) struct Queued {
    pub publish: Publish,
    pub reply: oneshot::Sender<Result<Receipt, Error>>,
    /// Its share of the bytes that may be on their way, given back when it is answered.
    pub _room: OwnedSemaphorePermit,
}
