//! What there is in the database, and how the server is doing: for metrics and for people.

use std::time::{Duration, SystemTime};

use super::{Error, Storage, relay::IS_OF_THIS_SERVER, session::Statements as _};
use crate::model::{ConsumerId, ConsumerKey, Offset, TopicId, TopicName};

/// How much there is in the database.
#[derive(Clone, Copy, Debug)]
pub struct CatalogueSize {
    /// How many topics.
    pub topics: u64,
    /// How many consumers of all topics.
    pub consumers: u64,
}

/// The state of a topic.
#[derive(Clone, Debug)]
pub struct TopicState {
    /// Its number.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// The offset that its next message gets.
    pub head: Offset,
    /// The offset of its first message.
    pub start: Offset,
    /// The bytes of its messages.
    pub bytes: i64,
    /// Seconds since 1970 until the last message was published, by the database's clock; `None` if
    /// none was.
    pub last_published: Option<f64>,
}

impl TopicState {
    /// When the last message was published; `None` if none was.
    pub fn last_published_at(&self) -> Option<SystemTime> {
        let since_1970 = Duration::try_from_secs_f64(self.last_published?).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(since_1970)
    }
}

/// The state of a consumer.
#[derive(Clone, Debug)]
pub struct ConsumerState {
    /// Its topic.
    pub topic: TopicName,
    /// Its id.
    pub id: ConsumerId,
    /// Its number.
    pub key: ConsumerKey,
    /// The offset that it gets next.
    pub position: Offset,
    /// How many messages it has not had yet, without those that were removed.
    pub lag: i64,
    /// How many messages lie between the head and its position, if that is beyond the head: the log has
    /// lost them.
    pub missing: i64,
    /// For how long the message that it gets next has been stored; zero if there is none.
    pub behind: Duration,
    /// The time since its position last moved, or a stream last got its lease.
    pub unchanged_for: Duration,
    /// Whether a stream has its lease.
    pub is_held: bool,
    /// Who has it; `None` if nobody does, or somebody without a name.
    pub holder: Option<String>,
}

/// The messages that were published from SQL and wait to be moved into the log.
#[derive(Clone, Copy, Debug)]
pub struct OutboxState {
    /// How many there are; those beyond 100,000 are not counted.
    pub messages: u64,
    /// How long ago the oldest one was published, by the database's clock; zero if there is none.
    pub age: Duration,
}

/// How the server is doing.
#[derive(Clone, Debug)]
pub struct ServerState {
    /// How much of the queue for notifications is used: from 0 to 1.
    pub notification_queue: f64,
    /// How many bytes of write-ahead log the server has written.
    pub wal_bytes: u64,
    /// Trunkline's tables.
    pub tables: Vec<TableState>,
}

/// How a table is doing.
#[derive(Clone, Debug)]
pub struct TableState {
    /// Its name, without the schema.
    pub name: String,
    /// Its bytes on disk, with its indexes and what is stored out of line.
    pub bytes: u64,
    /// Seconds since 1970 until it was last vacuumed, also by autovacuum; `None` if it was not.
    pub last_vacuumed: Option<f64>,
}

impl Storage {
    /// How much there is in the database.
    pub async fn catalogue_size(&self) -> Result<CatalogueSize, Error> {
        let client = self.query().await?;
        let statement = "-- catalogue_size
            select (select count(*) from trunkline.topic),
                   (select count(*) from trunkline.consumer_topic)";
        let row = client.query_one(statement, &[]).await?;
        let count = |index| row.get::<_, i64>(index).unsigned_abs();
        Ok(CatalogueSize { topics: count(0), consumers: count(1) })
    }

    /// The first topics by name.
    pub async fn list_topic_states(&self, limit: usize) -> Result<Vec<TopicState>, Error> {
        let client = self.query().await?;
        let statement = "-- list_topic_states
            select id, name, next_offset, first_offset, bytes,
                   extract(epoch from last_published_at)::double precision
            from trunkline.topic join trunkline.topic_head on topic_id = id
            order by name limit $1";
        let rows = client.query(statement, &[&(limit as i64)]).await?;
        let topics = rows.iter().map(|row| TopicState {
            id: TopicId(row.get(0)),
            name: TopicName::stored(row.get(1)),
            head: Offset(row.get(2)),
            start: Offset(row.get(3)),
            bytes: row.get(4),
            last_published: row.get(5),
        });
        Ok(topics.collect())
    }

