//! Pulls messages: reads at the position and moves it, in one transaction under the consumer's
//! lock.

use std::{sync::Arc, time::Duration};

use super::{Error, Storage, read::read_batches, session::Statements as _};
use crate::model::{Batch, ConsumerKey, Offset};

/// The messages that a pull took.
#[derive(Debug)]
pub struct Pulled {
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
}

impl Storage {
    /// Takes messages from the position on, as many as `choose` says, which is given the batches
    /// and the first offset, and returns the new position. `None` if the consumer is no longer
    /// registered. Fails, and takes nothing, with [`Error::Locked`] if another session holds the
    /// consumer's lock for longer than `lock_wait`, and with [`Error::ChangedMeanwhile`] if
    /// something else moved the position.
    ///
    /// The epoch goes up, as at every acquisition: a stream that lost its lock without knowing it
    /// cannot move the position past what was pulled.
    pub async fn pull(
        &self,
        key: ConsumerKey,
        max_bytes: usize,
        lock_wait: Duration,
        choose: impl Fn(&[Arc<Batch>], Offset) -> Offset,
    ) -> Result<Option<Pulled>, Error> {
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
                let Some(position) = position else { return Ok(None) };
                let position = Offset(position.get(0));
                let Some(log) = read_batches(transaction, key.topic, position, max_bytes).await? else {
                    return Ok(None);
                };
                let from = position.max(log.ends.start);
                let to = choose(&log.batches, from);
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
                Ok(Some(Pulled { batches: log.batches, position, from, to, head: log.ends.head }))
            })
            .await
    }
}
