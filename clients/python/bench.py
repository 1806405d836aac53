"""Compares the package with raw stubs: 600,000 messages of 100 bytes, published and consumed.

Run it as `../with-broker .venv/bin/python bench.py`. Both sides send requests of 4,000 messages, and
leave up to eight unanswered. They take turns, so that whatever else the machine does slows both.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median
from threading import Semaphore
from uuid import uuid4

from trunkline import Client, Consumer, Producer
from trunkline.v1.consumer_pb2 import (
    COMMIT_MODE_MANUAL,
    CommitRequest,
    ConsumeRequest,
    RegisterConsumerRequest,
)
from trunkline.v1.consumer_pb2_grpc import ConsumerServiceStub
from trunkline.v1.message_pb2 import NewMessage
from trunkline.v1.producer_pb2 import PublishStreamRequest, RegisterProducerRequest
from trunkline.v1.producer_pb2_grpc import ProducerServiceStub

MESSAGES = 600_000
BATCH = 4_000
IN_FLIGHT = 8
ROUNDS = 5
PAYLOAD = bytes(100)
#: The package must reach this share of the rate of raw stubs.
LEAST = 0.6

Run = Callable[[Client, str], None]


def main() -> None:
    with Client(os.environ["TRUNKLINE_TARGET"]) as client:
        # Each side publishes to every second topic, and consumes all of them.
        topics = [new_topic(client) for _ in range(2 * ROUNDS)]
        ratios = [
            compare("publish", client, list(zip([publish_raw, publish] * ROUNDS, topics))),
            compare("consume", client, [(run, it) for it in topics for run in (consume_raw, consume)]),
        ]
    if min(ratios) < LEAST:
        sys.exit(f"the package does not reach {LEAST} of the rate of raw stubs")


def new_topic(client: Client) -> str:
    return client.ensure_topic(f"bench-{uuid4()}").name


def compare(what: str, client: Client, runs: list[tuple[Run, str]]) -> float:
    """Makes runs with raw stubs and with the package in turns; returns the ratio of their rates."""
    rates = []
    for run, topic in runs:
        began = time.perf_counter()
        run(client, topic)
        rates.append(MESSAGES / (time.perf_counter() - began))
    raw, package = median(rates[::2]), median(rates[1::2])
    print(f"{what}: raw {raw:,.0f}/s, package {package:,.0f}/s, ratio {package / raw:.2f}")
    return package / raw


def publish(client: Client, topic: str) -> None:
    # No request is sent before it is full, as with raw stubs.
    with Producer(client, topic, "package", max_batch_messages=BATCH, linger=1) as producer:
        for _ in range(MESSAGES):
            receipt = producer.publish(PAYLOAD)
    assert receipt.result() == MESSAGES - 1


def publish_raw(client: Client, topic: str) -> None:
    producers = ProducerServiceStub(client.channel)
    registration = RegisterProducerRequest(topic=topic, producer_id="raw", fence=True)
    epoch = producers.RegisterProducer(registration).producer.epoch
    room = Semaphore(IN_FLIGHT)

    def requests() -> Iterator[PublishStreamRequest]:
        for sequence in range(0, MESSAGES, BATCH):
            room.acquire()
            yield PublishStreamRequest(
                topic=topic,
                producer_id="raw",
                producer_epoch=epoch,
                sequence=sequence,
                messages=[NewMessage(payload=PAYLOAD) for _ in range(BATCH)],
            )

    end = 0
    for answer in producers.PublishStream(requests()):
        room.release()
        end = answer.receipt.first_offset + answer.receipt.count
    assert end == MESSAGES


def consume(client: Client, topic: str) -> None:
    size = end = 0
    with Consumer(client, topic, "package", until_caught_up=True) as messages:
        for message in messages:
            size += len(message.payload)
            end = message.offset + 1
    assert (end, size) == (MESSAGES, MESSAGES * len(PAYLOAD))


def consume_raw(client: Client, topic: str) -> None:
    consumers = ConsumerServiceStub(client.channel)
    consumers.RegisterConsumer(RegisterConsumerRequest(topic=topic, consumer_id="raw"))
    request = ConsumeRequest(topic=topic, consumer_id="raw", commit_mode=COMMIT_MODE_MANUAL)
    size = end = epoch = 0
    stream = consumers.Consume(request)
    for frame in stream:
        epoch = epoch or frame.attached.epoch
        for message in frame.batch.messages:
            size += len(message.payload)
            end = message.offset + 1
        if frame.HasField("caught_up"):
            break
    commit = CommitRequest(topic=topic, consumer_id="raw", epoch=epoch, position=end)
    consumers.Commit(commit)
    stream.cancel()
    assert (end, size) == (MESSAGES, MESSAGES * len(PAYLOAD))


if __name__ == "__main__":
    main()
