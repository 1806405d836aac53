"""A long-lived consumer: it commits what it has handled, and resumes after a break.

Run it as `python -m examples.consume TOPIC CONSUMER`.
"""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator

import grpc

from examples.progress import Progress
from examples.retry import CHANNEL_OPTIONS, may_retry, pause_before_retry, retry_delay
from trunkline.v1.consumer_pb2 import COMMIT_MODE_MANUAL, CommitRequest, ConsumeRequest
from trunkline.v1.consumer_pb2_grpc import ConsumerServiceStub
from trunkline.v1.message_pb2 import Message

log = logging.getLogger(__name__)


def consume(channel: grpc.Channel, topic: str, consumer_id: str) -> Iterator[Message]:
    """Yields a topic's messages in order, each once, without end.

    A message counts as handled when the caller asks for the next one. The position is committed
    after each batch. If the process dies, the next one starts again at the committed position.
    """
    consumers = ConsumerServiceStub(channel)
    request = ConsumeRequest(topic=topic, consumer_id=consumer_id, commit_mode=COMMIT_MODE_MANUAL)
    progress = Progress()
    failures = 0
    while True:
        stream = consumers.Consume(request)
        try:
            for frame in stream:
                failures = 0
                yield from progress.take(frame)
                if frame.HasField("batch"):
                    commit(channel, topic, consumer_id, progress)
        except grpc.RpcError as error:
            if not may_retry(error):
                raise
            pause = pause_before_retry(failures, retry_delay(error))
            log.warning("%s; trying again in %.1f s", error.details(), pause)
            time.sleep(pause)
            failures += 1
        finally:
            # Frees the lease, also when the caller stops early.
            stream.cancel()


def commit(channel: grpc.Channel, topic: str, consumer_id: str, progress: Progress) -> None:
    request = CommitRequest(
        topic=topic,
        consumer_id=consumer_id,
        epoch=progress.epoch,
        position=progress.next_offset,
    )
    try:
        ConsumerServiceStub(channel).Commit(request, timeout=10)
    except grpc.RpcError as error:
        # The lease is lost, or the position was moved by a seek: the stream says which.
        if error.code() is not grpc.StatusCode.ABORTED:
            raise


def main() -> None:
    topic, consumer_id = sys.argv[1:]
    target = os.environ.get("TRUNKLINE_TARGET", "127.0.0.1:50051")
    with grpc.insecure_channel(target, CHANNEL_OPTIONS) as channel:
        for message in consume(channel, topic, consumer_id):
            print(message.offset, message.payload.decode(errors="replace"), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
