//! Removes messages. Raising the log start offset hides them at once; their rows are deleted later
//! in small steps, and the space of the rows is then freed for new ones.

use std::time::Duration;

use tokio_postgres::Row;

use super::{
    Error, Storage,
    session::{Parameter, Statements as _},
};
use crate::model::{Offset, TopicId};

/// How many batches one step hides. Adding up their sizes locks the topic's row for milliseconds.
const HIDE_STEP: i64 = 4_096;

/// How many batches one step deletes.
const DELETE_STEP: i64 = 256;

/// Long enough for a vacuum of a large table, but a connection that hangs is given up eventually.
const VACUUM_TIMEOUT: Duration = Duration::from_secs(3600);

/// The batches that one step deleted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deleted {
    /// How many there were.
    pub batches: i64,
    /// Bytes of their payloads, keys and headers.
    pub bytes: i64,
    /// The offset after the last message, if there was one.
    pub end: Option<Offset>,
}

impl Storage {
    /// Topics whose limits are exceeded, and what their log start offsets may be raised to for now,
    /// as only a few thousand batches are considered at a time.
    pub async fn find_expired(&self) -> Result<Vec<(TopicId, Offset)>, Error> {
        let client = self.query().await?;
        // Finds first the topics that have anything to remove, by each one's oldest batch, and then
        // how much. Both limits, of age and of bytes, are exceeded by the oldest batches up to some
        // point.
        let statement = "-- find_expired
            with due as materialized (
                select t.id, retention_age_ms, retention_bytes, retention_messages,
                       first_offset, next_offset, deleted_until, h.bytes, unread
                from trunkline.topic t
                join trunkline.topic_head h on h.topic_id = t.id
                cross join lateral (
                    select b.bytes, published_at
                    from trunkline.batch b
                    where b.topic_id = t.id and base_offset >= deleted_until
                      and base_offset + count > first_offset
                    order by base_offset limit 1
                ) oldest
                cross join lateral (
                    select least(min(position), (
                               -- A subscription's position passes what it delivers again.
                               select min(\"offset\") from trunkline.subscription_message m
                               where m.topic_id = t.id and due is not null and keep_unread
                           )) as unread
                    from trunkline.consumer_topic c where c.topic_id = t.id and keep_unread
                ) consumers
                where (next_offset - first_offset > retention_messages
                       or h.bytes - oldest.bytes >= retention_bytes
                       or published_at < now() - retention_age_ms * interval '1 ms')
                  and (unread is null or unread > first_offset)
            )
            select id, floor
            from due
            cross join lateral (
                select max(batch_end) as by_batch
                from (
                    select base_offset + count as batch_end, published_at,
                           sum(b.bytes) over (order by base_offset) as bytes_up_to
                    from trunkline.batch b
                    where b.topic_id = id and base_offset >= deleted_until
                      and base_offset < next_offset and base_offset + count > first_offset
                    order by base_offset limit $1
                ) oldest
                where published_at < now() - retention_age_ms * interval '1 ms'
                   or due.bytes - bytes_up_to >= retention_bytes
            ) expired
            cross join lateral (
                select greatest(by_batch, next_offset - retention_messages) as by_limits
            ) limits
            cross join lateral (select least(by_limits, unread) as floor) allowed
            where by_limits is not null and floor > first_offset";
        let rows = client.query(statement, &[&HIDE_STEP]).await?;
        Ok(rows.iter().map(|row| (TopicId(row.get(0)), Offset(row.get(1)))).collect())
    }

    /// Hides the messages before `floor`, or the first few thousand batches of them; returns the
    /// new log start offset, or `None` if there is no such topic. With `keep_unread`, respects the
    /// topic's setting to keep what its slowest consumer has not read.
    pub async fn raise_floor(
        &self,
        topic: TopicId,
        floor: Offset,
        keep_unread: bool,
    ) -> Result<Option<Offset>, Error> {
        let mut client = self.query().await?;
        client
            .transact(async |transaction| {
                // Locks the row first, so that the next statement sees what is there under the
                // lock.
                let lock = "-- lock_topic_head
                    select first_offset, next_offset, deleted_until
                    from trunkline.topic_head where topic_id = $1 for update";
                let Some(locked) = transaction.query_opt(lock, &[&topic.0]).await? else {
                    return Ok(None);
                };
                let [first, head, deleted_until] = [0, 1, 2].map(|column| locked.get::<_, i64>(column));
                let floor = floor.0.min(head);
                if floor <= first {
                    return Ok(Some(Offset(first)));
                }
                let raise = "-- raise_floor
                    with allowed as (
                        select least($3, (
                            select min(position)
                            from trunkline.topic t join trunkline.consumer_topic c on c.topic_id = t.id
                            where t.id = $1 and keep_unread and $6), (
                            select min(m.\"offset\")
                            from trunkline.topic t
                            join trunkline.subscription_message m on m.topic_id = t.id
                            where t.id = $1 and due is not null and keep_unread and $6)) as floor
                    ), hidden as (
                        select base_offset + count as batch_end, bytes
                        from trunkline.batch
                        where topic_id = $1 and base_offset >= $4
                          and base_offset < (select floor from allowed) and base_offset + count > $2
                        order by base_offset limit $5
                    ), step as (
                        select greatest($2, case when count(*) < $5 then floor
                                                 else least(floor, max(batch_end)) end) as floor
                        from allowed left join hidden on true
                        group by floor
                    )
                    update trunkline.topic_head
                    set first_offset = step.floor,
                        bytes = bytes - coalesce((
                            select sum(hidden.bytes) from hidden where batch_end <= step.floor), 0)
                    from step
                    where topic_id = $1
                    returning first_offset";
                let parameters: [&dyn Parameter; 6] =
                    [&topic.0, &first, &floor, &deleted_until, &HIDE_STEP, &keep_unread];
                let raised = Offset(transaction.query_one(raise, &parameters).await?.get(0));
                Ok(Some(raised))
            })
            .await
    }

    /// Topics with hidden batches, which may be deleted, and their log start offsets.
    pub async fn find_hidden(&self) -> Result<Vec<(TopicId, Offset)>, Error> {
        let client = self.query().await?;
        let statement = "-- find_hidden
            select topic_id, first_offset
            from trunkline.topic_head where deleted_until < first_offset";
        let rows = client.query(statement, &[]).await?;
        Ok(rows.iter().map(|row| (TopicId(row.get(0)), Offset(row.get(1)))).collect())
    }

    /// Deletes some of a topic's hidden batches; none if none are left. Keeps the batch that holds
    /// the oldest message kept.
    pub async fn delete_hidden(&self, topic: TopicId) -> Result<Deleted, Error> {
        let client = self.query().await?;
        // Both bounds are known before the batches are searched for, so that the search does not
        // walk over rows that were deleted but not vacuumed yet.
        let statement = "-- delete_hidden
            with head as materialized (
                select first_offset, deleted_until
                from trunkline.topic_head where topic_id = $1
            ), deleted as (
                delete from trunkline.batch
                where topic_id = $1 and base_offset = any (array(
                    select base_offset from trunkline.batch
                    where topic_id = $1 and base_offset >= (select deleted_until from head)
                      and base_offset < (select first_offset from head)
                      and base_offset + count <= (select first_offset from head)
                    order by base_offset limit $2))
                returning base_offset + count as batch_end, bytes
            ), noted as (
                update trunkline.topic_head
                set deleted_until = (select max(batch_end) from deleted)
                where topic_id = $1 and exists (select from deleted)
            )
            select count(*), coalesce(sum(bytes), 0)::bigint, max(batch_end) from deleted";
        Ok(deleted(&client.query_one(statement, &[&topic.0, &DELETE_STEP]).await?))
    }

    /// Topics that were deleted, but whose batches may not have been.
    pub async fn find_deleted_topics(&self) -> Result<Vec<TopicId>, Error> {
        let client = self.query().await?;
        let statement = "-- find_deleted_topics\nselect topic_id from trunkline.deleted_topic";
        let rows = client.query(statement, &[]).await?;
        Ok(rows.iter().map(|row| TopicId(row.get(0))).collect())
    }

    /// Deletes some batches, from an offset on, of a deleted topic; none if none are left.
    pub async fn delete_remains(&self, topic: TopicId, from: Offset) -> Result<Deleted, Error> {
        let client = self.query().await?;
        let statement = "-- delete_remains
            with deleted as (
                delete from trunkline.batch
                where topic_id = $1 and base_offset = any (array(
                    select base_offset from trunkline.batch
                    where topic_id = $1 and base_offset >= $3
                    order by base_offset limit $2))
                returning base_offset + count as batch_end, bytes
            )
            select count(*), coalesce(sum(bytes), 0)::bigint, max(batch_end) from deleted";
        let parameters: [&dyn Parameter; 3] = [&topic.0, &DELETE_STEP, &from.0];
        Ok(deleted(&client.query_one(statement, &parameters).await?))
    }

    /// Forgets a deleted topic, unless it still has batches.
    pub async fn forget_deleted_topic(&self, topic: TopicId) -> Result<(), Error> {
        let client = self.query().await?;
        let statement = "-- forget_deleted_topic
            delete from trunkline.deleted_topic
            where topic_id = $1 and not exists (
                select from trunkline.batch where topic_id = $1)";
        client.execute(statement, &[&topic.0]).await?;
        Ok(())
    }

    /// Bytes of payloads, keys and headers of all messages.
    pub async fn stored_bytes(&self) -> Result<i64, Error> {
        let client = self.query().await?;
        let row = client
            .query_one(
                "-- stored_bytes
                select coalesce(sum(bytes), 0)::bigint from trunkline.topic_head",
                &[],
            )
            .await?;
        Ok(row.get(0))
    }

    /// Frees the space of deleted batches for new ones.
    pub async fn vacuum_batches(&self) -> Result<(), Error> {
        self.vacuum("batch", "vacuum_batches", VACUUM_TIMEOUT).await
    }

    /// Frees the space of a table's deleted rows, within a limit. The table keeps its size, as
    /// truncating it would lock readers out. Does nothing where the role may not vacuum: the server
    /// would only warn, each time.
    pub(super) async fn vacuum(
        &self,
        table: &str,
        statement: &str,
        limit: Duration,
    ) -> Result<(), Error> {
        if !self.may_vacuum(table).await? {
            return Ok(());
        }
        let client = self.query().await?;
        let vacuum =
            format!("/* {statement} */ vacuum (skip_locked, truncate false) trunkline.{table}");
        client.run_alone(&vacuum, limit).await
    }
}

fn deleted(row: &Row) -> Deleted {
    let end = row.get::<_, Option<i64>>(2).map(Offset);
    Deleted { batches: row.get(0), bytes: row.get(1), end }
}
