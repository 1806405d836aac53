//! Keeps a session open that holds this broker's locks, and checks its leases.
//!
//! Once a second, one statement asks which leases were changed from outside: by a seek, a take-over, a
//! commit from SQL or to another broker, or the end of their consumer. It asks at once when a notification
//! says so, and for a stream that is held back and waits for a commit from SQL.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::{
        backoff::{Backoff, POLL_INTERVAL},
        lease::registry::Leases,
        log::topics::TopicLogs,
    },
    storage::{self, LeaseSession, Storage},
};

/// How long a check may take. A session that does not answer is closed, and its leases end: other
/// brokers may have acquired them.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest pause between two checks: what is to be checked meanwhile shares one.
const CHECK_PAUSE: Duration = Duration::from_millis(5);

/// Keeps the lease session open.
pub(crate) struct SessionKeeper {
    pub storage: Arc<Storage>,
    pub leases: Arc<Leases>,
    pub logs: Arc<TopicLogs>,
    /// The open session; `None` while there is none.
    pub session: watch::Sender<Option<Arc<LeaseSession>>>,
    pub stopping: CancellationToken,
}

impl SessionKeeper {
    /// Opens the first session, and keeps one open until the broker stops.
    pub(crate) async fn start(self, tasks: &TaskTracker) -> Result<(), storage::Error> {
        let first = self.storage.open_lease_session().await?;
        self.session.send_replace(Some(Arc::new(first)));
        tasks.spawn(self.run());
        Ok(())
    }

    async fn run(self) {
        self.stopping.run_until_cancelled(self.keep_open()).await;
        if let Some(session) = self.session.send_replace(None) {
            session.close();
        }
    }

    async fn keep_open(&self) {
        let mut backoff = Backoff::new();
        loop {
            let session = self.session.borrow().clone();
            if let Some(session) = session {
                let opened = Instant::now();
                tokio::select! {
                    () = self.check_until_lost(&session) => {}
                    () = self.storage.wait_for_other_primary(session.server()) => {
                        let error = "another server is the primary now";
                        tracing::warn!(error, "end all leases");
                    }
                }
                session.close();
                self.session.send_replace(None);
                // The database may have lost stored messages too, if a standby was promoted or a
                // backup was restored.
                self.logs.clear_cache();
                // If sessions keep ending, they are reopened at growing intervals.
                backoff.settle(opened.elapsed());
                backoff.pause().await;
            }
            self.session.send_replace(Some(self.open().await));
            tracing::info!("opened a new lease session");
        }
    }

    async fn check_until_lost(&self, session: &Arc<LeaseSession>) {
        let mut tick = time::interval(POLL_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = Instant::now();
        loop {
            let asked_for = async {
                time::sleep_until(next).await;
                self.leases.next_to_check(session).await
            };
            let leases = tokio::select! {
                _ = tick.tick() => self.leases.all_on(session),
                leases = asked_for => leases,
                () = session.closed().cancelled() => return,
            };
            let known: Vec<_> = leases
                .iter()
                .map(|lease| (lease.key, lease.state.epoch(), lease.state.committed()))
                .collect();
            let found = time::timeout(CHECK_TIMEOUT, session.find_changes(&known)).await;
            next = Instant::now() + CHECK_PAUSE;
            match found {
                Ok(Ok(changes)) => {
                    let leases: HashMap<_, _> =
                        leases.iter().map(|lease| (lease.key, lease)).collect();
                    for (key, change) in changes {
                        if let Some(lease) = leases.get(&key) {
                            lease.state.observe(change);
                        }
                    }
                }
                Ok(Err(error)) => return tracing::warn!(%error, "check the leases"),
                Err(_) => {
                    let error = format!("no answer in {CHECK_TIMEOUT:?}");
                    return tracing::warn!(error, "check the leases");
                }
            }
        }
    }

    async fn open(&self) -> Arc<LeaseSession> {
        let mut backoff = Backoff::new();
        loop {
            match self.storage.open_lease_session().await {
                Ok(session) => return Arc::new(session),
                Err(error) => tracing::warn!(%error, "open a lease session"),
            }
            backoff.pause().await;
        }
    }
}
