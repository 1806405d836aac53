//! Says how subscriptions stand: one of which somebody asks, and all that this broker owns.
//!
//! What is left to do is read from the database, which knows all that was acknowledged, whichever broker owns
//! the subscription. Only its owner knows who works on it.

use std::time::{Duration, SystemTime};

use futures::future::join_all;
use tokio::time;

use crate::{
    broker::{
        error::Error,
        subscription::{
            changes::Changes,
            receivers::Command,
            room::{Names, Room, Subscriptions},
            settled::Settled,
            standing::{Backlog, Owned, Retried, Standing, Working},
        },
    },
    model::{
        Consumer, ConsumerId, ConsumerKey, Endpoint, LogEnds, Offset, OffsetRange, TopicId,
        TopicName,
    },
    storage::{StoredBacklog, StoredTime},
};

/// How long an owner, or the database, has for an answer. An owner that has begun answers at once, and one that
/// waits for its lease knows nothing yet.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How a subscription stands.
#[derive(Clone, Copy, Debug)]
pub struct Stands {
    /// What is left to do.
    pub backlog: Backlog,
    /// When the oldest message that is not acknowledged was stored.
    pub oldest_at: Option<SystemTime>,
    /// Who works on it; `None` if another broker knows that.
    pub working: Option<Working>,
}

impl Subscriptions {
    /// How a subscription stands. Begins no owner.
    pub async fn stands(&self, topic: &TopicName, consumer: &Consumer) -> Result<Stands, Error> {
        let room = &self.0;
        let working = match room.standing(&(topic.clone(), consumer.id.clone())).await {
            Some(standing) => Some(standing.working),
            // Nobody owns it, so nobody has any of its messages.
            None => consumer.holder.is_none().then(Working::default),
        };
        let storage = &room.delivery.storage;
        let stored = storage.find_backlog(consumer.key).await.map_err(Error::of_read)?;
        let Some(stored) = stored else {
            return Err(room.delivery.catalogue.why_gone(topic, &consumer.id).await);
        };
        let backlog = backlog_of(consumer.key, &stored)?;
        let oldest_at = match backlog.oldest {
            None => None,
            Some(oldest) => {
                let found = storage.find_stored_times(&[(consumer.key.topic, oldest)]).await;
                let found = found.map_err(Error::of_read)?;
                found.first().copied().flatten().map(|found| found.at)
            }
        };
        Ok(Stands { backlog, oldest_at, working })
    }

    /// Who works on a subscription, if this broker owns it.
    pub async fn working(&self, topic: &TopicName, id: &ConsumerId) -> Option<Working> {
        let standing = self.0.standing(&(topic.clone(), id.clone())).await;
        standing.map(|standing| standing.working)
    }

    /// Where the owner of a subscription takes calls, if it is another broker that does.
    pub async fn endpoint_of_owner(&self, consumer: &Consumer) -> Result<Option<Endpoint>, Error> {
        let Some(own) = self.0.endpoint() else { return Ok(None) };
        let found = self.0.delivery.storage.find_endpoint(consumer.key).await;
        let found = found.map_err(Error::of_read)?;
        Ok(found.filter(|found| found.broker != own.broker))
    }

    /// What is left of the first `limit` subscriptions that this broker owns, by topic and id.
    pub async fn owned(&self, limit: usize) -> Vec<Owned> {
        let room = &self.0;
        let ask = |names: Names| async move {
            let Standing { topic: id, backlog, .. } = room.standing(&names).await?;
            let (topic, subscription) = names;
            Some((id, Owned { topic, subscription, backlog, oldest_age: None }))
        };
        let asked = join_all(room.running().into_iter().take(limit).map(ask)).await;
        // One that does not answer begins or ends just now.
        let owned: Vec<(TopicId, Owned)> = asked.into_iter().flatten().collect();
        let oldest: Vec<_> =
            owned.iter().filter_map(|(topic, it)| Some((*topic, it.backlog.oldest?))).collect();
        let mut found = room.stored_times(&oldest).await.into_iter();
        let with_age = |(_, it): (TopicId, Owned)| {
            let oldest_age = match it.backlog.oldest {
                None => Some(Duration::ZERO),
                Some(_) => found.next().flatten().map(|found| found.age),
            };
            Owned { oldest_age, ..it }
        };
        owned.into_iter().map(with_age).collect()
    }
}

impl Room {
    /// How a subscription stands, if this broker owns it.
    async fn standing(&self, names: &Names) -> Option<Standing> {
        let asked = self.ask_running(names, Command::Stand);
        time::timeout(ANSWER_TIMEOUT, asked).await.ok().flatten()
    }

    /// When messages were stored; nothing while the database does not answer.
    async fn stored_times(&self, messages: &[(TopicId, Offset)]) -> Vec<Option<StoredTime>> {
        if messages.is_empty() {
            return Vec::new();
        }
        let asked = self.delivery.storage.find_stored_times(messages);
        let found = time::timeout(ANSWER_TIMEOUT, asked).await;
        found.ok().and_then(Result::ok).unwrap_or_default()
    }
}

/// What is left, from what is stored.
fn backlog_of(key: ConsumerKey, stored: &StoredBacklog) -> Result<Backlog, Error> {
    let LogEnds { head, .. } = stored.ends;
    let mut settled = Settled::before(stored.floor);
    for (number, encoded) in &stored.deltas {
        let Some(changes) = Changes::decode(encoded) else {
            let (topic_number, consumer_number) = (key.topic.0, key.consumer);
            tracing::error!(topic_number, consumer_number, number, "found a damaged row");
            return Err(Error::internal());
        };
        for range in changes.ranges() {
            // Beyond the head, the log was truncated, and offsets are used again.
            settled.settle(OffsetRange { start: range.start, end: range.end.min(head) });
        }
    }
    let StoredBacklog { retried, oldest_retried, removed, lost, ends, .. } = *stored;
    let retried = Retried { kept: retried, oldest: oldest_retried, removed };
    Ok(Backlog::of(&settled, ends, retried, lost))
}
