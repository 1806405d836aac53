//! What the database has done so far, for measurements.

use super::{Error, connector::Connector, probe};

/// Counters that only grow, but for the size; and who is there.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    /// Bytes of write-ahead log of the whole server.
    pub wal_bytes: i64,
    /// Bytes that our tables take on disk, with their indexes and what they store out of line.
    pub disk_bytes: i64,
    /// Batches stored in the topics that were asked for: one a topic and transaction.
    pub batches: i64,
    /// Sessions of brokers.
    pub sessions: i64,
    /// The process that answers, a child of the server's.
    pub backend: i32,
}

/// A session that reads the counters; it ends when this is dropped.
pub struct Meter {
    client: tokio_postgres::Client,
}

impl Meter {
    /// Connects to the database at `url`.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Ok(Self { client: probe::connect(&Connector::new(url)?).await? })
    }

    /// Reads the counters; batches are those of topics whose names begin so.
    pub async fn read(&self, topics: &str) -> Result<Counters, Error> {
        let statement = "-- read_counters
            select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint,
                   (select coalesce(sum(pg_total_relation_size(oid)), 0)::bigint from pg_class
                    where relkind = 'r' and relnamespace = 'trunkline'::regnamespace),
                   (select count(*) from trunkline.batch b
                    join trunkline.topic t on t.id = b.topic_id where starts_with(t.name, $1)),
                   (select count(*) from pg_stat_activity
                    where datname = current_database() and application_name like 'trunkline %'
                      and pid <> pg_backend_pid()),
                   pg_backend_pid()";
        let row = self.client.query_one(statement, &[&topics]).await?;
        Ok(Counters {
            wal_bytes: row.get(0),
            disk_bytes: row.get(1),
            batches: row.get(2),
            sessions: row.get(3),
            backend: row.get(4),
        })
    }
}
