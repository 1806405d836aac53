"""Runs the examples unchanged, and tests what they promise when a broker goes away."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import grpc
import pytest

from examples.consume import consume
from examples.produce import publish
from examples.retry import CHANNEL_OPTIONS
from tests.broker import Broker
from trunkline.v1.consumer_pb2 import SeekRequest
from trunkline.v1.consumer_pb2_grpc import ConsumerServiceStub
from trunkline.v1.message_pb2 import Message
from trunkline.v1.topic_pb2 import ReadMessagesRequest
from trunkline.v1.topic_pb2_grpc import TopicServiceStub

SECONDS = 10
FOLDER = Path(__file__).parent.parent


def test_quickstart() -> None:
    for _ in range(2):
        finished = subprocess.run(
            command("quickstart"), cwd=FOLDER, timeout=SECONDS, capture_output=True, text=True
        )
        assert finished.stderr == ""
        assert finished.stdout.split(maxsplit=1)[1] == "one coffee\n"


@pytest.mark.parametrize("consumer", ["consume", "consume_async"])
def test_produce_and_consume(topic: str, consumer: str) -> None:
    lines = [f"{n}: grüße, 世界\n" for n in range(1_000)]
    for part in (lines[:600], lines[600:]):
        subprocess.run(
            command("produce", topic, "shop"),
            input="".join(part),
            cwd=FOLDER,
            timeout=SECONDS,
            check=True,
            stdout=subprocess.DEVNULL,
            text=True,
        )

    with subprocess.Popen(
        command(consumer, topic, "billing"),
        cwd=FOLDER,
        stdout=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background makes them ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as consuming:
        assert consuming.stdout is not None
        got = list(islice(consuming.stdout, 1_000))
        consuming.send_signal(signal.SIGINT)
        assert consuming.wait(timeout=SECONDS) == 0

    assert got == [f"{offset} {line}" for offset, line in enumerate(lines)]


def test_produce_stores_once_despite_a_restart(channel: grpc.Channel, topic: str) -> None:
    with (
        Broker() as broker,
        grpc.insecure_channel(broker.target, CHANNEL_OPTIONS) as its_channel,
    ):

        def batches() -> Iterator[list[bytes]]:
            for n in range(50):
                yield [b"%d" % n, b"and %d" % n]
                if n == 20:
                    broker.stop()
                    broker.start()

        receipts = list(publish(its_channel, topic, "shop", batches()))

    assert [receipt.first_offset for receipt in receipts] == list(range(0, 100, 2))
    stored = [message.payload for message in read(channel, topic)]
    assert stored == [line for n in range(50) for line in (b"%d" % n, b"and %d" % n)]


def test_consume_follows_a_seek(channel: grpc.Channel, topic: str) -> None:
    list(publish(channel, topic, "shop", [[b"%d" % n for n in range(5)]]))
    got = consume(channel, topic, "billing")
    before = [message.offset for message in islice(got, 5)]
    seek(channel, topic, 2)
    after = [message.offset for message in islice(got, 3)]
    assert before + after == [0, 1, 2, 3, 4, 2, 3, 4]


def test_consume_follows_a_seek_made_during_a_break(channel: grpc.Channel, topic: str) -> None:
    list(publish(channel, topic, "shop", [[b"%d" % n for n in range(5)]]))
    with (
        Broker() as broker,
        grpc.insecure_channel(broker.target, CHANNEL_OPTIONS) as its_channel,
    ):
        got = consume(its_channel, topic, "billing")
        before = [message.offset for message in islice(got, 4)]
        broker.stop()
        seek(channel, topic, 2)
        broker.start()
        after = [message.offset for message in islice(got, 4)]
    assert before + after == [0, 1, 2, 3, 4, 2, 3, 4]


def command(example: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"examples.{example}", *arguments]


def seek(channel: grpc.Channel, topic: str, offset: int) -> None:
    request = SeekRequest(topic=topic, consumer_id="billing", offset=offset)
    ConsumerServiceStub(channel).Seek(request, timeout=SECONDS)


def read(channel: grpc.Channel, topic: str) -> list[Message]:
    request = ReadMessagesRequest(topic=topic, max_messages=10_000)
    return list(TopicServiceStub(channel).ReadMessages(request, timeout=SECONDS).messages)