    /// The first consumers by topic and id.
    pub async fn list_consumer_states(&self, limit: usize) -> Result<Vec<ConsumerState>, Error> {
        let client = self.query().await?;
        // The age of the next message is looked up only for the consumers that are listed and have
        // one.
        let statement = "-- list_consumer_states
            with held as materialized (
                select classid, objid from pg_locks
                where locktype = 'advisory' and granted and objsubid = 2
                  and database = (select oid from pg_database where datname = current_database())
            ), listed as materialized (
                select topic.name, consumer.consumer_id, consumer.topic_id, consumer.id,
                       consumer.position, consumer.holder, consumer.updated_at,
                       greatest(consumer.position, head.first_offset) as next, head.next_offset
                from trunkline.topic
                join trunkline.topic_head head on head.topic_id = topic.id
                join trunkline.consumer_topic consumer on consumer.topic_id = topic.id
                order by topic.name, consumer.consumer_id limit $1
            )
            select name, consumer_id, topic_id, id, position,
                   greatest(next_offset - next, 0),
                   case when next < next_offset then (
                       select extract(epoch from statement_timestamp() - batch.published_at)
                       from trunkline.batch
                       where batch.topic_id = listed.topic_id and batch.base_offset <= next
                       order by batch.base_offset desc limit 1
                   ) end::double precision,
                   extract(epoch from statement_timestamp() - updated_at)::double precision,
                   (topic_id::oid, id::oid) in (select classid, objid from held),
                   holder,
                   greatest(position - next_offset, 0)
            from listed
            order by name, consumer_id";
        let rows = client.query(statement, &[&(limit as i64)]).await?;
        let consumers = rows.iter().map(|row| {
            let is_held = row.get(8);
            let holder = row.get::<_, Option<String>>(9).filter(|name| is_held && !name.is_empty());
            ConsumerState {
                topic: TopicName::stored(row.get(0)),
                id: ConsumerId::stored(row.get(1)),
                key: ConsumerKey { topic: TopicId(row.get(2)), consumer: row.get(3) },
                position: Offset(row.get(4)),
                lag: row.get(5),
                missing: row.get(10),
                behind: seconds(row.get(6)),
                unchanged_for: seconds(row.get(7)),
                is_held,
                holder,
            }
        });
        Ok(consumers.collect())
    }

    /// The committed messages of the outbox. The server gives up after `limit`: a count that nobody waits
    /// for any more would keep rows from being vacuumed.
    pub async fn outbox_state(&self, limit: Duration) -> Result<OutboxState, Error> {
        let mut client = self.query().await?;
        // The last pass that was noted has moved all that it saw. So what waits has a greater id, or is
        // of a transaction that was open then: rows that were moved before and wait for a vacuum are
        // not walked over. The planner takes a table for small that is mostly empty. It does not know
        // limits that are subqueries, and therefore reads in order instead of sorting all rows; and
        // with `id + 0` it finds the rows of a transaction by no other index.
        let statement = format!(
            "-- outbox_state
            with pass as materialized (
                select snapshot::pg_snapshot as snapshot, newest_id, next_transaction
                from trunkline.outbox_pass where only_row and {IS_OF_THIS_SERVER}
            ), waiting as (
                (select published_at from trunkline.outbox
                 where id > coalesce((select newest_id from pass), 0)
                 order by id limit (select 100000))
                union all
                select late.published_at
                from pass
                cross join lateral (
                    select transaction, transaction
                    from pg_snapshot_xip(pass.snapshot) as listed (transaction)
                    -- What is still open has nothing visible, however much it has published.
                    where pg_visible_in_snapshot(transaction, pg_current_snapshot())
                    union all
                    select pg_snapshot_xmax(pass.snapshot), (next_transaction - 1)::text::xid8
                ) as open (first, last)
                cross join lateral (
                    select published_at from trunkline.outbox
                    where transaction between open.first and open.last and id + 0 <= pass.newest_id
                    limit (select 100000)
                ) late
            )
            select least(count(*), 100000),
                   extract(epoch from clock_timestamp() - min(published_at))::double precision
            from waiting"
        );
        let row = client
            .transact(async |transaction| {
                let limit = limit.as_millis().to_string();
                let set = "-- limit_statement\nselect set_config('statement_timeout', $1, true)";
                transaction.query_one(set, &[&limit]).await?;
                transaction.query_one(&statement, &[]).await
            })
            .await?;
        let messages = row.get::<_, i64>(0).unsigned_abs();
        Ok(OutboxState { messages, age: seconds(row.get(1)) })
    }

    /// How the server is doing.
    pub async fn server_state(&self) -> Result<ServerState, Error> {
        let client = self.query().await?;
        let statement = "-- server_state
            select pg_notification_queue_usage(),
                   pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
        let row = client.query_one(statement, &[]).await?;
        let tables = "-- table_states
            select class.relname::text, coalesce(pg_total_relation_size(class.oid), 0),
                   extract(epoch from greatest(last_vacuum, last_autovacuum))::double precision
            from pg_class class
            left join pg_stat_all_tables on relid = class.oid
            where relkind = 'r' and relnamespace = 'trunkline'::regnamespace
            order by 1";
        let tables = client.query(tables, &[]).await?;
        let tables = tables.iter().map(|row| TableState {
            name: row.get(0),
            bytes: row.get::<_, i64>(1).unsigned_abs(),
            last_vacuumed: row.get(2),
        });
        Ok(ServerState {
            notification_queue: row.get(0),
            wal_bytes: row.get::<_, i64>(1).unsigned_abs(),
            tables: tables.collect(),
        })
    }
}

/// A number of seconds; zero if there is none, or if a clock went backwards.
fn seconds(seconds: Option<f64>) -> Duration {
    Duration::try_from_secs_f64(seconds.unwrap_or(0.0)).unwrap_or_default()
}
