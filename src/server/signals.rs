//! SIGTERM and SIGINT: the first signal drains the broker, the second ends it at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::error::Error;

/// Returns a token that is cancelled at the first signal.
pub(super) fn shutdown() -> Result<CancellationToken, Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let shutdown = CancellationToken::new();
    let first = shutdown.clone();
    // Never joined: it ends with the process.
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let signal = next().await;
        tracing::info!(signal, "stopping");
        first.cancel();
        let signal = next().await;
        tracing::warn!(signal, "exit at once");
        std::process::exit(130);
    });
    Ok(shutdown)
}
