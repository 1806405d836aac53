//! Serves a broker, and drains it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tracing::{info, warn};

use super::{
    accept::Acceptor,
    connection::{Connection, Ending},
    descriptors,
    error::Error,
    health::Health,
};
use crate::{broker::Broker, grpc, proto};

/// How long connections may take to end once they are cut off.
const CUT_OFF_TIMEOUT: Duration = Duration::from_secs(1);

/// What is served.
pub(super) struct Server {
    pub(super) acceptor: Acceptor,
    pub(super) broker: Arc<Broker>,
    /// How long open streams and calls may take to end.
    pub(super) drain_timeout: Duration,
}

/// Serves a broker until `shutdown`, then drains it: the health says so, accepted publishes are
/// answered, and streams end. Whatever is still open after `drain_timeout` is cut off.
pub async fn run(
    listener: TcpListener,
    broker: Arc<Broker>,
    drain_timeout: Duration,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    /// More than most brokers open.
    const SESSIONS: usize = 32;
    let acceptor = Acceptor::new(listener, descriptors::max_connections(SESSIONS));
    run_server(Server { acceptor, broker, drain_timeout }, shutdown).await
}

/// As [`run`], with an acceptor that knows how many database sessions there are.
pub(super) async fn run_server(
    server: Server,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let Server { acceptor, broker, drain_timeout } = server;
    let (health, health_service) = Health::new().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // The details of errors, so that clients without the protos can decode them.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let services = grpc::Services::new(broker.clone());
    let routes = Routes::new(services.limited(health_service))
        .add_service(services.limited(reflection().build_v1()?))
        .add_service(services.limited(reflection().build_v1alpha()?))
        .add_service(services.topics())
        .add_service(services.producers())
        .add_service(services.consumers())
        .prepare();
    let closing = CancellationToken::new();
    let cut_off = CancellationToken::new();
    let ending = Ending { closing: closing.clone(), cut_off: cut_off.clone() };
    // Cuts connections off also when this future is dropped.
    let _cut_off = cut_off.clone().drop_guard();
    let mut serving = std::pin::pin!(accept_until_closing(acceptor, routes, ending));

    tokio::select! {
        () = &mut serving => return Ok(()),
        never = health.follow(broker.database_up(), broker.hears_others()) => match never {},
        () = shutdown => {}
    }

    info!("draining");
    let began = Instant::now();
    health.drain().await;
    broker.drain();
    closing.cancel();
    let drained = async {
        let stopped = async {
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
    Ok(())
}

/// Serves new connections until `closing`, then waits for all connections to end.
async fn accept_until_closing(mut acceptor: Acceptor, routes: Routes, ending: Ending) {
    let connections = TaskTracker::new();
    while let Some(accepted) = ending.closing.run_until_cancelled(acceptor.next()).await {
        let (routes, ending) = (routes.clone(), ending.clone());
        connections.spawn(Connection { accepted, routes, ending }.serve());
    }
    // Closes the listener, so that the system refuses new clients and they go elsewhere.
    drop(acceptor);
    connections.close();
    connections.wait().await;
}
