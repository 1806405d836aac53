"""The consumer of consume.py, for asyncio.

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
            # Frees the lease, also when the caller stops early.
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
        # The lease is lost, or the position was moved by a seek: the stream says which.
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
