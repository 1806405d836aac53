"""The consumer of consume.py for asyncio.

Run it as `python -m examples.consume_async TOPIC CONSUMER`.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncGenerator

import grpc

from examples.progress import Progress
from examples.retry import CHANNEL_OPTIONS, may_retry, pause_before_retry, retry_delay
from trunkline.v1.consumer_pb2 import COMMIT_MODE_MANUAL, CommitRequest, ConsumeRequest
from trunkline.v1.consumer_pb2_grpc import ConsumerServiceStub
from trunkline.v1.message_pb2 import Message

log = logging.getLogger(__name__)


async def consume(
    channel: grpc.aio.Channel, topic: str, consumer_id: str
) -> AsyncGenerator[Message]:
    """Yields a topic's messages in order, for ever, each of them once.

    A message counts as dealt with when the next one is asked for; behind each batch that is
    committed. What was not committed when a process dies, the next one gets again.
    """
    consumers = ConsumerServiceStub(channel)
    request = ConsumeRequest(topic=topic, consumer_id=consumer_id, commit_mode=COMMIT_MODE_MANUAL)
    progress = Progress()
    failures = 0
    while True:
        stream = consumers.Consume(request)
        try:
            async for frame in stream:
                failures = 0
                for message in progress.take(frame):
                    yield message
                if frame.HasField("batch"):
                    await commit(channel, topic, consumer_id, progress)
        except grpc.RpcError as error:
            if not may_retry(error):
                raise
            pause = pause_before_retry(failures, retry_delay(error))
            log.warning("%s; trying again in %.1f s", error.details(), pause)
            await asyncio.sleep(pause)
            failures += 1
        finally:
            # Frees the lease, also when the caller has had enough.
            stream.cancel()


async def commit(
    channel: grpc.aio.Channel, topic: str, consumer_id: str, progress: Progress
) -> None:
    request = CommitRequest(
        topic=topic,
        consumer_id=consumer_id,
        epoch=progress.epoch,
        position=progress.next_offset,
    )
    try:
        await ConsumerServiceStub(channel).Commit(request, timeout=10)
    except grpc.RpcError as error:
        # The lease is lost or a seek came: what the stream says next tells which.
        if error.code() is not grpc.StatusCode.ABORTED:
            raise


async def main() -> None:
    topic, consumer_id = sys.argv[1:]
    target = os.environ.get("TRUNKLINE_TARGET", "127.0.0.1:50051")
    async with (
        grpc.aio.insecure_channel(target, CHANNEL_OPTIONS) as channel,
        contextlib.aclosing(consume(channel, topic, consumer_id)) as messages,
    ):
        async for message in messages:
            print(message.offset, message.payload.decode(errors="replace"), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
