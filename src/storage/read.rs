//! Reads batches from an offset on, and the ends of logs.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio_postgres::Row;

use super::{
    Error, Storage,
    column::{self, ByteaArray},
    session::Statements,
};
use crate::model::{
    Batch, Labels, LogEnds, Offset, ProducerId, ProducerRun, TimeBound, TopicId, TopicName,
};

/// A part of a topic's log.
#[derive(Debug)]
pub struct LogSlice {
    /// The batches from the one that holds the requested offset on, without a gap.
    pub batches: Vec<Arc<Batch>>,
    /// The ends of the log when this was read.
    pub ends: LogEnds,
}

/// How many batches one read returns at most, however small they are.
const MAX_BATCHES: i64 = 512;

impl Storage {
    /// Reads from an offset on, or from the log start offset if that is later, until `max_bytes`
    /// are exceeded; `None` if there is no such topic.
    pub async fn read_batches(
        &self,
        topic: TopicId,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Option<LogSlice>, Error> {
        read_batches(&self.query().await?, topic, from, max_bytes).await
    }

    /// Reads the batches that hold messages at given offsets, in order, until `max_bytes` are exceeded;
    /// `None` if there is no such topic.
    pub async fn read_batches_of(
        &self,
        topic: TopicId,
        offsets: &[Offset],
        max_bytes: usize,
    ) -> Result<Option<LogSlice>, Error> {
        let client = self.query().await?;
        let statement = "-- read_batches_of
            select h.next_offset, h.first_offset, b.base_offset, b.published_at, b.payloads,
                   b.keys, b.headers::text[], b.producers, b.producer_counts
            from trunkline.topic_head h
            left join lateral (
                select * from (
                    select b.*, sum(bytes) over (order by b.base_offset) - bytes as bytes_before
                    from (
                        select distinct base_offset
                        from unnest($2::bigint[]) as wanted (\"offset\")
                        cross join lateral (
                            select base_offset, count from trunkline.batch
                            where topic_id = h.topic_id and base_offset <= wanted.\"offset\"
                              and base_offset >= h.deleted_until
                            order by base_offset desc limit 1
                        ) last
                        where base_offset + count > wanted.\"offset\"
                    ) found
                    join trunkline.batch b
                      on b.topic_id = h.topic_id and b.base_offset = found.base_offset
                ) next
                where bytes_before < $3
            ) b on true
            where h.topic_id = $1
            order by b.base_offset";
        let wanted: Vec<i64> = offsets.iter().map(|offset| offset.0).collect();
        let rows = client.query(statement, &[&topic.0, &wanted, &(max_bytes as i64)]).await?;
        slice(&rows)
    }

    /// The ends of the logs of those of the topics that exist.
    pub async fn read_ends(&self, topics: &[TopicId]) -> Result<Vec<(TopicId, LogEnds)>, Error> {
        let client = self.query().await?;
        let statement = "-- read_ends
                select topic_id, first_offset, next_offset
                from trunkline.topic_head where topic_id = any ($1)";
        let ids: Vec<i32> = topics.iter().map(|topic| topic.0).collect();
        let rows = client.query(statement, &[&ids]).await?;
        Ok(rows.iter().map(topic_and_ends).collect())
    }

    /// A topic's id, and the ends of its log; `None` if there is no such topic.
    pub async fn find_log(&self, topic: &TopicName) -> Result<Option<(TopicId, LogEnds)>, Error> {
        let client = self.query().await?;
        let statement = "-- find_log
                select id, first_offset, next_offset
                from trunkline.topic join trunkline.topic_head on topic_id = id
                where name = $1";
        let row = client.query_opt(statement, &[&topic.as_str()]).await?;
        Ok(row.as_ref().map(topic_and_ends))
    }

    /// The offset of the first message stored at `time` or later; the head if there is none, or no
    /// such topic.
    pub async fn find_offset_at(&self, topic: TopicId, time: TimeBound) -> Result<Offset, Error> {
        let client = self.query().await?;
        // A binary search, as times grow with the offsets: all batches before `low` are older than
        // `time`, and the one at `high`, if there is one, is not.
        let statement = "-- find_offset_at
                with recursive search (low, high) as (
                    select first_offset, next_offset
                    from trunkline.topic_head where topic_id = $1
                    union all
                    select case when published_at < $2 then base_offset + count else low end,
                           case when published_at < $2 then high else base_offset end
                    from search, lateral (
                        select base_offset, count, published_at from trunkline.batch
                        where topic_id = $1 and base_offset <= (low + high) / 2
                        order by base_offset desc limit 1
                    ) middle
                    where low < high
                )
                select coalesce(min(high), 0) from search where high <= low";
        let row = client.query_one(statement, &[&topic.0, &time.time()]).await?;
        Ok(Offset(row.get(0)))
    }
}

/// As [`Storage::read_batches`], in a given session or transaction.
pub(super) async fn read_batches(
    client: &impl Statements,
    topic: TopicId,
    from: Offset,
    max_bytes: usize,
) -> Result<Option<LogSlice>, Error> {
    // The running sum of the sizes bounds the answer before any payload is decompressed. A batch
    // that ends at or before the offset is left out, or a reader at the tail would decompress the
    // last batch again and again.
    let statement = "-- read_batches
            select h.next_offset, h.first_offset, b.base_offset, b.published_at, b.payloads,
                   b.keys, b.headers::text[], b.producers, b.producer_counts
            from trunkline.topic_head h
            cross join lateral (select greatest($2, h.first_offset) as offset) start
            left join lateral (
                select * from (
                    select *, sum(bytes) over (order by base_offset) - bytes as bytes_before
                    from trunkline.batch
                    where topic_id = h.topic_id and base_offset + count > start.offset
                      and base_offset >= coalesce((
                          select base_offset from trunkline.batch
                          where topic_id = h.topic_id and base_offset <= start.offset
                            and base_offset >= h.deleted_until
                          order by base_offset desc limit 1), start.offset)
                    order by base_offset limit $3
                ) next
                where bytes_before < $4
            ) b on true
            where h.topic_id = $1
            order by b.base_offset";
    let rows =
        client.query(statement, &[&topic.0, &from.0, &MAX_BATCHES, &(max_bytes as i64)]).await?;
    slice(&rows)
}

fn slice(rows: &[Row]) -> Result<Option<LogSlice>, Error> {
    let Some(any) = rows.first() else { return Ok(None) };
    let ends = LogEnds { start: Offset(any.get(1)), head: Offset(any.get(0)) };
    let batches = rows.iter().filter_map(|row| batch(row).transpose()).collect::<Result<_, _>>()?;
    Ok(Some(LogSlice { batches, ends }))
}

fn topic_and_ends(row: &Row) -> (TopicId, LogEnds) {
    let ends = LogEnds { start: Offset(row.get(1)), head: Offset(row.get(2)) };
    (TopicId(row.get(0)), ends)
}

fn batch(row: &Row) -> Result<Option<Arc<Batch>>, Error> {
    let Some(base) = row.try_get::<_, Option<i64>>(2)? else { return Ok(None) };
    let ByteaArray(payloads) = row.try_get(4)?;
    let keys = row.try_get::<_, Option<ByteaArray>>(5)?.map(|ByteaArray(keys)| keys);
    let headers = row
        .try_get::<_, Option<Vec<Option<&str>>>>(6)?
        .map(|headers| headers.into_iter().map(labels).collect::<Result<_, _>>())
        .transpose()?;
    let producers: Vec<&str> = row.try_get(7)?;
    let counts: Vec<i32> = row.try_get(8)?;
    let covered = |len: usize| len == payloads.len();
    if !covered(counts.iter().map(|&count| count as usize).sum())
        || !keys.as_ref().is_none_or(|keys| covered(keys.len()))
        || !headers.as_ref().is_none_or(|headers: &Vec<_>| covered(headers.len()))
    {
        return Err(Error::unexpected(format!("the batch at {base} is damaged")));
    }
    let producers = producers
        .into_iter()
        .zip(counts)
        .map(|(id, count)| ProducerRun { producer: ProducerId::stored(id), count: count as usize })
        .collect();
    Ok(Some(Arc::new(Batch {
        base: Offset(base),
        published_at: row.try_get(3)?,
        payloads: payloads.into_iter().map(Option::unwrap_or_default).collect::<Vec<Bytes>>(),
        keys,
        headers,
        producers,
        encoded: OnceLock::new(),
    })))
}

fn labels(json: Option<&str>) -> Result<Labels, Error> {
    json.map_or_else(|| Ok(Labels::default()), column::labels_from_json)
}
