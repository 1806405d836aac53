//! Registers, lists and forgets the consumers of topics.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio_postgres::Row;

use super::{
    Error, Storage, column,
    session::{Parameter, Statements},
};
use crate::model::{
    Backoff, Claimant, Consumer, ConsumerId, ConsumerKey, DeliveryPolicy, Epoch, Filter, Offset,
    Principal, Sharing, TopicId, TopicName,
};

/// The query that [`consumer`] reads. Shows a holder only while the advisory lock is held: a broker
/// that was killed could not erase its name.
const CONSUMER: &str = "
    select consumer_id, c.topic_id, c.id, position, next_offset, epoch,
           case when exists (
               select from pg_locks
               where locktype = 'advisory' and granted and objsubid = 2
                 and database = (select oid from pg_database where datname = current_database())
                 and classid = c.topic_id::oid and objid = c.id::oid
           ) then holder end,
           c.created_at, c.updated_at, first_offset, c.owner,
           retried, parked, s.id is not null, ack_deadline_ms, shortest_backoff_ms, longest_backoff_ms,
           max_deliveries, filter, dead_letter_topic, exactly_once,
           outstanding_messages, outstanding_bytes
    from trunkline.topic t
    join trunkline.topic_head h on h.topic_id = t.id
    join trunkline.consumer_topic c on c.topic_id = t.id
    left join trunkline.subscription s on s.topic_id = c.topic_id and s.id = c.id
    left join lateral (
        select count(due) as retried,
               count(parked_at) filter (where \"offset\" >= first_offset) as parked
        from trunkline.subscription_message m where m.topic_id = s.topic_id and m.id = s.id
    ) messages on s.id is not null";

/// A consumer to register.
#[derive(Clone, Copy, Debug)]
pub struct NewConsumer<'a> {
    /// Its id.
    pub id: &'a ConsumerId,
    /// The offset of the first message that it gets.
    pub position: Offset,
    /// Whom it belongs to, and how many that one may have.
    pub owner: Option<&'a Claimant>,
    /// How its messages are delivered, if workers share them.
    pub policy: Option<&'a DeliveryPolicy>,
}

