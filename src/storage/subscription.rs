//! Shared subscriptions: what they have settled, and which messages they deliver again or have parked.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio_postgres::Row;

use super::{
    Error, Storage,
    session::{Parameter, Statements},
};
use crate::model::{ConsumerKey, DeliveryPolicy, Draft, Epoch, Offset, TopicId, TopicName};

/// What is stored of a subscription besides its floor.
#[derive(Clone, Debug)]
pub struct StoredSubscription {
    /// How its messages are delivered.
    pub policy: DeliveryPolicy,
    /// Which messages beyond the floor are settled, encoded, in the order of their numbers.
    pub deltas: Vec<(i64, Vec<u8>)>,
    /// The messages that are delivered again.
    pub retries: Vec<StoredRetry>,
    /// What may be with workers of the owner before; `None` if it has reserved nothing.
    pub reservation: Option<StoredReservation>,
    /// The offset that the topic's next message gets.
    pub head: Offset,
    /// How many messages were removed from the log before they were acknowledged.
    pub lost: u64,
}

/// What an owner may hand out under its epoch, if messages are delivered exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredReservation {
    /// The offset after the last message that may have been handed out for the first time.
    pub end: Offset,
    /// How long until all deadlines have passed.
    pub left: Duration,
}

/// A message that is delivered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRetry {
    /// The message.
    pub offset: Offset,
    /// How often it was delivered.
    pub attempts: u32,
    /// How long until it is due.
    pub due_in: Duration,
}

/// What a subscription's owner stores at once.
#[derive(Clone, Debug)]
pub struct SubscriptionWrite {
    /// The consumer.
    pub key: ConsumerKey,
    /// The epoch of the lease.
    pub epoch: Epoch,
    /// The first message that is not settled.
    pub floor: Offset,
    /// The offset after the last message that the write concerns.
    pub end: Offset,
    /// Which messages beyond it were settled since the last time, encoded, and the number of the row.
    pub delta: Option<(i64, Vec<u8>)>,
    /// Rows with lower numbers are deleted: what they say is known otherwise.
    pub keep_from: i64,
    /// What becomes of the rows of messages.
    pub messages: Vec<(Offset, MessageChange)>,
    /// What is reserved from now on, if that changes.
    pub reservation: Option<StoredReservation>,
    /// How many messages were removed from the log before they were acknowledged, in all; `None` if there are
    /// no more than before.
    pub lost: Option<u64>,
    /// Copies of messages, which are appended to a dead-letter topic in the same transaction. The write then has
    /// a number.
    pub dead_letters: Option<DeadLetters>,
}

/// Copies of messages that are moved to a topic.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    /// The topic.
    pub topic: TopicName,
    /// The copies.
    pub draft: Draft,
}

/// What becomes of a message's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageChange {
    /// It is delivered again.
    Retry {
        /// How often it was delivered.
        attempts: u32,
        /// How long until it is due.
        due_in: Duration,
    },
    /// It is parked.
    Park {
        /// How often it was delivered.
        attempts: u32,
        /// Why.
        reason: Arc<str>,
    },
    /// It is done.
    Remove,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOutcome {
    /// It is stored.
    Stored,
    /// Another session of the database holds the consumer's row, or the subscription's if something is reserved,
    /// or the head of the dead-letter topic: nothing is stored yet.
    Locked,
    /// Nothing is stored: there is no such dead-letter topic.
    NoDeadLetterTopic,
    /// Nothing is stored: the database failed a statement, perhaps because of the dead letters.
    DeadLettersRefused,
    /// Nothing is stored: the epoch has ended. Or a message lies beyond the head, as a promoted standby may lack
    /// messages that were delivered.
    Fenced,
}

