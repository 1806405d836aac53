//! `trunkline serve`, from its options to its exit code.

use std::{io::Write as _, process::ExitCode, sync::Arc};

use clap::ValueEnum as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    accept::Acceptor,
    database::Database,
    descriptors,
    error::Error,
    exposure,
    forward_port::{self, ForwardPort},
    http::{self, HttpPort},
    logs,
    options::{Auth, ServeOptions},
    run::{self, Authentication, Server},
    signals,
    tls::Tls,
};
use crate::{
    access::jwt::{KeySource, Verifier},
    broker::{Broker, Quotas},
    storage::{Limits, ServerSettings, Storage},
    traces::Traces,
};

/// Database sessions besides those of [`Limits`]: one each for leases, notifications, positions, the
/// probe of how sessions behave, and an operator.
const OTHER_SESSIONS: usize = 5;

/// Runs `trunkline serve` until a signal ends it.
pub async fn serve(options: ServeOptions) -> ExitCode {
    let format = options.logging.log_format;
    match try_serve(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(format),
    }
}

async fn try_serve(options: ServeOptions) -> Result<(), Error> {
    logs::start(&options.logging)?;
    exposure::check(&options)?;
    let tls = Tls::load(&options.tls)?.map(Arc::new);
    let keys = jwt_keys(&options).await?;
    let traces = options.traces.start()?;
    descriptors::raise_limit();
    let shutdown = signals::shutdown()?;
    let database = Database::provide(&options.database).await?;
    let outcome = serve_on(&database, &options, Secured { tls, keys }, &traces, &shutdown).await;
    let (released, ()) = tokio::join!(database.release(), traces.finish());
    released?;
    outcome
}

/// What was loaded to secure the ports.
struct Secured {
    tls: Option<Arc<Tls>>,
    keys: Option<Arc<KeySource>>,
}

async fn serve_on(
    database: &Database,
    options: &ServeOptions,
    Secured { tls, keys }: Secured,
    traces: &Traces,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let limits =
        Limits { writers: options.writers.into(), queries: options.query_connections.into() };
    let sessions = sessions(limits, options.auth);
    let open = open_storage(database, limits, sessions);
    let Some(storage) = shutdown.run_until_cancelled(open).await else {
        return Ok(());
    };
    let (storage, settings) = storage?;
    let quotas = quotas(options, settings.as_ref());
    let broker = Broker::start_traced(storage, limits.writers, quotas, traces.clone()).await?;
    let address = options.listen;
    let listener =
        TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    let http = HttpPort::bind(options).await?;
    let forward = ForwardPort::of(options).await?;
    let bound = listener.local_addr().map_err(|source| Error::Listen { address, source })?;
    info!(
        listen = %bound,
        database = database.redacted(),
        writers = options.writers,
        query_connections = options.query_connections,
        max_streams = quotas.streams,
        drain_timeout = ?options.drain_timeout,
        auth = options.auth.to_possible_value().map(|auth| auth.get_name().to_owned()),
        encrypted = tls.is_some(),
        http_listen = http.as_ref().map(|port| tracing::field::display(port.bound())),
        forward_port = forward.as_ref().map(|port| port.identity.port()),
        "started"
    );
    #[cfg(feature = "sabotage")]
    tracing::error!(hint = "it is for tests only", "this build breaks promises on request");
    let mut stdout = std::io::stdout();
    // Nobody may be reading it.
    let _ = writeln!(stdout, "listening on {bound}").and_then(|()| stdout.flush());
    if let Some(port) = &http {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = port.bound();
        let said = writeln!(stdout, "console on {scheme}://{address}");
        let _ = said.and_then(|()| stdout.flush());
    }
    let connections = &options.connections;
    let of_http = if http.is_some() { http::MAX_CONNECTIONS } else { 0 };
    let of_brokers = if forward.is_some() { forward_port::MAX_CONNECTIONS } else { 0 };
    let limits = run::connection_limits(connections, sessions, of_http + of_brokers);
    let acceptor = Acceptor::new(listener, limits);
    let lifetime = run::lifetime(connections);
    let server = Server {
        acceptor,
        broker,
        authentication: match options.auth {
            Auth::Off => Authentication::Off,
            Auth::Required => Authentication::Required(keys),
        },
        tls,
        http,
        forward,
        lifetime,
        max_series: options.http.metrics_max_series as usize,
        drain_timeout: options.drain_timeout,
    };
    run::run_server(server, shutdown.cancelled()).await
}

