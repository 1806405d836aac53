//! The poll: once a second, one statement reads the ends of all logs that are read here. It finds
//! what notifications missed, and whether the database answers.
//!
//! Hot topics are polled every few milliseconds meanwhile.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::{
        backoff::POLL_INTERVAL, hot_topics::HotTopics, log::topics::TopicLogs,
        truncation::detect::Detector,
    },
    model::{Offset, TopicId},
    storage::Storage,
};

/// The shortest pause between a poll and one that is asked for.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// A database that takes longer to answer counts as down.
const POLL_TIMEOUT: Duration = Duration::from_secs(3);

/// How many topics that are remembered, read here or not, each poll verifies.
const VERIFIED: usize = 100;

/// Polls the database.
pub(crate) struct Poller {
    pub storage: Arc<Storage>,
    pub logs: Arc<TopicLogs>,
    pub truncation: Arc<Detector>,
    /// Notified when a poll should not wait for the next second.
    pub poll_now: Arc<Notify>,
    pub hot_topics: Arc<HotTopics>,
    pub stopping: CancellationToken,
}

/// Topics whose head lies before the highest one seen, with that highest head.
type Suspects = HashMap<TopicId, Offset>;

/// A log that is read here, as it was known before the poll.
struct Known {
    topic: TopicId,
    /// The head that its readers were notified of.
    notified: Offset,
    /// The highest head seen.
    seen: Offset,
}

impl Poller {
    /// Starts polling. The returned channel says whether the database answers.
    pub(crate) fn start(self, tasks: &TaskTracker) -> watch::Receiver<bool> {
        let (up, database_up) = watch::channel(true);
        let stopping = self.stopping.clone();
        tasks.spawn(async move { stopping.run_until_cancelled(self.run(up)).await });
        database_up
    }

    async fn run(self, up: watch::Sender<bool>) {
        let mut tick = time::interval(POLL_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = Instant::now();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.poll_now.notified() => time::sleep_until(next).await,
                hot = self.hot_topics.due() => {
                    self.poll_hot(&hot).await;
                    continue;
                }
            }
            let suspects = self.poll().await;
            let answers = suspects.is_some();
            up.send_if_modified(|up| std::mem::replace(up, answers) != answers);
            if let Some(suspects) = suspects {
                self.truncation.check_suspects(&suspects).await;
            }
            next = Instant::now() + SHORTEST_PAUSE;
        }
    }

    /// Reads the ends of those of the hot logs that are read here. The next poll says what is wrong if
    /// that fails.
    async fn poll_hot(&self, hot: &HashSet<TopicId>) {
        let observation = self.logs.begin();
        let read_here = self.logs.heads().into_iter().map(|(topic, _)| topic);
        let topics: Vec<TopicId> = read_here.filter(|topic| hot.contains(topic)).collect();
        if topics.is_empty() {
            return;
        }
        if let Ok(Ok(ends)) = time::timeout(POLL_TIMEOUT, self.storage.read_ends(&topics)).await {
            for (topic, ends) in ends {
                observation.observe(topic, ends);
            }
        }
    }

    /// Reads the ends of all logs that are read here; `None` if the database does not answer.
    async fn poll(&self) -> Option<Suspects> {
        #[cfg(feature = "sabotage")]
        if crate::model::Sabotage::NoPolling.is_on() {
            return Some(Suspects::new());
        }
        let observation = self.logs.begin();
        // Before the question: the answer then covers everything that was stored by now.
        let heads = self.logs.heads().into_iter();
        let known: Vec<Known> = heads
            .map(|(topic, notified)| Known { topic, notified, seen: self.logs.seen().head(topic) })
            .collect();
        let verified = self.logs.seen().next_to_verify(VERIFIED);
        let topics: Vec<_> =
            known.iter().map(|known| known.topic).chain(verified.iter().copied()).collect();
        let ends: HashMap<_, _> =
            match time::timeout(POLL_TIMEOUT, self.storage.read_ends(&topics)).await {
                Ok(Ok(ends)) => ends.into_iter().collect(),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "poll the database");
                    return None;
                }
                Err(_) => {
                    let error = format!("no answer in {POLL_TIMEOUT:?}");
                    tracing::warn!(error, "poll the database");
                    return None;
                }
            };
        for topic in verified.into_iter().filter(|topic| !ends.contains_key(topic)) {
            self.truncation.topic_deleted(topic);
        }
        let mut suspects = Suspects::new();
        for Known { topic, notified, seen } in known {
            let Some(ends) = ends.get(&topic).copied() else {
                self.truncation.topic_deleted(topic);
                continue;
            };
            if !observation.observe(topic, ends) {
                continue;
            }
            if ends.head < seen {
                suspects.insert(topic, seen);
            } else if ends.head < notified {
                // The notification was wrong.
                self.logs.reset_head(topic, ends.head);
            }
        }
        Some(suspects)
    }
}
