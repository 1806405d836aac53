//! Positions of all consumers of this broker, written together: a group commit like the writers'.
//!
//! Nobody waits for somebody else's consumer: rows that another session holds for long are written
//! apart from the others, when they are free.

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

/// Whether a position moved; if not, its epoch is over or it would have gone back: behind the stored
/// one, or behind a move that was queued before it.
type Moved = Result<bool, Error>;

struct Move {
    advance: Advance,
    reply: oneshot::Sender<Moved>,
}

/// A move of a consumer whose row another session holds.
struct Blocked {
    queued: Move,
    give_up_at: Instant,
}

/// Moves that may wait: one for each stream, and some commits. The next one waits to be queued.
const QUEUE_LENGTH: usize = 4_096;

/// How often a row that another session holds is tried again.
const HELD_UP_RETRY: Duration = Duration::from_millis(50);

/// How long a row that another session holds is waited for.
const HELD_UP_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Positions {
    queue: RwLock<Option<mpsc::Sender<Move>>>,
}

impl Positions {
    pub(crate) fn start(storage: Arc<Storage>, tasks: &TaskTracker) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE_LENGTH);
        let writer = Writer { storage, held_up: Vec::new(), retry_at: Instant::now() };
        tasks.spawn(writer.run(queued));
        Self { queue: RwLock::new(Some(queue)) }
    }

    /// Takes no more moves; the writer ends when it has written what was queued.
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

struct Writer {
    storage: Arc<Storage>,
    /// As many as the queue has room for: then nothing more is taken from it.
    held_up: Vec<Blocked>,
    /// When those are tried again, however much else comes meanwhile.
    retry_at: Instant,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Move>) {
        let mut queued = Vec::new();
        let mut open = true;
        while open || !self.held_up.is_empty() {
            let room = QUEUE_LENGTH.saturating_sub(self.held_up.len());
            if self.held_up.is_empty() {
                open = queue.recv_many(&mut queued, QUEUE_LENGTH).await > 0;
            } else {
                tokio::select! {
                    received = queue.recv_many(&mut queued, room), if open && room > 0 => {
                        open = received > 0;
                    }
                    () = time::sleep_until(self.retry_at) => self.try_held_up().await,
                }
            }
            self.write(&mut queued).await;
        }
    }

    /// Writes moves together, and answers them but for those of rows that another session holds.
    async fn write(&mut self, queued: &mut Vec<Move>) {
        let give_up_at = Instant::now() + HELD_UP_TIMEOUT;
        let keys: HashSet<ConsumerKey> =
            self.held_up.iter().map(|held_up| held_up.queued.advance.key).collect();
        let held_up = queued.extract_if(.., |queued| keys.contains(&queued.advance.key));
        self.held_up.extend(held_up.map(|queued| Blocked { queued, give_up_at }));
        if queued.is_empty() {
            return;
        }
        match advance(&self.storage, queued).await {
            Err(storage::Error::Locked(_)) => {
                let held_up = queued.drain(..).map(|queued| Blocked { queued, give_up_at });
                let held_up: Vec<Blocked> = held_up.collect();
                self.write_free(held_up).await;
            }
            outcome => {
                let (outcome, mut order) = (outcome.map_err(logged), Order::default());
                queued.drain(..).for_each(|queued| queued.answer(outcome.as_ref(), &mut order));
            }
        }
    }

    async fn try_held_up(&mut self) {
        let held_up = std::mem::take(&mut self.held_up);
        self.write_free(held_up).await;
        self.retry_at = Instant::now() + HELD_UP_RETRY;
    }

    /// Writes those of the moves whose rows nobody holds, and answers them; the others are tried
    /// again, until it is too late.
    async fn write_free(&mut self, moves: Vec<Blocked>) {
        let advances = farthest(moves.iter().map(|held_up| held_up.queued.advance));
        let outcome = self.storage.advance_free_positions(&advances).await;
        let outcome = outcome.map_err(logged);
        let now = Instant::now();
        let mut order = Order::default();
        for Blocked { queued, give_up_at } in moves {
            let key = queued.advance.key;
            match &outcome {
                Ok(outcome) if outcome.locked.contains(&key) && now < give_up_at => {
                    self.held_up.push(Blocked { queued, give_up_at });
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

/// One failed statement answers many callers: it is logged here, once.
fn logged(error: storage::Error) -> Error {
    Error::from(error).logged("store positions")
}

/// The moves that share a statement, in the order in which they were queued. Each is answered as if
/// it had been stored before the next one, although only the farthest of a lease was.
#[derive(Default)]
struct Order(HashMap<(ConsumerKey, Epoch), Offset>);

impl Order {
    /// Whether a move does not lie before an earlier one of its lease.
    fn advances(&mut self, advance: &Advance) -> bool {
        let farthest = self.0.entry((advance.key, advance.epoch)).or_insert(advance.position);
        let advances = advance.position >= *farthest;
        *farthest = advance.position.max(*farthest);
        advances
    }
}

impl Move {
    /// Answers a move with the moves that its statement made, or with its error.
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

/// Of several moves of one lease the farthest: the others would be passed at once.
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
    // All brokers lock rows in one order, as far as the database follows it.
    advances.sort_unstable_by_key(|advance| (advance.key.topic, advance.key.consumer));
    advances
}
