//! Keeps the session that holds the leases: opens a new one when it is lost, and asks once a
//! second, in one statement for all, which leases somebody changed from outside: by a seek, a
//! take-over, a commit to another broker, or the consumer's end. A hint makes it ask at once.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::{POLL_INTERVAL, backoff::Backoff, lease::registry::Leases, log::topics::TopicLogs},
    storage::{self, LeaseSession, Storage},
};

/// A session without an answer for so long is given up, and its leases with it: another broker
/// may have got them.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the first session, and keeps one open until the broker stops.
pub(crate) async fn start(
    storage: Arc<Storage>,
    leases: Arc<Leases>,
    logs: Arc<TopicLogs>,
    sessions: watch::Sender<Option<Arc<LeaseSession>>>,
    tasks: &TaskTracker,
    stopping: CancellationToken,
) -> Result<(), storage::Error> {
    sessions.send_replace(Some(Arc::new(storage.open_lease_session().await?)));
    tasks.spawn(run(storage, leases, logs, sessions, stopping));
    Ok(())
}

async fn run(
    storage: Arc<Storage>,
    leases: Arc<Leases>,
    logs: Arc<TopicLogs>,
    sessions: watch::Sender<Option<Arc<LeaseSession>>>,
    stopping: CancellationToken,
) {
    stopping.run_until_cancelled(keep(&storage, &leases, &logs, &sessions)).await;
    if let Some(session) = sessions.send_replace(None) {
        session.close();
    }
}

async fn keep(
    storage: &Storage,
    leases: &Leases,
    logs: &TopicLogs,
    sessions: &watch::Sender<Option<Arc<LeaseSession>>>,
) {
    let mut backoff = Backoff::new();
    loop {
        let session = sessions.borrow().clone();
        if let Some(session) = session {
            let opened = Instant::now();
            tokio::select! {
                () = check_until_lost(&session, leases) => {}
                () = storage.wait_for_other_primary(session.server()) => {
                    tracing::warn!("lose the leases, as another server has taken their server's place");
                }
            }
            session.close();
            sessions.send_replace(None);
            // Whatever took the session may have taken stored messages too: a standby that was
            // promoted, or a restored copy.
            logs.clear_cache();
            // Where two servers take turns, or somebody ends each session, it is not opened as
            // fast as it can.
            backoff.settle(opened.elapsed());
            backoff.pause().await;
        }
        sessions.send_replace(Some(open(storage).await));
        tracing::info!("opened a new lease session");
    }
}

async fn check_until_lost(session: &Arc<LeaseSession>, leases: &Leases) {
    let mut tick = time::interval(POLL_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let held = tokio::select! {
            _ = tick.tick() => leases.all_held(session),
            held = leases.to_look_at(session) => held,
            () = session.closed().cancelled() => return,
        };
        let asked: Vec<_> = held
            .iter()
            .map(|held| (held.key, held.progress.epoch(), held.progress.committed()))
            .collect();
        match time::timeout(ANSWER_TIMEOUT, session.find_changes(&asked)).await {
            Ok(Ok(changes)) => {
                let held: HashMap<_, _> = held.iter().map(|held| (held.key, held)).collect();
                for (key, seen) in changes {
                    if let Some(held) = held.get(&key) {
                        held.progress.saw(seen);
                    }
                }
            }
            Ok(Err(error)) => return tracing::warn!(%error, "check the leases"),
            Err(_) => return tracing::warn!("check the leases: no answer in {ANSWER_TIMEOUT:?}"),
        }
    }
}

async fn open(storage: &Storage) -> Arc<LeaseSession> {
    let mut backoff = Backoff::new();
    loop {
        match time::timeout(ANSWER_TIMEOUT, storage.open_lease_session()).await {
            Ok(Ok(session)) => return Arc::new(session),
            Ok(Err(error)) => tracing::warn!(%error, "open a lease session"),
            Err(_) => tracing::warn!("open a lease session: no answer in {ANSWER_TIMEOUT:?}"),
        }
        backoff.pause().await;
    }
}
