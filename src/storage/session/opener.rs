//! Opens the sessions of a pool, and says which ones may be used again.

use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use deadpool_postgres::ClientWrapper;
use tokio::time::Instant;

use crate::storage::{
    error::{Error, describe},
    session::{setup, source::SessionSource},
    timeout::SESSION_TIMEOUT,
};

/// A pool of sessions of one kind.
pub(crate) type Pool = deadpool::managed::Pool<SessionOpener>;

/// A session that a pool hands out.
pub(crate) type Object = deadpool::managed::Object<SessionOpener>;

/// Opens the sessions of a pool.
pub(crate) struct SessionOpener {
    pub source: SessionSource,
    /// What they are called in `pg_stat_activity`.
    pub name: &'static str,
    /// How they are set up; not at all if a pooler lends them.
    pub setup: Option<SessionSetup>,
}

/// How direct sessions are set up.
pub(crate) struct SessionSetup {
    pub lock_timeout: Duration,
    /// Statements besides those that every session needs; may be empty.
    pub more: &'static str,
}

impl Manager for SessionOpener {
    type Type = ClientWrapper;
    type Error = Error;

    async fn create(&self) -> Result<ClientWrapper, Error> {
        // Boxed, as it is part of the future of every statement.
        Box::pin(self.open()).await
    }

    async fn recycle(
        &self,
        session: &mut ClientWrapper,
        metrics: &Metrics,
    ) -> RecycleResult<Error> {
        if self.source.primary.is_retired(metrics.created) {
            return Err(RecycleError::message("the session is retired"));
        }
        match session.is_closed() {
            true => Err(RecycleError::message("the session is closed")),
            false => Ok(()),
        }
    }
}

impl SessionOpener {
    /// What its sessions are for: their name without the part that all have in common.
    pub(crate) fn purpose(&self) -> &'static str {
        self.name.rsplit(' ').next().unwrap_or(self.name)
    }

    async fn open(&self) -> Result<ClientWrapper, Error> {
        let give_up_at = Instant::now() + SESSION_TIMEOUT;
        // Has a shorter limit of its own, so that its error says which server did not answer.
        let (client, connection) = self.source.open(self.name).await?;
        let name = self.name;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(session = name, error = describe(&error), "lost a database session");
            }
        });
        // Aborts the driver when it is dropped.
        let session = ClientWrapper::new(client, driver);
        if let Some(setup) = &self.setup {
            let prepared = tokio::time::timeout_at(give_up_at, self.prepare(&session, setup)).await;
            prepared.map_err(|_| {
                Error::Unavailable(format!("no session was set up in {SESSION_TIMEOUT:?}"))
            })??;
        }
        Ok(session)
    }

    async fn prepare(&self, session: &ClientWrapper, setup: &SessionSetup) -> Result<(), Error> {
        let prepare = async {
            setup::prepare_session(session, setup.lock_timeout).await?;
            session.batch_execute(setup.more).await
        };
        // No work was sent yet, so its outcome cannot be unknown.
        let unprepared =
            |error| Error::Unavailable(format!("set a session up: {}", describe(&error)));
        prepare.await.map_err(unprepared)?;
        match self.source.primary.is_reached_by(session).await? {
            true => Ok(()),
            false => {
                Err(Error::Unavailable("a session reaches another server than the others".into()))
            }
        }
    }
}
