//! Which server the sessions lead to.
//!
//! After a fail-over an old primary may live on, and sessions that were opened before lead to it
//! still: leases would be had of one server, and positions stored at another one. The session that
//! was asked for last tells where all belong.

use std::time::{Instant, SystemTime};

use tokio::sync::watch;
use tokio_postgres::Client;

use super::Storage;

/// A server since it started: another one's starting time is another one, and so is its own after a
/// restart, which no session outlives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Server(SystemTime);

/// The server that the session leads to that was asked for last.
#[derive(Default)]
pub(super) struct Present(watch::Sender<Option<(Instant, Server)>>);

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

    async fn is_another_than(&self, server: Server) {
        let is_another = |present: &Option<(Instant, Server)>| {
            present.is_some_and(|(_, present)| present != server)
        };
        // The sender lives as long as this.
        let _ = self.0.subscribe().wait_for(is_another).await;
    }
}

impl Storage {
    /// Finds out where a session leads that was asked for at a time. Where that is another server
    /// than before, no pooled session is used again.
    pub(super) async fn find_server(
        &self,
        client: &Client,
        asked_at: Instant,
    ) -> Result<Server, tokio_postgres::Error> {
        let statement = "-- find_server\nselect pg_postmaster_start_time()";
        let rows = client.query_typed(statement, &[]).await?;
        let server = Server(rows[0].get(0));
        if self.present.tell(asked_at, server) {
            tracing::info!("another server has taken the database's place, or it was restarted");
            self.retire_sessions();
        }
        Ok(server)
    }

    /// Waits until another server has taken the place of the one that a session leads to.
    pub async fn another_server_than(&self, server: Server) {
        self.present.is_another_than(server).await;
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
        assert!(!present.tell(at(1), server(1)), "the first one");
        assert!(!present.tell(at(2), server(1)));
        let mut left = Box::pin(present.is_another_than(server(1)));
        assert_eq!((&mut left).now_or_never(), None);
        assert!(present.tell(at(4), server(2)));
        assert_eq!((&mut left).now_or_never(), Some(()));
        // Its answer took longer.
        assert!(!present.tell(at(3), server(1)));
        assert_eq!(present.is_another_than(server(1)).now_or_never(), Some(()));
        assert_eq!(present.is_another_than(server(2)).now_or_never(), None);
    }
}
