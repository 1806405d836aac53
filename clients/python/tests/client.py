"""One interface to the blocking stubs and to those of asyncio, so that a scenario tests both."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
)
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import Any, Generic, Literal, TypeVar, cast

import grpc
from google.protobuf.message import Message as Request
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from trunkline.v1.consumer_pb2 import (
    Consumer,
    ConsumeRequest,
    ConsumeResponse,
    GetConsumerRequest,
)
from trunkline.v1.consumer_pb2_grpc import ConsumerServiceStub
from trunkline.v1.message_pb2 import Message, NewMessage
from trunkline.v1.producer_pb2 import (
    PublishRequest,
    PublishResponse,
    PublishStreamRequest,
    PublishStreamResponse,
)
from trunkline.v1.producer_pb2_grpc import ProducerServiceStub
from trunkline.v1.subscription_pb2 import SubscribeResponse
from trunkline.v1.subscription_pb2_grpc import SubscriptionServiceStub
from trunkline.v1.topic_pb2 import GetTopicRequest, Topic
from trunkline.v1.topic_pb2_grpc import TopicServiceStub

SECONDS = 10

Kind = Literal["blocking", "asyncio"]
Options = list[tuple[str, int]]
T = TypeVar("T")
Detail = TypeVar("Detail", bound=Request)
Frame = TypeVar("Frame", ConsumeResponse, SubscribeResponse)


class Client:
    """The stubs of one channel, with short forms of the calls that many tests make.

    The types are those of the blocking stubs; `call` and `each` hide the difference.
    """

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None:
        self.channel = channel
        self.topics: TopicServiceStub = TopicServiceStub(channel)
        self.producers: ProducerServiceStub = ProducerServiceStub(channel)
        self.consumers: ConsumerServiceStub = ConsumerServiceStub(channel)
        self.subscriptions: SubscriptionServiceStub = SubscriptionServiceStub(channel)

    @property
    def kind(self) -> Kind:
        return "asyncio" if isinstance(self.channel, grpc.aio.Channel) else "blocking"

    async def publish(self, topic: str, *payloads: bytes) -> PublishResponse:
        messages = [NewMessage(payload=payload) for payload in payloads]
        request = PublishRequest(topic=topic, producer_id="shop", messages=messages)
        return await call(self.producers.Publish, request)

    async def publish_stream(
        self, requests: Iterable[PublishStreamRequest]
    ) -> list[PublishStreamResponse]:
        answers = self.producers.PublishStream(iter(requests), timeout=SECONDS)
        return [answer async for answer in each(answers)]

    def consume(self, topic: str, timeout: float = SECONDS, **options: Any) -> "Stream":
        """Opens a stream of `billing`, unless the options name another consumer."""
        request = ConsumeRequest(topic=topic, **({"consumer_id": "billing"} | options))
        return Stream(self.consumers.Consume(request, timeout=timeout))

    async def get_topic(self, topic: str) -> Topic:
        return (await call(self.topics.GetTopic, GetTopicRequest(topic=topic))).topic

    async def get_consumer(self, topic: str) -> Consumer:
        request = GetConsumerRequest(topic=topic, consumer_id="billing")
        return (await call(self.consumers.GetConsumer, request)).consumer


class Frames(Generic[Frame]):
    """A stream that is read frame by frame."""

    def __init__(self, frames: "grpc._CallIterator[Frame]") -> None:
        self.cancel = frames.cancel
        self._frames: AsyncGenerator[Frame] = each(frames)

    async def next(self) -> Frame:
        return await anext(self._frames)

    async def next_of(self, event: str) -> Frame:
        """The next frame of a kind; skips those of other kinds."""
        async for frame in self._frames:
            if frame.WhichOneof("event") == event:
                return frame
        raise EOFError(f"the stream ended before a frame of kind {event}")

    async def rest(self) -> list[Frame]:
        """All frames until the stream ends."""
        return [frame async for frame in self._frames]


class Stream(Frames[ConsumeResponse]):
    """A stream of a consumer."""

    async def take(self, count: int) -> list[Message]:
        """The messages of the next batch frames, until there are at least that many."""
        messages: list[Message] = []
        while len(messages) < count:
            messages += (await self.next_of("batch")).batch.messages
        return messages


@asynccontextmanager
async def connect(kind: Kind, target: str, options: Options | None = None) -> AsyncIterator[Client]:
    if kind == "asyncio":
        async with grpc.aio.insecure_channel(target, options) as channel:
            yield Client(channel)
    else:
        with grpc.insecure_channel(target, options) as channel:
            yield Client(channel)


async def call(
    method: Callable[..., T], request: Request, metadata: tuple[tuple[str, str], ...] | None = None
) -> T:
    """Makes a unary call with a deadline."""
    answer = method(request, timeout=SECONDS, metadata=metadata)
    return cast(T, await answer) if isawaitable(answer) else answer


def error_detail(error: grpc.RpcError, kind: type[Detail]) -> Detail | None:
    """The first detail of a kind that the broker sent with an error."""
    # An error of asyncio is not a grpc.Call, but has all the methods that are used here.
    status = rpc_status.from_call(cast(grpc.Call, error))
    for packed in status.details if status else ():
        detail = kind()
        if packed.Unpack(detail):
            return detail
    return None


def info_of(error: grpc.RpcError) -> ErrorInfo:
    info = error_detail(error, ErrorInfo)
    assert info is not None, error
    return info


async def each(source: Iterator[T] | AsyncIterable[T]) -> AsyncGenerator[T]:
    """Yields the items of either kind of iterator. A thread waits for a blocking one, so that the
    test can do other things meanwhile."""
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
        return
    while (following := await asyncio.to_thread(lambda: next(source, None))) is not None:
        yield following
