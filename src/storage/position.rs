//! Moves positions, fenced by the epoch of the lease.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Row;

use super::{
    Error, Storage,
    session::{Parameter, Statements as _},
};
use crate::model::{ConsumerId, ConsumerKey, Epoch, Offset, TopicId, TopicName};

/// A move of a position by the holder of a lease.
#[derive(Clone, Copy, Debug)]
pub struct Advance {
    /// The consumer.
    pub key: ConsumerKey,
    /// The epoch of the lease.
    pub epoch: Epoch,
    /// The new position: the offset that the consumer gets next.
    pub position: Offset,
}

/// A stored position, with the ends of the log.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// The consumer.
    pub key: ConsumerKey,
    /// The offset that the consumer gets next.
    pub position: Offset,
    /// The epoch of the lease's last acquisition.
    pub epoch: Epoch,
    /// The offset of the oldest message kept.
    pub first: Offset,
    /// The offset that the topic's next message gets.
    pub head: Offset,
    /// Whether workers share the consumer's messages: it is a subscription.
    pub is_shared: bool,
}

/// The outcome of a seek.
#[derive(Clone, Copy, Debug)]
pub enum SeekOutcome {
    /// The position moved.
    Moved(ConsumerKey),
    /// Nothing moved: messages were removed meanwhile, and the position is before the log start
    /// offset.
    BeforeLogStart,
    /// The consumer is not registered.
    NotRegistered,
}

/// The outcome of moving positions whose rows may be locked.
#[derive(Clone, Debug, Default)]
pub struct FreeAdvances {
    /// The leases whose positions moved, with the positions before.
    pub moved: HashMap<(ConsumerKey, Epoch), Offset>,
    /// The consumers whose rows other sessions have locked.
    pub locked: HashSet<ConsumerKey>,
}

