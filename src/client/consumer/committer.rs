//! Commits in the background, the newest position standing for all before it.

use std::{sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::Instant,
};
use tonic::{Code, Status};

use crate::{
    client::{
        backoff::Backoff,
        connect::{Connection, unary},
        error::{Error, is_transient, reason},
    },
    proto::{CommitRequest, consumer_service_client::ConsumerServiceClient},
};

/// The least time between two commits, so that a fast consumer does not keep the database busy with
/// them.
const INTERVAL: Duration = Duration::from_millis(10);

/// How long closing waits for the last commits.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// What is to be committed. The consumer requests positions, its reader reports what the stream
/// delivers, and the committer follows both.
#[derive(Debug, Default)]
pub(super) struct CommitState {
    state: Mutex<State>,
    /// Wakes the committer.
    changed: Notify,
    /// Whether the last commit failed.
    failing: watch::Sender<bool>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// Leads to the broker that has the lease; `None` before there is a lease.
    connection: Option<Connection>,
    /// The number of seeks so far; whatever belongs to an earlier number is void.
    seeks: u32,
    epoch: i64,
    /// The offset after the last message that this epoch's stream delivered: no commit may exceed
    /// it.
    delivered: i64,
    /// The offset after the last processed message.
    position: i64,
    /// The position that the broker has stored.
    committed: i64,
    /// No stream will get the lease any more.
    streams_ended: bool,
    closing: bool,
}

impl State {
    fn committable(&self) -> i64 {
        self.position.min(self.delivered)
    }
}

impl CommitState {
    /// Records that a stream got the lease, or that a seek began a new epoch, at a position.
    pub(super) fn begin_epoch(
        &self,
        epoch: i64,
        seeks: u32,
        position: i64,
        connection: Connection,
    ) {
        let mut state = self.state();
        if state.seeks != seeks {
            *state = State { seeks, closing: state.closing, ..State::default() };
        }
        state.connection = Some(connection);
        state.epoch = epoch;
        state.delivered = 0;
        state.committed = state.committed.max(position);
        drop(state);
        // A commit that was refused under the previous epoch may succeed now.
        self.changed.notify_one();
    }

    /// Waits until commits fail, which means that the stream needs looking after.
    pub(super) async fn failing(&self) {
        // The sender lives as long as this.
        let _ = self.failing.subscribe().wait_for(|failing| *failing).await;
    }

    /// Records that no further stream follows: once the last epoch is over, nothing can be committed
    /// any more.
    pub(super) fn end_streams(&self) {
        self.state().streams_ended = true;
        self.changed.notify_one();
    }

    /// Records that the broker stored a position that belongs to this number of seeks.
    fn record_committed(&self, seeks: u32, position: i64) {
        let mut state = self.state();
        if state.seeks == seeks {
            state.committed = state.committed.max(position);
        }
    }

    /// Records that the stream has delivered everything before an offset.
    pub(super) fn record_delivered(&self, end: i64) {
        let mut state = self.state();
        state.delivered = end;
        let pending = state.committable() > state.committed;
        drop(state);
        if pending {
            self.changed.notify_one();
        }
    }

