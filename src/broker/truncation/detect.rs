//! Finds truncated logs.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use tokio::sync::{Mutex, MutexGuard};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::{
        backoff::Backoff,
        error::Error,
        log::{
            seen::{Extent, SeenLog},
            topics::TopicLogs,
        },
        truncation::notices::Notices,
    },
    metrics::BrokerMetrics,
    model::{ConsumerKey, Offset, OffsetRange, TopicId, TopicName},
    storage::{self, FoundLog, LastBatch, Storage},
};

/// How often to ask which consumers were registered when messages were lost: for some minutes.
const MAX_TRIES: usize = 100;

/// Finds truncated logs, and remembers which consumers must still get an error.
pub(crate) struct Detector {
    storage: Arc<Storage>,
    logs: Arc<TopicLogs>,
    notices: Notices,
    /// Serialises checks; holds the time of the last failed one.
    last_failure: Mutex<Option<Instant>>,
    /// How many truncations were found.
    found: AtomicU64,
    metrics: Arc<BrokerMetrics>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

/// A log that was found truncated.
struct Truncation<'a> {
    name: &'a TopicName,
    topic: TopicId,
    lost: OffsetRange,
    /// Where the log ends now.
    head: Offset,
}

/// What was seen of a topic's log before a batch was appended to it.
pub(crate) struct SeenBefore {
    topic: TopicId,
    seen: SeenLog,
}

impl Detector {
    pub(crate) fn new(
        storage: Arc<Storage>,
        logs: Arc<TopicLogs>,
        metrics: Arc<BrokerMetrics>,
        tasks: TaskTracker,
        stopping: CancellationToken,
    ) -> Self {
        logs.seen().count_sessions(storage.sessions_opened());
        let (notices, last_failure) = (Notices::default(), Mutex::default());
        let found = AtomicU64::new(0);
        Self { storage, logs, notices, last_failure, found, metrics, tasks, stopping }
    }

    /// How many truncations were found.
    pub(crate) fn found(&self) -> u64 {
        self.found.load(Relaxed)
    }

    /// If a session was opened since all logs were last checked, checks all of them, as that
    /// session may lead to another server. Otherwise checks the logs whose heads were seen beyond
    /// where they are now: `heads_before`.
    pub(crate) async fn check_suspects(&self, heads_before: &HashMap<TopicId, Offset>) {
        match self.logs.seen().unchecked_sessions() {
            Some(sessions) => {
                let mut last_failure = self.last_failure.lock().await;
                let logs = self.logs.seen().all_logs();
                if self.check(&logs, &mut last_failure).await {
                    self.logs.seen().all_checked(sessions);
                }
            }
            None => {
                let topics: Vec<_> = heads_before.keys().copied().collect();
                self.check_unless_checked(&topics, |topic| heads_before[&topic]).await;
            }
        }
    }

    /// Checks a log whose messages up to `end` were there and are not found. Returns an error if
    /// they are lost, and also if the answer came from a server that never had them.
    pub(crate) async fn check_log(
        &self,
        name: &TopicName,
        consumer: ConsumerKey,
        end: Offset,
    ) -> Result<(), Error> {
        self.check_unless_checked(&[consumer.topic], |_| end).await;
        self.report(name, consumer)?;
        match self.logs.seen().head(consumer.topic) >= end {
            true => Err(Error::unavailable()),
            false => Ok(()),
        }
    }

    /// Checks those logs that were seen up to `head`. For the others, a truncation has been
    /// recorded meanwhile.
    async fn check_unless_checked(&self, topics: &[TopicId], head: impl Fn(TopicId) -> Offset) {
        // After a fail-over many streams suspect the same logs at once. One check serves all that
        // wait for it.
        let asked_at = Instant::now();
        let mut last_failure = self.last_failure.lock().await;
        if last_failure.is_some_and(|failed| failed > asked_at) {
            return;
        }
        let mut logs = self.logs.seen().logs(topics);
        logs.retain(|topic, log| log.head() >= head(*topic));
        if !logs.is_empty() {
            self.check(&logs, &mut last_failure).await;
        }
    }

