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
mod tracer;

pub use call::{BegunCall, CallSpan, TracedCall};
pub use export::{Error, TraceExport};
pub use publishing::{FlushSize, FlushSpan, PublishSpan};
pub use tracer::Traces;
