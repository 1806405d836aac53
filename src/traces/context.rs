//! What clients say about tracing: in the metadata of a call, and in the headers of a message.

use opentelemetry::trace::SpanContext;

use crate::trace_context::parse;

/// The longest `tracestate` that is passed on, which is what the W3C asks for.
const LONGEST_STATE: usize = 512;

/// What a client says about tracing.
pub(super) enum Parent {
    /// Nothing, or nothing that makes sense.
    Unknown,
    /// That it traces.
    Sampled(SpanContext),
    /// That it does not trace.
    Unsampled,
}

impl Parent {
    /// Reads the two headers.
    pub(super) fn read(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let tracestate = tracestate.filter(|state| state.len() <= LONGEST_STATE);
        match traceparent.and_then(|traceparent| parse(traceparent, tracestate)) {
            None => Self::Unknown,
            Some(context) if context.is_sampled() => Self::Sampled(context),
            Some(_) => Self::Unsampled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn read(traceparent: &str) -> Parent {
        Parent::read(Some(traceparent), None)
    }

    #[test]
    fn a_context_counts_only_if_it_is_valid() {
        for flags in ["01", "03"] {
            let Parent::Sampled(context) = read(&format!("00-{TRACE}-00f067aa0ba902b7-{flags}"))
            else {
                panic!("it is sampled")
            };
            assert_eq!(context.trace_id().to_string(), TRACE);
            assert_eq!(context.span_id().to_string(), "00f067aa0ba902b7");
        }
        let later = read(&format!("cc-{TRACE}-00f067aa0ba902b7-01-more"));
        assert!(matches!(later, Parent::Sampled(_)));
        let unsampled = read(&format!("00-{TRACE}-00f067aa0ba902b7-00"));
        assert!(matches!(unsampled, Parent::Unsampled));
        for wrong in [
            "",
            "00",
            "planted",
            "0-1-1-+1",
            &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            &format!("00-{TRACE}-0000000000000000-01"),
            &format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            &format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            &format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            &format!("00-{}-00f067aa0ba902b7-01", "g".repeat(32)),
            &"x".repeat(16 * 1024),
        ] {
            assert!(matches!(read(wrong), Parent::Unknown), "{wrong}");
        }
        assert!(matches!(Parent::read(None, Some("a=b")), Parent::Unknown));
    }

    #[test]
    fn what_stands_beside_a_context_is_kept_if_it_is_short() {
        let sampled = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let state = |state: &str| match Parent::read(Some(&sampled), Some(state)) {
            Parent::Sampled(context) => context.trace_state().header(),
            _ => panic!("it is sampled"),
        };
        assert_eq!(state("a=b,c=d"), "a=b,c=d");
        assert_eq!(state(&format!("a={}", "x".repeat(600))), "");
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_stranger_sends_is_read_or_ignored(
            traceparent in "(\\PC|[0-9a-f]{1,16}|-){0,12}",
            tracestate in "(\\PC|[a-z=,@ ]){0,40}",
        ) {
            if let Parent::Sampled(context) = Parent::read(Some(&traceparent), Some(&tracestate)) {
                proptest::prop_assert!(context.is_valid() && context.is_sampled());
            }
            // A valid one, with whatever stands beside it.
            let sampled = format!("00-{TRACE}-00f067aa0ba902b7-01");
            let read = Parent::read(Some(&sampled), Some(&tracestate));
            proptest::prop_assert!(matches!(read, Parent::Sampled(_)));
        }
    }
}
