//! Messages that the database has lost, though it had acknowledged them.
//!
//! PostgreSQL loses nothing by itself. A standby that follows asynchronously and is promoted, or a
//! backup that is restored, lacks what was stored last: the head of a topic is then farther back
//! than it was, and offsets are given to other messages. That cannot be undone here, but it must
//! not go unnoticed. Each broker remembers the heads that it saw; when the database tells one that
//! lies before, or gives a message an offset that lies before, the broker logs an error, and every
//! consumer that was registered by then is told once by it, when it reads on.

use std::collections::HashSet;

use super::{Broker, Error, feed::Feeds, losses::Audience};
use crate::{
    model::{ConsumerId, ConsumerKey, Offset, TopicId, TopicName},
    storage::{Storage, Stored},
};

/// The database told, or gave to a message, an offset that lies before the head that was known when
/// it was asked: what lies between is lost. `head` is where the topic ends now.
pub(super) async fn note(
    storage: &Storage,
    feeds: &Feeds,
    topic: TopicId,
    (first, head): (Offset, Offset),
    known: Offset,
) {
    if !feeds.losses().find(topic, head, known) {
        return;
    }
    let (name, audience) = match storage.find_consumer_numbers(topic).await {
        Ok(Some((name, consumers))) => {
            (name.to_string(), Audience::These(consumers.into_iter().collect()))
        }
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(%error, "find out who has lost messages");
            (format!("number {}", topic.0), Audience::AllBut(HashSet::new()))
        }
    };
    tracing::error!(topic = %name, %first, end = %known, "the database has lost messages");
    feeds.losses().add(topic, (first, known), audience);
    feeds.head_went_back(topic, head);
}

impl Broker {
    /// A consumer's position, to be read from. An error, once, if messages were lost since it was
    /// last read for.
    pub(super) async fn find_position_to_read(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Result<Stored, Error> {
        let mut stored = self.find_position(topic, consumer).await?;
        let number = stored.key.topic;
        self.feeds.losses().learn(topic, number);
        let known = self.feeds.losses().known_head(number);
        if stored.head < known {
            // Or somebody published while it was found.
            stored = self.find_position(topic, consumer).await?;
            if stored.head < known && stored.key.topic == number {
                let ends = (stored.head, stored.head);
                note(&self.storage, &self.feeds, number, ends, known).await;
            }
        }
        self.tell_of_losses(topic, stored.key)?;
        if stored.position > stored.head {
            let (first, end) = (stored.head, stored.position);
            return Err(Error::MessagesLost { topic: topic.clone(), first, end });
        }
        Ok(stored)
    }

    /// An error, once, if messages were lost that the consumer has not been told of.
    pub(super) fn tell_of_losses(&self, name: &TopicName, key: ConsumerKey) -> Result<(), Error> {
        let ConsumerKey { topic, consumer } = key;
        self.feeds.losses().take(topic, consumer).map_or(Ok(()), |(first, end)| {
            Err(Error::MessagesLost { topic: name.clone(), first, end })
        })
    }
}
