//! Binds the broker to a port and a database, and takes it down in good order.

mod accept;
mod cancellations;
mod connection;
mod database;
mod descriptors;
pub(crate) mod health;
mod logs;
pub mod options;
mod repeats;
mod signals;

use std::{
    io::Write as _,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tracing::{info, warn};

use crate::{
    broker::Broker,
    grpc, proto,
    storage::{self, ServerSettings},
};
use accept::Acceptor;
use connection::Ending;
use database::Database;
use options::ServeOptions;

/// Exit code where the database could not be reached, as in sysexits.h.
const EX_UNAVAILABLE: u8 = 69;

/// How often a silent client is asked whether it is there. A client that vanished without a word
/// would otherwise hold its lease for ever.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Sessions of the database besides those of [`storage::Limits`]: leases, listening, positions, the
/// probe of how sessions behave, and one for whatever an operator asks.
const OTHER_SESSIONS: usize = 5;

/// Streams for which there should be a lock each; PostgreSQL's default is 6,400 in all.
const MANY_STREAMS: i64 = 10_000;

/// How long connections that are cut off may take to end.
const CUT_OFF_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a broker could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log's filter cannot be read.
    #[error("read the log filter: {0}")]
    LogFilter(String),
    /// The file with the database's URL cannot be read.
    #[error("read {path}: {source}")]
    UrlFile {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A database URL is given, but it is empty.
    #[error(
        "read the database URL: {given} is empty; give it a URL, or leave it out for a private \
         PostgreSQL"
    )]
    EmptyUrl {
        /// The flag, variable or file.
        given: String,
    },
    /// A database URL is not text.
    #[error("read the database URL: {given} is not UTF-8")]
    UrlNotUnicode {
        /// The variable.
        given: String,
    },
    /// A database URL cannot be used.
    #[error("read the database URL of {given}: {problem}")]
    DatabaseUrl {
        /// The flag, the variable or the file that it comes from.
        given: String,
        /// Why not.
        problem: String,
    },
    /// A direct database URL names no database by itself.
    #[error(
        "use --direct-database-url: it goes with a --database-url that leads to a pooler, and there is none"
    )]
    DirectUrlAlone,
    /// The private PostgreSQL could not be started.
    #[error("start a private PostgreSQL: {0}")]
    Embedded(#[from] crate::embedded::Error),
    /// The database cannot be used.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Signals cannot be waited for.
    #[error("wait for signals: {0}")]
    Signals(std::io::Error),
    /// The reflection service cannot be built.
    #[error("build the reflection service: {}", storage::chain(.0))]
    Reflection(#[from] tonic_reflection::server::Error),
}

impl Error {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Storage(error) if error.is_transient() => EX_UNAVAILABLE.into(),
            Self::LogFilter(_)
            | Self::EmptyUrl { .. }
            | Self::UrlNotUnicode { .. }
            | Self::DatabaseUrl { .. }
            | Self::DirectUrlAlone
            | Self::Embedded(crate::embedded::Error::EmptyBinariesVariable) => 2.into(),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Runs `trunkline serve` until a signal ends it.
pub async fn serve(options: ServeOptions) -> ExitCode {
    match try_serve(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be gone too.
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
    let limits = storage::Limits {
        writers: options.writers.into(),
        queries: options.query_connections.into(),
    };
    let open = async {
        let storage = database.open(limits).await?;
        tell_encoding(&storage);
        match storage.server_settings().await {
            Ok(settings) => tell_limits(&settings, limits),
            Err(error) => warn!(%error, "ask for the database's settings"),
        }
        match storage.may_vacuum().await {
            Ok(true) => {}
            Ok(false) => warn!(
                "the broker's role may not vacuum trunkline.batch: the space of removed messages is \
                 used again only once autovacuum or the table's owner has vacuumed it; from \
                 PostgreSQL 17 on `grant maintain on trunkline.batch` lets the role do it"
            ),
            Err(error) => warn!(%error, "ask whether the role may vacuum"),
        }
        Ok::<_, Error>(storage)
    };
    let Some(storage) = shutdown.run_until_cancelled(open).await else {
        return Ok(());
    };
    let storage = storage?;
    let broker = Broker::start(storage, limits.writers).await?;
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
        "started"
    );
    #[cfg(feature = "sabotage")]
    tracing::error!("this build breaks promises if it is asked to: it is for tests alone");
    let mut stdout = std::io::stdout();
    // Whoever started us need not read it.
    let _ = writeln!(stdout, "listening on {bound}").and_then(|()| stdout.flush());
    let sessions = limits.writers + limits.queries + OTHER_SESSIONS;
    let acceptor = Acceptor::new(listener, descriptors::max_connections(sessions));
    run_on(acceptor, broker, options.drain_timeout, shutdown.cancelled()).await
}

/// Says what a database that is not UTF-8 cannot hold.
fn tell_encoding(storage: &storage::Storage) {
    let encoding = storage.encoding();
    if !storage.can_store_any_text() {
        warn!(
            encoding,
            "the database's encoding is not UTF8: headers, labels, descriptions and client names \
             with characters that it missing are refused (INVALID_ARGUMENT); payloads and keys are \
             bytes and stay as they are; create the database with encoding UTF8 to lift this"
        );
    } else if encoding != "UTF8" {
        warn!(
            encoding,
            "the database's encoding is not UTF8, and text is stored there unchecked: what other \
             programs write into it in another encoding cannot be read (INTERNAL)"
        );
    }
}

/// Says what the server's settings leave no room for, or make unsafe.
fn tell_limits(settings: &ServerSettings, limits: storage::Limits) {
    let ServerSettings { fsync, locks, free_sessions } = *settings;
    let sessions = (limits.writers + limits.queries + OTHER_SESSIONS) as i64;
    if !fsync {
        warn!("fsync is off: what was acknowledged is lost when the database's machine fails");
    }
    if free_sessions < sessions {
        warn!(free_sessions, sessions, "max_connections leaves too few sessions for this broker");
    }
    if locks < MANY_STREAMS {
        info!(
            streams = locks,
            "max_locks_per_transaction is enough for so many streams at a time on all brokers"
        );
    }
}

/// Serves a broker until `shutdown`, then drains: health says so, publishes that were taken in are
/// answered, streams end. After `drain_timeout` what is still open is cut off.
pub async fn run(
    listener: TcpListener,
    broker: Arc<Broker>,
    drain_timeout: Duration,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    /// More than most brokers open.
    const SESSIONS: usize = 32;
    let acceptor = Acceptor::new(listener, descriptors::max_connections(SESSIONS));
    run_on(acceptor, broker, drain_timeout, shutdown).await
}

async fn run_on(
    acceptor: Acceptor,
    broker: Arc<Broker>,
    drain_timeout: Duration,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let (health, health_service) = health::Health::new().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // The details of errors, so that a client without the protos can read them.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let services = grpc::Services::new(broker.clone());
    let routes = Routes::new(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(services.topics())
        .add_service(services.producers())
        .add_service(services.consumers())
        .prepare();
    let closing = CancellationToken::new();
    let cut_off = CancellationToken::new();
    let ending = Ending { closing: closing.clone(), cut_off: cut_off.clone() };
    // Also when nobody waits for the end any more.
    let _cut_off = cut_off.clone().drop_guard();
    let mut serving = std::pin::pin!(accept_until_closing(acceptor, routes, ending));

    tokio::select! {
        () = &mut serving => return Ok(()),
        never = health.follow(broker.database_up(), broker.hears_others()) => match never {},
        () = shutdown => {}
    }

    info!("draining");
    let began = Instant::now();
    health.draining().await;
    broker.drain();
    closing.cancel();
    let drained = async {
        let stopped = async {
            broker.stop().await;
            // Whoever watches the health would keep its connection open.
            health.end_watches().await;
        };
        tokio::join!(&mut serving, stopped);
    };
    match tokio::time::timeout(drain_timeout, drained).await {
        Ok(()) => info!(took = ?began.elapsed(), "drained"),
        Err(_) => {
            warn!(after = ?drain_timeout, "cut off what was still open");
            cut_off.cancel();
            // None is left that uses the database when it is closed.
            let _ = tokio::time::timeout(CUT_OFF_TIMEOUT, serving).await;
        }
    }
    Ok(())
}

/// Serves whoever comes until `closing`, then waits for the end of all connections.
async fn accept_until_closing(mut acceptor: Acceptor, routes: Routes, ending: Ending) {
    let connections = TaskTracker::new();
    while let Some(accepted) = ending.closing.run_until_cancelled(acceptor.next()).await {
        connections.spawn(connection::serve(accepted, routes.clone(), ending.clone()));
    }
    // Who comes now is refused by the system, and goes elsewhere.
    drop(acceptor);
    connections.close();
    connections.wait().await;
}
