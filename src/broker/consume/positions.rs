//! Stores the positions of all this broker's consumers, in a group commit as the writers do with
//! batches.
//!
//! No consumer waits for another one: positions whose rows another session has locked for long are
//! stored apart from the others, once the rows are free.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use tokio::{
    sync::{mpsc, oneshot},
    time::{self, Instant},
};
use tokio_util::task::TaskTracker;

use crate::{
    broker::error::Error,
    model::{ConsumerKey, Epoch, Offset},
    storage::{self, Advance, Storage},
};

/// Whether a position moved. If not, its epoch has ended, or it would have moved back: behind the
/// stored position, or behind a move that was queued earlier.
type Moved = Result<bool, Error>;

/// A move of a position, and who waits for its outcome.
struct Move {
    advance: Advance,
    reply: oneshot::Sender<Moved>,
}

/// A move of a consumer whose row another session has locked.
struct Blocked {
    queued: Move,
    give_up_at: Instant,
}

/// How many moves may be queued: one for each stream, and some commits. Further moves wait to be
/// queued.
const QUEUE_LENGTH: usize = 4_096;

/// How often a locked row is tried again.
const BLOCKED_RETRY: Duration = Duration::from_millis(50);

/// How long to wait for a locked row.
const BLOCKED_TIMEOUT: Duration = Duration::from_secs(5);

/// Where moves of positions are queued.
pub(crate) struct Positions {
    queue: RwLock<Option<mpsc::Sender<Move>>>,
}

impl Positions {
    pub(crate) fn start(storage: Arc<Storage>, tasks: &TaskTracker) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE_LENGTH);
        let writer = PositionWriter { storage, blocked: Vec::new(), retry_at: Instant::now() };
        tasks.spawn(writer.run(queued));
        Self { queue: RwLock::new(Some(queue)) }
    }

    /// Accepts no more moves; the writer ends once it has written those that are queued.
    pub(crate) fn close(&self) {
        self.queue.write().take();
    }

    /// Moves a position; true once that is on disk.
    pub(crate) async fn advance(&self, advance: Advance) -> Moved {
        let queue = self.queue.read().clone().ok_or(Error::Draining)?;
        let (reply, moved) = oneshot::channel();
        queue.send(Move { advance, reply }).await.map_err(|_| Error::Draining)?;
        moved.await.unwrap_or(Err(Error::outcome_unknown()))
    }
}

struct PositionWriter {
    storage: Arc<Storage>,
    /// At most as many as the queue has room for; then the queue is not read.
    blocked: Vec<Blocked>,
    /// When the blocked moves are tried again, however many others are queued meanwhile.
    retry_at: Instant,
}

impl PositionWriter {
    async fn run(mut self, mut queue: mpsc::Receiver<Move>) {
        let mut queued = Vec::new();
        let mut open = true;
        while open || !self.blocked.is_empty() {
            let room = QUEUE_LENGTH.saturating_sub(self.blocked.len());
            if self.blocked.is_empty() {
                open = queue.recv_many(&mut queued, QUEUE_LENGTH).await > 0;
            } else {
                tokio::select! {
                    received = queue.recv_many(&mut queued, room), if open && room > 0 => {
                        open = received > 0;
                    }
                    () = time::sleep_until(self.retry_at) => self.retry_blocked().await,
                }
            }
            self.write(&mut queued).await;
        }
    }

    /// Writes moves together and answers them, except those whose rows another session has locked.
    async fn write(&mut self, queued: &mut Vec<Move>) {
        let give_up_at = Instant::now() + BLOCKED_TIMEOUT;
        let keys: HashSet<ConsumerKey> =
            self.blocked.iter().map(|blocked| blocked.queued.advance.key).collect();
        let blocked = queued.extract_if(.., |queued| keys.contains(&queued.advance.key));
        self.blocked.extend(blocked.map(|queued| Blocked { queued, give_up_at }));
        if queued.is_empty() {
            return;
        }
        match advance(&self.storage, queued).await {
            Err(storage::Error::Locked(_)) => {
                let moves = queued.drain(..).map(|queued| Blocked { queued, give_up_at });
                let moves: Vec<Blocked> = moves.collect();
                self.write_free(moves).await;
            }
            outcome => {
                let (outcome, mut order) = (outcome.map_err(logged), Order::default());
                queued.drain(..).for_each(|queued| queued.answer(outcome.as_ref(), &mut order));
            }
        }
    }

