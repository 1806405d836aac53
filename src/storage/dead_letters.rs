//! Stores what a subscription has settled, and appends the messages that it moves to a dead-letter topic, in one
//! transaction.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Error, Storage,
    append::{Appended, headers_to_json},
    session::{Parameter, Statements},
    subscription::{DeadLetters, StoreOutcome, SubscriptionWrite, store_settled},
};
use crate::model::{Draft, Offset, TopicId, TopicName};

/// What became of a write with dead letters.
#[derive(Debug)]
pub enum DeadLetterOutcome {
    /// It is stored, and they were appended there.
    Appended(Appended),
    /// It was stored before, or is not stored.
    Other(StoreOutcome),
    /// It was not stored before either: the database failed the statements that store it.
    Refused(Error),
}

impl Storage {
    /// Stores what a subscription has settled, and appends its dead letters. If the same was stored before, nothing
    /// is appended again.
    ///
    /// # What makes that certain
    ///
    /// The write adds the row of `subscription_delta` with its number, which no other write of the subscription
    /// has, and which stays until a later write. All who add such rows hold the consumer's row. So whoever has
    /// locked that row knows whether the write was stored, even if an earlier try is still under way. A seek
    /// deletes the row, and raises the epoch, so that the write is fenced.
    ///
    /// # Locks
    ///
    /// First the head of the dead-letter topic. Another session may hold it for long, so this waits only briefly,
    /// and holds no other row meanwhile. Then the consumer's row, for which it does not wait: a transaction from
    /// SQL may hold that and wait for the head. So it is never part of a deadlock, in whatever order others lock
    /// the two.
    pub async fn store_with_dead_letters(
        &self,
        write: &Arc<SubscriptionWrite>,
        letters: &DeadLetters,
    ) -> Result<DeadLetterOutcome, Error> {
        let mut is_new = false;
        let stored = self.row_locks().once_of_topic(&letters.topic, async {
            let mut client = self.query().await?;
            // Boxed, as the futures around it would each hold it twice.
            let work = client.transact(async |transaction| {
                store(transaction, write, letters, &mut is_new).await
            });
            Box::pin(work).await
        });
        let stored = stored.await;
        match stored {
            Err(Error::Locked(_)) => Ok(DeadLetterOutcome::Other(StoreOutcome::Locked)),
            // A fault may pass.
            Err(error @ Error::Fault(_)) => Err(error),
            Err(error) if is_new && error.is_of_a_statement() => {
                Ok(DeadLetterOutcome::Refused(error))
            }
            stored => stored,
        }
    }
}

async fn store(
    transaction: &impl Statements,
    write: &Arc<SubscriptionWrite>,
    letters: &DeadLetters,
    is_new: &mut bool,
) -> Result<DeadLetterOutcome, Error> {
    use DeadLetterOutcome::{Appended, Other};
    let topic = lock_dead_letter_topic(transaction, &letters.topic).await?;
    match lock_subscription(transaction, write).await? {
        StoreOutcome::Stored => {}
        outcome => return Ok(Other(outcome)),
    }
    if is_stored(transaction, write).await? {
        return Ok(Other(StoreOutcome::Stored));
    }
    *is_new = true;
    let Some(topic) = topic else { return Ok(Other(StoreOutcome::NoDeadLetterTopic)) };
    let outcomes = store_settled(transaction, std::slice::from_ref(write)).await?;
    match outcomes.get(&write.key) {
        Some(StoreOutcome::Stored) => {
            Ok(Appended(append(transaction, topic, &letters.draft).await?))
        }
        outcome => Ok(Other(outcome.copied().unwrap_or(StoreOutcome::Fenced))),
    }
}

