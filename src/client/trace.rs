//! Traces that follow messages: OpenTelemetry contexts in their headers.
//!
//! This needs the feature `otel`, and a tracer provider that the program has set with
//! `opentelemetry::global::set_tracer_provider`. With `tracing-opentelemetry`, its layer activates the
//! context of each `tracing` span, which is all that is needed. The program and this library must use the
//! same version of OpenTelemetry, which [`opentelemetry`] is: of another version, there is another provider.
//!
//! * **Publishing**: while a span that is sampled is active, [`Producer::send`](super::Producer::send) and
//!   [`Producer::publish`](super::Producer::publish) start a span `send TOPIC` under it, which ends with the
//!   broker's answer, and write its context into the message's header `traceparent`. A message that has
//!   that header already keeps it. Nothing is written for a span that is not sampled, as a message without
//!   headers takes a faster way through the broker. A task that is spawned has no active span by itself.
//! * **Calls**, such as `client.producers().publish(…)`, carry the active span's context as metadata, if it
//!   is sampled. A broker that exports traces adds its own span of the call.
//! * **Consuming**: [`process_span`] starts the span of what a program does with messages. It links to the
//!   spans that sent them: a link, as one batch may hold messages of many traces. It ends when the last
//!   clone of its context is dropped.
//!
//! ```no_run
//! # async fn example(mut consumer: trunkline::client::Consumer) -> Result<(), trunkline::client::Error> {
//! use trunkline::client::{Event, trace::{opentelemetry::trace::FutureExt as _, process_span}};
//!
//! while let Some(event) = consumer.next_event().await {
//!     if let Event::Messages(messages) = event? {
//!         let span = process_span("orders", "billing", &messages);
//!         async {
//!             for message in &messages {
//!                 println!("{}", message.offset);
//!                 consumer.commit(message);
//!             }
//!         }
//!         .with_context(span)
//!         .await;
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use std::collections::{BTreeMap, HashSet};

pub use opentelemetry;

use opentelemetry::{
    Context, InstrumentationScope, KeyValue,
    global::{self, BoxedSpan, BoxedTracer},
    trace::{Link, Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _},
};
use tonic::metadata::MetadataMap;

use super::{error::Error, message::Message};
use crate::{
    proto::{MAX_HEADERS, NewMessage},
    trace_context::{TRACEPARENT, TRACESTATE, parse, traceparent},
};

/// How many messages a span links to. OpenTelemetry keeps 128 links by default.
const MAX_LINKS: usize = 128;

/// Writes a context into a message's headers, if it is sampled, and the message has no context and room
/// for one. [`Producer`](super::Producer) does this by itself. Returns whether it was written.
pub fn inject(context: &SpanContext, message: &mut NewMessage) -> bool {
    let fits = message.headers.len() + 2 <= MAX_HEADERS;
    if !is_sampled(context) || !fits || message.headers.contains_key(TRACEPARENT) {
        return false;
    }
    // Of another trace, if there is one.
    let before = message.headers.remove(TRACESTATE);
    message.headers.insert(TRACEPARENT.to_owned(), traceparent(context));
    let state = context.trace_state().header();
    if !state.is_empty() {
        message.headers.insert(TRACESTATE.to_owned(), state);
    }
    if message.check().is_err() {
        // It would be too large with them.
        message.headers.remove(TRACEPARENT);
        message.headers.remove(TRACESTATE);
        message.headers.extend(before.map(|state| (TRACESTATE.to_owned(), state)));
        return false;
    }
    true
}

/// The context in a message's headers, if it is valid.
pub fn extract(headers: &BTreeMap<String, String>) -> Option<SpanContext> {
    parse(headers.get(TRACEPARENT)?, headers.get(TRACESTATE).map(String::as_str))
}

/// Starts the span of processing messages of one topic, which links to the spans that sent them, if these
/// were sampled. Returns the current context with that span.
pub fn process_span(topic: &str, consumer_id: &str, messages: &[Message]) -> Context {
    let mut known = HashSet::new();
    let senders = messages.iter().filter_map(|message| extract(&message.headers));
    let senders = senders.filter(SpanContext::is_sampled);
    let senders = senders.filter(|sender| known.insert((sender.trace_id(), sender.span_id())));
    let links = senders.take(MAX_LINKS).map(Link::with_context).collect();
    let mut attributes = attributes("process", topic);
    attributes.push(KeyValue::new("messaging.consumer.group.name", consumer_id.to_owned()));
    match messages {
        [one] => attributes.push(KeyValue::new("messaging.message.id", one.offset.to_string())),
        _ => {
            let count = KeyValue::new("messaging.batch.message_count", messages.len() as i64);
            attributes.push(count);
        }
    }
    let tracer = tracer();
    let span = tracer
        .span_builder(format!("process {topic}"))
        .with_kind(SpanKind::Consumer)
        .with_attributes(attributes)
        .with_links(links)
        .start(&tracer);
    Context::current_with_span(span)
}

/// The span of sending a message, until it is answered. If it is dropped before, nobody waits any more.
#[derive(Debug)]
pub(super) struct SendSpan(BoxedSpan);

