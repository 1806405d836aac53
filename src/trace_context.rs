//! The W3C's Trace Context: how headers pass the context of a span on.

use std::str::FromStr as _;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// The header with the ids of a trace and of a span.
pub const TRACEPARENT: &str = "traceparent";

/// The header with what vendors add to them.
pub const TRACESTATE: &str = "tracestate";

/// Reads the two headers; `None` if the first is not valid. The second counts only if it is.
pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<SpanContext> {
    let digits = |part: &str, length: usize| {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        part.len() == length && part.bytes().all(is_hex)
    };
    let mut parts = traceparent.split('-');
    let [version, trace, span, flags] =
        [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let is_well_formed =
        digits(version, 2) && digits(trace, 32) && digits(span, 16) && digits(flags, 2);
    // Later versions may append something.
    if !is_well_formed || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let state = tracestate.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
    let context = SpanContext::new(trace, span, flags, true, state);
    context.is_valid().then_some(context)
}

/// Writes the first header.
pub fn traceparent(context: &SpanContext) -> String {
    let flags = context.trace_flags().to_u8();
    format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id())
}
