"""The scenarios of SCENARIOS.md by the stubs of asyncio."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

from examples.consume_async import consume
from examples.error_details import error_detail
from examples.retry import CHANNEL_OPTIONS
from tests.broker import Broker
from trunkline.v1.consumer_pb2 import (
    COMMIT_MODE_MANUAL,
    ON_BUSY_FAIL,
    ON_BUSY_TAKE_OVER,
    ON_BUSY_WAIT,
    CommitRequest,
    Consumer,
    ConsumeRequest,
    ConsumeResponse,
    GetConsumerRequest,
    ListConsumersRequest,
    RegisterConsumerRequest,
)
from trunkline.v1.consumer_pb2_grpc import ConsumerServiceStub
from trunkline.v1.message_pb2 import Message, NewMessage
from trunkline.v1.producer_pb2 import (
    ListProducersRequest,
    PublishRequest,
    PublishResponse,
    PublishStreamRequest,
    RegisterProducerRequest,
)
from trunkline.v1.producer_pb2_grpc import ProducerServiceStub
from trunkline.v1.topic_pb2 import CreateTopicRequest, GetTopicRequest, Topic
from trunkline.v1.topic_pb2_grpc import TopicServiceStub

SECONDS = 10

Stream: TypeAlias = "grpc.aio.UnaryStreamCall[ConsumeRequest, ConsumeResponse]"


async def test_register(aio_channel: grpc.aio.Channel, new_name: str) -> None:
    topics = TopicServiceStub(aio_channel)
    producers, consumers = ProducerServiceStub(aio_channel), ConsumerServiceStub(aio_channel)
    created = await topics.CreateTopic(CreateTopicRequest(topic=new_name), timeout=SECONDS)
    assert (created.topic.name, created.topic.head) == (new_name, 0)

    shop = RegisterProducerRequest(topic=new_name, producer_id="shop")
    await producers.RegisterProducer(shop, timeout=SECONDS)
    await consumers.RegisterConsumer(
        RegisterConsumerRequest(topic=new_name, consumer_id="billing"), timeout=SECONDS
    )
    listed = await producers.ListProducers(ListProducersRequest(topic=new_name), timeout=SECONDS)
    assert [producer.producer_id for producer in listed.producers] == ["shop"]
    found = await consumers.ListConsumers(ListConsumersRequest(topic=new_name), timeout=SECONDS)
    assert [consumer.consumer_id for consumer in found.consumers] == ["billing"]

    with pytest.raises(grpc.RpcError) as again:
        await producers.RegisterProducer(shop, timeout=SECONDS)
    assert again.value.code() is grpc.StatusCode.ALREADY_EXISTS

    with pytest.raises(grpc.RpcError) as missing:
        await topics.GetTopic(GetTopicRequest(topic=f"{new_name}-missing"), timeout=SECONDS)
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND

    nameless = await producers.RegisterProducer(
        RegisterProducerRequest(topic=new_name), timeout=SECONDS
    )
    assert nameless.producer.producer_id


async def test_keys_headers_and_unicode(aio_channel: grpc.aio.Channel, topic: str) -> None:
    sent = [
        NewMessage(
            payload="grüße, 世界, 🚂".encode(),
            key="schlüssel".encode(),
            headers={"kind": "greeting", "größe": "🚂"},
        ),
        NewMessage(payload=b"\xff\x00\xfe"),
        NewMessage(payload=b"with an empty key", key=b""),
        NewMessage(),
    ]
    request = PublishRequest(topic=topic, producer_id="shop", messages=sent)
    await ProducerServiceStub(aio_channel).Publish(request, timeout=SECONDS)

    stream = open_stream(aio_channel, topic, until_caught_up=True)
    got = [message async for message in messages(stream)]

    assert [as_published(message) for message in got] == sent
    times = [message.publish_time.ToDatetime() for message in got]
    assert times == sorted(times)
    assert times[0].year > 2000
    assert {message.producer_id for message in got} == {"shop"}


async def test_ordered_consume(aio_channel: grpc.aio.Channel, topic: str) -> None:
    for first in range(0, 1_000, 100):
        await publish(aio_channel, topic, *(b"%d" % n for n in range(first, first + 100)))

    frames = [frame async for frame in open_stream(aio_channel, topic, until_caught_up=True)]

    assert frames[0].HasField("attached")
    assert frames[-1].HasField("caught_up")
    got = [message for frame in frames for message in frame.batch.messages]
    assert [message.offset for message in got] == list(range(1_000))
    assert [message.payload for message in got] == [b"%d" % n for n in range(1_000)]
    billing = await get_consumer(aio_channel, topic)
    assert (billing.position, billing.lag) == (1_000, 0)


async def test_manual_commit_and_resume(aio_channel: grpc.aio.Channel, topic: str) -> None:
    consumers = ConsumerServiceStub(aio_channel)
    await publish(aio_channel, topic, *(b"%d" % n for n in range(10)))

    stream = open_stream(aio_channel, topic, commit_mode=COMMIT_MODE_MANUAL)
    epoch = (await next_frame(stream, "attached")).attached.epoch
    assert [message.offset for message in await take(10, messages(stream))] == list(range(10))
    commit = CommitRequest(topic=topic, consumer_id="billing", epoch=epoch, position=4)
    assert (await consumers.Commit(commit, timeout=SECONDS)).position == 4
    stream.cancel()

    resumed = open_stream(aio_channel, topic, commit_mode=COMMIT_MODE_MANUAL)
    assert (await next_frame(resumed, "attached")).attached.position == 4
    [fifth] = await take(1, messages(resumed))
    assert fifth.offset == 4

    commit.position = 5
    with pytest.raises(grpc.RpcError) as late:
        await consumers.Commit(commit, timeout=SECONDS)
    assert late.value.code() is grpc.StatusCode.ABORTED
    assert info_of(late.value).reason == "LEASE_LOST"


async def test_standby_and_take_over(aio_channel: grpc.aio.Channel, topic: str) -> None:
    holder = open_stream(aio_channel, topic, client_name="first")
    assert (await anext(aiter(holder))).HasField("attached")

    standby = open_stream(aio_channel, topic, client_name="second", on_busy=ON_BUSY_WAIT)
    assert (await anext(aiter(standby))).standby.holder == "first"

    third = open_stream(aio_channel, topic, client_name="third", on_busy=ON_BUSY_FAIL)
    with pytest.raises(grpc.RpcError) as refused:
        await anext(aiter(third))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert info_of(refused.value).reason == "LEASE_HELD"
    assert info_of(refused.value).metadata["holder"] == "first"

    taker = open_stream(aio_channel, topic, client_name="fourth", on_busy=ON_BUSY_TAKE_OVER)
    await next_frame(taker, "attached")
    with pytest.raises(grpc.RpcError) as ended:
        async for _ in holder:
            pass
    assert ended.value.code() is grpc.StatusCode.ABORTED
    assert info_of(ended.value).reason == "LEASE_TAKEN_OVER"
    assert info_of(ended.value).metadata["holder"] == "fourth"

    taker.cancel()
    await next_frame(standby, "attached")


async def test_error_details(aio_channel: grpc.aio.Channel, topic: str) -> None:
    topics, producers = TopicServiceStub(aio_channel), ProducerServiceStub(aio_channel)
    with pytest.raises(grpc.RpcError) as invalid:
        await topics.CreateTopic(CreateTopicRequest(topic="no spaces, please"), timeout=SECONDS)
    assert invalid.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    info = info_of(invalid.value)
    assert (info.domain, info.reason) == ("trunkline", "INVALID_FIELD")
    assert info.metadata["field"] == "topic"
    bad_request = error_detail(invalid.value, BadRequest)
    assert bad_request is not None
    assert [violation.field for violation in bad_request.field_violations] == ["topic"]

    request = PublishRequest(topic=topic, producer_id="stranger", messages=[NewMessage()])
    with pytest.raises(grpc.RpcError) as denied:
        await producers.Publish(request, timeout=SECONDS)
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    info = info_of(denied.value)
    assert (info.domain, info.reason) == ("trunkline", "PRODUCER_NOT_REGISTERED")
    assert info.metadata == {"topic": topic, "producer_id": "stranger"}


async def test_one_mebibyte_message(aio_channel: grpc.aio.Channel, topic: str) -> None:
    payload = bytes(range(256)) * 4_096
    assert (await publish(aio_channel, topic, payload)).first_offset == 0
    with pytest.raises(grpc.RpcError) as refused:
        await publish(aio_channel, topic, payload + b"!")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    stream = open_stream(aio_channel, topic, until_caught_up=True)
    [message] = [message async for message in messages(stream)]
    assert message.payload == payload
    assert (await get_topic(aio_channel, topic)).head == 1


async def test_ten_thousand_messages_in_a_stream(aio_channel: grpc.aio.Channel, topic: str) -> None:
    def request(sequence: int) -> PublishStreamRequest:
        batch = [NewMessage(payload=b"%d" % n) for n in range(sequence, sequence + 100)]
        return PublishStreamRequest(
            topic=topic, producer_id="shop", sequence=sequence, messages=batch
        )

    requests = [request(sequence) for sequence in range(0, 10_000, 100)]
    repeated, with_a_gap, following = request(9_900), request(10_100), request(10_000)
    stream = ProducerServiceStub(aio_channel).PublishStream(
        iter([*requests, repeated, with_a_gap, following]), timeout=SECONDS
    )
    *answers, repetition, refused, next_one = [answer async for answer in stream]

    receipts = [answer.receipt for answer in answers]
    assert [receipt.first_offset for receipt in receipts] == list(range(0, 10_000, 100))
    assert {(receipt.count, receipt.duplicate) for receipt in receipts} == {(100, False)}
    assert repetition.receipt.duplicate
    assert repetition.receipt.first_offset == 9_900
    assert refused.refusal.reason == "SEQUENCE_GAP"
    assert refused.refusal.code == grpc.StatusCode.OUT_OF_RANGE.value[0]
    assert refused.refusal.metadata["expected"] == "10000"
    assert next_one.receipt.first_offset == 10_000
    assert (await get_topic(aio_channel, topic)).head == 10_100


async def test_cancel_frees_the_lease(aio_channel: grpc.aio.Channel, topic: str) -> None:
    await publish(aio_channel, topic, *(b"x" * 1_024 for _ in range(1_000)))
    reader = open_stream(aio_channel, topic, max_batch_messages=10)
    assert len((await next_frame(reader, "batch")).batch.messages) == 10
    waiting = open_stream(aio_channel, topic, on_busy=ON_BUSY_WAIT)
    assert (await anext(aiter(waiting))).HasField("standby")

    reader.cancel()

    position = (await next_frame(waiting, "attached")).attached.position
    assert 10 <= position <= 1_000
    await publish(aio_channel, topic, b"last")
    [first] = await take(1, messages(waiting))
    assert first.offset == position


async def test_deadline(aio_channel: grpc.aio.Channel, topic: str) -> None:
    request = ConsumeRequest(topic=topic, consumer_id="billing")
    with pytest.raises(grpc.RpcError) as passed:
        async for _ in ConsumerServiceStub(aio_channel).Consume(request, timeout=0.5):
            pass
    assert passed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    await next_frame(open_stream(aio_channel, topic), "attached")


async def test_resume_after_a_restart(aio_channel: grpc.aio.Channel, topic: str) -> None:
    with Broker() as broker:
        async with grpc.aio.insecure_channel(broker.target, CHANNEL_OPTIONS) as its_channel:
            await publish(aio_channel, topic, *(b"%d" % n for n in range(10)))

            async def restart() -> None:
                await asyncio.to_thread(broker.stop)
                await publish(aio_channel, topic, *(b"%d" % n for n in range(10, 20)))
                await asyncio.to_thread(broker.start)

            async with aclosing(consume(its_channel, topic, "billing")) as got:
                before = await take(5, got)
                restarting = asyncio.create_task(restart())
                after = await take(15, got)
                await restarting

    assert [message.offset for message in before + after] == list(range(20))
    assert [message.payload for message in before + after] == [b"%d" % n for n in range(20)]


async def publish(channel: grpc.aio.Channel, topic: str, *payloads: bytes) -> PublishResponse:
    request = PublishRequest(
        topic=topic,
        producer_id="shop",
        messages=[NewMessage(payload=payload) for payload in payloads],
    )
    return await ProducerServiceStub(channel).Publish(request, timeout=SECONDS)


def open_stream(channel: grpc.aio.Channel, topic: str, **options: Any) -> Stream:
    request = ConsumeRequest(topic=topic, consumer_id="billing", **options)
    return ConsumerServiceStub(channel).Consume(request, timeout=SECONDS)


async def next_frame(stream: Stream, event: str) -> ConsumeResponse:
    async for frame in stream:
        if frame.WhichOneof("event") == event:
            return frame
    raise EOFError(f"the stream ended before a frame of the kind {event}")


async def messages(stream: Stream) -> AsyncIterator[Message]:
    async for frame in stream:
        for message in frame.batch.messages:
            yield message


async def take(count: int, source: AsyncIterator[Message]) -> list[Message]:
    return [await anext(source) for _ in range(count)]


def as_published(message: Message) -> NewMessage:
    key = message.key if message.HasField("key") else None
    return NewMessage(payload=message.payload, key=key, headers=message.headers)


async def get_topic(channel: grpc.aio.Channel, topic: str) -> Topic:
    request = GetTopicRequest(topic=topic)
    return (await TopicServiceStub(channel).GetTopic(request, timeout=SECONDS)).topic


async def get_consumer(channel: grpc.aio.Channel, topic: str) -> Consumer:
    request = GetConsumerRequest(topic=topic, consumer_id="billing")
    return (await ConsumerServiceStub(channel).GetConsumer(request, timeout=SECONDS)).consumer


def info_of(error: grpc.RpcError) -> ErrorInfo:
    info = error_detail(error, ErrorInfo)
    assert info is not None, error
    return info
