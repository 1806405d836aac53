//! Contexts that clients pass on, as the W3C's Trace Context writes them: in the metadata of a call, and
//! in the headers of a message.

use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{SpanContext, TraceContextExt as _},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// What a client says about tracing.
pub(super) enum Parent {
    /// Nothing, or nothing that makes sense.
    Unknown,
    /// That it traces.
    Sampled(SpanContext),
    /// That it does not trace.
    Unsampled,
}

/// The headers of a context.
struct Headers<'a> {
    traceparent: &'a str,
    tracestate: Option<&'a str>,
}

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        match name {
            TRACEPARENT => Some(self.traceparent),
            TRACESTATE => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

impl Parent {
    /// Reads headers.
    pub(super) fn read<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Self {
        let Some(traceparent) = header(TRACEPARENT) else { return Self::Unknown };
        let headers = Headers { traceparent, tracestate: header(TRACESTATE) };
        let none = Context::new();
        let context = TraceContextPropagator::new().extract_with_context(&none, &headers);
        let context = context.span().span_context().clone();
        match (context.is_valid(), context.is_sampled()) {
            (true, true) => Self::Sampled(context),
            (true, false) => Self::Unsampled,
            (false, _) => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn read(traceparent: &str) -> Parent {
        Parent::read(|name| (name == TRACEPARENT).then_some(traceparent))
    }

    #[test]
    fn a_context_counts_only_if_it_is_valid() {
        let Parent::Sampled(context) = read(&format!("00-{TRACE}-00f067aa0ba902b7-01")) else {
            panic!("it is sampled")
        };
        assert_eq!(context.trace_id().to_string(), TRACE);
        assert_eq!(context.span_id().to_string(), "00f067aa0ba902b7");
        let unsampled = read(&format!("00-{TRACE}-00f067aa0ba902b7-00"));
        assert!(matches!(unsampled, Parent::Unsampled));
        for wrong in [
            "",
            "00",
            "planted",
            &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            &format!("00-{TRACE}-0000000000000000-01"),
            &format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            &format!("00-{}-00f067aa0ba902b7-01", "g".repeat(32)),
            &"x".repeat(16 * 1024),
        ] {
            assert!(matches!(read(wrong), Parent::Unknown), "{wrong}");
        }
        assert!(matches!(Parent::read(|_| None), Parent::Unknown));
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_stranger_sends_is_read_or_ignored(
            traceparent in "(\\PC|[0-9a-f]{1,16}|-){0,12}",
            tracestate in "(\\PC|[a-z=,@ ]){0,40}",
        ) {
            let header = |name: &str| Some(match name {
                TRACEPARENT => traceparent.as_str(),
                _ => tracestate.as_str(),
            });
            if let Parent::Sampled(context) = Parent::read(header) {
                proptest::prop_assert!(context.is_valid() && context.is_sampled());
            }
            // A valid one, with whatever stands beside it.
            let sampled = format!("00-{TRACE}-00f067aa0ba902b7-01");
            let header = |name: &str| Some(if name == TRACEPARENT { sampled.as_str() } else { tracestate.as_str() });
            proptest::prop_assert!(matches!(Parent::read(header), Parent::Sampled(_)));
        }
    }
}
