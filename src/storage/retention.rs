//! Messages removed: hidden at once by moving a topic's first offset, their rows deleted in small
//! steps behind it, and the space of the rows made free for new ones.

use tokio_postgres::Row;

use super::{Error, Storage, session::Statements as _};
use crate::model::{Offset, TopicId};

/// Batches that one step hides: adding up their sizes holds the topic's row for milliseconds.
const HIDE_STEP: i64 = 4_096;

/// Batches that one step deletes.
const DELETE_STEP: i64 = 256;

/// Rows that a step deleted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deleted {
    /// How many batches.
    pub batches: i64,
    /// Bytes of their payloads, keys and headers.
    pub bytes: i64,
}

impl Storage {
    /// Topics whose limits are passed, and what their first offset may be raised to for now: a few
    /// thousand batches are looked at at a time.
    pub async fn find_expired(&self) -> Result<Vec<(TopicId, Offset)>, Error> {
        let client = self.query().await?;
        // First who has anything to remove at all, by looking at each one's oldest batch; then how
        // much. Age and bytes both hold for the oldest batches up to a certain one.
        let statement = "-- find_expired
                with due as materialized (
                    select t.*, h.*, now() - retention_age_ms * interval '1 ms' as oldest_allowed
                    from trunkline.topic t join trunkline.topic_head h on h.topic_id = t.id
                    where next_offset - first_offset > retention_messages
                       or bytes > retention_bytes
                       or (select published_at from trunkline.batch b
                           where b.topic_id = t.id and base_offset >= deleted_until
                             and base_offset + count > first_offset
                           order by base_offset limit 1)
                          < now() - retention_age_ms * interval '1 ms'
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
                    where published_at < oldest_allowed
                       or due.bytes - bytes_up_to >= retention_bytes
                ) expired
                cross join lateral (
                    select least(
                        greatest(by_batch, next_offset - retention_messages),
                        case when keep_unread then (
                            select min(position) from trunkline.consumer_topic c
                            where c.topic_id = id) end
                    ) as floor
                ) allowed
                where floor > first_offset";
        let rows = client.query(statement, &[&HIDE_STEP]).await?;
        Ok(rows.iter().map(|row| (TopicId(row.get(0)), Offset(row.get(1)))).collect())
    }

    /// Hides the messages before `floor`, or the first few thousand batches of them; returns the
    /// topic's first offset. `None` if there is no such topic.
    pub async fn raise_floor(
        &self,
        topic: TopicId,
        floor: Offset,
    ) -> Result<Option<Offset>, Error> {
        let mut client = self.query().await?;
        let transaction = client.begin().await?;
        // Locked first, so that the sum that follows is of what is there under the lock.
        let locked = transaction
            .query_opt(
                "-- lock_topic_head
                select first_offset, next_offset, deleted_until
                from trunkline.topic_head where topic_id = $1 for update",
                &[&topic.0],
            )
            .await?;
        let Some(locked) = locked else { return Ok(None) };
        let [first, head, deleted_until] = [0, 1, 2].map(|column| locked.get::<_, i64>(column));
        let floor = floor.0.min(head);
        if floor <= first {
            return Ok(Some(Offset(first)));
        }
        let raised = transaction
            .query_one(
                "-- raise_floor
                with hidden as (
                    select base_offset + count as batch_end, bytes
                    from trunkline.batch
                    where topic_id = $1 and base_offset >= $4 and base_offset < $3
                      and base_offset + count > $2
                    order by base_offset limit $5
                ), step as (
                    select case when count(*) < $5 then $3 else least($3, max(batch_end)) end as floor
                    from hidden
                )
                update trunkline.topic_head
                set first_offset = step.floor,
                    bytes = bytes - coalesce((
                        select sum(hidden.bytes) from hidden where batch_end <= step.floor), 0)
                from step
                where topic_id = $1
                returning first_offset",
                &[&topic.0, &first, &floor, &deleted_until, &HIDE_STEP],
            )
            .await?;
        let raised = Offset(raised.get(0));
        transaction.commit().await?;
        Ok(Some(raised))
    }

    /// Topics that have hidden batches to delete.
    pub async fn find_hidden(&self) -> Result<Vec<TopicId>, Error> {
        let client = self.query().await?;
        let statement = "-- find_hidden
                select topic_id from trunkline.topic_head where deleted_until < first_offset";
        let rows = client.query(statement, &[]).await?;
        Ok(rows.iter().map(|row| TopicId(row.get(0))).collect())
    }

    /// Deletes some of a topic's hidden batches; none if there are none left.
    pub async fn delete_hidden(&self, topic: TopicId) -> Result<Deleted, Error> {
        let client = self.query().await?;
        let statement = "-- delete_hidden
                with head as (
                    select first_offset, deleted_until
                    from trunkline.topic_head where topic_id = $1
                ), deleted as (
                    delete from trunkline.batch
                    where topic_id = $1 and base_offset = any (array(
                        select base_offset from trunkline.batch, head
                        where topic_id = $1 and base_offset >= deleted_until
                          and base_offset < first_offset
                          and base_offset + count <= first_offset
                        order by base_offset limit $2))
                    returning base_offset + count as batch_end, bytes
                ), noted as (
                    update trunkline.topic_head
                    set deleted_until = (select max(batch_end) from deleted)
                    where topic_id = $1 and exists (select from deleted)
                )
                select count(*), coalesce(sum(bytes), 0)::bigint from deleted";
        Ok(deleted(&client.query_one(statement, &[&topic.0, &DELETE_STEP]).await?))
    }

    /// Topics that are gone, but whose batches are not.
    pub async fn find_deleted_topics(&self) -> Result<Vec<TopicId>, Error> {
        let client = self.query().await?;
        let rows = client
            .query("-- find_deleted_topics\nselect topic_id from trunkline.deleted_topic", &[])
            .await?;
        Ok(rows.iter().map(|row| TopicId(row.get(0))).collect())
    }

    /// Deletes some batches of a topic that is gone; when none are left, what is known of it.
    pub async fn delete_remains(&self, topic: TopicId) -> Result<Deleted, Error> {
        let client = self.query().await?;
        let statement = "-- delete_remains
                with deleted as (
                    delete from trunkline.batch
                    where topic_id = $1 and base_offset = any (array(
                        select base_offset from trunkline.batch
                        where topic_id = $1 order by base_offset limit $2))
                    returning bytes
                ), forgotten as (
                    delete from trunkline.deleted_topic
                    where topic_id = $1 and not exists (select from deleted)
                )
                select count(*), coalesce(sum(bytes), 0)::bigint from deleted";
        Ok(deleted(&client.query_one(statement, &[&topic.0, &DELETE_STEP]).await?))
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

    /// Makes the space of deleted batches free for new ones. The table keeps its size: giving the
    /// end of it back would lock readers out.
    pub async fn vacuum_batches(&self) -> Result<(), Error> {
        let client = self.query().await?;
        client
            .run_alone("/* vacuum_batches */ vacuum (skip_locked, truncate false) trunkline.batch")
            .await?;
        Ok(())
    }
}

fn deleted(row: &Row) -> Deleted {
    Deleted { batches: row.get(0), bytes: row.get(1) }
}