    fn request(&self, seeks: u32, position: i64) {
        let mut state = self.state();
        if state.seeks == seeks && position > state.position {
            state.position = position;
            drop(state);
            self.changed.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// The task that commits; it ends when it is finished or dropped.
#[derive(Debug)]
pub(super) struct Committer {
    state: Arc<CommitState>,
    task: JoinHandle<Result<(), Error>>,
}

impl Committer {
    pub(super) fn spawn(topic: &str, consumer_id: &str) -> Self {
        let state = Arc::new(CommitState::default());
        let (topic, consumer_id) = (topic.to_owned(), consumer_id.to_owned());
        let request = CommitRequest { topic, consumer_id, epoch: 0, position: 0 };
        let task = CommitTask {
            request,
            state: state.clone(),
            backoff: Backoff::default(),
            ended_epoch: None,
        };
        Self { state, task: tokio::spawn(task.run()) }
    }

    pub(super) fn state(&self) -> Arc<CommitState> {
        self.state.clone()
    }

    /// Requests a commit of all messages before `position`, which were read after this number of
    /// seeks.
    pub(super) fn request(&self, seeks: u32, position: i64) {
        self.state.request(seeks, position);
    }

    /// Waits until every requested position is committed.
    pub(super) async fn finish(mut self) -> Result<(), Error> {
        self.state.state().closing = true;
        self.state.changed.notify_one();
        match tokio::time::timeout(FINISH_TIMEOUT, &mut self.task).await {
            Ok(Ok(finished)) => finished,
            Ok(Err(_)) | Err(_) => Err(not_committed()),
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct CommitTask {
    request: CommitRequest,
    state: Arc<CommitState>,
    backoff: Backoff,
    /// The last epoch, with its number of seeks, that the broker said is over.
    ended_epoch: Option<(u32, i64)>,
}

impl CommitTask {
    /// Commits until the consumer is closed and every requested position is committed or cannot be.
    async fn run(mut self) -> Result<(), Error> {
        loop {
            let state = self.state.state().clone();
            let epoch = (state.seeks, state.epoch);
            let pending = state.committable() > state.committed && self.ended_epoch != Some(epoch);
            match state.connection.clone().filter(|_| pending) {
                Some(connection) => self.commit(&state, connection).await?,
                None if state.closing && state.position <= state.committed => return Ok(()),
                None if state.closing && state.streams_ended => return Err(not_committed()),
                None => self.state.changed.notified().await,
            }
        }
    }

    async fn commit(&mut self, state: &State, connection: Connection) -> Result<(), Error> {
        self.request.epoch = state.epoch;
        self.request.position = state.committable();
        let began = Instant::now();
        let mut consumers = ConsumerServiceClient::new(connection);
        match consumers.commit(unary(self.request.clone())).await {
            Ok(_) => {
                self.backoff.reset();
                self.state.failing.send_replace(false);
                self.state.record_committed(state.seeks, self.request.position);
                if !self.state.state().closing {
                    tokio::time::sleep_until(began + INTERVAL).await;
                }
            }
            // The position is already further on.
            Err(status) if reason(&status).is_some_and(|reason| reason == "COMMIT_BEHIND") => {
                self.state.record_committed(state.seeks, self.request.position);
            }
            // Nothing is lost: the next commit, or one under the next epoch, stands for this one.
            Err(status) if is_transient(&status) => {
                self.state.failing.send_replace(true);
                self.pause().await;
            }
            // Another stream has the lease, or the frame that announces a seek is on its way.
            Err(status) if status.code() == Code::Aborted => {
                self.ended_epoch = Some((state.seeks, state.epoch));
                self.state.failing.send_replace(true);
            }
            Err(status) if state.closing => return Err(status.into()),
            // The stream ends for the same reason, and the next one may have another token.
            Err(status) if is_denied(&status) => {
                self.state.failing.send_replace(true);
                let streams_ended = self.state.state().streams_ended;
                match streams_ended {
                    true => self.ended_epoch = Some((state.seeks, state.epoch)),
                    false => self.pause().await,
                }
            }
            Err(status) => {
                tracing::debug!(error = status.message(), "a commit was refused");
                self.pause().await;
            }
        }
        Ok(())
    }

    /// Waits before the next try, or until there is something new to try.
    async fn pause(&mut self) {
        let _ = tokio::time::timeout(self.backoff.next(), self.state.changed.notified()).await;
    }
}

/// Whether the broker does not know the caller, or does not let it commit.
fn is_denied(status: &Status) -> bool {
    matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied)
}

fn not_committed() -> Error {
    let reason = "some processed messages could not be committed and will be delivered again";
    Error::Lost { reason: reason.to_owned() }
}
