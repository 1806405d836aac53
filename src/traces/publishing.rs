//! Spans of publishes and of the flushes that store them.
//!
//! A flush is a trace of its own, as it stores publishes of several traces. It links to them, and each of
//! them to it.

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _},
};

use super::{call::TracedCall, context::Parent, tracer::Traces};
use crate::{
    metrics::TraceMetrics,
    model::{Message, TopicName},
};

/// How many spans a span links to. OpenTelemetry keeps 128 by default.
const MAX_LINKS: usize = 128;

/// The span of a publish: that of its call, or an own one that ends when this is dropped.
pub struct PublishSpan {
    context: Context,
    /// `None` if it is the span of the call, which ends by itself.
    own: Option<TraceMetrics>,
}

/// The span of a flush, which ends when this is dropped.
pub struct FlushSpan {
    context: Context,
    metrics: TraceMetrics,
}

/// How large a flush is.
pub struct FlushSize {
    /// How many topics it stores messages of.
    pub topics: usize,
    /// How many messages.
    pub messages: usize,
    /// The bytes of their payloads, keys and headers.
    pub bytes: usize,
}

impl Traces {
    /// Starts the span of a publish, if its call is traced, or one of its messages. `call` is that of a
    /// publish that is a call of its own.
    pub fn begin_publish(
        &self,
        call: Option<&TracedCall>,
        topic: &TopicName,
        messages: &[Message],
    ) -> Option<PublishSpan> {
        let tracing = self.tracing.as_ref()?;
        let mut sent = contexts(messages);
        let count = KeyValue::new("messaging.batch.message_count", messages.len() as i64);
        let attributes = vec![
            KeyValue::new("messaging.system", "trunkline"),
            KeyValue::new("messaging.destination.name", topic.to_string()),
            count,
        ];
        if let Some(TracedCall(context)) = call {
            let span = context.span();
            span.set_attributes(attributes);
            let trace = span.span_context().trace_id();
            for other in sent.iter().filter(|other| other.trace_id() != trace) {
                span.add_link(other.clone(), Vec::new());
            }
            return Some(PublishSpan { context: context.clone(), own: None });
        }
        let others = sent.split_off(1.min(sent.len()));
        let parent = Context::new().with_remote_span_context(sent.pop()?);
        let span = SpanBuilder::from_name(format!("publish {topic}"))
            .with_kind(SpanKind::Server)
            .with_attributes(attributes)
            .with_links(others.into_iter().map(Link::with_context).collect());
        let context = tracing.start(span, &parent);
        Some(PublishSpan { context, own: Some(self.metrics.clone()) })
    }

    /// Starts the span of a flush, if one of its publishes is traced.
    pub fn begin_flush<'a>(
        &self,
        publishes: impl Iterator<Item = &'a PublishSpan>,
        size: impl FnOnce() -> FlushSize,
    ) -> Option<FlushSpan> {
        let tracing = self.tracing.as_ref()?;
        let publishes: Vec<_> = publishes.take(MAX_LINKS).collect();
        if publishes.is_empty() {
            return None;
        }
        let FlushSize { topics, messages, bytes } = size();
        let links = publishes.iter().map(|publish| publish.context.span().span_context().clone());
        let span = SpanBuilder::from_name("flush")
            .with_kind(SpanKind::Internal)
            .with_attributes(vec![
                KeyValue::new("trunkline.flush.topics", topics as i64),
                KeyValue::new("trunkline.flush.messages", messages as i64),
                KeyValue::new("trunkline.flush.bytes", bytes as i64),
            ])
            .with_links(links.map(Link::with_context).collect());
        let context = tracing.start(span, &Context::new());
        let flush = context.span().span_context().clone();
        for publish in publishes {
            publish.context.span().add_link(flush.clone(), Vec::new());
        }
        Some(FlushSpan { context, metrics: self.metrics.clone() })
    }
}

impl PublishSpan {
    /// Says why the publish failed.
    pub fn failed(&self, error: &dyn std::fmt::Display) {
        if self.own.is_some() {
            self.context.span().set_status(Status::error(error.to_string()));
        }
    }
}

impl Drop for PublishSpan {
    fn drop(&mut self) {
        if let Some(metrics) = &self.own {
            self.context.span().end();
            metrics.count_ended();
        }
    }
}

impl Drop for FlushSpan {
    fn drop(&mut self) {
        self.context.span().end();
        self.metrics.count_ended();
    }
}

/// The contexts in the headers of messages that are traced, each once.
fn contexts(messages: &[Message]) -> Vec<SpanContext> {
    let mut contexts: Vec<SpanContext> = Vec::new();
    for message in messages.iter().filter(|message| !message.headers.is_empty()) {
        let headers = message.headers.entries();
        if let Parent::Sampled(context) = Parent::read(|name| headers.get(name).map(String::as_str))
            && contexts.last() != Some(&context)
        {
            contexts.push(context);
            if contexts.len() == MAX_LINKS {
                break;
            }
        }
    }
    contexts
}
