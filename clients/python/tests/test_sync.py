"""The scenarios of SCENARIOS.md by the blocking stubs."""

from collections.abc import Iterator
from itertools import islice
from threading import Thread
from typing import Any, TypeAlias

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

from examples.consume import consume
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

Stream: TypeAlias = "grpc._CallIterator[ConsumeResponse]"


def test_register(channel: grpc.Channel, new_name: str) -> None:
    producers, consumers = ProducerServiceStub(channel), ConsumerServiceStub(channel)
    created = TopicServiceStub(channel).CreateTopic(
        CreateTopicRequest(topic=new_name), timeout=SECONDS
    )
    assert (created.topic.name, created.topic.head) == (new_name, 0)

    shop = RegisterProducerRequest(topic=new_name, producer_id="shop")
    producers.RegisterProducer(shop, timeout=SECONDS)
    consumers.RegisterConsumer(
        RegisterConsumerRequest(topic=new_name, consumer_id="billing"), timeout=SECONDS
    )
    listed = producers.ListProducers(ListProducersRequest(topic=new_name), timeout=SECONDS)
    assert [producer.producer_id for producer in listed.producers] == ["shop"]
    found = consumers.ListConsumers(ListConsumersRequest(topic=new_name), timeout=SECONDS)
    assert [consumer.consumer_id for consumer in found.consumers] == ["billing"]

    with pytest.raises(grpc.RpcError) as again:
        producers.RegisterProducer(shop, timeout=SECONDS)
    assert again.value.code() is grpc.StatusCode.ALREADY_EXISTS

    with pytest.raises(grpc.RpcError) as missing:
        TopicServiceStub(channel).GetTopic(
            GetTopicRequest(topic=f"{new_name}-missing"), timeout=SECONDS
        )
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND

    nameless = producers.RegisterProducer(RegisterProducerRequest(topic=new_name), timeout=SECONDS)
    assert nameless.producer.producer_id


def test_keys_headers_and_unicode(channel: grpc.Channel, topic: str) -> None:
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
    ProducerServiceStub(channel).Publish(request, timeout=SECONDS)

    got = list(messages(open_stream(channel, topic, until_caught_up=True)))

    assert [as_published(message) for message in got] == sent
    times = [message.publish_time.ToDatetime() for message in got]
    assert times == sorted(times)
    assert times[0].year > 2000
    assert {message.producer_id for message in got} == {"shop"}


def test_ordered_consume(channel: grpc.Channel, topic: str) -> None:
    for first in range(0, 1_000, 100):
        publish(channel, topic, *(b"%d" % n for n in range(first, first + 100)))

    frames = list(open_stream(channel, topic, until_caught_up=True))

    assert frames[0].HasField("attached")
    assert frames[-1].HasField("caught_up")
    got = [message for frame in frames for message in frame.batch.messages]
    assert [message.offset for message in got] == list(range(1_000))
    assert [message.payload for message in got] == [b"%d" % n for n in range(1_000)]
    billing = get_consumer(channel, topic)
    assert (billing.position, billing.lag) == (1_000, 0)


def test_manual_commit_and_resume(channel: grpc.Channel, topic: str) -> None:
    consumers = ConsumerServiceStub(channel)
    publish(channel, topic, *(b"%d" % n for n in range(10)))

    stream = open_stream(channel, topic, commit_mode=COMMIT_MODE_MANUAL)
    epoch = next_frame(stream, "attached").attached.epoch
    assert [message.offset for message in islice(messages(stream), 10)] == list(range(10))
    commit = CommitRequest(topic=topic, consumer_id="billing", epoch=epoch, position=4)
    assert consumers.Commit(commit, timeout=SECONDS).position == 4
    stream.cancel()

    resumed = open_stream(channel, topic, commit_mode=COMMIT_MODE_MANUAL)
    assert next_frame(resumed, "attached").attached.position == 4
    assert next(messages(resumed)).offset == 4

    commit.position = 5
    with pytest.raises(grpc.RpcError) as late:
        consumers.Commit(commit, timeout=SECONDS)
    assert late.value.code() is grpc.StatusCode.ABORTED
    assert info_of(late.value).reason == "LEASE_LOST"


def test_standby_and_take_over(channel: grpc.Channel, topic: str) -> None:
    holder = open_stream(channel, topic, client_name="first")
    assert next(holder).HasField("attached")

    standby = open_stream(channel, topic, client_name="second", on_busy=ON_BUSY_WAIT)
    assert next(standby).standby.holder == "first"

    with pytest.raises(grpc.RpcError) as refused:
        list(open_stream(channel, topic, client_name="third", on_busy=ON_BUSY_FAIL))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert info_of(refused.value).reason == "LEASE_HELD"
    assert info_of(refused.value).metadata["holder"] == "first"

    taker = open_stream(channel, topic, client_name="fourth", on_busy=ON_BUSY_TAKE_OVER)
    next_frame(taker, "attached")
    with pytest.raises(grpc.RpcError) as ended:
        list(holder)
    assert ended.value.code() is grpc.StatusCode.ABORTED
    assert info_of(ended.value).reason == "LEASE_TAKEN_OVER"
    assert info_of(ended.value).metadata["holder"] == "fourth"

    taker.cancel()
    next_frame(standby, "attached")


