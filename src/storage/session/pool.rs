//! Pools of sessions: how many there are, and how each is made.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use deadpool::{
    Runtime,
    managed::{Manager, Metrics, RecycleError, RecycleResult},
};
use deadpool_postgres::ClientWrapper;
use tokio::time::Instant;

use crate::storage::{
    Error, SESSION_TIMEOUT, Storage,
    connector::Connector,
    error::describe,
    primary::Servers,
    session::{Manner, Sessions, setup},
};

/// How many connections a broker may open, besides one for leases and one for listening.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections that publish.
    pub writers: usize,
    /// Connections for everything else.
    pub queries: usize,
}

/// What sessions that publish have besides: they make the plan once, and they keep their memory.
///
/// A batch's values take some megabytes. glibc gives free memory back to the system beyond twice
/// the largest block that it ever took from there, so that these megabytes may be given back, and
/// faulted in again page by page, with each statement: measured, a third of the throughput. A
/// large block taken once moves that bound out of the way; elsewhere it does no harm.
const PUBLISHING: &str = "set plan_cache_mode = force_generic_plan;
    /* keep_memory */ select octet_length(repeat('x', 16 * 1024 * 1024))";

/// A publish that waits longer than this for its topic's row is refused, so that a session that
/// sits on the row does not hold up other topics.
pub(crate) const WRITER_LOCK_TIMEOUT: Duration = Duration::from_millis(500);
/// Positions that are written together wait no longer for a consumer's row: then they are written
/// without those of rows that others hold.
const POSITION_LOCK_TIMEOUT: Duration = Duration::from_millis(100);
const QUERY_LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a statement may take besides its wait for a lock. A connection that leads nowhere
/// would otherwise hang whoever uses it, and the streams that wait for them, until the kernel
/// notices; behind a proxy or a pooler it never does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A pool of sessions of one kind.
pub(crate) type Pool = deadpool::managed::Pool<PooledSessions>;

/// A session of a pool.
pub(crate) type Object = deadpool::managed::Object<PooledSessions>;

impl Storage {
    /// `direct` goes straight to the server; so do the pools, unless a pooler `lends` its sessions.
    pub(crate) fn with_pools(
        direct: Connector,
        lends: Option<Connector>,
        limits: Limits,
    ) -> Result<Self, Error> {
        let lent = lends.is_some();
        let connector = lends.unwrap_or_else(|| direct.clone());
        let opened = Arc::<AtomicU64>::default();
        let servers = Arc::new(Servers::new(direct.clone()));
        let pool = |name, size, lock_timeout, more| {
            let (connector, opened) = (connector.clone(), opened.clone());
            let servers = servers.clone();
            pool(
                PooledSessions { name, connector, lock_timeout, more, lent, opened, servers },
                size,
            )
        };
        Ok(Self {
            query: pool("trunkline query", limits.queries, QUERY_LOCK_TIMEOUT, "")?,
            writer: pool("trunkline writer", limits.writers, WRITER_LOCK_TIMEOUT, PUBLISHING)?,
            position: pool("trunkline position", 1, POSITION_LOCK_TIMEOUT, "")?,
            direct,
            opened: opened.clone(),
            servers: servers.clone(),
            notifies: false,
            encoding: String::new(),
        })
    }
}

fn pool(sessions: PooledSessions, size: usize) -> Result<Sessions, Error> {
    let lock_timeout = sessions.lock_timeout;
    let manner = match sessions.lent {
        true => Manner::Lent { settings: setup::of_transaction(lock_timeout).into() },
        false => Manner::Own,
    };
    // Without a limit for making a session: it has its own, which says what took too long.
    let builder = Pool::builder(sessions)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(SESSION_TIMEOUT))
        .recycle_timeout(Some(SESSION_TIMEOUT));
    let pool = builder.build().map_err(Error::unexpected)?;
    Ok(Sessions { pool, manner, answer_within: ANSWER_TIMEOUT + lock_timeout })
}

/// Makes the sessions of a pool.
pub(crate) struct PooledSessions {
    name: &'static str,
    connector: Connector,
    lock_timeout: Duration,
    /// Statements that set up sessions of our own besides what all have; may be none.
    more: &'static str,
    /// Whether a pooler lends them, so that there is nothing to set up.
    lent: bool,
    opened: Arc<AtomicU64>,
    servers: Arc<Servers>,
}

impl Manager for PooledSessions {
    type Type = ClientWrapper;
    type Error = Error;

    async fn create(&self) -> Result<ClientWrapper, Error> {
        // Boxed, as the future of every statement holds it.
        Box::pin(self.open()).await
    }

    async fn recycle(
        &self,
        session: &mut ClientWrapper,
        metrics: &Metrics,
    ) -> RecycleResult<Error> {
        if self.servers.is_retired(metrics.created) {
            return Err(RecycleError::message("the session is retired"));
        }
        match session.is_closed() {
            true => Err(RecycleError::message("the session is over")),
            false => Ok(()),
        }
    }
}

impl PooledSessions {
    async fn open(&self) -> Result<ClientWrapper, Error> {
        let give_up_at = Instant::now() + SESSION_TIMEOUT;
        // Takes less than that, so that it can say which server did not answer.
        let (client, connection) = self.connector.connect(self.name).await?;
        let name = self.name;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(name, error = describe(&error), "lost a connection");
            }
        });
        // Ends the driver when it is dropped.
        let session = ClientWrapper::new(client, driver);
        self.opened.fetch_add(1, Ordering::Release);
        if !self.lent {
            let prepared = tokio::time::timeout_at(give_up_at, self.prepare(&session)).await;
            prepared.map_err(|_| {
                Error::Unavailable(format!("no session was set up in {SESSION_TIMEOUT:?}"))
            })??;
        }
        Ok(session)
    }

    async fn prepare(&self, session: &ClientWrapper) -> Result<(), Error> {
        let prepare = async {
            setup::prepare_session(session, self.lock_timeout).await?;
            session.batch_execute(self.more).await
        };
        // Nothing was asked for yet, so nothing can be unknown.
        let unprepared =
            |error| Error::Unavailable(format!("set a session up: {}", describe(&error)));
        prepare.await.map_err(unprepared)?;
        match self.servers.are_one_with(session).await? {
            true => Ok(()),
            false => Err(Error::Unavailable("a session leads where no other does".to_owned())),
        }
    }
}
