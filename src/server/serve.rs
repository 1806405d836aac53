//! `trunkline serve`, from its options to its exit code.

use std::{io::Write as _, process::ExitCode};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    accept::Acceptor,
    database::Database,
    descriptors,
    error::Error,
    logs,
    options::ServeOptions,
    run::{self, Server},
    signals,
};
use crate::{
    broker::Broker,
    storage::{Limits, ServerSettings, Storage},
};

/// Database sessions besides those of [`Limits`]: one each for leases, notifications, positions, the
/// probe of how sessions behave, and an operator.
const OTHER_SESSIONS: usize = 5;

/// The number of streams that the database should have locks for; PostgreSQL's default settings
/// allow 6,400 locks.
const MANY_STREAMS: i64 = 10_000;

/// Runs `trunkline serve` until a signal ends it.
pub async fn serve(options: ServeOptions) -> ExitCode {
    match try_serve(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed as well.
            let _ = writeln!(std::io::stderr(), "trunkline: {error}");
            error.exit_code()
        }
    }
}

async fn try_serve(options: ServeOptions) -> Result<(), Error> {
    logs::start(&options)?;
    descriptors::raise_limit();
    let shutdown = signals::shutdown()?;
    let database = Database::provide(&options).await?;
    let outcome = serve_on(&database, &options, &shutdown).await;
    database.release().await?;
    outcome
}

async fn serve_on(
    database: &Database,
    options: &ServeOptions,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let limits =
        Limits { writers: options.writers.into(), queries: options.query_connections.into() };
    let open = open_storage(database, limits);
    let Some(storage) = shutdown.run_until_cancelled(open).await else {
        return Ok(());
    };
    let broker = Broker::start(storage?, limits.writers).await?;
    let address = options.listen;
    let listener =
        TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    let bound = listener.local_addr().map_err(|source| Error::Listen { address, source })?;
    info!(
        listen = %bound,
        database = database.redacted(),
        writers = options.writers,
        query_connections = options.query_connections,
        drain_timeout = ?options.drain_timeout,
        auth = ?options.auth,
        "started"
    );
    #[cfg(feature = "sabotage")]
    tracing::error!("this build breaks promises on request: it is for tests only");
    let mut stdout = std::io::stdout();
    // Nobody may be reading it.
    let _ = writeln!(stdout, "listening on {bound}").and_then(|()| stdout.flush());
    let acceptor = Acceptor::new(listener, descriptors::max_connections(sessions(limits)));
    let authentication = options.auth.into();
    let server = Server { acceptor, broker, authentication, drain_timeout: options.drain_timeout };
    run::run_server(server, shutdown.cancelled()).await
}

/// Opens the database, and logs what an operator should know of it.
async fn open_storage(database: &Database, limits: Limits) -> Result<Storage, Error> {
    let storage = database.open(limits).await?;
    warn_of_encoding(&storage);
    match storage.server_settings().await {
        Ok(settings) => warn_of_settings(&settings, limits),
        Err(error) => warn!(%error, "read the database's settings"),
    }
    match storage.may_vacuum().await {
        Ok(true) => {}
        Ok(false) => warn!(
            "the broker's role may not vacuum trunkline.batch: the space of removed messages is \
             reused only after autovacuum or the table's owner has vacuumed it; from PostgreSQL 17 \
             on, `grant maintain on trunkline.batch` lets the role do it"
        ),
        Err(error) => warn!(%error, "check whether the role may vacuum"),
    }
    Ok(storage)
}

fn sessions(limits: Limits) -> usize {
    limits.writers + limits.queries + OTHER_SESSIONS
}

/// Warns of what a database that is not UTF-8 cannot hold.
fn warn_of_encoding(storage: &Storage) {
    let encoding = storage.encoding();
    if !storage.can_store_any_text() {
        warn!(
            encoding,
            "the database's encoding is not UTF8: headers, labels, descriptions and client names \
             with characters that it lacks are refused (INVALID_ARGUMENT); payloads and keys are \
             bytes and stay as they are; create the database with encoding UTF8 to lift this"
        );
    } else if encoding != "UTF8" {
        warn!(
            encoding,
            "the database's encoding is not UTF8, and it stores text unchecked: text that other \
             programs wrote in another encoding cannot be read (INTERNAL)"
        );
    }
}

/// Warns of settings of the server that are unsafe or too low.
fn warn_of_settings(settings: &ServerSettings, limits: Limits) {
    let ServerSettings { fsync, locks, free_sessions } = *settings;
    let sessions = sessions(limits) as i64;
    if !fsync {
        warn!("fsync is off: acknowledged messages are lost when the database's machine fails");
    }
    if free_sessions < sessions {
        warn!(free_sessions, sessions, "max_connections leaves too few sessions for this broker");
    }
    if locks < MANY_STREAMS {
        info!(
            streams = locks,
            "max_locks_per_transaction limits the concurrent streams of all brokers"
        );
    }
}
