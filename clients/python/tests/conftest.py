"""What the tests share: clients of the broker that the environment names, and topics."""

import os
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import grpc
import pytest

from tests.client import Client, Kind, connect
from tests.package import Package, open_package
from trunkline.v1.consumer_pb2 import RegisterConsumerRequest
from trunkline.v1.consumer_pb2_grpc import ConsumerServiceStub
from trunkline.v1.producer_pb2 import RegisterProducerRequest
from trunkline.v1.producer_pb2_grpc import ProducerServiceStub
from trunkline.v1.topic_pb2 import CreateTopicRequest
from trunkline.v1.topic_pb2_grpc import TopicServiceStub

TARGET = os.environ["TRUNKLINE_TARGET"]


@pytest.fixture
def channel() -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(TARGET) as channel:
        yield channel


@pytest.fixture(params=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
async def client(kind: Kind) -> AsyncIterator[Client]:
    async with connect(kind, TARGET) as client:
        yield client


@pytest.fixture
async def package(kind: Kind) -> AsyncIterator[Package]:
    async with open_package(kind, TARGET) as package:
        yield package


@pytest.fixture
def new_name() -> str:
    """A topic name that no other test uses."""
    return f"python-{uuid4()}"


@pytest.fixture
def topic(channel: grpc.Channel, new_name: str) -> str:
    """A topic with the producer `shop` and the consumer `billing`."""
    TopicServiceStub(channel).CreateTopic(CreateTopicRequest(topic=new_name), timeout=10)
    ProducerServiceStub(channel).RegisterProducer(
        RegisterProducerRequest(topic=new_name, producer_id="shop"), timeout=10
    )
    ConsumerServiceStub(channel).RegisterConsumer(
        RegisterConsumerRequest(topic=new_name, consumer_id="billing"), timeout=10
    )
    return new_name
