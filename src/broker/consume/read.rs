//! Reads without a consumer.

use crate::{
    broker::{
        consume::delivery::Delivery,
        error::Error,
        log::messages::{FrameLimits, Messages},
    },
    model::{LogEnds, Start, TopicName},
};

/// Messages of a topic, and the ends of its log.
#[derive(Clone, Debug)]
pub struct ReadMessages {
    /// The messages; none at the head.
    pub messages: Messages,
    /// The ends of the log.
    pub ends: LogEnds,
}

impl Delivery {
    /// Reads messages, without moving a position.
    pub async fn read_messages(
        &self,
        topic: TopicName,
        start: Start,
        max_messages: usize,
    ) -> Result<ReadMessages, Error> {
        self.calls.admit()?;
        let (id, from) = self.catalogue.resolve(&topic, start).await?;
        let limits = FrameLimits::of_answer(max_messages);
        let read = self.storage.read_batches(id, from, limits.bytes).await;
        let Some(log) = read.map_err(Error::of_read)? else {
            return Err(Error::TopicNotFound { topic });
        };
        let messages = Messages::that_fit(log.batches, from.max(log.ends.start), limits);
        self.metrics.traffic.count_consumed(id, messages.count(), messages.bytes());
        Ok(ReadMessages { messages, ends: log.ends })
    }
}
