//! Publishing: batches appended to topics.

use std::{collections::HashMap, time::SystemTime};

use bytes::Bytes;
use deadpool_postgres::{GenericClient, Object};

use super::{Error, Storage, arrays};
use crate::model::{Draft, Labels, Offset, TopicId, TopicName};

/// A connection that publishes.
pub struct Writer(Object);

/// Where a batch was stored.
#[derive(Clone, Copy, Debug)]
pub struct Appended {
    /// The topic's number.
    pub topic: TopicId,
    /// The offset of the batch's first message.
    pub base: Offset,
    /// When it was stored.
    pub published_at: SystemTime,
}

impl Storage {
    /// A connection that publishes, as soon as one is free.
    pub async fn writer(&self) -> Result<Writer, Error> {
        Ok(Writer(self.writer.get().await?))
    }
}

impl Writer {
    /// Appends one batch, in a transaction of its own. `None`, and nothing stored, if there is no
    /// such topic or one of the producers is not registered on it.
    pub async fn append(
        &self,
        topic: &TopicName,
        draft: &Draft,
    ) -> Result<Option<Appended>, Error> {
        append_batch(&self.0, topic, draft).await
    }

    /// Appends a batch to each of several topics, in one transaction and so with one flush to
    /// disk. The topics must come in the order of their names: every broker locks them in that
    /// order, so that no two wait for each other. An entry is `None` as in [`Writer::append`];
    /// the others are stored all the same.
    pub async fn append_all(
        &mut self,
        drafts: &[(&TopicName, &Draft)],
    ) -> Result<Vec<Option<Appended>>, Error> {
        let transaction = self.0.transaction().await?;
        // Sent one behind the other without waiting; each takes its lock in its turn.
        let appended = futures::future::try_join_all(
            drafts.iter().map(|(topic, draft)| append_batch(&transaction, topic, draft)),
        )
        .await?;
        // Every statement has answered without an error: only then does the driver's Ok on a
        // commit mean that it was one (an aborted transaction answers it with a rollback).
        transaction.commit().await?;
        Ok(appended)
    }

    /// Gives the connection up: it is lost, though the driver may not have noticed yet, or its
    /// answer is no longer waited for. The next publish gets a new one.
    pub fn abandon(self) {
        drop(Object::take(self.0));
    }
}

async fn append_batch(
    client: &impl GenericClient,
    topic: &TopicName,
    draft: &Draft,
) -> Result<Option<Appended>, Error> {
    let statement = client
        .prepare_cached(
            "-- append_batch
            with registered as (
                select count(*) as count
                from trunkline.topic join trunkline.producer_topic on topic_id = id
                where name = $1 and producer_id = any ($2::text[])
            ), head as (
                update trunkline.topic_head
                set next_offset = next_offset + $4::integer,
                    last_published_at = greatest(last_published_at, clock_timestamp())
                where topic_id = (select id from trunkline.topic where name = $1)
                  and (select count from registered) = cardinality($2::text[])
                returning topic_id, next_offset - $4::integer as base_offset, last_published_at
            ), stored as (
                insert into trunkline.batch (topic_id, base_offset, count, bytes, payloads, keys,
                    headers, producers, producer_counts, published_at)
                select topic_id, base_offset, $4::integer, $5, $6, $7, $8::text[]::jsonb[], $9, $10,
                       last_published_at
                from head
            ), seen as (
                update trunkline.producer_topic p
                set last_offset = head.base_offset + last.index,
                    updated_at = head.last_published_at
                from head, unnest($2::text[], $3::integer[]) as last (producer_id, index)
                where p.topic_id = head.topic_id and p.producer_id = last.producer_id
            )
            select topic_id, base_offset, last_published_at from head",
        )
        .await?;

    let (producers, last_indexes) = last_of_each_producer(draft);
    let count = draft.payloads.len() as i32;
    let bytes = i32::try_from(draft.bytes).map_err(Error::unexpected)?;
    let payloads: Vec<&[u8]> = draft.payloads.iter().map(Bytes::as_ref).collect();
    let keys: Option<Vec<Option<&[u8]>>> =
        draft.keys.as_ref().map(|keys| keys.iter().map(Option::as_deref).collect());
    let headers = draft.headers.as_deref().map(headers_to_json).transpose()?;
    let runs: Vec<&str> = draft.producers.iter().map(|run| run.producer.as_str()).collect();
    let run_counts: Vec<i32> = draft.producers.iter().map(|run| run.count as i32).collect();

    let row = client
        .query_opt(
            &statement,
            &[
                &topic.as_str(),
                &producers,
                &last_indexes,
                &count,
                &bytes,
                &payloads,
                &keys,
                &headers,
                &runs,
                &run_counts,
            ],
        )
        .await?;
    Ok(row.map(|row| Appended {
        topic: TopicId(row.get(0)),
        base: Offset(row.get(1)),
        published_at: row.get(2),
    }))
}

/// The draft's producers, each once, and the index of each one's last message.
fn last_of_each_producer(draft: &Draft) -> (Vec<&str>, Vec<i32>) {
    let mut last = HashMap::with_capacity(draft.producers.len());
    let mut end = 0;
    for run in &draft.producers {
        end += run.count as i32;
        last.insert(run.producer.as_str(), end - 1);
    }
    last.into_iter().unzip()
}

fn headers_to_json(headers: &[Labels]) -> Result<Vec<Option<String>>, Error> {
    headers
        .iter()
        .map(|labels| (!labels.is_empty()).then(|| arrays::labels_to_json(labels)).transpose())
        .collect()
}
