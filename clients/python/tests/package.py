"""One interface to the package's blocking and asyncio clients, so that a test covers both."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest

import trunkline
from tests.client import SECONDS, Kind
from trunkline import Error, Message, aio

Producer: TypeAlias = trunkline.Producer | aio.Producer
Consumer: TypeAlias = trunkline.Consumer | aio.Consumer
Receipt: TypeAlias = trunkline.Receipt | aio.Receipt


class Package:
    """A client of either kind. A thread runs what blocks, so that the test can do other things."""

    def __init__(self, kind: Kind, target: str, **options: Any) -> None:
        self.kind: Kind = kind
        make = aio.Client if kind == "asyncio" else trunkline.Client
        self.client: trunkline.Client | aio.Client = make(target, **options)

    async def run(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Calls a method of the package."""
        if self.kind == "asyncio":
            return await method(*arguments, **options)
        return await asyncio.to_thread(method, *arguments, **options)

    async def ensure_topic(self, name: str, **options: Any) -> None:
        await self.run(self.client.ensure_topic, name, **options)

    @asynccontextmanager
    async def producer(
        self, topic: str, producer_id: str = "shop", **options: Any
    ) -> AsyncIterator[Producer]:
        async with self._entered("Producer", topic, producer_id, options) as producer:
            yield producer

    @asynccontextmanager
    async def consumer(
        self, topic: str, consumer_id: str = "billing", **options: Any
    ) -> AsyncIterator[Consumer]:
        async with self._entered("Consumer", topic, consumer_id, options) as consumer:
            yield consumer

    @asynccontextmanager
    async def _entered(
        self, name: str, topic: str, name_there: str, options: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """Enters and leaves the context of a producer or consumer as a `with` statement does."""
        if self.kind == "asyncio":
            async with getattr(aio, name)(self.client, topic, name_there, **options) as entered:
                yield entered
            return
        make = getattr(trunkline, name)
        entered = await asyncio.to_thread(make, self.client, topic, name_there, **options)
        try:
            yield entered
        except BaseException as error:
            await asyncio.to_thread(entered.__exit__, type(error), error, error.__traceback__)
            raise
        await asyncio.to_thread(entered.__exit__, None, None, None)

    async def publish(
        self, producer: Producer, payloads: Iterable[bytes], **options: Any
    ) -> list[Receipt]:
        """Publishes one message after the other, without waiting for receipts."""
        if isinstance(producer, aio.Producer):
            return [await producer.publish(payload, **options) for payload in payloads]
        return await asyncio.to_thread(
            lambda: [producer.publish(payload, **options) for payload in payloads]
        )

    async def fill(self, topic: str, count: int) -> None:
        """Publishes `numbers`, and waits until they are stored."""
        async with self.producer(topic) as producer:
            await self.publish(producer, numbers(count))

    async def offsets(self, receipts: Iterable[Any]) -> list[int]:
        """Waits for receipts."""
        if self.kind == "asyncio":
            return [await receipt for receipt in receipts]
        return await asyncio.to_thread(lambda: [receipt.result(SECONDS) for receipt in receipts])

    async def error(self, receipt: Receipt) -> Error:
        """Waits for a receipt that is an error."""
        with pytest.raises(Error) as raised:
            await self.offsets([receipt])
        return raised.value

    async def take(self, consumer: Consumer, count: int) -> list[Message]:
        """The next messages."""
        if isinstance(consumer, aio.Consumer):
            return [await anext(consumer) for _ in range(count)]
        return await asyncio.to_thread(lambda: [next(consumer) for _ in range(count)])

    async def rest(self, consumer: Consumer) -> list[Message]:
        """All messages until the consumer ends."""
        if isinstance(consumer, aio.Consumer):
            return [message async for message in consumer]
        return await asyncio.to_thread(list, consumer)

    async def read(self, topic: str) -> list[Message]:
        """All messages of a topic, through a consumer of their own."""
        async with self.consumer(topic, "audit", until_caught_up=True) as audit:
            return await self.rest(audit)


@asynccontextmanager
async def open_package(kind: Kind, target: str, **options: Any) -> AsyncIterator[Package]:
    package = Package(kind, target, **options)
    try:
        yield package
    finally:
        await package.run(package.client.close)


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def offsets(messages: Iterable[Message]) -> list[int]:
    return [message.offset for message in messages]


def assert_numbered(messages: list[Message], count: int) -> None:
    """Asserts that the messages are `numbers(count)`, published to an empty topic."""
    assert offsets(messages) == list(range(count))
    assert [message.payload for message in messages] == numbers(count)
