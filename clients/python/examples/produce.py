"""A producer that stores each line of its input once, also when the broker goes away in between.

Run it as `python -m examples.produce TOPIC PRODUCER < FILE`.
"""

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from threading import Lock

import grpc

from examples.retry import CHANNEL_OPTIONS, may_retry, pause_before_retry, retry_delay
from trunkline.v1.message_pb2 import NewMessage
from trunkline.v1.producer_pb2 import (
    GetProducerRequest,
    PublishReceipt,
    PublishRefusal,
    PublishStreamRequest,
)
from trunkline.v1.producer_pb2_grpc import ProducerServiceStub

log = logging.getLogger(__name__)


def publish(
    channel: grpc.Channel, topic: str, producer_id: str, batches: Iterable[list[bytes]]
) -> Iterator[PublishReceipt]:
    """Publishes batches through one stream, and yields their receipts in order.

    A batch does not wait for the receipts of those before. After a break, a new stream begins at
    the first batch that was not answered; each keeps its sequence, and so is stored once.
    """
    producers = ProducerServiceStub(channel)
    outbox = Outbox(topic, producer_id, next_sequence(producers, topic, producer_id), batches)
    failures = 0
    while True:
        stream = producers.PublishStream(outbox.requests())
        try:
            for answer in stream:
                if answer.HasField("refusal"):
                    raise Refused(answer.refusal)
                failures = 0
                outbox.forget_first()
                yield answer.receipt
            return
        except grpc.RpcError as error:
            if not may_retry(error):
                raise
            log.warning("%s", error.details())
            asked = retry_delay(error)
        except Refused as error:
            # What was sent behind it is refused too, as it leaves a gap in the sequence.
            if not error.refusal.HasField("retry_delay"):
                raise
            log.warning("%s", error)
            asked = error.refusal.retry_delay.ToTimedelta().total_seconds()
        finally:
            stream.cancel()
        time.sleep(pause_before_retry(failures, asked))
        failures += 1


class Refused(Exception):
    """The broker has not stored a request."""

    def __init__(self, refusal: PublishRefusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Outbox:
    """Numbers the batches, and keeps the requests that are not answered yet."""

    def __init__(
        self, topic: str, producer_id: str, sequence: int, batches: Iterable[list[bytes]]
    ) -> None:
        self._topic = topic
        self._producer_id = producer_id
        self._sequence = sequence
        self._batches = iter(batches)
        self._reading = Lock()
        self._unanswered: list[PublishStreamRequest] = []

    def requests(self) -> Iterator[PublishStreamRequest]:
        """What a new stream is to send: what is not answered, and then what comes."""
        last = -1
        for request in self._unanswered.copy():
            yield request
            last = request.sequence
        while following := self._next_behind(last):
            yield following
            last = following.sequence

    def forget_first(self) -> None:
        """The first request is answered."""
        del self._unanswered[0]

    def _next_behind(self, last: int) -> PublishStreamRequest | None:
        with self._reading:
            # A stream that broke may have read one more while this one waited.
            for request in self._unanswered.copy():
                if request.sequence > last:
                    return request
            batch = next(self._batches, None)
            if batch is None:
                return None
            request = PublishStreamRequest(
                topic=self._topic,
                producer_id=self._producer_id,
                messages=[NewMessage(payload=payload) for payload in batch],
                sequence=self._sequence,
            )
            self._sequence += len(batch)
            self._unanswered.append(request)
            return request


def next_sequence(producers: ProducerServiceStub, topic: str, producer_id: str) -> int:
    """Where the count of a producer goes on."""
    request = GetProducerRequest(topic=topic, producer_id=producer_id)
    producer = producers.GetProducer(request, timeout=10).producer
    return producer.last_sequence + 1 if producer.HasField("last_sequence") else 0


def lines_as_they_come(descriptor: int) -> Iterator[list[bytes]]:
    """What there is to read becomes a batch: a line that is typed does not wait for others."""
    rest = b""
    # So few bytes cannot hold more lines than the 10,000 that a request may have.
    while data := os.read(descriptor, 8_192):
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            yield lines
    if rest:
        yield [rest]


def main() -> None:
    topic, producer_id = sys.argv[1:]
    target = os.environ.get("TRUNKLINE_TARGET", "127.0.0.1:50051")
    with grpc.insecure_channel(target, CHANNEL_OPTIONS) as channel:
        for receipt in publish(channel, topic, producer_id, lines_as_they_come(sys.stdin.fileno())):
            print(f"{receipt.count} stored from offset {receipt.first_offset} on", flush=True)


if __name__ == "__main__":
    main()