impl Storage {
    /// A consumer's position; `None` if it is not registered.
    pub async fn find_stored_position(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Result<Option<Stored>, Error> {
        let client = self.query().await?;
        let statement = "-- find_stored_position
                select c.topic_id, c.id, position, epoch, first_offset, next_offset, s.id is not null
                from trunkline.topic t
                join trunkline.topic_head h on h.topic_id = t.id
                join trunkline.consumer_topic c on c.topic_id = t.id
                left join trunkline.subscription s on s.topic_id = c.topic_id and s.id = c.id
                where t.name = $1 and consumer_id = $2";
        let row = client.query_opt(statement, &[&topic.as_str(), &consumer.as_str()]).await?;
        Ok(row.map(|row| Stored {
            key: ConsumerKey { topic: TopicId(row.get(0)), consumer: row.get(1) },
            position: Offset(row.get(2)),
            epoch: Epoch(row.get(3)),
            first: Offset(row.get(4)),
            head: Offset(row.get(5)),
            is_shared: row.get(6),
        }))
    }

    /// Moves a position to anywhere in the log, and begins a new epoch, so that no earlier lease
    /// can move it any more.
    pub async fn seek(
        &self,
        topic: TopicId,
        consumer: &ConsumerId,
        position: Offset,
    ) -> Result<SeekOutcome, Error> {
        let mut client = self.query().await?;
        client
            .transact(async |transaction| {
                // Locks the head as a registration does: against retention, and not against publishes.
                let statement = "-- seek
                    with head as (
                        select first_offset from trunkline.topic_head
                        where topic_id = $1 for key share
                    ), sought as (
                        update trunkline.consumer_topic
                        set position = $3, epoch = epoch + 1, seek_epoch = epoch + 1,
                            updated_at = now()
                        from head
                        where topic_id = $1 and consumer_id = $2 and first_offset <= $3
                        returning id
                    )
                    select sought.id, s.id is not null
                    from trunkline.consumer_topic c
                    left join sought on true
                    left join trunkline.subscription s on s.topic_id = c.topic_id and s.id = c.id
                    where c.topic_id = $1 and consumer_id = $2";
                let parameters: [&dyn Parameter; 3] = [&topic.0, &consumer.as_str(), &position.0];
                let Some(row) = transaction.query_opt(statement, &parameters).await? else {
                    return Ok(SeekOutcome::NotRegistered);
                };
                let Some(consumer) = row.get::<_, Option<i32>>(0) else {
                    return Ok(SeekOutcome::BeforeLogStart);
                };
                if row.get(1) {
                    // A statement of its own, so that it sees what was stored before the row was locked.
                    let statement = "-- forget_settled
                        with deltas as (
                            delete from trunkline.subscription_delta
                            where topic_id = $1 and id = $2
                        ), lost as (
                            update trunkline.subscription set lost_messages = 0
                            where topic_id = $1 and id = $2 and lost_messages > 0
                        )
                        delete from trunkline.subscription_message
                        where topic_id = $1 and id = $2 and due is not null";
                    transaction.execute(statement, &[&topic.0, &consumer]).await?;
                }
                Ok(SeekOutcome::Moved(ConsumerKey { topic, consumer }))
            })
            .await
    }

    /// Moves positions, all in one statement, and returns the leases whose positions moved. The
    /// others no longer have the epoch, or would have moved back or beyond the head, as a promoted
    /// standby may lack messages that were delivered. Each pair of key and epoch may be given once.
    pub async fn advance_positions(
        &self,
        advances: &[Advance],
    ) -> Result<HashSet<(ConsumerKey, Epoch)>, Error> {
        let statement = "-- advance_positions
                update trunkline.consumer_topic c
                set position = new.position, updated_at = now()
                from unnest($1::integer[], $2::integer[], $3::bigint[], $4::bigint[])
                    as new (topic_id, id, epoch, position)
                where c.topic_id = new.topic_id and c.id = new.id
                  and c.epoch = new.epoch and c.position <= new.position
                  and new.position <= (select next_offset from trunkline.topic_head h
                                       where h.topic_id = new.topic_id)
                returning c.topic_id, c.id, c.epoch";
        #[cfg(feature = "sabotage")]
        let statement = &match crate::model::Sabotage::NoEpochCheck.is_on() {
            true => statement.replace("and c.epoch = new.epoch and", "and").replace(
                "returning c.topic_id, c.id, c.epoch",
                "returning new.topic_id, new.id, new.epoch",
            ),
            false => statement.to_owned(),
        };
        let rows = self.run_advance(statement, advances).await?;
        Ok(rows.iter().map(|row| (key(row), Epoch(row.get(2)))).collect())
    }

    /// As [`Self::advance_positions`], but skips consumers whose rows other sessions have locked.
    pub async fn advance_free_positions(
        &self,
        advances: &[Advance],
    ) -> Result<FreeAdvances, Error> {
        let statement = "-- advance_free_positions
                with new as (
                    select * from unnest($1::integer[], $2::integer[], $3::bigint[], $4::bigint[])
                        as new (topic_id, id, epoch, position)
                ), free as materialized (
                    select c.topic_id, c.id, c.position as position_before
                    from trunkline.consumer_topic c
                    where (c.topic_id, c.id) in (select topic_id, id from new)
                    for update skip locked
                ), moved as (
                    update trunkline.consumer_topic c
                    set position = new.position, updated_at = now()
                    from new join free using (topic_id, id)
                    where c.topic_id = new.topic_id and c.id = new.id
                      and c.epoch = new.epoch and c.position <= new.position
                      and new.position <= (select next_offset from trunkline.topic_head h
                                           where h.topic_id = new.topic_id)
                    returning c.topic_id, c.id, c.epoch, position_before
                )
                select topic_id, id, epoch, position_before from moved
                union all
                select distinct topic_id, id, null::bigint, null::bigint
                from new join trunkline.consumer_topic using (topic_id, id)
                where not exists (
                    select from free where free.topic_id = new.topic_id and free.id = new.id)";
        let mut outcome = FreeAdvances::default();
        for row in self.run_advance(statement, advances).await? {
            match row.get::<_, Option<i64>>(2) {
                Some(epoch) => {
                    outcome.moved.insert((key(&row), Epoch(epoch)), Offset(row.get(3)));
                }
                None => {
                    outcome.locked.insert(key(&row));
                }
            }
        }
        Ok(outcome)
    }

    async fn run_advance(&self, statement: &str, advances: &[Advance]) -> Result<Vec<Row>, Error> {
        let client = self.pools.position.get().await?;
        let topics: Vec<i32> = advances.iter().map(|advance| advance.key.topic.0).collect();
        let ids: Vec<i32> = advances.iter().map(|advance| advance.key.consumer).collect();
        let epochs: Vec<i64> = advances.iter().map(|advance| advance.epoch.0).collect();
        let positions: Vec<i64> = advances.iter().map(|advance| advance.position.0).collect();
        client.query(statement, &[&topics, &ids, &epochs, &positions]).await
    }
}

fn key(row: &Row) -> ConsumerKey {
    ConsumerKey { topic: TopicId(row.get(0)), consumer: row.get(1) }
}
