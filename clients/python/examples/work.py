"""Works on the messages of a subscription, with a raw stub, until there are no more.

Run it as `python -m examples.work TOPIC SUBSCRIPTION`.
"""

import os
import sys
from queue import SimpleQueue

from trunkline import Client
from trunkline.v1.message_pb2 import Message
from trunkline.v1.subscription_pb2 import (
    Acknowledge,
    CreateSubscriptionRequest,
    OpenSubscription,
    Reject,
    SettleMessages,
    Settlement,
    SubscribeRequest,
)
from trunkline.v1.subscription_pb2_grpc import SubscriptionServiceStub


def main() -> None:
    topic, subscription_id = sys.argv[1:]
    with Client(os.environ.get("TRUNKLINE_TARGET", "127.0.0.1:50051")) as client:
        work(client, topic, subscription_id)


def work(client: Client, topic: str, subscription_id: str) -> None:
    subscriptions = SubscriptionServiceStub(client.channel)
    creation = CreateSubscriptionRequest(topic=topic, subscription_id=subscription_id)
    creation.if_missing = True
    client.call(subscriptions.CreateSubscription, creation)

    requests: SimpleQueue[SubscribeRequest | None] = SimpleQueue()
    opening = OpenSubscription(topic=topic, subscription_id=subscription_id)
    requests.put(SubscribeRequest(open=opening))
    events = subscriptions.Subscribe(iter(requests.get, None), metadata=client.metadata)
    try:
        for event in events:
            for delivery in event.deliveries.deliveries:
                for message, attempt in zip(
                    delivery.batch.messages, delivery.attempts, strict=True
                ):
                    settlement = handle(message, attempt)
                    settlement.delivery = delivery.delivery
                    settlement.offsets.append(message.offset)
                    settle = SettleMessages(settlements=[settlement])
                    requests.put(SubscribeRequest(settle=settle))
            if event.HasField("caught_up"):
                # Closes this side: what was settled is stored, and the stream ends. Without this,
                # it waits for new messages for ever.
                requests.put(None)
    finally:
        requests.put(None)


def handle(message: Message, attempt: int) -> Settlement:
    """Says what becomes of a message: `retry` would have it delivered again."""
    try:
        print(message.offset, message.payload.decode(), f"(attempt {attempt})", flush=True)
    except UnicodeDecodeError as error:
        return Settlement(reject=Reject(reason=f"the payload is not text: {error.reason}"))
    return Settlement(acknowledge=Acknowledge())


if __name__ == "__main__":
    main()
