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
    storage::{self, Advance, FreeAdvances, Storage},
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
        let advances = farthest(queued.iter().map(|queued| queued.advance));
        // Several moves of one lease are judged by the position that was stored before them, which
        // only the other statement returns.
        if advances.len() == queued.len() {
            match self.storage.advance_positions(&advances).await {
                Err(error) if can_be_split(&error) => {}
                outcome => {
                    let moved = outcome.map_err(logged);
                    for queued in queued.drain(..) {
                        let lease = (queued.advance.key, queued.advance.epoch);
                        let moved = moved.as_ref().map(|moved| moved.contains(&lease));
                        queued.answer(moved.map_err(Error::clone));
                    }
                    return;
                }
            }
        }
        let moves = queued.drain(..).map(|queued| Blocked { queued, give_up_at }).collect();
        self.write_free(moves).await;
    }

    async fn retry_blocked(&mut self) {
        let blocked = std::mem::take(&mut self.blocked);
        self.write_free(blocked).await;
        self.retry_at = Instant::now() + BLOCKED_RETRY;
    }

    /// Writes and answers the moves whose rows are free. The others are tried again until their
    /// time is up. Where the database fails the statement, the consumers are halved, so that the
    /// error of one reaches no other.
    async fn write_free(&mut self, moves: Vec<Blocked>) {
        // The part that is written next comes last.
        let mut parts = vec![moves];
        while let Some(moves) = parts.pop() {
            let advances = farthest(moves.iter().map(|blocked| blocked.queued.advance));
            match self.storage.advance_free_positions(&advances).await {
                Ok(advanced) => self.answer(moves, &advanced),
                Err(error) => match middle(&advances).filter(|_| can_be_split(&error)) {
                    Some(middle) => {
                        let is_first = |blocked: &Blocked| blocked.queued.advance.key < middle;
                        let (first, second) = moves.into_iter().partition(is_first);
                        parts.extend([second, first]);
                    }
                    None => self.fail(moves, error),
                },
            }
        }
    }

    /// Answers moves of one consumer with an error, unless it is a fault of the server's own that may
    /// pass.
    fn fail(&mut self, moves: Vec<Blocked>, error: storage::Error) {
        let now = Instant::now();
        if let storage::Error::Fault(problem) = &error
            && moves.iter().all(|blocked| now < blocked.give_up_at)
        {
            tracing::warn!(error = problem, "retry a position");
            return self.blocked.extend(moves);
        }
        let error = logged(error);
        moves.into_iter().for_each(|blocked| blocked.queued.answer(Err(error.clone())));
    }

    fn answer(&mut self, moves: Vec<Blocked>, advanced: &FreeAdvances) {
        let mut order = Order(advanced.moved.clone());
        for Blocked { queued, give_up_at } in moves {
            let key = queued.advance.key;
            if !advanced.locked.contains(&key) {
                let moved = order.advances(&queued.advance);
                queued.answer(Ok(moved));
            } else if Instant::now() < give_up_at {
                self.blocked.push(Blocked { queued, give_up_at });
            } else {
                let (topic_number, consumer_number) = (key.topic.0, key.consumer);
                tracing::warn!(
                    topic_number,
                    consumer_number,
                    "another session of the database holds a consumer"
                );
                queued.answer(Err(Error::unavailable()));
            }
        }
    }
}

/// The first consumer of the second half of moves, which are sorted; `None` if there is only one
/// consumer.
fn middle(advances: &[Advance]) -> Option<ConsumerKey> {
    let first = advances.first()?.key;
    // The key in the middle, unless all before it are moves of the same consumer.
    advances[advances.len() / 2..].iter().map(|advance| advance.key).find(|key| *key > first)
}

/// Whether a statement stored nothing because of one or some of its consumers.
fn can_be_split(error: &storage::Error) -> bool {
    matches!(error, storage::Error::Locked(_)) || error.is_of_a_statement()
}

/// Logs a failed statement once, although many callers get its error.
fn logged(error: storage::Error) -> Error {
    Error::from(error).logged("store positions")
}

/// The positions of the leases that a statement moved: at first those that were stored before it.
///
/// Moves are answered in the order in which they were queued, each as if it had been stored before
/// the next one, although only the farthest move of a lease is stored.
struct Order(HashMap<(ConsumerKey, Epoch), Offset>);

impl Order {
    /// Whether a move is made: its lease was moved, and it does not go back behind the stored
    /// position or an earlier move.
    fn advances(&mut self, advance: &Advance) -> bool {
        let Some(position) = self.0.get_mut(&(advance.key, advance.epoch)) else { return false };
        let advances = advance.position >= *position;
        *position = advance.position.max(*position);
        advances
    }
}

impl Move {
    fn answer(self, moved: Moved) {
        // A caller that has gone does not receive it.
        let _ = self.reply.send(moved);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TopicId;

    fn advance(consumer: i32, position: i64) -> Advance {
        let key = ConsumerKey { topic: TopicId(1), consumer };
        Advance { key, epoch: Epoch(1), position: Offset(position) }
    }

    #[test]
    fn moves_of_one_statement_are_judged_by_the_stored_position_and_by_each_other() {
        let lease = (advance(1, 0).key, Epoch(1));
        let mut order = Order([(lease, Offset(4))].into());
        let moved = [2, 6, 5, 6, 9].map(|position| order.advances(&advance(1, position)));
        assert_eq!(moved, [false, true, false, true, true]);
        assert!(!order.advances(&advance(2, 9)), "its statement moved nothing of this lease");
    }

    #[test]
    fn consumers_are_halved_until_one_is_alone() {
        let sorted = |consumers: &[i32]| -> Vec<_> {
            consumers.iter().map(|consumer| advance(*consumer, 0)).collect()
        };
        let middle = |consumers| middle(&sorted(consumers)).map(|key| key.consumer);
        assert_eq!(middle(&[]), None);
        assert_eq!(middle(&[1]), None);
        // Two epochs of one consumer cannot be told apart.
        assert_eq!(middle(&[1, 1]), None);
        assert_eq!(middle(&[1, 1, 1, 2]), Some(2));
        assert_eq!(middle(&[1, 2, 3, 4]), Some(3));
    }
}