/// Locks the head of a topic; `None` if there is no such topic.
async fn lock_dead_letter_topic(
    transaction: &impl Statements,
    topic: &TopicName,
) -> Result<Option<TopicId>, Error> {
    let statement = "-- lock_dead_letter_topic
        select topic_id from trunkline.topic_head
        where topic_id = (select id from trunkline.topic where name = $1)
        for no key update";
    let row = transaction.query_opt(statement, &[&topic.as_str()]).await?;
    Ok(row.map(|row| TopicId(row.get(0))))
}

/// Locks the consumer's row; [`StoreOutcome::Stored`] says that the write can be stored now.
async fn lock_subscription(
    transaction: &impl Statements,
    write: &SubscriptionWrite,
) -> Result<StoreOutcome, Error> {
    let statement = "-- lock_subscription
        with free as materialized (
            select epoch from trunkline.consumer_topic
            where topic_id = $1 and id = $2 for no key update skip locked
        )
        select free.epoch
        from trunkline.consumer_topic c left join free on true
        where c.topic_id = $1 and c.id = $2";
    let keys: [&dyn Parameter; 2] = [&write.key.topic.0, &write.key.consumer];
    let row = transaction.query_opt(statement, &keys).await?;
    Ok(match row.map(|row| row.get::<_, Option<i64>>(0)) {
        Some(Some(epoch)) if epoch == write.epoch.0 => StoreOutcome::Stored,
        Some(None) => StoreOutcome::Locked,
        Some(Some(_)) | None => StoreOutcome::Fenced,
    })
}

/// Whether the write was stored before. A statement of its own, so that it sees what was committed before the
/// consumer's row was locked.
async fn is_stored(
    transaction: &impl Statements,
    write: &SubscriptionWrite,
) -> Result<bool, Error> {
    let Some((number, _)) = &write.delta else {
        return Err(Error::unexpected("a write with dead letters has no number"));
    };
    let statement = "-- find_delta
        select exists (select from trunkline.subscription_delta
                       where topic_id = $1 and id = $2 and number = $3)";
    let keys: [&dyn Parameter; 3] = [&write.key.topic.0, &write.key.consumer, number];
    Ok(transaction.query_one(statement, &keys).await?.get(0))
}

/// Appends copies to a topic whose head is locked. Their producer is registered nowhere.
async fn append(
    transaction: &impl Statements,
    topic: TopicId,
    draft: &Draft,
) -> Result<Appended, Error> {
    let statement = "-- append_dead_letters
        with head as (
            update trunkline.topic_head
            set next_offset = next_offset + $2::integer,
                bytes = bytes + $3::integer,
                last_published_at = greatest(last_published_at, clock_timestamp())
            where topic_id = $1
            returning topic_id, next_offset - $2::integer as base_offset, last_published_at
        ), stored as (
            insert into trunkline.batch (topic_id, base_offset, count, bytes, payloads, keys,
                headers, producers, producer_counts, published_at)
            select topic_id, base_offset, $2::integer, $3::integer, $4, $5, $6::text[]::jsonb[],
                   $7, $8, last_published_at
            from head
        )
        select base_offset, last_published_at from head";
    let count = i32::try_from(draft.payloads.len()).map_err(Error::unexpected)?;
    let bytes = i32::try_from(draft.bytes).map_err(Error::unexpected)?;
    let payloads: Vec<&[u8]> = draft.payloads.iter().map(Bytes::as_ref).collect();
    let keys: Option<Vec<Option<&[u8]>>> =
        draft.keys.as_ref().map(|keys| keys.iter().map(Option::as_deref).collect());
    let headers = draft.headers.as_deref().map(headers_to_json).transpose()?;
    let producers: Vec<&str> = draft.producers.iter().map(|run| run.producer.as_str()).collect();
    let counts: Vec<i32> = draft.producers.iter().map(|run| run.count as i32).collect();
    let parameters: [&dyn Parameter; 8] =
        [&topic.0, &count, &bytes, &payloads, &keys, &headers, &producers, &counts];
    let row = transaction.query_one(statement, &parameters).await?;
    Ok(Appended { topic, base: Offset(row.get(0)), published_at: row.get(1) })
}
