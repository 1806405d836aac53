//! Positions of all consumers of this broker, written together: a group commit like the writers'.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time,
};
use tokio_util::task::TaskTracker;

use super::{Error, pace::Backoff};
use crate::{
    model::{ConsumerKey, Epoch, Offset},
    storage::{self, Advance, Storage},
};

/// Whether a position moved; if not, its epoch is over or it would have gone back.
type Moved = Result<bool, Error>;

struct Queued {
    advance: Advance,
    reply: oneshot::Sender<Moved>,
}

/// Moves that may wait: one for each stream, and some commits. The next one waits to be queued.
const QUEUE_LENGTH: usize = 4_096;

/// A statement without an answer for so long is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a deadlock with another broker's statement is tried again.
const MAX_TRIES: usize = 5;

pub(super) struct Positions {
    queue: RwLock<Option<mpsc::Sender<Queued>>>,
}

impl Positions {
    pub(super) fn start(storage: Arc<Storage>, tasks: &TaskTracker) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE_LENGTH);
        tasks.spawn(write(storage, queued));
        Self { queue: RwLock::new(Some(queue)) }
    }

    /// Takes no more moves; the writer ends when it has written what was queued.
    pub(super) fn close(&self) {
        self.queue.write().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    }

    /// Moves a position; true once that is on disk.
    pub(super) async fn advance(&self, advance: Advance) -> Moved {
        let queue = self
            .queue
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
            .ok_or(Error::Draining)?;
        let (reply, moved) = oneshot::channel();
        queue.send(Queued { advance, reply }).await.map_err(|_| Error::Draining)?;
        moved.await.unwrap_or(Err(Error::OutcomeUnknown))
    }
}

async fn write(storage: Arc<Storage>, mut queue: mpsc::Receiver<Queued>) {
    let mut queued = Vec::new();
    while queue.recv_many(&mut queued, QUEUE_LENGTH).await > 0 {
        let outcome = write_together(&storage, &queued).await;
        for Queued { advance, reply } in queued.drain(..) {
            let moved = outcome.clone().map(|moved| moved.contains(&(advance.key, advance.epoch)));
            // A caller that has gone does not hear it.
            let _ = reply.send(moved);
        }
    }
}

async fn write_together(
    storage: &Storage,
    queued: &[Queued],
) -> Result<std::collections::HashSet<(ConsumerKey, Epoch)>, Error> {
    // Of several moves of one lease the farthest holds for all.
    let mut farthest: HashMap<(ConsumerKey, Epoch), Offset> = HashMap::new();
    for Queued { advance, .. } in queued {
        let position = farthest.entry((advance.key, advance.epoch)).or_insert(advance.position);
        *position = advance.position.max(*position);
    }
    let mut advances: Vec<Advance> = farthest
        .into_iter()
        .map(|((key, epoch), position)| Advance { key, epoch, position })
        .collect();
    // All brokers lock rows in one order, as far as the database follows it.
    advances.sort_unstable_by_key(|advance| (advance.key.topic, advance.key.consumer));

    let mut backoff = Backoff::new();
    for _ in 1..MAX_TRIES {
        match advance(storage, &advances).await {
            Err(storage::Error::Locked(_)) => backoff.pause().await,
            outcome => return outcome.map_err(Error::from),
        }
    }
    advance(storage, &advances).await.map_err(Error::from)
}

async fn advance(
    storage: &Storage,
    advances: &[Advance],
) -> Result<std::collections::HashSet<(ConsumerKey, Epoch)>, storage::Error> {
    time::timeout(ANSWER_TIMEOUT, storage.advance_positions(advances))
        .await
        .unwrap_or_else(|_| Err(storage::Error::ConnectionLost("no answer in time".to_owned())))
}
