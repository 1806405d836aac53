//! Serves a broker, and drains it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::net::TcpListener;
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tonic::service::Routes;
use tracing::{info, warn};

use super::{
    accept::Acceptor,
    admission::ConnectionLimits,
    connection::{Connection, Settings, Windows},
    descriptors,
    error::Error,
    forward_port::ForwardPort,
    health::Health,
    http::HttpPort,
    lifetime::{Ending, Lifetime},
    options::{ConnectionOptions, DEFAULT_MAX_SERIES},
    rules,
    tls::Tls,
};
use crate::{
    access::{Access, jwt::KeySource},
    broker::{Broker, Overview},
    grpc,
    http::{Http, PortCounts},
    proto,
};

/// How long another broker may leave a connection without a call.
const MAX_FORWARD_IDLE: Duration = Duration::from_secs(600);

/// How long connections may take to end once they are cut off.
const CUT_OFF_TIMEOUT: Duration = Duration::from_secs(1);

/// What is served.
pub(super) struct Server {
    pub(super) acceptor: Acceptor,
    pub(super) broker: Arc<Broker>,
    pub(super) authentication: Authentication,
    pub(super) tls: Option<Arc<Tls>>,
    /// `None` if nothing is served over HTTP.
    pub(super) http: Option<HttpPort>,
    /// `None` if other brokers forward no calls to this one.
    pub(super) forward: Option<ForwardPort>,
    pub(super) lifetime: Lifetime,
    /// How many topics, and how many consumers, metrics and overviews look at.
    pub(super) max_series: usize,
    /// How long open streams and calls may take to end.
    pub(super) drain_timeout: Duration,
}

/// Whether clients must prove who they are.
#[derive(Clone, Default)]
pub enum Authentication {
    /// Everyone may do everything.
    #[default]
    Off,
    /// Callers present a token or a certificate, and may do what they are granted. Tokens of an
    /// identity provider count if its keys are given.
    Required(Option<Arc<KeySource>>),
}

/// Serves a broker without TLS, with the default limits, until `shutdown`, then drains it: the health says so, accepted publishes are
/// answered, and streams end. Whatever is still open after `drain_timeout` is cut off.
pub async fn run(
    listener: TcpListener,
    broker: Arc<Broker>,
    drain_timeout: Duration,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    run_with(listener, broker, Authentication::Off, drain_timeout, shutdown).await
}

/// As [`run`], and says whether clients must prove who they are.
pub async fn run_with(
    listener: TcpListener,
    broker: Arc<Broker>,
    authentication: Authentication,
    drain_timeout: Duration,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    /// More than most brokers open.
    const SESSIONS: usize = 32;
    let options = ConnectionOptions::default();
    let forward = match listener.local_addr() {
        Ok(address) => Some(ForwardPort::bind((address.ip(), 0).into(), None).await?),
        Err(_) => None,
    };
    let acceptor = Acceptor::new(listener, connection_limits(&options, SESSIONS, 0));
    let lifetime = lifetime(&options);
    let server = Server {
        acceptor,
        broker,
        authentication,
        tls: None,
        http: None,
        forward,
        lifetime,
        max_series: DEFAULT_MAX_SERIES as usize,
        drain_timeout,
    };
    run_server(server, shutdown).await
}

/// The limits of the options, lowered to what the limit of open files allows beside this many
/// database sessions and connections of the HTTP port.
pub(super) fn connection_limits(
    options: &ConnectionOptions,
    sessions: usize,
    http: usize,
) -> ConnectionLimits {
    let wanted = options.max_connections.get();
    let total = wanted.min(descriptors::max_connections(sessions, http));
    if total < wanted {
        info!(total, wanted, "the limit of open files allows fewer connections");
    }
    ConnectionLimits { total, per_address: options.max_connections_per_address.get() }
}

pub(super) fn lifetime(options: &ConnectionOptions) -> Lifetime {
    let (max_idle, max_age) = (options.max_idle(), options.max_age());
    Lifetime { max_idle, max_age, age_grace: options.max_connection_age_grace }
}

