//! The poll that always remains: once a second, the heads of all topics that are read here, in one
//! statement, which also tells whether the database answers.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{self, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{POLL_INTERVAL, feed::Feeds, loss};
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
    #[cfg(feature = "sabotage")]
    if crate::model::Sabotage::NoPolling.is_on() {
        return true;
    }
    // Before the database is asked: it knows of all that was stored by then.
    let before: Vec<_> = feeds
        .topics()
        .into_iter()
        .map(|(topic, head)| (topic, head, feeds.losses().known_head(topic)))
        .collect();
    let topics: Vec<_> = before.iter().map(|(topic, ..)| *topic).collect();
    match time::timeout(ANSWER_TIMEOUT, storage.read_ends(&topics)).await {
        Ok(Ok(logs)) => {
            let found: HashMap<_, _> =
                logs.into_iter().map(|(topic, first, head)| (topic, (first, head))).collect();
            for (topic, heard_of, known) in before {
                let Some((first, head)) = found.get(&topic).copied() else {
                    feeds.topic_gone(topic);
                    continue;
                };
                feeds.saw(topic, first, head);
                if head < known {
                    // Before anybody wakes up for it.
                    loss::note(storage, feeds, topic, (head, head), known).await;
                }
                if head < heard_of {
                    feeds.head_went_back(topic, head);
                }
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
