//! What is left to do of subscriptions.

use std::time::{Duration, SystemTime};

use super::{Error, Storage, session::Statements as _};
use crate::model::{ConsumerKey, LogEnds, Offset, TopicId};

/// What a subscription has settled and keeps, and the log that it is of.
#[derive(Clone, Debug)]
pub struct StoredBacklog {
    /// The first message that is not settled.
    pub floor: Offset,
    /// The ends of the log.
    pub ends: LogEnds,
    /// Which messages beyond the floor are settled, encoded, in the order of their numbers.
    pub deltas: Vec<(i64, Vec<u8>)>,
    /// How many messages of the log have rows, to be delivered again.
    pub retried: u64,
    /// The oldest of them.
    pub oldest_retried: Option<Offset>,
    /// How many such messages were removed from the log.
    pub removed: u64,
    /// How many messages were removed before they were acknowledged, as far as that was noticed.
    pub lost: u64,
}

/// When a message was stored.
#[derive(Clone, Copy, Debug)]
pub struct StoredTime {
    /// By the database's clock.
    pub at: SystemTime,
    /// For how long.
    pub age: Duration,
}

impl Storage {
    /// What is left of a subscription; `None` if there is none.
    pub async fn find_backlog(&self, key: ConsumerKey) -> Result<Option<StoredBacklog>, Error> {
        let client = self.query().await?;
        // One statement, as the floor and what is settled beyond it change together.
        let statement = "-- find_backlog
            select position, first_offset, next_offset, lost_messages,
                   numbers, deltas, retried, oldest_retried, removed
            from trunkline.subscription s
            join trunkline.consumer_topic c using (topic_id, id)
            join trunkline.topic_head h using (topic_id)
            cross join lateral (
                select coalesce(array_agg(number order by number), '{}') as numbers,
                       coalesce(array_agg(settled order by number), '{}') as deltas
                from trunkline.subscription_delta d where d.topic_id = $1 and d.id = $2
            ) settled
            cross join lateral (
                select count(*) filter (where is_kept) as retried,
                       min(\"offset\") filter (where is_kept) as oldest_retried,
                       count(*) filter (where \"offset\" < h.first_offset) as removed
                from (
                    select \"offset\",
                           \"offset\" >= h.first_offset and \"offset\" < h.next_offset as is_kept
                    from trunkline.subscription_message m
                    where m.topic_id = $1 and m.id = $2 and due is not null
                ) waiting
            ) messages
            where s.topic_id = $1 and s.id = $2";
        let row = client.query_opt(statement, &[&key.topic.0, &key.consumer]).await?;
        let count = |number: i64| number.unsigned_abs();
        Ok(row.map(|row| StoredBacklog {
            floor: Offset(row.get(0)),
            ends: LogEnds { start: Offset(row.get(1)), head: Offset(row.get(2)) },
            lost: count(row.get(3)),
            deltas: row.get::<_, Vec<i64>>(4).into_iter().zip(row.get::<_, Vec<_>>(5)).collect(),
            retried: count(row.get(6)),
            oldest_retried: row.get::<_, Option<i64>>(7).map(Offset),
            removed: count(row.get(8)),
        }))
    }

    /// When messages were stored, in the order in which they are given; `None` for those that are not in the
    /// log.
    pub async fn find_stored_times(
        &self,
        messages: &[(TopicId, Offset)],
    ) -> Result<Vec<Option<StoredTime>>, Error> {
        let client = self.query().await?;
        let statement = "-- find_stored_times
            select published_at,
                   extract(epoch from greatest(statement_timestamp() - published_at, interval '0'))
                       ::double precision
            from unnest($1::integer[], $2::bigint[])
                with ordinality as wanted (topic_id, \"offset\", number)
            left join lateral (
                select base_offset, count, published_at from trunkline.batch b
                where b.topic_id = wanted.topic_id and b.base_offset <= wanted.\"offset\"
                order by b.base_offset desc limit 1
            ) found on wanted.\"offset\" < base_offset + count
            order by number";
        let topics: Vec<i32> = messages.iter().map(|(topic, _)| topic.0).collect();
        let offsets: Vec<i64> = messages.iter().map(|(_, offset)| offset.0).collect();
        let rows = client.query(statement, &[&topics, &offsets]).await?;
        let time = |row: &tokio_postgres::Row| {
            let seconds = row.get::<_, Option<f64>>(1)?;
            let age = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            Some(StoredTime { at: row.get(0), age })
        };
        Ok(rows.iter().map(time).collect())
    }
}