impl Storage {
    /// The numbers of the consumers registered on a topic.
    pub async fn find_consumer_numbers(&self, topic: TopicId) -> Result<Vec<i32>, Error> {
        let client = self.query().await?;
        let statement = "-- find_consumer_numbers
            select id from trunkline.consumer_topic where topic_id = $1";
        let rows = client.query(statement, &[&topic.0]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Registers a consumer; `None` if its position is before the log start offset by now, or the topic
    /// is gone. [`Error::Taken`] if the consumer is registered, [`Error::Full`] if the topic has `limit`
    /// others, [`Error::OwnerFull`] if the owner has as many as it may.
    pub async fn register_consumer(
        &self,
        topic: TopicId,
        NewConsumer { id: consumer, position, owner, policy }: NewConsumer<'_>,
        limit: usize,
    ) -> Result<Option<Consumer>, Error> {
        let mut client = self.query().await?;
        client
            .transact(async |transaction| {
                // Locks the head against retention, which reads the positions under its lock, but
                // not against publishes. An ID that is taken must not use up a number, as there are
                // only 2^31 of them.
                let insert = "-- register_consumer
                    insert into trunkline.consumer_topic (topic_id, consumer_id, position, owner)
                    select topic_id, $2, $3::bigint, $5 from trunkline.topic_head
                    where topic_id = $1 and first_offset <= $3::bigint
                      and not exists (select from trunkline.consumer_topic
                                      where topic_id = $1 and consumer_id = $2)
                      and (select count(*) from trunkline.consumer_topic where topic_id = $1) < $4
                      and ($5::text is null
                           or (select count(*) from trunkline.consumer_topic where owner = $5) < $6)
                    for key share of topic_head";
                let ((owner, owner_limit), limit) = (column::claimant(owner), limit as i64);
                let parameters: [&dyn Parameter; 6] =
                    [&topic.0, &consumer.as_str(), &position.0, &limit, &owner, &owner_limit];
                let inserted = transaction.execute(insert, &parameters).await? == 1;
                if inserted {
                    // A statement of its own, so that it sees the fence as it is now: the insert
                    // may have waited for a transaction that forgot an earlier registration of the
                    // ID, and raised the fence.
                    let begin = "-- begin_consumer_epochs
                        update trunkline.consumer_topic
                        set epoch = consumer_epoch, seek_epoch = consumer_epoch
                        from trunkline.fence
                        where topic_id = $1 and consumer_id = $2 and consumer_epoch > 0";
                    transaction.execute(begin, &[&topic.0, &consumer.as_str()]).await?;
                }
                if let Some(policy) = policy.filter(|_| inserted) {
                    let share = "-- add_subscription
                        insert into trunkline.subscription
                            (topic_id, id, ack_deadline_ms, shortest_backoff_ms, longest_backoff_ms,
                             max_deliveries, filter, dead_letter_topic, exactly_once,
                             outstanding_messages, outstanding_bytes)
                        select topic_id, id, $3, $4, $5, $6, $7, $8, $9, $10, $11
                        from trunkline.consumer_topic
                        where topic_id = $1 and consumer_id = $2";
                    let columns = PolicyColumns::of(policy);
                    let parameters: [&dyn Parameter; 11] = [
                        &topic.0,
                        &consumer.as_str(),
                        &columns.ack_deadline_ms,
                        &columns.shortest_backoff_ms,
                        &columns.longest_backoff_ms,
                        &columns.max_deliveries,
                        &columns.filter,
                        &columns.dead_letter_topic,
                        &columns.exactly_once,
                        &columns.outstanding_messages,
                        &columns.outstanding_bytes,
                    ];
                    transaction.execute(share, &parameters).await?;
                }
                let find = format!(
                    "-- find_registered_consumer{CONSUMER}\nwhere t.id = $1 and consumer_id = $2"
                );
                let found = transaction.query_opt(&find, &[&topic.0, &consumer.as_str()]).await?;
                match found {
                    Some(_) if !inserted => Err(Error::Taken),
                    None => {
                        let why = "-- why_not_registered
                            select (select count(*) from trunkline.consumer_topic
                                    where topic_id = $1) >= $2,
                                   $3::text is not null
                                   and (select count(*) from trunkline.consumer_topic
                                        where owner = $3) >= $4";
                        let values: [&dyn Parameter; 4] = [&topic.0, &limit, &owner, &owner_limit];
                        let row = transaction.query_one(why, &values).await?;
                        match (row.get(0), row.get(1)) {
                            (true, _) => Err(Error::Full),
                            (false, true) => Err(Error::OwnerFull),
                            (false, false) => Ok(None),
                        }
                    }
                    found => Ok(found.as_ref().map(self::consumer)),
                }
            })
            .await
    }

    /// Forgets a consumer, of `owner` or of everyone; `None` if there is none.
    pub async fn unregister_consumer(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
        owner: Option<&Principal>,
    ) -> Result<Option<ConsumerKey>, Error> {
        let client = self.query().await?;
        let statement = &forget_consumers(
            "unregister_consumer",
            "topic_id = (select id from trunkline.topic where name = $1) and consumer_id = $2
               and ($3::text is null or owner = $3)",
        );
        let owner = owner.map(Principal::as_str);
        let row =
            client.query_opt(statement, &[&topic.as_str(), &consumer.as_str(), &owner]).await?;
        Ok(row.map(|row| ConsumerKey { topic: TopicId(row.get(0)), consumer: row.get(1) }))
    }

    /// A consumer, if it is registered.
    pub async fn find_consumer(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Result<Option<Consumer>, Error> {
        let client = self.query().await?;
        let text = format!("-- find_consumer{CONSUMER}\nwhere t.name = $1 and consumer_id = $2");
        let statement = &text;
        let row = client.query_opt(statement, &[&topic.as_str(), &consumer.as_str()]).await?;
        Ok(row.as_ref().map(self::consumer))
    }

    /// The first `limit` consumers of a topic, sorted by ID, whose IDs come after `after`: those of
    /// an owner, or of everyone, and all of them or the subscriptions.
    pub async fn list_consumers(
        &self,
        topic: TopicId,
        owner: Option<&Principal>,
        shared_only: bool,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Consumer>, Error> {
        let client = self.query().await?;
        let statement = &format!(
            "-- list_consumers{CONSUMER}
            where t.id = $1 and consumer_id > $2 and ($4::text is null or c.owner = $4)
              and (s.id is not null or not $5)
            order by consumer_id limit $3"
        );
        let owner = owner.map(Principal::as_str);
        let values: [&dyn Parameter; 5] = [&topic.0, &after, &(limit as i64), &owner, &shared_only];
        let rows = client.query(statement, &values).await?;
        Ok(rows.iter().map(consumer).collect())
    }
}

/// Forgets all consumers of a topic.
pub(super) async fn forget_consumers_of(
    client: &impl Statements,
    topic: TopicId,
) -> Result<(), Error> {
    let statement = &forget_consumers("delete_topic_consumers", "topic_id = $1");
    client.query(statement, &[&topic.0]).await?;
    Ok(())
}

/// A statement that deletes registrations, and raises the fence above their epochs: a holder of one
/// of these epochs must not pass for the holder of a later registration's lease.
fn forget_consumers(name: &str, which: &str) -> String {
    format!(
        "-- {name}
        with forgotten as (
            delete from trunkline.consumer_topic where {which}
            returning topic_id, id, epoch
        ), raised as (
            update trunkline.fence set consumer_epoch = highest + 1
            from (select max(epoch) as highest from forgotten) forgotten
            where consumer_epoch <= highest
        )
        select topic_id, id from forgotten"
    )
}

fn consumer(row: &Row) -> Consumer {
    Consumer {
        id: ConsumerId::stored(row.get(0)),
        key: ConsumerKey { topic: TopicId(row.get(1)), consumer: row.get(2) },
        position: Offset(row.get(3)),
        head: Offset(row.get(4)),
        epoch: Epoch(row.get(5)),
        holder: row.get(6),
        first: Offset(row.get(9)),
        created_at: row.get::<_, SystemTime>(7),
        updated_at: row.get::<_, SystemTime>(8),
        owner: row.get::<_, Option<&str>>(10).map(Principal::stored),
        sharing: row.get::<_, bool>(13).then(|| Sharing {
            policy: policy(row, 14),
            retried: row.get(11),
            parked: row.get(12),
        }),
    }
}

/// A subscription's policy, from the column `first` on.
pub(super) fn policy(row: &Row, first: usize) -> DeliveryPolicy {
    let milliseconds = |index| Duration::from_millis(row.get::<_, i64>(index).unsigned_abs());
    DeliveryPolicy {
        ack_deadline: milliseconds(first),
        backoff: Backoff { shortest: milliseconds(first + 1), longest: milliseconds(first + 2) },
        max_deliveries: row.get::<_, Option<i32>>(first + 3).map(i32::unsigned_abs),
        filter: row.get::<_, Option<&str>>(first + 4).map(Filter::stored).map(Arc::new),
        dead_letter_topic: row.get::<_, Option<&str>>(first + 5).map(TopicName::stored),
        exactly_once: row.get(first + 6),
        outstanding_messages: row.get::<_, Option<i32>>(first + 7).map(i32::unsigned_abs),
        outstanding_bytes: row.get::<_, Option<i64>>(first + 8).map(i64::unsigned_abs),
    }
}

/// A policy as it is stored.
pub(super) struct PolicyColumns<'a> {
    pub ack_deadline_ms: i64,
    pub shortest_backoff_ms: i64,
    pub longest_backoff_ms: i64,
    pub max_deliveries: Option<i32>,
    pub filter: Option<&'a str>,
    pub dead_letter_topic: Option<&'a str>,
    pub exactly_once: bool,
    pub outstanding_messages: Option<i32>,
    pub outstanding_bytes: Option<i64>,
}

impl<'a> PolicyColumns<'a> {
    pub(super) fn of(policy: &'a DeliveryPolicy) -> Self {
        let milliseconds = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let integer = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let Backoff { shortest, longest } = policy.backoff;
        Self {
            ack_deadline_ms: milliseconds(policy.ack_deadline),
            shortest_backoff_ms: milliseconds(shortest),
            longest_backoff_ms: milliseconds(longest),
            max_deliveries: policy.max_deliveries.map(integer),
            filter: policy.filter.as_ref().map(|filter| filter.as_str()),
            dead_letter_topic: policy.dead_letter_topic.as_ref().map(TopicName::as_str),
            exactly_once: policy.exactly_once,
            outstanding_messages: policy.outstanding_messages.map(integer),
            outstanding_bytes: policy
                .outstanding_bytes
                .map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        }
    }
}
