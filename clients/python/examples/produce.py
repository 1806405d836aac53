"""Stores each line of its input once, even if the broker goes away meanwhile.

Run it as `python -m examples.produce TOPIC PRODUCER < FILE`.
"""

import os
import sys

from trunkline import Client, Producer


def main() -> None:
    topic, producer_id = sys.argv[1:]
    target = os.environ.get("TRUNKLINE_TARGET", "127.0.0.1:50051")
    receipt = None
    with Client(target) as client, Producer(client, topic, producer_id) as producer:
        for line in sys.stdin.buffer:
            receipt = producer.publish(line.removesuffix(b"\n"))
    if receipt:
        print(f"stored up to offset {receipt.result()}")


if __name__ == "__main__":
    main()
