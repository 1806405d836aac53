"""Tests what becomes of messages that a break left without an answer, when their producer ends."""

import asyncio
from collections.abc import Iterator
from threading import Event
from typing import Literal

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from grpc_status import rpc_status

from tests.client import SECONDS, Kind
from tests.package import numbers, open_package
from tests.test_endings import serve
from trunkline import Error
from trunkline._outbox import WINDOW
from trunkline.v1.producer_pb2 import (
    Producer,
    PublishRefusal,
    PublishStreamRequest,
    PublishStreamResponse,
    RegisterProducerRequest,
    RegisterProducerResponse,
)
from trunkline.v1.producer_pb2_grpc import (
    ProducerServiceServicer,
    add_ProducerServiceServicer_to_server,
)

Refused = Literal["repetition", "stream"]


class Refusing(ProducerServiceServicer):
    """Breaks its first stream after a request, and refuses what comes on the second one."""

    def __init__(self, refused: Refused) -> None:
        self._refused = refused
        self._is_first = True
        #: Set when the second stream has begun, and when it may go on.
        self.resumed, self.published = Event(), Event()

    def RegisterProducer(
        self, request: RegisterProducerRequest, context: grpc.ServicerContext
    ) -> RegisterProducerResponse:
        return RegisterProducerResponse(producer=Producer(epoch=1))

    def PublishStream(
        self, requests: Iterator[PublishStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[PublishStreamResponse]:
        if self._is_first:
            self._is_first = False
            context.send_initial_metadata(())
            next(requests)
            context.abort(StatusCode.UNAVAILABLE, "the connection breaks")
        self.resumed.set()
        self.published.wait(SECONDS)
        context.send_initial_metadata(())
        # The one that is repeated, and new ones. The client writes nothing behind them: during a
        # write, gRPC for asyncio may lose the status with which the stream ends.
        for _ in range(WINDOW):
            next(requests)
        if self._refused == "repetition":
            code = StatusCode.FAILED_PRECONDITION.value[0]
            refusal = PublishRefusal(code=code, reason="PRODUCER_FENCED", message="it is fenced")
            yield PublishStreamResponse(refusal=refusal)
        else:
            expired = Any()
            expired.Pack(ErrorInfo(reason="TOKEN_EXPIRED", domain="trunkline"))
            code = StatusCode.UNAUTHENTICATED.value[0]
            status = Status(code=code, message="the token has expired", details=[expired])
            context.abort_with_status(rpc_status.to_status(status))


@pytest.mark.parametrize(
    ("refused", "reason"), [("repetition", "PRODUCER_FENCED"), ("stream", "TOKEN_EXPIRED")]
)
async def test_a_refusal_after_a_break_is_no_answer_to_what_was_sent_before(
    kind: Kind, refused: Refused, reason: str
) -> None:
    servicer = Refusing(refused)  # type: ignore[abstract]

    def add_service(server: grpc.Server) -> None:
        add_ProducerServiceServicer_to_server(servicer, server)

    with serve(add_service) as target:
        async with open_package(kind, target) as package:
            with pytest.raises(Error) as ended:
                async with package.producer("orders", max_batch_messages=1) as producer:
                    [lost] = await package.publish(producer, [b"sent before the break"])
                    assert await asyncio.to_thread(servicer.resumed.wait, SECONDS)
                    # The last one exceeds the requests that may be unanswered.
                    others = await package.publish(producer, numbers(WINDOW))
                    servicer.published.set()
                    unknown = await package.error(lost)
                    for receipt in others:
                        assert (await package.error(receipt)).reason == reason
                    with pytest.raises(Error) as refusal:
                        await package.publish(producer, [b"too late"])
    assert (unknown.code, unknown.reason) == (StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN")
    assert unknown.message == f"not answered before the producer ended: {refusal.value}"
    assert unknown.__cause__ is refusal.value
    assert refusal.value.reason == reason
    assert ended.value is unknown


async def test_a_failure_of_the_package_is_no_answer(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    servicer = Refusing("repetition")  # type: ignore[abstract]

    def add_service(server: grpc.Server) -> None:
        add_ProducerServiceServicer_to_server(servicer, server)

    monkeypatch.setattr("trunkline._outbox.pause_after", lambda *_: 1 / 0)
    with serve(add_service) as target:
        async with open_package(kind, target) as package:
            with pytest.raises(Error, match="ZeroDivisionError") as ended:
                async with package.producer("orders") as producer:
                    [sent] = await package.publish(producer, [b"sent"])
                    assert (await package.error(sent)).reason == "OUTCOME_UNKNOWN"
    assert ended.value.reason == "OUTCOME_UNKNOWN"
