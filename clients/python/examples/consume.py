"""Prints a topic's messages without end, and commits what it has printed.

Run it as `python -m examples.consume TOPIC CONSUMER`.
"""

import contextlib
import os
import sys

from trunkline import Client, Consumer


def main() -> None:
    topic, consumer_id = sys.argv[1:]
    target = os.environ.get("TRUNKLINE_TARGET", "127.0.0.1:50051")
    with Client(target) as client, Consumer(client, topic, consumer_id) as messages:
        for message in messages:
            print(message.offset, message.payload.decode(errors="replace"), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
