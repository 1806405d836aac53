//! Retention: one broker at a time removes what the topics' limits say, in small steps.
//!
//! Messages are hidden first, by moving their topic's first offset, which is all that readers look
//! at. Their rows go behind it, and then their space is made free for new ones: without that, what
//! is published and removed by the gigabyte would only be noticed by autovacuum once a minute.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{self, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::{Broker, error::Error, log::topics::TopicLogs},
    model::{Offset, TimeBound, TopicId, TopicName},
    storage::{self, LeaseSession, Storage},
};

/// How often the limits are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Space is made free when so many bytes were deleted since the last time, and a fifth of what is
/// stored: it costs a look at all that is stored.
const VACUUM_BYTES: i64 = 4 * 1024 * 1024;
const VACUUM_SHARE: i64 = 5;

/// What is to be removed of a topic's log.
#[derive(Clone, Copy, Debug)]
pub enum Before {
    /// All messages before an offset.
    Offset(Offset),
    /// All messages stored before a time.
    Time(TimeBound),
}

impl Broker {
    /// Removes a topic's oldest messages; returns the offset of the oldest one kept.
    pub async fn trim_topic(&self, topic: TopicName, before: Before) -> Result<Offset, Error> {
        let asked = self.logs.losses().asked();
        let log = self.storage.find_log(&topic).await.map_err(Error::of_read)?;
        let Some((id, first, head)) = log else { return Err(Error::TopicNotFound { topic }) };
        let floor = match before {
            Before::Offset(offset) if offset > head => {
                return Err(Error::OffsetOutOfRange { topic, offset, first, head });
            }
            Before::Offset(offset) => offset,
            Before::Time(time) => {
                self.storage.find_offset_at(id, time).await.map_err(Error::of_read)?
            }
        };
        loop {
            // May be done twice: the floor only rises.
            let first = match self.storage.raise_floor(id, floor, false).await {
                Ok(Some(first)) => first,
                Ok(None) => return Err(Error::TopicNotFound { topic }),
                Err(storage::Error::Locked(_)) => return Err(Error::TopicBusy { topic }),
                Err(error) => return Err(Error::of_read(error)),
            };
            self.logs.saw(id, (first, head), asked);
            if first >= floor {
                return Ok(first);
            }
        }
    }
}

/// Starts to remove what expires, whenever no other broker does.
pub(crate) fn start(
    storage: Arc<Storage>,
    logs: Arc<TopicLogs>,
    sessions: watch::Receiver<Option<Arc<LeaseSession>>>,
    tasks: &TaskTracker,
    stopping: CancellationToken,
) {
    let sweeper = Sweeper { storage, logs, deleted_bytes: 0, deleted_up_to: HashMap::new() };
    tasks.spawn(stopping.run_until_cancelled_owned(sweeper.run(sessions)));
}

struct Sweeper {
    storage: Arc<Storage>,
    logs: Arc<TopicLogs>,
    /// Bytes deleted since their space was last made free.
    deleted_bytes: i64,
    /// First offsets before which nothing is left to delete: a batch that holds the first message
    /// kept is in part hidden for good.
    deleted_up_to: HashMap<TopicId, Offset>,
}

impl Sweeper {
    async fn run(mut self, sessions: watch::Receiver<Option<Arc<LeaseSession>>>) {
        let mut tick = time::interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let Some(session) = sessions.borrow().clone() else { continue };
            let swept = async {
                match session.lock_retention().await? {
                    true => self.sweep().await,
                    false => Ok(()),
                }
            };
            if let Err(error) = swept.await {
                tracing::warn!(%error, "remove expired messages");
            }
        }
    }

    async fn sweep(&mut self) -> Result<(), storage::Error> {
        for (topic, floor) in self.storage.find_expired().await? {
            let asked = self.logs.losses().asked();
            let raised = self.storage.raise_floor(topic, floor, true).await;
            if let Some(Some(first)) = unless_locked(topic, raised)? {
                self.logs.saw(topic, (first, first), asked);
            }
        }
        let hidden = self.storage.find_hidden().await?;
        self.deleted_up_to.retain(|topic, _| hidden.iter().any(|(hidden, _)| hidden == topic));
        for (topic, first) in hidden {
            if self.deleted_up_to.get(&topic) != Some(&first) {
                let deleted = self.delete_hidden(topic).await;
                if unless_locked(topic, deleted)?.is_some() {
                    self.deleted_up_to.insert(topic, first);
                }
            }
        }
        for topic in self.storage.find_deleted_topics().await? {
            let deleted = self.delete_remains(topic).await;
            unless_locked(topic, deleted)?;
        }
        if self.deleted_bytes >= VACUUM_BYTES
            && self.deleted_bytes >= self.storage.stored_bytes().await? / VACUUM_SHARE
        {
            self.storage.vacuum_batches().await?;
            self.deleted_bytes = 0;
        }
        Ok(())
    }

    async fn delete_hidden(&mut self, topic: TopicId) -> Result<(), storage::Error> {
        loop {
            let deleted = self.storage.delete_hidden(topic).await?;
            self.deleted_bytes += deleted.bytes;
            if deleted.batches == 0 {
                return Ok(());
            }
        }
    }

    async fn delete_remains(&mut self, topic: TopicId) -> Result<(), storage::Error> {
        let mut from = Offset(0);
        loop {
            let deleted = self.storage.delete_remains(topic, from).await?;
            self.deleted_bytes += deleted.bytes;
            match deleted.end {
                Some(end) => from = end,
                None => return self.storage.forget_deleted_topic(topic).await,
            }
        }
    }
}

/// Whoever sits on one topic's rows does not hold up the others: it is tried again the next time.
fn unless_locked<T>(
    topic: TopicId,
    outcome: Result<T, storage::Error>,
) -> Result<Option<T>, storage::Error> {
    match outcome {
        Ok(done) => Ok(Some(done)),
        Err(storage::Error::Locked(problem)) => {
            tracing::warn!(topic = topic.0, problem, "put off removing messages of a locked topic");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
