"""A consumer for asyncio."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from typing import Self, Unpack

from grpc import aio

from trunkline._errors import Error, why_ended
from trunkline._progress import COMMIT_INTERVAL, COMMIT_TIMEOUT, ConsumerOptions, Progress
from trunkline.aio._client import Client
from trunkline.v1.consumer_pb2 import ConsumeRequest, ConsumeResponse
from trunkline.v1.consumer_pb2_grpc import ConsumerServiceStub
from trunkline.v1.message_pb2 import Message


class Consumer(AbstractAsyncContextManager["Consumer"], AsyncIterator[Message]):
    """A topic's messages in the order of their offsets, whatever breaks.

    It is registered if it is missing. One task iterates, commits and closes.
    """

    def __init__(
        self, client: Client, topic: str, consumer_id: str, **options: Unpack[ConsumerOptions]
    ) -> None:
        self._progress = Progress(topic, consumer_id, **options)
        self._client = client
        self._ready: Iterator[Message] = iter(())
        self._stream: aio.UnaryStreamCall[ConsumeRequest, ConsumeResponse] | None = None
        self._wake = asyncio.Event()

    async def open(self) -> Self:
        """Registers the consumer; `async with` calls it."""
        register = ConsumerServiceStub(self._client.channel).RegisterConsumer
        await self._client.call(register, self._progress.registration)
        self._channel: aio.Channel = self._client.open_channel(aio)
        self._stub = ConsumerServiceStub(self._channel)
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __anext__(self) -> Message:
        while True:
            for message in self._ready:
                self._progress.in_hand = message
                return message
            if not self._progress.proceed():
                if self._progress.auto_commit:
                    await self.close()
                raise StopAsyncIteration
            await self._fetch()

    @property
    def epoch(self) -> int:
        """The epoch in which the last message was delivered, and 0 before the first one.

        The SQL function `trunkline.commit_position` takes it. It refuses an epoch that has ended,
        as another consumer may have processed the message by then. So read it with each message:
        the epoch of a later one may be another. Only for a consumer without `auto_commit`.
        """
        return self._progress.epoch

    def commit(self, message: Message) -> None:
        """Records that a message, and all before it, are finished.

        They are committed in the background; `close` waits for that. It has no effect on a message
        that was received before a seek. Raises the broker's error if it refuses commits for now;
        they are tried again.
        """
        self._progress.finish(message)
        if self._progress.is_urgent:
            self._wake.set()
        self._progress.check_refused()

    async def close(self) -> None:
        """Commits what is finished, waits until that is stored, and ends the stream.

        With `auto_commit`, the last message counts as finished.
        """
        await self._close(True)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A message at which the caller failed is to come again.
        await self._close(kind is None)

    async def _fetch(self) -> None:
        """Waits for the next frame, or until a broken stream may be opened again."""
        if self._progress.is_urgent:
            self._wake.set()
        try:
            # A read that is cancelled ends its stream.
            if self._stream is None or self._stream.cancelled():
                request, metadata = self._progress.begin_stream(), self._client.metadata
                self._stream = self._stub.Consume(request, metadata=metadata)
            async with asyncio.timeout(self._progress.silence):
                frame = await self._stream.read()
            if not isinstance(frame, ConsumeResponse):
                raise EOFError
            self._ready = iter(self._progress.observe(frame))
        except Exception as failure:
            self._stream = None
            await asyncio.sleep(self._progress.pause_after(why_ended(failure)))

    async def _keep(self) -> None:
        """Commits what is finished."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(COMMIT_INTERVAL):
                    await self._wake.wait()
            self._wake.clear()
            await self._commit()

    async def _commit(self) -> bool:
        """Commits what is finished; returns whether that is to be tried again."""
        request = self._progress.next_commit()
        if request is None:
            return False
        error = None
        try:
            await self._client.call(self._stub.Commit, request, COMMIT_TIMEOUT)
        except Exception as failure:
            error = why_ended(failure)
        return self._progress.record_commit(request, error)

    async def _close(self, finished: bool) -> None:
        if self._progress.closed:
            return
        self._progress.release(finished)
        self._progress.closed = True
        try:
            await self._commit_rest()
        finally:
            # The lease is kept until here, so that nobody else moves the position.
            if self._stream:
                self._stream.cancel()
            await self._channel.close()
            self._ready = iter(())
        # A failure of the caller's goes first.
        if finished:
            self._progress.check_committed()

    async def _commit_rest(self) -> None:
        self._keeper.cancel()
        await asyncio.wait([self._keeper])
        with suppress(TimeoutError, Error):
            async with asyncio.timeout(COMMIT_TIMEOUT):
                while await self._commit_or_read_on():
                    pass

    async def _commit_or_read_on(self) -> bool:
        """Commits what is finished. If that needs another epoch, it reads on: a seek begins one, or
        says that nothing is left to commit. Returns whether that is to be tried again."""
        if await self._commit():
            await asyncio.sleep(self._progress.commit_pause)
            return True
        if self._progress.awaits_epoch:
            await self._fetch()
            return True
        return False