impl SendSpan {
    /// Starts a span, and writes its context into the message, if a span is active that is sampled.
    pub(super) fn start(topic: &str, message: &mut NewMessage) -> Option<Self> {
        let is_active = Context::map_current(|current| is_sampled(current.span().span_context()));
        if !is_active || message.headers.contains_key(TRACEPARENT) {
            return None;
        }
        let tracer = tracer();
        let span = tracer.span_builder(format!("send {topic}")).with_kind(SpanKind::Producer);
        let span = span.with_attributes(attributes("send", topic)).start(&tracer);
        // The provider may have dropped it.
        inject(span.span_context(), message);
        Some(Self(span))
    }

    /// Ends the span with the message's offset, or with why it was not stored.
    pub(super) fn end(mut self, outcome: Result<i64, &Error>) {
        match outcome {
            Ok(offset) => {
                let id = KeyValue::new("messaging.message.id", offset.to_string());
                self.0.set_attribute(id);
            }
            Err(error) => {
                let kind = match error {
                    Error::Invalid { .. } => "INVALID",
                    Error::Refused(refusal) => &refusal.reason_or_code(),
                    Error::Lost { .. } => "LOST",
                    Error::Closed => "CLOSED",
                };
                self.fail(kind, error.to_string());
            }
        }
        self.0.end();
    }

    fn fail(&mut self, kind: &str, error: String) {
        self.0.set_attribute(KeyValue::new("error.type", kind.to_owned()));
        self.0.set_status(Status::error(error));
    }
}

impl Drop for SendSpan {
    fn drop(&mut self) {
        // After its end, nothing changes any more.
        self.fail("CANCELLED", "it was given up before it was sent".to_owned());
        self.0.end();
    }
}

/// Adds the active span's context to the metadata of a call, if it is sampled.
pub(super) fn pass_on(metadata: &mut MetadataMap) {
    Context::map_current(|current| {
        let span = current.span();
        let context = span.span_context();
        if !is_sampled(context) || metadata.contains_key(TRACEPARENT) {
            return;
        }
        if let Ok(value) = traceparent(context).parse() {
            metadata.insert(TRACEPARENT, value);
        }
        let state = context.trace_state().header();
        if !state.is_empty()
            && let Ok(value) = state.parse()
        {
            metadata.insert(TRACESTATE, value);
        }
    });
}

fn tracer() -> BoxedTracer {
    let scope = InstrumentationScope::builder("trunkline");
    global::tracer_with_scope(scope.with_version(env!("CARGO_PKG_VERSION")).build())
}

/// What OpenTelemetry's conventions for messaging say of every span.
fn attributes(operation: &'static str, topic: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "trunkline"),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.operation.type", operation),
        KeyValue::new("messaging.destination.name", topic.to_owned()),
    ]
}

fn is_sampled(context: &SpanContext) -> bool {
    context.is_valid() && context.is_sampled()
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceState;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_context_survives_its_way_through_a_message() {
        let sent = extract(&headers(&[(TRACEPARENT, EXAMPLE), (TRACESTATE, "a=b,c=d")]));
        let mut message = NewMessage::new("x");
        assert!(inject(&sent.clone().unwrap(), &mut message));
        assert_eq!(message.headers[TRACEPARENT], EXAMPLE);
        assert_eq!(message.headers[TRACESTATE], "a=b,c=d");
        assert_eq!(extract(&message.headers), sent);
        // What stood beside another context goes.
        let mut message = NewMessage::new("x").with_header(TRACESTATE, "of=another");
        assert!(inject(&parse(EXAMPLE, None).unwrap(), &mut message));
        assert_eq!(message.headers, headers(&[(TRACEPARENT, EXAMPLE)]));
        // A later version.
        let later = format!("cc{}-what-follows", &EXAMPLE[2..]);
        assert!(extract(&headers(&[(TRACEPARENT, &later)])).is_some());
    }

    #[test]
    fn what_is_not_a_context_is_none() {
        for wrong in [
            "",
            "planted",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473\u{e4}-00f067aa0ba902b7-01",
            "0-1-1-+1",
        ] {
            assert_eq!(extract(&headers(&[(TRACEPARENT, wrong)])), None, "{wrong}");
        }
        assert_eq!(extract(&BTreeMap::new()), None);
        // What stands beside it is read only if it is valid.
        let beside = headers(&[(TRACEPARENT, EXAMPLE), (TRACESTATE, "\u{1}")]);
        assert_eq!(extract(&beside).unwrap().trace_state(), &TraceState::default());
    }

    #[test]
    fn a_message_takes_a_context_only_if_it_is_sampled_and_fits() {
        let sampled = parse(EXAMPLE, None).unwrap();
        let unsampled = parse(&EXAMPLE.replace("-01", "-00"), None).unwrap();
        let full = (0..63).fold(NewMessage::new(""), |m, n| m.with_header(n.to_string(), ""));
        let long = NewMessage::new("").with_header("n", "v".repeat(16 * 1024 - 10));
        let own = NewMessage::new("").with_header(TRACEPARENT, "my own");
        let state = long.clone().with_header(TRACESTATE, "my own");
        let plain = NewMessage::new("");
        for (context, message) in [
            (&sampled, full),
            (&sampled, long),
            (&sampled, own),
            (&sampled, state),
            (&unsampled, plain.clone()),
            (&SpanContext::empty_context(), plain),
        ] {
            let mut with = message.clone();
            assert!(!inject(context, &mut with));
            assert_eq!(with, message);
        }
    }
}
