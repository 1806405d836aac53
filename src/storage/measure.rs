//! Counters of what the database has done, for benchmarks.

use super::{Error, connector::Connector};

/// Counters, which only grow, and gauges.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    /// A counter: bytes of write-ahead log of the whole server.
    pub wal_bytes: i64,
    /// A gauge: bytes that our tables take on disk, with their indexes and TOAST data.
    pub disk_bytes: i64,
    /// Batches stored in the given topics: one per topic and transaction.
    pub batches: i64,
    /// A gauge: sessions of brokers.
    pub sessions: i64,
    /// The process ID of the answering backend, a child of the server's process.
    pub backend: i32,
}

/// A session that reads the counters. It ends when this is dropped.
pub struct Meter {
    client: tokio_postgres::Client,
}

impl Meter {
    /// Connects to the database at `url`.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Ok(Self { client: Connector::new(url)?.connect_client("trunkline probe").await? })
    }

    /// Reads the counters. Counts batches only of topics whose names begin with `topics`.
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