    async fn retry_blocked(&mut self) {
        let blocked = std::mem::take(&mut self.blocked);
        self.write_free(blocked).await;
        self.retry_at = Instant::now() + BLOCKED_RETRY;
    }

    /// Writes and answers the moves whose rows are free. The others are tried again until their
    /// time is up.
    async fn write_free(&mut self, moves: Vec<Blocked>) {
        let advances = farthest(moves.iter().map(|blocked| blocked.queued.advance));
        let outcome = self.storage.advance_free_positions(&advances).await;
        let outcome = outcome.map_err(logged);
        let now = Instant::now();
        let mut order = Order::default();
        for Blocked { queued, give_up_at } in moves {
            let key = queued.advance.key;
            match &outcome {
                Ok(outcome) if outcome.locked.contains(&key) && now < give_up_at => {
                    self.blocked.push(Blocked { queued, give_up_at });
                }
                Ok(outcome) if outcome.locked.contains(&key) => {
                    tracing::warn!(?key, "another session of the database holds a consumer");
                    queued.answer(Err(&Error::unavailable()), &mut order);
                }
                Ok(outcome) => queued.answer(Ok(&outcome.moved), &mut order),
                Err(error) => queued.answer(Err(error), &mut order),
            }
        }
    }
}

/// Logs a failed statement once, although many callers get its error.
fn logged(error: storage::Error) -> Error {
    Error::from(error).logged("store positions")
}

/// The farthest positions of the moves that share a statement, in the order in which they were
/// queued. Each move is answered as if it had been stored before the next one, although only the
/// farthest move of a lease is stored.
#[derive(Default)]
struct Order(HashMap<(ConsumerKey, Epoch), Offset>);

impl Order {
    /// Whether a move does not go back behind an earlier one of its lease.
    fn advances(&mut self, advance: &Advance) -> bool {
        let farthest = self.0.entry((advance.key, advance.epoch)).or_insert(advance.position);
        let advances = advance.position >= *farthest;
        *farthest = advance.position.max(*farthest);
        advances
    }
}

impl Move {
    /// Answers a move, given the leases whose positions its statement moved, or the error.
    fn answer(self, outcome: Result<&HashSet<(ConsumerKey, Epoch)>, &Error>, order: &mut Order) {
        let Self { advance, reply } = self;
        let moved = outcome
            .map(|moved| order.advances(&advance) && moved.contains(&(advance.key, advance.epoch)));
        // A caller that has gone does not receive it.
        let _ = reply.send(moved.map_err(Error::clone));
    }
}

async fn advance(
    storage: &Storage,
    queued: &[Move],
) -> Result<HashSet<(ConsumerKey, Epoch)>, storage::Error> {
    let advances = farthest(queued.iter().map(|queued| queued.advance));
    storage.advance_positions(&advances).await
}

/// The farthest of the moves of each lease: it would supersede the others at once.
fn farthest(advances: impl Iterator<Item = Advance>) -> Vec<Advance> {
    let mut farthest: HashMap<(ConsumerKey, Epoch), Offset> = HashMap::new();
    for Advance { key, epoch, position } in advances {
        let known = farthest.entry((key, epoch)).or_insert(position);
        *known = position.max(*known);
    }
    let mut advances: Vec<Advance> = farthest
        .into_iter()
        .map(|((key, epoch), position)| Advance { key, epoch, position })
        .collect();
    // All brokers lock rows in the same order, as far as the database follows it.
    advances.sort_unstable_by_key(|advance| (advance.key.topic, advance.key.consumer));
    advances
}
