"""Tests how the package goes on after seeks, breaks and silence, through both of its clients."""

import asyncio
import os

import grpc
import pytest

from tests.broker import Broker
from tests.client import SECONDS, Client, Kind, call
from tests.logs import logged
from tests.package import Package, assert_numbered, numbers, offsets, open_package
from trunkline import Error, aio
from trunkline.v1.consumer_pb2 import SeekRequest, UnregisterConsumerRequest
from trunkline.v1.topic_pb2 import TrimTopicRequest


async def test_a_consumer_follows_a_seek(client: Client, package: Package, topic: str) -> None:
    await package.fill(topic, 5)
    async with package.consumer(topic) as consumer:
        before = await package.take(consumer, 5)
        await seek(client, topic, 2)
        after = await package.take(consumer, 3)
    assert offsets(before + after) == [0, 1, 2, 3, 4, 2, 3, 4]
    assert (await client.get_consumer(topic)).position == 5


async def test_a_consumer_follows_a_seek_made_during_a_break(
    client: Client, package: Package, topic: str
) -> None:
    await package.fill(topic, 5)
    with Broker() as broker:
        async with (
            open_package(package.kind, broker.target) as its_package,
            its_package.consumer(topic) as consumer,
        ):
            before = await its_package.take(consumer, 4)
            await asyncio.to_thread(broker.stop)
            await seek(client, topic, 2)
            resuming = asyncio.create_task(its_package.take(consumer, 4))
            await asyncio.to_thread(broker.start)
            after = await resuming
    assert offsets(before + after) == [0, 1, 2, 3, 4, 2, 3, 4]


async def test_a_message_from_before_a_seek_is_not_committed(
    client: Client, package: Package, topic: str
) -> None:
    await package.fill(topic, 5)
    async with package.consumer(topic, auto_commit=False) as consumer:
        before = await package.take(consumer, 5)
        await seek(client, topic, 2)
        assert offsets(await package.take(consumer, 1)) == [2]
        consumer.commit(before[4])
    assert (await client.get_consumer(topic)).position == 2


async def test_removed_messages_are_left_out(
    client: Client, package: Package, topic: str
) -> None:
    await package.fill(topic, 5)
    async with package.consumer(topic, "late", start=0, until_caught_up=True) as consumer:
        await call(client.topics.TrimTopic, TrimTopicRequest(topic=topic, offset=3))
        with logged("messages 0 to 2 were removed") as reported:
            assert offsets(await package.rest(consumer)) == [3, 4]
            await reported()


async def test_a_silent_broker_is_left(kind: Kind, topic: str) -> None:
    with Broker() as broker:
        async with (
            open_package(kind, broker.target) as package,
            package.consumer(topic, heartbeat_interval=0.1) as consumer,
        ):
            await package.fill(topic, 1)
            await package.take(consumer, 1)
            with logged("the broker does not answer") as left:
                taking = asyncio.create_task(package.take(consumer, 1))
                broker.freeze()
                await left()
                broker.go_on()
            await package.fill(topic, 1)
            assert offsets(await taking) == [1]


async def test_commits_free_room_in_flight(
    package: Package, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No commit waits for others.
    for module in ("trunkline._consumer", "trunkline.aio._consumer"):
        monkeypatch.setattr(f"{module}.COMMIT_INTERVAL", 3_600)
    await package.fill(topic, 50)
    async with package.consumer(topic, max_in_flight=1) as consumer:
        assert_numbered(await package.take(consumer, 50), 50)


async def test_a_consumer_that_is_unregistered_ends(
    client: Client, package: Package, topic: str
) -> None:
    await package.fill(topic, 1)
    async with package.consumer(topic) as consumer:
        await package.take(consumer, 1)
        waiting = asyncio.create_task(package.take(consumer, 1))
        request = UnregisterConsumerRequest(topic=topic, consumer_id="billing")
        await call(client.consumers.UnregisterConsumer, request)
        with pytest.raises(Error) as gone:
            await waiting
    assert (gone.value.code, gone.value.reason) == (
        grpc.StatusCode.NOT_FOUND,
        "CONSUMER_NOT_FOUND",
    )


async def test_what_is_finished_is_committed_while_the_caller_waits(
    client: Client, package: Package, topic: str
) -> None:
    await package.fill(topic, 5)
    async with package.consumer(topic) as consumer:
        await package.take(consumer, 5)
        waiting = asyncio.create_task(package.take(consumer, 1))
        async with asyncio.timeout(SECONDS):
            while (await client.get_consumer(topic)).position < 5:
                await asyncio.sleep(0)
        assert not waiting.done()
        await package.fill(topic, 1)
        assert offsets(await waiting) == [5]


async def test_a_read_that_is_cancelled_loses_nothing(topic: str) -> None:
    async with open_package("asyncio", os.environ["TRUNKLINE_TARGET"]) as package:
        async with package.consumer(topic) as consumer:
            assert isinstance(consumer, aio.Consumer)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(consumer), timeout=0.1)
            await package.fill(topic, 2)
            assert offsets([await anext(consumer), await anext(consumer)]) == [0, 1]


async def test_a_producer_without_a_broker_loses_patience(kind: Kind, topic: str) -> None:
    with Broker() as broker:
        async with open_package(kind, broker.target) as package:
            with pytest.raises(Error, match="no message was stored for 0.5 s"):
                async with package.producer(topic, retry_for=0.5) as producer:
                    broker.kill()
                    [receipt] = await package.publish(producer, [b"never"])
                    assert (await package.error(receipt)).code is grpc.StatusCode.UNAVAILABLE


async def test_a_closed_producer_accepts_nothing(package: Package, topic: str) -> None:
    async with package.producer(topic) as producer:
        [receipt] = await package.publish(producer, [b"last"])
    assert receipt.done()
    with pytest.raises(Error, match="the producer is closed"):
        await package.publish(producer, [b"too late"])


async def test_a_flush_waits_for_what_was_published(package: Package, topic: str) -> None:
    # Nothing but a flush ends the linger of the second request.
    async with package.producer(topic, linger=600, max_batch_messages=10) as producer:
        receipts = await package.publish(producer, numbers(25))
        await package.run(producer.flush)
        assert all(receipt.done() for receipt in receipts)
        assert await package.offsets(receipts) == list(range(25))


async def test_a_token_goes_with_each_call(kind: Kind, new_name: str) -> None:
    target, token = os.environ["TRUNKLINE_SECURE_TARGET"], os.environ["TRUNKLINE_SECURE_TOKEN"]
    topic = f"scenarios.{new_name}"
    async with open_package(kind, target) as nobody:
        with pytest.raises(Error, match="TOKEN_MISSING"):
            await nobody.ensure_topic(topic)
    async with open_package(kind, f"http://{target}", token=token) as package:
        await package.ensure_topic(topic)
        await package.fill(topic, 3)
        assert_numbered(await package.read(topic), 3)


async def seek(client: Client, topic: str, offset: int) -> None:
    request = SeekRequest(topic=topic, consumer_id="billing", offset=offset)
    await call(client.consumers.Seek, request)
