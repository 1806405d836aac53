//! What is traced of the broker: calls, publishes and flushes, as spans that an OpenTelemetry collector
//! receives.
//!
//! Spans exist only for what is sampled. What is not costs a look at its headers, and nothing at all if
//! the broker exports no traces. Spans are sent from a queue that is bounded: if the collector is slow or
//! away, spans are dropped, and calls are not held up.

mod call;
mod context;
mod export;
mod publishing;

use std::sync::Arc;

use opentelemetry::{
    Context,
    trace::{SpanBuilder, TraceContextExt as _, Tracer as _},
};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use crate::metrics::TraceMetrics;

pub use call::{BegunCall, CallSpan, TracedCall};
pub use export::{Error, TraceExport};
pub use publishing::{FlushSize, FlushSpan, PublishSpan};

/// Traces a broker, or nothing, which is the default. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traces {
    tracing: Option<Arc<Tracing>>,
    metrics: TraceMetrics,
}

/// What traces that are exported need.
struct Tracing {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    /// The share of calls to trace of those whose clients do not say whether to.
    sampling: f64,
}

impl Traces {
    /// Traces, and exports the spans. Must be called within a runtime, which sends them.
    pub fn start(export: &TraceExport) -> Result<Self, Error> {
        let metrics = TraceMetrics::default();
        let tracing = Some(Arc::new(export::start(export, metrics.clone())?));
        Ok(Self { tracing, metrics })
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
    fn start(&self, span: SpanBuilder, parent: &Context) -> Context {
        Context::new().with_span(self.tracer.build_with_context(span, parent))
    }
}
