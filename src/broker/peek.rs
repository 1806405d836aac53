//! Reads without a consumer.

use super::{Broker, Delivery, Error, Limits, cursor::end_of_fit};
use crate::model::{Offset, Start, TopicName};

/// Messages of a topic, and where its log ends.
#[derive(Clone, Debug)]
pub struct Peeked {
    /// The messages; none at the head.
    pub delivery: Delivery,
    /// The offset of the oldest message kept.
    pub first: Offset,
    /// The offset that the topic's next message gets.
    pub head: Offset,
}

/// Bytes that an answer may take on the wire, one message of the largest size aside: it must stay
/// below the 4 MiB that a client decodes by default.
const ANSWER_BYTES: usize = 2 * 1024 * 1024;

impl Broker {
    /// Reads messages; nothing moves.
    pub async fn read_messages(
        &self,
        topic: TopicName,
        start: Start,
        max_messages: usize,
    ) -> Result<Peeked, Error> {
        self.refuse_when_draining()?;
        let (id, from) = self.resolve(&topic, start).await?;
        let read = self.storage.read_batches(id, from, ANSWER_BYTES).await;
        let Some(log) = read.map_err(Error::of_read)? else {
            return Err(Error::TopicNotFound { topic });
        };
        let from = from.max(log.first);
        let limits = Limits { messages: max_messages, bytes: ANSWER_BYTES, ..Limits::MAX };
        let to = end_of_fit(log.batches.iter(), from, limits);
        let delivery = Delivery::new(log.batches, from, to);
        Ok(Peeked { delivery, first: log.first, head: log.head })
    }
}
