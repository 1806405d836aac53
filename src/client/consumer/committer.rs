//! Commits in the background, the newest position standing for all before it.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::Instant,
};
use tonic::Code;

use super::super::{Connection, Error, backoff::Backoff, error::is_transient, reason, unary};
use crate::proto::{CommitRequest, consumer_service_client::ConsumerServiceClient};

/// Between two commits at the least: a fast consumer is not to keep the database busy with them.
const INTERVAL: Duration = Duration::from_millis(10);

/// How long closing waits for what is still to be committed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be committed, as the stream and its reader know it.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    state: Mutex<State>,
    changed: Notify,
    /// Whether the last commit was not taken.
    trouble: watch::Sender<bool>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// The way to the broker that has the lease; none before there is one.
    connection: Option<Connection>,
    /// How often the consumer has been sought; what belongs to an older count is void.
    seeks: u32,
    epoch: i64,
    /// The offset behind what this epoch's stream delivered: no commit may go beyond.
    delivered: i64,
    /// The offset behind what was dealt with.
    position: i64,
    /// The position that the broker said it had stored.
    committed: i64,
    /// No stream will get the lease any more.
    no_more_streams: bool,
    closing: bool,
}

impl State {
    fn committable(&self) -> i64 {
        self.position.min(self.delivered)
    }
}

impl Wanted {
    /// A stream has the lease, or a seek began a new epoch, at a position.
    pub(super) fn began(&self, epoch: i64, seeks: u32, position: i64, connection: Connection) {
        let mut state = self.state();
        if state.seeks != seeks {
            *state = State { seeks, closing: state.closing, ..State::default() };
        }
        state.connection = Some(connection);
        state.epoch = epoch;
        state.delivered = 0;
        state.committed = state.committed.max(position);
        drop(state);
        // What was refused under the epoch of before may be taken now.
        self.changed.notify_one();
    }

    /// Waits until commits are not taken: the stream is then to be looked after.
    pub(super) async fn trouble(&self) {
        // The sender lives as long as this.
        let _ = self.trouble.subscribe().wait_for(|trouble| *trouble).await;
    }

    /// What the last stream left cannot be committed any more if its epoch is over.
    pub(super) fn no_more_streams(&self) {
        self.state().no_more_streams = true;
        self.changed.notify_one();
    }

    /// A position was stored, as the consumer stood after so many seeks.
    fn stored(&self, seeks: u32, position: i64) {
        let mut state = self.state();
        if state.seeks == seeks {
            state.committed = state.committed.max(position);
        }
    }

    /// The stream has delivered all before this offset.
    pub(super) fn delivered(&self, end: i64) {
        let mut state = self.state();
        state.delivered = end;
        let news = state.committable() > state.committed;
        drop(state);
        if news {
            self.changed.notify_one();
        }
    }

    fn want(&self, seeks: u32, position: i64) {
        let mut state = self.state();
        if state.seeks == seeks && position > state.position {
            state.position = position;
            drop(state);
            self.changed.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The task that commits; it ends when it is finished with or dropped.
#[derive(Debug)]
pub(super) struct Committer {
    wanted: Arc<Wanted>,
    task: JoinHandle<Result<(), Error>>,
}

impl Committer {
    pub(super) fn start(topic: &str, consumer_id: &str) -> Self {
        let wanted = Arc::new(Wanted::default());
        let (topic, consumer_id) = (topic.to_owned(), consumer_id.to_owned());
        let request = CommitRequest { topic, consumer_id, epoch: 0, position: 0 };
        let task = tokio::spawn(commit(request, wanted.clone()));
        Self { wanted, task }
    }

    pub(super) fn wanted(&self) -> Arc<Wanted> {
        self.wanted.clone()
    }

    /// Says that all messages before `position`, read after so many seeks, are dealt with.
    pub(super) fn want(&self, seeks: u32, position: i64) {
        self.wanted.want(seeks, position);
    }

    /// Waits until all that is wanted is committed.
    pub(super) async fn finish(mut self) -> Result<(), Error> {
        self.wanted.state().closing = true;
        self.wanted.changed.notify_one();
        match tokio::time::timeout(PATIENCE, &mut self.task).await {
            Ok(Ok(finished)) => finished,
            Ok(Err(_)) | Err(_) => Err(lost()),
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Commits what is wanted as it comes; ends when the consumer is closed and all is committed, or
/// cannot be.
async fn commit(mut request: CommitRequest, wanted: Arc<Wanted>) -> Result<(), Error> {
    let mut backoff = Backoff::default();
    // An epoch that is over, for all that the broker said.
    let mut over = None;
    loop {
        let state = wanted.state().clone();
        let standing = (state.seeks, state.epoch);
        let useful = state.committable() > state.committed && over != Some(standing);
        let Some(connection) = state.connection.clone().filter(|_| useful) else {
            if state.closing && state.position <= state.committed {
                return Ok(());
            }
            if state.closing && state.no_more_streams {
                return Err(lost());
            }
            wanted.changed.notified().await;
            continue;
        };
        request.epoch = state.epoch;
        request.position = state.committable();
        let began = Instant::now();
        let mut consumers = ConsumerServiceClient::new(connection);
        match consumers.commit(unary(request.clone())).await {
            Ok(_) => {
                backoff.reset();
                wanted.trouble.send_replace(false);
                wanted.stored(state.seeks, request.position);
                if !wanted.state().closing {
                    tokio::time::sleep_until(began + INTERVAL).await;
                }
            }
            // Somebody else has gone further.
            Err(status) if reason(&status).is_some_and(|reason| reason == "COMMIT_BEHIND") => {
                wanted.stored(state.seeks, request.position);
            }
            // One that fails is not lost: the next one, or the next epoch, stands for it.
            Err(status) if is_transient(&status) => {
                wanted.trouble.send_replace(true);
                pause(&wanted, &mut backoff).await;
            }
            // Another stream has the lease, or a seek is on its way here: the stream will tell.
            Err(status) if status.code() == Code::Aborted => {
                over = Some(standing);
                wanted.trouble.send_replace(true);
            }
            Err(status) if state.closing => return Err(status.into()),
            Err(status) => {
                tracing::debug!(reason = status.message(), "a commit was refused");
                pause(&wanted, &mut backoff).await;
            }
        }
    }
}

fn lost() -> Error {
    let reason = "not all that was dealt with could be committed: it comes again".to_owned();
    Error::Lost { reason }
}

/// Waits before another try, or until there is something new to try.
async fn pause(wanted: &Wanted, backoff: &mut Backoff) {
    let _ = tokio::time::timeout(backoff.next(), wanted.changed.notified()).await;
}
