"""Publishes a message and prints every message that the consumer has not received yet."""

import os

from trunkline import Client, Consumer, Producer

with Client(os.environ.get("TRUNKLINE_TARGET", "127.0.0.1:50051")) as client:
    client.ensure_topic("orders")
    with Producer(client, "orders", "shop") as producer:
        producer.publish(b"one coffee", key=b"table 7")
    with Consumer(client, "orders", "billing", until_caught_up=True) as messages:
        for message in messages:
            print(message.offset, message.payload.decode())
