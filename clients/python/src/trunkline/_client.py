"""A blocking client."""

from contextlib import AbstractContextManager
from functools import cached_property
from typing import TypeVar

import grpc

from trunkline._errors import Error
from trunkline._target import Target
from trunkline.v1.topic_pb2 import CreateTopicRequest, Retention, Topic
from trunkline.v1.topic_pb2_grpc import TopicServiceStub

Request = TypeVar("Request")
Response = TypeVar("Response")


class Client(Target, AbstractContextManager["Client"]):
    """Calls a broker. Its channel is for stubs; each producer and consumer has one of its own."""

    @cached_property
    def channel(self) -> grpc.Channel:
        channel: grpc.Channel = self.open_channel(grpc)
        return channel

    def call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        timeout: float = 30,
    ) -> Response:
        """Calls a stub's method with the client's token; raises `Error` if that fails."""
        try:
            return method(request, timeout=timeout, metadata=self.metadata)
        except grpc.RpcError as error:
            raise Error.of(error) from error

    def ensure_topic(
        self, name: str, *, description: str = "", retention: Retention | None = None
    ) -> Topic:
        """Creates a topic unless it exists. What is given must not differ from what exists."""
        request = CreateTopicRequest(topic=name, description=description, retention=retention)
        request.if_missing = True
        return self.call(TopicServiceStub(self.channel).CreateTopic, request).topic

    def close(self) -> None:
        self.channel.close()

    def __exit__(self, *_: object) -> None:
        self.close()
