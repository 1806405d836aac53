"""A producer that stores each line of its input once, even if the broker goes away meanwhile.

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
    """Publishes each batch as one request of a stream, and yields the receipts in order.

    A request does not wait for the receipts of earlier ones. After a break, a new stream starts at
    the first request that was not answered. Each request keeps its sequence, so the broker stores
    it once.
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
            # Later requests are refused too, as they leave a gap in the sequence.
            if not error.refusal.HasField("retry_delay"):
                raise
            log.warning("%s", error)
            asked = error.refusal.retry_delay.ToTimedelta().total_seconds()
        finally:
            stream.cancel()
        time.sleep(pause_before_retry(failures, asked))
        failures += 1


class Refused(Exception):
    """The broker refused a request."""

    def __init__(self, refusal: PublishRefusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Outbox:
    """Numbers the batches, and keeps the requests until they are answered."""

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
        """The requests of a new stream: first the unanswered ones, then new ones."""
        last = -1
        for request in self._unanswered.copy():
            yield request
            last = request.sequence
        while following := self._next_after(last):
            yield following
            last = following.sequence

    def forget_first(self) -> None:
        """Drops the oldest request, which was answered."""
        del self._unanswered[0]

    def _next_after(self, last: int) -> PublishStreamRequest | None:
        with self._reading:
            # The broken stream may have read another batch while this one waited for the lock.
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
    """The sequence that the producer's next message must have."""
    request = GetProducerRequest(topic=topic, producer_id=producer_id)
    producer = producers.GetProducer(request, timeout=10).producer
    return producer.last_sequence + 1 if producer.HasField("last_sequence") else 0


def lines_as_they_come(descriptor: int) -> Iterator[list[bytes]]:
    """Yields the lines that can be read at once as a batch, so a typed line does not wait."""
    rest = b""
    # 8,192 bytes cannot hold more lines than a request may have messages, which is 10,000.
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