/// As [`run`], with an acceptor that knows how many database sessions there are.
pub(super) async fn run_server(
    server: Server,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let Server {
        acceptor,
        broker,
        authentication,
        tls,
        http,
        forward,
        lifetime,
        max_series,
        drain_timeout,
    } = server;
    rules::check()?;
    let access = Arc::new(match authentication {
        Authentication::Off => Access::off(broker.storage()),
        Authentication::Required(keys) => {
            let built_in = broker.quotas().of_principal();
            Access::required(broker.storage(), keys, built_in).await?
        }
    });
    let (health, health_service) = Health::new().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // The details of errors, so that clients without the protos can decode them.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let overview = Arc::new(Overview::new(broker.storage(), max_series, broker.database_up()));
    let services = grpc::Services::new(broker.clone(), access.clone(), overview.clone());
    let routes = Routes::new(services.limited(health_service))
        .add_service(services.limited(reflection().build_v1()?))
        .add_service(services.limited(reflection().build_v1alpha()?))
        .add_service(services.topics())
        .add_service(services.producers())
        .add_service(services.consumers())
        .add_service(services.subscriptions())
        .add_service(services.access())
        .add_service(services.overview())
        .prepare();
    let closing = CancellationToken::new();
    let cut_off = CancellationToken::new();
    let ending = Ending { closing: closing.clone(), cut_off: cut_off.clone() };
    // Says until the end how the drain goes.
    let http_closing = CancellationToken::new();
    // Cuts connections off also when this future is dropped.
    let _cut_off = cut_off.clone().drop_guard();
    let api = grpc::Api {
        routes,
        access: access.clone(),
        audit: broker.audit(),
        metrics: services.metrics(),
        traces: broker.traces().clone(),
    };
    let serving_http = match http {
        None => None,
        Some(port) => {
            let routes = Http {
                broker: broker.clone(),
                api: api.clone(),
                port_number: port.bound().port(),
                is_encrypted: tls.is_some(),
                overview,
                shows_consumers: port.options().metrics_consumers,
                instruments: vec![
                    Box::new(services.metrics()),
                    Box::new(broker.storage().metrics()),
                    Box::new(broker.traces().metrics()),
                ],
                port: PortCounts {
                    connections: Arc::new(acceptor.counts()),
                    calls: Box::new(services.open_calls()),
                },
                host_names: port.host_names(),
                is_local: port.is_local(),
            }
            .routes();
            let ending = Ending { closing: http_closing.clone(), cut_off: cut_off.clone() };
            Some(AbortOnDropHandle::new(tokio::spawn(port.serve(routes, tls.clone(), ending))))
        }
    };
    let forwarded = async {
        let Some(ForwardPort { acceptor, tls, identity }) = forward else { return };
        identity.announce(&broker);
        let api = services.forwarded(&identity);
        let lifetime =
            Lifetime { max_idle: Some(MAX_FORWARD_IDLE), max_age: None, age_grace: Duration::ZERO };
        let windows = Windows::OF_BROKERS;
        let ending = ending.clone();
        let settings = Settings { api, tls: Some(tls), lifetime, ending, windows };
        accept_until_closing(acceptor, settings).await;
    };
    let windows = Windows::OF_CLIENTS;
    let settings = Settings { api, tls: tls.clone(), lifetime, ending: ending.clone(), windows };
    let serving = async { tokio::join!(accept_until_closing(acceptor, settings), forwarded) };
    let mut serving = std::pin::pin!(serving);
    let following_files = async {
        match &tls {
            Some(tls) => tls.follow_files().await,
            None => std::future::pending().await,
        }
    };

    tokio::select! {
        _ = &mut serving => return Ok(()),
        never = health.follow(broker.database_up(), broker.hears_others()) => match never {},
        never = following_files => match never {},
        () = shutdown => {}
    }

    info!("draining");
    let began = Instant::now();
    health.drain().await;
    broker.drain();
    closing.cancel();
    let drained = async {
        let stopped = async {
            // Before the broker closes the database.
            access.stop().await;
            broker.stop().await;
            // Clients that watch the health would keep their connections open.
            health.end_watches().await;
        };
        tokio::join!(&mut serving, stopped);
    };
    match tokio::time::timeout(drain_timeout, drained).await {
        Ok(()) => info!(took = ?began.elapsed(), "drained"),
        Err(_) => {
            warn!(after = ?drain_timeout, "cut off open connections");
            cut_off.cancel();
            // No call may use the database after it is closed.
            let _ = tokio::time::timeout(CUT_OFF_TIMEOUT, serving).await;
        }
    }
    http_closing.cancel();
    if let Some(serving) = serving_http {
        // Whoever asks over HTTP may wait for an answer, but keeps no broker from stopping.
        let _ = tokio::time::timeout(CUT_OFF_TIMEOUT, serving).await;
    }
    Ok(())
}

/// Serves new connections until `closing`, then waits for all connections to end.
async fn accept_until_closing(mut acceptor: Acceptor, settings: Settings) {
    let connections = TaskTracker::new();
    let closing = settings.ending.closing.clone();
    while let Some(accepted) = closing.run_until_cancelled(acceptor.next()).await {
        let settings = settings.clone();
        connections.spawn(Connection { accepted, settings }.serve());
    }
    // Closes the listener, so that the system refuses new clients and they go elsewhere.
    drop(acceptor);
    connections.close();
    connections.wait().await;
}
