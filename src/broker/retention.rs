//! Retention: one broker at a time removes the messages that exceed their topic's limits, in small
//! steps.
//!
//! Messages are hidden first: the log start offset moves past them, and no reader sees them any
//! more. Their rows are deleted next, and then a vacuum frees the space for new rows. Autovacuum
//! alone runs only once a minute, in which gigabytes may be published and removed.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{self, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::log::topics::TopicLogs,
    model::{LogEnds, Offset, TopicId},
    storage::{self, LeaseSession, Storage},
};

/// How often the limits are applied.
const INTERVAL: Duration = Duration::from_secs(1);

/// A vacuum runs once this many bytes, and a fifth of what is stored, have been deleted since the
/// last one: it reads everything that is stored.
const VACUUM_BYTES: i64 = 4 * 1024 * 1024;
const VACUUM_SHARE: i64 = 5;

/// Removes messages that exceed the limits, while no other broker does so.
pub(crate) struct Sweeper {
    storage: Arc<Storage>,
    logs: Arc<TopicLogs>,
    /// The lease session, which also holds the lock that admits one sweeper at a time.
    session: watch::Receiver<Option<Arc<LeaseSession>>>,
    /// Bytes deleted since the last vacuum.
    deleted_bytes: i64,
    /// Log start offsets before which nothing is left to delete. The batch with the oldest message
    /// kept stays, though earlier messages in it are hidden.
    deleted_up_to: HashMap<TopicId, Offset>,
}

impl Sweeper {
    pub(crate) fn new(
        storage: Arc<Storage>,
        logs: Arc<TopicLogs>,
        session: watch::Receiver<Option<Arc<LeaseSession>>>,
    ) -> Self {
        Self { storage, logs, session, deleted_bytes: 0, deleted_up_to: HashMap::new() }
    }

    /// Sweeps until the broker stops. The returned channel says when it last finished a sweep.
    pub(crate) fn start(
        self,
        tasks: &TaskTracker,
        stopping: CancellationToken,
    ) -> watch::Receiver<Option<SystemTime>> {
        let (finished, swept_at) = watch::channel(None);
        tasks.spawn(stopping.run_until_cancelled_owned(self.run(finished)));
        swept_at
    }

    async fn run(mut self, finished: watch::Sender<Option<SystemTime>>) {
        let mut tick = time::interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let Some(session) = self.session.borrow().clone() else { continue };
            let swept = async {
                match session.lock_retention().await? {
                    true => self.sweep().await.map(|()| true),
                    false => Ok(false),
                }
            };
            match swept.await {
                Ok(true) => drop(finished.send_replace(Some(SystemTime::now()))),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "remove expired messages"),
            }
        }
    }

    async fn sweep(&mut self) -> Result<(), storage::Error> {
        for (topic, target) in self.storage.find_expired().await? {
            let observation = self.logs.begin();
            let raised = self.storage.raise_floor(topic, target, true);
            let raised = self.storage.row_locks().once(raised).await;
            if let Some(Some(start)) = unless_locked(topic, raised)? {
                observation.observe(topic, LogEnds { start, head: start });
            }
        }
        let hidden = self.storage.find_hidden().await?;
        self.deleted_up_to.retain(|topic, _| hidden.iter().any(|(hidden, _)| hidden == topic));
        for (topic, first) in hidden {
            if self.deleted_up_to.get(&topic) != Some(&first) {
                unless_locked(topic, self.storage.forget_parked(topic).await)?;
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
            let deleted = self.storage.delete_hidden(topic);
            let deleted = self.storage.row_locks().once(deleted).await?;
            self.deleted_bytes += deleted.bytes;
            if deleted.batches == 0 {
                return Ok(());
            }
        }
    }

    async fn delete_remains(&mut self, topic: TopicId) -> Result<(), storage::Error> {
        let mut from = Offset(0);
        loop {
            let deleted = self.storage.delete_remains(topic, from);
            let deleted = self.storage.row_locks().once(deleted).await?;
            self.deleted_bytes += deleted.bytes;
            match deleted.end {
                Some(end) => from = end,
                None => {
                    let forgotten = self.storage.forget_deleted_topic(topic);
                    return self.storage.row_locks().once(forgotten).await;
                }
            }
        }
    }
}

/// A locked topic does not hold up the others: the next sweep tries it again.
fn unless_locked<T>(
    topic: TopicId,
    outcome: Result<T, storage::Error>,
) -> Result<Option<T>, storage::Error> {
    match outcome {
        Ok(done) => Ok(Some(done)),
        Err(storage::Error::Locked(problem)) => {
            tracing::warn!(
                topic_number = topic.0,
                error = problem,
                "put off removing messages of a locked topic"
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
