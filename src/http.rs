//! What the broker serves over HTTP: whether it is well, and its metrics.

mod catalogue;
mod health;
mod host;
mod host_names;
mod load;
mod metrics;
mod port;
mod process;
mod scrape;
mod server_state;
mod shown;
mod state;

use std::sync::Arc;

use axum::{Router, middleware, routing::get};

use crate::{
    access::Access,
    broker::{Broker, Overview, OverviewLimits},
    metrics::Instruments,
};

pub use host_names::HostNames;
pub use port::{Client, ConnectionCounts, PortCounts};

use scrape::Scrape;
use state::State;

/// What is served over HTTP.
pub struct Http {
    /// The broker.
    pub broker: Arc<Broker>,
    /// Who may read the metrics, if other hosts can ask.
    pub access: Arc<Access>,
    /// How much the metrics list.
    pub limits: OverviewLimits,
    /// What is measured elsewhere.
    pub instruments: Vec<Box<dyn Instruments>>,
    /// Counts the connections of the gRPC port, and its open calls.
    pub port: PortCounts,
    /// The names that the port is asked for by; `None` if any will do.
    pub host_names: Option<HostNames>,
    /// Whether only this host can ask. Nobody then needs a token for the metrics.
    pub is_local: bool,
}

impl Http {
    /// The routes. Their requests have a [`Client`] as an extension.
    pub fn routes(self) -> Router {
        let Self { broker, access, limits, instruments, port, host_names, is_local } = self;
        let overview = Arc::new(Overview::new(broker.storage(), limits));
        let scrape = Scrape::new(&broker, overview, &instruments, port);
        let state = Arc::new(State { broker, access, scrape, host_names, is_local });
        Router::new()
            .route("/metrics", get(metrics::serve))
            .layer(middleware::from_fn_with_state(state.clone(), host::check))
            // Whoever asks whether the broker is well may call it by any name.
            .route("/livez", get(health::live))
            .route("/readyz", get(health::ready))
            .with_state(state)
    }
}
