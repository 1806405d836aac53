//! Messages that the database has lost, though it had acknowledged them.
//!
//! PostgreSQL loses nothing by itself. A standby that follows asynchronously and is promoted, or a
//! backup that is restored, missing what was stored last: the head of a topic is then farther back
//! than it was, and offsets are given to other messages. That cannot be undone here, but it must
//! not go unnoticed. Each broker remembers how far each log came, and its last batch. When the
//! database tells a head that lies before, gives a message an offset that lies before, or has not
//! that batch any more, the broker logs an error, and every consumer that was registered by then is
//! told once by it, when it reads on.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    broker::{
        Broker,
        backoff::Backoff,
        error::Error,
        log::{
            seen::{Extent, KnownLog},
            topics::{LogReader, TopicLogs},
        },
    },
    model::{ConsumerId, ConsumerKey, Offset, TopicId, TopicName},
    storage::{self, FoundLog, LastBatch, Storage, Stored},
};

/// How long a look may take. A database that does not answer is asked again by the next poll.
const LOOK_TIMEOUT: Duration = Duration::from_secs(4);

/// How often a database that has lost messages is asked who was registered: for some minutes.
const MOST_TRIES: usize = 100;

/// Looks whether topics have lost messages, if each has still the head that was known: what was
/// told may be old, if it was told by a server whose place another one has taken. False if nobody
/// could tell.
pub(crate) async fn look(
    storage: &Storage,
    logs: &TopicLogs,
    suspected: impl Fn(&TopicId, &KnownLog) -> bool,
    topics: &[TopicId],
) -> bool {
    // Many suspect the same at once, after a failover: one looks for all who wait.
    let asked_at = Instant::now();
    let mut failed = logs.losses().looking.lock().await;
    if failed.is_some_and(|failed| failed > asked_at) {
        return false;
    }
    let mut known = logs.losses().known_logs(topics);
    known.retain(|topic, log| suspected(topic, log));
    known.is_empty() || look_at(storage, logs, &known, &mut failed).await
}

/// Looks at all topics, and where a new session leads: also if there is no topic yet.
pub(crate) async fn look_at_all(storage: &Storage, logs: &TopicLogs) -> bool {
    let mut failed = logs.losses().looking.lock().await;
    let known = logs.losses().known_logs(&logs.losses().topics());
    look_at(storage, logs, &known, &mut failed).await
}

async fn look_at(
    storage: &Storage,
    logs: &TopicLogs,
    known: &HashMap<TopicId, KnownLog>,
    failed: &mut Option<Instant>,
) -> bool {
    let asked: Vec<(TopicId, Option<LastBatch>)> = known
        .iter()
        .flat_map(|(topic, log)| log.extents().iter().map(|extent| (*topic, extent.last_batch)))
        .collect();
    let answer = tokio::time::timeout(LOOK_TIMEOUT, storage.check_logs(&asked)).await;
    let no_answer = || Err(storage::Error::Unavailable(format!("no answer in {LOOK_TIMEOUT:?}")));
    let found = match answer.unwrap_or_else(|_| no_answer()) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "look for lost messages");
            *failed = Some(Instant::now());
            return false;
        }
    };
    // No wait from here on: a caller that gives up must not take what was found along.
    let mut found_logs: HashMap<TopicId, Vec<FoundLog>> = HashMap::new();
    found.into_iter().for_each(|log| found_logs.entry(log.topic).or_default().push(log));
    for (topic, found) in found_logs {
        let known = &known[&topic];
        if let (Some(lost), Some(log)) = (lost(known, &found), found.into_iter().next())
            && tell(storage, logs, (topic, &log.name), lost, log.head, known)
        {
            logs.losses().tell_only(topic, log.consumers);
        }
    }
    true
}

/// What is lost of a log: from and to before an offset.
fn lost(known: &KnownLog, found: &[FoundLog]) -> Option<(Offset, Offset)> {
    let head = found.first()?.head;
    let missing = || found.iter().filter_map(|log| log.missing);
    let first = missing().map(|missing| missing.from).min();
    if head < known.head() {
        return Some((first.unwrap_or(head).min(head), known.head()));
    }
    // Others have been given as many offsets since.
    let is_lacking =
        |extent: &&Extent| missing().any(|missing| extent.last_batch == Some(missing.last_batch));
    let end = known.extents().iter().filter(is_lacking).map(|extent| extent.head).max();
    first.zip(end)
}