impl Storage {
    /// What is stored of a subscription; `None` if the consumer is not one.
    pub async fn load_subscription(
        &self,
        key: ConsumerKey,
    ) -> Result<Option<StoredSubscription>, Error> {
        let mut client = self.query().await?;
        client
            .transact(async |transaction| {
                let keys: [&dyn Parameter; 2] = [&key.topic.0, &key.consumer];
                let statement = "-- find_policy
                    select next_offset, ack_deadline_ms, shortest_backoff_ms, longest_backoff_ms,
                           max_deliveries, filter, dead_letter_topic, exactly_once,
                           outstanding_messages, outstanding_bytes, lost_messages, reserved_end,
                           ceil(extract(epoch from
                               greatest(reserved_until - now(), interval '0')) * 1000)::bigint
                    from trunkline.subscription join trunkline.topic_head using (topic_id)
                    where topic_id = $1 and id = $2";
                let Some(row) = transaction.query_opt(statement, &keys).await? else {
                    return Ok(None);
                };
                let policy = super::consumer::policy(&row, 1);
                if let Some(error) = policy.filter.as_ref().and_then(|filter| filter.problem()) {
                    let (topic_number, consumer_number) = (key.topic.0, key.consumer);
                    tracing::error!(%error, topic_number, consumer_number, "found a damaged filter");
                }
                let left = row.get::<_, Option<i64>>(12).map(i64::unsigned_abs);
                let reservation = row.get::<_, Option<i64>>(11).map(|end| StoredReservation {
                    end: Offset(end),
                    left: Duration::from_millis(left.unwrap_or(0)),
                });
                let (head, lost) = (Offset(row.get(0)), row.get::<_, i64>(10).unsigned_abs());
                let statement = "-- find_deltas
                    select number, settled from trunkline.subscription_delta
                    where topic_id = $1 and id = $2 order by number";
                let rows = transaction.query(statement, &keys).await?;
                let deltas = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
                let statement = "-- find_retries
                    select \"offset\", attempts,
                           ceil(extract(epoch from greatest(due - now(), interval '0')) * 1000)::bigint
                    from trunkline.subscription_message
                    where topic_id = $1 and id = $2 and due is not null";
                let rows = transaction.query(statement, &keys).await?;
                let retries = rows.iter().map(|row| StoredRetry {
                    offset: Offset(row.get(0)),
                    attempts: row.get::<_, i32>(1).unsigned_abs(),
                    due_in: Duration::from_millis(row.get::<_, i64>(2).unsigned_abs()),
                });
                let retries = retries.collect();
                Ok(Some(StoredSubscription { policy, deltas, retries, reservation, head, lost }))
            })
            .await
    }

    /// Stores what subscriptions have settled, all in one statement. Waits for no row. Each consumer may be
    /// given once. Storing the same again changes nothing, but that a reservation lasts longer. Appends no dead
    /// letters.
    pub async fn store_settled(
        &self,
        writes: &[Arc<SubscriptionWrite>],
    ) -> Result<HashMap<ConsumerKey, StoreOutcome>, Error> {
        store_settled(&self.pools.position.get().await?, writes).await
    }
}

