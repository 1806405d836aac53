"""The scenarios of SCENARIOS.md about topics, producers and consumers, each through the blocking
stubs and through those of asyncio."""

import asyncio
import os

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest

from tests.broker import Broker
from tests.client import SECONDS, Client, Kind, Stream, call, connect, error_detail, info_of
from tests.package import open_package
from trunkline.v1.consumer_pb2 import (
    COMMIT_MODE_MANUAL,
    ON_BUSY_FAIL,
    ON_BUSY_TAKE_OVER,
    ON_BUSY_WAIT,
    CommitRequest,
    ConsumeRequest,
    ConsumeResponse,
    ListConsumersRequest,
    RegisterConsumerRequest,
)
from trunkline.v1.message_pb2 import Message, NewMessage
from trunkline.v1.producer_pb2 import (
    ListProducersRequest,
    PublishRequest,
    PublishStreamRequest,
    RegisterProducerRequest,
)
from trunkline.v1.topic_pb2 import CreateTopicRequest, GetTopicRequest


async def test_register(client: Client, new_name: str) -> None:
    topics, producers, consumers = client.topics, client.producers, client.consumers
    created = await call(topics.CreateTopic, CreateTopicRequest(topic=new_name))
    assert (created.topic.name, created.topic.head) == (new_name, 0)

    shop = RegisterProducerRequest(topic=new_name, producer_id="shop")
    await call(producers.RegisterProducer, shop)
    billing = RegisterConsumerRequest(topic=new_name, consumer_id="billing")
    await call(consumers.RegisterConsumer, billing)
    listed = await call(producers.ListProducers, ListProducersRequest(topic=new_name))
    assert [producer.producer_id for producer in listed.producers] == ["shop"]
    found = await call(consumers.ListConsumers, ListConsumersRequest(topic=new_name))
    assert [consumer.consumer_id for consumer in found.consumers] == ["billing"]

    with pytest.raises(grpc.RpcError) as again:
        await call(producers.RegisterProducer, shop)
    assert again.value.code() is grpc.StatusCode.ALREADY_EXISTS
    topic_again = CreateTopicRequest(topic=new_name, if_missing=True)
    shop_again = RegisterProducerRequest(topic=new_name, producer_id="shop", if_missing=True)
    billing_again = RegisterConsumerRequest(topic=new_name, consumer_id="billing", if_missing=True)
    existing_topic = await call(topics.CreateTopic, topic_again)
    existing_shop = await call(producers.RegisterProducer, shop_again)
    existing_billing = await call(consumers.RegisterConsumer, billing_again)
    assert existing_topic.existed and existing_shop.existed and existing_billing.existed
    assert existing_topic.topic == created.topic
    assert existing_shop.producer == listed.producers[0]
    assert existing_billing.consumer == found.consumers[0]

    with pytest.raises(grpc.RpcError) as missing:
        await call(topics.GetTopic, GetTopicRequest(topic=f"{new_name}-missing"))
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND

    nameless = RegisterProducerRequest(topic=new_name)
    assert (await call(producers.RegisterProducer, nameless)).producer.producer_id


async def test_keys_headers_and_unicode(client: Client, topic: str) -> None:
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
    await call(client.producers.Publish, request)

    received = messages_of(await client.consume(topic, until_caught_up=True).rest())

    assert [as_published(message) for message in received] == sent
    times = [message.publish_time.ToDatetime() for message in received]
    assert times == sorted(times)
    assert times[0].year > 2000
    assert {message.producer_id for message in received} == {"shop"}


async def test_ordered_consume(client: Client, topic: str) -> None:
    for first in range(0, 1_000, 100):
        await client.publish(topic, *numbers(first, first + 100))

    frames = await client.consume(topic, until_caught_up=True).rest()

    assert frames[0].HasField("attached")
    assert frames[-1].HasField("caught_up")
    assert_numbered(messages_of(frames), 1_000)
    billing = await client.get_consumer(topic)
    assert (billing.position, billing.lag) == (1_000, 0)


