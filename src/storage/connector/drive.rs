//! The half of a connection that carries its traffic.

use std::future::poll_fn;

use tokio_postgres::{Connection, Socket};

use crate::storage::connector::tls::TlsStream;

/// A connection, encrypted or not, which does nothing unless it is polled.
pub(crate) type Driver = Connection<Socket, TlsStream>;

/// Runs a request to its end on a connection that nothing else drives.
pub(crate) async fn drive_while<T, E: From<tokio_postgres::Error>>(
    connection: &mut Driver,
    request: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::select! {
        answer = request => answer,
        error = async {
            loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return error,
                    // The request then fails by itself.
                    None => std::future::pending().await,
                }
            }
        } => Err(error.into()),
    }
}