/// A message was given an offset that lies before the head that was known: what lies between is
/// lost. `head` is where the topic ends now.
pub(crate) fn given_again(
    storage: &Arc<Storage>,
    logs: &Arc<TopicLogs>,
    (topic, name): (TopicId, &TopicName),
    (first, head): (Offset, Offset),
    known: &KnownLog,
) {
    // Where a session was opened since, the next look finds it, and where it begins.
    if logs.losses().unsure().is_some()
        || !tell(storage, logs, (topic, name), (first, known.head()), head, known)
    {
        return;
    }
    let (storage, logs) = (storage.clone(), logs.clone());
    // Nobody who publishes waits for it.
    tokio::spawn(async move {
        let mut backoff = Backoff::new();
        for _ in 0..MOST_TRIES {
            match storage.find_consumer_numbers(topic).await {
                Ok(consumers) => return logs.losses().tell_only(topic, consumers),
                Err(storage::Error::Closed) => return,
                Err(error) => tracing::warn!(%error, "find out who has lost messages"),
            }
            backoff.pause().await;
        }
    });
}

/// Has all who read on be told of a loss; false if it was found before.
fn tell(
    storage: &Storage,
    logs: &TopicLogs,
    (topic, name): (TopicId, &TopicName),
    (first, end): (Offset, Offset),
    head: Offset,
    known: &KnownLog,
) -> bool {
    // They may lead to who has the messages still, and whose word does not count any more: not from
    // the moment on that the loss is known.
    storage.retire_sessions();
    let found = logs.losses().find(topic, (first, end), head, known);
    if found {
        tracing::error!(topic = %name, %first, %end, "the database has lost messages");
        logs.head_went_back(topic, head);
    }
    found
}

impl Broker {
    /// A consumer's position, to be read from, and the log. An error, once, if messages were lost
    /// since it was last read for.
    pub(crate) async fn begin_reading(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Result<(Stored, LogReader), Error> {
        let mut asked = self.logs.losses().asked();
        let mut stored = self.find_position(topic, consumer).await?;
        let number = stored.key.topic;
        self.logs.losses().learn_name(topic, number);
        let known = self.logs.losses().known_head(number);
        if stored.head < known {
            // Or somebody published while it was found.
            asked = self.logs.losses().asked();
            stored = self.find_position(topic, consumer).await?;
            if stored.head < known && stored.key.topic == number {
                self.look_for_loss(topic, stored.key, known).await?;
            }
        }
        self.tell_of_losses(topic, stored.key)?;
        if stored.position > stored.head {
            let (first, end) = (stored.head, stored.position);
            return Err(Error::MessagesLost { topic: topic.clone(), first, end });
        }
        let ends = (stored.first, stored.head);
        Ok((stored, self.logs.subscribe(stored.key.topic, ends, asked)))
    }

    /// Messages that were there are not found: they are lost, or somebody else answered who never
    /// had them. An error in any case.
    pub(crate) async fn look_for_loss(
        &self,
        name: &TopicName,
        key: ConsumerKey,
        known: Offset,
    ) -> Result<(), Error> {
        let suspected = |_: &TopicId, log: &KnownLog| log.head() >= known;
        look(&self.storage, &self.logs, suspected, &[key.topic]).await;
        self.tell_of_losses(name, key)?;
        match self.logs.losses().known_head(key.topic) >= known {
            true => Err(Error::DatabaseUnavailable),
            false => Ok(()),
        }
    }

    /// An error, once, if messages were lost that the consumer has not been told of.
    pub(crate) fn tell_of_losses(&self, name: &TopicName, key: ConsumerKey) -> Result<(), Error> {
        let ConsumerKey { topic, consumer } = key;
        self.logs.losses().take(topic, consumer).map_or(Ok(()), |(first, end)| {
            Err(Error::MessagesLost { topic: name.clone(), first, end })
        })
    }
}
