//! Gathers all metrics.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use tokio::sync::Mutex;

use super::{
    catalogue::{CatalogueMetrics, TrafficMetrics},
    load::LoadMetrics,
    owned::OwnedMetrics,
    port::PortCounts,
    process::ProcessMetrics,
    server_state::ServerMetrics,
    shown::Shown,
};
use crate::{
    broker::{Broker, Overview},
    metrics::{Instruments, Metrics},
};

/// All metrics.
pub(super) struct Scrape {
    overview: Arc<Overview>,
    shown: Shown,
    subscriptions: OwnedMetrics,
    metrics: Arc<Metrics>,
    /// The last text, and when it was begun. Locked by whoever writes the next one.
    last: Mutex<Option<(Instant, Bytes)>>,
}

impl Scrape {
    pub(super) fn new(
        broker: &Arc<Broker>,
        overview: Arc<Overview>,
        instruments: &[Box<dyn Instruments>],
        port: PortCounts,
        shows_consumers: bool,
    ) -> Self {
        let shown = Shown::default();
        let mut metrics = Metrics::default();
        metrics.collect(ProcessMetrics::new());
        let max_series = overview.limit();
        metrics.collect(LoadMetrics { broker: broker.clone(), port, max_series, shows_consumers });
        for instruments in instruments {
            metrics.register(&**instruments);
        }
        metrics.register(broker.metrics());
        metrics.collect(TrafficMetrics { broker: broker.clone(), overview: overview.clone() });
        metrics.collect(CatalogueMetrics {
            shown: shown.clone(),
            overview: overview.clone(),
            shows_consumers,
        });
        metrics.collect(ServerMetrics { storage: broker.storage(), shown: shown.clone() });
        let max_subscriptions = if shows_consumers { max_series } else { 0 };
        let subscriptions = OwnedMetrics::new(broker.clone(), max_subscriptions);
        metrics.collect(subscriptions.clone());
        Self { overview, shown, subscriptions, metrics: Arc::new(metrics), last: Mutex::default() }
    }

    /// All values as text. Those of the database are left out while it does not answer. One text is
    /// written at a time, and all who have asked meanwhile get the next one.
    pub(super) async fn text(&self) -> Option<Bytes> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((begun, text)) = &*last
            && *begun >= asked
        {
            return Some(text.clone());
        }
        let begun = Instant::now();
        let current = self.overview.current().await;
        if let Err(error) = &current {
            tracing::warn!(%error, "read the overview for metrics");
        }
        *self.shown.write() = current.ok();
        self.subscriptions.refresh().await;
        let metrics = self.metrics.clone();
        // Ten thousand topics take some tens of milliseconds, in which nothing else may wait.
        let text = tokio::task::spawn_blocking(move || metrics.text()).await;
        let text = Bytes::from(text.ok()?.ok()?);
        *last = Some((begun, text.clone()));
        Some(text)
    }
}
