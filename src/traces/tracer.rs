//! Traces of one broker.

use std::sync::Arc;

use opentelemetry::{
    Context,
    trace::{SpanBuilder, TraceContextExt as _, Tracer as _},
};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::export::{self, Error, TraceExport};
use crate::metrics::TraceMetrics;

/// Traces a broker, or nothing, which is the default. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traces {
    pub(super) tracing: Option<Arc<Tracing>>,
    pub(super) metrics: TraceMetrics,
}

/// What traces that are exported need.
pub(super) struct Tracing {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    /// The share of calls to trace of those whose clients do not say whether to.
    pub(super) sampling: f64,
}

impl Traces {
    /// Traces, and exports the spans. Must be called within a runtime, which sends them.
    pub fn start(export: &TraceExport) -> Result<Self, Error> {
        let metrics = TraceMetrics::default();
        let (provider, tracer) = export::start(export, metrics.clone())?;
        let tracing = Tracing { tracer, provider, sampling: export.sampling };
        Ok(Self { tracing: Some(Arc::new(tracing)), metrics })
    }

    /// What is measured of the spans themselves.
    pub fn metrics(&self) -> TraceMetrics {
        self.metrics.clone()
    }

    /// Sends the spans that have ended, and traces nothing more.
    pub async fn finish(self) {
        let Some(tracing) = self.tracing else { return };
        // It waits for the collector, in a thread of its own.
        let finished = tokio::task::spawn_blocking(move || {
            tracing.provider.shutdown_with_timeout(export::LAST_EXPORT_TIMEOUT)
        });
        if let Ok(Err(error)) = finished.await {
            tracing::warn!(%error, "export the last spans");
        }
    }
}

impl Tracing {
    /// Starts a span. The context returned stands for it.
    pub(super) fn start(&self, span: SpanBuilder, parent: &Context) -> Context {
        Context::new().with_span(self.tracer.build_with_context(span, parent))
    }
}
