//! Reads without a consumer.

use crate::{
    broker::{
        Broker,
        error::Error,
        log::cursor::{FrameLimits, Messages, end_of_fit},
    },
    model::{Offset, Start, TopicName},
};

/// Messages of a topic, and where its log ends.
#[derive(Clone, Debug)]
pub struct ReadMessages {
    /// The messages; none at the head.
    pub delivery: Messages,
    /// The offset of the oldest message kept.
    pub first: Offset,
    /// The offset that the topic's next message gets.
    pub head: Offset,
}

impl Broker {
    /// Reads messages; nothing moves.
    pub async fn read_messages(
        &self,
        topic: TopicName,
        start: Start,
        max_messages: usize,
    ) -> Result<ReadMessages, Error> {
        self.refuse_when_draining()?;
        let (id, from) = self.resolve(&topic, start).await?;
        let limits = FrameLimits::of_answer(max_messages);
        let read = self.storage.read_batches(id, from, limits.bytes).await;
        let Some(log) = read.map_err(Error::of_read)? else {
            return Err(Error::TopicNotFound { topic });
        };
        let from = from.max(log.first);
        let to = end_of_fit(log.batches.iter(), from, limits);
        let delivery = Messages::new(log.batches, from, to);
        Ok(ReadMessages { delivery, first: log.first, head: log.head })
    }
}
