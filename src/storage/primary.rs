//! Which server is the primary.
//!
//! After a fail-over the old primary may live on, and sessions that were opened before still reach
//! it. Leases would then come from one server, and positions would be stored on another. The server
//! that the most recently requested session reaches counts as the primary.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_util::task::AbortOnDropHandle;

use super::{Error, connector::Connector, timeout::SESSION_TIMEOUT};

/// A run of a server, identified by its start time. A restart begins another run, which no session
/// outlives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Server(SystemTime);

impl Server {
    async fn of(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let statement = "-- find_server\nselect pg_catalog.pg_postmaster_start_time()";
        let rows = client.query_typed(statement, &[]).await?;
        Ok(Self(rows[0].get(0)))
    }
}

/// The primary, and which sessions may still be used.
pub(super) struct Primary {
    direct: Connector,
    newest: NewestServer,
    /// Sessions of the pools that were opened up to then are not used again.
    retired_at: Mutex<Option<Instant>>,
    /// Serialises requests for one more session: the first to hold it finds out for all.
    asking: tokio::sync::Mutex<()>,
}

impl Primary {
    pub(super) fn new(direct: Connector) -> Self {
        Self {
            direct,
            newest: NewestServer::default(),
            retired_at: Mutex::default(),
            asking: Default::default(),
        }
    }

    /// Retires all sessions of the pools that are open now: they may reach a server that has been
    /// replaced.
    pub(super) fn retire_sessions(&self) {
        *self.retired_at.lock() = Some(Instant::now());
    }

    /// Whether a session that was opened at that time must not be used again.
    pub(super) fn is_retired(&self, opened_at: Instant) -> bool {
        self.retired_at.lock().is_some_and(|retired_at| opened_at <= retired_at)
    }

    /// Finds the server that a session reaches, and takes it for the primary unless a session that
    /// was requested after `requested_at` reaches another one. If the primary has changed, retires
    /// the sessions of the pools.
    pub(super) async fn follow(
        &self,
        client: &Client,
        requested_at: Instant,
    ) -> Result<Server, tokio_postgres::Error> {
        let server = Server::of(client).await?;
        if self.newest.observe(requested_at, server) {
            tracing::info!("the database is another server, or restarted");
            self.retire_sessions();
        }
        Ok(server)
    }

    /// Whether a new session reaches the primary. The session may have been requested long ago, so
    /// if it does not, one more is requested, and decides.
    pub(super) async fn is_reached_by(self: &Arc<Self>, client: &Client) -> Result<bool, Error> {
        let server = Server::of(client).await?;
        if !self.newest.is_none_but(server) {
            // In a task of its own: the next caller needs the answer even if this one gives up.
            let primary = self.clone();
            let asking = async move { primary.ask_again(server).await };
            let asking = tokio::spawn(tokio::time::timeout(SESSION_TIMEOUT, asking));
            if let Ok(Ok(asked)) = asking.await {
                asked?;
            }
        }
        Ok(self.newest.is_none_but(server))
    }

    /// Finds out where a new session leads, unless it turned out meanwhile that `server` is the
    /// primary.
    async fn ask_again(&self, server: Server) -> Result<(), Error> {
        let _alone = self.asking.lock().await;
        if self.newest.is_none_but(server) {
            return Ok(());
        }
        let requested_at = Instant::now();
        let (client, connection) = self.direct.connect("trunkline probe").await?;
        let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
        Ok(self.follow(&client, requested_at).await.map(drop)?)
    }

    /// Waits until another server is the primary.
    pub(super) async fn wait_for_other(&self, server: Server) {
        self.newest.wait_for_other(server).await;
    }
}

/// The server that the most recently requested session reaches, and when that was requested.
#[derive(Default)]
struct NewestServer(watch::Sender<Option<(Instant, Server)>>);

impl NewestServer {
    /// Takes note of the server that a session reaches; true if another one was known.
    fn observe(&self, requested_at: Instant, server: Server) -> bool {
        let mut is_another = false;
        self.0.send_if_modified(|newest| {
            let earlier = *newest;
            if earlier.is_none_or(|(last, _)| last <= requested_at) {
                *newest = Some((requested_at, server));
                is_another = earlier.is_some_and(|(_, earlier)| earlier != server);
            }
            is_another
        });
        is_another
    }

    /// Whether no other server is known.
    fn is_none_but(&self, server: Server) -> bool {
        self.0.borrow().is_none_or(|(_, newest)| newest == server)
    }

    async fn wait_for_other(&self, server: Server) {
        let is_another =
            |newest: &Option<(Instant, Server)>| newest.is_some_and(|(_, newest)| newest != server);
        // Never fails, as `self` holds the sender.
        let _ = self.0.subscribe().wait_for(is_another).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_session_that_was_requested_last_decides() {
        let (newest, start) = (NewestServer::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let server = |number| Server(SystemTime::UNIX_EPOCH + Duration::from_secs(number));
        assert!(newest.is_none_but(server(1)));
        assert!(!newest.observe(at(1), server(1)), "the first one");
        assert!(!newest.observe(at(2), server(1)));
        let mut left = Box::pin(newest.wait_for_other(server(1)));
        assert_eq!((&mut left).now_or_never(), None);
        assert!(newest.observe(at(4), server(2)));
        assert_eq!((&mut left).now_or_never(), Some(()));
        assert!(newest.is_none_but(server(2)) && !newest.is_none_but(server(1)));
        // Requested earlier, answered later.
        assert!(!newest.observe(at(3), server(1)));
        assert_eq!(newest.wait_for_other(server(1)).now_or_never(), Some(()));
        assert_eq!(newest.wait_for_other(server(2)).now_or_never(), None);
    }
}
