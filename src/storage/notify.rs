//! The session that hears other brokers' wake-ups and sends this one's.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio_postgres::{AsyncMessage, Client};

use super::{
    Error, SESSION_TIMEOUT, Server, Storage,
    connector::{Driver, drive_while},
    session::prepare_session,
};

/// The channel that all brokers of a database share.
const CHANNEL: &str = "trunkline";

/// The connection that listens.
pub struct ListenSession {
    client: Arc<Client>,
    server: Server,
    connection: Driver,
}

/// What a listening connection heard.
#[derive(Debug)]
pub enum Received {
    /// A wake-up's text.
    Notification(String),
    /// The connection is over.
    Closed(String),
}

/// Sends wake-ups over the listening connection; cheap to clone.
#[derive(Clone)]
pub struct NotificationSender(Arc<Client>);

impl Storage {
    /// Opens a session that hears every wake-up sent from now on.
    pub async fn open_listen_session(&self) -> Result<ListenSession, Error> {
        let asked_at = Instant::now();
        let (client, mut connection) = self.direct.connect("trunkline listen").await?;
        self.opened.fetch_add(1, Ordering::Release);
        let listen = async {
            prepare_session(&client, SESSION_TIMEOUT).await?;
            let server = self.servers.follow(&client, asked_at).await?;
            // A wake-up writes nothing that must survive: its commit need not wait for the disk.
            client
                .batch_execute(&format!(
                    "-- listen\nset synchronous_commit = off; listen {CHANNEL}"
                ))
                .await?;
            Ok::<_, Error>(server)
        };
        // Drives the connection only until LISTEN is done; from then on `receive` drives it.
        let driven = drive_while(&mut connection, listen);
        let server = tokio::time::timeout(SESSION_TIMEOUT, driven)
            .await
            .map_err(|_| Error::Unavailable("no answer to LISTEN in time".to_owned()))??;
        Ok(ListenSession { client: Arc::new(client), server, connection })
    }
}

impl ListenSession {
    /// What sends wake-ups over this connection, as long as somebody calls [`Self::receive`].
    pub fn sender(&self) -> NotificationSender {
        NotificationSender(self.client.clone())
    }

    /// The server that it leads to.
    pub fn server(&self) -> Server {
        self.server
    }

    /// Waits for the next wake-up. Nothing else may be waited for meanwhile: an unread
    /// notification holds up the server.
    pub async fn receive(&mut self) -> Received {
        loop {
            match poll_fn(|context| self.connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(wake_up))) => {
                    return Received::Notification(wake_up.payload().to_owned());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Received::Closed(super::error::describe(&error)),
                None => return Received::Closed("connection closed".to_owned()),
            }
        }
    }
}

impl NotificationSender {
    /// Sends a wake-up of less than 8,000 bytes to every broker, this one included.
    pub async fn send(&self, text: &str) -> Result<(), Error> {
        self.0.execute("-- wake_up\nselect pg_notify('trunkline', $1)", &[&text]).await?;
        Ok(())
    }
}
