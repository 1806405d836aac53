//! The session that receives other brokers' notifications and sends this one's.

use std::{future::poll_fn, sync::Arc, time::Instant};

use tokio_postgres::{AsyncMessage, Client};

use super::{
    Error, Server, Storage,
    connector::{Driver, drive_while},
    error::describe,
    session::{SessionSource, prepare_session},
    timeout::SESSION_TIMEOUT,
};

/// The channel that all brokers of a database share.
const CHANNEL: &str = "trunkline";

/// A session that listens.
pub struct ListenSession {
    client: Arc<Client>,
    server: Server,
    connection: Driver,
}

/// What a listening session received.
#[derive(Debug)]
pub enum Received {
    /// The text of a notification.
    Notification(String),
    /// The session is over, for this reason.
    Closed(String),
}

/// Sends notifications over the listening session; cheap to clone.
#[derive(Clone)]
pub struct NotificationSender(Arc<Client>);

impl Storage {
    /// Opens a session that receives every notification sent from now on.
    pub async fn open_listen_session(&self) -> Result<ListenSession, Error> {
        ListenSession::open(&self.direct).await
    }
}

impl ListenSession {
    pub(super) async fn open(direct: &SessionSource) -> Result<Self, Error> {
        let requested_at = Instant::now();
        let (client, mut connection) = direct.open("trunkline listen").await?;
        let listen = async {
            prepare_session(&client, SESSION_TIMEOUT).await?;
            let server = direct.primary.follow(&client, requested_at).await?;
            // A notification writes nothing that must survive: its commit need not wait for the
            // disk.
            client
                .batch_execute(&format!(
                    "-- listen\nset synchronous_commit = off; listen {CHANNEL}"
                ))
                .await?;
            Ok::<_, Error>(server)
        };
        // Drives the connection only until LISTEN is done. From then on `receive` does.
        let driven = drive_while(&mut connection, listen);
        let server = tokio::time::timeout(SESSION_TIMEOUT, driven)
            .await
            .map_err(|_| Error::Unavailable("no answer to LISTEN in time".to_owned()))??;
        Ok(Self { client: Arc::new(client), server, connection })
    }

    /// Sends notifications over this session, but only while [`Self::receive`] is being awaited.
    pub fn sender(&self) -> NotificationSender {
        NotificationSender(self.client.clone())
    }

    /// The server that the session reaches.
    pub fn server(&self) -> Server {
        self.server
    }

    /// Waits for the next notification. Call it again at once, and await nothing else meanwhile:
    /// unread notifications block the server.
    pub async fn receive(&mut self) -> Received {
        loop {
            match poll_fn(|context| self.connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(notification))) => {
                    return Received::Notification(notification.payload().to_owned());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Received::Closed(describe(&error)),
                None => return Received::Closed("connection closed".to_owned()),
            }
        }
    }
}

impl NotificationSender {
    /// Sends a notification of less than 8,000 bytes to every broker, this one included.
    pub async fn send(&self, text: &str) -> Result<(), Error> {
        self.0.execute("-- wake_up\nselect pg_notify('trunkline', $1)", &[&text]).await?;
        Ok(())
    }
}
