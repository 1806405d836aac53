"""Runs the examples unchanged."""

import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import grpc
import pytest

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
        assert consuming.wait(SECONDS) == 0

    assert got == [f"{offset} {line}" for offset, line in enumerate(lines)]


def test_seek(topic: str) -> None:
    finish("produce", topic, "shop")
    assert finish("seek", topic, "billing") == "the next message is 0\n"


def test_work(topic: str) -> None:
    finish("produce", topic, "shop")
    assert finish("work", topic, "resize") == "0 one (attempt 1)\n1 two (attempt 1)\n"


def finish(*arguments: str) -> str:
    """Runs an example to its end, with two lines to read; returns what it prints."""
    finished = subprocess.run(
        command(*arguments),
        cwd=FOLDER,
        input="one\ntwo",
        timeout=SECONDS,
        check=True,
        capture_output=True,
        text=True,
    )
    return finished.stdout


def command(example: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"examples.{example}", *arguments]


def read(channel: grpc.Channel, topic: str) -> list[Message]:
    request = ReadMessagesRequest(topic=topic, max_messages=10_000)
    return list(TopicServiceStub(channel).ReadMessages(request, timeout=SECONDS).messages)
