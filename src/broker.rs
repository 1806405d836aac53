//! The core: publishes, streams, leases and wake-ups over one database. It knows neither gRPC nor
//! SQL.
//!
//! A broker holds no state that matters: whatever it knows besides the database's tables is a hint
//! or a copy, and any number of brokers may share one database.

mod admin;
mod backoff;
mod characters;
mod consume;
mod error;
mod health;
mod lease;
mod log;
mod notify;
mod publish;
mod retention;
#[cfg(test)]
mod testing;
mod truncation;

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, watch as value};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::storage::{self, Storage};

use consume::positions;
use lease::{registry, session};
use log::topics;
use notify::{listen, outbox};
use publish::{queue, writer};

pub use consume::{
    commit::Commit,
    outbox::Frames,
    pull::{Pull, Pulled},
    read::ReadMessages,
    request::{CommitMode, Consume, Frame, OnBusy, Stop},
};
pub use error::Error;
pub use log::cursor::{FrameLimits, Messages};
pub use publish::request::{Answers, Publish, Receipt, Run};
pub use retention::Before;

/// How often the tables are asked for what no wake-up told: heads that moved, leases that ended,
/// locks that came free, and whether the database answers at all.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A broker over one database.
pub struct Broker {
    storage: Arc<Storage>,
    publisher: queue::Publisher,
    characters: Arc<characters::Characters>,
    logs: Arc<topics::TopicLogs>,
    leases: Arc<registry::Leases>,
    positions: positions::Positions,
    database_up: value::Receiver<bool>,
    hears_others: value::Receiver<bool>,
    /// Tells streams, and whoever waits, that the broker stops.
    draining: CancellationToken,
    /// Streams and pulls: they end when the broker drains.
    calls: TaskTracker,
    /// Tells the tasks that serve them all that no call is left.
    stopping: CancellationToken,
    /// The tasks that serve all calls.
    tasks: TaskTracker,
}

impl Broker {
    /// Starts a broker over a database whose schema is up to date; `writers` connections publish.
    pub async fn start(storage: Storage, writers: usize) -> Result<Arc<Self>, storage::Error> {
        let storage = Arc::new(storage);
        let tasks = TaskTracker::new();
        let stopping = CancellationToken::new();
        let logs = Arc::new(topics::TopicLogs::default());
        logs.losses().count_sessions(storage.sessions_opened());

        let hints = outbox::Outbox::default();
        let poll_now = Arc::new(Notify::new());

        let (sessions, lease_session) = value::channel(None);
        let session_of_leases = lease_session.clone();
        let leases = Arc::new(registry::Leases::new(lease_session, hints.clone()));
        session::start(
            storage.clone(),
            leases.clone(),
            logs.clone(),
            sessions,
            &tasks,
            stopping.clone(),
        )
        .await?;
        let hears_others = listen::start(
            storage.clone(),
            logs.clone(),
            leases.clone(),
            poll_now.clone(),
            hints.clone(),
            &tasks,
            stopping.clone(),
        );
        let characters = Arc::new(characters::Characters::of(&storage));
        let log = writer::LogStore {
            storage: storage.clone(),
            logs: logs.clone(),
            hints,
            characters: characters.clone(),
        };
        let publisher = queue::Publisher::start(Arc::new(log), writers, &tasks);
        retention::start(
            storage.clone(),
            logs.clone(),
            session_of_leases,
            &tasks,
            stopping.clone(),
        );
        let positions = positions::Positions::start(storage.clone(), &tasks);
        let of_warm_up = storage.clone();
        let warm_up = async move {
            // What cannot be done now is done when it is needed.
            if let Err(error) = of_warm_up.warm_up().await {
                tracing::debug!(%error, "open the connections that publish");
            }
        };
        tasks.spawn(stopping.clone().run_until_cancelled_owned(warm_up));
        let database_up =
            health::start(storage.clone(), logs.clone(), poll_now, &tasks, stopping.clone());
        Ok(Arc::new(Self {
            storage,
            publisher,
            characters,
            logs,
            leases,
            positions,
            database_up,
            hears_others,
            draining: CancellationToken::new(),
            calls: TaskTracker::new(),
            stopping,
            tasks,
        }))
    }

    /// Whether the database answers, as of the last second or so.
    pub fn database_up(&self) -> value::Receiver<bool> {
        self.database_up.clone()
    }

    /// Whether other brokers' wake-ups are heard; if not, what they store is found by polling.
    pub fn hears_others(&self) -> value::Receiver<bool> {
        self.hears_others.clone()
    }

    /// Cancelled when the broker begins to stop.
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Begins to stop: refuses new work, and ends all streams UNAVAILABLE.
    pub fn drain(&self) {
        self.draining.cancel();
        self.publisher.close();
    }

    /// Waits for the end of all streams and of all publishes that were taken in, then gives the
    /// leases back and closes all connections. Call [`Self::drain`] first.
    pub async fn stop(&self) {
        self.calls.close();
        self.calls.wait().await;
        self.leases.released().await;
        self.positions.close();
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.storage.close();
    }

    /// Runs a part of a call that outlives its request; [`Self::stop`] waits for its end.
    pub fn track(&self, part: impl Future<Output = ()> + Send + 'static) {
        self.calls.spawn(part);
    }

    pub(crate) fn refuse_when_draining(&self) -> Result<(), Error> {
        if self.draining.is_cancelled() { Err(Error::Draining) } else { Ok(()) }
    }
}