/// As [`Storage::store_settled`], in a given session or transaction.
pub(super) async fn store_settled(
    client: &impl Statements,
    writes: &[Arc<SubscriptionWrite>],
) -> Result<HashMap<ConsumerKey, StoreOutcome>, Error> {
    let statement = "-- store_settled
        with new as (
            select * from unnest($1::integer[], $2::integer[], $3::bigint[], $4::bigint[],
                                 $5::bigint[], $6::bytea[], $7::bigint[], $14::bigint[],
                                 $16::bigint[], $17::bigint[], $18::bigint[])
                as new (topic_id, id, epoch, floor, number, settled, keep_from, \"end\",
                        reserved_end, reserved_ms, lost)
        ), free as materialized (
            select topic_id, id from trunkline.consumer_topic c
            where (topic_id, id) in (select topic_id, id from new)
            for no key update skip locked
        ), changeable as materialized (
            select topic_id, id from trunkline.subscription s
            where (topic_id, id) in
                (select topic_id, id from new where reserved_end is not null or lost is not null)
            for no key update skip locked
        ), written as (
            update trunkline.consumer_topic c
            set position = greatest(c.position, new.floor), updated_at = now()
            from new join free using (topic_id, id)
            where c.topic_id = new.topic_id and c.id = new.id and c.epoch = new.epoch
              and new.\"end\" <= (select next_offset from trunkline.topic_head h
                                where h.topic_id = new.topic_id)
              and (coalesce(new.reserved_end, new.lost) is null
                   or (new.topic_id, new.id) in (select topic_id, id from changeable))
            returning c.topic_id, c.id
        ), changed as (
            update trunkline.subscription s
            set reserved_end = coalesce(new.reserved_end, s.reserved_end),
                reserved_until = coalesce(now() + new.reserved_ms * interval '1 ms',
                                          s.reserved_until),
                lost_messages = greatest(new.lost, s.lost_messages)
            from new join written using (topic_id, id)
            where s.topic_id = new.topic_id and s.id = new.id
              and coalesce(new.reserved_end, new.lost) is not null
        ), added as (
            insert into trunkline.subscription_delta (topic_id, id, number, settled)
            select topic_id, id, number, settled from new join written using (topic_id, id)
            where settled is not null
            on conflict do nothing
        ), folded as (
            delete from trunkline.subscription_delta d
            using new join written using (topic_id, id)
            where d.topic_id = new.topic_id and d.id = new.id and d.number < new.keep_from
        ), message as (
            select * from unnest($8::integer[], $9::integer[], $10::bigint[], $11::integer[],
                                 $12::bigint[], $13::integer[])
                as message (topic_id, id, \"offset\", attempts, due_ms, reason_number)
            join written using (topic_id, id)
        ), put as (
            insert into trunkline.subscription_message
                (topic_id, id, \"offset\", attempts, due, parked_at, reason)
            select topic_id, id, \"offset\", attempts, now() + due_ms * interval '1 ms',
                   case when due_ms is null then now() end, ($15::text[])[reason_number]
            from message where attempts is not null
            on conflict (topic_id, id, \"offset\") do update
            set attempts = excluded.attempts, due = excluded.due,
                parked_at = excluded.parked_at, reason = excluded.reason
        ), removed as (
            delete from trunkline.subscription_message m using message
            where message.attempts is null and m.topic_id = message.topic_id
              and m.id = message.id and m.\"offset\" = message.\"offset\"
        )
        select topic_id, id, written.topic_id is not null,
               free.topic_id is not null
               and (coalesce(new.reserved_end, new.lost) is null
                    or changeable.topic_id is not null)
        from trunkline.consumer_topic join new using (topic_id, id)
        left join free using (topic_id, id) left join changeable using (topic_id, id)
        left join written using (topic_id, id)";
    let column = |value: fn(&Arc<SubscriptionWrite>) -> i64| writes.iter().map(value).collect();
    let topics: Vec<i32> = writes.iter().map(|write| write.key.topic.0).collect();
    let ids: Vec<i32> = writes.iter().map(|write| write.key.consumer).collect();
    let epochs: Vec<i64> = column(|write| write.epoch.0);
    let floors: Vec<i64> = column(|write| write.floor.0);
    let numbers: Vec<i64> = column(|write| write.delta.as_ref().map_or(0, |(number, _)| *number));
    let settled: Vec<Option<&[u8]>> =
        writes.iter().map(|write| write.delta.as_ref().map(|(_, delta)| &**delta)).collect();
    let keep_from: Vec<i64> = column(|write| write.keep_from);
    let rows = MessageRows::of(writes);
    let ends: Vec<i64> = column(|write| write.end.0);
    let reserved_ends: Vec<Option<i64>> =
        writes.iter().map(|write| write.reservation.map(|it| it.end.0)).collect();
    let reserved_ms: Vec<Option<i64>> =
        writes.iter().map(|write| write.reservation.map(reserved_milliseconds)).collect();
    let lost: Vec<Option<i64>> = writes.iter().map(|write| write.lost.map(as_bigint)).collect();
    let parameters: [&dyn Parameter; 18] = [
        &topics,
        &ids,
        &epochs,
        &floors,
        &numbers,
        &settled,
        &keep_from,
        &rows.topics,
        &rows.ids,
        &rows.offsets,
        &rows.attempts,
        &rows.due_ms,
        &rows.reason_numbers,
        &ends,
        &rows.reasons,
        &reserved_ends,
        &reserved_ms,
        &lost,
    ];
    let rows = client.query(statement, &parameters).await?;
    let outcome = |row: &Row| {
        let key = ConsumerKey { topic: TopicId(row.get(0)), consumer: row.get(1) };
        let outcome = match (row.get(2), row.get(3)) {
            (true, _) => StoreOutcome::Stored,
            (false, true) => StoreOutcome::Fenced,
            (false, false) => StoreOutcome::Locked,
        };
        (key, outcome)
    };
    Ok(rows.iter().map(outcome).collect())
}

/// How long a reservation lasts, in milliseconds, and not less.
fn reserved_milliseconds(reservation: StoredReservation) -> i64 {
    i64::try_from(reservation.left.as_micros().div_ceil(1_000)).unwrap_or(i64::MAX)
}

fn as_bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The changes of messages' rows, column by column.
#[derive(Default)]
struct MessageRows<'a> {
    topics: Vec<i32>,
    ids: Vec<i32>,
    offsets: Vec<i64>,
    /// `None` if the row is removed.
    attempts: Vec<Option<i32>>,
    /// `None` if the message is parked.
    due_ms: Vec<Option<i64>>,
    /// From 1 on.
    reason_numbers: Vec<Option<i32>>,
    /// Messages that are parked together share one.
    reasons: Vec<&'a str>,
}

impl<'a> MessageRows<'a> {
    fn of(writes: &'a [Arc<SubscriptionWrite>]) -> Self {
        let mut rows = Self::default();
        for write in writes {
            for (offset, change) in &write.messages {
                rows.topics.push(write.key.topic.0);
                rows.ids.push(write.key.consumer);
                rows.offsets.push(offset.0);
                let (attempts, due_in, reason) = match change {
                    MessageChange::Retry { attempts, due_in } => {
                        (Some(attempts), Some(due_in), None)
                    }
                    MessageChange::Park { attempts, reason } => {
                        (Some(attempts), None, Some(reason))
                    }
                    MessageChange::Remove => (None, None, None),
                };
                let number = |attempts: &u32| i32::try_from(*attempts).unwrap_or(i32::MAX);
                rows.attempts.push(attempts.map(number));
                // Rounded up, so that no message is delivered before its time.
                let milliseconds = |due: &Duration| {
                    i64::try_from(due.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
                };
                rows.due_ms.push(due_in.map(milliseconds));
                if let Some(reason) = reason
                    && rows.reasons.last() != Some(&&**reason)
                {
                    rows.reasons.push(reason);
                }
                let newest = i32::try_from(rows.reasons.len()).unwrap_or(i32::MAX);
                rows.reason_numbers.push(reason.map(|_| newest));
            }
        }
        rows
    }
}
