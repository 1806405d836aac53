//! Topics, producers and consumers: made, described, changed and removed.

use crate::{
    broker::{Broker, characters::texts, error::Error, notify::outbox::LeaseScope},
    model::{
        Consumer, ConsumerId, Labels, Offset, Page, PageRequest, Producer, ProducerId, Retention,
        Start, Topic, TopicChanges, TopicId, TopicName,
    },
    storage,
};

/// Topics that are read at a time for a page, of up to 17 KiB each: a page may be full before it has
/// as many entries as were asked for.
const TOPICS_AT_A_TIME: usize = 128;

impl Broker {
    /// Creates an empty topic.
    pub async fn create_topic(
        &self,
        topic: TopicName,
        description: &str,
        labels: &Labels,
        retention: &Retention,
    ) -> Result<Topic, Error> {
        self.check_text("description", [description].into_iter()).await?;
        self.check_text("labels", texts(labels)).await?;
        match self.storage.create_topic(&topic, description, labels, retention).await {
            Err(storage::Error::Taken) => Err(Error::TopicExists { topic }),
            Err(storage::Error::NumbersUsedUp) => Err(Error::NumbersUsedUp { what: "topic" }),
            other => Ok(other?),
        }
    }

    /// Describes a topic.
    pub async fn get_topic(&self, topic: TopicName) -> Result<Topic, Error> {
        let found = self.storage.find_topic(&topic).await.map_err(Error::of_read)?;
        found.ok_or(Error::TopicNotFound { topic })
    }

    /// Lists topics by name.
    pub async fn list_topics(&self, page: &PageRequest) -> Result<Page<Topic>, Error> {
        let (mut found, mut after) = (Vec::<Topic>::new(), page.after.clone());
        loop {
            let limit = TOPICS_AT_A_TIME.min(page.size + 1 - found.len());
            let next = self.storage.list_topics(&after, limit).await.map_err(Error::of_read)?;
            let ended = next.len() < limit;
            found.extend(next);
            match found.last() {
                Some(last) if !ended && !Page::is_filled_by(&found, page.size) => {
                    after = last.name.to_string();
                }
                _ => return Ok(Page::of(found, page.size, None)),
            }
        }
    }

    /// Changes a topic.
    pub async fn update_topic(
        &self,
        topic: TopicName,
        changes: &TopicChanges,
    ) -> Result<Topic, Error> {
        let TopicChanges { description, labels, .. } = changes;
        self.check_text("description", description.iter().map(String::as_str)).await?;
        self.check_text("labels", labels.iter().flat_map(texts)).await?;
        self.storage.update_topic(&topic, changes).await?.ok_or(Error::TopicNotFound { topic })
    }