async def test_manual_commit_and_resume(client: Client, topic: str) -> None:
    await client.publish(topic, *numbers(0, 10))

    stream = client.consume(topic, commit_mode=COMMIT_MODE_MANUAL)
    epoch = (await stream.next_of("attached")).attached.epoch
    assert_numbered(await stream.take(10), 10)
    commit = CommitRequest(topic=topic, consumer_id="billing", epoch=epoch, position=4)
    assert (await call(client.consumers.Commit, commit)).position == 4
    stream.cancel()

    resumed = client.consume(topic, commit_mode=COMMIT_MODE_MANUAL)
    assert (await resumed.next_of("attached")).attached.position == 4
    assert (await resumed.take(1))[0].offset == 4

    commit.position = 5
    with pytest.raises(grpc.RpcError) as late:
        await call(client.consumers.Commit, commit)
    assert late.value.code() is grpc.StatusCode.ABORTED
    assert info_of(late.value).reason == "LEASE_LOST"


async def test_standby_and_take_over(client: Client, topic: str) -> None:
    holder = client.consume(topic, client_name="first")
    assert (await holder.next()).HasField("attached")

    standby = client.consume(topic, client_name="second", on_busy=ON_BUSY_WAIT)
    assert (await standby.next()).standby.holder == "first"

    with pytest.raises(grpc.RpcError) as refused:
        await client.consume(topic, client_name="third", on_busy=ON_BUSY_FAIL).rest()
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert info_of(refused.value).reason == "LEASE_HELD"
    assert info_of(refused.value).metadata["holder"] == "first"

    taker = client.consume(topic, client_name="fourth", on_busy=ON_BUSY_TAKE_OVER)
    await taker.next_of("attached")
    with pytest.raises(grpc.RpcError) as ended:
        await holder.rest()
    assert ended.value.code() is grpc.StatusCode.ABORTED
    assert info_of(ended.value).reason == "LEASE_TAKEN_OVER"
    assert info_of(ended.value).metadata["holder"] == "fourth"

    taker.cancel()
    await standby.next_of("attached")


async def test_error_details(client: Client, topic: str) -> None:
    with pytest.raises(grpc.RpcError) as invalid:
        await call(client.topics.CreateTopic, CreateTopicRequest(topic="no spaces, please"))
    assert invalid.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    info = info_of(invalid.value)
    assert (info.domain, info.reason) == ("trunkline", "INVALID_FIELD")
    assert info.metadata["field"] == "topic"
    bad_request = error_detail(invalid.value, BadRequest)
    assert bad_request is not None
    assert [violation.field for violation in bad_request.field_violations] == ["topic"]

    request = PublishRequest(topic=topic, producer_id="stranger", messages=[NewMessage()])
    with pytest.raises(grpc.RpcError) as denied:
        await call(client.producers.Publish, request)
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    info = info_of(denied.value)
    assert (info.domain, info.reason) == ("trunkline", "PRODUCER_NOT_REGISTERED")
    assert info.metadata == {"topic": topic, "producer_id": "stranger"}


async def test_one_mebibyte_message(client: Client, topic: str) -> None:
    payload = bytes(range(256)) * 4_096
    assert (await client.publish(topic, payload)).first_offset == 0
    with pytest.raises(grpc.RpcError) as refused:
        await client.publish(topic, payload + b"!")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    [message] = messages_of(await client.consume(topic, until_caught_up=True).rest())
    assert message.payload == payload
    assert (await client.get_topic(topic)).head == 1


async def test_ten_thousand_messages_in_a_stream(client: Client, topic: str) -> None:
    def request(sequence: int) -> PublishStreamRequest:
        batch = [NewMessage(payload=payload) for payload in numbers(sequence, sequence + 100)]
        return PublishStreamRequest(
            topic=topic, producer_id="shop", sequence=sequence, messages=batch
        )

    requests = [request(sequence) for sequence in range(0, 10_000, 100)]
    repeated, with_a_gap, following = request(9_900), request(10_100), request(10_000)
    *answers, repetition, refused, next_one = await client.publish_stream(
        [*requests, repeated, with_a_gap, following]
    )

    receipts = [answer.receipt for answer in answers]
    assert [receipt.first_offset for receipt in receipts] == list(range(0, 10_000, 100))
    assert {(receipt.count, receipt.duplicate) for receipt in receipts} == {(100, False)}
    assert repetition.receipt.duplicate
    assert repetition.receipt.first_offset == 9_900
    assert refused.refusal.reason == "SEQUENCE_GAP"
    assert refused.refusal.code == grpc.StatusCode.OUT_OF_RANGE.value[0]
    assert refused.refusal.metadata["expected"] == "10000"
    assert next_one.receipt.first_offset == 10_000
    assert (await client.get_topic(topic)).head == 10_100


