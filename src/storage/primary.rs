//! Which server the sessions lead to.
//!
//! After a fail-over an old primary may live on, and sessions that were opened before lead to it
//! still: leases would be had of one server, and positions stored at another one. The session that
//! was asked for last tells where all belong.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Instant, SystemTime},
};

use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_util::task::AbortOnDropHandle;

use super::{Error, SESSION_TIMEOUT, Storage, connector::Connector};

/// A server since it started: another one's starting time is another one, and so is its own after a
/// restart, which no session outlives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Server(SystemTime);

impl Server {
    async fn of(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let statement = "-- find_server\nselect pg_postmaster_start_time()";
        let rows = client.query_typed(statement, &[]).await?;
        Ok(Self(rows[0].get(0)))
    }
}

/// Where the sessions lead, or are to lead.
pub(super) struct Servers {
    direct: Connector,
    present: Present,
    /// When pooled sessions were retired last.
    retired: Mutex<Option<Instant>>,
    /// Held by whoever asks for one more session: one finds out for all.
    asking: tokio::sync::Mutex<()>,
}

impl Servers {
    pub(super) fn new(direct: Connector) -> Self {
        Self {
            direct,
            present: Present::default(),
            retired: Mutex::default(),
            asking: Default::default(),
        }
    }

    /// Has no pooled session be used again that is open by now: it may lead to a server whose place
    /// another one has taken.
    pub(super) fn retire_sessions(&self) {
        *self.retired() = Some(Instant::now());
    }

    /// Whether a session that was opened then is not to be used again.
    pub(super) fn is_retired(&self, opened: Instant) -> bool {
        self.retired().is_some_and(|retired| opened <= retired)
    }

    fn retired(&self) -> MutexGuard<'_, Option<Instant>> {
        self.retired.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Goes where a session leads that was asked for at a time, unless a later one leads elsewhere:
    /// where that is another server than before, pooled sessions are retired.
    pub(super) async fn follow(
        &self,
        client: &Client,
        asked_at: Instant,
    ) -> Result<Server, tokio_postgres::Error> {
        let server = Server::of(client).await?;
        if self.present.tell(asked_at, server) {
            tracing::info!("another server has taken the database's place, or it was restarted");
            self.retire_sessions();
        }
        Ok(server)
    }

    /// Whether a session that was just opened leads where the others do. It may have been asked for
    /// long ago, so where it does not, one more is asked for, and tells.
    pub(super) async fn are_one_with(self: &Arc<Self>, client: &Client) -> Result<bool, Error> {
        let server = Server::of(client).await?;
        if !self.present.is_none_but(server) {
            // Who waits for it may give up before it tells, and the next one is to know.
            let servers = self.clone();
            let asking = async move { servers.ask_anew(server).await };
            let asking = tokio::spawn(tokio::time::timeout(SESSION_TIMEOUT, asking));
            if let Ok(Ok(asked)) = asking.await {
                asked?;
            }
        }
        Ok(self.present.is_none_but(server))
    }

    /// Asks where a new session leads, unless somebody found out meanwhile that it is there.
    async fn ask_anew(&self, server: Server) -> Result<(), Error> {
        let _alone = self.asking.lock().await;
        if self.present.is_none_but(server) {
            return Ok(());
        }
        let asked_at = Instant::now();
        let (client, connection) = self.direct.connect("trunkline probe").await?;
        let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
        Ok(self.follow(&client, asked_at).await.map(drop)?)
    }
}

/// The server that the session leads to that was asked for last.
#[derive(Default)]
struct Present(watch::Sender<Option<(Instant, Server)>>);

impl Present {
    /// A session that was asked for at a time leads to a server; whether it is another one than was
    /// known.
    fn tell(&self, asked_at: Instant, server: Server) -> bool {
        let mut is_another = false;
        self.0.send_if_modified(|present| {
            let earlier = *present;
            if earlier.is_none_or(|(last, _)| last <= asked_at) {
                *present = Some((asked_at, server));
                is_another = earlier.is_some_and(|(_, earlier)| earlier != server);
            }
            is_another
        });
        is_another
    }

    /// Whether no other server is known.
    fn is_none_but(&self, server: Server) -> bool {
        self.0.borrow().is_none_or(|(_, present)| present == server)
    }

    async fn is_another_than(&self, server: Server) {
        let is_another = |present: &Option<(Instant, Server)>| {
            present.is_some_and(|(_, present)| present != server)
        };
        // The sender lives as long as this.
        let _ = self.0.subscribe().wait_for(is_another).await;
    }
}

impl Storage {
    /// Has no pooled session that is open by now be used again: they may lead to a server whose
    /// place another one has taken.
    pub fn retire_sessions(&self) {
        self.servers.retire_sessions();
    }

    /// Waits until another server has taken the place of the one that a session leads to.
    pub async fn wait_for_other_primary(&self, server: Server) {
        self.servers.present.is_another_than(server).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_session_that_was_asked_for_last_tells() {
        let (present, start) = (Present::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let server = |number| Server(SystemTime::UNIX_EPOCH + Duration::from_secs(number));
        assert!(present.is_none_but(server(1)));
        assert!(!present.tell(at(1), server(1)), "the first one");
        assert!(!present.tell(at(2), server(1)));
        let mut left = Box::pin(present.is_another_than(server(1)));
        assert_eq!((&mut left).now_or_never(), None);
        assert!(present.tell(at(4), server(2)));
        assert_eq!((&mut left).now_or_never(), Some(()));
        assert!(present.is_none_but(server(2)) && !present.is_none_but(server(1)));
        // Its answer took longer.
        assert!(!present.tell(at(3), server(1)));
        assert_eq!(present.is_another_than(server(1)).now_or_never(), Some(()));
        assert_eq!(present.is_another_than(server(2)).now_or_never(), None);
    }
}
