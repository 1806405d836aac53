"""Tests what becomes of commits that fail, through both clients of the package."""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import pytest
from grpc import StatusCode

import trunkline
from tests.client import SECONDS, Client, call
from tests.package import Package, offsets
from tests.test_resume import seek
from trunkline import Error
from trunkline.v1.consumer_pb2 import CommitRequest

REFUSED = Error(StatusCode.INTERNAL, "the commit fails", "INTERNAL")
LOST = Error(StatusCode.UNAVAILABLE, "the connection broke")


class Commits:
    """Has a package's commits fail with `errors`, one after the other, and then succeed."""

    def __init__(self, package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
        self.errors: deque[Error] = deque()
        make: Callable[..., Any] = package.client.call

        def intercept(method: Any, request: Any, *timeout: float) -> Any:
            if isinstance(request, CommitRequest) and self.errors:
                raise self.errors.popleft()
            return make(method, request, *timeout)

        async def intercept_later(*arguments: Any) -> Any:
            return await intercept(*arguments)

        is_async = package.kind == "asyncio"
        monkeypatch.setattr(package.client, "call", intercept_later if is_async else intercept)

    async def used(self, left: int) -> None:
        """Waits until no more errors than that are left."""
        async with asyncio.timeout(SECONDS):
            while len(self.errors) > left:
                await asyncio.sleep(0.01)


@pytest.fixture
def commits(package: Package, monkeypatch: pytest.MonkeyPatch) -> Commits:
    return Commits(package, monkeypatch)


@pytest.fixture
def late_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has nothing committed before the end."""
    for module in ("trunkline._consumer", "trunkline.aio._consumer"):
        monkeypatch.setattr(f"{module}.COMMIT_INTERVAL", 3_600)


@pytest.mark.parametrize("error", [REFUSED, LOST])
async def test_a_commit_that_failed_is_tried_again(
    client: Client, package: Package, topic: str, commits: Commits, error: Error
) -> None:
    await package.fill(topic, 5)
    commits.errors.extend([error, error])
    async with package.consumer(topic) as consumer:
        assert offsets(await package.take(consumer, 5)) == [0, 1, 2, 3, 4]
        async with asyncio.timeout(SECONDS):
            while (await client.get_consumer(topic)).position < 4:
                await asyncio.sleep(0)
        assert not commits.errors
        # The iteration goes on.
        await package.fill(topic, 1)
        assert offsets(await package.take(consumer, 1)) == [5]
    assert (await client.get_consumer(topic)).position == 6


async def test_commits_are_refused_until_the_end(
    client: Client, package: Package, topic: str, commits: Commits
) -> None:
    await package.fill(topic, 5)
    commits.errors.extend([REFUSED] * 100)
    with pytest.raises(Error, match="the commit fails") as refused:
        async with package.consumer(topic) as consumer:
            await package.take(consumer, 5)
            await commits.used(left=99)
    assert refused.value.reason == "INTERNAL"
    assert (await client.get_consumer(topic)).position == 0


async def test_committing_raises_why_commits_are_refused(
    client: Client, package: Package, topic: str, commits: Commits
) -> None:
    await package.fill(topic, 5)
    async with package.consumer(topic, auto_commit=False) as consumer:
        messages = await package.take(consumer, 5)
        consumer.commit(messages[0])
        commits.errors.extend([REFUSED] * 100)
        with pytest.raises(Error, match="the commit fails"):
            async with asyncio.timeout(SECONDS):
                while True:
                    consumer.commit(messages[1])
                    await asyncio.sleep(0.01)
        commits.errors.clear()
        # It is recorded, and so is what follows.
        with suppress(Error):
            consumer.commit(messages[4])
    assert (await client.get_consumer(topic)).position == 5


async def test_a_failing_block_does_not_hide_its_error(
    package: Package, topic: str, commits: Commits
) -> None:
    await package.fill(topic, 5)
    commits.errors.extend([REFUSED] * 100)
    with pytest.raises(ZeroDivisionError):
        async with package.consumer(topic) as consumer:
            await package.take(consumer, 5)
            raise ZeroDivisionError


async def test_a_commit_during_a_seek_waits_for_the_next_epoch(
    client: Client, package: Package, topic: str, commits: Commits
) -> None:
    await package.fill(topic, 5)
    async with package.consumer(topic) as consumer:
        await package.take(consumer, 5)
        # The consumer learns of the seek when it asks for more, and is refused until then.
        await seek(client, topic, 1)
        assert offsets(await package.take(consumer, 4)) == [1, 2, 3, 4]
    assert (await client.get_consumer(topic)).position == 5


async def test_a_seek_before_the_end_leaves_nothing_to_commit(
    client: Client, package: Package, topic: str, late_commits: None
) -> None:
    await package.fill(topic, 5)
    async with package.consumer(topic) as consumer:
        await package.take(consumer, 5)
        await seek(client, topic, 1)
    assert (await client.get_consumer(topic)).position == 1


async def test_a_take_over_before_the_end_is_an_error(
    package: Package, topic: str, late_commits: None
) -> None:
    await package.fill(topic, 5)
    with pytest.raises(Error, match="LEASE_LOST"):
        async with package.consumer(topic) as consumer:
            await package.take(consumer, 5)
            async with package.consumer(topic, take_over=True) as next_one:
                await package.take(next_one, 1)


def test_the_last_commit_is_not_made_in_the_thread_of_the_caller(
    topic: str, late_commits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    with trunkline.Client(os.environ["TRUNKLINE_TARGET"]) as client:
        make: Callable[..., Any] = client.call

        def observe(method: Any, request: Any, *timeout: float) -> Any:
            if isinstance(request, CommitRequest):
                threads.append(threading.current_thread())
                if len(threads) == 1:
                    raise LOST
            return make(method, request, *timeout)

        monkeypatch.setattr(client, "call", observe)
        with trunkline.Producer(client, topic, "shop") as producer:
            producer.publish(b"finished")
        with trunkline.Consumer(client, topic, "billing") as consumer:
            next(consumer)
    assert [thread.name for thread in threads] == ["trunkline-consumer"] * 2


async def test_with_its_epoch_the_caller_commits_until_a_seek(
    client: Client, package: Package, topic: str
) -> None:
    await package.fill(topic, 5)
    async with package.consumer(topic, auto_commit=False) as consumer:
        assert consumer.epoch == 0
        await package.take(consumer, 3)
        first = CommitRequest(topic=topic, consumer_id="billing", epoch=consumer.epoch, position=3)
        assert (await call(client.consumers.Commit, first)).position == 3

        await seek(client, topic, 1)
        # These were delivered before the seek.
        await package.take(consumer, 2)
        assert consumer.epoch == first.epoch
        with pytest.raises(grpc.RpcError) as refused:
            await call(client.consumers.Commit, first)
        assert Error.of(refused.value).reason == "LEASE_LOST"

        assert offsets(await package.take(consumer, 1)) == [1]
        again = CommitRequest(topic=topic, consumer_id="billing", epoch=consumer.epoch, position=2)
        assert (await call(client.consumers.Commit, again)).position == 2
    assert (await client.get_consumer(topic)).position == 2


async def test_a_message_from_before_a_seek_is_not_finished_by_its_offset(
    client: Client, package: Package, topic: str
) -> None:
    await package.fill(topic, 5)
    async with package.consumer(topic, auto_commit=False) as consumer:
        before = await package.take(consumer, 5)
        await seek(client, topic, 1)
        after = await package.take(consumer, 4)
        assert offsets(after) == [1, 2, 3, 4]
        consumer.commit(after[0])
        # The same offsets were received again, but these messages are not.
        consumer.commit(before[3])
        consumer.commit(before[4])
        await package.fill(topic, 1)
        assert offsets(await package.take(consumer, 1)) == [5]
    assert (await client.get_consumer(topic)).position == 2


async def test_what_comes_again_after_a_seek_can_be_committed(
    client: Client, package: Package, topic: str
) -> None:
    await package.fill(topic, 5)
    async with package.consumer(topic, auto_commit=False) as consumer:
        await package.take(consumer, 5)
        await seek(client, topic, 1)
        consumer.commit((await package.take(consumer, 4))[2])
        await seek(client, topic, 0)
        after = await package.take(consumer, 5)
        await package.fill(topic, 2)
        consumer.commit((await package.take(consumer, 2))[0])
    assert offsets(after) == [0, 1, 2, 3, 4]
    assert (await client.get_consumer(topic)).position == 6
