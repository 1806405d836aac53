//! The database, as the broker sees it.

use std::sync::{Arc, atomic::AtomicU64};

use super::{
    Error, Server,
    session::{PoolState, Pools, RowLocks, Session, SessionShares, SessionSource},
};
use crate::metrics::DatabaseMetrics;

/// A database that Trunkline keeps everything in.
pub struct Storage {
    /// Leads straight to the server, for sessions that must last.
    pub(super) direct: SessionSource,
    pub(super) pools: Pools,
    /// Who gets the next session of the query pool.
    pub(super) shares: SessionShares,
    pub(super) row_locks: RowLocks,
    pub(super) notifies: bool,
    /// The encoding of the database's text, as PostgreSQL calls it.
    pub(super) encoding: String,
}

impl Storage {
    /// How many sessions have been opened so far. Each is counted before it is used.
    pub fn sessions_opened(&self) -> Arc<AtomicU64> {
        self.direct.opened.clone()
    }

    /// What is measured of sessions and statements.
    pub fn metrics(&self) -> Arc<DatabaseMetrics> {
        self.direct.metrics.clone()
    }

    /// How many sessions each pool has.
    pub fn pools(&self) -> [PoolState; 4] {
        self.pools.states()
    }

    /// Whether one session receives what another one notifies; not every kind of server delivers
    /// notifications.
    pub fn notifies(&self) -> bool {
        self.notifies
    }

    /// Retires all sessions that are in the pools or in use: none is used again, as it may still
    /// reach a server that has been replaced.
    pub fn retire_sessions(&self) {
        self.direct.primary.retire_sessions();
    }

    /// Waits until another server has replaced the one that a session reaches.
    pub async fn wait_for_other_primary(&self, server: Server) {
        self.direct.primary.wait_for_other(server).await;
    }

    /// Closes all pools. Callers that wait for a session get an error.
    pub fn close(&self) {
        self.pools.close();
        self.shares.close();
    }

    /// The permits for statements that may wait for row locks.
    pub fn row_locks(&self) -> &RowLocks {
        &self.row_locks
    }

    /// The session that keeps copies of tokens, grants and owners up to date.
    pub(super) async fn access(&self) -> Result<Session, Error> {
        self.pools.access.get().await
    }

    /// A session for everything but publishing and moving positions. Owners that wait get one in
    /// turn.
    pub(super) async fn query(&self) -> Result<Session, Error> {
        let (session, permit) = self.pools.query.get_under(self.shares.admit()).await?;
        Ok(session.under(permit))
    }
}
