"""Tests that the tracing example passes a sampled context through a message, and only that."""

import os
import subprocess
from contextlib import AbstractContextManager
from unittest.mock import Mock

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import Span, SpanKind, StatusCode

from examples import tracing
from tests.test_examples import FOLDER, SECONDS, command, read
from trunkline.v1.message_pb2 import Message, NewMessage
from trunkline.v1.producer_pb2_grpc import ProducerServiceStub


def test_a_message_carries_the_senders_context_to_its_consumer(
    channel: grpc.Channel, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = export(monkeypatch, ALWAYS_ON)
    producers = ProducerServiceStub(channel)
    publish = Mock(wraps=producers.Publish)
    monkeypatch.setattr(producers, "Publish", publish)

    published = NewMessage(payload=b"one coffee", headers={"table": "7"})
    with tracing.tracer.start_as_current_span("take order"):
        offset = tracing.send(producers, topic, "shop", published)
    [message] = read(channel, topic)
    with tracing.process(topic, "billing", message):
        pass

    send, around, process = finished(spans)
    assert (send.name, send.kind) == (f"send {topic}", SpanKind.PRODUCER)
    assert send.parent == around.context
    common = {"messaging.system": "trunkline", "messaging.destination.name": topic}
    assert send.attributes == common | {
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.message.id": str(offset),
    }
    context = send.context
    traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert message.headers == {"table": "7", "traceparent": traceparent}
    assert publish.call_args.kwargs["metadata"] == (("traceparent", traceparent),)
    assert published.headers == {"table": "7"}

    assert (process.name, process.kind) == (f"process {topic}", SpanKind.CONSUMER)
    assert process.parent is None
    assert process.attributes == common | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": "billing",
        "messaging.message.id": str(offset),
    }
    [link] = process.links
    assert link.context.trace_id == context.trace_id
    assert link.context.span_id == context.span_id


def test_a_tracestate_is_passed_on(
    channel: grpc.Channel, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = export(monkeypatch, ALWAYS_ON)
    with caller(sampled=True):
        tracing.send(ProducerServiceStub(channel), topic, "shop", NewMessage())
    [message] = read(channel, topic)
    assert message.headers["tracestate"] == "vendor=7"
    with tracing.process(topic, "billing", message):
        pass
    [link] = finished(spans)[-1].links
    assert link.context.trace_id == TRACE_ID
    assert dict(link.context.trace_state) == {"vendor": "7"}


def test_a_message_gets_no_header_if_its_sender_is_not_sampled(
    channel: grpc.Channel, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    producers = ProducerServiceStub(channel)
    nothing_sampled = export(monkeypatch, ALWAYS_OFF)
    with tracing.tracer.start_as_current_span("take order"):
        tracing.send(producers, topic, "shop", NewMessage())
    with caller(sampled=True):
        tracing.send(producers, topic, "shop", NewMessage())
    all_sampled = export(monkeypatch, ALWAYS_ON)
    with caller(sampled=False):
        tracing.send(producers, topic, "shop", NewMessage())
    tracing.send(producers, topic, "shop", NewMessage())

    assert [dict(message.headers) for message in read(channel, topic)] == [{}, {}, {}, {}]
    assert finished(nothing_sampled) + finished(all_sampled) == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": "garbage"},
        {"traceparent": f"00-{0:032x}-{1:016x}-01"},
        {"traceparent": f"ff-{1:032x}-{1:016x}-01"},
        {"tracestate": "vendor=7"},
    ],
)
def test_a_message_without_a_valid_context_is_processed_without_a_link(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    spans = export(monkeypatch, ALWAYS_ON)
    with tracing.tracer.start_as_current_span("poll"):
        with tracing.process("orders", "billing", Message(headers=headers)):
            pass
    process, _ = finished(spans)
    assert not process.links


def test_failures_are_named(
    channel: grpc.Channel, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = export(monkeypatch, ALWAYS_ON)
    with tracing.tracer.start_as_current_span("take order"), pytest.raises(grpc.RpcError):
        tracing.send(ProducerServiceStub(channel), topic, "stranger", NewMessage())
    with pytest.raises(ZeroDivisionError), tracing.process(topic, "billing", Message()):
        1 / 0
    send, _, process = finished(spans)
    for span, failure in ((send, "PERMISSION_DENIED"), (process, "ZeroDivisionError")):
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == failure


def test_the_program_prints_its_spans(topic: str) -> None:
    finished = subprocess.run(
        command("tracing", topic, "shop", "billing"),
        cwd=FOLDER,
        env={name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
        timeout=SECONDS,
        capture_output=True,
        text=True,
    )
    assert finished.stderr == ""
    assert finished.stdout.startswith("0 one coffee\n")
    for name in ("take order", f"send {topic}", f"process {topic}"):
        assert f'"name": "{name}"' in finished.stdout


TRACE_ID = 7


def caller(*, sampled: bool) -> AbstractContextManager[Span]:
    """Makes the span of a caller in another process the current one."""
    headers = {
        "traceparent": f"00-{TRACE_ID:032x}-{1:016x}-{sampled:02x}",
        "tracestate": "vendor=7",
    }
    return trace.use_span(trace.get_current_span(tracing.W3C.extract(headers)))


def export(monkeypatch: pytest.MonkeyPatch, sampler: Sampler) -> InMemorySpanExporter:
    """Has the example's spans sampled like this and kept in memory."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("tests"))
    return kept


def finished(spans: InMemorySpanExporter) -> list[ReadableSpan]:
    """The spans in the order in which they ended."""
    return list(spans.get_finished_spans())
