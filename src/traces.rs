//! What is traced of the broker: calls, publishes and flushes, as spans that an OpenTelemetry collector
//! receives.
//!
//! Spans exist only for what is sampled. Anything else costs one look at its headers, and nothing at all if
//! the broker exports no traces.

mod call;
mod context;
mod export;
mod publishing;
mod tracer;

pub use call::{BegunCall, CallSpan, TracedCall};
pub use export::{Error, TraceExport};
pub use publishing::{Ending, FlushSize, FlushSpan, PublishSpan};
pub use tracer::Traces;