/// Loads the keys of the identity provider whose tokens are accepted, if there is one.
async fn jwt_keys(options: &ServeOptions) -> Result<Option<Arc<KeySource>>, Error> {
    let Some((location, expectations)) = options.jwt.expectations() else { return Ok(None) };
    if options.auth == Auth::Off {
        return Err(Error::JwtWithoutAuth);
    }
    let authorities = options.jwt.jwt_keys_ca.as_deref();
    Ok(Some(KeySource::start(location, authorities, Verifier::new(expectations)).await?))
}

/// What the options allow. Streams are limited by the database's locks if no option limits them.
fn quotas(options: &ServeOptions, settings: Option<&ServerSettings>) -> Quotas {
    let Quotas { streams: default, .. } = Quotas::default();
    let streams = match options.max_streams {
        Some(streams) => streams as usize,
        None => settings.map_or(default, |settings| Quotas::streams_for(settings.locks)),
    };
    if let Some(ServerSettings { locks, .. }) = settings.filter(|it| it.locks < streams as i64) {
        let hint = "raise max_locks_per_transaction of PostgreSQL, or lower --max-streams";
        warn!(max_streams = streams, locks, hint, "max_streams exceeds the database's locks");
    }
    Quotas {
        streams,
        topics: options.max_topics as usize,
        producers_per_topic: options.max_producers_per_topic as usize,
        consumers_per_topic: options.max_consumers_per_topic as usize,
    }
}

/// Opens the database, and logs what an operator should know of it. Returns its settings too, if
/// they can be read.
async fn open_storage(
    database: &Database,
    limits: Limits,
    sessions: usize,
) -> Result<(Storage, Option<ServerSettings>), Error> {
    let storage = database.open(limits).await?;
    warn_of_encoding(&storage);
    let settings = storage.server_settings().await;
    match &settings {
        Ok(settings) => warn_of_settings(settings, sessions),
        Err(error) => warn!(%error, "read the database's settings"),
    }
    match storage.may_vacuum("batch").await {
        Ok(true) => {}
        Ok(false) => {
            let hint = "the space of removed messages is reused only after autovacuum or the \
                        table's owner has vacuumed it; from PostgreSQL 17 on, `grant maintain on \
                        trunkline.batch` lets the role do it";
            warn!(hint, "the role may not vacuum trunkline.batch");
        }
        Err(error) => warn!(%error, "check whether the role may vacuum"),
    }
    Ok((storage, settings.ok()))
}

fn sessions(limits: Limits, auth: Auth) -> usize {
    // One more keeps the copies of tokens, grants and owners up to date.
    limits.writers + limits.queries + OTHER_SESSIONS + usize::from(auth == Auth::Required)
}

/// Warns of what a database that is not UTF-8 cannot hold.
fn warn_of_encoding(storage: &Storage) {
    let encoding = storage.encoding();
    if !storage.can_store_any_text() {
        let hint = "headers, labels, descriptions and client names with characters that it lacks \
                    are refused (INVALID_ARGUMENT); payloads and keys are bytes and stay as they \
                    are; create the database with encoding UTF8 to lift this";
        warn!(encoding, hint, "the database's encoding is not UTF8");
    } else if encoding != "UTF8" {
        let hint = "it stores text unchecked: text that other programs wrote in another encoding \
                    cannot be read (INTERNAL)";
        warn!(encoding, hint, "the database's encoding is not UTF8");
    }
}

/// Warns of settings of the server that are unsafe or too low.
fn warn_of_settings(settings: &ServerSettings, sessions: usize) {
    let ServerSettings { fsync, free_sessions, .. } = *settings;
    let sessions = sessions as i64;
    if !fsync {
        let hint = "acknowledged messages are lost when the database's machine fails";
        warn!(hint, "fsync is off");
    }
    if free_sessions < sessions {
        let hint = "raise max_connections of PostgreSQL";
        warn!(free_sessions, sessions, hint, "max_connections leaves too few sessions");
    }
}
