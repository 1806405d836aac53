//! Finds the topics, producers and consumers that calls name, or reports which of them does not
//! exist.

use std::sync::Arc;

use crate::{
    broker::error::Error,
    model::{
        Consumer, ConsumerId, LogEnds, Offset, Producer, ProducerId, Start, Topic, TopicId,
        TopicMark, TopicName,
    },
    storage::{self, Storage, Stored},
};

/// Looks names up in the database.
pub(crate) struct Catalogue {
    storage: Arc<Storage>,
}

impl Catalogue {
    pub(crate) fn new(storage: Arc<Storage>) -> Self {
        Self { storage }
    }

    /// A topic.
    pub(crate) async fn topic(&self, topic: &TopicName) -> Result<Topic, Error> {
        let found = self.storage.find_topic(topic).await.map_err(Error::of_read)?;
        found.ok_or_else(|| Error::TopicNotFound { topic: topic.clone() })
    }

    /// A topic's id, and what tells it apart from others of its name.
    pub(crate) async fn identity(&self, topic: &TopicName) -> Result<(TopicId, TopicMark), Error> {
        let found = self.storage.find_topic_identity(topic).await.map_err(Error::of_read)?;
        found.ok_or_else(|| Error::TopicNotFound { topic: topic.clone() })
    }

    /// A topic's id, and the ends of its log.
    pub(crate) async fn log(&self, topic: &TopicName) -> Result<(TopicId, LogEnds), Error> {
        let found = self.storage.find_log(topic).await.map_err(Error::of_read)?;
        found.ok_or_else(|| Error::TopicNotFound { topic: topic.clone() })
    }

    /// A topic's id, and the offset where a reader starts now.
    pub(crate) async fn resolve(
        &self,
        topic: &TopicName,
        start: Start,
    ) -> Result<(TopicId, Offset), Error> {
        let (id, ends) = self.log(topic).await?;
        let offset = match start {
            Start::Earliest => ends.start,
            Start::Latest => ends.head,
            Start::Offset(offset) if offset < ends.start || offset > ends.head => {
                return Err(Error::OffsetOutOfRange { topic: topic.clone(), offset, ends });
            }
            Start::Offset(offset) => offset,
            Start::Time(time) => {
                let found = self.storage.find_offset_at(id, time).await.map_err(Error::of_read)?;
                // The batch found may begin with messages that were removed.
                found.max(ends.start)
            }
        };
        Ok((id, offset))
    }

    /// A producer of a topic.
    pub(crate) async fn producer(
        &self,
        topic: &TopicName,
        producer: &ProducerId,
    ) -> Result<Producer, Error> {
        let found = self.storage.find_producer(topic, producer).await;
        self.or_not_found(found, topic, || Self::no_producer(topic, producer)).await
    }

    /// A consumer of a topic.
    pub(crate) async fn consumer(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Result<Consumer, Error> {
        let found = self.storage.find_consumer(topic, consumer).await;
        self.or_not_found(found, topic, || Self::no_consumer(topic, consumer)).await
    }

    /// A consumer's stored position.
    pub(crate) async fn position(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Result<Stored, Error> {
        let found = self.storage.find_stored_position(topic, consumer).await;
        self.or_not_found(found, topic, || Self::no_consumer(topic, consumer)).await
    }

    /// Why a consumer no longer exists: it was unregistered, or its topic was deleted.
    pub(crate) async fn why_gone(&self, topic: &TopicName, consumer: &ConsumerId) -> Error {
        match self.position(topic, consumer).await {
            // A new registration has the ID by now.
            Ok(_) => Self::no_consumer(topic, consumer),
            Err(error) => error,
        }
    }

    /// What was found on a topic, or the error: that the topic does not exist, or `not_found`.
    pub(crate) async fn or_not_found<T>(
        &self,
        found: Result<Option<T>, storage::Error>,
        topic: &TopicName,
        not_found: impl FnOnce() -> Error,
    ) -> Result<T, Error> {
        match found.map_err(Error::of_read)? {
            Some(found) => Ok(found),
            None => {
                self.topic(topic).await?;
                Err(not_found())
            }
        }
    }

    fn no_producer(topic: &TopicName, producer: &ProducerId) -> Error {
        Error::ProducerNotFound { topic: topic.clone(), producer: producer.clone() }
    }

    pub(crate) fn no_consumer(topic: &TopicName, consumer: &ConsumerId) -> Error {
        Error::ConsumerNotFound { topic: topic.clone(), consumer: consumer.clone() }
    }
}
