//! Appends batches to topics.

#[cfg(feature = "sabotage")]
mod sabotage;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::try_join_all;

use super::{
    Error, Storage, column,
    session::{Session, Statements, within},
    timeout::SHORT_WRITER_LOCK_TIMEOUT,
};
#[cfg(feature = "sabotage")]
use crate::model::Sabotage;
use crate::model::{Draft, Labels, Offset, Sequences, Stamp, TopicId, TopicName};

/// How many runs of sequenced messages a registration keeps, to answer repeated publishes.
const RECENT_RUNS: i32 = 8;

/// How long a transaction with several batches may take.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15);

/// A session that publishes.
pub struct Writer(Session);

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
    /// Waits for a free session that publishes.
    pub async fn writer(&self) -> Result<Writer, Error> {
        Ok(Writer(self.pools.writer.get().await?))
    }

    /// Opens all sessions that publish and has them plan their statement, so that the first
    /// publishes need not wait for that. Does nothing with pooled sessions, which keep no plans.
    pub async fn warm_up(&self) -> Result<(), Error> {
        if self.pools.writer.is_pooled() {
            return Ok(());
        }
        // Takes all of them before it gives one back, or the pool would hand that one out again.
        let sessions = self.pools.writer.max_size();
        let writers = try_join_all((0..sessions).map(|_| self.writer())).await?;
        let (nowhere, nothing) = (TopicName::stored(""), Draft::default());
        try_join_all(writers.iter().map(|writer| writer.append(&nowhere, &nothing))).await?;
        Ok(())
    }
}

impl Writer {
    /// Limits the wait for a topic's row to a fifth of the usual time.
    pub fn hurry(&mut self) {
        self.0.limit_lock_wait(SHORT_WRITER_LOCK_TIMEOUT);
    }

    /// Appends one batch, in a transaction of its own. Returns `None`, and stores nothing, if there
    /// is no such topic, if its head is not the expected one, or if one of the producers is not
    /// registered on it with the draft's epoch and up to the draft's sequence. Fails with
    /// [`Error::ChangedMeanwhile`], and stores nothing, if any of that changed during the check.
    pub async fn append(
        &self,
        topic: &TopicName,
        draft: &Draft,
    ) -> Result<Option<Appended>, Error> {
        #[cfg(feature = "sabotage")]
        if Sabotage::SwallowRollback.is_on() {
            let append = append_batch(&self.0, topic, draft);
            return sabotage::append_in_a_transaction(&self.0, append).await;
        }
        append_batch(&self.0, topic, draft).await
    }

    /// Appends a batch to each of several topics, in one transaction and so with one flush to disk,
    /// within 15 s. The topics must be sorted by name: every broker locks them in that order, so
    /// that no two wait for each other. An entry is `None` as in [`Writer::append`]; the others are
    /// stored all the same.
    pub async fn append_all(
        &mut self,
        drafts: &[(&TopicName, &Draft)],
    ) -> Result<Vec<Option<Appended>>, Error> {
        #[cfg(feature = "sabotage")]
        if Sabotage::OffsetsFromSequence.is_on() {
            // The caller then appends each alone.
            return Ok(drafts.iter().map(|_| None).collect());
        }
        let transaction = self.0.transact(async |transaction| {
            // Sent one after another without waiting for answers. They take their locks in that
            // order.
            let appended = try_join_all(
                drafts.iter().map(|(topic, draft)| append_batch(transaction, topic, draft)),
            )
            .await?;
            #[cfg(feature = "sabotage")]
            if Sabotage::SwallowRollback.is_on() {
                sabotage::fail_now_and_then(transaction).await;
            }
            Ok(appended)
        });
        within(TRANSACTION_TIMEOUT, Box::pin(transaction)).await
    }
}

