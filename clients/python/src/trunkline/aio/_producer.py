"""A producer for asyncio."""

import asyncio
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Self, Unpack

from grpc import aio

from trunkline._errors import Error, why_ended
from trunkline._limits import check_id, cost_of
from trunkline._outbox import FAILED_FLUSH_TIMEOUT, Outbox, Outcome, ProducerOptions
from trunkline.aio._client import Client
from trunkline.v1.producer_pb2 import (
    PublishStreamRequest,
    PublishStreamResponse,
    RegisterProducerRequest,
)
from trunkline.v1.producer_pb2_grpc import ProducerServiceStub

_Stream = aio.StreamStreamCall[PublishStreamRequest, PublishStreamResponse]


class Receipt:
    """The broker's answer to a message. Awaiting it waits until the message is on disk, and returns
    its offset or raises the error."""

    __slots__ = ("_index", "_outcome")

    def __init__(self, outcome: asyncio.Future[Outcome], index: int) -> None:
        self._outcome = outcome
        self._index = index

    def __await__(self) -> Generator[Any, None, int]:
        # Others wait for the same outcome, also if this task is cancelled.
        outcome = yield from asyncio.shield(self._outcome).__await__()
        if isinstance(outcome, Error):
            raise outcome.with_traceback(None)
        return outcome + self._index

    def done(self) -> bool:
        """Whether awaiting it returns, or raises, at once."""
        return self._outcome.done()


class Producer(AbstractAsyncContextManager["Producer"]):
    """Publishes to a topic, and stores each message once, whatever breaks.

    It is registered if it is missing. It is the only live instance of its id: the next one fences
    it. Tasks may share it. An `async with` block that fails waits for answers for five seconds at
    most.
    """

    def __init__(
        self, client: Client, topic: str, producer_id: str, **options: Unpack[ProducerOptions]
    ) -> None:
        check_id("producer_id", producer_id)
        new_outcome = asyncio.get_running_loop().create_future
        self._outbox: Outbox[asyncio.Future[Outcome]] = Outbox(
            new_outcome, self._notify, **options
        )
        self._client = client
        self._registration = RegisterProducerRequest(
            topic=topic, producer_id=producer_id, fence=True
        )
        self._changed = asyncio.Event()
        self._closed = False

    async def open(self) -> Self:
        """Registers the producer, and begins to deliver; `async with` calls it."""
        register = ProducerServiceStub(self._client.channel).RegisterProducer
        self._outbox.producer = (await self._client.call(register, self._registration)).producer
        self._channel: aio.Channel = self._client.open_channel(aio)
        self._stub = ProducerServiceStub(self._channel)
        self._delivery = asyncio.create_task(self._deliver())
        return self

    async def publish(
        self, payload: bytes, key: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Receipt:
        """Publishes a message, after waiting for room. Its receipt will hold its offset.

        Raises an error if the message exceeds a limit, or if the producer has ended.
        """
        cost = cost_of(payload, key, headers)
        while not (added := self._outbox.add(payload, key, headers, cost)):
            await self._changed.wait()
        if added[1] == 0:
            # The delivery is to begin, also if the caller never waits for anything.
            await asyncio.sleep(0)
        return Receipt(*added)

    async def flush(self) -> None:
        """Waits until every message so far is on disk; raises the error if one is not stored, and
        OUTCOME_UNKNOWN if one may be."""
        if newest := self._outbox.flush():
            await asyncio.shield(newest)
        self._outbox.check_stored()

    async def close(self) -> None:
        """Flushes, and ends the producer."""
        await self._close(None)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await self.close()
            return
        # The caller's failure goes first.
        with suppress(Exception):
            await self._close(FAILED_FLUSH_TIMEOUT)

    async def _close(self, timeout: float | None) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            async with asyncio.timeout(timeout):
                await self.flush()
        finally:
            self._outbox.close()
            self._delivery.cancel()
            try:
                await asyncio.wait([self._delivery])
            finally:
                await self._channel.close()

    def _notify(self) -> None:
        """Wakes all who wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait(self, timeout: float | None = None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()

    async def _deliver(self) -> None:
        try:
            while not self._outbox.error:
                if self._outbox.has_work:
                    error = await self._run_stream()
                    await asyncio.sleep(self._outbox.pause_after(error))
                else:
                    await self._wait()
        except Exception as failure:
            # Nobody may wait for ever.
            self._outbox.fail(why_ended(failure))

    async def _run_stream(self) -> Error:
        """Publishes until the stream ends; returns why it ended."""
        requests = self._requests(self._outbox.begin_stream())
        stream = self._stub.PublishStream(requests, metadata=self._client.metadata)
        try:
            async with asyncio.timeout(self._outbox.overdue()):
                await stream.initial_metadata()
            if not stream.done():
                self._outbox.accept_stream()
            while True:
                self._outbox.settle(await self._read(stream))
        except Exception as failure:
            return why_ended(failure)
        finally:
            stream.cancel()

    async def _read(self, stream: _Stream) -> PublishStreamResponse:
        """The next answer; raises TimeoutError if it stays away, and EOFError behind the last."""
        reading = asyncio.ensure_future(stream.read())
        while not reading.done():
            if (left := self._outbox.overdue()) <= 0:
                raise TimeoutError
            await asyncio.wait([reading], timeout=left)
        if reading.cancelled():
            # Not by this task: gRPC cancels a stream that it cannot go on with.
            raise EOFError
        if isinstance(answer := reading.result(), PublishStreamResponse):
            return answer
        raise EOFError

    async def _requests(self, stream: int) -> AsyncIterator[PublishStreamRequest]:
        """What is to be sent on a stream."""
        try:
            while self._outbox.is_current(stream):
                if (pause := self._outbox.due()) == 0:
                    yield self._outbox.take()
                else:
                    await self._wait(pause)
        except Exception as failure:
            self._outbox.fail(why_ended(failure))
