//! What the broker serves over HTTP: whether it is well, its metrics, and a console for people.

mod catalogue;
mod console;
mod health;
mod host;
mod host_names;
mod load;
mod metrics;
mod owned;
mod port;
mod process;
mod scrape;
mod server_state;
mod shown;
mod state;

use std::sync::Arc;

use axum::{Router, middleware, routing::get};
use tokio::sync::Semaphore;

use crate::{
    broker::{Broker, Overview},
    grpc,
    metrics::Instruments,
};

pub use host_names::HostNames;
pub use port::{Client, ConnectionCounts, PortCounts};

use console::Console;
use scrape::Scrape;
use state::State;

/// What is served over HTTP.
pub struct Http {
    /// The broker.
    pub broker: Arc<Broker>,
    /// The API, which the console uses as its visitors, and who may use it.
    pub api: grpc::Api,
    /// What there is in the database. Metrics have series for as many topics and consumers as it lists.
    pub overview: Arc<Overview>,
    /// Whether metrics have series for consumers.
    pub shows_consumers: bool,
    /// What is measured elsewhere.
    pub instruments: Vec<Box<dyn Instruments>>,
    /// Counts the connections of the gRPC port, and its open calls.
    pub port: PortCounts,
    /// The names that the port is asked for by; `None` if any will do.
    pub host_names: Option<HostNames>,
    /// The number of the port.
    pub port_number: u16,
    /// Whether clients reach the port by TLS.
    pub is_encrypted: bool,
    /// Whether only this host can ask. Nobody then needs a token for the metrics.
    pub is_local: bool,
}

impl Http {
    /// The routes. Their requests have a [`Client`] as an extension.
    pub fn routes(self) -> Router {
        let Self { broker, api, overview, instruments, port, .. } = self;
        let Self { host_names, is_local, is_encrypted, .. } = self;
        let (access, connections) = (api.access.clone(), port.connections.clone());
        let scrape =
            Scrape::new(&broker, overview.clone(), &instruments, port, self.shows_consumers);
        let unread_metrics = Arc::new(Semaphore::new(metrics::MAX_UNREAD));
        let console = Console::new(
            broker.clone(),
            overview,
            api,
            connections,
            is_encrypted,
            self.port_number,
        );
        if console.is_none() {
            tracing::warn!(error = "the system has no random numbers", "serve no console");
        }
        let state =
            Arc::new(State { broker, access, scrape, unread_metrics, host_names, is_local });
        let pages = console.map(Console::routes).unwrap_or_default();
        let checked = Router::new()
            .route("/metrics", get(metrics::serve))
            .with_state(state.clone())
            .merge(pages)
            .layer(middleware::from_fn_with_state(state.clone(), host::check));
        // Whoever asks whether the broker is well may call it by any name.
        Router::new()
            .route("/livez", get(health::live))
            .route("/readyz", get(health::ready))
            .with_state(state)
            .merge(checked)
    }
}
