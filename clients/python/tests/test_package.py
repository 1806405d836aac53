"""The scenarios of SCENARIOS.md about the package, through its blocking and its asyncio client."""

import asyncio
from datetime import UTC, datetime

import grpc
import pytest

from tests.broker import Broker
from tests.client import Kind, connect
from tests.logs import logged
from tests.package import (
    Package,
    assert_numbered,
    numbers,
    offsets,
    open_package,
)
from trunkline import Error

MIB = 1_048_576


async def test_package_publish_and_consume(package: Package, new_name: str) -> None:
    began = datetime.now(UTC)
    await package.ensure_topic(new_name)
    await package.ensure_topic(new_name)
    key, headers = "größe".encode(), {"größe": "🚂", "n": "7"}
    async with package.producer(new_name) as producer:
        receipts = await package.publish(producer, numbers(10_000), key=key, headers=headers)
        assert await package.offsets(receipts) == list(range(10_000))

    async with package.consumer(new_name, until_caught_up=True) as consumer:
        messages = await package.rest(consumer)

    assert_numbered(messages, 10_000)
    assert {message.key for message in messages} == {key}
    assert all(message.headers == headers for message in messages)
    assert {message.producer_id for message in messages} == {"shop"}
    times = [message.publish_time.ToDatetime(UTC) for message in messages]
    assert times == sorted(times)
    assert abs((times[0] - began).total_seconds()) < 60
    async with package.consumer(new_name, until_caught_up=True) as consumer:
        assert await package.rest(consumer) == []


async def test_package_commit_and_resume(package: Package, topic: str) -> None:
    await package.fill(topic, 20)

    async with package.consumer(topic, auto_commit=False) as consumer:
        messages = await package.take(consumer, 10)
        consumer.commit(messages[3])

    async with package.consumer(topic) as consumer:
        # Leaving without a failure says that the last message is finished too.
        assert offsets(await package.take(consumer, 3)) == [4, 5, 6]

    with pytest.raises(ZeroDivisionError):
        async with package.consumer(topic) as consumer:
            assert offsets(await package.take(consumer, 3)) == [7, 8, 9]
            raise ZeroDivisionError

    async with package.consumer(topic) as consumer:
        assert offsets(await package.take(consumer, 1)) == [9]


async def test_package_survives_a_kill(kind: Kind, new_name: str) -> None:
    payloads = [payload.ljust(500) for payload in numbers(20_000)]
    with Broker() as broker:
        async with open_package(kind, broker.target) as package:
            await package.ensure_topic(new_name)
            async with (
                # It has room for a fraction of them, and so still publishes when the broker dies.
                package.producer(new_name, max_buffered_bytes=2 * MIB) as producer,
                package.consumer(new_name) as consumer,
            ):
                publishing = asyncio.create_task(package.publish(producer, payloads))
                before = await package.take(consumer, 500)
                assert not publishing.done()
                broker.kill()
                await asyncio.to_thread(broker.start)
                after = await package.take(consumer, 19_500)
                assert await package.offsets(await publishing) == list(range(20_000))
            stored = await package.read(new_name)

    assert offsets(before + after) == list(range(20_000))
    assert offsets(stored) == list(range(20_000))
    assert [message.payload for message in stored] == payloads


async def test_package_bounded_memory(kind: Kind, new_name: str) -> None:
    payload = bytes(100_000)
    with Broker() as broker:
        async with open_package(kind, broker.target) as package:
            await package.ensure_topic(new_name)
            async with package.producer(new_name, max_buffered_bytes=2 * MIB) as producer:
                await package.offsets(await package.publish(producer, [payload]))
                broker.freeze()
                fitting = await package.publish(producer, [payload] * 20)
                waiting = asyncio.create_task(package.publish(producer, [payload]))
                await asyncio.wait([waiting], timeout=0.3)
                assert not waiting.done()
                assert not any(receipt.done() for receipt in fitting)
                broker.go_on()
                assert await package.offsets(fitting + await waiting) == list(range(1, 22))

            patience = "no message was stored for 1 s"
            with pytest.raises(Error, match=patience):
                async with package.producer(new_name, retry_for=1) as producer:
                    await package.offsets(await package.publish(producer, [payload]))
                    broker.freeze()
                    [receipt] = await package.publish(producer, [payload])
                    error = await package.error(receipt)
                    assert error.code is grpc.StatusCode.UNAVAILABLE
                    assert patience in str(error)
                    # That is final: the caller opens another producer.
                    with pytest.raises(Error, match=patience):
                        await package.publish(producer, [payload])