def test_error_details(channel: grpc.Channel, topic: str) -> None:
    with pytest.raises(grpc.RpcError) as invalid:
        TopicServiceStub(channel).CreateTopic(
            CreateTopicRequest(topic="no spaces, please"), timeout=SECONDS
        )
    assert invalid.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    info = info_of(invalid.value)
    assert (info.domain, info.reason) == ("trunkline", "INVALID_FIELD")
    assert info.metadata["field"] == "topic"
    bad_request = error_detail(invalid.value, BadRequest)
    assert bad_request is not None
    assert [violation.field for violation in bad_request.field_violations] == ["topic"]

    request = PublishRequest(topic=topic, producer_id="stranger", messages=[NewMessage()])
    with pytest.raises(grpc.RpcError) as denied:
        ProducerServiceStub(channel).Publish(request, timeout=SECONDS)
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    info = info_of(denied.value)
    assert (info.domain, info.reason) == ("trunkline", "PRODUCER_NOT_REGISTERED")
    assert info.metadata == {"topic": topic, "producer_id": "stranger"}


def test_one_mebibyte_message(channel: grpc.Channel, topic: str) -> None:
    payload = bytes(range(256)) * 4_096
    assert publish(channel, topic, payload).first_offset == 0
    with pytest.raises(grpc.RpcError) as refused:
        publish(channel, topic, payload + b"!")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    [message] = messages(open_stream(channel, topic, until_caught_up=True))
    assert message.payload == payload
    assert get_topic(channel, topic).head == 1


def test_ten_thousand_messages_in_a_stream(channel: grpc.Channel, topic: str) -> None:
    def request(sequence: int) -> PublishStreamRequest:
        batch = [NewMessage(payload=b"%d" % n) for n in range(sequence, sequence + 100)]
        return PublishStreamRequest(
            topic=topic, producer_id="shop", sequence=sequence, messages=batch
        )

    requests = [request(sequence) for sequence in range(0, 10_000, 100)]
    repeated, with_a_gap, following = request(9_900), request(10_100), request(10_000)
    producers = ProducerServiceStub(channel)
    *answers, repetition, refused, next_one = producers.PublishStream(
        iter([*requests, repeated, with_a_gap, following]), timeout=SECONDS
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
    assert get_topic(channel, topic).head == 10_100


def test_cancel_frees_the_lease(channel: grpc.Channel, topic: str) -> None:
    publish(channel, topic, *(b"x" * 1_024 for _ in range(1_000)))
    reader = open_stream(channel, topic, max_batch_messages=10)
    assert len(next_frame(reader, "batch").batch.messages) == 10
    waiting = open_stream(channel, topic, on_busy=ON_BUSY_WAIT)
    assert next(waiting).HasField("standby")

    reader.cancel()

    position = next_frame(waiting, "attached").attached.position
    assert 10 <= position <= 1_000
    publish(channel, topic, b"last")
    assert next(messages(waiting)).offset == position


def test_deadline(channel: grpc.Channel, topic: str) -> None:
    request = ConsumeRequest(topic=topic, consumer_id="billing")
    with pytest.raises(grpc.RpcError) as passed:
        list(ConsumerServiceStub(channel).Consume(request, timeout=0.5))
    assert passed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    next_frame(open_stream(channel, topic), "attached")


def test_resume_after_a_restart(channel: grpc.Channel, topic: str) -> None:
    with (
        Broker() as broker,
        grpc.insecure_channel(broker.target, CHANNEL_OPTIONS) as its_channel,
    ):
        publish(channel, topic, *(b"%d" % n for n in range(10)))
        got = consume(its_channel, topic, "billing")
        before = list(islice(got, 5))

        def restart() -> None:
            broker.stop()
            publish(channel, topic, *(b"%d" % n for n in range(10, 20)))
            broker.start()

        restarting = Thread(target=restart)
        restarting.start()
        after = list(islice(got, 15))
        restarting.join()

    assert [message.offset for message in before + after] == list(range(20))
    assert [message.payload for message in before + after] == [b"%d" % n for n in range(20)]


def publish(channel: grpc.Channel, topic: str, *payloads: bytes) -> PublishResponse:
    request = PublishRequest(
        topic=topic,
        producer_id="shop",
        messages=[NewMessage(payload=payload) for payload in payloads],
    )
    return ProducerServiceStub(channel).Publish(request, timeout=SECONDS)


def open_stream(channel: grpc.Channel, topic: str, **options: Any) -> Stream:
    request = ConsumeRequest(topic=topic, consumer_id="billing", **options)
    return ConsumerServiceStub(channel).Consume(request, timeout=SECONDS)


def next_frame(stream: Stream, event: str) -> ConsumeResponse:
    return next(frame for frame in stream if frame.WhichOneof("event") == event)


def messages(stream: Stream) -> Iterator[Message]:
    for frame in stream:
        yield from frame.batch.messages


def as_published(message: Message) -> NewMessage:
    key = message.key if message.HasField("key") else None
    return NewMessage(payload=message.payload, key=key, headers=message.headers)


def get_topic(channel: grpc.Channel, topic: str) -> Topic:
    return TopicServiceStub(channel).GetTopic(GetTopicRequest(topic=topic), timeout=SECONDS).topic


def get_consumer(channel: grpc.Channel, topic: str) -> Consumer:
    request = GetConsumerRequest(topic=topic, consumer_id="billing")
    return ConsumerServiceStub(channel).GetConsumer(request, timeout=SECONDS).consumer


def info_of(error: grpc.RpcError) -> ErrorInfo:
    info = error_detail(error, ErrorInfo)
    assert info is not None, error
    return info