async fn append_batch(
    client: &impl Statements,
    topic: &TopicName,
    draft: &Draft,
) -> Result<Option<Appended>, Error> {
    // The producers are joined with their topic first, so that each is found by its whole key. By
    // the topic alone, the planner would read all that are registered on it whenever its statistics
    // say that there are few. `fit` is evaluated before the head is locked. What another broker
    // commits while this one waits for the lock is caught by the conditions of `seen`, which are
    // checked again on the newest rows.
    let statement = "-- append_batch
            with publishing as materialized (
                select id as topic_id, publishing.*
                from trunkline.topic,
                     unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[], $6::bigint[],
                            $8::integer[], $9::integer[])
                         as publishing (producer_id, last_index, epoch, first_sequence,
                                        last_sequence, first_run, last_run)
                where name = $1
            ), fit as (
                select count(*) as count
                from publishing join trunkline.producer_topic p using (topic_id, producer_id)
                where p.epoch = publishing.epoch
                  and (first_sequence is null
                       or first_sequence = coalesce(p.last_sequence + 1, 0))
            ), head as (
                update trunkline.topic_head
                set next_offset = next_offset + $12::integer,
                    bytes = bytes + $13::integer,
                    last_published_at = greatest(last_published_at, clock_timestamp())
                where topic_id = (select topic_id from publishing limit 1)
                  and (select count from fit) = cardinality($2::text[])
                  and ($7::bigint is null or next_offset = $7)
                returning topic_id, next_offset - $12::integer as base_offset, last_published_at
            ), stored as (
                insert into trunkline.batch (topic_id, base_offset, count, bytes, payloads, keys,
                    headers, producers, producer_counts, published_at)
                select topic_id, base_offset, $12::integer, $13::integer, $14, $15,
                       $16::text[]::jsonb[], $17, $18, last_published_at
                from head
            ), seen as (
                update trunkline.producer_topic p
                set last_offset = head.base_offset + publishing.last_index,
                    updated_at = head.last_published_at,
                    last_sequence = coalesce(publishing.last_sequence, p.last_sequence),
                    recent_sequences = case when first_run is null then p.recent_sequences else
                        (($10::bigint[])[first_run:last_run] || p.recent_sequences)[1:$19] end,
                    recent_offsets = case when first_run is null then p.recent_offsets else
                        (array(
                            select head.base_offset + index
                            from unnest(($11::integer[])[first_run:last_run])
                                with ordinality as run (index, number)
                            order by number
                        ) || p.recent_offsets)[1:$19] end
                from head, publishing
                where p.topic_id = publishing.topic_id and p.producer_id = publishing.producer_id
                  and p.epoch = publishing.epoch
                  and (first_sequence is null
                       or first_sequence = coalesce(p.last_sequence + 1, 0))
                returning 1
            )
            select topic_id, last_published_at,
                   case when (select count(*) from seen) = cardinality($2::text[])
                        then base_offset else trunkline.changed_meanwhile() end
            from head";

    let stamps = &draft.stamps;
    let producers: Vec<&str> = stamps.iter().map(|stamp| stamp.producer.as_str()).collect();
    let last_indexes: Vec<i32> = stamps.iter().map(|stamp| stamp.last_index as i32).collect();
    let epochs: Vec<i64> = stamps.iter().map(|stamp| stamp.epoch.0).collect();
    let sequences = || stamps.iter().map(|stamp| stamp.sequences.as_ref());
    let first_sequences: Vec<_> = sequences().map(|of| of.map(|of| of.first.0)).collect();
    let last_sequences: Vec<_> = sequences().map(|of| of.map(|of| of.next.0 - 1)).collect();
    let expected_base = draft.expected_base.map(|base| base.0);
    let runs = newest_runs(stamps);

    let count = draft.payloads.len() as i32;
    let bytes = i32::try_from(draft.bytes).map_err(Error::unexpected)?;
    let payloads: Vec<&[u8]> = draft.payloads.iter().map(Bytes::as_ref).collect();
    let keys: Option<Vec<Option<&[u8]>>> =
        draft.keys.as_ref().map(|keys| keys.iter().map(Option::as_deref).collect());
    let headers = draft.headers.as_deref().map(headers_to_json).transpose()?;
    let publishers: Vec<&str> = draft.producers.iter().map(|run| run.producer.as_str()).collect();
    let publisher_counts: Vec<i32> = draft.producers.iter().map(|run| run.count as i32).collect();

    #[cfg(feature = "sabotage")]
    let statement = &match Sabotage::OffsetsFromSequence.is_on() {
        true => sabotage::at_an_offset_taken_before(client, statement, topic, count).await?,
        false => statement.to_owned(),
    };
    let row = client
        .query_opt(
            statement,
            &[
                &topic.as_str(),
                &producers,
                &last_indexes,
                &epochs,
                &first_sequences,
                &last_sequences,
                &expected_base,
                &runs.first,
                &runs.last,
                &runs.sequences,
                &runs.indexes,
                &count,
                &bytes,
                &payloads,
                &keys,
                &headers,
                &publishers,
                &publisher_counts,
                &RECENT_RUNS,
            ],
        )
        .await?;
    Ok(row.map(|row| Appended {
        topic: TopicId(row.get(0)),
        published_at: row.get(1),
        base: Offset(row.get(2)),
    }))
}

/// Runs of sequenced messages, column by column.
#[derive(Default)]
struct Runs {
    /// For each producer the position of its newest run in the columns below, counted from 1; none
    /// if it gave no sequences.
    first: Vec<Option<i32>>,
    /// For each producer the position of its oldest run.
    last: Vec<Option<i32>>,
    sequences: Vec<i64>,
    indexes: Vec<i32>,
}

/// The newest runs of each producer, newest first: as many as a registration keeps.
fn newest_runs(stamps: &[Stamp]) -> Runs {
    let mut newest = Runs::default();
    for stamp in stamps {
        let runs = stamp.sequences.iter().flat_map(|Sequences { runs, .. }| runs.iter().rev());
        let before = newest.sequences.len() as i32;
        for (sequence, index) in runs.take(RECENT_RUNS as usize) {
            newest.sequences.push(sequence.0);
            newest.indexes.push(*index as i32);
        }
        let last = newest.sequences.len() as i32;
        let some = last > before;
        newest.first.push(some.then_some(before + 1));
        newest.last.push(some.then_some(last));
    }
    newest
}

pub(super) fn headers_to_json(headers: &[Labels]) -> Result<Vec<Option<String>>, Error> {
    headers
        .iter()
        .map(|labels| (!labels.is_empty()).then(|| column::labels_to_json(labels)).transpose())
        .collect()
}