async def test_package_errors(package: Package, topic: str) -> None:
    missing = f"{topic}-missing"
    for opening in (package.producer(missing), package.consumer(missing)):
        with pytest.raises(Error) as unknown:
            async with opening:
                pass
        assert unknown.value.code is grpc.StatusCode.NOT_FOUND
        assert unknown.value.reason == "TOPIC_NOT_FOUND"
        assert unknown.value.metadata == {"topic": missing}
        assert not unknown.value.may_pass

    with pytest.raises(Error, match="PRODUCER_FENCED"):
        async with package.producer(topic) as first:
            assert await package.offsets(await package.publish(first, [b"0"])) == [0]
            async with package.producer(topic) as second:
                assert await package.offsets(await package.publish(second, [b"1"])) == [1]
                [refused] = await package.publish(first, [b"never"])
                error = await package.error(refused)
                assert error.code is grpc.StatusCode.FAILED_PRECONDITION
                assert error.reason == "PRODUCER_FENCED"
                await package.publish(second, [b"2"])

    async with package.producer(topic) as producer:
        before = await package.publish(producer, [b"before", bytes(MIB)])
        with pytest.raises(Error) as large:
            await package.publish(producer, [bytes(MIB + 1)])
        after = await package.publish(producer, [b"after"])
        assert await package.offsets(before + after) == [3, 4, 5]
    assert large.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert large.value.reason == "INVALID_FIELD"
    assert large.value.metadata == {"field": "message", "limit": "1048576"}
    assert large.value.violations == [("message", "is 1048577 bytes, and the limit is 1048576")]
    stored = [message.payload for message in await package.read(topic)]
    assert stored == [b"0", b"1", b"2", b"before", bytes(MIB), b"after"]

    with Broker() as broker:
        async with connect(package.kind, broker.target) as client:
            stream = client.consume(topic)
            await stream.next_of("attached")
            await asyncio.to_thread(broker.stop)
            with pytest.raises(grpc.RpcError) as ended:
                await stream.rest()
    draining = Error.of(ended.value)
    assert (draining.code, draining.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert draining.retry_delay == 0.5
    assert draining.may_pass


async def test_package_lease(package: Package, topic: str) -> None:
    await package.fill(topic, 30)

    async with package.consumer(topic, client_name="second") as second:
        async with package.consumer(topic, client_name="first") as first:
            assert offsets(await package.take(first, 10)) == list(range(10))
            with logged("first holds the lease") as standing_by:
                taking = asyncio.create_task(package.take(second, 20))
                await standing_by()
            assert not taking.done()
        assert offsets(await taking) == list(range(10, 30))

        waiting = asyncio.create_task(package.take(second, 1))
        async with package.consumer(
            topic, client_name="third", take_over=True, until_caught_up=True
        ) as third:
            # Both end: to leave third while it has unfinished messages is an error of its own.
            taken_over, rest = await asyncio.gather(
                waiting, package.rest(third), return_exceptions=True
            )
            assert isinstance(taken_over, Error)
            assert taken_over.code is grpc.StatusCode.ABORTED
            assert taken_over.reason == "LEASE_TAKEN_OVER"
            assert taken_over.metadata["holder"] == "third"
            assert not isinstance(rest, BaseException)
            # That is final.
            with pytest.raises(Error, match="LEASE_TAKEN_OVER"):
                await package.take(second, 1)
