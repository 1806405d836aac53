//! Spans of publishes and of the flushes that store them.
//!
//! A flush is a trace of its own, as it stores publishes of several traces. It links to them, and each of
//! them to it.

use std::{collections::HashSet, fmt::Display};

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceState},
};

use super::{call::TracedCall, context::Parent, tracer::Traces};
use crate::{
    model::{Message, TopicName},
    trace_context::TRACEPARENT,
};

/// How many spans a span links to, which is what OpenTelemetry keeps by default.
pub(super) const MAX_LINKS: u32 = 128;

/// How many messages with headers are searched for contexts.
const MAX_SEARCHED: usize = 1_024;

/// The span of a publish: that of its call, or one of its own. An own one ends when this is dropped.
pub struct PublishSpan {
    context: Context,
    /// Whether it is not the span of the call, which ends by itself.
    is_own: bool,
    is_answered: bool,
}

/// How a publish ended.
pub enum Ending<'a> {
    /// Its messages are stored.
    Stored,
    /// The broker has refused it.
    Refused(&'a dyn Display),
    /// The broker or its database has failed.
    Failed(&'a dyn Display),
}

/// The span of a flush, which ends when this is dropped.
pub struct FlushSpan(Context);

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
        let tracing = self.tracing()?;
        let mut senders = senders(messages);
        let attributes = vec![
            KeyValue::new("messaging.system", "trunkline"),
            KeyValue::new("messaging.destination.name", topic.to_string()),
            KeyValue::new("messaging.batch.message_count", messages.len() as i64),
        ];
        let call = call.map(|TracedCall(context)| context);
        // A message of another trace than the call's finds the broker in its own.
        let is_of_call = |call: &Context| {
            let trace = call.span().span_context().trace_id();
            senders.first().is_none_or(|sender| sender.trace_id() == trace)
        };
        if let Some(call) = call.filter(|call| is_of_call(call)) {
            let span = call.span();
            span.set_attributes(attributes);
            let trace = span.span_context().trace_id();
            for other in senders.into_iter().filter(|other| other.trace_id() != trace) {
                span.add_link(other, Vec::new());
            }
            return Some(PublishSpan { context: call.clone(), is_own: false, is_answered: false });
        }
        let others = senders.split_off(1.min(senders.len()));
        let parent = Context::new().with_remote_span_context(senders.pop()?);
        let call = call.map(|call| stateless(call.span().span_context()));
        let span = SpanBuilder::from_name(format!("publish {topic}"))
            .with_kind(SpanKind::Server)
            .with_attributes(attributes)
            .with_links(call.into_iter().chain(others).map(Link::with_context).collect());
        let context = tracing.start(span, &parent);
        Some(PublishSpan { context, is_own: true, is_answered: false })
    }

    /// Starts the span of a flush, if one of its publishes is traced.
    pub fn begin_flush<'a>(
        &self,
        publishes: impl Iterator<Item = &'a PublishSpan>,
        size: impl FnOnce() -> FlushSize,
    ) -> Option<FlushSpan> {
        let tracing = self.tracing()?;
        let publishes: Vec<_> = publishes.collect();
        if publishes.is_empty() {
            return None;
        }
        let FlushSize { topics, messages, bytes } = size();
        let linked = publishes.iter().take(MAX_LINKS as usize);
        let links = linked.map(|publish| stateless(publish.context.span().span_context()));
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
        Some(FlushSpan(context))
    }
}

impl PublishSpan {
    /// Ends the span of a publish that has its answer.
    pub fn end(mut self, ending: Ending<'_>) {
        self.is_answered = true;
        if !self.is_own {
            return;
        }
        let span = self.context.span();
        match ending {
            Ending::Stored => {}
            // No fault of the broker's, as in the span of a call.
            Ending::Refused(error) => {
                span.set_attribute(KeyValue::new("trunkline.refusal.message", error.to_string()));
            }
            Ending::Failed(error) => span.set_status(Status::error(error.to_string())),
        }
    }
}

impl Drop for PublishSpan {
    fn drop(&mut self) {
        if !self.is_own {
            return;
        }
        let span = self.context.span();
        if !self.is_answered {
            span.set_status(Status::error("there was no answer"));
        }
        span.end();
    }
}

impl FlushSpan {
    /// Says why publishes failed.
    pub fn failed(&self, error: &dyn Display) {
        self.0.span().set_status(Status::error(error.to_string()));
    }
}

impl Drop for FlushSpan {
    fn drop(&mut self) {
        self.0.span().end();
    }
}

/// The contexts of those who sent messages that are traced, each once. There is room for two more links.
fn senders(messages: &[Message]) -> Vec<SpanContext> {
    let mut senders = Vec::new();
    let mut known = HashSet::new();
    let with_headers = messages.iter().filter(|message| !message.headers.is_empty());
    for message in with_headers.take(MAX_SEARCHED) {
        // What stands beside it is not read: a span would hold it for each of its links.
        let traceparent = message.headers.entries().get(TRACEPARENT).map(String::as_str);
        if let Parent::Sampled(sender) = Parent::read(traceparent, None)
            && known.insert((sender.trace_id(), sender.span_id()))
        {
            senders.push(sender);
            if senders.len() == MAX_LINKS as usize - 2 {
                break;
            }
        }
    }
    senders
}

/// A context without what its vendors have added.
fn stateless(context: &SpanContext) -> SpanContext {
    let (trace, span, flags) = (context.trace_id(), context.span_id(), context.trace_flags());
    SpanContext::new(trace, span, flags, context.is_remote(), TraceState::NONE)
}
