//! PostgreSQL, as metrics: the sessions of this broker, and how the server is doing.

use std::{fmt, sync::Arc, sync::atomic::Ordering};

use super::shown::Shown;
use crate::{
    metrics::{Collection, Samples},
    storage::Storage,
};

/// PostgreSQL, as this broker sees it.
pub(super) struct ServerMetrics {
    pub(super) storage: Arc<Storage>,
    pub(super) shown: Shown,
}

impl Collection for ServerMetrics {
    fn write(&self, samples: &mut Samples<'_>) -> fmt::Result {
        let pools = self.storage.pools();
        let of_pools = |value: fn(&_) -> usize| {
            pools.iter().map(move |it| ([("pool", it.pool)], value(it) as f64))
        };
        samples.gauges(
            "trunkline_postgres_sessions",
            "Sessions that this broker has open, by pool",
            of_pools(|it| it.open),
        )?;
        samples.gauges(
            "trunkline_postgres_sessions_idle",
            "Sessions that are open and not in use, by pool",
            of_pools(|it| it.idle),
        )?;
        samples.gauges(
            "trunkline_postgres_sessions_limit",
            "Sessions that a pool may have",
            of_pools(|it| it.limit),
        )?;
        samples.counter(
            "trunkline_postgres_sessions_opened",
            "Sessions that this broker has opened so far; each reconnect opens one",
            self.storage.sessions_opened().load(Ordering::Relaxed),
        )?;
        let Some(snapshot) = self.shown.read().clone() else { return Ok(()) };
        let Some(server) = &snapshot.server else { return Ok(()) };
        samples.gauge(
            "trunkline_postgres_notification_queue_ratio",
            "How much of the server's queue for notifications is used",
            server.notification_queue,
        )?;
        samples.counter(
            "trunkline_postgres_wal_bytes",
            "Bytes of write-ahead log that the server has written",
            server.wal_bytes,
        )?;
        let bytes = server.tables.iter().map(|it| ([("table", it.name.as_str())], it.bytes as f64));
        samples.gauges(
            "trunkline_postgres_table_bytes",
            "Bytes on disk of the broker's tables, with their indexes",
            bytes,
        )?;
        let vacuums = server
            .tables
            .iter()
            .filter_map(|it| Some(([("table", it.name.as_str())], it.last_vacuumed?)));
        samples.gauges(
            "trunkline_postgres_last_vacuum_timestamp_seconds",
            "When the table was last vacuumed, also by autovacuum",
            vacuums,
        )
    }
}