    /// Refuses text that a client gave for a field, and that the database cannot store.
    pub(crate) async fn check_text<'t>(
        &self,
        field: &str,
        texts: impl Iterator<Item = &'t str> + Clone + Send,
    ) -> Result<(), Error> {
        self.characters.check(&*self.storage, field, texts).await
    }

    /// Deletes a topic with all that belongs to it.
    pub async fn delete_topic(&self, topic: TopicName) -> Result<(), Error> {
        let Some(id) = self.storage.delete_topic(&topic).await? else {
            return Err(Error::TopicNotFound { topic });
        };
        self.logs.topic_deleted(id);
        self.leases.changed(LeaseScope::Topic(id));
        Ok(())
    }

    /// Allows a producer to publish to a topic.
    pub async fn register_producer(
        &self,
        topic: TopicName,
        producer: ProducerId,
    ) -> Result<Producer, Error> {
        match self.storage.register_producer(&topic, &producer).await {
            Ok(Some(registered)) => Ok(registered),
            Ok(None) | Err(storage::Error::ParentGone) => Err(Error::TopicNotFound { topic }),
            Err(storage::Error::Taken) => Err(Error::ProducerExists { topic, producer }),
            Err(error) => Err(error.into()),
        }
    }

    /// Allows a producer to publish to a topic, and shuts its older instances out.
    pub async fn fence_producer(
        &self,
        topic: TopicName,
        producer: ProducerId,
    ) -> Result<Producer, Error> {
        match self.storage.fence_producer(&topic, &producer).await {
            Ok(Some(registered)) => Ok(registered),
            Ok(None) | Err(storage::Error::ParentGone) => Err(Error::TopicNotFound { topic }),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a producer's right to publish away.
    pub async fn unregister_producer(
        &self,
        topic: TopicName,
        producer: ProducerId,
    ) -> Result<(), Error> {
        if self.storage.unregister_producer(&topic, &producer).await? {
            return Ok(());
        }
        self.get_topic(topic.clone()).await?;
        Err(Error::ProducerNotFound { topic, producer })
    }

    /// Describes a producer.
    pub async fn get_producer(
        &self,
        topic: TopicName,
        producer: ProducerId,
    ) -> Result<Producer, Error> {
        if let Some(found) =
            self.storage.find_producer(&topic, &producer).await.map_err(Error::of_read)?
        {
            return Ok(found);
        }
        self.get_topic(topic.clone()).await?;
        Err(Error::ProducerNotFound { topic, producer })
    }

    /// Lists a topic's producers by id.
    pub async fn list_producers(
        &self,
        topic: TopicName,
        page: &PageRequest,
    ) -> Result<Page<Producer>, Error> {
        let id = self.find_listed(&topic, page).await?;
        let found = self.storage.list_producers(id, &page.after, page.size + 1).await;
        Ok(Page::of(found.map_err(Error::of_read)?, page.size, Some(id)))
    }

    /// Gives a consumer a position in a topic.
    pub async fn register_consumer(
        &self,
        topic: TopicName,
        consumer: ConsumerId,
        start: Start,
    ) -> Result<Consumer, Error> {
        loop {
            let (id, position) = self.resolve(&topic, start).await?;
            match self.storage.register_consumer(id, &consumer, position).await {
                Ok(Some(registered)) => return Ok(registered),
                // The log went from there meanwhile; it does so at most once a second.
                Ok(None) => {}
                Err(storage::Error::Taken) => {
                    return Err(Error::ConsumerExists { topic, consumer });
                }
                Err(storage::Error::ParentGone) => return Err(Error::TopicNotFound { topic }),
                Err(storage::Error::NumbersUsedUp) => {
                    return Err(Error::NumbersUsedUp { what: "consumer" });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A topic's number, and the offset that a place in its log has now.
    pub(crate) async fn resolve(
        &self,
        topic: &TopicName,
        place: Start,
    ) -> Result<(TopicId, Offset), Error> {
        let log = self.storage.find_log(topic).await.map_err(Error::of_read)?;
        let Some((id, first, head)) = log else {
            return Err(Error::TopicNotFound { topic: topic.clone() });
        };
        let offset = match place {
            Start::Earliest => first,
            Start::Latest => head,
            Start::Offset(offset) if offset < first || offset > head => {
                let topic = topic.clone();
                return Err(Error::OffsetOutOfRange { topic, offset, first, head });
            }
            Start::Offset(offset) => offset,
            Start::Time(time) => {
                let found = self.storage.find_offset_at(id, time).await.map_err(Error::of_read)?;
                // What is in the middle of a batch begins behind the batch's own first message.
                found.max(first)
            }
        };
        Ok((id, offset))
    }

    /// Forgets a consumer and its position.
    pub async fn unregister_consumer(
        &self,
        topic: TopicName,
        consumer: ConsumerId,
    ) -> Result<(), Error> {
        if let Some(key) = self.storage.unregister_consumer(&topic, &consumer).await? {
            self.leases.changed(LeaseScope::Consumer(key));
            return Ok(());
        }
        self.get_topic(topic.clone()).await?;
        Err(Error::ConsumerNotFound { topic, consumer })
    }

    /// Lists a topic's consumers by id.
    pub async fn list_consumers(
        &self,
        topic: TopicName,
        page: &PageRequest,
    ) -> Result<Page<Consumer>, Error> {
        let id = self.find_listed(&topic, page).await?;
        let found = self.storage.list_consumers(id, &page.after, page.size + 1).await;
        Ok(Page::of(found.map_err(Error::of_read)?, page.size, Some(id)))
    }

    /// The number of a topic whose list is asked for; an error if the page before was of another
    /// topic of that name.
    async fn find_listed(&self, topic: &TopicName, page: &PageRequest) -> Result<TopicId, Error> {
        let (id, _) = self.resolve(topic, Start::Earliest).await?;
        page.check_topic(id)?;
        Ok(id)
    }

    /// Describes a consumer.
    pub async fn get_consumer(
        &self,
        topic: TopicName,
        consumer: ConsumerId,
    ) -> Result<Consumer, Error> {
        if let Some(found) =
            self.storage.find_consumer(&topic, &consumer).await.map_err(Error::of_read)?
        {
            return Ok(found);
        }
        self.get_topic(topic.clone()).await?;
        Err(Error::ConsumerNotFound { topic, consumer })
    }
}
