"""The consumer of consume.py, for asyncio.

Run it as `python -m examples.consume_async TOPIC CONSUMER`.
"""

import asyncio
import contextlib
import os
import sys

from trunkline.aio import Client, Consumer


async def main() -> None:
    topic, consumer_id = sys.argv[1:]
    target = os.environ.get("TRUNKLINE_TARGET", "127.0.0.1:50051")
    async with Client(target) as client, Consumer(client, topic, consumer_id) as messages:
        async for message in messages:
            print(message.offset, message.payload.decode(errors="replace"), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
