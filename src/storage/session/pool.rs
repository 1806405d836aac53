//! The pools: which there are, how many sessions each has, and how long their statements may take.

use std::{sync::Arc, time::Duration};

use deadpool::Runtime;

use crate::{
    metrics::{DatabaseMetrics, SessionMetrics},
    storage::{
        error::Error,
        session::{
            opener::{Pool, SessionOpener, SessionSetup},
            run::{Session, SessionKind},
            setup,
            source::SessionSource,
        },
        timeout::{ANSWER_TIMEOUT, SESSION_TIMEOUT, WRITER_LOCK_TIMEOUT},
    },
};

/// How many connections a broker may open, besides one for leases and one for listening.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections that publish.
    pub writers: usize,
    /// Connections for everything else.
    pub queries: usize,
}

/// Statements that set up sessions that publish: they make their plan once, and keep their memory.
///
/// A batch's values take some megabytes. glibc returns free memory to the system beyond twice the
/// largest block that it ever took from there, so these megabytes may be returned, and faulted in
/// again page by page, with each statement: measured, a third of the throughput. Taking one large
/// block first raises that threshold. With other allocators it does no harm.
const PUBLISHING: &str = "set plan_cache_mode = force_generic_plan;
    /* keep_memory */ select octet_length(repeat('x', 16 * 1024 * 1024))";

/// How long positions that are written together wait for a consumer's row. After that, they are
/// written without those whose rows other sessions hold.
const POSITION_LOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// How long any other statement waits for a lock on its session. It is then tried again, without
/// one ([`super::row_locks`]).
const QUERY_LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// All pools of a broker.
pub(crate) struct Pools {
    pub query: SessionPool,
    pub writer: SessionPool,
    /// One session, as one task writes all positions.
    pub position: SessionPool,
    /// One session for the copies of tokens, grants and owners, so that calls that use up the others
    /// do not keep a broker from learning what has changed.
    pub access: SessionPool,
}

/// Sessions of one kind.
pub(crate) struct SessionPool {
    pool: Pool,
    kind: SessionKind,
    answer_within: Duration,
    statements: Arc<DatabaseMetrics>,
    sessions: SessionMetrics,
}

/// How many sessions a pool has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolState {
    /// What the pool's sessions are for.
    pub pool: &'static str,
    /// Sessions that are open.
    pub open: usize,
    /// Those of them that nobody uses.
    pub idle: usize,
    /// The most that there may be.
    pub limit: usize,
}

impl Pools {
    /// Pools of sessions that lead straight to the server.
    pub(crate) fn direct(source: &SessionSource, limits: Limits) -> Result<Self, Error> {
        Self::new(source, limits, false)
    }

    /// Pools of sessions that a pooler lends.
    pub(crate) fn of_pooler(source: &SessionSource, limits: Limits) -> Result<Self, Error> {
        Self::new(source, limits, true)
    }

    fn new(source: &SessionSource, limits: Limits, pooled: bool) -> Result<Self, Error> {
        let pool = |name, size, lock_timeout, more| {
            let (kind, setup) = match pooled {
                true => {
                    let settings = setup::transaction_settings(lock_timeout).into();
                    (SessionKind::Pooled { settings }, None)
                }
                false => (SessionKind::Direct, Some(SessionSetup { lock_timeout, more })),
            };
            let opener = SessionOpener { source: source.clone(), name, setup };
            SessionPool::new(opener, size, kind, ANSWER_TIMEOUT + lock_timeout)
        };
        Ok(Self {
            query: pool("trunkline query", limits.queries, QUERY_LOCK_TIMEOUT, "")?,
            writer: pool("trunkline writer", limits.writers, WRITER_LOCK_TIMEOUT, PUBLISHING)?,
            position: pool("trunkline position", 1, POSITION_LOCK_TIMEOUT, "")?,
            access: pool("trunkline access", 1, QUERY_LOCK_TIMEOUT, "")?,
        })
    }

    /// Closes all pools. Callers that wait for a session get an error.
    pub(crate) fn close(&self) {
        self.all().into_iter().for_each(|sessions| sessions.pool.close());
    }

    /// How many sessions each pool has.
    pub(crate) fn states(&self) -> [PoolState; 4] {
        self.all().map(SessionPool::state)
    }

    fn all(&self) -> [&SessionPool; 4] {
        [&self.query, &self.writer, &self.position, &self.access]
    }
}

impl SessionPool {
    fn new(
        opener: SessionOpener,
        size: usize,
        kind: SessionKind,
        answer_within: Duration,
    ) -> Result<Self, Error> {
        let (statements, name) = (opener.source.metrics.clone(), opener.purpose());
        let sessions = statements.of_pool(name);
        // Without a limit for opening a session: the opener has one, and its error says what took
        // too long.
        let builder = Pool::builder(opener)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(SESSION_TIMEOUT))
            .recycle_timeout(Some(SESSION_TIMEOUT));
        let pool = builder.build().map_err(Error::unexpected)?;
        Ok(Self { pool, kind, answer_within, statements, sessions })
    }

    /// Waits for a free session.
    pub(crate) async fn get(&self) -> Result<Session, Error> {
        self.get_under(async { Ok(()) }).await.map(|(session, ())| session)
    }

    /// Waits for a permit, and then for a free session.
    pub(crate) async fn get_under<T>(
        &self,
        permit: impl Future<Output = Result<T, Error>>,
    ) -> Result<(Session, T), Error> {
        let waiting = self.sessions.begin_waiting();
        let permit = permit.await?;
        // Boxed, as it would make each call larger that may ask the database.
        let object = Box::pin(self.pool.get()).await?;
        drop(waiting);
        let metrics = self.statements.clone();
        Ok((Session::new(object, self.kind.clone(), self.answer_within, metrics), permit))
    }

    fn state(&self) -> PoolState {
        let status = self.pool.status();
        PoolState {
            pool: self.pool.manager().purpose(),
            open: status.size,
            idle: status.available,
            limit: status.max_size,
        }
    }

    /// How many sessions there may be.
    pub(crate) fn max_size(&self) -> usize {
        self.pool.status().max_size
    }

    /// Whether a pooler lends the sessions.
    pub(crate) fn is_pooled(&self) -> bool {
        matches!(self.kind, SessionKind::Pooled { .. })
    }
}
