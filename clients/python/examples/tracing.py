"""Passes a trace through a message: the span that processes it links to the span that sent it.

Run it as `python -m examples.tracing TOPIC PRODUCER CONSUMER`. It sends its spans by OTLP to
OTEL_EXPORTER_OTLP_ENDPOINT, or prints them if that is not set.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import Link, Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from trunkline.v1.consumer_pb2 import ConsumeRequest
from trunkline.v1.consumer_pb2_grpc import ConsumerServiceStub
from trunkline.v1.message_pb2 import Message, NewMessage
from trunkline.v1.producer_pb2 import PublishRequest, RegisterProducerRequest
from trunkline.v1.producer_pb2_grpc import ProducerServiceStub

tracer = trace.get_tracer("examples.tracing")
W3C = TraceContextTextMapPropagator()


def send(producers: ProducerServiceStub, topic: str, producer_id: str, message: NewMessage) -> int:
    """Publishes a message in a span of its own, and returns its offset.

    The message's headers pass the span's context to consumers, and the metadata of the call passes
    it to the broker. If the current span is not sampled, there is no span and no header: the broker
    stores messages without headers faster.
    """
    request = PublishRequest(topic=topic, producer_id=producer_id, messages=[message])
    if not is_sampled(trace.get_current_span()):
        return producers.Publish(request, timeout=5).first_offset
    with tracer.start_as_current_span(
        f"send {topic}", kind=SpanKind.PRODUCER, attributes=attributes("send", topic)
    ) as span:
        context: dict[str, str] = {}
        if is_sampled(span):  # a sampler may drop this span, and keep the one around it
            W3C.inject(context)
        request.messages[0].headers.update(context)
        try:
            published = producers.Publish(request, timeout=5, metadata=tuple(context.items()))
        except grpc.RpcError as error:
            span.set_attribute("error.type", error.code().name)
            raise
        span.set_attribute("messaging.message.id", str(published.first_offset))
        return published.first_offset


@contextmanager
def process(topic: str, consumer_id: str, message: Message) -> Iterator[Span]:
    """Runs a block that processes a message in a span, which links to the message's sender.

    There is no link if the headers have no context, or an invalid one.
    """
    sender = trace.get_current_span(W3C.extract(message.headers)).get_span_context()
    with tracer.start_as_current_span(
        f"process {topic}",
        kind=SpanKind.CONSUMER,
        attributes=attributes("process", topic)
        | {
            "messaging.consumer.group.name": consumer_id,
            "messaging.message.id": str(message.offset),
        },
        links=[Link(sender)] if sender.is_valid else [],
    ) as span:
        try:
            yield span
        except Exception as error:
            span.set_attribute("error.type", type(error).__qualname__)
            raise


def is_sampled(span: Span) -> bool:
    return span.get_span_context().trace_flags.sampled


def attributes(operation: str, topic: str) -> dict[str, str]:
    """What OpenTelemetry's conventions want every span of messaging to say."""
    return {
        "messaging.system": "trunkline",
        "messaging.destination.name": topic,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }


def exporter() -> SpanExporter:
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return OTLPSpanExporter()
    return ConsoleSpanExporter()


def main() -> None:
    topic, producer_id, consumer_id = sys.argv[1:]
    spans = TracerProvider()  # it exports the last spans when the program ends
    spans.add_span_processor(BatchSpanProcessor(exporter()))
    trace.set_tracer_provider(spans)
    target = os.environ.get("TRUNKLINE_TARGET", "127.0.0.1:50051")
    with grpc.insecure_channel(target) as channel:
        producers = ProducerServiceStub(channel)
        producer = RegisterProducerRequest(topic=topic, producer_id=producer_id, if_missing=True)
        producers.RegisterProducer(producer, timeout=5)
        with tracer.start_as_current_span("take order"):
            coffee = NewMessage(key=b"table 7", payload=b"one coffee")
            send(producers, topic, producer_id, coffee)

        unread = ConsumeRequest(topic=topic, consumer_id=consumer_id, until_caught_up=True)
        for frame in ConsumerServiceStub(channel).Consume(unread, timeout=30):
            for message in frame.batch.messages:
                with process(topic, consumer_id, message):
                    print(message.offset, message.payload.decode(errors="replace"))


if __name__ == "__main__":
    main()
