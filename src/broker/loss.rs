//! Messages that the database has lost, though it had acknowledged them.
//!
//! PostgreSQL loses nothing by itself. A standby that follows asynchronously and is promoted, or a
//! backup that is restored, lacks what was stored last: the head of a topic is then farther back
//! than it was, and offsets are given to other messages. That cannot be undone here, but it must
//! not go unnoticed. Each broker remembers the heads that it saw; when the database tells one that
//! lies before, the broker logs an error, and every consumer that was registered by then is told
//! once, when it is next read for.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard},
};

use super::{Broker, Error, feed::Feeds};
use crate::{
    model::{ConsumerId, Offset, TopicId, TopicName},
    storage::{self, Storage, Stored},
};

/// What this broker knows to have been stored, and what of it is gone.
#[derive(Default)]
pub(super) struct Losses {
    /// The farthest head of each topic that was published to or read here.
    heads: Mutex<HashMap<TopicId, Offset>>,
    lost: Mutex<HashMap<TopicId, Lost>>,
}

/// Messages of a topic that are gone.
struct Lost {
    first: Offset,
    end: Offset,
    /// The consumers that nobody told yet.
    untold: HashSet<i32>,
}

impl Losses {
    /// Messages of a topic up to an offset were stored.
    pub(super) fn saw(&self, topic: TopicId, head: Offset) {
        let mut heads = lock(&self.heads);
        let known = heads.entry(topic).or_insert(head);
        *known = head.max(*known);
    }

    /// The farthest head of a topic so far. To be asked before the database is: what is stored
    /// while it answers is no loss.
    pub(super) fn known_head(&self, topic: TopicId) -> Offset {
        lock(&self.heads).get(&topic).copied().unwrap_or(Offset(0))
    }

    /// A topic is gone, and its heads with it.
    pub(super) fn forget(&self, topic: TopicId) {
        lock(&self.heads).remove(&topic);
        lock(&self.lost).remove(&topic);
    }

    fn add(&self, topic: TopicId, lost: Lost) {
        lock(&self.heads).insert(topic, lost.first);
        lock(&self.lost).insert(topic, lost);
    }

    /// The messages that a consumer is to be told of, once: from and to before an offset.
    pub(super) fn take(&self, topic: TopicId, consumer: i32) -> Option<(Offset, Offset)> {
        let mut all = lock(&self.lost);
        let lost = all.get_mut(&topic)?;
        let told = lost.untold.remove(&consumer).then_some((lost.first, lost.end));
        if lost.untold.is_empty() {
            all.remove(&topic);
        }
        told
    }
}

/// The database told a head that lies before one that was known when it was asked.
pub(super) async fn note(
    storage: &Storage,
    feeds: &Feeds,
    topic: TopicId,
    head: Offset,
    known: Offset,
) -> Result<(), storage::Error> {
    let Some((name, consumers)) = storage.find_consumer_numbers(topic).await? else {
        return Ok(());
    };
    // Another stream may have found it too.
    if feeds.losses().known_head(topic) == known {
        tracing::error!(topic = %name, first = %head, end = %known, "the database has lost messages");
        let untold = consumers.into_iter().collect();
        feeds.losses().add(topic, Lost { first: head, end: known, untold });
        feeds.head_went_back(topic, head);
    }
    Ok(())
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
        if stored.head < self.feeds.losses().known_head(number) {
            // Or somebody published meanwhile.
            let known = self.feeds.losses().known_head(number);
            stored = self.find_position(topic, consumer).await?;
            if stored.head < known && stored.key.topic == number {
                let noted = note(&self.storage, &self.feeds, number, stored.head, known).await;
                noted.map_err(Error::of_read)?;
            }
        }
        if let Some((first, end)) = self.feeds.losses().take(number, stored.key.consumer) {
            return Err(Error::MessagesLost { topic: topic.clone(), first, end });
        }
        if stored.position > stored.head {
            let (first, end) = (stored.head, stored.position);
            return Err(Error::MessagesLost { topic: topic.clone(), first, end });
        }
        Ok(stored)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_consumer_is_told_once_of_what_was_lost() {
        let (losses, topic) = (Losses::default(), TopicId(1));
        losses.saw(topic, Offset(100));
        losses.saw(topic, Offset(90));
        assert_eq!(losses.known_head(topic), Offset(100));
        let lost = Lost { first: Offset(90), end: Offset(100), untold: HashSet::from([1, 2]) };
        losses.add(topic, lost);
        assert_eq!(losses.known_head(topic), Offset(90));
        assert_eq!(losses.take(topic, 3), None);
        assert_eq!(losses.take(topic, 1), Some((Offset(90), Offset(100))));
        assert_eq!(losses.take(topic, 1), None);
        assert_eq!(losses.take(topic, 2), Some((Offset(90), Offset(100))));
        assert!(lock(&losses.lost).is_empty());
    }
}
