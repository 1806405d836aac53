//! Pulls messages: reads at the position and moves it, in one transaction under the consumer's
//! lock.

use std::{sync::Arc, time::Duration};

use super::{Error, Storage, read::read_batches, session::Statements as _};
use crate::model::{Batch, ConsumerKey, Offset};

/// What came of a pull.
#[derive(Debug)]
pub enum Pull<R> {
    /// It took messages, or there were none.
    Took(Pulled<R>),
    /// It took nothing: there is no room for so many bytes of an answer.
    NoRoom {
        /// How many bytes.
        bytes: usize,
    },
    /// The consumer is not registered.
    NotRegistered,
}

/// Which of the messages a pull takes, if there is room for its answer.
#[derive(Debug)]
pub enum Choice<R> {
    /// Those up to an offset.
    UpTo {
        /// The new position.
        end: Offset,
        /// The room for them.
        room: R,
    },
    /// None, as in [`Pull::NoRoom`].
    NoRoom {
        /// How many bytes.
        bytes: usize,
    },
}

/// The messages that a pull took.
#[derive(Debug)]
pub struct Pulled<R> {
    /// The batches from the one that holds the first message on. The last one may hold messages
    /// from `to` on, which were not taken.
    pub batches: Vec<Arc<Batch>>,
    /// The position before.
    pub position: Offset,
    /// The offset of the first message taken: after `position` if messages were removed.
    pub from: Offset,
    /// The position after.
    pub to: Offset,
    /// The offset that the topic's next message gets.
    pub head: Offset,
    /// The room for them.
    pub room: R,
}

impl Storage {
    /// Takes messages from the position on, as many as `choose` says, which is given the batches
    /// and the first offset. It is asked once everything that a pull waits for is there, and may so
    /// take the room for the answer, which is given back if the pull fails after all. Fails, and takes nothing, with [`Error::Locked`] if another session holds the
    /// consumer's lock for longer than `lock_wait`, and with [`Error::ChangedMeanwhile`] if
    /// something else moved the position.
    ///
    /// The epoch goes up, as at every acquisition: a stream that lost its lock without knowing it
    /// cannot move the position past what was pulled.
    pub async fn pull<R>(
        &self,
        key: ConsumerKey,
        max_bytes: usize,
        lock_wait: Duration,
        choose: impl Fn(&[Arc<Batch>], Offset) -> Choice<R>,
    ) -> Result<Pull<R>, Error> {
        let mut client = self.query().await?;
        client
            .transact(async |transaction| {
                transaction.limit_lock_wait(lock_wait).await?;
                transaction
                    .execute(
                        "-- lock_consumer\nselect pg_advisory_xact_lock($1, $2)",
                        &[&key.topic.0, &key.consumer],
                    )
                    .await?;
                let position = transaction
                    .query_opt(
                        "-- find_position
                        select position from trunkline.consumer_topic where topic_id = $1 and id = $2",
                        &[&key.topic.0, &key.consumer],
                    )
                    .await?;
                let Some(position) = position else { return Ok(Pull::NotRegistered) };
                let position = Offset(position.get(0));
                let Some(log) = read_batches(transaction, key.topic, position, max_bytes).await? else {
                    return Ok(Pull::NotRegistered);
                };
                let from = position.max(log.ends.start);
                let (to, room) = match choose(&log.batches, from) {
                    Choice::UpTo { end, room } => (end, room),
                    Choice::NoRoom { bytes } => return Ok(Pull::NoRoom { bytes }),
                };
                if to > position {
                    let moved = transaction
                        .execute(
                            "-- pull_position
                            update trunkline.consumer_topic
                            set position = $3, epoch = epoch + 1, holder = '', updated_at = now()
                            where topic_id = $1 and id = $2 and position = $4",
                            &[&key.topic.0, &key.consumer, &to.0, &position.0],
                        )
                        .await?;
                    // A seek, or a stream that lost its lock, moved it between the two statements.
                    if moved == 0 {
                        return Err(Error::ChangedMeanwhile);
                    }
                }
                let (batches, head) = (log.batches, log.ends.head);
                Ok(Pull::Took(Pulled { batches, position, from, to, head, room }))
            })
            .await
    }
}
