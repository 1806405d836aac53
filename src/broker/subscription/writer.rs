//! Stores what all subscriptions of this broker have settled, in a group commit as positions are.
//!
//! A write with dead letters has a transaction of its own, in a session of its own: it may have to wait for the
//! head of the dead-letter topic, and no other subscription waits with it.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::{
    broker::{
        error::Error,
        publish::{group_commit::AppendLog as _, writer::LogStore},
    },
    model::ConsumerKey,
    storage::{DeadLetterOutcome, DeadLetters, Storage, StoreOutcome, SubscriptionWrite},
};

/// How many writes may be queued. Each subscription has at most one; further ones wait to be queued.
const QUEUE_LENGTH: usize = 1_024;

/// A write, and who waits for its outcome.
struct Queued {
    write: Arc<SubscriptionWrite>,
    reply: oneshot::Sender<Written>,
}

/// What became of a write.
pub(crate) type Written = Result<StoreOutcome, Error>;

/// Where writes are queued.
pub(crate) struct SettlementWriter {
    /// `None` once no more are accepted.
    queue: RwLock<Option<mpsc::Sender<Queued>>>,
    /// Where dead letters are appended.
    log: Arc<LogStore>,
}

impl SettlementWriter {
    pub(crate) fn start(log: Arc<LogStore>, tasks: &TaskTracker) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE_LENGTH);
        tasks.spawn(run(log.storage.clone(), queued));
        Self { queue: RwLock::new(Some(queue)), log }
    }

    /// Accepts no more writes.
    pub(crate) fn close(&self) {
        self.queue.write().take();
    }

    /// Stores something, and says what became of it.
    pub(crate) async fn store(&self, write: Arc<SubscriptionWrite>) -> Written {
        let queue = self.queue.read().clone().ok_or(Error::Draining)?;
        if let Some(letters) = &write.dead_letters {
            return self.store_with_dead_letters(&write, letters).await;
        }
        let (reply, written) = oneshot::channel();
        queue.send(Queued { write, reply }).await.map_err(|_| Error::Draining)?;
        #[cfg(feature = "sabotage")]
        if crate::model::Sabotage::SettleBeforeStore.is_on() {
            return Ok(StoreOutcome::Stored);
        }
        written.await.unwrap_or(Err(Error::outcome_unknown()))
    }

    async fn store_with_dead_letters(
        &self,
        write: &Arc<SubscriptionWrite>,
        letters: &DeadLetters,
    ) -> Written {
        let DeadLetters { topic, draft } = letters;
        let before = self.log.truncation.before_append(topic);
        match self.log.storage.store_with_dead_letters(write, letters).await {
            Ok(DeadLetterOutcome::Appended(appended)) => {
                self.log.check_appended(topic, draft, appended, before);
                self.log.acknowledged(draft.clone(), appended);
                Ok(StoreOutcome::Stored)
            }
            Ok(DeadLetterOutcome::Other(outcome)) => Ok(outcome),
            Ok(DeadLetterOutcome::Refused(error)) => {
                tracing::warn!(%topic, %error, "could not move dead letters");
                Ok(StoreOutcome::DeadLettersRefused)
            }
            Err(error) => Err(Error::from(error).logged("move dead letters")),
        }
    }
}

async fn run(storage: Arc<Storage>, mut queue: mpsc::Receiver<Queued>) {
    let mut queued = Vec::new();
    while queue.recv_many(&mut queued, QUEUE_LENGTH).await > 0 {
        let newest = newest_of_each(&mut queued);
        let writes: Vec<_> = newest.values().map(|queued| queued.write.clone()).collect();
        let outcomes = store(&storage, &writes).await;
        for (key, queued) in newest {
            queued.answer(outcomes.get(&key).cloned().unwrap_or(Ok(StoreOutcome::Fenced)));
        }
    }
}

/// The write of each subscription. An owner that has ended may have left another one: it is answered.
fn newest_of_each(queued: &mut Vec<Queued>) -> HashMap<ConsumerKey, Queued> {
    let mut newest: HashMap<ConsumerKey, Queued> = HashMap::new();
    for next in queued.drain(..) {
        let fenced = match newest.remove(&next.write.key) {
            Some(other) if other.write.epoch > next.write.epoch => {
                newest.insert(other.write.key, other);
                Some(next)
            }
            other => {
                newest.insert(next.write.key, next);
                other
            }
        };
        if let Some(fenced) = fenced {
            fenced.answer(Ok(StoreOutcome::Fenced));
        }
    }
    newest
}

impl Queued {
    fn answer(self, written: Written) {
        // An owner that has ended does not receive it.
        let _ = self.reply.send(written);
    }
}

/// Stores writes together, or one by one if the statement fails: the fault may be that of one of them.
async fn store(
    storage: &Storage,
    writes: &[Arc<SubscriptionWrite>],
) -> HashMap<ConsumerKey, Written> {
    match storage.store_settled(writes).await {
        Ok(outcomes) => outcomes.into_iter().map(|(key, outcome)| (key, Ok(outcome))).collect(),
        Err(error) if writes.len() > 1 && error.is_of_a_statement() => {
            let mut outcomes = HashMap::new();
            for write in writes.chunks(1) {
                outcomes.extend(Box::pin(store(storage, write)).await);
            }
            outcomes
        }
        Err(error) => {
            let error = Error::from(error).logged("store what subscriptions have settled");
            writes.iter().map(|write| (write.key, Err(error.clone()))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Epoch, Offset, TopicId};

    #[test]
    fn a_write_that_an_ended_owner_left_is_not_stored_beside_that_of_the_next_one() {
        let queue = |consumer, epoch| {
            let write = SubscriptionWrite {
                key: ConsumerKey { topic: TopicId(1), consumer },
                epoch: Epoch(epoch),
                floor: Offset(0),
                end: Offset(0),
                delta: None,
                keep_from: 0,
                messages: Vec::new(),
                reservation: None,
                dead_letters: None,
                lost: None,
            };
            let (reply, written) = oneshot::channel();
            (Queued { write: Arc::new(write), reply }, written)
        };
        let (mut queued, mut written): (Vec<_>, Vec<_>) =
            [queue(1, 4), queue(2, 9), queue(1, 5), queue(3, 2), queue(3, 1)].into_iter().unzip();
        let newest = newest_of_each(&mut queued);
        let mut epochs: Vec<_> =
            newest.values().map(|it| (it.write.key.consumer, it.write.epoch.0)).collect();
        epochs.sort_unstable();
        assert_eq!(epochs, [(1, 5), (2, 9), (3, 2)]);
        let fenced = |written: &mut oneshot::Receiver<Written>| {
            matches!(written.try_recv(), Ok(Ok(StoreOutcome::Fenced)))
        };
        let answered: Vec<bool> = written.iter_mut().map(fenced).collect();
        assert_eq!(answered, [true, false, false, false, true]);
    }
}
