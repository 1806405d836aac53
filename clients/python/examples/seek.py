"""Moves a consumer back to the oldest message, with a raw stub.

Run it as `python -m examples.seek TOPIC CONSUMER`.
"""

import os
import sys

from trunkline import Client
from trunkline.v1.consumer_pb2 import SeekRequest
from trunkline.v1.consumer_pb2_grpc import ConsumerServiceStub
from trunkline.v1.message_pb2 import LOG_EDGE_EARLIEST


def main() -> None:
    topic, consumer_id = sys.argv[1:]
    with Client(os.environ.get("TRUNKLINE_TARGET", "127.0.0.1:50051")) as client:
        consumers = ConsumerServiceStub(client.channel)
        request = SeekRequest(topic=topic, consumer_id=consumer_id, edge=LOG_EDGE_EARLIEST)
        print(f"the next message is {client.call(consumers.Seek, request).position}")


if __name__ == "__main__":
    main()
