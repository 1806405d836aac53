//! The server's settings that a broker depends on.

use super::{Error, Storage, session::Statements as _};

/// Settings of the server, and the room that they leave.
#[derive(Clone, Copy, Debug)]
pub struct ServerSettings {
    /// Whether the server waits for its disk. If not, acknowledged messages may be lost.
    pub fsync: bool,
    /// How many locks all sessions together are certain to get. Each stream holds one.
    pub locks: i64,
    /// How many more sessions may be opened.
    pub free_sessions: i64,
}

impl Storage {
    /// Asks the server for its settings.
    pub async fn server_settings(&self) -> Result<ServerSettings, Error> {
        // `reserved_connections` came with PostgreSQL 16. The session that asks counts as free, as
        // it is one of the broker's.
        let statement = "-- server_settings
            select current_setting('fsync')::boolean,
                   current_setting('max_locks_per_transaction')::bigint
                   * (current_setting('max_connections')::bigint
                      + current_setting('max_prepared_transactions')::bigint),
                   current_setting('max_connections')::bigint
                   - current_setting('superuser_reserved_connections')::bigint
                   - coalesce(current_setting('reserved_connections', true)::bigint, 0)
                   - (select sum(numbackends) from pg_stat_database)::bigint + 1";
        let row = self.query().await?.query_one(statement, &[]).await?;
        Ok(ServerSettings { fsync: row.get(0), locks: row.get(1), free_sessions: row.get(2) })
    }
}
