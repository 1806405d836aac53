"""Tests how the package ends: what is tried again, what is final, and that nobody waits for ever."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from contextlib import asynccontextmanager, contextmanager

import grpc
import pytest
from grpc import StatusCode

from tests.broker import Broker
from tests.client import SECONDS, Kind
from tests.logs import logged
from tests.package import Package, numbers, open_package
from trunkline import Client, Consumer, Error
from trunkline._errors import LONGEST_PAUSE, pause_after
from trunkline._outbox import WINDOW, Outbox
from trunkline._progress import OPEN_TIMEOUT, Progress
from trunkline.v1.consumer_pb2 import (
    Attached,
    ConsumeRequest,
    ConsumeResponse,
    Heartbeat,
    RegisterConsumerRequest,
    RegisterConsumerResponse,
)
from trunkline.v1.consumer_pb2_grpc import (
    ConsumerServiceServicer,
    add_ConsumerServiceServicer_to_server,
)


@pytest.mark.parametrize(
    ("code", "reason", "retry_delay", "may_pass"),
    [
        (StatusCode.UNAVAILABLE, "", None, True),
        (StatusCode.UNAVAILABLE, "DRAINING", None, True),
        (StatusCode.CANCELLED, "", None, True),
        (StatusCode.CANCELLED, "WITHDRAWN", None, False),
        (StatusCode.UNKNOWN, "", None, True),
        (StatusCode.INTERNAL, "", None, True),
        (StatusCode.INTERNAL, "INTERNAL", None, False),
        (StatusCode.DEADLINE_EXCEEDED, "", None, True),
        (StatusCode.DEADLINE_EXCEEDED, "REQUEST_STALLED", None, False),
        (StatusCode.DEADLINE_EXCEEDED, "REQUEST_STALLED", 0.5, True),
        (StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", 1.0, True),
        (StatusCode.RESOURCE_EXHAUSTED, "RATE_EXCEEDED", 0.0, True),
        (StatusCode.RESOURCE_EXHAUSTED, "", None, True),
        (StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_TOPICS", None, False),
        (StatusCode.ABORTED, "LEASE_TAKEN_OVER", None, False),
        (StatusCode.PERMISSION_DENIED, "NOT_GRANTED", None, False),
        (StatusCode.NOT_FOUND, "TOPIC_NOT_FOUND", None, False),
    ],
)
def test_what_is_tried_again(
    code: StatusCode, reason: str, retry_delay: float | None, may_pass: bool
) -> None:
    assert Error(code, "it failed", reason, retry_delay=retry_delay).may_pass is may_pass


def test_pauses_grow_and_are_at_least_the_delay_that_the_broker_gave() -> None:
    lost = Error.lost("the connection broke")
    for failures, longest in enumerate([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]):
        assert longest / 2 <= pause_after(failures, lost) <= longest
    busy = Error(StatusCode.RESOURCE_EXHAUSTED, "it is busy", retry_delay=2)
    assert pause_after(0, busy) == 2
    busy.retry_delay = 3_600
    assert pause_after(0, busy) == LONGEST_PAUSE


def test_opening_a_stream_may_take_longer_than_its_silence() -> None:
    progress = Progress("orders", "billing", heartbeat_interval=1)
    for _ in range(2):
        progress.begin_stream()
        assert progress.silence == OPEN_TIMEOUT
        progress.observe(ConsumeResponse(heartbeat=Heartbeat()))
        assert progress.silence == 3


def test_a_stream_whose_thread_is_slow_may_take_as_long_to_open(
    topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience: list[float] = []

    class SlowStream:
        """Its thread has not run yet when the consumer begins to wait."""

        def __init__(self, open_call: Callable[[], object]) -> None:
            pass

        def read(self, timeout: float) -> ConsumeResponse:
            patience.append(timeout)
            match len(patience):
                case 1:
                    return ConsumeResponse(heartbeat=Heartbeat())
                case 2:
                    raise EOFError
                case _:
                    return ConsumeResponse(caught_up={})

        def cancel(self) -> None:
            pass

    monkeypatch.setattr("trunkline._consumer._Stream", SlowStream)
    with (
        Client(os.environ["TRUNKLINE_TARGET"]) as client,
        Consumer(client, topic, "billing", heartbeat_interval=1, until_caught_up=True) as consumer,
    ):
        assert list(consumer) == []
    assert patience == [OPEN_TIMEOUT, 3, OPEN_TIMEOUT]


class Cancelling(ConsumerServiceServicer):
    """Cancels its first stream, as a proxy may, and serves the next one."""

    is_first = True

    def RegisterConsumer(
        self, request: RegisterConsumerRequest, context: grpc.ServicerContext
    ) -> RegisterConsumerResponse:
        return RegisterConsumerResponse()

    def Consume(
        self, request: ConsumeRequest, context: grpc.ServicerContext
    ) -> Iterator[ConsumeResponse]:
        yield ConsumeResponse(attached=Attached(epoch=1))
        if self.is_first:
            self.is_first = False
            context.abort(StatusCode.CANCELLED, "a proxy has had enough")
        yield ConsumeResponse(caught_up={})


@contextmanager
def serve(add_service: Callable[[grpc.Server], None]) -> Iterator[str]:
    """Serves a service of the test's own; yields the target."""
    server = grpc.server(futures.ThreadPoolExecutor())
    add_service(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


async def test_a_stream_that_somebody_else_cancelled_is_opened_again(kind: Kind) -> None:
    servicer = Cancelling()  # type: ignore[abstract]

    def add_service(server: grpc.Server) -> None:
        add_ConsumerServiceServicer_to_server(servicer, server)

    with serve(add_service) as target, logged("a proxy has had enough") as reported:
        async with (
            open_package(kind, target) as package,
            package.consumer("orders", until_caught_up=True) as consumer,
        ):
            assert await package.rest(consumer) == []
            await reported()


@asynccontextmanager
async def leaving_frozen(kind: Kind, broker: Broker) -> AsyncIterator[Package]:
    """A package whose broker, once frozen, goes on when the test is over."""
    with broker:
        async with open_package(kind, broker.target) as package:
            try:
                yield package
            finally:
                broker.go_on()


async def test_only_what_was_sent_has_an_unknown_outcome(kind: Kind, topic: str) -> None:
    broker = Broker()
    async with leaving_frozen(kind, broker) as package:
        with pytest.raises(Error, match="no message was stored for 1 s") as ended:
            async with package.producer(topic, retry_for=1, max_batch_messages=1) as producer:
                await package.offsets(await package.publish(producer, [b"stored"]))
                broker.freeze()
                # One more than the requests that may be unanswered.
                sent, *_, kept = await package.publish(producer, numbers(WINDOW + 1))
                unknown, lost = await package.error(sent), await package.error(kept)
                with pytest.raises(Error) as not_taken:
                    await package.publish(producer, [b"too late"])
    assert (unknown.code, unknown.reason) == (StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN")
    assert (lost.code, lost.reason) == (StatusCode.UNAVAILABLE, "")
    assert (not_taken.value.code, not_taken.value.reason) == (StatusCode.UNAVAILABLE, "")
    assert ended.value.reason == "OUTCOME_UNKNOWN"


async def test_nothing_is_sent_without_a_broker(kind: Kind, topic: str) -> None:
    with Broker() as broker:
        async with open_package(kind, broker.target) as package:
            with pytest.raises(Error) as ended:
                async with package.producer(topic, retry_for=0.5) as producer:
                    broker.kill()
                    [receipt] = await package.publish(producer, [b"never"])
                    lost = await package.error(receipt)
    assert (lost.code, lost.reason) == (StatusCode.UNAVAILABLE, "")
    assert (ended.value.code, ended.value.reason) == (StatusCode.UNAVAILABLE, "")


async def test_a_block_that_fails_does_not_wait_long_for_answers(
    kind: Kind, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("trunkline._producer", "trunkline.aio._producer"):
        monkeypatch.setattr(f"{module}.FAILED_FLUSH_TIMEOUT", 0.1)
    broker = Broker()
    async with leaving_frozen(kind, broker) as package:
        with pytest.raises(ZeroDivisionError):
            async with asyncio.timeout(SECONDS), package.producer(topic) as producer:
                await package.offsets(await package.publish(producer, [b"stored"]))
                broker.freeze()
                [sent] = await package.publish(producer, [b"sent"])
                raise ZeroDivisionError
        unknown = await package.error(sent)
    assert (unknown.code, unknown.reason) == (StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN")
    assert_no_thread_is_left()


async def test_a_block_that_fails_still_stores_its_messages(package: Package, topic: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with package.producer(topic, linger=600) as producer:
            receipts = await package.publish(producer, [b"0", b"1"])
            raise ZeroDivisionError
    assert await package.offsets(receipts) == [0, 1]


@pytest.mark.parametrize("method", ["overdue", "due", "begin_stream", "pause_after"])
async def test_a_failure_of_the_package_ends_its_producer(
    package: Package, topic: str, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    with pytest.raises(Error, match="ZeroDivisionError"):
        async with package.producer(topic, retry_for=1) as producer:
            monkeypatch.setattr(Outbox, method, lambda *_: 1 / 0)
            if method == "pause_after":
                monkeypatch.setattr(Outbox, "settle", lambda *_: 1 / 0)
            [receipt] = await package.publish(producer, [b"never"])
            await package.error(receipt)
    assert_no_thread_is_left()


async def test_a_failure_of_the_package_ends_its_consumer(
    package: Package, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Progress, "begin_stream", lambda *_: 1 / 0)
    with pytest.raises(Error, match="ZeroDivisionError") as failed:
        async with package.consumer(topic) as consumer:
            await package.take(consumer, 1)
    assert failed.value.reason == "CLIENT_FAILED"


async def test_closing_that_fails_leaves_nothing_behind(
    package: Package, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await package.fill(topic, 1)
    with pytest.raises(ZeroDivisionError):
        async with package.consumer(topic, auto_commit=False) as consumer:
            await package.take(consumer, 1)
            monkeypatch.setattr(type(consumer), "_commit_rest", lambda *_: 1 / 0)
    assert_no_thread_is_left()


def assert_no_thread_is_left() -> None:
    deadline = time.monotonic() + SECONDS
    for thread in threading.enumerate():
        if thread.name.startswith("trunkline"):
            thread.join(deadline - time.monotonic())
            assert not thread.is_alive(), thread
