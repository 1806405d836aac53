//! Gathers all metrics.

use std::sync::Arc;

use super::{
    catalogue::{CatalogueMetrics, TrafficMetrics},
    load::LoadMetrics,
    port::PortCounts,
    process::ProcessMetrics,
    server_state::ServerMetrics,
    shown::Shown,
};
use crate::{
    broker::{Broker, Overview},
    metrics::{Instruments, Metrics},
};

/// All metrics, and what they show of the database.
pub(super) struct Scrape {
    overview: Arc<Overview>,
    shown: Shown,
    metrics: Arc<Metrics>,
}

impl Scrape {
    pub(super) fn new(
        broker: &Arc<Broker>,
        overview: Arc<Overview>,
        instruments: &[Box<dyn Instruments>],
        port: PortCounts,
    ) -> Self {
        let shown = Shown::default();
        let mut metrics = Metrics::default();
        metrics.collect(ProcessMetrics::new());
        metrics.collect(LoadMetrics { broker: broker.clone(), port });
        for instruments in instruments {
            metrics.register(&**instruments);
        }
        metrics.register(broker.metrics());
        metrics.collect(TrafficMetrics { broker: broker.clone(), overview: overview.clone() });
        metrics.collect(CatalogueMetrics { shown: shown.clone(), overview: overview.clone() });
        metrics.collect(ServerMetrics { storage: broker.storage(), shown: shown.clone() });
        Self { overview, shown, metrics: Arc::new(metrics) }
    }

    /// All values as text. Those of the database are left out while it does not answer.
    pub(super) async fn text(&self) -> Option<String> {
        let current = self.overview.current().await;
        if let Err(error) = &current {
            tracing::warn!(%error, "read the overview for metrics");
        }
        *self.shown.write() = current.ok();
        let metrics = self.metrics.clone();
        // Ten thousand topics take some tens of milliseconds, in which nothing else may wait.
        let text = tokio::task::spawn_blocking(move || metrics.text()).await;
        text.ok()?.ok()
    }
}
