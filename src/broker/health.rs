//! The poll that always remains: once a second, the heads of all topics that are read here, in one
//! statement, which also tells whether the database answers.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{self, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::{
        POLL_INTERVAL,
        log::{seen::KnownLog, topics::TopicLogs},
        truncation::detect,
    },
    model::{Offset, TopicId},
    storage::Storage,
};

/// A database that takes longer to answer counts as down.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Starts the poll; what it returns tells whether the database answers.
pub(crate) fn start(
    storage: Arc<Storage>,
    logs: Arc<TopicLogs>,
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
            let suspects = poll(&storage, &logs).await;
            up.send_if_modified(|up| {
                std::mem::replace(up, suspects.is_some()) != suspects.is_some()
            });
            if let Some(suspects) = suspects {
                tokio::select! {
                    () = look(&storage, &logs, suspects) => {}
                    () = stopping.cancelled() => return,
                }
            }
        }
    });
    database_up
}

/// Looks whether messages are lost: of the topics whose head was farther, or of all, if the database
/// may be another one.
async fn look(storage: &Storage, logs: &TopicLogs, suspects: HashMap<TopicId, Offset>) {
    match logs.losses().unsure() {
        Some(opened) => {
            if detect::look_at_all(storage, logs).await {
                logs.losses().looked(opened);
            }
        }
        None => {
            let topics: Vec<_> = suspects.keys().copied().collect();
            let still = |topic: &_, log: &KnownLog| log.head() >= suspects[topic];
            detect::look(storage, logs, still, &topics).await;
        }
    }
}

/// Reads the heads of all topics that are read here; returns those that lie before what was known,
/// with that, or nothing if the database does not answer.
async fn poll(storage: &Storage, logs: &TopicLogs) -> Option<HashMap<TopicId, Offset>> {
    let mut suspects = HashMap::new();
    #[cfg(feature = "sabotage")]
    if crate::model::Sabotage::NoPolling.is_on() {
        return Some(suspects);
    }
    // Before the database is asked: it knows of all that was stored by then.
    let asked = logs.losses().asked();
    let before: Vec<_> = logs
        .topics()
        .into_iter()
        .map(|(topic, heard_of)| (topic, heard_of, logs.losses().known_head(topic)))
        .collect();
    let topics: Vec<_> = before.iter().map(|(topic, ..)| *topic).collect();
    match time::timeout(ANSWER_TIMEOUT, storage.read_ends(&topics)).await {
        Ok(Ok(ends)) => {
            let found: HashMap<_, _> =
                ends.into_iter().map(|(topic, first, head)| (topic, (first, head))).collect();
            for (topic, heard_of, known) in before {
                let Some((first, head)) = found.get(&topic).copied() else {
                    logs.topic_deleted(topic);
                    continue;
                };
                if !logs.saw(topic, (first, head), asked) {
                    continue;
                }
                if head < known {
                    suspects.insert(topic, known);
                } else if head < heard_of {
                    logs.head_went_back(topic, head);
                }
            }
            Some(suspects)
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "poll the database");
            None
        }
        Err(_) => {
            tracing::warn!("poll the database: no answer in {ANSWER_TIMEOUT:?}");
            None
        }
    }
}
