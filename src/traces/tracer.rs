//! Traces of one broker.

use std::sync::Arc;

use opentelemetry::{
    Context,
    trace::{SpanBuilder, TraceContextExt as _, Tracer as _},
};
use opentelemetry_sdk::trace::SdkTracer;

use super::export::{self, Error, Export, TraceExport};
use crate::metrics::TraceMetrics;

/// Traces a broker, or nothing, which is the default. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traces(Arc<State>);

#[derive(Default)]
struct State {
    tracing: Option<Tracing>,
    metrics: Arc<TraceMetrics>,
}

/// What traces that are exported need.
pub(super) struct Tracing {
    tracer: SdkTracer,
    export: Export,
    /// The share of calls to trace of those whose clients do not say whether to.
    pub(super) sampling: f64,
}

impl Traces {
    /// Traces, and exports the spans. Must be called within a runtime, which sends them.
    pub fn start(to: &TraceExport) -> Result<Self, Error> {
        let metrics = Arc::<TraceMetrics>::default();
        let (tracer, export) = export::start(to, metrics.clone())?;
        let tracing = Some(Tracing { tracer, export, sampling: to.sampling });
        Ok(Self(Arc::new(State { tracing, metrics })))
    }

    /// Whether anything is traced.
    pub fn are_on(&self) -> bool {
        self.0.tracing.is_some()
    }

    /// What is measured of the spans themselves.
    pub fn metrics(&self) -> Arc<TraceMetrics> {
        self.0.metrics.clone()
    }

    /// Sends the spans that have ended, and traces nothing more.
    pub async fn finish(&self) {
        if let Some(tracing) = &self.0.tracing {
            tracing.export.finish().await;
        }
    }

    /// `None` if nothing is traced.
    pub(super) fn tracing(&self) -> Option<&Tracing> {
        self.0.tracing.as_ref()
    }
}

impl Tracing {
    /// Starts a span. The context returned stands for it.
    pub(super) fn start(&self, span: SpanBuilder, parent: &Context) -> Context {
        Context::new().with_span(self.tracer.build_with_context(span, parent))
    }
}