    /// Checks logs over a new session; false if the database did not answer.
    async fn check(
        &self,
        logs: &HashMap<TopicId, SeenLog>,
        last_failure: &mut MutexGuard<'_, Option<Instant>>,
    ) -> bool {
        let questions: Vec<(TopicId, Option<LastBatch>)> = logs
            .iter()
            .flat_map(|(topic, log)| log.extents().iter().map(|extent| (*topic, extent.last_batch)))
            .collect();
        let found = match self.storage.check_logs(&questions).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "check for lost messages");
                **last_failure = Some(Instant::now());
                return false;
            }
        };
        // No await from here on: the result must not be lost if the caller is cancelled.
        let mut by_topic: HashMap<TopicId, Vec<FoundLog>> = HashMap::new();
        found.into_iter().for_each(|log| by_topic.entry(log.topic).or_default().push(log));
        for (topic, found) in by_topic {
            let seen = &logs[&topic];
            if let (Some(lost), Some(log)) = (lost_range(seen, &found), found.into_iter().next())
                && self.record(&Truncation { name: &log.name, topic, lost, head: log.head }, seen)
            {
                self.notices.restrict_to(topic, log.consumers);
            }
        }
        true
    }

    /// What was seen of a topic's log. Call it before appending a batch to the log.
    pub(crate) fn before_append(&self, topic: &TopicName) -> Option<SeenBefore> {
        self.logs.seen().log_named(topic).map(|(topic, seen)| SeenBefore { topic, seen })
    }

    /// Records an appended batch. If other messages had its offsets before, those are lost.
    pub(crate) fn after_append(
        self: &Arc<Self>,
        name: &TopicName,
        topic: TopicId,
        batch: OffsetRange,
        before: Option<SeenBefore>,
    ) {
        self.logs.seen().learn_name(name, topic);
        let Some(SeenBefore { seen, .. }) = before.filter(|before| before.topic == topic) else {
            return;
        };
        let lost = OffsetRange { start: batch.start, end: seen.head() };
        // If a session was opened since the last check of all logs, the next one finds the
        // truncation, and where it begins.
        if lost.start >= lost.end
            || self.logs.seen().unchecked_sessions().is_some()
            || !self.record(&Truncation { name, topic, lost, head: batch.end }, &seen)
        {
            return;
        }
        // In a task of its own, so that no publisher waits for it.
        let restrict = self.clone().restrict_notice(topic);
        self.tasks.spawn(self.stopping.clone().run_until_cancelled_owned(restrict));
    }

    async fn restrict_notice(self: Arc<Self>, topic: TopicId) {
        let mut backoff = Backoff::new();
        for _ in 0..MAX_TRIES {
            match self.storage.find_consumer_numbers(topic).await {
                Ok(consumers) => return self.notices.restrict_to(topic, consumers),
                Err(storage::Error::Closed) => return,
                Err(error) => tracing::warn!(%error, "find the consumers that lost messages"),
            }
            backoff.pause().await;
        }
    }

    /// Records a truncation of a log that was as `seen`; false if it has been recorded already.
    fn record(&self, truncation: &Truncation<'_>, seen: &SeenLog) -> bool {
        let Truncation { name, topic, lost, head } = *truncation;
        // Pooled sessions may still reach the old primary, whose answers are stale from now on.
        self.storage.retire_sessions();
        let is_new = self.logs.seen().truncate(topic, head, seen);
        if is_new {
            self.found.fetch_add(1, Relaxed);
            let OffsetRange { start, end } = lost;
            tracing::error!(
                topic = %name,
                first = start.0,
                end = end.0,
                "the database has lost messages"
            );
            // Added before the head is reset, as that wakes streams, which look for the notice.
            self.notices.add(topic, lost);
            self.logs.reset_head(topic, head);
        }
        is_new
    }

    /// Returns an error, once for each consumer and truncation, if messages were lost.
    pub(crate) fn report(&self, name: &TopicName, consumer: ConsumerKey) -> Result<(), Error> {
        self.notices
            .take(consumer)
            .map_or(Ok(()), |lost| Err(Error::MessagesLost { topic: name.clone(), lost }))
    }

    /// Forgets a deleted topic, and ends its streams.
    pub(crate) fn topic_deleted(&self, topic: TopicId) {
        self.notices.forget(topic);
        self.metrics.traffic.forget(topic);
        self.logs.topic_deleted(topic);
    }
}

/// The offsets that a log has lost.
fn lost_range(seen: &SeenLog, found: &[FoundLog]) -> Option<OffsetRange> {
    let head = found.first()?.head;
    let missing = || found.iter().filter_map(|log| log.missing);
    let start = missing().map(|missing| missing.from).min();
    if head < seen.head() {
        return Some(OffsetRange { start: start.unwrap_or(head).min(head), end: seen.head() });
    }
    // As many messages have been stored since as were lost, so the head does not show the loss.
    let is_missing =
        |extent: &&Extent| missing().any(|missing| extent.last_batch == Some(missing.last_batch));
    let end = seen.extents().iter().filter(is_missing).map(|extent| extent.head).max();
    start.zip(end).map(|(start, end)| OffsetRange { start, end })
}
