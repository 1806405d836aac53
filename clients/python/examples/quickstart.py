"""Publishes a message and prints every message that the consumer has not received yet."""

import os
from collections.abc import Callable

import grpc

from trunkline.v1.consumer_pb2 import ConsumeRequest, RegisterConsumerRequest
from trunkline.v1.consumer_pb2_grpc import ConsumerServiceStub
from trunkline.v1.message_pb2 import NewMessage
from trunkline.v1.producer_pb2 import PublishRequest, RegisterProducerRequest
from trunkline.v1.producer_pb2_grpc import ProducerServiceStub
from trunkline.v1.topic_pb2 import CreateTopicRequest
from trunkline.v1.topic_pb2_grpc import TopicServiceStub


def ensure(make: Callable[..., object], request: object) -> None:
    try:
        make(request, timeout=5)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
            raise


with grpc.insecure_channel(os.environ.get("TRUNKLINE_TARGET", "127.0.0.1:50051")) as channel:
    topics = TopicServiceStub(channel)
    producers = ProducerServiceStub(channel)
    consumers = ConsumerServiceStub(channel)

    ensure(topics.CreateTopic, CreateTopicRequest(topic="orders"))
    shop = RegisterProducerRequest(topic="orders", producer_id="shop")
    ensure(producers.RegisterProducer, shop)
    billing = RegisterConsumerRequest(topic="orders", consumer_id="billing")
    ensure(consumers.RegisterConsumer, billing)

    coffee = NewMessage(key=b"table 7", payload=b"one coffee")
    order = PublishRequest(topic="orders", producer_id="shop", messages=[coffee])
    producers.Publish(order, timeout=5)

    unread = ConsumeRequest(topic="orders", consumer_id="billing", until_caught_up=True)
    for frame in consumers.Consume(unread, timeout=30):
        for message in frame.batch.messages:  # frames of other kinds hold none
            print(message.offset, message.payload.decode())