async def test_cancel_frees_the_lease(client: Client, topic: str) -> None:
    await client.publish(topic, *(b"x" * 1_024 for _ in range(1_000)))
    reader = client.consume(topic, max_batch_messages=10)
    assert len((await reader.next_of("batch")).batch.messages) == 10
    waiting = client.consume(topic, on_busy=ON_BUSY_WAIT)
    assert (await waiting.next()).HasField("standby")

    reader.cancel()

    position = (await waiting.next_of("attached")).attached.position
    assert 10 <= position <= 1_000
    await client.publish(topic, b"last")
    assert (await waiting.take(1))[0].offset == position


async def test_deadline(client: Client, topic: str) -> None:
    with pytest.raises(grpc.RpcError) as passed:
        await client.consume(topic, timeout=0.5).rest()
    assert passed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    await client.consume(topic).next_of("attached")


async def test_resume_after_a_restart(kind: Kind, client: Client, topic: str) -> None:
    await client.publish(topic, *numbers(0, 10))
    with Broker() as broker:
        async with (
            open_package(kind, broker.target) as package,
            package.consumer(topic) as consumer,
        ):
            before = await package.take(consumer, 5)
            await asyncio.to_thread(broker.stop)
            await client.publish(topic, *numbers(10, 20))
            resuming = asyncio.create_task(package.take(consumer, 15))
            await asyncio.to_thread(broker.start)
            after = await resuming

    assert [message.offset for message in before + after] == list(range(20))
    assert [message.payload for message in before + after] == numbers(0, 20)


def numbers(first: int, end: int) -> list[bytes]:
    """A payload for each number, from the first one to before the end."""
    return [b"%d" % number for number in range(first, end)]


def assert_numbered(messages: list[Message], count: int) -> None:
    """Asserts that the messages are exactly `numbers(0, count)`, published to an empty topic."""
    assert [message.offset for message in messages] == list(range(count))
    assert [message.payload for message in messages] == numbers(0, count)


async def test_call_with_a_token(client: Client, new_name: str) -> None:
    elsewhere, own = new_name, f"scenarios.{new_name}"
    await call(client.topics.CreateTopic, CreateTopicRequest(topic=elsewhere))
    token = (("authorization", f"Bearer {os.environ['TRUNKLINE_SECURE_TOKEN']}"),)
    async with connect(client.kind, os.environ["TRUNKLINE_SECURE_TARGET"]) as secure:
        topics, producers, consumers = secure.topics, secure.producers, secure.consumers
        with pytest.raises(grpc.RpcError) as nobody:
            await call(topics.GetTopic, GetTopicRequest(topic=elsewhere))
        assert nobody.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert info_of(nobody.value).reason == "TOKEN_MISSING"

        await call(topics.CreateTopic, CreateTopicRequest(topic=own), token)
        shop = RegisterProducerRequest(topic=own, producer_id="shop")
        await call(producers.RegisterProducer, shop, token)
        billing = RegisterConsumerRequest(topic=own, consumer_id="billing")
        await call(consumers.RegisterConsumer, billing, token)
        messages = [NewMessage(payload=b"one coffee")]
        order = PublishRequest(topic=own, producer_id="shop", messages=messages)
        await call(producers.Publish, order, token)
        unread = ConsumeRequest(topic=own, consumer_id="billing", until_caught_up=True)
        stream = Stream(consumers.Consume(unread, timeout=SECONDS, metadata=token))
        got = [message.payload for message in messages_of(await stream.rest())]
        assert got == [b"one coffee"]

        with pytest.raises(grpc.RpcError) as hidden:
            await call(topics.GetTopic, GetTopicRequest(topic=elsewhere), token)
        assert hidden.value.code() is grpc.StatusCode.NOT_FOUND
        assert info_of(hidden.value).reason == "TOPIC_NOT_FOUND"


def messages_of(frames: list[ConsumeResponse]) -> list[Message]:
    return [message for frame in frames for message in frame.batch.messages]


def as_published(message: Message) -> NewMessage:
    key = message.key if message.HasField("key") else None
    return NewMessage(payload=message.payload, key=key, headers=message.headers)
