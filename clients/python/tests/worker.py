"""Works on the messages of the subscription `resize`, by a stream and by unary calls."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, cast

from google.protobuf.duration_pb2 import Duration

from tests.client import SECONDS, Client, Frames, call
from trunkline.v1.subscription_pb2 import (
    Acknowledge,
    CreateSubscriptionRequest,
    Delivery,
    DeliveryPolicy,
    GetSubscriptionRequest,
    OpenSubscription,
    ReceiveRequest,
    SettleMessages,
    Settlement,
    SettleRequest,
    SubscribeRequest,
    SubscribeResponse,
    Subscription,
)

Requests = asyncio.Queue[SubscribeRequest | None] | SimpleQueue[SubscribeRequest | None]


@dataclass(frozen=True)
class Job:
    """A message that a worker has."""

    delivery: int
    offset: int
    payload: bytes
    attempts: int


class Worker(Frames[SubscribeResponse]):
    """A worker's stream, which is cancelled at the end of its context."""

    def __init__(
        self, client: Client, topic: str, subscription_id: str = "resize", **options: Any
    ) -> None:
        self._requests: Requests
        requests: AsyncIterator[SubscribeRequest] | Iterator[SubscribeRequest]
        if client.kind == "asyncio":
            queue = self._requests = asyncio.Queue()
            requests = _each_awaited(queue)
        else:
            blocking = self._requests = SimpleQueue()
            requests = iter(blocking.get, None)
        # The types are those of the blocking stubs.
        subscribe = cast(Any, client.subscriptions.Subscribe)
        super().__init__(subscribe(requests, timeout=SECONDS))
        opening = OpenSubscription(topic=topic, subscription_id=subscription_id, **options)
        self._requests.put_nowait(SubscribeRequest(open=opening))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()
        self._requests.put_nowait(None)

    async def jobs(self, count: int) -> list[Job]:
        """So many messages, in as many events as they come in; skips events of other kinds."""
        jobs: list[Job] = []
        while len(jobs) < count:
            jobs += jobs_of((await self.next_of("deliveries")).deliveries.deliveries)
        assert len(jobs) == count
        return jobs

    def settle(self, request_id: int, settlements: Iterable[Settlement]) -> None:
        settle = SettleMessages(request_id=request_id, settlements=settlements)
        self._requests.put_nowait(SubscribeRequest(settle=settle))

    async def settled(self, request_id: int) -> int:
        """How many messages a request applied to, whose answer must be the next one."""
        settled = (await self.next_of("settled")).settled
        assert settled.request_id == request_id
        return sum(settled.applied)

    async def close(self) -> None:
        """Closes the worker's side, and waits until the stream ends OK."""
        self._requests.put_nowait(None)
        await self.rest()


async def create_subscription(client: Client, topic: str, **policy: Any) -> Subscription:
    """Creates a subscription that delivers messages again at once."""
    request = CreateSubscriptionRequest(
        topic=topic,
        subscription_id="resize",
        policy=DeliveryPolicy(min_backoff=Duration(), **policy),
    )
    return (await call(client.subscriptions.CreateSubscription, request)).subscription


async def get_subscription(client: Client, topic: str) -> Subscription:
    request = GetSubscriptionRequest(topic=topic, subscription_id="resize")
    return (await call(client.subscriptions.GetSubscription, request)).subscription


async def receive(client: Client, topic: str, count: int) -> list[Job]:
    """Takes so many messages, in as many calls as that needs."""
    jobs: list[Job] = []
    while len(jobs) < count:
        request = ReceiveRequest(
            topic=topic,
            subscription_id="resize",
            max_messages=count - len(jobs),
            wait=timedelta(seconds=SECONDS - 1),
        )
        received = (await call(client.subscriptions.Receive, request)).deliveries
        assert received, f"no more messages came after {jobs}"
        jobs += jobs_of(received)
    return jobs


async def settle(client: Client, topic: str, *settlements: Settlement) -> list[int]:
    """How many messages each settlement applied to."""
    request = SettleRequest(topic=topic, subscription_id="resize", settlements=settlements)
    return list((await call(client.subscriptions.Settle, request)).applied)


def one(job: Job, **verdict: Any) -> Settlement:
    """Settles a message by its offset."""
    return Settlement(delivery=job.delivery, offsets=[job.offset], **verdict)


def acknowledge(job: Job) -> Settlement:
    return one(job, acknowledge=Acknowledge())


def acknowledge_all(jobs: Iterable[Job]) -> list[Settlement]:
    """Acknowledges the deliveries that messages came in, without naming offsets."""
    deliveries = dict.fromkeys(job.delivery for job in jobs)
    return [Settlement(delivery=delivery, acknowledge=Acknowledge()) for delivery in deliveries]


def jobs_of(deliveries: Iterable[Delivery]) -> list[Job]:
    return [
        Job(delivery.delivery, message.offset, message.payload, attempts)
        for delivery in deliveries
        for message, attempts in zip(delivery.batch.messages, delivery.attempts, strict=True)
    ]


async def _each_awaited(
    requests: "asyncio.Queue[SubscribeRequest | None]",
) -> AsyncIterator[SubscribeRequest]:
    while (request := await requests.get()) is not None:
        yield request
