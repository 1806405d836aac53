//! Publishing: batches appended to topics.

use std::time::SystemTime;

use bytes::Bytes;

use super::{
    Error, Storage, arrays,
    session::{Session, Statements},
};
use crate::model::{Draft, Labels, Offset, Sequences, Stamp, TopicId, TopicName};

/// How many runs of counted messages a registration keeps, to answer repeated publishes.
const RECENT_RUNS: i32 = 8;

/// A connection that publishes.
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
    /// A connection that publishes, as soon as one is free.
    pub async fn writer(&self) -> Result<Writer, Error> {
        Ok(Writer(self.writer.get().await?))
    }
}

impl Writer {
    /// Appends one batch, in a transaction of its own. `None`, and nothing stored, if there is no
    /// such topic, if its head is not the expected one, or if one of the producers is not
    /// registered on it with the draft's epoch and up to the draft's sequence;
    /// [`Error::ChangedMeanwhile`], and nothing stored, if that changed while it was looked at.
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
        let transaction = self.0.begin().await?;
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
        self.0.abandon();
    }
}

async fn append_batch(
    client: &impl Statements,
    topic: &TopicName,
    draft: &Draft,
) -> Result<Option<Appended>, Error> {
    // `fit` is judged before the head is locked: what another broker commits while this one waits
    // for the lock is met by the conditions of `seen`, which are checked again on the newest rows.
    let statement = "-- append_batch
            with publishing as (
                select *
                from unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[], $6::bigint[])
                    as publishing (producer_id, last_index, epoch, first_sequence, last_sequence)
            ), fit as (
                select count(*) as count
                from trunkline.topic
                join trunkline.producer_topic p on p.topic_id = id
                join publishing using (producer_id)
                where name = $1 and p.epoch = publishing.epoch
                  and (first_sequence is null
                       or first_sequence = coalesce(p.last_sequence + 1, 0))
            ), head as (
                update trunkline.topic_head
                set next_offset = next_offset + $11::integer,
                    bytes = bytes + $12::integer,
                    last_published_at = greatest(last_published_at, clock_timestamp())
                where topic_id = (select id from trunkline.topic where name = $1)
                  and (select count from fit) = cardinality($2::text[])
                  and ($7::bigint is null or next_offset = $7)
                returning topic_id, next_offset - $11::integer as base_offset, last_published_at
            ), stored as (
                insert into trunkline.batch (topic_id, base_offset, count, bytes, payloads, keys,
                    headers, producers, producer_counts, published_at)
                select topic_id, base_offset, $11::integer, $12::integer, $13, $14, $15::text[]::jsonb[],
                       $16, $17, last_published_at
                from head
            ), recent as (
                select producer_id, array_agg(sequence order by sequence desc) as sequences,
                       array_agg(base_offset + index order by sequence desc) as offsets
                from head, unnest($8::text[], $9::bigint[], $10::integer[])
                    as run (producer_id, sequence, index)
                group by producer_id
            ), seen as (
                update trunkline.producer_topic p
                set last_offset = head.base_offset + publishing.last_index,
                    updated_at = head.last_published_at,
                    last_sequence = coalesce(publishing.last_sequence, p.last_sequence),
                    recent_sequences = (recent.sequences || p.recent_sequences)[1:$18],
                    recent_offsets = (recent.offsets || p.recent_offsets)[1:$18]
                from head, publishing left join recent using (producer_id)
                where p.topic_id = head.topic_id and p.producer_id = publishing.producer_id
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
    let recent = newest_runs(stamps);

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
            statement,
            &[
                &topic.as_str(),
                &producers,
                &last_indexes,
                &epochs,
                &first_sequences,
                &last_sequences,
                &expected_base,
                &recent.producers,
                &recent.sequences,
                &recent.indexes,
                &count,
                &bytes,
                &payloads,
                &keys,
                &headers,
                &runs,
                &run_counts,
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

/// Runs of counted messages, column by column.
#[derive(Default)]
struct Runs<'a> {
    producers: Vec<&'a str>,
    sequences: Vec<i64>,
    indexes: Vec<i32>,
}

/// The newest runs of each producer: as many as its registration keeps.
fn newest_runs(stamps: &[Stamp]) -> Runs<'_> {
    let mut newest = Runs::default();
    for stamp in stamps {
        let Some(Sequences { runs, .. }) = &stamp.sequences else { continue };
        for (sequence, index) in runs.iter().rev().take(RECENT_RUNS as usize) {
            newest.producers.push(stamp.producer.as_str());
            newest.sequences.push(sequence.0);
            newest.indexes.push(*index as i32);
        }
    }
    newest
}

fn headers_to_json(headers: &[Labels]) -> Result<Vec<Option<String>>, Error> {
    headers
        .iter()
        .map(|labels| (!labels.is_empty()).then(|| arrays::labels_to_json(labels)).transpose())
        .collect()
}
