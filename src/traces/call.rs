//! Spans of calls, named and described as OpenTelemetry's conventions for gRPC servers say.

use std::{
    net::SocketAddr,
    time::{Instant, SystemTime},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{SpanBuilder, SpanKind, Status, TraceContextExt as _},
};

use super::{context::Parent, tracer::Traces};
use crate::trace_context::{TRACEPARENT, TRACESTATE};

/// A call that has begun.
pub struct BegunCall<F> {
    /// `package.Service/Method`, or empty if there is no such method.
    pub method: &'static str,
    /// When its headers came.
    pub began: Instant,
    /// The address of its client.
    pub client: Option<SocketAddr>,
    /// Returns its metadata by name.
    pub metadata: F,
}

/// The span of a call. A call that is dropped without [`Self::end`] counts as cancelled by its client.
pub struct CallSpan {
    context: Context,
    code: &'static str,
}

/// A call that is traced, for those who serve it.
#[derive(Clone)]
pub struct TracedCall(pub(super) Context);

impl Traces {
    /// Starts the span of a call, if its client traces it, or if it is among those that the broker traces
    /// by itself.
    pub fn begin_call<'a, F>(&self, call: BegunCall<F>) -> Option<CallSpan>
    where
        F: Fn(&str) -> Option<&'a str>,
    {
        let tracing = self.tracing()?;
        let BegunCall { method, began, client, metadata } = call;
        // Probes and schema look-ups come all the time, and tell nothing.
        if !method.is_empty() && !method.starts_with("trunkline.") {
            return None;
        }
        let parent = match Parent::read(metadata(TRACEPARENT), metadata(TRACESTATE)) {
            Parent::Sampled(parent) => Context::new().with_remote_span_context(parent),
            Parent::Unknown if fastrand::f64() < tracing.sampling => Context::new(),
            Parent::Unknown | Parent::Unsampled => return None,
        };
        let method = if method.is_empty() { "_OTHER" } else { method };
        let mut attributes =
            vec![KeyValue::new("rpc.system.name", "grpc"), KeyValue::new("rpc.method", method)];
        if let Some(client) = client {
            attributes.push(KeyValue::new("client.address", client.ip().to_string()));
            attributes.push(KeyValue::new("client.port", i64::from(client.port())));
        }
        let now = SystemTime::now();
        let span = SpanBuilder::from_name(method)
            .with_kind(SpanKind::Server)
            .with_start_time(now.checked_sub(began.elapsed()).unwrap_or(now))
            .with_attributes(attributes);
        let context = tracing.start(span, &parent);
        Some(CallSpan { context, code: "CANCELLED" })
    }
}

impl CallSpan {
    /// The call, for those who serve it.
    pub fn call(&self) -> TracedCall {
        TracedCall(self.context.clone())
    }

    /// The ids of the trace and of the span, as hexadecimal digits.
    pub fn ids(&self) -> (String, String) {
        let span = self.context.span();
        let context = span.span_context();
        (context.trace_id().to_string(), context.span_id().to_string())
    }

    /// Says why the call was refused.
    pub fn refused(&self, reason: &str) {
        let reason = KeyValue::new("trunkline.refusal.reason", reason.to_owned());
        self.context.span().set_attribute(reason);
    }

    /// Ends the span of a call that ended with a code.
    pub fn end(mut self, code: &'static str) {
        self.code = code;
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        let Self { context, code } = self;
        let span = context.span();
        span.set_attribute(KeyValue::new("rpc.response.status_code", *code));
        if is_fault(code) {
            span.set_attribute(KeyValue::new("error.type", *code));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// Whether a code says that the server is at fault, by OpenTelemetry's conventions for gRPC.
fn is_fault(code: &str) -> bool {
    const FAULTS: [&str; 6] =
        ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];
    FAULTS.contains(&code)
}
