//! The poll that always remains: once a second, the heads of all topics that are read here, in one
//! statement, which also tells whether the database answers.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{self, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{POLL_INTERVAL, feed::Feeds};
use crate::storage::Storage;

/// A database that takes longer to answer counts as down.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Starts the poll; what it returns tells whether the database answers.
pub(super) fn start(
    storage: Arc<Storage>,
    feeds: Arc<Feeds>,
    poll_now: Arc<Notify>,
    tasks: &TaskTracker,
    stopping: CancellationToken,
) -> watch::Receiver<bool> {
    let (up, database_up) = watch::channel(true);
    tasks.spawn(async move {
        let mut tick = time::interval(POLL_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = poll_now.notified() => {}
                () = stopping.cancelled() => return,
            }
            let answers = poll(&storage, &feeds).await;
            up.send_if_modified(|up| std::mem::replace(up, answers) != answers);
        }
    });
    database_up
}

async fn poll(storage: &Storage, feeds: &Feeds) -> bool {
    let topics = feeds.topics();
    match time::timeout(ANSWER_TIMEOUT, storage.read_ends(&topics)).await {
        Ok(Ok(logs)) => {
            let found: HashSet<_> = logs.iter().map(|(topic, ..)| *topic).collect();
            for topic in topics.into_iter().filter(|topic| !found.contains(topic)) {
                feeds.topic_gone(topic);
            }
            for (topic, first, head) in logs {
                feeds.saw(topic, first, head);
            }
            true
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "poll the database");
            false
        }
        Err(_) => {
            tracing::warn!("poll the database: no answer in {ANSWER_TIMEOUT:?}");
            false
        }
    }
}
